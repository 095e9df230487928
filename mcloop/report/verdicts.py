"""A sentence on where a curve went, in words that claim no more than its seeds can tell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.report.cells import Cell
from mcloop.report.estimates import Curve, Sample, contrast, of_seeds, sample
from mcloop.report.limits import MISS
from mcloop.report.scores import KEPT, LOGS, SPREADS, typical


class _Course(NamedTuple):
    """A curve's first finite value, the one at half time, and the last, with what their differences may be by chance.

    `means` holds the three; `single` is the scatter of a curve without an error, NaN where there is none.
    """

    means: np.ndarray
    found: Sample
    span: int
    single: float
    miss: float

    def noise(self, weights) -> float:
        """How far a weighted sum of the three may be off by chance; NaN where that is not known."""
        low, high = contrast(self.found, weights, self.miss)[1:]
        if np.isfinite(high - low):
            return (high - low) / 2
        return self.single * float(np.linalg.norm(weights)) / 2**0.5

    def told(self, weights) -> int:
        """The sign of a weighted sum of the three, 0 where chance may be all that it is."""
        value, low, high = contrast(self.found, weights, self.miss)
        if not np.isfinite(high - low):
            noise = np.nan_to_num(self.single) * float(np.linalg.norm(weights)) / 2**0.5
            low, high = value - noise, value + noise
        return int(low > 0) - int(high < 0)


def _course(cell: Cell, name: str, miss: float, log: bool = False) -> _Course:
    y = cell.mean[name]
    known = np.flatnonzero(np.isfinite(y))
    places = [int(known[0]), len(y) // 2, len(y) - 1]
    if name in cell.values:
        curve = of_seeds(cell.g, cell.values[name])
    else:
        curve = Curve(cell.g, None, y, cell.sem[name], cell.seeds)
    curve = curve.log() if log else curve
    return _Course(curve.mean[places], sample([(curve, i) for i in places]), len(y) - 1 - len(y) // 2, _scatter(y, miss), miss)


def _scatter(y: np.ndarray, miss: float) -> float:
    """How far two generations of a single curve differ by chance: by the scatter of its steps."""
    from scipy.stats import t

    steps = np.diff(y[np.isfinite(y)])
    return float(t.isf(miss / 2, len(steps) - 1) * steps.std(ddof=1)) if len(steps) > 2 else float("nan")


def verdict(cell: Cell, name: str, worse: str, miss: float = MISS) -> str:
    """A sentence on where a curve went.

    "Collapsed", "is falling", "is getting worse" and the like are said where the seeds tell them from what is less: a report
    is meant to say one that is not so in at most 2 % of cases. Measured (benchmarks/false_alarms.py, 2,000 reports of four
    curves a case): "collapsed", of variances that end on its edge, a tenth, 0.25 % at 5 and 50 seeds and 0.4 % at 400 (95 %
    intervals below 0.79 %); a word for errors at rest that have not moved, 0 to 0.85 % (below 1.36 %; normal, gamma,
    log-normal and squared normal numbers, 5 and 50 seeds). What grows is judged by means over seeds; a variance by a typical
    seed, the geometric mean of the seeds' ratios, as the collapse profile does.

    Args:
        worse: "up", "down" or "log", as `Experiment.worse`.
        miss: how often the sentence may claim too much.
    """
    y = cell.mean[name]
    known = np.flatnonzero(np.isfinite(y))
    if np.isnan(y[-1]):
        since = cell.g[known[-1] + 1] if known.size else cell.g[0]
        return f"diverged: {name} is not finite from generation {since} on"
    if not np.isfinite(y[-1]):
        return f"{name} is {y[-1]} at the end"
    first, last = y[known[0]], y[-1]
    moved = f"{name} went from {first:.3g} to {last:.3g} in {len(y)} generations"
    if abs(first) < 1e-6 * abs(last):
        return f"grew: {moved}"
    if worse == "log":
        return _fallen_log(_course(cell, name, miss / 2), moved)
    if worse == "down":
        return _fallen(cell, name, moved, miss / 2)
    return _risen(_course(cell, name, miss / 2), name, moved)


def _fallen_log(course: _Course, moved: str) -> str:
    slope = (course.means[2] - course.means[1]) / course.span if course.span else float("nan")
    falls = course.span and course.told((0, -1, 1)) < 0 and slope < -1e-3
    # log 0.1 as a weight of nothing: the last mean minus a constant
    below = course.found._replace(mean=course.found.mean - np.log(KEPT))
    state = "collapsed" if course._replace(found=below).told((0, 0, 1)) < 0 else "is collapsing" if falls else "held"
    return f"{state}: {moved}, {slope:+.3g} a generation over the second half"


def _fallen(cell: Cell, name: str, moved: str, miss: float) -> str:
    """A variance or a share, by its logarithm where every seed has one, and else by its mean."""
    course = _course(cell, name, miss, log=True)
    logs = bool(np.isfinite(course.means).all())
    if not logs:
        course = _course(cell, name, miss)

    def below(factor: float, start: int) -> bool:
        """Whether the last value is told to be below `factor` times an earlier one."""
        weights = np.zeros(3)
        weights[start], weights[2] = -1.0, 1.0
        if not logs:
            weights[start] = -factor
            return course.told(weights) < 0
        shifted = course.found._replace(mean=course.found.mean - np.log(factor) * np.array([0, 0, 1]))
        return course._replace(found=shifted).told(weights) < 0

    ratio = float(np.exp(course.means[2] - course.means[0])) if logs else course.means[2] / course.means[0]
    rate = float("nan")
    if course.span and (logs or min(course.means[1:]) > 0):
        step = course.means[2] - course.means[1] if logs else np.log(course.means[2] / course.means[1])
        rate = float(np.expm1(step / course.span))
    if name in SPREADS and name in cell.values and (kept := typical(name, of_seeds(cell.g, cell.values[name]))) is not None:
        moved = f"{moved} (mean over seeds), and a typical seed keeps {kept.value:.3g} of it (geometric mean)"
    if below(KEPT, 0):
        state = "collapsed"
    elif course.span and below(0.5, 0) and below((1 - 1e-3) ** course.span, 1):
        state = "is collapsing"
    elif course.span and below((1 - 2e-3) ** course.span, 1):
        state = "is falling"
    else:
        weights = (-1, 0, 1)
        return f"{_settled(1 / ratio) if ratio > 0 and course.told(weights) else 'held'}: {moved}"
    if not np.isfinite(rate):
        return f"{state}: {moved}"
    return f"{state}: {moved}, {100 * rate:+.2g} % a generation over the second half"


def _risen(course: _Course, name: str, moved: str) -> str:
    """An error, by its means over seeds."""
    first, half, last = map(float, course.means)
    change = (-1, 0, 1)
    noise = course.noise(change)
    if abs(last - first) < noise or (np.isfinite(noise) and last != first and not course.told(change)):
        return f"held within its noise: {moved}, a change of {last - first:+.2g} where +-{noise:.2g} is chance"
    logs = name in LOGS  # nats: what grows by a factor is their exponential
    if min(first, last) <= 0 and not logs:  # an unbiased estimate of a small distance: no ratio makes sense
        return f"{'got worse' if last > first else 'improved'}: {moved}"
    ratio = float(np.exp(last - first)) if logs else last / first
    if noise > 0 and 0.75 < ratio < 1.33 and not 0.98 < ratio < 1.02:
        return f"is a little {'worse' if ratio > 1 else 'better'}: {moved}, where +-{noise:.2g} is chance"
    rate = float("nan")
    if course.span and (logs or min(half, last) > 0) and (course.told((0, -1, 1)) or np.isnan(noise)):
        rate = float(np.expm1(((last - half) if logs else np.log(last / half)) / course.span))
    beyond = course.told((-10, 0, 1)) > 0 if not logs else last - first - noise > np.log(10)
    worse = ratio > (1.33 if logs else 1.5)
    state = "diverged" if beyond else "is getting worse" if worse and rate > 2e-3 else _settled(ratio)
    if state in _AT_REST or not np.isfinite(rate):
        return f"{state}: {moved}"
    of = f" in exp({name})" if logs else ""
    return f"{state}: {moved}, {100 * rate:+.2g} % a generation{of} over the second half"


_AT_REST = ("held", "settled, worse", "improved")


def _settled(factor: float) -> str:
    """What to call a curve that no longer moves, by the factor by which it got worse."""
    return "held" if 0.75 < factor < 1.33 else "settled, worse" if factor > 1 else "improved"
