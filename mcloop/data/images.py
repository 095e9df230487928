"""Small grey images with labels: MNIST and Fashion-MNIST from wherever the machine has them, scikit-learn's digits else."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.storage.places import user_home

NAMES = ("mnist", "fashion_mnist", "digits")
_TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_BEGINS = {"mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)}  # first training labels
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_NPZ = ("x_train", "y_train", "x_test", "y_test")


class Images(NamedTuple):
    """Labelled grey images, training and test.

    Attributes:
        name: what they are: "mnist", "fashion_mnist" or "digits" (also where digits stand in for another set).
        train_x: uint8, shape (n, pixels, pixels, 1), 0 is background; in published order, or `remarks` says otherwise.
        train_y: int32, shape (n,), classes 0 to 9.
        test_x, test_y: the same for the test set.
        source: where they were read from, in words.
        remarks: sentences that whoever reads the results should see.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    source: str
    remarks: tuple[str, ...] = ()


def load(name: str = "mnist", pixels: int = 28, folder: str | os.PathLike[str] | None = None) -> Images:
    """Reads a data set of 28 x 28 images (digits: 8 x 8) and resizes it; nothing is ever downloaded.

    Looked for, in this order: in `folder`, if one is given; among the prepared data sets of TensorFlow Datasets
    ($TFDS_DATA_DIR or ~/tensorflow_datasets); in the folder that the environment variable MCLOOP_DATA names. A folder
    may hold NAME.npz with x_train, y_train, x_test and y_test (as Keras' mnist.npz), or the four published IDX files,
    gzipped or not, beside it or in NAME/, NAME/raw or NAME with a dash. Without `folder`, where nothing is found,
    scikit-learn's digits stand in (1,198 training and 599 test images: every third), and `remarks` says so.

    Published order (MNIST's papers use the first n images) is kept where the source has it, and restored from what TFDS
    shuffled; a source that is sorted by class is put into a fixed mixed order, and `remarks` says so.

    Args:
        name: "mnist", "fashion_mnist" or "digits".
        pixels: side of the images returned, 4 to 256; see `resize`.
        folder: where the files are; none of the other places is then searched.

    Raises:
        InputError: an unknown name, a folder without the data set, a file that is damaged or holds something else.
    """
    if name not in NAMES:
        raise InputError(f"name must be one of {', '.join(NAMES)}, not {name!r}.")
    if isinstance(pixels, bool) or not isinstance(pixels, int | np.integer) or not 4 <= pixels <= 256:
        raise InputError(f"pixels must be a whole number from 4 to 256, not {pixels!r}.")
    found = _digits() if name == "digits" else _found(name, folder)
    return found._replace(train_x=resize(found.train_x, pixels), test_x=resize(found.test_x, pixels))


def resize(x: np.ndarray, pixels: int) -> np.ndarray:
    """Square images at another size: the exact mean over each new pixel's area, or bilinear interpolation to enlarge.

    A smaller image is the integral of the larger one's squares of constant grey over the new squares, which are as
    wide as they are apart (an anti-aliasing box): 28 -> 14 takes means of 2 x 2 pixels. Values are rounded to the
    nearest whole number.

    Args:
        x: uint8, shape (n, h, h, 1).

    Returns:
        uint8, shape (n, pixels, pixels, 1).
    """
    h = x.shape[1]
    if h == pixels:
        return x
    weights = _areas(h, pixels) if pixels < h else _interpolation(h, pixels)
    y = np.empty((len(x), pixels, pixels, 1), np.uint8)
    for i in range(0, len(x), 4096):  # floats of a few thousand images at a time
        y[i : i + 4096, ..., 0] = np.rint(weights @ x[i : i + 4096, ..., 0].astype(np.float32) @ weights.T)
    return y


def _areas(h, p):
    """(p, h): the share of each old pixel in each new one."""
    new, old = np.arange(p)[:, None] * h / p, np.arange(h)
    overlap = np.minimum(new + h / p, old + 1) - np.maximum(new, old)
    return (np.maximum(overlap, 0) * p / h).astype(np.float32)


