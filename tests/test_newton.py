"""Minima found to rounding, against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from mcloop.models.newton import minimise


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def steep(x):
    """A quartic whose curvature is negative where the search begins."""
    return jnp.sum(x**4 / 4 - x**2 / 2) + 0.1 * x.sum()


def logistic(x, y):
    return lambda theta: jnp.mean(jnp.logaddexp(0.0, -y * (x @ theta))) + 1e-3 * theta @ theta


def test_a_bent_valley_and_a_start_on_a_ridge():
    with jax.enable_x64(True):
        start = jnp.asarray([-1.2, 1.0, 1.0])
        found = jax.jit(lambda s: minimise(rosenbrock, s, 200))(start)
        wanted = optimize.minimize(optimize.rosen, np.asarray(start), jac=optimize.rosen_der, method="BFGS", tol=1e-10).x
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        start = jnp.asarray([0.1, -0.1, 0.0])
        down = minimise(steep, start, 100)
        np.testing.assert_allclose(jax.grad(steep)(down), 0, atol=1e-9)
        assert np.linalg.eigvalsh(jax.hessian(steep)(down))[0] > 0 and steep(down) < steep(start)


def test_logistic_regression_is_scipys():
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((200, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    y = np.where(rng.random(200) < 1 / (1 + np.exp(-x @ truth)), 1.0, -1.0)
    found = minimise(logistic(jnp.float32(x), jnp.float32(y)), jnp.zeros(4))
    assert found.dtype == jnp.float32

    def plain(t):
        return np.mean(np.logaddexp(0, -y * (x @ t))) + 1e-3 * t @ t

    wanted = optimize.minimize(plain, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    unpenalised = optimize.minimize(lambda t: plain(t) - 1e-3 * t @ t, np.zeros(4), tol=1e-12).x
    assert np.abs(unpenalised - wanted).max() > 2e-3


def test_a_quadratic_takes_one_step():
    rng = np.random.default_rng(1)
    root, centre = rng.standard_normal((5, 5)), jnp.float32(rng.standard_normal(5))
    curvature = jnp.float32(root @ root.T + np.eye(5))

    def objective(theta):
        return (theta - centre) @ curvature @ (theta - centre)

    np.testing.assert_allclose(minimise(objective, jnp.zeros(5), 1), centre, atol=1e-5)
    assert np.abs(minimise(lambda t: objective(t) ** 2, jnp.zeros(5), 1) - centre).max() > 0.1


def test_many_searches_run_side_by_side():
    with jax.enable_x64(True):
        starts = jnp.asarray(np.random.default_rng(2).normal(size=(6, 2)))
        together = jax.jit(jax.vmap(lambda s: minimise(rosenbrock, s, 200)))(starts)
        np.testing.assert_allclose(together, 1.0, atol=1e-6)
        alone = jax.jit(lambda s: minimise(rosenbrock, s, 200))(starts[3])
        np.testing.assert_allclose(together[3], alone, atol=1e-9)


def test_a_minimum_is_left_where_it_is():
    with jax.enable_x64(True):
        there = minimise(rosenbrock, jnp.ones(3))
        np.testing.assert_allclose(there, 1.0, atol=1e-12)
        # what has no number stays where it was
        start = jnp.asarray([-1.0])
        np.testing.assert_array_equal(minimise(lambda x: jnp.log(x).sum(), start), start)
