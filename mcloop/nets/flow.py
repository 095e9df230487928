"""Invertible networks: coupling layers whose Jacobian is triangular, so that the density is exact."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from mcloop.errors import InputError
from mcloop.nets.network import Network, network

_LEAST = 1e-3  # least width and height of a bin, as a share of the interval, and least slope at a knot
_LOG_SCALE = 2.0  # an affine layer stretches by at most e^2


class _Coupling(nnx.Module):
    """One half of the coordinates is bent, elementwise, by a map that a perceptron reads off the other half."""

    def __init__(self, dim, swap, width, kind, bins, bound, rngs):
        self.swap, self.first = swap, dim // 2
        bent = self.first if swap else dim - self.first
        self.bent, self.kind, self.bins, self.bound = bent, kind, bins, bound
        # kinks spread over the data from the start, which one or two inputs would not give by weights alone
        self.enter = nnx.Linear(dim - bent, width, bias_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        per = 3 * bins - 1 if kind == "spline" else 2
        # zero: every layer starts as the identity, and the model as a Gaussian
        self.leave = nnx.Linear(width, bent * per, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x, inverse):
        a, b = x[:, : self.first], x[:, self.first :]
        given, moved = (b, a) if self.swap else (a, b)
        raw = self.leave(nnx.silu(self.hidden(nnx.silu(self.enter(given)))))
        raw = jnp.moveaxis(raw.reshape(len(x), -1, self.bent), 1, 0)
        bend = partial(spline, bound=self.bound) if self.kind == "spline" else affine
        moved, log_slope = bend(moved, raw, inverse=inverse)
        return jnp.concatenate([moved, given] if self.swap else [given, moved], 1), log_slope.sum(1)


class _Flow(nnx.Module):
    def __init__(self, dim, layers, width, kind, bins, bound, rngs):
        self.couplings = nnx.List([_Coupling(dim, i % 2 == 1, width, kind, bins, bound, rngs) for i in range(layers)])

    def __call__(self, x, train=False, inverse=False):
        log_det = jnp.zeros(len(x))
        for coupling in reversed(self.couplings) if inverse else self.couplings:
            x, change = coupling(x, inverse)
            log_det = log_det + change
        return x, log_det


def affine(x: jax.Array, raw: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
    """y = x exp(s) + t, and log dy/dx = s (RealNVP, Dinh et al. 1605.08803, eq. 7); `raw` (2, n, d) holds s and t.

    s is held within (-2, 2) by tanh, so that a layer stretches by less than e^2. Returns (y, log-slope), both (n, d) as x.
    """
    log_scale = _LOG_SCALE * jnp.tanh(raw[0] / _LOG_SCALE)
    if inverse:
        return (x - raw[1]) * jnp.exp(-log_scale), -log_scale
    return x * jnp.exp(log_scale) + raw[1], log_scale


def spline(x: jax.Array, raw: jax.Array, inverse: bool = False, bound: float = 4.0) -> tuple[jax.Array, jax.Array]:
    """The monotone rational-quadratic spline of Durkan et al. 1906.04032, eqs. 4-8; the identity outside [-bound, bound].

    Args:
        x: (n, d).
        raw: (3 K - 1, n, d), unconstrained: K widths, K heights, K - 1 slopes at the inner knots, for K bins. Zeros give the
            identity. The slopes at both ends are one.
        inverse: x from y instead of y from x.

    Returns:
        (y, log dy/dx), both (n, d); with `inverse`, (x, log dx/dy).
    """
    bins = (len(raw) + 1) // 3
    widths, heights = (_sizes(part, bound) for part in (raw[:bins], raw[bins : 2 * bins]))
    # softplus(0 + shift) + least = 1
    slopes = _LEAST + nnx.softplus(raw[2 * bins :] + math.log(math.expm1(1 - _LEAST)))
    inside = jnp.abs(x) < bound
    point = jnp.where(inside, x, 0.0)  # what is computed outside is never used, and its gradient must be finite
    # materialised on both sides: XLA would compute the softmax again for every bin, and compile three times as long
    widths, heights, slopes = lax.optimization_barrier((widths, heights, slopes))
    found = _bin(point, widths, heights, slopes, bound, inverse)
    left, bottom, w, h, d0, d1 = lax.optimization_barrier(found)
    s = h / w
    bend = d0 + d1 - 2 * s
    if inverse:
        rise = point - bottom
        b = h * d0 - rise * bend
        c = -s * rise
        a = h * (s - d0) + rise * bend
        t = 2 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0)))
        value = left + w * t
    else:
        t = (point - left) / w
    both = t * (1 - t)
    below = s + bend * both
    log_slope = 2 * jnp.log(s) + jnp.log(d1 * t * t + 2 * s * both + d0 * (1 - t) ** 2) - 2 * jnp.log(below)
    if not inverse:
        value = bottom + h * (s * t * t + d0 * both) / below
    log_slope = -log_slope if inverse else log_slope
    return jnp.where(inside, value, x), jnp.where(inside, log_slope, 0.0)


def _sizes(raw, bound):
    """Sizes of the bins (K, n, d), which fill [-bound, bound]."""
    return 2 * bound * (_LEAST + (1 - _LEAST * len(raw)) * nnx.softmax(raw, axis=0))


def _bin(point, widths, heights, slopes, bound, inverse):
    """The bin that holds each point: left and lower edge, width, height, and the slopes at both ends, each (n, d).

    Bin after bin, keeping the last whose edge lies at or below the point: elementwise, where a gather would not fuse.
    """
    one = jnp.ones_like(point)
    left = bottom = jnp.full_like(point, -bound)
    found = (left, bottom, widths[0], heights[0], one, slopes[0])
    for k in range(1, len(widths)):
        left, bottom = left + widths[k - 1], bottom + heights[k - 1]
        upper = slopes[k] if k < len(slopes) else one
        here = (left, bottom, widths[k], heights[k], slopes[k - 1], upper)
        passed = point >= (bottom if inverse else left)
        found = tuple(jnp.where(passed, new, old) for new, old in zip(here, found, strict=True))
    return found


def flow(dim: int, layers: int = 8, bins: int = 8, width: int = 64, kind: str = "spline", bound: float = 4.0) -> Network:
    """A stack of coupling layers, called as `apply(variables, x (n, dim), inverse=False)` -> ((y, log|det dy/dx|), stats).

    From data to base by default, back with `inverse=True`. Layers bend the first and the second half of the coordinates
    in turn. Dense layers only, so that a grid of flows (vmap over `Variables`) is a batch of matrix products.

    Args:
        dim: coordinates, at least two.
        layers: couplings, at least two, or half of the coordinates would stay as they are.
        bins: of each spline, at least two; not used by "affine".
        width: units of both hidden layers of every coupling's perceptron.
        kind: "spline" (Durkan et al. 1906.04032) or "affine" (RealNVP, Dinh et al. 1605.08803).
        bound: the splines bend [-bound, bound] and leave the rest as it is.

    Raises:
        InputError: anything else.
    """
    for name, value, least in (("dim", dim, 2), ("layers", layers, 2), ("bins", bins, 2), ("width", width, 1)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")
    if kind not in ("spline", "affine"):
        raise InputError(f"kind is {kind!r}; it must be 'spline' or 'affine'.")
    if kind == "spline" and bins * _LEAST >= 1:
        raise InputError(f"bins is {bins}; it must be below {round(1 / _LEAST)}.")
    if not 0 < bound < math.inf:
        raise InputError(f"bound is {bound!r}; it must be a finite number > 0.")
    return network(lambda rngs: _Flow(dim, layers, width, kind, bins, float(bound), rngs))
