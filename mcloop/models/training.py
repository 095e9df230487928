"""The optimiser's side of a neural loop: what one step does, for how long, at what rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcloop.errors import InputError
from mcloop.results import FIRST_FIT
from mcloop.types import Learner

Schedule = Callable[[Any], Any]


class Budget(NamedTuple):
    """How long a fit lasts: `epochs` over the training set if given, else `steps` minibatches."""

    steps: int = 0
    epochs: float | None = None

    def of(self, points: float, batch: int) -> int:
        """Minibatches for a training set of so many points."""
        return self.steps if self.epochs is None else max(1, int(np.ceil(self.epochs * points / batch)))


class Training(NamedTuple):
    """How a network is trained, at generation 1 (`first`) and after it (`later`).

    Attributes:
        first, later: budgets of the first fit and of every later one.
        rate, later_rate: learning rates, functions of the share of the fit that is done, in [0, 1).
        batch: points a minibatch.
        transform: what optax does to a gradient before the rate multiplies it.
        ema: decay of the exponential moving average that is sampled from, a step; None samples the last parameters.
        warm: whether a generation starts from the last one's parameters; if not, from an initialisation of its own.
        keep_moments: whether the optimiser's state goes with them.
    """

    first: Budget
    later: Budget
    rate: Schedule
    later_rate: Schedule
    batch: int
    transform: optax.GradientTransformation
    ema: float | None
    warm: bool
    keep_moments: bool


def training(
    first: int | Budget,
    later: int | Budget,
    *,
    rate: float | Schedule = 1e-3,
    later_rate: float | Schedule | None = None,
    batch: int = 128,
    transform: optax.GradientTransformation | None = None,
    clip: float | None = None,
    ema: float | None = None,
    warm: bool = True,
    keep_moments: bool = False,
) -> Training:
    """How a network is trained: `training(first=2000, later=200, rate=linear(1e-3))`.

    Args:
        first, later: steps, or a `Budget`, of the first fit and of every later one.
        rate, later_rate: learning rate > 0, or a function of the share of the fit that is done; `later_rate` defaults to
            `rate`.
        batch: points a minibatch, >= 1.
        transform: an optax transformation without its learning rate; default Adam's.
        clip: the largest global norm of a gradient.
        ema: decay a step of the averaged parameters, in (0, 1).
        warm, keep_moments: what a generation inherits from the last one.

    Raises:
        InputError: a number outside of what is allowed.
    """
    first, later = (b if isinstance(b, Budget) else Budget(steps=b) for b in (first, later))
    for field, budget in (("first", first), ("later", later)):
        if (budget.epochs if budget.epochs is not None else budget.steps) <= 0:
            raise InputError(f"{field} must be a number of steps >= 1 or of epochs > 0, not {budget}.")
    for field, value in (("rate", rate), ("later_rate", rate if later_rate is None else later_rate)):
        if not callable(value) and not (np.isfinite(value) and value > 0):
            raise InputError(f"{field} must be a finite number > 0, not {value!r}.")
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch must be a whole number >= 1, not {batch!r}.")
    if ema is not None and not 0 < ema < 1:
        raise InputError(f"ema must be a decay in (0, 1), not {ema!r}.")
    if clip is not None and not clip > 0:
        raise InputError(f"clip must be a norm > 0, not {clip!r}.")
    transform = optax.scale_by_adam() if transform is None else transform
    if clip is not None:
        transform = optax.chain(optax.clip_by_global_norm(clip), transform)
    schedules = (_schedule(rate), _schedule(rate if later_rate is None else later_rate))
    return Training(first, later, *schedules, batch, transform, ema, warm, keep_moments)


def compute_dtype():
    """The type that networks compute in here: bfloat16 on TPUs and GPUs, None (that of the inputs) elsewhere."""
    return jnp.bfloat16 if jax.default_backend() in ("tpu", "gpu", "cuda", "rocm") else None


def linear(start: float, end: float = 0.0) -> Schedule:
    """A learning rate that goes straight from `start` to `end` over a fit."""
    return lambda share: start + (end - start) * share


def cosine(start: float, end: float = 0.0, warmup: float = 0.0) -> Schedule:
    """A learning rate that goes from `start` to `end` along half a cosine, risen to from 0 over a share `warmup` of the fit."""

    def rate(share):
        falling = jnp.maximum(share - warmup, 0) / (1 - warmup)
        risen = jnp.minimum(share / warmup, 1.0) if warmup else 1.0
        return risen * (end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * falling)))

    return rate


def staircase(start: float, steps: int) -> Schedule:
    """A learning rate that falls from `start` in equal steps (one an epoch), to start / steps in the last; never to 0."""

    def rate(share):
        return start * (1 - jnp.floor(share * steps * (1 + 1e-6) + 1e-6) / steps)  # a float's grain up, for whole epochs

    return rate


def adamw(decay: float = 0.1, b2: float = 0.95) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 1711.05101) of what multiplies, and of nothing that is added.

    Norms, biases and learned positions keep their size: a decay pulls them towards a network that normalises nothing and knows
    no order. They are known by the last word of their name, "scale", "bias" or "positions".
    """
    return optax.chain(optax.scale_by_adam(b2=b2), optax.add_decayed_weights(decay, mask=_decays))


