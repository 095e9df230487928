"""A run's folder: its manifest, its results and its finished chunks, written atomically and checked when read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcloop.errors import InputError
from mcloop.storage.chunks import FULL, PARTIAL, ChunkStore, one_line, refusal, show, size, sweep_partial, write_atomically
from mcloop.storage.manifest import FORMAT, MANIFEST, difference, normalise, read_manifest, versions

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    import xarray as xr

RESULTS = "results.nc"
LOCK = ".lock"


class Run:
    """One run's folder, locked for this process until `close` (or the end of the `with` block).

    Attributes:
        manifest: what manifest.json says.
        chunks: the finished pieces of a run that is not finished.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], lock: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self.chunks = ChunkStore(folder / "chunks")
        self._lock = lock

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if not self.finished:
                self._update(status="interrupted")
        except (OSError, InputError):
            if kind is None:  # otherwise the first failure is the one to show
                raise
        finally:
            self.close()

    @property
    def finished(self) -> bool:
        """Whether the run was carried to its end (`finish`), by this process or an earlier one."""
        return self.manifest["status"] == "finished"

    def path(self, name: str) -> Path:
        """Returns where a file of the run lives, and makes its folder."""
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or name in (MANIFEST, LOCK):
            raise InputError(f"The file name {name!r} is not a relative path inside the run's folder.")
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(error, path.parent) from error
        return path

    def save_dataset(self, ds: xr.Dataset) -> None:
        """Saves the results, whole or not at all: after a crash the folder holds the old ones or these."""
        # By way of memory: HDF5 meets a full disk with errors that do not name it, or at a later moment.
        self._save(RESULTS, bytes(ds.to_netcdf(engine="h5netcdf")))

    def load_dataset(self) -> xr.Dataset | None:
        """Returns the saved results, or None where there are none; damaged ones are moved aside with a warning."""
        path = self.folder / RESULTS
        try:
            if not path.exists():
                return None
            payload = path.read_bytes()
            if _record(payload) == self.manifest["files"].get(RESULTS):
                import xarray as xr

                return xr.load_dataset(io.BytesIO(payload), engine="h5netcdf")
            aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{RESULTS}.damaged-{n}")).exists())
            os.replace(path, aside)
        except OSError as error:
            raise refusal(error, path) from error
        files = {name: record for name, record in self.manifest["files"].items() if name != RESULTS}
        self._update(files=files, status="running", finished=None)
        why = f"{show(path)} is not what the run saved (its checksum differs): it is kept as {aside.name!r}"
        warnings.warn(f"{why}, and the results are computed again", stacklevel=2)
        return None

    def save_text(self, name: str, text: str) -> None:
        """Saves a text file of the run, with its checksum."""
        self._save(name, text.encode())

    def add_file(self, name: str) -> None:
        """Records the checksum of a file that somebody else wrote at `path(name)`: a figure, a checkpoint."""
        path = self.path(name)
        try:
            record = _record_of_file(path)
        except OSError as error:
            raise InputError(f"The file {show(path)} cannot be added to the run: {error.strerror}.") from error
        self._update(files={**self.manifest["files"], name: record})

    def clear_chunks(self) -> None:
        """Deletes the finished chunks, once the results that they make up are saved."""
        self.chunks.clear()

    def finish(self) -> None:
        """Marks the run as finished."""
        self._update(status="finished", finished=_now())

    def close(self) -> None:
        """Lets another process open the folder."""
        if self._lock >= 0:
            _unlock(self.folder, self._lock)
        self._lock = -1

    def _save(self, name: str, payload: bytes) -> None:
        # A kill may fall between the file and the manifest. The manifest therefore first announces the new checksum as
        # pending; whoever opens the folder next looks at which of the two files is there.
        path, record = self.path(name), _record(payload)
        self._update(pending={**self.manifest.get("pending", {}), name: record})
        try:
            write_atomically(path, payload)
        except OSError as error:
            if error.errno not in FULL:
                raise refusal(error, path) from error
            raise InputError(
                f"The disk holding {show(self.folder)} is full: {name!r} ({size(len(payload))}) was not saved; "
                "all that was saved before is kept, and the same command goes on from there once there is room."
            ) from error
        pending = {other: record for other, record in self.manifest["pending"].items() if other != name}
        self._update(files={**self.manifest["files"], name: record}, pending=pending)

    def _update(self, **changes: Any) -> None:
        manifest = {key: value for key, value in {**self.manifest, **changes}.items() if key != "pending" or value}
        try:
            write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        except OSError as error:
            raise refusal(error, self.folder) from error
        self.manifest = manifest


