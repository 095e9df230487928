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
        parameters: (generations - 1,) the factor by which each generation multiplied the distance of their parameters,
            geometric mean over seeds.
        samples: (generations - 1,) the same of what they draw from the same noise, root mean square over points.
        runs: (seeds, 2) the factor a generation of each seed, of parameters and of samples: geometric means over the later
            half.
    """

    parameters: np.ndarray
    samples: np.ndarray
    runs: np.ndarray

    @property
    def rate(self) -> float:
        """The factor a generation of the parameters' distance, geometric mean over the later half and over seeds."""
        return float(_geometric(self.runs[:, 0]))

    @property
    def sample_rate(self) -> float:
        """The same of the samples' distance."""
        return float(_geometric(self.runs[:, 1]))

    def errors(self) -> np.ndarray:
        """Standard errors of both rates over seeds; NaN for one seed."""
        if len(self.runs) == 1 or not np.all(self.runs > 0):
            return np.full(2, np.nan)
        logs = np.log(self.runs)
        return np.exp(logs.mean(0)) * logs.std(0, ddof=1) / len(logs) ** 0.5

    def sentence(self) -> str:
        """In words."""
        (own, drawn), many = self.errors(), bool(np.isfinite(self.errors()).all())
        shown = [f"{x:.3g}{f' +- {e:.1g}' if many else ''}" for x, e in ((self.rate, own), (self.sample_rate, drawn))]
        over = (
            f", over {len(self.runs)} seeds, with standard errors" if many else ", with one seed" if len(self.runs) == 1 else ""
        )
        return (
            f"Measured by running it twice, a little apart{over}: the parameters' distance is multiplied by {shown[0]} a "
            f"generation (generation by generation {_listed(self.parameters)}), that of the samples by {shown[1]} "
            f"({_listed(self.samples)})."
        )


def _listed(factors: np.ndarray) -> str:
    return ", ".join(f"{x:.3g}" for x in factors)


