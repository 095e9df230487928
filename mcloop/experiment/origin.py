"""Which config file a run came from: kept beside its numbers, and compared before it is used again."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from mcloop.errors import InputError
from mcloop.experiment.config import (
    Caption,
    Experiment,
    Settings,
    caption,
    captions,
    check_size,
    find,
    is_file,
    load,
    settings_of,
)
from mcloop.storage.manifest import read_manifest
from mcloop.storage.places import noted

COPY = "config.py"  # in a run's folder


def digest(path: Path) -> str:
    """The SHA-256 of a config file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_run(folder: Path, config: str | None = None) -> tuple[Caption, Experiment, Settings]:
    """The config that a run was made with, and its settings.

    Args:
        config: a file or name to use in its place, such as the same file, mended.

    Raises:
        InputError: no file is left that has the bytes of the one that the run was made with.
    """
    folder = Path(folder)
    settings = settings_of(folder)
    known = find(config) if config is not None else _found(folder, settings)
    known = known._replace(name=settings.name)
    experiment = load(known)
    check_size(folder, experiment, settings)
    return known, experiment, settings


def _found(folder: Path, settings: Settings) -> Caption:
    manifest = read_manifest(folder)
    kept = manifest.get("config")
    kept = kept if isinstance(kept, dict) else {}
    wanted = kept.get("sha256") or manifest["settings"].get("config_sha256")
    places = [known.path for known in captions() if known.name == settings.name]
    own = None if any(digest(path) == wanted for path in places) else noted(wanted)
    places += [own] if own is not None else []
    places += [Path(kept["name"])] if isinstance(kept.get("name"), str) else []  # in the current folder
    changed: list[str] = []
    for path in [*places, folder / COPY]:
        try:
            if is_file(path) and (wanted is None or digest(path) == wanted):
                if path == folder / COPY and changed:
                    why = f"{changed[0]} has changed since the run in '{folder}'"
                    warnings.warn(f"{why}: what the run was made with is used, and `--config FILE` uses another", stacklevel=3)
                return caption(settings.name, path)
            changed += [path.name] if is_file(path) and path == own else []
        except (OSError, SyntaxError, ValueError):
            continue
    raise InputError(
        f"the config {settings.name!r} that the run in '{folder}' was made with has changed or is gone; "
        "`--config FILE` names the one to use."
    )
