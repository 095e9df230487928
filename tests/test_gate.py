"""The verdict on a first fit: right for models that learned and for models that did not, at every seed."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from mcloop import make_loop, random, regimes, train
from mcloop.data.toys import Toy
from mcloop.drivers.scan import scan
from mcloop.experiment import Accept, Experiment, Size
from mcloop.experiment.simulate import UNFINISHED, annotated
from mcloop.metrics import modes
from mcloop.metrics.wasserstein import sliced_w2
from mcloop.models.compiled import compiled_model
from mcloop.models.training import cosine, training
from mcloop.nets.network import Variables
from mcloop.report.gate import judge
from mcloop.types import Learner

TOY = Toy(
    name="a normal distribution",
    sample=lambda key, n: random.normal(random.as_key(key), (n, 2)),
    log_prob=lambda x: -0.5 * (x**2).sum(1) - jnp.log(2 * jnp.pi),
    modes=None,
    std=1.0,
    shift=np.zeros(2, np.float32),
    scale=1.0,
    box=(-4.0, 4.0, -4.0, 4.0),
    entropy=None,
)
ACCEPT = {"sliced_w2": Accept(1.2, 2.0, floors=True), "high_quality": Accept(0.95, 0.8, settled=0.05)}


def experiment(**fields):
    declared = {"make": lambda lam: None, "grid": {"lam": [0.0]}, "sizes": {"small": Size(2, 3)}, "gate": ACCEPT}
    return Experiment(**{**declared, "measure": ("sliced_w2",), "neural": True, **fields})


def measured(first, later=None, half=None, finer=None, floor=0.3, lam=(0.0, 1.0)):
    """A run of two cells by its headline alone: means at generation 1 and after it, and what else was seen of the first fit."""
    later = first if later is None else later
    y = np.full((len(lam), 3, 4), later, np.float32)
    y[..., 0] = first
    ratio = np.broadcast_to(np.asarray(lam, np.float32)[:, None, None], y.shape)
    ds = xr.Dataset(
        {
            "sliced_w2": (("lam", "seed", "generation"), y, {"floor": floor}),
            "effective_lam": (("lam", "seed", "generation"), ratio),
        },
        {"lam": list(lam), "seed": np.arange(3), "generation": np.arange(1, 5)},
    )
    for kind, value in (("half", half), ("finer", finer)):
        if value is not None:
            ds[f"first_fit_{kind}_sliced_w2"] = (("lam", "seed"), np.full((len(lam), 3), value, np.float32))
    return ds


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        ({"first": 0.33}, "good"),
        ({"first": 0.33, "half": 0.36, "finer": 0.32}, "good"),
        ({"first": 0.5}, "usable"),
        ({"first": 0.7}, "underfitted"),
        # whatever the value, a fit that was still getting better is not finished
        ({"first": 0.33, "half": 0.5}, "usable"),
        ({"first": 0.35, "finer": 0.25}, "usable"),
        ({"first": 0.35, "later": 0.33}, "good"),
        ({"first": 0.55, "later": 0.32}, "underfitted"),
    ],
)
def test_limits_and_unfinished_fits(seen, level):
    (found,) = judge(measured(**seen), experiment(gate={"sliced_w2": ACCEPT["sliced_w2"]}))
    assert found.level == level, found.sentence
    assert found.sentence.startswith("**First fit: " + level)
    assert ("do not read collapse from this run" in found.sentence) == (level == "underfitted")
    assert len(found.cells) == 2  # the same first fit


def test_the_chance_of_a_draw_makes_no_verdict_worse():
    ds = measured(0.4)
    known = experiment(gate={"sliced_w2": ACCEPT["sliced_w2"]})
    assert [v.level for v in judge(ds, known)] == ["usable"]
    ds["sliced_w2"].attrs["floor_spread"] = 0.05  # +- .058 over three seeds; the limit is .36
    assert [v.level for v in judge(ds, known)] == ["good"]
    # nor do differences between draws: .4 and .31 are 1.1 of their standard errors apart, and .2 is far off
    for half, level in ((0.5, "good"), (0.7, "usable")):
        ds["first_fit_half_sliced_w2"] = (("lam", "seed"), np.full((2, 3), half))
        assert [v.level for v in judge(ds, known)] == [level]


def test_shares_are_better_the_larger_they_are_and_closed_forms_have_no_verdict():
    ds = measured(0.33)
    for share, level in ((0.97, "good"), (0.9, "usable"), (0.5, "underfitted")):
        ds["high_quality"] = xr.full_like(ds["sliced_w2"], share)
        assert [v.level for v in judge(ds, experiment())] == [level]
    assert judge(ds, experiment(neural=False)) == []


def test_without_limits_real_data_are_the_measure():
    assert [v.level for v in judge(measured(0.4), experiment(gate={}))] == ["good"]
    assert [v.level for v in judge(measured(1.2), experiment(gate={}))] == ["underfitted"]


def test_first_fits_that_differ_are_judged_apart():
    ds = measured(0.33)
    ds["sliced_w2"][1] *= 4
    good, bad = judge(ds, experiment(gate={}))
    assert (good.level, bad.level) == ("good", "underfitted")
    assert bad.cells == [{"lam": 1.0}] and "First fit, lam 1" in bad.sentence


def normal_model(steps, **options):
    """A Gaussian of the plane fitted by gradient descent, from a start that is far off: a network of four numbers."""

    def log_prob(variables, points):
        mean, log_std = variables.params["mean"], variables.params["log_std"]
        return (-0.5 * ((points - mean) / jnp.exp(log_std)) ** 2 - log_std).sum(1) - jnp.log(2 * jnp.pi)

    def sample(key, variables, count, label=None):
        mean, log_std = variables.params["mean"], variables.params["log_std"]
        return mean + jnp.exp(log_std) * random.normal(key, (count, 2))

    start = Variables({"mean": jnp.full(2, 3.0), "log_std": jnp.full(2, 1.0)}, {})
    learner = Learner(
        "normal",
        lambda key: start,
        lambda key, variables, points: (-log_prob(variables, points).mean(), {}),
        sample,
        lambda variables, points: log_prob(variables, points)[:, None],
        log_prob,
    )
    test = TOY.sample(jax.random.key(9), 2000)

    def evaluate(points, variables):
        good = modes.density_quality(TOY.log_prob(points), -8.0)  # within 3.5 standard deviations
        return {"sliced_w2": sliced_w2(jax.random.key(1), points, test), "high_quality": good}

    spec = training(steps, 2, rate=cosine(0.1, 1e-3), later_rate=1e-3, batch=64)
    return compiled_model(learner, spec, TOY, 4000, capacity=4000, evaluate=evaluate, gate=True, **options)


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Models trained for too short a time and for long enough, three seeds of each."""
    found = {}
    for name, steps in (("underfitted", 15), ("good", 600)):
        model, told = normal_model(steps), []

        def judged(first, told=told):
            told.append(first)
            return ["one line"]

        folder = tmp_path_factory.mktemp(name)
        make = partial(lambda model, lam: make_loop(model, regimes.augment(lam)), model)
        ds = train(make, {"lam": [0.0]}, 3, 2, folder=folder, progress=True, judge=judged)
        ds["sliced_w2"].attrs["floor"] = 0.045
        found[name] = ds, told
    return found


