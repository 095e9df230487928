"""What a law is, and the few recursions that all of them are made of.

Conventions of every law in this package: `g` counts fits, so `g = 1` is the model fitted on real data; `n` real points;
`m` or `lam * n` synthetic points a generation; `S_0` and `sigma2` belong to the truth, not to the first fit; `ddof = 0`
is the maximum-likelihood covariance (divide by n), `ddof = 1` the unbiased one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Law(NamedTuple):
    """A law with the formula that a careless reader would put in its place.

    Attributes:
        id: short name, unique in the registry.
        family: the model: gaussian, regression, categorical, exponential, kde, mixture or corrector.
        regime: how real and synthetic data meet, and the estimator where it matters.
        quantity: what `value` returns, in symbols.
        formula: the law in one line.
        source: where it comes from.
        value: (g, **parameters) -> the quantity at each g.
        neighbour: what is wrong in `wrong`, in words.
        wrong: the neighbouring formula, same signature as `value`; small-n simulation must reject it.
        domain: for which parameters it holds; `value` raises ValueError outside.
    """

    id: str
    family: str
    regime: str
    quantity: str
    formula: str
    source: str
    value: Callable[..., np.ndarray]
    neighbour: str
    wrong: Callable[..., np.ndarray]
    domain: str = "all that its regime allows"


def broadcast(law: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A law whose numbers may be arrays: they broadcast, and the generations come last, (*parameters, g).

    A parameter is a number if its annotation says so; what is a vector by itself (probabilities) stays one.
    """
    signature = inspect.signature(law)
    names = [n for n, p in signature.parameters.items() if p.annotation in ("float", "int", float, int)]

    @wraps(law)
    def call(*places, **named):
        given = signature.bind(*places, **named).arguments
        many = {n: np.asarray(given[n]) for n in names if np.ndim(given.get(n, 0))}
        if not many:
            return law(**given)
        shape = np.broadcast_shapes(*(x.shape for x in many.values()))
        flat = {n: np.broadcast_to(x, shape).ravel() for n, x in many.items()}
        points = [{n: x[i].item() for n, x in flat.items()} for i in range(int(np.prod(shape)))]
        rows = [np.asarray(law(**{**given, **point})) for point in points]
        return np.reshape(rows, shape + rows[0].shape)

    return call


def fits(g: ArrayLike) -> np.ndarray:
    """`g` as a float array; a count of fits is a whole number from 1."""
    counts = np.asarray(g, dtype=float)
    if counts.size == 0 or np.any(counts < 1) or np.any(counts != np.floor(counts)):
        raise ValueError(f"g counts fits: whole numbers from 1 (the fit on real data), got {g!r}")
    return counts


def upto(g: ArrayLike) -> np.ndarray:
    """1, 2, ..., max(g)."""
    return np.arange(1.0, fits(g).max() + 1.0)


def pick(g: ArrayLike, path: ArrayLike) -> np.ndarray:
    """The entries at `g` of a path whose first entry belongs to g = 1."""
    return np.asarray(path)[fits(g).astype(int) - 1]


def product(g: ArrayLike, factors: np.ndarray) -> np.ndarray:
    """prod_{i <= g} factors_i."""
    return pick(g, np.cumprod(factors))


def total(g: ArrayLike, terms: np.ndarray) -> np.ndarray:
    """sum_{i <= g} terms_i."""
    return pick(g, np.cumsum(terms))


def relax(g: ArrayLike, start: float, rate: float, drive: float) -> np.ndarray:
    """x_g of the recursion x_1 = start, x_{g+1} = rate * x_g + drive, in closed form; rate = 1 included."""
    steps = fits(g) - 1.0
    decay = np.power(float(rate), steps)
    series = steps if rate == 1.0 else (1.0 - decay) / (1.0 - rate)
    return decay * start + drive * series
