"""Random variates: each against its law, and a key's numbers whatever stands beside it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcloop import random
from mcloop.random import counts, variates

S = 30_000
DOF = (0, 1, 2, 3, 50)
SHAPES = (0.2, 0.9, 1.0, 7.5, 1e4)
BINOMIALS = ((0, 0.5), (5, 0.3), (1000, 0.004), (40, 0.5), (60, 0.97), (10**6, 0.37), (10**6, 2e-6), (7, 0.0), (7, 1.0))
RATES = (0.0, 0.7, 9.5, 12.0, 1e4)
P = (0.1, 0.0, 0.4, 0.2, 0.3)
DRAWS = 30
LONG = np.random.default_rng(0).random(700).astype(np.float32) * (np.arange(700) % 3 > 0)


def across(values, key):
    """One row a parameter: (P, 1) for keys (1, S), (P,) for one key."""
    return jnp.float32(values).reshape((-1,) + (1,) * (key.ndim - 1))


@jax.jit
def every_variate(key, long):
    """Every sampler, for every one of its parameters, with the same key."""
    axes = (1,) * key.ndim
    n, p = (across(x, key) for x in zip(*BINOMIALS, strict=True))
    choices = jnp.float32([P, P[::-1]]).T
    return {
        "uniform": random.uniform(key, (3,)),
        "normal": random.normal(key, (3,)),
        "other block": random.normal(key, (3,), block=2**16 + 7),
        "chi_square": random.chi_square(key, across(DOF, key)),
        "chi_squares": random.chi_square(key, 5.0, (3,)),
        "gamma": random.gamma(key, across(SHAPES, key)),
        "binomial": counts.binomial(key, n, p),
        "poisson": counts.poisson(key, across(RATES, key)),
        "multinomial": counts.multinomial(key, jnp.float32(DRAWS), jnp.float32(P).reshape((-1, *axes))),
        "categorical": random.categorical(key, jnp.float32(P).reshape((-1, *axes)), 2),
        "search": random.categorical(key, long.reshape((-1, *axes)), 2),
        "choices": random.categorical(key, choices.reshape((len(P), -1) + axes[1:]), 1),
    }


@pytest.fixture(scope="module")
def keys():
    return random.fold_in(jnp.broadcast_to(jax.random.key(3), (S,)), np.arange(S))


@pytest.fixture(scope="module")
def drawn(keys):
    """Parameters (P, 1) against keys (1, S): each (parameters or entries, S)."""
    return {name: np.asarray(x, np.float64).reshape(-1, S) for name, x in every_variate(keys[None], LONG).items()}


def follows(x, law):
    """p-value of a sample under a scipy law: Kolmogorov-Smirnov, or chi-square on the counts of a discrete one."""
    if not hasattr(law.dist, "pmf"):
        return stats.kstest(x, law.cdf).pvalue
    edges = np.unique(law.ppf(np.linspace(0, 1, 41)[1:-1]))
    observed = np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1)
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * len(x)
    keep = expected > 1e-9 * len(x)
    assert observed[~keep].sum() == 0
    return stats.chisquare(observed[keep], expected[keep]).pvalue if keep.sum() > 1 else 1.0


def agree(rows, laws):
    for row, law in zip(rows, laws, strict=True):
        assert follows(row, law) > 1e-4, (law.args, row.mean(), row.std())


def test_fold_in_is_jaxs():
    key, data = jax.random.key(11), np.array([0, 1, 77, 2**32 - 1], np.uint32)
    ours = random.fold_in(jnp.broadcast_to(key, (4,)), data)
    theirs = jax.vmap(jax.random.fold_in, (None, 0))(key, data)
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))
    np.testing.assert_array_equal(*(jax.random.key_data(f(key, 5)) for f in (random.fold_in, jax.random.fold_in)))


def test_continuous_variates_follow_their_laws(drawn):
    agree(drawn["uniform"], [stats.uniform()] * 3)
    agree(drawn["normal"], [stats.norm()] * 3)
    agree(drawn["chi_square"][1:], [stats.chi2(k) for k in DOF[1:]])
    agree(drawn["chi_squares"], [stats.chi2(5)] * 3)
    agree(drawn["gamma"], [stats.gamma(a) for a in SHAPES])
    assert (drawn["chi_square"][0] == 0).all()


def test_counts_follow_their_laws(drawn):
    rows = drawn["binomial"]
    for row, (n, p) in zip(rows, BINOMIALS, strict=True):
        assert (row == np.floor(row)).all() and row.min() >= 0 and row.max() <= n
        if p in (0, 1) or n == 0:
            assert (row == n * p).all()
        else:
            assert follows(row, stats.binom(n, p)) > 1e-4, (n, p)
    assert (drawn["poisson"][0] == 0).all()
    agree(drawn["poisson"][1:], [stats.poisson(rate) for rate in RATES[1:]])


def test_rejection_is_exact_to_a_million_draws():
    million = (10**6,)

    @jax.jit
    def run(key):
        return counts.binomial(key, 400, 0.3, million), counts.poisson(key, 100.0, million), random.gamma(key, 1.5, million)

    with_law = zip(run(jax.random.key(17)), (stats.binom(400, 0.3), stats.poisson(100), stats.gamma(1.5)), strict=True)
    for x, law in with_law:
        assert follows(np.asarray(x, np.float64), law) > 1e-4


MANY = tuple((n, p) for n in (1e6, 1e7, 1e8, 1e9) for p in (0.5, 0.3, 0.9))


def test_counts_keep_their_law_to_a_billion_draws():
    """Where a float32 no longer holds every count, the law is that of the count rounded to the nearest one."""
    count = 60_000
    keys = random.fold_in(jnp.broadcast_to(jax.random.key(8), (1, count)), np.arange(count))
    n, p = (jnp.float32(x)[:, None] for x in zip(*MANY, strict=True))
    drawn = jax.jit(lambda keys: (counts.binomial(keys, n, p), counts.poisson(keys, n * p)))(keys)
    p = np.asarray(p, np.float64)
    grain = np.random.default_rng(0).uniform(-0.5, 0.5, (len(MANY), count)) * np.spacing(np.asarray(n * p, np.float32))
    for rows, variance in zip(drawn, (n * p * (1 - p), n * p), strict=True):
        z = (np.asarray(rows, np.float64) - n * p + grain) / np.sqrt(variance)
        assert (np.abs(z.var(1) - 1) < 4 * np.sqrt(2 / count)).all(), z.var(1)
        for row in z:  # the skewness of a million's thousandth is too small to be seen here
            assert stats.kstest(row, stats.norm.cdf).pvalue > 1e-3


def test_rare_categories_beside_a_common_one_keep_their_law():
    p = np.float32([1.0, 1e-7, 0.0, 2.5e-7])
    keys = random.fold_in(jnp.broadcast_to(jax.random.key(9), (S,)), np.arange(S))
    drawn = np.asarray(jax.jit(lambda keys: counts.multinomial(keys, jnp.float32(1e8), jnp.asarray(p)[:, None]))(keys))
    agree(drawn[1:], [stats.binom(10**8, x / p.sum(dtype=np.float64)) for x in p[1:].astype(float)])


def test_multinomial_counts_have_binomial_margins_that_share_one_total(drawn):
    counted = drawn["multinomial"]
    assert (counted.sum(0) == DRAWS).all() and (counted[1] == 0).all()
    agree(counted, [stats.binom(DRAWS, p) for p in P])
    pair = np.cov(counted[0], counted[2])[0, 1] / (-DRAWS * P[0] * P[2])
    assert abs(pair - 1) < 4 * math.sqrt(2 / S) / abs(P[0] * P[2]) ** 0.5


@pytest.mark.parametrize(("name", "weights"), [("categorical", P), ("search", LONG), ("choices", None)])
def test_categories_come_as_often_as_they_weigh(drawn, name, weights):
    for i, row in enumerate(drawn[name]):
        p = np.asarray((P, P[::-1])[i] if weights is None else weights, np.float64)
        p = p / p.sum()
        seen = np.bincount(row.astype(int), minlength=len(p))
        assert len(seen) == len(p) and seen[p == 0].sum() == 0
        assert stats.chisquare(seen[p > 0], S * p[p > 0]).pvalue > 1e-4


def test_place_inverts_the_cumulative_sum_and_never_finds_what_weighs_nothing():
    weights = np.random.default_rng(1).random((5000, 1)).astype(np.float32)
    weights[np.random.default_rng(2).random(5000) < 0.7] = 0
    weights[-40:] = 0
    # every rounding of the sum is probed: uniforms just below, at and above each edge
    edges = np.cumsum(weights[:, 0], dtype=np.float64) / weights.sum(dtype=np.float64)
    u = np.clip(np.concatenate([edges + e for e in (-1e-7, -6e-8, 0, 6e-8, 1e-7)]), 2**-24, 1 - 2**-24)[:, None]
    found = np.asarray(random.place(jnp.float32(u), jnp.asarray(weights)))[:, 0]
    assert (weights[found, 0] > 0).all()
    ideal = np.searchsorted(edges, u[:, 0], side="right")
    assert (np.abs(edges[found] - edges[np.minimum(ideal, 4999)]) < 1.01 * weights.max() / weights.sum()).all()
    few = random.place(jnp.float32([[0.05], [0.1], [0.3], [0.6], [0.999]]), jnp.float32(P)[:, None])
    np.testing.assert_array_equal(few[:, 0], [0, 2, 2, 3, 4])


def test_inversion_ends_when_the_uniform_is_all_but_one(monkeypatch):
    """What rounding leaves of the largest uniforms is no reason to count up to n."""
    words = counts.two_words
    monkeypatch.setattr(counts, "two_words", lambda *a, **b: tuple(jnp.full_like(w, 2**32 - 1) for w in words(*a, **b)))
    n, p = jnp.float32([1000, 50, 200, 1e6]), jnp.float32([0.005, 0.19, 0.049, 9e-6])
    largest = np.asarray(counts._inversion(jax.random.key(0), n, p, ()))
    assert (largest < stats.binom.isf(1e-13, n, p)).all() and (largest > stats.binom.isf(1e-5, n, p)).all()
    rates = jnp.float32([0.5, 1, 2, 5, 9.9])
    largest = np.asarray(counts._poisson_inversion(jax.random.key(0), rates, ()))
    assert (largest < stats.poisson.isf(1e-13, rates)).all() and (largest > stats.poisson.isf(1e-5, rates)).all()


def test_the_unit_interval_is_open_and_symmetric():
    words = jnp.uint32([0, 2**9, 2**31, 2**32 - 1])
    units = np.asarray(variates.open_unit(words), np.float64)
    assert units[0] == 2.0**-24 and units[3] == 1 - 2.0**-24 and units[2] == 0.5 + 2.0**-24
    assert np.isfinite(variates._gaussian(words)).all()


def test_the_quantile_is_accurate_into_both_tails():
    words = np.concatenate([np.arange(2000), 2**22 + np.arange(-1000, 1000), 2**23 - 1 - np.arange(2000)]) << 9
    ideal = stats.norm.ppf(((words >> 9) + 0.5) / 2**23)
    np.testing.assert_allclose(variates._gaussian(jnp.asarray(words, jnp.uint32)), ideal, rtol=2e-6, atol=1e-7)


def test_a_keys_numbers_do_not_depend_on_what_stands_beside_it(keys, drawn):
    alone = every_variate(keys[12_345], LONG)
    for name, x in drawn.items():
        np.testing.assert_allclose(np.ravel(alone[name]), x[:, 12_345], rtol=1e-5, err_msg=name)
    few = jax.jit(lambda key: (random.normal(key, (3,)), random.chi_square(key, 5.0, (3,))))
    for shape in ((1000,), (25, 40)):
        normals, squares = few(keys[:1000].reshape(shape))
        np.testing.assert_allclose(normals.reshape(3, 1000), drawn["normal"][:, :1000], rtol=1e-6)
        np.testing.assert_allclose(squares.reshape(3, 1000), drawn["chi_squares"][:, :1000], rtol=1e-6)


def test_streams_are_uncorrelated(drawn):
    a, b = drawn["normal"], drawn["other block"]
    pairs = [(a[0], b[0]), (a[1], b[1]), (a[0], a[1]), (a[0], a[2]), (a[0][:-1], a[0][1:]), (a[0] ** 2, b[0] ** 2)]
    for x, y in pairs:
        assert abs(np.corrcoef(x, y)[0, 1]) < 4.5 / math.sqrt(S)


@pytest.mark.parametrize("key", [jnp.zeros(3), jnp.zeros((2, 3), jnp.uint32), jnp.uint32(4), jax.random.key(0, impl="rbg")])
def test_bad_keys_are_refused(key, refused):
    with refused("key must be"):
        random.as_key(key)


def test_old_keys_are_wrapped():
    key = jax.random.key(5)
    np.testing.assert_array_equal(jax.random.key_data(random.as_key(jax.random.key_data(key))), jax.random.key_data(key))
    assert random.as_key(key) is key
