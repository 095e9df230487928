"""What it costs to have a generator of one's own in mcloop: its loop by `mcloop.train`, and the same loop in plain Python.

    python benchmarks/external_loops.py [--quick] [--json FILE]

Both fit and draw equally often, on as many points, under `replace`; the plain loop keeps and measures nothing, mcloop writes
every generation's data and a checkpoint to disk. They take turns, and a figure is the best of the repeats. The share is what
mcloop adds, over what the plain loop takes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import mcloop
from mcloop.models.tabular import GaussianCopula

HEAD = ("generator", "points", "plain loop, s a generation", "mcloop, s a generation", "mcloop adds")


class Case(NamedTuple):
    """A generator and its real points; `take` gives the points out of what it draws."""

    name: str
    make: Callable[[], Any]
    real: Any
    take: Callable[[Any], Any] = lambda drawn: drawn


def people(n: int) -> pd.DataFrame:
    """A table of mixed columns, made up."""
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=n) for i in range(6)} | {f"k{i}": rng.integers(0, 50, n) for i in range(2)}
    columns |= {f"c{i}": rng.choice(list("abcdefgh"), n) for i in range(2)}
    return pd.DataFrame({**columns, "gaps": np.where(rng.random(n) < 0.1, np.nan, columns["x0"])})


def cases(scale: int) -> list[Case]:
    """Everything that is timed, on points / `scale`."""
    x = np.random.default_rng(0).normal(size=(200_000 // scale, 10))
    return [
        Case(
            "GaussianMixture(8), full",
            lambda: GaussianMixture(8, max_iter=30, tol=0, random_state=0),
            x,
            lambda drawn: drawn[0],
        ),
        Case("KernelDensity", lambda: KernelDensity(bandwidth=0.2), x),
        Case("mcloop's GaussianCopula", lambda: GaussianCopula(0), people(100_000 // scale)),
    ]


def plain(case: Case, generations: int) -> float:
    """Seconds a generation of the loop as one would write it."""
    began, points = time.perf_counter(), case.real
    for _ in range(generations):
        model = case.make()
        model.fit(points)
        points = case.take(model.sample(len(points)))
    return (time.perf_counter() - began) / generations


def looped(case: Case, generations: int) -> float:
    """Seconds a generation of the same loop by mcloop, with everything that it keeps on disk."""
    model = mcloop.external(case.make, case.real, lambda real, drawn: 0.0)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        mcloop.train(lambda: mcloop.make_loop(model, mcloop.regimes.replace()), {}, 1, generations, folder=folder)
        return (time.perf_counter() - began) / generations


def main() -> None:
    """Prints the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="a tenth of the points, one repeat")
    asked.add_argument("--json")
    given = asked.parse_args()
    rows = []
    generations, repeats = 4, 1 if given.quick else 2
    ten = np.arange(10.0)[:, None]
    looped(Case("", KernelDensity, ten), 2)  # what is imported and compiled once
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for case in cases(10 if given.quick else 1):
        seen = [(plain(case, generations), looped(case, generations)) for _ in range(repeats)]
        alone, with_mcloop = (min(times) for times in zip(*seen, strict=True))
        added = with_mcloop / alone - 1
        print(f"| {case.name} | {len(case.real):,} | {alone:.2f} | {with_mcloop:.2f} | {100 * added:.0f} % |", flush=True)
        rows.append({"generator": case.name, "points": len(case.real), "plain": alone, "mcloop": with_mcloop})
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"cores": os.cpu_count(), "rows": rows}, file)


if __name__ == "__main__":
    main()
