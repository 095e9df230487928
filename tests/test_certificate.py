"""What a certificate says: a sampler's boundary, the papers' bound beside the exact rate, and sentences that are true."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from mcloop.certificates.certificate import Certificate, certificate, safe_lam
from mcloop.certificates.fixed_point import fixed_point
from mcloop.certificates.papers_bound import papers_bound
from mcloop.certificates.spectrum import dense_spectrum
from mcloop.certificates.stability import Problem, Weighted, equal, likelihood, matrices
from mcloop.exact.student_t import Mixture, StudentT, log_prob
from mcloop.experiment import config
from mcloop.laws import LAWS

NU = 5.0


def quantiles(law, points=400) -> Weighted:
    u, w = np.polynomial.legendre.leggauss(points)
    return Weighted(jnp.float32(law.ppf((u + 1) / 2)), jnp.float32(w / 2))


def gaussian(spread: float = 1.0) -> Problem:
    """Mean and log standard deviation of a standard normal; its samples are spread by a factor."""
    z, w = np.polynomial.hermite_e.hermegauss(20)
    nodes = Weighted(jnp.float32(z), jnp.float32(w / w.sum()))
    return likelihood(
        lambda p, x: -0.5 * ((x - p["mean"]) / jnp.exp(p["log_sd"])) ** 2 - p["log_sd"],
        {"mean": jnp.zeros(()), "log_sd": jnp.zeros(())},
        nodes,
        lambda p: Weighted(p["mean"] + spread * jnp.exp(p["log_sd"]) * nodes.x, nodes.weight),
    )._replace(exact=spread == 1.0)


@cache
def student_t() -> Problem:
    """Fitted to two humps, which it cannot fit; at its optimum, found by a solver of SciPy's."""
    from scipy.optimize import minimize

    x, w = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0)).nodes()
    best = minimize(lambda p: -w @ stats.t.logpdf(x, NU, p[0], np.exp(p[1])), [0.0, 0.0], method="BFGS", tol=1e-8).x
    nodes = quantiles(stats.t(NU))
    return likelihood(
        lambda p, x: log_prob(p, x, NU),
        StudentT(*jnp.float32(best)),
        Weighted(jnp.float32(x), jnp.float32(w)),
        lambda p: Weighted(p.loc + jnp.exp(p.log_scale) * nodes.x, nodes.weight),
    )


def location(shift=0.0, dim=1, own=None) -> Problem:
    """A Gaussian of known covariance, whose samples are the data moved by `shift`, or points of their own."""
    data = np.random.default_rng(0).standard_normal((400, dim))
    data = jnp.float32(data[:, 0] if dim == 1 else data)
    drawn = data if own is None else jnp.float32(own)
    centre = data.mean(0)
    return likelihood(
        lambda p, x: -0.5 * jnp.sum((x - p) ** 2), centre, equal(data), lambda p: equal(drawn + shift + (p - centre))
    )


# A sampler that widens


def test_a_sampler_that_widens_has_the_rate_and_the_variance_of_law_s1():
    lam, s = 0.8, 1.3
    found = certificate(gaussian(s), lam)
    path = LAWS["S1"].value(np.array([1, 2, 3, 10_000]), lam=lam, s=s)
    rate = (path[2] - path[1]) / (path[1] - path[0])
    np.testing.assert_allclose(rate, lam * s**2 / (1 + lam))
    np.testing.assert_allclose(found.rate, rate, rtol=1e-4)
    np.testing.assert_allclose(found.rates[1], lam / (1 + lam), rtol=1e-4)  # of the mean
    np.testing.assert_allclose(np.abs(found.direction["log_sd"]), 1, atol=1e-3)
    np.testing.assert_allclose(np.exp(2 * fixed_point(gaussian(s), lam).params["log_sd"]), path[3], rtol=1e-4)
    # at the optimum on real data, where this loop does not rest, it is another
    assert abs(certificate(gaussian(s), lam, settle=False).rate / rate - 1) > 0.2


@pytest.mark.parametrize("s", [1.15, 1.5, 2.5])
def test_the_boundary_of_a_sampler_that_widens(s):
    found = safe_lam(gaussian(s))
    assert abs(found * (s**2 - 1) - 1) < 0.02
    assert abs(found * (s - 1) - 1) > 0.1


@pytest.mark.parametrize(("lam", "gamma", "s"), [(0.8, 1.0, 1.3), (3.0, 1.0, 1.5)])
def test_a_corrected_sampler_is_more_stable(lam, gamma, s):
    """v <- (v0 + lam (s^2 v + gamma s^2 v0)/(1 + gamma))/(1 + lam): the rate is that of S1 over 1 + gamma."""
    found = certificate(gaussian(s), lam, gamma)
    np.testing.assert_allclose(found.rate, lam * s**2 / ((1 + lam) * (1 + gamma)), rtol=1e-4)
    assert found.bound is not None and found.bound.epsilon > 0.05


