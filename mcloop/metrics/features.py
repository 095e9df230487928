"""The space in which images are compared: the last hidden layer of a LeNet trained on the real images, or the pixels."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcloop import progress
from mcloop.checks import whole
from mcloop.data.images import Images
from mcloop.errors import InputError
from mcloop.nets.lenet import lenet
from mcloop.nets.network import Variables
from mcloop.storage.chunks import ChunkStore
from mcloop.storage.files import one_line
from mcloop.storage.places import cache_folder

_VERSION = 1  # of the training below: another one makes kept networks strangers
_ROWS = 500  # images a forward pass; the last one is filled up, so that one program serves any number
_CLASSES = 10


class _Recipe(NamedTuple):
    """How a LeNet is trained, by Adam.

    Attributes:
        batch: images a step.
        rate, falls: the learning rate, and whether it falls to zero by a cosine.
        epochs, steps: passes and steps, at least.
        shift, scale: what is taken from grey levels in [0, 1], and what they are then divided by.
    """

    batch: int
    rate: float
    falls: bool
    epochs: int
    steps: int
    shift: float = 0.0
    scale: float = 1.0


# the second is the released program's of Gillman et al. 2024, with its normalisation of MNIST, and of as many steps
_RECIPES = {
    "relu": _Recipe(128, 2e-3, True, 4, 1500),
    "sigmoid": _Recipe(64, 1e-3, False, 10, 9000, 0.1307, 0.3081),
}


class Features(NamedTuple):
    """What images are compared by.

    Attributes:
        name: the space, in words: network, data, size, seed. Values in different spaces have nothing in common.
        extract: (x uint8 (n, h, w, 1)) -> (n, d) float32.
        classify: (x) -> probabilities (n, classes) float32, or None.
        accuracy: share of the test set that `classify` gets right, or None.
    """

    name: str
    extract: Callable[[np.ndarray], np.ndarray]
    classify: Callable[[np.ndarray], np.ndarray] | None = None
    accuracy: float | None = None


def pixels_features() -> Features:
    """The grey levels themselves, 0 to 255, flattened: d = h w."""

    def extract(x):
        x = _images(x)
        return x.reshape(len(x), -1).astype(np.float32)

    return Features("pixels (grey levels 0 to 255)", extract)


def lenet_features(
    images: Images,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    before: bool = False,
    activation: str = "relu",
) -> Features:
    """The 84 units of the last hidden layer of a LeNet (LeCun et al. 1998), trained once on `images` and then kept.

    Gillman et al. 2024 compare MNIST images in this layer, before its activation, of a LeNet with sigmoids, by Adam at 1e-3 in
    batches of 64, on normalised images (enlarged to 32 x 32, which these are not). The one with ReLUs is trained by Adam at
    2e-3 with a cosine to zero, in batches of 128. The file is named by a SHA-256 of the data, the settings and the seed, and a
    damaged one is trained again.

    Args:
        images: the real data; training set to train on, test set for `accuracy`.
        seed: of the first weights and of the order of batches.
        cache: folder to keep the network in; None is $MCLOOP_CACHE or ~/.cache/mcloop. Where it cannot be written, a
            warning says so and the network is trained every time.
        epochs: passes over the training set; None is 4, or as many as 1,500 steps take (sigmoids: 10, or 9,000 steps).
        before: take the layer before its activation, as that paper does, and not after; the network is the same.
        activation: "relu" or, as in that paper, "sigmoid".

    Returns:
        Features with d = 84 and probabilities of 10 classes; the training is compiled and run here.

    Raises:
        InputError: epochs < 1, or fewer than two training images or no test image.
    """
    n, shape = len(images.train_x), images.train_x.shape[1:]
    if n < 2 or not len(images.test_x):
        raise InputError(f"images must hold training and test images, not {n} and {len(images.test_x)}.")
    net = lenet(_CLASSES, shape[0], activation)
    recipe = _RECIPES[activation]
    steps = max(n // recipe.batch, 1)
    epochs = max(recipe.epochs, -(-recipe.steps // steps)) if epochs is None else whole("epochs", epochs, 1, 10**6)
    store = ChunkStore(cache_folder(cache))
    name = f"lenet-{images.name}-{_digest(images, seed, epochs, activation)}"
    leaves, tree = jax.tree.flatten(jax.eval_shape(net.init, jax.random.key(0)))
    kept = store.get(name) or {}
    fits = [leaf.shape for leaf in leaves] == [x.shape for x in kept.values()][: len(leaves)] and "accuracy" in kept
    if fits:
        variables = jax.tree.unflatten(tree, [jnp.asarray(kept[str(i)]) for i in range(len(leaves))])
    else:
        with progress.stage("training features"):
            variables = _train(net, images, seed, epochs, recipe)
    extract, classify = _readers(net, variables, shape, "before" if before else "after", recipe)
    accuracy = float(kept["accuracy"]) if fits else float((classify(images.test_x).argmax(1) == images.test_y).mean())
    if not fits:
        arrays = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(variables))}
        try:
            store.put(name, arrays | {"accuracy": np.float64(accuracy)})
        except InputError as error:
            said = f"the LeNet was not kept, and will be trained again next time (MCLOOP_CACHE names a folder): {error}"
            warnings.warn(one_line(said, 300), stacklevel=2)
    bend, kind = ("ReLU", "LeNet") if activation == "relu" else ("sigmoid", "LeNet of sigmoids")
    layer = f"the last hidden layer{f' before its {bend}' if before else ''}"
    said = f"{kind}, 84 units of {layer} ({images.name}, {shape[0]} x {shape[1]} pixels, seed {seed})"
    return Features(said, extract, classify, accuracy)


def _digest(images, seed, epochs, activation):
    """All that the network and its accuracy depend on, in hex."""
    recipe = _RECIPES[activation]
    known = (_VERSION, recipe.batch, recipe.rate, int(seed), epochs, _CLASSES)
    known += () if activation == "relu" else (activation, *recipe)  # networks that were kept stay known
    state = hashlib.sha256(repr(known).encode())
    for x in (images.train_x, images.train_y, images.test_x, images.test_y):
        state.update(repr((x.shape, str(x.dtype))).encode())
        state.update(np.ascontiguousarray(x))
    return state.hexdigest()


def _normalised(x, recipe: _Recipe):
    """Grey levels as a network of this recipe sees them."""
    return (x.astype(jnp.float32) / 255 - recipe.shift) / recipe.scale


def _train(net, images, seed, epochs, recipe: _Recipe) -> Variables:
    """Variables after `epochs` passes; a Python loop of compiled steps."""
    n = len(images.train_x)
    batch, steps = min(recipe.batch, n), max(n // recipe.batch, 1)
    optimiser = optax.adam(optax.cosine_decay_schedule(recipe.rate, epochs * steps) if recipe.falls else recipe.rate)

    def loss(params, stats, x, y, key):
        logits, stats = net.apply(Variables(params, stats), _normalised(x, recipe), train=True, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), stats

    @jax.jit
    def step(variables, memory, x, y, key):
        gradient, stats = jax.grad(loss, has_aux=True)(variables.params, variables.stats, x, y, key)
        change, memory = optimiser.update(gradient, memory)
        return Variables(optax.apply_updates(variables.params, change), stats), memory

    key = jax.random.key(seed)
    variables = jax.jit(net.init)(key)
    memory = optimiser.init(variables.params)
    order = np.random.default_rng(seed)
    for _ in range(epochs):
        rows = order.permutation(n)
        for i in range(0, steps * batch, batch):
            chosen = rows[i : i + batch]
            variables, memory = step(variables, memory, images.train_x[chosen], images.train_y[chosen], key)
    return variables


def _readers(net, variables, shape, which, recipe: _Recipe):
    """(extract, classify) of images of one shape, by one compiled forward pass."""

    @jax.jit
    def forward(x):
        x = _normalised(x, recipe)
        hidden, _ = net.apply(variables, x, features=which)
        logits, _ = net.apply(variables, x)
        return hidden, jax.nn.softmax(logits)

    def read(x, which):
        x = _images(x, shape)
        parts = []
        for i in range(0, len(x), _ROWS):
            rows = x[i : i + _ROWS]
            filled = np.zeros((_ROWS, *shape), np.uint8)
            filled[: len(rows)] = rows
            parts.append(np.asarray(forward(filled)[which])[: len(rows)])
        return np.concatenate(parts)

    return lambda x: read(x, 0), lambda x: read(x, 1)


def _images(x, shape=None) -> np.ndarray:
    """Images as uint8 (n, h, w, 1), n >= 1, of the shape (h, w, 1) that a network was made for, or InputError."""
    x = np.asarray(x)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] != 1 or not len(x) or (shape and x.shape[1:] != tuple(shape)):
        wanted = ", ".join(map(str, shape or ("h", "w", 1)))
        raise InputError(f"images must be uint8 of shape (n, {wanted}), not {x.dtype} of shape {x.shape}.")
    return x
