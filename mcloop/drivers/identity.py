"""What a grid of loops is, so that a folder can say which one it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcloop.storage.identity import describe, describe_loop, digest
from mcloop.types import Loop


def cells_of(cells: Sequence[tuple[Mapping[str, Any], Loop]]) -> dict[str, Any]:
    """The first cell's loop in full, of the others what tells their parts from one another.

    A grid's numbers are traced, so that what its loops are made of is the same in all cells but for those numbers; that every
    cell is here, if only by digests, is for a `make` that uses them in another way than the folder's.
    """
    arrays: dict[int, Any] = {}
    (_, first), *others = cells
    return {"loop": describe_loop(first, arrays), "cells_are": {name(c): _parts(loop, arrays) for c, loop in others}}


def _parts(loop: Loop, arrays: dict[int, Any]) -> dict[str, str]:
    return {part: digest(said) for part, said in describe_loop(loop, arrays).items() if part != "kind"}


def name(cell: Mapping[str, Any]) -> str:
    """A cell in words, all of it."""
    return ", ".join(f"{k}={describe(v)}" for k, v in cell.items())


def label(cell: Mapping[str, Any]) -> str:
    """A cell as part of a file's name: letters and digits, cut where they are many."""
    words = ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in cell.items())
    return re.sub(r"[^A-Za-z0-9=,.+-]+", "_", words)[:80]
