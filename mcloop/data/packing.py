"""Stories in rows of equal length, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

PACKINGS = ("stories", "contiguous")
KIND = np.dtype("<u2")


@dataclass
class Tally:
    """What was packed.

    Attributes:
        rows: rows.
        cut: stories that do not fit into a row with their end (packing "stories").
        tokens: tokens that are no padding: those that a loss counts.
        longest: tokens of the longest story, its end not counted.
    """

    rows: int = 0
    cut: int = 0
    tokens: int = 0
    longest: int = 0


def story_lengths(tokens: np.ndarray, end: int) -> np.ndarray:
    """Tokens of each row (n, length) before its first `end`, shape (n,); the whole length where there is none."""
    ends = tokens == end
    return np.where(ends.any(1), ends.argmax(1), tokens.shape[1])


def counted(tokens: np.ndarray, end: int, packing: str = "stories") -> np.ndarray:
    """The positions of rows (n, length) that a loss counts, as booleans of the same shape.

    Of packing "stories" all up to the first `end` and that one too; of "contiguous" all.
    """
    if packing == "contiguous":
        return np.ones(tokens.shape, bool)
    return np.arange(tokens.shape[1]) <= story_lengths(tokens, end)[:, None]


def unpack(tokens: np.ndarray, end: int, packing: str = "stories") -> list[np.ndarray]:
    """The stories in rows (n, length), without their ends, row by row.

    Of packing "stories" each row is one, cut where it has no end. A row of "contiguous" is split at every end; what
    it begins or ends with in the middle of a story counts as one, unless nothing of it is there.
    """
    if packing == "stories":
        return [row[:size] for row, size in zip(tokens, story_lengths(tokens, end), strict=True)]
    stories = []
    for row in tokens:
        ends = np.flatnonzero(row == end)
        begins = np.concatenate([[0], ends + 1])
        pieces = [row[a:b] for a, b in zip(begins, [*ends, len(row)], strict=True)]
        last = len(pieces) - 1
        stories += [piece for i, piece in enumerate(pieces) if len(piece) or 0 < i < last]
    return stories


def packed(
    batches: Iterable[list[np.ndarray]], length: int, end: int, packing: str, tally: Tally, most: int | None = None
) -> Iterator[np.ndarray]:
    """Blocks of rows (., length), uint16, of batches of stories; `tally` is filled on the way.

    "stories": a story a row, then `end` up to the length. "contiguous": story, end, story, end, ..., cut every `length`
    tokens, what is left over in the end dropped.

    Args:
        most: rows wanted; None takes all.
    """
    pack = _one_a_row if packing == "stories" else _joined
    for block in pack(batches, length, end, tally):
        block = block[: None if most is None else most - tally.rows]
        tally.rows += len(block)
        tally.tokens += int(counted(block, end, packing).sum())
        yield block
        if tally.rows == most:
            return


def _one_a_row(batches, length, end, tally) -> Iterator[np.ndarray]:
    for batch in batches:
        rows = np.full((len(batch), length), end, KIND)
        for row, story in zip(rows, batch, strict=True):
            row[: len(story)] = story[:length]
            tally.cut += len(story) >= length
            tally.longest = max(tally.longest, len(story))
        yield rows


def _joined(batches, length, end, tally) -> Iterator[np.ndarray]:
    rest, stop = np.empty(0, KIND), np.array([end], KIND)
    for batch in batches:
        stream = np.concatenate([rest, *(part for story in batch for part in (story, stop))])
        rows = len(stream) // length
        rest = stream[rows * length :]
        yield stream[: rows * length].reshape(rows, length)