def _interpolation(h, p):
    """(p, h): triangles about the old pixels' centres, held constant beyond the outermost."""
    at = np.clip((np.arange(p)[:, None] + 0.5) * h / p - 0.5, 0, h - 1)
    return np.maximum(1 - np.abs(at - np.arange(h)), 0).astype(np.float32)


def _digits() -> Images:
    """scikit-learn's 8 x 8 digits, 0..16 stretched to 0..255; every third image is a test image."""
    from sklearn.datasets import load_digits

    x, y = map(np.asarray, load_digits(return_X_y=True))
    x, y = np.rint(x * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1), y.astype(np.int32)
    test = np.arange(len(x)) % 3 == 2
    return Images("digits", x[~test], y[~test], x[test], y[test], "scikit-learn's digits (8 x 8 pixels)")


def _found(name, folder) -> Images:
    if folder is not None:
        if (images := _in_folder(name, _folder(folder, "folder"))) is not None:
            return images
        raise InputError(f"There is no {_TITLES[name]} in the folder {os.fspath(folder)!r}: put {name}.npz there.")
    images, remark = _prepared(name)
    named = os.environ.get("MCLOOP_DATA")
    if images is None and named:
        images = _in_folder(name, _folder(named, "MCLOOP_DATA"))
    if images is not None:
        return images._replace(remarks=images.remarks + remark)
    where = f"put {name}.npz into {'that folder' if named else 'the folder that MCLOOP_DATA names'}"
    missing = f"in the folder {named!r} that MCLOOP_DATA names" if named else "on this machine"
    said = f"{_TITLES[name]} was not found {missing}: scikit-learn's digits stand in; {where}."
    return _digits()._replace(remarks=(*remark, said))


def _folder(path, field):
    if not Path(path).is_dir():
        raise InputError(f"{field} must name a folder, and {os.fspath(path)!r} is none.")
    return Path(path)


def _in_folder(name, folder) -> Images | None:
    for path in (folder / f"{name}.npz", folder / f"{name.replace('_', '-')}.npz"):
        if path.is_file():
            return _checked(name, _read(path, _read_npz), repr(str(path)))
    places = [folder / place for place in (name, f"{name}/raw", name.replace("_", "-"), ".")]
    for place in (*places, folder / _TITLES[name] / "raw", folder / _TITLES[name].replace("-", "") / "raw"):
        paths = [next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None) for file in _IDX]
        if paths[0] is None:
            continue
        for file, path in zip(_IDX, paths, strict=True):
            if path is None:
                raise InputError(f"The folder {str(place)!r} has {_IDX[0]} but no {file}; {_TITLES[name]} needs both.")
        arrays = [_read(path, _read_idx) for path in paths if path is not None]
        if place == folder and _begins(arrays[1]) in set(_BEGINS) - {name}:
            continue  # the files of both sets have the same names
        return _checked(name, arrays, f"the IDX files in {str(place)!r}")
    return None


def _begins(labels) -> str:
    """Which data set has these training labels, in published order; "" if none."""
    return next((name for name, first in _BEGINS.items() if tuple(labels[:10].tolist()) == first), "")


def _read(path, reader):
    """What a reader of foreign bytes makes of a file; whatever it dislikes, the file is at fault."""
    try:
        return reader(path)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())[:80] or type(error).__name__
        raise InputError(f"The file {str(path)!r} is damaged or cannot be read ({why}).") from error


def _read_npz(path):
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        if missing := [key for key in _NPZ if f"{key}.npy" not in members]:
            raise InputError(f"The file {str(path)!r} has no array {missing[0]}; it must hold {', '.join(_NPZ)}.")
        arrays = []
        for key in _NPZ:
            with archive.open(f"{key}.npy") as member:
                arrays.append(np.lib.format.read_array(member, allow_pickle=False))
        return arrays


