"""The rate of any loop, by running it twice: power iteration on the whole retraining map, for models too deep for Hessians."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.errors import InputError
from mcloop.types import Loop, State


class Rate(NamedTuple):
    """How two runs of a loop under common random numbers, a little apart, came together or went apart.

    Attributes:
        parameters: (generations - 1,) the factor by which each generation multiplied the distance of their parameters.
        samples: (generations - 1,) the same of what they draw from the same noise, root mean square over points.
    """

    parameters: np.ndarray
    samples: np.ndarray

    @property
    def rate(self) -> float:
        """The factor a generation of the parameters' distance, geometric mean over the later half."""
        return _late(self.parameters)

    @property
    def sample_rate(self) -> float:
        """The same of the samples' distance."""
        return _late(self.samples)


def _late(factors: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(factors[len(factors) // 2 :], 1e-30)))))


def blackbox_rate(
    loop: Loop,
    key: jax.Array,
    generations: int = 6,
    *,
    state: State | None = None,
    real: Any = None,
    step: float = 1e-2,
    points: int = 256,
) -> Rate:
    """Two copies of a loop, perturbed to both sides, are retrained under the same random numbers, generation after generation.

    The difference of two copies obeys delta -> J delta with J the Jacobian of everything between two generations: sampler,
    corrector, pool, warm start and optimiser. It turns into the direction that dies out last, and is scaled back to its first
    length after every generation about the middle of the two (power iteration; Benettin et al. 1980). Nothing is
    differentiated, so any model will do, one that runs on the host included. The parameters of a warm-started network keep
    what its loss does not see, and their rate is then near one; the rate of the samples is the one that matters.

    Args:
        loop: any loop.
        key: of all its randomness.
        generations: fits, >= 2, the first one included; each costs two fits.
        state: where to start; default the fit on real data.
        real: for `loop.init`, where no state is given.
        step: size of the perturbation relative to each array's root mean square. Images are kept as bytes: smaller steps drown
            in their rounding.
        points: drawn to compare samples.

    Raises:
        InputError: too few generations, a step that is not positive, a loop that is already at rest to rounding.
    """
    if not isinstance(generations, int) or generations < 2:
        raise InputError(f"generations must be a whole number >= 2, not {generations!r}.")
    if not (np.isfinite(step) and step > 0):
        raise InputError(f"step must be a finite number > 0, not {step!r}.")
    key = random.as_key(key)
    compiled = (lambda f: f) if loop.model.hosted is not None else jax.jit
    state = compiled(lambda key: loop.init(key, real, generations))(key) if state is None else state
    advance = compiled(lambda key, state: loop.generation(key, state)[0])  # what is seen is not computed
    draw = compiled(lambda params: loop.model.sample(random.fold_in(key, 2**20), params, points))
    rng = np.random.default_rng(0)
    half = jax.tree.map(lambda x: _kick(rng, x, step), state.params)
    pair = [state._replace(params=_add(state.params, half, sign)) for sign in (1, -1)]
    first = _norm(pair[0].params, pair[1].params)
    if first == 0:
        raise InputError("step must be larger: the two copies are equal to rounding.")
    parameters, samples = [], []
    for _ in range(generations - 1):
        before = _apart(draw, pair)
        pair = [advance(key, one) for one in pair]
        samples.append(_apart(draw, pair) / before if before > 0 else np.nan)
        gap = _norm(pair[0].params, pair[1].params)
        parameters.append(gap / first)
        if not np.isfinite(gap) or gap == 0:
            break
        pair = [_rescaled(pair, sign, first / gap) for sign in (1, -1)]
    return Rate(np.asarray(parameters), np.asarray(samples))


def _is_float(x) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)


def _kick(rng, x, step):
    x = jnp.asarray(x)
    if not _is_float(x):
        return x
    size = jnp.sqrt(jnp.mean(x**2)) if x.size else 0.0
    return (step * size * rng.standard_normal(x.shape)).astype(x.dtype)


def _add(params, half, sign):
    return jax.tree.map(lambda x, d: jnp.asarray(x) + sign * d if _is_float(x) else x, params, half)


def _rescaled(pair, sign: int, factor: float) -> State:
    """One copy at `factor` times its distance from the middle; a pool of arrays goes with it, one on disk stays as it is."""

    def move(a, b):
        if not _is_float(a):
            return a
        return (a + b) / 2 + sign * factor * (a - b) / 2

    chosen = pair[0] if sign > 0 else pair[1]
    arrays = all(isinstance(x, jax.Array) for x in jax.tree.leaves(chosen.pool))
    pool = jax.tree.map(move, pair[0].pool, pair[1].pool) if arrays else chosen.pool
    return chosen._replace(params=jax.tree.map(move, pair[0].params, pair[1].params), pool=pool)


def _norm(a, b) -> float:
    """The Euclidean distance of two pytrees."""
    square = jax.tree.map(lambda x, y: float(jnp.sum((x - y) ** 2)) if _is_float(x) else 0.0, a, b)
    return float(np.sqrt(sum(jax.tree.leaves(square))))


def _apart(draw, pair) -> float:
    """Root mean square distance of what two models draw from the same noise."""
    drawn = [draw(one.params) for one in pair]
    a, b = ([np.asarray(x, np.float64) for x in jax.tree.leaves(_values(d)) if np.asarray(x).dtype.kind in "fu"] for d in drawn)
    size = sum(x.size for x in a)
    return float(np.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)) / max(size, 1)))


def _values(batch):
    """The points of a batch: rows and shards have them, statistics are compared as they are."""
    if hasattr(batch, "take"):
        return batch.take(np.arange(len(batch)))
    return getattr(batch, "values", batch)
