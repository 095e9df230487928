"""Metrics of features: closed forms and laws first, then scipy, scikit-learn and the prdc package."""

import jax
import numpy as np
import pytest
import xarray as xr
from scipy import linalg, spatial
from sklearn.metrics.pairwise import polynomial_kernel

from mcloop.data.images import Images
from mcloop.metrics import diversity, frechet, kernel
from mcloop.metrics.features import pixels_features
from mcloop.metrics.panel import image_panel
from mcloop.metrics.prdc import prdc

RNG = np.random.default_rng


def exact_sample(rng, n, mean, root):
    """n rows whose sample mean and unbiased covariance are exactly `mean` and root root^T."""
    z = rng.normal(size=(n, len(mean)))
    z = np.linalg.qr(z - z.mean(0))[0] * np.sqrt(n - 1)
    return z @ root.T + mean


def z_score(values, truth=0.0):
    values = np.asarray(values)
    return (values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


# Fréchet distance


def test_frechet_of_gaussians_in_closed_form():
    rng = RNG(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s, t, gap = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6), rng.normal(size=6)
    a, b = (exact_sample(rng, 40, m, rotation * x) for m, x in ((gap, s), (0 * gap, t)))
    expected = gap @ gap + ((s - t) ** 2).sum()  # covariances with the same eigenvectors
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    moments = gap, (rotation * s**2) @ rotation.T, 0 * gap, (rotation * t**2) @ rotation.T
    assert frechet.from_moments(*moments) == pytest.approx(expected, rel=1e-12)


def test_frechet_is_symmetric_zero_to_itself_and_scales_as_a_square():
    rng = RNG(1)
    a, b = rng.normal(size=(30, 5)), rng.normal(1, 2, size=(50, 5))
    value = frechet.frechet_distance(a, b)
    assert frechet.frechet_distance(b, a) == pytest.approx(value, rel=1e-12)
    assert frechet.frechet_distance(a, a[::-1]) < 1e-13 * a.var(0).sum()
    for scale in (1e-9, 1e7):
        assert frechet.frechet_distance(scale * a, scale * b) == pytest.approx(scale**2 * value, rel=1e-12)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert frechet.frechet_distance(a @ rotation + 3, b @ rotation + 3) == pytest.approx(value, rel=1e-10)
    assert frechet.floor(a, b[:30]) == frechet.frechet_distance(a, b[:30])


def test_frechet_with_fewer_points_than_dimensions():
    rng = RNG(2)
    u, v = rng.normal(size=(2, 60))
    a, b = np.stack([u, -u]), np.stack([v, -v])  # covariances 2 u u^T and 2 v v^T
    expected = 2 * (u @ u + v @ v - 2 * abs(u @ v))
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    moments = 0 * u, 2 * np.outer(u, u), 0 * u, 2 * np.outer(v, v)
    assert frechet.from_moments(*moments) == pytest.approx(expected, rel=1e-6)
    few = rng.normal(size=(9, 60))
    assert frechet.frechet_distance(few, few) < 1e-13 * few.var(0).sum()


def test_frechet_of_copies():
    rng = RNG(3)
    a, b = rng.normal(size=(7, 4)), rng.normal(size=(20, 4))
    copies = np.repeat(a, 5, 0)
    covariance = np.cov(a.T) * (6 * 5) / 34
    expected = frechet.from_moments(a.mean(0), covariance, b.mean(0), np.cov(b.T))
    assert frechet.frechet_distance(copies, b) == pytest.approx(expected, rel=1e-10)
    # one point only: no covariance at all
    gap = b.mean(0) - 2
    assert frechet.frechet_distance(np.full((6, 4), 2.0), b) == pytest.approx(gap @ gap + np.cov(b.T).trace(), rel=1e-12)


def test_frechet_equals_the_matrix_square_root_formula():
    rng = RNG(4)
    a, b = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)), rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    c, d, gap = np.cov(a.T), np.cov(b.T), a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet.from_moments(a.mean(0), c, b.mean(0), d) == pytest.approx(expected, rel=1e-8)


