"""What an experiment can be asked for by name: every argument of its `make` and of the family behind it, declared once."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from mcloop.errors import InputError
from mcloop.results import INSIDE, named

if TYPE_CHECKING:
    from mcloop.experiment.config import Experiment

EMPTY = inspect.Parameter.empty
_NOT_AXES = ("table",)  # the user's data, which `load` reads


class Argument(NamedTuple):
    """Something that `--set` can replace.

    Attributes:
        default: what it is where neither the size nor the user says so; EMPTY where the grid must.
        offered: the values of the experiment's own grid.
        kind: "name" (one of those offered), "text", "switch", "whole" or "number".
    """

    name: str
    default: Any
    offered: tuple[Any, ...]
    kind: str


def arguments(experiment: Experiment) -> dict[str, Argument]:
    """Every argument of `make`, then those of `family` that `make` passes on and does not name itself."""
    found = {}
    passes = False
    for parameter in inspect.signature(experiment.make).parameters.values():
        passes = passes or parameter.kind is parameter.VAR_KEYWORD
        if parameter.name not in _NOT_AXES and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found[parameter.name] = _argument(experiment, parameter)
    behind = experiment.family if isinstance(experiment.family, tuple) else (experiment.family,)
    for function in behind if passes and experiment.family is not None else ():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name not in (*found, *_NOT_AXES) and parameter.default is not EMPTY:
                found[parameter.name] = _argument(experiment, parameter)
    return found


def _argument(experiment: Experiment, parameter: inspect.Parameter) -> Argument:
    offered = tuple(experiment.grid.get(parameter.name, ()))
    seen = [v for v in (*offered, parameter.default) if v is not EMPTY and v is not None]
    # a size may give what the default leaves open
    seen += [s.options[parameter.name] for s in experiment.sizes.values() if parameter.name in s.options and not seen]
    seen += [v for s in experiment.sizes.values() for v in s.grid.get(parameter.name, ())]
    if any(isinstance(v, str) for v in offered):
        kind = "name"
    elif any(isinstance(v, str) for v in seen):
        kind = "text"
    elif isinstance(parameter.default, bool):
        kind = "switch"
    elif all(isinstance(v, int) for v in seen):
        kind = "whole"
    else:
        kind = "number"
    return Argument(parameter.name, parameter.default, offered, kind)


def read_values(argument: Argument, given: str | Sequence[Any]) -> list[Any]:
    """The values that a user gives to an argument, as its kind has them.

    Args:
        given: text such as "0.5,1", or values.

    Raises:
        InputError: a value of another kind, or a name that the experiment has not.
    """
    if isinstance(given, str):
        pieces = [piece.strip() for piece in given.split(",")]
        values = _names(argument, pieces) if argument.kind == "name" else [piece for piece in pieces if piece]
    else:
        values = list(given)
    found = [_value(argument, value) for value in values]
    if not found:
        raise InputError(f"axis {argument.name!r} must have at least one value, not none.")
    return found


def _names(argument: Argument, pieces: list[str]) -> list[str]:
    """Names that the experiment offers, of which some hold commas themselves: the longest that fits is taken."""
    offered, found = {str(v) for v in argument.offered}, []
    while pieces:
        fits = [i for i in range(len(pieces), 0, -1) if ", ".join(pieces[:i]) in offered]
        taken = fits[0] if fits else 1
        found += [name for name in (", ".join(pieces[:taken]),) if name]
        pieces = pieces[taken:]
    return found


def _value(argument: Argument, value: Any) -> Any:
    axis = argument.name
    if argument.kind == "name":
        if value not in argument.offered:
            raise InputError(f"axis {axis!r} must be among {', '.join(map(str, argument.offered))}, not {value!r}.")
        return value
    if argument.kind == "text":
        return str(value)
    if argument.kind == "switch":
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if (text := str(value).lower()) not in known:
            raise InputError(f"axis {axis!r} must be true or false, not {value!r}.")
        return known[text]
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, str) or isinstance(number, bool):
        raise InputError(f"axis {axis!r} must be numbers, not {value!r}.")
    if number != number:
        raise InputError(f"{axis} must be a number, not nan.")
    if argument.kind == "whole":
        if not math.isfinite(number) or number != int(number) or abs(number) >= 2**53:
            raise InputError(f"axis {axis!r} must be whole numbers, not {value!r}.")
        return int(number)
    return number


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def complete(experiment: Experiment, size: str, grid: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The value of every argument in a run: its default, the size's, or the first of its axis."""
    declared = {a.name: a.default for a in arguments(experiment).values() if a.default is not EMPTY}
    options = experiment.sizes[size].options if size in experiment.sizes else {}
    return {**declared, **options, **{axis: values[0] for axis, values in grid.items()}}


