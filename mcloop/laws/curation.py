"""Selection by a reward: Bradley-Terry curation of K candidates, alone and mixed with real data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, pick, relax


def curate(p: ArrayLike, r: ArrayLike, K: int) -> np.ndarray:
    """The law of the one kept of K draws from `p`, candidate j with probability e^{r_j} / sum_i e^{r_i}; exact.

    K p(x) E[e^{r(x)} / (e^{r(x)} + S)] with S over K - 1 other draws, and 1/s = int_0^inf e^{-us} du turns it into
    K p(x) int e^{r(x)} e^{-u e^{r(x)}} phi(u)^{K-1} du, phi(u) = sum_y p(y) e^{-u e^{r(y)}}. On the scale of log u the
    trapezium rule is exact to rounding. Source: the process of Ferbach et al. 2407.09499; the integral is derived here.
    """
    p, r = np.asarray(p, dtype=float), np.asarray(r, dtype=float)
    weight, step = np.exp(r - r.max()), 0.1
    u = np.exp(np.arange(-40.0, np.log(50.0 / weight.min()), step))[:, None]
    decay = np.exp(-u * weight)
    others = (decay @ p)[:, None] ** (K - 1)
    return K * p * step * np.sum(u * weight * decay * others, axis=0)


def curate_hard(p: ArrayLike, r: ArrayLike, K: int) -> np.ndarray:
    """The law of the draw of highest reward among K from `p`; equal rewards share by probability."""
    p, r = np.asarray(p, dtype=float), np.asarray(r, dtype=float)
    upto_r = np.array([p[r <= x].sum() for x in r])
    at_r = np.array([p[r == x].sum() for x in r])
    kept = np.divide(upto_r**K - (upto_r - at_r) ** K, at_r, out=np.zeros_like(p), where=at_r > 0)
    return p * kept


def _mean_utility(g: ArrayLike, p: ArrayLike, r: ArrayLike, K: int, hard: bool) -> np.ndarray:
    p, r = np.asarray(p, dtype=float), np.asarray(r, dtype=float)
    path = []
    for _ in range(int(fits(g).max())):
        path.append(float(p @ np.exp(r)))
        p = curate_hard(p, r, K) if hard else curate(p, r, K)
    return pick(g, path)


def curated_utility(g: ArrayLike, p: ArrayLike, r: ArrayLike, K: int) -> np.ndarray:
    """E_{p_g}[e^r]; finite outcomes with rewards r, p_1 = p, then p_{g+1} = law of the one kept of K draws from p_g.

    Infinite data. Each step gains at least `curation_gain_bound`. Source: Ferbach et al. 2407.09499 (monotone, with the
    bound); the exact value by `curate`.
    """
    return _mean_utility(g, p, r, K, hard=False)


def curated_utility_wrong(g: ArrayLike, p: ArrayLike, r: ArrayLike, K: int) -> np.ndarray:
    """F1 with the highest reward always kept, not by Bradley-Terry odds."""
    return _mean_utility(g, p, r, K, hard=True)


def curation_gain_bound(p: ArrayLike, r: ArrayLike, K: int) -> float:
    """((K-1)/K) Var_p(e^r) / e^{r_max}: least gain of E[e^r] by one curation. Source: Ferbach et al. 2407.09499."""
    p, utility = np.asarray(p, dtype=float), np.exp(np.asarray(r, dtype=float))
    mean = p @ utility
    return float((K - 1) / K * (p @ (utility - mean) ** 2) / utility.max())


def curated_ratio_bound(g: ArrayLike, lam: float, K: int) -> np.ndarray:
    """Largest possible sup_x p_g(x)/p_ref(x); p_{g+1} = (p_ref + lam curate(p_g))/(1 + lam), p_1 = p_ref.

    Curation multiplies a density by at most K: R <- (1 + lam K R)/(1 + lam). Approached by a rare outcome of very high
    reward. For lam (K - 1) < 1 the limit is 1/(1 - lam (K - 1)). Source: Ferbach et al. 2407.09499.
    """
    return relax(g, 1.0, lam * K / (1.0 + lam), 1.0 / (1.0 + lam))


def curated_ratio_bound_wrong(g: ArrayLike, lam: float, K: int) -> np.ndarray:
    """F1b with lam as the synthetic share, (1 - lam) + lam K R."""
    return relax(g, 1.0, lam * K, 1.0 - lam)


TABLE = (
    Law(
        id="F1",
        family="corrector",
        regime="replace, the one kept of K by Bradley-Terry odds, infinite data",
        quantity="E_{p_g}[e^r]",
        formula="p <- K p int e^r exp(-u e^r) phi(u)^(K-1) du; gain >= ((K-1)/K) Var(e^r)/e^r_max",
        source="Ferbach et al. 2407.09499; exact form derived here",
        value=curated_utility,
        neighbour="the highest reward always kept",
        wrong=curated_utility_wrong,
    ),
    Law(
        id="F1b",
        family="corrector",
        regime="fixed real + lam curated of K, infinite data",
        quantity="sup over p_ref and r of max_x p_g(x)/p_ref(x)",
        formula="R <- (1 + lam K R)/(1 + lam), R_1 = 1; limit 1/(1 - lam (K-1))",
        source="Ferbach et al. 2407.09499",
        value=curated_ratio_bound,
        neighbour="lam as a share, (1 - lam) + lam K R",
        wrong=curated_ratio_bound_wrong,
    ),
)
