"""Toy models in loops: every family runs, side by side, is measured against known laws, and lowers for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mcloop import make_loop, regimes
from mcloop.data.toys import eight_gaussians, two_moons
from mcloop.drivers.scan import first_generation
from mcloop.errors import InputError
from mcloop.models.training import Budget, cosine, training
from mcloop.studies.toys import FAMILIES, annotate, floor, learner, toy_model

TOYS = {"eight_gaussians": eight_gaussians(), "two_moons": two_moons()}
SPEC = training(3, 2, rate=cosine(1e-3), batch=16, ema=0.9)


def model(family, toy=TOYS["eight_gaussians"], spec=SPEC, n=32, **options):
    return toy_model(family, toy, spec, n, capacity=n, width=8, samples=32, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_grid_of_networks_is_one_program_for_any_accelerator(family):
    chosen = model(family)

    def both(key, lam):
        loop = make_loop(chosen, regimes.augment(lam))
        state, first = first_generation(loop, key, None, 3, lambda s: loop.generation(key, s))
        return first, loop.generation(key, state)[1]

    grid = jax.jit(jax.vmap(jax.vmap(both, (None, 0)), (0, None)))
    keys, lam = jax.random.split(jax.random.key(0), 2), jnp.float32([0.0, 1.0, jnp.inf])
    lowered = export.export(grid, platforms=["tpu", "cuda"])(keys, lam)
    first, second = lowered.out_avals, jax.tree.unflatten(lowered.out_tree, lowered.out_avals)[1]
    assert first and second["sliced_w2"].shape == (2, 3) and second["density"].shape == (2, 3, 48, 48)
    assert {"mmd2", "high_quality", "mode_coverage", "param_distance", "field_distance", "loss"} <= set(second)
    assert ("nll" in second) == (family == "flow")


def test_a_flow_learns_and_never_beats_the_entropy():
    toy = TOYS["two_moons"]
    spec = training(250, 60, rate=cosine(5e-3), batch=128)
    loop = make_loop(toy_model("flow", toy, spec, 2000, capacity=2000, width=32), regimes.augment(0.5))

    def run(key):
        state, first = first_generation(loop, key, None, 2, lambda s: loop.generation(key, s))
        return first, loop.generation(key, state)[1]

    first, second = jax.jit(run)(jax.random.key(0))
    best = floor(toy)
    for seen in (first, second):
        # a density's mean log-likelihood on the same points: the truth's own, less a divergence
        assert best["nll"] < seen["nll"] < best["nll"] + 0.35
        assert seen["sliced_w2"] < 4 * best["sliced_w2"] and seen["high_quality"] > 0.9
        assert 0 < seen["param_distance"] < 1 and seen["field_distance"] < 2


def test_what_true_points_score():
    best = floor(TOYS["eight_gaussians"], 1000, repeats=32)
    # the mass of a plane Gaussian within three standard deviations
    law = 1 - np.exp(-4.5)
    assert abs(best["high_quality"] - law) < 4 * np.sqrt(law * (1 - law) / 32_000)
    assert best["mode_coverage"] == 1 and 0.1 < best["sliced_w2"] < 0.6
    # unbiased: around zero
    assert abs(best["mmd2"]) < 5e-3
    moons = floor(TOYS["two_moons"], 1000, repeats=8)
    assert abs(moons["high_quality"] - 0.999) < 4 * np.sqrt(0.001 / 8000) + 5e-4


def test_the_dataset_says_what_it_must(tmp_path):
    from mcloop import train

    toy = TOYS["eight_gaussians"]
    chosen = model("flow")
    ds = train(lambda lam: make_loop(chosen, regimes.augment(lam)), {"lam": [0.0, 1.0]}, 2, 2, folder=tmp_path)
    ds = annotate(ds, toy, 32)
    assert ds.density.dims == ("lam", "generation", "y", "x") and ds.density.attrs["box"] == list(toy.box)
    area = (14 / 48) ** 2
    assert float(ds.real_density.sum()) * area == pytest.approx(1.0, abs=1e-3)
    # the first axis of a picture goes from bottom to top
    moons = annotate(ds, TOYS["two_moons"], 32).real_density.values
    rows = np.linspace(-5.5, 5.0, 48) @ moons.sum(1) / moons.sum()
    assert rows == pytest.approx(TOYS["two_moons"].shift[1], abs=0.15)
    assert "theta* is trained as long as generation 1" in ds.attrs["evaluation"]


def test_refusals():
    with pytest.raises(InputError, match="family must be one of ddpm, edm, ot_cfm, flow, not 'gan'"):
        learner("gan", TOYS["two_moons"])
    with pytest.raises(InputError, match="first must be a number of steps for a loop that is compiled whole"):
        model("edm", spec=training(Budget(epochs=1), 1))
