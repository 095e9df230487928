"""Image data sets: where they are found, what is refused, how they are resized; and the features of images."""

import gzip
import io
import os
import sys

import jax
import numpy as np
import pytest

from mcloop.data.images import load, resize
from mcloop.experiment.config import find
from mcloop.experiment.config import load as load_config
from mcloop.metrics import features
from mcloop.metrics.frechet import frechet_distance
from mcloop.nets.lenet import lenet

PUBLISHED = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)  # MNIST's first training labels


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any data set; returns a folder to put some into."""
    monkeypatch.delenv("MCLOOP_DATA", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def made(first=PUBLISHED, train=40, test=20):
    """Four arrays as Keras' mnist.npz holds them; every image is told by its corner."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(train + test, 28, 28), dtype=np.uint8)
    x[:, 0, 0] = np.arange(train + test)
    y = rng.integers(0, 10, size=train + test, dtype=np.uint8)
    y[: len(first)] = first
    return {"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}


def write_idx(folder, arrays, packed):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for name, x in zip(names, (arrays[k] for k in ("x_train", "y_train", "x_test", "y_test")), strict=True):
        data = bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()
        (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(data) if packed else data)


def same(images, arrays):
    assert images.train_x.dtype == images.test_x.dtype == np.uint8
    assert images.train_y.dtype == images.test_y.dtype == np.int32
    np.testing.assert_array_equal(images.train_x[..., 0], arrays["x_train"])
    np.testing.assert_array_equal(images.test_x[..., 0], arrays["x_test"])
    np.testing.assert_array_equal(images.train_y, arrays["y_train"])
    np.testing.assert_array_equal(images.test_y, arrays["y_test"])


# Where data is found


def test_npz_in_the_folder_that_the_environment_or_the_caller_names(nowhere, monkeypatch):
    arrays = made()
    np.savez_compressed(nowhere / "mnist.npz", **arrays)
    given = load("mnist", folder=nowhere)
    same(given, arrays)
    assert given.name == "mnist" and "mnist.npz" in given.source and given.remarks == ()
    monkeypatch.setenv("MCLOOP_DATA", str(nowhere))
    same(load("mnist"), arrays)


@pytest.mark.parametrize(("place", "packed"), [("mnist", False), ("MNIST/raw", True), (".", True)])
def test_idx_files(nowhere, place, packed):
    arrays = made()
    write_idx(nowhere / place, arrays, packed)
    same(load("mnist", folder=nowhere), arrays)


def test_idx_files_of_the_other_set_are_not_taken(nowhere, refused):
    """Both sets' files have the same names; the first labels tell them apart."""
    write_idx(nowhere, made(first=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5)), packed=True)
    assert load("fashion_mnist", folder=nowhere).name == "fashion_mnist"
    with refused("no MNIST", "mnist.npz"):
        load("mnist", folder=nowhere)
    np.savez(nowhere / "fashion_mnist.npz", **made())
    with refused("holds MNIST", "not Fashion-MNIST"):
        load("fashion_mnist", folder=nowhere)


def test_files_sorted_by_class_are_mixed_and_said_to_be(nowhere):
    arrays = made(first=(), train=200)
    for part in ("train", "test"):
        order = np.argsort(arrays[f"y_{part}"], kind="stable")
        arrays |= {f"{v}_{part}": arrays[f"{v}_{part}"][order] for v in "xy"}
    np.savez(nowhere / "mnist.npz", **arrays)
    found, again = load(folder=nowhere), load(folder=nowhere)
    assert "sorted by class" in found.remarks[0]
    np.testing.assert_array_equal(found.train_x, again.train_x)
    assert len(set(found.train_y[:40])) == 10
    rows = {(int(x[0, 0]), int(y)) for x, y in zip(arrays["x_train"], arrays["y_train"], strict=True)}
    assert rows == {(int(x[0, 0, 0]), int(y)) for x, y in zip(found.train_x, found.train_y, strict=True)}


def test_another_order_is_kept_and_said(nowhere):
    arrays = made(first=(1, 2, 3))
    np.savez(nowhere / "mnist.npz", **arrays)
    found = load(folder=nowhere)
    same(found, arrays)
    assert "not in its published order" in found.remarks[0] and "sorted" not in found.remarks[0]


