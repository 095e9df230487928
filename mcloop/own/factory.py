"""A factory that is named at the shell: `package.module:factory`, or `file.py:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcloop.errors import InputError, own
from mcloop.storage.files import one_line


def factory(name: str) -> Callable[[], Any]:
    """The factory of this name: a class, or a function of no arguments, that gives a generator.

    Args:
        name: "package.module:factory", found as `import` finds it or in the folder that one is in; or "path/file.py:factory".

    Raises:
        InputError: it is not written so, or there is no such module or name.
        OwnCodeError: the module fails while it is imported.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise InputError(f"synthesizer must be package.module:factory or file.py:factory, not {one_line(name, 80)!r}.")
    module = _of_file(Path(place)) if place.endswith(".py") else _of_module(place)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        public = [word for word in vars(module) if not word.startswith("_")]
        raise InputError(f"synthesizer {name!r}: {place} has no {attribute!r} (it has {one_line(', '.join(public), 80)}).")
    if not callable(found):
        raise InputError(f"synthesizer {name!r} must be a class or a function of no arguments, not {type(found).__name__}.")
    return found


def _of_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"synthesizer: there is no file {str(path)!r}.")
    spec = importlib.util.spec_from_file_location(f"mcloop_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"synthesizer: {str(path)!r} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    loader, beside = spec.loader, str(path.parent.resolve())
    sys.path.insert(0, beside)  # what it imports from its own folder
    try:
        own(lambda: loader.exec_module(module), f"The import of {path.name}")
    finally:
        sys.path.remove(beside)
    return module


def _of_module(name: str) -> Any:
    sys.path.insert(0, "")  # as `python -m` does: the folder that one is in
    try:
        if _spec(name) is None:
            raise InputError(f"synthesizer: there is no module {name!r} here; is it installed, and in this environment?")
        return own(lambda: importlib.import_module(name), f"The import of {name}")
    finally:
        sys.path.remove("")


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a package above it that is not there, or no name at all
        return None
