"""How fast a hosted model is here: its steps, its draws and its looks, timed before a run begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from mcloop.types import Pace

_ENOUGH = 1.0  # seconds over which a step is timed
_SLOW = 20.0  # and that a draw may take, where nothing is to be run afterwards
_MOST = 25  # steps at most: a slow one is known after a few


def timed(steps: Callable[[int], object], draws: Mapping[int, Callable[[], object]], look: Callable[[], object] | None) -> Pace:
    """Seconds a step, a point and a look; what each compiles is compiled by a call before, and a run then has it.

    Args:
        steps: makes so many optimiser steps, and waits for them.
        draws: points -> draws so many. Where there are several, a number is drawn only if by the one before it that takes
            seconds: of a slow sampler the time of a few points is enough.
        look: measures what was drawn; None where nothing is measured.
    """
    steps(1)
    step = _seconds(lambda: steps(1))
    if step < _ENOUGH:
        count = min(_MOST, int(_ENOUGH / max(step, 1e-6)))
        step = _seconds(lambda: steps(count)) / count
    point = 0.0
    for count, draw in draws.items():
        if point * count < _SLOW:
            draw()
            point = _seconds(draw) / count
    if look is None:
        return Pace(step, point, 0.0)
    look()
    return Pace(step, point, _seconds(look))


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