@pytest.fixture(scope="module")
def extrapolations():
    """Many model samples against one reference: (FID of all samples, extrapolations, the FID of the true model)."""
    rng, d = RNG(5), 6
    mean, scale = np.full(d, 0.3), np.linspace(0.5, 2, d)
    reference = rng.normal(size=(500, d))
    samples = rng.normal(size=(80, 600, d)) * scale + mean
    truth = frechet.from_moments(mean, np.diag(scale**2), reference.mean(0), np.cov(reference.T))
    found = [frechet.extrapolated(x, reference, key=jax.random.key(i), groups=10) for i, x in enumerate(samples)]
    return np.array([frechet.frechet_distance(x, reference) for x in samples]), found, truth


def test_extrapolation_removes_the_bias_of_a_finite_sample(extrapolations):
    plain, found, truth = extrapolations
    values = np.array([e.value for e in found])
    assert abs(z_score(values, truth)) < 3.5
    assert z_score(plain - values) > 10  # the bias is there, and what is subtracted shows it
    assert np.mean([e.slope for e in found]) / 600 == pytest.approx((plain - values).mean(), rel=0.05)
    assert [e.values[0] for e in found] == pytest.approx(plain, rel=1e-9)


def test_extrapolation_knows_its_error(extrapolations):
    _, found, _ = extrapolations
    spread, said = np.std([e.value for e in found], ddof=1), np.mean([e.error for e in found])
    assert 0.75 < said / spread < 1.35


def test_extrapolation_at_given_sizes():
    rng = RNG(6)
    x, y = rng.normal(size=(2, 200, 3))
    given = frechet.extrapolated(x, y, [200, 100, 67], jax.random.key(1), groups=8)
    order = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(1)))).permutation(200)
    x = x[order]
    expected = [np.mean([frechet.frechet_distance(x[i : i + n], y) for i in range(0, 201 - n, n)]) for n in (200, 100, 67)]
    np.testing.assert_allclose(given.values, expected, rtol=1e-9)
    slope, intercept = np.polyfit([1 / 200, 1 / 100, 1 / 67], expected, 1)
    np.testing.assert_allclose([given.slope, given.value], [slope, intercept], rtol=1e-7)


def test_frechet_refusals(refused):
    x = np.zeros((50, 3))
    with refused("a and b", "columns", "3 and 4"):
        frechet.frechet_distance(x, np.zeros((50, 4)))
    with refused("b", "n >= 2", "(1, 3)"):
        frechet.frechet_distance(x, x[:1])
    with refused("a", "finite", "1 of 50"):
        frechet.frechet_distance(np.where(np.arange(50)[:, None] == 3, np.nan, x), x)
    with refused("half_1", "50 and 49"):
        frechet.floor(x, x[1:])
    with refused("covariance_a", "symmetric"):
        frechet.from_moments(np.zeros(2), [[1.0, 2.0], [0.0, 1.0]], np.zeros(2), np.eye(2))
    with refused("covariance_b", "semi-definite", "-1"):
        frechet.from_moments(np.zeros(2), np.eye(2), np.zeros(2), np.diag([1.0, -1.0]))
    with refused("shapes"):
        frechet.from_moments(np.zeros(3), np.eye(2), np.zeros(3), np.eye(2))
    with refused("sizes", "two different"):
        frechet.extrapolated(x, x, [50, 50], groups=5)
    with refused("sizes", "10 to 50", "60"):
        frechet.extrapolated(x, x, [60, 20], groups=5)
    with refused("groups", "100"):
        frechet.extrapolated(x, x, groups=100)


# Kernel distance


def test_kid_is_unbiased_and_knows_its_error():
    rng = RNG(7)
    found = [kernel.kid(*rng.normal(size=(2, 60, 4)), blocks=4, key=jax.random.key(i)) for i in range(250)]
    values = np.array([e.value for e in found])
    assert abs(z_score(values)) < 3.5
    spread, said = values.std(ddof=1), np.sqrt(np.mean([e.error**2 for e in found]))
    assert 0.8 < said / spread < 1.25
    shifted = [kernel.kid(rng.normal(size=(60, 4)), rng.normal(0.3, 1, size=(90, 4)), 4).value for _ in range(50)]
    assert z_score(shifted) > 6


