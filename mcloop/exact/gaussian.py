"""Gaussians refitted to their own samples, exact in law at a cost free of n and of the age of the pool.

The mean of m draws is N(mu, Sigma / m) and their scatter an independent Wishart, drawn by Bartlett's triangular factor; both
are merged in O(1) (Chan, Golub & LeVeque 1983) with the scatter carried as a factor. `literal=True` is the same family
sample by sample, over a row pool: what every script does, and what regimes that select old points again need.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check
from mcloop.exact import factors, reading
from mcloop.exact.normal import Normal, Statistics, kind_of, stretched
from mcloop.memory.rows import Rows, bootstrap, rows, rows_memory
from mcloop.metrics.wasserstein import gaussian_w2
from mcloop.types import ClosedForms, InputError, Memory, Model, Objective, additive

_MEAN = 2**16  # the stream of a draw's mean, beside those of its scatter


def gaussian(
    d: int = 1,
    n=100,
    ddof: int = 0,
    covariance: str = "full",
    truth: Normal | None = None,
    literal: bool = False,
    capacity: int | None = None,
) -> Model:
    """The Gaussian family.

    Args:
        d: dimension.
        n: real points, and the unit of every draw; may be traced.
        ddof: 0 for the maximum-likelihood covariance (divide by n), 1 for the unbiased one.
        covariance: "full", "diagonal" or "isotropic".
        truth: what `real=None` draws from; default N(0, I).
        literal: draw every point and keep rows, in place of drawing the statistics.
        capacity: (literal) the most points in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: n < 2, ddof not 0 or 1, an unknown covariance, d < 1.
    """
    check("d", d, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    check("n", n, "a whole number >= 2", lambda v: (v >= 2) & (v == np.floor(v)) & np.isfinite(v))
    check("ddof", ddof, "0 or 1", lambda v: (v == 0) | (v == 1))
    kind = kind_of(covariance, d)
    truth = truth if truth is not None else Normal(jnp.zeros(d), kind.eye())
    slots = reading.slots(n, capacity) if literal else None

    def summarise(data) -> Statistics:
        return _of_rows(kind, data) if isinstance(data, Rows) else data

    def sample(key, params, count):
        if slots is not None:
            return _sample_rows(kind, key, params, count, slots)
        count = jnp.asarray(count, jnp.float32)
        z = random.normal(key, (d,), block=_MEAN)
        mean = params.mean + kind.matvec(params.root, z) / jnp.sqrt(jnp.maximum(count, 1.0))
        return Statistics(count, 0 * count, mean, *_scatter(kind, key, params, count - 1))

    def fit(key, params, data):
        stats = summarise(data)
        return Normal(stats.mean, *_divided(kind, stats, jnp.sqrt(stats.size - ddof))), {}

    def read(key, real):
        points = reading.over_cells(reading.points(real, d, n), key.ndim)
        return rows(points, real=True, cells=(1,) * key.ndim)

    def fresh(key, kept, truth, count):
        return _drawn_again(kind, key, kept, count, slots) if isinstance(kept, Rows) else None

    def observe(key, real):
        if real is None or isinstance(real, Normal):
            known = reading.over_cells(truth if real is None else real, key.ndim)
            drawn = sample(key, known, n)
            return (drawn._replace(real=drawn.weight if isinstance(drawn, Rows) else drawn.size)), known
        data = read(key, real)
        stats = _of_rows(kind, data)
        return (data if slots is not None else stats), Normal(stats.mean, stats.root / jnp.sqrt(stats.size))

    return Model(
        name="gaussian",
        n=n,
        memory=rows_memory(slots) if slots is not None else _memory(kind),
        observe=observe,
        sample=sample,
        fit=fit,
        keep=read,
        fresh=fresh,
        measure=lambda params, known: _measure(covariance, params, known),
        batched=True,
        estimator=f"{covariance} covariance, ddof {ddof}",
        forms=ClosedForms(
            temper=lambda params, temperature: stretched(kind, params, jnp.sqrt(temperature)),
            blend=lambda a, b, w: _blend(covariance, a, b, w),
            accept=lambda params, score: _accept(covariance, params, score),
            objective=_objective(covariance, d, summarise),
        ),
    )


def _scatter(kind, key, params, dof):
    """The scatter of dof + 1 draws: its root, and the octaves of that."""
    factor = kind.factor(key, dof)
    root = kind.product(params.root, factor)
    return root, factors.follow(kind.diagonal(root), params.octaves + factors.octaves(kind.diagonal(factor)))


def _divided(kind, stats, divisor):
    root = stats.root / divisor
    return root, factors.follow(kind.diagonal(root), stats.octaves - factors.octaves(divisor))


def _drawn_again(kind, key, kept: Rows, count, slots):
    """The user's own rows, drawn again with replacement; as rows or as their statistics."""
    drawn = bootstrap(key, kept, count)
    return drawn if slots is not None else _of_rows(kind, drawn)


def _memory(kind) -> Memory:
    def merge(a: Statistics, b: Statistics) -> Statistics:
        size = a.size + b.size
        share = b.size / jnp.maximum(size, jnp.finfo(jnp.float32).tiny)
        gap = b.mean - a.mean
        root = kind.union(a.root, b.root, jnp.sqrt(a.size * share) * gap)
        followed = factors.follow(kind.diagonal(root), factors.octaves_of_union(a.octaves, b.octaves))
        return Statistics(size, a.real + b.real, a.mean + share * gap, root, followed)

    def scale(a: Statistics, w) -> Statistics:
        return stretched(kind, a._replace(size=a.size * w, real=a.real * w), jnp.sqrt(w))

    return additive(merge, scale, lambda a: a.size, lambda a: a.real)


