"""Samplers against what is known exactly: the flow of a Gaussian, the linear-Gaussian chain, and other people's schedulers."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcloop import random
from mcloop.models import ancestral, ddim, ddpm, dopri5, edm, euler, flow_matching, heun
from mcloop.models.processes import estimates

MEAN, SPREAD = np.array([0.5, -1.0]), np.array([0.3, 1.2])
KEY = jax.random.key(7)
EDM = {"sigma_data": 0.7, "sigma_min": 0.05, "sigma_max": 8.0}
PROCESSES = {"ddpm": ddpm(128, (1e-3, 0.06)), "edm": edm(**EDM), "flow": flow_matching()}


def sigmas(process):
    """Noise levels of t = 1..T, from the published table rather than from the process's own time."""
    alpha_bar = process.chain.alpha_bar[1:]
    return np.sqrt((1 - alpha_bar) / alpha_bar)


def optimum(name, process=None, mean=MEAN, spread=SPREAD):
    """The optimal network for data N(mean, diag(spread^2)), in the parametrisation of `name`, from its conditioning scalar."""

    def flow(x, t):
        total = (t * spread) ** 2 + (1 - t) ** 2
        centred = x - t * mean
        return mean + (t * spread**2 - (1 - t)) / total * centred

    def epsilon(x, share):
        steps = len(process.chain.beta) - 1
        sigma = jnp.exp(jnp.interp(share * steps, jnp.arange(1.0, steps + 1), jnp.log(sigmas(process))))
        a, b = 1 / jnp.sqrt(1 + sigma**2), sigma / jnp.sqrt(1 + sigma**2)
        return b * (x - a * mean) / ((a * spread) ** 2 + b**2)

    def raw(x, c_noise):
        sigma, sd = jnp.exp(4 * c_noise), EDM["sigma_data"]
        y = x * jnp.sqrt(sigma**2 + sd**2)
        denoised = (spread**2 * y + sigma**2 * mean) / (spread**2 + sigma**2)
        c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / jnp.sqrt(sigma**2 + sd**2)
        return (denoised - c_skip * y) / c_out

    return {"flow": flow, "ddpm": epsilon, "edm": raw}[name]


def exact(name, process, start):
    """Where the probability-flow ODE takes `start`; a process that explodes ends with the denoiser at its last level."""
    if name == "flow":
        return MEAN + SPREAD * start
    grid = process.times(2, None)
    y = MEAN + (start - MEAN) * np.sqrt((SPREAD**2 + grid[1] ** 2) / (SPREAD**2 + grid[0] ** 2))
    return (SPREAD**2 * y + grid[1] ** 2 * MEAN) / (SPREAD**2 + grid[1] ** 2)


def error(name, sampler):
    process = PROCESSES[name]
    drawn = jax.jit(lambda key: sampler.on(process)(key, optimum(name, process), (16, 2)))(KEY)
    start = process.prior(jax.random.split(KEY)[0], (16, 2), process.times(2, None)[0])
    return np.sqrt(np.mean((drawn.x - exact(name, process, np.asarray(start, np.float64))) ** 2)), int(drawn.evaluations)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("make", "order", "steps"), [(euler, 1, 64), (heun, 2, 24)])
