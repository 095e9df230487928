"""Loops run twice, a little apart: their gap, the black box that scales it back, and networks refitted to their optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import hosted_maker

from mcloop import correctors, exact, random, regimes
from mcloop.certificates.blackbox import blackbox_rate
from mcloop.certificates.certificate import certificate
from mcloop.certificates.twins import along, gap_twins
from mcloop.data.toys import two_moons
from mcloop.drivers.scan import scan
from mcloop.drivers.sweep import sweep
from mcloop.loop import make_loop
from mcloop.memory.rows import Rows
from mcloop.models.compiled import compiled_model
from mcloop.models.optimum import Reference, optimum, optimum_model
from mcloop.models.training import training
from mcloop.nets.features import random_features
from mcloop.nets.network import Variables
from mcloop.studies.certificates import population
from mcloop.studies.toys import learner

KEY = jax.random.key(8)


# Twins


def mean_gap(loop, keys, generations=5, step=0.1):
    pair = gap_twins(loop, *along(jnp.ones(1), jnp.ones(1), step))
    return np.asarray(scan(pair, keys, generations=generations)[1]["gap"])


@pytest.mark.parametrize("lam", [0.5, 3.0])
def test_the_gap_of_a_mean_shrinks_by_the_rate_in_every_run(walker, lam):
    """Noise that does not depend on the mean is the same in both, and nothing of it is left in the gap."""
    loop = make_loop(walker(8), regimes.augment(lam))
    gap = mean_gap(loop, jax.random.split(KEY, 20))
    assert gap.shape == (5, 20)
    wanted = (lam / (1 + lam)) ** np.arange(5)
    np.testing.assert_allclose(gap, np.broadcast_to(wanted[:, None], gap.shape), rtol=1e-4)
    # without common random numbers the gap is noise
    means = scan(loop, jax.random.split(KEY, 20), generations=5)[1]["fitted"]
    assert np.std(np.asarray(means)[-1]) > 0.1


def test_a_correctors_share_shrinks_it_further():
    loop = make_loop(exact.gaussian(d=1, n=50_000), regimes.augment(2.0), correctors.mixture(1.0))
    pair = gap_twins(
        loop,
        lambda p: tuple(p._replace(mean=p.mean + sign * 0.1) for sign in (1, -1)),
        lambda a, b: {"gap": (a.mean - b.mean)[0] / 0.2},
    )
    gap = np.asarray(scan(pair, jax.random.split(KEY, 50), generations=4)[1]["gap"]).mean(1)
    np.testing.assert_allclose(gap, (2 / 3 / 2) ** np.arange(4), rtol=5e-3)


def test_twins_of_one_point_stay_one():
    loop = make_loop(exact.gaussian(d=2, n=10), regimes.augment(1.0))
    pair = gap_twins(
        loop, lambda p: (p, p), lambda a, b: {"gap": jnp.abs(a.root - b.root).max() + jnp.abs(a.mean - b.mean).max()}
    )
    state, seen = scan(pair, KEY, generations=4)
    assert np.all(np.asarray(seen["gap"]) == 0)
    alone = scan(loop, KEY, generations=4)[0]
    np.testing.assert_allclose(state.params.mean[1], alone.params.mean, rtol=1e-5, atol=1e-6)


# The black box


def test_the_black_box_finds_the_rate_of_a_gaussian():
    model = exact.gaussian(d=1, n=10**6)
    found = blackbox_rate(make_loop(model, regimes.augment(2.0)), KEY, 8)
    assert found.parameters.shape == found.samples.shape == (7,)
    assert abs(found.rate / (2 / 3) - 1) < 0.02 and abs(found.sample_rate / (2 / 3) - 1) < 0.1
    corrected = blackbox_rate(make_loop(model, regimes.augment(2.0), correctors.mixture(1.0)), KEY, 8)
    assert abs(corrected.rate / (1 / 3) - 1) < 0.03
    neutral = blackbox_rate(make_loop(model, regimes.replace()), KEY, 8)
    assert abs(neutral.rate - 1) < 0.01
    assert blackbox_rate(make_loop(model, regimes.baseline()), KEY, 8).rate < 1e-6


def test_the_black_box_sees_a_boundary():
    """A sampler that widens by s: lam s^2/(1 + lam) along the variance, which is above one past 1/(s^2 - 1)."""
    s, lam = 1.6, 0.9

    def widened(key, model, params, truth, count):
        return model.sample(key, params._replace(root=s * params.root), count)

    loop = make_loop(exact.gaussian(d=1, n=10**6), regimes.augment(lam), correctors.none()._replace(sample=widened))
    found = blackbox_rate(loop, KEY, 12)
    # the deviation's own rate on the way: d sd'/d sd = lam s^2 sd/((1 + lam) sd')
    assert found.rate > 1 > lam / (1 + lam)
    np.testing.assert_allclose(found.rate, np.sqrt(lam * s**2 / (1 + lam)), rtol=0.05)


def test_the_black_box_runs_networks():
    toy = two_moons()
    model = compiled_model(learner("ot_cfm", toy, 8), training(3, 2, batch=16), toy, 32, capacity=32, reference=False)
    found = blackbox_rate(make_loop(model, regimes.augment(0.5)), KEY, 3, points=32)
    for factors in found[:2]:
        assert factors.shape == (2,) and np.all(np.isfinite(factors)) and np.all(factors > 0)
    # two short steps leave most of a warm-started network's parameters where they were
    assert abs(found.rate - 1) < 0.1


def test_the_black_box_runs_hosted_models():
    loop = hosted_maker()("augment")
    found = blackbox_rate(loop, KEY, 3, points=16)
    for factors in found[:2]:
        assert factors.shape == (2,) and np.all(np.isfinite(factors)) and np.all(factors > 0)


def test_what_the_black_box_refuses(refused):
    loop = make_loop(exact.gaussian(d=1, n=10), regimes.augment(1.0))
    for generations in (1, 2.0):
        with refused("generations must be a whole number >= 2"):
            blackbox_rate(loop, KEY, generations)
    for step in (0.0, -1.0, np.nan, np.inf):
        with refused("step must be a finite number > 0"):
            blackbox_rate(loop, KEY, 3, step=step)
    with refused("step must be larger"):
        blackbox_rate(loop, KEY, 3, step=1e-12)


# Networks refitted to their optimum


class Line:
    """Points (x, y) with y = sin 2x + noise."""

    name = "line"

    @staticmethod
    def sample(key, count):
        x, noise = random.normal(random.as_key(key), (2, count))
        return jnp.stack([x, jnp.sin(2 * x) + 0.3 * noise], 1)


NETWORK = random_features(1, width=5, seed=1)


def start():
    return NETWORK.init(jax.random.key(0)).params


def apply(params, x):
    # a second input that is not constant, or features would be told twice
    return NETWORK.apply(Variables(params, {}), x[:, None], jnp.cos(3 * x))[0][:, 0]


def risk(key, params, points, weight):
    return 0.5 * weight @ (apply(params, points[:, 0]) - points[:, 1]) ** 2


def draw(key, params, count):
    x, noise = random.normal(random.as_key(key), (2, count))
    return jnp.stack([x, 1.1 * apply(params, x) + 0.3 * noise], 1)


def family(n, ridge, reference=None, **options):
    best = optimum(start(), risk, Line, ridge) if reference is None else reference
    return optimum_model("line", start(), best, risk, draw, Line, n, capacity=2 * n, ridge=ridge, **options)


def features(x):
    eye = {"out": jnp.eye(len(start()["out"]))}
    return np.asarray(NETWORK.apply(Variables(eye, {}), x[:, None], jnp.cos(3 * x))[0], float)


@pytest.mark.parametrize("ridge", [0.0, 0.4])
def test_a_refit_of_the_last_layer_is_least_squares(ridge):
    size = len(start()["out"])
    centre = jnp.linspace(-1, 1, size)
    model = family(100, ridge, Reference(jnp.zeros(size), centre), steps=1)
    points = Line.sample(KEY, 90)
    weight = jnp.float32(np.random.default_rng(0).integers(0, 3, 90))
    real = weight * (jnp.arange(90) < 40)
    found, _ = model.fit(KEY, jnp.ones(size), Rows(points, weight, real))
    share = float(real.sum() / weight.sum())
    x, y = features(points[:, 0]), np.asarray(points[:, 1], float)
    root = np.sqrt(np.asarray(weight, float) / float(weight.sum()))
    # the ridge is so many points more, one a parameter, each worth its share
    extra = np.sqrt(share * ridge)
    rows = np.concatenate([root[:, None] * x, extra * np.eye(size)])
    wanted = np.linalg.lstsq(rows, np.concatenate([root * y, extra * np.asarray(centre)]), rcond=None)[0]
    np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=5e-3)
    if ridge:
        rows[90:] *= 1 / np.sqrt(share)  # the ridge of all points, and not of the real ones
        other = np.linalg.lstsq(rows, np.concatenate([root * y, np.sqrt(ridge) * np.asarray(centre)]), rcond=None)[0]
        assert np.abs(other - wanted).max() > 0.02


@pytest.mark.parametrize("ridge", [0.0, 0.4])
def test_the_optimum_stays_where_it_is_under_the_ridge(ridge):
    best = optimum(start(), risk, Line, ridge)
    points = Line.sample(random.fold_in(random.as_key(jax.random.key(0)), 0), 2**13)
    weight = jnp.full(2**13, 2.0**-13)
    force = jax.grad(lambda t: risk(None, {"out": t[:, None]}, points, weight))(best.params)
    assert np.abs(force + ridge * (best.params - best.centre)).max() < 1e-4
    residual = features(points[:, 0]) @ np.asarray(best.params) - np.asarray(points[:, 1])
    assert np.mean(residual**2) < 0.15 < 0.5 * np.var(np.asarray(points[:, 1]))


def test_what_cannot_be_refitted_is_refused(refused):
    with refused("start must have at most 600 parameters", "not 601"):
        optimum(jnp.zeros(601), risk, Line, 0.0)
    for ridge in (-1.0, np.nan, np.inf):
        with refused("ridge must be a finite number >= 0"):
            optimum(start(), risk, Line, ridge)


def test_networks_contract_as_their_certificate_says():
    """A sampler that overshoots by a tenth: the rate is 1.1 lam/(1 + lam) but for the ridge, and the twins' on average."""
    best = optimum(start(), risk, Line, 0.1)
    problem = population(start(), best, risk, draw, Line, 2**15)
    sure = certificate(problem, 1.0, damping=0.1, settle=False)
    model = family(2000, 0.1, best, steps=1)

    def make(lam):
        return gap_twins(make_loop(model, regimes.augment(lam)), *along(sure.direction, sure.direction, 0.5))

    ds = sweep(make, {"lam": [1.0]}, seeds=200, generations=2)
    gap = ds["gap"].sel(generation=2).values.ravel()
    np.testing.assert_allclose(ds["gap"].sel(generation=1), 1, atol=1e-4)
    assert abs(gap.mean() / sure.rate - 1) < 0.02
    # an exact sampler's rate is none of it
    assert abs(gap.mean() / (sure.rate / 1.1) - 1) > 0.05
    np.testing.assert_allclose(ds["effective_lam"].sel(generation=2), 1)
