"""Sufficient statistics that are a weighted mean: one memory for every family that is refitted through one."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mcloop.types import Memory, additive


class Mean(NamedTuple):
    """A sample through its mean: `size` and `real` weights (*cells,), `mean` (*cells,) or (d, *cells)."""

    size: jax.Array
    real: jax.Array
    mean: jax.Array


def share(a: jax.Array, b: jax.Array) -> jax.Array:
    """b's part of the weight a + b, 0 where nothing weighs anything."""
    return b / jnp.maximum(a + b, jnp.finfo(jnp.float32).tiny)


def memory() -> Memory:
    """The union of two samples is the weighted mean of their means."""

    def merge(a: Mean, b: Mean) -> Mean:
        return Mean(a.size + b.size, a.real + b.real, a.mean + share(a.size, b.size) * (b.mean - a.mean))

    return additive(merge, lambda a, w: Mean(a.size * w, a.real * w, a.mean), lambda a: a.size, lambda a: a.real)
