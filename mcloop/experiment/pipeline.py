"""From settings to a folder that holds results, figures and a report; nothing computed is lost on the way."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcloop.errors import InputError
from mcloop.experiment import drawing, origin, own_data
from mcloop.experiment.config import Caption, Experiment, Settings, folders
from mcloop.experiment.simulate import UNFINISHED, prepared, read_data, simulate
from mcloop.progress import listening
from mcloop.storage.checkpoints import Keep
from mcloop.storage.files import one_line, save, show
from mcloop.storage.lock import locked
from mcloop.storage.manifest import read_manifest
from mcloop.storage.places import note
from mcloop.storage.programs import keep_programs
from mcloop.storage.run_folder import Run, open_run

_NOTED = ("config_sha256",)  # kept in the manifest; what a run is, its loops say


def run_into(
    folder: Path, known: Caption, experiment: Experiment, settings: Settings, quiet: bool = False, keep: Keep | None = None
) -> str:
    """Run (or finish, or reuse) a run in its folder, draw it, and return one line on what is where."""
    # what is no data is refused before all of it is hashed
    table = None if settings.data is None else read_data(experiment, settings)
    kept = own_data.record(settings.data)
    record = {**settings._asdict(), "config_sha256": origin.digest(known.path), **kept}
    with open_run(folder, record, noted=(*_NOTED, "data") if own_data.same(folder, kept) else _NOTED) as run:
        run.note(data=kept["data"])
        own_data.remember(settings.data, kept)
        noted = {name: record[name] for name in _NOTED}
        same_file = run.manifest["settings"].get("config_sha256") == record["config_sha256"]

        def identify(loops: dict) -> None:
            run.identify({**loops, "reduce": experiment.reduce}, **noted)

        ds = run.load_dataset()
        reused = ds is not None
        if reused and not (same_file and _built_in(known)):
            # a file that was mended may still declare the same loops; what it imports may have changed without it
            _only_identify(experiment, settings, run.folder, identify)
        if ds is None:
            run.keep_config(known.path, origin.COPY)
            if not _built_in(known):
                note(record["config_sha256"], known.path.resolve())
            table = read_data(experiment, settings) if table is None else table
            if not quiet:
                print(drawing.announcement(known, experiment, settings, table, folder), file=sys.stderr, flush=True)
            with listening(None, not quiet):
                ds = simulate(experiment, settings, run.folder, table, not quiet, keep, identify)
            # before anything that may fail: what was computed is safe from here on
            run.save_dataset(ds)
            run.clear_chunks()
        damaged = run.set_aside_damaged() if reused and run.finished else []
        for what in damaged:
            warnings.warn(f"In {show(folder)} {what}: it is made again from the results", stacklevel=2)
        if damaged or not (reused and run.finished and same_file):
            with listening(None, not quiet):
                _draw(run, ds, known, experiment, settings, table)
        run.finish()
    if quiet:
        return str(folder)
    head = "Already there: nothing was computed again." if reused else "Done."
    seen = (Path(folder) / "report.md").read_text(encoding="utf-8", errors="replace")
    sentences = "\n".join(line for line in seen.splitlines() if line.startswith("- "))
    return f"{head}\n{sentences}\nSee {folder}/report.html, {folder}/plots and {folder}/results.nc."


def estimated(known: Caption, experiment: Experiment, settings: Settings, folder: Path) -> str:
    """What a run would be, and how long it would take on this machine, where its steps can be timed; nothing is run."""
    table = read_data(experiment, settings)
    lines = [drawing.announcement(known, experiment, settings, table, folder)]
    found = None
    if experiment.neural:
        from mcloop.drivers.train import estimate

        make = prepared(experiment, settings, table)
        found = estimate(make, settings.grid, settings.seeds, settings.generations, settings.seed)
    of = "Its generators are not mcloop's" if experiment.quick else "Its generations are compiled whole"
    untimed = f"{of}, so no step of theirs could be timed; what is told above is as declared"
    return "\n".join([*lines, f"{found.words if found else untimed}. Nothing was run."])


class _Identified(Exception):
    """What the loops are is known, and nothing is to be run."""


def _only_identify(experiment: Experiment, settings: Settings, folder: Path, identify: Callable[[dict], None]) -> None:
    def stop(loops: dict) -> None:
        identify(loops)
        raise _Identified

    with suppress(_Identified):
        simulate(experiment, settings, folder, read_data(experiment, settings), identify=stop)


def _built_in(known: Caption) -> bool:
    """Whether a config is one of mcloop's own, which import nothing but mcloop."""
    return any(known.path.is_relative_to(f) for f in folders())


