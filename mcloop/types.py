"""The parts of a loop and what passes between them: tuples of pure functions, and shape letters.

Shapes: `n` points, `d` dimensions, `k` categories, `r` rows of a pool, `*cells` any trailing axes. Every exact part is
written for one cell and broadcasts over trailing axes, so that a whole grid is one array program whose innermost axis is
the cell: the layout in which small matrices are fast on a CPU and coalesced on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mcloop.errors import InputError as InputError

Key = jax.Array  # typed PRNG key(s), shape (*cells,)
Batch = Any  # what a model draws: a pytree in the representation that its memory understands
Params = Any  # what a model fits: a pytree


class Draw(NamedTuple):
    """How many points a generation needs: `synthetic` from the previous model, `fresh` from the truth."""

    synthetic: Any
    fresh: Any = 0.0


class Memory(NamedTuple):
    """How a model remembers data: one algebra, whatever the representation (statistics, rows, shards).

    Attributes:
        merge: (a, b) -> the union of two bodies of data.
        scale: (a, w) -> the same data, every point weighing `w` times as much.
        size: a -> total weight, shape (*cells,).
        real: a -> the part of that weight which is real data; `size - real` is synthetic.
        reserve: (a, blocks) -> the same data with room for `blocks` generations of points in all.
        append: (pool, a, place) -> the union of a reserved pool and one more generation, put at block `place`.
        subsample: (key, a, count) -> `count` points drawn without replacement, or None where points are not kept.
        capacity: the most points that one draw holds, where each takes a row; None where a draw has no size limit.
    """

    merge: Callable[[Any, Any], Any]
    scale: Callable[[Any, Any], Any]
    size: Callable[[Any], Any]
    real: Callable[[Any], Any]
    reserve: Callable[[Any, int], Any]
    append: Callable[[Any, Any, Any], Any]
    subsample: Callable[[Key, Any, Any], Any] | None = None
    capacity: int | None = None


def additive(merge, scale, size, real) -> Memory:
    """The memory of a sufficient statistic: a union costs the same however old the pool is, and needs no room."""
    return Memory(merge, scale, size, real, lambda a, blocks: a, lambda pool, a, place: merge(pool, a))


class Objective(NamedTuple):
    """What a fit minimises, for those who differentiate it; for one cell.

    Attributes:
        risk: (key, free, data) -> the mean loss of a body of data, a scalar, differentiable in both; data are as the model's
            memory has them.
        free: params -> free coordinates, a pytree of real numbers of which any are allowed.
        params: free -> params.
        likelihood: whether a fit is maximum likelihood and `Model.sample` draws from it exactly, so that a model's own points
            pull it nowhere; the risk is minus a log-density in nats, or has its minimum and so the same rates.
        expect: params -> data that stand for infinitely many of the model's points, of weight one in all; None where only
            drawn ones can.
        at: (known) params -> the objective near them, where coordinates depend on them (categories that are there, a design
            that is kept); None where they do not.
    """

    risk: Callable[[Key, Any, Any], jax.Array]
    free: Callable[[Params], Any]
    params: Callable[[Any], Params]
    likelihood: bool
    expect: Callable[[Params], Any] | None = None
    at: Callable[[Params], Objective] | None = None


class ClosedForms(NamedTuple):
    """What a family knows of itself in formulas; a corrector or a certificate that needs one says so where it is missing.

    Attributes:
        temper: (params, T) -> the parameters at temperature T.
        blend: (a, b, w) -> (1 - w) a + w b in the parameters that are extrapolated (means, covariances, ...).
        accept: (params, score) -> parameters of the distribution kept by a verifier.
        objective: what `fit` minimises: certificates are computed from it.
    """

    temper: Callable[[Params, Any], Params] | None = None
    blend: Callable[[Params, Params, Any], Params] | None = None
    accept: Callable[[Params, Any], Params] | None = None
    objective: Objective | None = None


class Pace(NamedTuple):
    """How fast a hosted model is on this machine: seconds an optimiser step, a point drawn, and a look at what was drawn."""

    step: float
    point: float
    look: float


class Hosted(NamedTuple):
    """What a model needs that runs on the host, a Python loop of compiled steps over data that may lie on disk.

    Attributes:
        blank: () -> the parameters' shapes, by which a checkpoint is read.
        steps: (whether the fit is the first, points) -> its optimiser steps; None where that is not known.
        samples: points that are drawn for a look at a model.
        opened: what is drawn to look at a first fit beside its end, in `samples`: once at half of its steps, and, where there
            is a sampler of twice the steps, by that one, which takes as long as twice.
        timed: (whether nothing is to be run) -> the `Pace` of a step, a draw and a look on this machine; None where that is not
            known. Where nothing is to be run, a slow sampler is timed by a few points.
        shown: points as shards keep them -> points as their owner has them (a DataFrame, texts), which is what the owner's
            functions are given; None where both are the same.
        kept: the way back.
    """

    blank: Callable[[], Params]
    steps: Callable[..., int] | None = None
    samples: int = 0
    opened: int = 0
    timed: Callable[[bool], Pace] | None = None
    shown: Callable[[dict[str, Any]], Any] | None = None
    kept: Callable[[Any], dict[str, Any]] | None = None


class Model(NamedTuple):
    """A family: how it draws, fits, and is measured. The first six fields are all that a loop needs.

    Attributes:
        name: the family's name, as it appears in results.
        n: real points (and the unit of every draw), shape () or (*cells,).
        memory: how it remembers data.
        observe: (key, real) -> (data, truth): the first training set, and the parameters that play theta* (the known
            truth, or the fit on all of the user's data).
        sample: (key, params, count) -> batch of synthetic points, in the memory's representation.
        fit: (key, params, data) -> (params, info): `params` is the previous generation's (for a warm start).
        measure: (params, truth) -> dict of scalars a cell.
        evaluate: (key, params, truth) -> dict of what is seen only by drawing samples: scalars, and pictures (arrays).
        keep: (key, real) -> what new real points are drawn from where `real` is the user's data; None keeps the rows of the
            first training set, and refuses a model of statistics; () where the fit says all there is to know.
        fresh: (key, kept, truth, count) -> new real points in the memory's representation, or None where `sample` draws them
            from the truth; `kept` is () for a known truth.
            None draws from the truth by `sample`, and from kept rows by bootstrap.
        unit: points of which every draw must be whole multiples (a design that is re-used), or None.
        loose: the model in its place where draws are not known to be whole; None refuses those that are known not to be.
        estimator: words for the results: "maximum likelihood (ddof 0)", ...
        batched: whether every function broadcasts over trailing cell axes; if not, the drivers vmap.
        forms: what is known in closed form.
        hosted: given for a model that is never traced and never vmapped; None for one that is compiled.
    """

    name: str
    n: Any
    memory: Memory
    observe: Callable[[Key, Any], tuple[Any, Params]]
    sample: Callable[[Key, Params, Any], Batch]
    fit: Callable[[Key, Params, Any], tuple[Params, dict]]
    measure: Callable[[Params, Params], dict] = lambda params, truth: {}
    evaluate: Callable[[Key, Params, Params], dict] | None = None
    keep: Callable[[Key, Any], Any] | None = None
    fresh: Callable[[Key, Any, Params, Any], Batch | None] | None = None
    unit: Any = None
    loose: Model | None = None
    estimator: str = ""
    batched: bool = False
    forms: ClosedForms = ClosedForms()
    hosted: Hosted | None = None


class Learner(NamedTuple):
    """A network with an objective and a sampler, written for one loop; pure, so that vmap gives grids.

    Points are an array (n, ...), or for class-conditional learners a dict {"x": (n, ...), "label": (n,) int32}.

    Attributes:
        name: as it appears in results.
        init: (key) -> Variables, the network's parameters and running statistics.
        loss: (key, variables, points) -> (scalar loss, statistics after a forward pass in training mode).
        sample: (key, variables, count, label=None) -> points; `count` is static, `label` None takes the classes in turn.
        field: (variables, points (n, ...)) -> (n, m): what the network says on a fixed probe, by which two models are
            compared as functions.
        log_prob: (variables, points) -> (n,) nats, exact, where there is one.
        finer: as `sample`, by a sampler of more steps: what is left of the sampler's own error; None where it has no steps.
    """

    name: str
    init: Callable[[Key], Any]
    loss: Callable[[Key, Any, Batch], tuple[jax.Array, Any]]
    sample: Callable[..., Batch]
    field: Callable[[Any, Batch], jax.Array]
    log_prob: Callable[[Any, Batch], jax.Array] | None = None
    finer: Callable[..., Batch] | None = None


class Regime(NamedTuple):
    """What is remembered from one generation to the next, written once against the algebra of a memory.

    Attributes:
        name: as it appears in results.
        draw: (n, t) -> Draw for generation t (t = 2 is the first that sees synthetic data).
        init: (memory, real, capacity, generations) -> pool; `generations` is None for a loop stepped by hand.
        update: (memory, pool, supply, t) -> pool, what is remembered after generation t has drawn its `Supply`.
        view: (key, memory, pool, supply, n, t) -> what generation t is trained on.
        lam: synthetic : real, where it is a fixed real set and lam synthetic (of which there are certificates), else None.
    """

    name: str
    draw: Callable[[Any, Any], Draw]
    view: Callable[[Key, Memory, Any, Any, Any, Any], Any]
    init: Callable[[Memory, Any, int | None, int | None], Any] = lambda memory, real, capacity, generations: ()
    update: Callable[[Memory, Any, Any, Any], Any] = lambda memory, pool, supply, t: pool
    lam: Any = None


class Supply(NamedTuple):
    """What one generation has to train on: the first real set, fresh real points, corrected synthetic points."""

    real: Any
    fresh: Any
    synthetic: Any


class Corrector(NamedTuple):
    """What is done to synthetic data, or to the model that draws it.

    Attributes:
        name: as it appears in results.
        sample: (key, model, params, truth, count) -> batch of corrected points.
        refine: (model, params, real_params) -> params, applied after the fit (negative guidance), or None.
        batched: whether it broadcasts over trailing cell axes.
        splits: whether it asks the model for a random part of a draw.
        candidates: points that it draws for every one that it hands on, on average.
    """

    name: str
    sample: Callable[..., Batch]
    refine: Callable[[Model, Params, Params], Params] | None = None
    batched: bool = True
    splits: bool = False
    candidates: float = 1.0


class State(NamedTuple):
    """What the next generation needs, and nothing else; the key is not here, so a run resumes from (seed, t).

    `kept` is what new real points are drawn from, where a regime asks for any and `real` is the user's data.
    """

    t: Any
    params: Params
    pool: Any
    real: Any
    truth: Params
    kept: Any = ()


class Loop(NamedTuple):
    """A self-consuming loop: `init(key, real) -> State`, `generation(key, state) -> (State, Info)`.

    `measure(key, state) -> Info` gives what is seen of a state (generation 1, the fit on real data, has no generation step).
    `alone` is given for copies of a loop that are compared with each other: the loop itself. `begin` is `init` that also
    returns what the fit of generation 1 reports; None where a loop starts in another way, see `begun`.
    """

    init: Callable[..., State]
    generation: Callable[[Key, State], tuple[State, dict]]
    measure: Callable[[Key, State], dict]
    model: Model
    regime: Regime
    corrector: Corrector
    batched: bool
    alone: Any = None
    begin: Callable[..., tuple[State, dict]] | None = None


def begun(loop: Loop, *args: Any, **kwargs: Any) -> tuple[State, dict]:
    """Generation 1 of a loop, and what its fit reports; arguments as for `loop.init`."""
    return (loop.init(*args, **kwargs), {}) if loop.begin is None else loop.begin(*args, **kwargs)
