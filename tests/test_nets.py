"""The networks: their sizes, their equality with PyTorch's, convolutions against XLA's own, and where they compile."""

import importlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export, lax

from mcloop.errors import InputError
from mcloop.nets import context_unet, mlp, network
from mcloop.nets.conv import _winograd, conv, max_pool
from mcloop.nets.lenet import lenet

SMALL = context_unet(features=16, image=16)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def unet_inputs(b=6, image=16, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(b, image, image, 1)).astype(np.float32)
    keep = (np.arange(b) % 3 > 0).astype(np.float32)
    return x, rng.random(b).astype(np.float32), np.arange(b, dtype=np.int32) % 10, keep


def loss(params, variables, target, inputs, net=SMALL):
    out, stats = net.apply(variables._replace(params=params), *inputs, train=True)
    return jnp.sum(out * target), (out, stats)


# ---- the border


class Dropped(nnx.Module):
    """A network with everything a module can hold: parameters in a list, running statistics, dropout."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(12)])
        self.norm, self.drop = nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train):
        for layer in self.layers:
            x = layer(x)
        return self.drop(self.norm(x, use_running_average=not train), deterministic=not train)


def test_a_network_is_pure():
    net, x = network(Dropped), jnp.arange(12.0).reshape(4, 3)
    variables = net.init(jax.random.key(0))
    assert set(variables.stats) == {"norm"} and len(variables.params["layers"]) == 12
    still, stats = net.apply(variables, x)
    assert stats is variables.stats
    one, after = net.apply(variables, x, train=True, key=jax.random.key(1))
    two, _ = net.apply(variables, x, train=True, key=jax.random.key(1))
    other, _ = net.apply(variables, x, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(one, two)
    assert (one == 0).any() and (one != other).any() and not (still == 0).any()
    assert (after["norm"]["mean"] != variables.stats["norm"]["mean"]).all()
    # layers 2 and 10 keep their places: names are words, and words sort otherwise than numbers
    by_hand = x
    for number in range(12):
        layer = variables.params["layers"][str(number)]
        by_hand = by_hand @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(still, by_hand / np.sqrt(1 + 1e-5), rtol=1e-5)
    with pytest.raises(InputError, match="key is None"):
        net.apply(variables, x, train=True)


@pytest.mark.parametrize("make", [lambda: mlp(2, width=8, depth=1, classes=3), lambda: SMALL])
def test_init_is_the_same_under_vmap(make):
    init, keys = make().init, jax.random.split(jax.random.key(0), 3)
    stacked, single = jax.jit(lambda keys: (jax.vmap(init)(keys), init(keys[1])))(keys)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), stacked, single)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single))


def test_mlp():
    net = mlp(2, width=8, depth=2, classes=3)
    variables = net.init(jax.random.key(0))
    x, noise, label = jnp.ones((4, 2)), jnp.array([0.1, 0.1, 0.9, 0.1]), jnp.array([0, 1, 0, 0])
    out, stats = net.apply(variables, x, noise, label, jnp.array([1.0, 1, 1, 0]))
    assert out.shape == (4, 2) and stats == {}
    assert len(np.unique(np.asarray(out), axis=0)) == 4  # the class, the noise and the dropped class all count
    with pytest.raises(InputError, match="label is None"):
        net.apply(variables, x, noise)
    with pytest.raises(InputError, match="width is 0"):
        mlp(2, width=0)


# ---- convolution and pooling


def lax_conv(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def relative(a, b):
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


@pytest.mark.parametrize(
    ("side", "channels", "filters", "k"),
    [
        *[(13, 1, 16, 3), (13, 16, 1, 3), (13, 12, 20, 3), (9, 12, 16, 1), (9, 6, 16, 5), (9, 12, 16, 5)],
        (14, 128, 136, 3),
    ],
)
def test_convolution_equals_xla(side, channels, filters, k):
    keys = jax.random.split(jax.random.key(0), 3)
    # a positive mean, as behind a GELU, and sides that are no multiple of the tile
    x = jax.random.normal(keys[0], (3, side, side + 1, channels)) + 0.5
    w = jax.random.normal(keys[1], (k, k, channels, filters))
    g = jax.random.normal(keys[2], (3, side, side + 1, filters))

    def both(conv):
        def work(x, w, g):
            y, back = jax.vjp(conv, x, w)
            return y, *back(g)

        return jax.jit(work)(x, w, g)

    for ours, theirs in zip(both(conv), both(lax_conv), strict=True):
        assert ours.shape == theirs.shape and relative(ours, theirs) < 1e-5


def test_convolution_in_a_scan_and_under_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 12))
    w = jax.random.normal(jax.random.key(1), (3, 3, 12, 12)) * 0.1

    def gradient(x, w, conv=conv):
        return jax.grad(lambda w: jnp.sum(jnp.sin(conv(x, w))))(w)

    @jax.jit
    def every(x, ws):
        scanned = lax.scan(lambda c, v: (c, gradient(v, w)), 0, x)[1]
        return scanned, jax.vmap(gradient)(x, ws), jax.vmap(partial(gradient, conv=lax_conv))(x, ws)

    scanned, mapped, expected = every(x, jnp.broadcast_to(w, (3, *w.shape)))
    assert relative(scanned, expected) < 1e-5 and relative(mapped, expected) < 1e-5


def test_winograd_in_bfloat16_keeps_to_xla():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 128), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (3, 3, 128, 128), jnp.bfloat16)
    np.testing.assert_array_equal(conv(x, w), lax_conv(x, w))
    assert jax.grad(lambda w: jnp.sum(conv(x, w)).astype(jnp.float32))(w).dtype == jnp.bfloat16
    exact = lax_conv(x.astype(jnp.float32), w.astype(jnp.float32))
    assert relative(_winograd(x.astype(jnp.float32), w.astype(jnp.float32)), exact) < 1e-5


def test_convolution_says_what_it_takes():
    with pytest.raises(InputError, match="w has shape"):
        conv(jnp.ones((1, 8, 8, 3)), jnp.ones((2, 2, 3, 4)))
    with pytest.raises(InputError, match="x has shape"):
        conv(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 4, 4)))


@pytest.mark.parametrize("side", [8, 7])
def test_pooling_equals_torch_ties_included(side):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, side, side, 3)).astype(np.float32)  # nearly every window has a tie
    g = rng.normal(size=(2, side // 2, side // 2, 3)).astype(np.float32)
    y, back = jax.vjp(max_pool, x)
    theirs = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, 2)
    pooled.backward(torch.tensor(g).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(y, pooled.detach().permute(0, 2, 3, 1))
    np.testing.assert_array_equal(back(g)[0], theirs.grad.permute(0, 2, 3, 1))


# ---- ContextUnet


def test_context_unet_has_the_papers_parameters():
    net = context_unet()
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    parts = {name: count(part) for name, part in shapes.params.items()}
    assert count(shapes.params) == 6_585_601
    assert parts.pop("up0") + parts.pop("norm0") == 3_212_032
    assert parts == {
        **{"init": 149_376, "down1": 295_680, "down2": 886_272, "time1": 66_304, "time2": 16_768},
        **{"label1": 68_608, "label2": 17_920, "up1": 853_632, "up2": 722_560, "head": 296_449},
    }


@pytest.fixture(scope="module")
def neural():
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
        yield importlib.import_module("neural")


def test_context_unet_equals_torch(neural):
    """A maximum over four pixels that rounding decides has another gradient: one of a few inputs must have none of those."""
    for seed in range(4):
        try:
            return equals_torch(neural, seed)
        except AssertionError as error:
            last = error
    raise last


def equals_torch(neural, seed):
    import torch

    inputs = x, noise, label, keep = unet_inputs(seed=seed)
    variables = jax.jit(SMALL.init)(jax.random.key(0))
    # norms that scale and shift, or a missing one would pass
    params = jax.tree.map(lambda a: a + 0.1 * np.sin(np.arange(a.size)).reshape(a.shape), variables.params)
    variables = variables._replace(params=params)
    target = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    theirs = neural.torch_context_unet(16, 16)
    neural.carry_over(variables, theirs)
    condition = torch.tensor(np.eye(10, dtype=np.float32)[label] * keep[:, None])
    images = [torch.tensor(v).permute(0, 3, 1, 2) for v in (x, target)]

    def run():
        return theirs(images[0], torch.tensor(noise), condition)

    def close(ours, expected):
        expected = expected.detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (out, stats)), gradient = grad(variables.params, variables, target, inputs)
    expected = run()
    torch.sum(expected * images[1]).backward()
    close(out.transpose(0, 3, 1, 2), expected)
    scale = max(float(p.grad.abs().max()) for p in theirs.parameters())
    for path, array in neural.named(gradient).items():
        name, array = neural.torch_name(path, array)
        found = theirs.get_parameter(name).grad.numpy()
        bias_before_norm = path[-1] == "bias" and path[-2] in ("conv1", "conv2") and path[0] != "head"
        # that gradient is zero, and PyTorch's a rounding error
        atol = 1e-5 * scale if bias_before_norm else 1e-4 * np.abs(found).max()
        np.testing.assert_allclose(array, found, rtol=1e-4, atol=atol, err_msg=name)
    for path, array in neural.named(stats).items():
        name, array = neural.torch_name(path, array)
        close(array, theirs.get_buffer(name))
    theirs.eval()
    still, same = jax.jit(SMALL.apply)(variables._replace(stats=stats), *inputs)
    close(still.transpose(0, 3, 1, 2), run())
    jax.tree.map(np.testing.assert_array_equal, same, stats)


def test_context_unet_in_bfloat16():
    inputs, half = unet_inputs(), context_unet(features=16, image=16, dtype=jnp.bfloat16)
    variables = jax.jit(half.init)(jax.random.key(0))
    work = jax.value_and_grad(lambda p: loss(p, variables, 1.0, inputs, half), has_aux=True)
    (_, (out, stats)), gradient = jax.eval_shape(work, variables.params)
    assert out.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((stats, gradient))} == {jnp.dtype(jnp.float32)}
    rounded, exact = jax.jit(lambda v: (half.apply(v, *inputs)[0], SMALL.apply(v, *inputs)[0]))(variables)
    assert 1e-4 < relative(rounded, exact) < 0.1


def test_context_unet_says_what_it_takes():
    for bad in ({"image": 14}, {"features": 12}, {"classes": 0}, {"channels": -1}, {"dtype": jnp.int32}):
        with pytest.raises(InputError, match=next(iter(bad))):
            context_unet(**bad)
    variables = jax.eval_shape(SMALL.init, jax.random.key(0))
    with pytest.raises(InputError, match="16, 16, 1"):
        jax.eval_shape(SMALL.apply, variables, jnp.ones((2, 28, 28, 1)), jnp.ones(2), jnp.ones(2, int), jnp.ones(2))


@pytest.mark.parametrize("features", [8, 128])
def test_a_training_step_lowers_for_accelerators_with_xlas_own_convolutions(features):
    net = context_unet(features=features, image=16)
    variables = jax.eval_shape(net.init, jax.random.key(0))

    def step(variables, *inputs):
        def steps(variables, _):
            work = jax.value_and_grad(loss, has_aux=True)
            (value, (_, stats)), gradient = work(variables.params, variables, 1.0, inputs, net)
            params = jax.tree.map(lambda p, g: p - 1e-3 * g, variables.params, gradient)
            return variables._replace(params=params, stats=stats), value

        return lax.scan(steps, variables, None, length=2)

    for platform in ("tpu", "cuda"):
        text = export.export(jax.jit(step), platforms=[platform])(variables, *unet_inputs(2)).mlir_module()
        # 16 convolutions forward, the first needs no dx, and every one has its own dw
        assert text.count("stablehlo.convolution") == 16 + 15 + 16
        assert text.count("stablehlo.while") == 1


# ---- LeNet


@pytest.mark.parametrize("image", [28, 8])
def test_lenet(image):
    net = lenet(image=image)
    x = jax.random.uniform(jax.random.key(1), (3, image, image, 1))

    @jax.jit
    def work(x):
        variables = net.init(jax.random.key(0))
        return variables, net.apply(variables, x), net.apply(variables, x, features="after")[0]

    variables, (logits, stats), hidden = work(x)
    assert logits.shape == (3, 10) and hidden.shape == (3, 84) and stats == {}
    leave = variables.params["leave"]
    np.testing.assert_allclose(logits, hidden @ leave["kernel"] + leave["bias"], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="x has shape"):
        net.apply(variables, x[:, 1:])


def test_the_papers_lenet_has_sigmoids_in_every_hidden_layer():
    """Against the same sums written out, so that one activation that is another shows."""
    net = lenet(image=8, activation="sigmoid")
    variables, x = net.init(jax.random.key(0)), jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    parts = variables.params

    def sigmoid(v):
        return 1 / (1 + np.exp(-np.asarray(v, np.float64)))

    seen = x
    for i in range(2):
        kernel, bias = (jax.tree.leaves(parts[name])[i] for name in ("kernels", "biases"))
        seen = jax.lax.conv_general_dilated(seen, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        side = seen.shape[1] // 2
        seen = sigmoid(seen + bias).reshape(3, side, 2, side, 2, -1).max((2, 4)).astype(np.float32)
    seen = sigmoid(seen.reshape(3, -1) @ parts["dense1"]["kernel"] + parts["dense1"]["bias"])
    before = seen @ parts["dense2"]["kernel"] + parts["dense2"]["bias"]
    np.testing.assert_allclose(net.apply(variables, x, features="before")[0], before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.apply(variables, x, features="after")[0], sigmoid(before), rtol=1e-4, atol=1e-5)
    plain = lenet(image=8).apply(variables, x, features="before")[0]
    assert np.abs(plain - before).max() > 0.1  # ReLUs are the default, and are others


def test_lenet_says_what_it_takes():
    sixteen = lenet(image=16)
    variables = jax.eval_shape(sixteen.init, jax.random.key(0))
    assert jax.eval_shape(sixteen.apply, variables, jnp.ones((2, 16, 16, 1)))[0].shape == (2, 10)
    for bad in ({"image": 3}, {"classes": 1}, {"activation": "tanh"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            lenet(**bad)


def test_times_are_embedded_in_float32():
    half = context_unet(features=8, image=8, dtype=jnp.bfloat16)
    variables = jax.eval_shape(half.init, jax.random.key(0))
    x, label = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    time = jax.ShapeDtypeStruct((2,), jnp.float32)
    # of 400 steps bfloat16 knows two hundred or so: the time goes through its two products before anything is rounded
    text = jax.jit(lambda v, x, t, y: half.apply(v, x, t, y)[0]).lower(variables, x, time, label).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line and "(tensor<2x1x" in line]
    products = [line for line in products if "tensor<1x8x" in line or "tensor<1x16x" in line]
    assert len(products) == 2 and all("(tensor<2x1xf32>" in line for line in products)
