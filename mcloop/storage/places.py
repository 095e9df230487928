"""Folders outside a run: where what is costly to make is kept, and the user's home, which a machine may not have."""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import cache
from pathlib import Path


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
