"""A run's folder: its manifest, its results and its finished chunks, written atomically and checked when read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcloop.errors import InputError
from mcloop.storage.chunks import ChunkStore
from mcloop.storage.files import PARTIAL, one_line, refusal, sha256, show, size, sweep_partial, unsaved, write_atomically
from mcloop.storage.lock import LOCK, hold, release
from mcloop.storage.lock import locked as locked
from mcloop.storage.manifest import FORMAT, MANIFEST, belongs, difference, normalise, read_manifest, versions

if TYPE_CHECKING:
    import xarray as xr

RESULTS = "results.nc"


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
            aside = _move_aside(path)
        except OSError as error:
            raise refusal(error, path) from error
        files = {name: record for name, record in self.manifest["files"].items() if name != RESULTS}
        self._update(files=files, status="running", finished=None)
        why = f"{show(path)} is not what the run saved (its checksum differs): it is kept as {aside.name!r}"
        warnings.warn(f"{why}, and the results are computed again", stacklevel=2)
        return None

    def save_text(self, name: str, text: str) -> None:
        """Saves a text file of the run, with its checksum."""
        self._save(name, text.encode("utf-8", "backslashreplace"))

    def save_bytes(self, name: str, payload: bytes) -> None:
        """Saves a file of the run, such as a figure, with its checksum."""
        self._save(name, payload)

    def set_aside_damaged(self) -> list[str]:
        """Looks at everything that was saved beside the results; what is damaged is kept under another name.

        Returns:
            A sentence's end for each file that is missing or not what the run saved.
        """
        said = []
        for name, record in self.manifest["files"].items():
            if name == RESULTS:
                continue
            path = self.path(name)
            try:
                if _record_of_file(path) == record:
                    continue
                said.append(f"{name!r} is not what the run saved (it is kept as {_move_aside(path).name!r})")
            except FileNotFoundError:
                said.append(f"{name!r} is missing")
            except OSError as error:
                raise refusal(error, path) from error
        return said

    def identify(self, loops: dict[str, Any], **noted: Any) -> None:
        """Notes what the run's loops are, as JSON holds it, and settings that are `noted` and not compared.

        Raises:
            InputError: the folder holds a run of others; the message names what differs.
        """
        if isinstance(kept := self.manifest.get("loops"), dict):
            belongs(self.folder, "a run of other loops", kept, normalise(loops))
        self._update(loops=normalise(loops), settings={**self.manifest["settings"], **noted})

    def note(self, **noted: Any) -> None:
        """Renews settings that are kept and not compared."""
        if any(self.manifest["settings"].get(name) != value for name, value in noted.items()):
            self._update(settings={**self.manifest["settings"], **noted})

    def keep_config(self, path: Path, name: str) -> None:
        """Keeps a copy of the file that says what is run, and its own name without the folders that it is in."""
        payload = path.read_bytes()
        self._save(name, payload)
        self._update(config={"name": path.name, "sha256": hashlib.sha256(payload).hexdigest()})

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
            release(self.folder, self._lock)
        self._lock = -1

    def _save(self, name: str, payload: bytes) -> None:
        # A kill may fall between the file and the manifest. The manifest therefore first announces the new checksum as
        # pending; whoever opens the folder next looks at which of the two files is there.
        path, record = self.path(name), _record(payload)
        self._update(pending={**self.manifest.get("pending", {}), name: record})
        try:
            write_atomically(path, payload)
        except OSError as error:
            kept = "all that was saved before is kept, and"
            raise unsaved(error, self.folder, f"{name!r} ({size(len(payload))})", kept) from error
        pending = {other: record for other, record in self.manifest["pending"].items() if other != name}
        self._update(files={**self.manifest["files"], name: record}, pending=pending)

    def _update(self, **changes: Any) -> None:
        manifest = {key: value for key, value in {**self.manifest, **changes}.items() if key != "pending" or value}
        try:
            write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        except OSError as error:
            raise refusal(error, self.folder) from error
        self.manifest = manifest


def open_run(folder: str | os.PathLike[str], settings: dict[str, Any], needed_bytes: int = 0, noted: Sequence[str] = ()) -> Run:
    """Opens a run's folder, new or interrupted or finished, and locks it for this process.

    Args:
        folder: where the run lives; made if absent.
        settings: what the run depends on, as values that JSON can hold (tuples, arrays and numpy scalars too). A folder
            opens again only with equal settings.
        needed_bytes: about how much the run will write.
        noted: settings that are kept, and may differ from one opening to the next (`Run.identify` renews them).

    Raises:
        InputError: the folder cannot be written, is in use, is not a run's, or holds a run with other settings.
    """
    folder, settings = Path(folder), normalise(settings)
    try:
        if _refuse_strangers(folder):
            _refuse_mismatch(folder, settings, noted)  # a disagreement needs no lock to be seen
        free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free
        if free < needed_bytes:
            why = f"The disk holding {show(folder)} has {size(free)} free, and the run needs {size(needed_bytes)}"
            raise InputError(f"{why}: free some space, or choose another folder (--out).")
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder)
        try:
            return _open_locked(folder, settings, lock, noted)
        except BaseException:
            release(folder, lock)
            raise
    except OSError as error:
        raise refusal(error, folder) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{show(folder)} is no name for a folder ({one_line(error)}).") from error


def _open_locked(folder: Path, settings: dict[str, Any], lock: int, noted: Sequence[str]) -> Run:
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
        sweep_partial(place)
    if _refuse_strangers(folder):
        run = Run(folder, _refuse_mismatch(folder, settings, noted), lock)
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


def _refuse_mismatch(folder: Path, settings: dict[str, Any], noted: Sequence[str]) -> dict[str, Any]:
    manifest = read_manifest(folder)
    kept, now = ({k: v for k, v in x.items() if k not in noted} for x in (manifest["settings"], settings))
    belongs(folder, "a run with other settings", kept, now, ", or repeat the old settings")
    return manifest


def _move_aside(path: Path) -> Path:
    aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.name}.damaged-{n}")).exists())
    os.replace(path, aside)
    return aside


def _record(payload: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}


def _record_of_file(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
