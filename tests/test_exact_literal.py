"""The exact families against their literal twins, against other libraries, and against input that cannot be used."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mcloop
from mcloop import correctors, exact, regimes
from mcloop.exact import factors
from mcloop.exact.design import draw_bands, squared_solution
from mcloop.exact.gram import Gram
from mcloop.exact.mixture import log_density
from mcloop.memory.rows import rows

R = 4_000
KEY = jax.random.key(0)


def run(model, regime, seed, count=R, real=None, generations=3, corrector=None):
    keys = jax.random.split(jax.random.key(seed), (1, count))
    infos = mcloop.scan(mcloop.make_loop(model, regime, corrector), keys, real, generations=generations)[1]
    return {name: np.asarray(x).reshape(generations, -1) for name, x in infos.items()}


SHARES = np.array([0.5, 0.2, 0.2, 0.1])
ROOMY = {"literal": True, "capacity": 24}
TILTED = {"spectrum": np.array([2.0, 1.0, 0.3]), "signal": np.array([1.0, -1.0, 2.0])}
TWINS = {
    "same design": (lambda **kw: exact.linear_regression(3, 12, 0.5, **kw), regimes.augment(2.0), "test_error"),
    "fresh design": (lambda **kw: exact.linear_regression(3, 12, 0.5, "fresh", **kw), regimes.augment(0.5), "test_error"),
    "ridge": (lambda **kw: exact.linear_regression(3, 12, ridge=0.3, **TILTED, **kw), regimes.replace(), "test_error"),
    "categorical": (lambda **kw: exact.categorical(4, 6, SHARES, **kw), regimes.augment(1.5), "heterozygosity"),
    "poisson": (lambda **kw: exact.poisson(3.0, 6, **kw), regimes.accumulate(), "mean"),
    "gamma": (lambda **kw: exact.gamma_family(1.0, 0.5, 6, **kw), regimes.fresh(), "mean"),
}


@pytest.mark.parametrize("family", TWINS)
def test_statistics_have_the_law_of_rows(family):
    make, regime, name = TWINS[family]
    a, b = run(make(), regime, 1)[name], run(make(**ROOMY), regime, 2)[name]
    for i in (0, 2):
        assert stats.ks_2samp(a[i].round(5), b[i].round(5)).pvalue > 1e-4
    # the joint law of two generations, not only the margins
    assert stats.ks_2samp((a[2] - a[0]).round(5), (b[2] - b[0]).round(5)).pvalue > 1e-4
    assert stats.ks_2samp(a[0].round(5), b[2].round(5)).pvalue < 1e-4


def test_a_bidiagonal_factor_stands_for_a_whole_design():
    n, d = 9, 4
    rng = np.random.default_rng(0)
    x, s = rng.normal(size=(R, n, d)), rng.normal(size=(2, R, d))
    triangle = np.linalg.qr(x, mode="r")
    full = [(np.linalg.solve(triangle, v[..., None]) ** 2).sum((1, 2)) for v in (s[0], s.sum(0))]
    keys = jax.random.split(KEY, R)
    bands = draw_bands(keys, d, n)
    quick = [np.asarray(squared_solution(bands, jnp.float32(v.T))) for v in (s[0], s.sum(0))]
    for a, b in (*zip(full, quick, strict=True), (full[1] - full[0], quick[1] - quick[0])):
        assert stats.ks_2samp(a, b).pvalue > 1e-4
    # one cell, written out
    inverse, ratio = (np.asarray(b[:, 5], np.float64) for b in bands)
    matrix = np.diag(1 / inverse) + np.diag((ratio / inverse)[:-1], 1)
    np.testing.assert_allclose(quick[0][5], (np.linalg.solve(matrix, s[0, 5]) ** 2).sum(), rtol=1e-4)
    assert ratio[-1] == 0


def literal_data(model, seed, count):
    return model.sample(jax.random.key(seed), model.observe(KEY, None)[1], count)


def test_merged_statistics_are_those_of_all_the_rows():
    model = exact.linear_regression(3, 12, design="fresh", **TILTED, **ROOMY)
    exactly = exact.linear_regression(3, 12, design="fresh", **TILTED)
    a, b = literal_data(model, 1, 12), literal_data(model, 2, 5)

    def gram(*parts):
        joint = np.concatenate([np.concatenate([p.values[0], p.values[1][:, None]], 1)[p.weight > 0] for p in parts])
        return joint.T @ joint

    def statistic(part, size):
        return Gram(size, 0.0, jnp.asarray(np.linalg.cholesky(gram(part) + 1e-6 * np.eye(4)), jnp.float32))

    union = exactly.memory.merge(statistic(a, 12.0), statistic(b, 5.0))
    np.testing.assert_allclose(union.root @ union.root.T, gram(a, b), rtol=1e-4, atol=1e-3)
    truth = model.observe(KEY, None)[1]
    both = model.memory.merge(a, b)
    np.testing.assert_allclose(exactly.fit(KEY, truth, union)[0].value, model.fit(KEY, truth, both)[0].value, atol=1e-4)

    tokens = exact.categorical(4, 6, SHARES, **ROOMY)
    a, b = literal_data(tokens, 1, 6), literal_data(tokens, 2, 24)
    p = tokens.fit(KEY, None, tokens.memory.merge(tokens.memory.scale(a, 3.0), b))[0].p
    by_hand = 3 * np.bincount(a.values[:6], minlength=4) + np.bincount(b.values, minlength=4)
    np.testing.assert_allclose(p, by_hand / 42, rtol=1e-6)


@pytest.mark.parametrize("d", [3, 20])
def test_factors_solve_like_numpy(d):
    rng = np.random.default_rng(d)
    a = np.tril(rng.normal(size=(d, d))) + 3 * np.eye(d)
    x = rng.normal(size=d)
    b = np.tril(rng.normal(size=(d, d)))
    np.testing.assert_allclose(factors.transposed_solve(jnp.float32(a), jnp.float32(x)), np.linalg.solve(a.T, x), atol=1e-5)
    np.testing.assert_allclose(factors.transposed_matvec(jnp.float32(a), jnp.float32(x)), a.T @ x, atol=1e-4)
    root = np.asarray(factors.union(jnp.float32(a), jnp.float32(b)))
    np.testing.assert_allclose(root @ root.T, a @ a.T + b @ b.T, atol=1e-3)


def table(seed=0, n=40, d=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return x.astype(np.float32), (x @ [1.0, 2.0, -1.0] + 0.3 * rng.normal(size=n)).astype(np.float32)


def test_a_real_table_is_fitted_as_numpy_and_sklearn_fit_it():
    (x, y), (x_test, y_test) = table(), table(1)
    w, residual = np.linalg.lstsq(x, y, rcond=None)[:2]
    model = exact.linear_regression(3, 40, noise=None)
    data, truth = model.observe(KEY, (x, y, x_test, y_test))
    np.testing.assert_allclose(truth.setting.noise**2, residual[0] / 37, rtol=1e-4)
    seen = model.measure(model.fit(KEY, truth, data)[0], truth)
    np.testing.assert_allclose(seen["held_out_error"], np.mean((y_test - x_test @ w) ** 2), rtol=1e-4)
    assert seen["test_error"] < 1e-10
    # the error that the loop adds is the law of a fixed design: g - 1 fits of sigma^2 d / n each
    error = run(model, regimes.replace(), 3, real=(x, y, x_test, y_test))["test_error"]
    for g in (2, 3):
        law = (g - 1) * 3 / 40 * residual[0] / 37
        assert abs(error[g - 1].mean() - law) < 4 * error[g - 1].std() / np.sqrt(R)

    linear_model = pytest.importorskip("sklearn.linear_model")
    ridged = exact.linear_regression(3, 40, noise=None, ridge=0.2)
    data, truth = ridged.observe(KEY, (x, y))
    oracle = linear_model.Ridge(alpha=0.2 * 40, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(ridged.fit(KEY, truth, data)[0].value, oracle.coef_, atol=1e-4)
    np.testing.assert_allclose(truth.value, w, atol=1e-4)


def test_expectation_maximisation_finds_what_sklearn_finds():
    mixture = pytest.importorskip("sklearn.mixture")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 2)) + c for c in ([0, 0], [6, 0], [0, 6])]).astype(np.float32)
    for covariance, theirs in (("diagonal", "diag"), ("full", "full")):
        model = exact.gaussian_mixture(3, 2, 600, em_steps=10, covariance=covariance)
        truth = jax.jit(model.observe)(KEY, x)[1]
        oracle = mixture.GaussianMixture(3, covariance_type=theirs, tol=1e-9, max_iter=500, n_init=3, random_state=0).fit(x)
        ours = jax.scipy.special.logsumexp(log_density(truth, jnp.asarray(x)), axis=1).mean()
        np.testing.assert_allclose(ours, oracle.score(x), rtol=1e-4)
        np.testing.assert_allclose(np.sort(truth.weight), np.sort(oracle.weights_), atol=1e-3)


def test_a_density_estimate_draws_what_sklearn_draws():
    neighbors = pytest.importorskip("sklearn.neighbors")
    x = np.float32([[-3.0], [0.0], [0.5], [4.0]])
    model = exact.kde(1, 4, 0.6, capacity=R)
    _, truth = model.observe(KEY, x)
    ours = np.asarray(model.sample(KEY, truth, R).values)[:, 0]
    theirs = neighbors.KernelDensity(bandwidth=0.6).fit(x).sample(R, random_state=0)[:, 0]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    weighted = model.memory.scale(rows(jnp.asarray(x), real=True), jnp.float32([1.0, 0.0, 0.0, 3.0]))
    drawn = np.asarray(model.sample(KEY, model.fit(KEY, truth, weighted)[0], R).values)[:, 0]
    assert abs((drawn > 1).mean() - 0.75) < 0.02


def test_closed_forms_of_correctors():
    model = exact.categorical(3, 10, [0.6, 0.3, 0.1])
    truth = model.observe(KEY, None)[1]
    np.testing.assert_allclose(model.forms.temper(truth, 0.5).p, np.array([36, 9, 1]) / 46, rtol=1e-5)
    np.testing.assert_allclose(model.forms.accept(truth, jnp.float32([1.0, 1.0, 0.5])).p, np.array([12, 6, 1]) / 19, rtol=1e-5)
    away = model.forms.blend(truth, truth._replace(p=jnp.float32([0.8, 0.2, 0.0])), -4.0).p
    np.testing.assert_allclose(away, np.array([0, 0.7, 0.5]) / 1.2, atol=1e-6)
    coin = exact.bernoulli(0.8, 10)
    heads = coin.observe(KEY, None)[1]
    np.testing.assert_allclose(coin.forms.accept(heads, (0.5, 1.0)).mean, 0.8 / 0.9, rtol=1e-6)
    np.testing.assert_allclose(coin.forms.temper(heads, 0.5).mean, 0.64 / 0.68, rtol=1e-6)


def parts(lam, corrector=None, design=None, real=None):
    model = exact.linear_regression(3, 40, noise=None if real else 0.5, design=design)
    return run(model, regimes.augment(lam), 0, 1000, real, corrector=corrector)["test_error"]


def test_a_part_of_a_reused_design_has_rows_of_its_own_and_is_said(refused):
    for given, said in (((0.5,), "draws 20 of a design of 40"), ((1.0, correctors.mixture(1.0)), "draws a part of a design")):
        with refused("whole number of copies", "design='fresh'"):
            parts(*given, design="same") if len(given) == 2 else parts(*given, None, "same")
        for real in (None, table()):
            with pytest.warns(UserWarning, match=said):
                seen = parts(*given, real=real)
            assert np.isfinite(seen).all() and (seen[2] > 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = parts(2.0)

    def make(lam):
        return mcloop.make_loop(exact.linear_regression(3, 40, 0.5), regimes.augment(lam))

    # a grid does not know which of its cells are whole: those that are keep the law of a re-used design
    with pytest.warns(UserWarning, match="draws 20"):
        swept = mcloop.sweep(make, {"lam": [0.5, 2.0]}, seeds=1000, generations=3)["test_error"]
    assert np.isfinite(swept).all()
    assert stats.ks_2samp(swept.sel(lam=2.0, generation=3), whole[2]).pvalue > 1e-4


X, Y = table()
BAD = {
    "n must be larger than d": lambda: exact.linear_regression(5, 5),
    "n must be a whole number": lambda: exact.categorical(3, 2.5),
    "noise must be": lambda: exact.linear_regression(2, 9, noise=-1.0),
    "noise must be given": lambda: exact.linear_regression(2, 9, noise=None).observe(KEY, None),
    "ridge must be": lambda: exact.linear_regression(2, 9, ridge=np.nan),
    "design must be 'same' or 'fresh'": lambda: exact.linear_regression(2, 9, design="old"),
    "design must be 'same' for": lambda: exact.linear_regression(3, 40, design="fresh").observe(KEY, (X, Y)),
    "spectrum must be finite": lambda: exact.linear_regression(2, 9, spectrum=[1.0, 0.0]),
    "signal must be an array of shape (2,)": lambda: exact.linear_regression(2, 9, signal=[1.0]),
    "whole number of copies": lambda: run(exact.linear_regression(2, 9, design="same"), regimes.augment(0.5), 0, 2),
    "real's y must": lambda: exact.linear_regression(3, 40).observe(KEY, (X, Y[1:])),
    "real's X must be finite": lambda: exact.linear_regression(3, 40).observe(KEY, (X * np.nan, Y)),
    "real must be (X, y)": lambda: exact.linear_regression(3, 40).observe(KEY, X),
    "n must be the number of real rows, 40": lambda: exact.linear_regression(3, 41).observe(KEY, (X, Y)),
    "p must be finite": lambda: exact.categorical(2, 5, [1.0, -1.0]),
    "p and zipf": lambda: exact.categorical(2, 5, [1.0, 1.0], zipf=1.0),
    "tokens from 0 to 2": lambda: exact.categorical(3, 2).observe(KEY, np.array([0, 3])),
    "array of integers": lambda: exact.categorical(3, 2).observe(KEY, [0.0, 1.0]),
    "capacity must be given": lambda: exact.kde(1, np.array([5, 6])),
    "mean must be a number in (0, 1)": lambda: exact.bernoulli(1.0),
    "whole numbers >= 0 for the poisson": lambda: exact.poisson(1.0, 2).observe(KEY, np.array([1.0, 0.5])),
    "shape must be": lambda: exact.gamma_family(shape=0.0),
    "bandwidth must be": lambda: exact.kde(1, 5, -0.1),
    "truth must be 'normal'": lambda: exact.kde(1, 5, truth="moons"),
    "capacity must hold the real data": lambda: exact.kde(1, 5, capacity=4).observe(KEY, np.zeros((5, 1))),
    "covariance must be": lambda: exact.gaussian_mixture(covariance="tied"),
    "centres must be": lambda: exact.gaussian_mixture(2, 2, centres=np.zeros((3, 2))),
    "from k = 3": lambda: exact.gaussian_mixture(3, 1, 2).observe(KEY, np.zeros((2, 1))),
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_used_is_refused_in_one_sentence(said, refused):
    with refused(said):
        BAD[said]()


def test_a_regression_without_a_mean_error_warns_once():
    with pytest.warns(UserWarning, match="no mean at n = 4"):
        exact.linear_regression(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact.linear_regression(3, 5)
