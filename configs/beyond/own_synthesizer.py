"""Your own synthesizer: what is lost when it is trained on its own rows

Paper: beyond the three papers, whose generators are their own
Claim: A synthesizer that is fitted on its own rows alone loses rare categories, the ends of the ranges and what ties the
    columns together, generation by generation; where the real rows are kept among them, it loses a bounded part.
Command: mcloop run beyond/own_synthesizer --data FILE --synthesizer package.module:factory
Minutes: tiny 1, small 4, paper 40
Expected: at size small, on scikit-learn's wines, after 6 generations: the ties between columns are off by .156 (replace) and
    .104 (augment) with a Gaussian copula, difference .052 +- .030, and by .130 and .068 with a copula a class, .062 +- .034
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mcloop import make_loop, regimes
from mcloop.data.mixed import MixedTable, parse_columns, read_table, typed
from mcloop.experiment import Experiment, Size
from mcloop.metrics.tables import table_metrics
from mcloop.models.tabular import ClassMixture, GaussianCopula
from mcloop.own.external import external
from mcloop.own.factory import factory
from mcloop.own.floor import with_floor
from mcloop.own.given_table import Given

BUILT_IN = {"copula": GaussianCopula, "classes": ClassMixture}
REGIMES = {
    "replace": lambda lam: regimes.replace(),
    "accumulate": lambda lam: regimes.accumulate(),
    "augment": lambda lam: regimes.augment(lam),
}
TEST_SHARE = 0.2


class Rows(NamedTuple):
    """A table in two parts: rows to train on, and rows held out where there is a target to predict; what it is, in words."""

    train: Any
    held_out: Any
    target: str
    remarks: list[str]


def load(path):
    """A table (CSV, Parquet, Feather, Excel, JSON lines or NPY) of numbers, categories, dates and gaps; without one, wines."""
    return Given(path, "scikit-learn wines, 178 of them" if path is None else repr(Path(path).name))


@cache
def rows(path, columns, ignore, target) -> Rows:
    asked = {
        "columns": parse_columns(columns) if columns else None,
        "ignore": [name.strip() for name in ignore.split(",") if name.strip()],
        "target": target or None,
    }
    table = wines(asked) if path is None else read_table(path, **asked)
    mixed = table.frame.sample(frac=1, random_state=0).reset_index(drop=True)
    held_out = int(len(mixed) * TEST_SHARE) if table.target else 0
    kinds = [f"{column.name} ({column.kind}{', with gaps' if column.missing else ''})" for column in table.kinds]
    named = ", ".join(kinds[:20]) + (", ..." if len(kinds) > 20 else "")
    remarks = [
        f"{table.source}: {len(mixed):,} rows, {len(kinds)} columns: {named}",
        *(f"column {name} was left out: {why}" for name, why in table.dropped),
        *table.remarks,
    ]
    if held_out:
        remarks.append(f"{table.target} is predicted from the other columns; {held_out:,} real rows are held out for that")
    return Rows(mixed[held_out:].reset_index(drop=True), mixed[:held_out] if held_out else None, table.target, remarks)


def wines(asked) -> MixedTable:
    from sklearn.datasets import load_wine

    found: Any = load_wine(as_frame=True)
    frame = found.frame.assign(grower=np.array(["first", "second", "third"])[found.target]).drop(columns="target")
    return typed(frame, source="scikit-learn wines", **{**asked, "target": asked["target"] or "grower"})


@cache
def model(synthesizer, path, columns, ignore, target):
    table = rows(path, columns, ignore, target)
    made = BUILT_IN.get(synthesizer) or factory(synthesizer)
    return external(made, table.train, measure(table))


def measure(table: Rows):
    def scores(real, drawn):
        if table.held_out is None:
            return table_metrics(real, drawn)
        return table_metrics(real, drawn, target=table.target, held_out=table.held_out)

    return scores


def make(regime, lam, table, synthesizer="copula", columns="", ignore="", target=""):
    """One loop of a synthesizer on a table.

    Args:
        regime: one of REGIMES.
        lam: synthetic : real rows, of augment.
        synthesizer: "copula", "classes" or package.module:factory.
        columns: kinds of columns, where they are not to be found out: "category=zip,code date=when".
        ignore: columns to leave out, with commas between them.
        target: a column to predict, by which synthetic rows are judged too.
    """
    return make_loop(model(synthesizer, table.path, columns, ignore, target), REGIMES[regime](lam))


def annotate(ds, options):
    """What real rows themselves score, and what the columns are."""
    table = rows(options["table"].path, options["columns"], options["ignore"], options["target"])
    ds = with_floor(ds, table.train, measure(table))
    ds.attrs["remarks"] = [*table.remarks, *ds.attrs.get("remarks", [])]
    return ds


WORDS = (
    ("association_error", "the ties between columns are off by {}"),
    ("categories_kept", "of the categories {} are there"),
    ("rare_kept", "of the rare ones (at most 2 % of the rows) {}"),
    ("range_kept", "of the ranges of numbers {} are spanned"),
    ("tstr", "a model trained on synthetic rows is {} as good on real ones as one trained on real rows"),
)


def notes(ds):
    """What a user of the table should know, the answer first."""
    said = [sentence for lam in ds["lam"].values.tolist() if (sentence := _answer(ds, lam))]
    for regime in ds["regime"].values.tolist():
        for lam in ds["lam"].values.tolist() if regime == "augment" else ds["lam"].values.tolist()[:1]:
            part = ds.sel(regime=regime, lam=lam)
            first, last = part.isel(generation=0), part.isel(generation=-1)
            words = "; ".join(
                template.format(f"{_told(name, last)} (at first {_told(name, first, False)})")
                for name, template in WORDS
                if name in ds and np.isfinite(last[name]).any()
            )
            label = f"{regime}, {_share(lam)}" if regime == "augment" else regime
            said.append(f"**{label}**: after {ds.sizes['generation']} generations {words}.")
    return [*said, f"Intervals are of 95 %, over {ds.sizes['seed']} seeds."]


def _answer(ds, lam) -> str:
    """Whether the real rows should be kept, by paired seeds; "" where the run has not both."""
    name, words = WORDS[0]
    if not {"replace", "augment"} <= set(ds["regime"].values.tolist()) or ds.sizes["seed"] < 2:
        return ""
    without, kept = (_last(ds.sel(regime=regime, lam=lam)[name]) for regime in ("replace", "augment"))
    half = _half(without - kept)
    mean = (without - kept).mean()
    if not np.isfinite(half):
        return ""
    told = (
        f"after {ds.sizes['generation']} generations {words.format(f'{without.mean():.3f}')} without them, and by "
        f"{kept.mean():.3f} where they are kept beside {_share(lam)} (difference {mean:.3f} +- {half:.3f})"
    )
    if mean - half > 0:
        return f"**Keep the real rows**: {told}."
    return f"Whether the real rows should be kept is not told by {ds.sizes['seed']} seeds: {told}."


def _share(lam) -> str:
    return "no real rows" if np.isinf(lam) else f"{100 * lam / (1 + lam):.3g} % synthetic rows"


def _last(values) -> np.ndarray:
    return np.asarray(values.isel(generation=-1), float).ravel()


def _half(values: np.ndarray) -> float:
    """Half of the 95 % interval of a mean over seeds."""
    return stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def _told(name, part, interval=True):
    values = np.asarray(part[name], float).ravel()
    values = values[np.isfinite(values)]
    scale, unit, digits = (1, "", 3) if name == "association_error" else (100, " %", 0)
    mean = f"{scale * values.mean():.{digits}f}{unit}"
    half = _half(values)
    return mean if not interval or not np.isfinite(half) else f"{mean} +- {scale * half:.{digits}f}{unit}"


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES), "lam": [1.0]},
    sizes={
        "tiny": Size(2, 3, {"synthesizer": ["copula"]}),
        "small": Size(5, 6, {"synthesizer": list(BUILT_IN)}),
        "paper": Size(30, 20, {"synthesizer": list(BUILT_IN), "lam": [0.25, 1.0, 4.0]}),
    },
    measure=("association_error", "ks_mean", "tv_mean", "range_kept", "categories_kept", "tstr"),
    notes=notes,
    load=load,
    annotate=annotate,
    worse="up",
    neural=True,
    quick=True,
)
