"""Gaussian mean on real and synthetic data together: a fixed real set, its corrected loop, and fresh real points.

Squared errors are ratios to tr S_0. A fixed real set has n points, to which every generation adds m = lam n new ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, pick, relax, upto


def fixed_mean_error(g: ArrayLike, n: float, m: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0; fixed n real + m new synthetic points a generation, ddof 0, any dimension.

    Derived here: D = E(mu - xbar_real)^2 obeys D <- a^2 (D + v/m), a = m/(n + m), D_1 = 0, and conservation (G2), which
    holds here too, gives v = 1 - 1/n - D; so D is a first-order recursion and the error is 1/n + D. Exact for every n.
    """
    share = (m / (n + m)) ** 2
    return 1.0 / n + relax(g, 0.0, share * (1.0 - 1.0 / m), share * (1.0 - 1.0 / n) / m)


def fixed_mean_error_wrong(g: ArrayLike, n: float, m: float) -> np.ndarray:
    """B1 one generation late: synthetic data already in the first fit."""
    return fixed_mean_error(np.asarray(g) + 1, n, m)


def fixed_relative_error(g: ArrayLike, lam: float) -> np.ndarray:
    """n E||mu_g - mu*||^2 / tr S_0 for large n; fixed real set + lam n new synthetic points.

    B1 to leading order in 1/n, true of any regular well-specified model with the error in Fisher units. Its limit
    (1 + 3 lam)/(1 + 2 lam) never exceeds 3/2. Source: derived here; the loop is Bertrand et al. 2310.00429.
    """
    a = lam / (1.0 + lam)
    return relax(g, 1.0, a**2, (1.0 - a**2) * float(stationary_relative_error(lam)))


def stationary_relative_error(lam: ArrayLike) -> np.ndarray:
    """lim_g of B2: (1 + 3 lam)/(1 + 2 lam), the error relative to real data only; 3/2 for lam -> infinity."""
    lam = np.asarray(lam, dtype=float)
    return (1.0 + 3.0 * lam) / (1.0 + 2.0 * lam)


def fixed_relative_error_wrong(g: ArrayLike, lam: float) -> np.ndarray:
    """B2 with the contraction a for a^2: its limit is (1 + 2 lam)/(1 + lam)."""
    a = lam / (1.0 + lam)
    return relax(g, 1.0, a, (1.0 - a) * (1.0 + 2.0 * lam) / (1.0 + lam))


def corrected_contraction(g: ArrayLike, lam: float, gamma: float) -> np.ndarray:
    """Mean gap at fit g between two loops on the same real points whose first fits differ by 1.

    Fixed real set + lam synthetic, mixture corrector pi_gamma p = (p + gamma p*)/(1 + gamma): each refit multiplies
    the gap by lam/((1 + lam)(1 + gamma)). Source: the exact form of the rate that Gillman et al. 2402.07087,
    Theorem 4.3, bounds; gamma = 0 is Bertrand et al. 2310.00429. Derived here: the refit mean is linear in the old one.
    """
    return relax(g, 1.0, lam / ((1.0 + lam) * (1.0 + gamma)), 0.0)


def corrected_contraction_wrong(g: ArrayLike, lam: float, gamma: float) -> np.ndarray:
    """B4 with the corrector's strength counted as more real data: lam/(1 + lam + gamma)."""
    return relax(g, 1.0, lam / (1.0 + lam + gamma), 0.0)


def _corrected_path(g: ArrayLike, n: float, m: float, keep: float) -> np.ndarray:
    """E||mu_g - mu*||^2 when a synthetic point is the old model's with probability `keep`, else the truth's."""
    a = m / (n + m)
    square, cross, path = 1.0 / n, 1.0 / n, [1.0 / n]
    for _ in upto(g)[1:]:
        old = keep**2 * square
        square = (1.0 - a) ** 2 / n + 2.0 * a * (1.0 - a) * keep * cross + a**2 * (old + (1.0 - old) / m)
        cross = (1.0 - a) / n + a * keep * cross
        path.append(square)
    return np.array(path)


