"""One column of a mixed table as a distribution: its normal scores, and how a normal number becomes a value of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mcloop.data.typed import DATE, NUMBER, NUMERIC, levels_of, present

TERMS = 40  # of the Hermite series of a column's scores
_HEAPS = 256  # heaps at most whose scores are not taken to be as fine as a normal number's
_KNOTS = 10_000  # of a quantile function; the distribution function is off by no more than their spacing
_DECIMALS = 6


class Scores(NamedTuple):
    """A column, or a flag, as normal numbers: each value stands for the mean of a normal variable over its share.

    Attributes:
        values: (n,), 0 where missing; of mean zero over the rows where the column is there.
        there: (n,) whether the column is there.
        series: (TERMS,), the covariance of a score with the k-th normalised Hermite polynomial of the latent number; of a
            column without heaps 1, 0, 0...
        heaped: whether it is anything else.
    """

    values: np.ndarray
    there: np.ndarray
    series: np.ndarray
    heaped: bool


class Marginal(NamedTuple):
    """The distribution of one column where it is there, and how often it is not.

    Attributes:
        kind: see `mcloop.data.typed`.
        dtype: of the column, which samples have too.
        missing: share of the rows.
        u, x: knots of the quantile function: increasing shares, and values in steps of `grain` above `low`; none where the
            column is never there.
        low, grain, scale: a value is (low + grain * step) / scale where `grain` is not zero, otherwise x as it is.
        order: of the levels of a category, in which their shares add up.
        upper: the running sum of the shares in that order.
    """

    kind: str
    dtype: Any
    missing: float
    u: np.ndarray
    x: np.ndarray
    low: int = 0
    grain: int = 0
    scale: int = 1
    order: np.ndarray = np.empty(0, np.int64)
    upper: np.ndarray = np.empty(0)


def fit_marginal(series: pd.Series, kind: str, order: np.ndarray | None = None) -> tuple[Marginal, Scores]:
    """The empirical distribution of a column, and its scores.

    Numbers: the quantile function is linear between the values that occur once and stand side by side, and flat on those
    that occur more often (heaps, such as the zeros of a zero-inflated column), whose shares are kept. Nothing is outside
    the range that was seen, and what was on a grid (whole numbers, hundreds, cents, days) stays on it.

    Args:
        series: a category has pandas' dtype of that name.
        order: of a category's levels, each once; None takes them as they come.
    """
    blank = np.asarray(series.isna())
    base = Marginal(kind, series.dtype, float(blank.mean()), np.empty(0), np.empty(0))
    if kind in NUMERIC:
        values, there = present(series, kind)
        distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        heaps = counts > 1
        if counts[~heaps].sum() <= 0.05 * counts.sum():
            heaps[:] = True
        marginal = base if not len(distinct) else _numeric(base, distinct, counts)
    else:
        codes, levels = levels_of(series)
        there = codes >= 0
        if order is None:
            order = np.arange(len(levels))
        place = np.empty(len(levels), np.int64)
        place[order] = np.arange(len(levels))
        inverse = place[codes[there]]
        counts = np.bincount(inverse, minlength=len(levels))
        heaps = counts > 0
        marginal = base._replace(order=order, upper=np.cumsum(counts) / max(1, counts.sum()))
    return marginal, _scores(inverse, counts, heaps, there)


def flag(there: np.ndarray) -> Scores:
    """The scores of whether a column is there: low where it is missing."""
    return _scores(there.astype(np.int64), np.bincount(there, minlength=2), np.ones(2, bool), np.ones(len(there), bool))


def _numeric(base: Marginal, distinct: np.ndarray, counts: np.ndarray) -> Marginal:
    whole, scale = distinct, 1
    if base.kind == NUMBER:
        whole, scale = _on_decimals(distinct)
    if whole is None:
        u, x = _knots(counts, distinct)
        return base._replace(u=u, x=x)
    steps = whole.astype(np.uint64) - whole[:1].astype(np.uint64)  # modulo 2^64, so that no difference overflows
    grain = max(1, int(np.gcd.reduce(steps)))
    steps = steps // np.uint64(grain)
    # from 2^53 on a float may lie above the whole number that it stands for, and at 2^64 there is none to go back to
    near = np.minimum(steps.astype(np.float64), 2.0**64 - 2048)
    u, x = _knots(counts, np.where(near.astype(np.uint64) > steps, np.nextafter(near, 0), near))
    return base._replace(u=u, x=x, low=int(whole[0]), grain=grain, scale=scale)


def _on_decimals(values: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Values with at most so many decimals as whole numbers of the last one, or None: (those, how many make a unit)."""
    for decimals in range(1, _DECIMALS + 1):
        scale = 10**decimals
        whole = np.rint(values * scale)
        if np.abs(whole).max() < 2**53 and (whole / scale == values).all():
            return whole.astype(np.int64), scale
    return None, 1


