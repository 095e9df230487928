"""What is done to synthetic data before it is trained on: correction, curation, verification, guidance."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check, known
from mcloop.correctors.nearest_centroid import fit_centroids as fit_centroids
from mcloop.correctors.nearest_centroid import nearest_centroid as nearest_centroid
from mcloop.errors import OwnCodeError, own
from mcloop.memory.rows import Rows
from mcloop.memory.shards import shards
from mcloop.random import counts
from mcloop.types import Corrector, InputError, Model


def none() -> Corrector:
    """Synthetic data as it was drawn."""
    return Corrector("none", lambda key, model, params, truth, count: model.sample(key, params, count))


def pointwise(correct: Callable, name: str = "pointwise", batched: bool = False) -> Corrector:
    """A corrector from a function (key, batch, params) -> batch, written for one cell.

    Of an external model the batch is what its owner has: a DataFrame, an array, a list of strings, of as many points.

    Raises:
        OwnCodeError: (on use, of an external model) the function fails, or returns other than as many points of that form.
    """

    def sample(key, model, params, truth, count):
        hosted = model.hosted
        if hosted is None or hosted.shown is None or hosted.kept is None:
            return correct(random.fold_in(key, 1), model.sample(random.fold_in(key, 0), params, count), params)
        # by the key that it was measured by: it is not drawn twice
        drawn = model.sample(key, params, count)
        if not len(drawn):
            return drawn
        points, again = hosted.shown(drawn.take(np.arange(len(drawn)))), random.fold_in(key, 1)
        given = shards(hosted.kept(own(lambda: correct(again, points, params), f"The corrector '{name}'")))
        if len(given) != len(drawn):
            raise OwnCodeError(f"The corrector '{name}' was given {len(drawn):,} points and gave {len(given):,} back.")
        return given

    return Corrector(name, sample, batched=batched)


def mixture(gamma) -> Corrector:
    """pi_gamma p = (p + gamma p*) / (1 + gamma), exact in law (Gillman et al. 2024, eq. 3).

    Each point comes from the truth with probability gamma / (1 + gamma): a binomial number of points where only
    statistics are drawn, a coin a row where rows are. gamma = 0 corrects nothing, gamma = inf trains on the ideal model.
    """
    check("gamma", gamma, "a number >= 0", lambda v: v >= 0)
    share = jnp.where(jnp.isinf(gamma), 1.0, gamma / (1 + jnp.where(jnp.isinf(gamma), 0.0, gamma)))

    def sample(key, model: Model, params, truth, count):
        k_coin, k_model, k_truth = (random.fold_in(key, i) for i in range(3))
        if model.memory.capacity is None:
            true_points = counts.binomial(k_coin, count, share)
            own = model.sample(k_model, params, count - true_points)
            return model.memory.merge(own, model.sample(k_truth, truth, true_points))
        own, ideal = model.sample(k_model, params, count), model.sample(k_truth, truth, count)
        heads = random.uniform(k_coin, (own.weight.shape[0],)) < share
        return _choose(heads, ideal, own)

    given = known(gamma)
    return Corrector("mixture", sample, splits=given is None or bool(np.any((given > 0) & np.isfinite(given))))


def _choose(mask, a: Rows, b: Rows) -> Rows:
    """Row by row, a where the mask (r, *cells) holds, else b."""

    def pick(x, y):
        return jnp.where(mask.reshape(mask.shape[:1] + (1,) * (x.ndim - mask.ndim) + mask.shape[1:]), x, y)

    return jax.tree.map(pick, a, b)


def temperature(value) -> Corrector:
    """Sampling at temperature T: p^(1/T), renormalised. T < 1 sharpens towards the mode, T > 1 flattens.

    Raises:
        InputError: (on use) the family has no closed form for it.
    """
    check("temperature", value, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))

    def sample(key, model, params, truth, count):
        _need(model.forms.temper, "temperature", model)
        return model.sample(key, model.forms.temper(params, value), count)

    return Corrector("temperature", sample)


def extrapolate(w) -> Corrector:
    """Negative guidance on parameters: (1 + w) theta_real - w theta_fit (Alemohammad et al. 2025, "Neon").

    The fit on real data is pushed away from the fit that saw synthetic data; the result is what samples next.
    """
    check("w", w, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))

    def refine(model, params, real_params):
        _need(model.forms.blend, "extrapolate", model)
        return model.forms.blend(real_params, params, -w)

    return none()._replace(name="extrapolate", refine=refine)


def verifier(centre=None, tau=None, keep=None) -> Corrector:
    """Keep points that a verifier accepts, until the generation has as many as it asked for.

    Args:
        centre, tau: a soft verifier that accepts x with probability exp(-|x - centre|^2 / (2 tau^2)).
        keep: a label verifier: the probability (k,) of keeping a point of each category, such as (phi, psi) for
            right and wrong labels (Feng et al. 2406.07515).
    """
    if (keep is None) == (tau is None):
        raise InputError("verifier must be given either tau (and centre) or keep, not both and not neither.")
    if tau is not None:
        check("tau", tau, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))
        score = (0.0 if centre is None else centre, tau)
    else:
        check("keep", keep, "probabilities in (0, 1]", lambda v: (v > 0) & (v <= 1))
        score = jnp.asarray(keep, jnp.float32)

    def sample(key, model, params, truth, count):
        _need(model.forms.accept, "verifier", model)
        return model.sample(key, model.forms.accept(params, score), count)

    return Corrector("verifier", sample)


def best_of_k(k: int, reward: Callable) -> Corrector:
    """Curation: of k candidates a user keeps one with probability proportional to exp(reward) (Bradley-Terry).

    Ferbach et al. 2407.09499. The choice is made point by point, so the model must keep rows.

    Args:
        k: candidates, >= 1.
        reward: values (r, ..., *cells) -> rewards (r, *cells).
    """
    check("k", k, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))

    def sample(key, model, params, truth, count):
        if model.memory.capacity is None:
            raise InputError(f"best_of_k chooses point by point, so {model.name} must keep rows: use literal=True.")
        chosen = model.sample(random.fold_in(key, 0), params, count)
        best = _gumbel(random.fold_in(key, k), chosen, reward)
        for i in range(1, k):
            other = model.sample(random.fold_in(key, i), params, count)
            score = _gumbel(random.fold_in(key, k + i), other, reward)
            chosen, best = _choose(score > best, other, chosen), jnp.maximum(score, best)
        return chosen

    return Corrector("best_of_k", sample)


def _gumbel(key, candidates: Rows, reward):
    """Reward plus Gumbel noise: the largest of k is a draw from their softmax."""
    u = random.uniform(key, (candidates.weight.shape[0],))
    return reward(candidates.values) - jnp.log(-jnp.log(u))


def histogram(gamma, bins: int = 10, released: bool = False) -> Corrector:
    """Gillman et al.'s pointwise corrector: resample from (histogram of the batch + gamma p*) / (1 + gamma).

    Args:
        gamma: correction strength, >= 0.
        bins: cells of the histogram along each axis, between the batch's extremes.
        released: False is the valid Example C.6. True is what the released script draws from: rejection from N(0, I)
            under a bound that is not an envelope, which cuts the tails of the density off; its truncating index also
            makes the first bin of each axis twice as wide. Two dimensions, truth N(0, I) only; gamma = 0 is then
            NOT "no correction".
    """
    check("gamma", gamma, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))

    def sample(key, model, params, truth, count):
        if model.memory.capacity is None:
            raise InputError(f"histogram resamples points, so {model.name} must keep rows: use literal=True.")
        batch = model.sample(random.fold_in(key, 0), params, count)
        draw = _released_histogram if released else _histogram
        return batch._replace(values=draw(random.fold_in(key, 1), model, truth, count, batch, gamma, bins))

    return Corrector("histogram_released" if released else "histogram", sample)


def _binned(batch: Rows, bins):
    """Lower edges (d, *cells), widths (d, *cells) and bin indices (r, d, *cells) of the rows that weigh anything."""
    live = batch.weight[:, None] > 0
    low = jnp.where(live, batch.values, jnp.inf).min(0)
    high = jnp.where(live, batch.values, -jnp.inf).max(0)
    width = jnp.where(high > low, (high - low) / bins, 1.0)
    return low, width, jnp.clip(jnp.floor((batch.values - low) / width), 0, bins - 1)


def _histogram(key, model, truth, count, batch, gamma, bins):
    slots = batch.weight.shape[0]
    low, width, index = _binned(batch, bins)
    source = random.categorical(random.fold_in(key, 0), batch.weight, slots)
    chosen = jnp.take_along_axis(index, source[:, None], 0)
    within = random.uniform(random.fold_in(key, 1), index.shape[:2])
    ideal = model.sample(random.fold_in(key, 2), truth, count).values
    heads = random.uniform(random.fold_in(key, 3), (slots,)) < gamma / (1 + gamma)
    return jnp.where(heads[:, None], ideal, low + (chosen + within) * width)


def _released_histogram(key, model, truth, count, batch, gamma, bins):
    """Exact draws from min(f, c p*), renormalised: f = t p* + (1 - t) histogram, t = gamma / (1 + gamma), c = max f / p*(0).

    The script proposes from p* under the bound c, which f exceeds in its tails; drawing from f itself and thinning by
    the cap has the same law and wastes fewer draws.
    """
    if batch.values.shape[1] != 2:
        raise InputError(f"the released histogram corrector is two-dimensional; d is {batch.values.shape[1]}.")
    share = gamma / (1 + gamma)
    low, width, index = _binned(batch, bins)
    flat = index[:, 0] * bins + index[:, 1]
    doubled = batch.weight * jnp.prod(jnp.where(index == 0, 2.0, 1.0), 1)  # int() truncates (-1, 0) to bin 0
    size = batch.weight.sum(0)
    from_data = (1 - share) * doubled.sum(0) / size
    from_data = from_data / (from_data + share)
    density = (1 - share) / (size * width[0] * width[1])
    slots = batch.weight.shape[0]
    crowded = _hits(flat, flat, batch.weight).max(0)
    peak = density * crowded + share / (2 * jnp.pi)

    def propose(block):
        u = random.uniform(key, (5, slots), block=2**16 + 2 * block)
        noise = random.normal(key, (slots, 2), block=2**16 + 2 * block + 1)
        chosen = jnp.take_along_axis(index, random.place(u[0], doubled)[:, None], 0)
        within = jnp.stack([u[1], u[2]], 1)
        offset = jnp.where(chosen == 0, 2 * within - 1, within)
        x = jnp.where((u[3] < from_data)[:, None], low + (chosen + offset) * width, noise)
        at = jnp.trunc((x - low) / width)
        inside = jnp.all((at >= 0) & (at < bins), 1)
        hits = jnp.where(inside, _hits(at[:, 0] * bins + at[:, 1], flat, batch.weight), 0.0)
        ideal = jnp.exp(-(x[:, 0] ** 2 + x[:, 1] ** 2) / 2)
        return x, u[4] * (share * ideal / (2 * jnp.pi) + density * hits) < peak * ideal

    def again(carry):
        x, accepted, block = carry
        y, now = propose(block)
        return jnp.where(accepted[:, None], x, y), accepted | now, block + 1

    x, accepted = propose(0)
    return jax.lax.while_loop(lambda carry: ~jnp.all(carry[1]), again, (x, accepted, jnp.int32(1)))[0]


def _hits(at, bins_of_rows, weight) -> jax.Array:
    """Weight of the rows in the same bin as each of `at`, (r, *cells); written out, since r is small."""
    return sum((weight[i] * (at == bins_of_rows[i]) for i in range(weight.shape[0])), jnp.zeros(()))


def _need(op, corrector, model):
    if op is None:
        raise InputError(f"corrector '{corrector}' has no closed form for the {model.name} family; choose another one.")


__all__ = [
    "best_of_k",
    "extrapolate",
    "histogram",
    "mixture",
    "none",
    "pointwise",
    "temperature",
    "verifier",
]
