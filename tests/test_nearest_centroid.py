"""The K-means corrector: what is nearest, how many points move, and what its centroids are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from mcloop.correctors.nearest_centroid import assign, fit_centroids, move, nearest_centroid

K = 5


@pytest.fixture(scope="module")
def digits():
    """Real images (n, 8, 8, 1) uint8 and their labels."""
    x, y = map(np.asarray, load_digits(return_X_y=True))
    return np.rint(x * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1), y


@pytest.fixture(scope="module")
def centroids(digits):
    return fit_centroids(*digits, K)


@pytest.fixture(scope="module")
def points(digits):
    """300 images near real ones, in an order of no meaning."""
    rng = np.random.default_rng(0)
    rows = rng.choice(len(digits[0]), 300)
    noisy = np.clip(digits[0][rows] + rng.normal(0, 40, (300, 8, 8, 1)), 0, 255).astype(np.uint8)
    return {"x": jnp.asarray(noisy), "label": jnp.asarray(digits[1][rows]), "extra": jnp.arange(300)}


def test_assignment_equals_scikit_learns_and_the_definition(digits, centroids, points):
    x, label = np.asarray(points["x"], float), np.asarray(points["label"])
    chosen = np.asarray(assign(points["x"], points["label"], centroids.values))
    distances = ((x[:, None] - np.asarray(centroids.values)[label]) ** 2).sum((2, 3, 4))
    np.testing.assert_array_equal(chosen, distances.argmin(1))
    for c in range(10):
        k_means = KMeans(K, n_init="auto", random_state=0).fit(digits[0][digits[1] == c].reshape(-1, 64))
        np.testing.assert_allclose(centroids.values[c].reshape(K, -1), k_means.cluster_centers_, atol=1e-3)
        np.testing.assert_array_equal(chosen[label == c], k_means.predict(x[label == c].reshape(-1, 64)))


def test_a_centroid_is_its_own_nearest_and_moving_twice_is_moving_once(centroids, points):
    flat, label = centroids.values.reshape(-1, 8, 8, 1), np.repeat(np.arange(10), K)
    np.testing.assert_array_equal(assign(flat, label, centroids.values), np.tile(np.arange(K), 10))
    once = move(jax.random.key(0), points, centroids)
    twice = move(jax.random.key(1), once, centroids)
    assert once["x"].dtype == jnp.uint8 and once["x"].shape == points["x"].shape
    np.testing.assert_array_equal(once["x"], twice["x"])
    assert not np.array_equal(once["x"], points["x"])
    np.testing.assert_array_equal(once["extra"], points["extra"])
    np.testing.assert_array_equal(once["label"], points["label"])


def test_share_of_moved_points_is_gamma_over_one_plus_gamma(centroids, points):
    def moved(key, gamma):
        new = move(key, points, centroids, gamma)["x"]
        return (new != points["x"]).any((1, 2, 3)).sum()

    keys = jax.random.split(jax.random.key(2), 10)
    gammas = jnp.array([0.0, 0.25, 1.0, 4.0, jnp.inf])
    counts = jax.jit(jax.vmap(lambda g: jax.lax.map(lambda key: moved(key, g), keys)))(gammas).sum(1)
    assert counts[0] == 0 and counts[-1] == 3000  # no image was a centroid already
    for gamma, count in zip(gammas[1:-1], counts[1:-1], strict=True):
        assert stats.binomtest(int(count), 3000, float(gamma / (1 + gamma))).pvalue > 1e-3


def test_moved_points_are_centroids_and_the_others_are_untouched(centroids, points):
    new = np.asarray(move(jax.random.key(3), points, centroids, 1.0)["x"])
    ideal = np.asarray(move(jax.random.key(3), points, centroids)["x"])
    is_moved, is_kept = (new == ideal).all((1, 2, 3)), (new == np.asarray(points["x"])).all((1, 2, 3))
    assert (is_moved ^ is_kept).all() and 100 < is_moved.sum() < 200


def test_labels_are_obeyed(centroids, points):
    """The same image under another label moves to that class's centroid."""
    other = {**points, "label": (points["label"] + 1) % 10}
    moved = np.asarray(move(jax.random.key(0), other, centroids)["x"])
    images = np.asarray(centroids.images)
    for x, label in zip(moved[:50], np.asarray(other["label"])[:50], strict=True):
        assert (images[label] == x).all((1, 2, 3)).any()


