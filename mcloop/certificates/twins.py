"""Two copies of a loop under common random numbers, a little apart: what happens to the gap is the loop's own rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mcloop.types import Loop, State


def twins(loop: Loop, apart: Callable[[Any], tuple[Any, Any]], gap: Callable[[Any, Any], dict[str, Any]]) -> Loop:
    """A loop of two loops, which every driver runs: `mcloop.scan`, and `mcloop.sweep` over grids and seeds.

    Both copies see the same real data and the same random numbers in every generation, so that sampling noise cancels
    from their gap to first order, and what is left is the derivative of the generations between.

    Args:
        loop: any loop whose model is not hosted.
        apart: the parameters of generation 1 -> those of the two copies.
        gap: (params, params) -> dict of scalars, what is seen of every generation; both are given one cell at a time.
    """

    def init(key, real=None, generations=None, first=None) -> State:
        state = loop.init(key, real, generations, first)
        pair = apart(state.params)
        return state._replace(params=pair, pool=(state.pool, state.pool))

    def copy(state: State, i: int) -> State:
        return state._replace(params=state.params[i], pool=state.pool[i])

    def generation(key, state: State):
        (a, seen), (b, _) = (loop.generation(key, copy(state, i)) for i in range(2))
        both = State(a.t, (a.params, b.params), (a.pool, b.pool), a.real, a.truth)
        return both, {**gap(a.params, b.params), "effective_lam": seen["effective_lam"]}

    def measure(key, state: State):
        return {**gap(*state.params), "effective_lam": 0.0 * jnp.sum(loop.model.memory.real(state.real))}

    return loop._replace(init=init, generation=generation, measure=measure, batched=False)


def along(
    direction: jax.Array,
    dual: jax.Array,
    step: float,
    free=lambda params: params,
    params=lambda free: free,
    centre: jax.Array | None = None,
):
    """(apart, gap) for `twins`: +- step along a direction (P,) of the free coordinates, the gap seen along `dual` (P,).

    `gap` is dual . (theta+ - theta-)/(2 step): one at generation 1 if dual . direction = 1. The copies stand on either side of
    `centre` (P,), by default of the fit on real data.
    """

    def apart(fitted):
        flat, unravel = ravel_pytree(free(fitted))
        middle = flat if centre is None else centre
        return tuple(params(unravel(middle + sign * step * direction)) for sign in (1.0, -1.0))

    def gap(a, b):
        return {"gap": dual @ (ravel_pytree(free(a))[0] - ravel_pytree(free(b))[0]) / (2 * step)}

    return apart, gap
