"""The kind of a column that the user names, and the sentence where the column cannot be of it."""

from __future__ import annotations

import re

import numpy as np

from mcloop.data import dates
from mcloop.data.numbers import like_number
from mcloop.data.raw_columns import Plain, Words, is_whole
from mcloop.data.word_columns import PAIRS, Place, in_numbers, spread, truths

_BITS = {"1": True, "0": False, "1.0": True, "0.0": False}


def of_kind(place: Place, one: Plain | Words, ways: dict[str, np.ndarray], told: set[str], kind: str) -> Plain | Words:
    """A column as the kind that the user names.

    Args:
        ways: how it can be read as numbers, if it is one of texts.
        told: how the numbers of the table's other columns are written.

    Raises:
        InputError: it cannot be of that kind.
    """
    if kind == "category":
        return one if isinstance(one, Words) else _as_words(one)
    if isinstance(one, Words):
        return _words_of_kind(place, one, ways, told, kind)
    known = one.values[~one.gaps]
    if one.kind == kind:
        pass
    elif one.kind == "date":
        place.refuse(f"holds dates and cannot be of kind {kind!r}", None, "; choose 'date' or 'category'")
    elif kind == "number":
        one = one._replace(kind=kind, values=_with_gaps(one.values.astype(float), one.gaps))
    elif kind == "integer":
        if not is_whole(known.astype(float)):
            odd = ~one.gaps & ~(one.values == np.floor(one.values))
            place.refuse("cannot be of kind 'integer': it is not whole", odd, "; choose 'number' or 'category'")
        values = one.values.astype(float if one.gaps.any() else np.int64)
        one = one._replace(kind=kind, values=_with_gaps(values, one.gaps))
    elif kind == "boolean":
        odd = ~one.gaps & (one.values != 0) & (one.values != 1)
        if odd.any():
            place.refuse("cannot be of kind 'boolean': it is neither 0 nor 1", odd)
        one = one._replace(kind=kind, values=(one.values == 1))
    else:
        read = dates.whole(known)
        if read is None:
            place.refuse("cannot be of kind 'date'", None, "; as a number a date must be written as YYYYMMDD")
        values = np.full(len(one.values), np.datetime64("NaT", "ns"))
        values[~one.gaps] = read
        one = one._replace(kind=kind, values=values)
    return one


def _words_of_kind(place: Place, words: Words, ways: dict[str, np.ndarray], told: set[str], kind: str) -> Plain:
    if kind == "boolean":
        said = truths(words.texts, (*PAIRS, _BITS))
        if said is None:
            place.refuse(
                "cannot be of kind 'boolean'", None, "; its words must be yes and no, true and false, t and f or 1 and 0"
            )
        return spread(words, kind, said)
    if kind == "date":
        eight = all(re.fullmatch(r"\d{8}", text.strip()) for text in words.texts)
        values, how = (dates.whole(np.array(list(map(int, words.texts)))), "") if eight else dates.dates(words.texts)
        if values is None:
            place.refuse(f"cannot be of kind 'date'{how and f': it holds {how}'}", None, "; write its dates as YYYY-MM-DD")
        return spread(words, kind, values)
    if not ways:
        odd = np.array([not like_number(text) for text in words.texts] + [False])[words.codes]
        place.refuse(
            f"cannot be of kind {kind!r}: it has no number" if odd.any() else "writes its numbers in more than one way", odd
        )
    one = in_numbers(place, words, ways, told)
    if kind == "integer" and not is_whole(one.values[~one.gaps].astype(float)):
        odd = ~one.gaps & ~(one.values == np.floor(one.values))
        place.refuse("cannot be of kind 'integer': it is not whole", odd, "; choose 'number' or 'category'")
    values = one.values.astype(float if kind == "number" or one.gaps.any() else np.int64)
    return one._replace(kind=kind, values=values)


def _with_gaps(values: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Numbers that are NaN where nothing is known."""
    return np.where(gaps, np.nan, values) if gaps.any() else values


def _as_words(one: Plain) -> Words:
    """Numbers, truths or dates as texts."""
    known, places = np.unique(one.values[~one.gaps], return_inverse=True)
    if one.kind == "date":
        unit = "D" if (known == known.astype("datetime64[D]")).all() else "auto"
        texts = list(np.datetime_as_string(known, unit=unit))
    elif one.kind == "boolean":
        texts = [str(bool(value)) for value in known]
    else:
        texts = [str(int(value)) if one.kind == "integer" else repr(float(value)) for value in known]
    codes = np.full(len(one.gaps), -1)
    codes[~one.gaps] = places
    return Words(codes, [str(text) for text in texts])
