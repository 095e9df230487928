"""Linear regression by OLS or ridge on labels from the model before: E||w_g - w*||^2 in the norm of Sigma.

Rows x ~ N(0, Sigma), T of them a generation, d columns, label noise of variance sigma2; means exist for T >= d + 2 and
simulation has finite variance for T >= d + 4. Errors are excess test errors, in units of the label squared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, total, upto
from mcloop.laws.mixed import fixed_relative_error


def ols_replace(g: ArrayLike, T: int, d: int, sigma2: float = 1.0) -> np.ndarray:
    """E||w_g - w*||^2_Sigma = g sigma2 d/(T - d - 1); replace, OLS, design re-used or fresh.

    w_g - w_{g-1} is the label noise of fit g, uncorrelated with the past; E tr[(X^T X)^-1 Sigma] = d/(T - d - 1).
    Source: Dohmatob et al. 2402.07712; restated by Gerstgrasser et al. 2404.01413 beside their Theorem 2.
    """
    return fits(g) * sigma2 * d / (T - d - 1.0)


def ols_replace_wrong(g: ArrayLike, T: int, d: int, sigma2: float = 1.0) -> np.ndarray:
    """L1 with T - d for T - d - 1."""
    return fits(g) * sigma2 * d / (T - d)


def ols_accumulate(g: ArrayLike, T: int, d: int, sigma2: float = 1.0) -> np.ndarray:
    """E||w_g - w*||^2_Sigma = sigma2 d/(T - d - 1) sum_{i <= g} 1/i^2; accumulate, OLS, the SAME design every time.

    Source: Gerstgrasser et al. 2404.01413, Theorem 2.
    """
    return sigma2 * d / (T - d - 1.0) * total(g, 1.0 / upto(g) ** 2)


def ols_accumulate_fresh(g: ArrayLike, T: int, d: int, sigma2: float = 1.0) -> np.ndarray:
    """E||w_g - w*||^2_Sigma = sigma2 d sum_{i <= g} 1/(i (i T - d - 1)); accumulate, OLS, a FRESH design every time.

    Derived here: w_i - w_{i-1} = A_i^-1 X_i^T eps_i, A_i = sum_{j <= i} X_j^T X_j, uncorrelated over i, with squared
    norm sigma2 E tr[A_i^-1 X_i^T X_i A_i^-1 Sigma]; the i terms of A_i are exchangeable, so this is 1/i of
    E tr[A_i^-1 Sigma] = d/(i T - d - 1).
    """
    i = upto(g)
    return sigma2 * d * total(g, 1.0 / (i * (i * T - d - 1.0)))


def ols_fixed(g: ArrayLike, T: int, d: int, lam: float, sigma2: float = 1.0) -> np.ndarray:
    """E||w_g - w*||^2_Sigma; fixed real rows + lam whole copies of the SAME design, labelled by the last model, OLS.

    sigma2 d/(T - d - 1) [1 + lam/(1 + 2 lam) (1 - a^(2(g-1)))], a = lam/(1 + lam): on a re-used design the coefficients are a
    mean, and B2 is exact at every T. Derived here.
    """
    return sigma2 * d / (T - d - 1.0) * fixed_relative_error(g, lam)


def ols_fixed_wrong(g: ArrayLike, T: int, d: int, lam: float, sigma2: float = 1.0) -> np.ndarray:
    """L5 with the labels of one generation late: g + 1 for g."""
    return ols_fixed(np.asarray(g) + 1, T, d, lam, sigma2)


def ridge_transfer(C: ArrayLike, ridge: float, Sigma: ArrayLike | None = None) -> float:
    """tr(R^T Sigma R Sigma^-1) with R = (C + ridge I)^-1 C, C = X^T X/T the empirical covariance of the last design."""
    C = np.asarray(C, dtype=float)
    Sigma = np.eye(len(C)) if Sigma is None else np.asarray(Sigma, dtype=float)
    R = np.linalg.solve(C + ridge * np.eye(len(C)), C)
    return float(np.trace(R.T @ Sigma @ R @ np.linalg.inv(Sigma)))


def ridge_clean_error(
    C: ArrayLike, ridge: float, T: int, w_star: ArrayLike, sigma2: float = 1.0, Sigma: ArrayLike | None = None
) -> float:
    """E||w - w*||^2_Sigma of ridge on real labels over a given design of T rows: bias plus variance."""
    C, w_star = np.asarray(C, dtype=float), np.asarray(w_star, dtype=float)
    Sigma = np.eye(len(C)) if Sigma is None else np.asarray(Sigma, dtype=float)
    Q = np.linalg.inv(C + ridge * np.eye(len(C)))
    bias = ridge * Q @ w_star
    return float(bias @ Sigma @ bias + sigma2 / T * np.trace(Q @ C @ Q @ Sigma))


def ridge_excess(
    g: ArrayLike, C: ArrayLike, ridge: float, T0: int, sigma2: float = 1.0, Sigma: ArrayLike | None = None
) -> np.ndarray:
    """What g - 1 synthetic generations add to E||w_g - w*||^2_Sigma when the g-th fit is a ridge on a given design.

    Fits 1, ..., g - 1 are OLS on T0 fresh rows each, noise sigma2; fit g is a ridge on labels from fit g - 1, over
    a design with empirical covariance C; average over designs by averaging `ridge_transfer`. The whole error adds
    `ridge_clean_error`. Source: Dohmatob et al. 2402.07712, whose n (synthetic generations) is g - 1.
    """
    d = len(np.asarray(C))
    return (fits(g) - 1.0) * sigma2 * ridge_transfer(C, ridge, Sigma) / (T0 - d - 1.0)


def ridge_excess_wrong(
    g: ArrayLike, C: ArrayLike, ridge: float, T0: int, sigma2: float = 1.0, Sigma: ArrayLike | None = None
) -> np.ndarray:
    """L3 with g for g - 1: the ridge itself counted among the OLS fits before it."""
    return ridge_excess(np.asarray(g) + 1, C, ridge, T0, sigma2, Sigma)


def ols_two_sources(g: ArrayLike, n1: int, n2: int, d: int, gap2: float, sigma2: float = 1.0) -> np.ndarray:
    """E||w - w1||^2_Sigma of OLS on n1 rows labelled by w1 and n2 rows labelled by w2; the same for every g.

    `gap2` = ||w2 - w1||^2_Sigma and N = n1 + n2. Derived here: with A_i = X_i^T X_i whitened and A their sum, it is
    sigma2 d/(N-d-1) + E||A^-1 A_2 delta||^2. U = A^-1/2 A_2 A^-1/2 is matrix beta, independent of A, with
    E[U M U] = (a + b) M + b tr(M) I, b = n1 n2/(N (N+2)(N-1)), a - b = n2 (n2-1)/(N (N-1)); and
    E[tr A^-1 tr A] = d (N d - 2)/(N-d-1). For N >> d it is sigma2 d/N + p2^2 gap2, p2 = n2/N
    (Dohmatob et al. 2410.04840, Strong model collapse).
    """
    N = n1 + n2
    b = n1 * n2 / (N * (N + 2.0) * (N - 1.0))
    a = b + n2 * (n2 - 1.0) / (N * (N - 1.0))
    bias = gap2 * (a + b + b * (N * d - 2.0) / (N - d - 1.0))
    return np.full_like(fits(g), sigma2 * d / (N - d - 1.0) + bias)


def ols_two_sources_limit(g: ArrayLike, n1: int, n2: int, d: int, gap2: float, sigma2: float = 1.0) -> np.ndarray:
    """L4 for N >> d, sigma2 d/N + (n2/N)^2 gap2, as in Dohmatob et al. 2410.04840."""
    N = n1 + n2
    return np.full_like(fits(g), sigma2 * d / N + (n2 / N) ** 2 * gap2)


TABLE = (
    Law(
        id="L1",
        family="regression",
        regime="replace, OLS",
        quantity="E||w_g - w*||^2_Sigma",
        formula="g sigma2 d/(T - d - 1)",
        source="Dohmatob et al. 2402.07712; Gerstgrasser et al. 2404.01413",
        value=ols_replace,
        neighbour="T - d for T - d - 1",
        wrong=ols_replace_wrong,
    ),
    Law(
        id="L2",
        family="regression",
        regime="accumulate, OLS, same design re-used",
        quantity="E||w_g - w*||^2_Sigma",
        formula="sigma2 d/(T - d - 1) sum_{i<=g} 1/i^2",
        source="Gerstgrasser et al. 2404.01413, Thm 2",
        value=ols_accumulate,
        neighbour="the law of a fresh design",
        wrong=ols_accumulate_fresh,
    ),
    Law(
        id="L2b",
        family="regression",
        regime="accumulate, OLS, fresh design every generation",
        quantity="E||w_g - w*||^2_Sigma",
        formula="sigma2 d sum_{i<=g} 1/(i (i T - d - 1))",
        source="derived here",
        value=ols_accumulate_fresh,
        neighbour="the law of a re-used design",
        wrong=ols_accumulate,
    ),
    Law(
        id="L5",
        family="regression",
        regime="fixed real + lam whole copies of the same design, OLS",
        quantity="E||w_g - w*||^2_Sigma",
        formula="sigma2 d/(T-d-1) [1 + lam/(1+2 lam) (1 - a^(2(g-1)))], a = lam/(1+lam)",
        source="derived here",
        value=ols_fixed,
        neighbour="g+1 for g",
        wrong=ols_fixed_wrong,
    ),
    Law(
        id="L3",
        family="regression",
        regime="replace, OLS then ridge at fit g",
        quantity="E||w_g - w*||^2_Sigma minus its value on real labels",
        formula="(g - 1) sigma2 tr(R^T Sigma R Sigma^-1)/(T0 - d - 1), R = (C + l I)^-1 C",
        source="Dohmatob et al. 2402.07712",
        value=ridge_excess,
        neighbour="g for g-1",
        wrong=ridge_excess_wrong,
    ),
    Law(
        id="L4",
        family="regression",
        regime="one OLS on n1 labels from w1 and n2 from w2",
        quantity="E||w - w1||^2_Sigma",
        formula="sigma2 d/(N-d-1) + gap2 [a + b + b (N d - 2)/(N-d-1)] ~ sigma2 d/N + (n2/N)^2 gap2",
        source="derived here; limit in Dohmatob et al. 2410.04840",
        value=ols_two_sources,
        neighbour="its large-N limit",
        wrong=ols_two_sources_limit,
    ),
)
