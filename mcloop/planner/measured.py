"""What a finished run measured against a tolerance: its error relative to real data only, cell by cell, with an interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from mcloop import laws
from mcloop.errors import InputError
from mcloop.laws import corrected_relative_error
from mcloop.planner.run_errors import Curve, Errors, choose, pairs, read_results, scale
from mcloop.report.limits import LEAST, MISS, limits, looked
from mcloop.results import named, number, short


class Cell(NamedTuple):
    """One cell of a run against the tolerance, at the last generation.

    Attributes:
        where, label: its coordinates, and those that vary in words.
        relative, sem: error over that of real data only, and its standard error (NaN where it is not known).
        low, high: an interval; those of all cells hold together in 98 of 100 runs.
        verdict: "within", "exceeded", "not resolved" (the interval holds the tolerance), "not tested", "not finite".
        first: the first generation told to be above the tolerance by intervals that pay for all cells and generations.
        theory: what the law of the regime predicts for `relative`; NaN where there is none.
    """

    where: dict[str, Any]
    label: str
    relative: float
    sem: float
    low: float
    high: float
    verdict: str
    first: int | None
    theory: float


class Measured(NamedTuple):
    """What a run says about a tolerance.

    Attributes:
        name: the experiment.
        measure: the error that was compared.
        scale: how it relates to a squared error, in words.
        baseline: what stands for real data only, in words.
        theory: where `Cell.theory` comes from, in words; "" where there is none.
        seeds, generations: how many.
        cells: every cell that has this measure.
        summary: what is safe along lam and gamma, a sentence each.
        unsound: a sentence in place of all cells, where the run's networks have learned nothing; else "".
    """

    name: str
    measure: str
    scale: str
    baseline: str
    theory: str
    seeds: int
    generations: int
    cells: list[Cell]
    summary: list[str]
    unsound: str = ""


def measured(folder: Path, tolerance: float, measure: str | None = None) -> Measured:
    """Compare a finished run with a tolerance.

    Args:
        folder: the run's folder; nothing in it is changed.
        tolerance: tolerated squared error relative to real data only.
        measure: the variable to compare; default the experiment's headline if that is an error, else the first error it has.

    Raises:
        InputError: no finished run is there, or it measured no error with a real-only value to compare to.
    """
    name, ds = read_results(folder)
    experiment, why = _experiment(folder, ds)
    chosen = choose(ds, experiment, measure)
    power, words = scale(ds, chosen)
    error = Errors(ds, chosen, power)
    if why:
        said = f"The run of {name} says nothing of a tolerance, since its networks have learned next to nothing ({why})."
        return Measured(name, chosen, words, "", "", error.seeds, int(ds["generation"][-1]), [], [], said)
    pair, baseline = pairs(ds, chosen, error)
    varied = [d for d in error.axes if ds.sizes[d] > 1] or error.axes[:1]
    g = ds["generation"].values
    found, sources = [], []
    for where in error.places():
        x, alone = pair(where)
        if not np.isfinite(x.mean).any() or not np.isfinite(alone.mean).any():  # this cell has no such error
            continue
        theory, source = _theory(experiment, chosen, where, g, words)
        sources += [source] if source else []
        label = ", ".join(named(d, where[d]) for d in varied) or "the loop"
        found.append((where, label, _ratio(x, alone, error.seeds), theory))
    if not found:
        raise InputError(f"measure {chosen!r} has no finite value in {str(folder)!r}; choose another (--measure).")
    cells = [_cell(where, label, ratio, tolerance, g, theory, len(found)) for where, label, ratio, theory in found]
    last = int(g[-1])
    said = _along(cells, "lam", tolerance, last) + _along(cells, "gamma", tolerance, last)
    return Measured(name, chosen, words, baseline, "; ".join(dict.fromkeys(sources)), error.seeds, last, cells, said)


def _experiment(folder, ds):
    """The experiment that a run was made with, its law bound to the run, and why it learned nothing, or "".

    (None, "") where its config is no longer there.
    """
    from mcloop.experiment.arguments import bind
    from mcloop.experiment.drawing import unlearned
    from mcloop.experiment.origin import of_run

    try:
        _, experiment, settings = of_run(folder)
        bound = bind(experiment, settings.size, settings.grid)
    except InputError:
        return None, ""
    return bound, unlearned(ds, bound, settings)


class _Ratio(NamedTuple):
    """Error over that of real data only by generation, its standard error, seeds, and the seeds' parts of that error."""

    value: np.ndarray
    sem: np.ndarray
    seeds: int
    rest: np.ndarray | None


