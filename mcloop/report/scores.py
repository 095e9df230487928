"""One cell of a run scored by one definition of collapse: which measure serves it, against what, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from mcloop.report.estimates import Curve, Interval, contrast, log_contrast, of_seeds, sample
from mcloop.report.estimates import growth as grow
from mcloop.report.limits import FAR, limits
from mcloop.results import DISTANCES, INSIDE, measures

# measures in order of preference: what a definition is scored by is the first of them that a cell has
RISKS = (
    *("ridge_test_error", "test_error", "mean_sq_error", "w2", "sliced_w2", "fid", "fid_inf", "kl"),
    *("held_out_error", "nll", "excess", "cross_entropy", "kid", "mmd2"),
)
SPREADS = ("trace_ratio", "log_det", "variance_ratio", "second_moment")
TAILS = {"lost_mass": 1, "distinct": -1, "rare_lost": 1, "lost_words": 1, "coverage": -1, "recall": -1}  # 1: more is worse
MODES = {"mode_coverage": -1, "kl_modes": 1, "class_tv": 1}
FAKES = {"high_quality": -1, "ungrammatical": 1, "precision": -1}
DIVERSITY = ("diversity", "heterozygosity", "recall", "distinct", "distinct_2")
LOGS = ("nll", "log_det", "cross_entropy")  # logarithms themselves: ratios are the exponentials of their differences

CATASTROPHE, KEPT, MARGIN = 10.0, 0.1, 0.01  # of the risk; of the variance; of shares


class Entry(NamedTuple):
    """A definition's score of one cell: value and interval (NaN where there is none), a verdict, what else to know.

    `verdict` is "yes", "no", "not resolved" (the interval holds the threshold) or "not measured".
    """

    label: str
    measure: str
    value: float
    low: float
    high: float
    verdict: str
    words: str = ""


class Place(NamedTuple):
    """A cell with the means to look at it: `curve` of a measure, and `real` data only, (curve, index), to compare it with.

    `miss` is how often one of its intervals may miss.
    """

    label: str
    where: dict[str, Any]
    curve: Callable[[str], Curve | None]
    real: Callable[[str], tuple[Curve, int] | None]
    miss: float = 0.05


def place(ds, where: dict[str, Any], label: str, miss: float = 0.05) -> Place:
    """The cell of a Dataset at these coordinates."""
    reference = next(({**where, d: v} for d, v in references(ds) if where.get(d) != v), None)

    @cache  # ten definitions ask for the same few
    def curve(name: str) -> Curve | None:
        return curve_of(ds, where, name)

    @cache
    def real(name: str) -> tuple[Curve, int] | None:
        other = None if reference is None else curve_of(ds, reference, name)
        if other is not None and np.isfinite(other.mean[-1]):
            return other, -1
        return None if (own := curve(name)) is None else (own, 0)

    return Place(label or "the loop", where, curve, real, miss)


def references(ds) -> list[tuple[str, Any]]:
    """The axis and its value that stand for real data only, if the grid has one."""
    axes = [str(d) for d in ds[measures(ds)].dims if d not in INSIDE]
    named = [(d, "baseline") for d in axes if ds[d].dtype.kind in "OUS" and "baseline" in ds[d].values.tolist()]
    if named or "lam" not in axes or "regime" in axes:  # a regime may not heed lam
        return named[:1]
    return [("lam", 0.0)] if (ds["lam"].values == 0).any() else []


def curve_of(ds, where: dict[str, Any], name: str) -> Curve | None:
    """A measure of a cell, the square of a distance, which is what a risk is; None where it was not measured."""
    if name not in measures(ds):
        return None
    found = _read(ds, where, name)
    if found is not None and name in DISTANCES:
        return found.mapped(np.square, lambda x: 2 * x)
    if found is None or name not in ("mean_sq_error", "test_error") or "unit_error" not in ds:
        return found
    rounding = 1e-10 * float(np.nanmax(found.mean))
    if not found.mean[0] <= rounding:
        return found
    # the loop starts from a table that is its own truth: what that table itself is off by, where it is known, is added
    unit = _read(ds, where, "unit_error")
    off = 0.0 if unit is None else float(unit.mean[0])
    return found.mapped(lambda x: np.where(x <= rounding, 0.0, x) + off, np.ones_like)


def _read(ds, where: dict[str, Any], name: str) -> Curve | None:
    variable = ds[name].sel({d: v for d, v in where.items() if d in ds[name].dims})
    if not np.isfinite(variable.values).any():
        return None
    g = ds["generation"].values.astype(np.float64)
    if "seed" in variable.dims:
        return of_seeds(g, variable.transpose("seed", "generation").values)
    kept = {str(s): variable.sel(statistic=s).values.astype(np.float64) for s in variable["statistic"].values}
    mean = kept.get("mean")
    if mean is None:
        return None
    return Curve(g, None, mean, kept.get("sem", np.full_like(mean, np.nan)), int(ds.attrs.get("sample_count", 0)))


def _judged(measure: str, curve: Curve, found: Interval, limit: float, words: str = "", above: bool = True) -> Entry:
    """The verdict of an interval on "above the limit" (or below it)."""
    if not np.isfinite(found.value):
        return _unmeasured(measure, "no finite number")
    low, high = (found.low, found.high) if above else (-found.high, -found.low)
    bar = limit if above else -limit
    verdict = "yes" if low > bar else "no" if high <= bar else "not resolved"
    if np.isnan(low):
        words = "one seed" if curve.count < 2 else "no standard error"
    return Entry("", measure, *found, verdict, words)


def _unmeasured(measure: str = "", words: str = "") -> Entry:
    return Entry("", measure, np.nan, np.nan, np.nan, "not measured", words)


def _lost(curve: Curve) -> str:
    """In words, if the last generation has no finite value in some seeds."""
    if curve.seeds is None:
        return "" if np.isfinite(curve.mean[-1]) else "not finite at the end"
    bad = int((~np.isfinite(curve.seeds[:, -1])).sum())
    return f"not finite in {bad} of {curve.count} seeds" if bad else ""


def _first(cell: Place, names) -> tuple[str, Curve, tuple[Curve, int]] | None:
    """The first measure that the cell has and that real data only gives a finite value to."""
    for name in names:
        curve, real = cell.curve(name), cell.real(name)
        if curve is not None and real is not None and np.isfinite(real[0].mean[real[1]]):
            return name, curve, real
    return None


def _scaled(cell: Place, names) -> tuple[str, Curve, tuple[Curve, int]] | None:
    """The first measure whose value with real data only is a scale for ratios: above 0, or a logarithm."""
    return _first(cell, [n for n in names if (r := cell.real(n)) is not None and (n in LOGS or r[0].mean[r[1]] > 0)])


def _ratio(name: str, curve: Curve, real: tuple[Curve, int], miss: float) -> Interval:
    """The mean over seeds of the last generation over that of real data only (of logarithms: the exponential)."""
    points = [(curve, -1), real]
    if name in LOGS:
        return _exponential(contrast(sample(points), (1, -1), miss))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = sample(points)
        if found.mean[0] == 0:
            return Interval(0.0, 0.0, 0.0)
        return _exponential(log_contrast(found, (1, -1), miss))


def _exponential(of: Interval) -> Interval:
    return Interval(*(float(np.exp(np.minimum(x, 700.0))) for x in of))


def typical(name: str, curve: Curve, miss: float = 0.05) -> Interval | None:
    """The share of generation 1 that a typical seed keeps, the geometric mean of the seeds' ratios; None without logarithms."""
    logs = curve if name in LOGS else curve.log()
    if not np.isfinite(logs.mean[[0, -1]]).all():
        return None
    return _exponential(contrast(sample([(logs, -1), (logs, 0)]), (1, -1), miss))