def test_kid_equals_scikit_learns_kernel():
    rng = RNG(8)
    a, b = rng.normal(size=(20, 5)), rng.normal(1, 2, size=(31, 5))
    k = [polynomial_kernel(x, y, degree=3, gamma=1 / 5, coef0=1) for x, y in ((a, a), (b, b), (a, b))]
    expected = sum((m.sum() - np.trace(m)) / (len(m) * (len(m) - 1)) for m in k[:2]) - 2 * k[2].mean()
    assert kernel.mmd2(a, b) == pytest.approx(expected, rel=1e-12)
    assert kernel.kid(a, b, 2) != kernel.kid(a, b, 2, jax.random.key(9))  # the key draws the blocks
    assert kernel.kid(a, b, 2) == kernel.kid(a, b, 2)


def test_kid_of_rows_sorted_by_class():
    """Blocks are drawn, so rows in any order are judged alike."""
    rng = RNG(9)
    x = np.repeat(np.arange(4.0), 100)[:, None] + rng.normal(0, 0.1, size=(400, 3))
    estimate = kernel.kid(x, x[rng.permutation(400)] + rng.normal(0, 0.1, size=(400, 3)), 5)
    assert abs(estimate.value) < 5 * estimate.error


# Precision, recall, density, coverage


def test_prdc_of_equal_and_of_disjoint_sets():
    x = RNG(10).normal(size=(300, 6)).astype(np.float32)
    assert prdc(x, x)[:2] == (1.0, 1.0) and prdc(x, x).coverage == 1.0
    assert prdc(x, x + 1000) == (0.0, 0.0, 0.0, 0.0)


def test_precision_of_one_is_recall_of_the_other():
    a, b = RNG(11).normal(size=(150, 3)), RNG(12).normal(0.5, 0.7, size=(170, 3))
    assert prdc(a, b, 4).precision == prdc(b, a, 4).recall
    assert 0.02 < prdc(a, b, 4).recall < prdc(a, b, 4).precision < 1


def test_density_and_coverage_have_their_expectations_for_equal_distributions():
    """A ball through the k-th of n - 1 neighbours holds k / n of the mass on average (Naeem et al., Lemma 2 and eq. 9)."""
    rng, n, m, k = RNG(13), 60, 90, 3
    found = [prdc(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k) for _ in range(200)]
    assert abs(z_score([f.density for f in found], 1.0)) < 3.5
    missed = np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    assert abs(z_score([f.coverage for f in found], 1 - missed)) < 3.5


def test_copies_reach_nothing():
    """More than k copies of a point have an empty ball, whatever rounding makes of their distance."""
    for n, m, d in ((131, 43, 37), (257, 51, 7), (301, 61, 83)):  # sizes that leave remainders in a matrix product's blocks
        real = RNG(14).normal(size=(n, d))
        found = prdc(real, np.repeat(real[:m], 5, 0))
        assert found.precision == 1.0 and found.recall == 0.0 and m / n <= found.coverage < 0.9
        assert prdc(real, np.repeat(real[:m], 3, 0)).recall > 0.3


@pytest.mark.parametrize("kind", ["apart", "copies", "grid"])
def test_prdc_equals_the_package(kind, capsys):
    package = pytest.importorskip("prdc")
    rng = RNG(15)
    real, fake = rng.normal(size=(400, 5)), rng.normal(0.5, 1.2, size=(350, 5))
    if kind == "copies":
        real, fake = np.repeat(np.rint(real), 2, 0), np.repeat(np.rint(2 * real[:150]), 3, 0)
    if kind == "grid":
        real, fake = rng.integers(0, 4, size=(2, 300, 4)).astype(float)
    for k in (1, 3, 5):
        expected = package.compute_prdc(real, fake, k)
        capsys.readouterr()  # it prints
        assert prdc(real, fake, k)._asdict() == pytest.approx(expected, abs=1e-12)


