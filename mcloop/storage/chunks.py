"""Finished pieces of a long computation, each an `.npz` that is written whole or not at all and checked when read."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mcloop.errors import InputError
from mcloop.storage.files import one_line, save, show, size, sweep_partial
from mcloop.storage.manifest import belongs, normalise
from mcloop.storage.sealed import seal, unseal

SETTINGS = "settings.json"
_END = struct.Struct("<H64s")  # the end of a chunk: the length of its zip comment, and the comment: a SHA-256 in hex


class ChunkStore:
    """Finished pieces of a long computation, one checked `.npz` a piece; usable without a `Run`.

    Writes are atomic, so that any number of processes may share a folder. A piece is sealed with its name and its owner: a
    whole file that lies under another name, or comes from another owner's folder, is damage like any other.

    Args:
        folder: where the pieces lie; made when the first one is put.
        owner: what else their arrays depend on (a hash of settings), where the names do not say it.
    """

    def __init__(self, folder: str | os.PathLike[str], owner: str = "") -> None:
        self.folder, self._owner = Path(folder), owner

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays put under `name`, or None where there are none; damage is a warning, and None."""
        path = self._path(name)
        try:
            return _unpack(f"{self._owner}/{name}", path.read_bytes())
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
        path, payload = self._path(name), _pack(self._owner, name, arrays)
        save(path, payload, f"chunk {name!r} ({size(len(payload))})", "finished chunks are kept, and")

    def belong(self, settings: dict[str, Any]) -> None:
        """Notes in the folder what its pieces belong to, as JSON holds it.

        Raises:
            InputError: they belong to something else; the message names the first setting that differs.
        """
        path, settings = self.folder / SETTINGS, normalise(settings)
        try:
            kept = unseal(path.read_bytes())
        except (OSError, ValueError, RecursionError):  # what is missing or damaged is written again: no piece depends on it
            kept = None
        if kept is not None:
            belongs(self.folder, "another sweep", kept, settings)
            return
        save(path, seal(settings), path.name)

    def clear(self) -> None:
        """Deletes every chunk and what `belong` noted, and the folder if nothing else is in it."""
        sweep_partial(self.folder)
        for path in (*self.folder.glob("*.npz"), self.folder / SETTINGS):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,149}", name):
            raise InputError(f"The chunk name {name!r} is not 1 to 150 letters, digits and any of . _ = , + -.")
        return self.folder / f"{name}.npz"


HEADER = 2**16  # letters that the header of an `.npy` may have: NumPy's own limit is soon reached by a table's columns


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """How an `.npy` begins, for arrays that are written piece by piece."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _pack(owner: str, name: str, arrays: dict[str, np.ndarray]) -> bytes:
    """Returns an `.npz` whose zip comment is the SHA-256 of its name and the rest: one file, one atomic step, any reader."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, value in arrays.items():
            array = np.asarray(value)
            record = array.dtype.names is not None and not array.dtype.hasobject
            if array.dtype.kind not in "biufcmMSU" and not record:  # objects need pickle; bfloat16 would come back as raw bytes
                raise InputError(f"Array {key!r} of chunk {name!r} has dtype {array.dtype}; numbers or text are allowed.")
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    payload = buffer.getvalue()  # ends with the length of an empty comment: two zero bytes
    return payload[:-2] + _END.pack(64, _seal_of(f"{owner}/{name}", payload))


def _seal_of(name: str, payload: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + payload).hexdigest().encode()


def _unpack(name: str, payload: bytes) -> dict[str, np.ndarray]:
    if len(payload) < _END.size:
        raise ValueError("cut short")
    length, digest = _END.unpack(payload[-_END.size :])
    payload = payload[: -_END.size] + b"\0\0"
    if length != 64 or _seal_of(name, payload) != digest:
        raise ValueError("its checksum differs, or it is another's")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        return {
            entry.filename.removesuffix(".npy"): np.lib.format.read_array(
                archive.open(entry), allow_pickle=False, max_header_size=HEADER
            )
            for entry in archive.infolist()
        }
