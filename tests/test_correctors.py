"""What correctors do to samples: exact mixtures, temperatures, verifiers, curation, and the histogram as released."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcloop import correctors, exact, regimes
from mcloop.drivers.scan import scan, trajectory
from mcloop.exact.categorical import Categorical
from mcloop.laws import LAWS
from mcloop.loop import make_loop
from mcloop.memory.rows import rows
from mcloop.studies.gillman_toy import gillman_toy

S, N = 6000, 6
GAMMAS = (0.0, 1.0, np.inf)
TEMPERATURES = (0.5, 3.0)


def column(values):
    return jnp.float32(values)[:, None]


def z_score(sample, value):
    return (sample.mean() - value) / (sample.std() / np.sqrt(sample.size))


# Mixture and temperature, one draw at a time: params N(2, 1/4), truth N(0, 1), N points


@pytest.fixture(scope="module")
def drawn():
    """Mean and covariance of N corrected points: by corrector and memory, (parameters, S)."""
    known = [exact.Normal(jnp.full((1, 1, 1), m), jnp.full((1, 1, 1, 1), s)) for m, s in ((2.0, 0.5), (0.0, 1.0))]

    def fitted(corrector, literal, key):
        model = exact.gaussian(d=1, n=N, literal=literal)
        batch = corrector.sample(key, model, *known, jnp.float32(N))
        params, _ = model.fit(key, known[0], batch)
        return params.mean[0], params.root[0, 0] ** 2

    @jax.jit
    def run(keys):
        return {
            ("mixture", literal): fitted(correctors.mixture(column(GAMMAS)), literal, keys[literal]) for literal in (0, 1)
        } | {("temperature", 0): fitted(correctors.temperature(column(TEMPERATURES)), 0, keys[0])}

    found = run(jax.random.split(jax.random.key(4), (2, 1, S)))
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def test_gamma_zero_corrects_nothing_and_gamma_infinity_is_the_truth(drawn):
    for literal in (0, 1):
        mean, variance = drawn["mixture", literal]
        for i, (m, s2) in ((0, (2.0, 0.25)), (2, (0.0, 1.0))):
            assert stats.kstest(mean[i], stats.norm(m, np.sqrt(s2 / N)).cdf).pvalue > 1e-4
            assert stats.kstest(N * variance[i] / s2, stats.chi2(N - 1).cdf).pvalue > 1e-4


def test_between_them_points_come_from_either_with_probability_gamma_over_one_plus_gamma(drawn):
    spread = (0.25 + 1) / 2 + 1  # within the two components and between them
    for literal in (0, 1):
        mean, variance = drawn["mixture", literal]
        assert abs(z_score(mean[1], 1.0)) < 4 and abs(z_score((mean[1] - 1) ** 2, spread / N)) < 4
        assert abs(z_score(variance[1], spread * (N - 1) / N)) < 4
    for one, other in zip(drawn["mixture", 0], drawn["mixture", 1], strict=True):
        assert stats.ks_2samp(one[1], other[1]).pvalue > 1e-4


def test_temperature_scales_the_covariance(drawn):
    mean, variance = drawn["temperature", 0]
    for i, temperature in enumerate(TEMPERATURES):
        assert stats.kstest(mean[i], stats.norm(2, np.sqrt(0.25 * temperature / N)).cdf).pvalue > 1e-4
        assert stats.kstest(N * variance[i] / (0.25 * temperature), stats.chi2(N - 1).cdf).pvalue > 1e-4


# Loops against their laws


@pytest.fixture(scope="module")
def corrected():
    """Fixed real data and mixture-corrected samples, d = 2: cells are (n, lam, gamma)."""
    n, lam, gamma = (column(x) for x in zip((50, 0.5, 0.0), (50, 0.5, 1.0), (4, 1.0, 0.5), strict=True))
    loop = make_loop(exact.gaussian(d=2, n=n), regimes.augment(lam), correctors.mixture(gamma))
    keys = jax.random.split(jax.random.key(1), (1, 12_000))
    infos = jax.jit(lambda keys: trajectory(loop, keys, None, 10)[1])(keys)
    return {n: np.asarray(infos[n], np.float64) for n in ("w2", "mean_sq_error")}


def test_the_clean_toy_settles_where_it_should(corrected):
    for row, rms in ((0, 0.2965), (1, 0.2467)):
        square = corrected["w2"][-1, row] ** 2
        error = square.std() / np.sqrt(square.size) / (2 * rms)
        assert abs(np.sqrt(square.mean()) - rms) < 4 * np.hypot(error, 0.0007)
    settled = corrected["w2"][6:, 0]
    assert abs(settled[0].mean() - settled[-1].mean()) < 0.003


@pytest.mark.parametrize("g", [2, 3])
def test_the_mixtures_mean_follows_its_law(corrected, g):
    law, sample = LAWS["B5"], corrected["mean_sq_error"][g - 1, 2] / 2
    right, wrong = (f([g], n=4, m=4, gamma=0.5)[0] for f in (law.value, law.wrong))
    assert abs(z_score(sample, right)) < 4
    if g == 2:
        assert abs(z_score(sample, wrong)) > 6


def test_extrapolation_undoes_what_one_generation_loses():
    n, m, w = 10, 5, 0.5
    model = exact.gaussian(d=1, n=n, covariance="diagonal")
    loop = make_loop(model, regimes.replace(lambda n, t: jnp.float32(m)), correctors.extrapolate(w))
    final, _ = scan(loop, jax.random.split(jax.random.key(2), 100_000), generations=2)
    law, variance = LAWS["N1"], np.asarray(final.params.root[0], np.float64) ** 2
    right, wrong = (f([2], n=n, m=m, w=w)[0] / f([1], n=n, m=m, w=w)[0] for f in (law.value, law.wrong))
    assert abs(z_score(variance, right)) < 4 and abs(z_score(variance, wrong)) > 6


def test_extrapolation_is_linear_in_means_and_covariances():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=2), np.cov(rng.normal(size=(2, 9)))) for _ in range(2)]
    pairs[1][1][:] *= 0.1
    a, b = (exact.normal(*pair) for pair in pairs)
    out = correctors.extrapolate(0.5).refine(exact.gaussian(d=2, n=9), b, a)
    np.testing.assert_allclose(out.mean, 1.5 * pairs[0][0] - 0.5 * pairs[1][0], rtol=1e-5)
    np.testing.assert_allclose(out.root @ out.root.T, 1.5 * pairs[0][1] - 0.5 * pairs[1][1], rtol=1e-4)
    unchanged = correctors.extrapolate(0.0).refine(exact.gaussian(d=2, n=9), b, a)
    np.testing.assert_allclose(unchanged.root @ unchanged.root.T, pairs[0][1], rtol=1e-4)


def test_a_verifier_adds_its_precision_and_pulls_to_its_own_centre():
    centre, tau = 2.0, 1.5
    loop = make_loop(exact.gaussian(d=1, n=2**22), regimes.replace(), correctors.verifier([centre], tau))
    final, infos = scan(loop, jax.random.key(3), generations=4)
    g = np.arange(1, 5)
    law = LAWS["F2"]
    np.testing.assert_allclose(infos["trace_ratio"], law.value(g, tau2=tau**2), rtol=0.01)
    assert abs(infos["trace_ratio"][-1] / law.wrong([4], tau2=tau**2)[0] - 1) > 0.1
    np.testing.assert_allclose(final.params.mean[0], LAWS["F2m"].value([4], tau2=tau**2, c=centre)[0], atol=0.01)
    assert abs(final.params.mean[0] - LAWS["F2m"].wrong([4], tau2=tau**2, c=centre)[0]) > 0.05


@pytest.mark.parametrize("covariance", ["full", "diagonal", "isotropic"])
def test_accepted_gaussians_are_the_product_of_densities(covariance):
    spread = np.cov(np.random.default_rng(1).normal(size=(3, 9)))
    spread = {"full": spread, "diagonal": np.diag(spread), "isotropic": np.diag(spread)[:1]}[covariance]
    mean, centre, tau = np.array([1.0, -2, 0.5]), np.array([0.0, 1, 2]), 0.7
    out = exact.gaussian(d=3, n=9, covariance=covariance).forms.accept(exact.normal(mean, spread), (centre, tau))
    matrix = spread if covariance == "full" else np.diag(np.broadcast_to(spread, 3))
    product = np.linalg.inv(np.linalg.inv(matrix) + np.eye(3) / tau**2)
    np.testing.assert_allclose(out.mean, product @ (np.linalg.solve(matrix, mean) + centre / tau**2), rtol=1e-4)
    root = np.asarray(out.root)
    found = root @ root.T if covariance == "full" else np.diag(np.broadcast_to(root**2, 3))
    np.testing.assert_allclose(found, product, rtol=1e-4, atol=1e-6)


def test_kept_labels_are_tilted_by_how_likely_each_is_kept():
    model = exact.categorical(2, 100)
    kept = model.forms.accept(Categorical(jnp.float32([0.7, 0.3])), jnp.float32([0.9, 0.3]))
    np.testing.assert_allclose(kept.p, np.array([0.63, 0.09]) / 0.72, rtol=1e-6)


def test_the_best_of_k_is_chosen_by_bradley_terry_odds():
    k, p, reward, n = 3, [0.5, 0.3, 0.2], jnp.float32([0, 1, 2.5]), 40_000
    model = exact.categorical(3, n, literal=True)
    truth = Categorical(jnp.float32(p))
    curated = correctors.best_of_k(k, lambda tokens: reward[tokens])
    batch = jax.jit(lambda key: curated.sample(key, model, truth, truth, n))(jax.random.key(5))
    utility = np.exp(np.asarray(reward, np.float64))[np.asarray(batch.values)]
    law = LAWS["F1"]
    right, wrong = (f([2], p=p, r=[0, 1, 2.5], K=k)[0] for f in (law.value, law.wrong))
    assert abs(z_score(utility, right)) < 4 and abs(z_score(utility, wrong)) > 6


# The histogram, on one fixed batch

POINTS = np.random.default_rng(8).normal(size=(25, 2)).astype(np.float32) * [1.3, 0.6] + [0.4, -0.2]
BINS = 10


def fixed():
    """A 2-D Gaussian whose model always draws the same points, and whose truth draws as it should."""
    model = exact.gaussian(d=2, n=25, literal=True)

    def sample(key, params, count):
        if params is None:
            points = jnp.broadcast_to(jnp.float32(POINTS).reshape((25, 2) + (1,) * key.ndim), (25, 2, *key.shape))
            return rows(points, count, cells=key.shape)
        return model.sample(key, params, count)

    return model._replace(sample=sample)


@pytest.fixture(scope="module")
def resampled():
    """(gamma, released) -> points (25,000, 2)."""
    truth = exact.Normal(jnp.zeros((2, 1, 1)), jnp.eye(2)[..., None, None])
    gammas = {0: (0.0, 1e9), 1: (0.0, 1.0)}

    @jax.jit
    def run(keys):
        parts = [correctors.histogram(column(gammas[released]), BINS, bool(released)) for released in gammas]
        return [part.sample(keys, fixed(), None, truth, 25).values for part in parts]

    found = run(jax.random.split(jax.random.key(6), (1, 1000)))  # each (25, 2, gammas, S)
    rows = {r: np.asarray(x, np.float64).transpose(2, 0, 3, 1).reshape(2, -1, 2) for r, x in enumerate(found)}
    return {(gamma, r): rows[r][i] for r in gammas for i, gamma in enumerate(gammas[r])}


def test_the_valid_histogram_keeps_the_batchs_histogram_at_gamma_zero(resampled):
    ours = resampled[0.0, 0]
    counted, *edges = np.histogram2d(*POINTS.astype(np.float64).T, BINS)
    seen = np.histogram2d(*ours.T, [np.concatenate([[e[0] - 1e-5], e[1:-1], [e[-1] + 1e-5]]) for e in edges])[0]
    assert seen.sum() == len(ours)
    full = counted > 0
    assert seen[~full].sum() < 1e-3 * len(ours)  # a point on an edge, to rounding
    expected = counted[full] / 25 * seen[full].sum()
    assert stats.chisquare(seen[full], expected).pvalue > 1e-4
    for i in (0, 1):
        within = (ours[:, i] - edges[i][0]) / (edges[i][1] - edges[i][0]) % 1
        assert stats.kstest(within, "uniform").pvalue > 1e-4


def test_the_valid_histogram_is_the_truth_at_large_gamma(resampled):
    for x in resampled[1e9, 0].T:
        assert stats.kstest(x, "norm").pvalue > 1e-4


def script(gamma, count, rng):
    """The released script's corrector: rejection from N(0, I) under a bound that is no envelope."""
    t = gamma / (1 + gamma)
    counted, *edges = np.histogram2d(*POINTS.astype(np.float64).T, BINS)
    width = np.array([e[1] - e[0] for e in edges])
    density = counted / counted.sum() / width.prod()
    low = np.array([e[0] for e in edges])
    bound = ((1 - t) * density.max() + t / (2 * np.pi)) / (1 / (2 * np.pi))
    kept = []
    while sum(map(len, kept)) < count:
        x = rng.normal(size=(100_000, 2))
        ideal = np.exp(-(x**2).sum(1) / 2) / (2 * np.pi)
        index = np.trunc((x - low) / width).astype(int)  # int() goes towards zero
        inside = ((index >= 0) & (index < BINS)).all(1)
        index = np.where(inside[:, None], index, 0)
        target = (1 - t) * np.where(inside, density[index[:, 0], index[:, 1]], 0) + t * ideal
        kept.append(x[rng.random(len(x)) * bound * ideal < target])
    return np.concatenate(kept)[:count]


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_released_histogram_draws_what_the_released_script_draws(resampled, gamma):
    ours, theirs = resampled[gamma, 1], script(gamma, 25_000, np.random.default_rng(9))
    for read in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: np.hypot(*x.T), lambda x: x.sum(1)):
        assert stats.ks_2samp(read(ours), read(theirs)).pvalue > 1e-4
    valid = resampled[0.0, 0]
    assert stats.ks_2samp(np.hypot(*ours.T), np.hypot(*valid.T)).pvalue < 1e-8


