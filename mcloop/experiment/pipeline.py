"""From settings to a folder that holds results, figures and a report; nothing computed is lost on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mcloop.errors import InputError
from mcloop.experiment.config import Caption, Experiment, Settings, find, load, simulate
from mcloop.storage.checkpoints import Keep
from mcloop.storage.run_folder import Run, locked, open_run, read_manifest


def run_into(
    folder: Path, known: Caption, experiment: Experiment, settings: Settings, quiet: bool = False, keep: Keep | None = None
) -> str:
    """Run (or finish, or reuse) a run in its folder, draw it, and return one line on what is where."""
    with open_run(folder, _record(known, settings)) as run:
        ds = run.load_dataset()
        reused = ds is not None
        if ds is None:
            ds = simulate(experiment, settings, run.folder, progress=not quiet, keep=keep)
            run.save_dataset(ds)
            run.clear_chunks()
        if not (reused and run.finished):
            _draw(run, ds, known, experiment, settings)
        run.finish()
    if quiet:
        return str(folder)
    head = "Already there: nothing was computed again." if reused else "Done."
    seen = (Path(folder) / "report.md").read_text(encoding="utf-8")
    sentences = "\n".join(line for line in seen.splitlines() if line.startswith("- "))
    return f"{head}\n{sentences}\nSee {folder}/report.html, {folder}/plots and {folder}/results.nc."


def set_aside(folder: Path) -> None:
    """Move a run's folder out of the way, so that the same command starts from nothing; its old numbers stay readable."""
    if not folder.exists():
        return
    read_manifest(folder)  # what is no run is not moved
    with locked(folder):
        aside = next(p for i in range(1, 10**6) if not (p := folder.with_name(f"{folder.name}.old-{i}")).exists())
        try:
            folder.rename(aside)
        except OSError as error:
            raise InputError(f"'{folder}' cannot be moved to '{aside}': {error.strerror}.") from error


def draw_again(folder: Path) -> str:
    """Figures and report of a run that is there, from its results.nc."""
    settings = Settings(
        **{"data": None, **{k: v for k, v in read_manifest(folder)["settings"].items() if k in Settings._fields}}
    )
    known = find(settings.name)
    experiment = load(known)
    with open_run(folder, read_manifest(folder)["settings"]) as run:
        ds = run.load_dataset()
        if ds is None:
            raise InputError(f"folder '{folder}' has no finished results to draw; `mcloop run {settings.name}` makes them.")
        _draw(run, ds, known, experiment, settings)
    return f"Drew {folder}/plots, {folder}/report.html and {folder}/report.md."


def _record(known: Caption, settings: Settings) -> dict:
    """The settings as the manifest keeps them; the config and a data file count by what is in them, not only by name."""
    record = {**settings._asdict(), "config_sha256": hashlib.sha256(known.path.read_bytes()).hexdigest()}
    if settings.data is not None and not settings.data.startswith(("tfds:", "hf:")):  # of which the name is all there is
        record["data_sha256"] = _digest(Path(settings.data))
    return record


def _digest(data: Path) -> str:
    """The SHA-256 of a file, or of all the files of a folder."""
    found = hashlib.sha256()
    try:
        for path in sorted(p for p in data.rglob("*") if p.is_file()) if data.is_dir() else [data]:
            found.update(path.relative_to(data).as_posix().encode() if path != data else b"")
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest() if path != data else file.read())
    except OSError as error:
        raise InputError(f"data must be a file that can be read, not {str(data)!r} ({error.strerror}).") from error
    return found.hexdigest()


def _draw(run: Run, ds, known: Caption, experiment: Experiment, settings: Settings) -> None:
    from mcloop.report import html, plots, story

    files, captions = {}, {}
    for name, figure in plots.draw(ds, experiment, known.title.rstrip(".")).items():
        path = run.path(f"plots/{name}.png")
        figure.savefig(path, dpi=max(130, figure.dpi))
        run.add_file(f"plots/{name}.png")
        files[name], captions[name] = path, str(figure.get_label())
    run.save_text("report.md", story.write(ds, experiment, known, settings, [f"{name}.png" for name in files]))
    run.save_text("report.html", html.write(ds, experiment, known, settings, files, captions))


def validate_into(level, seed: int, only, json_file: Path | None, out: Path | None) -> bool:
    """Run `validate`, print its table, write JSON and the figure where asked; whether every law passed."""
    from mcloop.validation import validate as v

    for path in (json_file, None if out is None else out / "validate.png"):
        if path is not None:
            _writable(path)
    rows = v.validate(level, seed, only or None)
    v.table(rows)
    if json_file is not None:
        json_file.write_text(v.to_json(rows), encoding="utf-8")
    if out is not None:
        v.figure(rows, out / "validate.png")
    return all(row.passed for row in rows)


def _writable(path: Path) -> None:
    """Refuse a place that cannot be written before the long part starts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror}.") from error
