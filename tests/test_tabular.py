"""Generators of mixed tables: what they keep of a known distribution, against scipy, and what they refuse."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from helpers import refused
from scipy import stats

from mcloop.models import tabular
from mcloop.models.latent import factor, latent_correlation
from mcloop.models.marginals import fit_marginal
from mcloop.models.tabular import ClassMixture, GaussianCopula

RNG = np.random.default_rng
LATENT = np.array(
    [
        [1, 0.6, -0.5, 0.3, 0.4],
        [0.6, 1, -0.2, 0.5, 0.1],
        [-0.5, -0.2, 1, 0.2, 0.0],
        [0.3, 0.5, 0.2, 1, -0.3],
        [0.4, 0.1, 0.0, -0.3, 1],
    ]
)


def mixed(n, seed=0):
    """A Gaussian copula with a normal number, a boolean, zeros and lognormals, an ordered category and a date."""
    z = RNG(seed).standard_normal((n, 5)) @ np.linalg.cholesky(LATENT).T
    category = pd.CategoricalDtype(["low", "mid", "high", "top", "never"], ordered=True)
    return pd.DataFrame(
        {
            "x": z[:, 0],
            "yes": z[:, 1] > 0.5,
            "spent": np.where(z[:, 2] > 0, np.exp(z[:, 2]), 0.0),
            "size": pd.Categorical.from_codes(np.digitize(z[:, 3], [-1, 0, 1]), dtype=category),
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.rint(100 * z[:, 4]), "D"),
        }
    )


@pytest.fixture(scope="module")
def real():
    frame = mixed(20_000)
    rng = RNG(1)
    frame["city"] = rng.choice(["Ayr", "Bath", "Cork"], len(frame), p=[0.7, 0.25, 0.05])
    frame["children"] = rng.poisson(1.5, len(frame))
    frame["pounds"] = np.rint(rng.gamma(2, 1000, len(frame)) * 100) / 100
    frame["late"] = pd.Series(rng.random(len(frame)) < 0.1).astype("boolean")
    frame["age"] = np.where(frame["x"] + rng.standard_normal(len(frame)) > 1, np.nan, rng.integers(18, 80, len(frame)))
    frame.loc[rng.random(len(frame)) < 0.2, ["late", "city"]] = None
    return frame


@pytest.fixture(scope="module")
def drawn(real):
    return GaussianCopula(3).fit(real).sample(5000)


# marginals


def far(real, drawn):
    """Whether 5,000 draws are further from the values seen than one in 10,000 of that distribution would be."""
    bound = stats.kstwo.isf(1e-4, len(drawn)) + 1 / len(real)
    return stats.ks_2samp(real, drawn, method="asymp").statistic > bound


@pytest.mark.parametrize("name", ["x", "spent", "when", "children", "pounds", "age"])
def test_numbers_and_dates_have_the_distribution_that_was_seen(real, drawn, name):
    seen, made = (frame[name].dropna().to_numpy().astype(float) for frame in (real, drawn))
    assert not far(seen, made)
    assert far(seen, RNG(0).normal(seen.mean(), seen.std(), 5000)) or name in ("x", "when")  # which are normal
    assert far(seen, made + 0.2 * seen.std())
    assert seen.min() <= made.min() and made.max() <= seen.max()


@pytest.mark.parametrize("name", ["yes", "size", "city", "late", "children"])
def test_levels_are_as_frequent_as_they_were(real, drawn, name):
    share = real[name].value_counts(normalize=True)
    share = share[share > 0]
    count = drawn[name].value_counts().reindex(share.index, fill_value=0)
    assert set(drawn[name].dropna()) <= set(share.index)
    large = share * count.sum() >= 5
    rest = [(~large * share).sum()] if not large.all() else []
    expected = np.append(share[large], rest) * count.sum()
    found = np.append(count[large], [count[~large].sum()] if rest else [])
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4


def test_the_frame_looks_as_it_did(real, drawn):
    assert drawn.dtypes.equals(real.dtypes) and drawn.columns.equals(real.columns)
    assert drawn.index.equals(pd.RangeIndex(5000))
    assert (drawn["when"].dt.normalize() == drawn["when"]).all()  # whole days
    pounds = drawn["pounds"].to_numpy()
    assert (np.rint(pounds * 100) / 100 == pounds).all() and not (np.rint(pounds) == pounds).all()
    assert (drawn["age"].dropna() % 1 == 0).all()
    positive = real["spent"][real["spent"] > 0]
    assert drawn["spent"][drawn["spent"] > 0].min() >= positive.min()  # nothing between the heap and the rest
    assert abs((drawn["spent"] == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(5000)


def test_numbers_are_drawn_between_those_that_were_seen(drawn, real):
    assert np.isin(drawn["x"], real["x"]).mean() < 0.01
    assert np.isin(drawn["spent"], real["spent"]).mean() < 0.52


def test_values_at_the_ends_of_what_integers_and_dates_can_be():
    low, high = -(2**63), 2**63 - 1
    frame = pd.DataFrame({"a": [low, high, 0, 5], "b": [2**62 + 1, 2**62 + 3, 2**62 + 5, 2**62 + 3]})
    frame["c"] = pd.to_datetime(
        ["1700-01-01 00:00:00.000000001", "2200-12-31", "2000-02-29 12:00", "1999-01-01"], format="ISO8601"
    )
    made = GaussianCopula(0).fit(frame).sample(500)
    assert made.dtypes.equals(frame.dtypes)
    assert set(made["b"]) == {2**62 + 1, 2**62 + 3, 2**62 + 5}
    assert made["a"].nunique() > 100 and made["a"].min() == low
    assert frame["c"].min() <= made["c"].min() and made["c"].max() <= frame["c"].max()


# dependence


def estimates(repeats, n, corrected):
    found = []
    for seed in range(repeats):
        frame = mixed(n, seed)
        kinds = dict(zip(frame, ["number", "boolean", "number", "category", "date"], strict=True))
        scores = [fit_marginal(frame[name], kind)[1] for name, kind in kinds.items()]
        raw = np.corrcoef(np.column_stack([one.values for one in scores]).T)
        found.append(latent_correlation(scores, np.arange(n))[0] if corrected else raw)
    return np.array(found)


def test_correlations_of_the_normal_numbers_are_recovered():
    pair = np.triu_indices(5, 1)

    def z(values):
        return ((values.mean(0) - LATENT) / (values.std(0, ddof=1) / np.sqrt(len(values)) + 1e-12))[pair]

    assert np.abs(z(estimates(40, 800, True))).max() < 4
    assert np.abs(z(estimates(40, 800, False))).max() > 15  # what a boolean's scores alone would say


def test_what_is_drawn_depends_as_what_was_seen(real, drawn):
    ranks = [frame[["x", "spent", "when", "pounds"]].apply(lambda s: s.rank()).corr().to_numpy() for frame in (real, drawn)]
    assert np.abs(ranks[0] - ranks[1]).max() < 4 * np.sqrt(1 / 5000 + 1 / 20_000)
    assert np.abs(ranks[0] - np.eye(4)).max() > 0.3
    for level in ("low", "mid", "high", "top"):
        seen, made = (frame.loc[frame["size"] == level, "yes"] for frame in (real, drawn))
        assert abs(seen.mean() - made.mean()) < 4 * np.sqrt(seen.var() / len(made) + seen.var() / len(seen))
        assert abs(seen.mean() - real["yes"].mean()) > 0.05


def table(frame, a="a", b="b"):
    return pd.crosstab(frame[a], frame[b]).to_numpy()


def test_a_table_of_two_booleans_is_kept():
    true = np.array([[400, 100], [50, 450]])
    a, b = np.indices((2, 2))
    frame = pd.DataFrame({"a": np.repeat(a.ravel(), true.ravel()) > 0, "b": np.repeat(b.ravel(), true.ravel()) > 0})
    made = table(GaussianCopula(0).fit(frame).sample(5000))
    assert stats.chisquare(made.ravel(), true.ravel() * 5).pvalue > 1e-4
    assert stats.chisquare(made.ravel(), stats.contingency.expected_freq(true).ravel() * 5).pvalue < 1e-100


def test_a_table_of_categories_is_kept_whatever_their_order(monkeypatch):
    cuts = np.array([-np.inf, -0.7, 0, 0.5, np.inf]), np.array([-np.inf, -0.3, 0.4, np.inf])
    z = RNG(0).multivariate_normal([0, 0], [[1, 0.75], [0.75, 1]], size=40_000)
    names = np.array(["c", "a", "d", "b"]), np.array(["y", "z", "x"])  # alphabetical order is of no use
    frame = pd.DataFrame(
        {"a": names[0][np.digitize(z[:, 0], cuts[0][1:-1])], "b": names[1][np.digitize(z[:, 1], cuts[1][1:-1])]}
    )
    expected = table(frame).ravel() / 8
    assert stats.chisquare(table(GaussianCopula(0).fit(frame).sample(5000)).ravel(), expected).pvalue > 1e-4
    monkeypatch.setattr(
        tabular, "order_levels", lambda frame, kinds: {name: np.argsort(frame[name].cat.categories) for name in kinds}
    )
    assert stats.chisquare(table(GaussianCopula(0).fit(frame).sample(5000)).ravel(), expected).pvalue < 1e-20


def test_missing_values_are_as_frequent_and_depend_on_the_rest(real, drawn):
    for name in real:
        seen, made = real[name].isna(), drawn[name].isna()
        assert abs(seen.mean() - made.mean()) < 4 * np.sqrt(seen.var() / 5000) + 1e-12
    seen, made = ((frame["age"].isna() & (frame["x"] > 1)).mean() / (frame["x"] > 1).mean() for frame in (real, drawn))
    assert seen > real["age"].isna().mean() + 0.2 and abs(seen - made) < 4 * np.sqrt(0.25 / (0.16 * 5000))
    both = [(frame["late"].isna() & frame["city"].isna()).mean() for frame in (real, drawn)]
    assert both[0] > 0.19 and abs(both[0] - both[1]) < 4 * np.sqrt(0.16 / 5000)


def test_columns_that_are_there_on_different_rows_keep_their_dependence():
    rng = RNG(0)
    w = rng.standard_normal(20_000)
    frame = pd.DataFrame({name: 0.7 * w + 0.7 * rng.standard_normal(len(w)) for name in "xy"}).assign(w=w)
    for sign, name in ((1, "x"), (-1, "y")):  # in the rows that have both, x is high and y is low
        frame.loc[sign * w + 0.3 * rng.standard_normal(len(w)) < -0.5, name] = np.nan
    made = GaussianCopula(0).fit(frame).sample(20_000)
    seen, drawn = (part["x"].corr(part["y"], "spearman") for part in (frame, made))
    assert abs(seen - drawn) < 0.08


def test_a_matrix_that_is_no_correlation_gives_the_nearest_that_is():
    rho = np.array([[1, -0.9, -0.9], [-0.9, 1, -0.9], [-0.9, -0.9, 1.0]])
    root = factor(rho)
    # by symmetry the nearest has equal correlations, and -1/2 is the least that three can have
    np.testing.assert_allclose(root @ root.T, 1.5 * np.eye(3) - 0.5, atol=1e-3)
    np.testing.assert_allclose((root := factor(LATENT)) @ root.T, LATENT, atol=1e-12)


# seeds


def test_the_same_seed_draws_the_same_and_the_next_rows_are_others(real):
    frame = real.iloc[:300]
    for model in (GaussianCopula(7), ClassMixture(random_state=7)):
        first, second = model.fit(frame).sample(50), model.sample(50)
        assert not first.equals(second)
        assert type(model)(random_state=7).fit(frame).sample(50).equals(first)
        assert model.set_random_state(7) is model and model.sample(50).equals(first) and model.sample(50).equals(second)
        assert not model.set_random_state(8).sample(50).equals(first)
        assert pickle.loads(pickle.dumps(model.set_random_state(7))).sample(50).equals(first)
        assert copy.deepcopy(model).sample(50).equals(first)
        assert not type(model)().fit(frame).sample(50).equals(type(model)().fit(frame).sample(50))


def test_neither_the_frame_nor_its_index_matter(real):
    frame = real.iloc[100:400]
    before = frame.copy(deep=True)
    made = GaussianCopula(0).fit(frame).sample(20)
    assert frame.equals(before)
    assert GaussianCopula(0).fit(frame.set_axis(np.zeros(300, int))).sample(20).equals(made)


def test_rows_are_drawn_in_parts_as_at_once(real, monkeypatch):
    model = GaussianCopula(0).fit(real.iloc[:500])
    at_once = model.sample(1000)
    monkeypatch.setattr(tabular, "_ENTRIES", 777)
    pd.testing.assert_frame_equal(model.set_random_state(0).sample(1000), at_once, rtol=1e-9)  # products round differently


# tables of every kind


def frames():
    rng = RNG(0)
    line = rng.normal(size=200)
    yield "two rows", mixed(2)
    yield "one row", mixed(1)
    yield "constant", pd.DataFrame({"a": [1.5] * 9, "b": ["x"] * 9, "c": [True] * 9, "d": range(9)})
    yield "collinear", pd.DataFrame({"a": line, "b": -3 * line, "c": np.exp(line), "d": line > 0})
    yield "wide", pd.DataFrame(rng.normal(size=(60, 300))).rename(columns=str)
    nothing = pd.DataFrame({"a": [np.nan] * 6, "b": [None] * 6, "c": pd.Series([pd.NaT] * 6), "d": [1, 2, 3, 4, 5, 6]})
    nothing["e"] = pd.Categorical([None] * 6, categories=["p", "q"])
    nothing["f"] = pd.Series([None] * 6, dtype="boolean")
    yield "never there", nothing
    nullable = pd.DataFrame({"a": pd.array([1, None, 3, 3], dtype="Int64"), "b": pd.array([0.5, None, 1, 2], dtype="Float64")})
    nullable["c"] = pd.Series(["u", None, "v", "u"], dtype=object)
    nullable["d"] = pd.Series(["u", None, "v", "u"], dtype="string")
    nullable["e"] = pd.Series(pd.to_datetime(["2020-01-01", None, "2020-03-01", "2021-01-01"])).dt.tz_localize("Europe/Paris")
    nullable["f"] = pd.Series(["2020-01-01", None, "2020-03-01", "2021-01-01"], dtype="datetime64[ns]")
    nullable["g"] = pd.Series([1, 2, 3, 4], dtype="uint8")
    nullable["h"] = pd.Series([1.5, 2, np.nan, 4], dtype="float32")
    yield "nullable", nullable
    odd = pd.DataFrame(
        rng.normal(size=(5, 3)), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["p", "q"])
    )
    yield "two rows of names", odd
    yield "numbers as names", pd.DataFrame({0: [1, 2], 1.5: ["a", "b"], None: [True, False]})
    yield "every value once", pd.DataFrame({"id": [f"id{i}" for i in range(500)], "n": range(500)})


@pytest.mark.parametrize("model", [GaussianCopula, ClassMixture])
@pytest.mark.parametrize(("what", "frame"), frames(), ids=[what for what, _ in frames()])
def test_every_frame_is_fitted_and_drawn(model, what, frame):
    made = model(random_state=0).fit(frame).sample(300)
    assert made.dtypes.equals(frame.dtypes) and made.columns.equals(frame.columns) and made.columns.names == frame.columns.names
    for name in frame:
        seen, drawn = frame[name], made[name]
        assert drawn.isna().any() <= seen.isna().any() and (seen.notna().any() or drawn.isna().all())
        if seen.dtype == object:
            assert {type(v) for v in drawn} <= {type(v) for v in seen}
        if pd.api.types.is_numeric_dtype(seen) and seen.notna().any():
            assert seen.min() <= drawn.min() and drawn.max() <= seen.max()
        elif seen.dtype != object and not pd.api.types.is_datetime64_any_dtype(seen):
            assert set(drawn.dropna()) <= set(seen.dropna())
    if what == "collinear":
        assert made["a"].corr(made["b"], "spearman") < -0.97 and made["a"].corr(made["c"], "spearman") > 0.97


# levels of their own


def crossed(n, seed=0):
    """Two numbers that rise together in one level and against one another in the other; a third level is rare."""
    rng = RNG(seed)
    level = rng.choice(["up", "down", "rare"], n, p=[0.5, 0.49, 0.01])
    x, e = rng.standard_normal((2, n))
    return pd.DataFrame(
        {
            "x": x,
            "y": np.where(level == "down", -0.8, 0.8) * x + 0.6 * e,
            "level": level,
            "other": rng.integers(0, 9, n).astype(str),
        }
    )


def test_dependence_differs_from_level_to_level():
    frame = crossed(4000)
    mixture, single = (model.fit(frame).sample(5000) for model in (ClassMixture(random_state=0), GaussianCopula(0)))
    for level, rho in (("up", 0.8), ("down", -0.8)):
        found = [made[made["level"] == level][["x", "y"]].corr().iloc[0, 1] for made in (mixture, single)]
        assert abs(found[0] - rho) < 4 * (1 - 0.64) * np.sqrt(1 / 2000 + 1 / 2500)
        assert abs(found[1] - rho) > 0.3
    up = (mixture["level"] == "up").to_numpy()  # the rows of one level come in no order
    assert abs((up[1:] != up[:-1]).mean() - 2 * up.mean() * (1 - up.mean())) < 4 * 0.5 / np.sqrt(5000)
    share = frame["level"].value_counts(normalize=True)
    assert stats.chisquare(mixture["level"].value_counts()[share.index], share * 5000).pvalue > 1e-4


def test_levels_of_few_rows_share_a_copula_and_are_drawn():
    rng = RNG(0)
    frame = pd.DataFrame(
        {"of": rng.permutation(np.repeat(["a", "b", *"pqrstuvwxyz"], [200, 100] + [4] * 11)), "x": rng.normal(size=344)}
    )
    frame.loc[frame["of"] == "z", "of"] = None
    model = ClassMixture("of", 0).fit(frame)
    assert len(model._joints) == 3
    made = model.sample(5000)
    share = frame["of"].value_counts(normalize=True, dropna=False)
    assert stats.chisquare(made["of"].value_counts(dropna=False)[share.index], share * 5000).pvalue > 1e-4


def test_a_small_level_borrows_the_correlations_of_the_others():
    rng, errors = RNG(0), []
    rho = 0.5 * np.eye(8) + 0.5
    for _ in range(20):
        z = rng.standard_normal((1030, 8)) @ np.linalg.cholesky(rho).T
        frame = pd.DataFrame(z).rename(columns=str).assign(of=np.repeat(["large", "small"], [1000, 30]))
        alone = tabular.GaussianCopula().fit(frame[frame["of"] == "small"])._joint.root[:8]
        pooled = ClassMixture("of").fit(frame)._joints[1].root[:8]
        errors.append([np.square(root @ root.T - rho).mean() for root in (alone, pooled)])
    assert np.mean(errors, 0)[1] < 0.8 * np.mean(errors, 0)[0]


def test_which_column_the_levels_are_of():
    frame = crossed(500).assign(yes=True)
    assert len(ClassMixture().fit(frame)._joints) == 3  # of "level": "yes" has one level only
    assert len(ClassMixture("other").fit(frame)._joints) == 9
    assert len(ClassMixture().fit(frame[["x", "y", "yes"]])._joints) == 1
    numbers = frame.assign(other=frame["other"].astype(int))
    assert len(ClassMixture("other").fit(numbers)._joints) == 9


# what cannot be used


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (np.zeros((3, 2)), ("frame", "DataFrame", "ndarray")),
        (pd.DataFrame({"a": []}), ("frame", "0 x 1")),
        (pd.DataFrame(index=range(3)), ("frame", "3 x 0")),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ("frame", "'a'")),
        (pd.DataFrame({"a": [1.5, np.inf]}), ("frame", "'a'", "inf")),
        (pd.DataFrame({"a": [1j, 2]}), ("frame", "'a'", "complex")),
        (pd.DataFrame({"a": pd.to_timedelta([1, 2], "D")}), ("frame", "'a'", "timedelta")),
        (pd.DataFrame({"a": [[1], [2]]}), ("'a'", "lists")),
        (pd.DataFrame({"a": np.array([2**63], np.uint64)}), ("frame", "'a'", "2^63")),
    ],
)
def test_frames_that_cannot_be_fitted(frame, said):
    for model in (GaussianCopula(), ClassMixture()):
        with refused(*said):
            model.fit(frame)


def test_what_else_is_refused(real):
    for model in (GaussianCopula(), ClassMixture()):
        with refused("must be fitted", "fit(frame)"):
            model.sample(3)
        for n in (0, -1, 1.5, True, None):
            with refused("n must be", repr(n)):
                model.fit(real.iloc[:10]).sample(n)
        with refused("random_state", "-1"):
            model.set_random_state(-1)
    for target, said in (("nobody", "'nobody'"), ("x", "'x', which holds numbers"), ("when", "dates")):
        with refused("target", said):
            ClassMixture(target).fit(real.iloc[:10])
