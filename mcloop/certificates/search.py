"""A sequential search for the value of an axis at which a mean over seeds changes sign."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

_GRAIN = 1e-5  # log growth that float32 does not tell from 0
_ROUNDS = 5  # one over the whole range, and at most so many less one inside the bracket


class Evaluation(NamedTuple):
    """The growth factor a generation at one value of the axis, with an interval, over so many seeds.

    `stable` is True or False where the interval says so, or None. The intervals of all evaluations hold together.
    """

    value: float
    growth: float
    low: float
    high: float
    seeds: int
    stable: bool | None


class Boundary(NamedTuple):
    """What a search found.

    Attributes:
        found: whether stability changes in the range.
        axis, between, confidence: what was asked.
        value, low, high: the first boundary from below, and its interval; NaN if none was found.
        stable: on which side of it the loop is stable, "below" or "above"; without one "everywhere", "nowhere", or
            "unresolved" where seeds did not tell some growth from 1.
        ends: the evaluations at both ends of the range.
        crossings: every (low, high) of the first round in which stability changes; more than one: it is not monotone.
        settled: whether the last quarter of the run alone puts the boundary at the same place.
        evaluations: all of them, round by round.
        words: a sentence.
    """

    found: bool
    axis: str
    between: tuple[float, float]
    confidence: float
    value: float
    low: float
    high: float
    stable: str
    ends: tuple[Evaluation, Evaluation]
    crossings: tuple[tuple[float, float], ...]
    settled: bool
    evaluations: tuple[Evaluation, ...]
    words: str


class Reading(NamedTuple):
    """How raw numbers become a mean: `values` (features, points, seeds) -> (points, seeds), whose mean over seeds has the
    sign of log growth; `growth` turns that mean into log growth. `late` is `values` of the last quarter, or None."""

    values: Callable[[np.ndarray], np.ndarray]
    growth: Callable[[np.ndarray], np.ndarray]
    late: Callable[[np.ndarray], np.ndarray] | None = None


def _moment(x: np.ndarray, span: int) -> np.ndarray:
    """log mean exp(span x) / span over seeds, as values with that mean: the estimate and its influence (delta method)."""
    top = x.max(-1, keepdims=True)
    factor = np.exp(span * (x - top))
    mean = factor.mean(-1, keepdims=True)
    return top + (np.log(mean) + factor / mean - 1) / span


STATISTICS: dict[str, Callable[[int], Reading]] = {
    "twins": lambda span: Reading(lambda raw: raw[0], lambda x: x, lambda raw: raw[1]),
    "moment": lambda span: Reading(lambda raw: _moment(raw[0], span), lambda x: x, lambda raw: _moment(raw[1], span // 2)),
}


def relaxation(apart: int) -> Reading:
    """From an error at three generations `apart` from each other: (A - B)/(A + B), A and B its last and first increment.

    With A/B = r^apart it is tanh(apart log r / 2): it has the sign of log r and stays in [-1, 1] where A is lost in noise.
    By the delta method. Where A + B is not told from 0 (four standard errors) nothing is said: NaN. Seeds that have left the
    floats have grown: 1.
    """

    def values(raw):
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            a, b = raw[2] - raw[1], raw[1] - raw[0]
            mean_a, mean_b = a.mean(-1, keepdims=True), b.mean(-1, keepdims=True)
            both = mean_a + mean_b
            x = (mean_a - mean_b) / both + 2 * (mean_b * (a - mean_a) - mean_a * (b - mean_b)) / both**2
            sure = np.abs(both) > 4 * (a + b).std(-1, ddof=1, keepdims=True) / np.sqrt(a.shape[-1])
        return np.where(np.isfinite(raw).all((0, -1))[:, None], np.where(sure, x, np.nan), 1.0)

    return Reading(values, lambda x: 2 / apart * np.arctanh(np.clip(x, -1 + 1e-12, 1 - 1e-12)))


def search(
    draw: Callable[[np.ndarray, int], np.ndarray],
    reading: Reading,
    axis: str,
    between: tuple[float, float],
    points: int,
    batches: int,
    precision: float,
    confidence: float,
) -> Boundary:
    """Search for the boundary; see `boundary`.

    Args:
        draw: (values (points,), number of a batch) -> raw (features, points, seeds of the batch).
        batches: the most of one round.
    """
    looks = [2**k for k in range(batches.bit_length() - 1)] + [batches]
    spent = (1 - confidence) / 2 / len(looks)
    first = rows = _signs(draw, reading, np.geomspace(between[0], between[1], points), 0, looks, spent / _ROUNDS / points)
    changes = _changes(rows)
    asked = {"axis": axis, "between": between, "confidence": confidence, "ends": (rows[0], rows[-1])}
    if not changes:
        return _none(asked, rows)
    rising = bool(changes[0][0].stable)
    crossings = tuple((a.value, b.value) for a, b in changes)
    bracket, kept = crossings[0], first
    for number in range(1, _ROUNDS):
        if np.log(bracket[1] / bracket[0]) <= 2 * np.log1p(precision):
            break
        values = np.geomspace(bracket[0], bracket[1], points)
        rows = _signs(draw, reading, values, number * batches, looks, spent / _ROUNDS / points)
        kept = kept + rows
        inside = [(a.value, b.value) for a, b in _changes(rows) if a.stable == rising]
        if not inside or inside[0] == (rows[0].value, rows[-1].value):
            break
        bracket = inside[0]

    side = 1.0 if rising else -1.0
    value, low, high = bracket[0], *bracket
    late = value
    for raw in _look(draw, np.geomspace(bracket[0], bracket[1], points), _ROUNDS * batches, looks):
        value, low, high = _place(side * reading.values(raw), bracket, spent)
        late = value if reading.late is None else _place(side * reading.late(raw), bracket, spent)[0]
        if (high - low) / 2 <= precision * value:
            break
    settled = bool(low <= late <= high or abs(np.log(late / value)) < precision / 10)
    stable = "below" if rising else "above"
    words = f"{axis} = {shown(value, low, high)} ({100 * confidence:g} %): stable {stable} it, unstable on the other side"
    if len(crossings) > 1:
        more = ", ".join(f"{a:.3g} and {b:.3g}" for a, b in crossings[1:])
        words += f"; stability changes again between {more}"
    if not settled:
        words += f"; growth still drifts (its last quarter alone says {late:.4g}), so take more generations"
    return Boundary(
        found=True,
        value=value,
        low=low,
        high=high,
        stable=stable,
        crossings=crossings,
        settled=settled,
        evaluations=kept,
        words=f"{words}.",
        **asked,
    )


def _signs(draw, reading: Reading, values, first, looks, error) -> tuple[Evaluation, ...]:
    """One round: the growth at these values, of more and more seeds until all signs are known."""
    raw = centre = half = np.zeros(0)
    for raw in _look(draw, values, first, looks):
        centre, half = _interval(reading.values(raw), error)
        if _told(_verdict(centre, half)):
            break
    low, mean, high = (np.exp(reading.growth(y)) for y in (centre - half, centre, centre + half))
    stable = [None if s == 0 else bool(s < 0) for s in _verdict(centre, half)]
    return tuple(
        Evaluation(float(values[i]), float(mean[i]), float(low[i]), float(high[i]), raw.shape[-1], stable[i])
        for i in range(len(values))
    )


def _verdict(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """1 where growth is told to be above 1, -1 below, else 0."""
    return np.where(centre - half > _GRAIN, 1, np.where(centre + half < -_GRAIN, -1, 0))


def _look(draw, values, first, looks):
    """Raw numbers of more and more batches of seeds."""
    raw: list[np.ndarray] = []
    for total in looks:
        raw += [draw(values, first + batch) for batch in range(len(raw), total)]
        yield np.concatenate(raw, -1)


def _interval(x: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last axis and half of Student's interval; nothing is known (0 +- inf) where a value is NaN."""
    n = x.shape[-1]
    half = student.isf(error / 2, n - 1) * x.std(-1, ddof=1) / np.sqrt(n)
    known = np.isfinite(x).all(-1)
    return np.where(known, x.mean(-1), 0.0), np.where(known, half, np.inf)


