"""Your own table, retrained on its own samples: what each model loses, generation by generation

Paper: beyond the three papers, whose exact loops start from a known truth
Claim: Keeping the real rows bounds the damage; training on synthetic rows alone costs one more sampling error a generation.
Command: mcloop run beyond/real_table --data FILE (CSV, Parquet or NPY; the last numeric column is the regression's target)
Minutes: tiny 1, small 3, paper 15
Expected: the mean's and the regression's error after g generations, in real-only units: replace g, accumulate < 1.645
"""

from typing import NamedTuple

import numpy as np

from mcloop import exact, make_loop, regimes
from mcloop.data.tables import default_table, load_table, split_target, standardise
from mcloop.experiment import Experiment, Size
from mcloop.report import plots, story

REGIMES = {
    "replace": lambda lam: regimes.replace(),
    "accumulate": lambda lam: regimes.accumulate(),
    "augment": lambda lam: regimes.augment(lam),
}
MOST_ROWS = 400  # for the families that keep every row (kde, mixture)
TEST_SHARE = 0.2
COMPONENTS = 5


class Real(NamedTuple):
    """Standardised data: rows for the densities, and a regression with a held-out part; what it all is, in words."""

    rows: np.ndarray
    few: np.ndarray
    labelled: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    source: str
    remarks: list[str]


def load(path):
    tables = [load_table(path)] * 2 if path else [default_table("digits"), default_table("diabetes")]
    density, labelled = tables
    rows, _, _ = standardise(density.values)
    order = np.random.default_rng(0).permutation
    few = rows[np.sort(order(len(rows))[:MOST_ROWS])]
    remarks = [f"{density.source}: {len(rows)} rows, {rows.shape[1]} numeric columns ({', '.join(density.names[:12])})"]
    remarks += [f"column {name} was left out: {why}" for name, why in density.dropped]
    if len(few) < len(rows):
        remarks.append(f"kde and mixture keep every row of every generation, and use {len(few)} of the rows")
    x, y, names = split_target(labelled)
    target = next(n for n in labelled.names if n not in names)
    z, _, _ = standardise(np.column_stack([x, y]))
    mixed = z[order(len(z))]
    cut = int(len(mixed) * (1 - TEST_SHARE))
    parts = (mixed[:cut, :-1], mixed[:cut, -1], mixed[cut:, :-1], mixed[cut:, -1])
    remarks.append(f"regression of {target} on {x.shape[1]} columns of {labelled.source}: {cut} rows, {len(z) - cut} held out")
    return Real(rows, few, parts, " and ".join(dict.fromkeys(t.source for t in tables)), remarks)


def _model(family, real: Real):
    """The family's model, its data, and the error that real data alone would leave (NaN where it has no closed form)."""
    d = real.rows.shape[1]
    if family == "gaussian":
        return exact.gaussian(d=d, n=len(real.rows)), real.rows, d / len(real.rows)
    if family == "kde":
        bandwidth = len(real.few) ** (-1 / (d + 4))  # Scott's rule on standardised columns
        return exact.kde(d=d, n=len(real.few), bandwidth=bandwidth), real.few, np.nan
    if family == "mixture":
        return exact.gaussian_mixture(k=COMPONENTS, d=d, n=len(real.few)), real.few, np.nan
    x, y = real.labelled[:2]
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    columns = x.shape[1]
    unit = columns / len(x) * (left**2).sum() / (len(x) - columns)
    return exact.linear_regression(d=columns, n=len(x), noise=None), real.labelled, unit


def make(family, regime, lam, table):
    model, data, unit = _model(family, table)

    def measure(params, truth):
        return {**model.measure(params, truth), "unit_error": np.float32(unit)}

    bound = model._replace(observe=lambda key, real: model.observe(key, data), measure=measure)
    return make_loop(bound, REGIMES[regime](lam))


HEADLINE = {
    "gaussian": ("mean_sq_error", "Gaussian: drift of the mean"),
    "regression": ("held_out_error", "regression: error on held-out rows"),
    "kde": ("second_moment", "kernel density: spread"),
    "mixture": ("trace_ratio", "mixture: variance kept"),
}


def figure(ds, experiment):
    wanted = []
    for family, (name, heading) in HEADLINE.items():
        if family in ds["family"].values and name in ds:
            wanted.append((list(story.cells(ds.sel(family=[family]), experiment)), name, heading))
    strip = {f"{family}, " for family in HEADLINE}
    wanted = [([c._replace(label=_without(c.label, strip)) for c in shown], n, h) for shown, n, h in wanted]
    return {"families": plots.panels(ds, wanted, f"Retrained on its own samples: {ds.attrs.get('data', '')}")}


def _without(label, prefixes):
    return next((label.removeprefix(p) for p in prefixes if label.startswith(p)), label)


def notes(ds):
    """What a user of the table should know, in rows and percent."""
    said = list(ds.attrs.get("remarks", []))
    for family in ds["family"].values:
        for regime in ds["regime"].values:
            part = ds.sel(family=family, regime=regime).isel(lam=0)
            said.append(f"**{family}, {regime}**: {_words(family, part)}")
    return said


def _words(family, part):
    g = part.sizes["generation"]
    mean = part.mean("seed")
    first, last = mean.isel(generation=0), mean.isel(generation=-1)
    if family == "mixture":
        return (
            f"after {g} generations the synthetic table keeps {100 * float(last['trace_ratio']):.0f} % of the variance and "
            f"{100 * float(last['mode_coverage']):.0f} % of the {COMPONENTS} components."
        )
    if family == "kde":
        return (
            f"the spread goes from {float(first['second_moment']):.2f} to {float(last['second_moment']):.2f} times the real "
            "one (every refit adds the kernel)."
        )
    if family == "gaussian":
        unit = float(last["unit_error"])
        worse = 1 + float(last["mean_sq_error"]) / unit
        kept = f"; {100 * float(last['trace_ratio']):.1f} % of the variance is kept"
        return f"the column means are as uncertain as if {100 * (1 - 1 / worse):.0f} % of the rows had been lost{kept}."
    worse = 1 + float(last["test_error"]) / float(last["unit_error"])
    return (
        f"the coefficients are as uncertain as if {100 * (1 - 1 / worse):.0f} % of the rows had been lost; held-out squared "
        f"error {float(first['held_out_error']):.4f} on real data, {float(last['held_out_error']):.4f} after {g} generations."
    )


experiment = Experiment(
    make=make,
    grid={"family": ["gaussian", "regression", "kde", "mixture"], "regime": list(REGIMES), "lam": [1.0]},
    sizes={"tiny": Size(4, 4), "small": Size(40, 20), "paper": Size(400, 50)},
    measure=("mean_sq_error", "trace_ratio", "held_out_error", "test_error", "second_moment", "mode_coverage", "w2"),
    figure=figure,
    notes=notes,
    load=load,
    worse="",
)
