"""A network as a model of a hosted loop: compiled steps driven from Python, over data that may lie on disk."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import progress, random
from mcloop.errors import Diverged, InputError
from mcloop.memory.shards import Shards, generator, minibatches, shards, shards_memory
from mcloop.models.pace import timed
from mcloop.models.training import Budget, Training, as_first, averaged, begin, finish, finite, sound, start, step, told
from mcloop.nets.layout import batch_sharding, variables_sharding
from mcloop.storage import partial_draws
from mcloop.types import Hosted, Learner, Model

_FEW = 8  # points that tell how long a slow sampler takes
_LOOK = 25  # steps between two looks at the loss: each look waits for the accelerator


class Codec(NamedTuple):
    """How points are kept on disk.

    Attributes:
        encode: points as the network knows them -> dict of NumPy arrays. Its argument is finite.
        decode: a minibatch of those -> points, inside the compiled step.
    """

    encode: Callable[[Any], dict[str, np.ndarray]]
    decode: Callable[[dict[str, jax.Array]], Any]


def images() -> Codec:
    """Images in [0, 1] as bytes, their class beside them."""

    def encode(points):
        x = np.asarray(points["x"], np.float32)
        if not np.isfinite(x).all():  # a cast would make black pixels of them
            raise Diverged("the images that it draws are not finite")
        return {"x": (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8), "label": np.asarray(points["label"], np.int32)}

    def decode(stored):
        return {"x": stored["x"].astype(jnp.float32) / 255, "label": stored["label"]}

    return Codec(encode, decode)


class Origin(NamedTuple):
    """What plays the truth where only real data is known: the network before any training; points come from the data."""

    initial: Any


def hosted_model(
    learner: Learner,
    training: Training,
    real: dict[str, np.ndarray],
    *,
    codec: Codec,
    evaluate: Callable[[dict[str, np.ndarray], Any], dict] | None = None,
    samples: int = 1000,
    chunk: int = 250,
    estimator: str = "",
    fresh: Callable[[Any, int], dict[str, np.ndarray]] | None = None,
    mesh: Any = None,
    gate: bool = True,
) -> Model:
    """A family of networks whose loops are driven from Python, one generation at a time.

    Args:
        learner: the network, its objective and its sampler.
        training: how it is trained; budgets may be in epochs.
        real: the real training set, as `codec` keeps it: a dict of arrays (n, ...).
        codec: how points are kept.
        evaluate: (samples as kept, variables) -> dict of scalars and pictures, seen at every generation.
        samples: points drawn for `evaluate`.
        chunk: points that are drawn at once: a shape, compiled once.
        estimator: words for the results.
        fresh: (key, count) -> new real points as kept, where the truth can be asked for more; None draws from `real` again,
            with replacement.
        mesh: devices to share the work, of `mcloop.nets.layout.mesh`; None uses one.
        gate: whether to see also what the first fit was at half of its steps, and what a finer sampler makes of it.

    `fit` takes a keyword `later`: another budget for the fits after the first, see `with_budget`.

    Raises:
        InputError: an empty real set.
        Diverged: (in fit and in sample) a loss, a fitted parameter or a drawn point that is not finite.
    """
    n = len(next(iter(real.values())))
    if n == 0:
        raise InputError("real must hold at least one point, not none.")
    data = shards(real, real=True)

    spread, cut, drawn = _placed(mesh, chunk)
    draw, finely = _samplers(learner, codec, chunk, drawn, estimator)
    begin_, advance = _steps(learner, training, codec)

    def sample(key, params, count) -> Shards:
        count = int(count)
        if isinstance(params, Origin):  # the truth draws from the data, which is all that is known of it
            if fresh is not None and count > 0:
                return shards(fresh(key, count))
            return shards(data.take(generator(key).integers(0, n, count)))
        if count == 0:
            return Shards()
        return draw(key, spread(averaged(params)), count)  # another loop's, or a checkpoint's, may lie on one device

    def observe(key, given):
        if given is not None:
            raise InputError("real must be None for a hosted model: its real data was given when it was made.")
        return data, Origin(begin_(random.fold_in(key, 1)))

    def look(key, variables, by=draw) -> dict:
        if evaluate is None:
            return {}
        variables = spread(variables)
        with progress.stage("measure", 1):
            return evaluate(_values(by(key, variables, samples)), variables)

    looked = (0, 0) if evaluate is None else (samples, (1 + 2 * (finely is not None)) if gate else 0)
    pace = partial(_pace, learner, training, data, (spread, cut), (begin_, advance), draw, chunk, evaluate, samples)
    return Model(
        name=learner.name,
        n=np.float64(n),
        memory=shards_memory(),
        observe=observe,
        sample=sample,
        fit=_fitter(training, advance, begin_, spread, cut, _opened(look, finely) if gate else None),
        evaluate=lambda key, params, truth: look(key, averaged(params)),
        estimator=estimator,
        hosted=Hosted(partial(_blank, learner, training, mesh), partial(_length, training), *looked, pace),
    )


def _length(training: Training, first: bool, points: int, later: Budget | None = None) -> int:
    """The optimiser steps of a fit on so many points; `later` is a budget in place of `training`'s for later fits."""
    return (training.first if first else later or training.later).of(points, training.batch)


