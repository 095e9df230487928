"""The three formats that a table comes in, each read into columns and the places in the file where its rows stand."""

from __future__ import annotations

import csv
import io
import math
import warnings
from array import array
from itertools import islice
from typing import NamedTuple

import numpy as np

from mcloop.errors import InputError

KINDS = "a table is a CSV, Parquet or NPY file"
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


class Column(NamedTuple):
    """One column as it was found."""

    name: str
    values: np.ndarray | None  # numbers, NaN where missing; None for a column of something else
    why: str = ""  # what else


def read_csv(data: bytes, source: str) -> tuple[list[Column], list[int]]:
    """Reads text separated by commas, semicolons or tabs; the places are lines of the file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The table {source} is not UTF-8 text (at byte {error.start}); {KINDS}.") from error
    if "\0" in text:
        raise InputError(f"The table {source} holds binary data; {KINDS}.")
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first: list[str] = []
    lines: list[int] = []
    columns: list[array[float]] = []
    words: dict[int, tuple[str, int]] = {}  # column -> its first cell below the first row that is no number, and where
    try:
        for cells in filter(None, reader):  # a blank line has no cells
            if not first:
                first, columns = cells, [array("d") for _ in cells]
            if len(cells) != len(first):
                why = f"line {reader.line_num} has {len(cells)} cells where the first row has {len(first)}"
                raise InputError(f"The table {source} is ragged: {why} (separator {delimiter!r}).")
            for j, cell in enumerate(cells):
                number = _number(cell)
                columns[j].append(math.nan if number is None else number)
                if number is None and lines:
                    words.setdefault(j, (cell, reader.line_num))
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of {source} is not well-formed CSV ({short(error)}).") from error
    values = [np.array(column) for column in columns]
    # The first row is one of names if it has a word where a column has numbers below (a slip or two aside).
    mostly = [2 * np.count_nonzero(~np.isnan(column[1:])) > len(column) - 1 for column in values]
    below = [mostly[j] or (j not in words and not np.isnan(column).all()) for j, column in enumerate(values)]
    named = any(_number(cell) is None and below[j] for j, cell in enumerate(first))
    names = [name.strip().lstrip("# ") for name in first] if named else [""] * len(first)
    for j, cell in enumerate(first):
        if not named and _number(cell) is None:
            words[j] = (cell, lines[0])
    found = []
    for j, column in enumerate(values):
        name, numbers = names[j] or f"column {j + 1}", column[named:]
        word, line = words.get(j, ("", 0))
        if word and mostly[j]:
            raise InputError(f"Column {short(name)!r} of {source} has {short(word)!r} among its numbers, at line {line}.")
        found.append(Column(name, None if word else numbers, f"text, {short(word, 20)!r}" if word else ""))
    return found, lines[named:]


def _delimiter(text: str) -> str:
    """Returns the first of tab, semicolon and comma that cuts the first twenty rows into as many cells each."""
    widths: dict[str, int] = {}
    for delimiter in "\t;,":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        counts: list[int] = []
        try:
            counts.extend(len(cells) for cells in islice(filter(None, reader), 20))
        except csv.Error:
            counts.append(0)
        if counts and counts[0] > 1 and len(set(counts)) == 1:
            return delimiter
        widths[delimiter] = counts[0] if counts else 0
    return max(widths, key=lambda delimiter: (widths[delimiter], delimiter == ","))


def _number(cell: str) -> float | None:
    """Returns the number in a cell, NaN where it is missing, None where it is something else."""
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_2 as 12; nobody else does
    except ValueError:
        return math.nan if cell.strip().lower() in _MISSING else None


def read_parquet(data: bytes, source: str) -> tuple[list[Column], range]:
    """Reads Parquet, with pyarrow; the places are rows, counted from 1."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f'Reading {source} needs pyarrow: pip install "mcloop[tables]".') from error
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind, numbers = column.type, None
            if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                numbers = np.array(column.cast(pa.float64(), safe=False).to_numpy(), float)
            columns.append(Column(name, numbers, "" if numbers is not None else f"of type {short(kind)}"))
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


def short(text: object, limit: int = 60) -> str:
    """Returns a text on one line, cut to `limit` characters."""
    line = " ".join(str(text).split()) or type(text).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"
