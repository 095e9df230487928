"""Processes, couplings and the learner: identities of the papers, closed forms for Gaussian data, and scipy's assignment."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from mcloop import random
from mcloop.models import ancestral, ddim, ddpm, diffusion, dopri5, edm, euler, flow_matching, heun
from mcloop.models.coupling import assign, pair_up
from mcloop.models.processes import estimates
from mcloop.nets import mlp
from mcloop.nets.network import Network, Variables

MEAN, SPREAD = np.array([0.4, -0.2]), np.array([0.5, 1.5])
KEY = jax.random.key(3)


# Noise levels and training pairs


def least_sigma(chain):
    return np.sqrt(1 / chain.alpha_bar[1] - 1)


def test_the_linear_schedule_is_that_of_ho():
    chain = ddpm(1000).chain
    np.testing.assert_allclose(chain.beta[1:], np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(chain.alpha_bar[1:], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    assert chain.alpha_bar[0] == 1 and abs(least_sigma(chain) - 0.0100) < 5e-5


def test_the_schedule_of_the_mnist_study_is_the_released_one():
    t = np.arange(0, 401)
    beta = (0.02 - 1e-4) * t / 400 + 1e-4
    process = ddpm(400, (1e-4, 0.02), "mnist")
    np.testing.assert_allclose(process.chain.beta, beta)
    np.testing.assert_allclose(process.chain.alpha_bar, np.exp(np.cumsum(np.log(1 - beta))))
    assert abs(least_sigma(ddpm(1000, schedule="mnist").chain) - 0.0148) < 5e-5
    assert process.name == "ddpm(mnist, T=400)" != ddpm(400).name


def test_little_noise_keeps_its_digits():
    process = ddpm(1000)
    pair = process.pair(KEY, jnp.zeros((4000, 1)))
    little = np.asarray(pair.noise) < 0.005
    sigma = np.sqrt(1 - process.chain.alpha_bar[np.rint(np.asarray(pair.noise)[little] * 1000).astype(int)])
    assert little.sum() > 5
    np.testing.assert_allclose(np.asarray(pair.x)[little, 0], sigma * np.asarray(pair.target)[little, 0], rtol=1e-6)


def test_the_cosine_schedule_is_the_published_one():
    t = np.arange(0, 1001)
    f = np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    chain = ddpm(1000, schedule="cosine").chain
    np.testing.assert_allclose(chain.alpha_bar[:-1], (f / f[0])[:-1], rtol=1e-9)
    assert chain.beta.max() == 0.999 == chain.beta[-1]


def test_a_ddpm_is_trained_on_every_t_and_on_what_it_says():
    process = ddpm(8, (0.05, 0.4))
    x = jnp.broadcast_to(jnp.array([2.0, -3.0]), (40_000, 2))
    pair = jax.jit(process.pair)(KEY, x)
    t = np.rint(np.asarray(pair.noise) * 8).astype(int)
    count = np.bincount(t, minlength=9)
    assert count[0] == 0 and np.abs(count[1:] - 5000).max() < 5 * 5000**0.5
    alpha_bar = process.chain.alpha_bar[t][:, None]
    np.testing.assert_allclose(pair.x, np.sqrt(alpha_bar) * x + np.sqrt(1 - alpha_bar) * pair.target, atol=2e-6)
    noise = np.asarray(pair.target)
    assert np.abs(noise.mean(0)).max() < 4 / 200 and abs(noise.var() - 1) < 0.03


def test_edm_inputs_and_targets_have_unit_variance_at_every_noise_level():
    x = 0.7 * np.random.default_rng(1).normal(size=(20_000, 2)).astype(np.float32)

    levels = np.array([-4.0, -0.7, 3.0])
    pairs = jax.jit(lambda x: [edm(sigma_data=0.7, p_mean=level, p_std=1e-4).pair(KEY, x) for level in levels])(x)
    for level, pair in zip(levels, pairs, strict=True):
        np.testing.assert_allclose([np.var(pair.x), np.var(pair.target)], 1, atol=0.03)
        np.testing.assert_allclose(pair.noise, level / 4, atol=2e-4)


def test_edm_is_table_1():
    sd, x = 0.7, np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    process = edm(sigma_data=sd)
    pair = jax.tree.map(np.asarray, jax.jit(process.pair)(KEY, x))
    sigma = np.exp(4 * np.asarray(pair.noise, np.float64))[:, None]
    c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / np.sqrt(sd**2 + sigma**2)
    c_in, weight = 1 / np.sqrt(sigma**2 + sd**2), (sigma**2 + sd**2) / (sigma * sd) ** 2
    y = pair.x / c_in
    np.testing.assert_allclose(pair.target, (x - c_skip * y) / c_out, atol=3e-5)

    output = np.sin(3 * pair.x)  # any network: its plain loss is the paper's weighted one
    denoised = c_skip * y + c_out * output
    np.testing.assert_allclose(weight * (denoised - x) ** 2, (output - pair.target) ** 2, atol=1e-3)
    of = jax.jit(jax.vmap(lambda y, sigma: estimates(process, lambda x, noise: jnp.sin(3 * x), y, sigma)))
    mine, noise = of(y.astype(np.float32), sigma[:, 0].astype(np.float32))
    np.testing.assert_allclose(mine, denoised, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mine + sigma * noise, y, rtol=1e-4, atol=1e-5)


def test_flow_matching_runs_from_noise_to_data():
    x1 = 5 + 0.1 * np.random.default_rng(1).normal(size=(128, 2)).astype(np.float32)
    processes = flow_matching(), flow_matching("ot"), flow_matching(sigma=0.5)
    pairs = jax.tree.map(np.asarray, jax.jit(lambda key, x: [process.pair(key, x) for process in processes])(KEY, x1))
    alone, paired, around = pairs
    for pair in (alone, paired):
        x0, t = x1 - pair.target, pair.noise[:, None]
        np.testing.assert_allclose(pair.x, (1 - t) * x0 + t * x1, atol=1e-5)
        assert abs(x0.mean()) < 0.3 and abs(x0.var() - 1) < 0.3
    # the coupling permutes the noise and changes nothing else
    np.testing.assert_allclose(np.sort(x1 - alone.target, 0), np.sort(x1 - paired.target, 0), atol=1e-5)
    np.testing.assert_array_equal(alone.noise, paired.noise)
    costs = square(x1, x1 - alone.target)
    best = costs[linear_sum_assignment(costs)].sum()
    np.testing.assert_allclose((paired.target**2).sum(), best, rtol=1e-5)
    assert best < 0.999 * (alone.target**2).sum()
    assert abs((around.x - (around.noise[:, None] - 1) * around.target - x1).std() - 0.5) < 0.1


# Assignment


def points(n, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) * 2 + rng.integers(-3, 4, (n, d))


def square(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def cases(n):
    rng = np.random.default_rng(n)
    x, y = points(n)
    return {
        "cloud": square(x, y),
        "uniform": rng.uniform(size=(n, n)),
        "ties": rng.integers(0, 3, (n, n)),
        "duplicates": square(x[rng.integers(0, n, n) // 2], y[rng.integers(0, n, n) // 4]),
        "constant": np.full((n, n), 2.5),
        "rank one": -np.outer(np.arange(n), np.arange(n)),
        "far": square(1e3 + x, y),
        "negative": -square(x, y),
    }


@pytest.mark.parametrize("n", [1, 7, 64, 256])
def test_assignment_costs_what_scipys_costs(n):
    names, costs = zip(*((name, np.asarray(c, np.float32)) for name, c in cases(n).items()), strict=True)
    solved = jax.jit(jax.vmap(assign))(jnp.stack(costs))
    for i, (name, c) in enumerate(zip(names, costs, strict=True)):
        best = c.astype(np.float64)[linear_sum_assignment(c)].sum()
        mine = c.astype(np.float64)[np.arange(n), solved.column[i]].sum()
        unit = n * (c.max() - c.min() + 1e-6)  # rounding scales with the range, a row
        assert sorted(np.asarray(solved.column[i])) == list(range(n)), name
        assert abs(mine - best) <= 1e-6 * unit, (name, mine, best)
        assert abs(solved.gap[i]) <= 1e-6 * unit, name  # the certificate, which needs no scipy
        np.testing.assert_allclose(solved.cost[i], mine, rtol=1e-4, atol=1e-6 * unit)


def test_pairs_of_images_and_of_moved_points():
    x, y = (z.astype(np.float32).reshape(64, 4, 4, 3) for z in points(64, 48))
    costs = square(x.reshape(64, -1), y.reshape(64, -1))
    plan = jax.jit(pair_up)
    np.testing.assert_array_equal(plan(y, x), linear_sum_assignment(costs)[1])
    np.testing.assert_array_equal(plan(y + 100, x - 7), linear_sum_assignment(costs)[1])


def test_costs_that_are_no_numbers_come_back():
    broken = jax.jit(assign)(np.where(np.arange(256).reshape(16, 16) == 52, np.nan, 1.0).astype(np.float32))
    np.testing.assert_array_equal(broken.column, np.arange(16))
    assert not np.isfinite(broken.gap)


def test_costs_must_be_square(refused):
    with refused("costs", "[3, 4]"):
        assign(jnp.zeros((3, 4)))


# The learner


def stub(output, **stats):
    """A network without parameters: `output(x, noise)`."""

    def apply(variables, x, noise, label=None, keep=None, train=False, key=None):
        return output(x, noise[:, None]), stats if train else variables.stats

    return Network(lambda key: Variables({}, {}), apply)


NOTHING = Variables({}, {})


def flow_optimum(x, t):
    return MEAN + (t * SPREAD**2 - (1 - t)) / ((t * SPREAD) ** 2 + (1 - t) ** 2) * (x - t * MEAN)


def transport(x, t):
    return MEAN + (SPREAD - 1) * (x - t * MEAN) / (1 - t + t * SPREAD)


def edm_optimum(x, c_noise, sd=0.7):
    sigma = jnp.exp(4 * c_noise)
    y = x * jnp.sqrt(sigma**2 + sd**2)
    denoised = (SPREAD**2 * y + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)
    return (denoised - sd**2 / (sigma**2 + sd**2) * y) * jnp.sqrt(sigma**2 + sd**2) / (sigma * sd)


TABLE = ddpm(50, (1e-3, 0.1))


def ddpm_optimum(x, share):
    a2 = jnp.asarray(TABLE.chain.alpha_bar, jnp.float32)[jnp.rint(share * 50).astype(int)]
    return jnp.sqrt(1 - a2) * (x - jnp.sqrt(a2) * MEAN) / (a2 * SPREAD**2 + 1 - a2)


def expected(name):
    """The least loss that any network can reach on N(MEAN, diag(SPREAD^2)): the mean posterior variance of the target."""
    v = SPREAD**2
    if name == "ddpm":
        a2 = TABLE.chain.alpha_bar[1:, None]
        return (a2 * v / (a2 * v + 1 - a2)).mean()
    if name == "edm":

        def posterior(z):
            s2 = np.exp(2 * (-1.2 + 1.2 * z))
            return norm.pdf(z) * (v / (v + s2) * (s2 + 0.49) / 0.49).mean()

        return quad(posterior, -8, 8)[0]
    return quad(lambda t: (v + 1 - (t * v - (1 - t)) ** 2 / (t**2 * v + (1 - t) ** 2)).mean(), 0, 1)[0]


OPTIMA = {
    "ddpm": (TABLE, ddpm_optimum),
    "edm": (edm(sigma_data=0.7), edm_optimum),
    "flow": (flow_matching(), flow_optimum),
}


def losses(process, output, offsets=(0.0,), runs=300):
    """(runs, offsets) losses of batches of 128, of the network `output + offset`."""

    def one(key):
        k_data, k_loss = jax.random.split(key)
        x = MEAN + SPREAD * random.normal(k_data, (128, 2))

        def at(offset):
            return diffusion(stub(lambda x, noise: output(x, noise) + offset), process, euler(2), (2,)).loss(
                k_loss, NOTHING, x
            )[0]

        return jax.vmap(at)(jnp.array(offsets))

    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(KEY, runs)), np.float64)


@pytest.mark.parametrize("name", OPTIMA)
def test_loss_at_the_optimum_is_its_closed_form(name):
    drawn, worse = losses(*OPTIMA[name], (0.0, 0.1)).T
    z = (drawn.mean() - expected(name)) / (drawn.std() / 300**0.5)
    assert abs(z) < 4, (drawn.mean(), expected(name))
    assert abs((worse - drawn).mean() - 0.01) < 0.005  # same draws: the excess is 0.1^2 but for noise


def test_optimal_transport_straightens_the_paths():
    paired = losses(flow_matching("ot"), transport, runs=20).mean()
    alone = losses(flow_matching("independent"), transport, runs=20).mean()
    assert paired < 0.1 * expected("flow") and alone > expected("flow")


@pytest.mark.parametrize("name", OPTIMA)
def test_field_is_the_denoiser_in_units_of_the_data(name):
    process, optimum = OPTIMA[name]
    learner = diffusion(stub(optimum), process, euler(2), (2,), shift=10.0, scale=3.0)
    x = 10 + 3 * (MEAN + SPREAD * np.random.default_rng(0).normal(size=(400, 2)))
    probe = jax.jit(learner.field)
    denoised = np.asarray(probe(NOTHING, x.astype(np.float32)))
    assert denoised.shape == (400, 6)
    np.testing.assert_array_equal(denoised, probe(NOTHING, x.astype(np.float32)))
    for level, time in enumerate(process.probe):
        a, b, *_ = process.path(time)
        kept = a**2 * SPREAD**2 / (a**2 * SPREAD**2 + b**2)  # E[x | y] regresses on x with this slope, unbiased
        gap = (denoised[:, 2 * level : 2 * level + 2] - 10) / 3 - (MEAN + kept * ((x - 10) / 3 - MEAN))
        assert np.abs(gap.mean(0) / (gap.std(0) / 20)).max() < 4
        np.testing.assert_allclose(gap.std(0), kept / a * b, rtol=0.15)


def test_the_affine_map_of_the_data_is_undone():
    process, optimum = OPTIMA["edm"]
    shift, scale = np.array([5.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32)
    plain = diffusion(stub(optimum), process, heun(5), (2,))
    moved = diffusion(stub(optimum), process, heun(5), (2,), shift=shift, scale=scale)

    @jax.jit
    def both(x):
        pair = zip((plain, moved), (x, shift + scale * x), strict=True)
        return [(learner.loss(KEY, NOTHING, x)[0], learner.sample(KEY, NOTHING, 8)) for learner, x in pair]

    (loss, drawn), (moved_loss, moved_drawn) = both(points(32)[0].astype(np.float32))
    np.testing.assert_allclose(moved_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(moved_drawn, shift + scale * drawn, rtol=1e-5)


def test_statistics_come_back_from_training_only():
    learner = diffusion(stub(flow_optimum, seen=1), flow_matching(), euler(2), (2,))
    assert learner.loss(KEY, NOTHING, jnp.zeros((4, 2)))[1] == {"seen": 1}


# Classes

CLASSY = mlp(2, width=16, depth=1, classes=3)


def conditional(guidance=0.0, network=CLASSY, **more):
    return diffusion(network, flow_matching(), heun(3), (2,), classes=3, guidance=guidance, **more)


def spied(seen):
    def apply(variables, x, noise, label, keep, train=False, key=None):
        seen.append((x.shape, noise.shape, label, keep))
        return x * (1 + keep[:, None]), {}

    return Network(lambda key: NOTHING, apply)


def test_guidance_identities():
    blind = Network(CLASSY.init, lambda v, x, t, label, keep, **more: CLASSY.apply(v, x, t, label, 0 * keep, **more))

    @jax.jit
    def all_of(key, guidance):
        variables = CLASSY.init(key)
        learners = [conditional(), conditional(0.5), conditional(network=blind)]
        traced = jax.vmap(lambda w: conditional(w).sample(key, variables, 9)["x"])(guidance)
        return [learner.sample(key, variables, 9)["x"] for learner in learners], traced

    (plain, half, free), traced = all_of(KEY, jnp.array([0.0, 0.5, -1.0]))
    for ours, theirs in zip(traced, (plain, half, free), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(plain - half).max() > 1e-3 and np.abs(plain - free).max() > 1e-3
    # one call of (1 + w) f(label) - w f() where f doubles with the label: x (2 + w)
    seen = []
    once = diffusion(spied(seen), flow_matching(), euler(1), (2,), classes=3, guidance=0.5).sample(KEY, NOTHING, 4)
    plain = diffusion(spied(seen), flow_matching(), euler(1), (2,), classes=3).sample(KEY, NOTHING, 4)
    np.testing.assert_allclose(once["x"] / plain["x"], 3.5 / 3, rtol=1e-5)
    assert [x for x, *_ in seen] == [(8, 2), (4, 2)]


def test_labels_are_drawn_in_turn_kept_and_dropped():
    variables = jax.jit(CLASSY.init)(KEY)
    learner = conditional()
    sample = jax.jit(lambda label=None: learner.sample(KEY, variables, 5, label))
    drawn = sample()
    np.testing.assert_array_equal(drawn["label"], [0, 1, 2, 0, 1])
    chosen = sample(jnp.array([2, 1, 2, 0, 1]))
    same = np.asarray(chosen["label"]) == np.asarray(drawn["label"])
    assert np.allclose(chosen["x"][same], drawn["x"][same], atol=1e-6) and not np.allclose(chosen["x"][0], drawn["x"][0])
    seen, data = [], {"x": jnp.ones((4000, 2)), "label": jnp.arange(4000) % 3}
    for drop in (0.0, 0.1):
        conditional(network=spied(seen), drop=drop).loss(KEY, NOTHING, data)
    np.testing.assert_array_equal(seen[0][2], data["label"])
    assert seen[0][3].min() == 1 and abs(4000 * (0.9 - seen[1][3].mean())) < 4 * (4000 * 0.09) ** 0.5
    assert jax.eval_shape(learner.field, variables, drawn).shape == (5, 6)


# Compilation

SMALL = mlp(2, width=8, depth=1)


@pytest.mark.parametrize("coupling", ["ddpm", "edm", "ot"])
def test_gradients_of_the_loss_lower_for_accelerators(coupling):
    process = {"ddpm": ddpm(20), "edm": edm(), "ot": flow_matching("ot")}[coupling]
    learner = diffusion(SMALL, process, euler(2), (2,))

    def step(words, variables, x):
        key = jax.random.wrap_key_data(words)
        return jax.grad(lambda params: learner.loss(key, variables._replace(params=params), x)[0])(variables.params)

    lowers(step, jnp.zeros((8, 2)))


@pytest.mark.parametrize(
    "sampler", [ancestral(), ddim(4, "quadratic", 1.0), euler(4), heun(4, 1.0), dopri5()], ids=lambda s: s.name
)
def test_samplers_lower_for_accelerators(sampler):
    learner = diffusion(SMALL, ddpm(20), sampler, (2,))
    lowers(lambda words, variables, x: learner.sample(jax.random.wrap_key_data(words), variables, 4), jnp.zeros(()))


def lowers(run, x):
    variables = jax.eval_shape(SMALL.init, KEY)
    words = jax.ShapeDtypeStruct((2,), jnp.uint32)
    exported = jax.export.export(jax.jit(run), platforms=["tpu", "cuda"])(words, variables, x)
    assert exported.platforms == ("tpu", "cuda")


def test_many_models_side_by_side_are_each_as_alone():
    learner = diffusion(SMALL, flow_matching("ot"), dopri5(1e-4, 1e-4), (2,))
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(learner.init))(keys)
    x = jnp.asarray(points(16)[1], jnp.float32)

    def all_of(key, variables):
        grad = jax.grad(lambda params: learner.loss(key, variables._replace(params=params), x)[0])(variables.params)
        return learner.sample(key, variables, 6), learner.field(variables, x), grad

    together, alone = jax.jit(jax.vmap(all_of))(keys, many), jax.jit(all_of)
    for i in range(3):
        one = alone(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], many))
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ddpm(1), "steps is 1"),
        (lambda: ddpm(10, (0.2, 0.1)), "beta is (0.2, 0.1)"),
        (lambda: ddpm(10, schedule="sigmoid"), "'sigmoid'"),
        (lambda: edm(sigma_data=0.0), "sigma_data is 0.0"),
        (lambda: edm(sigma_max=1e-4), "sigma_max is 0.0001"),
        (lambda: flow_matching("sinkhorn"), "'sinkhorn'"),
        (lambda: flow_matching(sigma=-1), "sigma is -1"),
        (lambda: diffusion(SMALL, edm(), ancestral(), (2,)), "ancestral"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2, 0)), "shape is (2, 0)"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2,), classes=-1), "classes is -1"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2,), guidance=0.5), "guidance is 0.5"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2,), scale=0.0), "scale is 0.0"),
        (lambda: conditional(drop=1.0), "drop is 1.0"),
        (lambda: conditional().sample(KEY, NOTHING, 4, jnp.zeros(3)), "label has shape [3]"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2,)).sample(KEY, NOTHING, 4, jnp.zeros(4)), "label is given"),
        (lambda: diffusion(SMALL, edm(), euler(2), (2,)).loss(KEY, NOTHING, jnp.zeros((4, 3))), "points have shape [4, 3]"),
    ],
)
def test_refusals(make, said, refused):
    with refused(said):
        make()
