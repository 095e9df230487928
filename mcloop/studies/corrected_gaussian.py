"""A Gaussian that keeps its real points, with the mixture corrector: the exact law of its mean, for several configs."""

from __future__ import annotations

import numpy as np

from mcloop import laws


def mean_sq_error(g, lam: float, gamma: float, n: int, d: int) -> dict[str, np.ndarray]:
    """The law (B5) of the squared error of the mean under augment(lam) and the mixture corrector.

    Args:
        g: fits, counted from 1, any shape.
        lam: synthetic : real ratio; at infinity the law does not hold and nothing is returned.
        gamma: strength of the correction.
        n, d: real points, dimensions.

    Returns:
        "mean_sq_error" -> its expectation, as g.
    """
    if np.isinf(lam):
        return {}
    m = np.floor(lam * n * (1 + 2e-7) + 1e-6)  # as the loop counts them
    if m == 0:
        return {"mean_sq_error": np.full(np.shape(g), d / n)}
    return {"mean_sq_error": d * np.asarray(laws.LAWS["B5"].value(g, n=n, m=m, gamma=gamma))}
