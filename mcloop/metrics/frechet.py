"""Fréchet distance between Gaussians fitted to features (FID), what it is at infinitely many samples, and its floor.

All in NumPy, float64. A value is a squared distance, in squared units of the features; name the features, the counts
and the reference split beside it, since none of them cancels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mcloop.checks import whole
from mcloop.errors import InputError
from mcloop.metrics.estimate import features, pair, permutation


def frechet_distance(a, b) -> float:
    """Squared Fréchet distance between the Gaussians of two samples (Heusel et al. 1706.08500, eq. 6).

    |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^1/2 with unbiased covariances C = R^T R / (n - 1), R the triangular
    factor of the centred sample. The last trace is the sum of the singular values of R_a R_b^T, so that no covariance is
    formed and no small root is squared: exact for n < d, for duplicates, and for a sample against itself.

    Args:
        a, b: features, shapes (n, d) and (m, d), n and m >= 2.

    Raises:
        InputError: another shape, or a value that is not finite.
    """
    a, b = pair(a, b, ("a", "b"))
    return _distance(b.mean(0) - a.mean(0), _factor(a - a.mean(0)), _factor(b - b.mean(0)))


def from_moments(mean_a, covariance_a, mean_b, covariance_b) -> float:
    """The same from means (d,) and covariances (d, d), symmetric and positive semi-definite, of any rank.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a covariance that is not symmetric or has
            eigenvalues below -1e-6 of the largest.
    """
    means = [np.asarray(mean, np.float64) for mean in (mean_a, mean_b)]
    roots = [_root(name, c) for name, c in (("covariance_a", covariance_a), ("covariance_b", covariance_b))]
    shapes = [x.shape for x in (*means, *roots)]
    if means[0].ndim != 1 or shapes[1] != shapes[0] or {*shapes[2:]} != {shapes[0] * 2}:
        raise InputError(f"means and covariances must have shapes (d,) and (d, d); the four have {shapes}.")
    if not all(np.isfinite(mean).all() for mean in means):
        raise InputError("means must be finite; one of the two is not.")
    return _distance(means[1] - means[0], *roots)


def floor(half_1, half_2) -> float:
    """The distance between two halves of the real data: what a perfect model scores at these counts.

    FID is biased upwards by about b / n; a loop's value is to be read against this one, not against zero.

    Args:
        half_1: real features in the role of the model's, (n, d), as many as the model is judged by.
        half_2: the reference, (n, d).

    Raises:
        InputError: unequal counts, for which the value would be the floor of neither.
    """
    half_1, half_2 = pair(half_1, half_2, ("half_1", "half_2"))
    if len(half_1) != len(half_2):
        raise InputError(f"half_1 and half_2 must have equally many rows, not {len(half_1)} and {len(half_2)}.")
    return frechet_distance(half_1, half_2)


class Extrapolation(NamedTuple):
    """FID extrapolated to infinitely many samples.

    Attributes:
        value: the intercept of the line of FID against 1 / N, in squared units of the features.
        error: its standard error over the model's samples (the reference is held fixed).
        slope: of the line: the bias at N samples is slope / N.
        sizes: N, shape (k,).
        values: mean FID of the disjoint subsets of each size, shape (k,).
    """

    value: float
    error: float
    slope: float
    sizes: np.ndarray
    values: np.ndarray


def extrapolated(model, reference, sizes=None, key=None, groups: int = 16) -> Extrapolation:
    """FID without the bias of a finite sample: the line of FID against 1/N at 1/N = 0 (Chong & Forsyth 1911.07023).

    The sample is put into the order that `key` draws and cut into disjoint subsets of N rows, so that every N uses all
    rows and the intercept is sharper than from one subset each. The standard error is the delete-a-group jackknife's, as
    the residuals of the line, which share their samples, would understate it. The bias of the finite reference stays.

    Args:
        model: features of generated samples, (n, d).
        reference: features of real samples, (m, d).
        sizes: at least two different N, whole numbers from 2 groups to n; None is n, n/2, n/3, n/4 and n/5. N should
            exceed d, where 1/N^2 matters little.
        key: a JAX key; None is the order that `jax.random.key(0)` would draw.
        groups: of the jackknife, 4 to n / 10.

    Raises:
        InputError: features that do not fit together, or sizes that are not as above.
    """
    x, y = pair(model, reference, ("model", "reference"), 40)
    n, groups = len(x), whole("groups", groups, 4, len(x) // 10)
    sizes = [n // m for m in range(1, 6)] if sizes is None else [whole("sizes", s, 2 * groups, n) for s in np.ravel(sizes)]
    if len(set(sizes)) < 2:
        raise InputError(f"sizes must have at least two different numbers, not {sizes}.")
    order = permutation(jax.random.key(0) if key is None else key, n)
    centre = y.mean(0)
    x, y = x[order] - centre, y - centre
    root = _factor(y)
    mean, inverse = (np.array(both) for both in zip(*(_by_size(x, root, size, groups) for size in sizes), strict=True))
    lines = np.array([np.polyfit(at, values, 1) for at, values in zip(inverse.T, mean.T, strict=True)])
    error = np.sqrt((groups - 1) * lines[1:, 1].var())
    return Extrapolation(float(lines[0, 1]), float(error), float(lines[0, 0]), np.array(sizes), mean[:, 0])


def _by_size(x, root, size, groups):
    """Of the disjoint subsets of `size` rows, the mean distance to N(0, root root^T), and the mean of 1 / rows.

    Each has shape (1 + groups,): of all rows, then without the rows i, i + groups, i + 2 groups, ... of x. Moments are
    sums, so leaving some out is a difference; the trace of the root needs root^T C root only.
    """
    starts = range(0, len(x) - size + 1, size)
    distance, inverse = np.zeros(1 + groups), np.zeros(1 + groups)
    for start in starts:
        rows = [x[start + (i - start) % groups : start + size : groups] for i in range(groups)]
        images = [part @ root for part in rows]
        count = _with_and_without([len(part) for part in rows])
        mean = _with_and_without([part.sum(0) for part in rows]) / count[:, None]
        square = _with_and_without([(part**2).sum() for part in rows])
        shift = _with_and_without([part.sum(0) for part in images]) / count[:, None]
        cross = _with_and_without([part.T @ part for part in images]) - np.einsum("g,gi,gj->gij", count, shift, shift)
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(cross / (count - 1)[:, None, None]), 0)).sum(1)
        gap = (mean**2).sum(1)
        distance += gap + (square - count * gap) / (count - 1) + (root**2).sum() - 2 * roots
        inverse += 1 / count
    return distance / len(starts), inverse / len(starts)


def _with_and_without(parts):
    """The sum of the parts, then the sums without each of them, (1 + groups, ...)."""
    parts = np.array(parts, np.float64)
    total = parts.sum(0)
    return np.concatenate([total[None], total - parts])


def _distance(gap, root_a, root_b) -> float:
    """From the gap of the means and roots with C = root root^T: tr (C_a C_b)^1/2 is the nuclear norm of root_a^T root_b."""
    nuclear = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    return float(gap @ gap + max((root_a**2).sum() + (root_b**2).sum() - 2 * nuclear, 0.0))


def _factor(x):
    """A root (d, min(n, d)) of the covariance of centred rows x (n, d)."""
    return np.asarray(np.linalg.qr(x, mode="r")).T / np.sqrt(len(x) - 1)


def _root(name, covariance):
    """The symmetric root of a covariance, by its eigenvectors; rounding's negative eigenvalues are zero."""
    c = features(name, covariance, 1)
    scale = np.abs(c).max()
    if c.shape[0] != c.shape[1] or np.abs(c - c.T).max() > 1e-6 * scale:
        raise InputError(f"{name} must be symmetric; it has shape {c.shape} and is not.")
    eigenvalues, vectors = np.linalg.eigh((c + c.T) / 2)
    if eigenvalues[0] < -1e-6 * scale:
        raise InputError(f"{name} must be positive semi-definite; its smallest eigenvalue is {eigenvalues[0]:.3g}.")
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
