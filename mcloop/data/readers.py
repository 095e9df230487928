"""What a table is read into, columns and the places in the file where its rows stand; and two of its formats."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mcloop.errors import InputError

KINDS = "a table is a CSV, Parquet or NPY file"
INDEX = "an index, which is no column of data"
NOTHING = "no name and no values"
TEXT = "text"
_KEPT = re.compile(r"__index_level_\d+__")  # how pandas calls an index without a name


class Column(NamedTuple):
    """One column as it was found."""

    name: str
    values: np.ndarray | None  # numbers, NaN where missing; None for a column of something else
    why: str = ""  # what else, without a word of what stands in it


def contents(path: str | os.PathLike[str], kinds: str) -> tuple[bytes, str]:
    """(the bytes of a table's file, how its name is told); `kinds` says in words what a table may be.

    Raises:
        InputError: there is no such file, it cannot be read, or it is empty.
    """
    source = repr(Path(path).name or os.fspath(path))
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"The table {source} is not a file; {kinds}.")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {os.fspath(path)!r}; {kinds}.") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The table {source} cannot be read ({short(getattr(error, 'strerror', None) or error)}).") from error
    if not data.strip():
        raise InputError(f"The table {source} is empty.")
    return data, source


def read_parquet(data: bytes, source: str) -> tuple[list[Column], range]:
    """Reads Parquet, with pyarrow; the places are rows, counted from 1."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f'Reading {source} needs pyarrow: pip install "mcloop[tables]".') from error
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        saved = (table.schema.pandas_metadata or {}).get("index_columns", [])
        index = {name for name in saved if isinstance(name, str)}
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name in index or _KEPT.fullmatch(name):
                columns.append(Column(name, None, INDEX))
                continue
            kind, values = column.type, None
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
                column = column.cast(kind)
            if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                values = np.array(column.cast(pa.float64(), safe=False).to_numpy(), float)
            elif pa.types.is_boolean(kind):
                values = np.array(column.cast(pa.int8()).cast(pa.float64()).to_numpy(), float)
            columns.append(Column(name, values, "" if values is not None else f"of type {short(kind)}"))
    except Exception as error:  # a decoder of foreign bytes: whatever it dislikes, the file is at fault
        raise InputError(f"The table {source} cannot be read as Parquet ({short(error)}).") from error
    return columns, range(1, table.num_rows + 1)


def read_npy(data: bytes, source: str) -> tuple[list[Column], range]:
    """Reads an array of one or two dimensions; the places are rows, counted from 1."""
    try:
        with warnings.catch_warnings(), np.errstate(over="ignore"):
            warnings.simplefilter("ignore")
            values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            numeric = values.dtype.kind in "iuf"
            values = values.astype(float) if numeric else values
    except Exception as error:  # as above
        raise InputError(f"The table {source} cannot be read as NPY ({short(error)}).") from error
    if not numeric or values.ndim not in (1, 2) or values.size == 0:
        why = f"has dtype {short(values.dtype)} and shape {short(values.shape)}"
        raise InputError(f"The array {source} {why}; it must hold real numbers, in 1 or 2 dimensions, and not be empty.")
    values = values[:, None] if values.ndim == 1 else values
    columns = [Column(f"column {j + 1}", np.ascontiguousarray(column)) for j, column in enumerate(values.T)]
    return columns, range(1, len(values) + 1)


def distinct(names: Sequence[str]) -> list[str]:
    """Returns the names with a number behind each that came before."""
    seen: dict[str, None] = {}
    for name in names:
        unique, n = name, 1
        while unique in seen:
            n += 1
            unique = f"{name} ({n})"
        seen[unique] = None
    return list(seen)


def short(text: object, limit: int = 60) -> str:
    """Returns a text on one line, cut to `limit` characters."""
    line = " ".join(str(text).split()) or type(text).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"
