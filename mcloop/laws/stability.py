"""Scalar laws of local stability, and how much synthetic data is safe.

N is minus the expected Hessian of the log-likelihood over the data and F the Fisher information over the model, at the
optimum; mu is a generalised eigenvalue of F v = mu N v (mu = 1 for a well-specified model).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, relax, total, upto


def jacobian_eigenvalue(lam: ArrayLike, mu: ArrayLike = 1.0, gamma: ArrayLike = 0.0) -> np.ndarray:
    """lam mu/((1 + lam mu)(1 + gamma)), an eigenvalue of the Jacobian of the population loop at its fixed point.

    Fixed real set + lam synthetic, exact maximum likelihood and sampler, mixture corrector of strength gamma. Derived
    here: differentiate the refit's optimality condition; J = (N + lam F)^-1 lam F/(1 + gamma). It lies in [0, 1): the
    loop is locally stable for every finite lam; lam -> infinity leaves the neutral direction, collapse by random walk.
    """
    lam, mu, gamma = (np.asarray(x, dtype=float) for x in (lam, mu, gamma))
    return lam * mu / ((1.0 + lam * mu) * (1.0 + gamma))


def papers_rho(lam: ArrayLike, k: ArrayLike) -> np.ndarray:
    """rho = lam k/(1 - lam k), k = 1 + eps L/alpha: the papers' bound on the rate, infinite from lam k = 1.

    Loop contracts when rho/(1 + gamma) < 1. The minus comes from a norm bound; the exact rate has a plus, and mu <= k.
    Source: Bertrand et al. 2310.00429, Theorem 1 (gamma = 0); Gillman et al. 2402.07087, Theorem 4.3.
    """
    load = np.asarray(lam, dtype=float) * np.asarray(k, dtype=float)
    return np.divide(load, 1.0 - load, out=np.full_like(load, np.inf), where=load < 1.0)


def papers_safe_lam(k: ArrayLike = 1.0, gamma: ArrayLike = 0.0) -> np.ndarray:
    """The lam below which the papers' bound grants stability: lam k = (1 + gamma)/(2 + gamma); sufficient only."""
    k, gamma = np.asarray(k, dtype=float), np.asarray(gamma, dtype=float)
    return (1.0 + gamma) / ((2.0 + gamma) * k)


def local_contraction(g: ArrayLike, lam: float, mu: float = 1.0, gamma: float = 0.0) -> np.ndarray:
    """theta_g - theta* over theta_1 - theta* along one eigenvector, small perturbations, infinite data.

    The power g - 1 of `jacobian_eigenvalue`; see there.
    """
    return relax(g, 1.0, float(jacobian_eigenvalue(lam, mu, gamma)), 0.0)


def local_contraction_wrong(g: ArrayLike, lam: float, mu: float = 1.0, gamma: float = 0.0) -> np.ndarray:
    """J1 with the sign of the papers' bound, lam mu/((1 - lam mu)(1 + gamma))."""
    return relax(g, 1.0, float(papers_rho(lam, mu)) / (1.0 + gamma), 0.0)


def replace_relative_error(g: ArrayLike) -> np.ndarray:
    """Squared error over that of real data only, n large, regular well-specified model, replace: g, without bound."""
    return fits(g)


def accumulate_relative_error(g: ArrayLike) -> np.ndarray:
    """As `replace_relative_error` under accumulate: sum_{i <= g} 1/i^2 < pi^2/6 = 1.645."""
    return total(g, 1.0 / upto(g) ** 2)


def subsample_relative_error(g: ArrayLike) -> np.ndarray:
    """As `replace_relative_error` under accumulate-subsample: below pi^2/2 - 2 = 2.935. The large-n form of A3."""
    i = upto(g)
    moved = (2.0 - 1.0 / np.maximum(i - 1.0, 1.0)) / i**2  # subsample error 1 - 1/(i-1) and noise 1, over i^2
    moved[0] = 1.0
    return total(g, moved) + 1.0 - 1.0 / fits(g)


WORST_ERROR = {
    "replace": np.inf,
    "accumulate": np.pi**2 / 6.0,
    "accumulate-subsample": np.pi**2 / 2.0 - 2.0,
    "fixed": 1.5,
    "fresh": (np.sqrt(5.0) - 1.0) / 2.0,
}
"""Largest long-run squared error over that of real data only (fixed: over all lam; fresh: n = m at the best weight)."""


def safe_lam(tau: ArrayLike) -> np.ndarray:
    """The largest lam with (1 + 3 lam)/(1 + 2 lam) <= tau: (tau - 1)/(3 - 2 tau), infinite from tau = 3/2.

    Fixed real set + lam synthetic, regular well-specified model, `tau` >= 1 the tolerated error relative to real data
    only. Derived here from the limit of B2.
    """
    tau = np.asarray(tau, dtype=float)
    if np.any(tau < 1.0):
        raise ValueError(f"tau is an error relative to real data only: at least 1, got {tau!r}")
    return np.divide(tau - 1.0, 3.0 - 2.0 * tau, out=np.full_like(tau, np.inf), where=tau < 1.5)


def safe_generations(tau: ArrayLike) -> np.ndarray:
    """The number of fits within tolerance `tau` under replace, where the relative error is g: floor(tau)."""
    return np.floor(np.asarray(tau, dtype=float))


TABLE = (
    Law(
        id="J1",
        family="exponential",
        regime="fixed real + lam synthetic, mixture corrector gamma, infinite data",
        quantity="(theta_g - theta*) / (theta_1 - theta*)",
        formula="[lam mu/((1 + lam mu)(1 + gamma))]^(g-1)",
        source="derived here; bounded in Bertrand et al. Thm 1 and Gillman et al. Thm 4.3",
        value=local_contraction,
        neighbour="the papers' 1 - lam mu for 1 + lam mu",
        wrong=local_contraction_wrong,
    ),
)
