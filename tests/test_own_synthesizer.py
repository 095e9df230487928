"""A user's own table and generator at the shell: what is asked for in people's words, and what is said of it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.datasets import load_iris

from mcloop.cli import main
from mcloop.errors import InputError, OwnCodeError
from mcloop.own.factory import factory
from mcloop.own.measures import array_metrics, measure_of, text_metrics
from mcloop.regimes import lam_of

GENERATOR = '''
import numpy as np


class Rows:
    """Draws rows again, of the first `keep` columns alone."""

    def fit(self, rows):
        self.rows = rows

    def sample(self, num_rows):
        return self.rows.sample(num_rows, replace=True)


class Broken(Rows):
    def fit(self, rows):
        raise ValueError("no licence")


class Fewer(Rows):
    def sample(self, num_rows):
        return self.rows[:3]


class Another(Rows):
    def sample(self, num_rows):
        return super().sample(num_rows).rename(columns={"age": "years"})


class Gaps(Rows):
    def sample(self, num_rows):
        return super().sample(num_rows).assign(age=np.nan)


class Nothing(Rows):
    def sample(self, num_rows):
        pass


class Mute:
    pass


number = 3
'''


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A folder with a table of mixed columns and a module of generators, in which the test is."""
    rng = np.random.default_rng(0)
    n = 80
    pd.DataFrame(
        {
            "id": np.arange(n),
            "age": rng.integers(18, 80, n),
            "city": rng.choice(["Bern", "Zug", "Chur"], n, p=[0.6, 0.35, 0.05]),
            "income": np.round(np.exp(10 + 0.3 * rng.normal(size=n)), 2),
            "member": rng.choice(["yes", "no"], n),
            "score": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        }
    ).to_csv(tmp_path / "people.csv", index=False)
    (tmp_path / "mine.py").write_text(GENERATOR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def go(*more, out="out", data="people.csv", quick=("--seeds", "1", "--generations", "2")):
    main(["run", "beyond/own_synthesizer", "--size", "tiny", "--data", data, "--out", out, "--quiet", *quick, *more])
    return xr.load_dataset(f"{out}/results.nc", engine="h5netcdf")


def refused(capsys, *more):
    with pytest.raises(SystemExit) as stop:
        go(*more)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "Traceback" not in said
    return said


def test_a_table_and_a_generator_of_ones_own(people):
    ds = go("--synthesizer", "mine.py:Rows", "--target", "member", "--share", "40%", "--ignore", "score")
    assert ds.association_error.dims == ("regime", "lam", "synthesizer", "target", "ignore", "seed", "generation")
    assert ds.lam.item() == pytest.approx(2 / 3)
    assert ds.copies.isel(generation=0).min() == 1  # rows that are drawn again are copies
    assert ds.sel(regime="augment").effective_lam.isel(generation=1).item() == pytest.approx(42 / 64)
    report = (people / "out" / "report.md").read_text()
    assert "column id was left out" in report and "score (number" not in report
    assert "age (integer)" in report and "member (boolean)" in report and "16 real rows are held out" in report
    assert "**replace**: after 2 generations" in report and str(people) not in report


def test_kinds_of_columns_are_overruled(people):
    go("--columns", "category=age,id", "--columns", "number=score")
    report = (people / "out" / "report.md").read_text()
    assert "age (category)" in report and "id (category)" in report


def test_the_built_in_ones_run_on_any_table(people):
    load_iris(as_frame=True).frame.to_parquet(people / "iris.parquet")
    ds = go(data="iris.parquet", out="iris")
    assert ds.association_error.notnull().all() and "tv_mean" not in ds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--synthesizer", "mine.py:Broken"), "no licence"),
        (("--synthesizer", "mine.py:Broken"), "Generation 1 of"),
        (("--synthesizer", "mine.py:Fewer"), "must be 80 rows, as asked for, and is 3"),
        (("--synthesizer", "mine.py:Another"), "lacks the column 'age'"),
        (("--synthesizer", "mine.py:Nothing"), "must be a DataFrame, as the real table is, not nothing"),
        (("--synthesizer", "mine.py:Mute"), "A Mute has no method to fit"),
        (("--synthesizer", "mine.py:number"), "must be a class or a function of no arguments, not int"),
        (("--synthesizer", "mine.py:Absent"), "mine.py has no 'Absent' (it has np, Rows"),
        (("--synthesizer", "other.py:Rows"), "there is no file 'other.py'"),
        (("--synthesizer", "no.such:Rows"), "there is no module 'no.such' here"),
        (("--synthesizer", "Rows"), "must be package.module:factory or file.py:factory, not 'Rows'"),
        (("--target", "wealth"), "wealth"),
        (("--ignore", "wealth"), "wealth"),
        (("--columns", "colour=age"), "colour"),
        (("--share", "140%"), "share must be a number from 0 to 1, or a percentage such as 40%, not '140%'"),
        (("--share", "0.4", "--set", "lam=1"), "share must be left out where lam is set"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(people, arguments, said, capsys):
    assert said in refused(capsys, *arguments)


def test_what_lacks_values_is_told_in_the_report(people):
    ds = go("--synthesizer", "mine.py:Gaps")
    assert "has nothing in column 'age' at 80 of 80 rows" in " ".join(ds.attrs["remarks"])


def test_flags_of_a_table_are_refused_where_there_is_none(people, capsys):
    with pytest.raises(SystemExit):
        main(["run", "quickstart", "--size", "tiny", "--target", "x"])
    assert "axis 'target' is not one that quickstart takes" in capsys.readouterr().err


def test_a_loop_of_ones_own_begins_from_one_that_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["init", "new/folder"])
    assert "mcloop run new/folder/my_loop.py" in capsys.readouterr().out
    main(["run", "new/folder/my_loop.py", "--size", "tiny", "--out", "out", "--quiet"])
    ds = xr.load_dataset("out/results.nc", engine="h5netcdf")
    assert ds.cities_kept.dims == ("arm", "seed", "generation") and ds.income_spread.notnull().all()
    with pytest.raises(SystemExit):
        main(["init", "new/folder"])
    assert "is there already, and is not overwritten" in capsys.readouterr().err


def test_a_plan_takes_a_share(capsys):
    main(["plan", "--tolerance", "1.2", "--share", "50%"])
    half = capsys.readouterr().out
    main(["plan", "--tolerance", "1.2", "--lam", "1"])
    assert capsys.readouterr().out == half
    with pytest.raises(SystemExit):
        main(["plan", "--tolerance", "1.2", "--lam", "1", "--share", "50%"])
    assert "share must be left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "lam"), [("40%", 2 / 3), (0.5, 1.0), ("0", 0.0), (1, np.inf), ("100 %", np.inf), ("12.5%", 1 / 7)]
)
def test_a_share_is_a_ratio(share, lam):
    assert lam_of(share) == pytest.approx(lam)


