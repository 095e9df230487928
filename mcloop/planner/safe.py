"""What is safe, as numbers: the laws of relative error inverted for the amount of synthetic data, of correction, of real data.

`tau` >= 1 is the tolerated squared error relative to a fit on the real data only; generation 1 is that fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import zetac

from mcloop import laws
from mcloop.laws.settled import corrected_parabola, corrected_relative_error, spread_relative_error

MOST = 2**20  # generations that are looked through


def stationary_corrected_error(lam: float, gamma: float) -> float:
    """The limit in g of `corrected_relative_error`: (1 + 3 lam)/(1 + 2 lam) at gamma = 0, 1/(1 + lam) for gamma = inf."""
    return float(corrected_parabola(lam, gamma)[0])


def worst_corrected_error(lam: float, gamma: float) -> float:
    """The largest `corrected_relative_error` of all fits from the second on.

    It can lie above the limit: the first corrected fits still lean on the real sample's own error. In x = r^(g-1) the error
    is a parabola, so the largest is at one of the two whole g beside its vertex, or the limit. Derived here.
    """
    end, p, q, r = (float(x) for x in corrected_parabola(lam, gamma))
    if q >= 0 or r == 0:
        return max(end, float(corrected_relative_error(2, lam, gamma)))
    top = np.log(min(1.0, -p / (2.0 * q))) / np.log(r) if p > 0 else np.inf
    if not np.isfinite(top):
        return end
    beside = np.maximum(np.floor(top) + np.array([1.0, 2.0]), 2.0)
    return max(end, float(corrected_relative_error(beside, lam, gamma).max()))


def safe_gamma(tau: float, lam: float) -> float:
    """The least strength of a mixture corrector that keeps lam n synthetic points within tau at every generation.

    `worst_corrected_error` inverted; it falls in gamma, since every term of B5's recursions does. 0 where lam is safe
    uncorrected. Any tau >= 1 can be met: perfect correction brings the error to 1/(1 + lam).
    """
    if worst_corrected_error(lam, 0.0) <= tau:
        return 0.0
    keep = brentq(lambda k: worst_corrected_error(lam, 1.0 / k - 1.0) - tau, 1e-12, 1.0, xtol=1e-15)
    return 1.0 / float(keep) - 1.0


def safe_spread_lam(tau: float, s: float, n: float) -> float:
    """The lam up to which a sampler of spread s stays within tau for ever (`spread_relative_error`); inf where every lam does.

    The error is walked along lam, since below s = 1 it may fall before it rises.
    """
    lam = np.concatenate([[0.0], np.geomspace(1e-9, 1e9, 4001)])
    over = spread_relative_error(lam, s, n) > tau
    if not over.any():
        return np.inf
    first = int(np.argmax(over))
    low, high = (float(x) for x in lam[first - 1 : first + 1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spread_relative_error(middle, s, n) <= tau else (low, middle)
    return low


def generations_within(error: Callable[[np.ndarray], np.ndarray], tau: float, limit: float) -> float:
    """The number of fits at which a rising relative error is still at most tau; inf where its `limit` is.

    At most 2^20 generations are looked through: that many are a lower bound.
    """
    if tau >= limit:
        return np.inf
    steps = 64
    while steps < MOST and error(np.array([steps]))[0] <= tau:
        steps *= 2
    return float(np.searchsorted(error(np.arange(1, steps + 1)), tau, side="right"))


def growth_ratio(tau: float) -> float:
    """The least factor by which purely synthetic sets must grow a generation to stay within tau for ever: tau/(tau - 1).

    Replace with n_g = n r^(g-1) points: the error of fit g is sum_{i <= g} n/n_i = 1 + 1/r + ... < r/(r - 1) (law A5 with
    other sizes), and r/(r - 1) = tau. Derived here. inf at tau = 1.
    """
    return tau / (tau - 1.0) if tau > 1.0 else np.inf


def growth_power(tau: float) -> float:
    """As `growth_ratio` for n_g = n g^p: the p with zeta(p) = tau, since the error is sum_{i <= g} i^-p. Derived here."""
    if tau == 1.0:
        return np.inf
    return float(brentq(lambda p: np.log(zetac(p) / (tau - 1.0)), 1.0 + 0.5 / tau, 60.0, xtol=1e-14))


def fresh_points(tau: float, n: float, m: float) -> tuple[float, float]:
    """The fewest fresh real points a generation that keep the error within tau of n real points', and their best weight.

    Beside m synthetic points, at the best weight w* of He, Xu and Cheng, the limit of C1 is V = w*(k)/n_f, k = n_f/m.
    Derived here: w*/k = (sqrt(1 + 4/k) - 1)/2, and n V = n w*/(k m) = tau gives, with u = tau m/n, k = 1/(u (1 + u)):
    n_f = n/(tau (1 + u)) and w* = 1/(1 + u). V goes from 1/n at generation 1 to its limit without overshooting.
    """
    u = tau * m / n
    return n / (tau * (1.0 + u)), 1.0 / (1.0 + u)


def generations_before_loss(count: float, lost: float) -> float:
    """The last fit under replace in which at most a share `lost` of the items seen `count` times is gone (law D4)."""
    return generations_within(lambda g: laws.token_lost(g, count), lost, 1.0)
