"""Exact binomial and multinomial counts for traced sizes and probabilities, over trailing cells."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from mcloop.random.variates import fold_in, open_unit, two_words

_INVERSION_BELOW = 10.0  # mean under which sequential inversion is cheaper than rejection
_NOTHING = 1e-9  # a mass so small that inversion has passed the mode (no mass before it is below 1e-6) and is done


def binomial(key: jax.Array, n, p, shape: tuple[int, ...] = ()) -> jax.Array:
    """Binomial(n, p) counts as float32, shape `shape + key.shape`; n >= 0 whole and p in [0, 1] broadcast against it.

    Small means by inversion, the rest by BTRS (Hoermann 1993): transformed rejection, about 1.2 proposals a count whatever n.
    The law is exact; a count above 2^24 is then rounded to the nearest float32, at most 6e-8 of it away (n = 1e9: .002
    standard deviations at p = 1/2).
    """
    p = jnp.clip(jnp.asarray(p, jnp.float32), 0.0, 1.0)
    return _halves(key, n, p, 1 - p, shape)[0]


def _halves(key, n, p, q, shape):
    """How many of n fall on either side, of probabilities p and q = 1 - p; the rarer side is drawn, so that it is whole."""
    full = jnp.broadcast_shapes(tuple(shape) + key.shape, jnp.shape(n), jnp.shape(p))
    n, p, q = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), full) for x in (n, p, q))
    mirrored = p > 0.5
    rare = jnp.where(mirrored, q, p)
    small = n * rare < _INVERSION_BELOW
    few = _inversion(key, jnp.where(small, n, 0.0), jnp.where(small, rare, 0.0), shape)
    many = _btrs(key, jnp.where(small, 40.0, n), jnp.where(small, 0.5, rare), small, shape)
    count = jnp.where(small, few, many)
    return jnp.where(mirrored, n - count, count), jnp.where(mirrored, count, n - count)


def _inversion(key, n, p, shape):
    """Walk the probability function upward from 0 until one uniform is spent."""
    # two words make a 46-bit uniform: with one, the far tail would be cut at 2^-24
    first, second = two_words(key, shape, block=0xFFFE)
    u = open_unit(first) + (open_unit(second) - 0.5) * jnp.float32(2.0**-23)
    odds = p / (1 - p)

    def step(carry):
        count, left, mass, walking = carry
        left = jnp.where(walking, left - mass, left)
        # the rounding of u and of the masses may leave a crumb of u that no mass will ever cover
        walking = walking & (left > 0) & (count < n) & (mass > _NOTHING)
        count = jnp.where(walking, count + 1, count)
        mass = jnp.where(walking, mass * odds * (n - count + 1) / count, mass)
        return count, left, mass, walking

    zero = jnp.zeros_like(n)
    start = (zero, zero + u, jnp.exp(n * jnp.log1p(-p)), n > 0)
    return lax.while_loop(lambda carry: jnp.any(carry[3]), step, start)[0]


def _stirling_tail(k):
    """log k! minus Stirling's leading terms, to float32 accuracy for k >= 0."""
    x = k + 1
    square = 1 / (x * x)
    series = (1 / 12 - (1 / 360 - square / 1260) * square) / x
    table = jnp.float32([0.08106147, 0.04134070, 0.02767793, 0.02079067, 0.01664469])
    exact = sum(jnp.where(k == i, table[i], 0.0) for i in range(5))
    return jnp.where(k < 5, exact, series)


def _excess_log1p(x):
    """log(1 + x) - x without the digits that the difference would lose."""
    r = x / (2 + x)
    square = r * r
    series = r * (2 * square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square / 9))) - x)
    return jnp.where(jnp.abs(x) < 0.2, series, jnp.log1p(x) - x)


