"""What the columns of a mixed table hold, by their dtypes: numbers, whole numbers, dates, booleans or categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mcloop.errors import InputError

NUMBER, INTEGER, DATE, BOOLEAN, CATEGORY = "number", "integer", "date", "boolean", "category"
NUMERIC = (NUMBER, INTEGER, DATE)  # whose values have a distance; of the other two the levels are counted


def kinds_of(field: str, frame: Any, least: int = 1) -> dict[Any, str]:
    """The kind of every column of a frame that has at least `least` rows and one column.

    Floats whose present values are all whole are integers. Text, objects and pandas' categories are categories.

    Raises:
        InputError: no DataFrame, too few rows or columns, two columns of one name, infinite values, other dtypes.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{field} must be a pandas DataFrame, not {type(frame).__name__}.")
    if len(frame) < least or not frame.shape[1]:
        raise InputError(f"{field} must have at least {least} rows and one column, not {len(frame)} x {frame.shape[1]}.")
    if not frame.columns.is_unique:
        raise InputError(
            f"{field} must name every column differently, and has two of {short(frame.columns[frame.columns.duplicated()][0])}."
        )
    return {name: _kind(field, name, frame[name]) for name in frame.columns}


def _kind(field: str, name, series: pd.Series) -> str:
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return CATEGORY
    if types.is_bool_dtype(dtype):
        return BOOLEAN
    if types.is_datetime64_any_dtype(dtype):
        return DATE
    if types.is_integer_dtype(dtype):
        if len(series) and types.is_unsigned_integer_dtype(dtype) and series.max() >= 2**63:
            raise InputError(f"{field} must hold whole numbers below 2^63 in column {short(name)}.")
        return INTEGER
    if types.is_float_dtype(dtype):
        values = _floats(series)
        values = values[~np.isnan(values)]
        if np.isinf(values).any():
            raise InputError(f"{field} must hold finite or missing numbers in column {short(name)}, not inf.")
        whole = len(values) > 0 and np.abs(values).max() < 2**53 and bool((values == np.rint(values)).all())
        return INTEGER if whole else NUMBER
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        return CATEGORY
    raise InputError(f"{field} must hold numbers, dates, booleans, text or categories in column {short(name)}, not {dtype}.")


def present(series: pd.Series, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The values that are there, and where: ((m,) float64 of numbers, int64 of integers and of dates; (n,) bool).

    Dates are counted in the column's own unit since 1970.
    """
    if kind == NUMBER:
        values = _floats(series)
        there = ~np.isnan(values)
        return values[there], there
    there = np.asarray(series.notna())
    if kind == DATE:
        return np.asarray(series[there].astype("int64")), there
    return whole_numbers(series, there), there


def whole_numbers(series: pd.Series, there: np.ndarray) -> np.ndarray:
    """The values of some rows, (m,) int64; of booleans 0 and 1."""
    return pd.Series(series[there]).to_numpy(dtype=np.int64)


def levels_of(series: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """The levels of a category or of booleans: ((n,) codes, -1 where missing; an index of objects, one a level).

    Levels of a pandas category come in its order, whether they occur or not; text in the order of its first occurrence.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.cat.codes.to_numpy(np.int64), pd.Index(series.cat.categories.to_numpy(), dtype=object)
    if types.is_bool_dtype(series.dtype):
        there = np.asarray(series.notna())
        codes = np.full(len(series), -1, np.int64)
        codes[there] = whole_numbers(series, there)
        return codes, pd.Index([False, True], dtype=object)
    try:
        codes, uniques = pd.factorize(series)
    except TypeError:
        raise InputError(f"Column {short(series.name)} must hold text or other plain values, not lists.") from None
    return codes.astype(np.int64), pd.Index(np.asarray(uniques, dtype=object), dtype=object)


def _floats(series: pd.Series) -> np.ndarray:
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def short(value, most: int = 40) -> str:
    """A name or a value as a message shows it: on one line, cut where it is long."""
    said = repr(value)
    return said if len(said) <= most else said[: most - 3] + "..."
