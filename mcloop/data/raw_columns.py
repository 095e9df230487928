"""A mixed table as it was found: each column as numbers, truths, dates or words, before its kind is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mcloop.data.dates import OUTSIDE, nanoseconds
from mcloop.data.numbers import MISSING
from mcloop.data.readers import short

_EXACT = 2.0**53  # float64 holds whole numbers up to here
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "integer-na"}
_DATES = {"datetime64", "datetime", "date"}
_SCALARS = (str, bytes, bool, int, float, complex, np.generic)


class RawColumn(NamedTuple):
    """One column as a reader found it: `values` of any dtype, and the reason for which it is left out, if it is.

    Where there are values besides a reason, the user may ask for the column all the same.
    """

    name: str
    values: pd.Series | None
    why: str = ""


class RawTable(NamedTuple):
    """What a reader hands over.

    Attributes:
        columns: as long as one another, their names all different.
        source: how the table is called in sentences.
        rows: how many.
        place: row, counted from 0 -> where it stands in the file, such as "line 3".
        remarks: what a user should know of how it was read.
        delimiter: what separates the cells of a text; "" where nothing does.
        told: the ways of writing numbers that are known from elsewhere in the file.
        again: reads the text once more with decimal commas; None where that makes no sense.
    """

    columns: list[RawColumn]
    source: str
    rows: int
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    remarks: tuple[str, ...] = ()
    delimiter: str = ""
    told: frozenset[str] = frozenset()
    again: Callable[[], RawTable] | None = None


class Plain(NamedTuple):
    """A column of what a computer calculates with.

    Attributes:
        kind: "number", "integer", "boolean" or "date".
        values: float64, int64 (float64 with gaps), bool or datetime64[ns], shape (rows,).
        gaps: bool, where nothing is known.
    """

    kind: str
    values: np.ndarray
    gaps: np.ndarray


class Words(NamedTuple):
    """A column of texts.

    Attributes:
        codes: int64, shape (rows,), the place of each row's text in `texts`; -1 where it is missing.
        texts: all different, in the order in which they first appear.
        settled: whether the table itself says that these are categories.
    """

    codes: np.ndarray
    texts: list[str]
    settled: bool = False


def seen(series: pd.Series) -> Plain | Words | str:
    """A column of any dtype as one of these; words for why not, where it is none."""
    dtype: Any = series.dtype
    if hasattr(dtype, "pyarrow_dtype"):
        held: Any = series.array
        series = held.__arrow_array__().to_pandas(date_as_object=False)
        dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        held = [None if pd.isna(one) else _text(one) for one in series.cat.categories]
        if any(one is None for one in held):
            return "categories of an unknown kind"
        return _words(np.asarray(series.cat.codes, np.int64), [str(one) for one in held], settled=True)
    if isinstance(dtype, pd.PeriodDtype):
        series = series.dt.to_timestamp()
    elif isinstance(dtype, pd.SparseDtype):
        series = series.sparse.to_dense()
    gaps = series.isna().to_numpy(bool)
    kind = getattr(series.dtype, "kind", "O")
    if isinstance(series.dtype, pd.StringDtype) or kind not in "biufcmM":
        return _objects(series, gaps)
    if kind == "M":
        return _dates(series, gaps)
    if kind == "b":
        return Plain("boolean", series.fillna(False).to_numpy(bool) if gaps.any() else series.to_numpy(bool), gaps)
    if kind == "m":
        return of_numbers(series.dt.total_seconds().to_numpy(float), gaps)
    if kind == "c":
        return "complex numbers"
    if kind in "iu" and gaps.any():
        return Plain("integer", series.to_numpy(float, na_value=np.nan), gaps)
    values = series.to_numpy(dtype=float, na_value=np.nan) if kind == "f" else series.to_numpy(dtype=series.dtype.name.lower())
    return of_numbers(values, gaps)


def of_numbers(values: np.ndarray, gaps: np.ndarray | None = None) -> Plain:
    """Numbers of any dtype: whole ones are integers where their dtype says so, or where gaps kept it from saying so."""
    if values.dtype.kind in "iu":
        if values.dtype.kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
            return Plain("number", values.astype(float), np.zeros(len(values), bool))
        return Plain("integer", values.astype(np.int64), np.zeros(len(values), bool))
    values = values.astype(float)
    gaps = np.isnan(values) if gaps is None else gaps | np.isnan(values)
    return Plain("integer" if gaps.any() and is_whole(values[~gaps]) else "number", values, gaps)


def is_whole(known: np.ndarray) -> bool:
    """Whether numbers are whole, and small enough for float64 to tell them from their neighbours."""
    return bool(np.isfinite(known).all() and (np.abs(known) < _EXACT).all() and (known == np.floor(known)).all())


def _objects(series: pd.Series, gaps: np.ndarray) -> Plain | Words | str:
    """A column of Python's own things."""
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    if gaps.all():
        return Plain("number", np.full(len(series), np.nan), gaps)
    known = series[~gaps]
    if inferred == "boolean":
        values = np.zeros(len(series), bool)
        values[~gaps] = known.to_numpy(bool)
        return Plain("boolean", values, gaps)
    if inferred in _NUMBERS:
        if inferred == "integer" and not gaps.any() and all(abs(one) < 2**63 for one in known):
            return of_numbers(series.to_numpy(np.int64))
        values = np.full(len(series), np.nan)
        values[~gaps] = [float(one) for one in known]
        return of_numbers(values)
    if inferred in _DATES:
        try:
            return _dates(pd.to_datetime(pd.Series(series.to_numpy(object), dtype=object), utc=True), gaps)
        except (ValueError, OverflowError):
            return OUTSIDE
    if inferred in ("timedelta", "timedelta64"):
        return of_numbers(pd.to_timedelta(series).dt.total_seconds().to_numpy(float), gaps)
    if inferred == "complex":
        return "complex numbers"
    if inferred != "string":
        odd = next((one for one in known if not isinstance(one, _SCALARS) and _text(one) is None), None)
        if odd is not None:
            return f"of type {short(type(odd).__name__)}"
        series = pd.Series([None if gap else _text(one) for one, gap in zip(series, gaps, strict=True)], dtype=object)
    codes, found = pd.factorize(series)
    texts = [text if type(text) is str else str(text) for text in np.asarray(found, object)]
    missing = [code for code, text in enumerate(texts) if text.strip().lower() in MISSING]
    if not missing:
        return Words(codes.astype(np.int64), texts)
    rank = np.arange(len(texts) + 1)
    rank[missing], rank[-1] = -1, -1  # the last is that of code -1
    return _words(rank[codes], texts)


def _text(one: object) -> str | None:
    """A single thing as words; None of a list, a mapping or an unknown object."""
    if isinstance(one, bytes):
        try:
            return one.decode()
        except UnicodeDecodeError:
            return one.decode("latin-1")
    if isinstance(one, pd.Interval) or isinstance(one, _SCALARS) or hasattr(one, "isoformat"):
        return str(one)
    return None


def _dates(series: pd.Series, gaps: np.ndarray) -> Plain | str:
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    values = nanoseconds(series.to_numpy())
    return OUTSIDE if values is None else Plain("date", values, gaps)


def _words(codes: np.ndarray, texts: Sequence[str], settled: bool = False) -> Words:
    """Words whose texts are all different and all used, in the order in which they first appear, of any texts."""
    first: dict[str, int] = {}
    same = np.array([first.setdefault(text, len(first)) for text in texts] + [-1], np.int64)
    codes = same[codes]
    places, used = pd.factorize(codes[codes >= 0])
    order = list(first)
    codes[codes >= 0] = places
    return Words(codes, [order[code] for code in used], settled)