def test_prepared_tfds_is_read_in_published_order_without_the_network(nowhere):
    tfds = pytest.importorskip("tensorflow_datasets")
    from PIL import Image

    arrays = made()

    class Mnist(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            image, label = tfds.features.Image(shape=(28, 28, 1)), tfds.features.ClassLabel(num_classes=10)
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label}))

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(part) for part in ("train", "test")}

        def _generate_examples(self, part):
            for i, (x, y) in enumerate(zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)):
                buffer = io.BytesIO()
                Image.fromarray(x).save(buffer, "PNG")
                yield i, {"image": buffer.getvalue(), "label": int(y)}

    Mnist(data_dir=os.environ["TFDS_DATA_DIR"], file_format="array_record").download_and_prepare()
    found = load("mnist")
    same(found, arrays)
    assert "TensorFlow Datasets" in found.source and found.remarks == ()


def test_unreadable_tfds_is_passed_over_and_said(nowhere):
    folder = nowhere.parent / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    pytest.importorskip("tensorflow_datasets")
    found = load("mnist")
    assert found.name == "digits" and "TensorFlow Datasets cannot read" in found.remarks[0] and len(found.remarks) == 2


def test_digits_stand_in_and_say_so(nowhere, monkeypatch):
    already = "tensorflow_datasets" in sys.modules
    found = load("mnist", pixels=8)
    assert ("tensorflow_datasets" in sys.modules) == already  # slow to import, and there is nothing to read
    (remark,) = found.remarks
    assert (
        found.name == "digits" and "MNIST was not found" in remark and "MCLOOP_DATA" in remark and "digits stand in" in remark
    )
    asked = load("digits", pixels=8)
    assert asked.remarks == () and asked.train_x.shape == (1198, 8, 8, 1) and asked.test_x.shape == (599, 8, 8, 1)
    np.testing.assert_array_equal(asked.train_x, found.train_x)
    assert asked.train_x.min() == 0 and asked.train_x.max() == 255
    for labels, count in ((asked.train_y, 1198), (asked.test_y, 599)):
        assert np.bincount(labels).min() > 0.08 * count
    monkeypatch.setenv("MCLOOP_DATA", str(nowhere))
    assert str(nowhere) in load("fashion_mnist").remarks[0] and "Fashion-MNIST" in load("fashion_mnist").remarks[0]


# What is refused


def test_damaged_files_are_one_sentence(nowhere, refused):
    np.savez(nowhere / "mnist.npz", **made())
    whole = (nowhere / "mnist.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[5000] ^= 1
    for data in (whole[:9000], b"", b"no archive", bytes(flipped)):
        (nowhere / "mnist.npz").write_bytes(data)
        with refused("mnist.npz", "damaged"):
            load("mnist", folder=nowhere)
    (nowhere / "mnist.npz").unlink()
    write_idx(nowhere / "mnist", made(), packed=True)
    path = nowhere / "mnist" / "t10k-images-idx3-ubyte.gz"
    for data in (path.read_bytes()[:-20], gzip.compress(b"\0\0\x08\x03\0\0"), gzip.compress(b"\0\0\x0d\x01\0\0\0\0")):
        path.write_bytes(data)
        with refused("t10k-images", "damaged"):
            load("mnist", folder=nowhere)
    path.unlink()
    with refused("t10k-images", "needs both"):
        load("mnist", folder=nowhere)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": np.zeros((40, 28, 27), np.uint8)}, ("x_train", "(40, 28, 27)", "(n, 28, 28)")),
        ({"x_test": np.zeros((0, 28, 28), np.uint8)}, ("x_test", "(0, 28, 28)")),
        ({"x_train": np.zeros((40, 28, 28))}, ("x_train", "float64")),
        ({"x_train": np.full((40, 28, 28), 300)}, ("x_train", "300", "255")),
        ({"y_train": np.zeros(39, int)}, ("y_train", "(39,)", "40")),
        ({"y_test": np.full(20, 10)}, ("y_test", "10", "0 to 9")),
        ({"y_test": None}, ("y_test", "no array")),
        ({"y_test": np.array([None] * 20)}, ("damaged",)),
    ],
)
def test_wrong_contents_are_one_sentence(nowhere, refused, change, said):
    arrays = {key: x for key, x in (made() | change).items() if x is not None}
    np.savez(nowhere / "mnist.npz", **arrays)
    with refused(*said):
        load("mnist", folder=nowhere)


