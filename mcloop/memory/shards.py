"""Data on disk: the third memory, for loops whose pools are larger than the computer's memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from mcloop import random
from mcloop.types import Memory


@dataclass(frozen=True)
class Shard:
    """The points of one generation: arrays with one leading axis, in memory or mapped from a file.

    Attributes:
        values: dict of arrays (n, ...), as they are stored (images as uint8, text as token ids).
        weight: what each point weighs.
        real: the share of that weight which is real data: 0 or 1.
        rows: the points that are meant, as indices into `values`; None means all of them.
        files: array name -> (file name, SHA-256) of what holds `values` on disk, None while they are only in memory.
    """

    values: dict[str, np.ndarray]
    weight: float = 1.0
    real: float = 0.0
    rows: np.ndarray | None = None
    files: dict[str, tuple[str, str]] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.values.values()))) if self.rows is None else len(self.rows)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The points at these places, read into memory."""
        index = index if self.rows is None else self.rows[index]
        return {name: np.asarray(x[index]) for name, x in self.values.items()}


@dataclass(frozen=True)
class Shards:
    """A body of data: shards, in the order of their generations. No pytree on purpose: it never enters a compiled program."""

    parts: tuple[Shard, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def as_real(self) -> Shards:
        """The same points, marked as real data."""
        return Shards(tuple(replace(part, real=1.0) for part in self.parts))

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Points by their place in the whole body, in the order asked for.

        Args:
            index: (b,) integers in [0, len(self)).
        """
        ends = np.cumsum([len(part) for part in self.parts])
        which = np.searchsorted(ends, index, side="right")
        if len(self.parts) == 1:
            return self.parts[0].take(index)
        found = []
        for place in np.unique(which):
            here, part = np.flatnonzero(which == place), self.parts[place]
            found.append((here, part.take(index[here] - (ends[place] - len(part)))))
        points: dict[str, np.ndarray] = {}
        for name in found[0][1] if found else ():
            # text is as wide as the widest of a shard, and a number that was whole may have fractions in another
            dtype = np.result_type(*(taken[name].dtype for _, taken in found))
            points[name] = np.empty((len(index), *found[0][1][name].shape[1:]), dtype)
            for here, taken in found:
                points[name][here] = taken[name]
        return points

    def weights(self) -> np.ndarray:
        """(len(self),) what each point weighs."""
        return np.concatenate([np.full(len(part), part.weight) for part in self.parts])


def shards(values: dict[str, np.ndarray], count: Any = None, *, real: bool = False) -> Shards:
    """The first `count` (default: all) of `values` as a body of data of one shard, or of none where there are no points."""
    size = len(next(iter(values.values())))
    count = size if count is None else min(int(count), size)
    if count == 0:
        return Shards()
    return Shards((Shard({name: np.asarray(x)[:count] for name, x in values.items()}, real=float(real)),))


def _scale(a: Shards, w) -> Shards:
    w = float(w)
    return Shards(tuple(replace(part, weight=part.weight * w) for part in a.parts) if w > 0 else ())


def _merge(a: Shards, b: Shards) -> Shards:
    return Shards(a.parts + b.parts)


def _subsample(key, a: Shards, count) -> Shards:
    total = len(a)
    chosen = np.sort(generator(key).choice(total, min(int(count), total), replace=False))
    kept, begin = [], 0
    for part in a.parts:
        here = chosen[(chosen >= begin) & (chosen < begin + len(part))] - begin
        begin += len(part)
        if len(here):
            kept.append(replace(part, rows=here if part.rows is None else part.rows[here]))
    return Shards(tuple(kept))


def fingerprint(data: Shards) -> str:
    """The SHA-256 of all points of a body of data."""
    found = hashlib.sha256()
    for part in data.parts:
        for name, x in sorted(part.values.items()):
            found.update(f"{name} {x.shape} {x.dtype}".encode())
            found.update(np.ascontiguousarray(x))
    return found.hexdigest()


def shards_memory() -> Memory:
    """Bodies of data as lists of shards: a union costs nothing, whatever the shards hold."""
    return Memory(
        merge=_merge,
        scale=_scale,
        size=lambda a: float(sum(len(part) * part.weight for part in a.parts)),
        real=lambda a: float(sum(len(part) * part.weight * part.real for part in a.parts)),
        reserve=lambda a, blocks: a,
        append=lambda pool, a, place: _merge(pool, a),
        subsample=_subsample,
    )


def generator(key) -> np.random.Generator:
    """NumPy's random numbers from a JAX key, for what is chosen on the host."""
    return np.random.Generator(np.random.Philox(np.asarray(jax.random.key_data(random.as_key(key))).astype(np.uint64)))


def minibatches(key, data: Shards, batch: int, steps: int) -> Iterator[dict[str, np.ndarray]]:
    """`steps` minibatches of a body of data.

    Points that all weigh the same come in shuffled epochs, so that each is seen equally often; otherwise each is drawn, with
    replacement, as often as it weighs.
    """
    rng, weights = generator(key), data.weights()
    total = len(weights)
    if np.all(weights == weights[0]):
        order = np.empty(0, np.int64)
        for _ in range(steps):
            while len(order) < batch:
                order = np.concatenate([order, rng.permutation(total)])
            yield data.take(order[:batch])
            order = order[batch:]
    else:
        edges = np.cumsum(weights)
        for _ in range(steps):
            yield data.take(np.minimum(np.searchsorted(edges, rng.random(batch) * edges[-1], side="right"), total - 1))
