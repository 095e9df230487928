"""The toys of the plane against their densities, and the distances and counts by which samples of them are judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import integrate, stats
from sklearn.datasets import make_moons

from mcloop.data import toys
from mcloop.metrics import mmd, modes, wasserstein

N = 40_000
TOYS = (toys.eight_gaussians(), toys.two_moons())
by_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)


@pytest.fixture(scope="module")
def drawn():
    """Samples of each toy (N, 2), with their log-density."""

    def of(toy):
        points = jax.jit(toy.sample, static_argnums=1)(jax.random.key(1), N)
        return np.asarray(points), np.float64(jax.jit(toy.log_prob)(points))

    return {toy.name: of(toy) for toy in TOYS}


@pytest.fixture(scope="module")
def gridded():
    """Middles of the cells of a fine grid over twice the box, (m, m, 2), with the log-density there and a cell's area."""

    def of(toy):
        left, right, bottom, top = toy.box
        # 512 = 2 x 256 cells a side, so that every edge of the box is an edge of cells
        across, up = (np.linspace(1.5 * a - b / 2, 1.5 * b - a / 2, 513) for a, b in ((left, right), (bottom, top)))
        middles = np.stack(np.meshgrid((across[1:] + across[:-1]) / 2, (up[1:] + up[:-1]) / 2, indexing="ij"), -1)
        log_density = jax.jit(toy.log_prob)(jnp.float32(middles.reshape(-1, 2))).reshape(512, 512)
        return np.float64(log_density), (right - left) * (top - bottom) / 256**2

    return {toy.name: of(toy) for toy in TOYS}


@by_toy
def test_moments(toy, drawn):
    points, _ = drawn[toy.name]
    assert points.dtype == np.float32 and points.shape == (N, 2)
    error = points.std(0) / np.sqrt(N)
    assert (np.abs(points.mean(0) - toy.shift) < 4 * error).all()
    square = ((points - toy.shift) ** 2).sum(1) / 2
    assert abs(square.mean() - toy.scale**2) < 4 * square.std() / np.sqrt(N)


@by_toy
def test_entropy_and_mass(toy, drawn, gridded):
    log_density, area = gridded[toy.name]
    mass = np.exp(log_density) * area
    assert abs(mass.sum() - 1) < 1e-5
    assert 1 - mass[128:-128, 128:-128].sum() < 1e-4  # the box
    assert abs(-(mass * log_density).sum() - toy.entropy) < 2e-5
    _, at_samples = drawn[toy.name]
    assert abs(at_samples.mean() + toy.entropy) < 4 * at_samples.std() / np.sqrt(N)


@by_toy
def test_samples_have_the_density(toy, drawn, gridded):
    log_density, area = gridded[toy.name]
    left, right, bottom, top = toy.box
    # the box in 32 cells a side, each of 8 x 8 fine ones
    expected = (np.exp(log_density) * area)[128:-128, 128:-128].reshape(32, 8, 32, 8).sum((1, 3)).ravel() * N
    seen = np.histogram2d(*drawn[toy.name][0].T, bins=32, range=((left, right), (bottom, top)))[0].ravel()
    enough = expected >= 10
    expected, seen = (np.r_[part[enough], total - part[enough].sum()] for part, total in ((expected, N), (seen, N)))
    assert enough.sum() > 100 and stats.chisquare(seen, expected).pvalue > 1e-3


@by_toy
def test_a_grid_of_keys_is_a_loop_of_keys(toy, drawn):
    keys = jnp.stack([jax.random.key(1), jax.random.key(2)])
    points = jax.jit(jax.vmap(lambda key: toy.sample(key, N)))(keys)
    np.testing.assert_allclose(points[0], drawn[toy.name][0], atol=1e-5)
    assert stats.pearsonr(points[0, :, 0], points[1, :, 0]).pvalue > 1e-3


@by_toy
def test_toys_and_metrics_lower(toy):
    def work(data):
        ours, real = (toy.sample(jax.random.wrap_key_data(k), n) for k, n in zip(data, (100, 70), strict=True))
        key = jax.random.wrap_key_data(data[0])
        pictures = modes.mode_statistics(ours, jnp.zeros((2, 2)), 1.0), modes.density(ours, toy.box)
        return toy.log_prob(ours), wasserstein.sliced_w2(key, ours, real), mmd.mmd2(ours, real, (1.0,)), pictures

    exported = export.export(jax.jit(work), platforms=("tpu", "cuda"))(jax.ShapeDtypeStruct((2, 2), np.uint32))
    assert exported.platforms == ("tpu", "cuda")


