"""Mixed tables: numbers, categories, dates, truths and gaps in columns, of a file or of what is in memory already."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mcloop.data.column_kinds import EMPTY, IDENTIFIERS, KINDS, decide
from mcloop.data.mixed_csv import too_wide
from mcloop.data.mixed_files import of_array, of_frame, of_records, read_raw
from mcloop.data.raw_columns import RawTable
from mcloop.data.readers import short
from mcloop.errors import InputError

_ALLOWED = "number, integer, category, boolean or date"


class ColumnKind(NamedTuple):
    """What a column holds.

    Attributes:
        name: as in the frame.
        kind: "number", "integer", "category", "boolean" or "date".
        missing: whether rows have gaps in it.
        why: why it was taken so, in words.
    """

    name: str
    kind: str
    missing: bool
    why: str


class MixedTable(NamedTuple):
    """Columns of which each varies, and each has one kind.

    Attributes:
        frame: a column a kind, at least two rows. Numbers are float64, NaN where missing; integers int64, or float64 where
            some are missing; categories a categorical of texts in alphabetical order; booleans bool, or pandas' "boolean"
            where some are missing; dates datetime64[ns].
        kinds: one a column of the frame, in its order.
        source: where it comes from, in words: of a file its name, without the folders that it is in.
        dropped: (name, why) of each column that was left out; what stood in it is not told.
        target: the name of the column that is to be predicted; "" where none was named.
        remarks: what a user should know of how it was read, a sentence each.
    """

    frame: pd.DataFrame
    kinds: tuple[ColumnKind, ...]
    source: str
    dropped: tuple[tuple[str, str], ...] = ()
    target: str = ""
    remarks: tuple[str, ...] = ()


def read_table(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    target: str | None = None,
) -> MixedTable:
    """Reads a CSV, Parquet, Feather, Excel, NPY or JSON lines file, compressed or not, and decides what its columns are.

    A CSV may be separated by commas, semicolons, bars or tabs, with or without a row of names, in UTF-8, UTF-16 or, with a
    remark, Latin-1. Empty cells and NA, N/A, NaN, null, None and ? are missing. Columns that name the rows, free text,
    constant ones and those without values are left out and listed in `dropped`.

    Args:
        columns: name -> kind, where it is not to be found out; so identifiers and free text can be kept as well.
        ignore: names of columns to leave out.
        target: the name of the column that is to be predicted.

    Raises:
        InputError: the file cannot be read, a column is damaged or not of the kind named, or nothing usable is left.
    """
    texts = {name for name, kind in (columns or {}).items() if kind == "category"}
    return _settled(read_raw(path, texts), columns, ignore, target)


def read_alike(path: str | os.PathLike[str], like: MixedTable) -> pd.DataFrame:
    """Reads a file whose columns are those of another table, each as it is there: what a generator has made of that table.

    Columns may be constant here, or have no values, and whole numbers may have become others; those that the other table
    left out may be there or not.

    Raises:
        InputError: it cannot be read, lacks a column or has one more, or one is not of the kind that it has there.
    """
    asked = {one.name: "number" if one.kind == "integer" else one.kind for one in like.kinds}
    raw = read_raw(path, {name for name, kind in asked.items() if kind == "category"})
    names, left = [column.name for column in raw.columns], {name for name, _ in like.dropped}
    if lacking := [name for name in asked if name not in names]:
        raise InputError(f"{_the(raw.source)} lacks {_listed(lacking)}, which {like.source} has.")
    if more := [name for name in names if name not in asked and name not in left]:
        raise InputError(f"{_the(raw.source)} has {_listed(more)}, which {like.source} does not have.")
    if not raw.rows:
        raise InputError(f"{_the(raw.source)} has no row of data.")
    decided = dict(zip(names, decide(raw, asked, left & set(names), constant=True), strict=True))
    for name, one in decided.items():
        if name in asked and not one.kind:  # of a dtype that is no column of a table
            raise InputError(f"Column {short(name)!r} of {raw.source} cannot be used: {one.why}.")
    return pd.DataFrame({name: decided[name].values for name in asked})


def typed(
    frame_or_array: Any,
    *,
    columns: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    target: str | None = None,
    source: str = "the table",
) -> MixedTable:
    """The same of what is in memory: a frame of pandas or polars, an array (structured, or of 1 or 2 dimensions), a mapping
    of columns or a list of mappings.

    Args:
        source: how the table is called in sentences.

    Raises:
        InputError: it is none of these; and as `read_table`.
    """
    return _settled(_raw(frame_or_array, source), columns, ignore, target)


def parse_columns(words: str | Iterable[str]) -> dict[str, str]:
    """name -> kind, of words such as "category=zip,code" and "date=when"; a name with a comma stands in quotation marks.

    Raises:
        InputError: a word is not of this form, a kind is unknown, or a name has two kinds.
    """
    found: dict[str, str] = {}
    parts = [words] if isinstance(words, str) else list(words)
    for word in (one for part in parts for one in re.split(rf"\s+(?=(?:{'|'.join(KINDS)})=)", part.strip())):
        kind, equals, names = word.partition("=")
        if not equals or not names.strip():
            raise InputError(f"columns {short(word)!r} must be written as kind=name,name with a kind of {_ALLOWED}.")
        kind = kind.strip()
        if kind not in KINDS:
            raise InputError(f"columns names the kind {short(kind)!r}; choose {_ALLOWED}.")
        try:
            split = next(csv.reader([names], skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise InputError(f"columns {short(word)!r} has a quotation mark that is not closed.") from error
        for name in map(str.strip, split):
            if not name:
                raise InputError(f"columns {short(word)!r} has an empty name; write kind=name,name.")
            if found.setdefault(name, kind) != kind:
                raise InputError(f"columns names {short(name)!r} as {found[name]} and as {kind}; choose one.")
    return found


def _raw(given: Any, source: str) -> RawTable:
    """The columns of whatever holds a table."""
    if isinstance(given, pd.Series):
        given = given.to_frame()
    if not isinstance(given, pd.DataFrame) and hasattr(given, "to_pandas"):
        try:
            given = given.to_pandas()
        except ImportError as error:
            raise InputError(f"Turning {source} into a frame of pandas needs another package ({short(error)}).") from error
        given = given.to_frame() if isinstance(given, pd.Series) else given
    if isinstance(given, pd.DataFrame):
        return of_frame(given, source)
    if isinstance(given, np.ndarray):
        return of_array(given, source)
    if isinstance(given, Mapping):
        too_wide(len(given), source)
        lengths = {str(name): _length(name, column, source) for name, column in given.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"The columns of {source} have {min(lengths.values())} to {max(lengths.values())} rows; give as many to each."
            )
        return of_frame(pd.DataFrame({name: pd.Series(_held(column)) for name, column in given.items()}), source)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes) and all(isinstance(one, Mapping) for one in given):
        return of_records(list(given), source)
    what = "a frame of pandas or polars, an array, a mapping of columns or a list of mappings"
    raise InputError(f"{_the(source)} must be {what}, and is of type {short(type(given).__name__)}.")


def _length(name: Any, column: Any, source: str) -> int:
    if isinstance(column, str | bytes) or not hasattr(column, "__len__") or getattr(column, "ndim", 1) != 1:
        raise InputError(
            f"Column {short(name)!r} of {source} must be a sequence of values, and is of type {type(column).__name__}."
        )
    return len(column)


def _held(column: Any) -> Any:
    if isinstance(column, pd.Series):
        return column.reset_index(drop=True)
    return (
        column if isinstance(column, np.ndarray) and column.dtype.kind not in "SUV" else pd.Series(list(column), dtype=object)
    )


def _settled(raw: RawTable, columns: Mapping[str, str] | None, ignore: Sequence[str], target: str | None) -> MixedTable:
    """Decides every column, and settles what a table may not be."""
    asked, ignored = dict(columns or {}), [ignore] if isinstance(ignore, str) else list(ignore)
    _check(raw, asked, ignored, target)
    if raw.rows < 2:
        raise InputError(f"{_the(raw.source)} has {raw.rows} row(s) of data; at least two are needed.")
    names = [column.name for column in raw.columns]
    decided = dict(zip(names, decide(raw, asked, ignored), strict=True))
    kept = {name: one for name, one in decided.items() if one.kind}
    dropped = tuple((name, one.why) for name, one in decided.items() if not one.kind)
    if not kept:
        raise InputError(f"{_the(raw.source)} {_unusable(dropped)}.")
    if target is not None and target not in kept:
        why = f"was left out ({dict(dropped)[target]})"
        raise InputError(f"The target {short(target)!r} of {raw.source} {why}; choose one of {_listed(list(kept))}.")
    kinds = tuple(ColumnKind(name, one.kind, one.missing, one.why) for name, one in kept.items())
    remarks = (*raw.remarks, *(one.remark for one in kept.values() if one.remark))
    frame = pd.DataFrame({name: one.values for name, one in kept.items()})
    return MixedTable(frame, kinds, raw.source, dropped, target or "", remarks)


def _check(raw: RawTable, asked: dict[str, str], ignored: list[str], target: str | None) -> None:
    """Refuses kinds that are none and names that no column has."""
    names = [column.name for column in raw.columns]
    for name, kind in asked.items():
        if kind not in KINDS:
            raise InputError(f"Column {short(name)!r} cannot be of kind {short(kind)!r}; choose {_ALLOWED}.")
    named = [("columns", name) for name in asked] + [("ignore", name) for name in ignored]
    for field, name in named + ([("target", target)] if target is not None else []):
        if name not in names:
            raise InputError(f"{field} names {short(name)!r}, which {raw.source} does not have; choose from {_listed(names)}.")
    for name in ignored:
        if name in asked or name == target:
            raise InputError(f"ignore names {short(name)!r}, which is {'the target' if name == target else 'in columns'} too.")


def _unusable(dropped: tuple[tuple[str, str], ...]) -> str:
    whys = {why for _, why in dropped}
    if whys == {EMPTY}:
        return "has no values: every cell is missing"
    if whys == {IDENTIFIERS}:
        return f"has only identifiers ({_listed([name for name, _ in dropped])}); name the kind of a column to keep it"
    reasons = "; ".join(f"{short(name)!r}: {why}" for name, why in dropped[:3]) or "no column at all"
    return f"has no usable column ({reasons})"


def _the(source: str) -> str:
    """How a sentence begins that is about a table."""
    return f"The table {source}" if source[:1] in "'\"" else source[:1].upper() + source[1:]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(short(name)) for name in names[:8]) + (", ..." if len(names) > 8 else "")
