"""Files of mixed tables: unpacked, told apart by how they begin, and read into columns of any dtype."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from mcloop.data.foreign import kind as foreign_kind
from mcloop.data.foreign import refuse
from mcloop.data.mixed_csv import read_mixed_csv, too_wide
from mcloop.data.raw_columns import RawColumn, RawTable
from mcloop.data.readers import INDEX, contents, distinct, short
from mcloop.errors import InputError

KINDS = "a mixed table is a CSV, Parquet, Feather, Excel, NPY or JSON lines file, compressed or not"
_UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?(\.\d+)?|__index_level_\d+__")  # how pandas calls an index without a name
_JSON = (".jsonl", ".ndjson", ".json")
_EXCEL = {".xlsx": "openpyxl", ".xlsm": "openpyxl", ".xlsb": "pyxlsb", ".xls": "xlrd", ".ods": "odfpy"}
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ROOM = "a table must fit in memory, or be cut"


def read_raw(path: str | os.PathLike[str], texts: Collection[str]) -> RawTable:
    """Reads a file of any of KINDS.

    Args:
        texts: names of columns that are to be kept as they are written, where the file is a text.

    Raises:
        InputError: it cannot be read, or is none of these.
    """
    data, source = contents(path, KINDS)
    data, suffix = _unpacked(data, Path(path).suffix.lower(), Path(path).stem, source)
    if not data.strip():
        raise InputError(f"The table {source} is empty.")
    if data.startswith(b"\x93NUMPY") or suffix == ".npy":
        return of_array(_npy(data, source), source)
    if (
        data[:4] == b"PAR1"
        or data[:6] == b"ARROW1"
        or data[:4] == b"FEA1"
        or suffix in (".parquet", ".pq", ".feather", ".arrow")
    ):
        return _arrow(data, source)
    if suffix in _EXCEL or foreign_kind(data).startswith(("a file of Excel", "a file of an older Excel")):
        return _excel(data, suffix, source)
    refuse(data, f"The table {source}", KINDS)
    if suffix in _JSON or _starts_record(data):
        return _json(data, source)
    return read_mixed_csv(data, source, texts, KINDS)


def of_frame(frame: pd.DataFrame, source: str) -> RawTable:
    """The columns of a pandas frame; its index is none, and neither is one that was saved as leading columns."""
    too_wide(frame.shape[1], source)
    names = [_name(label, j) for j, label in enumerate(frame.columns)]
    unique = distinct(names)
    columns = []
    for j in range(len(names)):
        values = frame.iloc[:, j].reset_index(drop=True)
        saved = all(map(_UNNAMED.fullmatch, names[: j + 1]))
        columns.append(RawColumn(unique[j], values, INDEX if saved else ""))
    return RawTable(columns, source, len(frame))


def of_array(array: np.ndarray, source: str) -> RawTable:
    """The columns of an array: the fields of a structured one, else those of one or two dimensions."""
    if array.dtype.names and array.ndim == 1:
        too_wide(len(array.dtype.names), source)
        columns = []
        for name in distinct([str(name) for name in array.dtype.names]):
            values = array[name]
            flat = values.ndim == 1 and values.dtype.names is None
            why = "" if flat else f"of type {short(values.dtype)} and shape {short(values.shape[1:])}"
            columns.append(RawColumn(name, _series(values) if flat else None, why))
        return RawTable(columns, source, len(array))
    if array.ndim not in (1, 2) or array.dtype.kind in "cV" or array.dtype.names:
        why = f"has dtype {short(array.dtype)} and shape {short(array.shape)}"
        raise InputError(f"The array {source} {why}; it must have columns of numbers or words, in 1 or 2 dimensions.")
    array = array[:, None] if array.ndim == 1 else array
    too_wide(array.shape[1], source)
    columns = [RawColumn(f"column {j + 1}", _series(column)) for j, column in enumerate(array.T)]
    return RawTable(columns, source, len(array))


def of_records(records: list[Any], source: str, lines: list[int] | None = None) -> RawTable:
    """The columns of a list of mappings, in the order in which they first appear; None where one has no such name."""
    columns: dict[str, list[Any]] = {}
    for row, record in enumerate(records):
        for key, value in record.items():
            held = columns.setdefault(str(key), [])
            held.extend([None] * (row - len(held)))
            held.append(value)
        too_wide(len(columns), source)
    series = []
    for name, held in columns.items():
        held.extend([None] * (len(records) - len(held)))
        series.append(RawColumn(name, pd.Series(held, dtype=object)))
    place = (lambda row: f"line {lines[row]}") if lines else (lambda row: f"row {row + 1}")
    return RawTable(series, source, len(records), place)


def _name(label: Any, j: int) -> str:
    if isinstance(label, tuple):
        return " ".join(str(part) for part in label if str(part)) or f"column {j + 1}"
    return f"column {label + 1}" if isinstance(label, int | np.integer) else str(label).strip() or f"column {j + 1}"


def _series(values: np.ndarray) -> pd.Series:
    """One dimension of any dtype as pandas can hold it."""
    if values.dtype.kind == "S":
        values = np.array([value.decode("utf-8", "replace") for value in values], object)
    elif values.dtype.kind == "U":
        values = values.astype(object)
    elif values.dtype.kind in "iufc":
        values = values.astype(values.dtype.newbyteorder("="))
        values = (
            values.astype(float)
            if values.dtype.itemsize == 2 or (values.dtype.itemsize > 8 and values.dtype.kind == "f")
            else values
        )
    elif values.dtype.kind in "mM":
        values = (
            values.astype(f"{values.dtype.kind}8[us]")
            if np.datetime_data(values.dtype)[0] not in ("ns", "ps", "fs", "as")
            else values
        )
    return pd.Series(np.ascontiguousarray(values))


def _npy(data: bytes, source: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a decoder of foreign bytes: whatever it dislikes, the file is at fault
        raise InputError(f"The table {source} cannot be read as NPY ({short(error)}).") from error


def _arrow(data: bytes, source: str) -> RawTable:
    """Parquet and both kinds of Feather, with pyarrow."""
    kind = "Parquet" if data[:4] == b"PAR1" else "Feather"
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError(f'Reading {source} needs pyarrow: pip install "mcloop[tables]".') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = importlib.import_module(f"pyarrow.{kind.lower()}").read_table(pa.BufferReader(data))
        too_wide(table.num_columns, source)
        saved = (table.schema.pandas_metadata or {}).get("index_columns", [])
        index = {name for name in saved if isinstance(name, str)}
        columns = []
        for name, unique, column in zip(table.column_names, distinct(table.column_names), table.columns, strict=True):
            why = INDEX if name in index or _UNNAMED.fullmatch(name) else ""
            columns.append(RawColumn(unique, column.to_pandas(date_as_object=False), why))
    except InputError:
        raise
    except Exception as error:  # as above
        raise InputError(f"The table {source} cannot be read as {kind} ({short(error)}).") from error
    return RawTable(columns, source, table.num_rows)


def _excel(data: bytes, suffix: str, source: str) -> RawTable:
    """The first sheet of a workbook; its first row that is not blank has the names."""
    needed = _EXCEL.get(suffix) or ("openpyxl" if data[:2] == b"PK" else "xlrd")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = pd.ExcelFile(io.BytesIO(data))
            cells: Any = book.parse(0, header=None, dtype=object, keep_default_na=False, na_values=[""])
            sheets = len(book.sheet_names)
    except ImportError as error:
        raise InputError(f"Reading {source} needs {needed}: pip install {needed}, or save it as CSV.") from error
    except Exception as error:  # as above
        raise InputError(f"The table {source} cannot be read as Excel ({short(error)}).") from error
    cells = cells.loc[cells.notna().any(axis=1).to_numpy().cumsum() > 0, cells.notna().any()]
    if not len(cells):
        raise InputError(f"The table {source} is empty.")
    first = ["" if pd.isna(cell) else str(cell) for cell in cells.iloc[0]]
    frame = cells.iloc[1:]
    frame.columns = pd.Index([name.strip() or f"column {j + 1}" for j, name in enumerate(first)], dtype=object)
    row = int(cells.index[0]) + 2
    remarks = (f"The table {source} has {sheets} sheets, of which the first was read.",) if sheets > 1 else ()
    return of_frame(frame, source)._replace(place=lambda at: f"row {row + at}", remarks=remarks)


def _starts_record(data: bytes) -> bool:
    begin = data[: 2**16].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not begin.startswith(b"{"):
        return begin.startswith(b"[") and begin[1:].lstrip()[:1] == b"{"
    try:
        return isinstance(json.loads(begin.split(b"\n", 1)[0]), dict)
    except ValueError:
        return False


def _json(data: bytes, source: str) -> RawTable:
    """Lines of JSON, a record each, or one list of records."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The table {source} is not UTF-8 text (at byte {error.start}), as JSON must be.") from error
    records: list[Any] = []
    lines: list[int] | None = None
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"The table {source} is no JSON, though it begins like a list of records.") from error
    else:
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"Line {number} of {source} is no JSON, though the file holds records of it.") from error
                lines.append(number)
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            where = f"line {lines[row]}" if lines else f"row {row + 1}"
            raise InputError(
                f'The table {source} must hold records of JSON, as {{"name": value}}, and has another thing at {where}.'
            )
    return of_records(records, source, lines)


