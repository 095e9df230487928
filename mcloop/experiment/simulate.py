"""An experiment's loops, run; and what the dataset gets beside the measures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mcloop import results
from mcloop.errors import InputError
from mcloop.experiment.arguments import complete
from mcloop.experiment.config import Experiment, Settings
from mcloop.experiment.own_data import placeless
from mcloop.report import gate
from mcloop.storage.checkpoints import Keep
from mcloop.storage.files import one_line

UNFINISHED = "unannotated"  # attribute of a Dataset that `annotate` has not completed


def read_data(experiment: Experiment, settings: Settings):
    """The user's data, or what stands in for them; None for an experiment that takes none."""
    if experiment.load is None:
        return None
    table = experiment.load(Path(settings.data) if settings.data else None)
    # its words may be part of what a loop is said to be
    words = {name: _printable(getattr(table, name), settings.data) for name in ("source", "remarks")}
    if hasattr(table, "_replace"):
        return table._replace(**words)
    for name, said in words.items():
        with suppress(AttributeError):  # of a frozen object, which has to know itself what it says
            setattr(table, name, said)
    return table


def prepared(experiment: Experiment, settings: Settings, table: Any = None):
    """`make` of one run, one argument an axis: the size's options and the data are filled in.

    Whatever fails inside is one sentence, with the cell's values in it.
    """
    fixed = {k: v for k, v in experiment.sizes[settings.size].options.items() if k not in settings.grid}
    if experiment.load is not None:
        fixed["table"] = table

    def make(**cell):
        try:
            return experiment.make(**fixed, **cell)
        except InputError:
            raise
        except Exception as error:
            where = ", ".join(f"{k}={v}" for k, v in cell.items())
            why = f"{type(error).__name__}: {one_line(error)}".rstrip(".")
            raise InputError(f"the loop of {settings.name} cannot be made at {where} ({why}).") from error

    # what an axis may be is still said by the signature
    make.__signature__ = inspect.signature(partial(experiment.make, **fixed))  # pyright: ignore[reportFunctionMemberAccess]
    return make


def simulate(
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    table: Any = None,
    progress: bool = False,
    keep: Keep | None = None,
    identify=None,
):
    """Run the loops of an experiment; what is finished is kept in `folder`. The Dataset holds measures only: see `annotated`.

    Args:
        folder: the run's folder.
        table: what `read_data` read.
        keep: which checkpoints of neural loops stay.
        identify: see `train`.
    """
    make = prepared(experiment, settings, table)
    attributes: dict[str, Any] = {"config": settings.name, "size": settings.size}
    if experiment.load is not None:
        attributes |= {"data": table.source, "remarks": list(table.remarks)}
    shared: dict[str, Any] = {
        "seeds": settings.seeds,
        "generations": settings.generations,
        "seed": settings.seed,
        "attributes": attributes,
        "progress": progress,
        **({} if identify is None else {"identify": identify}),
    }
    if experiment.neural:
        from mcloop.drivers.train import train

        def judged(first) -> list[str]:
            first = annotated(first.assign_attrs({UNFINISHED: 1}), experiment, settings, table)
            return [sentence.replace("**", "") for sentence in first.attrs.get("first_fit", [])]

        ds = train(make, settings.grid, folder=folder / "loops", keep=keep, judge=judged, **shared)
    else:
        from mcloop.drivers.sweep import STATIC, sweep

        how: dict[str, Any] = {"reduce": experiment.reduce, "block": experiment.block}
        how["static"] = (*STATIC, *experiment.static)
        ds = sweep(make, settings.grid, folder=folder / "chunks", **how, **shared)
    ds = _with_measures(ds, experiment, settings)
    ds = ds.assign_attrs({UNFINISHED: 1}) if experiment.annotate else annotated(ds, experiment, settings)
    return ds.assign_attrs({name: _printable(value, settings.data) for name, value in ds.attrs.items()})


def _printable(value: Any, data: str | None) -> Any:
    """Text without what no file should hold: where the user's data lie, and a name of theirs that is not UTF-8."""
    if isinstance(value, (list, tuple)):
        return type(value)(_printable(v, data) for v in value)
    return placeless(value, data).encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _with_measures(ds, experiment: Experiment, settings: Settings):
    """The Dataset; where no loop lived to be measured, with measures that are nowhere finite, so that a report can say so."""
    if results.measures(ds):
        return ds
    axes = {name: values.tolist() for name, values in ((n, ds[n].values) for n in ds.dims)}
    shape = tuple(len(v) for v in axes.values())
    hollow = results.assemble({n: np.full(shape, np.nan, np.float32) for n in experiment.measure}, axes, {})
    return ds.assign(hollow.data_vars)


def annotated(ds, experiment: Experiment, settings: Settings, table: Any = None):
    """The Dataset with what the experiment's `annotate` adds, and without the mark that it is lacking."""
    if experiment.annotate is None:
        return gated(ds, experiment)
    known: Mapping[str, Any] = complete(experiment, settings.size, settings.grid)
    if experiment.load is not None:
        known = {**known, "table": table}
    several = [a for a, values in settings.grid.items() if len(values) > 1 and a not in experiment.grid]
    before = ds.attrs
    ds = experiment.annotate(ds.copy(), known)
    ds.attrs = {**before, **ds.attrs}
    ds.attrs.pop(UNFINISHED, None)
    if several:
        said = f"What is said of the evaluation belongs to {', '.join(f'{a} = {known[a]}' for a in several)}."
        ds.attrs["remarks"] = [*_listed(ds.attrs.get("remarks")), said]
    return gated(ds, experiment)


def gated(ds, experiment: Experiment):
    """The Dataset with the verdict on every cell's first fit, as a variable and in sentences; as it is for closed forms."""
    judged = gate.judge(ds, experiment)
    if not judged:
        return ds
    axes = [d for d in ds[results.measures(ds)[0]].dims if d not in results.INSIDE]
    shape = [ds.sizes[a] for a in axes]
    levels = np.full(shape, "", object)
    for verdict in judged:
        for where in verdict.cells:
            levels[tuple(int(np.flatnonzero(ds[a].values == where[a])[0]) for a in axes)] = verdict.level
    ds = ds.assign({f"{results.FIRST_FIT}verdict": (axes, levels.astype(str), {"long_name": "verdict on the first fit"})})
    return ds.assign_attrs(first_fit=[verdict.sentence for verdict in judged])


def _listed(value: Any) -> list[str]:
    """The strings of an attribute, as a list: NetCDF gives a list of one string back as that string."""
    return [] if value is None else [value] if isinstance(value, str) else [str(v) for v in value]


def remark(ds, said: str):
    """The Dataset with one remark more, for the report."""
    found = _listed(ds.attrs.get("remarks"))
    return ds if said in found else ds.assign_attrs(remarks=[*found, said])