def _pace(learner, training: Training, data: Shards, placed, compiled, draw, chunk: int, evaluate, samples: int, briefly: bool):
    """How fast an untrained network's steps and draws are here, and a look at real points: a Pace.

    Args:
        placed: `spread` and `cut`, see `_placed`.
        compiled: see `_steps`.
        briefly: whether a few points tell how long a chunk takes, since nothing is to be run.
    """
    (spread, cut), (begin_, advance), key = placed, compiled, jax.random.key(0)
    fitted, stored = begin_(key), cut(next(minibatches(key, data, training.batch, 1)))
    variables, seen = spread(averaged(fitted)), data.take(np.arange(min(samples, len(data))))

    def steps(count: int) -> None:
        run = spread(jax.tree.map(jnp.copy, start(training, fitted)))
        for index in range(count):
            run, loss = advance(key, run, stored, index, jnp.float32(0))
        jax.block_until_ready(loss)

    keys = (random.fold_in(key, i) for i in itertools.count())  # the same key would draw nothing anew
    few = jax.jit(lambda key: learner.sample(key, variables, _FEW))
    brief = {_FEW: lambda: jax.block_until_ready(few(next(keys)))} if briefly and chunk > _FEW else {}
    look = None if evaluate is None else lambda: evaluate(seen, variables)
    return timed(steps, {**brief, chunk: lambda: draw(next(keys), variables, chunk)}, look)


def _blank(learner: Learner, training: Training, mesh):
    """The parameters' shapes, and where each is to lie when it is read back."""
    shapes = jax.eval_shape(lambda key: finish(training, begin(training, learner.init(key))), jax.random.key(0))
    return shapes if mesh is None else jax.tree.map(_at, shapes, variables_sharding(shapes, mesh))


def _opened(look, finely):
    """(key, variables, whether the fit is whole) -> what is seen of a first fit: at half its steps, or by a finer sampler."""

    def opened(key, variables, whole: bool) -> dict:
        if not whole:
            return as_first("half", look(key, variables))
        return {} if finely is None else as_first("finer", look(key, variables, finely))

    return opened


def _samplers(learner: Learner, codec: Codec, chunk: int, drawn, estimator: str):
    """The learner's own sampler, and the finer one; None where it has none."""
    own = _sampler(learner.sample, codec, chunk, estimator, drawn)
    return own, None if learner.finer is None else _sampler(learner.finer, codec, chunk, f"{estimator}, finer", drawn)


