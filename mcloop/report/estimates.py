"""Intervals over seeds: of means, of their logarithms, of quotients of differences, and of the power of a curve's growth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.report.limits import limits


class Curve(NamedTuple):
    """One measure of one cell over generations: every seed, or a mean and its standard error where only those were kept.

    Attributes:
        g: (generations,).
        seeds: (seeds, generations), or None.
        mean, sem: (generations,); sem is NaN for one seed.
        count: seeds.
    """

    g: np.ndarray
    seeds: np.ndarray | None
    mean: np.ndarray
    sem: np.ndarray
    count: int

    def mapped(self, function, slope) -> Curve:
        """A function of every seed; of the mean, with the error that its `slope` there gives, where there are no seeds."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.seeds is not None:
                return of_seeds(self.g, function(self.seeds))
            return self._replace(mean=function(self.mean), sem=np.abs(slope(self.mean)) * self.sem)

    def log(self) -> Curve:
        """The logarithm of every seed, or of the mean."""
        return self.mapped(np.log, lambda x: 1 / x)


def of_seeds(g: np.ndarray, x: np.ndarray) -> Curve:
    """The Curve of x (seeds, generations)."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore"):
        sem = x.std(0, ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.full(x.shape[1], np.nan)
        return Curve(np.asarray(g), x, x.mean(0), sem, len(x))


class Sample(NamedTuple):
    """Means over seeds of k numbers, the covariance of those means, and Student's degrees of freedom: (k,), (k, k).

    `rows` are the seeds, (k, seeds), which tell how skewed a combination is; None where only statistics were kept.
    """

    mean: np.ndarray
    covariance: np.ndarray
    freedom: int
    rows: np.ndarray | None = None


def sample(points: list[tuple[Curve, int]]) -> Sample:
    """Curves at generations (by index), seed against seed; without seeds the numbers are taken as independent.

    A seed is the same random numbers in every cell and generation, so the covariance is what makes a difference sharp;
    taking it as 0 makes the interval of a difference too wide where a seed's luck lasts.
    """
    mean = np.array([c.mean[i] for c, i in points])
    count = min(c.count for c, _ in points)
    rows = [c.seeds[:, i] for c, i in points if c.seeds is not None]
    if len(rows) < len(points):
        covariance = np.diag([c.sem[i] ** 2 for c, i in points])
    elif count < 2:
        covariance = np.full((len(points),) * 2, np.nan)
    else:
        covariance = np.atleast_2d(np.cov(np.stack(rows))) / count
        return Sample(mean, covariance, count - 1, np.stack(rows))
    return Sample(mean, covariance, count - 1)


class Interval(NamedTuple):
    """A value and an interval; NaN ends where there is none."""

    value: float
    low: float
    high: float


def _chance(found: Sample, weights: np.ndarray, miss: float) -> tuple[float, float]:
    """How many standard errors a weighted sum of the means may lie below, and above, what it estimates."""
    from scipy.stats import t

    if found.freedom < 1:
        return float("nan"), float("nan")
    if found.rows is None or not np.isfinite(found.rows).all():
        z = float(t.isf(miss / 2, found.freedom))
        return z, z
    below, above = limits((weights @ found.rows)[:, None], miss)
    return float(below[0]), float(above[0])


def contrast(found: Sample, weights, miss: float = 0.05) -> Interval:
    """sum w_k m_k, by Student's t, and with what skewness adds to it (`limits`); the interval misses at the rate `miss`."""
    w = np.asarray(weights, np.float64)
    value = float(w @ found.mean)
    below, above = _chance(found, w, miss)
    # a sum of squares that cancels may end a rounding below 0
    error = max(float(w @ found.covariance @ w), 0.0) ** 0.5 if found.freedom > 0 else np.nan
    return Interval(value, value - above * error, value + below * error)


def log_contrast(found: Sample, weights, miss: float = 0.05) -> Interval:
    """sum w_k log m_k, its error by the slope of the logarithm at the means (the delta method)."""
    slopes = 1 / found.mean
    rows = None if found.rows is None else found.rows * slopes[:, None]
    logs = Sample(np.log(found.mean), found.covariance * np.outer(slopes, slopes), found.freedom, rows)
    return contrast(logs, weights, miss)


