"""Precision, recall, density and coverage: how much of the fake is realistic, and how much of the real is reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mcloop.checks import whole
from mcloop.metrics.estimate import pair

_ROWS = 128  # distances of so many rows to all others at a time; a count of them fits a byte


class Prdc(NamedTuple):
    """The four scores. Balls are about the points of one set, through their k-th nearest neighbour in it.

    Attributes:
        precision: share of fake points inside some real point's ball, 0 to 1.
        recall: share of real points inside some fake point's ball, 0 to 1.
        density: real balls that a fake point is in, on average, over k: 1 for equal distributions, and may exceed it.
        coverage: share of real points whose ball holds a fake one, 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real, fake, k: int = 3) -> Prdc:
    """Improved precision and recall (Kynkäänniemi et al. 1904.06991), density and coverage (Naeem et al. 2002.09797).

    Balls are open: a set with more than k copies of a point has empty balls there, and reaches nothing with them. All four
    depend on both counts, so compare only values at equal ones. Copies are exact copies down to the resolution of float32:
    distances below 1e-6 of the points' own size about the real mean count as zero. NumPy, float64, in chunks.

    Args:
        real, fake: features, shapes (n, d) and (m, d).
        k: neighbours that a ball reaches to (the point itself not counted), 1 to min(n, m) - 2.

    Raises:
        InputError: features that do not fit together, or too few for k.
    """
    real, fake = pair(real, fake, ("real", "fake"), 3)
    k = whole("k", k, 1, min(len(real), len(fake)) - 2)
    centre = _centre(real)
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    inside = np.zeros(len(fake), np.int64)
    reached, covered = 0, 0
    for rows, d2 in _squares(real, fake):
        radii = real_radii[rows]
        inside += (d2 < radii[:, None]).sum(0, dtype=np.uint8)
        reached += (d2 < fake_radii).any(1).sum()
        covered += (d2.min(1) < radii).sum()
    return Prdc(
        precision=float((inside > 0).mean()),
        recall=float(reached / len(real)),
        density=float(inside.mean() / k),
        coverage=float(covered / len(real)),
    )


def _centre(x):
    """The mean of x, to a power of two near its spread.

    Distances are differences of squares: the smaller these, the more digits are left. Subtracting a round number is
    exact, so that whole numbers (pixels) keep exact distances, and balls that end at another point exclude it.
    """
    spread = x.std(0).max()
    grain = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 1.0
    return grain * np.rint(x.mean(0) / grain)


def _radii(x, k):
    """Squared distance of each row to its k-th nearest other row, (n,)."""
    # the nearest of all is the row itself, at zero
    return np.concatenate([np.partition(d2, k, axis=1)[:, k] for _, d2 in _squares(x, x)])


def _squares(x, y) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances of some rows of x to all of y: (which rows, (rows, m))."""
    size_x, size_y = (x**2).sum(1), (y**2).sum(1)
    left = np.column_stack([x, size_x, np.ones(len(x))])  # |x|^2 - 2 x.y + |y|^2 as one product
    right = np.column_stack([-2 * y, np.ones(len(y)), size_y]).T
    for i in range(0, len(x), _ROWS):
        rows = slice(i, min(i + _ROWS, len(x)))
        d2 = left[rows] @ right
        np.putmask(d2, d2 < 1e-12 * size_x[rows, None], 0.0)
        yield rows, d2
