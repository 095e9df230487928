"""Tables in CSV: the separator, the row of names, the index and the way in which numbers are written, all found or refused."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from mcloop.data.numbers import COMMA, POINT, like_number, number, numbers, readable, styles, way
from mcloop.data.readers import INDEX, KINDS, NOTHING, TEXT, Column, short
from mcloop.errors import InputError

_SEPARATORS = "\t;|,"
UNNAMED = re.compile(r"(Unnamed: \d+(_level_\d+)?(\.\d+)?)?")  # how pandas calls a column without a name
_YEARS = (1800, 2200)


class _Cells:
    """What is known of the cells of one column after one look at each.

    Attributes:
        values: as programs write numbers; NaN for everything else.
        seen: numbers of any way of writing below the first row.
        word: the line of the first cell below the first row that is no number in any way; 0 without one.
        odd: whether a number is written in another way.
    """

    def __init__(self) -> None:
        self.values, self.seen, self.word, self.odd = array("d"), 0, 0, False

    def add(self, cell: str, line: int, first: bool) -> None:
        value = number(cell)
        other = value is None and like_number(cell)
        self.values.append(math.nan if value is None else value)
        self.odd = self.odd or (other and not first)
        self.seen += not first and (other or (value is not None and not math.isnan(value)))
        if value is None and not other and not first and not self.word:
            self.word = line

    def mostly(self) -> bool:
        """Whether more than half of the cells below the first row are numbers."""
        return 2 * self.seen > len(self.values) - 1

    def numeric(self) -> bool:
        """Whether the column is one of numbers, a slip or two aside."""
        return self.mostly() or (not self.word and self.seen > 0)


def read_csv(data: bytes, source: str) -> tuple[list[Column], list[int]]:
    """Reads text separated by tabs, semicolons, bars or commas; the places are lines of the file."""
    text, delimiter = _text(data, source)
    first, columns, lines, pointed = _look(text, delimiter, source)
    named = _named(text, first, columns, source)
    names = [name.strip().lstrip("# ") for name in first] if named else [""] * len(first)
    for j, column in enumerate(columns):
        if not named and not like_number(first[j]):
            column.word = lines[0]
        if column.word and column.mostly():
            where = f"at line {column.word}"
            raise InputError(
                f"Column {short(names[j] or f'column {j + 1}')!r} of {source} has a word among its numbers, {where}."
            )
    rewritten = _other_ways(text, delimiter, columns, names, lines, named, pointed, source)
    found = []
    for j, column in enumerate(columns):
        values = rewritten.get(j, np.array(column.values)[named:])
        index = named and UNNAMED.fullmatch(names[j]) and all(UNNAMED.fullmatch(name) for name in names[:j])
        if index and (column.word or not np.isnan(values).all()):
            found.append(Column(names[j] or f"column {j + 1}", None, INDEX))
        else:
            nameless = not names[j] and not column.word and bool(np.isnan(values).all())
            why = TEXT if column.word else NOTHING if nameless else ""
            found.append(Column(names[j] or f"column {j + 1}", None if why else values, why))
    return found, lines[named:]


def _text(data: bytes, source: str) -> tuple[str, str]:
    """The text of a file, and what separates its cells; UTF-16 and a first line "sep=;" are what spreadsheets write."""
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"not {'UTF-16' if marked else 'UTF-8'} text (at byte {error.start})"
        raise InputError(f"The table {source} is {why}; {KINDS}.") from error
    if "\0" in text:
        raise InputError(f"The table {source} holds binary data; {KINDS}.")
    if said := re.match(r"sep=([^\r\n])\r?\n", text):
        return "\n" + text[said.end() :], said[1]  # a blank line keeps the count of lines
    return text, separator(text)


def rows(lines: Iterable[str], delimiter: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank, all as wide as the second.

    The first row may be one cell short: of the name of an index (as R writes tables), or of what a separator at every
    line's end makes one cell more.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        found = ((reader.line_num, cells) for cells in reader if cells)
        top = list(islice(found, 2))
        if len(top) == 2 and len(top[1][1]) == len(top[0][1]) + 1:
            top[0][1].insert(0 if top[1][1][-1].strip() else len(top[0][1]), "")
        width = len(top[0][1]) if top else 0
        for line, cells in itertools.chain(top, found):
            if len(cells) != width:
                why = f"line {line} has {len(cells)} cells where the first row has {width}"
                raise InputError(f"The table {source} is ragged: {why} (separator {delimiter!r}).")
            yield line, cells
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of {source} is not well-formed CSV ({short(error)}).") from error


def first_row(text: str, delimiter: str, source: str) -> tuple[list[str], bool, bool]:
    """(the first row, whether it is one of names, whether a number has a point that is a decimal one) of a table's text."""
    first, columns, _, pointed = _look(text, delimiter, source)
    return first, bool(columns) and _named(text, first, columns, source), pointed


