"""Gaussian mixtures refitted to their own samples by expectation maximisation, each fit starting from the one before."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.checks import check
from mcloop.exact import reading
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.types import InputError, Model

_FLOOR = 1e-6  # least variance along an axis, relative to the data's: a component on one point stays a density
_NOISE = 2**16 + 1  # the stream of the normals, beside the choice of a component


class Mixture(NamedTuple):
    """`weight` (k,), `mean` (k, d), and `root` of the covariances: lower-triangular (k, d, d), or deviations (k, d)."""

    weight: jax.Array
    mean: jax.Array
    root: jax.Array


def gaussian_mixture(
    k: int = 8,
    d: int = 2,
    n=1000,
    em_steps: int = 10,
    separation=10.0,
    centres=None,
    covariance: str = "diagonal",
    capacity: int | None = None,
) -> Model:
    """A mixture of k Gaussians, fitted by `em_steps` steps of EM from the previous generation's parameters.

    Its own truth has equal weights and unit covariances. A real array is first fitted from k-means++ seeds (the same for the
    same key), and that fit plays the truth. Measures, with `mean_sq_error` in units of the points squared:
    `trace_ratio` of the whole covariance to the truth's, `heterozygosity` 1 - sum of squared weights,
    `mode_coverage` the share of true components that hold more than 1 / (10 k) of the weight (a fitted component counts for
    the nearest true one), `mean_sq_error` of the whole mean.

    Args:
        k: components.
        d: dimension.
        n: real points, and the unit of every draw; may be traced.
        em_steps: EM steps a fit.
        separation: distance between neighbouring true centres, in standard deviations of a component: on a line if d = 1,
            else on a circle; may be traced.
        centres: (k, d) true centres, in place of `separation`.
        covariance: "diagonal" or "full".
        capacity: the most points in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: an unknown covariance, centres of another shape, a negative separation, fewer real rows than k.
    """
    for field, value in (("k", k), ("d", d), ("em_steps", em_steps)):
        check(field, value, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    reading.check_size(n, 2)
    check("separation", separation, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))
    if covariance not in ("diagonal", "full"):
        raise InputError(f"covariance must be 'diagonal' or 'full', not {covariance!r}.")
    if centres is not None and np.shape(centres) != (k, d):
        raise InputError(f"centres must be an array of shape ({k}, {d}), not {list(np.shape(centres))}.")
    slots = reading.slots(n, capacity)
    full = covariance == "full"
    means = _centres(k, d, separation) if centres is None else jnp.asarray(centres, jnp.float32)
    standard = Mixture(jnp.full(k, 1 / k), means, _unit_roots(k, d, full))

    def sample(key, params: Mixture, count):
        which = random.categorical(key, params.weight, slots)
        z = random.normal(key, (slots, d), block=_NOISE)
        root = params.root[which]
        return rows(params.mean[which] + (jnp.einsum("nij,nj->ni", root, z) if full else root * z), count)

    def fit(key, params: Mixture, data: Rows):
        return lax.fori_loop(0, em_steps, lambda _, p: em_step(p, data.values, data.weight), params), {}

    def observe(key, real):
        if real is None:
            data = sample(key, standard, n)
            return reading.as_real(data), standard
        values = reading.points(real, d, n)
        if len(values) < k or len(values) > slots:
            raise InputError(f"real must have from k = {k} to capacity = {slots} rows, not {len(values)}.")
        data = rows(values, real=True)
        start = _seeded(key, values, k, full)
        return data, lax.fori_loop(0, 10 * em_steps, lambda _, p: em_step(p, values, data.weight), start)

    return Model(
        name="gaussian_mixture",
        n=n,
        memory=rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=_measure,
        estimator=f"{em_steps} EM steps, {covariance} covariance",
    )


def _centres(k, d, separation):
    """k neighbours `separation` apart: on a line about 0, or round a circle in the first two dimensions."""
    if d == 1:
        return (jnp.arange(k, dtype=jnp.float32)[:, None] - (k - 1) / 2) * separation
    angle = 2 * jnp.pi * jnp.arange(k) / k
    radius = separation / (2 * np.sin(np.pi / k)) if k > 1 else 0.0
    circle = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    return jnp.concatenate([circle, jnp.zeros((k, d - 2))], 1)


def _unit_roots(k, d, full):
    return jnp.broadcast_to(jnp.eye(d), (k, d, d)) if full else jnp.ones((k, d))


def log_density(params: Mixture, x: jax.Array) -> jax.Array:
    """Log of each component's weight times its density at x (n, d): (n, k), -inf for a component without weight."""
    gap = x[:, None] - params.mean
    if params.root.ndim == 3:
        flat = jax.vmap(lambda root, g: jax.scipy.linalg.solve_triangular(root, g.T, lower=True).T, (0, 1), 1)
        scaled = flat(params.root, gap)
        scale = jnp.log(jnp.diagonal(params.root, axis1=1, axis2=2)).sum(1)
    else:
        scaled, scale = gap / params.root, jnp.log(params.root).sum(1)
    return jnp.log(params.weight) - 0.5 * (scaled**2).sum(2) - scale - 0.5 * x.shape[1] * np.log(2 * np.pi)


