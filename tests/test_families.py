"""The exact families against their laws, and the same replicas against the wrong law next door."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcloop
from mcloop import exact, regimes
from mcloop.drivers.scan import trajectory
from mcloop.laws import LAWS

R, G = 20_000, 4
FITS = np.arange(1, G + 1)
SHARES = np.array([0.5, 0.2, 0.2, 0.1])
H = 1 - (SHARES**2).sum()


def replicas(model, regime, count=R, seed=0, generations=G):
    """What a loop measures, each (generations, count)."""
    keys = jax.random.split(jax.random.key(seed), (1, count))
    infos = mcloop.scan(mcloop.make_loop(model, regime), keys, None, generations=generations)[1]
    return {name: np.asarray(x, np.float64).reshape(generations, -1) for name, x in infos.items()}


def z_scores(x, law):
    return (x.mean(1) - law) / (x.std(1, ddof=1) / np.sqrt(x.shape[1]))


CASES = {
    "L1": (exact.linear_regression(3, 12, 0.5), regimes.replace(), "test_error", (12, 3, 0.25), 1),
    "L2": (exact.linear_regression(3, 12, 0.5), regimes.accumulate(), "test_error", (12, 3, 0.25), 1),
    "L2b": (exact.linear_regression(3, 12, 0.5, "fresh"), regimes.accumulate(), "test_error", (12, 3, 0.25), 1),
    "D1": (exact.categorical(4, 6, SHARES), regimes.replace(), "heterozygosity", (6,), H),
    "D2": (exact.categorical(4, 6, SHARES), regimes.accumulate(), "heterozygosity", (6,), H),
    "M1": (exact.gamma_family(1.0, 2.0, 4), regimes.replace(), "variance_ratio", (4, 0.5), 1),
    "M2": (exact.bernoulli(0.3, 4), regimes.accumulate(), "variance_ratio", (4, -1.0), 1),
    "K1": (exact.kde(2, 5, 0.7), regimes.replace(), "second_moment", (0.7,), 1),
    "K2": (exact.kde(2, 5, 0.7), regimes.accumulate(), "second_moment", (0.7,), 1),
    "P1": (exact.gaussian_mixture(3, 2, 20, 3, 60.0), regimes.replace(), "heterozygosity", (20,), 2 / 3),
}


@pytest.mark.parametrize("law", CASES)
def test_law(law):
    model, regime, name, arguments, unit = CASES[law]
    seen = replicas(model, regime, 4_000 if law == "P1" else R)[name]
    assert abs(z_scores(seen, unit * LAWS[law].value(FITS, *arguments))).max() < 4
    assert abs(z_scores(seen, unit * LAWS[law].wrong(FITS, *arguments))).max() > 6


def test_ridge_at_the_last_fit():
    d, n, noise, ridge = 3, 12, 0.5, 0.3
    spectrum, signal = np.array([2.0, 1.0, 0.3]), np.array([1.0, -1.0, 2.0])
    model = exact.linear_regression(d, n, noise, "fresh", last_ridge=ridge, spectrum=spectrum, signal=signal)
    seen = replicas(model, regimes.replace(), generations=3)["ridge_test_error"]
    rows = np.random.default_rng(0).normal(size=(R, n, d)) * np.sqrt(spectrum)
    c = np.einsum("rni,rnj->rij", rows, rows) / n
    shrink = np.linalg.solve(c + ridge * np.eye(d), c)
    transfer = np.einsum("rji,j,rji,i->r", shrink, spectrum, shrink, 1 / spectrum)
    step = noise**2 * transfer.mean() / (n - d - 1)
    # LAWS["L3"] for a given design, averaged over designs; fit 1 is the clean ridge
    for g in (2, 3):
        extra = (seen[g - 1] - seen[0])[None]
        assert abs(z_scores(extra, (g - 1) * step)[0]) < 4
        assert abs(z_scores(extra, g * step)[0]) > 6


def test_poisson_keeps_the_mean_of_its_variance():
    seen = replicas(exact.poisson(2.0, 4), regimes.replace())
    assert abs(z_scores(seen["variance_ratio"], 1.0)).max() < 4
    # V(m) = m: the mean's error, m g / n, is what tells this family from the Gaussian's unit variance
    assert abs(z_scores(seen["mean_sq_error"], 2.0 * FITS / 4)).max() < 4
    assert abs(z_scores(seen["mean_sq_error"], 1.0 * FITS / 4)).max() > 6


def test_accumulating_never_loses_a_seen_token():
    seen = replicas(exact.categorical(12, 8, zipf=1.0), regimes.accumulate(), 200)
    assert (np.diff(seen["lost_mass"], axis=0) <= 0).all() and (np.diff(seen["distinct"], axis=0) >= 0).all()


def grid(make, n, lam, keys):
    loop = mcloop.make_loop(make(n), regimes.augment(lam))
    return trajectory(loop, keys, None, 3)[1]


@pytest.mark.parametrize(
    ("make", "sizes", "lams"),
    [
        (lambda n: exact.linear_regression(3, n), [8.0, 20.0], [1.0, 2.0]),
        (lambda n: exact.linear_regression(1, n, design="fresh", ridge=0.1 / n), [8.0, 20.0], [0.5, 1.5]),
        (lambda n: exact.categorical(5, n), [6.0, 30.0], [0.5, 1.5]),
        (lambda n: exact.kde(2, n, 1 / n, capacity=40), [6.0, 20.0], [0.5, 1.5]),
    ],
    ids=["regression", "fresh", "categorical", "kde"],
)
def test_a_cell_of_a_grid_is_that_cell_alone(make, sizes, lams):
    keys = jax.random.split(jax.random.key(7), 3)
    run = jax.jit(lambda n, lam, keys: grid(make, n, lam, keys))
    column = (jnp.array(sizes)[:, None], jnp.array(lams)[:, None])
    together = run(*column, keys[None])
    one = run(column[0][1:, :], column[1][1:, :], keys[None, 2:])
    for name, x in together.items():
        x = np.broadcast_to(x, (3, 2, 3))[:, 1, 2]
        np.testing.assert_allclose(x, np.asarray(one[name]).reshape(3), rtol=1e-5, atol=1e-6)


EXPORTED = {
    "bidiagonal": exact.linear_regression(3, 8),
    "wide ridge": exact.linear_regression(20, 40, ridge=0.1),
    "fresh": exact.linear_regression(3, 8, design="fresh", last_ridge=0.1),
    "rows": exact.linear_regression(3, 8, design="fresh", literal=True),
    "categorical": exact.categorical(5, 8),
    "tokens": exact.categorical(5, 8, literal=True),
    "bernoulli": exact.bernoulli(n=8),
    "poisson": exact.poisson(n=8),
    "gamma": exact.gamma_family(n=8),
    "kde": exact.kde(2, 8),
    "mixture": exact.gaussian_mixture(3, 2, 8, 2, covariance="full"),
}


@pytest.mark.parametrize("family", EXPORTED)
def test_it_lowers_for_accelerators_that_are_not_here(family):
    loop = mcloop.make_loop(EXPORTED[family], regimes.accumulate())
    words = jax.random.key_data(jax.random.split(jax.random.key(0), (1, 8)))

    def run(words):
        keys = jax.random.wrap_key_data(words)
        one = lambda key: trajectory(loop, key, None, 4)[1]  # noqa: E731
        return one(keys) if loop.batched else jax.vmap(jax.vmap(one))(keys)

    assert len(jax.export.export(jax.jit(run), platforms=["tpu", "cuda"])(words).platforms) == 2
