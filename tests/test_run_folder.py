"""A run's folder under everything that happens to folders: kills, full disks, flipped bits, other people."""

import errno
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import dataset, flip, refused

from mcloop.storage import lock, run_folder
from mcloop.storage.run_folder import open_run, read_manifest

xr = pytest.importorskip("xarray")
SETTINGS = {"lam": 0.5, "grid": {"n": [10, 100]}, "seed": 0}


def python(script, *args):
    """Starts another process that sees this mcloop."""
    path = os.pathsep.join([str(Path(run_folder.__file__).parents[2]), *filter(None, sys.path)])
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, args)]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


# A run from its first day to its last


def test_what_was_saved_comes_back(tmp_path):
    folder = tmp_path / "deep" / "run"
    with open_run(folder, SETTINGS) as run:
        assert run.load_dataset() is None and not run.finished
        assert read_manifest(folder)["status"] == "running"
        run.save_dataset(dataset(1))
        run.save_text("notes/log.txt", "fine\n")
        run.path("figures/a.png").write_bytes(b"png")
        run.add_file("figures/a.png")
        run.finish()
    manifest = read_manifest(folder)
    assert manifest["status"] == "finished" and manifest["finished"] >= manifest["created"]
    assert set(manifest["files"]) == {"results.nc", "notes/log.txt", "figures/a.png"} and "pending" not in manifest
    assert manifest["files"]["figures/a.png"]["bytes"] == 3
    assert {"mcloop", "jax", "numpy", "python"} <= set(manifest["versions"])
    with open_run(folder, SETTINGS) as run:
        assert run.finished
        xr.testing.assert_identical(run.load_dataset(), dataset(1))
    xr.testing.assert_identical(xr.load_dataset(folder / "results.nc", engine="h5netcdf"), dataset(1))
    assert read_manifest(folder)["status"] == "finished"  # a second look does not make it unfinished
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "figures", "manifest.json", "notes", "results.nc"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_says_so_and_goes_on(tmp_path, failure):
    def start():
        with open_run(tmp_path, SETTINGS) as run:
            run.chunks.put("a", {"x": np.arange(3)})
            raise failure

    with pytest.raises(failure):
        start()
    assert read_manifest(tmp_path)["status"] == "interrupted"
    with open_run(tmp_path, SETTINGS) as run:
        assert run.manifest["status"] == "running"
        got = run.chunks.get("a")
        assert got is not None and got["x"].tolist() == [0, 1, 2]
        run.clear_chunks()
        assert run.chunks.get("a") is None and not (tmp_path / "chunks").exists()


def test_going_on_with_another_jax_is_said(tmp_path):
    open_run(tmp_path, SETTINGS).close()
    manifest = read_manifest(tmp_path)
    manifest["versions"]["numpy"] = "0.1"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match='began with numpy "0.1" and goes on with'):
        open_run(tmp_path, SETTINGS).close()


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "manifest.json", ".lock"])
def test_files_stay_inside_the_folder(tmp_path, name):
    with open_run(tmp_path, SETTINGS) as run, refused("not a relative path inside"):
        run.path(name)


# Folders that are not ours, or not usable


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with refused("holds other things (such as 'thesis.tex') and no run"):
        open_run(tmp_path, SETTINGS)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with refused("is a file"):
        open_run(tmp_path / "thesis.tex", SETTINGS)
    with refused("is a file, or lies under one"):
        open_run(tmp_path / "thesis.tex" / "run", SETTINGS)
    with refused("is no name for a folder"):
        open_run(tmp_path / "nul\0", SETTINGS)
    with refused("holds no run"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("number", "said"), [(errno.EACCES, "no permission"), (errno.EROFS, "no permission")])
