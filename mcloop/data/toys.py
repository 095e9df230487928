"""Points in the plane with a known density: the toys of the published loops, drawn inside a compiled program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random

_CHOICE, _ANGLE, _NOISE = 2**16, 2**16 + 1, 2**16 + 2  # independent streams under one key


class Toy(NamedTuple):
    """A distribution in the plane.

    Attributes:
        name: as it appears in results.
        sample: (key, n) -> independent points (n, 2) float32; `n` is static; works under jit and vmap.
        log_prob: (x (n, 2)) -> log-density (n,), nats, or None where it is not known.
        modes: centres of the modes (k, 2), or None where there are none to count.
        std: standard deviation of the noise about a mode or an arc, data units.
        shift: mean (2,), data units; (x - shift) / scale is what networks are given.
        scale: root mean square over the coordinates of their standard deviations, data units: one number, so that
            distances keep their proportions.
        box: (left, right, bottom, top), data units: where pictures are drawn; holds all but 1e-4 of the mass.
        entropy: differential entropy, nats: the least mean negative log-likelihood that any model can have; None where it is
            not known.
    """

    name: str
    sample: Callable[[jax.Array, int], jax.Array]
    log_prob: Callable[[jax.Array], jax.Array] | None
    modes: np.ndarray | None
    std: float
    shift: np.ndarray
    scale: float
    box: tuple[float, float, float, float]
    entropy: float | None


def eight_gaussians(released: bool = False) -> Toy:
    """Eight equally likely Gaussians on a circle of radius 5, each of variance .1 (standard deviation .316) a coordinate.

    The variance is the one that flow-matching work states (Tong et al. 2302.00482), and this set is ours: the program that
    it released (torchcfm) takes the root of .1 for the variance, so that its modes have a standard deviation of .562.

    Args:
        released: draw torchcfm's.
    """
    std = 0.1**0.25 if released else math.sqrt(0.1)
    angle = np.arange(8) * np.pi / 4
    modes = 5 * np.stack([np.cos(angle), np.sin(angle)], 1)

    def sample(key, n):
        key = random.as_key(key)
        which = (8 * random.uniform(key, (n,), _CHOICE)).astype(jnp.int32)
        return jnp.asarray(modes, jnp.float32)[which] + std * random.normal(key, (n, 2), _NOISE)

    return Toy(
        name="eight_gaussians" + released * ", as released",
        sample=sample,
        log_prob=_mixture(modes, np.full(8, 1 / 8), std),
        modes=modes.astype(np.float32),
        std=std,
        shift=np.zeros(2, np.float32),
        scale=math.sqrt(25 / 2 + std**2),
        box=(-7.5, 7.5, -7.5, 7.5) if released else (-7.0, 7.0, -7.0, 7.0),
        entropy=3.7640903 if released else 2.6147335,
    )


def two_moons(released: bool = False) -> Toy:
    """Two interleaving half circles of radius 3 under Gaussian noise of standard deviation .6 a coordinate.

    The arcs of scikit-learn's `make_moons` with noise .2, then x -> 3 x - 1. Points are independent: the arc is a fair coin and
    the angle uniform, where `make_moons` takes half of its points from each arc at evenly spaced angles. The density is the
    integral over both arcs by 64-point Gauss-Legendre quadrature, with a relative error below 1e-4 out to 40 units from the
    centre. This set is ours: the program of Tong et al. 2302.00482 (torchcfm) adds one uniform number to both coordinates.

    Args:
        released: that noise, one number in [0, .2] for both coordinates (before the scaling by 3); its density has no bound
            where an arc runs along the diagonal, and none is given. Angles stay independent.
    """
    std, radius = 0.6, 3.0  # as released, the uniform number ends at .6
    outer, inner = np.array([-1.0, -1.0]), np.array([2.0, 0.5])  # centres of the upper and of the lower arc
    nodes, weights = np.polynomial.legendre.leggauss(64)
    angle = np.pi / 2 * (nodes + 1)
    arc = radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    def sample(key, n):
        key = random.as_key(key)
        upper = random.uniform(key, (n, 1), _CHOICE) < 0.5
        angle = jnp.pi * random.uniform(key, (n, 1), _ANGLE)
        step = radius * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], 1)
        centre = jnp.where(upper, jnp.float32(outer) + step, jnp.float32(inner) - step)
        if released:
            return centre + std * random.uniform(key, (n, 1), _NOISE)
        return centre + std * random.normal(key, (n, 2), _NOISE)

    # moments: an arc's mean lies 2 r / pi above its centre, its variances are r^2 / 2 along and r^2 / 2 - (2 r / pi)^2 across
    lift = np.array([0.0, 2 * radius / np.pi])
    gap = (outer + lift - inner + lift) / 2
    variance = radius**2 / 2 - lift**2 + gap**2 + (std**2 / 12 if released else std**2)
    density = _mixture(np.concatenate([outer + arc, inner - arc]), np.concatenate([weights, weights]) / 4, std)

    return Toy(
        name="two_moons" + released * ", as released",
        sample=sample,
        log_prob=None if released else density,
        modes=None,
        std=std,
        shift=((outer + inner + released * std) / 2).astype(np.float32),
        scale=math.sqrt(variance.mean()),
        box=(-7.0, 8.0, -5.5, 5.0),
        entropy=None if released else 3.8747007,
    )


def _mixture(centres, weights, std):
    """Log-density of equally round Gaussians of standard deviation `std` at `centres` (m, 2) with `weights` (m,)."""
    centres = np.asarray(centres, np.float32)
    offset = np.asarray(np.log(weights) - math.log(2 * math.pi * std**2), np.float32)

    def log_prob(x):
        # differences, not expanded squares: the tails would cancel
        square = (x[:, :1] - centres[:, 0]) ** 2 + (x[:, 1:] - centres[:, 1]) ** 2
        return jax.nn.logsumexp(offset - square / (2 * std**2), 1)

    return log_prob
