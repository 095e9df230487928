"""Drivers: the compiled loop over generations. Nothing else in the library jits; `sweep` runs grids of what is here."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from mcloop import random
from mcloop.types import InputError, Loop, State


def trajectory(loop: Loop, key: jax.Array, real, generations: int, see=lambda info: info) -> tuple[State, dict]:
    """`generations` fits as one scan, uncompiled: the final state and what was seen, each leaf (generations, *cells).

    Args:
        loop: the loop; `key` may carry cell axes if it is batched.
        real: what the loop starts from (see `make_loop`).
        generations: fits in all; generation 1 is the fit on real data.
        see: info -> what is kept of it, applied inside the scan (a reduction, or fewer variables).
    """
    state = loop.init(key, real, generations)
    first = loop.measure(state)
    state = _settle(loop, key, state)

    def body(state, _):
        state, info = loop.generation(key, state)
        return state, see(info)

    final, rest = lax.scan(body, state, None, length=generations - 1)
    shapes = jax.eval_shape(lambda s: loop.generation(key, s)[1], state)
    complete = {name: jnp.broadcast_to(first.get(name, jnp.nan), s.shape).astype(s.dtype) for name, s in shapes.items()}
    return final, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), see(complete), rest)


def _settle(loop: Loop, key, state: State) -> State:
    """The state in the shapes and types that a generation returns, as a scan's carry must be.

    Before the first generation a size is a scalar that every cell shares; after it, lam or n may have given each its own.
    """
    for _ in range(3):
        shapes = jax.eval_shape(lambda s: loop.generation(key, s)[0], state)
        settled = jax.tree.map(_shaped, state, shapes)
        if jax.tree.all(jax.tree.map(lambda x, s: x.shape == s.shape and x.dtype == s.dtype, state, shapes)):
            break
        state = settled
    return state


def _shaped(x, like):
    """x in the shape and type of `like`: broadcast, or (parameters that are rows) with empty rows for those to come."""
    if jnp.ndim(x) == len(like.shape) and 1 < (jnp.shape(x) or (0,))[0] < like.shape[0]:
        x = jnp.concatenate([x, jnp.zeros((like.shape[0] - x.shape[0], *x.shape[1:]), x.dtype)])
    return jnp.broadcast_to(x, like.shape).astype(like.dtype)


def scan(loop: Loop, key: jax.Array, real=None, generations: int = 100) -> tuple[State, dict]:
    """Run a loop, compiled: `state, infos = scan(loop, key, real, generations=100)`.

    Args:
        loop: from `make_loop`.
        key: one key, or an array of keys (replicas; each gets the same numbers as it would alone).
        real: an array (n, d), a known truth, or None for the model's standard truth.
        generations: fits in all, >= 1; generation 1 is the fit on real data.

    Returns:
        The final State, and a dict of arrays (generations, *key.shape), one for every variable.
    """
    check_generations(generations)
    key = random.as_key(key)
    if loop.batched or key.ndim == 0:
        return _scan(loop, key, real, int(generations))
    one = partial(_scan, loop, real=real, generations=int(generations))
    for _ in range(key.ndim):
        one = jax.vmap(one, out_axes=(0, -1))
    return one(key)


@partial(jax.jit, static_argnames=("loop", "generations"))
def _scan(loop, key, real, generations):
    return trajectory(loop, key, real, generations)


def check_generations(generations) -> None:
    """Raise InputError unless it is a whole number >= 1."""
    if isinstance(generations, bool) or not isinstance(generations, int) or generations < 1:
        raise InputError(f"generations must be a whole number >= 1, not {generations!r}.")
