"""What a run of hosted loops will cost: how much there is to do, and how long that takes on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcloop.memory.shards import Shard, Shards
from mcloop.progress import lasting
from mcloop.types import Hosted, Loop, Pace, Supply


class Work(NamedTuple):
    """What is done of something: optimiser steps, points drawn, looks at a model."""

    steps: float = 0.0
    points: float = 0.0
    looks: float = 0.0

    def seconds(self, pace: Pace) -> float:
        """How long that takes."""
        return self.steps * pace.step + self.points * pace.point + self.looks * pace.look


def work(loop: Loop, data: Shards, generations: int) -> list[Work] | None:
    """What each generation of a hosted loop does; None where its model does not tell.

    The regime is asked for its pools of as many points as there would be, which hold nothing.

    Args:
        data: the real data.
        generations: >= 1.
    """
    model, regime, hosted = loop.model, loop.regime, loop.model.hosted
    if hosted is None or hosted.steps is None:
        return None
    done = [_first(hosted, len(data))]
    pool = regime.init(model.memory, data, model.memory.capacity, generations)
    one, again = data.take(np.zeros(1, np.int64)), loop.corrector.candidates
    for t in range(2, generations + 1):
        wanted = regime.draw(model.n, t)
        supply = Supply(data, _hollow(one, wanted.fresh).as_real(), _hollow(one, wanted.synthetic))
        pool = regime.update(model.memory, pool, supply, t)
        seen = regime.view(jax.random.key(0), model.memory, pool, supply, model.n, t)
        # what was drawn to look at the last model is not drawn again, unless it is one of several candidates
        drawn = len(supply.synthetic) * again - (min(len(supply.synthetic), hosted.samples) if again == 1 else 0)
        done.append(Work(hosted.steps(False, len(seen)), drawn + hosted.samples, 1))
    return done


def _first(hosted: Hosted, points: int) -> Work:
    """The first fit, its look, and those at half of its steps and by a sampler of twice the steps, which counts twice."""
    assert hosted.steps is not None
    return Work(hosted.steps(True, points), hosted.samples * (1 + hosted.opened), 1 + min(hosted.opened, 2))


def _hollow(one: dict[str, np.ndarray], count: Any) -> Shards:
    """So many copies of a point, which take no memory."""
    count = int(count)
    if count == 0:
        return Shards()
    return Shards((Shard({name: np.broadcast_to(x, (count, *x.shape[1:])) for name, x in one.items()}),))


class Forecast(NamedTuple):
    """What is ahead.

    Attributes:
        seconds: of every generation of every loop, in the order of computation; 0 where another loop hands it on.
        words: how long in all, and from what that is told.
    """

    seconds: list[list[float]]
    words: str


def forecast(
    loops: Sequence[tuple[Loop, Any]], begun: Sequence[int], generations: int, worth: int = 1, briefly: bool = False
) -> Forecast | None:
    """How long hosted loops will take here, by timing a few steps and draws of each model; None where they do not tell.

    Args:
        loops: (loop, what is equal in loops that share their first fit), in the order of computation.
        begun: how many generations of each are there already.
        generations: of each loop.
        worth: optimiser steps in all from which timing is worth its seconds.
        briefly: whether nothing is to be run, see `Hosted.timed`.
    """
    if any(loop.model.hosted is None or loop.model.hosted.timed is None for loop, _ in loops):
        return None
    ahead: list[tuple[Loop, list[Work]]] = []
    opened: set[Any] = set()
    distinct = {id(loop): loop for loop, _ in loops}
    known = {i: work(loop, loop.model.observe(jax.random.key(0), None)[0], generations) for i, loop in distinct.items()}
    for (loop, shared), there in zip(loops, begun, strict=True):
        found = known[id(loop)]
        if found is None:
            return None
        handed_on = shared is not None and shared in opened
        opened.add(shared)
        found = [Work() if t < there or (t == 0 and handed_on) else w for t, w in enumerate(found)]
        ahead.append((loop, found))
    if sum(w.steps for _, found in ahead for w in found) < worth:
        return None
    paces: dict[int, Pace] = {}
    for loop, found in ahead:
        if any(w != Work() for w in found) and id(loop.model.observe) not in paces:
            assert loop.model.hosted is not None and loop.model.hosted.timed is not None
            paces[id(loop.model.observe)] = loop.model.hosted.timed(briefly)
    seconds = [[w.seconds(paces[id(loop.model.observe)]) if w != Work() else 0.0 for w in found] for loop, found in ahead]
    return Forecast(seconds, _words(sum(map(sum, seconds)), [w for _, found in ahead for w in found], list(paces.values())))


def _words(total: float, done: list[Work], paces: list[Pace]) -> str:
    steps, points, looks = (sum(part) for part in zip(*done, strict=True))
    each = [" to ".join(dict.fromkeys((_unit(min(many)), _unit(max(many))))) for many in zip(*paces, strict=True)]
    what = (
        f"{steps:,.0f} optimiser steps of {each[0]}, {points:,.0f} points drawn at {each[1]}, {looks:,.0f} looks of {each[2]}"
    )
    return f"Timed on this machine: about {lasting(total)} ({what})"


def _unit(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:.{2 if seconds < 0.1 else 3}g} ms"
