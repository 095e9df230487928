"""Diffusion and flow matching as a learner: a network, a process and a sampler, any with any."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from mcloop import random
from mcloop.errors import InputError
from mcloop.models.processes import Process, estimates
from mcloop.models.samplers import Sampler, finer
from mcloop.nets.network import Network
from mcloop.types import Learner


def diffusion(
    network: Network,
    process: Process,
    sampler: Sampler,
    shape: tuple[int, ...],
    classes: int = 0,
    drop: float = 0.1,
    guidance=0.0,
    shift=0.0,
    scale=1.0,
) -> Learner:
    """A generative model by denoising: `process` says what the network learns, `sampler` how it then draws.

    Args:
        network: called as apply(variables, x (b, *shape), noise (b,), label (b,), keep (b,)); label and keep are None
            without classes.
        process: `ddpm`, `edm` or `flow_matching`.
        sampler: from `samplers.py`.
        shape: of one point.
        classes: number of classes; 0 for points without labels (arrays), else points are {"x", "label"}.
        drop: share of labels that training hides, in [0, 1) (classifier-free guidance, Ho & Salimans 2207.12598).
        guidance: w in (1 + w) f(y, label) - w f(y), on the network's output f, which is the same on noise, velocity or
            denoised data. The plain number 0.0 spares the second half of the batch; it may also be a traced scalar.
        shift: data at the origin of network units; a number, or an array that broadcasts to `shape`.
        scale: network unit in units of the data, likewise: the network sees (x - shift) / scale. A DDPM and a flow expect data
            of about unit size.

    The loss is the mean over the batch and over coordinates of the process's weighted squared error, in network units.
    `field` is the denoised prediction in data units, at the process's three probe levels with fixed noise: (n, 3 m)
    for points of m coordinates. Sampling and `field` run the network outside training mode, so that BatchNorm uses its
    running statistics.

    Raises:
        InputError: where the sampler is not defined for the process, or an argument is out of range.
    """
    _check(shape, classes, drop, guidance, scale)
    run, finely = sampler.on(process), finer(sampler, process)
    shift, scale = jnp.asarray(shift, jnp.float32), jnp.asarray(scale, jnp.float32)

    def parts(points):
        x, label = (points["x"], points["label"]) if classes else (points, None)
        if x.shape[1:] != tuple(shape):
            raise InputError(f"points have shape {list(x.shape)}; with shape = {tuple(shape)} it must be (n, *shape).")
        return (x - shift) / scale, label

    def loss(key, variables, points):
        k_pair, k_drop, k_network = jax.random.split(key, 3)
        x, label = parts(points)
        pair = process.pair(k_pair, x)
        keep = (random.uniform(k_drop, x.shape[:1]) >= drop).astype(jnp.float32) if classes else None
        output, stats = network.apply(variables, pair.x, pair.noise, label, keep, train=True, key=k_network)
        return jnp.mean((output - pair.target) ** 2), stats

    def drawn(run, key, variables, count, label=None):
        if not classes:
            if label is not None:
                raise InputError("label is given, but this learner has classes = 0.")
            return run(key, _guided(network, variables, None, 0.0), (count, *shape)).x * scale + shift
        label = jnp.arange(count, dtype=jnp.int32) % classes if label is None else jnp.asarray(label, jnp.int32)
        if label.shape != (count,):
            raise InputError(f"label has shape {list(label.shape)}; it must be ({count},), one for each point.")
        x = run(key, _guided(network, variables, label, guidance), (count, *shape)).x
        return {"x": x * scale + shift, "label": label}

    def field(variables, points):
        x, label = parts(points)
        noise = random.normal(jax.random.key(0), (len(process.probe), *x.shape))

        def denoised(time, e):
            a, b, *_ = process.path(time)
            return estimates(process, _guided(network, variables, label, 0.0), a * x + b * e, time)[0] * scale + shift

        levels = jax.vmap(denoised)(jnp.asarray(process.probe, jnp.float32), noise)
        return jnp.moveaxis(levels, 0, 1).reshape(x.shape[0], -1)

    more = None if finely is None else partial(drawn, finely)
    return Learner(f"{process.name}, {sampler.name}", network.init, loss, partial(drawn, run), field, finer=more)


def _guided(network, variables, label, guidance):
    """The network as samplers call it, (x, noise) -> output; `label` is None without classes."""

    def output(x, noise):
        noise = jnp.broadcast_to(noise, x.shape[:1])
        if label is None:
            return network.apply(variables, x, noise, None, None)[0]
        kept = jnp.ones(x.shape[:1])
        if isinstance(guidance, int | float) and guidance == 0:
            return network.apply(variables, x, noise, label, kept)[0]
        both = (jnp.concatenate(pair) for pair in ((x, x), (noise, noise), (label, label), (kept, 0 * kept)))
        conditional, free = jnp.split(network.apply(variables, *both)[0], 2)
        return (1 + guidance) * conditional - guidance * free

    return output


def _check(shape, classes, drop, guidance, scale):
    if not all(isinstance(size, int) and size > 0 for size in shape) or not math.prod(shape):
        raise InputError(f"shape is {shape!r}; it must be a tuple of positive integers, the shape of one point.")
    if not isinstance(classes, int) or classes < 0:
        raise InputError(f"classes is {classes!r}; it must be an integer of at least 0.")
    if not 0 <= drop < 1:
        raise InputError(f"drop is {drop}; it must be in [0, 1).")
    if isinstance(guidance, int | float) and guidance != 0 and not classes:
        raise InputError(f"guidance is {guidance}; without classes it must be 0.")
    if isinstance(scale, int | float) and not scale > 0:
        raise InputError(f"scale is {scale}; it must be larger than 0.")
