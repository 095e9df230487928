"""A finished run's error by generation, as a squared error, and the error of real data only beside it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.results import DISTANCES, INSIDE, measures
from mcloop.storage.manifest import read_manifest, read_settings

RESULTS = "results.nc"
SQUARED = (
    "mean_sq_error",
    "test_error",
    "ridge_test_error",
    "kl",
    "mmd2",
    "fid_inf",
    "fid",
    "kid",
    "kl_modes",
    "held_out_error",
)
SHARES = ("lost_mass",)
_ALONE = ("baseline", "real only", "no synthetic")


def read_results(folder: Path):
    """The experiment's name and the Dataset of a finished run, as it was saved.

    Raises:
        InputError: no run is there, it is not finished, or its results are not what it saved.
    """
    manifest = read_manifest(folder)
    name = read_settings(folder, {"name": str})["name"]
    record = manifest["files"].get(RESULTS)
    if manifest["status"] != "finished" or not isinstance(record, dict):
        raise InputError(f"folder {str(folder)!r} holds a run that is not finished; `mcloop run {name}` with --out goes on.")
    try:
        payload = (Path(folder) / RESULTS).read_bytes()
    except OSError as error:
        raise InputError(f"{str(Path(folder) / RESULTS)!r} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(payload).hexdigest() != record.get("sha256"):
        raise InputError(f"{str(Path(folder) / RESULTS)!r} is damaged: it is not what the run saved.")
    import xarray as xr

    return name, xr.load_dataset(io.BytesIO(payload), engine="h5netcdf")


def choose(ds, experiment, asked: str | None = None) -> str:
    """The measure to compare: the one asked for, the experiment's headline if that is an error, or the first error."""
    known = measures(ds)
    if asked is not None:
        if asked not in known:
            raise InputError(f"measure must be one of {', '.join(known)}, not {asked!r}.")
        return asked
    told = list(experiment.measure) if experiment is not None else []
    errors = (*SQUARED, *DISTANCES, *SHARES)
    own = told[:1] if experiment is not None and experiment.worse == "up" and told[0] != "nll" else []
    for candidate in (*own, *(n for n in told if n in errors), *errors):
        if candidate in known and np.isfinite(ds[candidate].values).any():
            return candidate
    raise InputError(f"measure must be an error, and this run has none: it measured {', '.join(known)}.")


def scale(ds, name: str) -> tuple[int, str]:
    """The power that makes a measure a squared error, and why, in words."""
    units = str(ds[name].attrs.get("units", ""))
    floor = ds[name].attrs.get("floor")
    more = ""
    if floor is not None and np.isfinite(floor):
        more = f"; real data themselves score {float(floor):.3g} by its finite sample, so that ratios are drawn towards 1"
    if name == "held_out_error":
        more = "; it holds the labels' own noise too, so that ratios are drawn towards 1"
    if name in DISTANCES:
        return 2, f"a distance (in {units}), squared here{more}"
    if name in SQUARED:  # by name: a second moment has the units of a square too, and is none of an error
        return 1, f"a squared error already (in {units if units not in ('', '1') else 'squared units'}){more}"
    kind = "a share of mass" if name in SHARES else "of its own kind"
    return 1, f"{kind}, no squared error: the ratio is taken as it is, and the table above does not speak of it{more}"


class Curve(NamedTuple):
    """An error by generation: its mean over seeds, the mean's standard error, and the seeds (None where they were reduced)."""

    mean: np.ndarray
    sem: np.ndarray
    seeds: np.ndarray | None


class Errors:
    """A measure of a Dataset as squared errors, cell by cell, from seeds or from statistics over them."""

    def __init__(self, ds, name: str, power: int) -> None:
        self.variable, self.power = ds[name], power
        self.kept = "seed" in self.variable.dims
        self.seeds = int(self.variable.sizes["seed"] if self.kept else ds.attrs.get("sample_count", 1))
        self.axes = [str(d) for d in self.variable.dims if d not in INSIDE]

    def places(self) -> list[dict[str, Any]]:
        """The coordinates of every cell."""
        shape = [self.variable.sizes[d] for d in self.axes]
        values = {d: self.variable[d].values.tolist() for d in self.axes}
        return [{d: values[d][i] for d, i in zip(self.axes, point, strict=True)} for point in np.ndindex(*shape)]

    def at(self, where: dict[str, Any]) -> Curve:
        """The cell's path; of a reduced distance the square of its mean, with the error of a square."""
        part = self.variable.sel(where)
        if self.kept:
            x = part.transpose("seed", "generation").values.astype(float) ** self.power
            count = len(x)
            sem = x.std(0, ddof=1) / count**0.5 if count > 1 else np.full(x.shape[1], np.nan)
            return Curve(x.mean(0), sem, x)
        known = {str(s): part.sel(statistic=s).values.astype(float) for s in part["statistic"].values}
        mean = known.get("mean", known.get("median"))
        if mean is None:
            raise InputError("reduce of this run must hold the mean over seeds, or the median, for errors to be compared.")
        sem = known["sem"] if "sem" in known and "mean" in known else np.full_like(mean, np.nan)
        return Curve(mean**self.power, sem if self.power == 1 else 2 * np.abs(mean) * sem, None)


Pair = tuple[Curve, Curve]


def pairs(ds, name: str, error: Errors) -> tuple[Callable[[dict[str, Any]], Pair], str]:
    """where -> (the cell's error, that of real data only), each by generation; and what the second is, in words.

    In this order: a cell of real data only (an arm or regime called so, or lam 0) at the same generation, the variable
    `unit_error`, generation 1 of the same cell.
    """
    named = [(a, v) for a in error.axes if ds[a].dtype.kind in "OUS" for v in ds[a].values.tolist()]
    alone = [(a, v) for a, v in named if any(word in v.lower() for word in _ALONE)]
    if alone:
        axis, value = alone[0]
        words = f"the {axis} {value!r} at the same generation"
        return lambda where: (error.at(where), error.at({**where, axis: value})), words
    if "lam" in error.axes and 0 in ds["lam"].values.tolist():
        words = "the cell at lam 0 (real data only) at the same generation"
        return lambda where: (error.at(where), error.at({**where, "lam": 0})), words
    if "unit_error" in ds and error.kept and np.isfinite(ds["unit_error"].values).any():
        unit = Errors(ds, "unit_error", 1)
        words = (
            "the error that real data alone would leave (unit_error); where the loop's own is counted from the fit on the real "
            "data, and so begins at 0, the two are added"
        )
        return lambda where: _united(error.at(where), unit.at(where)), words
    if not any(error.at(where).mean[0] > 0 for where in error.places()):
        raise InputError(
            f"measure {name!r} is 0 at generation 1 and no cell of this run has real data only: nothing to divide by."
        )
    return lambda where: (error.at(where), _first(error.at(where))), "generation 1 of the same cell, the fit on real data"


def _united(x: Curve, unit: Curve) -> Pair:
    """A loop's error and the real-only one, which is independent of it where the loop's begins at 0: then their squares add."""
    if not x.mean[0] < 1e-6 * unit.mean[0]:
        return x, unit
    seeds = None if x.seeds is None or unit.seeds is None else x.seeds + unit.seeds
    return Curve(x.mean + unit.mean, x.sem, seeds), unit


def _first(x: Curve) -> Curve:
    """Generation 1 for ever."""
    seeds = None if x.seeds is None else np.broadcast_to(x.seeds[:, :1], x.seeds.shape)
    return Curve(np.full_like(x.mean, x.mean[0]), np.full_like(x.sem, x.sem[0]), seeds)
