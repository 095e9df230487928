"""A network as a model of a hosted loop: compiled steps driven from Python, over data that may lie on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import progress, random
from mcloop.errors import InputError
from mcloop.shards import Shards, generator, minibatches, shards, shards_memory
from mcloop.training import Training, averaged, begin, finish, start, step
from mcloop.types import Learner, Model

_LOOK = 25  # steps between two looks at the loss: each look waits for the accelerator


class Diverged(Exception):
    """A fit whose loss is no longer finite."""


class Codec(NamedTuple):
    """How points are kept on disk.

    Attributes:
        encode: points as the network knows them -> dict of NumPy arrays.
        decode: a minibatch of those -> points, inside the compiled step.
    """

    encode: Callable[[Any], dict[str, np.ndarray]]
    decode: Callable[[dict[str, jax.Array]], Any]


def images() -> Codec:
    """Images in [0, 1] as bytes, their class beside them."""

    def encode(points):
        x = np.asarray(points["x"], np.float32)
        return {"x": (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8), "label": np.asarray(points["label"], np.int32)}

    def decode(stored):
        return {"x": stored["x"].astype(jnp.float32) / 255, "label": stored["label"]}

    return Codec(encode, decode)


@dataclass
class _Drawn:
    """The chunks that were drawn last, and what from."""

    asked: bytes = b""
    variables: Any = None
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)


class Origin(NamedTuple):
    """What plays the truth where only real data is known: the network before any training; points come from the data."""

    initial: Any


def hosted(
    learner: Learner,
    training: Training,
    real: dict[str, np.ndarray],
    *,
    codec: Codec,
    evaluate: Callable[[dict[str, np.ndarray], Any], dict] | None = None,
    samples: int = 1000,
    chunk: int = 250,
    estimator: str = "",
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

    Raises:
        InputError: an empty real set.
        Diverged: (in fit) the loss is no longer finite.
    """
    n = len(next(iter(real.values())))
    if n == 0:
        raise InputError("real must hold at least one point, not none.")
    data = shards(real, real=True)
    last = _Drawn()

    @partial(jax.jit, donate_argnums=1)
    def advance(key, run, stored, index, rate):
        return step(learner, training, random.fold_in(key, index), run, codec.decode(stored), rate)

    draw_chunk = jax.jit(lambda key, variables: learner.sample(key, variables, chunk))

    begin_ = jax.jit(lambda key: begin(training, learner.init(key)))

    def sample(key, params, count) -> Shards:
        count = int(count)
        if isinstance(params, Origin):  # the truth draws from the data, which is all that is known of it
            return shards(data.take(generator(key).integers(0, n, count)))
        if count == 0:
            return Shards()
        variables = averaged(params)
        # the same key and parameters draw the same chunks: what was drawn to measure a model is not drawn again to train
        asked = np.asarray(jax.random.key_data(key)).tobytes()
        parts = last.parts if last.asked == asked and last.variables is params.variables else []
        with progress.stage("sample", count) as tell:
            while chunk * len(parts) < count:
                parts.append(codec.encode(draw_chunk(random.fold_in(key, len(parts)), variables)))
                tell(min(chunk * len(parts), count))
        last.asked, last.variables, last.parts = asked, params.variables, parts
        return shards({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, count)

    def observe(key, given):
        if given is not None:
            raise InputError("real must be None for a hosted model: its real data was given when it was made.")
        return data, Origin(begin_(random.fold_in(key, 1)))

    def fit(key, params, pool: Shards):
        first = isinstance(params, Origin)
        budget, schedule = (training.first, training.rate) if first else (training.later, training.later_rate)
        steps = budget.of(len(pool), training.batch)
        previous = params.initial if first else params
        # copied, since the first step gives its argument's memory away
        fresh = begin_(random.fold_in(key, 1)).variables if not (first or training.warm) else None
        run = jax.tree.map(jnp.copy, start(training, previous, fresh))
        k_batch, k_loss = random.fold_in(key, 2), random.fold_in(key, 3)
        seen: list[jax.Array] = []
        with progress.stage("fit", steps) as tell:
            for index, stored in enumerate(minibatches(k_batch, pool, training.batch, steps)):
                run, loss = advance(k_loss, run, stored, index, jnp.float32(schedule(index / steps)))
                seen.append(loss)
                if (index + 1) % _LOOK == 0 or index + 1 == steps:
                    value = float(loss)
                    if not np.isfinite(value):
                        raise Diverged(f"the loss is {value} at step {index + 1} of {steps}")
                    tell(index + 1, loss=value)
        tail = np.asarray(jnp.stack(seen[-max(1, steps // 10) :]))
        return finish(training, run), {"loss": np.float32(tail.mean())}

    def look(key, params, truth) -> dict:
        if evaluate is None:
            return {}
        with progress.stage("measure", 1):
            return evaluate(_values(sample(key, params, samples)), averaged(params))

    return Model(
        name=learner.name,
        n=np.float64(n),
        memory=shards_memory(),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=lambda params, truth: {},
        evaluate=look,
        estimator=estimator,
        hosted=True,
        blank=lambda: jax.eval_shape(lambda key: finish(training, begin(training, learner.init(key))), jax.random.key(0)),
    )


def _values(body: Shards) -> dict[str, np.ndarray]:
    return body.take(np.arange(len(body)))
