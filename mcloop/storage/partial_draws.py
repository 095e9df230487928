"""Draws under way: what a killed process had drawn of a generation is read again, and not drawn again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mcloop.storage.chunks import HEADER, ChunkStore, npy_header
from mcloop.storage.files import save

_IN_MEMORY = 2**26  # bytes up to which a finished draw is held in memory and not mapped from a file

Values = dict[str, np.ndarray]


class PartialDraw:
    """The parts of one draw, in memory or in a folder of their own, which bears the draw's name."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._store = None if folder is None else ChunkStore(folder, folder.name)
        self._parts: dict[int, Values] = {}
        self._known: set[int] = set()

    def has(self, part: int) -> bool:
        """Whether this part was drawn before, here or by a process that has died."""
        if self._store is not None and part not in self._known and self._file(part).exists():
            if self._store.get(_name(part)) is not None:
                self._known.add(part)
        return part in self._known

    def put(self, part: int, values: Values) -> None:
        """Keeps a part.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        if self._store is None:
            self._parts[part] = values
        else:
            self._store.put(_name(part), values)
        self._known.add(part)

    def gather(self, parts: int) -> Values:
        """The first so many parts, one after the other; in a file that is mapped into memory where they are large.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        first = self._get(0)
        if self._folder is None or parts * sum(x.nbytes for x in first.values()) <= _IN_MEMORY:
            loaded = [self._get(i) for i in range(parts)]
            return {name: np.concatenate([part[name] for part in loaded]) for name in first}
        # another draw may still be mapped from a file of that name: its pages live on until it is let go
        paths = {name: self._folder / f"whole.{name}.npy" for name in first}
        for name, path in paths.items():
            save(path, self._pieces(name, parts, len(first[name]), first[name].shape[1:], self._dtype(name, parts)))
        return {name: np.load(path, mmap_mode="r", max_header_size=HEADER) for name, path in paths.items()}

    def _dtype(self, name: str, parts: int) -> np.dtype:
        """What holds the values of every part: text is as wide as the widest."""
        return np.result_type(*(self._get(i)[name].dtype for i in range(parts)))

    def _pieces(self, name: str, parts: int, points: int, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[bytes]:
        """The parts of one array as the bytes of an `.npy`: a full disk is then an error, where a mapped page is a crash."""
        yield npy_header(dtype, (parts * points, *shape))
        for i in range(parts):
            yield np.ascontiguousarray(self._get(i)[name], dtype).tobytes()

    def _get(self, part: int) -> Values:
        if self._store is None:
            return self._parts[part]
        values = self._store.get(_name(part))
        if values is None:
            raise RuntimeError(f"part {part} of a draw in {str(self._folder)!r} went missing while it was in use")
        return values

    def _file(self, part: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{_name(part)}.npz"


def _name(part: int) -> str:
    return f"part-{part:07d}"


class PartialDraws:
    """The draws of one loop: in a folder, where they outlive the process, or in memory, where the last one is kept."""

    def mcloop_identity(self) -> None:
        """What was drawn so far is no part of what a loop is."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._last: tuple[str, PartialDraw] | None = None

    def open(self, asked: str) -> PartialDraw:
        """The parts of a draw, by a digest of all that it depends on."""
        if self._last is None or self._last[0] != asked:
            self._last = asked, PartialDraw(None if self.folder is None else self.folder / asked)
        return self._last[1]

    def tidy(self, everything: bool) -> None:
        """Deletes the draws that are no longer needed: all but the last one opened, which the next generation begins with."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if everything or self._last is None or path.name != self._last[0]:
                shutil.rmtree(path, ignore_errors=True)
        if everything:
            with suppress(OSError):
                self.folder.rmdir()


_current: ContextVar[PartialDraws | None] = ContextVar("partial_draws", default=None)


@contextmanager
def keeping(draws: PartialDraws) -> Iterator[None]:
    """Draws inside the block are kept at this draws."""
    token = _current.set(draws)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> PartialDraws | None:
    """The draws of the loop that runs, None outside of a driver."""
    return _current.get()


def digest(key, tree: Any, how: str = "") -> str:
    """What a draw depends on: a key, arrays such as a network's variables, and words for the way in which it is drawn."""
    found = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes() + how.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:32]
