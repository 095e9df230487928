"""A checkpoint for every generation: written by Orbax, sealed with our own checksums, walked back over when damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mcloop.errors import InputError
from mcloop.storage.chunks import FULL, one_line, refusal, show, size

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
    """The checkpoints of one loop, one folder a generation; one process at a time writes."""

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
            _call(ocp, "save")(partial.absolute() / _STATE, tree)
            _seal(partial, notes)
            if final.exists():
                # one that was found damaged, or belongs to a later generation than the last good one: kept for a look
                aside = next(p for i in range(1, 10**6) if not (p := final.with_name(f"old-{final.name}-{i}")).exists())
                os.rename(final, aside)
            os.rename(partial, final)
            _sync(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not isinstance(error, OSError) and "No space left" not in str(error):
                raise
            code = getattr(error, "errno", None)
            if isinstance(error, OSError) and code not in FULL:
                raise refusal(error, self.folder) from error
            raise InputError(
                f"The disk holding {show(self.folder)} is full: generation {t} ({size(needed)}) was not saved; all generations "
                "before it are kept, and the same command goes on from there once there is room (--keep-last saves some)."
            ) from error

    def notes(self, t: int) -> dict[str, Any]:
        """What was noted beside generation t, after every checksum of it was compared.

        Raises:
            Damaged: a file is missing, cut, or changed.
        """
        path = self._path(t)
        try:
            seal = json.loads((path / _SEAL).read_bytes())
            body = seal["body"]
            if _digest(_canonical(body)) != seal["sha256"]:
                raise Damaged("its seal is broken")
            found = _records(path)
        except Damaged:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged(f"its seal cannot be read ({one_line(error)})") from error
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


def _seal(folder: Path, notes: Mapping[str, Any]) -> None:
    """Writes the checksums of everything in a folder, and of themselves, and sends all of it to the disk."""
    body = {"notes": dict(notes), "files": _records(folder)}
    with open(folder / _SEAL, "xb") as file:
        file.write(json.dumps({"body": body, "sha256": _digest(_canonical(body))}).encode())
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
                with open(path, "rb") as file:
                    found[path.relative_to(folder).as_posix()] = [hashlib.file_digest(file, "sha256").hexdigest(), file.tell()]
    return dict(sorted(found.items()))


def _canonical(body) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


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
