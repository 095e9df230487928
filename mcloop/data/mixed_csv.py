"""Mixed tables in CSV: looked at row by row, then read in bulk by pandas, which leaves as text what it cannot read."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import NamedTuple

import pandas as pd

from mcloop.data.csv_tables import UNNAMED, first_row, rows, separator
from mcloop.data.dates import dates
from mcloop.data.numbers import COMMA, MISSING, POINT, like_number, number, styles
from mcloop.data.raw_columns import RawColumn, RawTable
from mcloop.data.readers import INDEX, NOTHING, distinct, short
from mcloop.errors import InputError

WIDEST = 2000  # columns
LATIN = "it is no UTF-8 text and was read as Latin-1 (Windows-1252)"
_SAMPLE = 2000  # lines that are looked at for names, separator and decimal commas
# every number to its last bit, which pandas gives by itself since 3.1, and then warns of being asked for
_EXACT: dict = {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
_AHEAD, _ZERO = ("0", '"', " "), re.compile(r"\s*0\d+\s*")
_MISSING = sorted({form(word) for word in MISSING for form in (str.lower, str.upper, str.capitalize)} | {"NaN"})


def read_mixed_csv(data: bytes, source: str, texts: Collection[str], kinds: str) -> RawTable:
    """Reads a text of any separator and encoding.

    Args:
        texts: names of columns that are to be kept as they are written.
        kinds: what a table may be, for the sentence on what is none.

    Raises:
        InputError: it is no text, ragged, not well-formed or too wide.
    """
    data, remarks = _utf8(data, source, kinds)
    sample = _sample(data)
    said = re.match(r"sep=([^\r\n])\r?\n", sample)
    if said:  # what spreadsheets write; a blank line keeps the count of lines
        data, sample = b"\n" + data[len(said[0].encode()) :], "\n" + sample[said.end() :]
    delimiter = said[1] if said else separator(sample)
    first, named, pointed = first_row(sample, delimiter, source)
    too_wide(len(first), source)
    cells = list(islice(rows(io.StringIO(sample, newline=""), delimiter, source), _SAMPLE))
    named = named or _named(first, [row for _, row in cells[1:]])
    start, count, coded = _walk(data, delimiter, source)

    def place(row: int) -> str:
        return f"line {next(islice(rows(_lines(data), delimiter, source), row + named, None))[0]}"

    names = [name.strip().lstrip("# ") if named else "" for name in first]
    unique = distinct([name or f"column {j + 1}" for j, name in enumerate(names)])
    body = data[sum(len(line.encode()) for line in islice(_lines(data), start)) :] if named else data
    kept = coded | {j for j, name in enumerate(unique) if name in texts}

    def again() -> Iterator[list[str]]:
        return (cells for _, cells in islice(rows(_lines(data), delimiter, source), int(named), None))

    text = _Text(body, delimiter, len(first), count - named, kept, again, source)

    def table(decimal: str) -> RawTable:
        frame = _bulk(text, decimal)
        columns = [_column(j, names, unique[j], frame[j], named) for j in range(len(first))]
        told = frozenset({POINT} if pointed else {COMMA} if decimal == "," else ())
        other = (lambda: table(",")) if decimal == "." and not pointed else None
        return RawTable(columns, source, count - named, place, remarks, delimiter, told, other)

    return table("," if not pointed and _commas(cells[named:]) else ".")


class _Text(NamedTuple):
    """The rows below the names: how they are cut, how many they are, which columns stay texts, and all of it once more."""

    body: bytes
    delimiter: str
    width: int
    count: int
    texts: set[int]
    again: Callable[[], Iterator[list[str]]]
    source: str


def too_wide(columns: int, source: str) -> None:
    """Raises InputError on a table of more columns than anybody can learn from."""
    if columns > WIDEST:
        raise InputError(f"The table {source} has {columns:,} columns; at most {WIDEST:,} can be taken.")


def _walk(data: bytes, delimiter: str, source: str) -> tuple[int, int, set[int]]:
    """(the line on which the first row ends, the count of rows, the columns that have a zero in front of a whole number).

    Such a zero makes a code of a number, and is lost once the number is read.
    """
    start, count = 0, 0
    coded: set[int] = set()
    zero = re.compile(rf"""{re.escape(delimiter)}["' ]*0\d""")
    hit = False

    def watched() -> Iterator[str]:
        nonlocal hit
        for line in _lines(data):
            hit = hit or line[:1] in _AHEAD or zero.search(line) is not None
            yield line

    for line, cells in rows(watched(), delimiter, source):
        start, count = start or line, count + 1
        if hit:
            coded.update(j for j, cell in enumerate(cells) if _ZERO.fullmatch(cell))
            hit = count < 2  # the first two rows are read together
    return start, count, coded


