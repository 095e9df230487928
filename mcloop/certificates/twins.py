"""Copies of a loop under common random numbers, a little apart: what a generation multiplies is left in their difference.

Every copy sees the same real data and the same random numbers, so that what a generation adds (its sampling noise) cancels
from a difference of two copies to first order, and what is left is the derivative of the generations between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mcloop import random
from mcloop.exact.normal import Normal
from mcloop.types import InputError, Loop, Params, State

_REFIT, _DRAW = 2**20, 2**20 + 1  # streams that no generation uses
_LOST = -13.8  # log 1e-6, the growth of a difference of which float32 keeps nothing


def _advance(loop: Loop, key, state: State):
    """A generation of all copies, which lie along a first axis: ((params, pool), what they share, what each has seen)."""

    def one(params, pool):
        new, info = loop.generation(key, state._replace(params=params, pool=pool))
        return (new.params, new.pool), new._replace(params=(), pool=()), info

    return jax.vmap(one, out_axes=(0, None, 0))(state.params, state.pool)


def gap_twins(loop: Loop, apart: Callable[[Any], tuple[Any, Any]], gap: Callable[[Any, Any], dict[str, Any]]) -> Loop:
    """A loop of two loops that are left to themselves: what is seen of them is the gap between them.

    Args:
        loop: any compiled loop.
        apart: the parameters of generation 1 -> those of the two copies.
        gap: (params, params) -> dict of scalars, what is seen of every generation; both are given one cell at a time.

    Returns:
        A Loop that `scan` and `sweep` take.
    """

    def init(key, real=None, generations=None, first=None) -> State:
        state = loop.init(key, real, generations, first)
        params = jax.tree.map(lambda *x: jnp.stack(x), *apart(state.params))
        return state._replace(params=params, pool=jax.tree.map(lambda x: jnp.stack([x, x]), state.pool))

    def seen(params) -> dict:
        return gap(_copy(params, 0), _copy(params, 1))

    def generation(key, state: State):
        (params, pool), rest, infos = _advance(loop, random.as_key(key), state)
        return rest._replace(params=params, pool=pool), {**seen(params), "effective_lam": infos["effective_lam"][0]}

    def measure(key, state: State):
        return {**seen(state.params), "effective_lam": 0.0 * jnp.sum(loop.model.memory.real(state.real))}

    return loop._replace(init=init, generation=generation, measure=measure, batched=False, alone=loop, begin=None)


def along(
    direction: jax.Array,
    dual: jax.Array,
    step: float,
    free=lambda params: params,
    params=lambda free: free,
    centre: jax.Array | None = None,
):
    """(apart, gap) for `gap_twins`: +- step along a direction (P,) of the free coordinates, the gap seen along `dual` (P,).

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


def growth_twins(loop: Loop, distance: Callable[[Params, Params], jax.Array] | None = None, step: float = 1 / 32) -> Loop:
    """The same loop, which also reports `log_growth`: by how much a small difference grew, log |delta_{g+1}| / |delta_g|.

    Two more copies run on either side of it with the same random numbers, so that what a generation adds (its sampling
    noise) cancels in their difference, and what it multiplies is left: E delta_{g+1} = J delta_g with J the Jacobian of
    the loop. The first difference is that of generation 1 and its refit to its own draws, so it is one that the family
    can have; after every generation it is scaled back to `step` of the parameters, with all else that differs (Benettin
    et al. 1980; survey of Skokos, 0811.0882), and so turns into the direction that grows fastest.

    Coordinates: away from a fixed point the factor depends on them. Derived here: with y = u(x) and x -> r x + c, delta y
    grows by r u'(x_{g+1})/u'(x_g), so at r = 1 (x_g ~ g) a deviation y = sqrt(x) shows a factor 1 - 1/(2g), a decay that is
    none. Hence differences of Gaussians are measured in mean and covariance, in which refits are averages.

    Args:
        loop: any compiled loop.
        distance: (params, params') -> scalar for one cell, homogeneous of degree 1 in small differences; default Euclidean,
            over mean and covariance of a Gaussian and over all the floats of other families.
        step: half the distance between the copies, relative to the norm of the parameters and of what a generation moves
            them. It should exceed the grain of a discrete family's counts.

    Returns:
        A Loop that `scan` and `sweep` take; `log_growth` is NaN at generation 1. Its measures are those of `loop`.
    """
    between = _euclidean if distance is None else _over_cells(distance)

    def start(key, real=None, generations=None, first=None) -> State:
        key = random.as_key(key)
        state = loop.init(key, real, generations, first=first)
        base, n = state.params, loop.model.n
        drawn = loop.model.sample(random.fold_in(key, _DRAW), base, n)
        other = loop.model.fit(random.fold_in(key, _REFIT), base, drawn)[0]
        gap = jax.tree.map(jnp.subtract, *(_floats(x) for x in (other, base)))
        cells = _cells(loop, key)
        pair = jax.tree.map(lambda x: _thrice(x, cells), (base, state.pool))
        size = _norm(_floats(base), cells) + _norm(gap, cells)
        moved = _moved(pair[0], gap, _ratio(step * size, _norm(gap, cells)))
        return state._replace(params=moved, pool=pair[1])

    def generation(key, state: State):
        key = random.as_key(key)
        (params, pool), rest, infos = _advance(loop, key, state)
        cells = _cells(loop, key)
        _check_shapes(loop, state.params, params, cells)
        old, new = (between(_copy(three, 1), _copy(three, 2), cells) for three in (state.params, params))
        log_growth = jnp.where(old > 0, jnp.maximum(jnp.log(_ratio(new, old)), _LOST), _LOST)
        log_growth = jnp.where(jnp.isfinite(new), log_growth, jnp.nan)
        base, before = (_floats(_copy(three, 0)) for three in (params, state.params))
        # what a generation moved belongs to the scale: parameters may pass through 0, where a share of them is rounding
        size = _norm(base, cells) + _norm(jax.tree.map(jnp.subtract, base, before), cells)
        halves = [jax.tree.map(lambda x: (x[1] - x[2]) / 2, _floats(tree)) for tree in (params, pool)]
        back = _ratio(step * size, _norm(halves[0], cells))
        params, pool = (_moved(tree, half, back) for tree, half in zip((params, pool), halves, strict=True))
        return rest._replace(params=params, pool=pool), {**_copy(infos, 0), "log_growth": log_growth}

    def measure(key, state: State) -> dict:
        return loop.measure(key, state._replace(params=_copy(state.params, 0), pool=_copy(state.pool, 0)))

    return loop._replace(init=start, generation=generation, measure=measure, alone=loop, begin=None)


