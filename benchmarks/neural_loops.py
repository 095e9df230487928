"""Rows of `neural.py` on whole loops: grids of small networks side by side, and what a generation's checkpoint costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mcloop import make_loop, regimes
from mcloop.data.toys import eight_gaussians
from mcloop.drivers.scan import first_generation
from mcloop.models import ddim, ddpm, diffusion
from mcloop.models.training import training
from mcloop.nets import context_unet
from mcloop.storage.checkpoints import Checkpoints
from mcloop.studies.toys import FAMILIES, toy_model


def _compiled(work, *inputs):
    start = time.perf_counter()
    made = work.lower(*inputs).compile()
    return made, time.perf_counter() - start


def _seconds(work, repeats: int = 3) -> float:
    """The best of the repeats, after one that is not counted."""
    jax.block_until_ready(work())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - start)
    return min(times)


def toy_rows(quick: bool) -> list[dict[str, Any]]:
    """64 loops of small networks in one program, against one compiled loop run again and again: loop-generations a second."""
    return [_toy_row(family, 50 if quick else 300) for family in FAMILIES]


def _toy_row(family: str, steps: int) -> dict[str, Any]:
    batch = 64 if family == "ot_cfm" else 128
    spec = training(5, steps, rate=1e-3, batch=batch, ema=0.995)
    model = toy_model(family, eight_gaussians(), spec, 1000, capacity=1000)
    keys, lam = jax.random.split(jax.random.key(0), 8), jnp.linspace(0.0, 1.0, 8)

    def begin(key, lam):
        loop = make_loop(model, regimes.augment(lam))
        return first_generation(loop, key, None, 3, lambda s: loop.generation(key, s))[0]

    def advance(key, lam, state):
        return make_loop(model, regimes.augment(lam)).generation(key, state)[0]

    state = jax.jit(jax.vmap(jax.vmap(begin, (None, 0)), (0, None)))(keys, lam)
    first = jax.tree.map(lambda x: x[0, 0], state)
    together, compile_together = _compiled(jax.jit(jax.vmap(jax.vmap(advance, (None, 0, 0)), (0, None, 0))), keys, lam, state)
    alone, compile_alone = _compiled(jax.jit(advance), keys[0], lam[0], first)
    side_by_side = 64 / _seconds(lambda: together(keys, lam, state))
    # eight runs of the Python loop are enough to time
    one_by_one = 8 / _seconds(lambda: [alone(keys[i], lam[i], first) for i in range(8)])
    row = {"loop": f"{family}, {steps} steps of {batch}", "one at a time, a second": one_by_one}
    row |= {"64 side by side, a second": side_by_side, "/ one at a time": side_by_side / one_by_one}
    return row | {"compile s, one": compile_alone, "compile s, 64": compile_together}


def checkpoint_rows(quick: bool) -> list[dict[str, Any]]:
    """What a generation's checkpoint costs, for the network of the small MNIST loop and for the paper's."""
    rows = []
    for features, pixels in ((24, 16), (128, 28)):
        learner = diffusion(context_unet(features=features, image=pixels), ddpm(400), ddim(10), (pixels, pixels, 1), classes=10)
        fitted = jax.jit(learner.init)(jax.random.key(0))
        arrays = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(fitted)}
        with tempfile.TemporaryDirectory() as folder:
            checkpoints, times = Checkpoints(Path(folder)), []
            for t in range(1, 4 if quick else 8):
                began = time.perf_counter()
                checkpoints.save(t, arrays, {})
                times.append(time.perf_counter() - began)
            began = time.perf_counter()
            checkpoints.notes(t)
            checkpoints.load(t, arrays)
            loaded = time.perf_counter() - began
        size = sum(x.nbytes for x in arrays.values()) / 1e6
        rows.append(
            {"network": f"ContextUnet {features}", "MB": size, "save ms": 1e3 * min(times), "check and load ms": 1e3 * loaded}
        )
    return rows