def _column(j: int, names: list[str], name: str, values: pd.Series, named: bool) -> RawColumn:
    if named and not names[j] and values.isna().all():
        return RawColumn(name, None, NOTHING)
    if named and UNNAMED.fullmatch(names[j]) and all(UNNAMED.fullmatch(other) for other in names[:j]):
        return RawColumn(name, values, INDEX)
    return RawColumn(name, values)


def _bulk(text: _Text, decimal: str) -> pd.DataFrame:
    """The cells, numbers where pandas is sure of every one in a column, else texts; the columns are called 0, 1, 2, ..."""
    if text.width == 1 or text.count == 0:  # pandas and csv do not agree on blank lines in a single column
        return _by_hand(text)
    try:
        frame = pd.read_csv(
            io.BytesIO(text.body),
            sep=text.delimiter,
            header=None,
            names=range(text.width),
            index_col=False,
            dtype=dict.fromkeys(text.texts, str),
            decimal=decimal,
            na_values=_MISSING,
            keep_default_na=False,
            low_memory=False,
            encoding="utf-8",
            **_EXACT,
        )
    except (pd.errors.ParserError, ValueError, OverflowError) as error:
        raise InputError(f"The table {text.source} is not well-formed CSV ({short(type(error).__name__)}).") from error
    return frame if len(frame) == text.count else _by_hand(text)  # where the two disagree on what a row is


def _by_hand(text: _Text) -> pd.DataFrame:
    columns: list[list[str]] = [[] for _ in range(text.width)]
    for cells in text.again():
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return pd.DataFrame({j: pd.Series(column, dtype=object) for j, column in enumerate(columns)})


def _utf8(data: bytes, source: str, kinds: str) -> tuple[bytes, tuple[str, ...]]:
    """A text of any encoding as UTF-8 without its mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"The table {source} is not UTF-16 text (at byte {error.start}); {kinds}.") from error
        data = text.encode("utf-8", "replace")
    if b"\0" in data:
        raise InputError(f"The table {source} holds binary data; {kinds}.")
    try:
        for _ in io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="\n"):
            pass
        return data.removeprefix(b"\xef\xbb\xbf"), ()
    except UnicodeDecodeError:
        pass
    control = sum(data.count(bytes([byte])) for byte in range(32) if byte not in b"\t\n\r\f\x1a")
    if control:
        raise InputError(f"The table {source} holds binary data; {kinds}.")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.encode(), (f"The table {source}: {LATIN}.",)


def _lines(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")


def _sample(data: bytes) -> str:
    """The first lines, cut where no cell is cut in two."""
    taken, quotes = [], 0
    for line in _lines(data):
        taken.append(line)
        quotes += line.count('"')
        if len(taken) >= _SAMPLE and quotes % 2 == 0:
            break
    return "".join(taken)


def _named(first: list[str], below: list[list[str]]) -> bool:
    """Whether a first row over words is one of names: words that none of their columns has again, dates left aside."""
    words = [cell.strip() for cell in first]
    if not below or any(like_number(cell) for cell in words if cell) or not any(words):
        return False
    if any(dates([word])[0] is not None for word in words if word):
        return False
    return not any(word and any(row[j].strip() == word for row in below) for j, word in enumerate(words))


def _commas(cells: list[tuple[int, list[str]]]) -> bool:
    """Whether a column of the sample is one of numbers with decimal commas."""
    columns = zip(*(row for _, row in cells), strict=True)
    odd = (column for column in columns if any("," in cell for cell in column) and any(number(cell) is None for cell in column))
    return any(styles(column) == {COMMA} for column in odd)