def _late(factors: np.ndarray) -> float:
    return float(_geometric(factors[len(factors) // 2 :]))


def _geometric(factors: np.ndarray, axis: int = 0):
    with np.errstate(divide="ignore"):  # copies that have met: a factor of 0
        return np.exp(np.log(factors).mean(axis))


def blackbox_rate(
    loop: Loop,
    key: jax.Array,
    generations: int = 6,
    *,
    state: State | None = None,
    real: Any = None,
    step: float = 1e-2,
    points: int = 256,
    seeds: int = 1,
) -> Rate:
    """Two copies of a loop, perturbed to both sides, are retrained under the same random numbers, generation after generation.

    The difference of two copies obeys delta -> J delta with J the Jacobian of everything between two generations: sampler,
    corrector, pool, warm start and optimiser. It turns into the direction that dies out last, and is scaled back to its first
    length after every generation about the middle of the two (power iteration; Benettin et al. 1980). Nothing is
    differentiated, so any model will do, one that runs on the host included. The parameters of a warm-started network keep
    what its loss does not see, and their rate is then near one; the rate of the samples is the one that matters.

    What is drawn must answer a small change smoothly: half the step must move draws half as far, to a quarter. Counts do not
    where the step is below their grain, and are refused (models on the host are not asked).

    Args:
        loop: any loop.
        key: of all its randomness.
        generations: fits, >= 2, the first one included; each costs two fits.
        state: where to start; default the fit on real data.
        real: for `loop.init`, where no state is given.
        step: size of the perturbation relative to each array's root mean square. Images are kept as bytes: smaller steps drown
            in their rounding.
        points: drawn to compare samples, where points are kept one by one; else as many as a generation draws.
        seeds: independent pairs, for a standard error.

    Raises:
        InputError: too few generations, a step that is not positive, a loop that is already at rest to rounding, draws in which
            the step is below the grain of counts.
    """
    if not isinstance(generations, int) or generations < 2:
        raise InputError(f"generations must be a whole number >= 2, not {generations!r}.")
    if not (np.isfinite(step) and step > 0):
        raise InputError(f"step must be a finite number > 0, not {step!r}.")
    key = random.as_key(key)
    hosted = loop.model.hosted is not None
    compiled = (lambda f: f) if hosted else jax.jit
    begin = compiled(lambda key: loop.init(key, real, generations))
    advance = compiled(lambda key, state: loop.generation(key, state)[0])  # what is seen is not computed
    count = _draws(loop, points)
    draw = compiled(lambda key, params: loop.model.sample(random.fold_in(key, 2**20), params, count))
    pairs = []
    for i in range(seeds):
        own = key if i == 0 else random.fold_in(random.fold_in(key, _SEED), i)
        first = begin(own) if state is None else state
        moved = advance(own, first).params
        if [jnp.shape(x) for x in jax.tree.leaves(first.params)] != [jnp.shape(x) for x in jax.tree.leaves(moved)]:
            raise InputError(
                f"regime '{loop.regime.name}' must leave the parameters of the {loop.model.name} family in one shape for a "
                "rate to be measured, and they are not as many after a generation."
            )
        half = _kick(first.params, moved, step)
        pairs.append((own, [first._replace(params=_add(first.params, half, sign)) for sign in (1, -1)]))
    if not hosted:
        _smooth(draw, pairs)
    found = [_run(own, pair, generations, advance, draw) for own, pair in pairs]
    long = min(len(p) for p, _ in found)
    parameters, samples = (np.stack([run[i][:long] for run in found]) for i in range(2))
    runs = np.array([[_late(p), _late(s)] for p, s in found])
    return Rate(_geometric(parameters), _geometric(samples), runs)


_SEED = 2**20 + 4  # the stream of further seeds


def _draws(loop: Loop, points: int):
    """How many points show what a model draws: of statistics as many as a generation draws (whole copies of a design)."""
    if loop.model.memory.capacity is not None or loop.model.hosted is not None:
        return points
    wanted = loop.regime.draw(loop.model.n, 2)
    return wanted.synthetic if np.all(np.asarray(wanted.synthetic) >= 1) else loop.model.n


def _run(key, pair, generations: int, advance, draw) -> tuple[np.ndarray, np.ndarray]:
    """The factors of one pair of copies, generation by generation."""
    first = _norm(pair[0].params, pair[1].params)
    if first == 0:
        raise InputError("step must be larger: the two copies are equal to rounding.")
    parameters, samples = [], []
    for _ in range(generations - 1):
        before = _apart(draw, key, pair)
        pair = [advance(key, one) for one in pair]
        gap, after = _norm(pair[0].params, pair[1].params), _apart(draw, key, pair)
        parameters.append(gap / first)
        samples.append(after / before if before > 0 else np.nan)
        if not np.isfinite(gap) or gap == 0:
            break
        pair = [_rescaled(pair, sign, first / gap) for sign in (1, -1)]
    return np.asarray(parameters), np.asarray(samples)


def _smooth(draw, pairs) -> None:
    """Refuse draws that do not answer a change smoothly: of half the change they must show half, to a quarter."""
    whole, left = 0.0, 0.0
    for key, pair in pairs:
        middle = jax.tree.map(lambda a, b: (a + b) / 2 if _is_float(a) else a, pair[0].params, pair[1].params)
        nearer = [jax.tree.map(lambda m, x: (m + x) / 2 if _is_float(m) else m, middle, one.params) for one in pair]
        far, near = (_gaps(draw, key, params) for params in ([one.params for one in pair], nearer))
        whole += sum(float((x**2).sum()) for x in far)
        left += sum(float(((x - 2 * y) ** 2).sum()) for x, y in zip(far, near, strict=True))
    if not left <= whole / 16:
        raise InputError(
            "step must be larger, or the draws: what is drawn does not follow a change of this size, which is below the grain "
            "of counts (how many points are of a class, or of a component)."
        )


def _is_float(x) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)


def _kick(params, moved, step):
    """Half the first difference: what one generation moved, a difference that the family can have, at `step`'s size."""
    size, gap = _norm(params, jax.tree.map(jnp.zeros_like, params)), _norm(params, moved)
    rng = np.random.default_rng(0)

    def half(x, y):
        if not _is_float(x):
            return x
        # what is at rest is pushed anywhere
        return _within(x, step * size / gap * (y - x)) if gap > 0 else _pushed(rng, x, step)

    return jax.tree.map(half, *(jax.tree.map(jnp.asarray, tree) for tree in (params, moved)))


def _pushed(rng, x, step):
    size = jnp.sqrt(jnp.mean(x**2)) if x.size else 0.0
    return (step * size * rng.standard_normal(x.shape)).astype(x.dtype)


def _within(x, half):
    """A change to both sides that leaves shares (numbers >= 0 that sum to one) shares."""
    shares = (x.size > 1) & (jnp.min(x, initial=0.0) >= 0) & (jnp.abs(x.sum() - 1) < 1e-4)
    return jnp.where(shares, jnp.clip(half, -x, x), half)


def _add(params, half, sign):
    return jax.tree.map(lambda x, d: jnp.asarray(x) + sign * d if _is_float(x) else x, params, half)


def _rescaled(pair, sign: int, factor: float) -> State:
    """One copy at `factor` times its distance from the middle; a pool of arrays goes with it, one on disk stays as it is."""

    def move(a, b):
        if not _is_float(a):
            return a
        middle = (a + b) / 2
        return middle + sign * _within(middle, factor * (a - b) / 2)

    chosen = pair[0] if sign > 0 else pair[1]
    arrays = all(isinstance(x, jax.Array) for x in jax.tree.leaves(chosen.pool))
    pool = jax.tree.map(move, pair[0].pool, pair[1].pool) if arrays else chosen.pool
    return chosen._replace(params=jax.tree.map(move, pair[0].params, pair[1].params), pool=pool)


def _norm(a, b) -> float:
    """The Euclidean distance of two pytrees."""
    square = jax.tree.map(lambda x, y: float(jnp.sum((x - y) ** 2)) if _is_float(x) else 0.0, a, b)
    return float(np.sqrt(sum(jax.tree.leaves(square))))


def _gaps(draw, key, params) -> list[np.ndarray]:
    """What two models draw from the same noise, one less the other, array by array."""
    drawn = [draw(key, one) for one in params]
    a, b = ([np.asarray(x, np.float64) for x in jax.tree.leaves(_values(d)) if np.asarray(x).dtype.kind in "fu"] for d in drawn)
    return [x - y for x, y in zip(a, b, strict=True)]


def _apart(draw, key, pair) -> float:
    """Root mean square distance of what two models draw from the same noise."""
    gaps = _gaps(draw, key, [one.params for one in pair])
    return float(np.sqrt(sum((x**2).sum() for x in gaps) / max(sum(x.size for x in gaps), 1)))


def _values(batch):
    """The points of a batch: rows and shards have them, statistics are compared as they are."""
    if hasattr(batch, "take"):
        return batch.take(np.arange(len(batch)))
    return getattr(batch, "values", batch)
