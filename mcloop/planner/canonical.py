"""A self-consuming loop in points, whatever a paper calls them, and its synthetic : real ratio by generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import upto


class Canonical(NamedTuple):
    """A self-consuming loop in points, whatever a paper calls them; generation 1 is the fit on real data.

    Attributes:
        first: real points of generation 1.
        fixed: how many of those are trained on again in every later generation: `first` or 0.
        fresh: new real points a generation, from generation 2 on.
        synthetic: new synthetic points a generation (not floored: a lam of 0.55 of 10 points is 5.5).
        keeps: whether all data of earlier generations are kept beside the new.
        growth: generation g draws `synthetic` * g^growth points.
        window: a generation trains on the data of the last so many generations, the real set being generation 1's.
        budget: a generation trains on so many points, drawn at random from what was kept.
        weight: share of the fit that the real points carry; None weighs every point alike.
        gamma: strength of the corrector pi_gamma p = (p + gamma p*)/(1 + gamma).
        candidates: curation keeps one of so many candidates by a reward.
        bias: sampling bias; 1 is none.
        warm: whether a fit starts from the previous parameters; None where that is not said.
    """

    first: float
    fixed: float = 0.0
    fresh: float = 0.0
    synthetic: float = 0.0
    keeps: bool = False
    growth: float = 0.0
    window: int | None = None
    budget: float | None = None
    weight: float | None = None
    gamma: float = 0.0
    candidates: int = 1
    bias: float = 1.0
    warm: bool | None = None


class Symbol(NamedTuple):
    """A paper's symbol: what it means, its default (None: as many as there are real points), and what is allowed.

    `test` holds for an allowed value; `names` are the values of a symbol that is no number.
    """

    words: str
    default: Any
    allowed: str
    test: Callable[[Any], bool]
    names: tuple[str, ...] = ()


class Paper(NamedTuple):
    """A paper's vocabulary.

    Attributes:
        name, authors: as they are called here.
        arxiv: its id; None where it is not known for certain.
        aliases: other names that a user may type.
        symbols: its parameters.
        size: the symbol that counts the real points.
        warm: whether its fits start from the previous parameters, where it says so.
        remark: what a reader would mistake; "" for nothing.
        to_canonical: its parameters -> Canonical.
        from_canonical: Canonical -> its parameters, or one sentence on what it cannot express.
    """

    name: str
    authors: str
    arxiv: str | None
    aliases: tuple[str, ...]
    symbols: Mapping[str, Symbol]
    size: str
    warm: bool | None
    remark: str
    to_canonical: Callable[..., Canonical]
    from_canonical: Callable[[Canonical], dict[str, Any] | str]


LACKS = {
    "fixed": "there every real point after generation 1 is fresh",
    "fresh": "there are no fresh real points there",
    "none": "there every generation has real points",
    "keeps": "there old synthetic points are discarded",
    "budget": "there is no subsample there",
    "window": "there is no window of generations there",
    "growth": "there all generations draw equally many",
    "weight": "there every point weighs alike",
    "gamma": "there is no corrector there",
    "candidates": "there is no curation there",
    "bias": "there is no sampling bias there",
}


def features(c: Canonical) -> dict[str, str]:
    """What a paper must have a symbol for to express this loop: feature -> the loop's side of it, in words."""
    told = {
        "fixed": (c.fixed > 0, "trains on the same real points every generation"),
        "fresh": (c.fresh > 0, "draws fresh real points every generation"),
        "none": (not c.fixed and not c.fresh, "has no real points beyond generation 1's"),
        "keeps": (c.keeps, "keeps all old synthetic points"),
        "budget": (c.budget is not None, "trains on a random subsample"),
        "window": (c.window is not None, "trains on a window of generations"),
        "growth": (c.growth != 0, "draws more synthetic points every generation"),
        "weight": (c.weight is not None and not same(c.weight, share(c)), "weighs real and synthetic points unequally"),
        "gamma": (c.gamma > 0, "corrects its synthetic points"),
        "candidates": (c.candidates > 1, f"keeps the best of {c.candidates} candidates"),
        "bias": (c.bias != 1, "samples with a bias"),
    }
    return {name: words for name, (holds, words) in told.items() if holds}


def share(c: Canonical) -> float:
    """The share of real points in a training set of this loop, by number."""
    return (c.fixed + c.fresh) / (c.fixed + c.fresh + c.synthetic)


def same(a: float, b: float) -> bool:
    """Whether two counts or ratios are equal but for rounding."""
    return math.isclose(a, b, rel_tol=1e-9)


def effective_ratio(c: Canonical, generations: int) -> np.ndarray:
    """The synthetic : real weight of the training set of generations 1, ..., `generations`; shape (generations,).

    0 at generation 1 and inf where nothing real is left: augment lam, accumulate (g - 1) m/n, replace inf, a window of k
    generations (g - 1) m/n while the real set is in it. With a weight w on real data (1 - w)/w. Whole points, as a loop
    draws them. For a subsample it is the ratio of what it is drawn from, which its real share has in expectation.
    Derived here, by counting; a loop reports the same as `effective_lam`.
    """
    g = upto(generations)
    drawn = whole(c.synthetic * g**c.growth) * (g > 1)
    kept = np.inf if c.keeps else c.window or 1
    grown = np.cumsum(drawn)
    old = np.arange(len(g)) - kept
    synthetic = grown - np.where(old >= 0, grown[np.maximum(old, 0).astype(int)], 0.0)
    real = c.fixed + whole(c.fresh) + np.where(g <= kept, c.first if not c.fixed else 0.0, 0.0)
    if c.weight is not None:
        synthetic, real = np.full(len(g), 1.0 - c.weight), np.full(len(g), float(c.weight))
    ratio = np.divide(synthetic, real, out=np.full(len(g), np.inf), where=real > 0)
    return np.where(g == 1, 0.0, ratio)


def whole(points: ArrayLike) -> np.ndarray:
    """floor(points), a single-precision grain up: the number that a loop draws."""
    return np.floor(np.asarray(points, dtype=float) * (1 + 2e-7) + 1e-6)