def test_arguments_are_checked(nowhere, refused, monkeypatch):
    with refused("name", "cifar10"):
        load("cifar10")
    for pixels in (3, 257, 14.0, True):
        with refused("pixels", "4 to 256", repr(pixels)):
            load("digits", pixels)
    with refused("folder", "none"):
        load("mnist", folder=nowhere / "missing")
    with refused("no MNIST", "mnist.npz"):
        load("mnist", folder=nowhere)
    monkeypatch.setenv("MCLOOP_DATA", str(nowhere / "missing"))
    with refused("MCLOOP_DATA", "missing"):
        load("mnist")


# Sizes


def test_resizing_is_the_mean_over_areas():
    x = np.random.default_rng(1).integers(0, 256, size=(5, 28, 28, 1), dtype=np.uint8)
    halves = x.reshape(5, 14, 2, 14, 2).mean((2, 4))
    np.testing.assert_array_equal(resize(x, 14)[..., 0], np.rint(halves))
    assert resize(x, 28) is x
    for pixels in (16, 20, 9):  # each pixel repeated, then block means
        big = x[..., 0].repeat(pixels, 1).repeat(pixels, 2).astype(float)
        exact = big.reshape(5, pixels, 28, pixels, 28).mean((2, 4))
        assert abs(resize(x, pixels)[..., 0] - exact).max() < 0.501
        assert abs(resize(x, pixels).mean() - x.mean()) < 0.2
    flat = np.full((1, 28, 28, 1), 77, np.uint8)
    assert (resize(flat, 17) == 77).all() and (resize(flat, 40) == 77).all()


def test_enlarging_is_bilinear():
    x = np.random.default_rng(2).integers(0, 256, size=(3, 8, 8, 1), dtype=np.uint8)
    expected = jax.image.resize(x.astype(np.float32), (3, 28, 28, 1), "linear")
    assert abs(resize(x, 28) - np.asarray(expected)).max() < 0.501


# Features


@pytest.fixture(scope="module")
def digits():
    return load("digits", 16)


@pytest.fixture(scope="module")
def kept(digits, tmp_path_factory):
    """A small LeNet and the folder that it is kept in."""
    folder = tmp_path_factory.mktemp("cache")
    return features.lenet_features(digits, cache=folder, epochs=12), folder


def test_lenet_learns_and_its_features_tell_real_from_noise(digits, kept):
    space, _ = kept
    probabilities = space.classify(digits.test_x)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert space.accuracy == (probabilities.argmax(1) == digits.test_y).mean() > 0.85
    train, test = space.extract(digits.train_x), space.extract(digits.test_x)
    assert train.shape == (1198, 84) and train.dtype == np.float32
    noise = np.random.default_rng(0).permuted(digits.test_x.reshape(599, -1), axis=1).reshape(digits.test_x.shape)
    assert frechet_distance(space.extract(noise), train) > 5 * frechet_distance(test, train)
    for word in ("84", "digits", "16 x 16", "seed 0"):
        assert word in space.name


def test_features_of_an_image_do_not_depend_on_its_batch(digits, kept):
    whole = kept[0].extract(digits.train_x[:601])
    np.testing.assert_allclose(kept[0].extract(digits.train_x[600:601]), whole[600:], rtol=1e-5, atol=1e-5)


def test_a_kept_lenet_is_not_trained_again(digits, kept, monkeypatch):
    space, folder = kept
    monkeypatch.setenv("MCLOOP_CACHE", str(folder))
    monkeypatch.setattr(features, "_train", lambda *_: pytest.fail("trained again"))
    again = features.lenet_features(digits, epochs=12)
    np.testing.assert_array_equal(again.extract(digits.test_x), space.extract(digits.test_x))
    assert (again.name, again.accuracy) == (space.name, space.accuracy)
    for other in (digits._replace(train_y=digits.train_y[::-1]), digits._replace(train_x=255 - digits.train_x)):
        with pytest.raises(pytest.fail.Exception):
            features.lenet_features(other, epochs=12)
    with pytest.raises(pytest.fail.Exception):
        features.lenet_features(digits, epochs=12, seed=1)


