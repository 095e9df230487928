"""Images moved to the nearest of a few typical real ones of their class: the corrector of Gillman et al.'s MNIST study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check, known
from mcloop.errors import InputError
from mcloop.memory.rows import Rows
from mcloop.memory.shards import Shards
from mcloop.types import Corrector

_ROWS = 256  # images compared at a time
_COINS = 2**30  # the stream that chooses which images are moved


class Centroids(NamedTuple):
    """Typical real images of each class.

    Attributes:
        values: float32 grey levels 0 to 255, shape (classes, k, h, w, 1), to which distances are measured. A class with
            fewer than k different images repeats its last one, which changes no nearest centroid.
        images: uint8, the same shape: what a point is replaced by.
        k: centroids a class: as asked for, or the number of different images of the class that has most.
        counts: different centroids of each class, int (classes,).
        remarks: sentences that whoever reads the results should see.
    """

    values: jax.Array
    images: jax.Array
    k: int
    counts: np.ndarray
    remarks: tuple[str, ...] = ()


def fit_centroids(images, labels, k: int, classes: int = 10, seed: int = 0, faithful: bool = False) -> Centroids:
    """K-means in each class of real images (Lloyd's algorithm from k-means++, scikit-learn).

    Gillman et al. 2024, App. E: K = 16 on the first 12,000 MNIST images, and K = 1 to 1024 in a sweep. Where k
    is at least the number of a class's different images, those are its centroids, so that a sweep may run past it.

    Args:
        images: uint8, shape (n, h, w, 1).
        labels: whole numbers from 0 to classes - 1, shape (n,).
        k: centroids a class, at least 1.
        seed: of k-means++.
        faithful: round as the released script does: min(round(c + 1/2), 255), half to even, which is upwards for all but
            some whole numbers. False rounds to the nearest. Distances are to the unrounded centroids in both.

    Raises:
        InputError: images or labels of another shape or type, k < 1, or a class without an image.
    """
    images, labels = _checked(images, labels, classes)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k must be a whole number >= 1, not {k!r}.")
    found = []
    for c in range(classes):
        rows = images[labels == c].reshape(-1, images[0].size)
        if not len(rows):
            raise InputError(f"class {c} has no image to find centroids of; every class from 0 to {classes - 1} needs one.")
        found.append(_centres(rows, int(k), seed))
    counts = np.array([len(centres) for centres in found])
    most = int(counts.max())
    values = np.stack([np.concatenate([x, np.repeat(x[-1:], most - len(x), 0)]) for x in found])
    values = values.reshape(classes, most, *images.shape[1:])
    rounded = np.clip(np.rint(values + 0.5 if faithful else values), 0, 255).astype(np.uint8)
    remarks = ()
    if (counts < k).any():
        few = ", ".join(f"{c}: {counts[c]}" for c in np.flatnonzero(counts < k))
        remarks = (f"k = {k} is more than some classes' different images; these are all centroids (class: number; {few}).",)
    return Centroids(jnp.asarray(values, jnp.float32), jnp.asarray(rounded), most, counts, remarks)


def _checked(images, labels, classes):
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 1:
        raise InputError(f"images must be uint8 of shape (n, h, w, 1), not {images.dtype} of shape {images.shape}.")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(f"labels must be whole numbers of shape ({len(images)},), not {labels.dtype} of shape {labels.shape}.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels must lie in 0 to {classes - 1}, not {labels.min()} to {labels.max()}.")
    return images, labels


def _centres(rows, k, seed):
    """At most k centres (k, pixels) float64 of the rows of one class, uint8 (n, pixels)."""
    from sklearn.cluster import KMeans  # slow to import
    from threadpoolctl import threadpool_limits

    different = np.unique(rows, axis=0)
    if k >= len(different):
        return different.astype(np.float64)
    with threadpool_limits(1):  # sums in one order, on any number of cores; and no faster on more, a class is so small
        return KMeans(k, n_init="auto", random_state=seed).fit(rows.astype(np.float64)).cluster_centers_


def assign(x, labels, values) -> jax.Array:
    """The nearest centroid of each image's own class: int32 (n,), positions along axis 1 of `values`.

    Squared Euclidean distances, by one product of the images with all centroids; memory is bounded by chunks of images.

    Args:
        x: grey levels, shape (n, h, w, 1).
        labels: int, shape (n,).
        values: centroids, shape (classes, k, h, w, 1).
    """
    classes, k = values.shape[:2]
    n, chunks = len(x), -(-len(x) // _ROWS)
    flat = values.reshape(classes * k, -1) / 255
    centre = flat.mean(0, keepdims=True)  # differences of large squares lose digits
    flat = flat - centre
    size = (flat * flat).sum(1)

    def one(chunk):
        rows, label = chunk
        rows = rows.astype(jnp.float32) / 255 - centre
        score = size[None] - 2 * jnp.matmul(rows, flat.T, precision=jax.lax.Precision.HIGHEST)
        own = jnp.take_along_axis(score.reshape(-1, classes, k), label[:, None, None], 1)[:, 0]
        return jnp.argmin(own, 1).astype(jnp.int32)

    def pad(a):
        return jnp.pad(a, ((0, chunks * _ROWS - n),) + ((0, 0),) * (a.ndim - 1)).reshape(chunks, _ROWS, *a.shape[1:])

    chosen = jax.lax.map(one, (pad(jnp.asarray(x).reshape(n, -1)), pad(jnp.asarray(labels))))
    return chosen.reshape(-1)[:n]


def move(key: jax.Array, points: dict[str, Any], centroids: Centroids, gamma=np.inf) -> dict[str, Any]:
    """Each image becomes the nearest centroid of its class, with probability gamma / (1 + gamma).

    The points then follow pi_gamma p = (p + gamma p*) / (1 + gamma) (Gillman et al. 2024, eq. 3) with the moved images in
    the place of p*: gamma = 0 moves none, gamma = inf all, as in the paper's study.

    Args:
        key: draws which points are moved.
        points: "x" uint8 (n, h, w, 1) and "label" int (n,); other entries stay as they are.
        gamma: strength >= 0, may be traced.

    Returns:
        The same dict with new "x", uint8.

    Raises:
        InputError: gamma < 0, points without labels or with unknown ones, or images of another size or type than the centroids.
    """
    check("gamma", gamma, "a number >= 0", lambda v: v >= 0)
    if not isinstance(points, dict) or not {"x", "label"} <= points.keys():
        raise InputError("nearest_centroid needs labelled images, a dict with 'x' and 'label': use a class-conditional model.")
    x, label = jnp.asarray(points["x"]), jnp.asarray(points["label"])
    if x.dtype != jnp.uint8 or x.shape[1:] != centroids.values.shape[2:]:
        wanted = f"uint8 of shape (n, {', '.join(map(str, centroids.values.shape[2:]))})"
        raise InputError(f"x must be {wanted} like the centroids, not {x.dtype} of shape {x.shape}.")
    classes = len(centroids.values)
    if (given := known(label)) is not None and len(given) and not 0 <= given.min() <= given.max() < classes:
        raise InputError(f"label must lie in 0 to {classes - 1}, not {given.min()} to {given.max()}.")
    share = jnp.where(jnp.isinf(gamma), 1.0, gamma / (1 + jnp.where(jnp.isinf(gamma), 0.0, gamma)))
    near = centroids.images[label, assign(x, label, centroids.values)]
    heads = random.uniform(random.as_key(key), (len(x),)) < share
    return {**points, "x": jnp.where(heads[:, None, None, None], near, x)}


def nearest_centroid(centroids: Centroids, gamma=np.inf) -> Corrector:
    """A corrector of labelled images: `move` on what the model draws, whether it comes as a dict, as Rows or as Shards.

    Args:
        centroids: of `fit_centroids` on the real training set.
        gamma: strength >= 0; inf (the paper's) moves every image.
    """
    check("gamma", gamma, "a number >= 0", lambda v: v >= 0)

    def sample(key, model, params, truth, count):
        # the model's own key: a corrected loop moves the very points that it was measured by
        drawn, coins = model.sample(key, params, count), random.fold_in(key, _COINS)
        if isinstance(drawn, Shards):
            parts = [
                move(random.fold_in(coins, i), part.take(np.arange(len(part))), centroids, gamma)
                for i, part in enumerate(drawn.parts)
            ]
            return Shards(tuple(replace(part, values=_arrays(moved)) for part, moved in zip(drawn.parts, parts, strict=True)))
        if isinstance(drawn, Rows):
            return drawn._replace(values=move(coins, drawn.values, centroids, gamma))
        return move(coins, drawn, centroids, gamma)

    return Corrector("nearest_centroid", sample, batched=False)


def _arrays(points):
    return {name: np.asarray(x) for name, x in points.items()}
