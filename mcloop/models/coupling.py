"""Which noise goes with which data: the exact optimal-transport pairing inside a minibatch, on any device."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcloop.errors import InputError

_ANNEAL = 8  # softened price updates before the exact search: on point clouds they save three quarters of its rounds


class Assignment(NamedTuple):
    """A perfect matching, and the proof that it is optimal.

    Attributes:
        column: (n,) int32, the column given to each row; a permutation.
        cost: the sum of the matched entries, ().
        gap: cost minus the value of a feasible dual, (): no matching is cheaper than `cost - gap`. Zero up to the
            rounding of float32 (about 1e-7 of the range of the costs, a row).
    """

    column: jax.Array
    cost: jax.Array
    gap: jax.Array


class _Matching(NamedTuple):
    column: jax.Array  # (n,) of a row; n where it is free
    row: jax.Array  # (n,) of a column; n where it is free
    price: jax.Array  # (n,) the columns' dual variables
    phase: jax.Array


def pair_up(x0: jax.Array, x1: jax.Array) -> jax.Array:
    """The minibatch optimal-transport plan (squared distance) as a permutation: noise `x0[pair_up(x0, x1)]` goes with x1.

    Both are (n, ...). Squared distances differ from inner products by constants of rows and columns, which no matching
    changes, so the costs are one matrix product of the centred points.
    """
    flat0, flat1 = (x.reshape(x.shape[0], -1) - x.reshape(x.shape[0], -1).mean(0) for x in (x0, x1))
    return assign(-jnp.matmul(flat1, flat0.T, precision=lax.Precision.HIGHEST)).column


def assign(costs: jax.Array) -> Assignment:
    """The cheapest perfect matching of the rows and columns of `costs` (n, n): the linear assignment problem, exactly.

    Shortest augmenting paths (Jonker & Volgenant 1987), from all free rows at once. A phase finds the distance of every
    column from its nearest free row (Bellman-Ford, as dense minima over the matrix), which makes a forest; raises the
    prices by the distances, which makes every branch of it tight; and augments along the shortest path to a free column in
    every tree, since trees share nothing. Every phase matches at least one more row, so there are at most n of them,
    and a handful in practice. No callback to the host: it runs under jit and vmap on a CPU, GPU or TPU. Nothing is
    differentiated through it.

    Where `costs` holds a NaN or an infinity the identity comes back, with a `gap` that is not finite.

    Raises:
        InputError: if `costs` is not a square matrix.
    """
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or not costs.size:
        raise InputError(f"costs has shape {list(costs.shape)}; it must be a square matrix (n, n) with n at least 1.")
    n = costs.shape[0]
    costs = lax.stop_gradient(jnp.asarray(costs, jnp.float32))
    reduced = costs - costs.min(1, keepdims=True)  # the same optimum, and less to round
    free = jnp.full(n, n, jnp.int32)
    start = _Matching(free, free, _soft_prices(reduced), jnp.int32(0))
    # the count ends the search where the costs are not numbers
    end = lax.while_loop(lambda m: (m.column == n).any() & (m.phase < n), lambda m: _phase(reduced, m), start)
    row, identity = jnp.arange(n), jnp.arange(n, dtype=jnp.int32)
    column = jnp.where((end.column == n).any(), identity, end.column)
    bound = (reduced - end.price).min(1)  # the best feasible dual of the rows at these prices
    gap = (reduced[row, column] - end.price[column] - bound).sum()
    return Assignment(column, costs[row, column].sum(), gap)


def _soft_prices(costs):
    """Prices near the optimum: a few Sinkhorn updates (Cuturi 2013) as the temperature falls from the mean cost."""

    def update(price, temperature):
        shares = jax.nn.softmax((price - costs) / temperature, 1)
        return price - temperature * jnp.log(shares.sum(0) + 1e-30), None

    scale = jnp.maximum(costs.mean(), 1e-30)
    return lax.scan(update, costs.min(0), scale * jnp.geomspace(1.0, 0.01, _ANNEAL))[0]


def _phase(costs, matching):
    """One search from every free row at once, and the augmentations that it finds."""
    column, row, price, phase = matching
    n = costs.shape[0]
    slack = costs - price
    slack = slack - slack.min(1, keepdims=True)  # never below 0, and 0 on matched entries up to rounding
    is_free, own = column == n, jnp.minimum(column, n - 1)

    def relax(search):
        distance, found, at, _, round_ = search
        via = (at[:, None] + slack).min(0)
        nearer = via < distance
        distance = jnp.where(nearer, via, distance)
        at = jnp.where(is_free, 0.0, distance[own])
        return distance, jnp.where(nearer, round_, found), at, nearer.any(), round_ + 1

    start = jnp.full(n, jnp.inf), jnp.zeros(n, jnp.int32), jnp.where(is_free, 0.0, jnp.inf), jnp.bool_(True), jnp.int32(1)
    distance, found, at, _, _ = lax.while_loop(lambda search: search[3], relax, start)

    # The row before a column is one whose own distance was found in an earlier round: no cycles, whatever ties there are.
    earlier = jnp.where(is_free, 0, found[own])[:, None] < found
    before = jnp.argmin(jnp.where(earlier, at[:, None] + slack, jnp.inf), 0).astype(jnp.int32)

    # Roots by pointer jumping: from a column to the column of the row before it, and so on.
    up = jnp.where(is_free[before], jnp.arange(n, dtype=jnp.int32), own[before])
    for _ in range(math.ceil(math.log2(n))):
        up = up[up]
    root = before[up]

    # The nearest free column of every tree (the first, where two are equally near).
    reach = jnp.where(row == n, distance, jnp.inf)
    best = jnp.full(n, jnp.inf).at[root].min(reach)
    nearest = jnp.where((reach < jnp.inf) & (reach == best[root]), jnp.arange(n, dtype=jnp.int32), n)
    goal = jnp.full(n, n, jnp.int32).at[root].min(nearest)

    def flip(walk):
        here, column, row = walk  # one path a tree, from its free column towards its root; n where it has arrived
        by = before.at[here].get(mode="fill", fill_value=n)
        previous = column.at[by].get(mode="fill", fill_value=n)
        return previous, column.at[by].set(here, mode="drop"), row.at[here].set(by, mode="drop")

    _, column, row = lax.while_loop(lambda walk: (walk[0] < n).any(), flip, (goal, column, row))
    price = price + distance
    return _Matching(column, row, price - price.min(), phase + 1)
