"""Rows of tokens on disk: written a block at a time, checked when they are found again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mcloop.data.packing import KIND
from mcloop.storage.files import atomically, one_line, sha256, show
from mcloop.storage.sealed import unseal


def recorded(path: Path, files: Callable[[str], Path]) -> dict[str, Any] | None:
    """What a sealed record says of rows that were written before, or None where there are none; damage is a warning, and None.

    Args:
        path: the record: part -> what is known of it, the SHA-256 of its file under "sha256".
        files: part -> its file.
    """
    try:
        record = unseal(path.read_bytes())
        for part, known in record.items():
            if sha256(files(part)) != known["sha256"]:
                raise ValueError(f"the checksum of its {part} rows differs")
        return record
    except (OSError, ValueError, KeyError) as error:
        if path.exists():
            why = f"the corpus {path.stem!r} in {show(path.parent)} is damaged ({one_line(error)}) and will be packed again"
            warnings.warn(why, stacklevel=3)
        return None


def write_rows(path: Path, blocks: Iterable[np.ndarray], length: int, check: Callable[[], None]) -> None:
    """Writes blocks of rows to a `.npy`, whole or not at all, with one block in memory at a time.

    Args:
        check: called when the last block is written; whatever it raises leaves no file.

    Raises:
        OSError: the disk is full, the folder cannot be written, ...
    """
    rows = 0
    with atomically(path) as file:
        _header(file, 0, length)
        for block in blocks:
            file.write(np.ascontiguousarray(block, KIND))
            rows += len(block)
        check()
        file.seek(0)
        _header(file, rows, length)  # as long as the first: a header has room for any number of rows


def _header(file, rows: int, length: int) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(KIND), "fortran_order": False, "shape": (rows, length)}
    np.lib.format.write_array_header_1_0(file, described)
