"""A Student-t fitted by EM, against SciPy's fit, its own distribution, and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcloop import exact, regimes
from mcloop.drivers.sweep import sweep
from mcloop.exact.student_t import Mixture, StudentT, log_prob
from mcloop.loop import make_loop
from mcloop.memory.rows import Rows

NU = 4.0
HUMPS = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0))


def rows(values, weight):
    return Rows(jnp.float32(values), jnp.float32(weight), jnp.float32(weight))


def test_the_fit_is_scipys():
    model = exact.student_t(60, NU)
    values = np.random.default_rng(1).standard_t(NU, 60) * 1.7 + 3
    fit = jax.jit(lambda start, body: model.fit(jax.random.key(0), start, body)[0])
    found = fit(StudentT(jnp.float32(2.0), jnp.float32(0.0)), rows(values, np.ones(60)))
    wanted = stats.t.fit(values, fix_df=NU)[1:]
    np.testing.assert_allclose([found.loc, np.exp(found.log_scale)], wanted, rtol=2e-3)
    # another number of degrees of freedom is another fit
    assert abs(np.exp(found.log_scale) / stats.t.fit(values, fix_df=NU + 2)[2] - 1) > 0.02


def test_a_weight_is_a_number_of_points():
    model = exact.student_t(30, NU)
    values, times = np.random.default_rng(2).standard_t(NU, 30), np.arange(30) % 4
    start = StudentT(jnp.float32(0.0), jnp.float32(0.0))
    weighted = model.fit(None, start, rows(values, times))[0]
    repeated = model.fit(None, start, rows(np.repeat(values, times), np.ones(times.sum())))[0]
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)
    assert abs(weighted.loc - model.fit(None, start, rows(values, np.ones(30)))[0].loc) > 0.01


def test_the_truth_is_where_the_expected_gradient_vanishes():
    truth = exact.student_t(10, NU, HUMPS).observe(jax.random.key(0), None)[1]
    with jax.enable_x64(True):
        x, w = (jnp.asarray(v) for v in HUMPS.nodes())
        gradient = jax.grad(lambda p: w @ log_prob(p, x, NU))
        force = np.array(gradient(StudentT(*(jnp.asarray(float(v)) for v in truth))))
        off = np.array(gradient(StudentT(jnp.asarray(float(truth.loc) + 0.01), jnp.asarray(float(truth.log_scale)))))
    assert np.abs(force).max() < 1e-6 < 1e-3 < np.abs(off).max()


def test_the_nodes_are_a_quadrature_of_the_mixture():
    x, w = HUMPS.nodes(8)
    p, m, s = map(np.asarray, HUMPS)
    assert len(x) == 16
    np.testing.assert_allclose([w.sum(), w @ x, w @ x**2], [1, p @ m, p @ (m**2 + s**2)], rtol=1e-12)
    np.testing.assert_allclose(w @ x**4, p @ (m**4 + 6 * m**2 * s**2 + 3 * s**4), rtol=1e-12)


def test_draws_are_of_the_law_that_they_name():
    model = exact.student_t(100_000, NU, HUMPS)
    drawn = model.sample(jax.random.key(3), StudentT(jnp.float32(1.0), jnp.float32(np.log(2.0))), 100_000)
    assert drawn.weight.sum() == 100_000
    values = np.asarray(drawn.values)
    assert stats.kstest(values, stats.t(NU, 1, 2).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.t(NU + 2, 1, 2).cdf).pvalue < 0.01 > stats.kstest(values, stats.norm(1, 2).cdf).pvalue
    real = np.asarray(model.observe(jax.random.key(4), None)[0].values)
    p, m, s = map(np.asarray, HUMPS)

    def cdf(x):
        return stats.norm.cdf((x[:, None] - m) / s) @ p

    assert stats.kstest(real, cdf).pvalue > 0.01
    assert stats.kstest(real, lambda x: cdf(x - 0.02)).pvalue < 0.01


def test_what_is_refused(refused):
    for nu in (0.0, -1.0, np.nan):
        with refused("nu must be a finite number > 0"):
            exact.student_t(10, nu)
    with refused("n must be a whole number >= 2"):
        exact.student_t(1)
    with refused("capacity must be given"):
        exact.student_t(np.array([10, 20]))
    for bad in (HUMPS._replace(weight=(0.6, 0.6)), HUMPS._replace(std=(0.5, 0.0))):
        with refused("data must have weights > 0 that sum to 1"):
            exact.student_t(10, data=bad)
    with refused("capacity must be at least 20", "not 10"):
        make_loop(exact.student_t(10), regimes.augment(2.0)).init(jax.random.key(0), None, 3)


def test_lam_may_be_swept():
    def make(lam):
        return make_loop(exact.student_t(20, NU, HUMPS, capacity=60), regimes.augment(lam))

    ds = sweep(make, {"lam": [0.5, 3.0]}, seeds=4, generations=3)
    assert np.isfinite(ds["log_scale_gap"]).all()
    np.testing.assert_allclose(ds["effective_lam"].sel(generation=3).mean("seed"), [0.5, 3.0])
    same = ds["mean_sq_error"].sel(generation=1)  # the fit on real data
    np.testing.assert_allclose(same.sel(lam=0.5), same.sel(lam=3.0), rtol=1e-5)


@pytest.mark.parametrize("real", [np.zeros((4, 2)), np.array([0.0, np.nan, 1.0])])
def test_real_data_are_points_on_the_line(real, refused):
    with refused("real must be"):
        make_loop(exact.student_t(len(real)), regimes.replace()).init(jax.random.key(0), real, 2)
