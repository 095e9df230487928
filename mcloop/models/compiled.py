"""A network as a model of a compiled loop: its fit is one scan over optimiser steps, so that grids of loops are vmapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.checks import known, numbers
from mcloop.errors import InputError
from mcloop.memory.rows import Rows, bootstrap, rows, rows_memory
from mcloop.models.training import Fitted, Training, as_first, averaged, begin, finish, finite, sound, start, step, told
from mcloop.types import ClosedForms, Learner, Model, Objective

_PROBE = 512  # points at which two models are compared as functions


class Truth(NamedTuple):
    """What plays theta* where the truth is a distribution and not a network.

    Attributes:
        initial: the untrained network that every fit from scratch starts from.
        reference: theta*, the network trained as long as generation 1 is, from the same start, under noise of its own, on
            fresh points of the true distribution at every step; () where it was not asked for.
        points: the user's own points, where they came as a tuple with names (other ones are kept by the loop): new real
            points are drawn from them; else ().
    """

    initial: Any
    reference: Any
    points: Any = ()


def compiled_model(
    learner: Learner,
    training: Training,
    source: Any,
    n: Any,
    *,
    capacity: int,
    evaluate: Callable[..., dict] | None = None,
    samples: int = 1000,
    reference: bool = True,
    gate: bool = False,
) -> Model:
    """A family of networks whose loops are compiled whole: small ones, of which many are trained side by side.

    Args:
        learner: the network, its objective and its sampler.
        training: budgets must be in steps, since the size of a training set may be traced.
        source: the true distribution: `source.name`, `source.sample(key, count) -> points`.
        n: real points.
        capacity: the most points that one draw holds, >= n.
        evaluate: (points (samples, ...), variables) -> dict of scalars and pictures, seen at every generation.
        samples: points drawn for `evaluate`.
        reference: whether to train theta*, for the distances of parameters and of functions.
        gate: whether to see also what the first fit was at half of its steps, and what a finer sampler makes of it.

    A compiled program cannot stop: where a fit, or what its network draws, is not finite, all that is seen of that loop is NaN
    from there on, and `train` says at which generation.

    Raises:
        InputError: a budget in epochs.
    """
    for field in ("first", "later"):
        if getattr(training, field).epochs is not None:
            raise InputError(f"{field} must be a number of steps for a loop that is compiled whole, not epochs.")
    probe = source.sample(random.as_key(jax.random.key(0)), _PROBE)
    train = _trainer(learner, training)

    def sample(key, params, count) -> Rows:
        if isinstance(params, Truth):
            own = isinstance(params.points, Rows)
            return bootstrap(key, params.points, count) if own else rows(source.sample(key, capacity), count)
        points, good = sound(learner.sample(key, averaged(params), capacity))
        return rows(_or_nan(good, points), count)

    def observe(key, real):
        k_real, k_initial, k_reference = (random.fold_in(key, i) for i in range(3))
        # the shapes of what the source gives; nothing is drawn twice
        own = None if real is None else jax.eval_shape(lambda key: source.sample(key, int(n)), k_real)
        values = source.sample(k_real, int(n)) if real is None else _read(real, own)
        initial = learner.init(k_initial)
        best: Any = ()
        if reference:
            best = averaged(train(k_reference, begin(training, initial), True, lambda k: source.sample(k, training.batch))[0])
        return (data := rows(values, real=True)), Truth(initial, best, data if hasattr(real, "_fields") else ())

    def measure(params, truth: Truth) -> dict:
        return _distances(learner, averaged(params), truth.reference, probe) if reference else {}

    first, later = training.first.steps, training.later.steps

    look, opened = _watch(learner, evaluate, samples)
    return Model(
        name=learner.name,
        n=n,
        memory=rows_memory(capacity),
        observe=observe,
        sample=sample,
        fit=_fitter(training, train, opened if gate else None),
        measure=measure,
        estimator=f"{learner.name} on {source.name}: {first} steps of {training.batch}, then {later}",
        evaluate=lambda key, params, truth: look(key, averaged(params)),
        forms=ClosedForms(objective=_objective(learner)),
    )


def _watch(learner: Learner, evaluate, samples: int):
    """((key, variables) -> what is seen of a network, (key, at half of its steps, whole) -> what is seen of a first fit)."""

    def look(key, variables, by=learner.sample) -> dict:
        if evaluate is None:
            return {}
        points, good = sound(by(key, variables, samples))
        return _or_nan(good & finite(variables), evaluate(points, variables))

    def opened(key, half, whole) -> dict:
        seen = as_first("half", look(key, half))
        return seen if learner.finer is None else {**seen, **as_first("finer", look(key, whole, learner.finer))}

    return look, opened


def _read(real, like):
    """The user's points, as the source's come: InputError for other shapes, no numbers, NaN or infinity."""
    tree = jax.tree.structure(like)
    try:
        parts = tree.flatten_up_to(real)
    except (TypeError, ValueError):
        raise InputError(f"real must be points as the source gives them, {tree}, not {type(real).__name__}.") from None

    def one(given, wanted):
        array = numbers("real", given)
        if array.shape != wanted.shape:
            raise InputError(f"real must be an array of shape {wanted.shape}, as n and the source say, not {array.shape}.")
        if (values := known(array)) is not None and not np.isfinite(values).all():
            raise InputError("real must be finite everywhere, but it holds NaN or infinity.")
        return jnp.asarray(array, wanted.dtype)

    return tree.unflatten([one(*pair) for pair in zip(parts, jax.tree.leaves(like), strict=True)])


def _trainer(learner: Learner, training: Training):
    """(key, previous, whether it is the first fit, key -> minibatch) -> (run, its losses, the variables at half its steps).

    One scan over the steps, of which a first fit's is cut in two, so that its half can be seen.
    """

    def train(key, previous: Fitted, first: bool, minibatch):
        budget, rate = (training.first, training.rate) if first else (training.later, training.later_rate)
        # a fit that is not warm starts over from an initialisation of its own
        fresh = None if first or training.warm else learner.init(random.fold_in(key, 1))

        def body(run, at):
            index, now = at
            k_batch, k_loss = (random.fold_in(random.fold_in(key, 2 + i), index) for i in range(2))
            return step(learner, training, k_loss, run, minibatch(k_batch), now)

        index = jnp.arange(budget.steps)
        rates = jax.vmap(lambda i: jnp.asarray(rate(i / budget.steps), jnp.float32))(index)
        run, half = start(training, previous, fresh), budget.steps // 2
        if not first or not half:
            run, losses = lax.scan(body, run, (index, rates))
            return finish(training, run), losses, averaged(run)

        def stretch(run, steps):
            run, losses = lax.scan(body, run, steps)
            return run, (losses, averaged(run))

        run, (losses, seen) = lax.scan(stretch, run, jax.tree.map(lambda x: x[: 2 * half].reshape(2, half), (index, rates)))
        losses = losses.ravel()
        if budget.steps % 2:
            run, last = body(run, (index[-1], rates[-1]))
            losses = jnp.append(losses, last)
        return finish(training, run), losses, jax.tree.map(lambda x: x[0], seen)

    return train


def _fitter(training: Training, train, opened):
    """`Model.fit`: minibatches are drawn from weighted rows; `opened` (key, half, whole) sees a first fit, or is None."""

    def fit(key, params, data: Rows):
        edges = jnp.cumsum(data.weight)
        used = jax.tree.map(lambda x: jnp.where(_beside(data.weight > 0, x), x, 0), data.values)
        good = finite(used)  # a point that is no number spoils a fit, also where no minibatch happens to hold it

        def minibatch(key):
            # a point is drawn as often as it weighs; the last edge belongs to the last row that weighs anything
            place = random.uniform(key, (training.batch,)) * edges[-1]
            index = jnp.minimum(jnp.searchsorted(edges, place, side="right"), data.weight.shape[0] - 1)
            return jax.tree.map(lambda x: x[index], data.values)

        first = isinstance(params, Truth)
        run, losses, half = train(key, begin(training, params.initial) if first else params, first, minibatch)
        seen = told(losses, max(1, len(losses) // 10), first)
        if first and opened is not None:
            seen |= opened(random.fold_in(key, 4), half, averaged(run))
        good = good & finite((run.variables, run.ema))
        return _or_nan(good, run), _or_nan(good, seen)

    return fit


def _distances(learner: Learner, own, best, probe) -> dict:
    """How far a network is from theta*, by its parameters and as a function."""
    gap = learner.field(own, probe) - learner.field(best, probe)
    return {
        "param_distance": _norm(jax.tree.map(jnp.subtract, own.params, best.params)) / _norm(best.params),
        "field_distance": jnp.sqrt(jnp.mean(gap**2)),
    }


def _objective(learner: Learner) -> Objective:
    """The learner's loss on rows that all weigh alike, in the parameters that samples are drawn from."""

    def risk(key, variables, data: Rows):
        if learner.log_prob is not None:
            return -(data.weight @ learner.log_prob(variables, data.values)) / data.weight.sum()
        return learner.loss(key, variables, data.values)[0]

    return Objective(risk, averaged, lambda variables: Fitted(variables, (), ()), learner.log_prob is not None)


def _or_nan(good, tree):
    """The same tree; where not `good` every number of it is NaN, so that no measure and no later fit takes it for data."""
    return jax.tree.map(lambda x: jnp.where(good, x, jnp.nan) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x, tree)


def _beside(rows, x):
    """(n,) with as many axes as x (n, ...)."""
    return rows.reshape(rows.shape + (1,) * (x.ndim - 1))


def _norm(tree) -> jax.Array:
    """The Euclidean norm of all the leaves together."""
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)))
