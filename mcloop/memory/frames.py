"""Tables as shards keep them: a row is a record of numbers and bytes, whatever pandas has in its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mcloop.errors import Diverged, InputError
from mcloop.memory.forms import Form, Values, called, is_frame, plain, text_bytes, word

_COLUMNS = 2000


class _Column(NamedTuple):
    """One column of the real table.

    Attributes:
        kind: "number", "whole", "boolean", "date", "duration" or "text".
        dtype: as pandas has it.
        gaps: whether a real row has nothing in it.
        levels: text -> category, where categories are no strings.
    """

    name: Any
    kind: str
    dtype: Any
    gaps: bool
    levels: Mapping[str, Any]

    def mcloop_identity(self) -> list:
        """What it is, without the caches of pandas."""
        return [repr(self.name), self.kind, str(self.dtype), self.gaps, list(self.levels)]


_KINDS = {"number": "numbers", "whole": "numbers", "boolean": "booleans", "date": "dates", "duration": "durations"}


def table(real: Any) -> Form:
    """The form of a DataFrame of pandas, whose columns and dtypes drawn rows are to have.

    Raises:
        InputError: too many columns, two of one name, or one that holds what no row can keep.
    """
    import pandas as pd

    if len(real.columns) > _COLUMNS:
        raise InputError(f"real has {len(real.columns):,} columns; at most {_COLUMNS:,} are allowed.")
    twice = real.columns[real.columns.duplicated()]
    if len(twice):
        raise InputError(f"real has two columns named {word(twice[0])}; names must differ.")
    if not len(real.columns):
        raise InputError("real must have at least one column, not none.")
    columns = [_column(real[name], "real") for name in real.columns]
    flagged = [j for j, column in enumerate(columns) if column.gaps and column.kind != "number"]
    names = [column.name for column in columns]

    def encode(points: Any, whose: str) -> Values:
        frame = _as_frame(plain(points), names, whose)
        rows: dict[str, np.ndarray] = {}
        gaps = np.zeros((len(frame), len(flagged)), bool)
        for j, column in enumerate(columns):
            rows[f"c{j}"], empty = _encode_column(frame[column.name], column, whose)
            if empty.any() and not column.gaps:
                raise Diverged(
                    f"{whose} has nothing in column {word(column.name)} at {int(empty.sum()):,} of {len(frame):,} rows, where "
                    "real rows always have something"
                )
            if j in flagged:
                gaps[:, flagged.index(j)] = empty
        # by rows, since rows are what is chosen
        described = [(name, x.dtype) for name, x in rows.items()] + [("gaps", "?", (len(flagged),))] * bool(flagged)
        kept = np.zeros(len(frame), described)
        for name, x in rows.items():
            kept[name] = x
        if flagged:
            kept["gaps"] = gaps
        return {"rows": kept}

    def decode(values: Values) -> Any:
        kept = values["rows"]
        found = {}
        for j, column in enumerate(columns):
            empty = kept["gaps"][:, flagged.index(j)] if j in flagged else None
            found[j] = _decode_column(np.ascontiguousarray(kept[f"c{j}"]), column, empty)
        frame = pd.DataFrame(found)
        frame.columns = pd.Index(names)
        return frame

    discrete = tuple(column.name for column in columns if column.kind in ("text", "boolean"))
    return Form("row", encode, decode, discrete)


def _as_frame(points: Any, names: list, whose: str) -> Any:
    """A DataFrame of the real table's columns in their order."""
    import pandas as pd

    frame: Any = plain(points[0]) if isinstance(points, tuple) and points else points
    if not is_frame(frame):
        given: Any = np.asarray(frame) if not isinstance(frame, dict | list) else frame
        try:
            plainly = isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.names is None
            frame = pd.DataFrame(given, columns=names if plainly and given.shape[1] == len(names) else None)
        except Exception as error:
            raise InputError(f"{whose} must be a DataFrame, as the real table is, not {called(points)}.") from error
    known, found = set(names), set(frame.columns)
    for words, apart in (("lacks the", [n for n in names if n not in found]), ("has a", [n for n in found if n not in known])):
        if apart:
            more = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
            end = " of the real table" if words == "lacks the" else " that the real table has not"
            raise InputError(f"{whose} {words} column {word(apart[0])}{more}{end}.")
    if frame.columns.duplicated().any():
        raise InputError(f"{whose} has two columns of one name.")
    return frame[names]


def _column(series: Any, whose: str) -> _Column:
    """What a column of the real table holds."""
    import pandas as pd
    from pandas.api import types

    dtype, gaps, levels = series.dtype, bool(series.isna().any()), {}
    if isinstance(dtype, pd.CategoricalDtype):
        levels = {str(level): level for level in dtype.categories if not isinstance(level, str)}
        return _Column(series.name, "text", dtype, gaps, levels)
    for kind, holds in (
        ("boolean", types.is_bool_dtype),
        ("whole", types.is_integer_dtype),
        ("number", types.is_float_dtype),
        ("date", types.is_datetime64_any_dtype),
        ("duration", types.is_timedelta64_dtype),
    ):
        if holds(dtype):
            return _Column(series.name, kind, dtype, gaps, levels)
    held = {type(value) for value in series.dropna()}
    if not held:
        raise InputError(f"Column {word(series.name)} of {whose} is empty: leave it out.")
    for kind, allowed in (("text", str), ("boolean", bool | np.bool_), ("number", bool | int | float | np.number)):
        if all(issubclass(one, allowed) for one in held):
            return _Column(series.name, kind, dtype, gaps, levels)
    other = sorted(one.__name__ for one in held)
    raise InputError(
        f"Column {word(series.name)} of {whose} holds {' and '.join(other[:3])}; a column must hold numbers, booleans, "
        "strings, categories, or dates as pandas has them (pandas.to_datetime)."
    )


