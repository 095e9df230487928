"""ContextUnet: the class-conditional U-Net of the MNIST experiment of Gillman et al. (2024)."""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from mcloop.errors import InputError
from mcloop.nets.conv import conv, max_pool
from mcloop.nets.mlp import one_hot
from mcloop.nets.network import Network, network

_EPSILON = 1e-5
_MOMENTUM = 0.1  # the weight of the newest batch in the running statistics
_GROUPS = 8


class _Weights:
    """PyTorch's initial weights, of kernels and biases alike: uniform within 1/sqrt(fan_in).

    All of a network's come from one draw, since every draw of its own adds a second to the compilation of `init`.
    """

    def __init__(self, key=None, total=0):
        self.unit = None if key is None else jax.random.uniform(key, (total,), jnp.float32, -1, 1)
        self.used = 0

    def __call__(self, shape, fan_in):
        start, self.used = self.used, self.used + math.prod(shape)
        part = jnp.zeros(shape) if self.unit is None else self.unit[start : self.used].reshape(shape)
        return nnx.Param(part / math.sqrt(fan_in))


class _Dense(nnx.Module):
    """x W + b over the last axis, in the dtype of x."""

    def __init__(self, inputs, outputs, weights):
        self.kernel, self.bias = weights((inputs, outputs), inputs), weights((outputs,), inputs)

    def __call__(self, x):
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class _Conv(nnx.Module):
    def __init__(self, inputs, outputs, weights):
        self.kernel, self.bias = weights((3, 3, inputs, outputs), 9 * inputs), weights((outputs,), 9 * inputs)

    def __call__(self, x):
        return conv(x, self.kernel[...].astype(x.dtype))  # the bias is left to the caller


class _Upscale(nnx.Module):
    """A transposed convolution whose kernel is as wide as its stride: every pixel becomes a patch of its own.

    That is one matrix product, (b, h, w, inputs) -> (b, h, w, side, side, outputs), and a transpose.
    """

    def __init__(self, inputs, outputs, side, weights):
        fan_in = side**2 * outputs  # what PyTorch takes it to be
        self.kernel, self.bias = weights((inputs, side, side, outputs), fan_in), weights((outputs,), fan_in)

    def __call__(self, *parts):
        """`parts` are read as if concatenated along the channels."""
        kernel = self.kernel[...].astype(parts[0].dtype)
        inputs, side, _, outputs = kernel.shape
        kernels = jnp.split(kernel.reshape(inputs, -1), _offsets(parts), 0)
        patches = reduce(jnp.add, (part @ k for part, k in zip(parts, kernels, strict=True)))
        b, height, width = patches.shape[:3]
        patches = patches.reshape(b, height, width, side, side, outputs).swapaxes(2, 3)
        return patches.reshape(b, height * side, width * side, outputs) + self.bias[...].astype(patches.dtype)