def test_moons_density_is_the_integral_along_the_arcs():
    toy = TOYS[1]
    points = [(0.5, -0.25), (-4.0, -1.0), (-1.0, 2.0), (2.0, 0.5), (6.0, 4.0), (40.0, 0.0), (-25.0, -30.0), (1.0, 40.0)]

    def expected(x, y):
        def exponent(t):
            upper = (x + 1 - 3 * np.cos(t)) ** 2 + (y + 1 - 3 * np.sin(t)) ** 2
            lower = (x - 2 + 3 * np.cos(t)) ** 2 + (y - 0.5 + 3 * np.sin(t)) ** 2
            return -np.array([upper, lower]) / 0.72

        angles = np.linspace(0, np.pi, 2001)
        peak = exponent(angles).max()
        where = angles[exponent(angles).max(0).argmax()]
        value = integrate.quad(
            lambda t: np.exp(exponent(t) - peak).sum(), 0, np.pi, points=[where], epsabs=0, epsrel=1e-10, limit=500
        )[0]
        return peak + np.log(value / (2 * np.pi) / (2 * np.pi * 0.36))

    np.testing.assert_allclose(toy.log_prob(jnp.float32(points)), [expected(*point) for point in points], rtol=3e-7, atol=1e-4)


def test_moons_are_those_of_scikit_learn(drawn):
    theirs = make_moons(4000, noise=0.2, random_state=0)[0] * 3 - 1
    ours, log_density = drawn["two_moons"]
    for i in range(2):
        assert stats.ks_2samp(theirs[:, i], ours[:, i]).pvalue > 1e-3
    assert stats.ks_2samp(TOYS[1].log_prob(jnp.float32(theirs)), log_density).pvalue > 1e-3


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sliced_w2_of_a_translate(d):
    key = jax.random.key(0)
    x = jax.random.normal(jax.random.key(1), (50, d))
    shift = jnp.arange(1.0, d + 1)
    law = np.linalg.norm(shift) / np.sqrt(d)
    if d < 3:
        np.testing.assert_allclose(wasserstein.sliced_w2(key, x + shift, x), law, rtol=1e-5)
    else:
        squares = [wasserstein.sliced_w2(jax.random.key(i), x + shift, x, 16) ** 2 for i in range(60)]
        assert abs(np.mean(squares) - law**2) < 4 * np.std(squares) / np.sqrt(60)
    assert wasserstein.sliced_w2(key, x, x) == 0
    assert wasserstein.sliced_w2(key, x[::-1], x) == 0
    assert np.isnan(wasserstein.sliced_w2(key, x.at[3].set(np.nan), x))


def test_sliced_w2_is_scipys_on_every_line():
    """Also for unequal sizes, where mass is split: along each direction, the W2 that a linear programme finds."""
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(12, 1))), np.float32(rng.exponential(size=(8, 1)))
    # equal sizes in the least common multiple
    expected = wasserstein.exact_w2(np.repeat(x, 2, 0), np.repeat(y, 3, 0))
    np.testing.assert_allclose(wasserstein.sliced_w2(jax.random.key(0), x, y), expected, rtol=1e-5)
    flat = np.c_[x, 0 * x], np.c_[y, 0 * y]  # on one line of the plane, E cos^2 = 1/2
    np.testing.assert_allclose(wasserstein.sliced_w2(jax.random.key(3), *flat), expected / np.sqrt(2), rtol=1e-5)


def test_w2_of_gaussians():
    """A Gaussian and its image under a linear map that is a gradient: the map itself is the optimal plan."""
    x = np.random.default_rng(1).normal(size=(200, 2))
    stretched = x * [3.0, 0.5] + [1.0, 0.0]
    np.testing.assert_allclose(wasserstein.exact_w2(x, stretched[::-1]), np.sqrt(((x - stretched) ** 2).sum(1).mean()))
    many = jax.random.normal(jax.random.key(2), (2, 20_000, 2))
    # along (cos, sin) the standard deviations are 1 and sqrt(9 cos^2 + sin^2): the mean over directions, by quadrature
    law = integrate.quad(lambda a: (np.sqrt(9 * np.cos(a) ** 2 + np.sin(a) ** 2) - 1) ** 2 / np.pi, 0, np.pi)[0]
    sliced = wasserstein.sliced_w2(jax.random.key(0), many[0] * jnp.float32([3.0, 1.0]), many[1])
    np.testing.assert_allclose(sliced, np.sqrt(law), rtol=0.02)


