"""Libraries that only some generators need, and what to install where one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from mcloop.errors import InputError


def optional(module: str, extra: str) -> ModuleType:
    """The module of this name.

    Args:
        module: as it is imported: "sdv.metadata".
        extra: the extra of mcloop that brings it.

    Raises:
        InputError: its library is not installed, or lacks something that it needs itself.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        lacking = (error.name or library).partition(".")[0]
        why = "" if lacking == library else f", whose own import of {lacking} failed"
        raise InputError(f'This generator needs {library}{why}: pip install "mcloop[{extra}]".') from error
