"""Other people's generators in a loop: each recipe runs at toy size, goes on to the bit, and says what it lacks."""

import shutil
import sys
import types
import warnings

import numpy as np
import pytest
import xarray as xr

from mcloop.cli import main
from mcloop.experiment import config as ex
from mcloop.models.tabular import GaussianCopula
from mcloop.own.floor import with_floor

SIZE = ("--size", "tiny", "--seeds", "1", "--generations", "3")


def go(name, folder, *more):
    main(["run", f"recipes/{name}", *SIZE, "--out", str(folder), "--quiet", *more])
    return xr.load_dataset(folder / "results.nc", engine="h5netcdf")


def cut(folder):
    """Takes the last generation of every loop away, and what follows from it."""
    for newest in folder.glob("loops/*/generation-0003*"):
        for file in [f for f in newest.rglob("*") if f.is_file()]:
            file.unlink()
    (folder / "results.nc").unlink()


def goes_on(name, tmp_path, capsys, *more):
    """The run, of which it is seen that it has numbers, and the same ones after a part of it was lost."""
    whole = go(name, tmp_path / "whole", *more)
    measures = ex.load(ex.find(f"recipes/{name}")).measure
    for measure in (m for m in measures if m in whole):
        assert np.isfinite(whole[measure]).all(), measure
        assert "floor" in whole[measure].attrs
    assert "no seed of its own" not in whole.attrs["estimator"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    cut(tmp_path / "cut")
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # which the command line prints
        again = go(name, tmp_path / "cut", *more)
    assert "is damaged: the loop goes on from generation 2" in capsys.readouterr().err
    for measure in (m for m in measures if m in whole):
        assert np.array_equal(again[measure], whole[measure]), measure
    assert str(tmp_path) not in (tmp_path / "whole" / "report.md").read_text()
    return whole


def refuses(capsys, tmp_path, name, *more):
    with pytest.raises(SystemExit) as stop:
        go(name, tmp_path / "run", *more)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "Traceback" not in said
    return said


def test_densities_of_scikit_learn(tmp_path, capsys):
    goes_on("sklearn_density", tmp_path, capsys)


def test_a_language_model_of_transformers(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    goes_on("huggingface", tmp_path, capsys)


def test_a_pipeline_of_diffusers(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    goes_on("diffusers_pipeline", tmp_path, capsys)


def test_a_program_by_parquet(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    goes_on("subprocess_parquet", tmp_path, capsys)


def test_a_program_of_ones_own_that_fails(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    (tmp_path / "mine.py").write_text("import sys; sys.exit('no licence')")
    line = f"command={sys.executable} {tmp_path / 'mine.py'} {{train}} {{out}} {{n}}"
    said = refuses(capsys, tmp_path, "subprocess_parquet", "--set", line)
    assert "mine.py failed with exit code 1 (no licence)" in said and "Generation 1" in said


def test_sdv_itself(tmp_path, capsys):
    pytest.importorskip("sdv", reason="SDV is not installed: pip install 'mcloop[sdv]'")
    whole = goes_on("sdv", tmp_path, capsys)
    assert whole.association_error.notnull().all()


class Synthesizer:
    """What SDV's synthesizers look like from outside: a random state that can be set only after the fit."""

    def __init__(self, metadata, epochs=None):
        self.metadata, self._model = metadata, None

    def fit(self, rows):
        assert set(self.metadata.columns) == set(rows.columns)
        assert self.metadata.columns["grower"] == "categorical" and self.metadata.columns["old"] == "boolean"
        assert rows["grower"].dtype == object
        self._model = GaussianCopula().fit(rows)

    def _set_random_state(self, seed):
        self._model.set_random_state(seed)

    def sample(self, num_rows, max_tries_per_batch=100):
        return self._model.sample(num_rows)


class Metadata:
    """What is told of the columns, of the one table that there is."""

    @classmethod
    def load_from_dict(cls, words, single_table_name=None):
        found = cls()
        words = words["tables"]["rows"] if "tables" in words else words
        found.columns = {name: column["sdtype"] for name, column in words["columns"].items()}
        return found


@pytest.mark.parametrize("newer", [True, False])
def test_what_the_recipe_asks_of_sdv(tmp_path, monkeypatch, newer):
    """A stand-in of SDV's interface, from its source; of SDV itself that says nothing."""
    metadata = types.SimpleNamespace(SingleTableMetadata=Metadata, **({"Metadata": Metadata} if newer else {}))
    tables = types.SimpleNamespace(GaussianCopulaSynthesizer=Synthesizer, CTGANSynthesizer=Synthesizer)
    for name, module in {"sdv": types.ModuleType("sdv"), "sdv.metadata": metadata, "sdv.single_table": tables}.items():
        monkeypatch.setitem(sys.modules, name, module)
    ds = go("sdv", tmp_path / "run")
    assert ds.association_error.notnull().all()


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("sdv", "sdv", "sdv"),
        ("huggingface", "transformers", "hf"),
        ("huggingface", "torch", "hf"),
        ("diffusers_pipeline", "diffusers", "hf"),
        ("subprocess_parquet", "pyarrow", "tables"),
    ],
)
def test_what_is_not_installed_is_named(tmp_path, capsys, monkeypatch, name, library, extra):
    if library in ("transformers", "diffusers"):
        pytest.importorskip("torch", reason="torch is asked for first, and is not installed")
    for known in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, known, None)
    monkeypatch.setitem(sys.modules, library, None)
    said = refuses(capsys, tmp_path, name)
    assert f'This generator needs {library}: pip install "mcloop[{extra}]".' in said


def test_a_library_that_lacks_another_is_told_apart(tmp_path, monkeypatch, refused):
    from mcloop.own.optional import optional

    (tmp_path / "halved.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    with refused("needs halved, whose own import of nowhere_to_be_found failed"):
        optional("halved", "hf")


def test_the_command_line_knows_them_without_importing(capsys):
    before = set(sys.modules)
    main(["list"])
    assert "recipes/sdv" in capsys.readouterr().out
    assert not {"torch", "transformers", "diffusers", "sdv"} & (set(sys.modules) - before)


def test_a_floor_is_what_real_points_score():
    """Of n points drawn again the variance is 1 - 1/n of theirs."""
    n = 10
    ds = xr.Dataset({"spread": ("generation", [2.0])})
    found = with_floor(ds, np.random.default_rng(1).normal(size=(n, 1)), lambda a, b: {"spread": b.var() / a.var()}, draws=3000)
    floor, spread = found.spread.attrs["floor"], found.spread.attrs["floor_spread"]
    assert abs(floor - (1 - 1 / n)) < 4 * spread / 3000**0.5 < 0.1
    assert "10 rows" in found.attrs["evaluation"] and not ds.spread.attrs
