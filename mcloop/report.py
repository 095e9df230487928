"""What was seen, in words: which cell collapsed, at what rate, against which law; and the numbers behind the figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mcloop.dataset import AXES


class Cell(NamedTuple):
    """One cell of the grid: its coordinates, and per variable the mean, its standard error, a band, and the law.

    `tail` is E x^2 / (E x)^2 over seeds: where it is large, a few seeds carry the mean, and its error says nothing.
    """

    where: dict[str, Any]
    label: str
    g: np.ndarray
    mean: dict[str, np.ndarray]
    sem: dict[str, np.ndarray]
    band: dict[str, tuple[np.ndarray, np.ndarray]]
    law: dict[str, np.ndarray]
    tail: dict[str, np.ndarray]


_HEAVY = 5.0  # of Cell.tail: a log-normal of log-variance 1.6, at which a thousand seeds still give an honest z


def cells(ds, experiment) -> Iterator[Cell]:
    """Every cell of a Dataset, with its law where the experiment has one."""
    inner = {"seed", "statistic", "generation"}
    axes = [d for d in ds.dims if d not in inner]
    varied = [d for d in axes if ds.sizes[d] > 1] or axes[:1]
    g = ds["generation"].values
    for point in itertools.product(*(ds[d].values for d in axes)):
        where = {d: v.item() if isinstance(v, np.generic) else v for d, v in zip(axes, point, strict=True)}
        part = ds.sel(where)
        mean, sem, band, tail = {}, {}, {}, {}
        for name in map(str, part.data_vars):
            mean[name], sem[name], band[name] = _over_seeds(part[name])
            count = part.sizes.get("seed") or ds.attrs.get("sample_count", 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                tail[name] = 1 + count * (sem[name] / mean[name]) ** 2
        law = {}
        if experiment.law is not None:
            law = {k: np.broadcast_to(v, g.shape) for k, v in experiment.law(g, **where).items()}
        label = ", ".join(_named(d, where[d]) for d in varied)
        yield Cell(where, label, g, mean, sem, band, law, tail)


def _named(axis: str, value) -> str:
    return str(value) if isinstance(value, str) else f"{axis} {value:g}"


def _over_seeds(variable):
    if "statistic" in variable.dims:
        known = {str(s): variable.sel(statistic=s).values for s in variable["statistic"].values}
        mean = known.get("mean", known.get("median"))
        mean = np.full(variable.sizes["generation"], np.nan) if mean is None else mean
        sem = known.get("sem", np.full_like(mean, np.nan))
        return mean, sem, (known.get("q05", mean - 2 * sem), known.get("q95", mean + 2 * sem))
    x = variable.transpose("seed", "generation").values.astype(np.float64)
    mean = x.mean(0)
    if len(x) < 2:
        return mean, np.full_like(mean, np.nan), (mean, mean)
    with np.errstate(invalid="ignore"):
        return mean, x.std(0, ddof=1) / len(x) ** 0.5, tuple(np.quantile(x, (0.05, 0.95), 0))


def z_score(cell: Cell, name: str) -> float:
    """The largest |z| of mean against law over a few generations, signed; NaN without a law or an error.

    Generations at which the seeds are too heavy-tailed for a mean to be tested are left out.
    """
    if name not in cell.law:
        return float("nan")
    places = np.unique(np.linspace(0, len(cell.g) - 1, 11).astype(int)[1:])
    places = places[(cell.tail[name][places] < _HEAVY) | (np.abs(cell.mean[name][places]) < cell.sem[name][places])]
    gap, sem = (cell.mean[name] - cell.law[name])[places], cell.sem[name][places]
    z = gap[sem > 0] / sem[sem > 0]
    return float(z[np.abs(z).argmax()]) if z.size else float("nan")


def verdict(cell: Cell, name: str, worse: str) -> str:
    """A sentence on where a curve went."""
    y = cell.mean[name]
    first, last = y[0], y[-1]
    if not np.isfinite(last):
        return f"{name} is {last} at the end"
    half = y[len(y) // 2]
    # a rate a generation over the second half, where the start no longer shows
    span = len(y) - 1 - len(y) // 2
    rate = (last / half) ** (1 / span) - 1 if span and half > 0 and last > 0 else float("nan")
    moved = f"{name} went from {first:.3g} to {last:.3g} in {len(y)} generations"
    if abs(first) < 1e-6 * abs(last):
        return f"grew: {moved}"
    ratio = last / first
    if worse == "log":
        slope = (last - half) / span if span else float("nan")
        state = "collapsed" if last < np.log(0.1) else "is collapsing" if slope < -1e-3 else "held"
        return f"{state}: {moved}, {slope:+.3g} a generation over the second half"
    if worse == "down":
        falling = "is collapsing" if ratio < 0.5 and rate < -1e-3 else "is falling" if rate < -2e-3 else _settled(1 / ratio)
        state = "collapsed" if ratio < 0.1 else falling
    else:
        rising = "is getting worse" if ratio > 1.5 and rate > 2e-3 else _settled(ratio)
        state = "diverged" if ratio > 10 else rising
    if state in _AT_REST or not np.isfinite(rate):
        return f"{state}: {moved}"
    return f"{state}: {moved}, {100 * rate:+.2g} % a generation over the second half"


_AT_REST = ("held", "settled, worse", "improved")


def _settled(factor: float) -> str:
    """What to call a curve that no longer moves, by the factor by which it got worse."""
    return "held" if 0.75 < factor < 1.33 else "settled, worse" if factor > 1 else "improved"


def write(ds, experiment, caption, settings, figures: list[str]) -> str:
    """The report of a run, in Markdown."""
    headline = next(n for n in experiment.measure if n in ds)
    shown = list(cells(ds, experiment))
    lines = [f"# {caption.title.rstrip('.')}", ""]
    lines += [f"*Paper:* {caption.paper}", "", f"*Claim:* {caption.claim}", ""] if caption.claim else []
    count = ds.attrs.get("sample_count", settings.seeds)
    lines += [
        f"`mcloop run {settings.name} --size {settings.size}`: {len(shown)} cells x {count} seeds x "
        f"{settings.generations} generations (generation 1 is the fit on real data), seed {settings.seed}.",
        f"Estimator: {ds.attrs.get('estimator', 'not stated')}. Figures: means over seeds with the 5-95 % band of seeds; "
        "dashed lines are theory.",
        "",
        "## What was seen",
        "",
    ]
    lines += _sentences(shown, headline, experiment) if experiment.worse else []
    if experiment.notes is not None:
        lines += [f"- {note}" for note in experiment.notes(ds)]
    lines += ["", "## Numbers at the last generation", "", *_table(shown, [n for n in experiment.measure if n in ds])]
    lines += ["", *[f"![{name}](plots/{name})" for name in figures], ""]
    return "\n".join(lines)


def _sentences(shown, headline, experiment, most: int = 24) -> list[str]:
    said, worst = [], 0.0
    for cell in shown[:most]:
        if headline not in cell.mean or not np.isfinite(cell.mean[headline]).any():
            continue
        z = z_score(cell, headline)
        against = ""
        if headline in cell.law:
            heavy = not cell.tail[headline][-1] < _HEAVY and cell.mean[headline][-1] > 0
            tested = f"worst z {z:+.1f}{' over the generations that can be tested' if heavy else ''}"
            against = f" (theory: {cell.law[headline][-1]:.3g}, {tested if np.isfinite(z) else 'too few seeds to test'})"
        said.append(f"- **{cell.label or 'the loop'}** {verdict(cell, headline, experiment.worse)}{against}.")
    if len(shown) > most:
        said.append(f"- ... and {len(shown) - most} more cells, in `results.nc`.")
    tested = [z_score(c, n) for c in shown for n in c.law if n in c.mean]
    tested = [z for z in tested if np.isfinite(z)]
    if tested:
        worst = max(tested, key=abs)
        # the largest of many z-scores: five places on each of so many curves
        limit = 3.0 + 0.5 * np.log10(len(tested))
        agree = "agree with" if abs(worst) < limit else "DISAGREE with"
        said.append(f"- The simulated means {agree} theory: the largest |z| of {len(tested)} curves is {abs(worst):.1f}.")
    return said


def _table(shown, names) -> list[str]:
    axes = list(shown[0].where)
    head = [*axes, *names]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for cell in shown[:60]:
        values = [_number(cell.mean[n][-1], cell.sem[n][-1]) for n in names]
        rows.append(f"| {' | '.join([_short(cell.where[a]) for a in axes] + values)} |")
    words = {a: AXES[a] for a in axes if a in AXES}
    return rows + ["", "; ".join(f"{k}: {v}" for k, v in words.items()) + "."] if words else rows


def _short(value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _number(mean: float, sem: float) -> str:
    if not np.isfinite(mean):
        return "" if np.isnan(mean) else str(mean)
    return f"{mean:.4g} +- {sem:.1g}" if np.isfinite(sem) else f"{mean:.4g}"
