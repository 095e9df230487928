"""What manifest.json says: the settings of a run, and what they may hold."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mcloop.errors import InputError
from mcloop.storage.files import one_line, show

FORMAT = 1
MANIFEST = "manifest.json"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what the manifest of a run's folder says, without opening the run.

    Raises:
        InputError: there is no manifest, it is damaged, or something else wrote it.
    """
    path = Path(folder) / MANIFEST
    keep = "mcloop does not overwrite it: choose another folder (--out)"
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"The folder {show(Path(folder))} holds no run: it has no {MANIFEST}.") from error
    except OSError as error:
        raise InputError(f"{show(path)} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{show(path)} is damaged ({one_line(error)}); {keep}.") from error
    if not isinstance(manifest, dict) or not {"format", "settings"} & set(manifest):
        raise InputError(f"{show(path)} was not written by mcloop; {keep}.")
    if manifest.get("format") != FORMAT:
        shown = _short(manifest.get("format"))
        raise InputError(f"{show(path)} has format {shown}, and this mcloop reads format {FORMAT}; {keep}.")
    kinds = {"settings": dict, "versions": dict, "files": dict, "status": str, "pending": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance({"pending": {}, **manifest}.get(key), kind)]:
        raise InputError(f"{show(path)} is damaged (no valid {wrong[0]!r}); {keep}.")
    return manifest


def read_settings(folder: str | os.PathLike[str], kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Returns those settings of a run that are named, without opening the run.

    Args:
        kinds: name -> the type that it must have; one that may be None may be missing too.

    Raises:
        InputError: as `read_manifest`, or a setting is missing or of another kind.
    """
    kept = read_manifest(folder)["settings"]
    for name, kind in kinds.items():
        value = kept.get(name)
        right = isinstance(value, kind) and (not isinstance(value, bool) or kind is bool)
        if not right or (isinstance(value, dict) and not all(isinstance(x, list) and x for x in value.values())):
            path = Path(folder) / MANIFEST
            raise InputError(
                f"{show(path)} is damaged: its setting {name!r} is {_short(value) if name in kept else 'missing'}."
            )
    return {name: kept.get(name) for name in kinds}


def normalise(value: Any, name: str = "settings") -> Any:
    """Returns a setting as JSON holds it: tuples and arrays as lists, numpy scalars as numbers, paths as text."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {str(key): normalise(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(item, name) for item in value]
    if callable(getattr(value, "tolist", None)) and not isinstance(plain := value.tolist(), type(value)):
        return normalise(plain, name)
    raise InputError(f"The setting {name!r} is a {type(value).__name__}; settings are numbers, text, lists and dicts.")


def difference(old: Any, new: Any, name: str = "") -> tuple[str, str, str] | None:
    """Returns the name and the two values, as text, of the first setting that differs; None where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            path = f"{name}.{key}" if name else key
            if key not in old or key not in new:
                return path, _short(old[key]) if key in old else "absent", _short(new[key]) if key in new else "absent"
            if found := difference(old[key], new[key], path):
                return found
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = (difference(*pair, f"{name}[{i}]") for i, pair in enumerate(zip(old, new, strict=True)))
        return next(filter(None, found), None)
    same = (old == new and isinstance(old, bool) == isinstance(new, bool)) or (old != old and new != new)  # NaN is NaN
    return None if same else (name, _short(old), _short(new))


# where a setting's path is long, its last part of a loop is what a reader knows
_KNOWN = {
    *("regime", "corrector", "model", "memory", "learner", "training", "process", "sampler", "network", "codec", "evaluate"),
    *("objective", "numerics", "cells", "grid", "cell"),
}


def belongs(folder: Path, what: str, kept: dict[str, Any], settings: dict[str, Any], advice: str = "") -> None:
    """Raise InputError, which names what differs, unless a folder's settings are these."""
    if found := difference(kept, settings):
        name, old, new = found
        words = name.split(".")
        last = max((i for i, word in enumerate(words) if word.partition("[")[0] in _KNOWN), default=0)
        last = words.index("cells_are") if "cells_are" in words else last
        why = f"The folder {show(folder)} holds {what}: {'.'.join(words[last:])} was {old} there and is {new} now"
        raise InputError(f"{why}; choose another folder (--out){advice}.")


def versions() -> dict[str, str]:
    """Returns the versions that a run's numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in ("mcloop", "jax", "numpy", "xarray"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _short(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=True), limit=60)
