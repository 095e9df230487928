"""Parts of `accelerator.py`: the device's own bounds, the Gaussian grid, single networks, and precision and recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import exact_loops
import jax
import jax.numpy as jnp
import language
import neural
import numpy as np
from accelerator_rows import BANDWIDTH, PEAK, Part, Row, Setting, compiled, reason, seconds_a_call
from jax import lax

from mcloop.metrics.prdc import prdc
from mcloop.nets.transformer import GPT2_9M, LLAMA2_126M, Shape, transformer
from mcloop.nets.unet import context_unet

_NEIGHBOURS = 3
_FEATURES = 84  # of the LeNet that digits are compared in
_PEER = 60.0  # seconds that must be left for PyTorch to compile


def bounds(setting: Setting) -> Iterator[Row]:
    """The best of three large products of bfloat16, and a pass over memory that reads and writes every byte."""
    found = []
    for side in (128, 256) if setting.tiny else (4096, 8192, 16384):
        # normal numbers, of a product that keeps its size: ones and infinities cost a chip less power, and flatter it
        x, w = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
        multiply, seconds = compiled(jnp.matmul, x, w)
        held, w = [x], w / side**0.5

        def product(held=held, w=w, multiply=multiply):
            held[0] = multiply(held[0], w)
            return held[0]

        found.append((2.0 * side**3 / seconds_a_call(product, setting.tiny), side, seconds))
    best, side, seconds = max(found)
    yield Row(PEAK, best / 1e12, "TFLOP/s", compile_s=seconds, remark=f"{side} x {side}")
    x = jnp.ones(2**16 if setting.tiny else 2**28)
    scale, seconds = compiled(lambda x: x * 1.0001, x, donate_argnums=0)
    held, size = [x], 2 * x.nbytes

    def copy():
        held[0] = scale(held[0])
        return held[0]

    rate = size / seconds_a_call(copy, setting.tiny)
    yield Row(BANDWIDTH, rate / 1e9, "GB/s", compile_s=seconds, remark="read and written, float32")


def gaussian(setting: Setting) -> Iterator[Row]:
    """Many replicas of a loop in one program, against the best NumPy on the host; both must have the same mean."""
    cases = [case for case in exact_loops.cases() if "by Bartlett" in case.name]
    for case in cases[:1] if setting.tiny else cases:
        if setting.tiny:
            case = case._replace(cells=256, generations=10, batch=64)
        found = exact_loops.compare(case, quick=False)
        said = f"{case.size}, {case.regime}, {case.generations} generations"
        other = found["vectorised NumPy"]
        yield Row(_grid(case.size), found["mcloop"], "cell-generations/s", "NumPy, host", other, found["compile s"], said)


def _grid(size: str) -> str:
    return f"Gaussian grid, {size}"


def no_torch() -> str:
    """Why PyTorch cannot be the peer here; empty where it can."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    seen = jax.default_backend() == "cpu" or (jax.default_backend() == "gpu" and torch.cuda.is_available())
    return "" if seen else "PyTorch does not see this device"


def unet(setting: Setting) -> Iterator[Row]:
    """The network of `gillman/mnist --size paper`: a sampling pass and a training step on a batch of 256."""
    features, image, count, times = (8, 8, 4, 1) if setting.tiny else (128, 28, 256, 10)
    batch = neural.unet_batch(count, image)
    net = context_unet(features=features, image=image, dtype=jnp.bfloat16 if setting.half else None)
    variables = jax.jit(net.init)(jax.random.key(0))
    works, compilation, flops, forward = neural.mcloop_unet(variables, net, batch, times, scanned=False)
    theirs, said = their_unet(setting, variables, features, batch, forward, times)
    against = "" if not theirs else "torch.compile" if jax.default_backend() == "gpu" else "PyTorch"
    for kind, what in zip(("step", "sample"), UNET, strict=True):
        pair = {"ours": works[kind]} | ({"theirs": theirs[f"torch {kind}"]} if theirs else {})
        found = neural.take_turns(pair, 2 if setting.tiny else 5)
        rate, peak, other = times * count / found["ours"], setting.measured.get(PEAK), None
        if theirs:
            other = times * count / found["theirs"]
        share = (
            f"; {100 * flops[kind] * rate / count / (peak * 1e12):.2g} % of the peak by XLA's count"
            if peak and (flops[kind] or 0) > 0
            else ""
        )
        remark = f"{features} features, {image} x {image}, {count} images{share}{said}"
        yield Row(what, rate, "images/s", against, other, compilation[kind], remark)


