"""Stories in records: which field holds them, read from lines of JSON, from JSON and from CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mcloop.errors import InputError
from mcloop.storage.files import one_line

FIELDS = ("text", "story", "content")
_LOOKED = 100  # records that are looked at to find the field: the first may be empty
_JSON = (".json", ".jsonl", ".ndjson")
_CSV = (".csv", ".tsv")


def field(records: Iterable[Mapping[str, Any]], source: str) -> str:
    """The field that holds a text: one of FIELDS, else the only one of text.

    Raises:
        InputError: there is none, or several.
    """
    texts: dict[str, None] = {}
    known: dict[str, None] = {}
    for _, record in zip(range(_LOOKED), records, strict=False):
        known |= dict.fromkeys(record)
        texts |= {name: None for name, value in record.items() if isinstance(value, str | bytes)}
    chosen = next((name for name in FIELDS if name in texts), next(iter(texts)) if len(texts) == 1 else None)
    if chosen is None:
        there = one_line(", ".join(map(str, known)) or "no record", 80)
        raise InputError(f"{source} has no column {FIELDS[0]!r} of text, only {there}.")
    return chosen


def left_out(count: int) -> tuple[str, ...]:
    """The remark on records without a text, if there are any."""
    return (f"Records without a text are left out: {count}.",) if count else ()


def holds_records(suffix: str, data) -> bool:
    """Whether a file's name, or its first line, says that its stories are in records."""
    if suffix in (*_JSON, *_CSV):
        return True
    begin = bytes(data[: 2**16]).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not begin.startswith(b"{"):
        return False
    end = data.find(b"\n", data.find(b"{"))
    try:
        return isinstance(json.loads(data[data.find(b"{") : end if end > 0 else len(data)]), dict)
    except ValueError:
        return False


def read_records(suffix: str, data: bytes, shown: str) -> tuple[list[str], int, str]:
    """(texts, records without one, where they were in words).

    Raises:
        InputError: the file is not what its name says, or has no field of text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        said = f"byte 0x{data[error.start]:02x} at place {error.start}"
        raise InputError(f"The file {shown} is no UTF-8 text ({said}); convert it to UTF-8.") from error
    records: list[Any] = list(_of_csv(suffix, text, shown) if suffix in _CSV else _of_json(suffix, text, shown))
    if not records:
        raise InputError(f"The file {shown} is empty: it has no story.")
    plain = [record for record in records if isinstance(record, str)]
    if len(plain) == len(records):
        return plain, 0, "a record each"
    table = [record for record in records if isinstance(record, dict)]
    chosen = field(table, f"The file {shown}")
    texts = [record.get(chosen) for record in table]
    found = [value for value in texts if isinstance(value, str)]
    return found, len(records) - len(found), f"field {chosen!r} of its records"


def _of_json(suffix: str, text: str, shown: str) -> Iterator[Any]:
    if suffix == ".json":
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None  # lines of JSON, then, or damage, which the lines tell by number
        if whole is not None:
            if not isinstance(whole, list):
                raise InputError(
                    f"The file {shown} must be a list of records to be read as stories, and is JSON of another kind."
                )
            yield from whole
            return
    for number, line in enumerate(io.StringIO(text), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(f"Line {number} of {shown} is no JSON, though the file holds records of it.") from error


def _of_csv(suffix: str, text: str, shown: str) -> Iterator[dict[str, str | None]]:
    first = text.split("\n", 1)[0]
    delimiter = "\t" if suffix == ".tsv" else max(",;\t|", key=lambda mark: (first.count(mark), mark == ","))
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name for name in rows.fieldnames or () if name in FIELDS]
        if not names:
            raise InputError(f"The file {shown} is a table; stories are read from its column {FIELDS[0]!r}, and it has none.")
        for row in rows:
            yield {names[0]: row[names[0]] or None}
    except csv.Error as error:
        raise InputError(f"Line {rows.line_num} of {shown} is not well-formed CSV ({one_line(error)}).") from error
