"""Columns of texts as what the texts say: numbers in any way of writing, true and false; and the sentence on a fault."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

import numpy as np

from mcloop.data.numbers import COMMA, POINT, like_number, numbers, way
from mcloop.data.raw_columns import Plain, RawTable, Words, is_whole, of_numbers
from mcloop.data.readers import short
from mcloop.errors import InputError

PAIRS = ({"true": True, "false": False}, {"yes": True, "no": False}, {"t": True, "f": False}, {"y": True, "n": False})
_LOOKED = 200


class Place(NamedTuple):
    """A column's name in its table, for sentences."""

    name: str
    raw: RawTable

    def refuse(self, what: str, rows: np.ndarray | None = None, cure: str = "") -> NoReturn:
        """Raises InputError; `rows` says of each row whether the fault stands in it."""
        where = "" if rows is None or not rows.any() else f" at {self.raw.place(int(rows.argmax()))}"
        raise InputError(f"Column {short(self.name)!r} of {self.raw.source} {what}{where}{cure}.")


def as_numbers(one: Plain | Words | str, kind: str | None) -> dict[str, np.ndarray]:
    """How a column of texts can be read as numbers: way of writing -> a number a text; none where it is something else."""
    if not isinstance(one, Words) or not one.texts or kind in ("category", "boolean", "date"):
        return {}
    if not kind and (one.settled or truths(one.texts, PAIRS) is not None or not some_numbers(one.texts) or codes(one)):
        return {}
    found = {style: numbers(one.texts, style) for style in (POINT, COMMA)}
    return {style: values for style, values in found.items() if values is not None}


def in_numbers(place: Place, words: Words, ways: dict[str, np.ndarray], told: set[str]) -> Plain:
    """Texts as numbers: integers where none has decimals."""
    style = way(words.texts, set(ways), told, place.raw.delimiter)
    if style is None:
        commas = np.array(["," in text for text in words.texts] + [False])[words.codes]
        cure = " that may stand before decimals or between thousands; write its numbers without commas"
        place.refuse("has a comma", commas, cure)
    values, mark = ways[style], "." if style == POINT else ","
    decimals = any(mark in text or "%" in text or "e" in text.lower() for text in words.texts)
    if is_whole(values) and not decimals and not (words.codes < 0).any():
        return Plain("integer", values.astype(np.int64)[words.codes], np.zeros(len(words.codes), bool))
    return of_numbers(np.append(values, np.nan)[words.codes])


def some_numbers(texts: list[str]) -> bool:
    """Whether a look at a few texts says that they may be numbers."""
    some = texts[:: len(texts) // _LOOKED + 1]
    return 4 * sum(map(like_number, some)) >= len(some)


def codes(words: Words) -> bool:
    """Whether the texts are digits, some with a zero in front that no number has."""
    stripped = [text.strip() for text in words.texts]
    return any(re.match(r"0\d", text) for text in stripped) and all(text.isdecimal() for text in stripped)


def spread(words: Words, kind: str, values: np.ndarray) -> Plain:
    """What is known of each text as what is known of each row."""
    gaps = words.codes < 0
    nothing = np.array(["NaT"], "datetime64[ns]") if kind == "date" else np.zeros(1, values.dtype)
    return Plain(kind, np.append(values, nothing)[words.codes], gaps)


def truths(texts: list[str], pairs: tuple[dict[str, bool], ...]) -> np.ndarray | None:
    """Texts as true and false, None where they are other words or only one of the two."""
    if len(texts) > 20:
        return None
    folded = [text.strip().lower() for text in texts]
    for pair in pairs:
        if set(folded) <= set(pair) and len({pair[word] for word in folded}) == 2:
            return np.array([pair[word] for word in folded])
    return None
