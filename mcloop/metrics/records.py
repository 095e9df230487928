"""Rows of a synthetic table beside those of the real one: exact copies, and the distance to the closest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcloop.data.typed import NUMERIC
from mcloop.metrics.table_columns import Column

_BLOCK = 200  # rows whose distances to all others are held at once
_FAR = 1e6  # standard deviations beyond which no number is taken to lie


def mixed(total: np.ndarray, values: np.ndarray, place: int) -> np.ndarray:
    """Hashes of rows (n,), uint64, with one more column; equal values of a column, whatever they are, count as equal."""
    bits = (values + 0.0).view(np.uint64) if values.dtype.kind == "f" else values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "f":
        bits = np.where(np.isnan(values), np.uint64(2**64 - 1), bits)
    bits = bits + np.uint64((place + 1) * 0x9E3779B97F4A7C15 % 2**64)  # splitmix64, Steele et al. 2014
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return total * np.uint64(0x100000001B3) + (bits ^ (bits >> np.uint64(31)))


def copies(real: np.ndarray, synthetic: np.ndarray) -> float:
    """The share of synthetic rows that are some real row in every column, from the hashes of both."""
    return float(np.isin(synthetic, real).mean())


def closest_record(columns: Sequence[Column], few: int) -> float:
    """The median distance from a synthetic row to the nearest real one, over that from a real row to the nearest other.

    The distance of two rows: the root of the sum over columns of squared differences, of numbers in standard deviations of
    the real column, of categories, booleans and whether a value is missing 1 where they differ (one-hot codes, halved).

    Args:
        columns: of a sample of real rows, and of synthetic ones.
        few: rows of either that are compared with all of the real sample.

    Returns:
        0 for copies, about 1 for new rows of the same distribution; NaN where half of the real rows have an equal one.
    """
    numbers, levels = [], []
    for column in columns:
        if column.kind in NUMERIC:
            numbers += _standardised(column.real, column.others[0])
        else:
            levels.append((column.real, column.others[0]))
    n, m = len(columns[0].real), len(columns[0].others[0])
    if n < 2:
        return float("nan")
    real = np.column_stack([x for x, _ in numbers]) if numbers else np.zeros((n, 1))
    synthetic = np.column_stack([y for _, y in numbers]) if numbers else np.zeros((m, 1))
    own = np.median(_nearest(real[:few], real, [(x[:few], x) for x, _ in levels], True))
    if own == 0:
        return float("nan")
    return float(np.median(_nearest(synthetic[:few], real, [(y[:few], x) for x, y in levels], False)) / own)


def _standardised(real: np.ndarray, other: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coordinates of a column of numbers: its values, and whether they are missing where any is."""
    there = ~np.isnan(real)
    if not there.any():
        return [(np.zeros(len(real)), (~np.isnan(other)).astype(np.float64))]
    middle, spread = real[there].mean(), real[there].std()

    def placed(x: np.ndarray) -> np.ndarray:
        if spread == 0:  # another value than the only one is as far as another level
            return ((x != middle) & ~np.isnan(x)).astype(np.float64)
        return np.clip(np.nan_to_num((x - middle) / spread, nan=0, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)

    flags = np.isnan(real).astype(np.float64), np.isnan(other).astype(np.float64)
    pair = placed(real), placed(other)
    return [pair, flags] if flags[0].any() or flags[1].any() else [pair]


def _nearest(rows: np.ndarray, real: np.ndarray, levels: list[tuple[np.ndarray, np.ndarray]], same: bool) -> np.ndarray:
    """Distances from each row to the nearest real one, (rows,).

    Args:
        levels: codes of the rows, and of the real ones, a category.
        same: whether the rows are the first real ones; none is then its own neighbour.
    """
    from scipy.spatial.distance import cdist

    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows)))
        square = cdist(rows[block], real, "sqeuclidean")
        for ours, theirs in levels:
            square += ours[block, None] != theirs
        if same:
            square[np.arange(block.stop - start), np.arange(start, block.stop)] = np.inf
        found[block] = square.min(1)
    return np.sqrt(found)