def their_unet(setting: Setting, variables, features, batch, forward, times) -> tuple[dict[str, Callable], str]:
    """PyTorch's pass and step, compiled and warm; none, and the reason, where they cannot be had."""
    why = no_torch()
    if not (why or setting.tiny) and setting.left < _PEER:
        why = f"{setting.left:.0f} s were left for PyTorch"
    if why:
        return {}, f"; no peer: {why}"
    try:
        theirs, expected = neural.torch_unet(variables, features, batch, setting.half, times)
        if (error := neural.unlike(forward, variables, expected, setting.half)) is not None:
            return {}, f"; no peer: outputs differ by {error:.2g}"
        start = time.perf_counter()
        for work in theirs.values():
            work()
    except Exception as error:
        return {}, f"; no peer: {reason(error)}"
    return theirs, f"; PyTorch's first calls took {time.perf_counter() - start:.0f} s"


def _shape(shape: Shape, tiny: bool) -> Shape:
    return shape._replace(layers=2, width=32, hidden=64, heads=2, vocabulary=64, context=32) if tiny else shape


def training(name: str, shape: Shape) -> Callable[[Setting], Iterator[Row]]:
    """Steps of AdamW on the batch of `gerstgrasser/tinystories_*`, 64 x 512 tokens, with its layers in a scan, as there."""

    def work(setting: Setting) -> Iterator[Row]:
        made, half = _shape(shape, setting.tiny), setting.half
        rows, length, times = (2, 16, 1) if setting.tiny else (64, 512, 5)
        tokens = np.random.default_rng(0).integers(0, made.vocabulary, (rows, length)).astype(np.int32)
        variables = jax.jit(transformer(made).init)(jax.random.key(0))
        step, seconds, operations = language.our_training(made, variables, tokens, jnp.bfloat16 if half else None, True, times)
        loss = step()
        rate = times * tokens.size / neural.take_turns({"step": step}, 2 if setting.tiny else 5)["step"]
        if not np.isfinite(loss) or not loss < 2 * np.log(made.vocabulary):
            raise RuntimeError(f"the loss after {times} steps is {loss}")
        peak = setting.measured.get(PEAK)
        bound = None if peak is None else peak * 1e12 * tokens.size / operations
        said = f"{rows} x {length} tokens, {made.parameters:,} parameters" + ("" if peak else "; the peak was not measured")
        yield Row(f"{name}, training", rate, "tokens/s", PEAK if peak else "", bound, seconds, said)

    return work


def sampling(name: str, shape: Shape) -> Callable[[Setting], Iterator[Row]]:
    """256 sequences of 512 tokens, as `gerstgrasser/tinystories_*` draw them, against what memory must be read for them."""

    def work(setting: Setting) -> Iterator[Row]:
        made, half = _shape(shape, setting.tiny), setting.half
        count, length = (2, 16) if setting.tiny else (256, 512)
        fast = {"blocks": 1} if setting.tiny else {}
        variables = jax.jit(transformer(made).init)(jax.random.key(0))
        draw, seconds = language.our_sampling(made, variables, count, length, jnp.bfloat16 if half else None, **fast)
        rate = count * length / neural.take_turns({"draw": draw}, 2 if setting.tiny else 3)["draw"]
        width, speed = setting.measured.get(BANDWIDTH), 2 if half else 4
        read = speed * (read_weights(made) + count * made.layers * 2 * made.width * length / 2)
        bound = None if width is None else width * 1e9 * count / read
        said = f"{count} sequences of {length}; a token of all of them reads {read / 1e6:.3g} MB, weights and half of the cache"
        yield Row(f"{name}, sampling", rate, "tokens/s", BANDWIDTH if bound else "", bound, seconds, said)

    return work


