"""Exponential families of one parameter, their mean, refitted to their own samples: exact in law through the sample's sum.

The law of all of them is in the variance function V(m) = v0 + v1 m + v2 m^2 (Morris 1982): only v2 moves its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check, known, numbers
from mcloop.exact import means, reading
from mcloop.memory.rows import Rows, bootstrap, rows, rows_memory
from mcloop.random import counts
from mcloop.types import ClosedForms, InputError, Model, Objective


class Moment(NamedTuple):
    """A member of the family: its `mean` (*cells,)."""

    mean: jax.Array


class _Family(NamedTuple):
    """What differs: V's coefficients, the sum of `count` draws, one draw a row, and where means and points may lie."""

    name: str
    variance: tuple[Any, Any, Any]
    total: Callable[..., jax.Array]
    draw: Callable[..., jax.Array]
    most: float = np.inf
    whole: bool = True


def bernoulli(mean=0.5, n=100, literal: bool = False, capacity: int | None = None) -> Model:
    """Coins: V(m) = m - m^2. Arguments as for `gamma_family`; `mean` in (0, 1)."""
    check("mean", mean, "a number in (0, 1)", lambda v: (v > 0) & (v < 1))

    def draw(key, m, slots):
        return jnp.where(random.uniform(key, (slots,)) < m, 1.0, 0.0)

    model = _model(_Family("bernoulli", (0.0, 1.0, -1.0), counts.binomial, draw, 1.0), mean, n, literal, capacity)
    return model._replace(forms=model.forms._replace(temper=_temper, accept=_accept))


def poisson(mean=1.0, n=100, literal: bool = False, capacity: int | None = None) -> Model:
    """Counts: V(m) = m. Arguments as for `gamma_family`."""
    check("mean", mean, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))

    def total(key, count, m):
        return counts.poisson(key, count * m)

    def draw(key, m, slots):
        return counts.poisson(key, m, (slots,))

    return _model(_Family("poisson", (0.0, 1.0, 0.0), total, draw), mean, n, literal, capacity)


def gamma_family(mean=1.0, shape=1.0, n=100, literal: bool = False, capacity: int | None = None) -> Model:
    """Gamma variables of a known shape k (k = 1: exponential waiting times): V(m) = m^2 / k.

    Measures `mean`; `variance_ratio`, V(m) / V(m*); `mean_sq_error`, (m - m*)^2 in units of the points squared.

    Args:
        mean: the true mean; may be traced, as may `shape`.
        shape: k > 0, known to the fit.
        n: real points, and the unit of every draw; may be traced.
        literal: draw every point and keep it.
        capacity: (literal) the most points in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: a mean, shape or size out of range; real data that the family cannot have drawn.
    """
    check("mean", mean, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))
    check("shape", shape, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))

    def total(key, count, m):
        return random.gamma(key, jnp.maximum(count, 1.0) * shape) * m / shape

    def draw(key, m, slots):
        return random.gamma(key, shape, (slots,)) * m / shape

    family = _Family("gamma", (0.0, 0.0, 1 / shape), total, draw, whole=False)
    return _model(family, mean, n, literal, capacity)


def _model(family: _Family, true_mean, n, literal, capacity) -> Model:
    reading.check_size(n)
    slots = reading.slots(n, capacity) if literal else None
    v0, v1, v2 = family.variance

    def sample(key, params: Moment, count):
        if slots is not None:
            points = family.draw(key, params.mean, slots)
            return rows(points, count, cells=points.shape[1:])
        size = jnp.asarray(count, jnp.float32)
        return means.Mean(size, 0 * size, family.total(key, size, params.mean) / jnp.maximum(size, 1.0))

    def fit(key, params, data):
        if isinstance(data, Rows):
            return Moment((data.weight * data.values).sum(0) / data.weight.sum(0)), {}
        return Moment(data.mean), {}

    def read(key, real):
        points = reading.over_cells(_points(family, real, n), key.ndim)
        return rows(points, real=True, cells=points.shape[1:])

    def fresh(key, kept, truth, count):
        if not isinstance(kept, Rows):
            return None
        drawn = bootstrap(key, kept, count)
        size = drawn.weight.sum(0)
        mean = (drawn.weight * drawn.values).sum(0) / jnp.maximum(size, 1.0)
        return drawn if slots is not None else means.Mean(size, size, mean)

    def observe(key, real):
        if real is None:
            truth = Moment(jnp.asarray(true_mean, jnp.float32))
            return reading.as_real(sample(key, truth, n)), truth
        data = read(key, real)
        mean = data.values.mean(0)
        size = data.weight.sum(0)
        return (data if slots is not None else means.Mean(size, size, mean)), Moment(mean)

    def variance(m):
        return v0 + v1 * m + v2 * m * m

    def measure(params: Moment, truth: Moment):
        return {
            "mean": params.mean,
            "variance_ratio": variance(params.mean) / variance(truth.mean),
            "mean_sq_error": (params.mean - truth.mean) ** 2,
        }

    return Model(
        name=family.name,
        n=n,
        memory=means.memory() if slots is None else rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=measure,
        keep=read,
        fresh=fresh,
        batched=True,
        estimator="sample mean",
        forms=ClosedForms(
            blend=lambda a, b, w: Moment(jnp.clip((1 - w) * a.mean + w * b.mean, 0.0, family.most)),
            objective=_objective(),
        ),
    )


def _objective() -> Objective:
    """Half the squared distance of the mean from the sample's: with the minimum of the likelihood, at the range's ends too."""

    def risk(key, mean, data):
        m = (data.weight @ data.values) / data.weight.sum() if isinstance(data, Rows) else data.mean
        return 0.5 * (mean - m) ** 2

    return Objective(
        risk,
        lambda params: params.mean,
        Moment,
        likelihood=True,
        expect=lambda params: means.Mean(jnp.float32(1.0), jnp.float32(0.0), params.mean),
    )


def _points(family: _Family, real, n):
    real = numbers("real", real)
    points = reading.points(real, None, n, centred=False)
    if (array := known(real)) is not None:
        bad = (array < 0) | (array > family.most) | (family.whole & (array != np.floor(array)))
        if bad.any():
            kind = "0 or 1" if family.most == 1 else "whole numbers >= 0" if family.whole else "numbers >= 0"
            raise InputError(f"real must hold {kind} for the {family.name} family, not {array[bad][0]:g}.")
    return points


def _temper(params: Moment, temperature) -> Moment:
    """The coin whose log odds are divided by T."""
    heads, tails = (x ** (1 / jnp.asarray(temperature)) for x in (params.mean, 1 - params.mean))
    return Moment(heads / (heads + tails))


def _accept(params: Moment, keep) -> Moment:
    """The coin after a label verifier that keeps 0 with probability keep[0] and 1 with probability keep[1]."""
    if np.shape(keep)[:1] != (2,):
        raise InputError(f"keep must be an array of shape (2,), not {list(np.shape(keep))}.")
    heads = params.mean * keep[1]
    return Moment(heads / (heads + (1 - params.mean) * keep[0]))
