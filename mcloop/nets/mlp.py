"""A small network for points of a few dimensions, conditioned on a scalar: the toys of diffusion and flow matching."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mcloop.errors import InputError
from mcloop.nets.network import Network, network

_CYCLES = 16  # frequencies of the scalar's embedding


def fourier(noise: jax.Array) -> jax.Array:
    """Sines and cosines (b, 32) of a scalar (b,), 1/8 to 32 cycles a unit, evenly spaced in logarithm.

    The slowest is monotone over any scalar in use (t in [0, 1]; log(sigma)/4 in about [-2, 2]), the fastest resolves
    the last few of 400 diffusion steps.
    """
    angle = 2 * jnp.pi * noise[:, None] * jnp.exp2(jnp.linspace(-3.0, 5.0, _CYCLES))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class _MLP(nnx.Module):
    def __init__(self, dim, width, depth, classes, rngs):
        self.enter = nnx.Linear(dim, width, rngs=rngs)
        self.time = nnx.Linear(2 * _CYCLES, width, rngs=rngs)
        self.label = nnx.Linear(classes, width, use_bias=False, rngs=rngs) if classes else None
        self.hidden = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.shift = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.leave = nnx.Linear(width, dim, rngs=rngs)

    def __call__(self, x, noise, label=None, keep=None, train=False):
        condition = self.time(fourier(noise))
        if self.label is not None:
            condition = condition + self.label(one_hot(label, keep, self.label.in_features))
        condition, h = nnx.silu(condition), self.enter(x)
        for hidden, shift in zip(self.hidden, self.shift, strict=True):
            h = h + hidden(nnx.silu(h + shift(condition)))
        return self.leave(nnx.silu(h))


def one_hot(label, keep, classes) -> jax.Array:
    """(b, classes): the class as a unit vector, zero where it is dropped (keep 0)."""
    if label is None:
        raise InputError(f"label is None, but this network has {classes} classes: give an integer array of shape (b,).")
    hot = jax.nn.one_hot(label, classes)
    return hot if keep is None else hot * keep[:, None]


def mlp(dim: int, width: int = 128, depth: int = 3, classes: int = 0) -> Network:
    """A residual multi-layer perceptron, called as `apply(variables, x, noise, label, keep)`.

    Dense layers only, so that a grid of models (vmap over `Variables`) is a batch of matrix products.

    Args:
        dim: coordinates of a point; x is (b, dim), and so is the output.
        width: units of every hidden layer.
        depth: residual blocks; each adds W silu(h + V silu(condition)).
        classes: number of classes, or 0 for none (label and keep are then ignored).

    The scalar `noise` (b,) enters through `fourier`. Layers start from Flax's own initial weights.
    """
    for name, value, least in (("dim", dim, 1), ("width", width, 1), ("depth", depth, 1), ("classes", classes, 0)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")
    return network(lambda rngs: _MLP(dim, width, depth, classes, rngs))
