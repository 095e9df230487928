"""Finished pieces of a long computation, each an `.npz` that is written whole or not at all and checked when read."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import struct
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from mcloop.errors import InputError

PARTIAL = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # a file that a process was writing when it died
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_END = struct.Struct("<H64s")  # the end of a chunk: the length of its zip comment, and the comment: a SHA-256 in hex


class ChunkStore:
    """Finished pieces of a long computation, one checked `.npz` a piece; usable without a `Run`.

    Writes are atomic, so that any number of processes may share a folder. A name must say all that its arrays depend on
    (a hash of the settings, the position): whoever asks for a name gets what was last put under it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays put under `name`, or None where there are none; damage is a warning, and None."""
        path = self._path(name)
        try:
            return _unpack(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            why = f"chunk {name!r} in {show(self.folder)} is damaged ({one_line(error)}) and will be computed again"
            warnings.warn(why, stacklevel=2)
            return None

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Saves named arrays, whole or not at all.

        Raises:
            InputError: the disk is full, the folder cannot be written, or an array is not numbers or text.
        """
        path, payload = self._path(name), _pack(name, arrays)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, payload)
        except OSError as error:
            if error.errno not in FULL:
                raise refusal(error, self.folder) from error
            raise InputError(
                f"The disk holding {show(self.folder)} is full: chunk {name!r} ({size(len(payload))}) was not saved; "
                "finished chunks are kept, and the same command goes on from there once there is room."
            ) from error

    def clear(self) -> None:
        """Deletes every chunk, and the folder if nothing else is in it."""
        sweep_partial(self.folder)
        for path in self.folder.glob("*.npz"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,149}", name):
            raise InputError(f"The chunk name {name!r} is not 1 to 150 letters, digits and any of . _ = , + -.")
        return self.folder / f"{name}.npz"


def write_atomically(path: Path, payload: bytes | Iterable[bytes]) -> None:
    """Makes `path` hold `payload`, or leaves it as it was: nobody ever sees a part, whenever the process dies.

    A payload larger than memory is given piece by piece.

    Raises:
        OSError: the disk is full, the folder cannot be written, ...; no partial file is left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(partial, "xb") as file:
            for piece in (payload,) if isinstance(payload, bytes) else payload:
                file.write(piece)
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


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """How an `.npy` begins, for arrays that are written piece by piece."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def sweep_partial(folder: Path) -> None:
    """Deletes what killed processes left half-written in a folder; nobody else may be writing there."""
    for path in folder.glob(".*.tmp"):
        if PARTIAL.fullmatch(path.name):
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


def _pack(name: str, arrays: dict[str, np.ndarray]) -> bytes:
    """Returns an `.npz` whose zip comment is the SHA-256 of the rest: one file, one atomic step, any reader."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.kind not in "biufcmMSU":  # objects need pickle; bfloat16 would come back as raw bytes
                raise InputError(f"Array {key!r} of chunk {name!r} has dtype {array.dtype}; numbers or text are allowed.")
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    payload = buffer.getvalue()  # ends with the length of an empty comment: two zero bytes
    return payload[:-2] + _END.pack(64, hashlib.sha256(payload).hexdigest().encode())


def _unpack(payload: bytes) -> dict[str, np.ndarray]:
    if len(payload) < _END.size:
        raise ValueError("cut short")
    length, digest = _END.unpack(payload[-_END.size :])
    payload = payload[: -_END.size] + b"\0\0"
    if length != 64 or hashlib.sha256(payload).hexdigest().encode() != digest:
        raise ValueError("its checksum differs")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        return {
            entry.filename.removesuffix(".npy"): np.lib.format.read_array(archive.open(entry), allow_pickle=False)
            for entry in archive.infolist()
        }
