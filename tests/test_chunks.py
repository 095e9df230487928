"""Finished chunks, and full disks: nothing half-written, nothing damaged is ever taken for good."""

import errno
import os
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
from helpers import dataset, refused

from mcloop.storage.chunks import ChunkStore
from mcloop.storage.run_folder import open_run

xr = pytest.importorskip("xarray")
SETTINGS = {"lam": 0.5, "seed": 0}


ARRAYS = {
    "x": np.linspace(0, 1, 7),
    "n": np.arange(3, dtype=np.int8),
    "ok": np.array(True),
    "file": np.array(["a", "é"]),
}


def test_chunks_come_back_as_they_were(tmp_path):
    chunk = ChunkStore(tmp_path / "new" / "folder")
    assert chunk.get("a-1") is None
    chunk.put("a-1", ARRAYS)
    for got in (chunk.get("a-1"), dict(np.load(tmp_path / "new" / "folder" / "a-1.npz"))):
        assert got is not None and list(got) == list(ARRAYS)
        for key, array in ARRAYS.items():
            assert got[key].dtype == array.dtype
            np.testing.assert_array_equal(got[key], array)
    chunk.put("a-1", {"x": np.zeros(2)})
    assert list(chunk.get("a-1") or {}) == ["x"]
    with refused("Array 'o' of chunk 'b' has dtype object"):
        chunk.put("b", {"o": np.array([{}])})
    with refused("The chunk name '../b'"):
        chunk.put("../b", {})


def test_any_damage_to_a_chunk_is_noticed(tmp_path):
    chunk, path = ChunkStore(tmp_path), tmp_path / "a.npz"
    chunk.put("a", {"x": np.arange(5.0)})
    whole = path.read_bytes()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        for damaged in (flipped, whole[:at]):
            path.write_bytes(damaged)
            with pytest.warns(UserWarning, match="chunk 'a' in .* is damaged .* and will be computed again$"):
                assert chunk.get("a") is None
    path.write_bytes(whole)
    assert chunk.get("a") is not None


def test_chunks_need_a_folder_and_others_files_are_left(tmp_path):
    (tmp_path / "file").write_text("x")
    with refused("is a file, or lies under one"):
        ChunkStore(tmp_path / "file").put("a", ARRAYS)
    chunk = ChunkStore(tmp_path)
    chunk.put("a", ARRAYS)
    chunk.clear()
    assert os.listdir(tmp_path) == ["file"]


# Full disks


@contextmanager
def file_size_limit(limit):
    """The kernel itself refuses to let any file of this process grow beyond `limit` bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_for_a_chunk_or_the_results(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.chunks.put("a", {"x": np.zeros(9)})
        run.save_dataset(dataset(1))
        with file_size_limit(4096):
            with refused("chunk 'b' (80.", "kB) was not saved", "finished chunks are kept", "the same command goes on"):
                run.chunks.put("b", {"x": np.zeros(10_000)})
            with refused("'results.nc'", "was not saved", "all that was saved before is kept"):
                run.save_dataset(xr.Dataset({"x": ("n", np.arange(9999.0))}))
        assert os.listdir(tmp_path / "chunks") == ["a.npz"] and run.chunks.get("b") is None
        xr.testing.assert_identical(run.load_dataset(), dataset(1))
        assert not list(tmp_path.glob(".*.tmp"))
    with open_run(tmp_path, SETTINGS) as run:
        assert run.chunks.get("a") is not None
        xr.testing.assert_identical(run.load_dataset(), dataset(1))


def test_no_room_that_shows_only_when_flushed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with refused("is full", "free some space"):
        open_run(tmp_path / "run", SETTINGS)
    with refused("chunk 'a'", "was not saved"):
        ChunkStore(tmp_path).put("a", {"x": np.zeros(3)})
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == [".lock"]


def test_a_disk_that_is_too_small_is_known_beforehand(tmp_path):
    with refused("and the run needs 500 TB: free some space"):
        open_run(tmp_path / "run", SETTINGS, needed_bytes=5 * 10**14)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_is_really_full(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with open_run(tmp_path / "run", SETTINGS) as run:
            kept = 0
            with refused("finished chunks are kept"):
                for kept in range(100):
                    run.chunks.put(f"c{kept}", {"x": np.random.default_rng(kept).random(900)})
            assert kept > 2 and all(run.chunks.get(f"c{i}") for i in range(kept))
            assert len(os.listdir(tmp_path / "run" / "chunks")) == kept
            run.clear_chunks()
            run.save_dataset(dataset(1))
        (tmp_path / "junk").write_bytes(b"0" * (os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize))
        with refused("is full"):
            open_run(tmp_path / "new", SETTINGS)
        with refused("is full"):
            open_run(tmp_path / "run", SETTINGS)
        (tmp_path / "junk").unlink()
        with open_run(tmp_path / "run", SETTINGS) as run:
            xr.testing.assert_identical(run.load_dataset(), dataset(1))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
