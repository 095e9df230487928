"""What a user names as data: a file, a folder, a text by name, or standard input and pipes, which are kept as a file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path

from mcloop.data.story_files import published
from mcloop.errors import InputError
from mcloop.storage.files import one_line, write_atomically

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path has only one slash left of two
_AT_ONCE = 2**20  # bytes


def given(data: str | os.PathLike[str]) -> str:
    """The data as settings keep it: a name, or the whole path of a file or a folder.

    Standard input ("-"), a pipe and a process substitution can be read once only, while a run is gone on with and drawn
    again later: they are kept in the cache ($MCLOOP_CACHE, or ~/.cache/mcloop), under a name that says what is in them, so
    that the same input is the same run.

    Raises:
        InputError: an address on the net, a home folder that is not known, an empty or unreadable input.
    """
    asked = os.fspath(data)
    if _URL.match(asked):
        raise InputError(f"data must be a file on this machine, not an address ({one_line(asked, 60)}): download it first.")
    if published(asked):
        return asked
    if asked == "-":
        return str(_kept(0, "standard input"))
    try:
        path = Path(asked).expanduser()
    except RuntimeError as error:
        raise InputError(f"data {asked!r} begins with a home folder that is not known here: give the whole path.") from error
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return str(path)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return str(path.resolve())
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
        try:
            number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"data {asked!r} cannot be read ({one_line(error.strerror or error)}).") from error
        try:
            return str(_kept(number, f"the pipe {asked!r}"))
        finally:
            os.close(number)
    raise InputError(f"data must be a file, a folder or a pipe, and {asked!r} is none.")


def _kept(number: int, shown: str) -> Path:
    """The file in the cache that holds what comes out of an open descriptor."""
    if os.isatty(number):
        raise InputError(f"data is {shown}, and nothing is piped into it: mcloop run ... --data - < FILE.")
    digest = hashlib.sha256()
    try:
        with tempfile.TemporaryFile() as spooled:
            while piece := os.read(number, _AT_ONCE):
                digest.update(piece)
                spooled.write(piece)
            if not spooled.tell():
                raise InputError(f"data is {shown}, and it is empty.")
            home = Path(os.environ.get("MCLOOP_CACHE") or Path.home() / ".cache" / "mcloop")
            home.mkdir(parents=True, exist_ok=True)
            path = (home / f"input-{digest.hexdigest()[:16]}").resolve()
            spooled.seek(0)
            write_atomically(path, iter(lambda: spooled.read(_AT_ONCE), b""))
    except (OSError, RuntimeError) as error:
        why = one_line(getattr(error, "strerror", None) or error)
        raise InputError(f"{shown} cannot be kept ({why}): set MCLOOP_CACHE to a folder that can be written.") from error
    print(f"{shown} was read, and kept as {path}, so that the run can be gone on with.", file=sys.stderr)
    return path