def test_floor_is_what_real_samples_give():
    toy, key = TOYS[0], jax.random.key(5)

    sample = jax.jit(toy.sample, static_argnums=1)
    sliced = jax.jit(lambda x, y: wasserstein.sliced_w2(key, x, y))
    floor, error = wasserstein.w2_floor(jax.random.key(6), sample, 200, sliced, repeats=8)
    fewer, _ = wasserstein.w2_floor(jax.random.key(6), sample, 50, sliced, repeats=8)
    assert 0 < error < floor < 1 and 1.2 < fewer / floor < 2.8  # between n^-1/4 and n^-1/2
    exact, _ = wasserstein.w2_floor(jax.random.key(6), sample, 200, wasserstein.exact_w2, repeats=4)
    # a projection contracts: SW2 <= W2 / sqrt(d) holds for the mean of the squares
    assert exact > np.sqrt(2) * floor * 0.9


def test_mmd_is_the_double_loop():
    rng = np.random.default_rng(2)
    scales = (0.5, 2.0)
    for d in (2, 12):  # differences, and expanded squares
        x, y = np.float32(rng.normal(size=(70, d))), np.float32(rng.normal(size=(90, d)) + 0.5)

        def mean(a, b, leave):
            total = sum(np.exp(-((p - q) ** 2).sum() / (2 * h**2)) for h in scales for p in a for q in b)
            return (total - leave * len(scales) * len(a)) / (len(a) * (len(b) - leave))

        expected = mean(x, x, 1) + mean(y, y, 1) - 2 * mean(x, y, 0)
        np.testing.assert_allclose(mmd.mmd2(x, y, scales), expected, atol=5e-6)
        ready = mmd.self_term(y, scales)
        np.testing.assert_allclose(mmd.mmd2(x, y, scales, ready), expected, atol=5e-6)
    every = np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(70, 1)]
    np.testing.assert_allclose(mmd.median_bandwidth(x), np.median(every), rtol=1e-5)


def test_mmd_of_gaussians_is_unbiased():
    """N(0, 1) against N(m, 1): 2 h / sqrt(h^2 + 2) (1 - exp(-m^2 / (2 (h^2 + 2)))); zero in the mean for m = 0."""
    key, h = jax.random.key(0), 0.7
    x, y = jax.random.normal(key, (2, 300, 40, 1))
    found = jax.jit(lambda m: jax.vmap(lambda a, b: mmd.mmd2(a, b + m, (h,)))(x, y))
    for m in (0.0, 0.8):
        law = 2 * h / np.sqrt(h**2 + 2) * (1 - np.exp(-(m**2) / (2 * (h**2 + 2))))
        values = np.asarray(found(m))
        assert abs(values.mean() - law) < 4 * values.std() / np.sqrt(300)
    assert (np.asarray(found(0.0)) < 0).any()