@pytest.mark.parametrize("level", ["underfitted", "good"])
def test_every_seed_gets_the_right_verdict(fits, level):
    ds, told = fits[level]
    floors = Accept(4.0, 8.0, floors=True, settled=1.0)  # one seed alone scatters by its own size
    known = experiment(gate={"sliced_w2": floors, "high_quality": ACCEPT["high_quality"]})
    for seed in range(3):
        (verdict,) = judge(ds.isel(seed=[seed]), known)
        assert verdict.level == level, verdict.sentence
    # and as soon as there is a generation 1
    assert [first.sizes["generation"] for first in told] == [1]
    np.testing.assert_array_equal(told[0].sliced_w2.values[..., 0], ds.sliced_w2.values[..., 0])


def test_what_is_seen_of_a_first_fit(fits):
    ds, _ = fits["good"]
    half, first = ds.first_fit_half_sliced_w2, ds.sliced_w2.isel(generation=0)
    assert half.dims == ("lam", "seed") and np.isfinite(half).all()
    assert not np.array_equal(half, first)
    assert "half the steps" in half.attrs["long_name"]
    assert "first_fit_finer_sliced_w2" not in ds  # it is drawn in one pass
    assert np.isfinite(ds.first_fit_loss_slope).all()
    # what a fit says of itself is known of the first one too
    assert np.isfinite(ds.loss).all()
    # the loss of a fit that ends too early is still moving
    short, _ = fits["underfitted"]
    assert abs(short.first_fit_loss_slope).mean() > 3 * abs(ds.first_fit_loss_slope).mean()


def test_a_run_says_its_verdict_in_the_data_and_in_words(fits):
    ds, _ = fits["underfitted"]

    class Settings:
        size, grid, name, data = "small", {"lam": [0.0]}, "moons", None

    known = experiment(annotate=lambda ds, options: ds)
    whole = annotated(ds.assign_attrs({UNFINISHED: 1}), known, Settings)
    assert whole.first_fit_verdict.values.tolist() == ["underfitted"]
    assert re.search("First fit: underfitted", whole.attrs["first_fit"][0])


def test_a_judge_that_fails_says_so_and_costs_nothing(tmp_path, capsys):
    def broken(first):
        raise ValueError("no floor")

    model = normal_model(5, reference=False)
    ds = train(
        lambda lam: make_loop(model, regimes.augment(lam)), {"lam": [0.0]}, 1, 2, folder=tmp_path, progress=True, judge=broken
    )
    assert np.isfinite(ds.sliced_w2).all()
    assert "could not be judged (ValueError: no floor)" in capsys.readouterr().err


def test_a_scan_knows_the_loss_of_its_first_fit():
    model = normal_model(20, reference=False)
    _, seen = scan(make_loop(model, regimes.augment(0.5)), jax.random.key(0), generations=2)
    assert np.isfinite(seen["loss"]).all() and not any(name.startswith("first_fit") for name in seen)


def test_a_report_judges_by_what_its_config_accepts_today():
    from mcloop.experiment.config import Settings
    from mcloop.experiment.drawing import sound

    settings = Settings("moons", "small", 3, 4, 0, {"lam": [0.0, 1.0]}, None)
    stale = measured(0.5).assign_attrs(first_fit=["**First fit: good.** as it was judged before"])
    ds, _ = sound(stale, experiment(gate={"sliced_w2": ACCEPT["sliced_w2"]}), settings)
    assert [said.split(".")[0] for said in ds.attrs["first_fit"]] == ["**First fit: usable"]
