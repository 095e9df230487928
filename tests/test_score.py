"""`mcloop score`: generations from files, in a table and in words, and what is refused in a sentence."""

import json

import numpy as np
import pandas as pd
import pytest

from mcloop.cli import main


def run(*arguments):
    """The exit code of `mcloop score`."""
    try:
        main(["score", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def table(rng, n=300, spread=1.0):
    town = rng.choice(["a", "b", "c"], n)
    return pd.DataFrame({"x": spread * rng.normal(size=n), "k": rng.poisson(4, n), "town": town, "yes": rng.random(n) < 0.4})


@pytest.fixture
def files(tmp_path):
    """A real table of six columns, two of which are left out, and five generations that narrow."""
    rng = np.random.default_rng(0)
    real = table(rng).assign(id=np.arange(300), always=1)
    real.to_csv(tmp_path / "real.csv", index=False)
    paths = [tmp_path / f"g{g + 1}.csv" for g in range(5)]
    for g, path in enumerate(paths):
        table(rng, 400, 0.6**g).to_csv(path, index=False)
    return tmp_path / "real.csv", *paths


def test_a_collapse_is_told_with_its_exit_code_and_as_json(files, tmp_path, capsys):
    assert run(*files, "--share", "40%", "--target", "town", "--json", tmp_path / "out.json") == 1
    said = capsys.readouterr().out
    assert "g5.csv" in said
    assert "'x'" in said
    assert "ratio is 0.667" in said
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["alarm"]
    assert [one["points"] for one in found["generations"]] == [400] * 5
    assert "tstr" in found["generations"][0]["measures"]
    assert found["law"] is not None


def test_no_change_is_exit_code_zero_and_a_column_that_is_constant_is_read(files, tmp_path, capsys):
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"same{g}.csv" for g in range(2)]
    for path in paths:
        table(rng, 200).to_csv(path, index=False)
    assert run(files[0], *paths) == 0
    assert "four generations are needed" in capsys.readouterr().out
    table(rng, 200).assign(x=1.5, town="a", k=np.nan).to_csv(tmp_path / "constant.csv", index=False)
    assert run(files[0], *paths, tmp_path / "constant.csv") == 1


def test_a_folder_is_its_files_joined(files, tmp_path, capsys):
    folder = tmp_path / "gen"
    folder.mkdir()
    for k, path in enumerate(files[1:3]):
        (folder / f"{k}.csv").write_bytes(path.read_bytes())
    run(files[0], folder, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["generations"][0]["points"] == 800


def test_arrays_and_texts(tmp_path, capsys):
    rng = np.random.default_rng(2)
    for name, spread in (("real", 1.0), ("a", 1.0), ("b", 1.0), ("c", 0.5)):
        np.save(tmp_path / f"{name}.npy", spread * rng.normal(size=(200, 4, 4)))
        letters = list("abcdefghijklmnop" if spread == 1 else "abc")
        lines = [" ".join(rng.choice(letters, 9)) for _ in range(100)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    for suffix in ("npy", "txt", "jsonl"):
        real, *generations = (tmp_path / f"{name}.{suffix}" for name in ("real", "a", "b", "c"))
        assert run(real, *generations[:2]) == 0
        assert run(real, *generations) == 1
    assert run(tmp_path / "real.npy", tmp_path / "a.npy", "--target", "x") == 2
    assert "target must be left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="k"), "'bad.csv' lacks 'k', which 'real.csv' has"),
        (lambda t: t.assign(more=1), "'bad.csv' has 'more', which 'real.csv' does not have"),
        (lambda t: t[:5], "bad.csv': batch must have at least 20 rows, not 5"),
        (lambda t: t.assign(x="word"), "'x'"),
        (lambda t: t.assign(x=np.inf), "'x'"),
    ],
)
def test_a_generation_that_does_not_fit_is_named_with_its_file(files, tmp_path, capsys, change, words):
    change(table(np.random.default_rng(3), 50)).to_csv(tmp_path / "bad.csv", index=False)
    assert run(files[0], files[1], tmp_path / "bad.csv") == 2
    said = capsys.readouterr().err
    assert words in said
    assert "bad.csv" in said
    assert said.count("\n") == 1


def test_what_is_not_there_is_refused(files, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((files[0],), "generations"),
        ((files[0], tmp_path / "nowhere.csv"), "nowhere.csv"),
        ((files[0], tmp_path / "empty"), "holds no file"),
        ((files[0], files[1], "--share", "140%"), "share must be"),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err
