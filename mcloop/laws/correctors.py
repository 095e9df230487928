"""Verifiers, temperature, extrapolation and a sampler's spread. Unless n appears, laws are for infinite data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, relax


def verified_variance(g: ArrayLike, tau2: float, s2: float = 1.0) -> np.ndarray:
    """Variance of model g, 1/(1/s2 + (g - 1)/tau2); Gaussian, replace, soft verifier exp(-(x - c)^2/(2 tau2)).

    Model 1 is fitted on unfiltered real data of variance s2; every later fit sees draws kept with the verifier's
    probability. Derived here: a product of Gaussians adds precisions.
    """
    return 1.0 / (1.0 / s2 + (fits(g) - 1.0) / tau2)


def verified_variance_wrong(g: ArrayLike, tau2: float, s2: float = 1.0) -> np.ndarray:
    """F2 with the real data filtered too: g for g - 1."""
    return 1.0 / (1.0 / s2 + fits(g) / tau2)


def verified_mean(g: ArrayLike, tau2: float, c: float, mu: float = 0.0, s2: float = 1.0) -> np.ndarray:
    """Mean of model g in the loop of F2, a precision-weighted mean of truth and verifier: it tends to c, not to mu."""
    steps = fits(g) - 1.0
    return (mu / s2 + steps * c / tau2) / (1.0 / s2 + steps / tau2)


def verified_mean_wrong(g: ArrayLike, tau2: float, c: float, mu: float = 0.0, s2: float = 1.0) -> np.ndarray:
    """F2m with one weight for ever: the gap to c shrinks by the first step's tau2/(s2 + tau2) every time."""
    return relax(g, mu - c, tau2 / (s2 + tau2), 0.0) + c


def verified_label_error(g: ArrayLike, p: float, phi: float, psi: float) -> np.ndarray:
    """Share of wrong labels left after g - 1 independent passes of a verifier; g = 1 is the raw share p.

    It keeps a right label with probability phi and a wrong one with probability psi: the odds p/(1 - p) are multiplied
    by psi/phi a pass. Source: Feng et al. 2406.07515; one pass leaves a majority right iff p < phi/(phi + psi).
    """
    odds = p / (1.0 - p) * np.power(psi / phi, fits(g) - 1.0)
    return odds / (1.0 + odds)


def verified_label_error_wrong(g: ArrayLike, p: float, phi: float, psi: float) -> np.ndarray:
    """F3 with psi read as the chance to reject a wrong label: 1 - psi for psi."""
    return verified_label_error(g, p, phi, 1.0 - psi)


def verifier_threshold(phi: ArrayLike, psi: ArrayLike) -> np.ndarray:
    """phi/(phi + psi): the error rate below which most verified labels are right. Source: Feng et al. 2406.07515."""
    phi, psi = np.asarray(phi, dtype=float), np.asarray(psi, dtype=float)
    return phi / (phi + psi)


def _tilt(p: ArrayLike, power: np.ndarray) -> np.ndarray:
    """p^power normalised, for each power: shape (*power.shape, k); zero probabilities stay zero."""
    p = np.asarray(p, dtype=float)
    with np.errstate(divide="ignore"):
        logits = power[..., None] * np.log(p)
    kept = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return kept / kept.sum(axis=-1, keepdims=True)


def tempered(g: ArrayLike, p: ArrayLike, T: float) -> np.ndarray:
    """Probabilities of model g, p^(T^-(g-1)) normalised, shape (*g.shape, k); categorical at temperature T, replace.

    T < 1 ends on the mode, T > 1 uniform over the support. Derived here: each generation raises to the power 1/T.
    """
    return _tilt(p, np.power(float(T), 1.0 - fits(g)))


def tempered_wrong(g: ArrayLike, p: ArrayLike, T: float) -> np.ndarray:
    """T1 with powers added, 1 + (g - 1)(1/T - 1), not multiplied."""
    return _tilt(p, 1.0 + (fits(g) - 1.0) * (1.0 / T - 1.0))