def _changes(rows: tuple[Evaluation, ...]) -> list[tuple[Evaluation, Evaluation]]:
    """Neighbours among those whose stability is known, that differ in it."""
    known = [row for row in rows if row.stable is not None]
    return [(a, b) for a, b in itertools.pairwise(known) if a.stable != b.stable]


def _told(signs: np.ndarray) -> bool:
    """Whether all signs are known, but for one or two values between opposite ones: those that lie at a boundary."""
    known = np.flatnonzero(signs)
    if not known.size or known[0] != 0 or known[-1] != len(signs) - 1:
        return False
    gap, flips = np.diff(known), np.diff(signs[known]) != 0
    return bool(((gap == 1) | (flips & (gap <= 3))).all())


def _place(x: np.ndarray, bracket: tuple[float, float], error: float) -> tuple[float, float, float]:
    """Where the mean of x (points, seeds) rises through 0, and the values at which a parabola's height is not told from 0.

    Points are spaced geometrically over the bracket, whose ends bound the set: their signs are known.
    """
    if not np.isfinite(x).all():
        return float(np.sqrt(bracket[0] * bracket[1])), *bracket
    u, fine = np.linspace(-1, 1, len(x)), np.linspace(-1, 1, 1001)
    curves = np.vander(fine, 3) @ (np.linalg.pinv(np.vander(u, 3)) @ x)
    mean, half = _interval(curves, error)
    half = half + _GRAIN
    places = _rise(fine, mean), _rise(fine, mean + half), -_rise(fine, (half - mean)[::-1])
    value, low, high = (float(bracket[0] * (bracket[1] / bracket[0]) ** ((place + 1) / 2)) for place in places)
    return value, low, high