@by_toy
def test_true_samples_are_of_high_quality(toy, drawn):
    points, log_density = drawn[toy.name]
    if toy.modes is None:
        threshold = modes.density_threshold(log_density[: N // 2])
        share, law = modes.density_quality(log_density[N // 2 :], threshold), 0.999
        assert modes.density_quality(toy.log_prob(2 * points[:500]), threshold) < 0.8
    else:
        found = modes.mode_statistics(points, toy.modes, toy.std)
        share, law = found["high_quality"], 1 - np.exp(-4.5)
        assert found["mode_coverage"] == 1
        assert 0 < found["kl_modes"] < stats.chi2(7).ppf(0.999) / (2 * N)
    assert abs(share - law) < 6 * np.sqrt(law * (1 - law) / N)


def test_mode_statistics_count():
    toy = TOYS[0]
    at = jnp.asarray(toy.modes)
    one = modes.mode_statistics(jnp.tile(at[:1], (10, 1)), at, toy.std)
    assert one["mode_coverage"] == 1 / 8 and one["high_quality"] == 1
    np.testing.assert_allclose(one["kl_modes"], np.log(8), rtol=1e-6)
    # the right side of each mode, just inside of three standard deviations or just outside
    step = jnp.float32([3 * toy.std, 0])
    x = jnp.concatenate([at[:4] + 0.99 * step, at[4:] + 1.01 * step, jnp.float32([[np.nan, 0], [np.inf, 0]])])
    mixed = modes.mode_statistics(x, at, toy.std)
    np.testing.assert_allclose([mixed["mode_coverage"], mixed["high_quality"], mixed["kl_modes"]], [0.5, 0.4, 0], atol=1e-6)
    share = np.array([0.75, 0.25])
    x = jnp.repeat(at[:2], jnp.array([30, 10]), axis=0, total_repeat_length=40)
    np.testing.assert_allclose(modes.mode_statistics(x, at, 1.0)["kl_modes"], stats.entropy(np.r_[share, [0] * 6], [1 / 8] * 8))


def test_density_is_a_histogram(drawn):
    toy = TOYS[1]
    left, right, bottom, top = box = (-6.0, 4.0, -3.0, 3.5)  # some points fall outside
    points = drawn[toy.name][0][:6000].reshape(3, 2000, 2)
    pictures = jax.jit(jax.vmap(lambda x: modes.density(x, box, 20)))(points)
    assert pictures.shape == (3, 20, 20) and pictures.dtype == jnp.float32
    area = (right - left) * (top - bottom) / 400
    for x, picture in zip(points, pictures, strict=True):
        counted = np.histogram2d(*x.T, bins=20, range=((left, right), (bottom, top)))[0]
        np.testing.assert_allclose(picture * area * 2000, counted, atol=1e-3)
        assert counted.sum() < 2000
    assert np.isfinite(modes.density(jnp.full((4, 2), jnp.nan), box, 5)).all()


def test_refusals(refused):
    key, x = jax.random.key(0), np.zeros((4, 2), np.float32)
    with refused("x and y", "[4, 3]"):
        wasserstein.sliced_w2(key, x, np.zeros((4, 3)))
    with refused("projections", "0"):
        wasserstein.sliced_w2(key, x, x, 0)
    with refused("equally many", "4", "3"):
        wasserstein.exact_w2(x, x[:3])
    with refused("repeats", "1"):
        wasserstein.w2_floor(key, TOYS[0].sample, 5, wasserstein.exact_w2, 1)
    with refused("x and y", "[4]"):
        mmd.mmd2(x, x[:, 0], (1.0,))
    with refused("bandwidths", "-1.0"):
        mmd.mmd2(x, x, (1.0, -1.0))
    with refused("two points"):
        mmd.self_term(x[:1], (1.0,))
    with refused("two points"):
        mmd.median_bandwidth(x[:1])
    with refused("modes", "[8, 3]"):
        modes.mode_statistics(x, np.zeros((8, 3)), 1.0)
    with refused("box"):
        modes.density(x, (1, 0, 0, 1))
    with refused("bins", "0"):
        modes.density(x, (0, 1, 0, 1), 0)
    with refused("(n, 2)"):
        modes.density(np.zeros((4, 3)), (0, 1, 0, 1))


def test_the_released_sets_have_the_constants_of_torchcfm():
    eight = toys.eight_gaussians(released=True)
    x = np.asarray(eight.sample(jax.random.key(0), 20_000), np.float64)
    gap = np.linalg.norm(x[:, None] - eight.modes, axis=2).min(1)
    # the noise about a mode has the root of .1 for its variance, and that of ours .1
    assert abs((gap**2).mean() / 2 / 0.1**0.5 - 1) < 0.03
    assert abs(-np.asarray(eight.log_prob(jnp.float32(x))).mean() - eight.entropy) < 0.03
    moons = toys.two_moons(released=True)
    x = np.asarray(moons.sample(jax.random.key(1), 20_000), np.float64)
    plain = (x + 1) / 3  # the arcs of scikit-learn, and one number of [0, .2] in both coordinates
    across = plain[:, 1] - plain[:, 0]  # which the noise leaves as it is
    assert across.min() > -np.sqrt(2) - 0.51 and across.max() < np.sqrt(2) + 1e-3
    assert (plain.min(0) > [-1.001, -0.501]).all() and (plain.max(0) < [2.201, 1.201]).all()
    np.testing.assert_allclose(((x - moons.shift) / moons.scale).mean(0), 0, atol=0.03)
    np.testing.assert_allclose((x / moons.scale).var(0).mean(), 1, rtol=0.03)
    assert moons.log_prob is None and moons.entropy is None and "released" in moons.name
