"""Kernel density estimates refitted to their own samples: every generation convolves with the kernel once more."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check
from mcloop.exact import factors, reading
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.types import InputError, Model

_NOISE = 2**16 + 1  # the stream of the kernel's normals, beside the choice of a centre


class Kernel(NamedTuple):
    """A Gaussian kernel density estimate: weighted centres, and the kernel's standard deviation.

    `points` (r, d, *cells), `weight` (r, *cells), 0 for an empty slot, `bandwidth` () or (*cells,).
    """

    points: jax.Array
    weight: jax.Array
    bandwidth: jax.Array


def kde(d: int = 1, n=100, bandwidth=0.1, capacity: int | None = None, truth: str = "normal") -> Model:
    """The Gaussian kernel density estimate with a fixed bandwidth; it keeps rows, and its parameters are its rows.

    Measures `second_moment`, E|x|^2 / d of the estimate, kernel included; `mean_sq_error`, the squared distance of its mean
    from the truth's.

    Args:
        d: dimension.
        n: real points, and the unit of every draw; may be traced.
        bandwidth: standard deviation of the kernel, >= 0 (0 is the bootstrap); may be traced.
        capacity: the most points in one draw; default n, needed when n is traced or lam > 1.
        truth: what `real=None` draws from: "normal", which is N(0, I).

    Raises:
        InputError: a negative bandwidth, an unknown truth, real points of another shape than (n, d).
    """
    check("d", d, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    reading.check_size(n)
    check("bandwidth", bandwidth, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))
    if truth != "normal":
        raise InputError(f"truth must be 'normal', not {truth!r}.")
    slots = reading.slots(n, capacity)

    def sample(key, params: Kernel, count):
        centre = random.categorical(key, params.weight, slots)
        cells = jnp.broadcast_shapes(centre.shape[1:], params.points.shape[2:], jnp.shape(params.bandwidth))
        centre = jnp.broadcast_to(centre, (slots, *cells))
        source = jnp.broadcast_to(params.points, params.points.shape[:2] + cells)
        values = jnp.take_along_axis(source, centre[:, None], 0)
        values = values + params.bandwidth * random.normal(key, (slots, d), block=_NOISE)
        return rows(values, count, cells=cells)

    def fit(key, params, data: Rows):
        return Kernel(data.values, data.weight, jnp.asarray(bandwidth, jnp.float32)), {}

    def observe(key, real):
        ones = (1,) * key.ndim
        if real is None:
            # N(0, I) is itself the estimate with one centre and bandwidth one
            known = Kernel(jnp.zeros((1, d, *ones)), jnp.ones((1, *ones)), jnp.ones(()))
            data = sample(key, known, n)
            return reading.as_real(data), known
        values = reading.over_cells(reading.points(real, d, n), key.ndim)
        if len(values) > slots:
            raise InputError(f"capacity must hold the real data, {len(values)} rows, not {slots}.")
        data = rows(values, real=True, cells=ones)
        return data, fit(key, None, data)[0]

    return Model(
        name="kde",
        n=n,
        memory=rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=_measure,
        batched=True,
        estimator="Gaussian kernel, fixed bandwidth",
    )


def _measure(params: Kernel, truth: Kernel) -> dict:
    d = params.points.shape[1]
    share = (params.weight / params.weight.sum(0))[:, None]
    square = factors.total((share * params.points**2).sum(0)) / d
    gap = (share * params.points).sum(0) - _mean(truth)
    return {"second_moment": square + params.bandwidth**2, "mean_sq_error": factors.total(gap**2)}


def _mean(params: Kernel):
    return ((params.weight / params.weight.sum(0))[:, None] * params.points).sum(0)
