"""How a trained process is run from noise to data: one sampler a function, any of them with any process.

A sampler is bound to a process with `on`, which is where a pair that does not fit is refused; what comes back is pure. All
but `ancestral` solve the probability-flow ODE in the process's own time, where DDIM is Euler's method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.errors import InputError
from mcloop.models.processes import Process, estimates


class Drawn(NamedTuple):
    """What a sampler returns: `x` (count, ...) in network units, and how often it called the network, ()."""

    x: jax.Array
    evaluations: jax.Array


class Sampler(NamedTuple):
    """A way to integrate a process.

    Attributes:
        name: as it appears in results.
        on: (process) -> run, with run(key, network, shape) -> Drawn; `network` is (x, noise ()) -> array like x, and
            `shape` is (count, ...). Raises InputError where the sampler is not defined for the process.
        finer: () -> the same method with twice the steps; None where a step is the process's own, or chosen by its error.
    """

    name: str
    on: Callable[[Process], Callable[..., Drawn]]
    finer: Callable[[], Sampler] | None = None


def finer(sampler: Sampler, process: Process) -> Callable[..., Drawn] | None:
    """The sampler with twice its steps, bound to a process; None where it has none to double, or the process no more."""
    if sampler.finer is None:
        return None
    try:
        return sampler.finer().on(process)
    except InputError:  # a chain has no more steps than its own
        return None


def ancestral() -> Sampler:
    """The reverse chain of a DDPM (Ho et al. 2006.11239, Algorithm 2 and eq. 11) with sigma_t = sqrt(beta_t).

    T calls of the network; no noise in the last step. Discrete processes only.
    """

    def on(process):
        if process.chain is None:
            raise InputError(f"sampler is ancestral, which needs a discrete process (ddpm), not {process.name}.")
        beta, alpha_bar = (np.asarray(table) for table in process.chain)
        last = len(beta) - 1
        t = np.arange(last, 0, -1)
        gain = beta[t] / np.sqrt(1 - alpha_bar[t])
        noise = np.where(t > 1, np.sqrt(beta[t]), 0.0)
        rows = _floats(t / last, gain, 1 / np.sqrt(1 - beta[t]), noise)

        def run(key, network, shape):
            k_prior, k_noise = jax.random.split(key)

            def step(x, row):
                i, (time, gain, grow, noise) = row
                x = grow * (x - gain * network(x, time))
                return x + noise * random.normal(random.fold_in(k_noise, i), shape), None

            x = random.normal(k_prior, shape)
            return Drawn(lax.scan(step, x, (jnp.arange(last), rows))[0], jnp.int32(last))

        return run

    return Sampler("ancestral", on)


def ddim(steps: int, spacing: str = "uniform", eta: float = 0.0) -> Sampler:
    """DDIM (Song et al. 2010.02502, eq. 12 and 16), for any process.

    Args:
        steps: calls of the network.
        spacing: "uniform", or "quadratic" (finer towards the data). For a DDPM these are integers t from T down, the last
            step going to clean data, "trailing" in the terms of Lin et al. 2305.08891; the first released program
            starts its quadratic grid at 0.8 T instead.
        eta: 0 is deterministic (Euler's method); 1 adds the noise of the chain's posterior.
    """
    _whole("steps", steps, 1)
    if not eta >= 0:
        raise InputError(f"eta is {eta}; it must be at least 0.")

    def on(process):
        times = process.times(steps, spacing)
        rows = _floats(times[:-1], times[1:])

        def run(key, network, shape):
            k_prior, k_noise = jax.random.split(key)

            def step(y, row):
                i, (time, later) = row
                x, e = estimates(process, network, y, time)
                (a, b, *_), (a_later, b_later, *_) = process.path(time), process.path(later)
                if not eta:
                    return a_later * x + b_later * e, None
                noise = jnp.minimum(eta**2 * (1 - (b_later * a / (a_later * b)) ** 2), 1.0)
                z = random.normal(random.fold_in(k_noise, i), shape)
                return a_later * x + b_later * (jnp.sqrt(1 - noise) * e + jnp.sqrt(noise) * z), None

            y = process.prior(k_prior, shape, float(times[0]))
            return Drawn(lax.scan(step, y, (jnp.arange(steps), rows))[0], jnp.int32(steps))

        return run

    name = f"ddim({steps}, {spacing})" if not eta else f"ddim({steps}, {spacing}, eta={eta:g})"
    return Sampler(name, on, lambda: ddim(2 * steps, spacing, eta))


def euler(steps: int) -> Sampler:
    """Euler's method on the probability-flow ODE, on the process's own grid; `steps` calls of the network."""
    _whole("steps", steps, 1)

    def on(process):
        times = process.times(steps, None)
        rows = _floats(times[:-1], times[1:])

        def run(key, network, shape):
            def step(y, row):
                time, later = row
                return y + (later - time) * process.velocity(network, y, time), None

            y = process.prior(jax.random.split(key)[0], shape, float(times[0]))
            return Drawn(lax.scan(step, y, rows)[0], jnp.int32(steps))

        return run

    return Sampler(f"euler({steps})", on, lambda: euler(2 * steps))


def heun(
    steps: int, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = np.inf, churn_noise: float = 1.0
) -> Sampler:
    """Heun's second-order method on the process's own grid (Karras et al. 2206.00364, Algorithm 1; with churn, Algorithm 2).

    A step to sigma = 0 is Euler's, so DDPM and EDM take 2 steps - 1 calls of the network; flow matching takes 2 steps.

    Args:
        steps: N.
        churn: S_churn, the noise added and taken away again over the whole path; 0 is deterministic. Processes whose time
            is sigma only (ddpm, edm).
        churn_min: S_tmin, lowest sigma with churn.
        churn_max: S_tmax, highest sigma with churn.
        churn_noise: S_noise, factor on the added noise.
    """
    _whole("steps", steps, 1)
    if not churn >= 0:
        raise InputError(f"churn is {churn}; it must be at least 0.")

    def on(process):
        if churn and not process.exploding:
            raise InputError(f"churn is {churn}; it must be 0 for {process.name}, whose time is not a noise level.")
        times = process.times(steps, None)
        inside = (times >= churn_min) & (times <= churn_max)
        raised = times * np.where(inside, 1 + min(churn / steps, np.sqrt(2) - 1), 1.0)
        added = churn_noise * np.sqrt(np.maximum(raised**2 - times**2, 0.0))
        rows = _floats(*((raised if churn else times)[:-1], times[1:], added[:-1]))
        whole = steps - 1 if process.exploding else steps  # steps that can be corrected

        def run(key, network, shape):
            k_prior, k_noise = jax.random.split(key)

            def churned(y, i, noise):
                return y + noise * random.normal(random.fold_in(k_noise, i), shape) if churn else y

            def step(y, row):
                i, (time, later, noise) = row
                y = churned(y, i, noise)
                v = process.velocity(network, y, time)
                ahead = process.velocity(network, y + (later - time) * v, later)
                return y + (later - time) * (v + ahead) / 2, None

            y = process.prior(k_prior, shape, float(times[0]))
            y = lax.scan(step, y, (jnp.arange(whole), tuple(row[:whole] for row in rows)))[0]
            if whole < steps:
                time, later, noise = (row[-1] for row in rows)
                y = churned(y, whole, noise)
                y = y + (later - time) * process.velocity(network, y, time)
            return Drawn(y, jnp.int32(steps + whole))

        return run

    name = f"heun({steps})" if not churn else f"heun({steps}, churn={churn:g})"
    return Sampler(name, on, lambda: heun(2 * steps, churn, churn_min, churn_max, churn_noise))


# Dormand & Prince (1980): nodes, the rows of the tableau (the last is the fifth-order solution), and fifth minus fourth.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_TABLEAU = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def dopri5(rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 1000) -> Sampler:
    """Dormand-Prince 5(4) with an adaptive step on the probability-flow ODE; the number of calls depends on the network.

    One step size serves the whole batch: the error is the root mean square over all its coordinates, in units of
    atol + rtol |y|, and the next step is 0.9 error^(-1/5) times this one, kept in [0.2, 10] (Hairer, Norsett & Wanner 1993,
    II.4, as is the first step). Where the time is sigma the ODE ends at the smallest level, and one Euler step removes the
    rest of the noise. After `max_steps` attempts, accepted or not, the result is NaN.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise InputError(f"rtol is {rtol} and atol is {atol}; they must be at least 0, and not both 0.")
    _whole("max_steps", max_steps, 1)

    def on(process):
        start, stop, *after = (float(time) for time in process.times(2 if process.exploding else 1, None))

        def run(key, network, shape):
            def field(time, y):
                return process.velocity(network, y, time)

            y = process.prior(jax.random.split(key)[0], shape, start)
            y, calls = _integrate(field, y, start, stop, rtol, atol, max_steps)
            for end in after:
                y, calls = y + (end - stop) * field(jnp.float32(stop), y), calls + 1
            return Drawn(y, calls)

        return run

    return Sampler(f"dopri5({min(rtol, atol):g})", on)


def _integrate(field, y, start, stop, rtol, atol, max_steps):
    """(y at `stop`, calls of `field`), by Dormand-Prince; NaN where `max_steps` did not do."""

    def rms(x):
        return jnp.sqrt(jnp.mean(x**2))

    start, stop = jnp.float32(start), jnp.float32(stop)
    sign = jnp.sign(stop - start)
    v = field(start, y)
    size = _first_step(field, y, v, start, sign, atol + rtol * jnp.abs(y), rms)

    def attempt(state):
        time, y, v, size, done, attempts = state
        last = size >= jnp.abs(stop - time)
        h = sign * jnp.where(last, jnp.abs(stop - time), size)
        slopes, ahead = [v], y
        for node, row in zip(_NODES, _TABLEAU, strict=True):
            ahead = y + h * sum(weight * slope for weight, slope in zip(row, slopes, strict=True) if weight)
            slopes.append(field(time + node * h, ahead))
        wrong = h * sum(weight * slope for weight, slope in zip(_ERROR, slopes, strict=True) if weight)
        error = rms(wrong / (atol + rtol * jnp.maximum(jnp.abs(y), jnp.abs(ahead))))
        good = error <= 1  # never, where it is not a number
        factor = jnp.where(error < jnp.inf, 0.9 * jnp.maximum(error, 1e-10) ** -0.2, 0.2)
        size = jnp.abs(h) * jnp.clip(factor, 0.2, jnp.where(good, 10.0, 1.0))
        y, v = (jnp.where(good, new, old) for new, old in ((ahead, y), (slopes[-1], v)))
        time = jnp.where(good, jnp.where(last, stop, time + h), time)
        return time, y, v, size, done | (good & last), attempts + 1

    state = start, y, v, size, jnp.bool_(False), jnp.int32(0)
    state = lax.while_loop(lambda s: ~s[4] & (s[5] < max_steps), attempt, state)
    _, y, _, _, done, attempts = state
    return jnp.where(done, y, jnp.nan), 2 + 6 * attempts


def _first_step(field, y, v, start, sign, scale, rms):
    """Hairer, Norsett & Wanner (1993), II.4, for a method of order 5; one more call of `field`."""
    d0, d1 = rms(y / scale), rms(v / scale)
    guess = jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    d2 = rms((field(start + sign * guess, y + sign * guess * v) - v) / scale) / guess
    steepest = jnp.maximum(d1, d2)
    return jnp.minimum(100 * guess, jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, guess * 1e-3), (0.01 / steepest) ** 0.2))


def _floats(*columns):
    return tuple(jnp.asarray(column, jnp.float32) for column in columns)


def _whole(name, value, least):
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")
