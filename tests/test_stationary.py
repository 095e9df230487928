"""Where the iterates of a finite loop are: the band against closed laws, and against loops that are run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from mcloop import exact, regimes
from mcloop.certificates.fixed_point import Band, noise, stationary
from mcloop.certificates.stability import Matrices, Weighted, equal, likelihood, matrices
from mcloop.drivers.scan import scan
from mcloop.exact.student_t import Mixture, StudentT, log_prob
from mcloop.laws import LAWS
from mcloop.loop import make_loop

LAM = 3.0
LATE = slice(25, 40)


def known(*information) -> Matrices:
    """A well-specified family of this Fisher information: N = F = B."""
    f = np.diag(np.asarray(information, float))
    return Matrices(f, f, f)


def deviation(band: Band) -> np.ndarray:
    return band.width() / stats.norm.ppf(0.975)


@pytest.mark.parametrize("lam", [0.1, 1.0, 7.0])
def test_one_number_has_the_closed_law(lam):
    n, f = 250, 3.7
    band = stationary(known(f), lam, n)
    np.testing.assert_allclose(deviation(band) ** 2, (1 + 3 * lam) / (1 + 2 * lam) / (n * f), rtol=1e-6)
    np.testing.assert_allclose(band.between, 1 / (n * f))  # the real set's own error stays
    np.testing.assert_allclose(band.within, lam / (1 + 2 * lam) / (n * f))


@pytest.mark.parametrize("lam", [0.5, 4.0])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_corrected_loop_settles_where_the_exact_law_does(lam, gamma):
    n = 10**7
    law = LAWS["B5"]
    limit, wrong = (float(f(np.array([400]), n=n, m=lam * n, gamma=gamma)[0]) for f in (law.value, law.wrong))
    found = float(deviation(stationary(known(1.0), lam, n, gamma))[0] ** 2)
    np.testing.assert_allclose(found, limit, rtol=1e-5)
    assert gamma != 0.5 or abs(found / wrong - 1) > 0.01


def test_several_numbers_are_an_equation_solved_by_a_long_run():
    """P = J P J^T + Q and x = J x + A^-1 e0, iterated; curvatures, noises and sampler all different."""
    rng = np.random.default_rng(0)
    n, f, s, v = (a @ a.T + np.eye(3) for a in rng.standard_normal((4, 3, 3)))
    m, lam, size, damping = Matrices(n, f, 0.8 * f + 0.1 * rng.standard_normal((3, 3))), 0.9, 50, 0.2
    band = stationary(m, lam, size, 0.3, damping, s, v)
    a = n + damping * np.eye(3) + lam * f
    j = np.linalg.solve(a, lam * m.b) / 1.3
    inverse = np.linalg.inv(a)
    kick = inverse @ (lam * s / size) @ inverse
    within, pull = np.zeros((3, 3)), np.zeros((3, 3))
    for _ in range(400):
        within, pull = j @ within @ j.T + kick, j @ pull + inverse
    np.testing.assert_allclose(band.within, within, rtol=1e-8)
    np.testing.assert_allclose(band.between, pull @ (v / size) @ pull.T, rtol=1e-8)
    assert np.abs(scipy.linalg.solve_discrete_lyapunov(j.T, kick) - within).max() > 1e-5


def test_a_loop_that_does_not_settle_is_refused(refused):
    m = Matrices(np.eye(1), np.eye(1), 3 * np.eye(1))
    assert np.isfinite(stationary(m, 0.4, 10).width()).all()
    with refused("lam must be one at which the loop is stable, not 2:", "grows by 2."):
        stationary(m, 2.0, 10)


def covered(gaps, width) -> float:
    """Share of iterates, over seeds and late generations, that lie in the band."""
    assert gaps.ndim == 2 and np.isfinite(gaps).all()
    return float(np.mean(np.abs(gaps) < width))


def run(model, seeds: int, variables):
    keys = jax.random.split(jax.random.key(5), seeds)
    seen = scan(make_loop(model, regimes.augment(LAM)), keys, generations=LATE.stop)[1]
    return [np.asarray(seen[name], float)[LATE] for name in variables]


def holds(gaps, m: Matrices, n: int, i: int = 0, **noises) -> None:
    band = stationary(m, LAM, n, **noises)
    assert abs(covered(gaps, band.width()[i]) - 0.95) < 0.02
    # the real set's error alone, and the other one alone, are bands that do not hold them
    for part in band:
        narrow = stats.norm.ppf(0.975) * np.sqrt(part[i, i])
        assert covered(gaps, narrow) < 0.93


def test_the_band_holds_the_iterates_of_gaussians():
    n = 200
    square, ratio = run(exact.gaussian(d=1, n=n), 2000, ("mean_sq_error", "trace_ratio"))
    m = known(1.0, 2.0)  # of mean and log standard deviation
    holds(np.sqrt(square), m, n, 0)
    holds(0.5 * np.log(ratio), m, n, 1)


FAMILIES = {
    "bernoulli": (lambda n: exact.bernoulli(0.3, n), 0.3 * 0.7),
    "poisson": (lambda n: exact.poisson(4.0, n), 4.0),
    "gamma": (lambda n: exact.gamma_family(2.0, 3.0, n), 2.0**2 / 3.0),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_band_holds_the_iterates_of_exponential_families(name):
    n = 200
    make, variance = FAMILIES[name]
    (square,) = run(make(n), 2000, ("mean_sq_error",))
    holds(np.sqrt(square), known(1 / variance), n)


def test_the_band_holds_the_iterates_of_a_misspecified_family():
    """A Student-t on two humps: the sandwich, with the covariances of real and of synthetic gradients."""
    nu, n = 5.0, 200
    humps = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0))
    model = exact.student_t(n, nu, humps, capacity=int(LAM * n))
    nodes = np.float32(stats.t.ppf((np.arange(4000) + 0.5) / 4000, nu))
    best = model.observe(jax.random.key(0), None)[1]
    problem = likelihood(
        lambda p, x: log_prob(p, x, nu),
        StudentT(*best),
        Weighted(*map(jnp.float32, humps.nodes())),
        lambda p: equal(p.loc + jnp.exp(p.log_scale) * nodes),
    )
    synthetic, real = noise(problem)
    gaps = run(model, 400, ("mean_sq_error", "log_scale_gap"))
    for i, gap in enumerate((np.sqrt(gaps[0]), gaps[1])):
        holds(gap, matrices(problem), n, i, synthetic_noise=synthetic, real_noise=real)
    # N for V, as if the model could fit the data
    wrong = stationary(matrices(problem), LAM, n)
    assert max(abs(covered(gap, wrong.width()[i]) - 0.95) for i, gap in enumerate((np.sqrt(gaps[0]), gaps[1]))) > 0.02