def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, number, said):
    def forbid(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", forbid)
        with refused(said, "choose another folder (--out)"):
            open_run(tmp_path / "a", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", forbid)
        with refused(said):
            open_run(tmp_path / "b", SETTINGS)
    open_run(tmp_path / "a", SETTINGS).close()  # neither the lock nor a half-written file is left


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with refused("no permission"):
        open_run(tmp_path / "run", SETTINGS)


# Two processes


HOLD = """
import sys
from mcloop.storage.run_folder import open_run
r = open_run(sys.argv[1], {})
print("held", flush=True)
input()
"""


def test_two_processes_and_the_death_of_one(tmp_path):
    other = python(HOLD, tmp_path)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with refused("is in use by another process", f"({other.pid} on {os.uname().nodename})"):
            open_run(tmp_path, {})
    finally:
        other.kill()
        other.communicate()
    open_run(tmp_path, {}).close()
    with open_run(tmp_path, {}), refused(f"({os.getpid()} on"):
        open_run(tmp_path, {})


def test_without_flock_a_lock_file_does(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with open_run(tmp_path, {}), refused("is in use", f"{os.getpid()} on", "delete"):
        open_run(tmp_path, {})
    open_run(tmp_path, {}).close()


# Kills. A forked child saves 1, 2, 3, ... and tells each number that is safe; it is killed at a random moment.

KILLS = """
import os, random, signal, sys, time, warnings
import numpy as np, xarray as xr
from mcloop.storage.run_folder import open_run
warnings.simplefilter("error")
random.seed(0)
safe = 0
for kill in range(int(sys.argv[2])):
    read, write = os.pipe()
    warnings.simplefilter("ignore")
    pid = os.fork()
    warnings.simplefilter("error")
    if pid == 0:
        with open_run(sys.argv[1], {"a": 1}) as run:
            while True:
                safe += 1
                run.save_dataset(xr.Dataset({"x": ("n", np.full(3000, safe))}))
                run.chunks.put("c", {"x": np.full(3000, safe)})
                os.write(write, b".")
    os.close(write)
    safe += len(os.read(read, 1))  # it is past the opening
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while told := os.read(read, 4096):
        safe += len(told)
    os.close(read)
    with open_run(sys.argv[1], {"a": 1}) as run:
        results, chunk = run.load_dataset().x.values, run.chunks.get("c")["x"]
        assert len(results) == len(chunk) == 3000
        assert (results == results[0]).all() and (chunk == chunk[0]).all()
        assert safe <= chunk[0] <= results[0] <= safe + 1, (safe, chunk[0], results[0])
        safe = int(results[0])
        assert not [name for name in os.listdir(sys.argv[1]) if name.endswith(".tmp")]
print("survived", safe)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_survives_kill_9_at_any_moment(tmp_path):
    out, _ = python(KILLS, tmp_path, 40).communicate(timeout=60)
    assert out.startswith("survived")


def test_a_kill_between_file_and_manifest(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    for steps in range(1, 4):  # the manifest announces, the file is there, the manifest confirms
        folder, left = tmp_path / str(steps), [100]
        write = run_folder.write_atomically

        def dying(path, payload, left=left, write=write):
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(path, payload)

        monkeypatch.setattr(run_folder, "write_atomically", dying)
        run = open_run(folder, SETTINGS)
        run.save_dataset(dataset(1))
        left[0] = steps
        with suppress(Killed):
            run.save_dataset(dataset(2))
        assert left == [0]
        run.close()
        monkeypatch.undo()
        with open_run(folder, SETTINGS) as run:
            xr.testing.assert_identical(run.load_dataset(), dataset(1 if steps == 1 else 2))


# Damage


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_damaged_results_are_kept_aside_and_computed_again(tmp_path, damage):
    path = tmp_path / "results.nc"
    for n in (1, 2):
        with open_run(tmp_path, SETTINGS) as run:
            run.save_dataset(dataset(n))
            run.finish()
        if damage == "flip":
            flip(path, 4001)
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            dataset(3).to_netcdf(path, engine="h5netcdf")
        bad = path.read_bytes()
        with open_run(tmp_path, SETTINGS) as run:
            with pytest.warns(UserWarning, match=f"checksum differs.*kept as 'results.nc.damaged-{n}'"):
                assert run.load_dataset() is None
            assert not run.finished and run.load_dataset() is None
        assert (tmp_path / f"results.nc.damaged-{n}").read_bytes() == bad and not path.exists()
