"""The config for a user's own table: each family runs where it can, the target is named first, rows lost have an interval."""

import jax
import numpy as np
import pytest
import xarray as xr

from mcloop import sweep
from mcloop.experiment import config
from mcloop.report.profile import profile
from mcloop.report.scores import place, risk

KNOWN = config.find("beyond/real_table")
RUN = config.load(KNOWN)


def table(folder, text):
    (folder / "own.csv").write_text(text)
    return RUN.load(folder / "own.csv")


def numbers(n, d, names=None, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, d))
    lines = [",".join(f"{v:.4f}" for v in row) for row in values]
    return "\n".join([",".join(names or [f"c{j}" for j in range(d)]), *lines])


@pytest.mark.parametrize(
    ("text", "missing", "said"),
    [
        (numbers(30, 1), {"regression"}, "A regression needs a column besides the target 'c0'"),
        (numbers(60, 50), {"regression"}, "A regression on 49 columns needs 51 rows or more, and has 48"),
        (numbers(3, 2), {"regression", "mixture"}, "A regression on 1 columns needs 3 rows or more"),
        ("x,y,who\n" + "\n".join(f"{i},{i * i},secret{i}" for i in range(9)), {"regression"}, "The target 'who' of 'own.csv'"),
    ],
)
def test_each_family_runs_where_it_can_and_the_rest_is_a_remark(tmp_path, text, missing, said):
    real = table(tmp_path, text)
    assert set(real.cannot) == missing
    assert real.remarks[0].startswith("there is no target") and said in real.remarks[0] and "(no target)" in real.source
    told = " ".join([real.source, *real.remarks])
    assert "secret" not in told and str(tmp_path) not in told
    for family in ("gaussian", "regression", "kde", "mixture"):
        loop = RUN.make(family=family, regime="replace", lam=1.0, table=real)
        info = jax.eval_shape(lambda k, one=loop: one.generation(k, one.init(k, None, 3))[1], jax.random.key(0))
        assert ("unit_error" in info) and (loop.model.name == "nothing") == (family in real.cannot)
    grid = {"family": ["gaussian", "regression"], "regime": ["replace"], "lam": [1.0], "seed": [0], "generation": [1, 2]}
    ds = xr.Dataset({"unit_error": (tuple(grid), np.ones((2, 1, 1, 1, 2)))}, grid, {"remarks": []})
    assert RUN.annotate(ds, {"table": real})["family"].values.tolist() == ["gaussian"]
    with pytest.raises(config.InputError, match="no place"):
        RUN.annotate(ds.sel(family=["regression"]), {"table": real})


def test_a_lam_that_is_no_whole_number_of_copies_runs_and_says_so(tmp_path):
    real = table(tmp_path, numbers(50, 3, ["a", "b", "price"]))
    assert real.remarks[0] == "the regression's target is 'price', the last column of 'own.csv'"
    assert "(target 'price')" in real.source and not real.cannot
    for family in ("regression", "kde", "mixture"):
        for lam in (0.667, 1.0, 2.0, 2.5, float("inf")):
            loop = RUN.make(family=family, regime="augment", lam=lam, table=real)
            jax.eval_shape(lambda k, one=loop: one.generation(k, one.init(k, None, 3)), jax.random.key(0))
            assert loop.model.memory.capacity is None or loop.model.memory.capacity >= loop.regime.draw(40, 2).synthetic
    grid = {"family": ["regression"], "regime": ["augment"], "lam": [0.667, 2.0], "seed": [0], "generation": [1, 2]}
    ds = xr.Dataset({"unit_error": (tuple(grid), np.ones((1, 1, 2, 1, 2)))}, grid, {"remarks": ["first"]})
    said = RUN.annotate(ds, {"table": real}).attrs["remarks"]
    assert len(said) == 2 and said[1].startswith("lam 0.667 is 26 labels for 40 rows of the regression")
    assert "every generation labels rows of its own" in said[1]


def test_a_part_of_the_rows_leaves_about_the_error_of_so_many_points(tmp_path):
    """lam/(1 + 2 lam) of what real data leave, up to 1/n; of the same few rows every time it was .64 of that on this table."""
    real = table(tmp_path, numbers(50, 4, seed=1))

    def make(lam):
        return RUN.make(family="regression", regime="augment", lam=lam, table=real)

    ds = sweep(make, {"lam": [0.25]}, 400, 8, static=["lam"])
    ratio = ds["test_error"].isel(lam=0, generation=-1).values / ds["unit_error"].values[0, 0, 0] / (0.25 / 1.5)
    assert abs(ratio.mean() - 0.88) < 0.04 + 3 * ratio.std() / 20 < 0.2


def measured(seeds):
    """Errors of two families under every regime, as the loops leave them: 0 at generation 1."""
    rng, g = np.random.default_rng(1), np.arange(1, 6)
    grid = {"family": ["gaussian", "regression"], "regime": ["replace", "augment"], "lam": [0.5, 1.0]}
    grid |= {"seed": np.arange(seeds), "generation": g}
    shape = tuple(map(len, grid.values()))
    rise = 0.02 * (g - 1) * rng.chisquare(3, (*shape[:-1], 1)) / 3
    held = {name: np.full(shape, 0.5) for name in ("trace_ratio", "held_out_error")}
    both = {"mean_sq_error": rise.copy(), "test_error": rise.copy(), "unit_error": np.full(shape, 0.02)}
    both["mean_sq_error"][1], both["test_error"][0] = np.nan, np.nan
    return xr.Dataset({k: (tuple(grid), v) for k, v in (held | both).items()}, grid, {"remarks": []})


@pytest.mark.parametrize("seeds", [1, 12])
def test_rows_lost_are_the_profiles_risk_with_its_interval(seeds):
    ds = measured(seeds)
    said = RUN.notes(ds)
    assert [note.split("**")[1] for note in said[:-1]] == [
        f"{family}, {regime}"
        for family in ("gaussian", "regression")
        for regime in ("replace", "augment, lam 0.5", "augment, lam 1")
    ]
    assert "1 - 1/r" in said[-1] and (f"{seeds} seeds" in said[-1]) == (seeds > 1)
    for note, family, name in ((said[0], "gaussian", "mean_sq_error"), (said[3], "regression", "test_error")):
        where = {"family": family, "regime": "replace", "lam": 0.5}
        r = risk(place(ds, where, ""), [name], 1.0)
        x = ds[name].sel(where).isel(generation=-1)
        assert r.value == pytest.approx(1 + float(x.mean()) / 0.02, rel=1e-9)  # what `plan` compares, too
        share, low, high = (100 * (1 - 1 / v) for v in r[2:5])
        words = (
            f"as if {share:.0f} % of the rows" if seeds == 1 else f"as if {share:.0f} % ({low:.0f} to {high:.0f} %) of the rows"
        )
        assert words in note
        entry = next(e for s in profile(ds, RUN) if s.definition == "any more risk" for e in s.entries if family in e.label)
        assert entry.value == pytest.approx(r.value)
