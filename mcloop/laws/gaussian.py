"""Gaussian model, replace: every generation is fitted on n points drawn from the one before, and on nothing else.

All values are ratios to the truth's covariance: `S_g` and `mu_g` belong to fit g, `S_0` and `mu*` to the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln

from mcloop.laws.base import Law, fits


def chi_ratio(n: float) -> float:
    """E[chi_{n-1}] / sqrt(2) = Gamma(n/2) / Gamma((n-1)/2)."""
    return float(np.exp(gammaln(n / 2) - gammaln((n - 1) / 2)))


def replace_covariance(g: ArrayLike, n: float) -> np.ndarray:
    """E[S_g] / S_0, entrywise and so for the trace; replace, ddof 0, any dimension.

    The ML covariance of n points has mean (1 - 1/n) times the covariance that they were drawn from; `S_0` is the truth,
    so the first fit already carries one factor. Source: classical (ML bias); Kazdan et al. 2410.16713.
    """
    return np.power(1.0 - 1.0 / n, fits(g))


def replace_covariance_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """G1 with 1/(n - 1) for 1/n."""
    return np.power(1.0 - 1.0 / (n - 1.0), fits(g))


def replace_mean_error(g: ArrayLike, n: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0; replace, ddof 0, any dimension.

    Derived here, the conservation law: the second moment about mu* of a sample is on average that of its source, and
    ML keeps it whole as S + (mu - mu*)(mu - mu*)^T. So E[S_g] + E[(mu_g - mu*)(mu_g - mu*)^T] = S_0 at every g:
    the mean's error gains what the covariance loses. The same holds for accumulate, subsample and a fixed real set.
    """
    return 1.0 - replace_covariance(g, n)


def replace_w2(g: ArrayLike, n: float) -> np.ndarray:
    """E[W2^2(model g, truth)] / sigma^2; replace, ddof 0, one dimension.

    Derived here: W2^2 = (mu_g - mu*)^2 + (s_g - sigma)^2 between Gaussians has mean 2 sigma^2 - 2 sigma E[s_g] by
    conservation (G2), and s_g / s_{g-1} = chi_{n-1}/sqrt(n) has mean c = sqrt(2/n) Gamma(n/2)/Gamma((n-1)/2).
    """
    return 2.0 * (1.0 - np.power(np.sqrt(2.0 / n) * chi_ratio(n), fits(g)))


def replace_w2_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """G3 with sqrt(E[S_g]) for E[sqrt(S_g)], the Jensen gap forgotten."""
    return 2.0 * (1.0 - np.sqrt(replace_covariance(g, n)))


def unbiased_covariance(g: ArrayLike, n: float) -> np.ndarray:
    """E[S_g] / S_0; replace, ddof 1, any dimension: a martingale, although S_g -> 0 almost surely.

    The mean is carried by ever rarer, ever larger runs: more than 1e5 replicas are needed to see it past the first few
    generations, and collapse shows in the median, in E[sqrt(S_g)] (G5) or in E[log S_g] (G6). `n` does not enter.
    Source: Bertrand et al. 2310.00429; Shumailov et al. 2305.17493.
    """
    return np.ones_like(fits(g))


def unbiased_root(g: ArrayLike, n: float) -> np.ndarray:
    """E[sqrt(S_g)] / sqrt(S_0) = alpha^g; replace, ddof 1, one dimension.

    alpha = sqrt(2/(n-1)) Gamma(n/2)/Gamma((n-1)/2) is the mean of chi_{n-1}/sqrt(n-1). In d dimensions alpha^g bounds
    E tr sqrt(S_g) / tr sqrt(S_0) from above. Source: Bertrand et al. 2310.00429, Proposition 1.
    """
    return np.power(np.sqrt(2.0 / (n - 1.0)) * chi_ratio(n), fits(g))


def unbiased_root_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """G5 with the constant of ddof 0, sqrt(2/n) for sqrt(2/(n - 1))."""
    return np.power(np.sqrt(2.0 / n) * chi_ratio(n), fits(g))


def unbiased_log(g: ArrayLike, n: float) -> np.ndarray:
    """E[log(S_g / S_0)], natural logarithm; replace, ddof 1, one dimension.

    Derived here: S_g / S_{g-1} = chi^2_{n-1}/(n-1) independently, and E log chi^2_k = psi(k/2) + log 2.
    By the law of large numbers the same line is the almost-sure rate of collapse, -1/n a generation to leading order.
    """
    return fits(g) * float(digamma((n - 1.0) / 2.0) - np.log((n - 1.0) / 2.0))


def unbiased_log_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """G6 with n degrees of freedom for n - 1."""
    return fits(g) * float(digamma(n / 2.0) - np.log(n / 2.0))


