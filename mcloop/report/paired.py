"""Arms of an experiment against each other, on the same seeds: which is lower, and by how much more than chance."""

from __future__ import annotations

import itertools

import numpy as np

from mcloop.report.limits import MISS, limits, looked
from mcloop.results import named, number, short


def compare_paired(ds, name: str, axis: str = "arm", brief: bool = False, rate: float = MISS) -> list[str]:
    """Sentences on how the values of an axis order at the last generation, one for every cell of the other axes.

    A seed is the same random numbers in every cell, so two arms are compared by their differences within seeds: the mean
    difference over its standard error is Student's t with (seeds - 1) degrees of freedom, and with what skewness adds to it
    from 20 seeds on. Neighbours in the order whose interval holds 0 are joined by "~", the others by "<". The order is itself
    a matter of chance, so the intervals pay for every pair of arms: all of them hold together in 98 of 100 reports. An arm
    that is not finite in some seed is named and left out of the order: the seeds that survived are no fair sample of it.

    A "<" between arms that are equal, or an interval that misses, is meant for at most 2 % of reports. Measured
    (benchmarks/false_alarms.py): two arms over 3 seeds, 20,000 reports, 2.25 % where they are normal (2 % by the law of
    Student's t), 1.27 % exponential, 0.95 % log-normal; six arms over 5 and 50 seeds, 2,000 reports, 0.05 to 0.95 % (95 %
    intervals below 1.48 %). Arms of equal means and unlike shapes are not equal in that sense: below 20 seeds a difference is
    judged as if it were symmetric, and exponential seeds are told from nearly constant ones of their mean in 5 to 7 %.

    Args:
        ds: results with a `seed` dimension; without one there is nothing to pair, and nothing is said.
        name: a measure.
        axis: the axis whose values are compared.
        brief: the order only, without the differences that it rests on.
        rate: how often one of these sentences may claim an order that is not there.
    """
    variable = ds[name]
    if axis not in variable.dims or "seed" not in variable.dims or variable.sizes[axis] < 2:
        return []
    if not np.isfinite(variable.values).any():  # measured nowhere
        return []
    last = variable.isel(generation=-1)
    others = [d for d in last.dims if d not in (axis, "seed")]
    arms, places = last.sizes[axis], int(np.prod([last.sizes[d] for d in others]))
    miss = looked(rate, places * arms * (arms - 1) // 2)
    said = []
    for point in itertools.product(*(last[d].values for d in others)):
        arms = last.sel(dict(zip(others, point, strict=True))).transpose(axis, "seed")
        values = dict(zip(map(short, arms[axis].values.tolist()), arms.values.astype(np.float64), strict=True))
        place = "".join(f", {named(str(d), v)}" for d, v in zip(others, point, strict=True) if last.sizes[d] > 1)
        said += _ordered(f"At the last generation {name}{place}", values, brief, miss)
    return said


def compare_baseline(ds, name: str, axis: str = "lam", base: float = 0.0, brief: bool = False, rate: float = MISS) -> list[str]:
    """Sentences on how far the values of an axis are from one of them, one for every cell of the other axes.

    Differences within seeds at the last generation, as in `compare_paired`, each with its interval. The intervals of one
    sentence hold together in all but a share `rate` of reports; where only what is told from 0 is named (`brief`), all of a
    call's do. A value that is not finite in some seed is left out: the seeds that survived are no fair sample of it.

    Args:
        ds: results with a `seed` dimension; without one, or without `base` on the axis, nothing is said.
        name: a measure.
        axis: an axis of numbers.
        base: the value that the others are compared with.
        brief: only the differences whose interval does not hold 0, and no sentence where there are none.
        rate: how often one of these intervals may miss.
    """
    variable = ds[name]
    if axis not in variable.dims or variable.sizes.get("seed", 1) < 2 or base not in ds[axis].values.tolist():
        return []
    last = variable.isel(generation=-1)
    seeds, count = last.sizes["seed"], last.sizes[axis] - 1
    others = [d for d in last.dims if d not in (axis, "seed")]
    miss = looked(rate, count * (int(np.prod([last.sizes[d] for d in others])) if brief else 1))
    said = []
    for point in itertools.product(*(last[d].values for d in others)):
        values = last.sel(dict(zip(others, point, strict=True))).transpose(axis, "seed").astype(np.float64)
        start = values.sel({axis: base}).values
        apart = [(float(v), values.sel({axis: v}).values - start) for v in values[axis].values.tolist() if v != base]
        found = [(v, *_difference(x, miss)) for v, x in apart if np.isfinite(x).all()]
        told = [f"{mean:.2g} ({low:.2g} to {high:.2g}) at {named(axis, v)}" for v, mean, _, low, high in found]
        told = [t for t, (*_, low, high) in zip(told, found, strict=True) if not brief or low > 0 or high < 0]
        if told:
            place = "".join(f"{named(str(d), v)}: " for d, v in zip(others, point, strict=True) if last.sizes[d] > 1)
            only = ", where that is told from 0" if brief else ""
            said.append(
                f"{place}{name} at the last generation minus that of {named(axis, base)}, over {seeds} paired seeds{only}: "
                f"{', '.join(told)}."
            )
    return said


def _ordered(opening: str, values: dict[str, np.ndarray], brief: bool, miss: float) -> list[str]:
    """The sentence on one cell: arm -> (seeds,); each interval misses at the rate `miss`."""
    sound = sorted((arm for arm, x in values.items() if np.isfinite(x).all()), key=lambda arm: values[arm].mean())
    lost = "".join(f" {arm}: {_lost(x)}." for arm, x in values.items() if arm not in sound)
    if not sound:
        return [f"{opening}:{lost}"]
    seeds = len(values[sound[0]])
    means = ", ".join(f"{number(values[arm].mean(), _error(values[arm]))} ({arm})" for arm in sound)
    if len(sound) < 2:
        return [f"{opening} is {means}.{lost}"]
    if seeds < 2:
        return [f"{opening} is {means}: one seed, so the order is not tested.{lost}"]
    if all((values[arm] == values[sound[0]]).all() for arm in sound):
        return [f"{opening} is the same, seed by seed, in {', '.join(sound)}: {values[sound[0]].mean():.4g}.{lost}"]
    pairs = list(itertools.pairwise(sound))
    order = sound[0]
    for a, b in pairs:
        order += f" {'<' if _difference(values[b] - values[a], miss)[2] > 0 else '~'} {b}"
    pairs += [(sound[0], sound[-1])] if len(sound) > 2 else []
    gaps = []
    for a, b in pairs:
        mean, error, low, high = _difference(values[b] - values[a], miss)
        gaps.append(f'"{b}" minus "{a}" is {number(mean, error)} ({low:.3g} to {high:.3g})')
    unresolved = " (~: not resolved by these seeds)" if " ~ " in order else ""
    if brief:
        return [f"{opening} is {means}: ordered {order}{unresolved}.{lost}"]
    sure = f"with intervals that all hold in {100 * (1 - MISS):g} of 100 reports"
    paired = f"over {seeds} paired seeds, {sure}, {'; '.join(gaps)}"
    return [f"{opening} is {means}: ordered {order}{unresolved}; {paired}.{lost}"]


def _lost(x: np.ndarray) -> str:
    bad = int((~np.isfinite(x)).sum())
    return "not finite in any seed" if bad == len(x) else f"not finite in {bad} of {len(x)} seeds"


def _error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else float("nan")


def _difference(x: np.ndarray, miss: float) -> tuple[float, float, float, float]:
    """The mean of paired differences, its standard error, and the ends of its interval."""
    mean, error = float(x.mean()), _error(x)
    below, above = limits(x[:, None], miss)
    return mean, error, mean - float(above[0]) * error, mean + float(below[0]) * error