def _look(text: str, delimiter: str, source: str) -> tuple[list[str], list[_Cells], list[int], bool]:
    """The first row, the columns, the lines of the rows, and whether any number has a point that is a decimal one."""
    first: list[str] = []
    columns: list[_Cells] = []
    lines: list[int] = []
    pointed = False
    for line, cells in rows(io.StringIO(text, newline=""), delimiter, source):
        if not lines:
            first, columns = cells, [_Cells() for _ in cells]
        for column, cell in zip(columns, cells, strict=True):
            column.add(cell, line, not lines)
            pointed = pointed or ("." in cell and readable(cell, POINT) and not readable(cell, COMMA))
        lines.append(line)
    return first, columns, lines, pointed


def _named(text: str, first: list[str], columns: list[_Cells], source: str) -> bool:
    """Whether the first row is one of names: it has a word where a column has numbers below, or its numbers are names."""
    if any(not like_number(cell) and column.numeric() for cell, column in zip(first, columns, strict=True)):
        return True
    words = any(not like_number(cell) for cell in first)
    places = [j for j, cell in enumerate(first) if (value := number(cell)) is not None and not math.isnan(value)]
    if not places or len(columns[0].values) < 2:
        return False
    top = [line for line in islice(io.StringIO(text), 50) if line.strip()][:2]
    if len(top) == 2 and top[0].count('"') >= 2 * len(first) > top[1].count('"'):
        return True  # names in quotation marks, numbers without
    head = np.array([columns[j].values[0] for j in places])
    below = np.array([columns[j].values[1:] for j in places])
    whole = all(re.fullmatch(r"\d{1,9}", first[j].strip()) for j in places)
    with np.errstate(invalid="ignore"):  # between two infinities, which are refused in due time
        steps = np.diff(head)
    outside = ((below < _YEARS[0]) | (below > _YEARS[1])).any(1).all()
    if whole and outside and (len(places) > 1 or words) and (steps > 0).all():
        if ((head >= _YEARS[0]) & (head <= _YEARS[1])).all():
            return True
    # relative: numbers near 0 are no steps of nothing
    steady = len(steps) > 0 and steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-9, atol=0)
    with np.errstate(invalid="ignore"):
        alike = steady and np.allclose(np.diff(below[:, 0]), steps, rtol=1e-9, atol=0)
    if not steady or alike:
        return False
    if len(places) > 4:
        return True
    if not whole or steps[0] != 1:
        return False
    if (below != np.floor(below)).any(1).all():
        return True
    why = "its numbers count up by one"
    cure = "put a letter into every name, or a decimal point into every number"
    raise InputError(f"The first row of {source} may be one of names or one of numbers ({why}); {cure}.")


def _other_ways(text, delimiter, columns, names, lines, named, pointed, source) -> dict[int, np.ndarray]:
    """column -> its numbers, for those that are not written as programs do; a second look at the file.

    Where a column alone does not tell a decimal comma from a comma between thousands, the others do.
    """
    odd = [j for j, column in enumerate(columns) if column.odd and not column.word]
    if not odd:
        return {}
    kept: dict[int, list[str]] = {j: [] for j, column in enumerate(columns) if not column.word}
    for _, cells in islice(rows(io.StringIO(text, newline=""), delimiter, source), int(named), None):
        for j, some in kept.items():
            some.append(cells[j])
    ways = {j: styles(cells) for j, cells in kept.items()}
    told = {style for found in ways.values() if len(found) == 1 for style in found} | ({POINT} if pointed else set())
    values = {}
    for j, cells in kept.items():
        name = short(names[j] or f"column {j + 1}")
        if not ways[j]:
            raise InputError(f"Column {name!r} of {source} writes its numbers in more than one way; write all of them alike.")
        style = way(cells, ways[j], told, delimiter)
        if style is None:
            comma = lines[named + next(i for i, cell in enumerate(cells) if "," in cell)]
            why = f"has a comma at line {comma} that may stand before decimals or between thousands"
            raise InputError(f"Column {name!r} of {source} {why}; write its numbers without commas.")
        found = numbers(cells, style)
        if found is not None and (j in odd or style == COMMA):
            values[j] = found
    return values


def separator(text: str) -> str:
    """Returns the first of tab, semicolon, bar and comma that cuts the first twenty rows into as many cells each."""
    widths: dict[str, int] = {}
    for delimiter in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        counts: list[int] = []
        try:
            counts.extend(len(cells) for cells in islice(filter(None, reader), 20))
        except csv.Error:
            counts.append(0)
        if len(counts) > 2 and counts[0] == counts[1] - 1:  # a first row without the name of its index
            counts[0] += 1
        if counts and counts[0] > 1 and len(set(counts)) == 1:
            return delimiter
        widths[delimiter] = counts[0] if counts else 0
    return max(widths, key=lambda delimiter: (widths[delimiter], delimiter == ","))
