"""What a thing is, as JSON holds it: the same in every process, so that a folder can say which loop its numbers are of.

Parts are tuples of closures. A part is described by its fields, a function by its name and by what it has closed over, a user's
function also by its code and by the globals that it reads, an array by its digest. No address, line number, docstring or path
counts. A library's function is its name: which version of the library it is from is kept beside the settings of a run.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import os
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mcloop.storage.code import instructions, is_library, of_pandas, spelling

_LONG = 32  # entries beyond which a digest stands for a list or a dict
_WORDS = 300  # letters beyond which one stands for a text
_SHORT = 100  # letters of JSON up to which a part is written out wherever it occurs
# where things run, what is held while they run: no number depends on it
_PLACES = (jax.sharding.Mesh, jax.sharding.Sharding, jax.Device)
_NAMELESS = (types.GeneratorType, types.CoroutineType, os.PathLike)


def describe(value: Any, arrays: dict[int, Any] | None = None) -> Any:
    """What a value is, as JSON holds it.

    An object that changes while it is used (a counter, a cache) says itself what counts of it, by a method
    `mcloop_identity()` that returns plain values.

    Args:
        value: anything: numbers, arrays, parts, functions, modules of Flax.
        arrays: digests that are known, for one process; arrays that several loops share are then read once.
    """
    return _folded(_Walk({} if arrays is None else arrays).of(value))


def describe_loop(loop: Any, arrays: dict[int, Any] | None = None) -> Any:
    """What a loop is: its parts first, under their own names; then how they are put together."""
    return describe(_Parts(loop.regime, loop.corrector, loop.model, (loop.init, loop.generation, loop.measure)), arrays)


class Memo(dict):
    """What was computed once and is kept, in a closure: it follows from the rest of it, and is no part of what a loop is."""

    def mcloop_identity(self) -> None:
        """Nothing: a loop that has computed more is the same loop."""


class _Parts(NamedTuple):
    regime: Any
    corrector: Any
    model: Any
    loop: Any


def digest(described: Any) -> str:
    """A short name for what was described."""
    return _sha(json.dumps(described, sort_keys=True).encode())


def numerics() -> dict[str, Any]:
    """The switches of JAX that numbers depend on."""
    names = ("jax_enable_x64", "jax_default_prng_impl", "jax_default_matmul_precision", "jax_threefry_partitionable")
    return {name.removeprefix("jax_"): getattr(jax.config, name, None) for name in names}


class _Walk:
    """One description under way: what was met before, and what is being described."""

    def __init__(self, arrays: dict[int, Any]) -> None:
        self.arrays = arrays
        self.known: dict[int, tuple[Any, Any]] = {}  # the object too, or its place might be given to another one
        self.open: dict[int, int] = {}

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value if type(value) in (bool, int, type(None)) else _plain(value)
        if isinstance(value, str):
            return value if len(value) <= _WORDS else f"{len(value)} letters {_sha(value.encode('utf-8', 'surrogatepass'))}"
        if isinstance(value, bytes | bytearray | complex | np.generic):
            return _plain(value)
        if isinstance(value, Tracer):
            return f"traced {value.aval}"
        if isinstance(value, np.ndarray | jax.Array):
            return self._array(value)
        if (place := id(value)) in self.known:
            return self.known[place][1]
        if place in self.open:
            return f"itself, {len(self.open) - self.open[place]} up"
        self.open[place] = len(self.open)
        try:
            found = self._thing(value)
        finally:
            del self.open[place]
        self.known[place] = value, found
        return found

    def _thing(self, value: Any) -> Any:
        if callable(own := getattr(type(value), "mcloop_identity", None)):
            return {"kind": type(value).__qualname__, "is": self.of(own(value))}
        for kinds, how in (
            (types.FunctionType, self._function),
            (functools.partial, lambda p: {"partial": self.of(p.func), "args": self.of(p.args), **self._named(p.keywords)}),
            (types.MethodType, lambda m: {"method": m.__name__, "function": self.of(m.__func__), "of": self.of(m.__self__)}),
            (type, self._class),
            (types.ModuleType, lambda m: f"module {m.__name__}"),
            (_PLACES, lambda p: f"a {type(p).__name__}"),
            (np.dtype, str),
            (jax.ShapeDtypeStruct, lambda s: f"{s.dtype}{list(s.shape)}"),
            (enum.Enum, lambda e: f"{type(e).__qualname__}.{e.name}"),
            (types.CodeType, lambda c: self._code(c)),
        ):
            if isinstance(value, kinds):
                return how(value)
        if type(value).__module__.partition(".")[0] == "pandas":
            return self._named(of_pandas(value))
        if isinstance(value, tuple) and (fields := getattr(value, "_fields", None)) is not None:
            return {"kind": type(value).__name__, **{k: self.of(v) for k, v in zip(fields, value, strict=True)}}
        if isinstance(value, Mapping):
            return self._named(value)
        if isinstance(value, Set):
            return sorted((self.of(x) for x in value), key=lambda x: json.dumps(x, sort_keys=True))
        if isinstance(value, list | tuple) or (isinstance(value, Sequence) and type(value).__module__ == "builtins"):
            return [self.of(x) for x in value]
        if callable(value) and callable(inside := getattr(value, "__wrapped__", None) or getattr(value, "fun", None)):
            return {"wrapped": type(value).__name__, "function": self.of(inside)}  # jit, cache, custom_jvp
        if isinstance(value, types.BuiltinFunctionType | np.ufunc) or type(value).__name__ == "ufunc":
            return f"{getattr(value, '__module__', None) or 'numpy'}.{getattr(value, '__name__', type(value).__name__)}"
        return self._instance(value)

    def _named(self, entries: Mapping[Any, Any]) -> dict[str, Any]:
        """A mapping, its keys as words in their order."""
        words = {k if isinstance(k, str) else json.dumps(self.of(k), sort_keys=True): v for k, v in entries.items()}
        return {k: self.of(v) for k, v in sorted(words.items())}

    def _array(self, value) -> Any:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return {"key": str(value.dtype), "data": self.of(jax.random.key_data(value))}
        if value.ndim == 0 or value.dtype == object:
            return self.of(value.tolist())
        found = self.arrays.get(id(value))
        if found is None:
            array = np.ascontiguousarray(value)
            words = f"{value.dtype}{list(value.shape)}"
            found = self.arrays[id(value)] = value, f"{words} {_sha(array.reshape(-1).view(np.uint8).data)}"
        return found[1]

    def _function(self, function: types.FunctionType) -> Any:
        code = function.__code__
        found: dict[str, Any] = {"function": function.__qualname__}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        closed = {name: cell.cell_contents for name, cell in cells if _filled(cell)}
        if is_library(function.__module__):
            found["function"] = f"{function.__module__}.{function.__qualname__}"
            if function.__name__ == "<lambda>":  # of which one place may have several
                found["code"] = _sha(spelling(code).encode())
        else:
            found["code"] = self._code(code)
            defaults = function.__defaults__ or ()
            names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
            given = dict(zip(names, defaults, strict=True)) | (function.__kwdefaults__ or {})
            if given:
                found["defaults"] = self._named(given)
            told = instructions(code).globals
            closed |= {name: function.__globals__[name] for name in told if name in function.__globals__}
        own = set(found)
        return found | {f"{k}_" if k in own else k: v for k, v in self._named(closed).items()}

    def _code(self, code: types.CodeType) -> str:
        found = instructions(code)
        return _sha(json.dumps([found.words, [self.of(c) for c in found.constants]], sort_keys=True).encode())

    def _class(self, kind: type) -> Any:
        if is_library(kind.__module__):
            return f"{kind.__module__}.{kind.__qualname__}"
        found: dict[str, Any] = {"class": kind.__qualname__}
        if bases := [self.of(base) for base in kind.__bases__ if base is not object]:
            found["bases"] = bases
        for name, value in sorted(vars(kind).items()):
            value = getattr(value, "__func__", value)  # of static and class methods
            if isinstance(value, property):
                found[name] = [self.of(f) for f in (value.fget, value.fset) if f is not None]
            elif isinstance(value, types.FunctionType) or not (name.startswith("__") or _foreign(value)):
                found[name] = self.of(value)
        return found

    def _instance(self, value: Any) -> Any:
        kind = self.of(type(value))
        if hasattr(value, "_raw_value"):  # a variable of Flax, which also knows in which trace it was made
            return {"kind": kind, "value": self.of(value._raw_value)}
        if isinstance(value, _NAMELESS):
            return {"kind": type(value).__name__}
        if dataclasses.is_dataclass(value):
            state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        else:
            state = dict(getattr(value, "__dict__", {}))
            slots = (name for base in type(value).__mro__ for name in _slots(base))
            state |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
        if not state:
            state = _reduced(value)
        return {"kind": kind, **self._named(state)}


def _slots(kind: type) -> Iterator[str]:
    slots = kind.__dict__.get("__slots__", ())
    return (s for s in ((slots,) if isinstance(slots, str) else slots) if s not in ("__dict__", "__weakref__"))


def _reduced(value: Any) -> dict[str, Any]:
    """What pickle would keep of an object that has no attributes; nothing where it would refuse."""
    try:
        kept = value.__reduce_ex__(2)
    except Exception:  # locks, files, whatever lives in this process only
        return {}
    return {} if isinstance(kept, str) else {"state": [part for part in kept[1:3] if part is not None]}


def _foreign(value: Any) -> bool:
    """Whether a class's attribute is machinery (slots, fields of a NamedTuple) and no plain value."""
    return (type(value).__module__ == "builtins" and type(value).__name__.endswith("descriptor")) or type(
        value
    ).__name__ == "_tuplegetter"


