"""What each regime trains on: counted row by row, the same in both memories, and as the laws say."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcloop import exact, regimes
from mcloop.drivers.scan import scan, trajectory
from mcloop.laws import LAWS
from mcloop.loop import make_loop
from mcloop.memory.rows import rows, rows_memory
from mcloop.types import Model, additive

KEY = jax.random.key(21)
T, N, SOURCES = 4, 10, 5


# Who trains on whom: points that know which generation drew them


class Ledger(NamedTuple):
    size: Any
    real: Any
    drawn_by: Any  # (SOURCES, *cells): the weight of the points that each generation drew; 0 is the truth


def ledger(keeps_rows: bool, n=N, capacity: int = 4 * N) -> Model:
    """A model whose one parameter is which generation it is, and whose points are that number."""

    def sample(key, params, count):
        if keeps_rows:
            return rows(jnp.broadcast_to(params, (capacity,)), count)
        count = jnp.asarray(count, jnp.float32)
        return Ledger(count, 0 * count, count * jax.nn.one_hot(params, SOURCES))

    def observe(key, real):
        drawn = sample(key, jnp.int32(0), n)
        return drawn._replace(real=drawn.weight if keeps_rows else drawn.size), jnp.int32(0)

    def fit(key, params, data):
        if keeps_rows:
            weights = [jnp.where(data.values == i, data.weight, 0).sum() for i in range(SOURCES)]
        else:
            weights = data.drawn_by
        return params + 1, {f"from {i}": weights[i] for i in range(SOURCES)}

    def merge(a, b):
        return jax.tree.map(jnp.add, a, b)

    def scale(a, w):
        return jax.tree.map(lambda x: x * w, a)

    return Model(
        name="ledger",
        n=n,
        memory=rows_memory(capacity) if keeps_rows else additive(merge, scale, lambda a: a.size, lambda a: a.real),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=lambda params, truth: {"generation": params},
    )


ALL = np.inf
# name -> (regime, what generations 2, 3, 4 train on by the generation that drew it, their effective lam)
BOOKS = {
    "baseline": (regimes.baseline(), [[10], [10], [10]], [0, 0, 0]),
    "replace": (regimes.replace(), [[0, 10], [0, 0, 10], [0, 0, 0, 10]], [ALL] * 3),
    "replace, growing": (regimes.replace(lambda n, t: n + t), [[0, 12], [0, 0, 13], [0, 0, 0, 14]], [ALL] * 3),
    "replace_multiple": (regimes.replace_multiple(), [[0, 20], [0, 0, 30], [0, 0, 0, 40]], [ALL] * 3),
    "accumulate": (regimes.accumulate(), [[10, 10], [10, 10, 10], [10, 10, 10, 10]], [1, 2, 3]),
    "accumulate, growing": (regimes.accumulate(lambda n, t: 2 * t), [[10, 4], [10, 4, 6], [10, 4, 6, 8]], [0.4, 1, 1.8]),
    "augment": (regimes.augment(0.5), [[10, 5], [10, 0, 5], [10, 0, 0, 5]], [0.5] * 3),
    "augment, more": (regimes.augment(2), [[10, 20], [10, 0, 20], [10, 0, 0, 20]], [2] * 3),
    "augment, nothing": (regimes.augment(0), [[10], [10], [10]], [0, 0, 0]),
    "augment, nothing else": (regimes.augment(np.inf), [[0, 10], [0, 0, 10], [0, 0, 0, 10]], [ALL] * 3),
    "fresh": (regimes.fresh(0.8, 0.4), [[8, 4], [8, 0, 4], [8, 0, 0, 4]], [0.5] * 3),
    "fresh, weighted": (regimes.fresh(0.8, 0.4, 0.75), [[9, 3], [9, 0, 3], [9, 0, 0, 3]], [1 / 3] * 3),
    "fresh, weighted alike": (regimes.fresh(0.8, 0.4, 2 / 3), [[8, 4], [8, 0, 4], [8, 0, 0, 4]], [0.5] * 3),
    "fresh, all weight": (regimes.fresh(0.8, 0.4, 1), [[12], [12], [12]], [0, 0, 0]),
    "window": (regimes.window(2), [[10, 10], [0, 10, 10], [0, 0, 10, 10]], [1, ALL, ALL]),
    "window of one": (regimes.window(1), [[0, 10], [0, 0, 10], [0, 0, 0, 10]], [ALL] * 3),
    "window of three": (regimes.window(3), [[10, 10], [10, 10, 10], [0, 10, 10, 10]], [1, 2, ALL]),
}


@cache
def kept(keeps_rows: bool):
    """Every regime's run, as one program."""
    loops = {name: make_loop(ledger(keeps_rows), regime) for name, (regime, *_) in BOOKS.items()}
    return jax.jit(lambda key: {name: trajectory(loop, key, None, T) for name, loop in loops.items()})(KEY)


