"""The certificate's Jacobian against the loop itself, differentiated by nothing but finite differences, and its eigenvalues."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.flatten_util import ravel_pytree
from scipy import stats

from mcloop.certificates import spectrum as spectra
from mcloop.certificates.fixed_point import fixed_point, population_map
from mcloop.certificates.spectrum import dense_spectrum, spectrum
from mcloop.certificates.stability import Matrices, Problem, Weighted, equal, jacobian, likelihood, matrices
from mcloop.data.toys import two_moons
from mcloop.errors import InputError
from mcloop.exact.student_t import Mixture, StudentT
from mcloop.exact.student_t import log_prob as student_log_prob
from mcloop.models import newton
from mcloop.nets.flow import flow

CASES = [(0.3, 0.0), (2.0, 1.5), (5.0, 0.0)]  # lam, gamma
NU, SPREAD = 5.0, 1.3


@pytest.fixture(scope="module", autouse=True)
def _double():
    """Double precision here, and nowhere else: entries are compared to 1e-3 after a difference quotient."""
    with jax.enable_x64(True):
        yield


# Loops with nothing in common but that a refit is an argmin. Expectations are quadratures, so that nothing is random.


def hermite(order: int) -> Weighted:
    z, w = np.polynomial.hermite_e.hermegauss(order)
    return Weighted(jnp.asarray(z), jnp.asarray(w / w.sum()))


def plane(order: int) -> Weighted:
    z, w = hermite(order)
    return Weighted(jnp.stack(jnp.meshgrid(z, z), -1).reshape(-1, 2), jnp.outer(w, w).ravel())


HUMPS = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0))


def humps() -> Weighted:
    return Weighted(*map(jnp.asarray, HUMPS.nodes()))


def at_optimum(problem: Problem) -> Problem:
    flat, unravel = ravel_pytree(problem.params)
    best = jax.jit(lambda start: newton.minimise(lambda theta: problem.risk(unravel(theta), problem.data), start))
    return problem._replace(params=unravel(best(flat)))


def gaussian() -> Problem:
    """Mean and log standard deviation."""
    nodes = hermite(20)
    return likelihood(
        lambda p, x: -0.5 * ((x - p["mean"]) / jnp.exp(p["log_sd"])) ** 2 - p["log_sd"],
        {"mean": jnp.zeros(()), "log_sd": jnp.zeros(())},
        humps(),
        lambda p: Weighted(p["mean"] + jnp.exp(p["log_sd"]) * nodes.x, nodes.weight),
    )


def gaussian_2d() -> Problem:
    """Mean, log diagonal of the covariance's root, and what is below it."""
    nodes = plane(8)

    def root(p):
        return jnp.diag(jnp.exp(p["log_root"])).at[1, 0].set(p["below"])

    def log_prob(p, x):
        gap, scale = x - p["mean"], jnp.exp(p["log_root"])
        first = gap[0] / scale[0]
        return -0.5 * (first**2 + ((gap[1] - p["below"] * first) / scale[1]) ** 2) - p["log_root"].sum()

    return likelihood(
        log_prob,
        {"mean": jnp.zeros(2), "log_root": jnp.zeros(2), "below": jnp.zeros(())},
        equal(np.random.default_rng(0).standard_exponential((40, 2)) @ [[1.0, 0.7], [0.0, 0.5]]),
        lambda p: Weighted(p["mean"] + nodes.x @ root(p).T, nodes.weight),
    )


def categorical() -> Problem:
    """Four categories, logits free but for the first; what the model draws is the same points, weighted otherwise."""
    places = jnp.arange(4)

    def logits(p):
        return jax.nn.log_softmax(jnp.concatenate([jnp.zeros(1), p]))

    data = Weighted(places, jnp.asarray([0.4, 0.3, 0.2, 0.1]))
    return likelihood(lambda p, x: logits(p)[x], jnp.zeros(3), data, lambda p: Weighted(places, jnp.exp(logits(p))))


def student_t() -> Problem:
    """Misspecified: two humps."""
    u, w = np.polynomial.legendre.leggauss(400)
    nodes, weight = jnp.asarray(stats.t.ppf((u + 1) / 2, NU)), jnp.asarray(w / 2)
    return likelihood(
        lambda p, x: student_log_prob(p, x, NU),
        StudentT(jnp.zeros(()), jnp.zeros(())),
        humps(),
        lambda p: Weighted(p.loc + jnp.exp(p.log_scale) * nodes, weight),
    )


def affine_flow() -> Problem:
    """Thirty-two parameters on two moons, misspecified; a tilt of the real risk, as a ridge makes it, tames them."""
    toy, net, base, ridge = two_moons(), flow(2, layers=2, width=2, kind="affine"), plane(24), 0.1
    variables = net.init(jax.random.key(0))
    points = jnp.asarray((np.asarray(toy.sample(jax.random.key(1), 300)) - toy.shift) / toy.scale)
    start, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(float), variables.params))

    def risk(theta, points):
        body, tilt = points
        (z, log_det), _ = net.apply(variables._replace(params=unravel(theta)), body.x)
        return body.weight @ (0.5 * jnp.sum(z**2, 1) - log_det) + tilt @ theta

    def draw(theta):
        (x, _), _ = net.apply(variables._replace(params=unravel(theta)), base.x, inverse=True)
        return Weighted(x, base.weight), jnp.zeros_like(theta)

    data = equal(points)
    held = at_optimum(
        Problem(start, lambda t, body: risk(t, body) + ridge / 2 * jnp.sum((t - start) ** 2), (data, 0 * start), draw)
    )
    return Problem(held.params, risk, (data, ridge * (held.params - start)), draw, exact=True)