def test_a_corrector_moves_the_boundary():
    s, gamma = 1.5, 0.5  # lam s^2 < (1 + lam)(1 + gamma)
    np.testing.assert_allclose(safe_lam(gaussian(s), gamma), (1 + gamma) / (s**2 - 1 - gamma), rtol=0.02)
    assert safe_lam(gaussian(1.3), 1.0) == np.inf


def test_past_the_boundary_there_is_no_fixed_point(refused):
    with refused("lam must be smaller than 1.6", "fixed point"):
        certificate(gaussian(1.3), 1.6)  # 1/(1.69 - 1) is 1.45


def test_a_sampler_that_narrows_or_is_exact_has_no_boundary():
    assert safe_lam(gaussian(0.9)) == np.inf
    assert safe_lam(gaussian()) == np.inf
    found = certificate(gaussian(0.9), 2.0, boundary=True)
    assert found.safe_lam == np.inf and not found.exact
    assert "No boundary was found: stable at every lam that was tried." in found.sentences()
    np.testing.assert_allclose(found.rate, 2 / 3, rtol=1e-4)


# The papers' bound


@pytest.mark.parametrize(("lam", "gamma"), [(0.2, 0.0), (0.45, 0.5)])
def test_the_bound_of_a_location_is_the_papers_with_k_one(lam, gamma):
    bound = papers_bound(location(shift=0.7), lam, gamma, 1.0)
    assert bound.lipschitz == 0 and bound.k == 1
    np.testing.assert_allclose(bound.rate, lam / (1 - lam) / (1 + gamma))
    np.testing.assert_allclose(bound.safe_lam, (1 + gamma) / (2 + gamma))
    assert papers_bound(gaussian(), lam, gamma, 1.0)._replace(lipschitz=0.0).epsilon < 1e-6  # well specified
    np.testing.assert_allclose(papers_bound(gaussian(), lam, gamma, 1.0).k, 1, atol=1e-5)


def test_the_bound_is_silent_where_the_loop_is_stable():
    lam = 1.0
    found = certificate(student_t(), lam)
    assert found.bound is not None
    assert found.bound.rate == np.inf and found.stable
    assert 1 < found.mu[0] <= found.bound.k
    np.testing.assert_allclose(found.rate, lam * found.mu[0] / (1 + lam * found.mu[0]), rtol=1e-6)
    assert any("gives no guarantee" in said for said in found.sentences())
    # the bound is one: where it speaks, it is above the rate
    little = certificate(student_t(), 0.05)
    assert little.bound is not None and little.rate < little.bound.rate < 1
    assert any("guarantees a rate below" in said for said in little.sentences())
    assert little.bound.safe_lam == found.bound.safe_lam < 0.2


def test_lipschitz_is_that_of_the_hessian_and_never_above_it():
    """The Hessian in (loc, log_scale) of a Gaussian is linear and quadratic in x: its slope at |x| is known."""
    found = papers_bound(gaussian(), 0.1, 0.0, 1.0).lipschitz

    def slope(x):  # d/dx of [[1, 2 x], [2 x, 2 x^2]]
        return np.abs(np.linalg.eigvalsh(np.array([[0, 2], [2, 4 * x]]))).max()

    nodes = np.asarray(gaussian().data.x)
    most = slope(np.abs(nodes).max())
    assert slope(1.0) < found <= most * 1.001


def test_epsilon_on_a_line_is_scipys():
    own = stats.gamma(2.0).rvs(300, random_state=1)
    problem = location(own=own)
    wanted = stats.wasserstein_distance(np.asarray(problem.data.x), own)
    np.testing.assert_allclose(papers_bound(problem, 0.1, 0.0, 1.0).epsilon, wanted, rtol=1e-5)
    humps, model = student_t().data, student_t().draw(student_t().params)
    wanted = stats.wasserstein_distance(*(np.asarray(v) for v in (humps.x, model.x, humps.weight, model.weight)))
    np.testing.assert_allclose(papers_bound(student_t(), 0.1, 0.0, 1.0).epsilon, wanted, rtol=1e-5)
    assert abs(stats.wasserstein_distance(humps.x, model.x) / wanted - 1) > 0.1  # weights are not forgotten


def test_epsilon_in_the_plane_is_zero_for_one_law_and_a_shift_for_two():
    other = np.random.default_rng(1).standard_normal((400, 2))
    between = papers_bound(location(dim=2, own=other), 0.1, 0.0, 1.0).epsilon
    # two samples of one law are some way apart, and most of it is taken off
    raw = stats.wasserstein_distance_nd(np.asarray(location(dim=2).data.x)[:150], other[:150])
    assert between < 0.1 < 0.2 < raw
    assert papers_bound(location(dim=2), 0.1, 0.0, 1.0).epsilon == 0
    for c in (1.0, 4.0):
        shift = jnp.asarray([c, 0.0])
        for problem in (location(dim=2, own=other, shift=shift), location(dim=2, shift=shift)):
            assert abs(papers_bound(problem, 0.1, 0.0, 1.0).epsilon - c) < 0.25


# Words


