"""Convolution and pooling that are fast on a CPU, with their gradients, inside compiled loops as well as outside.

XLA's CPU backend runs the weight gradient of a 3 x 3 convolution 6 to 9 times slower than its forward pass at 128
channels, and slower still inside `lax.scan`. Here it is written as matrix products, by Winograd's minimal filtering
where that is fastest. TPUs and GPUs keep XLA's own operations: the choice is made where the program is lowered.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop.errors import InputError

_TILE = 4  # side of the output's tiles in Winograd's algorithm
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity; ten times more accurate than the customary 0, +-1, +-2
_THIN = 8  # channels up to which a shifted copy for every tap is cheap
_WIDE = 128  # channels from which Winograd's forward pass beats XLA's (measured at 14 x 14 to 28 x 28)


def conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolution (cross-correlation) with stride 1 and 'SAME' zero padding.

    Args:
        x: images (b, height, width, channels).
        w: kernel (k, k, channels, filters), k odd.

    Returns:
        (b, height, width, filters), equal to `lax.conv_general_dilated` up to rounding, as are its gradients. Reverse
        mode only: `jax.jvp` is not defined.
    """
    if w.ndim != 4 or w.shape[0] != w.shape[1] or w.shape[0] % 2 == 0:
        raise InputError(f"w has shape {w.shape}; a kernel is (k, k, channels, filters) with k odd.")
    if x.ndim != 4 or x.shape[-1] != w.shape[2]:
        raise InputError(f"x has shape {x.shape}; with this kernel it must be (b, height, width, {w.shape[2]}).")
    return _conv(x, w)


def _native(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _by_platform(native, products, *operands):
    """`products` where nothing better is known (a CPU); XLA's own operation on an accelerator."""
    return lax.platform_dependent(*operands, tpu=native, cuda=native, rocm=native, default=products)


def _either(x, w):
    if w.shape[0] == 3 and min(w.shape[2:]) >= _WIDE and x.dtype == jnp.float32:
        return _by_platform(_native, _winograd, x, w)
    return _native(x, w)


@jax.custom_vjp
def _conv(x, w):
    return _either(x, w)


def _forward(x, w):
    return _either(x, w), (x, w)


def _backward(residual, g):
    x, w = residual
    dx = _either(g, jnp.flip(w, (0, 1)).swapaxes(2, 3))
    return dx, _by_platform(_dw_native, _dw_products, x, g, w)


_conv.defvjp(_forward, _backward)


def _dw_native(x, g, w):
    return jax.linear_transpose(lambda w: _native(x, w), w)(g)[0]


def _dw_products(x, g, w):
    """dw[i, j] = sum over positions of x[position + (i, j)] g[position]^T, by whichever way is fastest."""
    k, _, channels, filters = w.shape
    x, g = (v.astype(jnp.promote_types(v.dtype, jnp.float32)) for v in (x, g))
    if k == 1:
        dw = _product(x, g)
    elif channels <= _THIN:
        dw = _product(jnp.concatenate(_taps(x, k), -1), g)
    elif filters <= _THIN:
        # the same sum seen from the cotangent, whose taps then run backwards
        taps = _product(x, jnp.concatenate(_taps(g, k)[::-1], -1)).reshape(channels, k * k, filters)
        dw = taps.swapaxes(0, 1)
    elif k == 3:
        dw = _dw_winograd(x, g)
    else:
        dw = jnp.stack([_product(tap, g) for tap in _taps(x, k)])
    return dw.reshape(w.shape).astype(w.dtype)


def _product(x, g):
    """sum over all but the last axis: (channels, filters)."""
    return lax.dot_general(x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1]), (((0,), (0,)), ((), ())))


def _taps(x, k):
    """The k * k shifted copies of x, row by row of the kernel."""
    height, width = x.shape[1:3]
    # padded once and for all: fused into every slice, the padding's bounds checks keep the copies from vectorising
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0))))
    return [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]


