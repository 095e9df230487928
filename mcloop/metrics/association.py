"""How the columns of a mixed table depend on one another, two by two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def associations(numbers: np.ndarray, categories: Sequence[np.ndarray]) -> np.ndarray:
    """Measures of dependence of every two columns, numbers first, on the rows where both are there.

    Spearman's rank correlation of two columns of numbers, -1 to 1; the correlation ratio eta of a category and numbers, 0
    to 1 (its square is the share of the variance between levels); Cramer's V of two categories, with Bergsma's (2013)
    correction for its bias, 0 to 1. Zero where one of the two does not vary, or with fewer than three rows.

    Args:
        numbers: (n, p) float64, NaN where missing.
        categories: codes (n,), negative where missing.

    Returns:
        (p + q, p + q), symmetric, its diagonal 1.
    """
    p, q = numbers.shape[1], len(categories)
    found = np.eye(p + q)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    if p > 1:
        found[:p, :p] = spearman(numbers)
    for j in range(q):
        if p:
            found[p + j, :p] = found[:p, p + j] = correlation_ratio(categories[j], numbers)
        for i in range(j):
            found[p + i, p + j] = found[p + j, p + i] = cramers_v(categories[i], categories[j])
    return found


def spearman(numbers: np.ndarray) -> np.ndarray:
    """Rank correlations of columns (n, p), NaN where missing: (p, p), its diagonal 1."""
    if np.isnan(numbers).any():
        rho = pd.DataFrame(numbers).corr(method="spearman", min_periods=3).to_numpy(copy=True)
    else:
        ranks = pd.DataFrame(numbers).rank().to_numpy()
        ranks = ranks - ranks.mean(0)
        spread = np.sqrt((ranks**2).sum(0))
        rho = ranks.T @ ranks / np.where(spread > 0, spread, 1) / np.where(spread > 0, spread, 1)[:, None]
        rho *= len(ranks) >= 3
    rho = np.clip(np.nan_to_num(rho), -1, 1)
    np.fill_diagonal(rho, 1)
    return rho


def correlation_ratio(codes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Eta of a category, codes (n,), with each column of numbers (n, p): (p,)."""
    rows = codes >= 0
    codes, x = np.unique(codes[rows], return_inverse=True)[1], numbers[rows]
    if not len(codes):
        return np.zeros(numbers.shape[1])
    there = np.isfinite(x)
    count = there.sum(0)
    filled = np.where(there, x, 0.0)
    # to a size about 1, so that squares neither overflow nor vanish
    size = np.abs(filled).max(0)
    filled = filled / np.where(size > 0, size, 1)
    filled = np.where(there, filled - filled.sum(0) / np.maximum(count, 1), 0.0)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    sums = np.add.reduceat(filled[order], starts, axis=0)
    many = np.add.reduceat(there[order].astype(np.float64), starts, axis=0)
    between, total = (sums**2 / np.maximum(many, 1)).sum(0), (filled**2).sum(0)
    varied = (total > 1e-24 * count) & (count >= 3)
    return np.sqrt(np.clip(np.where(varied, between / np.where(varied, total, 1), 0.0), 0, 1))


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramer's V of two categories, codes (n,), with Bergsma's correction."""
    rows = (a >= 0) & (b >= 0)
    n = int(rows.sum())
    if n < 3:
        return 0.0
    a, b = (np.unique(codes[rows], return_inverse=True)[1] for codes in (a, b))
    r, k = int(a.max()) + 1, int(b.max()) + 1
    if min(r, k) < 2:
        return 0.0
    cells, counts = np.unique(a * k + b, return_counts=True)
    expected = np.bincount(a)[cells // k].astype(np.float64) * np.bincount(b)[cells % k] / n
    # chi-square over n: the sum of (count - expected)^2 / expected over all cells, those without a row included
    phi = ((counts**2 / expected).sum() - n) / n
    phi = max(0.0, phi - (k - 1) * (r - 1) / (n - 1))
    least = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, phi / least))) if least > 1e-12 else 0.0