def _upper(x):
    """The first 12 binary digits of a float32: products of two such numbers are exact."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000), jnp.float32)


def _mode(n, p):
    """The most likely count, as a float32, and how far above it the mean n p is, to about 1e-10 of the mean."""
    mode = jnp.floor(n * p + p)
    n_high, p_high = _upper(n), _upper(p)
    n_low, p_low = n - n_high, p - p_high
    return mode, (n_high * p_high - mode) + n_high * p_low + n_low * p_high + n_low * p_low


def _btrs(key, n, p, done, shape):
    q = 1 - p
    spread = jnp.sqrt(n * p * q)
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    alpha = (2.83 + 5.1 / b) * spread
    v_r = 0.92 - 4.2 / b
    # steps from the mode are small whole numbers, whatever n: nothing below is a difference of large ones
    mode, above = _mode(n, p)
    left, per_hit, per_miss = n - mode, 1 / (mode + 1), 1 / (n - mode + 1)
    tilt = jnp.log1p((above + p - q) * per_hit / q)
    tails = _stirling_tail(mode) + _stirling_tail(left)

    def propose(block):
        first, second = two_words(key, shape, block)
        u, v = open_unit(first) - 0.5, open_unit(second)
        us = 0.5 - jnp.abs(u)
        step = jnp.floor((2 * a / us + b) * u + (above + 0.5))
        inside = (step >= -mode) & (step <= left)
        step = jnp.clip(step, -mode, left)
        hits, misses = mode + step, left - step
        # log of the probability over the mode's: Stirling's leading terms, of which all that cancels is left out
        bound = (
            step * (tilt - ((step - 0.5) * per_hit + (step + 0.5) * per_miss))
            - (hits + 0.5) * _excess_log1p(step * per_hit)
            - (misses + 0.5) * _excess_log1p(-step * per_miss)
            + (tails - _stirling_tail(hits) - _stirling_tail(misses))
        )
        height = jnp.log(v * alpha / (a / (us * us) + b))
        return step, inside & (((us >= 0.07) & (v <= v_r)) | (height <= bound))

    return mode + _accepted(propose, done)


def _accepted(propose, done):
    """Proposals (block -> value, whether it is taken) until every entry that is not `done` has one."""

    def again(carry):
        value, accepted, block = carry
        other, now = propose(block)
        return jnp.where(accepted, value, other), accepted | now, block + 1

    value, accepted = propose(1)
    return lax.while_loop(lambda carry: ~jnp.all(carry[1]), again, (value, accepted | done, jnp.int32(2)))[0]


_PAGE = 64  # tree nodes that are split at once: one compiled splitter serves every page


def multinomial(key: jax.Array, n, p: jax.Array) -> jax.Array:
    """Counts of `n` draws over the categories of `p` (k, *cells), summing to one along axis 0; float32 (k, *cells).

    A binary tree of binomials, kept as a heap (node i has children 2 i and 2 i + 1) and split page by page: a page's
    parents lie in earlier pages, but for the first one, which is split once a level until it has settled.
    """
    k = p.shape[0]
    cells = jnp.broadcast_shapes(p.shape[1:], key.shape, jnp.shape(n))
    n = jnp.broadcast_to(jnp.asarray(n, jnp.float32), cells)
    depth = math.ceil(math.log2(k))
    if depth == 0:
        return n[None]
    leaves = 2**depth
    levels = [jnp.concatenate([jnp.broadcast_to(p, (k, *cells)), jnp.zeros((leaves - k, *cells), p.dtype)])]
    while levels[-1].shape[0] > 1:
        levels.append(levels[-1][0::2] + levels[-1][1::2])
    mass = jnp.concatenate([jnp.zeros((1, *cells), p.dtype), *levels[::-1]])
    both = jnp.maximum(mass[0::2] + mass[1::2], jnp.finfo(jnp.float32).tiny)
    shares = jnp.stack([mass[0::2] / both, mass[1::2] / both], 1)  # neither as 1 minus the other: a rare one keeps its digits
    page = min(_PAGE, leaves)
    settling = math.ceil(math.log2(page))

    def split(step, counts):
        at = jnp.maximum(step - settling + 1, 0)
        here = lax.dynamic_slice_in_dim(counts, at * page, page)
        p, q = jnp.moveaxis(lax.dynamic_slice_in_dim(shares, at * page, page), 1, 0)
        children = jnp.stack(_halves(fold_in(key, at), here, p, q, (page,)), 1).reshape((2 * page, *cells))
        counts = lax.dynamic_update_slice_in_dim(counts, children, 2 * at * page, 0)
        return counts.at[1].set(n)  # the root is its own "child" by the heap's arithmetic

    heap = jnp.zeros((2 * leaves, *cells)).at[1].set(n)
    heap = lax.fori_loop(0, settling + leaves // page - 1, split, heap)
    return heap[leaves : leaves + k]


def poisson(key: jax.Array, rate, shape: tuple[int, ...] = ()) -> jax.Array:
    """Poisson(rate) counts as float32, shape `shape + key.shape`; rate >= 0 broadcasts against it.

    Small rates by inversion, the rest by PTRS (Hoermann 1993, "The transformed rejection method for generating Poisson
    random variables"): about 1.1 to 1.3 proposals a count whatever the rate. Counts above 2^24 are rounded to float32.
    """
    full = jnp.broadcast_shapes(tuple(shape) + key.shape, jnp.shape(rate))
    rate = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), full)
    small = rate < _INVERSION_BELOW
    few = _poisson_inversion(key, jnp.where(small, rate, 0.0), shape)
    return jnp.where(small, few, _ptrs(key, jnp.where(small, 40.0, rate), small, shape))


def _poisson_inversion(key, rate, shape):
    """Walk the probability function upward from 0 until one uniform (46 bits, for the tail) is spent."""
    first, second = two_words(key, shape, block=0xFFFE)
    u = open_unit(first) + (open_unit(second) - 0.5) * jnp.float32(2.0**-23)

    def step(carry):
        count, left, mass, walking = carry
        left = jnp.where(walking, left - mass, left)
        walking = walking & (left > 0) & (mass > _NOTHING)
        count = jnp.where(walking, count + 1, count)
        mass = jnp.where(walking, mass * rate / jnp.maximum(count, 1.0), mass)
        return count, left, mass, walking

    zero = jnp.zeros_like(rate)
    start = (zero, zero + u, jnp.exp(-rate), rate > 0)
    return lax.while_loop(lambda carry: jnp.any(carry[3]), step, start)[0]


def _ptrs(key, rate, done, shape):
    b = 0.931 + 2.53 * jnp.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)

    # steps from the mode, as in `_btrs`
    mode = jnp.floor(rate)
    above = rate - mode

    def propose(block):
        first, second = two_words(key, shape, block)
        u, v = open_unit(first) - 0.5, open_unit(second)
        us = 0.5 - jnp.abs(u)
        step = jnp.floor((2 * a / us + b) * u + (above + 0.43))
        inside = step >= -mode
        step = jnp.maximum(step, -mode)
        k = mode + step
        # log of the probability function, by Stirling about the proposal itself, of which all that cancels is left out
        gap = (above - step - 1) / (k + 1)
        log_mass = (k + 0.5) * _excess_log1p(gap) - 0.5 * gap - 0.5 * jnp.log(2 * jnp.pi * rate) - _stirling_tail(k)
        height = jnp.log(v * inverse_alpha / (a / (us * us) + b))
        tail = (us < 0.013) & (v > us)
        return step, inside & (((us >= 0.07) & (v <= v_r)) | (~tail & (height <= log_mass)))

    return mode + _accepted(propose, done)
