"""The user's data: by name and content in a run's folder, which is sent to others; where they lie is noted in the cache."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from mcloop.data.given import given
from mcloop.data.story_files import published
from mcloop.errors import InputError
from mcloop.experiment.config import Settings
from mcloop.results import unplaced
from mcloop.storage.files import one_line, sha256, show
from mcloop.storage.manifest import read_manifest
from mcloop.storage.places import cache_folder, note, noted


def record(data: str | None) -> dict[str, str | None]:
    """What a manifest keeps of the data: a name without the folders that it is in, and the SHA-256 of what is in it."""
    if data is None or published(data):  # of which the name is all there is
        return {"data": data}
    return {"data": Path(data).name or data, "data_sha256": digest(Path(data))}


def digest(data: Path) -> str:
    """The SHA-256 of a file, or of all the files of a folder; never more than a part of a file is in memory."""
    try:
        if not data.is_dir():
            return sha256(data)
        found = hashlib.sha256()
        for path in sorted(p for p in data.rglob("*") if p.is_file()):
            found.update(os.fsencode(path.relative_to(data).as_posix()))
            found.update(bytes.fromhex(sha256(path)))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"data must be a file that can be read, not {str(data)!r} ({why}).") from error
    return found.hexdigest()


def same(folder: Path, kept: dict) -> bool:
    """Whether the run in a folder was made with data of this content, under whatever name."""
    with suppress(InputError):
        wanted = read_manifest(folder)["settings"].get("data_sha256")
        return wanted is not None and wanted == kept.get("data_sha256")
    return False


def remember(data: str | None, kept: dict) -> None:
    """Note where data of this content lie; without the note they are asked for by `--data` later."""
    if data is not None and "data_sha256" in kept:
        note(kept["data_sha256"], data)


def located(folder: Path, settings: Settings, asked: str | os.PathLike[str] | None = None) -> Settings:
    """The settings of a run with the place where its data lie now: `asked`, else as noted, else the name in this folder.

    Raises:
        InputError: nothing there has the content that the run was made with.
    """
    kept = read_manifest(folder)["settings"]
    name, run = settings.data, f"the run in {show(folder)}"
    if name is None or published(name):
        if asked is not None and os.fspath(asked) != name:
            raise InputError(f"--data must be {name or 'left out'}, as for {run}, not {os.fspath(asked)!r}.")
        return settings
    wanted = kept.get("data_sha256")
    if asked is not None:
        path = given(asked)
        if published(path) or digest(Path(path)) != wanted:
            raise InputError(
                f"--data must hold what {run} was made with ({Path(name).name!r}), and {os.fspath(asked)!r} does not."
            )
        remember(path, kept)
        return settings._replace(data=path)
    for path in (noted(wanted), Path(name), cache_folder() / name):  # the cache keeps what came from a pipe
        with suppress(InputError, OSError, ValueError):
            if path is not None and path.exists() and digest(path) == wanted:
                return settings._replace(data=str(path.resolve()))
    why = f"{Path(name).name!r}, the data of {run}, is neither where it was read nor in the current folder"
    raise InputError(f"{why} with the same content: pass --data FILE.")


def placeless(text: str, data: str | None) -> str:
    """A text for a file of the run, without the folder in which the data lie."""
    place = "" if data is None or published(data) else os.path.dirname(data)
    return unplaced(text.replace(place.rstrip("/\\") + os.sep, "") if place.strip("/\\") else text)
