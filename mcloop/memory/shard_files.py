"""Where shards lie: one `.npy` an array, written whole, mapped into memory, with its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcloop.memory.foreign import Foreign
from mcloop.memory.shards import Shard, Shards
from mcloop.storage.checkpoints import Damaged
from mcloop.storage.chunks import HEADER, npy_header
from mcloop.storage.files import one_line, save, sha256, size
from mcloop.types import State

_PIECE = 2**24  # bytes that are copied at once


def write_shards(state: State, folder: Path) -> State:
    """The same state with every shard of its pool on disk and mapped from there: however old, a pool costs no memory.

    So is what a foreign model was trained on, which is all that is kept of it, and the model itself where it can be saved.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    known = {id(part.values) for part in state.real.parts}
    written: dict[tuple[int, int], Shard] = {}  # a model is often trained on what is in the pool: that is written once

    def mapped(place: str, body: Shards) -> Shards:
        parts = []
        for i, part in enumerate(body.parts):
            if part.files is None and id(part.values) not in known:
                same = id(part.values), id(part.rows)
                if same not in written:
                    written[same] = _write(part, folder, f"generation-{int(state.t):04d}-{place}-{i}")
                part = replace(written[same], weight=part.weight, real=part.real)
            parts.append(part)
        return Shards(tuple(parts))

    leaves, tree = jax.tree.flatten(state.pool)
    pool = jax.tree.unflatten(tree, [mapped(f"{i}", body) for i, body in enumerate(leaves)])
    params = state.params
    if isinstance(params, Foreign):
        held = params.held
        params = params._replace(
            held=held.on_disk(mapped("trained", held.trained), folder / f"generation-{int(state.t):04d}-model")
        )
    return state._replace(pool=pool, params=params)


def describe(body: Shards, real: Shards) -> list[dict[str, Any]]:
    """A spilled body of data as JSON holds it; the real set is named, not copied."""
    known = {id(part.values): i for i, part in enumerate(real.parts)}
    described = []
    for part in body.parts:
        where = {"set": known[id(part.values)]} if part.files is None else {"files": part.files}
        described.append({**where, "weight": part.weight, "real": part.real, "rows": _rows(part)})
    return described


def read_shards(described: list[dict[str, Any]], folder: Path, real: Shards) -> Shards:
    """The body of data that was described.

    Raises:
        Damaged: a file is missing, or is not what was written.
    """
    parts = []
    for note in described:
        files = None if "set" in note else {name: tuple(record) for name, record in note["files"].items()}
        values = (
            real.parts[note["set"]].values if files is None else {n: _read(folder / f, sha) for n, (f, sha) in files.items()}
        )
        rows = None if note["rows"] is None else np.asarray(note["rows"], np.int64)
        parts.append(Shard(values, note["weight"], note["real"], rows, files))
    return Shards(tuple(parts))


def _rows(part: Shard) -> list[int] | None:
    return None if part.rows is None else part.rows.tolist()


def _write(part: Shard, folder: Path, name: str) -> Shard:
    files = {}
    for key, array in part.values.items():
        path, digest = folder / f"{name}.{key}.npy", hashlib.sha256()
        held = array.dtype.itemsize * len(part) * int(np.prod(array.shape[1:]))
        save(path, _pieces(part, key, digest), f"shard {path.name!r} ({size(held)})", "all generations before it are kept, and")
        files[key] = (path.name, digest.hexdigest())
    mapped = {key: _mapped(folder / file) for key, (file, _) in files.items()}
    return replace(part, values=mapped, rows=None, files=files)


def _pieces(part: Shard, key: str, digest) -> Iterator[bytes]:
    """A shard's array as the bytes of an `.npy`, some rows at a time: it may itself be mapped, and larger than memory."""
    array = part.values[key]
    header = npy_header(array.dtype, (len(part), *array.shape[1:]))
    digest.update(header)
    yield header
    rows = max(1, _PIECE // max(1, array[:1].nbytes))
    for begin in range(0, len(part), rows):
        index = np.arange(begin, min(begin + rows, len(part)))
        piece = np.ascontiguousarray(array[index if part.rows is None else part.rows[index]]).tobytes()
        digest.update(piece)
        yield piece


def _read(path: Path, expected: str) -> np.ndarray:
    try:
        found = sha256(path)
    except OSError as error:
        raise Damaged(f"its shard {path.name!r} cannot be read ({error.strerror})") from error
    if found != expected:
        raise Damaged(f"its shard {path.name!r} was changed or cut short")
    try:
        return _mapped(path)
    except (OSError, ValueError) as error:
        raise Damaged(f"its shard {path.name!r} cannot be read ({one_line(error)})") from error


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=HEADER)
