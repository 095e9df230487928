"""What a report is made of, where any piece may fail: each that does is a remark, and the rest is there without it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcloop.errors import InputError
from mcloop.experiment.arguments import bind
from mcloop.experiment.config import Caption, Experiment, Settings
from mcloop.experiment.own_data import placeless
from mcloop.experiment.simulate import UNFINISHED, annotated, gated, read_data, remark
from mcloop.report import gate
from mcloop.storage.files import one_line


def announcement(known: Caption, experiment: Experiment, settings: Settings, table: Any, folder: Path) -> str:
    """One line before anything runs: what, on which data, how much, how long, where to."""
    cells = 1
    for values in settings.grid.values():
        cells *= len(values)
    size = experiment.sizes[settings.size]
    usual = {**experiment.grid, **size.grid}
    changed = any(list(usual.get(k, ())) != v for k, v in settings.grid.items()) or len(usual) != len(settings.grid)
    changed = changed or (settings.seeds, settings.generations) != (size.seeds, size.generations)
    minutes = known.minutes.get(settings.size)
    unit = "" if minutes is None else f"{minutes:g} minutes" if minutes != 1 else "a minute"
    machine = "an accelerator" if settings.size == "paper" and experiment.neural else "two cores"
    long = f", about {unit} on {machine}{' as declared; this is another grid' if changed else ''}" if unit else ""
    data = "" if table is None else f" on {table.source}"
    purpose = " (only to see that it runs)" if settings.size == "tiny" else ""
    count = f"{cells} cell{'s' * (cells != 1)} x {settings.seeds} seed{'s' * (settings.seeds != 1)}"
    return f"{settings.name}, {settings.size}{purpose}{data}: {count} x {settings.generations} generations{long}; into {folder}"


def complete(ds, experiment: Experiment, settings: Settings, table: Any = None):
    """The Dataset with what `annotate` adds, if it is still lacking."""
    if UNFINISHED not in ds.attrs:
        return ds
    try:
        return annotated(ds, experiment, settings, read_data(experiment, settings) if table is None else table)
    except Exception as error:
        return _failed(ds, "annotate", error, settings.data)


def banner(ds, experiment: Experiment, settings: Settings) -> str:
    """A warning where models of generation 1 have not learned enough; "" where they have, or where that is not known."""
    why = unlearned(ds, experiment, settings)
    if why.startswith("at generation 1"):
        return f"**UNTRAINED**: {why}. What follows shows that everything runs, and nothing about the loop."
    if why:
        return f"**{'TINY' if settings.size == 'tiny' else 'UNDERFITTED'}**: {why}, so its numbers say nothing of collapse."
    low = ", ".join(verdict.label for verdict in gate.judge(ds, experiment) if verdict.level == gate.UNDERFITTED)
    return f"**UNDERFITTED ({low})**: what happens there to a model that has not learned yet is no collapse." if low else ""


def unlearned(ds, experiment: Experiment, settings: Settings) -> str:
    """Why no model of generation 1 has learned enough; "" where one has, or where that is not known."""
    if not experiment.neural:
        return ""
    for name in experiment.measure:
        if name not in ds or (blank := ds[name].attrs.get("untrained")) is None:
            continue
        first = float(ds[name].isel(generation=0).mean())
        # both are distances or cross-entropies, which training lowers
        if not first < 0.95 * float(blank):
            return f"at generation 1 {name} is {first:.4g}, and that of a model that was never trained is {float(blank):.4g}"
    if settings.size == "tiny" and not experiment.quick:
        return "this size shows that everything runs; its networks learn next to nothing"
    judged = gate.judge(ds, experiment)
    low = judged and all(verdict.level == gate.UNDERFITTED for verdict in judged)
    why = (
        "its models are not good enough"
        if experiment.quick
        else "its networks were not trained long enough, or not well enough,"
    )
    return f"{why} to be read" if low else ""


def sound(ds, experiment: Experiment, settings: Settings) -> tuple[Any, Experiment]:
    """The Dataset and its experiment without the law, figure or notes that fail, each of which is a remark instead."""
    from mcloop.report.cells import cells

    bound = bind(experiment, settings.size, settings.grid)
    try:  # anew, since what a config accepts may have changed since the run
        ds = gated(ds, bound)
    except Exception as error:
        ds, bound = _failed(ds, "gate", error), bound._replace(gate={})
    if warned := banner(ds, bound, settings):
        # what an untrained network does says nothing of its loop: no verdicts, and a sentence above all others
        told = bound.notes
        if unlearned(ds, bound, settings):  # otherwise some of its first fits are worth reading
            ds, bound = ds.assign_attrs(unsound=1), bound._replace(worse="")
        bound = bound._replace(notes=lambda ds: [warned, *([] if told is None else told(ds))])
    try:
        for _ in cells(ds, bound):
            pass
    except Exception as error:
        ds, bound = _failed(ds, "law", error), bound._replace(law=None)
    if bound.notes is not None:
        try:
            said = [str(text) for text in bound.notes(ds)]
            bound = bound._replace(notes=lambda ds: said)
        except Exception as error:
            ds, bound = _failed(ds, "notes", error), bound._replace(notes=None)
    if bound.figure is not None:
        try:
            drawn = bound.figure(ds, bound)
            bound = bound._replace(figure=lambda ds, experiment: drawn)
        except Exception as error:
            ds, bound = _failed(ds, "figure", error), bound._replace(figure=None)
    return ds, bound


def figures(ds, bound: Experiment, title: str) -> tuple[Any, dict[str, Any]]:
    """(the Dataset, name -> Figure), without those that cannot be drawn."""
    from mcloop.report import plots

    try:
        return ds, plots.draw(ds, bound, title)
    except Exception as error:
        return _failed(ds, "the figures", error), {}


def png(figure) -> bytes:
    """A figure as a PNG; in memory, since its file's name may be any that the file system has."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=max(130, figure.dpi))
    return buffer.getvalue()


def text(ds, name: str, write: Callable[[Any], str], known: Caption) -> tuple[Any, str]:
    """(the Dataset, a report); where the report cannot be written, one of remarks alone."""
    try:
        return ds, write(ds)
    except Exception as error:
        ds = _failed(ds, name, error)
        return ds, _plain(ds, known, name)


def _failed(ds, what: str, error: Exception, data: str | None = None):
    """The Dataset with a remark on what could not be done; the numbers do not depend on it."""
    why = one_line(error).rstrip(".") if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"
    said = f"{what} of this experiment failed ({why}); the numbers in results.nc do not depend on it."
    warnings.warn(said, stacklevel=3)
    return remark(ds, placeless(said, data))


def _plain(ds, known: Caption, name: str) -> str:
    """A report of remarks alone, where the whole one fails."""
    lines = [f"# {known.title.rstrip('.')}", "", *(f"- {said}" for said in ds.attrs["remarks"]), ""]
    if not name.endswith(".html"):
        return "\n".join(lines)
    from html import escape

    return "<!doctype html><meta charset='utf-8'>" + "".join(f"<p>{escape(line)}</p>" for line in lines if line)