@pytest.mark.parametrize("keeps_rows", [False, True], ids=["statistics", "rows"])
@pytest.mark.parametrize("name", BOOKS)
def test_every_generation_trains_on_what_its_regime_says(name, keeps_rows):
    _, books, ratio = BOOKS[name]
    final, infos = kept(keeps_rows)[name]
    assert int(final.params) == T
    expected = np.array([row + [0] * (SOURCES - len(row)) for row in books], float)
    seen = np.stack([infos[f"from {i}"][1:] for i in range(SOURCES)], 1)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    np.testing.assert_allclose(infos["effective_lam"], [0, *ratio], rtol=1e-6)


def test_a_subsample_has_the_budget_and_no_point_twice():
    model = ledger(True, capacity=N)
    loop = make_loop(model, regimes.accumulate_subsample())
    keys = jax.random.split(KEY, 400)
    infos = scan(loop, keys, generations=T)[1]
    seen = np.stack([infos[f"from {i}"][1:] for i in range(SOURCES)], 1)  # (3, SOURCES, replicas)
    np.testing.assert_array_equal(seen.sum(1), N)
    for t in (2, 3, 4):  # generation t draws N of t N points: hypergeometric by source
        law = stats.hypergeom(t * N, N, N)
        z = (seen[t - 2, :t].mean(1) - law.mean()) / np.sqrt(law.var() / 400)
        assert np.abs(z).max() < 4 and (seen[t - 2, t:] == 0).all()
        assert abs(seen[t - 2, 0].var() / law.var() - 1) < 0.4
    pool = rows(jnp.arange(7), 7)._replace(weight=jnp.float32([1, 0, 1, 1, 0, 1, 1]))
    picked = jax.jit(rows_memory(6).subsample)(KEY, pool, 5.0)
    np.testing.assert_array_equal(np.sort(picked.values[picked.weight > 0]), [0, 2, 3, 5, 6])


# The same law in both memories


class Setting(NamedTuple):
    regime: Any
    capacity: int = 4
    ddof: int = 0


GROW = jnp.float32([[0.0], [1.0]])  # replace beside replace_multiple, in one program
W = 0.75
SETTINGS = {
    "replace": Setting(regimes.replace(lambda n, t: n * (1 + GROW * (t - 1))), 16),
    "accumulate": Setting(regimes.accumulate()),
    "augment": Setting(regimes.augment(jnp.float32([[0.5], [1.0]]))),
    "fresh": Setting(regimes.fresh(1.0, 0.5, jnp.float32([[W], [0.4]])), 4, 1),
}


@cache
def simulated(name: str, literal: bool):
    regime, capacity, ddof = SETTINGS[name]
    loop = make_loop(exact.gaussian(d=1, n=4, ddof=ddof, literal=literal, capacity=capacity), regime)
    keys = jax.random.split(jax.random.key(literal), (1, 4000 if literal else 100_000))
    infos = jax.jit(lambda k: trajectory(loop, k, None, T)[1])(keys)
    return {n: np.asarray(infos[n], np.float64) for n in ("trace_ratio", "mean_sq_error")}


@pytest.mark.parametrize("name", SETTINGS)
def test_statistics_and_rows_give_the_same_law(name):
    one, other = simulated(name, False), simulated(name, True)
    for variable in one:
        for g in (2, 3):
            for a, b in zip(one[variable][g], other[variable][g], strict=True):
                assert stats.ks_2samp(a[:12_000], b).pvalue > 1e-4


# The laws, and the wrong formula beside each


def judged(law, sample, g, power=6.0, **parameters):
    """|z| < 4 for the law, and the same replicas reject its wrong neighbour."""
    mean, error = sample.mean(), sample.std() / np.sqrt(sample.size)
    right, wrong = (float(np.ravel(f([g], **parameters))[0]) for f in (LAWS[law].value, LAWS[law].wrong))
    assert abs(mean - right) < 4 * error, (law, mean, right, error)
    assert abs(mean - wrong) > power * error, (law, mean, wrong, error)


