"""Stories as counted n-grams: packed rows split into stories, n-grams as 64-bit numbers, and features made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mcloop.checks import whole
from mcloop.errors import InputError

PACKINGS = ("stories", "contiguous")
_ODD = 0xD1342543DE82EF95  # the multiplier of a rolling hash: of tokens a and then b, it is hash(a) _ODD^len(b) + hash(b)


class Pieces(NamedTuple):
    """The stories in packed rows.

    Attributes:
        stories: their tokens, without an end.
        ended: (len(stories),) whether an end follows.
    """

    stories: list[np.ndarray]
    ended: np.ndarray


def pieces(tokens: np.ndarray, end: int, packing: str) -> Pieces:
    """The stories in rows of tokens.

    In packing "stories" a row is one story, up to the first `end`. In packing "contiguous" a row is split at every `end`,
    and its first piece, which is likely to have begun in the row before, is dropped where there is another; the last piece
    has no end, and is a story if it has a token.

    Args:
        tokens: (n, length) token ids.

    Raises:
        InputError: tokens of another shape or kind, or another packing.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise InputError(f"tokens must be whole numbers of shape (n, length), not {tokens.dtype} of shape {tokens.shape}.")
    if packing not in PACKINGS:
        raise InputError(f"packing must be one of {', '.join(PACKINGS)}, not {packing!r}.")
    stories, ended = [], []
    for row in tokens:
        stops = np.flatnonzero(row == end)
        if packing == "stories":
            stories.append(row[: stops[0]] if len(stops) else row)
            ended.append(len(stops) > 0)
            continue
        starts = [0, *(stops + 1).tolist()]
        found = [(row[a:b], True) for a, b in zip(starts, stops.tolist(), strict=False)]
        found += [(row[starts[-1] :], False)] if starts[-1] < len(row) else []
        for story, has_end in found[1:] or found:
            stories.append(story)
            ended.append(has_end)
    return Pieces(stories, np.array(ended, bool))


def flat(stories: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All tokens of all stories, uint64, and the story that each is of."""
    lengths = [len(story) for story in stories]
    empty = np.empty(0, np.uint64)
    return np.concatenate([empty, *stories]).astype(np.uint64), np.repeat(np.arange(len(stories)), lengths)


def grams(tokens: np.ndarray, story: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of stories that `flat` has joined, none across two stories, and the story that each is of.

    An n-gram is known by a hash of 64 bits: that any two of a million different ones agree has a chance of 3e-8.

    Raises:
        InputError: n < 1.
    """
    n = whole("n", n, 1, 10**6)
    count = max(len(tokens) - n + 1, 0)
    block, size = _mixed(tokens), 1  # hashes of all blocks of `size` tokens; they double
    code, done = np.full(count, n, np.uint64), 0
    while done < n:
        if n & size:
            code = code * _power(size) + block[done : done + count]
            done += size
        block, size = block[:-size] * _power(size) + block[size:], 2 * size
    inside = story[:count] == story[n - 1 : n - 1 + count]
    return _mixed(code[inside]), story[:count][inside]


def distinct(codes: np.ndarray, story: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different n-grams of every story: (codes, the story of each, how often that story has it)."""
    order = np.lexsort((codes, story))
    codes, story = codes[order], story[order]
    new = np.ones(len(codes), bool)
    new[1:] = (codes[1:] != codes[:-1]) | (story[1:] != story[:-1])
    first = np.flatnonzero(new)
    return codes[first], story[first], np.diff(first, append=len(codes))


def ngram_features(stories: Sequence[np.ndarray], dimensions: int = 64, orders: Sequence[int] = (1, 2)) -> np.ndarray:
    """Stories as points: counts of n-grams at norm one, projected at random onto a few dimensions.

    With c the counts of a story's n-grams of one order, c / |c| depends neither on the story's length nor on how large the
    vocabulary is, and the inner product of two stories is their cosine. The thousands of coordinates are summed into
    `dimensions` with random signs, both given by a hash of the n-gram: unbiased for inner products (Weinberger et al.
    0902.2206), the same on every machine, and nothing is fitted that a collapsed model could pull at. The orders share the
    dimensions, and the mean of their inner products is what is kept.

    Args:
        stories: token ids of each.
        dimensions: d, 1 to 4096.
        orders: the n that are used, each at least 1.

    Returns:
        (len(stories), d) float64. A story that is shorter than n tokens has nothing of order n.

    Raises:
        InputError: dimensions or an order out of range.
    """
    dimensions = whole("dimensions", dimensions, 1, 4096)
    tokens, story = flat(stories)
    sums = np.zeros(len(stories) * dimensions)
    for n in orders:
        codes, of, times = distinct(*grams(tokens, story, n))
        # counts, not their square roots: those raise the rare n-grams, which hardly recur and are noise to a distance of laws
        # (600 real stories with their words shuffled are 2.8 times as far as unshuffled ones, with square roots 2.2 times)
        norm = np.sqrt(np.bincount(of, times.astype(np.float64) ** 2, len(stories)))
        sign = 1.0 - 2.0 * (codes >> np.uint64(63)).astype(np.float64)
        place = of * dimensions + (codes % np.uint64(dimensions)).astype(np.int64)
        sums += np.bincount(place, sign * times / norm[of], len(sums))
    return sums.reshape(len(stories), dimensions) / np.sqrt(max(len(orders), 1))


def _power(n: int) -> np.uint64:
    return np.uint64(pow(_ODD, n, 2**64))


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of x, uint64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