def _of_rows(kind, data: Rows) -> Statistics:
    size = data.weight.sum(0)
    mean = (data.weight[:, None] * data.values).sum(0) / jnp.maximum(size, jnp.finfo(jnp.float32).tiny)
    centred = jnp.sqrt(data.weight)[:, None] * (data.values - mean)
    return Statistics(size, data.real.sum(0), mean, kind.of_rows(centred))


def _sample_rows(kind, key, params, count, slots):
    d = params.mean.shape[0]
    z = random.normal(key, (d, slots))
    root, mean = params.root, params.mean
    # the row axis stands between d and the cells, so that the same product serves one vector and many
    root = root.reshape(root.shape[: root.ndim - (mean.ndim - 1)] + (1,) + mean.shape[1:])
    points = jnp.moveaxis(mean[:, None] + kind.matvec(root, z), 1, 0)
    return rows(points, count, cells=points.shape[2:])


def _covariance(covariance, params):
    root = params.root
    return jnp.einsum("ik...,jk...->ij...", root, root) if covariance == "full" else root**2


def _rooted(covariance, mean, matrix):
    return Normal(mean, factors.of_matrix(matrix) if covariance == "full" else jnp.sqrt(jnp.maximum(matrix, 0.0)))


def _blend(covariance, a, b, w):
    matrix = (1 - w) * _covariance(covariance, a) + w * _covariance(covariance, b)
    return _rooted(covariance, (1 - w) * a.mean + w * b.mean, matrix)


def _accept(covariance, params, score):
    """The Gaussian times the verifier's exp(-|x - centre|^2 / (2 tau^2)): precisions add."""
    if not isinstance(score, tuple):
        raise InputError("verifier must be given tau, not keep, for the gaussian family: its points have no labels.")
    centre, tau = score
    centre = jnp.asarray(centre, jnp.float32).reshape((-1,) + (1,) * (params.mean.ndim - 1))
    c = _covariance(covariance, params)
    if covariance != "full":
        shrink = tau**2 / (c + tau**2)
        return Normal(shrink * params.mean + (1 - shrink) * centre, jnp.sqrt(c * shrink))
    c = jnp.moveaxis(c, (0, 1), (-2, -1))
    gain = c @ jnp.linalg.inv(c + tau**2 * jnp.eye(c.shape[-1]))
    move = jnp.moveaxis((gain @ jnp.moveaxis(centre - params.mean, 0, -1)[..., None])[..., 0], -1, 0)
    return _rooted(covariance, params.mean + move, jnp.moveaxis(c - gain @ c, (-2, -1), (0, 1)))


def _objective(covariance, d, summarise) -> Objective:
    """Minus the mean log-likelihood, nats, in the mean, the log of the root's diagonal, and what is below the diagonal."""
    rows_below, columns_below = np.tril_indices(d, -1)

    def free(params: Normal):
        if covariance != "full":
            return {"mean": params.mean, "log_root": jnp.log(params.root)}
        below = params.root[rows_below, columns_below]
        return {"mean": params.mean, "log_root": jnp.log(jnp.diagonal(params.root)), "below": below}

    def bound(free) -> Normal:
        root = jnp.exp(free["log_root"])
        if covariance == "full":
            root = jnp.diag(root).at[rows_below, columns_below].set(free["below"])
        return Normal(free["mean"], root)

    def risk(key, free, data):
        stats, params = summarise(data), bound(free)
        gap = (stats.mean - params.mean)[:, None]
        if covariance == "full":
            white = jax.scipy.linalg.solve_triangular(params.root, jnp.concatenate([stats.root, gap], 1), lower=True)
            spread, moved = white[:, :-1], white[:, -1:]
        else:
            spread, moved = jnp.broadcast_to(stats.root / params.root, (d,)), gap[:, 0] / params.root
        log_det = jnp.broadcast_to(free["log_root"], (d,)).sum()
        return log_det + 0.5 * (jnp.sum(spread**2) / stats.size + jnp.sum(moved**2)) + d / 2 * np.log(2 * np.pi)

    def expect(params: Normal) -> Statistics:
        return Statistics(jnp.float32(1.0), jnp.float32(0.0), params.mean, params.root)

    return Objective(risk, free, bound, likelihood=True, expect=expect)


def _measure(covariance, params, truth):
    d = params.mean.shape[0]
    gap = factors.total((params.mean - truth.mean) ** 2)
    full = covariance == "full"
    trace, base = (factors.total(p.root**2, 2 if full else 1) for p in (params, truth))
    diagonals = [factors.log_diagonal(factors.diagonal(p.root) if full else p.root, p.octaves) for p in (params, truth)]
    scale = d / diagonals[0].shape[0]
    return {
        "trace_ratio": trace / base,
        "mean_sq_error": gap,
        "w2": gaussian_w2(covariance, gap, params.root, truth.root, d),
        "log_det": 2 * scale * factors.total(diagonals[0] - diagonals[1]),
    }
