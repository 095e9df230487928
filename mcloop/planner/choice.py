"""The first two questions: which regime for so many real and synthetic points, and how many synthetic points for an error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from mcloop import laws
from mcloop.planner.line import REGULAR, Line, count

_RATIOS = np.geomspace(1e-4, 1e5, 3601)  # synthetic : real, as they are looked through


def keep_all(lam: float, g: int) -> float:
    """The error at generation g, relative to real data only, of a loop that keeps all its data.

    The mean of n + (i - 1) m points moves by their newest m's deviation, of mean square m/(n + (i - 1) m)^2.
    """
    i = np.arange(1.0, g)
    return 1.0 + float(np.sum(lam / (1.0 + i * lam) ** 2))


def keep_real(lam: float, g: int) -> float:
    """The same where the real data stay and the synthetic ones are replaced (law B2)."""
    return float(laws.fixed_relative_error(g, lam))


def keep_newest(lam: float, g: int) -> float:
    """The same where only the newest synthetic points are left (law A5 with equal sizes)."""
    return 1.0 + (g - 1.0) / lam


REGIMES: dict[str, Callable[[float, int], float]] = {
    "keep all data": keep_all,
    "keep the real data, replace the synthetic": keep_real,
    "keep only the newest": keep_newest,
}


def which_regime(tau: float, n: int, lam: float, g: int) -> Line:
    """Which regime, and what error, for so many real and synthetic points."""
    own = {name: error(lam, g) for name, error in REGIMES.items()}
    best_weight = float(laws.fresh_best_weight(1.0 / lam))
    renewed = float(n * laws.fresh_mean_error(g, n, lam * n, best_weight))
    found = {**own, "as many new real points every generation, weighted best": renewed}
    told = "; ".join(f"{name} {error:.4g}" for name, error in sorted(found.items(), key=lambda x: x[1]))
    best = min(own, key=lambda name: own[name])
    fits = "within" if own[best] <= tau else "above"
    return Line(
        regime=f"{count(n)} real points and {count(lam * n)} synthetic ones a generation: which regime?",
        safe=f"{best}: error {own[best]:.4g} at generation {g}, {fits} {tau:g}. All: {told}",
        unit="error",
        value=own[best],
        points=lam * n,
        generations=float(g),
        formula="laws A2, B2, A5, C1, n large",
        assumption=(REGULAR,),
        source="derived here",
    )


def how_many(tau: float, n: int, g: int) -> Line:
    """The inverse: for an error of at most tau at generation g, how many synthetic points a generation in every regime."""
    allowed = {name: within(lambda lam, error=error: error(lam, g), tau) for name, error in REGIMES.items()}
    most = max((high for found in allowed.values() for _, high in found), default=0.0)
    return Line(
        regime=f"{count(n)} real points, an error of at most {tau:g} at generation {g}: how many synthetic ones a generation?",
        safe="; ".join(f"{name}: {_ranges(found, n)}" for name, found in allowed.items()),
        unit="most synthetic : real of any regime",
        value=most,
        points=most * n,
        generations=float(g),
        formula="the errors of line 1, inverted",
        assumption=(REGULAR,),
        source="derived here",
    )


def within(error: Callable[[float], float], tau: float) -> list[tuple[float, float]]:
    """The ranges of synthetic : real ratios, 1e-4 to 1e5, at which an error is at most tau; 0 and inf beyond the ends."""
    over = np.array([error(lam) > tau for lam in _RATIOS])
    edges = [i for i in range(1, len(over)) if over[i] != over[i - 1]]
    ends = [float(brentq(lambda x: error(x) - tau, _RATIOS[i - 1], _RATIOS[i], rtol=1e-12)) for i in edges]
    ends = ([] if over[0] else [0.0]) + ends + ([] if over[-1] else [np.inf])
    return list(zip(ends[::2], ends[1::2], strict=True))


def _ranges(found: list[tuple[float, float]], n: int) -> str:
    if found == [(0.0, np.inf)]:
        return "any number"
    said = []
    for low, high in found:
        if low == 0:
            said.append(f"up to {count(high * n)}" if high * n >= 1 else "none")
        else:
            few = count(np.ceil(low * n * (1 - 1e-12)))
            said.append(f"{few} or more" if np.isinf(high) else f"{few} to {count(high * n)}")
    return " or ".join(said) or "none"
