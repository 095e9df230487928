"""Counter-based random variates for one cell or a whole grid: the shape asked for, then the key's own shape (cells trail).

`jax.random` on a CPU rolls Threefry's rounds into a loop over memory (24 ns a word on the development machine); the same
twenty rounds written out fuse into the consumer and vectorise (1 ns). Each call uses both output words. Every sampler
here is exact in law for the float32 uniforms that feed it; none depends on how many cells run beside it, so a cell's
numbers are the same alone, in a grid, in a chunk, or on another device.
"""

from __future__ import annotations

import math
from functools import partial, reduce, wraps

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop.types import InputError

_LANES = 16  # cells a group, where groups with a rejection are drawn again
_MANY = 4096  # entries from which that beats drawing all of them again
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def by_own_rules(function):
    """The function under JAX's default promotions: cells trail and are broadcast on purpose, whatever the caller forbids."""

    @wraps(function)
    def run(*args, **kwargs):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return run


def as_key(key: jax.Array) -> jax.Array:
    """A typed key from a typed key or from the old-style (..., 2) uint32 one; Threefry only, else InputError."""
    if not isinstance(key, jax.Array | np.ndarray):
        raise InputError(f"key must be made by jax.random.key(seed), not {type(key).__name__} {key!r:.40}.")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype == jnp.uint32 and key.ndim and key.shape[-1] == 2:
            return jax.random.wrap_key_data(key, impl="threefry2x32")
        raise InputError(f"key must be made by jax.random.key(seed), not an array of {key.dtype}{list(key.shape)}.")
    if jax.random.key_data(key).shape[-1] != 2:
        raise InputError(f"key must be a threefry2x32 key (the JAX default), not {jax.random.key_impl(key)}.")
    return key


@partial(jax.jit, inline=True)  # not compiled here: traced once a shape and pasted in, which saves seconds of tracing
def _threefry(k1, k2, x1, x2):
    """Threefry-2x32, 20 rounds (Salmon et al. 2011), elementwise: the same function as JAX's own."""
    schedule = (k1, k2, k1 ^ k2 ^ jnp.uint32(0x1BD11BDA))
    x1, x2 = x1 + schedule[0], x2 + schedule[1]
    for group in range(5):
        for r in _ROTATIONS[group % 2]:
            x1 = x1 + x2
            x2 = ((x2 << jnp.uint32(r)) | (x2 >> jnp.uint32(32 - r))) ^ x1
        x1 = x1 + schedule[(group + 1) % 3]
        x2 = x2 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x1, x2


def _words(key):
    data = jax.random.key_data(key)
    return data[..., 0], data[..., 1]


def fold_in(key: jax.Array, data) -> jax.Array:
    """`jax.random.fold_in`, elementwise over keys of any shape (and equal to it)."""
    k1, k2 = _words(key)
    pair = _threefry(k1, k2, jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32))
    # materialised, or every variate drawn from the new key would fold it in again
    pair = lax.optimization_barrier(tuple(jnp.broadcast_arrays(*pair)))
    return jax.random.wrap_key_data(jnp.stack(pair, -1), impl="threefry2x32")


def two_words(key, shape, block=0):
    """Two independent words for every entry of `shape`; `block` opens a further stream under the same key."""
    k1, k2 = _words(key)
    full = tuple(shape) + k1.shape
    index = _index(shape, k1.ndim)
    high = jnp.broadcast_to(jnp.asarray(block).astype(jnp.uint32), full)
    return _threefry(k1, k2, high, jnp.broadcast_to(index, full))


def _index(shape, axes):
    """A number for every entry of `shape`, with `axes` trailing axes of length one."""
    return lax.iota(jnp.uint32, math.prod(shape)).reshape(tuple(shape) + (1,) * axes)


def open_unit(word):
    """(0, 1): 2^23 equally likely midpoints, symmetric about 1/2, so that neither 0 nor 1 occurs."""
    return ((word >> 9).astype(jnp.int32).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)


# Giles (2010), "Approximating the erfinv function", single precision: central and tail polynomials, highest power first.
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
)
_CENTRE += (0.246640727, 1.50140941)
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047)
_TAIL += (1.00167406, 2.83297682)


