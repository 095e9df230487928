"""What a function says by its code, and a table by its values: whatever file, line or cache it stands in."""

from __future__ import annotations

import dis
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Instructions(NamedTuple):
    """A function's code: its instructions as `words`, the `constants` that they load, the `globals` that they read."""

    words: list[str]
    constants: list[Any]
    globals: tuple[str, ...]


@cache
def instructions(code: types.CodeType) -> Instructions:
    """A function's code, that of the functions inside it among its constants. A docstring is loaded by none of them."""
    words, constants, read = [f"python {sys.version_info[0]}.{sys.version_info[1]}"], [], []
    for one in dis.get_instructions(code):
        if one.opname == "LOAD_CONST" or one.opname.startswith("RETURN_CONST"):
            constants.append(one.argval)
            words.append(one.opname)
            continue
        if one.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            read.append(one.argval)
        words.append(f"{one.opname} {one.argval}" if one.argval is not None else one.opname)
    for constant in constants:
        if isinstance(constant, types.CodeType):
            read += instructions(constant).globals
    words += [str((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0xF)), *code.co_varnames]
    return Instructions(words, constants, tuple(dict.fromkeys(read)))


def spelling(code: types.CodeType) -> str:
    """The names and plain constants of a function, which every version of Python compiles to the same."""
    plain = [repr(c) for c in code.co_consts if isinstance(c, bool | int | float | str)]
    inner = [spelling(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return repr((code.co_varnames, code.co_names, code.co_freevars, plain, inner))


@cache
def is_library(module: str | None) -> bool:
    """Whether a module is mcloop's, Python's or an installed package's, and no file of the user."""
    root = (module or "builtins").partition(".")[0]
    if root == "mcloop" or root in sys.stdlib_module_names:
        return root != "__main__"
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def of_pandas(value: Any) -> dict[str, Any]:
    """What is in a thing of pandas, without what pandas has cached of it: a table, a column, an index, or a dtype."""
    found: dict[str, Any] = {"kind": type(value).__name__}
    if not hasattr(value, "to_numpy"):
        return found | {"is": str(value)}
    from pandas.util import hash_pandas_object

    names = value.columns if hasattr(value, "columns") else [getattr(value, "name", None)]
    kinds = value.dtypes if hasattr(value, "columns") else [value.dtype]
    hashes = np.asarray(hash_pandas_object(value))  # pyright: ignore[reportCallIssue]
    return found | {"names": [str(name) for name in names], "dtypes": [str(kind) for kind in kinds], "hashes": hashes}
