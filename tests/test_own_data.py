"""The user's data in a run's folder: their name and content, never the place; they are found again, or asked for."""

import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mcloop.cli import main
from mcloop.experiment import pipeline
from mcloop.experiment.certify import of_name_or_folder
from mcloop.experiment.config import Settings, find, load, settings_of, settle
from mcloop.experiment.own_data import located, placeless, record, remember
from mcloop.experiment.pipeline import draw_again
from mcloop.storage.manifest import read_manifest
from mcloop.storage.run_folder import open_run

CONFIG = '''"""The mean of a table

Paper: none
Claim: none
"""
from pathlib import Path
from types import SimpleNamespace

from mcloop import exact, make_loop, regimes
from mcloop.data.tables import load_table
from mcloop.experiment import Experiment, Size


def load(path):
    """A table."""
    # as a careless user has it
    return SimpleNamespace(values=load_table(path).values, source=str(path), remarks=[f"read {path}"])


def make(lam, table):
    model = exact.gaussian(d=2, n=len(table.values))
    return make_loop(model._replace(observe=lambda key, real: model.observe(key, table.values)), regimes.augment(lam))


def annotate(ds, known):
    if FAILS:
        raise OSError(f"no permission for {known['table'].source}")
    return ds.assign_attrs(seen=len(known["table"].values))


FAILS = Path("fails").exists()
experiment = Experiment(make, {"lam": [0.5]}, {"tiny": Size(3, 3)}, ("w2",), load=load, annotate=annotate, worse="")
'''


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table in a folder with a name that is the user's own; the current folder is another one, with a config."""
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    for name in ("Jane Roes patients", "work"):
        (tmp_path / name).mkdir()
    values = np.random.default_rng(0).normal(size=(12, 2))
    np.savetxt(tmp_path / "Jane Roes patients" / "table.csv", values, delimiter=",", header="x,y", comments="")
    (tmp_path / "work" / "mine.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "Jane Roes patients" / "table.csv"


def run(data):
    main([str(a) for a in ["run", "mine.py", "--size", "tiny", "--out", "out", "--data", data, "--quiet"]])


def leaks():
    """The files of the run that say in which folder the data were."""
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) > 1
    return [path.name for path in files if b"Roe" in path.read_bytes() or "Roe" in path.name]


def told(capsys, *arguments):
    """What a command prints."""
    capsys.readouterr()
    main([str(a) for a in arguments])
    return capsys.readouterr().out


def test_a_runs_folder_does_not_say_where_the_data_were(table, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Run, "save_dataset", stopped)
        with pytest.raises(SystemExit):
            run(table)
    assert list(Path("out/chunks").iterdir()) and not leaks()
    run(table)
    settings = read_manifest("out")["settings"]
    content = hashlib.sha256(table.read_bytes()).hexdigest()
    assert settings["data"] == "table.csv" and settings["data_sha256"] == content
    ds = xr.load_dataset("out/results.nc")
    assert not leaks() and ds.attrs["data"] == "table.csv" and ds.attrs["seen"] == 12
    note = tmp_path / "cache" / "places" / content
    assert note.read_text() == str(table.resolve()) and note.parent.stat().st_mode & 0o077 == 0


def test_the_same_content_elsewhere_is_the_same_run_and_another_is_refused(table, refused):
    run(table)
    before = Path("out/results.nc").read_bytes()
    moved = table.parent.rename(table.parent.with_name("Richard Roe")) / "table.csv"
    run(moved)
    assert Path("out/results.nc").read_bytes() == before and not leaks()
    other = moved.with_name("other.csv")
    other.write_text("x,y\n1,2\n3,5\n4,1\n")
    known = find("mine.py")
    with refused('data was "table.csv" there and is "other.csv" now', "choose another folder"):
        pipeline.run_into(Path("out"), known, load(known), settle(known, load(known), "tiny", data=str(other)))
    assert not leaks() and Path("out/results.nc").read_bytes() == before


@pytest.mark.filterwarnings("always:annotate of this experiment failed")
def test_plot_and_certify_find_the_data_by_the_note_by_name_or_are_told(table, tmp_path, capsys, refused):
    Path("fails").touch()
    run(table)
    assert "annotate of this experiment failed" in capsys.readouterr().err
    assert not leaks() and "no permission for table.csv" in Path("out/report.md").read_text()
    Path("fails").unlink()
    rates = told(capsys, "certify", "out")  # by the note
    assert "lam 0.5" in rates and told(capsys, "certify", "mine.py", "--size", "tiny", "--data", table) == rates
    note = tmp_path / "cache" / "places" / hashlib.sha256(table.read_bytes()).hexdigest()
    assert len(list(note.parent.iterdir())) == 2  # and that of the config
    note.unlink()
    for lost in (partial(draw_again, Path("out")), partial(of_name_or_folder, "out", "tiny", {}, 0.0, 6, 0)):
        with refused("'table.csv'", "--data"):
            lost()
        with refused("--data must hold what the run in 'out' was made with", "mine.py"):
            lost(data="mine.py")
    assert told(capsys, "certify", "out", "--data", table) == rates and note.exists()
    note.unlink()
    shutil.copy(table, "table.csv")
    assert told(capsys, "certify", "out") == rates and not note.exists()  # by its name in the current folder
    Path("table.csv").write_text("x,y\n1,2\n3,5\n")
    with refused("neither where it was read nor in the current folder with the same content"):
        draw_again(Path("out"))
    told(capsys, "plot", "out", "--data", table)
    assert xr.load_dataset("out/results.nc").attrs["seen"] == 12 and not leaks()
    note.unlink()
    told(capsys, "plot", "out")  # the results hold all that is drawn
    assert not leaks()


def test_names_that_others_know_and_what_came_from_a_pipe(table, tmp_path, refused):
    for name in ("tinystories", "tfds:a/b", "hf:a/b", None):
        assert record(name) == {"data": name}
        with refused("--data must be", name or "left out"):
            located(made(name), Settings("x", "tiny", 1, 2, 0, {}, name), "other.csv")
    code, rows = "from mcloop.data.given import given; print(given('-'))", "x,y\n1,2\n3,5\n4,1\n"
    piped = subprocess.run([sys.executable, "-c", code], input=rows, capture_output=True, text=True, check=True)
    run(piped.stdout.strip())
    kept = read_manifest("out")["settings"]["data"]
    assert kept.startswith("input-") and (tmp_path / "cache" / kept).exists()
    shutil.rmtree(tmp_path / "cache" / "places")
    assert located(Path("out"), settings_of(Path("out"))).data == piped.stdout.strip()


def made(name):
    """A folder of a run on data of this name."""
    folder = Path(f"run of {str(name).replace('/', ' ')}")
    open_run(folder, {"data": name}).close()
    return folder


def test_a_folder_of_data_and_a_cache_that_cannot_be_written(table, monkeypatch):
    monkeypatch.setenv("MCLOOP_CACHE", os.devnull)
    kept = record(str(table.parent))
    assert kept["data"] == "Jane Roes patients" and len(kept["data_sha256"] or "") == 64
    with pytest.warns(UserWarning, match="MCLOOP_CACHE names another folder"):
        remember(str(table), record(str(table)))
    table.write_text("x\n1\n2\n")
    assert record(str(table.parent)) != kept
    assert placeless(f"read {table}: 2 rows", str(table)) == "read table.csv: 2 rows"
    assert placeless("a / b", "/table.csv") == "a / b"
