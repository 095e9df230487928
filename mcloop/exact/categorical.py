"""Categories redrawn from their own frequencies (genetic drift), exact in law: a generation is one multinomial, whatever n."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check, known, numbers
from mcloop.exact import reading
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.random import counts as variates
from mcloop.types import ClosedForms, InputError, Memory, Model, Objective, additive

_TINY = np.finfo(np.float32).tiny


class Categorical(NamedTuple):
    """Probabilities `p` (k, *cells), summing to one along axis 0."""

    p: jax.Array


class Counts(NamedTuple):
    """How often each category was drawn: `counts` (k, *cells), of total weight `size`, of which `real` is real data."""

    size: jax.Array
    real: jax.Array
    counts: jax.Array


def categorical(k: int, n, p=None, zipf=None, literal: bool = False, capacity: int | None = None) -> Model:
    """A distribution over k categories, refitted by its relative frequencies.

    Measures `heterozygosity`, 1 - sum p^2; `lost_mass`, the true probability of the categories that the model gives none;
    `distinct`, the share of categories that it gives some; `mean_sq_error`, ||p - p*||^2.

    Args:
        k: categories.
        n: real draws, and the unit of every draw; may be traced. Counts are exact up to 2^24.
        p: (k,) true probabilities, in any unit; default equal.
        zipf: in place of p, the exponent s of p_i proportional to i^-s; may be traced.
        literal: draw every token and keep it.
        capacity: (literal) the most tokens in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: p that is not k numbers >= 0 with a positive sum, both p and zipf, real tokens outside 0, ..., k - 1.
    """
    check("k", k, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    reading.check_size(n)
    slots = reading.slots(n, capacity) if literal else None
    true_p = _probabilities(k, p, zipf)

    def sample(key, params: Categorical, count):
        if slots is not None:
            tokens = random.categorical(key, params.p, slots)
            return rows(tokens, count, cells=tokens.shape[1:])
        drawn = variates.multinomial(key, count, params.p)
        size = jnp.asarray(count, jnp.float32)
        return Counts(size, 0 * size, drawn)

    def fit(key, params, data):
        frequencies = _count(data, k) if isinstance(data, Rows) else data
        return Categorical(frequencies.counts / jnp.maximum(frequencies.size, _TINY)), {}

    def observe(key, real):
        if real is None:
            truth = Categorical(true_p if true_p.ndim > 1 else reading.over_cells(true_p, key.ndim))
            return reading.as_real(sample(key, truth, n)), truth
        tokens = reading.over_cells(_tokens(real, k, n), key.ndim)
        data = rows(tokens, real=True, cells=tokens.shape[1:])
        found = _count(data, k)
        return (found if slots is None else data), Categorical(found.counts / found.size)

    return Model(
        name="categorical",
        n=n,
        memory=_memory() if slots is None else rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=_measure,
        keep=None if slots is not None else lambda key, real: (),  # frequencies are the data: the fit draws them again
        batched=True,
        estimator="relative frequencies",
        forms=ClosedForms(
            temper=_temper,
            blend=lambda a, b, w: _normalised(jnp.maximum((1 - w) * a.p + w * b.p, 0.0)),
            accept=lambda params, keep: _normalised(params.p * _keep(keep, params.p)),
            objective=_objective(k),
        ),
    )


def _objective(k, alive: np.ndarray | None = None) -> Objective:
    """Half the squared distance of probabilities from frequencies, in all categories that are `alive` but the likeliest.

    It has the minimum of the likelihood. A category that the model gives nothing stays at nothing and is no coordinate.
    """
    kept = np.arange(k) if alive is None else alive
    reference, moving = kept[-1], kept[:-1]

    def bound(p):
        return Categorical(jnp.zeros(k, jnp.float32).at[moving].set(p).at[reference].set(1 - p.sum()))

    def risk(key, p, data):
        counts = (_count(data, k) if isinstance(data, Rows) else data).counts
        return 0.5 * jnp.sum((p - counts[moving] / counts.sum()) ** 2)

    def at(params: Categorical) -> Objective:
        order = np.argsort(np.asarray(params.p), kind="stable")
        return _objective(k, order[np.asarray(params.p)[order] > 0])

    return Objective(
        risk,
        lambda params: params.p[moving],
        bound,
        likelihood=True,
        expect=lambda params: Counts(jnp.float32(1.0), jnp.float32(0.0), params.p),
        at=at if alive is None else None,
    )


def _probabilities(k, p, zipf):
    if p is not None and zipf is not None:
        raise InputError("p and zipf must not both be given to categorical: they both say what the truth is.")
    if zipf is not None:
        check("zipf", zipf, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))
        rank = jnp.arange(1, k + 1, dtype=jnp.float32).reshape((k,) + (1,) * np.ndim(zipf))
        return _normalised(jnp.exp(-jnp.asarray(zipf) * jnp.log(rank))).p
    if p is None:
        return jnp.full(k, 1 / k, jnp.float32)
    if np.shape(p) != (k,):
        raise InputError(f"p must be an array of shape ({k},), not {list(np.shape(p))}.")
    check("p", p, "finite numbers >= 0 with a positive sum", lambda v: (v >= 0) & np.isfinite(v) & (v.sum() > 0))
    return _normalised(jnp.asarray(p, jnp.float32)).p


def _tokens(real, k, n):
    real = numbers("real", real)
    tokens, kind = known(real), real.dtype
    if np.ndim(real) != 1 or not jnp.issubdtype(kind, jnp.integer):
        raise InputError(f"real must be a one-dimensional array of integers, not {kind}{list(np.shape(real))}.")
    if tokens is not None and ((tokens < 0) | (tokens >= k)).any():
        raise InputError(f"real must hold tokens from 0 to {k - 1}, not {tokens.min()} to {tokens.max()}.")
    if (size := known(n)) is not None and np.any(size != np.shape(real)[0]):
        raise InputError(f"n must be the number of real tokens, {np.shape(real)[0]}, not {n}.")
    return jnp.asarray(real, jnp.int32)


def _count(data: Rows, k) -> Counts:
    """Weights added up category by category, a scatter in place of a (r, k) table."""
    cells = data.weight.shape[1:]
    tokens = jnp.broadcast_to(data.values, data.weight.shape)
    places = (tokens, *jnp.indices(data.weight.shape, sparse=True)[1:])
    return Counts(data.weight.sum(0), data.real.sum(0), jnp.zeros((k, *cells), jnp.float32).at[places].add(data.weight))


def _memory() -> Memory:
    return additive(
        merge=lambda a, b: Counts(a.size + b.size, a.real + b.real, a.counts + b.counts),
        scale=lambda a, w: Counts(a.size * w, a.real * w, a.counts * w),
        size=lambda a: a.size,
        real=lambda a: a.real,
    )


def _normalised(weights) -> Categorical:
    return Categorical(weights / jnp.maximum(weights.sum(0), _TINY))


def _temper(params: Categorical, temperature) -> Categorical:
    """p^(1/T) / Z, relative to the largest so that no power underflows there."""
    return _normalised((params.p / params.p.max(0)) ** (1 / jnp.asarray(temperature)))


def _keep(keep, p):
    if isinstance(keep, tuple):  # (centre, tau)
        raise InputError("verifier must be given keep, not tau, for the categorical family: its points have no distances.")
    if np.shape(keep)[:1] != p.shape[:1]:
        raise InputError(f"keep must be an array of shape ({p.shape[0]},), not {list(np.shape(keep))}.")
    return reading.over_cells(keep, p.ndim - np.ndim(keep))


def _measure(params: Categorical, truth: Categorical) -> dict:
    alive = params.p > 0
    return {
        "heterozygosity": (params.p * (1 - params.p)).sum(0),  # 1 - sum p^2 would lose its digits near fixation
        "lost_mass": jnp.where(alive, 0.0, truth.p).sum(0),
        "distinct": alive.mean(0),
        "mean_sq_error": ((params.p - truth.p) ** 2).sum(0),
    }
