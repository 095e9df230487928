"""What a form of points is, and what all of them share: texts as bytes, and words for what was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.storage.files import one_line, size

_MOST = 2**32  # bytes that one body of texts may take: each text takes as many as the longest

Values = dict[str, np.ndarray]


class Form(NamedTuple):
    """How an owner's points are kept.

    Attributes:
        unit: what one point is called: "row", "text" or "point".
        encode: (points, whose they are, in words) -> dict of arrays (n, ...). Raises InputError where they are of another form,
            Diverged where they hold what is no number, or nothing, and the real ones do not.
        decode: those arrays -> points.
        discrete: names of a table's columns that hold no numbers; () otherwise.
    """

    unit: str
    encode: Callable[[Any, str], Values]
    decode: Callable[[Values], Any]
    discrete: tuple[Any, ...] = ()


def plain(points: Any) -> Any:
    """Points without the wrapping that libraries put around them."""
    if isinstance(points, dict) and len(points) == 1 and is_frame(one := next(iter(points.values()))):
        return one  # SDV's have a table by its name, from 2.0 on
    for name in ("to_pandas", "dataframe", "data"):
        found = getattr(points, name, None)
        if callable(found) and not is_frame(points):
            return plain(found())
    return points


def is_frame(points: Any) -> bool:
    """Whether it is a DataFrame of pandas, which is not imported for the question."""
    return type(points).__module__.split(".")[0] == "pandas" and hasattr(points, "columns") and hasattr(points, "iloc")


def text_bytes(texts: list[str], where: str) -> np.ndarray:
    """UTF-8, each as wide as the longest; NumPy fills up with zeros, so that a text may not end in one."""
    try:
        kept = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds text that is no Unicode (a lone surrogate).") from error
    widest = max(map(len, kept), default=0)
    if widest * len(kept) > _MOST:
        raise InputError(
            f"{where} holds a text of {size(widest)}, and each of {len(kept):,} takes as much room as the longest: "
            f"cut texts so that all take {size(_MOST)} at most."
        )
    if any(text.endswith(b"\0") for text in kept):
        raise InputError(f"{where} holds a text that ends in a NUL character: strip it.")
    return np.array(kept, f"S{max(widest, 1)}")


def word(name: Any) -> str:
    """A column's name as a message shows it."""
    return one_line(repr(name), 60)


def called(value: Any) -> str:
    """What was given in place of points, as a message calls it: "a list", "nothing"."""
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