def extrapolated_variance(g: ArrayLike, n: float, m: float, w: float) -> np.ndarray:
    """E[v_g] / sigma^2 = [(1 - 1/n)(1 + w/m)]^g; negative extrapolation (1 + w) v_r - w v_s, ddof 0, replace, d = 1.

    v_r is the ML variance of n points (real at g = 1, then from model g - 1) and v_s that of m points drawn from the
    Gaussian with v_r. E v_s = (1 - 1/m) v_r, whence the factor 1 + w/m; w = m/n leaves 1 - 1/n^2. Exact while
    (1 + w) v_r > w v_s. Derived here; the idea is that of Alemohammad et al. (SIMS).
    """
    return np.power((1.0 - 1.0 / n) * (1.0 + w / m), fits(g))


def extrapolated_variance_wrong(g: ArrayLike, n: float, m: float, w: float) -> np.ndarray:
    """N1 with the real count in the correction: w/n for w/m."""
    return np.power((1.0 - 1.0 / n) * (1.0 + w / n), fits(g))


def spread_variance(g: ArrayLike, lam: float, s: float) -> np.ndarray:
    """Variance of model g over that of the real data; fixed real + lam synthetic, a sampler that scales spread by s.

    v <- (v0 + lam s^2 v)/(1 + lam), v_1 = v0, means equal. Stable iff lam (s^2 - 1) < 1, with limit
    v0/(1 - lam (s^2 - 1)); lam = 1/(s^2 - 1) grows linearly. Derived here.
    """
    return relax(g, 1.0, lam * s**2 / (1.0 + lam), 1.0 / (1.0 + lam))


def spread_variance_wrong(g: ArrayLike, lam: float, s: float) -> np.ndarray:
    """S1 with s for s^2: s taken for a factor of the variance."""
    return relax(g, 1.0, lam * s / (1.0 + lam), 1.0 / (1.0 + lam))


def spread_safe_lam(s: ArrayLike) -> np.ndarray:
    """The lam below which S1 is stable: 1/(s^2 - 1), infinite for s <= 1."""
    excess = np.asarray(s, dtype=float) ** 2 - 1.0
    return np.divide(1.0, excess, out=np.full_like(excess, np.inf), where=excess > 0.0)


TABLE = (
    Law(
        id="F2",
        family="corrector",
        regime="replace, soft verifier of width tau on a Gaussian, infinite data",
        quantity="S_g",
        formula="1/(1/s2 + (g-1)/tau2)",
        source="derived here",
        value=verified_variance,
        neighbour="g for g-1",
        wrong=verified_variance_wrong,
    ),
    Law(
        id="F2m",
        family="corrector",
        regime="replace, soft verifier of width tau on a Gaussian, infinite data",
        quantity="mu_g",
        formula="(mu/s2 + (g-1) c/tau2)/(1/s2 + (g-1)/tau2)",
        source="derived here",
        value=verified_mean,
        neighbour="a geometric approach to c",
        wrong=verified_mean_wrong,
    ),
    Law(
        id="F3",
        family="corrector",
        regime="label verifier, g-1 passes",
        quantity="share of wrong labels among those kept",
        formula="odds_g = p/(1-p) (psi/phi)^(g-1)",
        source="Feng et al. 2406.07515",
        value=verified_label_error,
        neighbour="1 - psi for psi",
        wrong=verified_label_error_wrong,
    ),
    Law(
        id="T1",
        family="corrector",
        regime="replace, categorical at temperature T, infinite data",
        quantity="p_g",
        formula="p^(T^-(g-1)) / Z",
        source="derived here",
        value=tempered,
        neighbour="powers added, not multiplied",
        wrong=tempered_wrong,
    ),
    Law(
        id="N1",
        family="corrector",
        regime="replace with negative extrapolation, ddof 0, d = 1",
        quantity="E v_g / sigma^2",
        formula="[(1 - 1/n)(1 + w/m)]^g",
        source="derived here; idea of Alemohammad et al. (SIMS)",
        value=extrapolated_variance,
        neighbour="w/n for w/m",
        wrong=extrapolated_variance_wrong,
    ),
    Law(
        id="S1",
        family="corrector",
        regime="fixed real + lam synthetic, sampler of spread s, infinite data",
        quantity="v_g / v_0",
        formula="v <- (1 + lam s^2 v)/(1 + lam), v_1 = 1; limit 1/(1 - lam (s^2 - 1))",
        source="derived here",
        value=spread_variance,
        neighbour="s for s^2",
        wrong=spread_variance_wrong,
    ),
)