def _ratio(x: Curve, alone: Curve, seeds: int) -> _Ratio:
    """Mean error over the mean of real data only, by generation.

    With the seeds at hand the error is that of a ratio of paired means, sd(x - r y)/(mean(y) sqrt(seeds)): a seed is the same
    random numbers in both. Without them the two means' errors are added as if they were independent.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r = x.mean / alone.mean
        if x.seeds is not None and alone.seeds is not None and seeds > 1:
            rest = (x.seeds - r * alone.seeds) / alone.mean
            return _Ratio(r, rest.std(0, ddof=1) / seeds**0.5, seeds, rest)
        if x.seeds is not None:
            return _Ratio(r, np.full_like(r, np.nan), seeds, None)
        return _Ratio(r, np.abs(r) * np.hypot(x.sem / x.mean, alone.sem / alone.mean), seeds, None)


def _interval(ratio: _Ratio, miss: float) -> tuple[np.ndarray, np.ndarray]:
    """An interval of a ratio by generation, by its logarithm, so that it stays above 0; NaN for a ratio that is not above 0."""
    r, sem, seeds, rest = ratio
    if rest is not None:
        below, above = limits(np.where(np.isfinite(rest), rest, 0.0), miss)
    else:
        below = above = np.full(r.shape, student.isf(miss / 2, max(seeds - 1, 1)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.where(r > 0, sem / r, np.nan)
        return r * np.exp(-above * error), r * np.exp(below * error)


def _cell(where, label: str, ratio: _Ratio, tolerance: float, g, theory: float, cells: int) -> Cell:
    """A cell's verdict, by an interval that pays for all cells, and where it first exceeded, by one that pays for all looks.

    Of runs that never exceed, at most 2 % are meant to be given a "first exceeded", and as many an "exceeded". Measured
    (benchmarks/false_alarms.py, 2,000 runs a case, 5 to 400 seeds, three cells whose error is the tolerance times that of real
    data only, twenty generations that hang together; 95 % intervals): "exceeded" 0.1 to 1.35 %, none above 1.96 %, and "first
    exceeded" 0 to 0.9 %, none above 1.42 %; highest for squares of normal numbers and for log-normal ones at 5 and 10 seeds.
    """
    r, sem = ratio.value, ratio.sem
    # errors are skewed as squares are, of which Student's limit, all that few seeds have, knows nothing: it misses too often
    last, every = (MISS / 4, MISS / 16) if ratio.seeds < LEAST else (MISS, MISS)
    low, high = _interval(ratio, looked(last, cells))
    looks = cells * int(np.isfinite(sem).sum())
    above = np.flatnonzero(_interval(ratio, looked(every, looks))[0] > tolerance)
    if not np.isfinite(r[-1]):
        verdict = "not finite"
    elif not np.isfinite(low[-1]):
        verdict = "not tested"
    else:
        verdict = "exceeded" if low[-1] > tolerance else "within" if high[-1] <= tolerance else "not resolved"
    first = int(g[above[0]]) if above.size else None
    return Cell(where, label, float(r[-1]), float(sem[-1]), float(low[-1]), float(high[-1]), verdict, first, theory)


def _theory(experiment, name: str, where: dict[str, Any], g: np.ndarray, words: str) -> tuple[float, str]:
    """The relative error that theory predicts at the last generation, and whose theory it is; (NaN, "") where there is none."""
    if experiment is not None and experiment.law is not None:
        path = experiment.law(g, **where).get(name)
        if path is not None and "squared here" not in words and np.ravel(path)[0] > 0:
            path = np.ravel(path)
            return float(path[-1] / path[0]), "the experiment's own law"
    if "no squared error" in words or "labels" in words:
        return float("nan"), ""
    value = _universal(where, g)
    whose = "a regular, well-specified model in the same regime, many points"
    whose += " (networks need not do the same)" if experiment is not None and experiment.neural else ""
    return value, whose if np.isfinite(value) else ""


def _universal(where: dict[str, Any], g: np.ndarray) -> float:
    """The relative error of a regular model in a cell's regime, as far as its coordinates tell the regime."""
    last = g[-1:]
    words = [str(v).lower().replace("-", "_") for v in where.values() if isinstance(v, str)]
    told = {
        "replace_multiple": lambda: np.sum(1.0 / g),
        "replace": lambda: laws.replace_relative_error(last)[0],
        "accumulate_subsample": lambda: laws.subsample_relative_error(last)[0],
        "accumulate": lambda: laws.accumulate_relative_error(last)[0],
        "baseline": lambda: 1.0,
    }
    for name, value in told.items():
        if name in words:
            return float(value())
    lam, gamma = where.get("lam"), where.get("gamma", 0.0)
    if (
        "arm" in where
        or not isinstance(lam, (int, float))
        or any(axis == "regime" and v != "augment" for axis, v in where.items())
    ):
        return float("nan")
    if lam == 0 or np.isinf(lam):
        return float(last[0]) if lam else 1.0
    return float(corrected_relative_error(last, float(lam), float(gamma))[0])