def _knots(counts: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A quantile function through the middle of what occurs once, and along the whole of what occurs more often."""
    upper = np.cumsum(counts)
    lower, upper = (upper - counts) / upper[-1], upper / upper[-1]
    heap = counts > 1
    # a single value next to a heap, or to the end, holds its own half: nothing is drawn in the gap between them
    first = heap | np.concatenate([[True], heap[:-1]])
    last = heap | np.concatenate([heap[1:], [True]])
    kept = np.column_stack([first, ~heap, last])
    u, x = np.column_stack([lower, (lower + upper) / 2, upper])[kept], np.repeat(x, kept.sum(1))
    if len(u) > 4 * _KNOTS:
        large = np.repeat(counts * _KNOTS >= counts.sum(), kept.sum(1))
        large[np.searchsorted(u, np.linspace(0, 1, _KNOTS + 1)[1:-1])] = True
        large[[0, -1]] = True
        u, x = u[large], x[large]
    return u, x


def _scores(inverse: np.ndarray, counts: np.ndarray, heaps: np.ndarray, there: np.ndarray) -> Scores:
    """Args: which of the ordered values each row that is there has, how many have each, which values are heaps."""
    total = counts.sum()
    values = np.zeros(len(there))
    if np.count_nonzero(counts) < 2:  # nothing, or a constant
        return Scores(values, there, np.zeros(TERMS), True)
    upper = np.cumsum(counts) / total
    edges = ndtri(np.concatenate([[0.0], upper[:-1], [1.0]]))
    density = _density(edges)
    share = counts / total
    mean = np.where(counts > 0, (density[:-1] - density[1:]) / np.where(counts > 0, share, 1), 0.0)
    chosen = np.flatnonzero(heaps)
    if len(chosen) > _HEAPS:
        chosen = np.sort(chosen[np.argsort(-counts[chosen], kind="stable")[:_HEAPS]])
    series, variance = _hermite(edges[chosen], edges[chosen + 1], mean[chosen])
    own = float((share * mean**2).sum())
    # of few rows the scores are narrower than the normal numbers that they stand for
    values[there] = mean[inverse] * np.sqrt(variance / own)
    return Scores(values, there, series, len(chosen) > 0)


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _hermite(left: np.ndarray, right: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """The series of z with `mean` in its place on the intervals (left, right), in normalised Hermite polynomials.

    Returns:
        (its TERMS first coefficients from degree 1, its variance).
    """
    ends = []
    if not len(mean):
        return np.eye(1, TERMS)[0], 1.0
    for z in (left, right):
        density = _density(z)
        z = np.where(np.isinf(z), 0.0, z)
        h = [density, z * density]
        for k in range(1, TERMS + 1):
            h.append((z * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1))
        ends.append(np.array(h))
    # the integral of h_k times the density over each interval, k = 0...
    inside = np.vstack([ndtr(right) - ndtr(left), (ends[0] - ends[1])[:-1] / np.sqrt(np.arange(1, TERMS + 2))[:, None]])
    k = np.arange(1, TERMS + 1)[:, None]
    moved = np.sqrt(k + 1) * inside[2:] + np.sqrt(k) * inside[:-2] - mean * inside[1:-1]
    series = -moved.sum(1)
    series[0] += 1
    square = np.sqrt(2) * inside[2] + inside[0]  # the integral of z^2
    return series, float(1 - (square - mean**2 * inside[0]).sum())


def draw_column(marginal: Marginal, z: np.ndarray, there: np.ndarray) -> pd.Series:
    """A column of the dtype that was fitted: values for normal numbers z (n,), missing where not `there`."""
    u, dtype = ndtr(z), marginal.dtype
    if marginal.kind in NUMERIC:
        values = _steps(marginal, u)
        if marginal.kind == DATE:
            unit = dtype.unit if isinstance(dtype, pd.DatetimeTZDtype) else np.datetime_data(dtype)[0]
            column = pd.Series(values.view(f"M8[{unit}]"))
            if isinstance(dtype, pd.DatetimeTZDtype):
                column = column.dt.tz_localize("UTC").dt.tz_convert(dtype.tz)
        else:
            column = pd.Series(values).astype(dtype)
        return column if there.all() else column.mask(~there)
    codes = np.full(len(z), -1, np.int64)
    if marginal.missing < 1:
        last = int(np.searchsorted(marginal.upper, marginal.upper[-1]))
        codes[there] = marginal.order[np.minimum(np.searchsorted(marginal.upper, u[there], "right"), last)]
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))
    column = pd.Series(codes == 1).astype(dtype)
    return column if there.all() else column.mask(~there)


def _steps(marginal: Marginal, u: np.ndarray) -> np.ndarray:
    """The quantile function of a column of numbers; zeros where the column is never there."""
    if not len(marginal.u):
        return np.zeros(len(u), np.float64 if marginal.kind == NUMBER else np.int64)
    at = np.clip(np.searchsorted(marginal.u, u, "right") - 1, 0, len(marginal.u) - 2)
    width = marginal.u[at + 1] - marginal.u[at]
    part = np.clip((u - marginal.u[at]) / np.where(width > 0, width, 1), 0, 1)
    x = (1 - part) * marginal.x[at] + part * marginal.x[at + 1]
    if not marginal.grain:
        return np.clip(x, marginal.x[0], marginal.x[-1])
    steps = np.minimum(np.rint(x).astype(np.uint64), np.uint64(marginal.x[-1]))
    whole = (steps * np.uint64(marginal.grain) + np.array(marginal.low).astype(np.uint64)).view(np.int64)
    return whole / marginal.scale if marginal.kind == NUMBER else whole