def risk(cell: Place, names, limit: float) -> Entry:
    """The risk over that of real data only, and whether it is above `limit`."""
    found = _scaled(cell, names)
    if found is None:
        started = [n for n in names if cell.curve(n) is not None]
        return _unmeasured("", "0 with real data only: no ratio" if started else "")
    name, curve, real = found
    if lost := _lost(curve):
        return Entry("", name, np.inf, np.nan, np.nan, "yes", lost)
    if name not in LOGS and curve.mean[-1] <= 0:
        return _unmeasured(name, "an estimate of 0 or below: no ratio")
    judged = _judged(name, curve, _ratio(name, curve, real, cell.miss), limit)
    return judged._replace(verdict="not resolved", words=_FEW) if heavy(curve, -1) or heavy(*real) else judged


_FEW = "a few seeds carry the mean"


def heavy(curve: Curve, at: int) -> bool:
    """Whether the seeds have so long a tail, for their number, that their mean may lie anywhere below its expectation."""
    if curve.seeds is None or curve.count < 2:
        return False
    x = curve.seeds[:, [at]]
    return bool(np.isfinite(x).all() and np.ptp(x) > 0 and limits(x, 0.05, tails=True)[0][0] > 2 * FAR)


def growth(cell: Place, names, least: int) -> Entry:
    """Whether the power of the risk's growth is a bounded one's (`least` 0), or a linear one's or more (1)."""
    found = _scaled(cell, names)
    if found is None:
        return _unmeasured()
    name, curve, real = found
    if lost := _lost(curve):
        return Entry("", name, np.inf, np.nan, np.nan, "yes", lost)
    grown = grow(curve, cell.miss)
    if grown is None:
        return _unmeasured(name, "needs 4 generations")
    unit = 1.0 if name in LOGS else float(real[0].mean[real[1]])
    p = grown.p
    value = Interval(*(x / unit for x in grown.rate)) if least else p or Interval(np.nan, np.nan, np.nan)
    words = "" if p is not None and p.high > -np.inf and not least else grown.words  # the form is said once
    words += ", in nats" if least and name in LOGS else ""
    if heavy(curve, -1):
        return Entry("", name, *value, "not resolved", _FEW)
    return Entry("", name, *value, "not resolved" if p is None else _unbounded(p, least), words)