def quotient(found: Sample, above, below, miss: float = 0.05) -> Interval | None:
    """(a . m) / (b . m), by Fieller's theorem: every q at which a . m - q b . m is 0 by chance; None if unbounded.

    It is unbounded where the denominator is not told from 0.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    top, bottom = float(a @ found.mean), float(b @ found.mean)
    q = top / bottom if bottom else 0.0
    square = max(_chance(found, a - q * b, miss)) ** 2
    vaa, vab, vbb = (square * float(x @ found.covariance @ y) for x, y in ((a, a), (a, b), (b, b)))
    scale = bottom**2 - vbb
    if not scale > 0:
        return None
    middle, last = top * bottom - vab, top**2 - vaa
    root = max(middle**2 - scale * last, 0.0) ** 0.5
    return Interval(top / bottom, (middle - root) / scale, (middle + root) / scale)


_POWERS = np.linspace(-4, 8, 2400)  # without 0, where the quotient below is 0/0


def power(share: float, g: tuple[float, float, float]) -> float:
    """The p at which (g3^p - g2^p)/(g3^p - g1^p) is `share`: by how much of a rise from g1 to g3 came after g2.

    It is the power of the growth a + b (g^p - 1)/p: 1 is linear, 0 is log g, and below 0 it is bounded by a - b/p. The share
    rises with p, from 0 to 1; +-inf beyond +-4 and 8. Derived here: Box and Cox's family of powers, by three generations.
    """
    shares = np.expm1(_POWERS * np.log(g[1] / g[2])) / np.expm1(_POWERS * np.log(g[0] / g[2]))
    return float(np.interp(share, shares, _POWERS, left=-np.inf, right=np.inf))


class Growth(NamedTuple):
    """How a curve grows: the power of g with its interval, the rise a generation over the second half, and in words.

    `p` is None where no rise is told from the noise. `words` names the forms that the interval holds.
    """

    p: Interval | None
    rate: Interval
    words: str


def growth(curve: Curve, miss: float = 0.05) -> Growth | None:
    """Whether a curve grows like a constant, log g, g or faster, from how much of its rise came late; None below 4 generations.

    The power p is read off the share of the rise from generation 1 to the last, T, that came after T/2. Where the same
    statistic from T/4 on contradicts it (the intervals do not meet), the start is no guide to the rest, and T/4 is used.
    Its interval is Fieller's, over seeds. Laws it is tested on: error g (p = 1), log g (0), 1 + 1/4 + ... + 1/g^2 (-1).
    """
    last = len(curve.g) - 1
    seen = np.flatnonzero(np.isfinite(curve.mean))
    if len(seen) < 4 or seen[-1] != last or seen[0] != 0:
        return None
    near = [int(seen[np.abs(curve.g[seen] - curve.g[last] / k).argmin()]) for k in (2, 4)]
    half, quarter = near
    found = sample([(curve, 0), (curve, half), (curve, last)])
    span = float(curve.g[last] - curve.g[half])
    rate = contrast(found, np.array([0, -1, 1]) / span, miss)
    rise = contrast(found, (-1, 0, 1), miss)
    if rise.value == 0 and not np.any(found.covariance != 0):
        return Growth(Interval(-np.inf, -np.inf, -np.inf), rate, "constant")
    if found.freedom < 1:
        return Growth(None, rate, "one seed")
    if rise.high < 0:
        return Growth(Interval(-np.inf, -np.inf, -np.inf), rate, "falls")
    p = _power(curve, 0, half, last, miss)
    late = _power(curve, quarter, half, last, miss) if 0 < quarter < half else None
    if p is not None and late is not None and (late.low > p.high or late.high < p.low):
        since = "" if _form(late) == _form(p) else f" from generation {curve.g[quarter]:g} on"
        return Growth(late, rate, _form(late) + since)
    return Growth(p, rate, "too noisy to tell" if p is None else _form(p))


def _power(curve: Curve, first: int, half: int, last: int, miss: float) -> Interval | None:
    found = sample([(curve, first), (curve, half), (curve, last)])
    rise = contrast(found, (-1, 0, 1), miss)
    share = quotient(found, (0, -1, 1), (-1, 0, 1), miss)
    if share is None or not rise.value > 0:
        return None
    g = (float(curve.g[first]), float(curve.g[half]), float(curve.g[last]))
    return Interval(*(power(s, g) for s in share))


def _form(p: Interval) -> str:
    """The forms of growth that an interval of powers holds, in words; a law of finite samples may be a tenth off its power."""
    if p.high < 0:
        return "bounded"
    holds = (p.low <= -0.5, p.low <= 0.1, p.low <= 1.1 and p.high >= 0.9, p.high >= 1.5)
    fits = [name for name, held in zip(_FORMS, holds, strict=True) if held]
    if not fits:
        return "between log g and linear" if p.high < 1 else "a little faster than linear"
    if len(fits) == len(_FORMS):
        return "any form fits"
    return fits[0] if len(fits) < 2 else f"{fits[0]} {'or' if len(fits) < 3 else 'to'} {fits[-1]}"


_FORMS = ("bounded", "log g", "linear", "faster than linear")