def test_order_of_convergence(name, make, order, steps):
    extra = 0 if name == "flow" else 1  # the last step, to sigma 0, is part of the exact solution
    errors = [error(name, make(k * steps + extra))[0] for k in (1, 2, 4)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(np.abs(orders - order) < 0.25), (errors, orders)
    assert errors[-1] < 0.03


def test_calls_of_the_network():
    assert [error("edm", heun(18))[1], error("edm", heun(1))[1], error("flow", heun(18))[1]] == [35, 1, 36]
    called = []

    def counted(x, noise):
        jax.debug.callback(lambda: called.append(1))
        return optimum("flow")(x, noise)

    drawn = jax.block_until_ready(dopri5(1e-3, 1e-3).on(PROCESSES["flow"])(KEY, counted, (4, 2)))
    jax.effects_barrier()
    assert len(called) == drawn.evaluations


@pytest.mark.parametrize("name", PROCESSES)
def test_dopri5_meets_its_tolerance_with_a_fifth_order_effort(name):
    (rough, few), (fine, many) = (error(name, dopri5(tol, tol)) for tol in (1e-3, 1e-5))
    assert rough < 2e-2 and fine < 1e-4 and fine < rough
    # an error 100 times smaller costs a fifth-order method 100^(1/5) = 2.5 times the steps; a second-order one, ten times
    assert many < 5 * few < 600


def test_dopri5_agrees_with_scipy():
    from scipy.integrate import solve_ivp

    def network(x, t):
        return jnp.stack([x[:, 1], 3 * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1) * 8

    drawn = dopri5(1e-5, 1e-6).on(PROCESSES["flow"])(KEY, network, (1, 2))
    start = np.asarray(random.normal(jax.random.split(KEY)[0], (1, 2)))[0]

    def field(t, x):
        return np.array([x[1], 3 * (1 - x[0] ** 2) * x[1] - x[0]]) * 8

    peer = solve_ivp(field, (0, 1), start, "RK45", rtol=1e-5, atol=1e-6)
    true = solve_ivp(field, (0, 1), start, "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(drawn.x[0], true, atol=1e-3)
    assert abs(int(drawn.evaluations) - peer.nfev) < 0.3 * peer.nfev


def test_dopri5_gives_up_loudly():
    stiff = dopri5(1e-6, 1e-6, max_steps=3).on(PROCESSES["flow"])(KEY, lambda x, t: -1e4 * x, (2, 2))
    lost = dopri5(max_steps=20).on(PROCESSES["flow"])(KEY, lambda x, t: x * jnp.nan, (2, 2))
    assert np.isnan(stiff.x).all() and np.isnan(lost.x).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_ddim_without_noise_is_euler(name):
    process = PROCESSES[name]
    network = optimum(name, process)
    times = process.times(16, "uniform")
    y = process.prior(jax.random.split(KEY)[0], (4, 2), times[0])
    for time, later in itertools.pairwise(times):
        y = y + (later - time) * process.velocity(network, y, time)
    np.testing.assert_allclose(ddim(16).on(process)(KEY, network, (4, 2)).x, y, atol=2e-5)


def test_ddim_is_first_order_on_the_integers_of_a_ddpm():
    errors = [error("ddpm", ddim(k))[0] for k in (16, 32, 64)]
    assert np.all(np.abs(np.log2(np.divide(errors[:-1], errors[1:])) - 1) < 0.35), errors


def test_estimates_recover_what_was_mixed():
    for name, process in PROCESSES.items():
        time, x = process.probe[1], np.array([[0.4, -0.9]])
        e = np.array([[1.0, 2.0]])
        a, b, *_ = process.path(time)
        total = (a * SPREAD) ** 2 + b**2
        y = a * x + b * e
        denoised, noise = estimates(process, optimum(name, process), jnp.asarray(y, jnp.float32), time)
        np.testing.assert_allclose(denoised, MEAN + a * SPREAD**2 / total * (y - a * MEAN), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(noise, b / total * (y - a * MEAN), rtol=2e-5, atol=1e-6)


# Stochastic samplers against the exact law of the chain that the papers write down


def ancestral_law(process):
    """Mean and variance of x_0 after Ho et al., Algorithm 2, with the optimal network: a linear-Gaussian recursion."""
    beta, alpha_bar = process.chain
    mean, var = np.zeros(2), np.ones(2)
    for t in range(len(beta) - 1, 0, -1):
        gain = (1 - alpha_bar[t]) ** 0.5 / (alpha_bar[t] * SPREAD**2 + 1 - alpha_bar[t])
        slope = (1 - beta[t] / (1 - alpha_bar[t]) ** 0.5 * gain) / (1 - beta[t]) ** 0.5
        offset = beta[t] / (1 - alpha_bar[t]) ** 0.5 * gain * alpha_bar[t] ** 0.5 * MEAN / (1 - beta[t]) ** 0.5
        mean, var = slope * mean + offset, slope**2 * var + (beta[t] if t > 1 else 0)
    return mean, var


def ddim_law(process, ts, eta):
    """The same for Song et al., eq. 12 and 16, over the integers `ts`."""
    alpha_bar = process.chain.alpha_bar
    mean, var = np.zeros(2), np.ones(2)
    for t, later in zip(ts, [*ts[1:], None], strict=True):
        now, then = alpha_bar[t], 1.0 if later is None else alpha_bar[later]
        sigma = eta * np.sqrt((1 - then) / (1 - now) * (1 - now / then))
        gain = (1 - now) ** 0.5 / (now * SPREAD**2 + 1 - now)
        on_x = np.sqrt(then / now)
        on_e = np.sqrt(1 - then - sigma**2) - np.sqrt(then * (1 - now) / now)
        mean, var = (on_x + on_e * gain) * mean - on_e * gain * now**0.5 * MEAN, (on_x + on_e * gain) ** 2 * var + sigma**2
    return mean, var


def assert_law(x, mean, var):
    n = len(x)
    z_mean = (x.mean(0) - mean) / np.sqrt(var / n)
    z_var = (x.var(0, ddof=1) / var - 1) * np.sqrt((n - 1) / 2)
    assert np.abs([z_mean, z_var]).max() < 4, (z_mean, z_var)


SHORT = ddpm(8, (0.02, 0.6))  # few and large steps: a wrong index anywhere moves the law by many standard errors


def test_ancestral_sampling_has_the_law_of_its_chain():
    x = np.asarray(ancestral().on(SHORT)(KEY, optimum("ddpm", SHORT), (40_000, 2)).x, np.float64)
    assert_law(x, *ancestral_law(SHORT))
    with pytest.raises(AssertionError):  # and the test can tell: the posterior's variance instead of beta
        assert_law(x, *ddim_law(SHORT, range(8, 0, -1), 1.0))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise_has_the_law_of_its_chain(eta):
    x = np.asarray(ddim(4, eta=eta).on(SHORT)(KEY, optimum("ddpm", SHORT), (40_000, 2)).x, np.float64)
    assert_law(x, *ddim_law(SHORT, [8, 6, 4, 2], eta))


@pytest.mark.parametrize(
    ("name", "sampler"), [("edm", ddim(400, eta=1.0)), ("flow", ddim(400, eta=1.0)), ("edm", heun(60, 30.0))]
)
def test_noise_added_on_the_way_leaves_the_law_of_the_data(name, sampler):
    process = PROCESSES[name]
    x = np.asarray(sampler.on(process)(KEY, optimum(name, process), (20_000, 2)).x, np.float64)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.05)
    np.testing.assert_allclose(x.std(0), SPREAD, rtol=0.03)


def test_grids():
    grid = edm(sigma_min=0.002, sigma_max=80.0).times(18, None)
    # eq. 5 of the paper, written out
    i = np.arange(18)
    rho = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grid, [*rho, 0.0])
    long = ddpm(1000)
    for spacing in ("uniform", "quadratic"):
        level = long.times(100, spacing)
        t = 1 + np.searchsorted(sigmas(long), level[:-1] - 1e-9)
        assert t[0] == 1000 and t[-1] == (10 if spacing == "uniform" else 1) and np.all(np.diff(t) < 0) and level[-1] == 0
    np.testing.assert_allclose(long.times(1000, "quadratic")[:-1], sigmas(long)[::-1], rtol=1e-9)
    np.testing.assert_allclose(flow_matching().times(4, "quadratic"), [0, 7 / 16, 12 / 16, 15 / 16, 1])


# Other people's programs


def schedulers():
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    return diffusers, torch


def wave(shape):
    """Noise that is the same for both programs, at every step."""
    return np.cos(1 + np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def squash(x, share):
    """A network that is not linear in anything, for arrays of either library."""
    return 0.7 * x + 0.3 * (np if isinstance(x, np.ndarray) else jnp).sin(3 * x + share)


def table_for(process):
    """The peer's betas: its table starts at t = 1, where ours has seen t = 0 too."""
    beta, alpha_bar = process.chain
    return np.array([1 - alpha_bar[1], *beta[2:]])


def test_the_cosine_schedule_is_that_of_diffusers():
    diffusers, _ = schedulers()
    peer = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    ours = ddpm(1000, schedule="cosine").chain.alpha_bar[1:]
    np.testing.assert_allclose(ours, peer.alphas_cumprod.numpy(), rtol=2e-4)  # theirs is float32


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_steps_equal_those_of_diffusers(monkeypatch, eta):
    diffusers, torch = schedulers()
    process = ddpm(50, (1e-3, 0.2))
    monkeypatch.setattr(random, "normal", lambda key, shape, block=0: jnp.asarray(wave(shape)))
    ours = ddim(10, eta=eta).on(process)(KEY, squash, (2, 3)).x
    peer = diffusers.DDIMScheduler(
        50, trained_betas=table_for(process), clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    peer.set_timesteps(10)
    x = torch.tensor(wave((2, 3)))
    for t in peer.timesteps:
        e = torch.tensor(squash(x.numpy(), (int(t) + 1) / 50))
        x = peer.step(e, t, x, eta=eta, variance_noise=torch.tensor(wave((2, 3))) if eta else None).prev_sample
    np.testing.assert_allclose(ours, x.numpy(), atol=2e-5)


def test_ancestral_steps_equal_those_of_diffusers(monkeypatch):
    diffusers, torch = schedulers()
    process = ddpm(50, (1e-3, 0.2))
    noise = wave((2, 3))
    monkeypatch.setattr(random, "normal", lambda key, shape, block=0: jnp.asarray(noise))
    seen = []

    def recorded(x, share):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x, ordered=True)
        return squash(x, share)

    jax.block_until_ready(ancestral().on(process)(KEY, recorded, (2, 3)))
    jax.effects_barrier()
    peer = diffusers.DDPMScheduler(50, trained_betas=table_for(process), clip_sample=False, variance_type="fixed_large")
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.tensor(noise))
    for t in range(50, 1, -1):  # the last step differs: the peer's chain has no t = 0
        x = torch.tensor(seen[50 - t])
        after = peer.step(torch.tensor(squash(x.numpy(), t / 50)), t - 1, x).prev_sample
        np.testing.assert_allclose(seen[51 - t], after.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ancestral().on(edm()), "ancestral"),
        (lambda: ancestral().on(flow_matching()), "ancestral"),
        (lambda: ddim(0), "steps is 0"),
        (lambda: ddim(10, eta=-1.0), "eta is -1.0"),
        (lambda: ddim(10, "cubic").on(ddpm(20)), "'cubic'"),
        (lambda: ddim(30).on(ddpm(20)), "steps is 30"),
        (lambda: heun(2.5), "steps is 2.5"),
        (lambda: heun(2, churn=-1.0), "churn is -1.0"),
        (lambda: heun(2, churn=20.0).on(flow_matching()), "must be 0 for flow matching"),
        (lambda: dopri5(0.0, 0.0), "rtol is 0.0"),
        (lambda: dopri5(max_steps=0), "max_steps is 0"),
    ],
)
def test_refusals(make, said, refused):
    with refused(said):
        make()