def _rise(u: np.ndarray, y: np.ndarray) -> float:
    """The first u from which y is positive, between grid points by a line; the ends of u where it always or never is."""
    i = int(np.argmax(y > 0))
    if not y[i] > 0:
        return float(u[-1])
    return float(u[0]) if i == 0 else float(u[i] - (u[i] - u[i - 1]) * y[i] / (y[i] - y[i - 1]))


def shown(value: float, low: float, high: float) -> str:
    """ "value [low, high]", with as many digits as the interval is worth."""
    if not np.isfinite(high):
        return "not measured"
    width = max(high - low, 1e-6 * abs(value))
    digits = int(np.clip(np.ceil(np.log10(abs(value) / width)) + 2, 3, 7)) if value else 3
    return f"{value:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def _none(asked: dict, rows: tuple[Evaluation, ...]) -> Boundary:
    """What is said where no change of stability was seen."""
    (low, high), nan = asked["between"], float("nan")
    factors = " and ".join(f"{shown(e.growth, e.low, e.high)} at {e.value:g}" for e in asked["ends"])
    between = f"between {asked['axis']} = {low:g} and {high:g}"
    unknown = sum(row.stable is None for row in rows)
    if not unknown:
        stable, side = ("everywhere", "below") if rows[0].stable else ("nowhere", "above")
        words = f"no boundary {between}: the growth factor a generation is {factors}, {side} 1 throughout"
    else:
        stable = "unresolved"
        words = (
            f"not resolved {between}: the growth factor a generation is {factors}; at {unknown} of {len(rows)} values "
            f"{rows[0].seeds} seeds do not tell it from 1, and no change of stability was seen"
        )
    return Boundary(
        found=False,
        value=nan,
        low=nan,
        high=nan,
        stable=stable,
        crossings=(),
        settled=True,
        evaluations=rows,
        words=f"{words} ({100 * asked['confidence']:g} %).",
        **asked,
    )
