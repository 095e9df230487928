"""Two mixed tables column by column: both read as the real one's dtypes say, and how far their marginals are apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from mcloop.data.typed import DATE, INTEGER, NUMERIC, levels_of, present, short, whole_numbers
from mcloop.errors import InputError

RARE = 0.02  # share of a real column's present values up to which a level is rare


class Column(NamedTuple):
    """One column of the real table and of others, coded alike.

    Attributes:
        kind: see `mcloop.data.typed`.
        real: (n,) float64, NaN where missing, above the least real value (integers, dates) or as they are (numbers); of
            categories and booleans int64 codes, -1 where missing, 0 the most frequent real level.
        others: the same of each other table; levels that the real one lacks have codes from `levels`.
        levels: real ones that occur, 0 for numbers.
    """

    kind: str
    real: np.ndarray
    others: tuple[np.ndarray, ...]
    levels: int = 0


def coded(name, kind: str, real: pd.Series, *others: tuple[str, pd.Series]) -> Column:
    """Args: the real column, and (field, column) of each other table.

    Raises:
        InputError: numbers or dates are wanted, and another table holds something else.
    """
    if kind in NUMERIC:
        values, there = present(real, kind)
        origin = int(values.min()) if kind in (INTEGER, DATE) and len(values) else 0
        unit = _unit(real) if kind == DATE else None
        return Column(
            kind,
            _spread(_above(values, origin), there),
            tuple(_spread(*_other(field, name, kind, series, unit, origin)) for field, series in others),
        )
    codes, levels = levels_of(real)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    known = levels[order]
    place = np.full(len(levels) + 1, -1)
    place[order] = np.arange(len(order))
    found = []
    for _, series in others:
        theirs, own = levels_of(series)
        to = known.get_indexer(own)
        new = np.flatnonzero(to < 0)
        to[new] = len(known) + np.arange(len(new))
        found.append(np.append(to, -1)[theirs])
    return Column(kind, place[codes], tuple(found), len(known))


def _unit(series: pd.Series) -> str:
    return series.dt.unit


def _other(field: str, name, kind: str, series: pd.Series, unit, origin: int) -> tuple[np.ndarray, np.ndarray]:
    """Values above the origin, and where they are."""
    blank = np.asarray(series.isna())
    if blank.all():
        return np.empty(0), ~blank
    if kind == DATE:
        if not types.is_datetime64_any_dtype(series.dtype):
            raise InputError(f"{field} must hold dates in column {short(name)}, as the real table does, not {series.dtype}.")
        values, there = present(series.dt.as_unit(unit), DATE)
        return _above(values, origin), there
    if not types.is_numeric_dtype(series.dtype) or types.is_complex_dtype(series.dtype):
        raise InputError(f"{field} must hold numbers in column {short(name)}, as the real table does, not {series.dtype}.")
    if types.is_integer_dtype(series.dtype):
        return _above(whole_numbers(series, ~blank), origin), ~blank
    return pd.Series(series[~blank]).to_numpy(dtype=np.float64) - origin, ~blank


def _above(values: np.ndarray, origin: int) -> np.ndarray:
    if values.dtype.kind != "i":
        return values
    low = int(values.min()) if len(values) else 0
    if abs(low - origin) >= 2**62 or (len(values) and int(values.max()) - origin >= 2**63):
        return values.astype(np.float64) - origin
    return (values - np.int64(origin)).astype(np.float64)


def _spread(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    if len(values) == len(there):
        return values
    out = np.full(len(there), np.nan)
    out[there] = values
    return out


def identified(column: Column, *tables: pd.Series) -> tuple[np.ndarray, ...]:
    """A value a row of each table, equal exactly where the column's values are; `tables` are those of the column, in order.

    What the column holds as floats, but for whole numbers and dates too far apart for these, which are taken themselves.
    """
    whole = all(types.is_integer_dtype(one.dtype) or types.is_datetime64_any_dtype(one.dtype) for one in tables)
    if column.kind not in (INTEGER, DATE) or not whole or not (column.real >= 2**53).any():
        return column.real, *column.others
    found = []
    for one in tables:
        values, there = present(one if column.kind == INTEGER else one.dt.as_unit(_unit(tables[0])), column.kind)
        filled = np.full(len(one), np.iinfo(np.int64).min)
        filled[there] = values
        found.append(filled)
    return tuple(found)


def column_scores(column: Column) -> dict[str, Any]:
    """Of the first other table: `ks` or `tv`, `kept`, `rare_kept`, `range_kept` and both shares of missing values.

    `ks` and `tv` compare the values that are there: 1 where only the real column has any. What does not apply to the real
    column is NaN; a column that is never there has no distance.
    """
    real, other = column.real, column.others[0]
    numeric = column.kind in NUMERIC
    blank, missing = (np.isnan(real), np.isnan(other)) if numeric else (real < 0, other < 0)
    nan = float("nan")
    seen = {"kind": column.kind, "ks": nan, "tv": nan, "kept": nan, "rare_kept": nan, "range_kept": nan}
    seen |= {"missing_real": float(blank.mean()), "missing_synthetic": float(missing.mean())}
    real, other = real[~blank], other[~missing]
    if not len(real):
        return seen
    if numeric:
        return seen | {"ks": ks(real, other), "range_kept": range_kept(real, other)}
    width = max(column.levels, int(other.max(initial=-1)) + 1)
    p, q = np.bincount(real, minlength=width), np.bincount(other, minlength=width)
    there = q[: column.levels] > 0
    rare = p[: column.levels] <= RARE * len(real)
    tv = 1.0 if not len(other) else min(1.0, float(np.abs(p / len(real) - q / len(other)).sum() / 2))
    return seen | {"tv": tv, "kept": float(there.mean()), "rare_kept": float(there[rare].mean()) if rare.any() else nan}


def ks(a: np.ndarray, b: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of two samples without missing values; 1 if one of them is empty."""
    if not len(a) or not len(b):
        return 1.0
    a, b = np.sort(a), np.sort(b)
    # the gap is widest at a value of one of them, where all that are equal to it are counted
    at_a = np.searchsorted(a, a, "right") / len(a) - np.searchsorted(b, a, "right") / len(b)
    at_b = np.searchsorted(a, b, "right") / len(a) - np.searchsorted(b, b, "right") / len(b)
    return float(max(np.abs(at_a).max(), np.abs(at_b).max()))


def range_kept(real: np.ndarray, other: np.ndarray) -> float:
    """The share of [min, max] of the real values between the least and the greatest of others, 0 to 1."""
    if not len(other):
        return 0.0
    low, high = real.min(), real.max()
    least, most = max(low, other.min()), min(high, other.max())
    if low == high:
        return float(least <= most)
    return float(max(0.0, most - least) / (high - low))
