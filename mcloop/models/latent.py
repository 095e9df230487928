"""Correlations of the normal numbers behind the columns of a table, from the columns' scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcloop.models.marginals import TERMS, Scores

_HALVINGS = 30  # of the interval (-1, 1): far below any sampling error
_LEAST = 1e-6  # eigenvalue of a correlation matrix
_TURNS = 30  # of the alternating projections, at most
_CLOSE = 1e-4  # of the diagonal to 1, at which they end


def latent_correlation(scores: Sequence[Scores], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The correlations under which normal numbers, cut as the columns are, would have scores with the observed covariances.

    The covariance of two scores is the sum of a_k b_k rho^k over their Hermite series (Mehler's formula; Cario & Nelson
    1997, NORTA), which rises with rho and is inverted: without that, the dependence of columns with few levels or a heap
    would be lost in part. A pair is compared on the rows where both columns are there.

    Args:
        scores: one a latent number.
        rows: which to use.

    Returns:
        Correlations (d, d), not yet a positive definite matrix; and the rows that each rests on, (d, d), 0 where one of
        the two does not vary.
    """
    there = np.column_stack([one.there[rows] for one in scores]).astype(np.float32)
    values = np.column_stack([one.values[rows] for one in scores]).astype(np.float32) * there
    count = (there.T @ there).astype(np.float64)
    total = (values.T @ there).astype(np.float64)  # of i where j is there
    some = np.maximum(count, 1)
    covariance = (values.T @ values) / some - total * total.T / some**2
    series = np.array([one.series for one in scores])
    count = np.where((series[:, 0] > 0)[:, None] & (series[:, 0] > 0), count, 0.0)
    rho = np.clip(covariance, -1, 1)
    heaped = np.array([one.heaped for one in scores])
    i, j = np.nonzero(np.triu(heaped[:, None] | heaped, 1) & (count > 0))
    if len(i):
        rho[i, j] = rho[j, i] = _invert(series[i], series[j], covariance[i, j])
    rho[count == 0] = 0
    np.fill_diagonal(rho, 1)
    return rho, count


def _invert(a: np.ndarray, b: np.ndarray, target: np.ndarray) -> np.ndarray:
    product = (a * b).T  # (TERMS, pairs)
    low, high = -np.ones(len(target)), np.ones(len(target))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = np.zeros(len(target))
        for k in range(TERMS - 1, -1, -1):
            found = (found + product[k]) * middle
        low, high = np.where(found < target, middle, low), np.where(found < target, high, middle)
    return (low + high) / 2


def shrunk(rho: np.ndarray, count: np.ndarray, prior: np.ndarray, weight: float) -> np.ndarray:
    """Each correlation drawn to the prior's as if that rested on `weight` rows."""
    return (count * rho + weight * prior) / (count + weight)


def factor(rho: np.ndarray) -> np.ndarray:
    """F with F F^T the correlation matrix nearest to `rho` (Higham 2002), its eigenvalues at least about 1e-6: (d, d)."""
    projected = (rho + rho.T) / 2
    np.fill_diagonal(projected, 1)
    step = np.zeros_like(rho)
    values, vectors = np.linalg.eigh(projected)
    if values[0] < -_LEAST:
        for _ in range(_TURNS):
            cone = (vectors * np.maximum(values, 0)) @ vectors.T
            step, projected = cone - (projected - step), cone.copy()
            np.fill_diagonal(projected, 1)
            if np.abs(np.diagonal(cone) - 1).max() < _CLOSE:
                break
            values, vectors = np.linalg.eigh(projected - step)
        values, vectors = np.linalg.eigh(projected)
    root = vectors * np.sqrt(np.maximum(values, _LEAST))
    return root / np.sqrt((root**2).sum(1, keepdims=True))