def unbiased_log_det(g: ArrayLike, n: float, d: int) -> np.ndarray:
    """E[log det S_g - log det S_0], natural logarithm; replace, ddof 1, d dimensions, n > d.

    Derived here: det of a Wishart is the product of independent chi-squares of n - 1, ..., n - d degrees of freedom
    (Bartlett), so a generation adds sum_{i <= d} psi((n - i)/2) - d log((n - 1)/2). d = 1 is G6.
    """
    place = np.arange(1.0, d + 1.0)
    return fits(g) * float(np.sum(digamma((n - place) / 2.0)) - d * np.log((n - 1.0) / 2.0))


def unbiased_log_det_wrong(g: ArrayLike, n: float, d: int) -> np.ndarray:
    """G8 with n - 1 degrees of freedom for every dimension: d times G6."""
    return d * unbiased_log(g, n)


def unbiased_mean_error(g: ArrayLike, n: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0 = g/n; replace, ddof 1, any dimension.

    Each generation adds S_{g-1}/n, whose mean is S_0/n (G4). A draw from model g then has second moment 1 + g/n about
    mu*, which is the form in Shumailov et al. 2305.17493.
    """
    return fits(g) / n


def draws_second_moment(g: ArrayLike, n: float) -> np.ndarray:
    """Second moment about mu* of a draw from model g over tr S_0, ddof 1 and replace: 1 + g/n (Shumailov et al.)."""
    return 1.0 + fits(g) / n


def unbiased_mean_error_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """G7 counted from generation 0: g - 1 for g."""
    return (fits(g) - 1.0) / n


TABLE = (
    Law(
        id="G1",
        family="gaussian",
        regime="replace, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="(1 - 1/n)^g",
        source="classical; Kazdan et al. 2410.16713",
        value=replace_covariance,
        neighbour="1/(n-1) for 1/n",
        wrong=replace_covariance_wrong,
    ),
    Law(
        id="G2",
        family="gaussian",
        regime="replace, ddof 0",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="1 - (1 - 1/n)^g",
        source="derived here (conservation)",
        value=replace_mean_error,
        neighbour="g/n, as if the covariance did not shrink",
        wrong=unbiased_mean_error,
    ),
    Law(
        id="G3",
        family="gaussian",
        regime="replace, ddof 0, d = 1",
        quantity="E W2^2(g, truth) / sigma^2",
        formula="2 (1 - c^g), c = sqrt(2/n) Gamma(n/2)/Gamma((n-1)/2)",
        source="derived here",
        value=replace_w2,
        neighbour="sqrt(E S_g) for E sqrt(S_g)",
        wrong=replace_w2_wrong,
    ),
    Law(
        id="G4",
        family="gaussian",
        regime="replace, ddof 1",
        quantity="E tr S_g / tr S_0",
        formula="1",
        source="Bertrand et al. 2310.00429; Shumailov et al. 2305.17493",
        value=unbiased_covariance,
        neighbour="the decay of ddof 0, (1 - 1/n)^g",
        wrong=replace_covariance,
    ),
    Law(
        id="G5",
        family="gaussian",
        regime="replace, ddof 1, d = 1",
        quantity="E sqrt(S_g) / sqrt(S_0)",
        formula="alpha^g, alpha = sqrt(2/(n-1)) Gamma(n/2)/Gamma((n-1)/2)",
        source="Bertrand et al. 2310.00429, Prop. 1",
        value=unbiased_root,
        neighbour="sqrt(2/n) for sqrt(2/(n-1))",
        wrong=unbiased_root_wrong,
    ),
    Law(
        id="G6",
        family="gaussian",
        regime="replace, ddof 1, d = 1",
        quantity="E log(S_g / S_0)",
        formula="g [psi((n-1)/2) - log((n-1)/2)]",
        source="derived here",
        value=unbiased_log,
        neighbour="n degrees of freedom for n-1",
        wrong=unbiased_log_wrong,
    ),
    Law(
        id="G8",
        family="gaussian",
        regime="replace, ddof 1, any d",
        quantity="E[log det S_g - log det S_0]",
        formula="g [sum_{i<=d} psi((n-i)/2) - d log((n-1)/2)]",
        source="derived here",
        value=unbiased_log_det,
        neighbour="d times the law of one dimension",
        wrong=unbiased_log_det_wrong,
    ),
    Law(
        id="G7",
        family="gaussian",
        regime="replace, ddof 1",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="g/n",
        source="Shumailov et al. 2305.17493",
        value=unbiased_mean_error,
        neighbour="g-1 for g",
        wrong=unbiased_mean_error_wrong,
    ),
)
