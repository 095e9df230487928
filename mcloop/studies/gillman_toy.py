"""The Gaussian toy of Gillman et al. as their released script runs it, which is not the loop that the paper describes.

Three departures, each kept: the corrector cuts its target off (see `correctors.histogram(released=True)`); at step T,
step i still contributes the first floor(m i / T) of its m points, so that the pool grows by about m / 2 a step; and the
fitted covariance gets 1e-6 on its diagonal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import correctors
from mcloop.checks import check
from mcloop.exact import factors
from mcloop.exact.gaussian import gaussian
from mcloop.exact.normal import Normal, Statistics
from mcloop.loop import make_loop
from mcloop.memory.rows import Rows, put
from mcloop.types import Draw, InputError, Loop, Memory, Model, Regime, Supply

_JITTER = 1e-6  # scikit-learn's reg_covar


class _Accrued(NamedTuple):
    """Running sums over steps of (1, x, x x^T), point by point.

    Attributes:
        last: the sums up to now, (m, 1 + d + d^2, *cells).
        history: the sums after every step, (steps + 1, m, 1 + d + d^2, *cells). `last` is carried beside it because
            reading the row just written would make XLA copy the whole history at every step.
    """

    last: jax.Array
    history: jax.Array


def gillman_toy(gamma, n: int = 50, lam: float = 0.5, d: int = 2) -> Loop:
    """The released Gaussian toy: real data, and a growing pool of histogram-corrected samples.

    Args:
        gamma: correction strength, >= 0; 0 still distorts (the cut-off target has variance .65, not 1).
        n: real points.
        lam: new synthetic points a step over n.

    Returns:
        A Loop; its `init` needs `generations`. Generation g is the script's step g - 1.
    """
    check("lam", lam, "a ratio in (0, 1] with lam n >= 2", lambda v: (v > 0) & (v <= 1) & (v * n >= 2))
    m = int(lam * n)
    model = gaussian(d=d, n=n, literal=True)

    def fit(key, params, data):
        fitted, info = model.fit(key, params, data)
        ridge = jnp.sqrt(_JITTER) * jnp.eye(d).reshape((d, d) + (1,) * (fitted.root.ndim - 2))
        return Normal(fitted.mean, factors.union(fitted.root, ridge, jnp.zeros((d,) + (1,) * (fitted.mean.ndim - 1)))), info

    memory = model.memory._replace(size=lambda a: _mass(a)[0], real=lambda a: _mass(a)[1])
    return make_loop(model._replace(fit=fit, memory=memory), _accrue(m), _first(m, correctors.histogram(gamma, released=True)))


def _mass(a):
    return (a.weight.sum(0), a.real.sum(0)) if isinstance(a, Rows) else (a.size, a.real)


def _first(m: int, corrector):
    """The corrector on batches of exactly m rows: the histogram loops over every slot it is given."""

    def sample(key, model: Model, params, truth, count):
        def short(key, params, count):
            return jax.tree.map(lambda x: x[:m], model.sample(key, params, count))

        return corrector.sample(key, model._replace(sample=short), params, truth, count)

    return corrector._replace(sample=sample)


def _dropped(m: int, steps: int) -> np.ndarray:
    """For step T and point k, how many of the first steps no longer contribute their point k: (steps + 1, m)."""
    dropped = np.zeros((steps + 1, m), np.int32)
    for t in range(1, steps + 1):
        included = (np.arange(1, t + 1) / t * m).astype(int)  # the script's own floating-point order
        dropped[t] = (included[:, None] <= np.arange(m)).sum(0)
    return dropped


def _accrue(m: int) -> Regime:
    def init(memory: Memory, real: Rows, capacity, generations: int | None):
        if generations is None:
            raise InputError("generations must be given to init, since the pool keeps running sums of every step; it is None.")
        d, cells = real.values.shape[1], real.values.shape[2:]
        empty = jnp.zeros((m, 1 + d + d * d) + cells)
        return _Accrued(empty, jnp.zeros((generations,) + empty.shape))

    def update(memory: Memory, pool: _Accrued, supply: Supply, t):
        last = pool.last + _moments(supply.synthetic.values)
        return _Accrued(last, put(pool.history, last[None], t - 1))

    def view(key, memory: Memory, pool: _Accrued, supply: Supply, n, t):
        dropped = jnp.asarray(_dropped(m, pool.history.shape[0] - 1))[t - 1]
        left = pool.last - pool.history[dropped, jnp.arange(m)]
        return _summarise(left.sum(0) + _moments(supply.real.values).sum(0), n)

    return Regime("accrue_released", lambda n, t: Draw(jnp.float32(m)), view, init, update)


def _moments(points: jax.Array) -> jax.Array:
    """(r, d, *cells) -> (r, 1 + d + d^2, *cells): one, the point, its outer product."""
    r, d = points.shape[:2]
    outer = (points[:, :, None] * points[:, None]).reshape((r, d * d) + points.shape[2:])
    return jnp.concatenate([jnp.ones((r, 1) + points.shape[2:]), points, outer], 1)


def _summarise(sums: jax.Array, real: Any) -> Statistics:
    d = round((sums.shape[0] - 1) ** 0.5 - 0.5) or 1
    size, mean = sums[0], sums[1 : 1 + d] / sums[0]
    outer = sums[1 + d :].reshape((d, d) + sums.shape[1:])
    # no catastrophic cancellation: the pool's mean is small against its spread, and its size a few thousand
    return Statistics(size, 0 * size + real, mean, factors.cholesky(outer - size * mean[:, None] * mean[None]))
