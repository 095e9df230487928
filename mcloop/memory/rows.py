"""How data is remembered: weighted rows here; the exact families bring sufficient statistics under the same algebra.

A row pool holds a fixed number of slots with weights, so that sizes may be traced: an empty slot weighs nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcloop import random
from mcloop.types import InputError, Memory


class Rows(NamedTuple):
    """Points kept one by one.

    Attributes:
        values: a pytree with one leading axis, each leaf (r, ..., *cells).
        weight: (r, *cells), 0 for an empty slot.
        real: (r, *cells), the part of the weight that is real data.
    """

    values: Any
    weight: jax.Array
    real: jax.Array


def rows(values: Any, count=None, *, real: bool = False, cells: tuple[int, ...] = ()) -> Rows:
    """The first `count` (default: all) of `values`, each leaf (r, ..., *cells), weighing one apiece."""
    slots = jax.tree.leaves(values)[0].shape[0]
    index = jnp.arange(slots, dtype=jnp.float32).reshape((slots,) + (1,) * len(cells))
    live = jnp.where(index < (slots if count is None else count), 1.0, 0.0)
    weight = jnp.broadcast_to(live, jnp.broadcast_shapes(live.shape, (slots,) + cells))
    return Rows(values, weight, weight if real else jnp.zeros_like(weight))


def merge_rows(a: Rows, b: Rows) -> Rows:
    """The rows of both, one after the other."""
    return jax.tree.map(_join, a, b)


def _join(x, y):
    cells = jnp.broadcast_shapes(x.shape[1:], y.shape[1:])
    return jnp.concatenate([jnp.broadcast_to(z, z.shape[:1] + cells) for z in (x, y)])


def _reserve_rows(a: Rows, blocks: int, block: int) -> Rows:
    if a.weight.shape[0] > block:
        raise InputError(
            f"capacity must hold the real data: it is {block} rows, the real data has {a.weight.shape[0]}; raise capacity."
        )
    room = blocks * block - a.weight.shape[0]
    return jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros((room,) + x.shape[1:], x.dtype)]), a)


def put(pool: jax.Array, new: jax.Array, place) -> jax.Array:
    """`new` (b, ...) written into `pool` (r, ...) from row `place`; their cells may differ and are broadcast."""
    inner = jnp.broadcast_shapes(pool.shape[1:], new.shape[1:])
    pool, new = jnp.broadcast_to(pool, pool.shape[:1] + inner), jnp.broadcast_to(new, new.shape[:1] + inner)
    return lax.dynamic_update_slice_in_dim(pool, new.astype(pool.dtype), place, 0)


def _append_rows(pool: Rows, new: Rows, place) -> Rows:
    return jax.tree.map(lambda x, y: put(x, y, place * new.weight.shape[0]), pool, new)


def subsample_rows(key: jax.Array, a: Rows, count, slots: int) -> Rows:
    """`count` (at most `slots`) of the rows that weigh anything, drawn without replacement, all equally likely."""
    race = jnp.where(a.weight > 0, random.uniform(key, (a.weight.shape[0],)), 2.0)
    chosen = jnp.argsort(race, 0)[:slots]

    def pick(x):
        index = chosen.reshape(chosen.shape[:1] + (1,) * (x.ndim - chosen.ndim) + chosen.shape[1:])
        return jnp.take_along_axis(x, index, 0)

    picked = jax.tree.map(pick, a)
    index = jnp.arange(slots, dtype=jnp.float32).reshape((slots,) + (1,) * (a.weight.ndim - 1))
    keep = (index < count).astype(a.weight.dtype)
    return picked._replace(weight=picked.weight * keep, real=picked.real * keep)


def bootstrap(key: jax.Array, a: Rows, count) -> Rows:
    """`count` new real points, drawn with replacement from those of `a`: each row weighs as often as it was drawn."""
    times = random.multinomial(key, count, a.weight)
    return Rows(a.values, times, times)


def rows_memory(capacity: int) -> Memory:
    """The row pool: draws of at most `capacity` points, pools of as many blocks of that size as a regime reserves."""
    return Memory(
        merge=merge_rows,
        scale=lambda a, w: a._replace(weight=a.weight * w, real=a.real * w),
        size=lambda a: a.weight.sum(0),
        real=lambda a: a.real.sum(0),
        reserve=lambda a, blocks: _reserve_rows(a, blocks, capacity),
        append=_append_rows,
        subsample=lambda key, a, count: subsample_rows(key, a, count, capacity),
        capacity=capacity,
    )