MAKERS = {f.__name__: f for f in (gaussian, gaussian_2d, categorical, student_t, affine_flow)}


@cache
def problem(name: str) -> Problem:
    return at_optimum(MAKERS[name]())


def differenced(problem: Problem, damping: float, step: float = 1e-4, every: int = 1):
    """(lam, gamma) -> dT/dtheta by central differences of the population's loop, (P, P); every so many columns of it."""
    flat, unravel = ravel_pytree(problem.params)

    @jax.jit
    def columns(lam, gamma):
        generation = population_map(problem, lam, gamma, damping)

        def column(e):
            ahead, behind = (ravel_pytree(generation(unravel(flat + sign * step * e)))[0] for sign in (1, -1))
            return (ahead - behind) / (2 * step)

        return lax.map(column, jnp.eye(len(flat))[::every]).T

    return columns


@cache
def measured(name: str):
    return differenced(problem(name), 0.0)


def papers_sign(m: Matrices, lam, gamma, damping) -> np.ndarray:
    """The minus of the papers' norm bound."""
    return np.linalg.solve(m.n + damping * np.eye(len(m.n)) - lam * m.f, lam * m.b) / (1 + gamma)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_2d", "categorical", "student_t"])
def test_the_jacobian_is_that_of_the_loop(name):
    m = matrices(problem(name))
    for lam, gamma in CASES:
        truth = np.asarray(measured(name)(lam, gamma))
        np.testing.assert_allclose(jacobian(m, lam, gamma), truth, atol=1e-3)
        assert np.abs(papers_sign(m, lam, gamma, 0.0) - truth).max() > 0.05
        # and the least stable direction is multiplied by its rate
        found = dense_spectrum(m, True, lam, gamma, count=1)
        np.testing.assert_allclose(truth @ found.directions[0], found.rates[0] * found.directions[0], atol=2e-3)


def test_the_jacobian_is_that_of_a_flow():
    lam, gamma, damping = 2.0, 1.5, 0.3
    m = matrices(problem("affine_flow"))
    truth = np.asarray(differenced(problem("affine_flow"), damping, every=8)(lam, gamma))
    assert truth.shape == (32, 4)
    np.testing.assert_allclose(jacobian(m, lam, gamma, damping)[:, ::8], truth, atol=1e-3)
    for wrong in (
        papers_sign(m, lam, gamma, damping),
        jacobian(m, lam, gamma, 0.9 * damping),
        jacobian(m, lam, 0.9 * gamma, damping),
    ):
        assert np.abs(wrong[:, ::8] - truth).max() > 2e-3
    rates = dense_spectrum(m, True, lam, gamma, damping, 32).rates
    assert np.all(rates > -1e-3) and np.all(rates < 1 / (1 + gamma))


@pytest.mark.parametrize("name", ["categorical", "student_t"])
def test_exact_loops_are_stable_at_any_lam(name):
    m, truth = matrices(problem(name)), np.sort(np.linalg.eigvals(measured(name)(1e6, 0.0)).real)
    assert np.all(truth < 1)
    np.testing.assert_allclose(1 - np.sort(dense_spectrum(m, True, 1e6).rates), 1 - truth, rtol=0.01)


@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_an_inexact_sampler_is_certified_at_its_own_fixed_point(damping):
    """A Gaussian whose samples are spread by 1.3 about 1.2 times its mean."""
    start, lam = problem("gaussian"), 0.6

    def draw(p):
        exact = start.draw(p)
        return exact._replace(x=1.2 * p["mean"] + SPREAD * (exact.x - p["mean"]))

    there = start._replace(draw=draw, exact=False)
    here = fixed_point(there, lam)
    rest = population_map(here, lam, 0.0, damping)(here.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), rest, here.params)
    m, truth = matrices(here), np.asarray(differenced(here, damping)(lam, 0.0))
    np.testing.assert_allclose(jacobian(m, lam, 0.0, damping), truth, atol=1e-5)
    # the certificate of an exact sampler there, and the one of this sampler at the optimum on real data, are other numbers
    for wrong in (m._replace(b=m.f), matrices(there)):
        assert np.abs(jacobian(wrong, lam, 0.0, damping) - truth).max() > 0.02


# B, by differentiating the sampler