def _along(cells: list[Cell], axis: str, tolerance: float, generations: int) -> list[str]:
    """What is safe along an axis, a sentence for every combination of the others: the largest lam, the smallest gamma."""
    if not all(axis in c.where for c in cells) or len({c.where[axis] for c in cells}) < 2:
        return []
    groups: dict[tuple, list[Cell]] = {}
    for c in cells:
        groups.setdefault(tuple((k, v) for k, v in c.where.items() if k != axis), []).append(c)
    varied = {k for key in groups for k, v in key if len({dict(other)[k] for other in groups}) > 1}
    said = []
    for key, members in groups.items():
        members.sort(key=lambda c: c.where[axis], reverse=axis == "gamma")
        safe = 0
        while safe < len(members) and members[safe].verdict == "within":
            safe += 1
        place = ", ".join(named(k, v) for k, v in key if k in varied)
        extreme = "largest" if axis == "lam" else "smallest"
        best = f"the {extreme} {axis} within {tolerance:g}" if safe else f"no {axis} is shown to be within {tolerance:g}"
        value = f" is {short(members[safe - 1].where[axis])}" if safe else ""
        rest = "; ".join(
            f"{verdict}: {', '.join(short(c.where[axis]) for c in members if c.verdict == verdict)}"
            for verdict in ("not resolved", "not tested", "not finite", "exceeded")
            if any(c.verdict == verdict for c in members)
        )
        told = f"at {place} " if place else ""
        said.append(f"{told}{best} at generation {generations}{value}{f' ({rest})' if rest else ''}.")
    return [one[0].upper() + one[1:] for one in said]


def show(found: Measured, tolerance: float, console, most: int = 24) -> None:
    """Print what a run measured."""
    if found.unsound:
        return console.print(found.unsound, markup=False)
    from rich.table import Table

    seeds = f"{found.seeds} seed{'s' if found.seeds != 1 else ''}"
    lines = [
        f"Measured by {found.name} ({seeds}, {found.generations} generations): {found.measure}, {found.scale}.",
        f"Real data only: {found.baseline}.",
    ]
    lines += [f"Theory: {found.theory}."] if found.theory else []
    lines += [f"Intervals hold together in {100 * (1 - MISS):g} of 100 runs."] if found.seeds > 1 else []
    if len(found.cells) > 1 and found.seeds > 1:
        lines += [f"Cells share their {found.seeds} seeds: they are not independent repetitions of each other."]
    for line in lines:
        console.print(line, markup=False)
    table = Table(
        "cell",
        "error / real only, at the end",
        "interval",
        f"within {tolerance:g}?",
        "first exceeded at generation",
        "theory",
    )
    for c in found.cells[:most]:
        interval = f"{c.low:.4g} to {c.high:.4g}" if np.isfinite(c.low) else "-"
        theory = f"{c.theory:.4g}" if np.isfinite(c.theory) else "-"
        table.add_row(c.label, number(c.relative, c.sem), interval, c.verdict, "-" if c.first is None else str(c.first), theory)
    console.print(table)
    if len(found.cells) > most:
        console.print(f"... and {len(found.cells) - most} more cells (all of them in --json).", markup=False)
    for line in found.summary:
        console.print(f"- {line}", markup=False)
