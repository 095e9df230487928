"""Numbers as people write them: decimal commas, thousands separators, percent signs, true and false; a column at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Set

import numpy as np

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
POINT, COMMA = "point", "comma"  # what stands before the decimals
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_STYLES = {
    POINT: re.compile(rf"[+-]?(?:(?:[1-9]\d{{0,2}}(?:,\d{{3}})+|\d+)(?:\.\d*)?|\.\d+){_EXPONENT}"),
    COMMA: re.compile(rf"[+-]?(?:(?:[1-9]\d{{0,2}}(?:\.\d{{3}})+|\d+)(?:,\d*)?|,\d+){_EXPONENT}"),
}
_SPACED = re.compile(r"([+-]?\d{1,3})((?:[ '’\u00a0\u202f]\d{3})+)(?=\D|$)")  # thousands apart, as in 1 234 or 1'234
_TRUTH = {"true": 1.0, "false": 0.0}


def number(cell: str) -> float | None:
    """The number in a cell as programs write it, NaN where it is missing, None where it is something else."""
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_2 as 12; nobody else does
    except ValueError:
        return math.nan if cell.strip().lower() in MISSING else None


def like_number(cell: str) -> bool:
    """Whether a cell is missing or is a number in any of the ways that are known."""
    return number(cell) is not None or _truth(cell) is not None or any(_read(cell, style) is not None for style in _STYLES)


def readable(cell: str, style: str) -> bool:
    """Whether a cell is a number in this style."""
    return _read(cell, style) is not None


def styles(cells: Sequence[str]) -> set[str]:
    """The ways in which a column's numbers can be read: POINT, COMMA or both; neither where one cell has no number."""
    return {style for style in _STYLES if numbers(cells, style) is not None}


def numbers(cells: Sequence[str], style: str) -> np.ndarray | None:
    """A column in one way of writing, NaN where it is missing; None where one cell has no such number.

    A percent sign stands behind every number or behind none: 5 % is 5. A column of true and false is one of 1 and 0.
    """
    known = [cell for cell in cells if cell.strip().lower() not in MISSING]
    truths = [_truth(cell) for cell in known]
    signs = {cell.rstrip().endswith("%") for cell in known}
    if any(value is not None for value in truths):
        values = truths
    elif len(signs) > 1:
        return None
    else:
        values = [_read(cell, style) for cell in known]
    if any(value is None for value in values):
        return None
    found = iter(values)
    return np.array([math.nan if cell.strip().lower() in MISSING else next(found) for cell in cells], float)


def way(cells: Sequence[str], ways: Set[str], told: Set[str], delimiter: str) -> str | None:
    """How a column's numbers are written, None where nobody can tell.

    Args:
        ways: those in which the column can be read.
        told: those that the table's other columns are written in.
        delimiter: what separates the table's cells.
    """
    if len(ways) == 1:
        return next(iter(ways))
    if len(told) == 1:
        return next(iter(told))
    commas = [("," in cell) for cell in cells if cell.strip().lower() not in MISSING]
    if not any(commas) or (not told and delimiter == ","):
        return POINT
    return COMMA if all(commas) and not told else None


def _truth(cell: str) -> float | None:
    return _TRUTH.get(cell.strip().lower())


def _read(cell: str, style: str) -> float | None:
    """One number in a style; spaces and apostrophes between thousands, and one percent sign, are allowed in either."""
    if "_" in cell:
        return None
    text = cell.strip().removesuffix("%").rstrip().replace("\u2212", "-")
    text = _SPACED.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), text)
    if not _STYLES[style].fullmatch(text):
        return _plain(text) if style == POINT else None
    return float(text.replace(",", "") if style == POINT else text.replace(".", "").replace(",", "."))


def _plain(text: str) -> float | None:
    """What Python reads beyond the styles, such as inf."""
    try:
        return float(text)
    except ValueError:
        return None