def _sampler(sample, codec: Codec, chunk: int, estimator: str, drawn):
    """(key, variables, count) -> Shards, a chunk at a time, by `sample`; `drawn` says where a chunk lies, see `_placed`."""
    memory = partial_draws.PartialDraws()
    draw_chunk = jax.jit(lambda key, variables: sound(sample(key, variables, chunk)), **drawn)

    def draw(key, variables, count: int) -> Shards:
        # the same key and parameters draw the same chunks: what was drawn to measure a model is not drawn again to train, and
        # what a process had drawn when it was killed is not drawn again by the next one
        partial = (partial_draws.current() or memory).open(partial_draws.digest(key, variables, f"{chunk} {estimator}"))
        chunks = -(-count // chunk)
        with progress.stage("sample", count) as tell:
            for i in range(chunks):
                if not partial.has(i):
                    points, good = draw_chunk(random.fold_in(key, i), variables)
                    if not good:
                        raise Diverged("what its network draws is not finite")
                    partial.put(i, codec.encode(points))
                tell(min(chunk * (i + 1), count))
        return shards(partial.gather(chunks), count)

    return draw


def _steps(learner: Learner, training: Training, codec: Codec):
    """What is compiled of a fit: key -> the carry of a network's first step; one step on a minibatch as it is kept."""

    @partial(jax.jit, donate_argnums=1)
    def advance(key, run, stored, index, rate):
        return step(learner, training, random.fold_in(key, index), run, codec.decode(stored), rate)

    return jax.jit(lambda key: begin(training, learner.init(key))), advance


def _fitter(training: Training, advance, begin_, spread, cut, opened):
    """`Model.fit`: a Python loop of compiled steps over minibatches of shards.

    Args:
        advance, begin_: see `_steps`.
        spread, cut: how that carry and the minibatches are laid out, see `_placed`.
        opened: (key, variables, whether the fit is whole) -> what is seen of a first fit, or None.
    """

    whole = jax.jit(lambda run: finite((run.variables, run.ema)))

    def fit(key, params, pool: Shards, later: Budget = training.later):
        first = isinstance(params, Origin)
        budget, schedule = (training.first, training.rate) if first else (later, training.later_rate)
        steps = budget.of(len(pool), training.batch)
        previous = params.initial if first else params
        # copied, since the first step gives its argument's memory away
        scratch = begin_(random.fold_in(key, 1)).variables if not (first or training.warm) else None
        run = spread(jax.tree.map(jnp.copy, start(training, previous, scratch)))
        k_batch, k_loss, k_look = (random.fold_in(key, i) for i in (2, 3, 4))
        seen: deque[jax.Array] = deque(maxlen=2 * max(1, steps // 10))
        also: dict[str, Any] = {}
        with progress.stage("fit", steps) as tell:
            for index, stored in enumerate(minibatches(k_batch, pool, training.batch, steps)):
                run, loss = advance(k_loss, run, cut(stored), index, jnp.float32(schedule(index / steps)))
                seen.append(loss)
                if (index + 1) % _LOOK == 0 or index + 1 == steps:
                    value = float(loss)
                    if not np.isfinite(value):
                        raise Diverged(f"the loss is {value} at step {index + 1} of {steps}")
                    tell(index + 1, loss=value)
                if first and opened is not None and index + 1 == steps // 2:
                    also |= opened(k_look, averaged(run), False)
        if not whole(run):
            raise Diverged(f"the network's parameters are not finite after {steps} steps")
        if first and opened is not None:
            also |= opened(k_look, averaged(run), True)
        # on the host: a stack on the device is another program for every number of steps
        losses = np.stack(jax.device_get(list(seen)))
        return finish(training, run), {**told(losses, max(1, steps // 10), first), **also}

    return fit


def with_budget(model: Model, later: Budget) -> Model:
    """A hosted model with another budget for every fit but the first, which loops of both share; compiled once for both."""
    hosted = model.hosted
    if hosted is not None and hosted.steps is not None:
        hosted = hosted._replace(steps=partial(hosted.steps, later=later))
    return model._replace(fit=partial(model.fit, later=later), hosted=hosted)  # pyright: ignore[reportCallIssue]


def _at(shape, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _placed(mesh, chunk: int):
    """How a fit's carry and its minibatches, and the points of a draw, are laid out over the devices of a mesh."""
    if mesh is None:
        return (lambda run: run), (lambda stored: stored), {}

    def spread(run):
        return jax.device_put(run, variables_sharding(run, mesh))

    whole = chunk % mesh.size == 0  # otherwise every device draws all of them
    drawn = {"out_shardings": (batch_sharding(mesh), None)} if whole else {}
    return spread, lambda stored: jax.device_put(stored, batch_sharding(mesh)), drawn


def _values(body: Shards) -> dict[str, np.ndarray]:
    return body.take(np.arange(len(body)))