def set_aside(folder: Path) -> None:
    """Move a run's folder out of the way, so that the same command starts from nothing; its old numbers stay readable."""
    try:
        if not folder.exists():
            return
        link = folder.is_symlink()
        folder = folder.resolve() if link else folder  # the run that it leads to is moved, not the link
        if not folder.name or folder.resolve() == Path.cwd():
            raise InputError(f"'{folder}' is the folder that you are in, and cannot be moved aside: choose another (--out).")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(folder)!r} is no name for a folder ({one_line(error)}).") from error
    read_manifest(folder)  # what is no run is not moved
    with locked(folder):
        aside = next(p for i in range(1, 10**6) if not (p := folder.with_name(f"{folder.name}.old-{i}")).exists())
        try:
            folder.rename(aside)
            if link:
                folder.mkdir()
        except OSError as error:
            raise InputError(f"'{folder}' cannot be moved to '{aside}': {error.strerror}.") from error


def draw_again(folder: Path, config: str | None = None, data: str | os.PathLike[str] | None = None) -> str:
    """Figures and report of a run that is there, from its results.nc.

    Args:
        config: a file to use in place of the one that the run was made with, such as the same file, mended.
        data: where the run's data are now, should they have moved.
    """
    known, experiment, settings = origin.of_run(folder, config)
    with open_run(folder, read_manifest(folder)["settings"]) as run:
        ds = run.load_dataset()
        if ds is None:
            raise InputError(f"folder '{folder}' has no finished results to draw; `mcloop run {settings.name}` makes them.")
        if data is not None or UNFINISHED in ds.attrs:
            settings = own_data.located(folder, settings, data)
        _draw(run, ds, known, experiment, settings)
    return f"Drew {folder}/plots, {folder}/report.html and {folder}/report.md."


def _draw(run: Run, ds, known: Caption, experiment: Experiment, settings: Settings, table=None) -> None:
    from mcloop.report import html, story

    if (whole := drawing.complete(ds, experiment, settings, table)) is not ds:
        run.save_dataset(whole)
    ds, bound = drawing.sound(whole, experiment, settings)
    files, captions = {}, {}
    title = known.title.rstrip(".")
    if warned := drawing.banner(ds, bound, settings):
        title = f"{warned.split(':')[0].strip('*')}: {title}"
    ds, drawn = drawing.figures(ds, bound, title)
    for name, figure in drawn.items():
        run.save_bytes(f"plots/{name}.png", drawing.png(figure))
        files[name], captions[name] = run.path(f"plots/{name}.png"), str(figure.get_label())
    names = [f"{name}.png" for name in files]
    ds, text = drawing.text(ds, "report.md", lambda d: story.write(d, bound, known, settings, names), known)
    run.save_text("report.md", text)
    ds, text = drawing.text(ds, "report.html", lambda d: html.write(d, bound, known, settings, files, captions), known)
    run.save_text("report.html", text)


def validate_into(level, seed: int, only, json_file: Path | None, out: Path | None) -> bool:
    """Run `validate`, print its table, write JSON and the figure where asked; whether every law passed."""
    from mcloop.validation.show import figure, table, to_json
    from mcloop.validation.validate import chosen, validate

    keep_programs()
    chosen(only or None)  # a wrong name leaves no empty file
    for path in (json_file, None if out is None else out / "validate.png"):
        if path is not None:
            _writable(path)
    rows = validate(level, seed, only or None)
    table(rows)
    if json_file is not None:
        save(json_file, to_json(rows).encode())
    if out is not None:
        figure(rows, out / "validate.png")
    return all(row.passed for row in rows)


def _writable(path: Path) -> None:
    """Refuse a place that cannot be written before the long part starts; it is left as it was."""
    try:
        there = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
        if not there:
            path.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{str(path)!r} cannot be written: {why}.") from error