@pytest.mark.parametrize("share", ["", "x%", "nan", -0.1, 1.1, "101%", None])
def test_what_is_no_share_is_refused(share, refused):
    with refused("share must be a number from 0 to 1"):
        lam_of(share)


def test_a_module_is_found_in_the_folder_that_one_is_in(people):
    (people / "kit").mkdir()
    (people / "kit" / "__init__.py").write_text("")
    (people / "kit" / "makers.py").write_text("class Inner:\n    class Deep:\n        pass\n")
    assert factory("kit.makers:Inner.Deep").__name__ == "Deep"
    (people / "kit" / "ill.py").write_text("1 / 0\n")
    with pytest.raises(OwnCodeError, match=r"The import of kit\.ill failed at ill\.py:1 \(ZeroDivisionError"):
        factory("kit.ill:x")


# -- measures that are taken where none is named


def test_measures_of_arrays_against_hand_made_ones():
    x = np.random.default_rng(0).normal(size=(400, 3)) * [1, 10, 100]
    same = array_metrics(x, x)
    assert same["mean_shift"] == 0 and same["variance_kept"] == pytest.approx(1) and same["narrowest"] == pytest.approx(1)
    assert same["frechet"] == pytest.approx(0, abs=1e-9)
    flat = x.copy()
    flat[:, 1] *= 0.1
    assert array_metrics(x, flat)["narrowest"] == pytest.approx(0.01, rel=0.01)
    assert array_metrics(x, flat)["variance_kept"] == pytest.approx((1 + 0.01 + 1) / 3)
    assert array_metrics(x, x + [0, 20, 0])["mean_shift"] == pytest.approx(2, rel=0.1)
    alike = np.hstack([x, np.ones((400, 1))])  # what does not vary has no scale
    assert array_metrics(alike, alike)["variance_kept"] == pytest.approx(1)
    # of columns that are tied together the tie is no axis
    tied = np.hstack([x, x[:, :1]])
    assert array_metrics(tied, tied)["narrowest"] == pytest.approx(1)


def test_measures_of_texts_against_hand_made_ones():
    real = ["the cat sat on the mat and then it slept", "a dog ran"]
    found = text_metrics(real, ["the cat sat on the mat and then it slept", "the the the"])
    assert found["copied"] == 0.5 and found["words"] == 6.5
    assert found["words_lost"] == pytest.approx(3 / 12)
    assert found["distinct_2"] == pytest.approx(10 / 11)


def test_measures_go_by_the_form_of_the_points():
    frame = load_iris(as_frame=True).frame
    assert "association_error" in measure_of(frame, "row")(frame, frame)
    x, y = frame.to_numpy()[:, :2], frame.to_numpy()[:, 2]
    pairs = measure_of((x, y), "row")((x, y), (x, y))
    assert {"X_frechet", "y_variance_kept"} <= set(pairs)
    with pytest.raises(InputError):
        measure_of(frame, "row")(frame, frame.rename(columns=str.upper))