def _offsets(parts):
    """Where to split a kernel's inputs: after every part but the last."""
    ends = [0]
    for part in parts[:-1]:
        ends.append(ends[-1] + part.shape[-1])
    return ends[1:]


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function, by erf; `jax.nn.gelu` takes erfc, which is three times slower on a CPU."""
    return x * (0.5 + 0.5 * lax.erf(x * math.sqrt(0.5)))


@jax.custom_vjp
def _norm_gelu(x, scale, bias):
    """GELU of x normalised over all axes but the last, with the mean and the (biased) variance: (y, mean, var).

    Mean and variance come from plain sums of x and x^2, and the gradient from plain sums of dz and dz x: XLA computes
    such a pair in one vectorised pass on a CPU, where sums about the mean take twice the time. No gradient passes
    through the second and third result.
    """
    return _norm_gelu_forward(x, scale, bias)[0]


def _affine(mean, var, scale, bias):
    """The slope and the intercept of a normalisation, and 1/sqrt(var + eps)."""
    root = lax.rsqrt(var + _EPSILON)
    return scale * root, bias - mean * scale * root, root


def _norm_gelu_forward(x, scale, bias):
    wide = x.astype(jnp.float32)
    mean, square = wide.mean((0, 1, 2)), jnp.square(wide).mean((0, 1, 2))
    var = jnp.maximum(square - jnp.square(mean), 0)
    slope, intercept, _ = _affine(mean, var, scale, bias)
    return (gelu(wide * slope + intercept).astype(x.dtype), mean, var), (x, mean, var, scale, bias)


def _norm_gelu_backward(residual, cotangents):
    x, mean, var, scale, bias = residual
    slope, intercept, root = _affine(mean, var, scale, bias)
    wide, g, count = x.astype(jnp.float32), cotangents[0].astype(jnp.float32), x.size // x.shape[-1]
    z = wide * slope + intercept
    density = jnp.exp(-0.5 * jnp.square(z)) * (1 / math.sqrt(2 * math.pi))
    dz = g * (0.5 + 0.5 * lax.erf(z * math.sqrt(0.5)) + z * density)
    to_bias, with_x = dz.sum((0, 1, 2)), (dz * wide).sum((0, 1, 2))
    to_scale = root * (with_x - mean * to_bias)
    # dx = slope (dz - mean(dz) - unit mean(dz unit)), unit = (x - mean) root
    pull = slope * root * to_scale / count
    dx = slope * dz - wide * pull - (slope * to_bias / count - mean * pull)
    return dx.astype(x.dtype), to_scale, to_bias


_norm_gelu.defvjp(_norm_gelu_forward, _norm_gelu_backward)


class _NormGelu(nnx.Module):
    """BatchNorm over images and pixels, then GELU; `shift` is a bias to be added to x first."""

    def __init__(self, features):
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))

    def __call__(self, x, shift, train):
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            slope, intercept, _ = _affine(self.mean[...] - shift, self.var[...], scale, bias)
            return gelu(x.astype(jnp.float32) * slope + intercept).astype(x.dtype)
        # a shift of every image moves the mean with it: it has no effect on y, and a gradient of zero
        y, mean, var = _norm_gelu(x, scale, bias)
        count = x.size // x.shape[-1]
        now = lax.stop_gradient((mean + shift, var * (count / max(count - 1, 1))))
        self.mean[...] = (1 - _MOMENTUM) * self.mean[...] + _MOMENTUM * now[0]
        self.var[...] = (1 - _MOMENTUM) * self.var[...] + _MOMENTUM * now[1]
        return y


class _GroupNormRelu(nnx.Module):
    def __init__(self, features):
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))

    def __call__(self, x):
        wide, features = x.astype(jnp.float32), x.shape[-1]

        def over_group(by_channel):
            means = by_channel.reshape(len(x), _GROUPS, -1).mean(2, keepdims=True)
            return jnp.broadcast_to(means, (len(x), _GROUPS, features // _GROUPS)).reshape(len(x), 1, 1, features)

        # plain sums first, as in _norm_gelu; groups only once they are small
        mean, square = over_group(wide.mean((1, 2))), over_group(jnp.square(wide).mean((1, 2)))
        slope, intercept, _ = _affine(mean, jnp.maximum(square - jnp.square(mean), 0), self.scale[...], self.bias[...])
        return jax.nn.relu(wide * slope + intercept).astype(x.dtype)


class _Block(nnx.Module):
    """Two of 3 x 3 convolution, BatchNorm, GELU; `residual` adds the first to the second."""

    def __init__(self, inputs, features, weights, residual=False):
        self.conv1, self.norm1 = _Conv(inputs, features, weights), _NormGelu(features)
        self.conv2, self.norm2 = _Conv(features, features, weights), _NormGelu(features)
        self.residual = residual

    def __call__(self, x, train):
        first = self.norm1(self.conv1(x), self.conv1.bias[...], train)
        second = self.norm2(self.conv2(first), self.conv2.bias[...], train)
        return (first + second) / 1.414 if self.residual else second


class _Embed(nnx.Module):
    def __init__(self, inputs, features, weights):
        self.enter, self.leave = _Dense(inputs, features, weights), _Dense(features, features, weights)

    def __call__(self, x):
        return self.leave(gelu(self.enter(x)))[:, None, None, :]


class _Up(nnx.Module):
    def __init__(self, inputs, features, weights):
        self.upscale = _Upscale(inputs, features, 2, weights)
        self.block1, self.block2 = (_Block(features, features, weights) for _ in range(2))

    def __call__(self, x, skip, train):
        return self.block2(self.block1(self.upscale(x, skip), train), train)


class _Head(nnx.Module):
    def __init__(self, channels, features, weights):
        self.conv1, self.norm = _Conv(2 * features, features, weights), _GroupNormRelu(features)
        self.conv2 = _Conv(features, channels, weights)

    def __call__(self, x, skip):
        h = self.conv1(jnp.concatenate([x, skip], -1))
        h = self.norm(h + self.conv1.bias[...].astype(h.dtype))
        h = self.conv2(h)
        return h + self.conv2.bias[...].astype(h.dtype)


class _ContextUnet(nnx.Module):
    def __init__(self, channels, features, classes, image, dtype, weights):
        f = features
        self.init = _Block(channels, f, weights, residual=True)
        self.down1, self.down2 = _Block(f, f, weights), _Block(f, 2 * f, weights)
        self.time1, self.time2 = _Embed(1, 2 * f, weights), _Embed(1, f, weights)
        self.label1, self.label2 = _Embed(classes, 2 * f, weights), _Embed(classes, f, weights)
        self.up0, self.norm0 = _Upscale(2 * f, 2 * f, image // 4, weights), _GroupNormRelu(2 * f)
        self.up1, self.up2 = _Up(4 * f, f, weights), _Up(2 * f, f, weights)
        self.head = _Head(channels, f, weights)
        self.classes, self.dtype = classes, dtype
        self.shape = (image, image, channels)

    def __call__(self, x, noise, label=None, keep=None, train=False):
        if x.shape[1:] != self.shape:
            raise InputError(f"x has shape {x.shape}; this network takes (b, {', '.join(map(str, self.shape))}).")
        kind, noise = x.dtype, noise[:, None].astype(jnp.float32)
        label = one_hot(label, keep, self.classes)
        if self.dtype is not None:
            x, label = (v.astype(self.dtype) for v in (x, label))
        first = self.init(x, train)
        down1 = max_pool(self.down1(first, train))
        down2 = max_pool(self.down2(down1, train))
        h = gelu(down2.mean((1, 2), keepdims=True))
        h = self.norm0(self.up0(h))
        # times embedded in float32: bfloat16 holds fewer of them than a diffusion has steps
        time1, time2 = (embed(noise).astype(h.dtype) for embed in (self.time1, self.time2))
        h = self.up1(self.label1(label) * h + time1, down2, train)
        h = self.up2(self.label2(label) * h + time2, down1, train)
        return self.head(h, first).astype(kind)


def context_unet(channels: int = 1, features: int = 128, classes: int = 10, image: int = 28, dtype=None) -> Network:
    """ContextUnet, called as `apply(variables, x, noise, label, keep, train=...)`; the output is like x.

    With the defaults it has exactly 6,585,601 trainable parameters. BatchNorm follows PyTorch: running statistics with
    momentum 0.1 and the unbiased variance.

    Args:
        channels: of the images; x is (b, image, image, channels).
        features: channels of the first stage (n_feat), a multiple of 8.
        classes: length of the one-hot condition; `label` (b,) integers, `keep` (b,) is 0 where it is dropped.
        image: side in pixels, a multiple of 4 (pad 14 to 16).
        dtype: jnp.bfloat16 computes products and activations in it; parameters, statistics, normalisations and the embedding
            of the time stay float32.

    Raises:
        InputError: an argument out of range, or inputs of another shape.
    """
    for name, value, unit in (
        ("channels", channels, 1),
        ("features", features, 8),
        ("classes", classes, 1),
        ("image", image, 4),
    ):
        if not isinstance(value, int) or value < unit or value % unit:
            what = f"a positive multiple of {unit}" if unit > 1 else "a positive integer"
            raise InputError(f"{name} is {value!r}; it must be {what}.")
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype is {dtype!r}; it must be a floating-point type such as jax.numpy.bfloat16, or None.")

    def module(weights):
        return _ContextUnet(channels, features, classes, image, dtype, weights)

    count = _Weights()
    nnx.eval_shape(lambda: module(count))
    return network(lambda rngs: module(_Weights(rngs.params(), count.used)))