def _filled(cell) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later, or never
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.generic):  # what Python has no number for
        return str(value)
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes {_sha(bytes(value))}"
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 and value == int(value) else float(value)
    for kind in (bool, int):
        if isinstance(value, kind):
            return kind(value)
    return value if isinstance(value, str) else str(value)


def _sha(payload) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]


def _folded(node: Any) -> Any:
    """The same description with everything long written out once: at its first place, which the others name."""
    digests: dict[int, tuple[str, int]] = {}
    seen: dict[str, str] = {}

    def weigh(node) -> tuple[str, int]:
        """A digest of a node, and how many letters it has."""
        if not isinstance(node, dict | list):
            text = json.dumps(node)
            return text, len(text)
        if id(node) not in digests:
            inner = [(k, *weigh(v)) for k, v in (node.items() if isinstance(node, dict) else enumerate(node))]
            text = json.dumps([type(node).__name__, [(k, d) for k, d, _ in inner]])
            digests[id(node)] = _sha(text.encode()), sum(size for *_, size in inner) + 8 * len(inner)
        return digests[id(node)]

    def write(node, path: str):
        if not isinstance(node, dict | list):
            return node
        name, letters = weigh(node)
        if letters > _SHORT:
            if name in seen:
                return f"as {seen[name]}"
            seen[name] = path
        if len(node) > _LONG:
            return f"{len(node)} values {name}"
        if isinstance(node, list):
            return [write(x, f"{path}[{i}]") for i, x in enumerate(node)]
        return {k: write(x, f"{path}.{k}" if path else k) for k, x in node.items()}

    return write(node, "")
