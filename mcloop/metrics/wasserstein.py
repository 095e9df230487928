"""Wasserstein distances in closed form."""

from __future__ import annotations

import jax.numpy as jnp


def gaussian_w2(covariance: str, mean_gap, root, other, d: int):
    """W2 between two Gaussians from the roots of their covariances, over trailing cells.

    W2^2 = |gap|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2, and the last trace is the sum of the singular values of
    root^T other (Dowson & Landau 1982), which never squares a small root.

    Args:
        covariance: "full" (roots (d, d, *cells)), "diagonal" ((d, *cells)) or "isotropic" ((1, *cells)).
        mean_gap: squared distance of the means, (*cells,).
        d: dimension.

    Returns:
        The distance, in the data's units, (*cells,).
    """
    if covariance != "full":
        return jnp.sqrt(mean_gap + (d / root.shape[0]) * ((root - other) ** 2).sum(0))
    if d == 1:
        return jnp.sqrt(mean_gap + (root[0, 0] - other[0, 0]) ** 2)
    if d == 2:
        cross = [[sum(root[k, i] * other[k, j] for k in range(2)) for j in range(2)] for i in range(2)]
        traces = sum(x[i, j] ** 2 for x in (root, other) for i in range(2) for j in range(2))
        square = sum(c**2 for row in cross for c in row)
        nuclear = jnp.sqrt(square + 2 * jnp.abs(cross[0][0] * cross[1][1] - cross[0][1] * cross[1][0]))
    else:
        traces = (root**2).sum((0, 1)) + (other**2).sum((0, 1))
        cross = jnp.einsum("ki...,kj...->...ij", root, other)
        nuclear = jnp.linalg.svd(cross, compute_uv=False).sum(-1)
    return jnp.sqrt(mean_gap + jnp.maximum(traces - 2 * nuclear, 0.0))