def test_one_centroid_is_the_class_mean_and_rounding_is_to_the_nearest_or_up(digits):
    clean, released = (fit_centroids(*digits, 1, faithful=faithful) for faithful in (False, True))
    means = np.stack([digits[0][digits[1] == c].mean(0) for c in range(10)])
    np.testing.assert_allclose(clean.values[:, 0], means, atol=1e-3)
    np.testing.assert_array_equal(clean.values, released.values)
    fractional = (means % 1 > 0.01) & (means % 1 < 0.99) & (means < 254)
    clear = fractional & (abs(means % 1 - 0.5) > 0.01)
    assert (np.asarray(released.images)[:, 0] == np.ceil(means))[fractional].all()
    assert (np.asarray(clean.images)[:, 0] == np.rint(means))[clear].all()
    assert (np.asarray(released.images)[:, 0][means == 0] == 0).all() and (means == 0).any()


def test_more_centroids_than_images(digits):
    """A sweep of k may run past the images of a class: each of them is a centroid then, and a remark says so."""
    rows = np.concatenate([np.flatnonzero(digits[1] == c)[: 4 + c] for c in range(10)])
    images, labels = digits[0][rows], digits[1][rows]
    found = fit_centroids(np.concatenate([images, images]), np.concatenate([labels, labels]), 1024)
    assert found.k == 13 and found.values.shape == (10, 13, 8, 8, 1)
    np.testing.assert_array_equal(found.counts, np.arange(4, 14))
    assert "1024" in found.remarks[0] and "0: 4" in found.remarks[0]
    moved = move(jax.random.key(0), {"x": images, "label": labels}, found)["x"]
    np.testing.assert_array_equal(moved, images)
    blank = move(jax.random.key(0), {"x": np.zeros_like(images[:4]), "label": labels[:4]}, found)["x"]
    assert (blank > 0).any((1, 2, 3)).all()  # what fills the places of a small class is one of its images
    some = fit_centroids(images, labels, 6)
    np.testing.assert_array_equal(some.counts, np.minimum(np.arange(4, 14), 6))
    assert not fit_centroids(images, labels, 3).remarks


def test_corrector_moves_what_the_model_draws(centroids, points):
    class Model:
        sample = staticmethod(lambda key, params, count: points)

    corrector = nearest_centroid(centroids)
    batch = corrector.sample(jax.random.key(0), Model, None, None, 300)
    np.testing.assert_array_equal(batch["x"], move(jax.random.key(1), points, centroids)["x"])
    assert corrector.name == "nearest_centroid"


def test_refusals(digits, centroids, points, refused):
    x, y = digits
    with refused("k", ">= 1", "0"):
        fit_centroids(x, y, 0)
    with refused("images", "uint8", "float"):
        fit_centroids(x / 255, y, 3)
    with refused("labels", "(1797,)", "(1796,)"):
        fit_centroids(x, y[1:], 3)
    with refused("labels", "0 to 8", "9"):
        fit_centroids(x, y, 3, classes=9)
    with refused("class 3"):
        fit_centroids(x[y != 3], y[y != 3], 3)
    with refused("gamma", "-1"):
        nearest_centroid(centroids, -1.0)
    with refused("labelled"):
        move(jax.random.key(0), points["x"], centroids)
    with refused("label", "0 to 9", "10"):
        move(jax.random.key(0), {**points, "label": points["label"] + 1}, centroids)
    with refused("uint8", "(n, 8, 8, 1)", "float32"):
        move(jax.random.key(0), {**points, "x": points["x"] / 255}, centroids)
