"""The cells of a grid: their coordinates, what was measured in each over seeds, and what the law says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mcloop.results import INSIDE, measures, named


class Cell(NamedTuple):
    """One cell of the grid: its coordinates, and per variable the mean, its standard error, a band, and the law.

    `values` holds every seed, (seeds, generations), where they were kept, and `kept` the statistics where they were not.
    """

    where: dict[str, Any]
    label: str
    g: np.ndarray
    mean: dict[str, np.ndarray]
    sem: dict[str, np.ndarray]
    band: dict[str, tuple[np.ndarray, np.ndarray]]
    law: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    seeds: int = 0
    kept: Mapping[str, dict[str, np.ndarray]] = {}


def cells(ds, experiment) -> Iterator[Cell]:
    """Every cell of a Dataset, with its law where the experiment has one; pictures are left out."""
    ds = ds[measures(ds)]
    g = ds["generation"].values
    for where, label in coordinates(ds):
        part = ds.sel(where)
        mean, sem, band, values, kept = {}, {}, {}, {}, {}
        count = part.sizes.get("seed") or ds.attrs.get("sample_count", 1)
        for name in map(str, part.data_vars):
            mean[name], sem[name], band[name] = _over_seeds(part[name])
            if "seed" in part[name].dims:
                values[name] = part[name].transpose("seed", "generation").values.astype(np.float64)
            else:
                statistics = {str(k): part[name].sel(statistic=k).values for k in part["statistic"].values}
                kept[name] = {**statistics, "mean": mean[name], "sem": sem[name]}
        law = {}
        if experiment.law is not None:
            law = {k: np.broadcast_to(v, g.shape) for k, v in experiment.law(g, **where).items()}
        yield Cell(where, label, g, mean, sem, band, law, values, int(count), kept)


def coordinates(ds) -> list[tuple[dict[str, Any], str]]:
    """The coordinates of every cell of the grid, and a label that names the axes which vary."""
    measured = ds[measures(ds)]
    axes = [str(d) for d in measured.dims if d not in INSIDE]
    varied = [d for d in axes if measured.sizes[d] > 1] or axes[:1]
    found = []
    for point in itertools.product(*(measured[d].values for d in axes)):
        where = {d: v.item() if isinstance(v, np.generic) else v for d, v in zip(axes, point, strict=True)}
        found.append((where, ", ".join(named(d, where[d]) for d in varied)))
    return found


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
