"""What a certificate says: the exact rate, the least stable direction, the boundary if there is one, the papers' bound."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mcloop.certificates.fixed_point import fixed_point, settling
from mcloop.certificates.papers_bound import Bound, papers_bound
from mcloop.certificates.spectrum import dense_spectrum, spectrum
from mcloop.certificates.stability import Problem, Weighted, corrected, effect, matrices_at
from mcloop.errors import InputError
from mcloop.models.newton import DENSE


class Certificate(NamedTuple):
    """The stability of a loop at its fixed point.

    Attributes:
        lam, gamma, damping: of the loop; see `mcloop.certificates.stability`.
        parameters: how many.
        rate: what the least stable small perturbation is multiplied by a generation (spectral radius of J); stable below 1.
        rates: (k,) the leading eigenvalues of J.
        mu: (k,) those of F v = mu N v (NaN for an inexact sampler).
        direction: the least stable direction, a pytree like the parameters, of norm one.
        moves: root mean square speed of the samples along it, data units a unit of parameters; NaN where samples are
            no arrays.
        safe_lam: the largest stable lam, inf where every finite lam is stable, NaN where it was not asked for.
        exact: whether the sampler is exact, so that no finite boundary exists.
        bound: the papers', or None where the problem has no pointwise loss.
    """

    lam: float
    gamma: float
    damping: float
    parameters: int
    rate: float
    rates: np.ndarray
    mu: np.ndarray
    direction: Any
    moves: float
    safe_lam: float
    exact: bool
    bound: Bound | None

    @property
    def stable(self) -> bool:
        """Whether small perturbations die out."""
        return self.rate < 1

    def sentences(self) -> list[str]:
        """The certificate in words."""
        half = f", half of it gone in {np.log(0.5) / np.log(self.rate):.3g} generations" if 0.5 <= self.rate < 1 else ""
        said = [
            f"At lam {self.lam:g}{f', gamma {self.gamma:g}' if self.gamma else ''} the loop is "
            f"{'stable' if self.stable else 'UNSTABLE'}. The least stable "
            f"perturbation of its {self.parameters} parameters is multiplied by {self.rate:.4g} a generation{half}."
        ]
        if self.exact:
            said.append(
                "Maximum likelihood and an exact sampler: stable for every finite lam; in the limit a perturbation "
                + (
                    f"shrinks by 1/(1 + gamma) = {1 / (1 + self.gamma):.3g}."
                    if self.gamma
                    else "stays, and collapse is a random walk."
                )
            )
        elif np.isfinite(self.safe_lam):
            said.append(f"The sampler is not exact and has a boundary: stable below lam = {self.safe_lam:.4g}.")
        elif np.isinf(self.safe_lam):
            said.append("No boundary was found: stable at every lam that was tried.")
        if np.isfinite(self.moves):
            said.append(f"Along that direction samples move by {self.moves:.3g} (root mean square) a unit of parameters.")
        if self.bound is not None:
            b = self.bound
            verdict = f"guarantees a rate below {b.rate:.3g}" if b.rate < 1 else "gives no guarantee"
            said.append(
                f"The papers' bound {verdict} (alpha {b.alpha:.3g}, L at least {b.lipschitz:.3g}, epsilon {b.epsilon:.3g}, "
                f"k {b.k:.3g}; it would need lam below {b.safe_lam:.3g})."
            )
        if self.damping:
            said.append(f"A ridge of {self.damping:.3g} towards these parameters is part of every refit (damping).")
        return said


def certificate(
    problem: Problem,
    lam: float,
    gamma: float = 0.0,
    damping: float = 0.0,
    *,
    count: int = 4,
    differences: float | None = None,
    boundary: bool = False,
    settle: bool = True,
) -> Certificate:
    """The exact local rate of a loop: fixed real data + lam synthetic, corrected with strength gamma.

    Args:
        problem: the model at the optimum on its real data.
        lam: synthetic : real ratio, finite and > 0.
        gamma: strength of the mixture corrector, >= 0. (For any other corrector, let `problem.draw` correct.)
        damping: a ridge towards the fixed point in every refit, in units of the Hessian; 0 where that is positive definite.
        count: how many directions.
        differences: None differentiates the sampler; h > 0 takes differences of that size (see `products`).
        boundary: also search the largest stable lam of an inexact sampler.
        settle: move an inexact sampler's problem to its own fixed point first (up to 600 parameters; beyond that the
            parameters are taken for the fixed point).

    Raises:
        InputError: a bad number, a Hessian that is not positive definite, a loop without a fixed point.
    """
    for name, value, least in (("lam", lam, 0.0), ("gamma", gamma, 0.0), ("damping", damping, 0.0)):
        if not (np.isfinite(value) and value >= least) or (name == "lam" and value == 0):
            raise InputError(f"{name} must be a finite number {'> 0' if name == 'lam' else '>= 0'}, not {value!r}.")
    if differences is not None and not (np.isfinite(differences) and differences > 0):
        raise InputError(f"differences must be a finite step > 0 or None, not {differences!r}.")
    size = ravel_pytree(problem.params)[0].size
    moving = settle and not problem.exact and size <= DENSE
    posed, divided = (problem, gamma) if problem.exact else (corrected(problem, gamma), 0.0)
    posed = fixed_point(posed, lam) if moving else posed
    here = problem._replace(params=posed.params)
    found = spectrum(posed, lam, divided, damping, count, differences)
    safe = float("nan")
    if problem.exact:
        safe = float("inf")
    elif boundary:
        safe = safe_lam(problem, gamma, damping, differences=differences)
    direction = found.directions[0]
    unravel = ravel_pytree(here.params)[1]
    return Certificate(
        float(lam),
        float(gamma),
        float(damping),
        size,
        float(np.abs(found.rates[0])),
        found.rates,
        found.mu,
        unravel(jnp.asarray(direction, ravel_pytree(here.params)[0].dtype)),
        speed(here, direction),
        safe,
        problem.exact,
        None if problem.pointwise is None else papers_bound(here, lam, gamma, found.least),
    )


def safe_lam(
    problem: Problem, gamma: float = 0.0, damping: float = 0.0, upto: float = 1e4, precision: float = 1e-3, *, differences=None
) -> float:
    """The largest lam at which the loop has a stable fixed point, by doubling and bisection; inf if it is stable up to `upto`.

    The fixed point is followed from one lam to the next (up to 600 parameters). Past the boundary it may not exist at all: a
    sampler that widens the spread by s has none from lam = 1/(s^2 - 1), where its variance is infinite (law S1).
    """
    if problem.exact:
        return float("inf")
    problem, flat = corrected(problem, gamma), ravel_pytree(problem.params)[0]
    if flat.size <= DENSE:
        settle, whole = settling(problem), matrices_at(problem, differences)

    def at(lam, start) -> jax.Array | None:
        """The fixed point if it is stable there."""
        try:
            if flat.size > DENSE:
                here, found = start, spectrum(problem, lam, 0.0, damping, 1, differences)
            else:
                here = settle(start, lam)
                found = dense_spectrum(whole(here), False, lam, 0.0, damping, 1)
        except InputError:
            return None
        return here if np.abs(found.rates[0]) < 1 else None

    lam, good = 1 / 64, at(1 / 64, flat)
    if good is None:
        return 0.0
    while lam < upto and (there := at(2 * lam, good)) is not None:
        lam, good = 2 * lam, there
    if lam >= upto:
        return float("inf")
    low, high = lam, 2 * lam
    while high / low > 1 + precision:
        middle = float(np.sqrt(low * high))
        there = at(middle, good)
        if there is None:
            high = middle
        else:
            low, good = middle, there
    return float(np.sqrt(low * high))


def speed(problem: Problem, direction: np.ndarray) -> float:
    """Root mean square speed of the samples along a direction of parameters (P,): how much it does to what the model draws."""
    points, moved = effect(problem, direction)
    if not isinstance(points, Weighted) or not jnp.issubdtype(points.x.dtype, jnp.floating):
        return float("nan")
    square = np.asarray(moved.x, np.float64).reshape(len(moved.x), -1) ** 2
    return float(np.sqrt(np.asarray(points.weight, np.float64) @ square.sum(1)))
