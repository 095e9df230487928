"""Normalizing flows as learners: trained by maximum likelihood, sampled in one pass, with an exact density."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.errors import InputError
from mcloop.nets.flow import flow
from mcloop.types import Learner

_BASE = 2**16  # the stream of the base's normals


def normalizing_flow(
    shape: tuple[int, ...] = (2,),
    layers: int = 8,
    bins: int = 8,
    width: int = 64,
    kind: str = "spline",
    bound: float = 4.0,
    shift=0.0,
    scale=1.0,
) -> Learner:
    """A flow f to a standard normal: log p(x) = log N(f(u); 0, I) + log|det df/du| - sum log scale, u = (x - shift) / scale.

    The loss is the mean negative log-likelihood, nats, in the data's units: never below the truth's entropy in the mean, and
    above it by KL(truth | model). `field` is the log-density at the probe, (n, 1).

    Args:
        shape: of one point; at least two numbers in all.
        layers, bins, width, kind, bound: as for `mcloop.nets.flow.flow`.
        shift, scale: numbers, or arrays that broadcast to `shape`, data units: the data's mean and standard deviation, so
            that the flow sees points of size one. scale > 0; both may be traced.

    Raises:
        InputError: a shape of fewer than two numbers, a shift or scale that does not fit it, a scale that is not
            positive, or what `flow` refuses.
    """
    shape = tuple(shape)
    dim = math.prod(shape)
    net = flow(dim, layers, bins, width, kind, bound)
    for name, value in (("shift", shift), ("scale", scale)):
        _check_affine(name, value, shape)

    def log_prob(variables, points):
        u = (points - shift) / scale
        (z, log_det), _ = net.apply(variables, u.reshape(len(points), dim))
        volume = jnp.broadcast_to(jnp.log(scale), shape).sum()
        return -0.5 * (z**2).sum(1) - dim / 2 * math.log(2 * math.pi) + log_det - volume

    def sample(key, variables, count, label=None):
        if label is not None:
            raise InputError("label is given, but this flow has no classes.")
        z = random.normal(random.as_key(key), (count, dim), _BASE)
        (u, _), _ = net.apply(variables, z, inverse=True)
        return u.reshape(count, *shape) * scale + shift

    return Learner(
        name=f"{kind} flow",
        init=net.init,
        loss=lambda key, variables, points: (-log_prob(variables, points).mean(), variables.stats),
        sample=sample,
        field=lambda variables, points: log_prob(variables, points)[:, None],
        log_prob=log_prob,
    )


def _check_affine(name, value, shape):
    """One part of the map from data to units: its shape, and where it is a known number also its value."""
    try:
        fits = np.broadcast_shapes(jnp.shape(value), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{name} has shape {jnp.shape(value)}; it must broadcast to a point's shape {shape}.")
    if isinstance(value, int | float | np.ndarray | np.number):
        good = np.isfinite(value) & ((np.asarray(value) > 0) | (name == "shift"))
        if not good.all():
            raise InputError(f"{name} is {value!r}; it must be finite" + (" and > 0." if name == "scale" else "."))
