"""Kernel distance between features (KID): unbiased, so that values at different counts can be compared."""

from __future__ import annotations

import jax
import numpy as np

from mcloop.checks import whole
from mcloop.metrics.estimate import Estimate, pair, permutation


def kid(a, b, blocks: int = 10, key=None) -> Estimate:
    """Squared maximum mean discrepancy under the kernel (x.y / d + 1)^3 (Binkowski et al. 1801.01401, sec. 4).

    Both samples are shuffled and cut into disjoint blocks; the unbiased estimate (eq. 4: no point is compared with itself)
    is averaged over them, and since blocks are independent their scatter is the standard error. The mean is zero for equal
    distributions, so values below zero occur. NumPy, float64.

    Args:
        a, b: features, shapes (n, d) and (m, d).
        blocks: 2 to min(n, m) / 2; fewer blocks make a sharper value with a vaguer error.
        key: a JAX key for the shuffle; None is `jax.random.key(0)`.

    Returns:
        value and standard error, in units of the kernel (sixth powers of the features, for large ones).

    Raises:
        InputError: features that do not fit together, or too few for the blocks.
    """
    a, b = pair(a, b, ("a", "b"), 4)
    blocks = whole("blocks", blocks, 2, min(len(a), len(b)) // 2)
    key = jax.random.key(0) if key is None else key
    rows_a, rows_b = (permutation(jax.random.fold_in(key, i), len(x)) for i, x in enumerate((a, b)))
    size_a, size_b = len(a) // blocks, len(b) // blocks
    values = np.array(
        [mmd2(a[rows_a[i * size_a : (i + 1) * size_a]], b[rows_b[i * size_b : (i + 1) * size_b]]) for i in range(blocks)]
    )
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(blocks)))


def mmd2(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased squared discrepancy of all of a (n, d) against all of b (m, d), float64; memory grows as (n + m)^2."""
    n, m = len(a), len(b)
    k_aa, k_bb, k_ab = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    within = (k_aa.sum() - np.trace(k_aa)) / (n * (n - 1)) + (k_bb.sum() - np.trace(k_bb)) / (m * (m - 1))
    return float(within - 2 * k_ab.mean())


def _kernel(x, y):
    inner = x @ y.T / x.shape[1] + 1
    return inner * inner * inner  # a power of a float array takes a logarithm an entry
