"""New real points: from the source that a loop knows, or the user's own drawn again, never from a fit to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcloop import exact, random, regimes
from mcloop.exact.student_t import Mixture
from mcloop.loop import _fresh, make_loop
from mcloop.memory.rows import Rows

KEYS = random.fold_in(jnp.broadcast_to(jax.random.key(4), (1, 2000)), np.arange(2000)[None])
SKEWED = np.random.default_rng(0).exponential(size=20)
HUMPS = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0))


def new_points(model, real, count=20):
    loop = make_loop(model, regimes.fresh(1.0, 1.0))

    def run(keys):
        state = loop.init(keys, real, 2)
        return _fresh(random.fold_in(keys, 99), loop.model, state, jnp.float32(count))

    return jax.jit(run)(KEYS)


KEPT = {
    "gaussian": (exact.gaussian(1, 20, literal=True), SKEWED[:, None]),
    "gamma_family": (exact.gamma_family(n=20, literal=True), SKEWED),
    "kde": (exact.kde(1, 20, 5.0), SKEWED[:, None]),
    "student_t": (exact.student_t(20), SKEWED),
}


@pytest.mark.parametrize("family", KEPT)
def test_new_real_points_are_the_users_own(family):
    model, real = KEPT[family]
    drawn = new_points(model, real)
    assert isinstance(drawn, Rows)
    values, weight = np.ravel(drawn.values)[:20], np.asarray(drawn.weight).reshape(20, 2000)
    np.testing.assert_allclose(np.sort(values), np.sort(SKEWED), rtol=1e-6)
    assert (weight.sum(0) == 20).all()
    for row in weight[:3]:  # each point is drawn Binomial(20, 1/20) times
        assert stats.chisquare(np.bincount(np.minimum(row.astype(int), 3)), 2000 * _cells()).pvalue > 1e-4


def _cells():
    p = stats.binom(20, 1 / 20).pmf(np.arange(21))
    return np.append(p[:3], p[3:].sum())


def test_statistics_are_those_of_points_drawn_again():
    moved = new_points(exact.gaussian(1, 20), SKEWED[:, None])
    rng = np.random.default_rng(1)
    mean = rng.choice(SKEWED, (2000, 20)).mean(1)
    assert stats.ks_2samp(np.ravel(moved.mean), mean).pvalue > 1e-3
    np.testing.assert_allclose(np.mean(np.square(moved.root)) / 20, SKEWED.var() * 19 / 20, rtol=0.05)
    # skewed as the data are, which no Gaussian is: the mean and the spread of a sample go together
    together = np.corrcoef(np.ravel(moved.mean), np.ravel(moved.root))[0, 1]
    assert together > 0.3


def test_a_family_with_a_source_of_its_own_draws_from_it():
    drawn = new_points(exact.student_t(20, 5.0, HUMPS), None)
    x = np.ravel(drawn.values)

    def cdf(x):
        return stats.norm.cdf((x[:, None] - HUMPS.mean) / np.array(HUMPS.std)) @ HUMPS.weight

    assert stats.kstest(x, cdf).pvalue > 1e-3


def test_where_only_a_summary_is_kept_new_points_are_refused(refused):
    x = np.random.default_rng(0).normal(size=(30, 2))
    loop = make_loop(exact.linear_regression(2, 30), regimes.fresh())
    with refused("regime 'fresh' draws new real points", "literal=True"):
        loop.init(jax.random.key(0), (x, x[:, 0] + x[:, 1] ** 2), 2)
