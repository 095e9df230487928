"""Points as their owner has them (a table, arrays, texts), and as shards keep them: arrays, and never a pickle."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcloop.errors import Diverged, InputError
from mcloop.memory.forms import Form, Values, called, is_frame, plain, text_bytes
from mcloop.memory.frames import table
from mcloop.storage.files import one_line


def form_of(real: Any) -> Form:
    """The form of real points: a DataFrame, an array (n, ...), a pair (X, y) of those, or a list of strings.

    A DataFrame of another library is taken by its `to_pandas`, and given back as one of pandas.

    Raises:
        InputError: it is none of these, has no points, or holds what is neither a number, a date nor text.
    """
    if isinstance(real, tuple) and len(real) == 2:
        return _pair(form_of(real[0]), form_of(real[1]))
    real = plain(real)
    if is_frame(real):
        return table(real)
    if _texts(real):
        return Form("text", _encode_texts, _decode_texts)
    return _array(real)


def _texts(points: Any) -> bool:
    if isinstance(points, list | tuple):
        return len(points) > 0 and all(isinstance(text, str) for text in points)
    kind = getattr(getattr(points, "dtype", None), "kind", "")
    return getattr(points, "ndim", 0) == 1 and kind in "UTO" and all(isinstance(text, str) for text in np.asarray(points))


# -- texts


def _encode_texts(points: Any, whose: str) -> Values:
    points = plain(points)
    if isinstance(points, str) or not _texts(points):
        raise InputError(f"{whose} must be a list of strings, as the real texts are, not {called(points)}.")
    return {"text": text_bytes([str(text) for text in points], whose)}


def _decode_texts(values: Values) -> list[str]:
    return [text.decode() for text in values["text"].tolist()]


# -- arrays


def _array(real: Any) -> Form:
    found = _numbers(real, "real")
    if found.dtype.kind in "fc" and np.isinf(found).any():
        raise InputError(f"real must be finite, and is infinite at {int(np.isinf(found).sum()):,} places.")
    shape, gaps, whole = found.shape[1:], _missing(found).any(), found.dtype.kind in "iub"

    def encode(points: Any, whose: str) -> Values:
        drawn: Any = plain(points)
        if isinstance(drawn, tuple) and drawn and np.ndim(drawn[0]) > 0:
            drawn = drawn[0]  # scikit-learn's mixtures give the component of each point beside it
        given = _numbers(drawn, whose)
        if given.shape[1:] != shape:
            raise InputError(f"{whose} has points of shape {given.shape[1:]}, and real ones have {shape}.")
        if not gaps and (bad := _missing(given).any(tuple(range(1, given.ndim)))).any():
            raise Diverged(f"{whose} is not finite at {int(bad.sum()):,} of {len(given):,} points")
        if whole and given.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                same = given.astype(found.dtype)
            given = same if np.array_equal(same, given) else given
        return {"x": given}

    return Form("row" if len(shape) == 1 else "point", encode, lambda values: values["x"])


def _numbers(points: Any, whose: str) -> np.ndarray:
    try:
        found = np.asarray(points)
    except Exception as error:  # whatever a foreign object dislikes
        raise InputError(f"{whose} cannot be read as an array ({one_line(error, 80)}).") from error
    if found.dtype.kind not in "biufc" or found.ndim == 0:
        what = f"an array of {found.dtype}" if found.ndim and found.dtype != object else called(points)
        raise InputError(f"{whose} must be a DataFrame, an array of numbers (n, ...), (X, y) or a list of strings, not {what}.")
    return found


def _missing(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)


def _pair(x: Form, y: Form) -> Form:
    """Inputs and targets, kept side by side."""

    def encode(points: Any, whose: str) -> Values:
        if not isinstance(points, tuple) or len(points) != 2:
            raise InputError(f"{whose} must be a pair (X, y), as the real points are, not {called(points)}.")
        kept = [part.encode(given, f"{whose}, {name},") for part, given, name in zip((x, y), points, "Xy", strict=True)]
        lengths = [len(next(iter(values.values()))) for values in kept]
        if lengths[0] != lengths[1]:
            raise InputError(f"{whose} has {lengths[0]} rows of X and {lengths[1]} of y.")
        return {f"{name}.{k}": v for name, values in zip("Xy", kept, strict=True) for k, v in values.items()}

    def decode(values: Values) -> Any:
        return tuple(
            part.decode({k.removeprefix(f"{name}."): v for k, v in values.items() if k.startswith(f"{name}.")})
            for part, name in zip((x, y), "Xy", strict=True)
        )

    return Form(x.unit, encode, decode)
