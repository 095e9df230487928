"""The settings that careful JAX projects switch on: no rank promotion, strict dtypes, and no NaN that is not meant."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcloop
from mcloop import correctors, exact, regimes

ROWS = exact.gaussian(2, 6, literal=True, capacity=12)
FAMILIES = {
    "gaussian": exact.gaussian(2, 6),
    "gaussian, rows": ROWS,
    "linear_regression": exact.linear_regression(2, 6),
    "linear_regression, same": exact.linear_regression(2, 6, design="same"),
    "linear_regression, fresh": exact.linear_regression(2, 6, design="fresh", ridge=0.1),
    "linear_regression, rows": exact.linear_regression(2, 6, literal=True),
    "categorical": exact.categorical(3, 6),
    "bernoulli": exact.bernoulli(n=6),
    "poisson": exact.poisson(n=6),
    "gamma_family": exact.gamma_family(n=6),
    "kde": exact.kde(1, 6),
    "gaussian_mixture": exact.gaussian_mixture(2, 1, 6, 1),
    "student_t": exact.student_t(6),
}
REGIMES = {
    "baseline": regimes.baseline(),
    "replace": regimes.replace(),
    "replace_multiple": regimes.replace_multiple(),
    "accumulate": regimes.accumulate(),
    "accumulate_subsample": regimes.accumulate_subsample(),
    "augment": regimes.augment(0.5),
    "augment, inf": regimes.augment(np.inf),
    "fresh": regimes.fresh(),
    "fresh, weighed": regimes.fresh(1.0, 1.0, 0.5),
    "window": regimes.window(2),
}
CORRECTORS = {
    "none": (FAMILIES["gaussian"], correctors.none()),
    "pointwise": (ROWS, correctors.pointwise(lambda key, batch, params: batch)),
    "mixture": (FAMILIES["poisson"], correctors.mixture(1.0)),
    "mixture, rows, inf": (ROWS, correctors.mixture(np.inf)),
    "temperature": (FAMILIES["bernoulli"], correctors.temperature(0.8)),
    "extrapolate": (FAMILIES["gaussian"], correctors.extrapolate(0.5)),
    "verifier": (FAMILIES["gaussian"], correctors.verifier([0.0, 1.0], 1.0)),
    "verifier, labels": (FAMILIES["categorical"], correctors.verifier(keep=[0.9, 0.5, 0.5])),
    "best_of_k": (FAMILIES["kde"], correctors.best_of_k(2, lambda x: x[:, 0])),
    "histogram": (ROWS, correctors.histogram(1.0)),
    "histogram, released": (ROWS, correctors.histogram(1.0, released=True)),
}
# a part of a re-used design has rows of its own, of which a warning speaks
PART = pytest.mark.filterwarnings("ignore:.*of its own:UserWarning")
LOOPS = (
    {f"family: {name}": (model, regimes.accumulate(), None) for name, model in FAMILIES.items()}
    | {f"regime: {name}": (ROWS, regime, None) for name, regime in REGIMES.items()}
    | {f"corrector: {name}": (model, regimes.augment(1.0), corrector) for name, (model, corrector) in CORRECTORS.items()}
    | {"part of a design": (FAMILIES["linear_regression"], regimes.augment(0.5), None)}
)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        yield


def test_every_part_is_here():
    def parts(table):
        return {name.split(",")[0] for name in table}

    assert parts(FAMILIES) == {name for name in exact.__all__ if name.lower() != "normal"}
    own = {n for n, f in vars(regimes).items() if getattr(f, "__module__", "") == regimes.__name__ and not n.startswith("_")}
    assert parts(REGIMES) == own - {"check_room", "lam_of"}
    assert parts(CORRECTORS) | {"nearest_centroid", "fit_centroids"} == set(correctors.__all__)


@PART
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_runs_under_strict_settings(name):
    infos = mcloop.scan(mcloop.make_loop(*LOOPS[name]), jax.random.key(1), generations=2)[1]
    assert all(np.shape(x) == (2,) for x in infos.values())


@PART
@pytest.mark.parametrize("name", LOOPS)
def test_a_generation_runs_under_strict_settings_uncompiled(name):
    """What a compiled program takes out again is seen here: every operation answers for its own NaN."""
    loop, key = mcloop.make_loop(*LOOPS[name]), jax.random.key(1)
    state, seen = loop.generation(key, loop.init(key, None, 2))
    assert state.t == 2 and seen


def test_nearest_centroids_move_under_strict_settings():
    images, labels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1), np.array([0, 1, 0, 1])
    centroids = correctors.fit_centroids(images, labels, 1, classes=2)
    points = {"x": jnp.asarray(images), "label": jnp.asarray(labels)}
    model = SimpleNamespace(sample=lambda key, params, count: points)
    moved = correctors.nearest_centroid(centroids, 1.0).sample(jax.random.key(0), model, None, None, 4)
    assert moved["x"].shape == images.shape and moved["x"].dtype == jnp.uint8


def test_a_reduced_grid_runs_under_strict_settings():
    def make(lam):
        return mcloop.make_loop(exact.poisson(n=6), regimes.augment(lam))

    ds = mcloop.sweep(make, {"lam": [0.5, 1.0]}, seeds=5, generations=2, reduce=("mean", "sem", "median"))
    assert np.isfinite(ds["mean"]).all()
