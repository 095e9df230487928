"""One process at a time in a folder: the kernel lets go of a lock when its holder dies."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mcloop.errors import InputError
from mcloop.storage.files import one_line, refusal, show

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"


def hold(folder: Path) -> int:
    """Locks a folder and returns the descriptor that holds it; the kernel lets go of it when the process dies."""
    path = folder / LOCK
    exclusive = os.O_EXCL if fcntl is None else 0
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | exclusive, 0o666)
    except FileExistsError as error:
        raise InputError(f"{_in_use(folder)}, or was so when it died: delete {show(path)} if it did.") from error
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise InputError(f"{_in_use(folder)}: wait for it, or choose another folder (--out).") from error
        except OSError as error:  # some network file systems
            why = f"{show(folder)} cannot be locked ({error.strerror})"
            warnings.warn(f"{why}: make sure that no other process writes to it", stacklevel=4)
    with suppress(OSError):  # who holds it is for the other's message only; a full disk is met again below
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()} on {socket.gethostname()}".encode())
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder, made if absent, for this process while the block runs.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder)
    except OSError as error:
        raise refusal(error, folder) from error
    try:
        yield
    finally:
        release(folder, lock)


def _in_use(folder: Path) -> str:
    holder = one_line((folder / LOCK).read_text(errors="replace") or "unknown")
    return f"The folder {show(folder)} is in use by another process ({holder})"


def release(folder: Path, lock: int) -> None:
    """Lets another process have the folder."""
    os.close(lock)
    if fcntl is None:  # with flock the file stays: deleting it would let two processes lock two files of one name
        (folder / LOCK).unlink(missing_ok=True)