def test_prdc_refusals(refused):
    x = np.zeros((6, 2))
    with refused("k", "1 to 4", "5"):
        prdc(x, x, 5)
    with refused("real and fake", "2 and 1"):
        prdc(x, x[:, :1])


# Diversity and classes


def test_diversity_is_the_mean_distance_of_pairs():
    x = RNG(16).normal(size=(60, 4))
    found = [diversity.diversity(x, jax.random.key(i)) for i in range(300)]
    assert abs(z_score([e.value for e in found], spatial.distance.pdist(x).mean())) < 3.5
    fresh = [diversity.diversity(RNG(100 + i).normal(size=(60, 4)), pairs=20) for i in range(200)]
    assert 0.85 < np.mean([e.error for e in fresh]) / np.std([e.value for e in fresh]) < 1.2
    assert diversity.diversity(np.ones((10, 3))) == (0.0, 0.0)


def test_class_histogram_of_labels_and_of_probabilities():
    labels = np.array([0, 2, 2, 1, 2])
    shares = diversity.class_histogram(labels, 4)
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.6, 0])
    np.testing.assert_allclose(diversity.class_histogram(np.eye(4, dtype=np.float32)[labels], 4), shares, rtol=1e-7)
    assert diversity.total_variation(shares, shares) == 0
    assert diversity.total_variation(shares, [0, 0, 0, 1]) == pytest.approx(1)
    assert diversity.total_variation(shares, [0.4, 0, 0.6, 0]) == pytest.approx(0.2)


def test_diversity_refusals(refused):
    with refused("pairs", "2 to 5", "6"):
        diversity.diversity(np.zeros((10, 3)), pairs=6)
    with refused("labels", "0 to 3", "4"):
        diversity.class_histogram(np.array([0, 4]), 4)
    with refused("probabilities", "(n, 4)", "(2, 3)"):
        diversity.class_histogram(np.ones((2, 3)) / 3, 4)
    with refused("summing to 1"):
        diversity.class_histogram(np.ones((2, 4)), 4)
    with refused("p and q", "(2,) and (3,)"):
        diversity.total_variation([0.5, 0.5], [0.5, 0.5, 0])


def small_images(n=60, classes=4, tests=25):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (n + tests, 8, 8, 1), np.uint8), (np.arange(n + tests) % classes).astype(np.int32)
    return Images("digits", x[:n], y[:n], x[n:], y[n:], "noise")


def knows_ten():
    """Pixels, and a classifier of ten classes of which the data has four."""
    return pixels_features()._replace(classify=lambda x: np.eye(10)[x[:, 0, 0, 0] % 10])


@pytest.mark.parametrize("samples", [5, 7, 39, 60])
def test_few_images_of_few_classes_are_judged(samples):
    data = small_images()
    panel = image_panel(data, samples, knows_ten())
    seen = panel.see({"x": data.train_x[:samples], "label": data.train_y[:samples]}, None)
    assert np.isfinite([seen[name] for name in ("fid", "kid", "precision", "recall", "diversity", "class_tv")]).all()
    ds = panel.annotate(xr.Dataset({"fid": ((), seen["fid"]), "kid": ((), seen["kid"])}))
    assert ds.real_samples.shape == (40, 8, 8)
    if samples < 60:  # a floor is the mean of draws that differ
        assert ds.fid.attrs["floor_spread"] > 0
        assert abs(ds.fid.attrs["floor"] - seen["fid"]) < 8 * ds.fid.attrs["floor_spread"]


def test_too_few_images_are_refused_before_anything_is_trained(refused):
    with refused("samples", "not 4"):
        image_panel(small_images(), 4, knows_ten())
    with refused("number of test images", "not 4"):
        image_panel(small_images(tests=4), 20, knows_ten())


def test_the_reference_of_precision_is_not_the_first_of_the_test_set():
    data = small_images(n=60, tests=2500)
    data = data._replace(test_x=np.where(np.arange(2500)[:, None, None, None] < 2000, np.uint8(0), data.test_x))
    seen = image_panel(data, 60, pixels_features()).see({"x": data.train_x, "label": data.train_y}, None)
    assert seen["recall"] > 0  # noise reaches the noise among the last 500, of which the first 2,000 have none
