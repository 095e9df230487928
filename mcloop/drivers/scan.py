"""Drivers: the compiled loop over generations. Nothing else in the library jits; `sweep` runs grids of what is here."""

from __future__ import annotations

import hashlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.checks import detached, not_forked
from mcloop.types import InputError, Loop, State, begun


@random.by_own_rules
def trajectory(loop: Loop, key: jax.Array, real, generations: int, see=lambda info: info) -> tuple[State, dict]:
    """`generations` fits as one scan, uncompiled: the final state and what was seen, each leaf (generations, *cells).

    Args:
        loop: the loop; `key` may carry cell axes if it is batched.
        real: what the loop starts from (see `make_loop`).
        generations: fits in all; generation 1 is the fit on real data.
        see: info -> what is kept of it, applied inside the scan (a reduction, or fewer variables).
    """
    # inlined, not compiled: the scan's body then costs no second trace
    step = jax.jit(lambda s: loop.generation(key, s), inline=True)
    state, first = first_generation(loop, key, real, generations, step)

    def body(state, _):
        state, info = step(state)
        return state, see(info)

    final, rest = lax.scan(body, state, None, length=generations - 1)
    return final, jax.tree.map(_prepend, see(first), rest)


def first_generation(loop: Loop, key: jax.Array, real, generations: int, step, all_seen: bool = False) -> tuple[State, dict]:
    """Generation 1, uncompiled: its state, in the shapes that `step` (state -> state, info) returns, and what was seen.

    Args:
        all_seen: also what later generations do not see, such as how good the first fit was.
    """
    state, told = begun(loop, key, real, generations)
    first = {**loop.measure(key, state), **told}
    state, seen = _settle(step, state)
    # what generation 1 does not know (what only a loop's second fit can tell) is NaN there
    known = {name: jnp.asarray(first.get(name, jnp.nan), x.dtype) for name, x in seen.items()}
    return state, {**first, **known} if all_seen else known


def _prepend(first: jax.Array, rest: jax.Array) -> jax.Array:
    """(1 + generations, *cells) from (*cells) and (generations, *cells), either of which may have cells of length one."""
    cells = jnp.broadcast_shapes(first.shape, rest.shape[1:])
    parts = jnp.broadcast_to(first, (1, *cells)), jnp.broadcast_to(rest, (rest.shape[0], *cells))
    return jnp.concatenate(parts)


def _settle(step, state: State) -> tuple[State, dict]:
    """The state in the shapes and types that a generation returns, as a scan's carry must be; and the shapes of what is seen.

    Before the first generation a size is a scalar that every cell shares; after it, lam or n may have given each its own.
    """
    shapes, seen = jax.eval_shape(step, state)
    for _ in range(3):
        if jax.tree.all(jax.tree.map(lambda x, s: x.shape == s.shape and x.dtype == s.dtype, state, shapes)):
            break
        state = jax.tree.map(_shaped, state, shapes)
        shapes, seen = jax.eval_shape(step, state)
    return state, seen


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
    generations = int(generations)
    if not isinstance(loop, Loop):
        raise InputError(f"loop must be a mcloop Loop, which make_loop returns, not {type(loop).__name__}.")
    key, real = random.as_key(key), detached(real)
    fixed = _Constant(loop, (loop.init, loop.generation, loop.measure))
    truth, data = (real, None) if real is None or hasattr(real, "_fields") else (None, _Constant(real, _digest(real)))
    one = partial(_scan, fixed, truth=truth, data=data, generations=generations)
    for i in range(0 if loop.batched else key.ndim):
        one = jax.vmap(one, out_axes=(0, -1 - i))
    return one(key)


@partial(jax.jit, static_argnames=("loop", "data", "generations"))
def _scan(loop, key, truth, data, generations):
    final, infos = trajectory(loop.value, key, truth if data is None else data.value, generations)
    return final, {n: jax.vmap(partial(_fill, key.shape))(x) for n, x in infos.items()}


def _fill(cells, x):
    """A variable that all cells share (a size, a ratio), given to each of them."""
    return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, cells))


class _Constant:
    """A value that is part of the program (data that is checked and summarised in NumPy); equal if its `name` is."""

    def __init__(self, value, name):
        self.value, self.name = value, name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return isinstance(other, _Constant) and self.name == other.name


def _digest(real):
    """What two data sets are told apart by: their bytes, or (objects, masks, what NumPy cannot read) which object it is."""
    leaves, tree = jax.tree.flatten(real)
    try:
        arrays = [np.asarray(x) for x in leaves]
    except (TypeError, ValueError, RuntimeError):
        return object()
    if any(x.dtype.hasobject for x in arrays) or any(np.ma.is_masked(x) for x in leaves):
        return object()
    return tree, tuple((x.shape, x.dtype.str, hashlib.sha256(x.tobytes()).digest()) for x in arrays)


def check_generations(generations) -> None:
    """Raise InputError unless it is a whole number from 1 to 2^31 - 1, in a process that can compute."""
    not_forked()
    number = isinstance(generations, int | np.integer) and not isinstance(generations, bool)
    if not number or not 1 <= generations < 2**31:
        below = ", below 2^31" if number and generations > 1 else ""
        raise InputError(f"generations must be a whole number >= 1{below}, not {generations!r}.")
