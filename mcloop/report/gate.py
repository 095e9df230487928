"""Whether the models that a loop starts from are worth reading: the first fit, judged before its collapse is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mcloop.results import FIRST_FIT, measures, named

UNDERFITTED = "underfitted"
LEVELS = ("good", "usable", UNDERFITTED)


class Judged(NamedTuple):
    """The verdict on one first fit, which all of `cells` share.

    Attributes:
        label: which, by the axes that tell first fits apart; "" where there is but one.
        level: one of `LEVELS`.
        sentence: the verdict, and what it is made of.
        cells: coordinates of the cells that begin with it.
    """

    label: str
    level: str
    sentence: str
    cells: list[dict[str, Any]]


class _Course(NamedTuple):
    """One measure of a first fit, means over seeds: as it was, after half the steps, by a finer sampler, and retrained.

    What is not known is NaN. `retrained` is the mean over the last half of the generations of a cell that is trained on real
    data alone. `noise` is what the mean over seeds may be off by chance: two standard errors, by how much draws of real data
    scatter, 0 where that is not known.
    """

    name: str
    first: float
    half: float
    finer: float
    retrained: float
    floor: float
    noise: float


def judge(ds, experiment) -> list[Judged]:
    """The verdict on every first fit of a run of networks; [] for closed forms.

    *Good*: every measure that the experiment names in `gate` is within its limit, half of the steps would have given nearly
    the same, so would a sampler of more steps, and going on with real data makes it no better. *Usable*: within the second
    limit, or good but for being unfinished. *Underfitted*: neither, or retraining on real data alone still halves the distance
    to what real data score, so that a loop's first generations are more training before they are collapse. What the chance of a
    draw may be alone (see `_Course.noise`) makes no verdict worse.

    Args:
        ds: with measures at generation 1 at least; later ones tell what retraining does.
        experiment: an `Experiment`; where it names no limits its headline is accepted up to 1.5 and 3 times what real data
            score, where that is known.
    """
    if not experiment.neural:
        return []
    known = [name for name in experiment.gate if name in ds] or [n for n in experiment.measure if n in measures(ds)][:1]
    found = []
    for cells in _shared(ds, known) if known else ():
        levels, said = [], []
        for name in known:
            level, words = _one(_course(ds, name, cells), experiment.gate.get(name))
            levels.append(level)
            said.append(words)
        worst = max(levels)
        label = _label(ds, cells)
        verdict = f"{UNDERFITTED}: do not read collapse from this run" if worst == 2 else LEVELS[worst]
        where = f"First fit, {label}" if label else "First fit"
        found.append(Judged(label, LEVELS[worst], f"**{where}: {verdict}.** {'. '.join(said)}.", cells))
    return found


def _shared(ds, known: list[str]) -> list[list[dict[str, Any]]]:
    """The cells of a run, those together whose first fit is one and the same: every seed of them measures the same."""
    from mcloop.report.cells import coordinates

    groups: dict[bytes, list[dict[str, Any]]] = {}
    for where, _ in coordinates(ds):
        first = np.stack([_seeds(ds[name].sel(where).isel(generation=0)) for name in known])
        if np.isfinite(first).any():
            groups.setdefault(first.tobytes(), []).append(where)
    return list(groups.values())


def _label(ds, cells: list[dict[str, Any]]) -> str:
    """The axes that all of these cells agree on, of those that vary over the run."""
    varied = [a for a in cells[0] if ds.sizes[a] > 1]
    return ", ".join(named(a, cells[0][a]) for a in varied if len({c[a] for c in cells}) == 1)


def _course(ds, name: str, cells: list[dict[str, Any]]) -> _Course:
    def of(variable: str) -> float:
        return _mean(ds[variable].sel(cells[0])) if variable in ds else float("nan")

    floor, spread = (float(ds[name].attrs.get(kind, np.nan)) for kind in ("floor", "floor_spread"))
    return _Course(
        name,
        _mean(ds[name].sel(cells[0]).isel(generation=0)),
        of(f"{FIRST_FIT}half_{name}"),
        of(f"{FIRST_FIT}finer_{name}"),
        _retrained(ds, name, cells),
        floor,
        2 * float(np.nan_to_num(spread)) / ds.sizes.get("seed", 1) ** 0.5,
    )


def _retrained(ds, name: str, cells: list[dict[str, Any]]) -> float:
    """The measure where a cell goes on with real data alone, over the last half of its generations."""
    late = slice(ds.sizes["generation"] // 2, None)
    for where in cells:
        lam = ds["effective_lam"].sel(where) if "effective_lam" in ds else None
        if lam is None or ds.sizes["generation"] < 2 or not (lam.isel(generation=slice(1, None)) == 0).all():
            continue
        if np.isfinite(found := _mean(ds[name].sel(where).isel(generation=late))):
            return found
    return float("nan")


def _one(course: _Course, accept) -> tuple[int, str]:
    """(index of the level, words) for one measure."""
    name, first = course.name, course.first
    good, usable, settled = (np.nan, np.nan, 0.25) if accept is None else (accept.good, accept.usable, accept.settled)
    floors = accept is not None and accept.floors
    if accept is None and np.isfinite(course.floor) and course.floor > 0:
        good, usable, floors = 1.5, 3.0, True
    scale = course.floor if floors else 1.0
    sign = -1.0 if good > usable else 1.0
    words = [f"{name} {first:.3g}{_against(course, good, floors, sign)}"]
    level, between = 0, 2**0.5 * course.noise  # of a difference between two draws
    if np.isfinite(good * scale):
        at_best = sign * first - course.noise
        level = 0 if at_best <= sign * good * scale else 1 if at_best <= sign * usable * scale else 2
    for kind, value in (("with half of the steps", course.half), ("with twice the sampler's steps", course.finer)):
        if not np.isfinite(value):
            continue
        words.append(f"{value:.3g} {kind}")
        # a half that was worse says that more steps may help still; so does a finer sampler that is better
        better = sign * (value - first) * (1 if "half" in kind else -1)
        level = max(level, int(better - between > settled * abs(first)))
    if np.isfinite(course.retrained):
        words.append(f"{course.retrained:.3g} later on, retrained on real data alone")
        gain = sign * (first - course.retrained) - between
        left = sign * (first - course.floor) if np.isfinite(course.floor) else abs(first)
        level = max(level, int(gain > settled * abs(first)), 2 * int(gain > max(0.5 * left, settled * abs(first))))
    return level, "; ".join(words)


def _against(course: _Course, good: float, floors: bool, sign: float) -> str:
    limit = f"{'at most' if sign > 0 else 'at least'} {good:g}"
    if floors:
        return f", {course.first / course.floor:.3g} times that of real data (good: {limit})"
    real = f"real data {course.floor:.3g}; " if np.isfinite(course.floor) else ""
    if not np.isfinite(good):
        return f" ({real.removesuffix('; ')})" if real else ""
    return f" ({real}good: {limit})"


def _mean(variable) -> float:
    """Over all that is finite; NaN where nothing is."""
    values = np.asarray(variable.values, np.float64)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")


def _seeds(variable) -> np.ndarray:
    return np.atleast_1d(np.asarray(variable.values, np.float64))
