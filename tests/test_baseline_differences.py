"""What synthetic data change, cell by cell, against real data only: differences within seeds, and their intervals."""

import re

import numpy as np
import pytest
from scipy import stats

from mcloop import results
from mcloop.report.paired import compare_baseline

LAMS = [0.0, 0.5, 1.0, np.inf]
FAMILIES = ["ddpm", "flow"]


def dataset(x, lams=LAMS):
    """Of x (family, lam, seed, generation)."""
    axes = {"family": FAMILIES[: len(x)], "lam": lams, "seed": np.arange(x.shape[2]), "generation": np.arange(x.shape[3]) + 1}
    return results.assemble({"error": x}, axes, {})


def drawn(seed=1, seeds=6, shift=(0.0, 0.0, 0.0, 1.0)):
    rng = np.random.default_rng(seed)
    luck = rng.normal(0, 5, (2, 1, seeds, 1))  # what a family's lams share
    return luck + rng.normal(0, 0.1, (2, 4, seeds, 3)) + np.array(shift)[:, None, None]


def intervals(said):
    return [(float(a), float(b)) for a, b in re.findall(r"\((\S+) to (\S+)\)", said)]


def test_differences_are_students_within_seeds():
    x = drawn()
    first, second = compare_baseline(dataset(x), "error")
    assert first.startswith("ddpm: error at the last generation minus that of lam 0, over 6 paired seeds: ")
    assert second.startswith("flow: ") and first.endswith("at lam inf.")
    last = np.float32(x[1, :, :, -1]).astype(float)
    wanted = [stats.ttest_rel(last[i], last[0]).confidence_interval(1 - 0.02 / 3) for i in (1, 2, 3)]
    assert intervals(second) == [(float(f"{low:.2g}"), float(f"{high:.2g}")) for low, high in wanted]
    assert intervals(second)[2][0] > 0 > stats.ttest_ind(last[3], last[0]).confidence_interval(0.98)[0]


def test_in_brief_only_what_is_told_from_0():
    ds = dataset(drawn())
    for said in compare_baseline(ds, "error", brief=True):
        assert "lam inf" in said and "lam 1," not in said and "lam 0.5" not in said
    assert len(compare_baseline(ds, "error", brief=True)) == 2
    assert compare_baseline(dataset(drawn(shift=(0, 0, 0, 0))), "error", brief=True) == []


@pytest.mark.parametrize("order", [("lam", "family", "generation", "seed"), ("seed", "generation", "lam", "family")])
def test_the_order_of_dimensions_changes_nothing(order):
    ds = dataset(drawn())
    turned = ds.assign(error=ds["error"].transpose(*order, missing_dims="ignore"))
    found = compare_baseline(turned.transpose("family", ...), "error")
    assert sorted(found) == sorted(compare_baseline(ds, "error"))


def test_where_there_is_nothing_to_compare_nothing_is_said():
    ds = dataset(drawn())
    assert compare_baseline(ds.isel(seed=[0]), "error") == []
    assert compare_baseline(ds.sel(lam=[0.5, 1.0]), "error") == []
    assert compare_baseline(ds.isel(lam=0, drop=True), "error") == []
    assert compare_baseline(ds.sel(lam=[0.0]), "error") == []


def test_a_loop_that_broke_in_a_seed_is_left_out():
    x = drawn()
    x[0, 3, 2, -1] = np.nan
    first, second = compare_baseline(dataset(x), "error")
    assert "lam inf" not in first and "lam inf" in second
    x[0, 0, 2, -1] = np.nan  # nothing to compare with
    (only,) = compare_baseline(dataset(x), "error")
    assert only.startswith("flow: ")


def test_equal_loops_are_seldom_told_apart():
    missed = sum(
        any(
            low > 0 or high < 0
            for low, high in intervals(compare_baseline(dataset(drawn(i, shift=(0,) * 4))[{"family": [0]}], "error")[0])
        )
        for i in range(300)
    )
    # at most 2 % of 300 by the intervals' rule, and 15 or more would be seen in 1 of 1,000 such tests
    assert missed < 15
    assert sum(not compare_baseline(dataset(drawn(i)), "error", brief=True) for i in range(50)) == 0
