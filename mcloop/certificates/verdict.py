"""The verdict on a loop: what of it can be differentiated, and what must be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mcloop import random
from mcloop.certificates.blackbox import Rate, blackbox_rate
from mcloop.certificates.certificate import Certificate, certificate
from mcloop.certificates.spectrum import dense_spectrum
from mcloop.certificates.stability import Problem, columns, in_doubles
from mcloop.checks import whole
from mcloop.errors import InputError
from mcloop.exact.normal import Normal
from mcloop.models.newton import DENSE
from mcloop.types import Loop, State

_MANY = 2.0**22  # points that stand for infinitely many, where only their statistics are drawn
_ENOUGH = 2**14  # points that stand for them where rows are drawn, in as many draws as it takes
_SEEDS = 8  # draws over which a rate is given its scatter
_ALIKE = 1e-3  # mu - 1, below which the rate does not depend on the data
_DRAW, _RISK, _AGAIN = 2**20 + 1, 2**20 + 2, 2**20 + 3  # streams that no generation uses


class Verdict(NamedTuple):
    """What is said of one cell: its coordinates, and a certificate, a measured rate, or why there is neither.

    Attributes:
        cell: coordinates.
        certificate: of the loop at its first key's data.
        rate: measured by running it twice.
        why: in words, what neither of them says.
        rates: (seeds,) the certified rate of further draws of all that is random, the first included; None where there is
            nothing random in it.
    """

    cell: dict[str, Any]
    certificate: Certificate | None = None
    rate: Rate | None = None
    why: str = ""
    rates: np.ndarray | None = None

    def sentences(self) -> list[str]:
        """In words."""
        if self.certificate is not None:
            said = self.certificate.sentences()
            if self.rates is not None:
                said.append(f"Over {len(self.rates)} such draws the rate is {_scattered(self.rates)}.")
            return said + ([self.why] if self.why else [])
        said = [self.why] if self.why else []
        return said if self.rate is None else [*said, self.rate.sentence()]


def _scattered(rates: np.ndarray) -> str:
    error = rates.std(ddof=1) / len(rates) ** 0.5
    return f"{rates.mean():.4g} +- {error:.2g} (standard error), from {rates.min():.4g} to {rates.max():.4g}"


def problem_of(loop: Loop, state: State, key: jax.Array) -> Problem:
    """The certificate's problem of a loop at a state: its own real data, its own sampler, its own corrector.

    What the model hands on is its expectation where the family knows it; else points under fixed random numbers, four million
    where only statistics are drawn, and of rows as many draws as hold 16,384. A corrector is taken for a part of the sampler
    and differentiated with it.

    Raises:
        InputError: the family has no `objective`.
    """
    model, objective = loop.model, loop.model.forms.objective
    if objective is None:
        raise InputError(f"model must be one that can be differentiated (it has an objective), not {model.name}.")
    objective = objective if objective.at is None else objective.at(state.params)
    key = random.as_key(key)
    k_draw, k_risk = (random.fold_in(key, i) for i in (_DRAW, _RISK))
    plain, capacity = loop.corrector.name == "none", model.memory.capacity
    known = objective.expect
    # a corrector may look at rows one by one, and a quadrature's are no draws
    if known is not None and not plain and capacity is not None:
        known = None
    count = _MANY if capacity is None else float(capacity)
    size = ravel_pytree(objective.free(state.params))[0].size
    draws = -(-_ENOUGH // capacity) if known is None and capacity is not None and size <= DENSE else 1
    if known is not None:  # what a corrector asks for is handed on in its mean
        model = model._replace(sample=lambda key, params, m: model.memory.scale(known(params), m))

    def one(key, params):
        if plain:
            return model.sample(key, params, count) if known is None else known(params)
        return loop.corrector.sample(key, model, params, state.truth, count)

    def draw(free):
        params = objective.params(free)
        if draws == 1:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], one(k_draw, params))
        keys = jax.vmap(lambda i: random.fold_in(k_draw, i))(jnp.arange(draws, dtype=jnp.uint32))
        return jax.vmap(lambda key: one(key, params))(keys)

    def risk(free, bodies):
        return jax.vmap(lambda body: objective.risk(k_risk, free, body))(bodies).mean()

    data = jax.tree.map(lambda x: jnp.asarray(x)[None], state.real)
    return Problem(objective.free(state.params), risk, data, draw, exact=objective.likelihood and plain)


def certify(
    loop: Loop,
    key: jax.Array,
    *,
    state: State | None = None,
    real: Any = None,
    damping: float = 0.0,
    generations: int = 6,
    seeds: int | None = None,
    cell: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on a loop: a certificate for fixed real data + lam synthetic where the family can be differentiated, else a
    measured rate. Of copies that are compared with each other (`growth_twins`) it is that of the loop they are copies of.

    Args:
        loop: any loop.
        key: of its randomness.
        state: a trained state, taken for the loop's fixed point; default the fit on real data, from where it is searched.
        real: what the loop starts from, where no state is given (see `make_loop`).
        damping: see `certificates.certificate`.
        generations: of the twins, where they are needed.
        seeds: draws of all that is random (real data that are not given, the model's points), for the scatter of the rate;
            default 8, and 1 for a model on the host.
        cell: its coordinates, for the verdict.

    Raises:
        InputError: a bad number, or an external model.
    """
    check_request(damping, generations)
    loop = loop if loop.alone is None else loop.alone
    if loop.model.hosted is not None and loop.model.hosted.shown is not None:
        raise InputError(
            f"No certificate: {loop.model.name} is a generator of your own, whose parameters are no numbers that could be "
            "moved a little; `mcloop plan` reads what its run measured."
        )
    where, key = dict(cell or {}), random.as_key(key)
    many = (1 if loop.model.hosted is not None else _SEEDS) if seeds is None else whole("seeds", seeds, 1, 10**6)
    asked = None if loop.regime.lam is None else float(loop.regime.lam)
    lam = None if asked is None else _whole_points(loop, asked)
    if loop.model.forms.objective is None:
        fit = f" (it is fitted by {loop.model.estimator})" if loop.model.estimator else ""
        why = f"the {loop.model.name} family declares no loss that could be differentiated{fit}"
    elif lam is None:
        why = f"regime '{loop.regime.name}' is not fixed real data + lam synthetic, which is what a certificate is of"
    elif lam == 0:
        few = f"lam {asked:g} of {float(loop.model.n):g} points is less than one. " if asked else ""
        none = "No synthetic data: every generation is the fit on real data, and a perturbation is gone at once."
        return Verdict(where, why=few + none)
    elif loop.corrector.refine is not None:
        why = f"corrector '{loop.corrector.name}' changes the fit itself, which a certificate does not know of"
    elif not np.isfinite(lam):
        why = "the loop is fully synthetic (lam = inf), so that no real data hold it"
    else:
        here = loop.init(key, real, generations) if state is None else state
        try:
            problem = problem_of(loop, here, key)
            found = certificate(problem, lam, damping=damping, settle=state is None)
        except InputError as error:
            why = _FLAT if _singular(here.params) else str(error).rstrip(".")
            return _measured(loop, where, key, here, None, generations, many, why)
        rates = None if many == 1 else _scatter(loop, key, state, real, generations, found, many)
        return Verdict(where, found, why=_remarks(loop, problem, found, asked, rates), rates=rates)
    return _measured(loop, where, key, state, real, generations, many, why)