def late_growth(log_growth) -> tuple[jax.Array, jax.Array]:
    """(generations, *cells) -> the mean of log growth over the last half of the finite generations, and over the last quarter.

    A loop that has left the floats is read up to there; NaN if its first refit had: a family that has no such fit.
    """
    steps = jnp.asarray(log_growth)[1:]
    g = jnp.arange(steps.shape[0]).reshape(-1, *(1,) * (steps.ndim - 1))
    length = jnp.cumprod(jnp.isfinite(steps), 0).sum(0)

    def since(first):
        inside = (g >= first) & (g < length)
        mean = jnp.where(inside, steps, 0.0).sum(0) / jnp.maximum(inside.sum(0), 1)
        return jnp.where(length > 0, mean, jnp.nan)

    return since(length // 2), since(3 * length // 4)


def _check_shapes(loop: Loop, old, new, cells: int) -> None:
    """Refuse parameters that are rows and grow with the pool: there is no difference of two generations to take."""
    shapes = [[x.shape[1 : max(x.ndim - cells, 1)] for x in jax.tree.leaves(three)] for three in (old, new)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"regime '{loop.regime.name}' must leave the parameters of the {loop.model.name} family in one shape to measure "
            f"growth, not take them from {shapes[0]} to {shapes[1]}."
        )


def _cells(loop: Loop, key) -> int:
    """How many trailing axes are cells."""
    return key.ndim if loop.batched else 0


def _thrice(x, cells: int):
    """Three copies of a leaf along a new first axis, which must not stand where cells are expected."""
    x = jnp.asarray(x)
    x = x.reshape(x.shape + (1,) * max(cells - x.ndim, 0))
    return jnp.stack([x, x, x])


def _floats(tree):
    """The leaves that are real numbers, as a list."""
    return [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if jnp.issubdtype(x.dtype, jnp.floating)]


def _norm(leaves, cells: int) -> jax.Array:
    """The Euclidean norm over all but the trailing cells, without overflow of the squares."""
    flat = [x.reshape(-1, *x.shape[max(x.ndim - cells, 0) :]) for x in leaves if x.size]
    top = jax.tree.reduce(jnp.maximum, [jnp.abs(x).max(0) for x in flat])
    safe = jnp.where(top > 0, top, 1.0)
    return top * jnp.sqrt(sum(((x / safe) ** 2).sum(0) for x in flat))


def _ratio(a, b):
    """a / b, and 0 where b is 0."""
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def _moved(three, half, back):
    """The first of three copies, and the two at `back` times `half` on either side of it; what is no float stays as it is."""
    leaves, tree = jax.tree.flatten(three)
    halves = iter(half)

    def move(x):
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        side = back * next(halves)
        return jnp.stack(jnp.broadcast_arrays(x[0], x[0] + side, x[0] - side))

    return jax.tree.unflatten(tree, [move(x) for x in leaves])


def _copy(three, i: int):
    return jax.tree.map(lambda x: x[i], three)


def _euclidean(a, b, cells: int) -> jax.Array:
    gaps = jax.tree.map(jnp.subtract, *(_floats(_moments(x, cells)) for x in (a, b)))
    return _norm(gaps, cells)


def _moments(params, cells: int):
    """Mean and covariance (or variances) of a Gaussian; the parameters themselves of any other family."""
    if not isinstance(params, Normal):
        return params
    full = params.root.ndim - cells == 2
    return params.mean, jnp.einsum("ik...,jk...->ij...", params.root, params.root) if full else params.root**2


def _over_cells(distance: Callable) -> Callable:
    """A distance of one cell, over trailing cells."""

    def between(a, b, cells: int):
        f = distance
        for _ in range(cells):
            f = jax.vmap(f, in_axes=-1, out_axes=-1)
        shape = jnp.broadcast_shapes(*(x.shape[x.ndim - cells :] for x in jax.tree.leaves((a, b))))
        spread = [jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[: x.ndim - cells], *shape)), p) for p in (a, b)]
        return f(*spread)

    return between
