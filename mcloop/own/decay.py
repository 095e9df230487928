"""Whether a diversity falls by the same factor every generation: the geometric law, its interval, its test of fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.report.estimates import Interval

_FEWEST = 4  # generations


class Decay(NamedTuple):
    """A geometric law that was fitted to a diversity.

    Attributes:
        factor: what a generation multiplies the diversity by, with an interval of 95 %.
        half: the generation at which half of the first one's is left, by the law; its ends may be inf, which is never. It is
            the interval of the law, and not of one loop's path, which scatters about it.
        p: of the test that the logarithm is a straight line: whether its steps grow or shrink.
        bend: by how much a step changes a generation: above 0 a fall slows down.
        fits: p >= 0.05.
    """

    factor: Interval
    half: Interval
    p: float
    bend: float
    fits: bool


def decay(values: np.ndarray, errors: np.ndarray) -> Decay | None:
    """The law d_g = d_1 r^(g - 1) of the diversities of generations 1, 2, ...; None below four, or where one is not > 0.

    The logarithm of what a generation's points show is that of its law and an error known from the points. The law's own
    goes on from generation to generation: log d_(g + 1) = log d_g + log r + noise, since a refit scatters and the next one
    starts from there. Steps therefore have the covariance q 1 + D S D^T, with S the diagonal of squared errors, D differences
    and q the refits' variance, which is not known: the interval holds every log r whose likelihood at some q is not too far
    below the best. How far that is, is what makes the interval Student's t where the points' errors are 0, and the test of a
    bend likewise; where these are all there is, both are cautious.

    Args:
        values: (G,) total variances.
        errors: (G,) their standard errors.
    """
    from scipy.stats import t

    values, errors = np.asarray(values, float), np.asarray(errors, float)
    count = len(values) - 1
    if count + 1 < _FEWEST or not (np.isfinite(values).all() and (values > 0).all()):
        return None
    steps, relative = np.diff(np.log(values)), np.maximum(errors / values, 1e-9)
    differences = np.diff(np.eye(count + 1), axis=0)
    noise = differences @ np.diag(relative**2) @ differences.T
    ones, line = np.ones((count, 1)), np.column_stack([np.ones(count), np.arange(count) - (count - 1) / 2])
    straight, bent = _profile(steps, noise, ones), _profile(steps, noise, line)
    best = int(np.argmin(straight.misfit))
    slope = float(straight.coefficients[best, 0])
    # what a likelihood may lack at t, were all noise the refits'; every q that keeps within it adds its slopes
    slack = count * np.log1p(float(t.isf(0.025, count - 1)) ** 2 / (count - 1)) - (straight.misfit - straight.misfit[best])
    held = slack >= 0
    width = np.sqrt(slack[held] / straight.information[held, 0, 0])
    low = float((straight.coefficients[held, 0] - width).min())
    high = float((straight.coefficients[held, 0] + width).max())
    gain = max(straight.misfit[best] - bent.misfit.min(), 0.0)
    p = float(2 * t.sf(np.sqrt(np.expm1(gain / count) * (count - 2)), count - 2))
    bend = float(bent.coefficients[np.argmin(bent.misfit), 1])
    half = Interval(*(1 + np.log(2) / -x if x < 0 else float("inf") for x in (slope, low, high)))
    return Decay(Interval(*(float(np.exp(x)) for x in (slope, low, high))), half, p, bend, p >= 0.05)


class _Profile(NamedTuple):
    """For every q that is tried, (q,): -2 log likelihood at the best coefficients, those, and their information."""

    misfit: np.ndarray
    coefficients: np.ndarray
    information: np.ndarray


def _profile(steps: np.ndarray, noise: np.ndarray, design: np.ndarray) -> _Profile:
    scale, found = max(float(np.var(steps)), float(noise[0, 0])), []
    for q in (0.0, *(scale * np.geomspace(1e-4, 100, 121))):
        inverse = np.linalg.inv(noise + q * np.eye(len(steps)))
        information = design.T @ inverse @ design
        coefficients = np.linalg.solve(information, design.T @ inverse @ steps)
        rest = steps - design @ coefficients
        found.append((rest @ inverse @ rest - np.linalg.slogdet(inverse)[1], coefficients, information))
    return _Profile(*(np.array(column) for column in zip(*found, strict=True)))
