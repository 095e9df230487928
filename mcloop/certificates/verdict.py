"""The verdict on a loop: what of it can be differentiated, and what must be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mcloop import random
from mcloop.certificates.blackbox import Rate, blackbox_rate
from mcloop.certificates.certificate import Certificate, certificate
from mcloop.certificates.stability import Problem
from mcloop.errors import InputError
from mcloop.types import Loop, State

_MANY = 2.0**22  # points that stand for infinitely many, where only their statistics are drawn
_DRAW, _RISK = 2**20 + 1, 2**20 + 2  # streams that no generation uses


class Verdict(NamedTuple):
    """What is said of one cell: its coordinates, and a certificate, a measured rate, or why there is neither."""

    cell: dict[str, Any]
    certificate: Certificate | None = None
    rate: Rate | None = None
    why: str = ""

    def sentences(self) -> list[str]:
        """In words."""
        if self.certificate is not None:
            return self.certificate.sentences() + ([self.why] if self.why else [])
        if self.rate is None:
            return [self.why]
        said = [self.why] if self.why else []
        said.append(
            f"Measured by running it twice, a little apart: the parameters' distance is multiplied by {self.rate.rate:.3g} a "
            f"generation (generation by generation {_listed(self.rate.parameters)}), that of the samples by "
            f"{self.rate.sample_rate:.3g} ({_listed(self.rate.samples)})."
        )
        return said


def _listed(factors: np.ndarray) -> str:
    return ", ".join(f"{x:.3g}" for x in factors)


def problem_of(loop: Loop, state: State, key: jax.Array) -> Problem:
    """The certificate's problem of a loop at a state: its own real data, its own sampler, its own corrector.

    The model's points are drawn under fixed random numbers, as many as its rows hold, or four million where only statistics
    are drawn. A corrector is taken for a part of the sampler and differentiated with it.

    Raises:
        InputError: the family has no `objective`.
    """
    model, objective = loop.model, loop.model.forms.objective
    if objective is None:
        raise InputError(f"model must be one that can be differentiated (it has an objective), not {model.name}.")
    key = random.as_key(key)
    k_draw, k_risk = (random.fold_in(key, i) for i in (_DRAW, _RISK))
    count = _MANY if model.memory.capacity is None else float(model.memory.capacity)
    plain = loop.corrector.name == "none"

    def draw(free):
        params = objective.params(free)
        if plain:
            return model.sample(k_draw, params, count)
        return loop.corrector.sample(k_draw, model, params, state.truth, count)

    return Problem(
        objective.free(state.params),
        lambda free, data: objective.risk(k_risk, free, data),
        state.real,
        draw,
        exact=objective.likelihood and plain,
    )


def certify(
    loop: Loop,
    key: jax.Array,
    *,
    state: State | None = None,
    real: Any = None,
    damping: float = 0.0,
    generations: int = 6,
    cell: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on a loop: a certificate for fixed real data + lam synthetic where the family can be differentiated, else a
    measured rate.

    Args:
        loop: any loop.
        key: of its randomness.
        state: a trained state, taken for the loop's fixed point; default the fit on real data, from where it is searched.
        real: what the loop starts from, where no state is given (see `make_loop`).
        damping: see `certificates.certificate`.
        generations: of the twins, where they are needed.
        cell: its coordinates, for the verdict.

    Raises:
        InputError: a bad number.
    """
    check_request(damping, generations)
    where, key = dict(cell or {}), random.as_key(key)
    lam = None if loop.regime.lam is None else float(loop.regime.lam)
    if loop.model.forms.objective is None:
        why = f"The {loop.model.name} family is not one that is differentiated here."
    elif lam is None:
        why = f"Regime '{loop.regime.name}' is not fixed real data + lam synthetic, which is what a certificate is of."
    elif lam == 0:
        return Verdict(
            where, why="No synthetic data: every generation is the fit on real data, and a perturbation is gone at once."
        )
    elif loop.corrector.refine is not None:
        why = f"Corrector '{loop.corrector.name}' changes the fit itself, which a certificate does not know of."
    elif not np.isfinite(lam):
        why = "Fully synthetic (lam = inf): no real data hold the loop."
    else:
        here = loop.init(key, real, generations) if state is None else state
        try:
            found = certificate(problem_of(loop, here, key), lam, damping=damping, settle=state is None)
        except InputError as error:
            return _measured(loop, where, key, here, None, generations, f"No certificate: {error}")
        part = "" if loop.corrector.name == "none" else f"Corrector '{loop.corrector.name}' is part of the sampler here."
        return Verdict(where, found, why=part)
    return _measured(loop, where, key, state, real, generations, why)


def check_request(damping: float, generations: int) -> None:
    """Raise InputError for a bad damping or number of generations."""
    if generations < 2:
        raise InputError(f"generations must be a whole number >= 2, not {generations}.")
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a finite number >= 0, not {damping!r}.")


def _measured(loop, cell, key, state, real, generations, why: str) -> Verdict:
    try:
        return Verdict(cell, rate=blackbox_rate(loop, key, generations, state=state, real=real), why=why)
    except InputError as error:
        return Verdict(cell, why=f"{why} No rate: {error}")