def _whole_points(loop: Loop, lam: float) -> float:
    """The ratio that a loop has in fact: it draws whole points, floor(lam n) of them."""
    if not np.isfinite(lam) or not np.size(loop.model.n) == 1:
        return lam
    n = np.float64(loop.model.n)
    return float(loop.regime.draw(n, 2).synthetic / n)


def _scatter(loop, key, state, real, generations, found: Certificate, many: int) -> np.ndarray | None:
    """Rates of `many` draws of what is random, compiled once; None where nothing is, or where it is not known cheaply."""
    alike = np.all(np.abs(found.mu - 1) < _ALIKE)
    if not found.exact or alike or found.parameters > DENSE:
        return None

    @jax.jit
    def curvature(key):
        return columns(problem_of(loop, loop.init(key, real, generations) if state is None else state, key))

    rates = [found.rate]
    for i in range(1, many):
        m = in_doubles(curvature(random.fold_in(random.fold_in(key, _AGAIN), i)))
        rates.append(float(np.abs(dense_spectrum(m, True, found.lam, 0.0, found.damping, 1).rates[0])))
    return None if np.ptp(rates) < 1e-6 else np.asarray(rates)


def _remarks(loop: Loop, problem: Problem, found: Certificate, asked: float | None, rates) -> str:
    """What the certificate itself does not say: on whose data, by which points, of which lam."""
    said = []
    if asked is not None and abs(found.lam / asked - 1) > 1e-6:
        said.append(f"lam {asked:g} of {float(loop.model.n):g} points is {found.lam:g} in whole points.")
    if loop.corrector.name != "none":
        said.append(f"Corrector '{loop.corrector.name}' is part of the sampler here.")
    drawn = jax.tree.leaves(jax.eval_shape(problem.draw, problem.params))[0].shape[0]
    objective, capacity = loop.model.forms.objective, loop.model.memory.capacity
    expected = objective is not None and objective.expect is not None and (capacity is None or loop.corrector.name == "none")
    if not expected:
        points = f"{drawn * capacity:,} drawn points" if capacity is not None else f"{_MANY:,.0f} drawn points"
        said.append(f"The model's expectations are those of {points}, not exact.")
    if rates is None and not np.all(np.abs(found.mu - 1) < _ALIKE):
        said.append("It is that of this real data: other data of the same size have another rate.")
    return " ".join(said)


def check_request(damping: float, generations: int) -> None:
    """Raise InputError for a bad damping or number of generations."""
    if generations < 2:
        raise InputError(f"generations must be a whole number >= 2, not {generations}.")
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a finite number >= 0, not {damping!r}.")


_FLAT = (
    "the covariance of generation 1 is singular (data on a plane, a column that is constant, fewer rows than columns), where "
    "the loss has no second derivatives"
)
_GRAIN = 3e3  # condition of a root, whose square float32 does not tell from a singular covariance


def _singular(params) -> bool:
    """Whether parameters are those of a Gaussian that fills fewer dimensions than it has."""
    if not isinstance(params, Normal):
        return False
    root = np.asarray(params.root, np.float64)
    scale = np.abs(root) if root.ndim < 2 else np.linalg.svd(root, compute_uv=False) if np.isfinite(root).all() else np.zeros(1)
    return not scale.min() * _GRAIN > scale.max()


def _measured(loop, cell, key, state, real, generations, many: int, why: str) -> Verdict:
    """A measured rate in place of a certificate, or neither; in one sentence which, and why."""
    try:
        rate = blackbox_rate(loop, key, generations, state=state, real=real, seeds=many)
    except InputError as error:
        return Verdict(cell, why=f"Neither a certificate nor a rate: {why}; {str(error).rstrip('.')}.")
    return Verdict(cell, rate=rate, why=f"No certificate, but a measured rate: {why}.")