def _unbounded(p: Interval, least: int = 0) -> str:
    if least:
        return "yes" if p.low > 0.5 else "no" if p.high < 0.5 else "not resolved"
    return "no" if p.high < 0 else "yes" if p.low > -0.5 else "not resolved"


def variance(cell: Place) -> Entry:
    """The share of generation 1's variance that a typical seed keeps; whether it is lost, or its logarithm falls for ever."""
    own = cell._replace(real=lambda name: None if (c := cell.curve(name)) is None else (c, 0))
    return _compared(_scaled(own, SPREADS), lambda name, curve, start: _kept(name, curve, start, cell.miss))


def _kept(name: str, curve: Curve, start: tuple[Curve, int], miss: float) -> Entry:
    kept = typical(name, curve, miss) or _ratio(name, curve, start, miss)
    level = _judged(name, curve, kept, KEPT, above=False)
    fallen = (curve if name in LOGS else curve.log()).mapped(np.negative, np.ones_like)
    grown = grow(fallen, miss) if np.isfinite(fallen.mean).all() else None
    if level.verdict == "yes" or grown is None or np.isnan(kept.low):
        return level
    if grown.p is None:
        return level._replace(verdict="not resolved", words="too noisy to tell")
    falls = _unbounded(grown.p)
    words = {"constant": "constant", "falls": "it rises"}.get(grown.words, f"its log falls: {grown.words}")
    return level._replace(verdict="not resolved" if falls == "no" != level.verdict else falls, words=words)


def scaling(ds, cell: Place, names) -> Entry:
    """The change since generation 1 of the exponent a of risk ~ n^-a, by least squares over the axis n."""
    found = _scaled(cell, names)
    if "n" not in ds.dims or ds.sizes["n"] < 2 or found is None or found[0] in LOGS:
        return _unmeasured()
    name = found[0]
    n = ds["n"].values.astype(np.float64)
    curves = [curve_of(ds, {**cell.where, "n": size}, name) for size in ds["n"].values]
    known = [c for c in curves if c is not None]
    if len(known) < len(curves) or not all(np.isfinite(c.mean).all() and c.mean.min() > 0 for c in known):
        return _unmeasured(name, "no finite risk above 0 at every n")
    x = np.log(n) - np.log(n).mean()
    slope = x / (x @ x)
    change = log_contrast(sample([(c, i) for i in (-1, 0) for c in known]), np.concatenate([-slope, slope]), cell.miss)
    inside = -KEPT <= change.low and change.high <= KEPT
    outside = change.low > KEPT or change.high < -KEPT
    return Entry(
        "", name, *change, "yes" if outside else "no" if inside else "not resolved", "two n only" if len(n) < 3 else ""
    )


def share(cell: Place, signs) -> Entry:
    """The rise of a share (or a distance) that is worse the higher it is, or the fall of one that is better so."""

    def change(name: str, curve: Curve, real: tuple[Curve, int]) -> Entry:
        if signs[name] < 0 and real[0].mean[real[1]] == 0:
            return _unmeasured(name, "0 with real data only: none to lose")
        gap = contrast(sample([(curve, -1), real]), (signs[name], -signs[name]), cell.miss)
        return _judged(name, curve, gap, MARGIN)

    return _compared(_first(cell, signs), change)


def diversity(cell: Place) -> Entry:
    """Diversity over that of real data only."""

    def ratio(name: str, curve: Curve, real: tuple[Curve, int]) -> Entry:
        return _judged(name, curve, _ratio(name, curve, real, cell.miss), 1 - MARGIN, above=False)

    return _compared(_scaled(cell, DIVERSITY), ratio)


def _compared(found: tuple[str, Curve, tuple[Curve, int]] | None, judge) -> Entry:
    """judge(name, curve, real) of what was found, if it has finite values at the end."""
    if found is None:
        return _unmeasured()
    lost = _lost(found[1])
    return _unmeasured(found[0], lost) if lost else judge(*found)
