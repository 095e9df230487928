"""Metrics of mixed tables: laws and examples by hand first, then scipy and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from mcloop.metrics import association, transfer
from mcloop.metrics.table_columns import coded, ks
from mcloop.metrics.tables import columns_report, table_metrics

RNG = np.random.default_rng
RATIOS = ("ks_mean", "ks_max", "tv_mean", "tv_max", "missing_max", "categories_kept", "rare_kept", "range_kept", "copies")


def mixed(n, seed=0, missing=0.1):
    rng = RNG(seed)
    x, kind = rng.standard_normal(n), rng.choice(["a", "b", "c", "rare"], n, p=[0.5, 0.3, 0.19, 0.01])
    frame = pd.DataFrame({"x": x, "y": x + rng.standard_normal(n), "count": rng.poisson(3, n), "kind": pd.Categorical(kind)})
    frame["yes"] = rng.random(n) < 1 / (1 + np.exp(-2 * x))
    frame["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 500, n), "D")
    frame["text"] = rng.choice(["u", "v"], n)
    frame.loc[rng.random(n) < missing, ["y", "text"]] = None
    return frame


# laws


@st.composite
def pairs(draw):
    """A small real table, and a synthetic one of the same columns, either with missing values and odd levels."""
    columns = draw(
        st.lists(st.sampled_from(["number", "integer", "boolean", "category", "text", "date"]), min_size=1, max_size=4)
    )
    cell = {
        "number": st.none() | st.floats(-1e6, 1e6),
        "integer": st.integers(-(2**60), 2**60),
        "boolean": st.none() | st.booleans(),
        "category": st.none() | st.sampled_from(["a", "b", "c", "d"]),
        "text": st.none() | st.text(max_size=2),
        "date": st.none()
        | st.datetimes(pd.Timestamp("1900-01-01").to_pydatetime(), pd.Timestamp("2100-01-01").to_pydatetime()),
    }
    dtype = {
        "number": "float64",
        "integer": "int64",
        "boolean": "boolean",
        "category": "category",
        "text": object,
        "date": "datetime64[ns]",
    }
    made = []
    for least in (2, 1):
        n = draw(st.integers(least, 12))
        made.append(
            pd.DataFrame(
                {
                    f"{i}": pd.Series(draw(st.lists(cell[kind], min_size=n, max_size=n)), dtype=object).astype(dtype[kind])
                    for i, kind in enumerate(columns)
                }
            )
        )
    return made


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_every_score_is_within_its_bounds_and_none_at_the_real_table_itself(tables):
    real, synthetic = tables
    found, own = table_metrics(real, synthetic), table_metrics(real, real)
    assert list(found) == list(own)
    assert all(np.isfinite(value) for value in found.values())
    assert all(0 <= found[name] <= 1 for name in RATIOS if name in found)
    assert 0 <= found.get("association_error", 0) <= 2 and found.get("closest_record", 0) >= 0
    for name, value in own.items():
        assert value == (1 if "kept" in name or name == "copies" else 0), name
    report = columns_report(real, synthetic)
    assert list(report.index) == list(real) and (report["ks"].isna() | report["tv"].isna()).all()


def test_a_fresh_draw_scores_as_chance_says_and_a_wrong_one_does_not():
    real, fresh, other = mixed(4000, 0), mixed(4000, 1), mixed(4000, 2)
    wrong = other.assign(y=RNG(0).permutation(other["y"]), yes=True, x=other["x"] * 1.2)
    wrong["kind"] = wrong["kind"].cat.set_categories(["a", "b"]).fillna("a")
    good, bad = table_metrics(real, fresh), table_metrics(real, wrong)
    bound = stats.kstwo.isf(1e-4, 2000)  # two samples of 4,000 are as far apart as one of 2,000 is from the truth
    assert good["ks_max"] < bound < bad["ks_max"]
    assert good["tv_max"] < 0.05 < bad["tv_max"]
    assert good["association_error"] < 0.03 < bad["association_error"]
    assert good["categories_kept"] == good["rare_kept"] == 1 and bad["rare_kept"] == 0 and bad["categories_kept"] < 0.8
    assert good["copies"] == 0 and 0.9 < good["closest_record"] < 1.1
    half = pd.concat([real.iloc[:2000], fresh.iloc[:2000]], ignore_index=True)
    assert table_metrics(real, half)["copies"] == 0.5


def test_which_scores_there_are_depends_on_the_real_table_alone():
    real, held_out = mixed(200, missing=0.3), mixed(100, 1)
    base = list(table_metrics(real, mixed(200, 2), target="yes", held_out=held_out))
    assert len(base) == 14
    nothing = real.copy()
    for name in nothing:
        nothing[name] = pd.Series([None] * 200, dtype=object)
    worst = table_metrics(real, nothing, target="yes", held_out=held_out)
    assert list(worst) == base and worst["ks_mean"] == worst["missing_max"] == 1 and worst["range_kept"] == 0
    assert worst["categories_kept"] == worst["copies"] == 0 and worst["tstr_score"] == 0
    assert list(table_metrics(real, real.iloc[:1], target="yes", held_out=held_out)) == base
    constant = pd.DataFrame({name: real[name].dropna().iloc[[0] * 50].to_numpy() for name in real})
    assert list(table_metrics(real, constant, target="yes", held_out=held_out)) == base
    numbers = table_metrics(real[["x", "count"]], real[["x", "count"]])
    assert set(numbers) == {"ks_mean", "ks_max", "missing_max", "range_kept", "association_error", "copies", "closest_record"}
    assert "ks_mean" not in table_metrics(real[["kind"]], real[["kind"]])


def test_the_order_of_rows_and_columns_and_the_index_do_not_matter():
    real, synthetic = mixed(300), mixed(200, 1)
    found = table_metrics(real, synthetic)
    moved = table_metrics(real.set_axis(np.zeros(300, int)), synthetic[[*reversed(synthetic.columns)]].set_axis(range(7, 207)))
    assert moved == found
    shuffled = table_metrics(real, synthetic.sample(frac=1, random_state=0))
    assert shuffled == pytest.approx(found, rel=1e-9)
    large, other = mixed(3000), mixed(3000, 1)
    assert table_metrics(large, other, seed=1) == table_metrics(large, other, seed=1) != table_metrics(large, other, seed=2)


def test_dtypes_may_differ_where_values_do_not():
    real = mixed(300)
    same = real.assign(
        kind=real["kind"].astype(object),
        yes=real["yes"].astype("boolean"),
        count=real["count"].astype(float),
        when=real["when"].dt.as_unit("s"),
        text=real["text"].astype("category"),
    )
    for pair in ((real, same), (same, real)):
        found = table_metrics(*pair)
        assert found["copies"] == 1 and found["ks_max"] == found["tv_max"] == found["association_error"] == 0


# by hand


def test_scores_of_columns_by_hand():
    real = pd.DataFrame({"x": [0.0, 1, 2, 4.5, np.nan], "k": ["a", "a", "b", "c", None]})
    synthetic = pd.DataFrame({"x": [1.0, 3, np.nan, np.nan], "k": ["a", "new", "b", "b"]})
    report = columns_report(real, synthetic)
    x, k = report.loc["x"], report.loc["k"]
    assert (x["kind"], k["kind"]) == ("number", "category")
    assert x["ks"] == 0.25 and x["range_kept"] == pytest.approx(2 / 4.5)
    assert (x["missing_real"], x["missing_synthetic"]) == (0.2, 0.5)
    # a 1/2 and 1/4, b 1/4 and 1/2, c 1/4 and 0, new 0 and 1/4
    assert k["tv"] == 0.5 and k["kept"] == pytest.approx(2 / 3) and np.isnan(k["rare_kept"])
    found = table_metrics(real, synthetic)
    assert found["tv_mean"] == pytest.approx((0.5 + 0.3 + 0.2) / 3) and found["tv_max"] == 0.5  # the level, and two flags
    assert found["missing_max"] == pytest.approx(0.3)


def test_rare_levels_are_those_of_two_percent_or_less():
    real = pd.DataFrame({"k": ["a"] * 95 + ["b"] * 3 + ["c"] * 2})
    for levels, rare, all_kept in ((["a", "c"], 1, 2 / 3), (["a", "b"], 0, 2 / 3), (["a", "b", "c"], 1, 1)):
        found = table_metrics(real, pd.DataFrame({"k": levels}))
        assert found["rare_kept"] == rare and found["categories_kept"] == pytest.approx(all_kept)


def test_ranges_by_hand():
    real = pd.DataFrame({"x": [0.0, 10.0], "c": [5, 5], "d": pd.to_datetime(["2020-01-01", "2020-01-11"])})
    synthetic = pd.DataFrame({"x": [-5.0, 2.5], "c": [4, 6], "d": pd.to_datetime(["2020-01-06", "2021-01-01"])})
    assert columns_report(real, synthetic)["range_kept"].tolist() == [0.25, 1, 0.5]
    far = pd.DataFrame({"x": [np.inf, 11], "c": [6, 7], "d": pd.to_datetime([None, None])})
    assert columns_report(real, far)["range_kept"].tolist() == [0, 0, 0]
    assert columns_report(real, far)["ks"].tolist() == [1, 1, 1]
    assert all(np.isfinite(value) for value in table_metrics(real, far).values())


def test_copies_are_of_whole_rows_and_exact():
    real = pd.DataFrame({"a": [2**60, 2**60 + 3, 7], "b": ["x", "y", None], "c": [0.0, 1.5, np.nan]})
    near = pd.DataFrame(
        {"a": [2**60, 2**60 + 2, 7, 7, 2**60 + 3], "b": ["x", "y", None, "x", "x"], "c": [-0.0, 1.5, np.nan, np.nan, 1.5]}
    )
    assert table_metrics(real, near)["copies"] == 2 / 5
    large = RNG(0).integers(0, 3, size=(5000, 7))
    tables = [pd.DataFrame(part).rename(columns=str) for part in (large[:1500], large[1500:])]
    known = {tuple(row) for row in tables[0].to_numpy()}
    assert table_metrics(*tables)["copies"] == np.mean([tuple(row) in known for row in tables[1].to_numpy()])


def test_closest_record_by_hand():
    real = pd.DataFrame({"x": [0.0, 1, 2, 3], "k": ["a"] * 4})
    synthetic = pd.DataFrame({"x": [0.5, 2.5, 3.25], "k": ["a"] * 3})
    assert table_metrics(real, synthetic)["closest_record"] == pytest.approx(0.5)
    spread = real["x"].std(ddof=0)
    other = synthetic.assign(k="b")  # another level is 1 away, and the nearest of the real rows one step
    assert table_metrics(real, other)["closest_record"] == pytest.approx(np.sqrt(1 + (0.5 / spread) ** 2) * spread)
    missing = pd.DataFrame({"x": [np.nan], "k": ["a"]})  # stands at the mean, half a step from the nearest, and is missing
    assert table_metrics(real, missing)["closest_record"] == pytest.approx(np.sqrt(1 + (0.5 / spread) ** 2) * spread)
    assert "closest_record" not in table_metrics(pd.concat([real, real]), synthetic)


# other libraries


@pytest.mark.parametrize("seed", range(5))
def test_ks_is_scipys(seed):
    rng = RNG(seed)
    a, b = rng.poisson(5, 300).astype(float), np.append(rng.normal(5, 2, 170), rng.poisson(5, 100))
    assert ks(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-15)
    assert ks(a, a[::-1]) == 0 and ks(a, a + 100) == ks(a, a[:0]) == 1


def test_spearman_is_scipys_with_and_without_missing_values():
    numbers = RNG(0).poisson(4, size=(200, 4)) + RNG(1).normal(size=(200, 1)).round()
    for share in (0, 0.2):
        numbers = np.where(RNG(2).random(numbers.shape) < share, np.nan, numbers)
        found = association.spearman(numbers)
        for i in range(4):
            for j in range(i):
                expected = stats.spearmanr(numbers[:, i], numbers[:, j], nan_policy="omit").statistic
                assert [found[i, j], found[j, i]] == pytest.approx([expected] * 2, abs=1e-12)
    assert association.spearman(np.column_stack([np.ones(9), np.arange(9)])).tolist() == [[1, 0], [0, 1]]


def test_the_correlation_ratio_is_that_of_an_analysis_of_variance():
    rng = RNG(0)
    codes = rng.integers(-1, 4, 300)
    x = rng.normal(size=(300, 3)) + codes[:, None] * [0, 1, -2] + [0, 1e6, 0]
    x[rng.random(x.shape) < 0.1] = np.nan
    for j, eta in enumerate(association.correlation_ratio(codes, x)):
        groups = [x[(codes == c) & ~np.isnan(x[:, j]), j] for c in range(4)]
        f, (df1, df2) = stats.f_oneway(*groups).statistic, (3, sum(map(len, groups)) - 4)
        assert eta**2 == pytest.approx(f * df1 / (f * df1 + df2), rel=1e-7)
    assert association.correlation_ratio(np.array([0, 0, 1, 1]), np.array([[1.0], [1], [3], [3]])) == pytest.approx(1)
    assert association.correlation_ratio(np.array([0, 0, 1, 1]), np.array([[1.0], [3], [1], [3]])) == pytest.approx(
        0, abs=1e-12
    )


def test_cramers_v_is_scipys_with_bergsmas_correction():
    rng = RNG(0)
    a = rng.integers(-1, 3, 400)
    b = np.where(rng.random(400) < 0.4, a, rng.integers(0, 5, 400))
    counts = pd.crosstab(a[(a >= 0) & (b >= 0)], b[(a >= 0) & (b >= 0)]).to_numpy()
    n, (r, k) = counts.sum(), counts.shape
    assert stats.contingency.association(counts) ** 2 * (min(r, k) - 1) * n == pytest.approx(
        stats.chi2_contingency(counts).statistic
    )
    phi = max(0, stats.contingency.association(counts) ** 2 * (min(r, k) - 1) - (r - 1) * (k - 1) / (n - 1))
    expected = np.sqrt(phi / (min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1))
    assert association.cramers_v(a, b) == pytest.approx(expected, rel=1e-12)
    assert association.cramers_v(b, b) == pytest.approx(1) and association.cramers_v(a, 0 * a) == 0
    chance = [association.cramers_v(rng.integers(0, 6, 200), rng.integers(0, 6, 200)) ** 2 for _ in range(200)]
    assert np.mean(chance) < 0.01  # uncorrected, (k - 1) / n = 0.025


def test_training_on_synthetic_rows_by_balanced_accuracy_and_r2():
    real, held_out, fresh = mixed(900, 0), mixed(900, 1), mixed(900, 2)
    for target in ("yes", "y"):
        good = table_metrics(real, fresh, target=target, held_out=held_out)
        noise = table_metrics(
            real, fresh.assign(**{target: RNG(0).permutation(fresh[target])}), target=target, held_out=held_out
        )
        assert good["tstr"] == pytest.approx(1, abs=0.15) and noise["tstr"] < 0.75
        assert good["tstr"] == good["tstr_score"] / good["trtr_score"]
        own = table_metrics(real, real, target=target, held_out=held_out)
        assert own["tstr"] == 1 and own["trtr_score"] == good["trtr_score"] > (0.6 if target == "yes" else 0.3)
    useless = table_metrics(real, fresh, target="count", held_out=held_out)
    assert "tstr" not in useless and useless["trtr_score"] < 0.01


def test_the_score_of_classes_is_scikit_learns_and_a_lost_class_counts(monkeypatch):
    rng = RNG(0)
    x, y = rng.normal(size=(300, 2)), rng.integers(0, 3, 300)

    class Known:
        def predict(self, rows):
            return np.where(rows[:, 0] > 0, 0, 1)

    monkeypatch.setattr(transfer, "_trees", lambda *args: Known())
    expected = balanced_accuracy_score(y, Known().predict(x))
    assert transfer._score(x, y, x, y, [False, False], True, 0) == pytest.approx(expected)
    assert transfer._score(x, 0 * y, x, y, [False, False], True, 0) == pytest.approx(1 / 3)
    assert transfer._score(x, 0 * y, x, y.astype(float), [False, False], False, 0) <= 0


def test_a_target_of_two_whole_numbers_is_classified():
    real, held_out = (mixed(400, s).assign(bit=lambda f: f["yes"].astype(int) + 5) for s in (0, 1))
    found = table_metrics(real[["x", "bit"]], real[["x", "bit"]], target="bit", held_out=held_out[["x", "bit"]])
    same = table_metrics(real[["x", "yes"]], real[["x", "yes"]], target="yes", held_out=held_out[["x", "yes"]])
    assert found["trtr_score"] == same["trtr_score"]


def test_many_levels_and_wide_tables():
    names = [f"id{i}" for i in range(3000)]
    real = pd.DataFrame({"id": names, "x": RNG(0).normal(size=3000), "yes": RNG(1).random(3000) < 0.5})
    found = table_metrics(real, real.assign(id=names[::-1]), target="yes", held_out=real)
    assert found["categories_kept"] == found["rare_kept"] == 1 and found["tv_max"] == 0 and found["copies"] == 0
    wide = pd.DataFrame(RNG(0).normal(size=(50, 200))).rename(columns=str)
    assert table_metrics(wide, wide)["copies"] == 1


@pytest.mark.parametrize("names", [[("a", 1), ("a", 2), ("b", 1)], [0, None, "x"]])
def test_columns_may_have_any_names(names):
    columns = pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else names
    frame = pd.DataFrame(RNG(0).normal(size=(20, 3)), columns=columns)
    assert table_metrics(frame, frame)["copies"] == 1 and list(columns_report(frame, frame).index) == list(frame.columns)


def test_codes_of_levels_are_by_frequency_and_new_ones_come_last():
    column = coded("k", "category", pd.Series(["b", "a", "a", None]), ("synthetic", pd.Series(["z", "b", None, "a"])))
    assert column.real.tolist() == [1, 0, 0, -1] and column.others[0].tolist() == [2, 1, -1, 0] and column.levels == 2


# what cannot be used


def test_tables_that_do_not_fit_together():
    real = mixed(20)
    for synthetic, said in (
        (real.to_numpy(), ("synthetic", "DataFrame")),
        (real.iloc[:0], ("synthetic", "at least one row")),
        (real.drop(columns="x"), ("synthetic", "'x'")),
        (real.assign(more=1), ("synthetic", "'more'")),
        (real.assign(x="text"), ("synthetic", "'x'", "numbers")),
        (real.assign(when=3.0), ("synthetic", "'when'", "dates")),
        (pd.concat([real, real[["x"]]], axis=1), ("synthetic", "'x'", "2")),
    ):
        for score in (table_metrics, columns_report):
            with refused(*said):
                score(real, synthetic)
    for bad, said in ((real.iloc[:1], ("real", "2 rows")), (real.assign(x=np.inf), ("real", "'x'", "inf"))):
        with refused(*said):
            table_metrics(bad, real)
    with refused("target", "'nobody'"):
        table_metrics(real, real, target="nobody")
    with refused("held_out", "'x'"):
        table_metrics(real, real, target="y", held_out=real.drop(columns="x"))
    with refused("seed", "-1"):
        table_metrics(real, real, seed=-1)