def _read_idx(path):
    """An IDX file: two zero bytes, the type (8: unsigned bytes), the number of axes, their lengths, the bytes."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    shape = np.frombuffer(data, ">u4", data[3], 4).tolist()
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _checked(name, arrays, source) -> Images:
    """Images from four arrays, whatever whole-number type they come in.

    Raises:
        InputError: a wrong shape, unequal lengths, values that are no grey levels, labels that are no classes.
    """
    ready = []
    for key, x in zip(_NPZ, arrays, strict=True):
        picture = key.startswith("x")
        x = x[..., 0] if picture and x.ndim == 4 and x.shape[-1] == 1 else x
        if x.dtype.kind not in "ui" or len(x) == 0 if x.ndim else True:
            raise InputError(f"{key} in {source} has dtype {x.dtype} and shape {x.shape}; whole numbers are needed.")
        if picture and x.shape[1:] != (28, 28):
            raise InputError(f"{key} in {source} has shape {x.shape}; {_TITLES[name]} has (n, 28, 28).")
        if not picture and x.shape != ready[-1].shape[:1]:
            raise InputError(f"{key} in {source} has shape {x.shape}; one label for each of {len(ready[-1])} images is needed.")
        low, high, most = int(x.min()), int(x.max()), 255 if picture else 9
        if low < 0 or high > most:
            raise InputError(f"{key} in {source} has values from {low} to {high}; 0 to {most} are allowed.")
        ready.append(x.astype(np.uint8)[..., None] if picture else x.astype(np.int32))
    begins = _begins(ready[1])
    if begins and begins != name:
        raise InputError(f"{source} holds {_TITLES[begins]}, not {_TITLES[name]}.")
    return _mixed(Images(name, *ready, source=source)) if begins != name else Images(name, *ready, source=source)


def _mixed(images) -> Images:
    """Images that are not in their published order, in a fixed mixed order where they are sorted by class."""
    said = f"{_TITLES[images.name]} from {images.source} is not in its published order"
    parts = []
    for split, x, y in (("train", images.train_x, images.train_y), ("test", images.test_x, images.test_y)):
        order = _hashed(split, len(y)) if np.all(y[1:] >= y[:-1]) else slice(None)  # the first n would be of few classes
        parts += [x[order], y[order]]
    if not np.array_equal(parts[1], images.train_y):
        said = f"{said} but sorted by class, and was put into a fixed mixed order"
    return Images(images.name, *parts, source=images.source, remarks=(f"{said}: its first images are not the papers'.",))


def _prepared(name) -> tuple[Images | None, tuple[str, ...]]:
    """A data set that TensorFlow Datasets has prepared on this machine, or None; and a remark where it is unreadable.

    Only the folder is looked at before the (slow) import, and the builder is made from that folder: one made from the
    name might try the network.
    """
    home = Path(os.environ.get("TFDS_DATA_DIR") or user_home() / "tensorflow_datasets") / name
    if not home.is_dir():
        return None, ()
    versions = [path.parent for path in home.glob("*/dataset_info.json")]
    if not versions:
        return None, ()
    folder = max(versions, key=lambda path: [int(part) if part.isdecimal() else -1 for part in path.name.split(".")])
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(folder))
        if not builder.is_prepared():
            return None, ()
        # undecoded and all at once: item by item takes a minute
        raw = {"image": tfds.decode.SkipDecoding()}
        splits = ("train", "test")
        sources = [builder.as_data_source(split, decoders=raw) for split in splits]  # pyright: ignore[reportCallIssue]
        read = [source.__getitems__(range(len(source))) for source in sources]
        arrays = []
        for split, items in zip(splits, read, strict=True):
            place = np.argsort(_hashed(split, len(items)))  # back into published order
            arrays.append(np.stack([_picture(item["image"]) for item in items])[place])
            arrays.append(np.stack([item["label"] for item in items])[place])
    except Exception as error:  # a reader of foreign files, with many ways to fail, none of them the user's input
        why = " ".join(str(error).split())[:80] or type(error).__name__
        return None, (f"TensorFlow Datasets cannot read what it has prepared in {str(folder)!r} ({why}).",)
    return _checked(name, arrays, f"TensorFlow Datasets, in {str(folder)!r}"), ()


def _picture(image):
    """An image as an array, from the PNG that it is stored as."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image))) if isinstance(image, bytes) else np.asarray(image)


def _hashed(salt, count):
    """A fixed order of `count` things, that of the MD5 of salt and number: how TFDS shuffles, with the split as salt."""
    return sorted(range(count), key=lambda i: hashlib.md5(f"{salt}{i}".encode(), usedforsecurity=False).digest())