def _unpacked(data: bytes, suffix: str, stem: str, source: str) -> tuple[bytes, str]:
    """A compressed file's content and the suffix of its name inside; others as they are."""
    how = next((name for begin, name in _PACKED.items() if data.startswith(begin)), "")
    inner = PurePosixPath(stem).suffix.lower()
    try:
        if how:
            return _decoder(how, source)(data), inner
        if data[:4] != b"PK\x03\x04" or suffix in _EXCEL or foreign_kind(data) not in ("a zip: unpack it first",):
            return data, suffix
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise InputError(f"The archive {source} holds {len(names)} files; a table must be alone in it.")
            return archive.read(names[0]), PurePosixPath(names[0]).suffix.lower()
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"The table {source} does not fit in memory once it is unpacked; {_ROOM}.") from error
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f"The table {source} is damaged and cannot be unpacked ({short(error)}).") from error
    except Exception as error:  # zstandard's own error, which cannot be named before it is imported
        raise InputError(f"The table {source} is damaged and cannot be unpacked ({short(error)}).") from error


def _decoder(how: str, source: str) -> Any:
    if how != "zstd":
        return {"gzip": gzip.decompress, "bzip2": bz2.decompress, "xz": lzma.decompress}[how]
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise InputError(f"Reading {source} needs zstandard: pip install zstandard, or unpack it first.") from error

    def decode(data: bytes) -> bytes:
        pieces = []
        while data:  # a frame at a time
            frame = zstandard.ZstdDecompressor().decompressobj()
            pieces.append(frame.decompress(data))
            if not frame.eof:
                raise EOFError("it ends too early")
            data = frame.unused_data
        return b"".join(pieces)

    return decode
