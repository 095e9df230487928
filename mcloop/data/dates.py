"""Dates as people write them, read only where day and month can be told apart; a column at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

AMBIGUOUS = "dates whose day and month cannot be told apart"
OUTSIDE = "dates that are not between 1678 and 2261, or not in the calendar"
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_TIME = (
    r"(?:(?:[T ]|, ?)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AP]M))?(?: ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?)?"
)
_NAMES = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    "|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
_MONTH = rf"(?P<word>{_NAMES})\.?"
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? )?"
_FORMS = {
    "year first": re.compile(rf"(?P<year>\d{{4}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<a>\d{{1,2}}){_TIME}", re.I),
    "year last": re.compile(rf"(?P<a>\d{{1,2}})(?P<mark>[-/.])(?P<b>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}){_TIME}", re.I),
    "day, month": re.compile(rf"{_WEEKDAY}(?P<a>\d{{1,2}})(?:st|nd|rd|th|\.)?[ -]{_MONTH},?[ -](?P<year>\d{{4}}){_TIME}", re.I),
    "month, day": re.compile(rf"{_WEEKDAY}{_MONTH} (?P<a>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}}){_TIME}", re.I),
}
_PLAIN = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?")  # what needs no rewriting
_LOOKED = 100


def dates(texts: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """(the dates, how they are written) of texts that all are dates, all written alike; (None, why) of others.

    Years stand first, as in ISO 8601, or last; months are numbers or English words. With the year last, a day over 12
    anywhere tells day from month, and points stand in dates with the day first. Dates with a zone are turned to UTC.

    Returns:
        datetime64[ns], shape (texts,), and words; the why is "" for what is not like dates at all.
    """
    stripped = [text.strip() for text in texts]
    form = next((name for name, known in _FORMS.items() if all(map(known.fullmatch, stripped[:_LOOKED]))), None)
    if form is None or not stripped:
        return None, ""
    if all(map(_PLAIN.fullmatch, stripped)):
        values = _read(stripped)
        if values is not None:
            return values, form
    found = [_FORMS[form].fullmatch(text) for text in stripped]
    matches = [match for match in found if match is not None]
    if len(matches) < len(found):
        return None, ""
    day_first, words = True, form
    if form == "year last":
        day_first = _day_first(matches)
        if day_first is None:
            return None, AMBIGUOUS
        words = f"{'day' if day_first else 'month'} first"
    values = _read(_iso(match, day_first) for match in matches)
    if values is None:
        return None, OUTSIDE
    if "zone" in (name for match in matches for name, said in match.groupdict().items() if said):
        words += ", turned to UTC"
    return values, words


def whole(numbers: np.ndarray) -> np.ndarray | None:
    """The dates of whole numbers such as 20200131, as datetime64[ns]; None where one is none."""
    if ((numbers < 10**7) | (numbers >= 10**8)).any():
        return None
    return _read(f"{n // 10000:04}-{n // 100 % 100:02}-{n % 100:02}" for n in map(int, numbers))


def _day_first(matches: Iterable[re.Match[str]]) -> bool | None:
    """Whether the first number is the day; None where nobody can tell, or where some say so and some say not."""
    pairs = {(int(match["a"]), int(match["b"]), match["mark"]) for match in matches}
    first = any(a > 12 for a, _, _ in pairs)
    second = any(b > 12 for _, b, _ in pairs)
    if first != second:
        return first
    if not first and (all(a == b for a, b, _ in pairs) or {mark for _, _, mark in pairs} == {"."}):
        return True
    return None


def _iso(match: re.Match[str], day_first: bool) -> str:
    """One date in ISO 8601, "" where the clock has no such hour or the year no such month."""
    said = match.groupdict()
    day, month = said["a"], said.get("b")
    if month is None:
        month = str(_MONTHS.index(said["word"].lower()[:3]) + 1)
    elif not day_first:
        day, month = month, day
    hour = int(said["hour"] or 0)
    if said["half"]:
        if not 1 <= hour <= 12:
            return ""
        hour = hour % 12 + 12 * (said["half"].lower() == "pm")
    # what has no zone is taken as UTC, as soon as others have one
    zone = (said["zone"] or "Z").upper().replace("UTC", "Z").replace("GMT", "Z")
    clock = f"{hour:02}:{said['minute'] or '00'}:{said['second'] or '00'}.{said['part'] or '0'}"
    return f"{said['year']}-{int(month):02}-{int(day):02}T{clock}{zone}"


def _read(texts: Iterable[str]) -> np.ndarray | None:
    try:
        stamps = pd.to_datetime(pd.Index(list(texts), dtype=object), format="ISO8601", utc=True)
        return None if stamps.hasnans else nanoseconds(stamps.tz_localize(None).to_numpy())
    except (ValueError, OverflowError):  # the calendar has no such day; pandas' own errors are of these kinds
        return None


def nanoseconds(values: np.ndarray) -> np.ndarray | None:
    """Dates of any unit as datetime64[ns]; None where one is out of its range."""
    years = values.astype("datetime64[Y]")
    known = years[~np.isnat(years)]
    if len(known) and (known.min() < np.datetime64("1678") or known.max() > np.datetime64("2261")):
        return None
    return values.astype("datetime64[ns]")
