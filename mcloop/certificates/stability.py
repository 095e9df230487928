"""The certificate: the exact local rate of a retraining loop at its fixed point, by derivatives and without matrices.

A generation refits theta' on real data and on lam times as much of what the model theta drew:

    T(theta) = argmin over theta' of  E_data[l(theta')] + lam E_{x ~ q_theta}[l(theta', x)] + damping/2 |theta' - theta*|^2

With l = -log p (or any loss), N = E_data[hess l], F = E_q[hess l] and B = -d/dtheta E_{q_theta}[grad l], all at theta*, a
perturbation of the loop moves by the Jacobian of T (differentiate the optimality condition; derived here),

    J = (N + damping + lam F)^-1 lam B / (1 + gamma),

where a mixture corrector of strength gamma replaces the share gamma/(1 + gamma) of the synthetic points by points that do not
move with theta. For a likelihood and an exact sampler B = F (E_p[grad log p] = 0, differentiated), and the eigenvalues
are lam mu/((1 + lam mu)(1 + gamma)) with F v = mu N v: in [0, 1) for every lam. For any other sampler they can exceed one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree


class Problem(NamedTuple):
    """What a certificate is computed from.

    Attributes:
        params: theta*, a pytree of free coordinates (any real numbers are allowed): the optimum on the real data, or for an
            inexact sampler the loop's own fixed point (see `fixed_point`).
        risk: (params, points) -> the expected loss over points, a scalar.
        data: the real data as points, whatever `risk` understands.
        draw: (params) -> what the model hands on, as points; differentiable, its random numbers closed over (or quadrature
            nodes in their place).
        exact: whether `risk` is a negative log-likelihood and `draw` samples it exactly, so that B = F.
        pointwise: (params, x) -> the loss of one point, where points are `Weighted`; only the papers' bound and the
            noise of finite samples need it.
    """

    params: Any
    risk: Callable[[Any, Any], jax.Array]
    data: Any
    draw: Callable[[Any], Any]
    exact: bool = False
    pointwise: Callable[[Any, jax.Array], jax.Array] | None = None


class Weighted(NamedTuple):
    """Points x (k, ...) with weights (k,) that sum to one: a sample, or the nodes of a quadrature."""

    x: jax.Array
    weight: jax.Array


def equal(x) -> Weighted:
    """A sample: points that weigh alike."""
    x = jnp.asarray(x)
    return Weighted(x, jnp.full(len(x), 1 / len(x), x.dtype))


def likelihood(
    log_prob: Callable[[Any, jax.Array], jax.Array], params, data: Weighted, draw: Callable[[Any], Weighted]
) -> Problem:
    """The problem of maximum likelihood with an exact sampler.

    Args:
        log_prob: (params, x) -> log-density of one point, nats.
        params: theta*.
        data: real points.
        draw: (params) -> points of the model; a map of fixed random numbers or nodes.
    """

    def pointwise(params, x):
        return -log_prob(params, x)

    def risk(params, points):
        return points.weight @ jax.vmap(partial(pointwise, params))(points.x)

    return Problem(params, risk, data, draw, True, pointwise)


def corrected(problem: Problem, gamma: float) -> Problem:
    """The same loop with its mixture corrector as a part of the sampler: a share gamma/(1 + gamma) of points drawn by theta*.

    An exact likelihood rests at theta* with or without them, and dividing by 1 + gamma is enough. What an inexact sampler
    draws at theta* pulls elsewhere than what it draws at the loop's own fixed point, and counts in both the force and F.
    """
    if gamma == 0:
        return problem
    ideal = problem.draw(problem.params)

    def risk(params, points):
        moving, still = (problem.risk(params, part) for part in points)
        return (moving + gamma * still) / (1 + gamma)

    both = (problem.data, problem.data)
    return problem._replace(risk=risk, data=both, draw=lambda params: (problem.draw(params), ideal), pointwise=None)


class Products(NamedTuple):
    """Matrix-free products at theta*, each (P,) -> (P,); P parameters. They cost a few gradients and no matrix."""

    n: Callable[[jax.Array], jax.Array]
    f: Callable[[jax.Array], jax.Array]
    b: Callable[[jax.Array], jax.Array]
    size: int
    unravel: Callable[[jax.Array], Any]
    dtype: Any


def products(problem: Problem, differences: float | None = None) -> Products:
    """N v, F v and B v: a Hessian times a vector is the directional derivative of a gradient (Pearlmutter 1994).

    Args:
        differences: None differentiates through the sampler; a number h > 0 takes central differences
            (g(theta + h v) - g(theta - h v)) / 2 h under common random numbers, for samplers that cannot be differentiated.
    """
    flat, unravel = ravel_pytree(problem.params)
    gradient = jax.grad(lambda theta, points: problem.risk(unravel(theta), points))
    own = jax.tree.map(lax.stop_gradient, problem.draw(problem.params))

    def hessian(points, v):
        return jax.jvp(lambda theta: gradient(theta, points), (flat,), (v,))[1]

    def fisher(pointwise, v):
        """E_q[s s^T] v with s the scores: the same matrix as E_q[hess l], and never indefinite in a finite sample."""

        def losses(theta):
            return jax.vmap(lambda x: pointwise(unravel(theta), x))(own.x)

        along = jax.jvp(losses, (flat,), (v,))[1]
        return jax.vjp(losses, flat)[1](own.weight * along)[0]

    scored = problem.exact and problem.pointwise is not None
    f = partial(fisher, problem.pointwise) if scored else partial(hessian, own)

    def pull(theta):
        return gradient(flat, problem.draw(unravel(theta)))

    def b(v):
        if problem.exact:
            return f(v)
        if differences is None:
            return -jax.jvp(pull, (flat,), (v,))[1]
        scale = differences / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
        return -(pull(flat + scale * v) - pull(flat - scale * v)) / (2 * scale)

    return Products(partial(hessian, problem.data), f, b, flat.size, unravel, flat.dtype)


class Matrices(NamedTuple):
    """N, F and B at theta*, each (P, P) in double precision, damping not included."""

    n: np.ndarray
    f: np.ndarray
    b: np.ndarray


def matrices(problem: Problem, differences: float | None = None) -> Matrices:
    """The three matrices of a problem with few parameters, column by column."""
    return matrices_at(problem, differences)(ravel_pytree(problem.params)[0])


def matrices_at(problem: Problem, differences: float | None = None) -> Callable[[jax.Array], Matrices]:
    """theta (P,) -> its matrices, compiled once: for a search that moves the parameters."""
    unravel = ravel_pytree(problem.params)[1]
    compiled = jax.jit(lambda theta: columns(problem._replace(params=unravel(theta)), differences))
    return lambda theta: in_doubles(compiled(theta))


def columns(problem: Problem, differences: float | None = None) -> tuple[jax.Array, ...]:
    """N and F, and B where it is another matrix than F, as they are computed; pure."""
    parts = products(problem, differences)
    eye = jnp.eye(parts.size, dtype=parts.dtype)
    return tuple(lax.map(g, eye).T for g in (parts.n, parts.f) + (() if problem.exact else (parts.b,)))


def in_doubles(found: tuple[jax.Array, ...]) -> Matrices:
    """`Matrices` from what `columns` gives."""
    n, f, *b = (np.asarray(x, np.float64) for x in found)
    # a Hessian is symmetric but for rounding, and so is B where the sampler is exact
    n, f = (n + n.T) / 2, (f + f.T) / 2
    return Matrices(n, f, *(b or [f]))


def jacobian(m: Matrices, lam, gamma=0.0, damping=0.0) -> np.ndarray:
    """J = (N + damping + lam F)^-1 lam B/(1 + gamma), (P, P); see the module's head. lam = inf gives F^-1 B/(1 + gamma)."""
    if np.isinf(lam):
        return np.linalg.solve(m.f, m.b) / (1 + gamma)
    return np.linalg.solve(m.n + damping * np.eye(len(m.n)) + lam * m.f, lam * m.b) / (1 + gamma)


def effect(problem: Problem, direction: np.ndarray) -> tuple[Any, Any]:
    """What a direction of parameters (P,) does to samples: the points that the model draws, and how fast each one moves."""
    unravel = ravel_pytree(problem.params)[1]
    dtype = ravel_pytree(problem.params)[0].dtype
    return jax.jvp(problem.draw, (problem.params,), (unravel(jnp.asarray(direction, dtype)),))