def _encode_column(series: Any, column: _Column, whose: str) -> tuple[np.ndarray, np.ndarray]:
    """A column as it is kept, and where nothing is in it."""
    empty = series.isna().to_numpy(bool)
    where = f"Column {word(column.name)} of {whose}"
    if column.kind == "text":
        return _encode_text(series, column, empty, where), empty
    try:
        if column.kind in ("date", "duration"):
            given = series if column.kind == "duration" else _naive(series)
            kept = given.to_numpy("M8[ns]" if column.kind == "date" else "m8[ns]").view(np.int64)
            return np.where(empty, 0, kept), empty
        values = series.to_numpy(float, na_value=np.nan) if column.kind == "number" or empty.any() else series.to_numpy()
        if column.kind == "number" and getattr(column.dtype, "kind", "") == "f" and column.dtype.itemsize < 8:
            values = values.astype(np.float32)
        numbers = np.asarray(values if values.dtype.kind in "biuf" else values.astype(float))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} must hold {_KINDS[column.kind]}, as the real one does.") from error
    if numbers.dtype.kind == "f" and np.isinf(numbers).any():
        raise Diverged(f"{where} is infinite at {int(np.isinf(numbers).sum()):,} of {len(numbers):,} rows")
    if column.kind == "number":
        return numbers.astype(np.float32 if numbers.dtype == np.float32 else np.float64), empty
    numbers = np.where(empty, 0, numbers) if empty.any() else numbers
    if column.kind == "boolean" and np.isin(numbers, (0, 1)).all():
        return numbers.astype(bool), empty
    if numbers.dtype.kind == "f" and np.array_equal(numbers, np.round(numbers)) and np.abs(numbers).max(initial=0) < 2**53:
        numbers = numbers.astype(np.int64)
    # a generator that makes fractions of whole numbers, or of yes and no, is left to do so: that is what is looked at
    return numbers.astype(np.int64 if numbers.dtype.kind in "bi" else numbers.dtype), empty


def _naive(series: Any) -> Any:
    """Dates without a zone: in UTC, where they have one."""
    import pandas as pd

    series = pd.to_datetime(series, format="ISO8601") if series.dtype.kind not in "mM" and not hasattr(series, "dt") else series
    return series if series.dt.tz is None else series.dt.tz_convert("UTC").dt.tz_localize(None)


def _encode_text(series: Any, column: _Column, empty: np.ndarray, where: str) -> np.ndarray:
    import pandas as pd

    codes, found = pd.factorize(series.astype(object), use_na_sentinel=True)
    named = {level: text for text, level in column.levels.items()}
    texts = [level if isinstance(level, str) else named.get(level) for level in found]
    if None in texts:
        held = called(found[texts.index(None)])
        what = f"no other categories than the real one, and has {held}" if named else f"text, as the real one does, not {held}"
        raise InputError(f"{where} must hold {what}.")
    kept = text_bytes([str(text) for text in texts], where) if texts else np.array([b""], "S1")
    return np.where(empty, np.array(b"", kept.dtype), kept[np.maximum(codes, 0)])


def _decode_column(kept: np.ndarray, column: _Column, empty: np.ndarray | None) -> Any:
    """A column as pandas has it, of the real one's dtype where its values allow that."""
    import pandas as pd

    if column.kind == "text":
        codes, found = pd.factorize(kept.astype(object))
        texts = [column.levels.get(text, text) for text in (level.decode() for level in found)]
        values = np.array([*texts, None], object)[codes] if len(found) else np.array([], object)
        if empty is not None:
            values[empty] = None
        if isinstance(column.dtype, pd.CategoricalDtype):
            held = pd.unique(values)  # where nothing is, an empty text stands that is no level
            new = sorted((v for v in held if v is not None and v not in column.dtype.categories), key=str)
            dtype = pd.CategoricalDtype([*column.dtype.categories, *new], column.dtype.ordered and not new)
            return pd.Series(values, dtype=dtype)
        return pd.Series(values, dtype=column.dtype)
    if column.kind in ("date", "duration"):
        dates = pd.Series(kept.view("M8[ns]" if column.kind == "date" else "m8[ns]"))
        if empty is not None:
            dates[empty] = pd.NaT
        zone = getattr(column.dtype, "tz", None)
        return dates.dt.tz_localize("UTC").dt.tz_convert(zone).astype(column.dtype) if zone else dates.astype(column.dtype)
    if empty is not None and empty.any():
        found = pd.Series(kept.astype(object) if kept.dtype.kind == "b" else kept.astype(float))
        found[empty] = None if kept.dtype.kind == "b" else np.nan
        return _cast(found, column.dtype)
    return _cast(pd.Series(kept), column.dtype)


def _cast(series: Any, dtype: Any) -> Any:
    """A series in the real column's dtype, or as it is where that would change its values."""
    try:
        cast = series.astype(dtype)
        same = cast.isna().eq(series.isna()).all() and (cast.dropna() == series.dropna()).all()
    except (TypeError, ValueError, OverflowError):
        return series
    return cast if same else series
