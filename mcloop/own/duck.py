"""How a generator that mcloop does not know is made, seeded, fitted and drawn from: by the names that the field uses."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from mcloop.errors import InputError, own
from mcloop.memory.forms import called
from mcloop.storage.files import one_line

FITS = ("fit", "train")
SAMPLES = ("sample", "generate", "forge", "generate_synthetic_data")
COUNTS = ("num_rows", "n_samples", "n", "count", "size", "num_samples")
_SEEDS = ("random_state", "seed")
_SETTERS = ("set_random_state", "_set_random_state")  # the latter is what SDV's synthesizers have


class Duck(NamedTuple):
    """What is done with a generator.

    Attributes:
        new: () -> object, None where there is no factory.
        fit: (object, points, seed, weights (n,) or None) -> the fitted object.
        sample: (object, count, seed) -> points, as the object gives them.
        weighed: whether `fit` takes weights; otherwise they are None.
        seeded: whether it has a seed of its own, so that the same fit and draw come again.
        name: of the generator, in words.
    """

    new: Callable[[], Any]
    fit: Callable[[Any, Any, int, Any], Any]
    sample: Callable[[Any, int, int], Any]
    weighed: bool
    seeded: bool
    name: str


def duck(make: Callable[[], Any] | None, fit: Callable | None, sample: Callable | None, discrete: tuple) -> Duck:
    """The ways of a generator, found on one that is made for the question.

    Args:
        make: () -> a new object; None where `fit` returns one.
        fit, sample: the user's own (object, points) -> object or None, and (object, count) -> points; None looks for a method.
        discrete: names of the columns that hold no numbers, for a `fit` that wants to know them (CTGAN's).

    Raises:
        InputError: no factory, or an object that has no such methods.
    """
    for field, given in (("make", make), ("fit", fit), ("sample", sample)):
        if given is not None and not callable(given):
            raise InputError(f"{field} must be a function, not {one_line(repr(given), 60)}.")
    if make is None and (fit is None or sample is None):
        raise InputError("make must be a function that gives a generator, unless both fit and sample are given.")
    one = None if make is None else own(make, "make")
    what = type(one).__name__
    if make is not None and one is None and (fit is None or sample is None):
        raise InputError("make must return a generator, and returned nothing.")
    # names, and not methods of the object that was made for the question, of which nothing is to be kept
    fits, draws = _method(one, FITS, fit, "fit"), _method(one, SAMPLES, sample, "sample")
    wanted = _parameters(fit or getattr(one, fits)), _parameters(sample or getattr(one, draws))
    columns = {"discrete_columns": list(discrete)} if "discrete_columns" in wanted[0] and discrete else {}
    weighed = fit is None and "sample_weight" in wanted[0]
    count = next((name for name in COUNTS if name in wanted[1]), None) if sample is None else None
    seed_of = [next((name for name in _SEEDS if name in parameters), None) for parameters in wanted]

    def fit_(model, points, seed: int, weights):
        more = {**columns, **_given(seed_of[0], seed), **_given("sample_weight" if weighed else None, weights)}
        with _seeded(model, seed):
            if (call := fit) is not None:
                given = own(lambda: call(model, points, **more), "fit")
                return model if given is None else given
            given = points if isinstance(points, tuple) else (_named(model, points),)
            own(lambda: getattr(model, fits)(*given, **more), f"{what}.{fits}")
        return model

    def sample_(model, number: int, seed: int):
        more = _given(seed_of[1], seed)
        with _seeded(model, seed):
            if (call := sample) is not None:
                return own(lambda: call(model, number, **more), "sample")
            draw, asked = getattr(model, draws), () if count else (number,)
            return own(lambda: draw(*asked, **_given(count, number), **more), f"{what}.{draws}")

    seeded = _set_seed(one, 0) or any(seed_of)
    name = what if make is not None and one is not None else getattr(fit, "__name__", "a generator")
    return Duck(lambda: None if make is None else own(make, "make"), fit_, sample_, weighed, seeded, name)


def _method(one: Any, names: tuple[str, ...], given: Callable | None, field: str) -> str:
    """The name of the first method that there is; "" where a function is given in its place."""
    if given is not None:
        return ""
    for name in names:
        if callable(getattr(one, name, None)):
            return name
    named = called(one)
    raise InputError(
        f"{named[0].upper()}{named[1:]} has no method to {field} ({', '.join(names)}): give {field}=, a function of "
        f"{'(object, points)' if field == 'fit' else '(object, count)'}."
    )


def _named(model: Any, points: Any) -> Any:
    """A table by its name, which SDV's synthesizers ask for from 2.0 on; anything else as it is."""
    kind = type(model)
    if kind.__module__.split(".")[0] != "sdv" or int(metadata.version("sdv").split(".")[0]) < 2:
        return points
    return {next(iter(getattr(model.metadata, "tables", {"table": None}))): points}


def _given(name: str | None, value: Any) -> dict[str, Any]:
    """A keyword, where there is one and something to give."""
    return {} if name is None or value is None else {name: value}


def _parameters(function: Callable) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # what is written in C does not tell
        return ()


@contextmanager
def _seeded(model: Any, seed: int) -> Iterator[None]:
    """Seeds a generator, and the global generators that it may draw from, which are then put back."""
    before, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    kept = None if torch is None else torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch is not None:
        torch.manual_seed(seed)
    _set_seed(model, seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numbers)  # noqa: NPY002
        if torch is not None and kept is not None:
            torch.random.set_rng_state(kept)


def _set_seed(model: Any, seed: int) -> bool:
    """Seeds a generator that has a seed of its own; whether it has."""
    for name in _SETTERS:
        if callable(setter := getattr(model, name, None)):
            try:
                setter(seed)
            except AttributeError:  # SDV's has no model to seed before it is fitted
                return True
            return True
    if callable(getattr(model, "get_params", None)) and callable(getattr(model, "set_params", None)):
        try:  # a pipeline has one a part
            named = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
        except TypeError:
            named = []
        if named:
            model.set_params(**dict.fromkeys(named, seed))
            return True
    if hasattr(model, "random_state") and not callable(model.random_state):
        model.random_state = seed
        return True
    return False