def open_run(folder: str | os.PathLike[str], settings: dict[str, Any], needed_bytes: int = 0) -> Run:
    """Opens a run's folder, new or interrupted or finished, and locks it for this process.

    Args:
        folder: where the run lives; made if absent.
        settings: what the run depends on, as values that JSON can hold (tuples, arrays and numpy scalars too). A folder
            opens again only with equal settings.
        needed_bytes: about how much the run will write.

    Raises:
        InputError: the folder cannot be written, is in use, is not a run's, or holds a run with other settings.
    """
    folder, settings = Path(folder), normalise(settings)
    try:
        if _refuse_strangers(folder):
            _refuse_mismatch(folder, settings)  # a disagreement needs no lock to be seen
        free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free
        if free < needed_bytes:
            why = f"The disk holding {show(folder)} has {size(free)} free, and the run needs {size(needed_bytes)}"
            raise InputError(f"{why}: free some space, or choose another folder (--out).")
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            return _open_locked(folder, settings, lock)
        except BaseException:
            _unlock(folder, lock)
            raise
    except OSError as error:
        raise refusal(error, folder) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{show(folder)} is no name for a folder ({one_line(error)}).") from error


def _open_locked(folder: Path, settings: dict[str, Any], lock: int) -> Run:
    sweep_partial(folder)
    sweep_partial(folder / "chunks")
    if _refuse_strangers(folder):
        run = Run(folder, _refuse_mismatch(folder, settings), lock)
        arrived = {}
        for name, record in run.manifest.get("pending", {}).items():
            with suppress(OSError):  # killed before the file was there
                if _record_of_file(folder / name) == record:
                    arrived[name] = record
        if not run.finished and (changed := difference(run.manifest["versions"], versions())):
            why = f"The run in {show(folder)} began with {changed[0]} {changed[1]} and goes on with {changed[2]}"
            warnings.warn(f"{why}: its numbers may not be those of a run that was never stopped", stacklevel=3)
        # Writing the manifest also shows that the folder can be written, before hours are spent on results.
        status = "finished" if run.finished else "running"
        run._update(files={**run.manifest["files"], **arrived}, pending={}, status=status)
        return run
    run = Run(folder, {"format": FORMAT, "settings": settings, "versions": versions()}, lock)
    run._update(created=_now(), finished=None, status="running", files={})
    return run


def _refuse_strangers(folder: Path) -> bool:
    """Returns whether the folder has a manifest; refuses one that has none and is not empty."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return False
    if others := [name for name in names if name not in (LOCK, ".DS_Store") and not PARTIAL.fullmatch(name)]:
        if MANIFEST not in others:
            why = f"The folder {show(folder)} holds other things (such as {others[0]!r}) and no run"
            raise InputError(f"{why}: choose an empty or a new folder (--out).")
        return True
    return False


def _refuse_mismatch(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if found := difference(manifest["settings"], settings):
        name, old, new = found
        why = f"The folder {show(folder)} holds a run with other settings: {name} was {old} there and is {new} now"
        raise InputError(f"{why}; choose another folder (--out), or repeat the old settings.")
    return manifest


def _lock(folder: Path) -> int:
    """Locks a folder and returns the descriptor that holds it; the kernel lets go of it when the process dies."""
    path = folder / LOCK
    exclusive = os.O_EXCL if fcntl is None else 0
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | exclusive, 0o666)
    except FileExistsError as error:
        raise InputError(f"{_in_use(folder)}, or was so when it died: delete {show(path)} if it did.") from error
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise InputError(f"{_in_use(folder)}: wait for it, or choose another folder (--out).") from error
        except OSError as error:  # some network file systems
            why = f"{show(folder)} cannot be locked ({error.strerror})"
            warnings.warn(f"{why}: make sure that no other process writes to it", stacklevel=4)
    with suppress(OSError):  # who holds it is for the other's message only; a full disk is met again below
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()} on {socket.gethostname()}".encode())
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder, made if absent, for this process while the block runs.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as error:
        raise refusal(error, folder) from error
    try:
        yield
    finally:
        _unlock(folder, lock)


def _in_use(folder: Path) -> str:
    holder = one_line((folder / LOCK).read_text(errors="replace") or "unknown")
    return f"The folder {show(folder)} is in use by another process ({holder})"


def _unlock(folder: Path, lock: int) -> None:
    os.close(lock)
    if fcntl is None:  # with flock the file stays: deleting it would let two processes lock two files of one name
        (folder / LOCK).unlink(missing_ok=True)


def _record(payload: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}


def _record_of_file(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
