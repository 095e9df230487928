"""How data turn into noise, and what a network learns of the way back: noise levels, preconditioning, training targets.

Karras et al. 2206.00364 separate three choices that papers used to make together. A `Process` holds two of them, the path
between noise and data with its training objective; a sampler (`samplers.py`) is the third, and fits any process.

A process has a time of its own, in which the state is y = a(time) x + b(time) e, with x the data and e ~ N(0, I). DDPM
and EDM share y = x + sigma e with the time sigma (a DDPM's state is y / sqrt(1 + sigma^2)); flow matching has
y = t x + (1 - t) e with the time t, which runs from noise (0) to data (1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.errors import InputError
from mcloop.models.coupling import pair_up

_RHO, _SIGMA_MAX = 7.0, 80.0  # EDM's grid of noise levels, also for the continuous samplers of a DDPM


class Pair(NamedTuple):
    """A batch to train on: the loss is the plain mean of (network(x, noise) - target)^2 over batch and coordinates.

    Attributes:
        x: (b, ...) the network's input.
        noise: (b,) the scalar that conditions it.
        target: (b, ...) what it should say; scaled such that the paper's weight becomes one.
    """

    x: jax.Array
    noise: jax.Array
    target: jax.Array


class Chain(NamedTuple):
    """A discrete process: `beta` (T + 1,) and `alpha_bar` (T + 1,), float64 tables over t = 0..T."""

    beta: np.ndarray
    alpha_bar: np.ndarray


class Process(NamedTuple):
    """A path between noise and data with its parametrisation, written for points of any shape.

    `network` below is any function (x (b, ...), noise () or (b,)) -> array like x.

    Attributes:
        name: as it appears in results.
        pair: (key, x (b, ...)) -> Pair, drawn from the training distribution of times.
        prior: (key, shape, time) -> the state at the first time of a grid.
        path: (time) -> (a, b, da/dtime, db/dtime).
        velocity: (network, y, time) -> dy/dtime of the probability-flow ODE, as the network has it.
        times: (steps, spacing) -> (steps + 1,) float64, from noise to data. `spacing` None is the process's own grid;
            "uniform" and "quadratic" (finer towards the data) walk its index of noise levels, which for a DDPM is the
            integer t.
        exploding: whether y = x + time * e; the velocity is then undefined at the last time, 0.
        probe: three times, of little, middling and much noise, at which two models are compared.
        chain: the tables of a discrete process, or None.
    """

    name: str
    pair: Callable[[jax.Array, jax.Array], Pair]
    prior: Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
    path: Callable[[Any], tuple]
    velocity: Callable[[Callable, jax.Array, Any], jax.Array]
    times: Callable[[int, str | None], np.ndarray]
    exploding: bool
    probe: tuple[float, ...]
    chain: Chain | None = None


def estimates(process: Process, network: Callable, y: jax.Array, time) -> tuple[jax.Array, jax.Array]:
    """The denoised state E[x | y] and the noise E[e | y], each like y, from one call of the network at () `time`."""
    a, b, da, db = process.path(time)
    v = process.velocity(network, y, time)
    # y = a x + b e and v = a' x + b' e, solved for x and e
    determinant = a * db - da * b
    return (db * y - b * v) / determinant, (a * v - da * y) / determinant


def ddpm(steps: int = 400, beta: tuple[float, float] = (1e-4, 0.02), schedule: str = "linear") -> Process:
    """Denoising diffusion with epsilon prediction and the simple loss (Ho et al. 2006.11239, eq. 14).

    Args:
        steps: T. The network is conditioned on t / T, t uniform on 1..T in training.
        beta: first and last variance of the schedules "linear" and "mnist".
        schedule: "linear", beta_1 = b_1 to beta_T = b_2 evenly, as Ho et al. have it; "mnist", the table of the released
            program of the MNIST study (Gillman et al. 2402.07087), beta_t = b_1 + (b_2 - b_1) t / T over t = 0..T, of whose
            T + 1 variances alpha_bar_t has t + 1 (least sigma .0148, where Ho's is .0100 at T = 1,000); or "cosine" (Nichol &
            Dhariwal 2102.09672, eq. 17, offset 0.008, beta at most 0.999), which takes no notice of `beta`.

    Tables run over t = 0..T; t = 0 is neither trained on nor evaluated. Between integers, log sigma is linear in t.
    """
    chain = _chain(steps, beta, schedule)
    t_of = np.arange(1, steps + 1)
    sigma = np.sqrt(1 / chain.alpha_bar[1:] - 1)  # of t = 1..T, in units of the data
    log_sigma = np.log(sigma)
    # in float64: 1 - alpha_bar has four digits in float32 where there is little noise
    share, noise_share = (jnp.asarray(np.sqrt(v), jnp.float32) for v in (chain.alpha_bar, 1 - chain.alpha_bar))

    def pair(key, x):
        k_time, k_noise = jax.random.split(key)
        t = jnp.minimum((random.uniform(k_time, x.shape[:1]) * steps).astype(jnp.int32), steps - 1) + 1
        e = random.normal(k_noise, x.shape)
        return Pair(_like(share[t], x) * x + _like(noise_share[t], x) * e, t / steps, e)

    def velocity(network, y, time):
        t = jnp.interp(jnp.log(time), jnp.asarray(log_sigma, jnp.float32), jnp.asarray(t_of, jnp.float32))
        return network(y * lax.rsqrt(1 + time**2), t / steps)

    def times(count, spacing):
        if spacing is None:
            # no higher than EDM goes: the cosine schedule ends at sigma = 10^3 and more, which is all noise long before
            return _edm_grid(count, sigma[0], min(sigma[-1], _SIGMA_MAX), _RHO)
        if count > steps:
            raise InputError(f"steps is {count}; a sampler on the integers of a DDPM takes at most its T = {steps}.")
        t = np.rint(steps * _walk(count, spacing)[:-1]).astype(int)
        for i in range(count - 1, -1, -1):  # a quadratic walk would repeat its smallest integers
            t[i] = max(t[i], 1 if i == count - 1 else t[i + 1] + 1)
        return np.append(sigma[t - 1], 0.0)

    return Process(
        name=f"ddpm({schedule}, T={steps})",
        pair=pair,
        prior=lambda key, shape, time: random.normal(key, shape) * jnp.sqrt(1 + time**2),
        path=_exploding,
        velocity=velocity,
        times=times,
        exploding=True,
        probe=tuple(float(sigma[int(np.ceil(share * steps)) - 1]) for share in (0.1, 0.3, 0.6)),
        chain=chain,
    )


def edm(
    sigma_data: float = 0.5,
    sigma_min: float = 0.002,
    sigma_max: float = _SIGMA_MAX,
    rho: float = 7.0,
    p_mean: float = -1.2,
    p_std: float = 1.2,
) -> Process:
    """EDM (Karras et al. 2206.00364, Table 1, last column).

    D(y; sigma) = c_skip y + c_out F(c_in y, ln(sigma) / 4), trained with ln sigma ~ N(p_mean, p_std^2) and the weight
    lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2. Since lambda c_out^2 = 1, that loss is the plain square of
    F - (x - c_skip y) / c_out, which is what `pair` returns.

    Args:
        sigma_data: standard deviation of the data, in network units (after the learner's shift and scale).
        sigma_min: smallest noise level of the samplers, > 0.
        sigma_max: largest noise level of the samplers.
        rho: exponent of the grid of noise levels (eq. 5).
        p_mean: mean of ln sigma in training.
        p_std: its standard deviation.
    """
    _positive(sigma_data=sigma_data, sigma_min=sigma_min, rho=rho, p_std=p_std)
    if not sigma_max > sigma_min:
        raise InputError(f"sigma_max is {sigma_max}; it must be larger than sigma_min = {sigma_min}.")

    def pair(key, x):
        k_sigma, k_noise = jax.random.split(key)
        log_sigma = p_mean + p_std * random.normal(k_sigma, x.shape[:1])
        sigma = _like(jnp.exp(log_sigma), x)
        e = random.normal(k_noise, x.shape)
        total = jnp.sqrt(sigma**2 + sigma_data**2)
        # (x - c_skip (x + sigma e)) / c_out with the cancellation done by hand
        target = (sigma * x - sigma_data**2 * e) / (sigma_data * total)
        return Pair((x + sigma * e) / total, log_sigma / 4, target)

    def velocity(network, y, time):
        total = jnp.sqrt(time**2 + sigma_data**2)
        # (y - D(y)) / sigma, likewise
        return time / total**2 * y - sigma_data / total * network(y / total, jnp.log(time) / 4)

    return Process(
        name=f"edm(sigma_data={sigma_data:g})",
        pair=pair,
        prior=lambda key, shape, time: random.normal(key, shape) * time,
        path=_exploding,
        velocity=velocity,
        times=lambda count, spacing: _edm_grid(count, sigma_min, sigma_max, rho, spacing),
        exploding=True,
        probe=tuple(float(np.exp(p_mean + z * p_std)) for z in (-1, 0, 1)),
    )


def flow_matching(coupling: str = "independent", sigma: float = 0.0) -> Process:
    """Conditional flow matching (Tong et al. 2302.00482): x_t = (1 - t) x_0 + t x_1 (+ sigma e), target x_1 - x_0.

    x_0 is noise and x_1 data, so t runs from noise to data; t is uniform on (0, 1) in training, and the network is
    conditioned on it.

    Args:
        coupling: "independent" (I-CFM), or "ot" (OT-CFM): noise and data are paired by the exact optimal assignment of
            the minibatch for squared distance. It changes which noise meets which data, never their laws.
        sigma: standard deviation of the noise around the straight line, >= 0.
    """
    if coupling not in ("independent", "ot"):
        raise InputError(f'coupling is {coupling!r}; it must be "independent" or "ot".')
    if not sigma >= 0:
        raise InputError(f"sigma is {sigma}; it must be at least 0.")

    def pair(key, x1):
        k_time, k_noise, k_around = jax.random.split(key, 3)
        t = random.uniform(k_time, x1.shape[:1])
        x0 = random.normal(k_noise, x1.shape)
        if coupling == "ot":
            x0 = x0[pair_up(x0, x1)]
        x = (1 - _like(t, x1)) * x0 + _like(t, x1) * x1
        if sigma:
            x = x + sigma * random.normal(k_around, x1.shape)
        return Pair(x, t, x1 - x0)

    return Process(
        name="flow matching" if coupling == "independent" else "flow matching (optimal transport)",
        pair=pair,
        prior=lambda key, shape, time: random.normal(key, shape),
        path=lambda time: (time, 1.0 - time, 1.0, -1.0),
        velocity=lambda network, y, time: network(y, time),
        times=lambda count, spacing: 1.0 - _walk(count, spacing),
        exploding=False,
        probe=(0.9, 0.6, 0.3),
    )


def _exploding(time):
    return 1.0, time, 0.0, 1.0


def _chain(steps, beta, schedule) -> Chain:
    """The tables of a DDPM."""
    if not isinstance(steps, int) or steps < 2:
        raise InputError(f"steps is {steps!r}; a DDPM needs an integer of at least 2.")
    t = np.arange(steps + 1)
    if schedule in ("linear", "mnist"):
        first, last = beta
        if not 0 < first <= last < 1:
            raise InputError(f"beta is {beta}; the variances must satisfy 0 < first <= last < 1.")
        ho = np.append(0.0, np.linspace(first, last, steps))
        betas = ho if schedule == "linear" else first + (last - first) * t / steps
    elif schedule == "cosine":
        f = np.cos((t / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.append(0.0, np.minimum(1 - f[1:] / f[:-1], 0.999))
    else:
        raise InputError(f'schedule is {schedule!r}; it must be "linear", "mnist" or "cosine".')
    return Chain(betas, np.cumprod(1 - betas))


def _walk(count, spacing) -> np.ndarray:
    """(count + 1,) shares of the noise that remain: from 1 to 0."""
    left = np.arange(count, -1, -1) / count
    if spacing in (None, "uniform"):
        return left
    if spacing == "quadratic":
        return left**2
    raise InputError(f'spacing is {spacing!r}; it must be "uniform" or "quadratic".')


def _edm_grid(count, sigma_min, sigma_max, rho, spacing=None) -> np.ndarray:
    """(count + 1,) noise levels: EDM's eq. 5 from sigma_max to sigma_min, then 0."""
    left = _walk(count - 1, spacing) if count > 1 else np.ones(1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return np.append((low + left * (high - low)) ** rho, 0.0)


def _like(scalars, x):
    """(b,) with as many axes as x (b, ...)."""
    return scalars.reshape(scalars.shape + (1,) * (x.ndim - 1))


def _positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name} is {value}; it must be larger than 0.")
