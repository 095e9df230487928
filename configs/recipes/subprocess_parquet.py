"""A program by Parquet: a generator that is another program (a recipe)

Paper: beyond the papers; whatever draws rows, in any language
Claim: The program that stands here draws rows again and blurs their numbers, keeping their variance: fitted on its own rows
    alone it loses what ties the columns together; where the real rows are kept among them, it loses a bounded part.
Command: mcloop run recipes/subprocess_parquet --data FILE --set "command=Rscript mine.R {train} {out} {n} {seed}"
Minutes: tiny 1, small 5, paper 60
Expected: on scikit-learn's wines with 2 seeds, association_error from .051 (real rows drawn again: .045) to .145 (replace),
    .074 (accumulate) and .068 (augment) in 8 generations; three growers are too common to be lost
"""

import sys
from functools import cache
from typing import Any

import numpy as np

from mcloop import make_loop, regimes
from mcloop.data.mixed import MixedTable, read_table, typed
from mcloop.experiment import Experiment, Size, once
from mcloop.own.command import Command
from mcloop.own.external import external
from mcloop.own.floor import with_floor
from mcloop.own.given_table import given

ARMS = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(1.0)}

# a smoothed bootstrap: a number moves by a fifth of its column's spread, and back towards the mean by as much as that adds
PROGRAM = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq

train, out, n, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(seed)
real = pq.read_table(train)
drawn = real.take(rng.integers(0, len(real), n))
for i, field in enumerate(drawn.schema):
    if pa.types.is_floating(field.type):
        x = drawn[field.name].to_numpy()
        mean, spread = np.nanmean(real[field.name].to_numpy()), np.nanstd(real[field.name].to_numpy())
        x = mean + (x - mean + 0.2 * spread * rng.normal(size=n)) / 1.04**0.5
        drawn = drawn.set_column(i, field, pa.array(x, field.type, from_pandas=True))
pq.write_table(drawn, out)
"""


def load(path):
    """A table (CSV, Parquet, Feather, Excel, JSON lines or NPY) of numbers, categories, dates and gaps; without one, wines."""
    return given(path, rows(path))


@cache
def rows(path) -> MixedTable:
    if path is not None:
        return read_table(path)
    from sklearn.datasets import load_wine

    found: Any = load_wine(as_frame=True)
    frame = found.frame.assign(grower=np.array(["first", "second", "third"])[found.target]).drop(columns="target")
    return typed(frame, source="scikit-learn wines, 178 of them")


@once
def model(path, command, fit, limit):
    def program():
        words = command or [sys.executable, "-c", PROGRAM, "{train}", "{out}", "{n}", "{seed}"]
        return Command(words, fit or None, limit)

    return external(program, rows(path).frame)


def make(arm, table, command="", fit="", limit=86_400.0):
    """One loop.

    Args:
        arm: one of ARMS; augment keeps as many real rows as there are synthetic ones.
        command: what draws, with {train} (or {model}), {out}, {n} and {seed}; without one, the program in this file.
        fit: what is run once in a fit, with {train}, {model} and {seed}; without one, nothing.
        limit: seconds that a command may take.
    """
    return make_loop(model(table.path, command, fit, limit), ARMS[arm])


def annotate(ds, options):
    return with_floor(ds, rows(options["table"].path).frame)


experiment = Experiment(
    make=make,
    grid={"arm": list(ARMS)},
    sizes={"tiny": Size(2, 3), "small": Size(2, 8), "paper": Size(20, 20)},
    measure=("association_error", "ks_mean", "tv_mean", "range_kept", "categories_kept"),
    load=load,
    annotate=annotate,
    worse="up",
    neural=True,
    quick=True,
)
