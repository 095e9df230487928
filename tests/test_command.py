"""Generators that are other programs: what they are given, what they give back, and one sentence for whatever they do wrong."""

import os
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest

import mcloop
from mcloop import make_loop, regimes, train
from mcloop.errors import OwnCodeError
from mcloop.own.command import Command

pytest.importorskip("pyarrow")

BOOT = """
import sys
import pyarrow.parquet as pq, numpy as np
train, out, n, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rows = pq.read_table(train)
pq.write_table(rows.take(np.random.default_rng(seed).integers(0, len(rows), n)), out)
"""
PLACES = ("{train}", "{out}", "{n}", "{seed}")


def python(code, *places):
    return [sys.executable, "-c", code, *(places or PLACES)]


def drawn(points, n=9, code=BOOT):
    command = Command(python(code))
    command.fit(points)
    return command.sample(n)


@pytest.mark.parametrize(
    "points",
    [
        pd.DataFrame({"x": [1.5, 2.5], "city": pd.Categorical(["Bern", "Zug"]), "when": pd.to_datetime(["2020-01-01"] * 2)}),
        pd.DataFrame({0: [1, 2], "a b": ["ä", None]}),
        np.arange(12.0).reshape(2, 3, 2),
        np.array([1, 2]),
        ["one text", "another"],
    ],
    ids=["table", "odd names", "images", "numbers", "texts"],
)
def test_points_come_back_as_they_went(points):
    found = drawn(points)
    assert len(found) == 9 and type(found) is type(points)
    if isinstance(points, pd.DataFrame):
        assert list(found.columns) == list(points.columns)
        assert found.dtypes.astype(str).tolist() == points.dtypes.astype(str).tolist()
        assert set(found.iloc[:, 0]) <= set(points.iloc[:, 0])
    elif isinstance(points, np.ndarray):
        assert found.dtype == points.dtype and found.shape[1:] == points.shape[1:]
        assert all((point == points).reshape(len(points), -1).all(1).any() for point in found)
    else:
        assert set(found) <= set(points)


def test_what_was_learnt_is_left_for_the_draws():
    learn = "import sys, pathlib; pathlib.Path(sys.argv[2], 'seed').write_text(sys.argv[3])"
    draw = (
        "import sys, pathlib, pandas as pd; seed = int(pathlib.Path(sys.argv[1], 'seed').read_text());"
        "pd.DataFrame({'x': [seed] * int(sys.argv[3])}).to_parquet(sys.argv[2])"
    )
    command = Command(python(draw, "{model}", "{out}", "{n}"), fit=python(learn, "{train}", "{model}", "{seed}"))
    command.random_state = 7
    command.fit(pd.DataFrame({"x": [1, 2]}))
    assert command.sample(3)["x"].tolist() == [7, 7, 7]
    folder = os.path.dirname(command._places["train"])
    del command
    assert not os.path.exists(folder)


def test_a_run_that_was_cut_goes_on_to_the_bit(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 2))

    def go(folder):
        model = mcloop.external(lambda: Command(python(BOOT)), x)
        assert "no seed of its own" not in model.estimator
        return train(partial(one, model), {"lam": [1.0]}, 1, 3, folder=folder)

    def one(model, lam):
        return make_loop(model, regimes.augment(lam))

    whole = go(tmp_path / "whole")
    go(tmp_path / "cut")
    for newest in (tmp_path / "cut").glob("*/generation-0003"):
        for file in [f for f in newest.rglob("*") if f.is_file()]:
            file.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        assert go(tmp_path / "cut").identical(whole)


def test_one_without_a_place_for_a_seed_says_so():
    model = mcloop.external(lambda: Command(python(BOOT, "{train}", "{out}", "{n}")), np.zeros((5, 1)))
    assert "no seed of its own" in model.estimator


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('first', file=sys.stderr); sys.exit('no licence.')", "failed with exit code 1 (no licence)."),
        ("import sys; sys.exit(3)", "failed with exit code 3 (it wrote nothing to stderr)."),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("pass", "ended well and wrote nothing to {out}."),
        ("import sys; open(sys.argv[2], 'w').write('x,y')", "what is no Parquet"),
        ("import sys, pandas as pd; pd.DataFrame({'y': [1]}).to_parquet(sys.argv[2])", "wrote no column 'x0' to {out}."),
        ("import time; time.sleep(60)", "took more than 1 seconds"),
    ],
)
def test_what_goes_wrong_is_one_sentence(code, said):
    command = Command(python(code), limit=1 if "sleep" in code else 60)
    command.fit(np.zeros((3, 1)))
    with pytest.raises(OwnCodeError) as caught:
        command.sample(3)
    message = str(caught.value)
    assert said in message and "\n" not in message and message.endswith(".") and "-c" in message
    assert sys.executable not in message  # a program is called by its name, without the folders that it is in


def test_a_program_that_is_not_there():
    command = Command("no-such-program {train} {out} {n}")
    command.fit(np.zeros((3, 1)))
    with pytest.raises(OwnCodeError, match=r"no-such-program .* cannot be started"):
        command.sample(3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run {train} {n}",), "command must have a place for {out}"),
        (("run {out} {n}",), "command must have a place for {train}"),
        (("run {out} {n}", "learn {train} {model}"), "command must have a place for {model}"),
        (("run {out} {n} {model}", "learn {train}"), "fit must have a place for {model}"),
        (("run '{out}",), "quotation mark"),
        (("",), "command must be a line, or its words"),
        (([1, 2],), "command must be a line, or its words"),
        (("run {train} {out} {n}", None, 0), "limit must be a number of seconds above 0, not 0"),
    ],
)
def test_commands_are_checked(arguments, said, refused):
    with refused(said):
        Command(*arguments)


def test_what_a_command_is_not_given(refused):
    with refused("a DataFrame, an array or a list of texts, not a dict"):
        Command(python(BOOT)).fit({})


def test_without_pyarrow(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused('needs pyarrow: pip install "mcloop[tables]"'):
        Command("run {train} {out} {n}")