def _toom_cook(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices A, G, B of Winograd's F(outputs, taps), where `A.T ((G g) * (B x))` is the correlation of x with g.

    Interpolation at `_POINTS` and infinity: Lavin & Gray (2016), section 4; Winograd (1980).
    """
    size, points = outputs + taps - 1, np.array(_POINTS)
    a, g, b = np.zeros((size, outputs)), np.zeros((size, taps)), np.zeros((size, size))
    for row, point in enumerate(points):
        others = np.delete(points, row)
        a[row] = point ** np.arange(outputs)
        g[row] = point ** np.arange(taps) / np.prod(point - others)
        b[row, :-1] = np.polynomial.polynomial.polyfromroots(others)
    a[-1, -1] = g[-1, -1] = 1.0
    b[-1] = np.polynomial.polynomial.polyfromroots(points)
    return a, g, b


def _mix(rows, parts):
    """Linear combinations of arrays: one for every row of coefficients."""
    return [sum(float(c) * part for c, part in zip(row, parts, strict=True) if c) for row in rows]


def _tiles(v, axis, reach):
    """The `reach` arrays that hold the first, second, ... entry of every tile along an axis; tiles may overlap."""
    last = v.shape[axis] - reach
    return [lax.slice_in_dim(v, i, i + last + 1, _TILE, axis) for i in range(reach)]


def _padded(v, halo):
    """Zeros around an image: `halo` on every side, and more below and to the right up to whole tiles."""
    sides = [(halo, halo + -v.shape[axis] % _TILE) for axis in (1, 2)]
    # padded once and for all, as in _taps
    return lax.optimization_barrier(jnp.pad(v, ((0, 0), *sides, (0, 0))))


def _winograd(x, w):
    """The convolution with a 3 x 3 kernel, by 36 products for every 4 x 4 outputs instead of 144.

    One axis of the image is transformed after the other, a row of the transform at a time: what a row needs stays in the
    cache, and the program to compile is a sixth of the whole. The error is some 5e-6 of the largest output.
    """
    a, of_w, of_x = _toom_cook(_TILE, 3)
    size, (b, height, width), filters = len(a), x.shape[:3], w.shape[-1]
    kernels = jnp.einsum("ui,vj,ijcf->uvcf", jnp.asarray(of_w, w.dtype), jnp.asarray(of_w, w.dtype), w)
    x = _padded(x, 1)

    def row(given):
        coefficients, kernels = given
        v = lax.optimization_barrier(sum(c * tile for c, tile in zip(coefficients, _tiles(x, 1, size), strict=True)))
        across = [
            lax.dot_general(p, k, (((3,), (0,)), ((), ())))
            for p, k in zip(_mix(of_x, _tiles(v, 2, size)), kernels, strict=True)
        ]
        return jnp.stack(_mix(a.T, lax.optimization_barrier(across)), 3)

    rows = lax.map(row, (jnp.asarray(of_x, x.dtype), kernels))
    high, wide = rows.shape[2], rows.shape[3] * _TILE
    y = jnp.stack(_mix(a.T, list(rows.reshape(size, b, high, wide, filters))), 2)
    return y.reshape(b, high * _TILE, wide, filters)[:, :height, :width]


def _dw_winograd(x, g):
    """The weight gradient, likewise: 36 products for every 4 x 4 cotangents instead of 144."""
    a, of_g, of_x = _toom_cook(3, _TILE)
    size, x, g = len(a), _padded(x, 1), _padded(g, 0)

    def row(coefficients):
        for_x, for_g = coefficients
        u = sum(c * tile for c, tile in zip(for_x, _tiles(x, 1, size), strict=True))
        v = sum(c * tile for c, tile in zip(for_g, _tiles(g, 1, _TILE), strict=True))
        u, v = lax.optimization_barrier((u, v))
        across = jnp.stack(_mix(of_x, _tiles(u, 2, size))), jnp.stack(_mix(of_g, _tiles(v, 2, _TILE)))
        p, q = (part.reshape(size, -1, part.shape[-1]) for part in across)
        return lax.dot_general(p, q, (((1,), (1,)), ((0,), (0,))))

    products = lax.map(row, (jnp.asarray(of_x, x.dtype), jnp.asarray(of_g, g.dtype)))
    small = jnp.asarray(a, x.dtype)
    return jnp.einsum("ui,vj,uvcf->ijcf", small, small, products)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 2 x 2 windows with stride 2: (b, height, width, c) -> (b, height // 2, width // 2, c).

    Among equal entries the gradient goes to the first, row by row, as in PyTorch. XLA's own gradient of `reduce_window`
    is a serial scatter on a CPU.
    """
    return _pool_forward(x)[0]


def _corners(x):
    height, width = (s - s % 2 for s in x.shape[1:3])
    return [x[:, i:height:2, j:width:2] for i in range(2) for j in range(2)]


def _pool_forward(x):
    first, second, third, fourth = _corners(x)
    return jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth)), x


def _pool_backward(x, g):
    top, grads = _pool_forward(x)[0], []
    taken = jnp.zeros(top.shape, bool)
    for corner in _corners(x):
        here = (corner == top) & ~taken
        grads.append(jnp.where(here, g, 0))
        taken = taken | here
    b, height, width, c = x.shape
    rows = [jnp.stack(pair, 3).reshape(b, height // 2, width // 2 * 2, c) for pair in (grads[:2], grads[2:])]
    full = jnp.stack(rows, 2).reshape(b, height // 2 * 2, width // 2 * 2, c)
    return (jnp.pad(full, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)


max_pool.defvjp(_pool_forward, _pool_backward)
