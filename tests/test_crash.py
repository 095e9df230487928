"""A deep run that is killed at random moments, and inside of saves, ends as one that was never stopped."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import crashing
import pytest
from test_train import same_files

KILLS_BY_CLOCK, KILLS_IN_A_SAVE = 10, 14


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_random_moments_and_resumed_to_the_bit(tmp_path):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    nursery = subprocess.Popen(
        [sys.executable, str(here / "crashing.py")], stdin=-1, stdout=-1, text=True, env=environment, cwd=tmp_path
    )
    assert nursery.stdin and nursery.stdout

    def child(folder, operations="", seconds=None):
        nursery.stdin.write(f"{folder}\t{operations}\n")
        nursery.stdin.flush()
        pid, began = int(nursery.stdout.readline()), time.monotonic()
        timer = threading.Timer(seconds, kill, (pid,)) if seconds else None
        if timer:
            timer.start()
        code = int(nursery.stdout.readline())
        if timer:
            timer.cancel()
        return code, time.monotonic() - began

    with nursery:
        assert child(tmp_path / "whole")[0] == 0
        # the second whole run finds everything compiled: how long the ones that are killed may take
        code, whole = child(tmp_path / "timed")
        assert code == 0
        rng, killed, codes, drawing = random.Random(0), 0, [], 0
        for _ in range(200):
            if killed >= KILLS_BY_CLOCK + KILLS_IN_A_SAVE:
                break
            by_clock = killed < KILLS_BY_CLOCK
            # a generation writes to the disk some thirty times, and a resumed run makes at least a little progress
            how = {"seconds": whole * rng.uniform(0.2, 0.9)} if by_clock else {"operations": rng.randint(1, 60)}
            code, _ = child(tmp_path / "killed", **how)
            codes.append(code)
            killed += code == -signal.SIGKILL
            drawing += code != 0 and unfinished_draws(tmp_path / "killed")
            if code == 0:  # it came through: begin another one
                same_files(tmp_path / "whole", tmp_path / "killed")
                (tmp_path / "killed").rename(tmp_path / f"survived-{len(codes)}")
        assert killed == KILLS_BY_CLOCK + KILLS_IN_A_SAVE and set(codes) <= {0, -signal.SIGKILL}, codes
        assert drawing > 0  # some died with a part of a draw on disk that no checkpoint has
        assert child(tmp_path / "killed")[0] == 0
        nursery.stdin.close()
    same_files(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "whole").glob("*/partial_draws"))
    assert crashing.work(tmp_path / "killed").identical(crashing.work(tmp_path / "whole"))


def kill(pid):
    """Kill a process, if it has not ended by itself in the meantime."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def unfinished_draws(folder):
    """Whether a process died between two parts of the same draw."""
    return any(0 < len(list(draw.glob("part-*.npz"))) < 3 for draw in folder.glob("*/partial_draws/*"))
