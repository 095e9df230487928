"""One resumable loop on disk: its checkpoints, its shards, what was seen of every generation."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop.memory.foreign import Foreign, read_held
from mcloop.memory.shard_files import describe, read_shards
from mcloop.storage.checkpoints import Checkpoints, Damaged, Keep
from mcloop.storage.chunks import ChunkStore
from mcloop.storage.files import refusal, save, show, sweep_partial
from mcloop.storage.identity import digest
from mcloop.storage.manifest import belongs, normalise
from mcloop.types import Loop, State

Info = dict[str, np.ndarray]

_KEPT = "all generations before it are kept, and"


class Codec(NamedTuple):
    """How a state goes to disk and comes back.

    Attributes:
        pack: state -> (name -> array, notes that JSON holds). May write files of its own.
        shapes: () -> name -> anything with a shape and a dtype.
        unpack: (arrays, notes) -> state. Raises Damaged where a file that the notes name is not what it was.
    """

    pack: Callable[[State], tuple[dict[str, Any], dict[str, Any]]]
    shapes: Callable[[], dict[str, Any]]
    unpack: Callable[[dict[str, Any], dict[str, Any]], State]


class Unit:
    """What is on disk of one loop (or of a grid of loops that run as one program).

    Args:
        folder: its own folder; made if absent.
        settings: what its numbers depend on, as JSON holds it.
        keep: which checkpoints stay.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], keep: Keep) -> None:
        self.folder, self.keep = folder, keep
        self.settings = normalise(dict(settings))
        self.checkpoints = Checkpoints(folder)
        self._seen = ChunkStore(folder / "seen", f"{folder.name} {digest(self.settings)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(error, folder) from error
        self.checkpoints.sweep()
        for place in (folder, *(folder / name for name in ("seen", "shards", "sheets")), *folder.glob("partial_draws/*")):
            sweep_partial(place)

    def info(self, t: int) -> Info | None:
        """What was seen of generation t, or None."""
        return self._seen.get(_name(t))

    def save(self, t: int, state: State, info: Info, codec: Codec) -> None:
        """Saves a generation: what was seen first, so that a generation with a checkpoint has all of it."""
        self._seen.put(_name(t), info)
        self._log(t, info)
        _sheets(self.folder / "sheets", t, info)
        arrays, notes = codec.pack(state)
        self.checkpoints.save(t, arrays, {"settings": self.settings, "state": notes})
        self.checkpoints.prune(t, self.keep)

    def restore(self, codec: Codec, most: int) -> tuple[int, State | None]:
        """The last good generation, at most `most`, and its state; (0, None) where there is none.

        A generation is good if its checkpoint, all that it refers to, and what was seen of it and of every one before it
        have the checksums that they were saved with.

        Raises:
            InputError: the folder is another loop's.
        """
        walked, complete = [], None
        for t in reversed([t for t in self.checkpoints.generations() if t <= most]):
            try:
                notes = self.checkpoints.notes(t)
                belongs(self.folder, "another loop", notes["settings"], self.settings)
                complete = self._complete(most) if complete is None else complete
                if complete < t:
                    raise Damaged(f"what was seen of generation {complete + 1} is missing or damaged")
                state = codec.unpack(self.checkpoints.load(t, codec.shapes()), notes["state"])
            except Damaged as why:
                walked.append(f"generation {t} ({why})")
                continue
            self._report(walked, f"goes on from generation {t}")
            return t, state
        self._report(walked, "begins again")
        return 0, None

    def _complete(self, most: int) -> int:
        """Up to which generation, at most `most`, all is there that was seen."""
        t = 0
        while t < most and (self._seen.folder / f"{_name(t + 1)}.npz").exists() and self.info(t + 1) is not None:
            t += 1
        return t

    def fail(self, t: int, why: str) -> None:
        """Notes that generation t could not be computed, so that it is not tried again."""
        self._seen.put("failed", {"generation": np.int64(t), "why": np.asarray(why)})

    def failure(self) -> tuple[int, str] | None:
        """The generation that could not be computed, and why; None where there is none."""
        found = self._seen.get("failed") if (self.folder / "seen" / "failed.npz").exists() else None
        return None if found is None else (int(found["generation"]), str(found["why"]))

    def _report(self, walked: list[str], what: str) -> None:
        if walked:
            warnings.warn(f"In {show(self.folder)} {', '.join(walked)} is damaged: the loop {what}", stacklevel=4)

    def _log(self, t: int, info: Info) -> None:
        """Appends the scalars to metrics.jsonl, for whoever follows a run; the checked copy is in `seen`.

        A hosted loop has a number a measure, a compiled grid a list of one list a seed, of one number a cell.
        """
        path = self.folder / "metrics.jsonl"
        row = {"generation": t, **{k: _plain(v.tolist()) for k, v in info.items() if v.ndim in (0, 2) and v.dtype != np.uint8}}
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        except OSError as error:
            raise refusal(error, path) from error
        kept = [line for line in lines if _generation(line) < t]
        save(path, "".join(line + "\n" for line in [*kept, json.dumps(row)]).encode(), kept=_KEPT)


def _sheets(folder: Path, t: int, info: Info) -> None:
    """Sample sheets as PNG: every (images, height, width) array of bytes, ten images a row."""
    for name, x in info.items():
        if x.ndim != 3 or x.dtype != np.uint8:
            continue
        from PIL import Image

        columns = min(10, len(x))
        rows = -(-len(x) // columns)
        padded = np.zeros((rows * columns, *x.shape[1:]), np.uint8)
        padded[: len(x)] = x
        sheet = padded.reshape(rows, columns, *x.shape[1:]).swapaxes(1, 2).reshape(rows * x.shape[1], -1)
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, format="PNG")
        save(folder / f"{name}-{t:04d}.png", buffer.getvalue(), kept=_KEPT)


def _plain(value: Any) -> Any:
    """Numbers as JSON holds them: what is not finite is null."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if np.isfinite(value) else None


def _generation(line: str) -> float:
    try:
        return json.loads(line)["generation"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that was cut: written again


def _name(t: int) -> str:
    return f"generation-{t:04d}"


def arrays_codec(template: Callable[[], State]) -> Codec:
    """A state that is a pytree of arrays and nothing else."""

    def pack(state):
        return dict(_named(state)), {}

    def unpack(arrays, notes):
        return jax.tree.unflatten(jax.tree.structure(template()), [arrays[name] for name, _ in _named(template())])

    return Codec(pack, lambda: dict(_named(template())), unpack)


def shards_codec(loop: Loop, start: Callable[[], State], folder: Path) -> Codec:
    """The state of a hosted loop: its parameters as arrays, its pool as files of points.

    Args:
        start: () -> the loop's state before any fit, which gives the real data and the truth again.
        folder: where shards lie.
    """
    assert loop.model.hosted is not None  # what is compiled has a codec of arrays
    blank = loop.model.hosted.blank

    def pack(state):
        notes = {"t": int(state.t), "pool": [describe(body, state.real) for body in jax.tree.leaves(state.pool)]}
        if isinstance(state.params, Foreign):
            held = state.params.held
            notes |= {"trained": describe(held.trained, state.real), "model": held.note()}
        return dict(_named(state.params)), notes

    def unpack(arrays, notes):
        fresh = start()
        pool = [read_shards(body, folder, fresh.real) for body in notes["pool"]]
        tree = jax.tree.structure(fresh.pool)
        if tree.num_leaves != len(pool):
            raise Damaged("its pool has another structure")
        params = jax.tree.unflatten(jax.tree.structure(blank()), [arrays[name] for name, _ in _named(blank())])
        if isinstance(params, Foreign):
            trained = read_shards(notes["trained"], folder, fresh.real)
            params = params._replace(held=read_held(trained, notes["model"], folder, params.held.keep))
        return fresh._replace(t=jnp.int32(notes["t"]), params=params, pool=jax.tree.unflatten(tree, pool))

    return Codec(pack, lambda: dict(_named(blank())), unpack)


def _named(tree) -> list[tuple[str, Any]]:
    """The leaves of a pytree under names that say where they stand."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
