"""Laws against their limits, each other, and published runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import poisson

from mcloop import laws
from mcloop.laws import LAWS

g = np.arange(1, 13)


P = [0.5, 0.3, 0.2]


def test_the_registry_is_keyed_by_id_and_says_everything():
    assert all(law.id == name and all(law) for name, law in LAWS.items())
    families = {"gaussian", "regression", "categorical", "exponential", "kde", "mixture", "corrector"}
    assert {law.family for law in LAWS.values()} == families


@pytest.mark.parametrize("bad", [0, [1, 2.5], []])
def test_g_counts_fits(bad):
    with pytest.raises(ValueError, match="whole numbers from 1"):
        laws.replace_covariance(bad, 10)


def test_g_may_come_in_any_order_and_shape():
    shuffled = np.array([[5, 1], [3, 5]])
    for name, n in [("A1", 4), ("A3", 4), ("G1", 4)]:
        path = LAWS[name].value(np.arange(1, 6), n=n)
        np.testing.assert_array_equal(LAWS[name].value(shuffled, n=n), path[shuffled - 1])
    assert LAWS["T1"].value(shuffled, p=P, T=2.0).shape == (2, 2, 3)


# Gaussian: limits and conservation


@pytest.mark.parametrize("n", [2, 5, 40])
def test_accumulate_tends_to_eulers_product(n):
    np.testing.assert_allclose(laws.accumulate_covariance([20_000], n), laws.accumulate_covariance_limit(n), rtol=1e-4)
    limit = np.sin(np.pi / np.sqrt(n)) / (np.pi / np.sqrt(n))
    np.testing.assert_allclose(laws.accumulate_covariance_limit(n), limit, rtol=1e-12)


def test_replace_multiple_is_a_ratio_of_gamma_functions_and_its_error_a_harmonic_sum():
    n = 3
    closed = np.exp(gammaln(g + 1 - 1 / n) - gammaln(1 - 1 / n) - gammaln(g + 1))
    np.testing.assert_allclose(laws.replace_multiple_covariance(g, n), closed, rtol=1e-12)
    error = 1e6 * (1 - laws.replace_multiple_covariance(g, 1e6))
    np.testing.assert_allclose(error, np.cumsum(1 / g), rtol=1e-4)


def test_two_points_with_ml_covariance_have_closed_roots():
    # |x_1 - x_2|/2 of two normals is half-normal of scale 1/sqrt 2: mean 1/sqrt pi
    np.testing.assert_allclose(laws.replace_w2([1], 2), 2 - 2 / np.sqrt(np.pi), rtol=1e-12)
    np.testing.assert_allclose(laws.unbiased_root([1], 2), np.sqrt(2 / np.pi), rtol=1e-12)


def test_unbiased_collapse_is_ordered_by_jensen():
    log, root, mean = (laws.LAWS[k].value(g, n=5) for k in ("G6", "G5", "G4"))
    assert np.all(np.exp(log / 2) < root)
    assert np.all(root**2 < mean)
    np.testing.assert_allclose(laws.draws_second_moment(g, 5), mean + laws.unbiased_mean_error(g, 5), rtol=1e-12)
    np.testing.assert_allclose(laws.unbiased_log([1], 1e5), -1e-5, rtol=1e-3)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (5, 5), (10, 4)])
def test_fixed_real_set_matches_the_recursion_of_mean_and_covariance(n, m):
    N, a, D, v, path = n + m, m / (n + m), 0.0, (n - 1) / n, []
    for _ in g:
        path.append((1 / n + D, v))
        Db = D + v / m
        v, D = ((n - 1) + (m - 1) * v + n * m / N * Db) / N, a**2 * Db
    error, covariance = np.array(path).T
    np.testing.assert_allclose(laws.fixed_mean_error(g, n, m), error, rtol=1e-12)
    np.testing.assert_allclose(error + covariance, 1.0, rtol=1e-12)
    np.testing.assert_allclose(laws.corrected_mean_error(g, n, m, 0.0), error, rtol=1e-12)


def test_conservation_in_two_dimensions():
    rng, R, n = np.random.default_rng(3), 20_000, 4
    S_0 = np.array([[1.0, 0.6], [0.6, 2.0]])
    mu, root = np.zeros((R, 2)), np.broadcast_to(np.linalg.cholesky(S_0), (R, 2, 2))
    for i in range(1, 3):
        x = mu[:, None] + rng.normal(size=(R, n, 2)) @ root.mT
        mu, c = x.mean(1), x - x.mean(1, keepdims=True)
        S = c.mT @ c / n
        kept = S + mu[:, :, None] * mu[:, None, :]
        for whole, part in ((S_0, kept), (S_0 * laws.replace_covariance(i, n), S)):
            assert np.all(np.abs(part.mean(0) - whole) < 4 * part.std(0) / np.sqrt(R))
        root = np.linalg.cholesky(S)


@pytest.mark.parametrize("lam", [0.2, 1.0, 4.0])
def test_fixed_real_set_at_large_n_has_the_universal_relative_error(lam):
    n = 1e6
    np.testing.assert_allclose(n * laws.fixed_mean_error(g, n, lam * n), laws.fixed_relative_error(g, lam), rtol=1e-5)
    limit = laws.stationary_relative_error(lam)
    np.testing.assert_allclose(laws.fixed_relative_error([400], lam), limit, rtol=1e-12)
    np.testing.assert_allclose(laws.safe_lam(limit), lam, rtol=1e-9)
    a = float(laws.jacobian_eigenvalue(lam))  # D = a^2 (D + 1/lam), a scalar discrete Lyapunov equation
    np.testing.assert_allclose(limit, 1 + a**2 / lam / (1 - a**2), rtol=1e-12)


def test_perfect_correction_leaves_mixed_real_data():
    n, m = 10, 5  # every synthetic point is a real one: from the second fit on there are n + m of them
    np.testing.assert_allclose(laws.corrected_mean_error(g[1:], n, m, 1e12), 1 / (n + m), rtol=1e-9)
    errors = [laws.corrected_mean_error([200], 50, 25, gamma)[0] for gamma in (0, 0.1, 0.3, 1, 2, 5)]
    assert np.all(np.diff(errors) < 0)


@pytest.mark.parametrize("k", [0.1, 1.0, 5.0])
def test_best_weight_of_fresh_data_minimises_its_limit(k):
    n, m = 10.0, 10.0 / k
    weights = np.linspace(0.01, 1, 2001)
    limits = np.array([laws.fresh_mean_error(5000, n, m, w) for w in weights])
    best = float(laws.fresh_best_weight(k))
    np.testing.assert_allclose(weights[limits.argmin()], best, atol=5e-4)
    np.testing.assert_allclose(limits.min(), best / n, rtol=1e-6)
    np.testing.assert_allclose(laws.fresh_best_weight(1.0), 2 / (1 + np.sqrt(5)), rtol=1e-12)
    np.testing.assert_allclose(laws.fresh_mean_error(g, n, m, 0.0), 1 / n + (g - 1) / m, rtol=1e-12)


# How much synthetic data is safe


def test_relative_errors_are_the_large_n_forms_of_the_exact_laws():
    n = 1e7
    np.testing.assert_allclose(n * laws.unbiased_mean_error(g, n), laws.replace_relative_error(g), rtol=1e-12)
    np.testing.assert_allclose(n * laws.accumulate_mean_error(g, n), laws.accumulate_relative_error(g), rtol=1e-5)
    np.testing.assert_allclose(n * laws.subsample_mean_error(g, n), laws.subsample_relative_error(g), rtol=1e-5)


def test_worst_errors_are_the_limits_of_the_relative_errors():
    late = [100_000]
    worst = laws.WORST_ERROR
    np.testing.assert_allclose(laws.accumulate_relative_error(late), worst["accumulate"], rtol=1e-4)
    np.testing.assert_allclose(laws.subsample_relative_error(late), worst["accumulate-subsample"], rtol=1e-4)
    np.testing.assert_allclose(worst["accumulate-subsample"], 2.935, atol=5e-4)
    np.testing.assert_allclose(laws.stationary_relative_error(1e9), worst["fixed"], rtol=1e-8)
    np.testing.assert_allclose(worst["fresh"], laws.fresh_best_weight(1.0), rtol=1e-12)
    assert laws.safe_lam(1.5) == np.inf
    assert laws.safe_lam(1.0) == 0
    assert laws.safe_generations(3.7) == 3
    with pytest.raises(ValueError, match="at least 1"):
        laws.safe_lam(0.9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_papers_bound_is_sufficient_and_never_necessary(gamma):
    k = 1.7
    edge = laws.papers_safe_lam(k, gamma)
    np.testing.assert_allclose(laws.papers_rho(edge, k), 1 + gamma, rtol=1e-12)
    lam = np.linspace(0.01, 50, 100)
    assert np.all(laws.jacobian_eigenvalue(lam, k, gamma) < 1)
    assert np.all(laws.jacobian_eigenvalue(lam, k, gamma) <= laws.papers_rho(lam, k) / (1 + gamma))
    well_specified = laws.corrected_contraction(g, 0.8, gamma)
    np.testing.assert_allclose(laws.local_contraction(g, 0.8, 1.0, gamma), well_specified, rtol=1e-12)


# Regression


def test_regression_factors():
    unit = laws.ols_replace([1], 30, 6)
    np.testing.assert_allclose(laws.ols_accumulate([100_000], 30, 6) / unit, np.pi**2 / 6, rtol=1e-4)
    np.testing.assert_allclose(laws.ols_accumulate([6], 30, 6) / unit, 1.491, atol=5e-4)
    # an independent simulation of the fresh design gave 1.422 +- .006
    assert abs(laws.ols_accumulate_fresh([6], 30, 6) / unit - 1.422) < 3 * 0.006
    same, new = laws.ols_accumulate(g, 10**7, 6), laws.ols_accumulate_fresh(g, 10**7, 6)
    np.testing.assert_allclose(new, same, rtol=1e-5)


def test_ridge_without_penalty_is_ols_and_two_sources_have_their_limits():
    rng = np.random.default_rng(0)
    X, Sigma = rng.normal(size=(9, 3)), np.diag([1.0, 2.0, 3.0])
    C = X.T @ X / 9
    np.testing.assert_allclose(laws.ridge_excess(g, C, 0.0, 12, 1.0, Sigma), (g - 1) * 3 / 8, rtol=1e-9)
    variance = np.trace(np.linalg.inv(X.T @ X) @ Sigma)
    np.testing.assert_allclose(laws.ridge_clean_error(C, 0.0, 9, np.ones(3), Sigma=Sigma), variance, rtol=1e-9)
    np.testing.assert_allclose(laws.ols_two_sources(1, 10, 0, 3, 5.0), laws.ols_replace(1, 10, 3), rtol=1e-12)
    everything_moved = 5.0 + laws.ols_replace(1, 10, 3)
    np.testing.assert_allclose(laws.ols_two_sources(1, 0, 10, 3, 5.0), everything_moved, rtol=1e-12)
    large = laws.ols_two_sources(1, 10**7, 10**7, 3, 5.0), laws.ols_two_sources_limit(1, 10**7, 10**7, 3, 5.0)
    np.testing.assert_allclose(*large, rtol=1e-6)


# Counts, kernels, correctors


def test_gaussian_categorical_and_bernoulli_decay_alike():
    for n in (2, 9):
        np.testing.assert_allclose(laws.replace_variance(g, n, -1.0), laws.replace_covariance(g, n), rtol=1e-12)
        np.testing.assert_allclose(laws.accumulate_variance(g, n, -1.0), laws.accumulate_covariance(g, n), rtol=1e-12)
        np.testing.assert_allclose(laws.accumulate_heterozygosity(g, n), laws.accumulate_covariance(g, n), rtol=1e-12)
    np.testing.assert_array_equal(laws.replace_variance(g, 3, 0.0), 1.0)


def test_extinction_is_certain_and_slow():
    f = laws.extinction(20_000)
    assert f[0] == 0
    assert np.all(np.diff(f) > 0)
    np.testing.assert_allclose(20_000 * (1 - f[-1]), 2.0, rtol=2e-3)  # Kolmogorov: 2/(g variance)


def test_lost_mass_averages_lost_tokens_over_poisson_counts():
    p, N = np.full(1000, 1e-3), 3000.0  # three draws a word
    c = range(60)
    average = [poisson.pmf(c, 3.0) @ [laws.token_lost([i], k)[0] for k in c] for i in (2, 5)]
    np.testing.assert_allclose(laws.lost_mass([2, 5], p, N), average, rtol=1e-9)
    rare = np.full(1000, 1e-3)
    np.testing.assert_allclose(laws.lost_mass([1], rare, 500), laws.lost_mass_accumulate([1], rare, 500), rtol=1e-3)


def test_fixed_draws_tend_to_their_stationary_error():
    N, n, H = 6.0, 3.0, 0.7
    a2 = (n / (N + n)) ** 2
    np.testing.assert_allclose(laws.fixed_frequency_error([60], N, n, H), a2 * H / n / (1 - a2 * (1 - 1 / n)), rtol=1e-12)


@pytest.mark.parametrize("K", [1, 3, 8])
def test_curation_is_a_law_that_gains_at_least_its_bound(K):
    p, r = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, -3.0, 2.0, 0.5])
    kept = laws.curate(p, r, K)
    np.testing.assert_allclose(kept.sum(), 1.0, rtol=1e-12)
    assert np.all(kept <= K * p * (1 + 1e-12))
    assert kept @ np.exp(r) - p @ np.exp(r) >= laws.curation_gain_bound(p, r, K) - 1e-12
    if K == 1:
        np.testing.assert_allclose(kept, p, rtol=1e-12)


def test_curation_by_many_candidates_tilts_by_the_reward():
    p, r = np.array([0.4, 0.3, 0.3]), np.array([0.0, 1.0, 2.0])
    tilted = p * np.exp(r) / (p @ np.exp(r))
    np.testing.assert_allclose(laws.curate(p, r, 100_000), tilted, rtol=1e-4)
    np.testing.assert_allclose(laws.curated_ratio_bound([500], 0.2, 4), 1 / (1 - 0.2 * 3), rtol=1e-9)


def test_correctors_at_their_thresholds():
    phi, psi = 0.9, 0.3
    edge = float(laws.verifier_threshold(phi, psi))
    np.testing.assert_allclose(laws.verified_label_error([2], edge, phi, psi), 0.5, rtol=1e-12)
    np.testing.assert_allclose(laws.verified_mean([100_000], 1.0, 3.0), 3.0, rtol=1e-4)
    np.testing.assert_allclose(laws.extrapolated_variance([1], 15, 15, 1.0), 0.9956, atol=5e-5)
    np.testing.assert_allclose(laws.tempered([40], P, 0.8)[0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(laws.tempered([200], P, 1.3)[0], 1 / 3, rtol=1e-9)
    s = 1.5
    edge = float(laws.spread_safe_lam(s))
    np.testing.assert_allclose(np.diff(laws.spread_variance(g, edge, s)), 1 / (1 + edge), rtol=1e-9)
    np.testing.assert_allclose(laws.spread_variance([3000], 0.5, s), 1 / (1 - 0.5 * (s**2 - 1)), rtol=1e-9)
    assert laws.spread_safe_lam(0.9) == np.inf


# Published: Kazdan et al. 2410.16713, d = 1, ddof 0, mean of about 100 runs: trace ratio, squared error of the mean

KAZDAN = {
    ("replace", 10): {1: (0.964, 0.108), 10: (0.301, 0.541), 50: (0.0033, 0.941)},
    ("replace", 100): {1: (0.991, 0.009), 10: (0.891, 0.094), 50: (0.579, 0.339), 100: (0.309, 0.584)},
    ("accumulate", 10): {1: (0.967, 0.101), 10: (0.874, 0.145), 50: (0.877, 0.160), 100: (0.873, 0.158)},
    ("accumulate", 100): {1: (0.997, 0.009), 10: (0.994, 0.015), 50: (0.996, 0.016), 100: (0.997, 0.016)},
}


def run_spread(regime, n, last, R=4000):
    """Standard deviation over runs of the trace ratio and the squared error, from sufficient statistics."""
    rng, out = np.random.default_rng(1), {}
    mu, v, pool, square = np.zeros(R), np.ones(R), np.zeros(R), np.zeros(R)
    for i in range(1, last + 1):
        xbar = mu + np.sqrt(v / n) * rng.normal(size=R)
        second = v * rng.chisquare(n - 1, R) / n + xbar**2
        share = 1 / i if regime == "accumulate" else 1.0
        pool, square = (1 - share) * pool + share * xbar, (1 - share) * square + share * second
        mu, v = pool, square - pool**2
        out[i] = v.std(), (mu**2).std()
    return out


@pytest.mark.parametrize(("regime", "n"), KAZDAN)
def test_published_runs(regime, n):
    published = KAZDAN[regime, n]
    covariance = {"replace": laws.replace_covariance, "accumulate": laws.accumulate_covariance}[regime]
    spread = run_spread(regime, n, max(published))
    for i, values in published.items():
        predicted = covariance(i, n)
        for value, law, sd in zip(values, (predicted, 1 - predicted), spread[i], strict=True):
            assert abs(value - law) < 3 * sd / np.sqrt(100) + 5e-4, (regime, n, i)


# Laws of what a fixed real set settles at


def test_stationary_w2_misspecified_and_mean_square_numbers_of_independent_simulations():
    for (d, lam, gamma), wanted in {(2, 0.5, 0): 0.01094, (2, 0.5, 1): 0.00760, (5, 2, 0.3): 0.02405}.items():
        assert laws.corrected_w2(60, d, lam, gamma) / 400 == pytest.approx(wanted, abs=1e-5)
    assert laws.misspecified_relative_error(400, 20.0, 1.0, 4.0) == pytest.approx(2.951, abs=1e-3)
    np.testing.assert_allclose(laws.misspecified_relative_error(g, 2.0), laws.fixed_relative_error(g, 2.0), rtol=1e-12)
    growth = [laws.mean_square_growth(10, m, 1.5) for m in (22, 24)]
    np.testing.assert_allclose(growth, [1.0119, 1.0396], atol=1e-4)
    edge = laws.mean_square_safe_lam(10, 1.5)
    assert laws.mean_square_growth(10, 10 * edge, 1.5) == pytest.approx(1.0)
    assert edge < 2.2 < 2.5  # a typical seed is stable below 2.5
    assert laws.mean_square_safe_lam(10**7, 1.5) == pytest.approx(2.0, rel=1e-4)  # the population's
    assert laws.mean_square_safe_lam(10, 1.0) == np.inf
    np.testing.assert_allclose(laws.tempered_variance(g, 5, 10, 1.0), 1 - laws.fixed_mean_error(g, 5, 10), rtol=1e-12)
    np.testing.assert_allclose(laws.unbiased_log_det(g, 9, 1), laws.unbiased_log(g, 9), rtol=1e-12)
    np.testing.assert_allclose(laws.spread_relative_error([0.3, 2.0], 1.0, 1e5), laws.stationary_relative_error([0.3, 2.0]))


def test_the_law_of_lost_words_refuses_few_words():
    with pytest.raises(ValueError, match="many rare words"):
        laws.LAWS["Z1"].value([1], p=np.full(10, 0.1), N=20)
    zipf = 1 / np.arange(1, 1001)
    assert laws.lost_mass_holds(zipf / zipf.sum(), 10_000)
    assert "1 %" in laws.LAWS["Z1"].domain
