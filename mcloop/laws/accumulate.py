"""Gaussian model on data that grow: accumulate, subsample of all that was accumulated, and replace with growing sizes.

Accumulate trains fit g on the n real points and on the n synthetic points of each of fits 1, ..., g - 1: g n in all.
Every law here is for ddof 0 and any dimension.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, pick, product, upto


def accumulate_covariance(g: ArrayLike, n: float) -> np.ndarray:
    """E[S_g] / S_0 = prod_{i <= g} (1 - 1/(n i^2)) -> sin(pi/sqrt n)/(pi/sqrt n); accumulate, ddof 0, any dimension.

    The pool's mean moves by 1/i of the new batch's deviation, a step of mean square S_{i-1}/(n i^2), and by
    conservation (G2) the covariance loses what the mean's error gains. Source: Kazdan et al. 2410.16713.
    """
    return product(g, 1.0 - 1.0 / (n * upto(g) ** 2))


def accumulate_covariance_limit(n: ArrayLike) -> np.ndarray:
    """lim_g of A1: sin(pi/sqrt n)/(pi/sqrt n), Euler's product."""
    return np.sinc(1.0 / np.sqrt(np.asarray(n, dtype=float)))


def accumulate_covariance_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """A1 with the real set counted as generation 0: i + 1 for i."""
    return product(g, 1.0 - 1.0 / (n * (upto(g) + 1.0) ** 2))


def accumulate_mean_error(g: ArrayLike, n: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0 = 1 - A1; accumulate, ddof 0, any dimension.

    Conservation (G2). To leading order (1/n) sum_{i <= g} 1/i^2, at most pi^2/6 times the error of real data alone.
    Source: Kazdan et al. 2410.16713 for A1, conservation derived here.
    """
    return 1.0 - accumulate_covariance(g, n)


def accumulate_mean_error_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """A2 to leading order in 1/n, the sum for the product."""
    return pick(g, np.cumsum(1.0 / upto(g) ** 2)) / n


def _subsample_path(g: ArrayLike, n: float, with_replacement: bool) -> np.ndarray:
    """E||mu_g - mu*||^2 for g = 1, 2, ...: p is the error of the pool's mean, e what the subsample adds to it."""
    p, e, v, path = 1.0 / n, 0.0, 1.0 - 1.0 / n, [1.0 / n]
    for i in upto(g)[1:]:
        p += (e + v / n) / i**2
        size = i * n
        e = (1.0 - p) / n if with_replacement else (size / (size - 1.0)) * (1.0 - p) * (1.0 / n - 1.0 / size)
        v = 1.0 - p - e
        path.append(p + e)
    return np.array(path)


def subsample_mean_error(g: ArrayLike, n: float) -> np.ndarray:
    """E||mu_g - mu*||^2 / tr S_0; accumulate-subsample, ddof 0, any dimension. E tr S_g / tr S_0 is 1 minus it.

    Fit g uses n points drawn without replacement from the g n accumulated ones. Derived here: the pool's mean moves
    by 1/g of the new batch's deviation, made of the subsample's error e and of sampling noise v/n; the subsample's mean
    differs from the pool's by the finite-population variance (N/(N-1))(1-p)(1/n - 1/N), N = g n; v = 1 - p - e by
    conservation. For large n, n times it tends to pi^2/2 - 2 = 2.935. The regime is in Kazdan et al. 2410.16713.
    """
    return pick(g, _subsample_path(g, n, with_replacement=False))


def subsample_mean_error_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """A3 with the subsample drawn with replacement (a bootstrap of the pool)."""
    return pick(g, _subsample_path(g, n, with_replacement=True))


def replace_sizes_covariance(g: ArrayLike, sizes: ArrayLike) -> np.ndarray:
    """E[S_g] / S_0 = prod_{i <= g} (1 - 1/n_i), n_i = `sizes[i - 1]` points at fit i; replace, ddof 0, any d."""
    return product(g, 1.0 - 1.0 / np.asarray(sizes, dtype=float))


def replace_multiple_covariance(g: ArrayLike, n: float) -> np.ndarray:
    """E[S_g] / S_0 = prod_{i <= g} (1 - 1/(i n)); replace-multiple, ddof 0, any dimension.

    Fit i uses i n points, all from fit i - 1: as many as accumulate has, but none of them old. One factor of G1 a fit;
    the mean's error grows like (log g)/n, so size alone does not save the loop. Source: the regime is
    Gerstgrasser et al. 2404.01413 ("replace-multiple"); the law is derived here.
    """
    return replace_sizes_covariance(g, n * upto(g))


TABLE = (
    Law(
        id="A1",
        family="gaussian",
        regime="accumulate, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="prod_{i<=g} (1 - 1/(n i^2))",
        source="Kazdan et al. 2410.16713",
        value=accumulate_covariance,
        neighbour="i+1 for i",
        wrong=accumulate_covariance_wrong,
    ),
    Law(
        id="A2",
        family="gaussian",
        regime="accumulate, ddof 0",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="1 - prod_{i<=g} (1 - 1/(n i^2))",
        source="Kazdan et al. 2410.16713 with conservation",
        value=accumulate_mean_error,
        neighbour="the leading order (1/n) sum 1/i^2",
        wrong=accumulate_mean_error_wrong,
    ),
    Law(
        id="A3",
        family="gaussian",
        regime="accumulate-subsample, ddof 0",
        quantity="E||mu_g - mu*||^2 / tr S_0",
        formula="p_g + e_g; p += (e + v/n)/g^2, e = (N/(N-1))(1-p)(1/n - 1/N), v = 1-p-e, N = g n",
        source="derived here",
        value=subsample_mean_error,
        neighbour="a subsample with replacement",
        wrong=subsample_mean_error_wrong,
    ),
    Law(
        id="A5",
        family="gaussian",
        regime="replace-multiple, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="prod_{i<=g} (1 - 1/(n i))",
        source="derived here; regime of Gerstgrasser et al. 2404.01413",
        value=replace_multiple_covariance,
        neighbour="accumulate's 1/(n i^2) for 1/(n i)",
        wrong=accumulate_covariance,
    ),
)
