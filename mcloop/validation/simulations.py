"""What a simulated law is made of: a program over replicas, the numbers it runs at, and what each law reads of it.

Sizes are small and generations early, where a law and its wrong neighbour are far apart. Laws of infinite data take exact
families with millions of points, which cost no more than ten; what is left of finite n is far below the standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mcloop.drivers.scan import trajectory
from mcloop.types import Loop, Model


class Check(NamedTuple):
    """What a law says of one simulation.

    Attributes:
        law: its name in the registry.
        g: the generation looked at.
        words: the sizes, for the results.
        read: infos, each (generations, *cells) -> the quantity, (generations, replicas).
        parameters: what the law is called with, beside g.
        part: which entry, where the law's value is a vector.
    """

    law: str
    g: int
    words: str
    read: Callable[[dict], Any]
    parameters: dict
    part: int = 0


class Case(NamedTuple):
    """One run of a compiled program: numbers for its traced settings, and the laws that read it."""

    checks: tuple[Check, ...]
    settings: dict


class Experiment(NamedTuple):
    """A program (keys (1, replicas), **settings) -> infos, compiled once for all its cases and calls."""

    run: Callable[..., dict]
    cases: tuple[Case, ...]
    replicas: int
    calls: int


def experiment(run: Callable[..., dict], *cases: Case, replicas: int = 2**14, calls: int = 1) -> Experiment:
    """An `Experiment`; `calls` of `replicas` each at the quickest level."""
    return Experiment(run, cases, replicas, calls)


def case(*checks: Check, **settings) -> Case:
    """A `Case`: the laws, then the settings they are read at."""
    return Case(checks, settings)


def check(law: str, g: int, words: str, read: str | Callable[[dict], Any], *, part: int = 0, **parameters) -> Check:
    """A `Check`; `read` may be a variable's name."""
    if isinstance(read, str):
        return Check(law, g, words, lambda infos: infos[read], parameters, part)
    return Check(law, g, words, read, parameters, part)


def infos(loop: Loop, key: jax.Array, generations: int, real=None) -> dict:
    """What was seen of a loop, each variable (generations, *key.shape)."""
    if loop.batched:
        return trajectory(loop, key, real, generations)[1]
    alone = jax.vmap(lambda k: trajectory(loop, k, real, generations)[1], out_axes=-1)
    return alone(key.ravel())


def started(loop: Loop, change: Callable) -> Loop:
    """The same loop from another first state: `change` (state) -> state."""
    return loop._replace(init=lambda *args: change(loop.init(*args)), begin=None)


def seeing(model: Model, **read: Callable) -> Model:
    """The same model, which also reports `name = read(params)`."""

    def measure(params, truth):
        return {**model.measure(params, truth), **{name: f(params) for name, f in read.items()}}

    return model._replace(measure=measure)
