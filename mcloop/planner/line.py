"""A line of advice: what one regime allows, in numbers and in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.planner.safe import MOST

REGULAR = (
    "a regular, well-specified model, fitted by maximum likelihood to many points; an exact sampler; squared parameter error"
)


class Line(NamedTuple):
    """What one regime allows.

    Attributes:
        regime: how real and synthetic data meet, in words.
        safe: what is safe, in words.
        unit: what `value` counts, such as "lam" or "generations".
        value: the largest (or least) safe number; inf where any is, NaN where none is.
        points: the same in points for the given n; None where it has none.
        generations: for how many fits it holds; inf for ever; generation 1 is the fit on real data.
        formula: where the number comes from.
        assumption: when it is true, in words: all of these.
        source: the law or paper.
    """

    regime: str
    safe: str
    unit: str
    value: float
    points: float | None
    generations: float
    formula: str
    assumption: tuple[str, ...]
    source: str


def least(points: float) -> str:
    """The whole number of points that is not below this one."""
    return count(np.ceil(points * (1 - 1e-12)))


def count(points: float) -> str:
    """A number of points: whole, with commas; in powers of ten where nobody would count."""
    return f"{np.floor(points * (1 + 1e-12)):,.0f}" if points < 1e9 else f"{points:.3g}"


def generations_held(held: float) -> str:
    """A number of generations, and that the first is no loop at all."""
    if held >= MOST:
        return f"more than {MOST:,} generations"
    return "1 generation, the fit on real data, and no retraining" if held == 1 else f"{held:,.0f} generations"
