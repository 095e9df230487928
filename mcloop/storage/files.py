"""How a run's files are written: whole or not at all, one sentence where the system does not let us."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mcloop.errors import InputError

PARTIAL = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # a file that a process was writing when it died
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_TOLD = sorted(FULL | _FORBIDDEN | {errno.EIO, errno.EMFILE, errno.ENAMETOOLONG})  # known by their words alone


def save(path: Path, payload: bytes | Iterable[bytes], what: str = "", kept: str = "all that was saved before is kept, and"):
    """Makes a file, whole or not at all, in a folder that is made if absent.

    Args:
        what: how the message on a full disk calls it; default its name.
        kept: what is not lost when it cannot be written, for the same message.

    Raises:
        InputError: the disk is full, the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, payload)
    except OSError as error:
        raise unsaved(error, path.parent, what or repr(path.name), kept) from error
    except ValueError as error:  # a NUL in its name
        raise InputError(f"{show(path)} is no name for a file ({one_line(error)}).") from error


def unsaved(error: OSError, folder: Path, what: str, kept: str) -> InputError:
    """Says in one sentence that something was not saved, and what is not lost."""
    if error.errno not in FULL:
        return refusal(error, folder)
    why = f"The disk holding {show(folder)} is full: {what} was not saved"
    return InputError(f"{why}; {kept} the same command goes on from there once there is room.")


def system_error(error: BaseException) -> OSError | None:
    """What the system said, wherever a library has hidden it: in a cause, in a group of errors, in the words of a message."""
    seen, waiting = set(), [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and (one is error or one.errno in _TOLD):
            return one
        said = re.search(r"(?:os_error_code='|\[Errno |OS error )(\d+)", str(one))
        code = int(said[1]) if said else next((c for c in _TOLD if os.strerror(c) in str(one)), None)
        if code in _TOLD:
            return OSError(code, os.strerror(code))
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return None


def write_atomically(path: Path, payload: bytes | Iterable[bytes]) -> None:
    """Makes `path` hold `payload`, whole or not at all; a payload larger than memory is given piece by piece.

    Raises:
        OSError: the disk is full, the folder cannot be written, ...; no partial file is left.
    """
    with atomically(path) as file:
        for piece in (payload,) if isinstance(payload, bytes) else payload:
            file.write(piece)


@contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to that becomes `path` at the end: nobody ever sees a part, whenever the process dies.

    Raises:
        OSError: the disk is full, the folder cannot be written, ...; `path` is as it was, whatever else is raised inside.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if os.name == "nt":  # a folder cannot be opened there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, has to reach the disk
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have no such thing
            raise
    finally:
        os.close(folder)


def sha256(path: Path) -> str:
    """Returns the checksum of a file, in hex; never more than a part of it is in memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_partial(folder: Path) -> None:
    """Deletes what killed processes left half-written in a folder; nobody else may be writing there."""
    for path in folder.glob(".*.tmp"):
        if PARTIAL.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def refusal(error: OSError, path: Path) -> InputError:
    """Says in one sentence why the system did not let a run use `path`."""
    if error.errno in FULL:
        return InputError(f"The disk holding {show(path)} is full: free some space, or choose another folder (--out).")
    if error.errno in _FORBIDDEN:
        return InputError(f"There is no permission to write in {show(path)}: choose another folder (--out).")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return InputError(f"{show(path)} is a file, or lies under one: choose another folder (--out).")
    why = one_line(error.strerror or error)
    return InputError(f"{show(path)} cannot be used ({why}): choose another folder (--out).")


def show(path: Path) -> str:
    """Returns a path as messages quote it, on one line whatever is in it."""
    return repr(str(path))


def size(count: float) -> str:
    """Returns a number of bytes as people read it: '1.5 MB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.3g} {unit}"


def one_line(text: object, limit: int = 120) -> str:
    """Returns a text on one line, cut to `limit` characters."""
    line = " ".join(str(text).split()) or type(text).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"