@partial(jax.jit, inline=True)
def _gaussian(word):
    """The standard normal quantile of a word's uniform; a plain log of (1 - u)(1 + u) is exact enough and vectorises."""
    u = 2 * open_unit(word) - 1
    w = -jnp.log((1 - u) * (1 + u))
    central = w < 5
    x = jnp.where(central, w - 2.5, jnp.sqrt(w) - 3)
    p = jnp.where(central, jnp.float32(_CENTRE[0]), jnp.float32(_TAIL[0]))
    for a, b in zip(_CENTRE[1:], _TAIL[1:], strict=True):
        p = jnp.where(central, jnp.float32(a), jnp.float32(b)) + p * x
    return jnp.float32(math.sqrt(2)) * p * u


def _spread(key, shape, of, block):
    """Apply `of` to one word an entry, two entries a Threefry call."""
    size = math.prod(shape)
    first, second = two_words(key, ((size + 1) // 2,), block)
    if size == 1:
        return of(first).reshape(tuple(shape) + key.shape)
    # a concatenation of finished variates, not of words: each half then fuses with its own bits
    flat = jnp.concatenate([of(first), of(second)])[:size]
    return flat.reshape(tuple(shape) + key.shape)


def uniform(key: jax.Array, shape: tuple[int, ...] = (), block: int = 0) -> jax.Array:
    """Uniforms in the open interval (0, 1), shape `shape + key.shape`.

    Another `block` is another independent stream under the same key, for the price of none (a `fold_in` costs a word).
    Blocks below 2^16 belong to the samplers that reject; callers take theirs from 2^16 up.
    """
    return lax.optimization_barrier(_spread(key, shape, open_unit, block))


def normal(key: jax.Array, shape: tuple[int, ...] = (), block: int = 0) -> jax.Array:
    """Standard normals, shape `shape + key.shape`; `block` as for `uniform`."""
    # materialised: XLA would otherwise fuse the quantile into each of its readers and compute it again there
    return lax.optimization_barrier(_spread(key, shape, _gaussian, block))


def gamma(key: jax.Array, a, shape: tuple[int, ...] = ()) -> jax.Array:
    """Gamma(a, 1) for any a > 0, shape `shape + key.shape`: Marsaglia & Tsang (2000), whole batches at a time.

    `a` broadcasts against that shape. The first round accepts 95 % (a = 1) to 99.9 % (a = 25); a while_loop repeats the rare
    rest. For a < 1, Gamma(a) = Gamma(a + 1) U^(1/a).
    """
    a = jnp.asarray(a, jnp.float32)
    drawn = _marsaglia_tsang(key, jnp.where(a < 1, a + 1, a), shape)
    u, _ = two_words(key, shape, block=0xFFFF)
    return jnp.where(a < 1, drawn * jnp.exp(jnp.log(open_unit(u)) / a), drawn)


def chi_square(key: jax.Array, dof, shape: tuple[int, ...] = ()) -> jax.Array:
    """Chi-square for whole `dof` >= 0 (0 gives 0), shape `shape + key.shape`; `dof` broadcasts against it.

    One degree of freedom is the square of the first proposal's normal, so that no uniform is spent on a < 1.
    """
    return 2 * _marsaglia_tsang(key, jnp.asarray(dof, jnp.float32) / 2, shape)


def _marsaglia_tsang(key, a, shape):
    """Gamma(a, 1) for a >= 1 and for a = 1/2; 0 for a < 1/2; NaN for NaN."""
    narrow = tuple(shape) + key.shape
    a = jnp.broadcast_to(a, jnp.broadcast_shapes(narrow, a.shape))
    k1, k2 = _words(key)
    # the round is materialised: its readers, the search for rejections among them, would each compute it again
    drawn = lax.optimization_barrier(_propose_gamma(k1, k2, _index(shape, key.ndim), a, 0))
    redo_all = partial(_redo_all, shape=shape)
    if a.size < _MANY or a.ndim > len(narrow) or a.shape[: len(shape)] != tuple(shape):
        return redo_all(drawn, k1, k2, a)
    return lax.platform_dependent(drawn, k1, k2, a, cpu=_redo_groups, default=redo_all)


def _propose_gamma(k1, k2, index, a, block):
    """One round: a draw, or -1 where it is rejected (one output, since XLA would compute the round again for a second)."""
    narrow = jnp.broadcast_shapes(k1.shape, jnp.shape(index), jnp.shape(block))
    first, second = _threefry(k1, k2, jnp.broadcast_to(block, narrow), jnp.broadcast_to(index, narrow))
    x, log_u = _gaussian(first), jnp.log(open_unit(second))
    if narrow != a.shape:  # points of a grid share their seeds' numbers, which are then worth keeping
        x, log_u = lax.optimization_barrier((x, log_u))
    d = jnp.maximum(a, 1.0) - 1 / 3
    base = 1 + lax.rsqrt(9 * d) * x
    v = jnp.where(base > 0, base * base * base, 1.0)
    rejected = (base <= 0) | (log_u >= 0.5 * x * x + d * ((1 - v) + jnp.log(v)))
    return jnp.where(a < 0.5, 0.0, jnp.where(a < 1, 0.5 * x * x, jnp.where(rejected, -1.0, d * v)))


def _redo_all(drawn, k1, k2, a, *, shape):
    """Propose for every entry until all are accepted."""
    index = _index(shape, k1.ndim)

    def again(carry):
        drawn, block = carry
        return jnp.where(drawn < 0, _propose_gamma(k1, k2, index, a, block), drawn), block + 1

    return lax.while_loop(lambda carry: jnp.any(carry[0] < 0), again, (drawn, jnp.uint32(1)))[0]


def _redo_groups(drawn, k1, k2, a):
    """The same numbers, some groups of cells at a time: only groups with a rejection are drawn again.

    A group counts its own rounds, so that what an entry gets depends on its own rejections only.
    """
    full, axes = drawn.shape, drawn.ndim - k1.ndim
    entries, cells = math.prod(full[:axes]), math.prod(full[axes:])
    width = -(-cells // _LANES)
    some = max(16, entries * width // 16)

    def grouped(x):
        x = jnp.pad(x.reshape(-1, cells), ((0, 0), (0, width * _LANES - cells)))
        return x.reshape(-1, _LANES, width)

    drawn, a, k1, k2 = (grouped(x) for x in (drawn, a, *(jnp.broadcast_to(k, full[axes:]) for k in (k1, k2))))

    def again(carry):
        drawn, rejected, rounds = carry
        entry, group = jnp.divmod(jnp.nonzero(rejected.ravel(), size=some, fill_value=rejected.size)[0], width)
        block, old, shapes = (x.at[entry, ..., group].get(mode="clip") for x in (rounds, drawn, a))
        args = k1[0, :, group], k2[0, :, group], entry.astype(jnp.uint32)[:, None], shapes, block[:, None]
        # gathered first: a gather fused into the round would keep it from being vectorised
        old, args = lax.optimization_barrier((old, args))
        new = lax.optimization_barrier(jnp.where(old < 0, _propose_gamma(*args), old))
        rejected = rejected.at[entry, group].set((new < 0).any(1), mode="drop")
        rounds = rounds.at[entry, group].add(1, mode="drop")
        return drawn.at[entry, :, group].set(new, mode="drop"), rejected, rounds

    # a group's cells lie `width` apart: the search for rejections is then elementwise, and vectorised
    lowest = reduce(jnp.minimum, [drawn[:, i] for i in range(_LANES)])
    start = (drawn, lowest < 0, jnp.ones(lowest.shape, jnp.uint32))
    drawn = lax.while_loop(lambda carry: carry[1].any(), again, start)[0]
    return drawn.reshape(entries, width * _LANES)[:, :cells].reshape(full)


_FEW = 64  # weights up to which a count of the edges passed is cheaper than a search among them


def categorical(key: jax.Array, weights: jax.Array, count: int, block: int = 2**16) -> jax.Array:
    """`count` indices into axis 0 of `weights` (r, *cells) >= 0, with replacement: int32 (count, *cells)."""
    return place(uniform(key, (count,), block), weights)


def place(u: jax.Array, weights: jax.Array) -> jax.Array:
    """The inverse of the cumulative sum of `weights` (r, *cells) >= 0 at uniforms u (count, *cells): int32 indices."""
    r = weights.shape[0]
    edges = jnp.cumsum(weights, 0)
    if r > _FEW:
        # a long sum is added up in pieces, and rounding may then step up or down where nothing weighs anything
        edges = lax.cummax(jnp.where(weights > 0, edges, 0.0), 0)
    u = u * edges[-1]
    if r <= _FEW:
        return sum(((u >= edges[i]).astype(jnp.int32) for i in range(r - 1)), jnp.zeros(u.shape, jnp.int32))
    low, high = jnp.zeros(u.shape, jnp.int32), jnp.full(u.shape, r - 1, jnp.int32)
    edges = jnp.broadcast_to(edges, edges.shape[:1] + u.shape[1:])
    for _ in range(math.ceil(math.log2(r))):
        middle = (low + high) // 2
        above = jnp.take_along_axis(edges, middle, 0) > u
        low, high = jnp.where(above, low, jnp.minimum(middle + 1, high)), jnp.where(above, middle, high)
    return high
