"""Neural loops: mcloop's networks against the equal PyTorch modules, grids of loops against one at a time, checkpoints.

    python benchmarks/neural.py [--quick] [--only unet|toys|checkpoints] [--json results.json] [--peak-tflops 989]

A row is timed only after both networks have given the same output for the same weights. The two take turns, and every
figure is the best of the repeats; compilation is timed apart. On a GPU PyTorch is compiled too and both run in float32
and bfloat16, and the last column is the share of the matrix units' peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

# PyTorch's idle threads otherwise spin, and take the cores from whatever is timed next
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from neural_loops import checkpoint_rows, toy_rows

from mcloop.nets import context_unet

_STEPS = 4  # optimiser steps in one compiled scan
# dense matrix products, TFLOP/s, of float32 inputs (as TF32) and bfloat16: NVIDIA's data sheets
_PEAKS = {"H100": (494.5, 989.0), "H200": (494.5, 989.0), "A100": (156.0, 312.0)}


def torch_context_unet(features: int = 128, image: int = 28, classes: int = 10, channels: int = 1):
    """The PyTorch module that `mcloop.nets.context_unet` equals; its parts have the same names."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, residual=False):
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
            self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
            self.residual = residual

        def forward(self, x):
            first = nn.functional.gelu(self.norm1(self.conv1(x)))
            second = nn.functional.gelu(self.norm2(self.conv2(first)))
            return (first + second) / 1.414 if self.residual else second

    class Embed(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.enter, self.leave = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

        def forward(self, x):
            return self.leave(nn.functional.gelu(self.enter(x)))[:, :, None, None]

    class Up(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.upscale = nn.ConvTranspose2d(inputs, outputs, 2, 2)
            self.block1, self.block2 = Block(outputs, outputs), Block(outputs, outputs)

        def forward(self, x, skip):
            return self.block2(self.block1(self.upscale(torch.cat([x, skip], 1))))

    class Head(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.conv1, self.norm = nn.Conv2d(2 * f, f, 3, padding=1), nn.GroupNorm(8, f)
            self.conv2 = nn.Conv2d(f, channels, 3, padding=1)

        def forward(self, x, skip):
            return self.conv2(torch.relu(self.norm(self.conv1(torch.cat([x, skip], 1)))))

    class ContextUnet(nn.Module):
        def __init__(self, f, side):
            super().__init__()
            self.init, self.down1, self.down2 = Block(channels, f, residual=True), Block(f, f), Block(f, 2 * f)
            self.time1, self.time2 = Embed(1, 2 * f), Embed(1, f)
            self.label1, self.label2 = Embed(classes, 2 * f), Embed(classes, f)
            self.up0, self.norm0 = nn.ConvTranspose2d(2 * f, 2 * f, side, side), nn.GroupNorm(8, 2 * f)
            self.up1, self.up2, self.head = Up(4 * f, f), Up(2 * f, f), Head(f)
            self.pool, self.vector = nn.MaxPool2d(2), nn.AvgPool2d(side)

        def forward(self, x, noise, condition):
            first, noise = self.init(x), noise[:, None]
            down1 = self.pool(self.down1(first))
            down2 = self.pool(self.down2(down1))
            h = nn.functional.gelu(self.vector(down2))
            h = torch.relu(self.norm0(self.up0(h)))
            h = self.up1(self.label1(condition) * h + self.time1(noise), down2)
            h = self.up2(self.label2(condition) * h + self.time2(noise), down1)
            return self.head(h, first)

    return ContextUnet(features, image // 4).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def named(tree: dict, path: tuple = ()) -> dict[tuple[str, ...], np.ndarray]:
    """Nested dicts as one: ("up1", "block1", "conv1", "kernel") -> array."""
    if not isinstance(tree, dict):
        return {path: np.asarray(tree)}
    return {k: v for name, branch in tree.items() for k, v in named(branch, (*path, name)).items()}


def torch_name(path: tuple[str, ...], array: np.ndarray) -> tuple[str, np.ndarray]:
    """The PyTorch name and layout of one of mcloop's arrays."""
    *parents, name = path
    if name == "kernel":
        up = parents[-1] in ("up0", "upscale")
        array = array.T if array.ndim == 2 else array.transpose((0, 3, 1, 2) if up else (3, 2, 0, 1))
    words = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return ".".join([*parents, words.get(name, name)]), array


def carry_over(variables, module) -> None:
    """Give a PyTorch module the weights and the running statistics of mcloop's network."""
    import torch

    arrays = dict(torch_name(*item) for part in variables for item in named(part).items())
    state = module.state_dict()
    for name in state:
        if not name.endswith("num_batches_tracked"):
            state[name].copy_(torch.tensor(np.array(arrays.pop(name))))
    if arrays:
        raise RuntimeError(f"PyTorch's module has no {sorted(arrays)}.")


def take_turns(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of the fastest of `repeats` rounds, in which each is run once after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:  # the first is to warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in seconds.items()}


def unet_batch(count, image):
    """Images, noise levels and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, image, image, 1)).astype(np.float32)
    return x, rng.random(count).astype(np.float32), np.arange(count, dtype=np.int32) % 10


def _compiled(work, *inputs, **options):
    start = time.perf_counter()
    made = jax.jit(work, **options).lower(*inputs).compile()
    return made, time.perf_counter() - start


def mcloop_unet(variables, net, batch, times: int = 1, scanned: bool = True):
    """Compiled sampling pass, training step and, if `scanned`, a scan of steps, as functions of nothing, and the pass itself.

    Passes and steps are made `times` times before the device is waited for.

    Returns:
        (the functions, seconds of compilation, floating-point operations, the compiled pass); the middle two by name.
    """
    x, noise, label = (jnp.asarray(v) for v in batch)
    keep, optimiser = jnp.ones(len(x)), optax.adam(1e-4)

    def step(state, _=None):
        def loss(params):
            out, stats = net.apply(state[0]._replace(params=params), x, noise, label, keep, train=True)
            return jnp.mean(jnp.square(out - x)), stats

        (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state[0].params)
        updates, memory = optimiser.update(gradient, state[1])
        return (state[0]._replace(params=optax.apply_updates(state[0].params, updates), stats=stats), memory), None

    state = variables, optimiser.init(variables.params)
    one, of_step = _compiled(lambda s: step(s)[0], state, donate_argnums=0)
    forward, of_pass = _compiled(lambda v: net.apply(v, x, noise, label, keep)[0], variables)
    held, seconds = [jax.tree.map(jnp.copy, state)], {"step": of_step, "sample": of_pass}

    def train(program, times=1):
        for _ in range(times):
            held[0] = program(held[0])
        jax.block_until_ready(held[0])

    works = {
        "sample": lambda: jax.block_until_ready([forward(variables) for _ in range(times)]),
        "step": lambda: train(one, times),
    }
    if scanned:
        many, _ = _compiled(lambda s: lax.scan(step, s, None, length=_STEPS)[0], state, donate_argnums=0)
        works["scan"] = lambda: train(many)
    flops = {name: (made.cost_analysis() or {}).get("flops") for name, made in (("sample", forward), ("step", one))}
    return works, seconds, flops, forward


def torch_unet(variables, features, batch, half, times: int = 1):
    """The same sampling pass and training step in PyTorch, and the output of the first; compiled on a GPU."""
    import torch

    gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    x, noise, label = (torch.tensor(v).to(device) for v in batch)
    x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    condition = torch.nn.functional.one_hot(label.long(), 10).float()
    made = torch_context_unet(features, batch[0].shape[1])
    carry_over(variables, made)
    made = made.to(device).eval()
    with torch.no_grad():
        output = made(x, noise, condition).permute(0, 2, 3, 1).cpu().numpy()
    sampler, trainer = made, torch_context_unet(features, batch[0].shape[1]).to(device)
    optimiser = torch.optim.Adam(trainer.parameters(), 1e-4, fused=gpu or None)
    if gpu:
        sampler, trainer = torch.compile(sampler), torch.compile(trainer)

    def guarded(work):
        def timed():
            for _ in range(times):
                with torch.autocast(device, torch.bfloat16, enabled=half):
                    work()
            if gpu:
                torch.cuda.synchronize()

        return timed

    def sample():
        with torch.no_grad():
            sampler(x, noise, condition)

    def train():
        optimiser.zero_grad()
        torch.square(trainer(x, noise, condition) - x).mean().backward()
        optimiser.step()

    return {"torch sample": guarded(sample), "torch step": guarded(train)}, output


def unlike(forward, variables, expected, half: bool) -> float | None:
    """The largest difference of two outputs; None where rounding explains it."""
    error = float(np.max(np.abs(np.asarray(forward(variables), np.float32) - expected)))
    return None if error < (0.2 if half else 1e-3) * np.max(np.abs(expected)) else error


def unet_row(features: int, image: int, count: int, half: bool, repeats: int, peak: float | None) -> list[dict]:
    """Two rows: sampling pass and training step of ContextUnet."""
    batch = unet_batch(count, image)
    net = context_unet(features=features, image=image, dtype=jnp.bfloat16 if half else None)
    variables = jax.jit(net.init)(jax.random.key(0))
    works, compilation, flops, forward = mcloop_unet(variables, net, batch)
    theirs = {}
    try:
        theirs, expected = torch_unet(variables, features, batch, half)
    except ImportError:
        print("PyTorch is not installed: its columns stay empty.", flush=True)
    else:
        if (error := unlike(forward, variables, expected, half)) is not None:
            raise RuntimeError(f"ContextUnet, {features} features: mcloop's output and PyTorch's differ by {error:.2g}.")
    found = take_turns(works | theirs, repeats)
    rows = []
    for kind, name in (("sample", "U-Net, sampling pass"), ("step", "U-Net, training step")):
        other = found.get(f"torch {kind}")
        scanned = found["scan"] / _STEPS if kind == "step" else None
        best = min(found[kind], scanned or np.inf)
        row: dict[str, Any] = {"what": name, "features": features, "image": image, "batch": count}
        row |= {"type": "bfloat16" if half else "float32", "mcloop ms": found[kind] * 1e3}
        row |= {"in a scan, ms": scanned and scanned * 1e3, "PyTorch ms": other and other * 1e3}
        row |= {"/ PyTorch": other and found[kind] / other, "in a scan / PyTorch": other and scanned and scanned / other}
        row |= {"compile s": compilation["step"] if kind == "step" else None}
        row["of peak, %"] = 100 * flops[kind] / best / (peak * 1e12) if peak and flops[kind] else None
        rows.append(row)
    return rows


def unet_rows(quick: bool, peak: float | None) -> list[dict]:
    """ContextUnet at the paper's width and at a quarter of it."""
    gpu, rows = jax.default_backend() == "gpu", []
    sizes = [(32, 16), (32, 28)] if quick and not gpu else [(32, 16), (32, 28), (128, 16), (128, 28)]
    for features, image in sizes:
        for half in (False, True) if gpu else (False,):
            known = next((p for name, p in _PEAKS.items() if gpu and name in jax.devices()[0].device_kind), None)
            top = peak or (known and known[half])
            rows += unet_row(features, image, 1024 if gpu else 64, half, 3 if quick else 6, top)
            print(table(rows[-2:]).split("\n", 2)[2], flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """GitHub markdown."""

    def cell(name, x):
        if x is None or isinstance(x, (str, int)):
            return "-" if x is None else str(x)
        return f"{x:.2f}x" if "/" in name else f"{x:.1f}" if x < 100 else f"{x:,.0f}"

    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(n, row[n]) for n in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> dict:
    """What the figures were measured on."""
    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = {"device": device.device_kind, "platform": device.platform, "cores": os.cpu_count(), "load average": load}
    return where | {"python": platform.python_version(), "jax": jax.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the narrow network only on a CPU, fewer repeats")
    parser.add_argument("--json", help="also write the figures here")
    parser.add_argument("--peak-tflops", type=float, help="peak of the device's matrix products, for the last column")
    parser.add_argument("--only", choices=("unet", "toys", "checkpoints"), help="one table of the three")
    given = parser.parse_args()
    where = machine()
    print(", ".join(f"{k} {v}" for k, v in where.items()), flush=True)
    tables = {
        "unet": lambda: unet_rows(given.quick, given.peak_tflops),
        "toys": lambda: toy_rows(given.quick),
        "checkpoints": lambda: checkpoint_rows(given.quick),
    }
    results: dict[str, Any] = {"machine": where}
    for name, rows in tables.items():
        if given.only in (None, name):
            results[name] = rows()
            print("\n" + table(results[name]) + "\n", flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