# step of the released script -> W2 at gamma 0, .1, 1, 5: means of six runs of that script
PUBLISHED = {50: (0.445, 0.348, 0.130, 0.075), 100: (0.491, 0.365, 0.139, 0.062), 500: (0.581, 0.408, 0.133, 0.045)}


def reproduces(steps, replicas):
    loop = gillman_toy(column((0, 0.1, 1, 5)))
    keys = jax.random.split(jax.random.key(10), (1, replicas))
    infos = jax.jit(lambda keys: trajectory(loop, keys, None, max(steps) + 1)[1])(keys)
    pooled = np.asarray(infos["effective_lam"]).reshape(max(steps) + 1, -1)[-1]
    assert 0.48 * max(steps) / 2 < pooled.min() <= pooled.max() < 0.52 * max(steps) / 2  # half of 25 points a step over 50
    for step in steps:
        for sample, mean in zip(np.asarray(infos["w2"], np.float64)[step], PUBLISHED[step], strict=True):
            error = np.hypot(sample.std() / np.sqrt(6), sample.std() / np.sqrt(replicas))
            assert abs(sample.mean() - mean) < 3.5 * error + 0.0005, (step, mean, sample.mean(), error)


def test_the_released_toy_reproduces_its_released_numbers():
    reproduces((50, 100, 500), 24)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: correctors.mixture(-1), ("gamma must be", "-1")),
        (lambda: correctors.mixture(np.nan), ("gamma must be", "nan")),
        (lambda: correctors.mixture("strong"), ("gamma must be", "'strong'")),
        (lambda: correctors.histogram(np.inf), ("gamma must be", "inf")),
        (lambda: correctors.temperature(0), ("temperature must be", "0")),
        (lambda: correctors.extrapolate(-0.1), ("w must be", "-0.1")),
        (lambda: correctors.verifier(), ("verifier must be given",)),
        (lambda: correctors.verifier(tau=1.0, keep=[0.5]), ("verifier must be given",)),
        (lambda: correctors.verifier(tau=-1.0), ("tau must be", "-1.0")),
        (lambda: correctors.verifier(keep=[0.5, 0]), ("keep must be",)),
        (lambda: correctors.best_of_k(0, lambda x: x), ("k must be", "0")),
        (lambda: correctors.best_of_k(1.5, lambda x: x), ("k must be", "1.5")),
        (lambda: gillman_toy(-1.0), ("gamma must be",)),
        (lambda: gillman_toy(1.0, lam=2.0), ("lam must be", "2.0")),
    ],
)
def test_what_makes_no_sense_is_refused(build, said, refused):
    with refused(*said):
        build()