def _decays(params):
    """Which parameters are decayed, in a tree of the same form."""
    spared = ("scale", "bias", "positions")
    return jax.tree_util.tree_map_with_path(lambda path, x: getattr(path[-1], "key", None) not in spared, params)


def _schedule(rate) -> Schedule:
    return rate if callable(rate) else lambda share: rate


class Fitted(NamedTuple):
    """A trained network: what the next generation starts from.

    Attributes:
        variables: parameters and running statistics.
        ema: the averaged variables that samples are drawn from, running statistics included, which belong to the parameters
            that they were counted under; () without an average.
        moments: the optimiser's state, () where it is not handed on to the next generation.
    """

    variables: Any
    ema: Any
    moments: Any


def begin(training: Training, variables) -> Fitted:
    """A network that has not been trained yet."""
    ema = () if training.ema is None else variables
    return Fitted(variables, ema, training.transform.init(variables.params) if training.keep_moments else ())


def averaged(fitted: Fitted) -> Any:
    """The variables that samples are drawn from and that are measured."""
    if isinstance(fitted.ema, tuple) and not fitted.ema:
        return fitted.variables
    return fitted.ema


def start(training: Training, previous: Fitted, initial=None) -> Fitted:
    """The carry of a fit's first step: the last generation's network, or a new one from `initial` if training is not warm."""
    if initial is not None and not training.warm:
        previous = begin(training, initial)
    if training.keep_moments:
        return previous
    return previous._replace(moments=training.transform.init(previous.variables.params))


def finish(training: Training, run: Fitted) -> Fitted:
    """What is kept of a fit: everything but moments that are not handed on."""
    return run if training.keep_moments else run._replace(moments=())


def step(learner: Learner, training: Training, key, run: Fitted, points, rate) -> tuple[Fitted, jax.Array]:
    """One optimiser step on a minibatch, at a learning rate: (run, loss). Pure; the drivers compile it."""
    variables = run.variables

    def objective(params):
        return learner.loss(key, variables._replace(params=params), points)

    (loss, stats), gradient = jax.value_and_grad(objective, has_aux=True)(variables.params)
    updates, moments = training.transform.update(gradient, run.moments, variables.params)
    params = jax.tree.map(lambda p, u: p - rate * u, variables.params, updates)
    after = variables._replace(params=params, stats=stats)
    ema = run.ema if training.ema is None else jax.tree.map(partial(_towards, 1 - training.ema), run.ema, after)
    return Fitted(after, ema, moments), loss


def told(losses: Any, last: int, first: bool) -> dict[str, Any]:
    """What a fit reports of its losses, (steps,): the mean of the `last` ones, and for a first fit how that still moved."""
    seen = {"loss": losses[-last:].mean()}
    if first and len(losses) >= 2 * last:
        seen[f"{FIRST_FIT}loss_slope"] = seen["loss"] - losses[-2 * last : -last].mean()
    return seen


def as_first(kind: str, seen: dict[str, Any]) -> dict[str, Any]:
    """What was seen of a first fit in another state ("half" of its steps, a "finer" sampler), under names of their own."""
    return {f"{FIRST_FIT}{kind}_{name}": x for name, x in seen.items() if np.ndim(x) == 0}


def _towards(share, average, new):
    return average + share * (new - average) if jnp.issubdtype(new.dtype, jnp.inexact) else new


def finite(tree) -> jax.Array:
    """Whether every number of a tree of arrays is finite, ()."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.bool_(True)


def sound(points):
    """What a learner drew, and whether it may be data: (points, ()).

    That is where every number is finite, and nothing was drawn from a distribution that is not: whole numbers do not show that,
    so a learner of tokens says it under "sound" (count,), which is taken out here.
    """
    if isinstance(points, dict) and "sound" in points:
        kept = {name: x for name, x in points.items() if name != "sound"}
        return kept, finite(kept) & points["sound"].all()
    return points, finite(points)
