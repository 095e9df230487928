"""What a fixed real set settles at: W2 and variances of its loops, any smooth family, where a mean-square error explodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from mcloop.laws.accumulate import subsample_mean_error, subsample_mean_error_wrong
from mcloop.laws.base import Law, fits, pick, upto
from mcloop.laws.correctors import spread_variance
from mcloop.laws.mixed import (
    corrected_mean_error,
    corrected_mean_error_wrong,
    fixed_mean_error,
    fixed_relative_error,
)


def corrected_parabola(lam: ArrayLike, gamma: ArrayLike) -> tuple[np.ndarray, ...]:
    """(end, p, q, r): B5 for large n is end + p x + q x^2 in x = r^(g-1); see `corrected_relative_error`."""
    lam, gamma = np.asarray(lam, dtype=float), np.asarray(gamma, dtype=float)
    a = lam / (1.0 + lam)
    r = a / (1.0 + gamma)
    end = ((1.0 - a) ** 2 * (1.0 + r) / (1.0 - r) + a * (1.0 - a)) / (1.0 - r**2)
    p = 2.0 * (1.0 - a) * (a - r) / (1.0 - r) ** 2
    return end, p, 1.0 - end - p, r


def corrected_relative_error(g: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """Law B5 for large n over the error of real data only; fixed real set + lam n synthetic, mixture corrector gamma.

    Derived here: with a = lam/(1 + lam), r = a/(1 + gamma) and M, C in units of 1/n, B5's recursions are
    C <- (1-a) + r C and M <- (1-a)^2 + 2 (1-a) r C + r^2 M + a^2/lam, both from 1. So C = c + (1-c) r^(g-1) with
    c = (1-a)/(1-r), and M = end + p x + q x^2 in x = r^(g-1), where p = 2 (1-a) (1-c)/(1-r), q = 1 - end - p and
    end = [(1-a)^2 (1+r)/(1-r) + a^2/lam]/(1-r^2). At gamma = 0, p = 0 and this is B2.
    """
    end, p, q, r = corrected_parabola(lam, gamma)
    x = np.power(r, fits(g) - 1.0)
    return end + p * x + q * x**2


def corrected_w2(g: ArrayLike, d: float, lam: ArrayLike, gamma: ArrayLike = 0.0) -> np.ndarray:
    """n E W2^2 to the truth N(0, I) for large n; fixed real set + lam synthetic, mixture corrector gamma, d dimensions.

    r_g (d + d (d + 1)/4), r_g of `corrected_relative_error`. Derived here: W2^2 of N(mu, I + E) is |mu|^2 + |E|^2/4 to leading
    order, E|E|^2 of n real points is d (d + 1)/n, and E obeys the mean's recursion.
    """
    return corrected_relative_error(g, lam, gamma) * (d + d * (d + 1.0) / 4.0)


def corrected_w2_wrong(g: ArrayLike, d: float, lam: ArrayLike, gamma: ArrayLike = 0.0) -> np.ndarray:
    """B6 with the deviations as far off as the covariance, d (d + 1) for d (d + 1)/4."""
    return corrected_relative_error(g, lam, gamma) * (d + d * (d + 1.0))


def fixed_variance(g: ArrayLike, n: float, m: float) -> np.ndarray:
    """E tr S_g / tr S_0 = 1 - B1, by conservation; fixed n real + m new synthetic points, ddof 0, any dimension."""
    return 1.0 - fixed_mean_error(g, n, m)


def corrected_variance(g: ArrayLike, n: float, m: float, gamma: float) -> np.ndarray:
    """E tr S_g / tr S_0 = 1 - B5, by conservation: a corrected draw keeps the second moment."""
    return 1.0 - corrected_mean_error(g, n, m, gamma)


def subsample_variance(g: ArrayLike, n: float) -> np.ndarray:
    """E tr S_g / tr S_0 = 1 - A3, by conservation."""
    return 1.0 - subsample_mean_error(g, n)


def misspecified_relative_error(g: ArrayLike, lam: float, mu: float = 1.0, ratio: float = 1.0) -> np.ndarray:
    """Squared error about theta* over that of real data only; any smooth family, one number, fixed real + lam, n large.

    1 + [lam mu/(1 + 2 lam mu)] (N/V) (1 - a^(2(g-1))), a = lam mu/(1 + lam mu), mu = F/N (see J1) and `ratio` = N/V, V the
    variance of a real point's score. Derived here: the real set's own part, V/(n N^2), is there in every generation; synthetic
    noise lam F/n over (N + lam F)^2 enters each time and shrinks by a^2. Under-dispersed data (V < N) lose more than 1.5 times.
    """
    a = lam * mu / (1.0 + lam * mu)
    return 1.0 + lam * mu / (1.0 + 2.0 * lam * mu) * ratio * (1.0 - np.power(a, 2.0 * (fits(g) - 1.0)))


def misspecified_relative_error_wrong(g: ArrayLike, lam: float, mu: float = 1.0, ratio: float = 1.0) -> np.ndarray:
    """J2 as if well specified: B2."""
    return fixed_relative_error(g, lam)


def mean_square_matrix(n: float, m: float, T: float) -> np.ndarray:
    """What a generation does to (E v, E (mu - xbar_real)^2): Gaussian, ddof 0, n real + m synthetic at temperature T."""
    N = n + m
    a2 = (m / N) ** 2
    return np.array([[((m - 1.0) * T + n * T / N) / N, n * m / N**2], [a2 * T / m, a2]])


def mean_square_growth(n: float, m: float, T: float) -> float:
    """Its spectral radius: the mean error is stable below 1. Derived here; the typical seed's boundary lies higher.

    E v obeys a linear recursion, and few seeds with large v carry it: at n = 10, T = 1.5 it grows from lam = 2.2 on, where a
    typical seed is stable below 2.5. For n -> infinity both are law S1's lam (T - 1) = 1.
    """
    return float(np.abs(np.linalg.eigvals(mean_square_matrix(n, m, T))).max())


def mean_square_safe_lam(n: float, T: float, most: float = 1e6) -> float:
    """The lam (not rounded to whole points) below which the mean error is stable; inf where it is up to `most`."""
    if mean_square_growth(n, most * n, T) < 1.0:
        return np.inf
    low = 1.0 / n  # one synthetic point
    if mean_square_growth(n, low * n, T) >= 1.0:
        return low
    return float(brentq(lambda lam: mean_square_growth(n, lam * n, T) - 1.0, low, most, xtol=1e-12))


def tempered_variance(g: ArrayLike, n: float, m: float, T: float) -> np.ndarray:
    """E tr S_g / tr S_0; Gaussian, ddof 0, one dimension, fixed n real + m synthetic points drawn at temperature T.

    B1's recursion with T v for the variance of a draw: v <- [(n-1) + (m-1) T v + (n m/N) D_b]/N, D <- a^2 D_b,
    D_b = D + T v/m, from v = 1 - 1/n, D = 0. Derived here; T = 1 is 1 - B1.
    """
    N = n + m
    matrix, path = mean_square_matrix(n, m, T), []
    state = np.array([1.0 - 1.0 / n, 0.0])
    for _ in upto(g):
        path.append(state[0])
        state = matrix @ state + np.array([(n - 1.0) / N, 0.0])
    return pick(g, path)


def tempered_variance_wrong(g: ArrayLike, n: float, m: float, T: float) -> np.ndarray:
    """S2 as for infinitely many points: law S1."""
    return spread_variance(g, m / n, T**0.5)


def spread_relative_error(lam: ArrayLike, s: float, n: float) -> np.ndarray:
    """Squared error of a Gaussian's worse parameter over that of n real points alone, in the end; sampler of spread s.

    Fixed real set + lam synthetic points whose deviation is s times too large. Derived here, to leading order: the variance
    rests at v = 1/(1 - lam (s^2 - 1)) (S1), so its error is n (v - 1)^2/2 + v^2 [1 + a^2/(lam (1 - a^2))],
    a = lam s^2/(1 + lam), and the mean's 1 + b^2 s^2 v/(lam (1 - b^2)), b = lam/(1 + lam).
    inf where S1 is unstable. s = 1 is B2's limit.
    """
    lam = np.asarray(lam, dtype=float)
    room = 1.0 - lam * (s**2 - 1.0)
    v = np.divide(1.0, room, out=np.full_like(room, np.inf), where=room > 0.0)
    a, b = np.minimum(lam * s**2 / (1.0 + lam), 1.0), lam / (1.0 + lam)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = n / 2.0 * (v - 1.0) ** 2 + v**2 * (1.0 + lam * s**4 / (1.0 + lam) ** 2 / (1.0 - a**2))
        mean = 1.0 + lam / (1.0 + lam) ** 2 * s**2 * v / (1.0 - b**2)
    return np.where(room > 0.0, np.maximum(variance, mean), np.inf)


TABLE = (
    Law(
        id="B6",
        family="gaussian",
        regime="fixed real + lam synthetic, mixture corrector gamma, d dimensions, n large",
        quantity="n E W2^2(g, truth)",
        formula="r_g (d + d(d+1)/4), r_g the relative error of the mean (B5, n large)",
        source="derived here",
        value=corrected_w2,
        neighbour="d(d+1) for d(d+1)/4",
        wrong=corrected_w2_wrong,
    ),
    Law(
        id="B1v",
        family="gaussian",
        regime="fixed n real + m new synthetic, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="1 - B1",
        source="derived here (conservation)",
        value=fixed_variance,
        neighbour="1 - 1/n for ever, what the mean takes forgotten",
        wrong=lambda g, n, m: np.full_like(fits(g), 1.0 - 1.0 / n),
    ),
    Law(
        id="B5v",
        family="gaussian",
        regime="fixed n real + m synthetic, mixture corrector gamma, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="1 - B5",
        source="derived here (conservation)",
        value=corrected_variance,
        neighbour="1 - gamma for 1/(1 + gamma)",
        wrong=lambda g, n, m, gamma: 1.0 - corrected_mean_error_wrong(g, n, m, gamma),
    ),
    Law(
        id="A3v",
        family="gaussian",
        regime="accumulate-subsample, ddof 0",
        quantity="E tr S_g / tr S_0",
        formula="1 - A3",
        source="derived here (conservation)",
        value=subsample_variance,
        neighbour="a subsample with replacement",
        wrong=lambda g, n: 1.0 - subsample_mean_error_wrong(g, n),
    ),
    Law(
        id="J2",
        family="exponential",
        regime="fixed real + lam synthetic, misspecified, n large",
        quantity="E(theta_g - theta*)^2 over that of real data only",
        formula="1 + [lam mu/(1+2 lam mu)] (N/V) (1 - a^(2(g-1))), a = lam mu/(1+lam mu)",
        source="derived here",
        value=misspecified_relative_error,
        neighbour="N/V = 1, as if well specified",
        wrong=misspecified_relative_error_wrong,
    ),
    Law(
        id="S2",
        family="gaussian",
        regime="fixed n real + m synthetic at temperature T, ddof 0, d = 1",
        quantity="E S_g / S_0",
        formula="(v, D) <- A (v, D) + ((n-1)/N, 0); the mean is stable iff the spectral radius of A is below 1",
        source="derived here",
        value=tempered_variance,
        neighbour="infinitely many points (S1)",
        wrong=tempered_variance_wrong,
    ),
)
