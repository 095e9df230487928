"""Simulated reports of loops whose truth is known, one kind a `Case`: a report either says what is not so, or does not.

Used by `test_false_alarms.py` (some dozens a case) and by `benchmarks/false_alarms.py` (thousands).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from mcloop.experiment.config import Experiment, Size
from mcloop.planner.measured import _cell, _ratio
from mcloop.planner.run_errors import Curve as Errors
from mcloop.report import paired, profile, theory, verdicts
from mcloop.report.cells import Cell
from mcloop.report.limits import ALARM, MISS


class Case(NamedTuple):
    """A verdict on a kind of loop: `bound` is the rate that its docstring allows, `wrong` whether a report is a false alarm."""

    verdict: str
    loops: str
    seeds: int
    bound: float
    wrong: Callable[[np.random.Generator], bool]


def cell(values: dict, law: dict | None = None) -> Cell:
    """A cell of (seeds, generations) arrays."""
    seeds, generations = next(iter(values.values())).shape
    mean = {k: x.mean(0) for k, x in values.items()}
    sem = {k: x.std(0, ddof=1) / seeds**0.5 for k, x in values.items()}
    return Cell({}, "", np.arange(1, generations + 1), mean, sem, {}, law or {}, values, seeds)


def dataset(values: dict, arms: list[str]):
    """Results of (arms, seeds, generations) arrays."""
    _, seeds, generations = next(iter(values.values())).shape
    axes = {"arm": arms, "seed": np.arange(seeds), "generation": np.arange(1, generations + 1)}
    return xr.Dataset({k: (tuple(axes), x) for k, x in values.items()}, axes)


# Means against a law


def gaussian(rng, seeds, generations, n, keep):
    """Gaussians of one dimension under replace or accumulate (`keep`), by sufficient statistics; laws G1 and A1."""
    mean, variance, total, square = np.zeros(seeds), np.ones(seeds), 0.0, 0.0
    ratio, error = [], []
    for g in range(1, generations + 1):
        drawn = mean + np.sqrt(variance / n) * rng.normal(size=seeds)
        spread = variance * rng.chisquare(n - 1, seeds) / n
        total, square = (total + drawn, square + spread + drawn**2) if keep else (drawn, spread + drawn**2)
        count = g if keep else 1
        mean, variance = total / count, square / count - (total / count) ** 2
        ratio.append(variance)
        error.append(mean**2)
    g = np.arange(1, generations + 1)
    law = np.cumprod(1 - 1 / (n * g**2)) if keep else (1 - 1 / n) ** g
    return cell(
        {"trace_ratio": np.stack(ratio, 1), "mean_sq_error": np.stack(error, 1)}, {"trace_ratio": law, "mean_sq_error": 1 - law}
    )


def few_rows(rng, seeds, generations, d=3):
    """The error of a regression under replace with T = d + 2 rows (law L1), whose variance is infinite."""
    steps = rng.chisquare(d, (seeds, generations)) / rng.chisquare(3, (seeds, generations))
    return cell({"test_error": steps.cumsum(1)}, {"test_error": d * np.arange(1.0, generations + 1)})


def walks(rng, seeds, generations, sigma):
    """Log-normals that wander from 1 on: a law of 1, and a tail that grows to `sigma`."""
    steps = rng.normal(size=(seeds, generations)) * sigma / generations**0.5 - sigma**2 / 2 / generations
    return cell({"a": np.exp(steps.cumsum(1))}, {"a": np.ones(generations)})


def sums(rng, seeds, generations, kind):
    """An error that adds up from independent steps of mean 1."""
    return cell({"a": STEPS[kind](rng, (seeds, generations)).cumsum(1)}, {"a": np.arange(1.0, generations + 1)})


STEPS = {
    "normal": lambda rng, shape: 1 + rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(-0.5, size=shape),
}

REPORTS = {
    "quickstart tiny: 4 Gaussians": (50, lambda rng, s: [gaussian(rng, s, 10, n, k) for n in (10, 100) for k in (False, True)]),
    "2 Gaussians, 5 seeds": (5, lambda rng, s: [gaussian(rng, s, 10, 10, keep) for keep in (False, True)]),
    "2 Gaussians, 20 seeds": (20, lambda rng, s: [gaussian(rng, s, 10, 10, keep) for keep in (False, True)]),
    "kazdan small: 2 Gaussians": (400, lambda rng, s: [gaussian(rng, s, 60, 10, keep) for keep in (False, True)]),
    "regression, T = d + 2, 50 seeds": (50, lambda rng, s: [few_rows(rng, s, 10)]),
    "regression, T = d + 2, 100 seeds": (100, lambda rng, s: [few_rows(rng, s, 10)]),
    "regression, T = d + 2, 400 seeds": (400, lambda rng, s: [few_rows(rng, s, 20)]),
    "4 log-normal walks": (25, lambda rng, s: [walks(rng, s, 10, 1.0) for _ in range(4)]),
    "4 log-normal walks, sigma to 2": (100, lambda rng, s: [walks(rng, s, 10, w) for w in (0.5, 1.0, 1.5, 2.0)]),
    "3 normal sums": (25, lambda rng, s: [sums(rng, s, 10, "normal") for _ in range(3)]),
    "3 exponential sums": (25, lambda rng, s: [sums(rng, s, 10, "exponential") for _ in range(3)]),
    "3 log-normal sums": (25, lambda rng, s: [sums(rng, s, 10, "log-normal") for _ in range(3)]),
}


def _disagrees(rng, seeds, cells) -> bool:
    return "DISAGREE" in theory.agreement(theory.looks(cells(rng, seeds)))[0]


# Arms against each other


def _ordered(rng, arms, seeds, draw) -> bool:
    """Equal arms are ordered, or one of the printed intervals of their differences does not hold 0."""
    names = [f"arm {i}" for i in range(arms)]
    (said,) = paired.compare_paired(dataset({"fid": STEPS[draw](rng, (arms, seeds, 1))}, names), "fid")
    gaps = [part.split(" to ") for part in said.split("(")[1:] if " to " in part]
    return " < " in said or not all(float(low) <= 0 <= float(high.split(")")[0]) for low, high in gaps)


# Errors against a tolerance


def _measured(rng, seeds, draw, first) -> bool:
    """Three cells whose error is the tolerance times that of real data only, in twenty generations that hang together."""
    generations, found = 20, []
    for _ in range(3):
        own = RISKS[draw](rng, (seeds, 1)) * np.exp(0.3 * rng.normal(size=(seeds, generations)) - 0.045)
        real = RISKS[draw](rng, (seeds, generations))
        both = [Errors(v.mean(0), v.std(0, ddof=1) / seeds**0.5, v) for v in (1.2 * own, real)]
        found.append(_cell({}, "", _ratio(*both, seeds), 1.2, np.arange(1, generations + 1), np.nan, 3))
    return any(c.first is not None if first else c.verdict == "exceeded" for c in found)


RISKS = {
    "squares": lambda rng, shape: rng.normal(size=shape) ** 2,  # the squared error of one number
    "normal": lambda rng, shape: 5 + rng.normal(size=shape),
    "gamma": lambda rng, shape: rng.gamma(2, 0.5, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(-0.5, size=shape),
}


# Words of curves


def _collapsed(rng, seeds) -> bool:
    """Four variances that end at a tenth: a word that says less than a tenth is kept."""
    for _ in range(4):
        x = np.exp(rng.normal(0, 0.4, (seeds, 12)).cumsum(1) + np.linspace(0, np.log(0.1), 12))
        x[:, 0] = 1.0
        if verdicts.verdict(cell({"trace_ratio": x}), "trace_ratio", "down", MISS / 4).startswith("collapsed"):
            return True
    return False


def _moved(rng, seeds, draw) -> bool:
    """Four errors that stay where they are, in generations that hang together: a word that says they moved."""
    for _ in range(4):
        x = 10 + RISKS[draw](rng, (seeds, 1)) + RISKS[draw](rng, (seeds, 12))
        if not verdicts.verdict(cell({"fid": x}), "fid", "up", MISS / 4).startswith("held"):
            return True
    return False


# The collapse profile


def _profiled(rng, seeds, draw) -> bool:
    """Three arms whose risk is that of real data only: a "yes" of any definition that speaks of them."""
    made = Experiment(make=lambda arm: None, grid={}, sizes={"tiny": Size(seeds, 8)}, measure=("fid", "recall"), worse="up")
    x = RISKS[draw](rng, (3, seeds, 8))
    ds = dataset({"fid": x, "recall": 0.8 + 0.02 * rng.normal(size=x.shape)}, ["baseline", "a", "b"])
    scores = {s.definition: s.entries for s in profile.profile(ds, made)}
    asked = ("catastrophic risk", "any more risk", "diverging risk", "tails lost", "diversity lost")
    return any(e.verdict == "yes" for definition in asked for e in scores[definition])


CASES = [
    *(Case("DISAGREE", name, seeds, ALARM, partial(_disagrees, seeds=seeds, cells=f)) for name, (seeds, f) in REPORTS.items()),
    *(
        Case("<", f"{arms} equal arms, {draw}", seeds, MISS, partial(_ordered, arms=arms, seeds=seeds, draw=draw))
        for draw in STEPS
        for arms, seeds in ((2, 3), (6, 5), (6, 50))
    ),
    *(
        Case(name, f"3 cells at the tolerance, {draw}", seeds, MISS, partial(_measured, seeds=seeds, draw=draw, first=first))
        for name, first in (("exceeded", False), ("first exceeded", True))
        for draw in RISKS
        for seeds in (5, 10, 50, 400)
    ),
    *(Case("collapsed", "4 variances at a tenth", seeds, MISS, partial(_collapsed, seeds=seeds)) for seeds in (5, 50, 400)),
    *(
        Case("moved", f"4 curves at rest, {draw}", seeds, MISS, partial(_moved, seeds=seeds, draw=draw))
        for draw in ("normal", "gamma", "squares", "log-normal")
        for seeds in (5, 50)
    ),
    *(
        Case("yes", f"3 equal arms, {draw}", seeds, MISS, partial(_profiled, seeds=seeds, draw=draw))
        for draw in ("normal", "squares", "log-normal")
        for seeds in (5, 50)
    ),
]
