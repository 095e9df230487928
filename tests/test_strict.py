"""The settings that careful JAX projects switch on: no rank promotion, strict dtypes, and no NaN that is not meant."""

import jax
import numpy as np
import pytest

import mcloop
from mcloop import correctors, exact, regimes

FAMILIES = {
    "gaussian": exact.gaussian(2, 6),
    "gaussian, rows": exact.gaussian(2, 6, literal=True),
    "regression": exact.linear_regression(2, 6),
    "regression, joint": exact.linear_regression(2, 6, design="fresh", ridge=0.1),
    "categorical": exact.categorical(3, 6),
    "poisson": exact.poisson(n=6),
    "gamma": exact.gamma_family(n=6),
    "kde": exact.kde(1, 6),
    "mixture": exact.gaussian_mixture(2, 1, 6, 1),
    "student_t": exact.student_t(6),
}
LOOPS = {family: (model, regimes.accumulate(), None) for family, model in FAMILIES.items()} | {
    "replace": (FAMILIES["poisson"], regimes.replace(), None),
    "augment": (FAMILIES["poisson"], regimes.augment(0.5), correctors.mixture(1.0)),
    "fresh": (FAMILIES["poisson"], regimes.fresh(1.0, 1.0, 0.5), None),
    "window": (FAMILIES["poisson"], regimes.window(2), None),
    "temperature": (exact.bernoulli(n=6), regimes.augment(1.0), correctors.temperature(0.8)),
    "extrapolate": (FAMILIES["gaussian"], regimes.augment(1.0), correctors.extrapolate(0.5)),
    "verifier": (FAMILIES["categorical"], regimes.augment(1.0), correctors.verifier(keep=[0.9, 0.5, 0.5])),
    "best_of_k": (FAMILIES["kde"], regimes.augment(1.0), correctors.best_of_k(2, lambda x: x[:, 0])),
    "histogram": (FAMILIES["gaussian, rows"], regimes.augment(1.0), correctors.histogram(1.0)),
}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        yield


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_runs_under_strict_settings(name):
    infos = mcloop.scan(mcloop.make_loop(*LOOPS[name]), jax.random.key(1), generations=2)[1]
    assert all(np.shape(x) == (2,) for x in infos.values())


def test_a_reduced_grid_runs_under_strict_settings():
    def make(lam):
        return mcloop.make_loop(exact.poisson(n=6), regimes.augment(lam))

    ds = mcloop.sweep(make, {"lam": [0.5, 1.0]}, seeds=5, generations=2, reduce=("mean", "sem", "median"))
    assert np.isfinite(ds["mean"]).all()