def test_a_family_without_the_means_is_refused_by_name(refused):
    key, waiting = jax.random.key(0), exact.poisson(n=10)
    for corrector, said in (
        (correctors.temperature(2.0), "temperature"),
        (correctors.verifier([0.0], 1.0), "verifier"),
        (correctors.best_of_k(2, lambda x: x), "literal=True"),
        (correctors.histogram(1.0), "literal=True"),
    ):
        with refused(said, "poisson"):
            corrector.sample(key, waiting, None, None, 10)
    with refused("verifier", "tau, not keep", "gaussian"):
        scan(make_loop(exact.gaussian(2, 10), regimes.replace(), correctors.verifier(keep=[0.9, 0.5])), key, generations=2)
    with refused("verifier", "keep, not tau", "categorical"):
        scan(make_loop(exact.categorical(3, 10), regimes.replace(), correctors.verifier(0.0, 1.0)), key, generations=2)
    with refused("extrapolate", "kde"):
        correctors.extrapolate(1.0).refine(exact.kde(n=10), None, None)
    with refused("two-dimensional", "3"):
        flat = exact.gaussian(d=3, n=10, literal=True)
        scan(make_loop(flat, regimes.replace(), correctors.histogram(1.0, released=True)), key, generations=2)
    with refused("generations must be given"):
        gillman_toy(1.0).init(key)