@pytest.mark.parametrize("name", ["gaussian_2d", "categorical", "student_t"])
def test_an_exact_sampler_pulls_by_the_fisher_information(name):
    """Bartlett: E_p[grad log p] = 0 at every theta, differentiated."""
    opened = problem(name)._replace(exact=False)
    known = matrices(problem(name))
    np.testing.assert_allclose(known.f, known.f.T, atol=1e-12)
    found = matrices(opened)
    np.testing.assert_allclose(found.f, known.f, atol=2e-5)  # the Hessian's mean, and the scores' outer product
    np.testing.assert_allclose(found.b, known.f, atol=2e-5)
    np.testing.assert_allclose(matrices(opened, differences=1e-3).b, known.f, atol=2e-5)
    assert np.abs(matrices(opened, differences=0.5).b - known.f).max() > 1e-3


# Eigenvalues


@given(st.integers(1, 6), st.integers(0, 2**16), st.floats(-3, 6), st.floats(0, 3))
def test_rates_are_generalised_eigenvalues_and_always_stable(size, seed, power, gamma):
    rng, lam = np.random.default_rng(seed), 10.0**power
    n, f = (a @ a.T + 0.01 * np.eye(size) for a in rng.standard_normal((2, size, size)))
    mu = scipy.linalg.eigh(f, n, eigvals_only=True)[::-1]
    found = dense_spectrum(Matrices(n, f, f), True, lam, gamma, count=size)
    np.testing.assert_allclose(found.mu, mu, rtol=1e-8)
    np.testing.assert_allclose(found.rates, lam * mu / ((1 + lam * mu) * (1 + gamma)), rtol=1e-8)
    assert np.all(found.rates >= 0) and np.all(found.rates < 1)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1)
    general = dense_spectrum(Matrices(n, f, f), False, lam, gamma, count=size)
    np.testing.assert_allclose(general.rates, found.rates, rtol=1e-4, atol=1e-9)
    assert np.all(np.isnan(general.mu))
    ends = np.linalg.eigvalsh(n)[[0, -1]]
    np.testing.assert_allclose([found.least, found.largest], ends, rtol=1e-8)


def quadratic(m: Matrices, exact: bool) -> Problem:
    """The loop whose matrices are these: risks that are quadratic forms, and a sampler that moves their linear part."""

    def risk(theta, points):
        curvature, pull = points
        return 0.5 * theta @ curvature @ theta - pull @ theta

    n, f, b = (jnp.asarray(x) for x in m)
    return Problem(jnp.zeros(len(n)), risk, (n, jnp.zeros(len(n))), lambda theta: (f, b @ theta), exact)


def wishart(rng, size, spread=1.0) -> np.ndarray:
    root = rng.standard_normal((size, 3 * size)) * np.exp(spread * rng.standard_normal((size, 1)))
    return root @ root.T / (3 * size)


@pytest.fixture
def without_matrices(monkeypatch):
    """() -> from here on, no problem is small enough for whole matrices."""
    return lambda: monkeypatch.setattr(spectra, "DENSE", 0)


@pytest.mark.parametrize("kind", ["exact", "widened", "turning"])
def test_products_give_what_matrices_give(kind, without_matrices):
    rng = np.random.default_rng(4)
    n, f = wishart(rng, 60), wishart(rng, 60)
    turn = rng.standard_normal((60, 60))
    b = {"exact": f, "widened": f + 0.3 * wishart(rng, 60), "turning": f @ (turn - turn.T)}[kind]
    m, lam, gamma, damping = Matrices(n, f, b), 0.02, 0.5, 0.05
    posed = quadratic(m, kind == "exact")
    for got, wanted in zip(matrices(posed), m, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    whole = spectrum(posed, lam, gamma, damping, 2)
    without_matrices()
    found = spectrum(posed, lam, gamma, damping, 2)
    np.testing.assert_allclose(np.abs(found.rates[0]), np.abs(whole.rates[0]), rtol=1e-2)
    np.testing.assert_allclose([found.least, found.largest], [whole.least, whole.largest], rtol=0.02)
    if kind == "turning":
        assert np.all(np.iscomplex(whole.rates)) and np.all(np.iscomplex(found.rates))
    else:
        np.testing.assert_allclose(found.mu[0], whole.mu[0], rtol=2e-2)
        assert np.abs(found.directions[0] @ whole.directions[0]) > 0.99
    # a damping forgotten is seen
    assert np.abs(np.abs(spectrum(posed, lam, gamma, 0.0, 2).rates) / np.abs(whole.rates) - 1).max() > 0.05


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("least", "word"), [(0.0, "singular"), (-0.1, "indefinite")])
def test_a_hessian_that_is_not_definite_is_refused_with_a_remedy(dense, least, word, refused, without_matrices):
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    n, f = basis * np.concatenate([[least], np.linspace(0.5, 2, 59)]) @ basis.T, wishart(rng, 60)
    posed = quadratic(Matrices(n, f, f), True)
    if not dense:
        without_matrices()
    with refused("damping must be larger", "not 0:", word):
        spectrum(posed, 1.0)
    try:
        spectrum(posed, 1.0)
    except InputError as refusal:
        damping = float(str(refusal).split("for example ")[1].split(",")[0])
    found = spectrum(posed, 1.0, damping=damping)
    assert 0 < found.least < 0.02 and 0 < found.rates[0] < 1
