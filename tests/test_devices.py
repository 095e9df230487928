"""Every kind of hosted experiment on two and on eight devices: two arms that share their first fit, and a run that goes on."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

# config -> (two arms, options beyond those of size tiny); eight devices divide the batches
KINDS = {
    "gerstgrasser/tinystories_gpt2_9m": (["replace", "accumulate"], {"batch": 16, "sequences": 20}),
    "gerstgrasser/tinystories_llama2_12m": (["replace", "accumulate"], {"batch": 16, "sequences": 20, "warm": True}),
    "beyond/story_grammar": (["replace", "replace by the best of 4"], {"batch": 16}),
    "gillman/mnist": (["iterative fine-tuning", "with self-correction"], {"batch": 16, "count": 20, "samples": 60}),
}


def both_arms_and_a_resume(name):
    """Runs a config's smallest loops, takes the last checkpoint of each away, and runs them again."""
    from functools import partial

    from mcloop import train
    from mcloop.experiment.config import find, load

    arms, options = KINDS[name]
    experiment = load(find(name))
    tiny = experiment.sizes["tiny"]
    fixed = {k: v[0] for k, v in {**experiment.grid, **tiny.grid}.items() if k != "arm"}
    make = partial(experiment.make, **{**fixed, **tiny.options, **options})
    if experiment.load is not None:
        make = partial(make, table=experiment.load(None))
    with tempfile.TemporaryDirectory() as folder:
        whole = train(make, {"arm": arms}, 1, 2, folder=folder)
        for last in Path(folder).glob("*/generation-0002"):
            shutil.rmtree(last)
        again = train(make, {"arm": arms}, 1, 2, folder=folder)
    assert whole.identical(again), f"{name}: a run that goes on has other numbers"
    headline = whole[experiment.measure[0]].values
    assert np.isfinite(headline).all(), f"{name}: {headline}"


SLOW = pytest.mark.slow
CASES = [pytest.param(2, [*KINDS][:1], id="2"), pytest.param(2, [*KINDS][1:], id="2, the others", marks=SLOW)]
CASES += [pytest.param(8, [*KINDS], id="8", marks=SLOW)]


@pytest.mark.parametrize(("devices", "kinds"), CASES)
def test_two_arms_and_a_resume(devices, kinds):
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    environment.pop("MCLOOP_DATA", None)  # stories of a grammar, and digits
    done = subprocess.run([sys.executable, __file__, *kinds], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    for kind in sys.argv[1:]:
        both_arms_and_a_resume(kind)
