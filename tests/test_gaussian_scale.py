"""The distance of two Gaussians keeps its digits where they all but agree."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from mcloop.metrics.wasserstein import gaussian_w2


def w2(root, other):
    """By its definition, in float64."""
    a, b = (np.asarray(r, np.float64) @ np.asarray(r, np.float64).T for r in (root, other))
    half = scipy.linalg.sqrtm(a)
    return np.sqrt(max(np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(half @ b @ half)).real, 0))


@pytest.mark.parametrize("d", [2, 3])
def test_w2_keeps_its_digits_near_zero(d):
    rng = np.random.default_rng(d)
    for size in (1.0, 1e-2, 1e-4):
        root = np.tril(0.3 * rng.normal(size=(d, d)), -1) + np.diag(rng.uniform(0.5, 2, d))
        other = (root + size * np.tril(rng.normal(size=(d, d)))).astype(np.float32)
        other[np.diag_indices(d)] = np.abs(other[np.diag_indices(d)])
        root = root.astype(np.float32)
        for first, second in ((root, other), (other, root)):
            found = gaussian_w2("full", jnp.float32(0), jnp.asarray(first), jnp.asarray(second), d)
            np.testing.assert_allclose(found, w2(first, second), rtol=5e-3)
    for x in (root, np.zeros((d, d), np.float32)):
        np.testing.assert_allclose(gaussian_w2("full", jnp.float32(0), jnp.asarray(x), jnp.asarray(x), d), 0, atol=2e-6)