def chosen(options: Mapping[str, Any], *functions: Callable[..., Any]) -> dict[str, Any]:
    """Those of the options that one of the functions names as an argument."""
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return {name: value for name, value in options.items() if name in names}


def knowing(function: Callable[..., Any], known: Mapping[str, Any]) -> Callable[..., Any]:
    """`function`, which is given all that it names of what is known and of the keywords that it is called with."""
    parameters = inspect.signature(function).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)

    @wraps(function)
    def call(*given, **more):
        every = {**known, **more}
        return function(*given, **{k: v for k, v in every.items() if everything or k in names})

    return call


def bind(experiment: Experiment, size: str, grid: Mapping[str, Sequence[Any]]) -> Experiment:
    """The experiment of one run: its law, figure, notes and certificate know every argument that `make` had.

    Figures and notes know the axes of the experiment's own grid. Further ones are taken out of what they are shown: they
    are drawn and said once for every value.
    """
    known = complete(experiment, size, grid)
    law = None if experiment.law is None else knowing(experiment.law, known)
    certify = None if experiment.certify is None else knowing(experiment.certify, known)
    bound = experiment._replace(law=law, certify=certify)
    if (draw := experiment.figure) is not None:

        def figure(ds, _):
            found = {}
            for point, label, part in _parts(ds, experiment):
                at = bound if law is None else bound._replace(law=knowing(law, point))
                drawn = knowing(draw, {**known, **point})(part, at)
                found |= {f"{name}, {label}" if label else name: x for name, x in drawn.items()}
            return found

        bound = bound._replace(figure=figure)
    if (tell := experiment.notes) is not None:

        def notes(ds):
            parts = _parts(ds, experiment)
            said = [(label, knowing(tell, {**known, **point})(part)) for point, label, part in parts]
            return [f"{label}: {text}" if label else text for label, texts in said for text in texts]

        bound = bound._replace(notes=notes)
    return bound


def _parts(ds, experiment: Experiment) -> list[tuple[dict[str, Any], str, Any]]:
    """(values of the further axes, what they are called where they vary, the Dataset there)."""
    axes = {str(d) for v in ds.data_vars.values() if "generation" in v.dims for d in v.dims if d in ds.coords}
    further = [d for d in map(str, ds.dims) if d in axes and d not in experiment.grid and d not in INSIDE]
    found = []
    for values in itertools.product(*(ds[d].values.tolist() for d in further)):
        point = dict(zip(further, values, strict=True))
        label = ", ".join(named(d, v) for d, v in point.items() if ds.sizes[d] > 1)
        found.append((point, label, ds.sel(point, drop=True) if point else ds))
    return found


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache` by what the arguments are, however they are given: by place, by name, or by default."""
    signature, kept = inspect.signature(function), {}

    @wraps(function)
    def call(*given, **more):
        bound = signature.bind(*given, **more)
        bound.apply_defaults()
        key = tuple((k, tuple(v.items()) if isinstance(v, dict) else v) for k, v in bound.arguments.items())
        if key not in kept:
            kept[key] = function(*bound.args, **bound.kwargs)
        return kept[key]

    return call
