"""A monitor of somebody else's loop: how often it is wrong, how soon it is right, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

import mcloop
from mcloop.errors import InputError, OwnCodeError
from mcloop.own import change
from mcloop.own.decay import decay
from mcloop.own.embed import embedding


def nothing(real, batch):
    return {}


def people(n, rng):
    """A mixed table: numbers, gaps, dates, categories and yes or no."""
    age = rng.gamma(5, 8, n)
    frame = {
        "age": age,
        "income": np.where(rng.random(n) < 0.1, np.nan, np.exp(rng.normal(10 + age / 100, 0.5))),
        "children": rng.poisson(1.5, n),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), "D"),
        "town": pd.Categorical(rng.choice(["a", "b", "c", "d"], n, p=[0.6, 0.3, 0.08, 0.02])),
        "street": [f"street {k}" for k in rng.geometric(0.02, n)],
        "member": rng.random(n) < 0.3,
    }
    return pd.DataFrame(frame)


def gaussian_loop(rng, n, batch, rounds, share):
    """Rounds of a Gaussian of one dimension fitted to n points, of which a share is drawn from the fit before it."""
    real = rng.normal(size=n)
    mean, deviation = real.mean(), real.std()
    for _ in range(rounds):
        yield rng.normal(mean, deviation, (batch, 1))
        pool = np.concatenate(
            [real if share < 1 else [], rng.normal(mean, deviation, round(n * share / (1 - share + (share == 1))))]
        )
        mean, deviation = pool.mean(), pool.std()


def first_alarm(monitor, batches):
    """The round of the first alarm, or None."""
    for batch in batches:
        if (verdict := monitor.update(batch)).alarm:
            return verdict.round
    return None


# -- what is promised


def test_levels_sum_to_at_most_the_chance_that_is_stated_and_each_can_be_reached():
    for alpha in (0.001, 0.05, 0.5):
        levels = np.array([change.level(t, alpha) for t in range(1, 1001)])
        assert levels[0] == 0
        assert levels.sum() <= alpha
        assert levels.sum() >= alpha - 2 * alpha / 1000 - 2 / change.MOST - 1e-9
        assert (levels[levels > 0] >= 2 / (change.MOST + 1)).all()
    np.testing.assert_allclose(change.level(2, 0.05), 0.3 / np.pi**2)
    np.testing.assert_allclose(change.level(5, 0.05), 0.3 / np.pi**2 / 16)


def test_p_values_are_of_their_level():
    """P(p <= a) <= a under the null, at levels of many tests and of few; and p is small where the law is another."""
    rng = np.random.default_rng(0)
    kernel = change.kernel(rng.normal(size=(200, 2)), 0)
    draws = 600
    p = np.array([change.permutation_p(*rng.normal(size=(2, 30, 2)), kernel, 0.03, [1, i]) for i in range(draws)])
    for a in (0.05, 0.2):
        assert (p <= a).mean() <= a + 3 * np.sqrt(a * (1 - a) / draws)
    assert (p <= 0.2).mean() > 0.08  # Bonferroni of two tests costs at most half
    wide, narrow = rng.normal(size=(200, 2)), 0.7 * rng.normal(size=(200, 2))
    assert change.permutation_p(wide, narrow, kernel, 0.03, [2]) == pytest.approx(2 / 1001, rel=0.1)
    assert change.permutation_p(narrow, wide, kernel, 0.03, [2]) < 0.01  # by the kernel alone
    assert change.permutation_p(wide, narrow, kernel, 1e-3, [2]) < 1e-3


@pytest.mark.parametrize("kind", ["gaussian", "table"])
def test_false_alarms_are_as_rare_as_stated(kind):
    """Loops of 10 rounds of one law: at most 5 % of them alarm, to three standard errors."""
    loops, rounds, alpha = (300 if kind == "gaussian" else 100), 10, 0.05
    rng = np.random.default_rng(3)
    real = rng.normal(size=(100, 2)) if kind == "gaussian" else people(400, rng)
    alarms = 0
    for i in range(loops):
        draw = (
            (lambda: rng.normal(size=(60, 2)) + 0.2)  # a generator that is not perfect, and does not change
            if kind == "gaussian"
            else (lambda: real.iloc[rng.integers(0, len(real), 60)].reset_index(drop=True))
        )
        monitor = mcloop.Monitor(real, false_alarms=alpha, seed=i, measure=nothing)
        alarms += first_alarm(monitor, (draw() for _ in range(rounds))) is not None
    assert alarms / loops <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / loops)


def test_a_loop_without_real_points_is_found_and_one_with_them_seldom():
    """G1 at n = 50, batches of 500: found by round 12 in 80 % of loops; half real, n = 500: in at most 20 % of 12 rounds."""
    rng, loops = np.random.default_rng(4), 30
    real = rng.normal(size=(500, 1))
    found = {
        (n, share): np.mean(
            [
                first_alarm(mcloop.Monitor(real, seed=i, measure=nothing), gaussian_loop(rng, n, 500, 12, share)) is not None
                for i in range(loops)
            ]
        )
        for n, share in ((50, 1), (500, 0.5))
    }

    assert found[50, 1] >= 0.8
    assert found[500, 0.5] <= 0.2


def test_replayed_batches_give_equal_verdicts_and_another_seed_others():
    rng = np.random.default_rng(5)
    real, batches = people(1500, rng), [people(1500, rng) for _ in range(3)]
    once, again, other = (
        [monitor.update(batch) for batch in batches] for monitor in (mcloop.Monitor(real, seed=s) for s in (0, 0, 1))
    )
    assert once == again
    assert [v.p for v in once[1:]] != [v.p for v in other[1:]]
    assert [v.round for v in once] == [1, 2, 3]


# -- what it says


def test_a_table_that_narrows_is_told_by_its_column_and_since_when():
    rng = np.random.default_rng(6)
    real, monitor = people(2000, rng), None
    monitor = mcloop.Monitor(real)
    for g in range(4):
        batch = people(1500, rng)
        if g >= 2:
            batch["age"] = 40 + (batch["age"] - 40) * 0.4
        verdict = monitor.update(batch)
        assert verdict.alarm == (g >= 2)
    assert verdict.since == 3
    assert "Since round 3" in verdict.words
    assert "'age'" in verdict.words
    assert "real rows" in verdict.words
    assert verdict.diversity.high < 1
    assert verdict.diversity.low < verdict.diversity.value < verdict.diversity.high
    assert verdict.distance > 0.02
    assert verdict.measures["ks_max"] > 0.1
    assert len(monitor.variances) == 4


def test_diversity_is_the_quotient_of_variances_and_its_interval_covers_it():
    rng, covered = np.random.default_rng(7), 0
    for i in range(200):
        monitor = mcloop.Monitor(rng.normal(size=(50, 2)), seed=i, measure=nothing)
        monitor.update(rng.normal(size=(200, 2)))
        low, high = monitor.update(0.8 * rng.normal(size=(200, 2)))[2][1:]
        covered += low <= 0.64 <= high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("form", ["texts", "pair", "images", "categories", "gaps", "other library"])
def test_every_form_of_points_is_watched(form):
    rng = np.random.default_rng(8)
    few, many = "abc", "abcdefghijklmnop"

    def texts(letters):
        return [" ".join(rng.choice(list(letters), 12)) for _ in range(200)]

    def pair(spread):
        return rng.normal(size=(200, 3)) * spread, rng.integers(0, 3, 200)

    def gaps(share):
        x = rng.normal(size=(300, 3))
        x[rng.random((300, 3)) < share] = np.nan
        return x

    class Wrapped:
        def __init__(self, frame):
            self.frame = frame

        def to_pandas(self):
            return self.frame

    makes = {
        "texts": (lambda: texts(many), lambda: texts(few)),
        "pair": (lambda: pair(1.0), lambda: pair(0.5)),
        "images": (lambda: rng.random((200, 12, 12)), lambda: 0.5 * rng.random((200, 12, 12))),
        "categories": (
            lambda: pd.DataFrame({"c": rng.choice(list(many), 300)}),
            lambda: pd.DataFrame({"c": rng.choice([*few, "new"], 300)}),
        ),
        "gaps": (lambda: gaps(0.1), lambda: gaps(0.5)),
        "other library": (lambda: Wrapped(people(200, rng)), lambda: Wrapped(people(200, rng).assign(age=50.0))),
    }
    same, moved = makes[form]
    monitor = mcloop.Monitor(same(), measure=nothing)
    assert not monitor.update(same()).alarm
    assert not monitor.update(same()).alarm
    assert monitor.update(moved()).alarm


def test_columns_weigh_alike_and_a_batch_changes_nothing_of_the_embedding():
    rng = np.random.default_rng(9)
    real = people(3000, rng).drop(columns=["income", "street"])
    found = embedding(real)
    x = found.encode(found.take(real, "real"), "real")
    by_column = pd.Series(x.var(0)).groupby(list(found.names)).sum()
    np.testing.assert_allclose(by_column, 1, atol=1e-9)
    part = found.encode(found.take(real.iloc[:7], "batch"), "batch")
    np.testing.assert_array_equal(part, x[:7])


def test_wide_points_are_projected_and_keep_their_squares():
    x = np.random.default_rng(10).normal(size=(300, 500))
    found = embedding(x, seed=1)
    z = found.encode(x, "x")
    assert z.shape == (300, 64)
    assert not found.names
    assert z.var(0).sum() == pytest.approx(500, rel=0.1)
    assert np.abs(embedding(x, seed=2).encode(x, "x") - z).max() > 0.1


# -- the law of a fall


def test_a_geometric_fall_has_its_rate_and_a_fall_that_ends_is_no_law():
    rng, g = np.random.default_rng(11), np.arange(10)
    found = decay(0.9**g * (1 + 0.005 * rng.normal(size=10)), np.full(10, 0.005) * 0.9**g)
    assert found.fits
    assert found.factor.low < 0.9 < found.factor.high
    assert found.factor.high - found.factor.low < 0.01
    assert found.half.low < 1 + np.log(2) / -np.log(0.9) < found.half.high
    level = 0.5 + 0.5 * 0.5**g
    assert not decay(level * (1 + 0.005 * rng.normal(size=10)), 0.005 * level).fits
    assert decay(np.ones(3), np.full(3, 0.1)) is None
    assert decay(np.array([1, 0.5, 0.2, 0.0]), np.full(4, 0.1)) is None
    still = decay(1 + 0.01 * rng.normal(size=8), np.full(8, 0.01))
    assert still.half.high == np.inf


@pytest.mark.parametrize(("scatter", "least"), [(0.0, 0.95), (0.1, 0.88)])
def test_the_interval_of_a_rate_holds_it(scatter, least):
    """Whether steps scatter by what a sample shows alone (5 %) or by refits too (10 %), of 10 generations."""
    rng, held = np.random.default_rng(12), 0
    for _ in range(200):
        path = np.exp(np.cumsum(np.r_[0, -0.05 + scatter * rng.normal(size=9)]))
        found = decay(path * np.exp(0.05 * rng.normal(size=10)), 0.05 * path)
        held += found.factor.low <= np.exp(-0.05) <= found.factor.high
    assert held / 200 >= least


# -- what it refuses


X = np.random.default_rng(13).normal(size=(40, 2))
BAD = X.copy()
BAD[3, 1] = np.inf
TABLE = people(60, np.random.default_rng(14))


@pytest.mark.parametrize(
    ("real", "batch", "words"),
    [
        (X, X[:5], "batch must have at least 20 rows, not 5"),
        (X, X[:0], "batch must have at least 20 rows, not 0"),
        (X, BAD, "batch is not finite at 1 of 40"),
        (X, X[:, :1], "batch has points of shape"),
        (X, "hello", "batch must be"),
        (TABLE, TABLE.drop(columns="age"), "batch must have the columns of the real table, each once, and has 0 of 'age'"),
        (TABLE, TABLE.assign(more=1), "'more' besides"),
        (TABLE, TABLE.assign(age="old"), "batch must hold numbers in column 'age'"),
        (TABLE, TABLE.assign(age=np.inf), "finite or missing numbers in column 'age'"),
        (TABLE, TABLE.assign(since=3), "batch must hold dates in column 'since'"),
        (TABLE, X, "batch must be a DataFrame"),
        (TABLE, TABLE[:0], "batch must have at least 20 rows, not 0"),
        ((X, X[:, 0]), X, "batch must be a pair"),
        ((X, X[:, 0]), (X, X[:9, 0]), "batch has 40 rows of X and 9 of y"),
        (["a b"] * 20 + ["c d"] * 20, [3] * 40, "batch must be a list of strings"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_does_not_count(real, batch, words):
    monitor = mcloop.Monitor(real, measure=nothing)
    monitor.update(real)
    with pytest.raises(InputError) as refused:
        monitor.update(batch)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert monitor.update(real).round == 2


@pytest.mark.parametrize(
    ("real", "options", "words"),
    [
        (X[:10], {}, "real must have at least 20 rows, not 10"),
        (np.zeros((40, 2)), {}, "all of them are alike"),
        (X, {"false_alarms": 0}, "false_alarms must be a number from 0.001 to 0.5, not 0"),
        (X, {"false_alarms": True}, "false_alarms"),
        (X, {"seed": -1}, "seed"),
        (X, {"measure": 3}, "measure must be a function"),
        (3, {}, "real must be a DataFrame"),
    ],
)
def test_a_monitor_that_cannot_be_is_refused(real, options, words):
    with pytest.raises(InputError, match=words):
        mcloop.Monitor(real, **options)


def test_a_measure_of_ones_own():
    monitor = mcloop.Monitor(X, measure=lambda real, batch: batch.mean() - real.mean())
    assert monitor.update(X).measures == {"measure": 0.0}
    with pytest.raises(OwnCodeError, match="measure failed"):
        mcloop.Monitor(X, measure=lambda real, batch: 1 / 0).update(X)


def test_a_batch_of_one_point_again_and_again_has_no_diversity():
    monitor = mcloop.Monitor(X)
    monitor.update(X)
    verdict = monitor.update(np.zeros((40, 2)))
    assert verdict.alarm
    assert verdict.diversity.value == 0
