"""Compiled programs that are kept: read by the next process, forgotten when there are too many, and never when not wanted."""

import os
import subprocess
import sys

from mcloop.storage.programs import forget_oldest

ARGUMENTS = ["run", "quickstart", "--size", "tiny", "--seeds", "4", "--generations", "3", "--quiet"]


def run(folder, *more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | {"MCLOOP_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "mcloop.cli", *ARGUMENTS, "--out", str(folder / "run"), "--no-resume", *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {p.name for p in (folder / "cache" / "programs").glob("*/*-cache")}


def test_programs_are_kept_for_the_next_process(tmp_path):
    (tmp_path / "cache").mkdir()
    assert run(tmp_path, "--no-cache") == set()
    kept = run(tmp_path)
    assert kept
    # what is there is read, and nothing is compiled again
    assert run(tmp_path) == kept


def test_the_oldest_programs_go(tmp_path):
    for i in range(4):
        path = tmp_path / f"{i}"
        path.write_bytes(bytes(100))
        os.utime(path, (i, i))
    forget_oldest(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
    forget_oldest(tmp_path, 250)
    assert len(list(tmp_path.iterdir())) == 2
