"""LeNet: a small classifier of images, whose last hidden layer is the space that images are compared in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mcloop.errors import InputError
from mcloop.nets.conv import conv, max_pool
from mcloop.nets.network import Network, network

_HIDDEN = 84
ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


class _LeNet(nnx.Module):
    def __init__(self, classes, image, bend, rngs):
        # each pooling halves the side and drops an odd last row
        side = image // 2 // 2
        self.kernels = nnx.List([_kernel(rngs, 1, 6), _kernel(rngs, 6, 16)])
        self.biases = nnx.List([nnx.Param(jnp.zeros(6)), nnx.Param(jnp.zeros(16))])
        self.dense1 = nnx.Linear(16 * side**2, 120, rngs=rngs)
        self.dense2 = nnx.Linear(120, _HIDDEN, rngs=rngs)
        self.leave = nnx.Linear(_HIDDEN, classes, rngs=rngs)
        self.shape, self.bend = (image, image, 1), bend

    def __call__(self, x, train=False, features=""):
        if x.shape[1:] != self.shape:
            raise InputError(f"x has shape {x.shape}; this network takes (b, {', '.join(map(str, self.shape))}).")
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            x = max_pool(self.bend(conv(x, kernel[...]) + bias[...]))
        x = self.bend(self.dense1(x.reshape(len(x), -1)))
        before = self.dense2(x)
        x = self.bend(before)
        if features:
            return before if features == "before" else x
        return self.leave(x)


def _kernel(rngs, inputs, outputs):
    return nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), (5, 5, inputs, outputs)))


def lenet(classes: int = 10, image: int = 28, activation: str = "relu") -> Network:
    """LeNet-5 with maximum pooling (LeCun et al. 1998), called as `apply(variables, x)`.

    x is (b, image, image, 1). The output is logits (b, classes), or with `features` "before" or "after" the 84 units of the
    last hidden layer, (b, 84), before or after their activation. Convolutions pad, so that images down to 4 pixels work.

    Args:
        activation: of every hidden layer, "relu" or "sigmoid".

    Raises:
        InputError: an image smaller than 4 pixels, fewer than two classes, another activation.
    """
    if not isinstance(image, int) or image < 4:
        raise InputError(f"image is {image!r}; it must be an integer of at least 4 pixels.")
    if not isinstance(classes, int) or classes < 2:
        raise InputError(f"classes is {classes!r}; it must be an integer of at least 2.")
    if activation not in ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}.")
    return network(lambda rngs: _LeNet(classes, image, ACTIVATIONS[activation], rngs))