@pytest.mark.parametrize(
    ("law", "name", "row", "variable", "parameters"),
    [
        ("G1", "replace", 0, "trace_ratio", {"n": 4}),
        ("A5", "replace", 1, "trace_ratio", {"n": 4}),
        ("A1", "accumulate", 0, "trace_ratio", {"n": 4}),
        ("A2", "accumulate", 0, "mean_sq_error", {"n": 4}),
        ("B1", "augment", 1, "mean_sq_error", {"n": 4, "m": 4}),
        ("C1", "fresh", 0, "mean_sq_error", {"n": 4, "m": 2, "w": W}),
    ],
)
def test_replicas_follow_the_law_and_reject_its_neighbour(law, name, row, variable, parameters):
    g = 2 if law == "B1" else 3
    judged(law, simulated(name, False)[variable][g - 1][row], g, **parameters)


def test_subsampling_follows_its_law_and_not_that_of_replacement():
    loop = make_loop(exact.gaussian(d=1, n=3, literal=True), regimes.accumulate_subsample())
    keys = jax.random.split(KEY, 40_000)
    infos = jax.jit(lambda k: trajectory(loop, k, None, 3)[1])(keys)
    for g in (2, 3):
        judged("A3", np.asarray(infos["mean_sq_error"][g - 1], np.float64), g, n=3)


# Sizes and refusals


@pytest.mark.parametrize(
    ("lam", "n", "points"),
    [(0.1, 30, 3), (0.3, 10, 3), (0.7, 10, 7), (0.29, 100, 29), (0.57, 100, 57), (1.1, 10, 11), (0.5, 5, 2), (0, 50, 0)]
    + [(1e6, 3, 3e6), (0.7, 10**6, 700_000), (0.299, 10, 2), (1 / 3, 3, 1), (0.1, 10**6, 100_000), (1e-6, 10**6, 1)]
    + [(1, 10**8, 10**8), (0.5, 10**7, 5 * 10**6), (3.0, 10**9, 3 * 10**9)],
)
def test_lam_n_is_floored_as_on_paper(lam, n, points):
    assert regimes._points(lam, n) == points
    traced = jax.jit(regimes._points)(jnp.float32(lam), jnp.float32(n))
    half = jax.jit(lambda lam: regimes._points(lam, n))(jnp.float32(lam))
    assert float(traced) == float(half) == points


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: regimes.augment(-0.5), ("lam must be", "-0.5")),
        (lambda: regimes.augment(np.nan), ("lam must be", "nan")),
        (lambda: regimes.augment([0.1, -1]), ("lam must be", "[0.1, -1.0]")),
        (lambda: regimes.augment("half"), ("lam must be", "'half'")),
        (lambda: regimes.augment(None), ("lam must be", "None")),
        (lambda: regimes.fresh(0), ("real must be", "0")),
        (lambda: regimes.fresh(synthetic=-1), ("synthetic must be", "-1")),
        (lambda: regimes.fresh(weight=1.5), ("weight must be", "1.5")),
        (lambda: regimes.fresh(weight=0), ("weight must be",)),
        (lambda: regimes.window(0), ("window must be", "0")),
        (lambda: regimes.window(1.5), ("window must be", "1.5")),
    ],
)
def test_what_makes_no_sense_is_refused(build, said, refused):
    with refused(*said):
        build()


def test_rows_need_room(refused):
    wide = exact.gaussian(d=1, n=4, literal=True)
    with refused("generations must be given"):
        make_loop(wide, regimes.accumulate()).init(KEY)
    with refused("capacity must be at least 12", "replace_multiple", "not 4"):
        scan(make_loop(wide, regimes.replace_multiple()), KEY, generations=3)
    with refused("capacity must be at least 8", "augment"):
        scan(make_loop(wide, regimes.augment(2.0)), KEY, generations=3)
    with refused("capacity must be at least 6", "fresh"):
        scan(make_loop(wide, regimes.fresh(real=1.5)), KEY, generations=3)
    with refused("capacity must hold the real data", "4"):
        small = exact.gaussian(d=1, n=4, literal=True, capacity=2)
        make_loop(small, regimes.accumulate(lambda n, t: 2.0)).init(KEY, np.arange(4.0), 3)
    with refused("'accumulate_subsample'", "literal=True"):
        scan(make_loop(exact.gaussian(d=1, n=4), regimes.accumulate_subsample()), KEY, generations=3)


def test_an_empty_draw_changes_nothing():
    loop = make_loop(exact.gaussian(d=1, n=4), regimes.augment(0.0))
    infos = scan(loop, KEY, np.arange(4.0), generations=3)[1]
    np.testing.assert_allclose(infos["trace_ratio"], 1, rtol=1e-5)
    np.testing.assert_allclose(infos["mean_sq_error"], 0, atol=1e-10)