def em_step(params: Mixture, x: jax.Array, weight: jax.Array) -> Mixture:
    """One step of EM on rows x (n, d) of weight (n,) (Dempster, Laird & Rubin 1977).

    A component that no row belongs to keeps its place and has no weight.
    """
    share = jax.nn.softmax(log_density(params, x), 1) * weight[:, None]
    mass = share.sum(0)
    some = jnp.where(mass > 0, mass, 1.0)[:, None]
    alive = mass > 0
    mean = jnp.where(alive[:, None], share.T @ x / some, params.mean)
    gap = x[:, None] - mean
    total = weight.sum()
    centre = weight @ x / total
    floor = _FLOOR * (weight @ (x - centre) ** 2) / total + np.finfo(np.float32).tiny
    if params.root.ndim == 2:
        variance = (share[:, :, None] * gap**2).sum(0) / some
        return Mixture(mass / total, mean, jnp.where(alive[:, None], jnp.sqrt(variance + floor), params.root))
    matrix = jnp.einsum("nk,nki,nkj->kij", share, gap, gap) / some[..., None] + jnp.diag(floor)
    # the floor is what makes this Cholesky safe: a component on few points is singular without it
    root = jnp.linalg.cholesky(jnp.where(alive[:, None, None], matrix, jnp.eye(x.shape[1])))
    return Mixture(mass / total, mean, jnp.where(alive[:, None, None], root, params.root))


def _seeded(key, x, k, full) -> Mixture:
    """k-means++ seeds (Arthur & Vassilvitskii 2007), and the data's own spread for every component."""
    seeds = x[random.categorical(random.fold_in(key, 0), jnp.ones(len(x)), 1)]
    for i in range(1, k):
        nearest = ((x[:, None] - seeds) ** 2).sum(2).min(1)
        pick = random.categorical(random.fold_in(key, i), nearest, 1)
        seeds = jnp.concatenate([seeds, x[pick]])
    spread = x.std(0) / k + np.finfo(np.float32).tiny
    roots = _unit_roots(k, x.shape[1], full) * (spread[:, None] if full else spread)
    return Mixture(jnp.full(k, 1 / k), seeds, roots)


def _moments(params: Mixture):
    """Mean (d,) and trace of the covariance of the whole mixture."""
    mean = params.weight @ params.mean
    own = (params.root**2).sum(tuple(range(1, params.root.ndim)))
    return mean, params.weight @ (own + ((params.mean - mean) ** 2).sum(1))


def _measure(params: Mixture, truth: Mixture) -> dict:
    (mean, trace), (true_mean, true_trace) = _moments(params), _moments(truth)
    k = len(truth.weight)
    nearest = ((params.mean[:, None] - truth.mean) ** 2).sum(2).argmin(1)
    held = jnp.zeros(k).at[nearest].add(params.weight)
    return {
        "trace_ratio": trace / true_trace,
        "heterozygosity": 1 - (params.weight**2).sum(),
        "mode_coverage": (held > 1 / (10 * k)).mean(),
        "mean_sq_error": ((mean - true_mean) ** 2).sum(),
    }
