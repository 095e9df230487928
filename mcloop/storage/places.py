"""Places outside a run: where what is costly to make is kept, where the user's files lie, and a home that may not exist."""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from mcloop.storage.files import write_atomically


def user_home() -> Path:
    """The user's home; where there is none, a folder that does not exist."""
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and no such user is known
        return Path(os.devnull) / "home"


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """`given`, else $MCLOOP_CACHE, else ~/.cache/mcloop; a temporary folder, and a warning, where that cannot be written."""
    if given is not None:
        return Path(given)
    return _writable(os.environ.get("MCLOOP_CACHE") or str(user_home() / ".cache" / "mcloop"))


def note(content: str, place: str | os.PathLike[str]) -> None:
    """Note where a file of this content lies, for the user alone; a cache that cannot be written costs an option later."""
    with suppress(OSError, ValueError):
        path = _note(content)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, os.fsencode(place))


def noted(content: object) -> Path | None:
    """Where a file of this content was when it was noted; None where nothing is."""
    if not isinstance(content, str) or not content.isalnum():
        return None
    with suppress(OSError, ValueError):
        return Path(os.fsdecode(_note(content).read_bytes()))
    return None


def _note(content: str) -> Path:
    return cache_folder() / "places" / content


@cache
def _writable(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, ValueError) as error:
        other = Path(tempfile.gettempdir()) / "mcloop-cache"
        why = getattr(error, "strerror", None) or error
        warnings.warn(
            f"the cache {name!r} cannot be written ({why}): {str(other)!r} is used (MCLOOP_CACHE names another folder)",
            stacklevel=3,
        )
        return other