def test_the_papers_lenet_is_another_one_trained_as_its_program_says(digits, tmp_path, monkeypatch):
    """Sigmoids, normalised images, Adam at 1e-3 in batches of 64; and what is kept is never taken for the other."""
    recipes = []

    def train(net, images, seed, epochs, recipe):
        recipes.append((recipe.batch, recipe.rate, recipe.falls, epochs))
        return net.init(jax.random.key(seed))

    monkeypatch.setattr(features, "_train", train)
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path))
    panel = load_config(find("gillman/mnist")).make.__globals__["panel"]
    assert "LeNet of sigmoids, 84 units of the last hidden layer before its sigmoid" in panel("digits", 16, "paper", 50).words
    assert "LeNet, 84 units of the last hidden layer (digits" in panel("digits", 16, "lenet", 50).words
    assert recipes == [(64, 1e-3, False, 500), (128, 2e-3, True, 167)]  # of 1,198 images: 18 and 9 batches a pass
    assert len(list(tmp_path.glob("*.npz"))) == 2
    space = features.lenet_features(digits, cache=tmp_path, before=True, activation="sigmoid")  # by the kept network
    net, x = lenet(10, 16, "sigmoid"), digits.test_x[:3]
    seen = net.apply(net.init(jax.random.key(0)), (x / np.float32(255) - 0.1307) / 0.3081, features="before")[0]
    np.testing.assert_allclose(space.extract(x), seen, rtol=1e-4, atol=1e-5)
    assert len(recipes) == 2


def test_a_damaged_or_impossible_cache_only_costs_time(digits, tmp_path, monkeypatch):
    trained = []

    def train(net, images, seed, epochs, recipe):
        trained.append(seed)
        return jax.tree.map(lambda x: np.full(x.shape, len(trained), x.dtype), jax.eval_shape(net.init, jax.random.key(0)))

    monkeypatch.setattr(features, "_train", train)
    monkeypatch.setattr(
        features, "_readers", lambda net, variables, shape, at, recipe: (variables, lambda x: np.eye(10)[x[:, 0, 0, 0] % 10])
    )
    first = features.lenet_features(digits, cache=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    for damaged in (whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:], whole[:-1], b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged"):
            features.lenet_features(digits, cache=tmp_path)
    again = features.lenet_features(digits, cache=tmp_path)  # whole again, and read
    assert len(trained) == 4 and again.accuracy == first.accuracy
    assert all((leaf == 4).all() for leaf in jax.tree.leaves(again.extract))
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning) as said:  # noqa: PT030, two of them
        features.lenet_features(digits, cache=tmp_path / "file" / "below")
    assert "was not kept" in str(said[-1].message) and "MCLOOP_CACHE" in str(said[-1].message)
    assert len(trained) == 5


def test_pixels_are_features(digits, refused):
    space = features.pixels_features()
    np.testing.assert_array_equal(space.extract(digits.test_x).reshape(digits.test_x.shape), digits.test_x)
    assert space.classify is None and space.accuracy is None
    with refused("uint8", "(n, h, w, 1)", "float64"):
        space.extract(digits.test_x / 255)


def test_features_refuse(digits, kept, refused):
    with refused("uint8", "(n, 16, 16, 1)", "(3, 8, 8, 1)"):
        kept[0].extract(np.zeros((3, 8, 8, 1), np.uint8))
    with refused("epochs", "0"):
        features.lenet_features(digits, epochs=0)


# Real data


def test_real_mnist(data_folder):
    if not (data_folder / "mnist.npz").exists():
        pytest.skip("there is no mnist.npz in MCLOOP_DATA")
    found = load("mnist", pixels=14, folder=data_folder)
    assert found.train_x.shape == (60000, 14, 14, 1) and found.test_x.shape == (10000, 14, 14, 1)
    assert np.bincount(found.train_y[:12000]).min() > 900  # all classes among the first
    if not found.remarks:
        assert tuple(found.train_y[:10]) == PUBLISHED
    assert np.bincount(found.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