def read_weights(shape: Shape) -> int:
    """Weights that a token is multiplied with: all but a table of which it takes one row."""
    return shape.parameters - (shape.vocabulary if shape.family == "llama2" else shape.context) * shape.width


def precision_recall(setting: Setting) -> Iterator[Row]:
    """50,000 features against 50,000: NumPy's on the host, which is what `mcloop.metrics` has, and plain JAX on the device."""
    full = 400 if setting.tiny else 50_000
    rng = np.random.default_rng(0)
    real = rng.normal(size=(full, _FEATURES)).astype(np.float32)
    fake = (0.9 * rng.normal(size=(full, _FEATURES)) + 0.05).astype(np.float32)
    # on a fifth of the points first, which says whether all of them would still fit
    count, seconds = full // 5, 0.0
    for count in (full // 5, full):
        if count == full and not setting.tiny and 25 * seconds > setting.left - 20:
            count //= 5
            break
        start = time.perf_counter()
        found = prdc(real[:count], fake[:count], _NEIGHBOURS)
        seconds = time.perf_counter() - start
    said = f"{seconds:.3g} s for {count:,} x {count:,} of {_FEATURES} features"
    if count < full:
        said += f"; skipped: {full:,} x {full:,}, reckoned to take {25 * seconds:.0f} s of the {max(setting.left, 0):.0f} left"
    against, other, compile_s = "JAX, device", None, None
    try:
        a, b = jnp.asarray(real[:count]), jnp.asarray(fake[:count])
        program, compile_s = compiled(device_precision_recall, a, b)
        theirs = np.asarray(program(a, b))
        if np.abs(theirs - [found.precision, found.recall]).max() > 0.01:
            raise RuntimeError(f"precision and recall are {theirs} there, and {found.precision:.4f}, {found.recall:.4f} here")
        other = count**2 / seconds_a_call(lambda: program(a, b), setting.tiny, 2)
    except Exception as error:
        against, said = "", f"{said}; no peer: {reason(error)}"
    yield Row(PRDC, count**2 / seconds, "pairs/s", against, other, compile_s, said)


def device_precision_recall(real, fake, k: int = _NEIGHBOURS):
    """Precision and recall of (n, d) against (n, d) in float32, a hundred blocks of rows one after the other."""

    def rows(x):
        return x.reshape(100, -1, x.shape[1])

    def squares(x, y):
        product = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
        return jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1) - 2 * product

    def radii(x):
        return lax.map(lambda part: -lax.top_k(-squares(part, x), k + 1)[0][:, k], rows(x)).ravel()

    def reached(x, y, radius):
        return lax.map(lambda part: (squares(part, y) < radius).any(1), rows(x)).mean()

    return jnp.stack([reached(fake, real, radii(real)), reached(real, fake, radii(fake))])


UNET = ("U-Net, training step", "U-Net, sampling pass")
PRDC = "precision and recall"
BOUNDS = Part("bounds", (PEAK, BANDWIDTH), 15, bounds)


def parts(tiny: bool) -> list[Part]:
    """In the order in which they are measured: what most depends on a device first."""
    models: dict[str, Shape] = {"GPT-2 9M": GPT2_9M, "Llama-2 126M": LLAMA2_126M}
    found: list[Any] = [BOUNDS]
    sizes = ("d=2, n=50",) if tiny else ("d=2, n=50", "d=10, n=100")
    found.append(Part("gaussian", tuple(_grid(size) for size in sizes), 30, gaussian))
    found.append(Part("unet", UNET, 45, unet))
    for name, shape in models.items():
        found.append(Part("training", (f"{name}, training",), 35, training(name, shape)))
        found.append(Part("sampling", (f"{name}, sampling",), 35, sampling(name, shape)))
    return found


LAST = Part("prdc", (PRDC,), 30, precision_recall)
