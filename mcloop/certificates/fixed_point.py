"""The population loop itself: one refit as an argmin, the point where it rests, and how far finite samples shake it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from mcloop.certificates.stability import Matrices, Problem, jacobian
from mcloop.errors import InputError
from mcloop.models.newton import DENSE, minimise


def population_map(
    problem: Problem, lam: float, gamma: float = 0.0, damping: float = 0.0, steps: int = 50
) -> Callable[[Any], Any]:
    """T: params -> params, one generation with infinitely many points: the argmin at the head of `stability`, found by Newton.

    Nothing of the certificate is used: no sampler is differentiated and no Hessian of synthetic data at theta* is taken. A
    share gamma/(1 + gamma) of the synthetic points is drawn by theta* = `problem.params`. Pure; P <= 600.
    """
    flat, unravel = _flat(problem)
    ideal = problem.draw(problem.params)

    def refit(params):
        own = problem.draw(params)

        def objective(theta):
            here = unravel(theta)
            synthetic = (problem.risk(here, own) + gamma * problem.risk(here, ideal)) / (1 + gamma)
            return problem.risk(here, problem.data) + lam * synthetic + damping / 2 * jnp.sum((theta - flat) ** 2)

        return unravel(minimise(objective, ravel_pytree(params)[0], steps))

    return refit


def fixed_point(problem: Problem, lam: float, steps: int = 100) -> Problem:
    """The same problem at the point where its own loop rests: grad E_data[l] + lam grad E_{q_theta}[l] = 0, by Newton's method.

    An exact likelihood rests at the optimum on real data for every lam; an inexact sampler does not (a sampler that widens
    the spread by s rests at a variance v0/(1 - lam (s^2 - 1))), and its certificate holds there.

    Raises:
        InputError: no such point was found from `problem.params`: the loop has none, or it lies far off.
    """
    flat, unravel = _flat(problem)
    return problem._replace(params=unravel(settling(problem)(flat, lam, steps)))


def settling(problem: Problem) -> Callable[..., jax.Array]:
    """(theta (P,), lam, steps=100) -> the fixed point found from there, compiled once: for a search along lam."""
    unravel = _flat(problem)[1]

    def force(theta, lam):
        own = problem.draw(unravel(theta))
        return jax.grad(lambda t: problem.risk(unravel(t), problem.data) + lam * problem.risk(unravel(t), own))(theta)

    both = jax.jit(lambda theta, lam: (force(theta, lam), jax.jacfwd(force)(theta, lam)))
    force = jax.jit(force)

    def settle(theta, lam, steps: int = 100):
        at, slope = (np.asarray(x, np.float64) for x in both(theta, lam))
        eps = float(jnp.finfo(theta.dtype).eps)
        for _ in range(steps):
            move = np.linalg.lstsq(slope, -at)[0] if np.all(np.isfinite(slope)) else np.full(at.shape, np.nan)
            share, trial = 1.0, theta
            while share > 1e-4:
                trial = theta + jnp.asarray(share * move, theta.dtype)
                if np.linalg.norm(np.asarray(force(trial, lam), np.float64)) < np.linalg.norm(at):
                    break
                share /= 2
            else:
                break
            theta = trial
            at, slope = (np.asarray(x, np.float64) for x in both(theta, lam))
            if share * np.linalg.norm(move) < 30 * eps * (1 + float(jnp.linalg.norm(theta))):
                break
        if not np.linalg.norm(at) <= 1e3 * eps * (1 + lam) * max(1.0, len(at) ** 0.5):
            raise InputError(
                f"lam must be smaller than {lam:g} for this loop to have a fixed point near its parameters: "
                f"none was found (a force of {np.linalg.norm(at):.2g} is left)."
            )
        return theta

    return settle


def _flat(problem: Problem):
    flat, unravel = ravel_pytree(problem.params)
    if flat.size > DENSE:
        raise InputError(f"params must be at most {DENSE} numbers for Newton's method, not {flat.size}.")
    return flat, unravel


class Band(NamedTuple):
    """Where the iterates of a finite loop are, in the free coordinates: covariances (P, P) about the population's fixed point.

    Attributes:
        within: of the iterates of one run about the fixed point that its own real set has.
        between: of that fixed point, from one real set to another.
    """

    within: np.ndarray
    between: np.ndarray

    def width(self, z: float = 1.959964) -> np.ndarray:
        """(P,) half the width of the band that holds 95 % of iterates over runs and generations."""
        return z * np.sqrt(np.diag(self.within + self.between))


def stationary(
    m: Matrices,
    lam: float,
    n: float,
    gamma: float = 0.0,
    damping: float = 0.0,
    synthetic_noise: np.ndarray | None = None,
    real_noise: np.ndarray | None = None,
) -> Band:
    """The covariance that a loop with n real and lam n synthetic points a generation settles at, to leading order in 1/n.

    Derived here. With A = N + damping + lam F, each generation adds the noise A^-1 e, e the sum over lam n synthetic gradients
    over n, of covariance lam S/n; so `within` solves the discrete Lyapunov equation P = J P J^T + A^-1 (lam S/n) A^-1. The
    real set's mean gradient e0 of covariance V/n is the same in every generation: it moves the fixed point by
    x = J x + A^-1 e0, so `between` is (A (I - J))^-1 (V/n) (A (I - J))^-T. One well-specified number without correction:
    within + between = (1 + 3 lam)/(1 + 2 lam)/(n F).

    Args:
        m: from `stability.matrices`.
        lam: finite.
        n: real points.
        synthetic_noise, real_noise: S and V, covariances (P, P) of one point's gradient; default F and N, which holds for a
            likelihood that is well specified (else see `noise`).

    Raises:
        InputError: the loop is not stable, so that it settles nowhere.
    """
    j = jacobian(m, lam, gamma, damping)
    radius = float(np.abs(np.linalg.eigvals(j)).max())
    if not radius < 1:
        raise InputError(f"lam must be one at which the loop is stable, not {lam:g}: a perturbation grows by {radius:.4g}.")
    a = m.n + damping * np.eye(len(m.n)) + lam * m.f
    s = m.f if synthetic_noise is None else synthetic_noise
    v = m.n if real_noise is None else real_noise
    kick = np.linalg.solve(a, np.linalg.solve(a, lam * s / n).T)
    settle = a @ (np.eye(len(j)) - j)
    between = np.linalg.solve(settle, np.linalg.solve(settle, v / n).T)
    within = scipy.linalg.solve_discrete_lyapunov(j, (kick + kick.T) / 2)
    return Band((within + within.T) / 2, (between + between.T) / 2)


def noise(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """(S, V): covariances (P, P) of one synthetic and of one real point's gradient at theta*; needs `pointwise`."""
    if problem.pointwise is None:
        raise InputError("pointwise must be given in a problem whose noise is asked for; it is None.")
    flat, unravel = _flat(problem)
    pointwise = problem.pointwise

    def covariance(points):
        g = jax.vmap(lambda x: jax.grad(lambda t: pointwise(unravel(t), x))(flat))(points.x)
        g, w = np.asarray(g, np.float64), np.asarray(points.weight, np.float64)[:, None]
        centred = g - (w * g).sum(0)
        return (w * centred).T @ centred

    return covariance(problem.draw(problem.params)), covariance(problem.data)
