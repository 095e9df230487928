"""One generation composed from its parts: however a loop is driven, its numbers are the same."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcloop import exact, regimes
from mcloop.drivers.scan import scan, trajectory
from mcloop.loop import make_loop
from mcloop.types import Memory

KEY = jax.random.key(7)
T = 5
# one program of a scan and one of a generation round differently where XLA contracts a multiply and an add
SAME = {"rtol": 1e-5, "atol": 1e-6}


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or SAME)), a, b)


@pytest.fixture(scope="module")
def loop():
    return make_loop(exact.gaussian(d=1, n=6), regimes.accumulate())


@pytest.fixture(scope="module")
def scanned(loop):
    return scan(loop, KEY, generations=T)


@pytest.fixture(scope="module")
def stepped(loop):
    """The same run by hand: a jitted generation, and the state after each."""
    step = jax.jit(loop.generation)
    states, infos = [jax.jit(loop.init)(KEY)], []
    for _ in range(T - 1):
        state, info = step(KEY, states[-1])
        states.append(state)
        infos.append(info)
    return step, states, infos


def test_a_scan_is_a_loop_of_generations(scanned, stepped, loop):
    final, infos = scanned
    _, states, by_hand = stepped
    assert int(final.t) == T
    close(final, states[-1])
    first = jax.jit(loop.measure)(KEY, states[0])
    for name, values in infos.items():
        assert values.shape == (T,)
        close(values, np.stack([first[name], *(info[name] for info in by_hand)]))


def test_a_run_resumed_from_a_saved_state_is_the_run_that_never_stopped(stepped):
    step, states, _ = stepped
    state = jax.tree.map(jnp.asarray, pickle.loads(pickle.dumps(jax.tree.map(np.asarray, states[1]))))
    for _ in range(T - 2):
        state, _ = step(KEY, state)
    close(state, states[-1], rtol=0)


def test_replicas_are_each_what_they_are_alone(loop, scanned):
    keys = jnp.stack([KEY, jax.random.key(8), jax.random.key(9)])
    final, infos = scan(loop, keys, generations=T)
    close({n: x[:, 0] for n, x in infos.items()}, scanned[1])
    close(final.params.mean[:, 0], scanned[0].params.mean)
    assert all(x.shape == (T, 3) for x in infos.values())
    assert len(np.unique(infos["trace_ratio"][-1])) == 3


def test_a_grid_over_trailing_cells_is_vmap_of_one_cell():
    keys = jax.random.split(KEY, 4)
    lam = jnp.float32([0.0, 0.5, 1.0, 3.0])

    def one(key, lam):
        return trajectory(make_loop(exact.gaussian(d=2, n=6), regimes.augment(lam)), key, None, 4)[1]

    close(jax.jit(one)(keys, lam), jax.jit(jax.vmap(one, out_axes=-1))(keys, lam))


def test_a_model_written_for_one_cell_is_mapped_over_keys_of_any_shape(walker):
    keys = jax.random.split(KEY, (2, 3))
    one_cell = make_loop(walker(), regimes.accumulate())
    final, infos = scan(one_cell, keys, generations=3)
    assert not one_cell.batched and infos["fitted"].shape == (3, 2, 3) and final.params.shape == (2, 3)
    close(infos, scan(make_loop(walker(batched=True), regimes.accumulate()), keys, generations=3)[1])
    close(infos["fitted"][:, 1, 2], scan(one_cell, keys[1, 2], generations=3)[1]["fitted"])


def test_sizes_may_differ_from_cell_to_cell(walker):
    keys = jax.random.split(KEY, 3)
    sizes = jnp.float32([4, 9, 100])
    _, infos = scan(make_loop(walker(sizes, batched=True), regimes.replace()), keys, generations=3)
    for i, n in enumerate((4, 9, 100)):
        close(infos["fitted"][:, i], scan(make_loop(walker(n), regimes.replace()), keys[i], generations=3)[1]["fitted"])


@pytest.mark.parametrize("ddof", [0, 1])
def test_generation_one_is_the_fit_on_the_users_data(ddof):
    x = np.random.default_rng(3).normal(size=(7, 3)) * [1, 10, 0.1] + [5, 0, -2]
    cov = np.cov(x.T, ddof=ddof)
    shapes = {"full": cov, "diagonal": np.diag(cov), "isotropic": np.diag(cov).mean(keepdims=True)}
    for covariance, ideal in shapes.items():
        loop = make_loop(exact.gaussian(3, 7, ddof=ddof, covariance=covariance), regimes.replace())
        state = jax.jit(partial(loop.init, real=x))(KEY)
        root = np.asarray(state.params.root)
        np.testing.assert_allclose(state.params.mean, x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(root @ root.T if covariance == "full" else root**2, ideal, rtol=1e-4, atol=1e-5)
        assert float(state.real.size) == float(state.real.real) == 7


def test_real_data_is_part_of_the_program_and_goes_by_its_content(walker):
    traced, model = [], walker()

    def observe(key, real):
        traced.append(1)
        return model.observe(key, real)

    loop = make_loop(model._replace(observe=observe), regimes.replace())
    x = np.arange(4.0)
    first = scan(loop, KEY, x, generations=2)[1]["fitted"]
    count = len(traced)
    again = scan(loop, KEY, x.copy(), generations=2)[1]["fitted"]
    assert len(traced) == count
    close(first, again, rtol=0)
    x += 10
    close(scan(loop, KEY, x, generations=2)[1]["fitted"], first + 10)


def test_a_known_truth_plays_theta_star():
    truth = exact.normal([3.0], [[4.0]])
    loop = make_loop(exact.gaussian(d=1, n=8), regimes.replace())
    start = jax.jit(lambda keys: loop.init(keys, truth))
    state = start(jax.random.split(KEY, 4000))
    seen = jax.jit(loop.measure)(KEY, state)
    error = (state.params.mean[0] - 3.0) * np.sqrt(8 / 4.0)
    assert abs(error.mean()) < 4 / np.sqrt(4000) and abs(error.var() - 1) < 4 * np.sqrt(2 / 4000)
    np.testing.assert_allclose(seen["mean_sq_error"], (state.params.mean[0] - 3.0) ** 2, rtol=1e-4)
    np.testing.assert_allclose(seen["trace_ratio"], state.params.root[0, 0] ** 2 / 4, rtol=1e-5)
    assert abs(seen["trace_ratio"].mean() - 7 / 8) < 4 * np.sqrt(2 * 7 / 64 / 4000)


def test_a_plain_function_is_a_pointwise_corrector(walker):
    seven = make_loop(walker(), regimes.replace(), lambda key, batch, params: batch._replace(mean=7 + 0 * params))
    assert seven.corrector.name == "pointwise" and not seven.batched
    np.testing.assert_array_equal(scan(seven, KEY, generations=3)[1]["fitted"][1:], 7)


def test_each_generation_has_its_own_randomness(walker):
    loop = make_loop(walker(batched=True), regimes.replace())
    steps = np.diff(scan(loop, jax.random.split(KEY, 2000), generations=4)[1]["fitted"], axis=0, prepend=0)
    correlation = np.corrcoef(steps)
    assert np.abs(correlation - np.eye(4)).max() < 4.5 / np.sqrt(2000)
    assert np.abs(steps.var(1) * 4 - 1).max() < 4 * np.sqrt(2 / 2000)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((None, regimes.replace()), ("model must be", "NoneType")),
        ((exact.gaussian, regimes.replace()), ("model must be", "function")),
        ((exact.gaussian(), "replace"), ("regime must be", "str")),
        ((exact.gaussian(), regimes.replace), ("regime must be", "function")),
        ((exact.gaussian(), Memory), ("regime must be",)),
    ],
)
def test_wrong_parts_are_refused(parts, said, refused):
    with refused(*said):
        make_loop(*parts)


@pytest.mark.parametrize("generations", [0, -1, 2.0, True, "3", None])
def test_generations_are_a_whole_number(generations, walker, refused):
    with refused("generations must be"):
        scan(make_loop(walker(), regimes.replace()), KEY, generations=generations)


@pytest.mark.parametrize(
    ("real", "said"),
    [
        (np.zeros((6, 2)), ("real must be", "(n, 1)", "[6, 2]")),
        (np.array([1.0, np.nan, 2, 3, 4, 5]), ("real must be finite",)),
        (np.zeros(5), ("n must be", "5", "6")),
    ],
)
def test_wrong_data_is_refused(loop, real, said, refused):
    with refused(*said):
        scan(loop, KEY, real, generations=2)
