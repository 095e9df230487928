"""What a column of a mixed table is: a number, an integer, a category, a boolean or a date, or nothing to learn from."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from mcloop.data import dates
from mcloop.data.asked_kinds import of_kind
from mcloop.data.numbers import COMMA, like_number
from mcloop.data.raw_columns import Plain, RawColumn, RawTable, Words, seen
from mcloop.data.readers import short
from mcloop.data.word_columns import PAIRS, Place, as_numbers, codes, in_numbers, some_numbers, spread, truths

KINDS = ("number", "integer", "category", "boolean", "date")
CONSTANT, EMPTY, IDENTIFIERS, PROSE = "constant", "no values", "identifiers", "free text"
ASKED, IGNORED = "asked for", "asked to be left out"
_WORDS = {"integer": "whole numbers", "boolean": "true or false", "date": "dates", "number": "numbers"}
_NAMED = re.compile(r"(?i:(.*[\W_])?(id|uuid|guid))|.*[a-z](Id|ID|Uuid|UUID|Guid|GUID)|(?i:index|key|row|row.?(no|nr|number))")
_NEARLY = 0.95  # distinct texts a text, from which they are taken to name the rows
_LONG = 40  # letters a text
_FEW = 30  # levels that numbers with a word among them may have and be categories
_COUNTED = 20  # rows from which on 1, 2, 3, ... count them whatever the column is called


class Decided(NamedTuple):
    """A column with its kind, or "" for one that is left out; `why` gives the reason of either in words."""

    kind: str
    why: str
    values: Any = None
    missing: bool = False
    remark: str = ""


def decide(raw: RawTable, asked: Mapping[str, str], ignored: Collection[str] = (), constant: bool = False) -> list[Decided]:
    """Every column's kind and values, in the table's order.

    Args:
        asked: name -> kind, which overrules what would be found.
        ignored: names of columns that are left out unread.
        constant: whether columns that are asked for are kept where they are constant, or have no values.

    Raises:
        InputError: a column cannot be what is asked for, or its numbers are damaged.
    """
    found = [IGNORED if column.name in ignored else _found(column, asked) for column in raw.columns]
    read = [as_numbers(one, asked.get(column.name)) for one, column in zip(found, raw.columns, strict=True)]
    told = {next(iter(ways)) for ways in read if len(ways) == 1} | raw.told
    if raw.again and told == {COMMA}:
        return decide(raw.again(), asked, ignored, constant)
    decided = []
    for column, one, ways in zip(raw.columns, found, read, strict=True):
        place, kind = Place(column.name, raw), asked.get(column.name)
        if isinstance(one, str):
            decided.append(Decided("", one))
            continue
        known = one.codes >= 0 if isinstance(one, Words) else ~one.gaps
        if not known.any():
            decided.append(_nothing(kind, len(known)) if constant and kind else Decided("", EMPTY))
        elif _constant(one, known) and not (constant and kind):
            decided.append(Decided("", CONSTANT))
        elif kind:
            made = of_kind(place, one, ways, told, kind)
            decided.append(_categories(made, ASKED) if isinstance(made, Words) else _kept(place, made, ASKED))
        elif isinstance(one, Plain):
            decided.append(_plain(place, one))
        else:
            decided.append(_words(place, one, ways, told))
    return decided


def _nothing(kind: str, rows: int) -> Decided:
    """A column of a kind in which nothing is known."""
    gaps = np.ones(rows, bool)
    values = {
        "category": lambda: pd.Categorical.from_codes(np.full(rows, -1), pd.Index([], dtype=object)),
        "boolean": lambda: pd.arrays.BooleanArray(~gaps, gaps),
        "date": lambda: np.full(rows, np.datetime64("NaT", "ns")),
    }
    return Decided(kind, ASKED, values.get(kind, lambda: np.full(rows, np.nan))(), True)


def _found(column: RawColumn, asked: Mapping[str, str]) -> Plain | Words | str:
    if column.values is None or (column.why and column.name not in asked):
        return column.why
    return seen(column.values)


def _constant(one: Plain | Words, known: np.ndarray) -> bool:
    if isinstance(one, Words):
        return len(one.texts) == 1
    values = one.values[known]
    return bool(values.min() == values.max())


def _plain(place: Place, one: Plain) -> Decided:
    """The kind that a column of numbers, truths or dates has by itself."""
    if one.kind == "integer" and _counts(place.name, one.values[~one.gaps]):
        return Decided("", IDENTIFIERS)
    return _kept(place, one, _WORDS[one.kind])


def _counts(name: str, values: np.ndarray) -> bool:
    """Whether whole numbers name the rows: all different under such a name, or 0, 1, 2, ... or 1, 2, 3, ... in order."""
    if _NAMED.fullmatch(name) and len(np.unique(values)) == len(values):
        return True
    return len(values) >= _COUNTED and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _kept(place: Place, one: Plain, why: str) -> Decided:
    missing = bool(one.gaps.any())
    if one.kind == "number" and (infinite := np.isinf(one.values)).any():
        place.refuse("is infinite", infinite, "; numbers must be finite")
    if one.kind == "boolean" and missing:
        return Decided(one.kind, why, pd.arrays.BooleanArray(one.values.copy(), one.gaps.copy()), True)
    return Decided(one.kind, why, one.values, missing)


def _words(place: Place, words: Words, ways: dict[str, np.ndarray], told: set[str]) -> Decided:
    """The kind that a column of texts has by itself."""
    if words.settled:
        return _category(place, words, "categories in the table itself")
    said = truths(words.texts, PAIRS)
    if said is not None:
        return _kept(place, spread(words, "boolean", said), "two words for true and false")
    if ways:
        return _plain(place, in_numbers(place, words, ways, told))
    remark = _words_among_numbers(place, words)
    if not remark:
        values, how = dates.dates(words.texts)
        if values is not None:
            return _kept(place, spread(words, "date", values), f"dates, {how}")
        if how:
            remark = f"{how}; name it as a date only once it is written as YYYY-MM-DD"
    decided = _category(place, words, remark)
    if decided.kind and remark:
        return decided._replace(remark=f"Column {short(place.name)!r} is taken as a category: {remark}.")
    return decided._replace(why=remark) if remark else decided


def _category(place: Place, words: Words, why: str) -> Decided:
    """Categories, unless the texts name the rows or tell stories."""
    rows, distinct = int((words.codes >= 0).sum()), _distinct(words)
    if np.mean([len(text) for text in words.texts]) > _LONG and distinct > 0.5:
        return Decided("", PROSE)
    if distinct >= _NEARLY or (distinct == 1 and _NAMED.fullmatch(place.name)):
        return Decided("", IDENTIFIERS)
    return _categories(words, why or f"{len(words.texts):,} different texts in {rows:,} rows")


def _categories(words: Words, why: str) -> Decided:
    """As pandas holds them, in alphabetical order so that the order of the rows does not matter."""
    order = sorted(range(len(words.texts)), key=words.texts.__getitem__)
    rank = np.full(len(order) + 1, -1)
    rank[order] = np.arange(len(order))
    names = pd.Index([words.texts[place] for place in order], dtype=object)
    return Decided("category", why, pd.Categorical.from_codes(rank[words.codes], names), bool((words.codes < 0).any()))


def _distinct(words: Words) -> float:
    return len(words.texts) / max(int((words.codes >= 0).sum()), 1)


def _words_among_numbers(place: Place, words: Words) -> str:
    """A remark on a column of a few levels, most of them numbers; "" on one of words.

    Raises:
        InputError: most of many are numbers: the rest is a slip, or another way of writing.
    """
    if not some_numbers(words.texts) or codes(words):
        return ""
    like = np.array([like_number(text) for text in words.texts])
    if like.all():
        place.refuse("writes its numbers in more than one way", None, "; write all of them alike, or name it as a category")
    if 2 * like.sum() <= len(like):
        return ""
    if len(words.texts) > _FEW or _distinct(words) > 0.5:
        _refuse_words(place, words)
    return "it has words among its numbers"


def _refuse_words(place: Place, words: Words) -> NoReturn:
    odd = np.array([not like_number(text) for text in words.texts] + [False])[words.codes]
    place.refuse("has a word among its numbers,", odd, "; fill it in, name the column as a category or ignore it")