def test_what_an_exact_certificate_says():
    lam, gamma = 3.0, 1.0
    found = certificate(student_t(), lam, gamma)
    mu = dense_spectrum(matrices(student_t()), True, lam).mu
    np.testing.assert_allclose(found.rate, lam * mu[0] / (1 + lam * mu[0]) / 2, rtol=1e-6)
    assert found.stable and found.exact and found.safe_lam == np.inf and found.parameters == 2
    first, second, third, _ = found.sentences()
    assert "lam 3, gamma 1" in first and "the loop is stable." in first
    assert f"multiplied by {found.rate:.4g} a generation." in first
    slow = certificate(student_t(), lam)
    half = np.log(0.5) / np.log(slow.rate)  # said where it is longer than a generation
    assert f"{slow.rate:.4g} a generation, half of it gone in {half:.3g} generations." in slow.sentences()[0]
    assert "stable for every finite lam" in second and "shrinks by 1/(1 + gamma) = 0.5" in second
    assert f"samples move by {found.moves:.3g}" in third
    assert "random walk" in certificate(student_t(), lam).sentences()[1]
    ridge = certificate(student_t(), lam, gamma, 0.2)
    assert ridge.sentences()[-1] == "A ridge of 0.2 towards these parameters is part of every refit (damping)."
    assert ridge.rate < found.rate
    for said in found.sentences() + ridge.sentences():
        assert said[0].isupper() and said.endswith(".") and "nan" not in said and "\n" not in said


def test_what_a_certificate_of_a_boundary_says():
    found = certificate(gaussian(1.3), 0.8, boundary=True)
    assert f"has a boundary: stable below lam = {found.safe_lam:.4g}." in found.sentences()[1]
    assert abs(found.safe_lam / 1.4493 - 1) < 0.02
    # samples at speed d(mean) + s sd z d(log_sd), of mean square (s sd)^2 along log_sd
    np.testing.assert_allclose(found.moves, 1.3 / np.sqrt(1 - 0.8 * 0.69), rtol=1e-3)
    assert not any("boundary" in said for said in certificate(gaussian(1.3), 0.8).sentences())
    unstable = Certificate(1.0, 0.0, 0.0, 1, 1.2, np.array([1.2]), np.array([np.nan]), None, np.nan, 0.5, False, None)
    assert not unstable.stable and "UNSTABLE" in unstable.sentences()[0] and "half" not in unstable.sentences()[0]
    assert "nan" not in " ".join(unstable.sentences())


@pytest.mark.parametrize(("name", "lam"), [("certificate_gaussian", 12.0), ("certificate_student_t", 3.0)])
def test_a_lam_that_is_not_in_a_configs_table_gets_its_own_value(name, lam):
    """Not that of the nearest one which the table holds: at lam 12 the Gaussian's rate is 12/13, and at 20 it is 20/21."""
    run = config.load(config.find(f"beyond/{name}"))
    assert run.law is not None and run.certify is not None and lam not in run.grid["lam"]
    table = min(run.grid["lam"], key=lambda other: abs(other - lam))
    mu = 1.0 if name == "certificate_gaussian" else student_mu()
    wanted, nearest = lam * mu / (1 + lam * mu), table * mu / (1 + table * mu)
    first, second = run.law(np.array([1, 2]), lam=lam)["gap"]
    np.testing.assert_allclose([second / first, run.certify(lam).rate], wanted, rtol=1e-3)
    ds = run.annotate(xr.Dataset(coords={"lam": [lam, table]}), {})
    np.testing.assert_allclose(ds["predicted_rate"], [wanted, nearest], rtol=1e-3)
    assert abs(nearest / wanted - 1) > 0.02


def student_mu() -> float:
    """The leading eigenvalue of the config's own loop at another lam, by the certificate."""
    rate = config.load(config.find("beyond/certificate_student_t")).certify(0.5).rate
    return rate / (1 - rate) / 0.5


def test_a_sampler_that_cannot_be_differentiated_is_differenced():
    taken = certificate(gaussian(1.3), 0.8, differences=1e-2)
    np.testing.assert_allclose(taken.rate, certificate(gaussian(1.3), 0.8).rate, rtol=2e-3)


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("lam must be a finite number > 0", {"lam": 0.0}),
        ("lam must be a finite number > 0", {"lam": -1.0}),
        ("lam must be a finite number > 0", {"lam": np.nan}),
        ("lam must be a finite number > 0", {"lam": np.inf}),
        ("gamma must be a finite number >= 0", {"gamma": -0.1}),
        ("gamma must be a finite number >= 0", {"gamma": np.nan}),
        ("damping must be a finite number >= 0", {"damping": -1e-3}),
        ("differences must be a finite step > 0", {"differences": 0.0}),
        ("differences must be a finite step > 0", {"differences": -1e-3}),
        ("differences must be a finite step > 0", {"differences": np.inf}),
    ],
)
def test_bad_numbers_are_refused(said, arguments, refused):
    with refused(said, repr(next(iter(arguments.values())))):
        certificate(gaussian(), **{"lam": 1.0, **arguments})