def corrected_mean_error(g: ArrayLike, n: float, m: float, gamma: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0; fixed n real + m synthetic points from pi_gamma, ddof 0, any dimension.

    The Gaussian toy of Gillman et al. 2402.07087 with an exact corrector. Derived here: with k = 1/(1 + gamma),
    M = E mu^2, C = E[mu xbar_real] and mu* = 0, a corrected draw has mean k mu and (conservation) second moment 1, so
    C <- (1-a)/n + a k C and M <- (1-a)^2/n + 2 a (1-a) k C + a^2 [k^2 M + (1 - k^2 M)/m]. gamma = 0 is B1.
    """
    return pick(g, _corrected_path(g, n, m, 1.0 / (1.0 + gamma)))


def corrected_mean_error_wrong(g: ArrayLike, n: float, m: float, gamma: float) -> np.ndarray:
    """B5 with gamma as the truth's share itself: 1 - gamma for 1/(1 + gamma)."""
    return pick(g, _corrected_path(g, n, m, 1.0 - gamma))


def fresh_mean_error(g: ArrayLike, n: float, m: float, w: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0; n fresh real points a generation weigh w, m synthetic points 1 - w.

    Known or unbiased covariance (a draw has spread S_0 on average); the first fit is on n real points alone, error 1/n.
    V <- w^2/n + (1-w)^2 (V + 1/m), with limit {w^2/n + (1-w)^2/m}/{1 - (1-w)^2}.
    Source: He, Xu and Cheng (golden-ratio weighting).
    """
    return relax(g, 1.0 / n, (1.0 - w) ** 2, w**2 / n + (1.0 - w) ** 2 / m)


def fresh_mean_error_wrong(g: ArrayLike, n: float, m: float, w: float) -> np.ndarray:
    """C1 with the same real points every generation: 1/n + D, D <- (1-w)^2 (D + 1/m)."""
    return 1.0 / n + relax(g, 0.0, (1.0 - w) ** 2, (1.0 - w) ** 2 / m)


def fresh_best_weight(k: ArrayLike) -> np.ndarray:
    """w* = (sqrt(k^2 + 4k) - k)/2, the weight of real data that minimises the limit of C1, k = n/m; min V = w*/n.

    At k = 1 it is 1/golden ratio. Source: He, Xu and Cheng.
    """
    k = np.asarray(k, dtype=float)
    return (np.sqrt(k**2 + 4.0 * k) - k) / 2.0


TABLE = (
    Law(
        id="B1",
        family="gaussian",
        regime="fixed n real + m new synthetic, ddof 0",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="1/n + D_g, D <- a^2 [D (1 - 1/m) + (1 - 1/n)/m], D_1 = 0, a = m/(n+m)",
        source="derived here",
        value=fixed_mean_error,
        neighbour="g+1 for g",
        wrong=fixed_mean_error_wrong,
    ),
    Law(
        id="B2",
        family="gaussian",
        regime="fixed n real + lam n new synthetic, n large",
        quantity="n E||mu_g - mu*||^2 / tr S_0",
        formula="1 + lam/(1 + 2 lam) (1 - a^(2(g-1))), a = lam/(1+lam)",
        source="derived here; loop of Bertrand et al. 2310.00429",
        value=fixed_relative_error,
        neighbour="a for a^2",
        wrong=fixed_relative_error_wrong,
    ),
    Law(
        id="B4",
        family="gaussian",
        regime="fixed real + lam synthetic, mixture corrector gamma",
        quantity="E[gap of the means at g] / gap at 1",
        formula="[lam/((1 + lam)(1 + gamma))]^(g-1)",
        source="exact form of Gillman et al. 2402.07087, Thm 4.3",
        value=corrected_contraction,
        neighbour="lam/(1 + lam + gamma), the corrector as more real data",
        wrong=corrected_contraction_wrong,
    ),
    Law(
        id="B5",
        family="gaussian",
        regime="fixed n real + m synthetic, mixture corrector gamma, ddof 0",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="M <- (1-a)^2/n + 2a(1-a)k C + a^2[k^2 M + (1 - k^2 M)/m], C <- (1-a)/n + a k C, k = 1/(1+gamma)",
        source="derived here; loop of Gillman et al. 2402.07087",
        value=corrected_mean_error,
        neighbour="1 - gamma for 1/(1 + gamma)",
        wrong=corrected_mean_error_wrong,
    ),
    Law(
        id="C1",
        family="gaussian",
        regime="n fresh real weighted w + m synthetic weighted 1 - w, ddof 1",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="V <- w^2/n + (1-w)^2 (V + 1/m), V_1 = 1/n",
        source="He, Xu and Cheng",
        value=fresh_mean_error,
        neighbour="the same real points every generation",
        wrong=fresh_mean_error_wrong,
    ),
)
