"""A checkpoint for every generation: written by Orbax, sealed with our own checksums, walked back over when damaged."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mcloop.storage.files import one_line, sha256, size, system_error, unsaved
from mcloop.storage.sealed import seal, unseal

_NAME = re.compile(r"generation-(\d{4,})")
_PARTIAL = re.compile(r"\.generation-\d{4,}\.\d+-[0-9a-f]{8}\.tmp")
_STATE, _SEAL = "state", "seal.json"


class Damaged(Exception):
    """A checkpoint that is not what was saved."""


class Keep(NamedTuple):
    """Which checkpoints stay: the `last` ones and `every` so-manieth (None: all). Generation 1 and the newest always do."""

    last: int | None = None
    every: int | None = None

    def drops(self, t: int, newest: int) -> bool:
        """Whether generation t's checkpoint may go once that of `newest` is there."""
        if (self.last is None and self.every is None) or t == 1 or t == newest:
            return False
        recent = self.last is not None and t > newest - self.last
        return not recent and not (self.every is not None and t % self.every == 0)


class Checkpoints:
    """The checkpoints of one loop, one folder a generation; one process at a time writes.

    Args:
        folder: of the loop, which bears its name: a generation of another loop, or another generation of this one, that lies
            in the place of one is damage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def generations(self) -> list[int]:
        """Generations that have a checkpoint, whole or damaged, in order."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def save(self, t: int, arrays: Mapping[str, jax.Array], notes: Mapping[str, Any]) -> None:
        """Saves a generation, whole or not at all.

        Args:
            arrays: name -> array.
            notes: what else the generation depends on, as JSON holds it.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        from orbax.checkpoint import v1 as ocp

        final = self._path(t)
        partial = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        # a scalar that is no array would make Orbax fail at a later moment
        tree = {name: jax.numpy.asarray(x) for name, x in arrays.items()}
        needed = sum(x.nbytes for x in tree.values()) + 2**20
        try:
            partial.mkdir(parents=True)
            if (free := shutil.disk_usage(partial).free) < needed:
                raise OSError(errno.ENOSPC, f"{size(free)} free, {size(needed)} needed")
            with _quiet():
                _call(ocp, "save")(partial.absolute() / _STATE, tree)
            _seal(partial, {"loop": self.folder.name, "generation": t, "notes": dict(notes)})
            if final.exists():
                # one that was found damaged, or belongs to a later generation than the last good one: kept for a look
                aside = next(p for i in range(1, 10**6) if not (p := final.with_name(f"old-{final.name}-{i}")).exists())
                os.rename(final, aside)
            os.rename(partial, final)
            _sync(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not isinstance(error, Exception) or (why := system_error(error)) is None:
                raise
            kept = "all generations before it are kept (--keep-last saves room), and"
            raise unsaved(why, self.folder, f"generation {t} ({size(needed)})", kept) from error

    def notes(self, t: int) -> dict[str, Any]:
        """What was noted beside generation t, after every checksum of it was compared.

        Raises:
            Damaged: a file is missing, cut, or changed.
        """
        path = self._path(t)
        try:
            body = unseal((path / _SEAL).read_bytes())
            found = _records(path)
        except (OSError, ValueError, RecursionError) as error:
            raise Damaged(f"its seal is broken ({one_line(error)})") from error
        if (known := (body.get("loop"), body.get("generation"))) != (self.folder.name, t):
            raise Damaged(f"it is generation {known[1]} of {known[0]!r}")
        for name, record in body["files"].items():
            if name not in found:
                raise Damaged(f"{name!r} is missing")
            if found[name] != record:
                raise Damaged(f"{name!r} was changed or cut short")
        return body["notes"]

    def load(self, t: int, shapes: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The arrays of a generation whose `notes` were read.

        Args:
            shapes: name -> anything with a shape and a dtype.
        """
        from orbax.checkpoint import v1 as ocp

        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = {
            n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or one) for n, x in shapes.items()
        }
        try:
            with _quiet():
                return _call(ocp, "load")(self._path(t).absolute() / _STATE, wanted)
        except Exception as error:  # whatever a foreign reader dislikes in files whose checksums are right
            raise Damaged(f"Orbax cannot read it ({one_line(error)})") from error

    def prune(self, newest: int, keep: Keep) -> None:
        """Deletes the checkpoints that need not stay."""
        for t in self.generations():
            if t < newest and keep.drops(t, newest):
                shutil.rmtree(self._path(t), ignore_errors=True)

    def sweep(self) -> None:
        """Deletes what a killed process left half-written."""
        for name in os.listdir(self.folder) if self.folder.is_dir() else []:
            if _PARTIAL.fullmatch(name):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _path(self, t: int) -> Path:
        return self.folder / f"generation-{t:04d}"


def _call(ocp, name: str):
    """Orbax's save or load of a pytree, by the name that this version of it has."""
    return getattr(ocp, name, None) or getattr(ocp, f"{name}_pytree")


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs the traceback of each of its threads; what it raises says the same, and is told in one sentence."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _seal(folder: Path, body: dict[str, Any]) -> None:
    """Writes the checksums of everything in a folder, and of themselves, and sends all of it to the disk."""
    with open(folder / _SEAL, "xb") as file:
        file.write(seal({**body, "files": _records(folder)}))
        file.flush()
        os.fsync(file.fileno())
    for place, _, names in os.walk(folder):
        for name in names:
            _sync(Path(place) / name)
        _sync(Path(place))


def _records(folder: Path) -> dict[str, Any]:
    """Relative name -> [sha256, bytes] of every file but the seal."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path != folder / _SEAL:
                found[path.relative_to(folder).as_posix()] = [sha256(path), path.stat().st_size]
    return dict(sorted(found.items()))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have no such thing
            raise
    finally:
        os.close(handle)
