"""Smooth functions of a few hundred numbers, minimised to rounding: fits that theory speaks of and no training run reaches."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

DENSE = 600  # parameters up to which whole Hessians are cheaper than products with them
_STUCK = 1e3  # damping, in units of the mean curvature, at which steps are too short to matter


def minimise(objective: Callable[[jax.Array], jax.Array], start: jax.Array, steps: int = 50) -> jax.Array:
    """A minimum of a smooth function of (P,) by damped Newton steps: exact Hessians, the damping of Levenberg and Marquardt.

    The damping falls by three after a step that went down and rises by four after one that did not, which is then not taken.
    Ends when a step is as small as rounding, or when none goes down any more. Pure.
    """
    slope, curvature = jax.grad(objective), jax.hessian(objective)
    eps = jnp.finfo(start.dtype).eps

    def step(carry):
        theta, value, damping, _, i = carry
        g, h = slope(theta), curvature(theta)
        size = jnp.mean(jnp.abs(jnp.diagonal(h)))
        move = -jnp.linalg.solve(h + damping * size * jnp.eye(len(theta), dtype=theta.dtype), g)
        trial = objective(theta + move)
        # rounding of the value must not stop a step that the gradient still wants
        slack = 4 * eps * jnp.abs(value)
        down = (trial <= value + slack) & jnp.all(jnp.isfinite(move)) & (g @ move <= 0)
        theta = jnp.where(down, theta + move, theta)
        small = down & (jnp.linalg.norm(move) <= 4 * eps * (1 + jnp.linalg.norm(theta)))
        damping = jnp.where(down, damping / 3, 4 * damping + 1e-6)
        return theta, jnp.where(down, trial, value), damping, small | (damping > _STUCK), i + 1

    first = (start, objective(start), jnp.asarray(0.0, start.dtype), jnp.asarray(False), 0)
    return lax.while_loop(lambda c: ~c[3] & (c[4] < steps), step, first)[0]
