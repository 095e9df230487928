"""How many standard errors are more than chance: a limit that pays for many looks, for few seeds and for skewed ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

ALARM = 0.01  # the chance at most that a report's verdict on theory is a false alarm
MISS = 0.02  # and of each other kind of verdict: what is drawn of the arms, of the profile, of the curves
LEAST = 20  # seeds below which nothing is known of the shape of their distribution
FAR = 10.0  # standard errors: where a limit lies beyond this, the seeds are too few for a tail like theirs
SURE = 3.0  # standard errors (of about 1/sqrt(seeds)) by which a shape read off the seeds is lengthened for a verdict on theory


def looked(rate: float, looks: int) -> float:
    """What each of so many looks may miss, so that all together miss at most at this rate (Bonferroni)."""
    return rate / max(looks, 1)


def limits(x: np.ndarray, miss: float, sure: float = 1.0, tails: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """How far a mean over seeds lies below, and above, its expectation by chance, in standard errors: (k,), (k,).

    Student's t with (seeds - 1) degrees of freedom, and from 20 seeds on what skewness adds to it. By the first term of the
    Cornish-Fisher expansion of Student's statistic, a skewness s moves the quantile z by s (1 + 2 z^2)/(6 sqrt(seeds)) towards
    the thin side of the distribution: seeds that have not seen a long tail have a mean too low, and a scatter too small. The
    skewness of the seeds is no guide, since it lacks that same tail. So the shape is read off where seeds are many: the
    log-normal (of any location and scale, so a shift changes nothing) whose deciles, or whose skewness, or (`tails`) whose
    excess over the highest tenth or fiftieth are theirs, whichever is longest, and longer by `sure` standard errors. Below 20
    seeds the limit is Student's, which holds for numbers that are symmetric about their mean, as differences of equal arms are.

    Args:
        x: (seeds, k).
        miss: how often one of the two limits may be passed.
        sure: how far beyond the seeds' own shape to go.
        tails: whether a long tail counts by itself; differences of like things have two, which cancel.
    """
    x = np.asarray(x, np.float64)
    z = _students(len(x), miss)
    if len(x) < LEAST:
        return np.full(x.shape[1], z), np.full(x.shape[1], z)
    return _both(_shape(x, sure, tails), _shape(-x, sure, tails), z, len(x))


def limits_of_statistics(kept: Mapping[str, np.ndarray], count: int, miss: float, sure: float = 1.0):
    """The same where only statistics over the seeds were kept: q05, q95 and the median or the mean, or the mean and sem."""
    z = _students(count, miss)
    mean = np.asarray(kept["mean"], np.float64)
    if count < LEAST:
        return np.full(mean.shape, z), np.full(mean.shape, z)
    if "q05" in kept and "q95" in kept:
        middle = kept.get("median", mean)
        up, down = np.asarray(kept["q95"]) - middle, np.asarray(middle) - kept["q05"]
        right, left = (_spread(a, b, 1.6449, "median" in kept) + sure / count**0.5 for a, b in ((up, down), (down, up)))
        return _both(right, left, z, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.log1p(count * (kept["sem"] / mean) ** 2))
    sigma = np.nan_to_num(sigma, nan=0.0, posinf=4.0)
    right, left = (np.where(side, sigma, 0.0) + sure / count**0.5 for side in (mean > 0, mean < 0))
    return _both(right, left, z, count)


@cache
def _students(count: int, miss: float) -> float:
    from scipy.stats import t

    return float(t.isf(miss / 2, count - 1)) if count > 1 else float("nan")


def _both(right, left, z: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A long right side moves the lower limit, a long left side the upper one."""
    return _moved(right, z, count), _moved(left, z, count)


def _moved(sigma: np.ndarray, z: float, count: int) -> np.ndarray:
    """A quantile of Student's t, moved by the skewness of a log-normal."""
    return z + _skewness(np.clip(sigma, 0.0, 4.0)) * (1 + 2 * z * z) / (6 * count**0.5)


def _shape(x: np.ndarray, sure: float, tails: bool) -> np.ndarray:
    """The sigma of the log-normal that looks like the upper side of every column, made longer by `sure` standard errors."""
    order = np.sort(x, 0)
    count = len(x)
    low, middle, high = np.quantile(order, (0.1, 0.5, 0.9), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = x - x.mean(0)
        skewness = np.nan_to_num((moved**3).mean(0) / (moved**2).mean(0) ** 1.5)
    bulk = np.maximum(_spread(high - middle, middle - low, 1.2816), np.interp(skewness, _skewness(_SIGMAS), _SIGMAS))
    found = [bulk + sure / count**0.5]
    # the tail, far out and farther: the mean logarithm of how far beyond a high quantile the seeds beyond it lie; its standard
    # error is over the root of their number, and two thirds as many of it held for seeds without a variance
    for many in {max(5, round(0.1 * count)), max(5, round(0.02 * count))} if tails else ():
        start, beyond = order[-many - 1] - middle, order[-many:] - middle
        excess = np.log(np.where(start > 0, beyond / np.where(start > 0, start, 1.0), 1.0)).mean(0)
        found.append(np.interp(excess * (1 + 2 / 3 * sure / many**0.5), _excess(many / count), _SIGMAS))
    return np.maximum.reduce(found)


def _spread(up, down, z: float, median: bool = True) -> np.ndarray:
    """The sigma of the log-normal whose quantiles at +-z lie so far from its median (or mean); 0 where one of them does not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((np.asarray(up) > 0) & (np.asarray(down) > 0), np.log(np.asarray(up) / down), 0.0)
    if median:
        return ratio / z
    sigma = np.linspace(0.01, 1.3, 130)  # beyond which a log-normal's mean lies so high that the ratio falls again
    mean = np.exp(sigma**2 / 2)
    return np.interp(ratio, np.log((np.exp(z * sigma) - mean) / (mean - np.exp(-z * sigma))), sigma)


_SIGMAS = np.linspace(0.0, 3.0, 301)


def _skewness(sigma: np.ndarray) -> np.ndarray:
    power = np.exp(sigma**2)
    return (power + 2) * np.sqrt(power - 1)


@cache
def _excess(share: float) -> np.ndarray:
    """The mean log excess of log-normals of these sigmas beyond their highest `share`."""
    from scipy.stats import norm

    z = norm.isf((np.arange(400) + 0.5) / 400 * share)
    sigma = np.maximum(_SIGMAS, 1e-3)[:, None]
    return np.log(np.expm1(sigma * z) / np.expm1(sigma * norm.isf(share))).mean(1)
