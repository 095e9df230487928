"""What a user meets at the shell: sentences, exit codes, and folders in which nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mcloop.cli import main
from mcloop.errors import InputError
from mcloop.experiment import config as ex
from mcloop.experiment.asked import axis

QUICK = ["--size", "tiny", "--seeds", "3", "--generations", "3", "--quiet"]


def refused(capsys, *arguments) -> str:
    """The one sentence on standard error with which a command is refused."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mcloop: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quickstrat"], "did you mean quickstart"),
        (["run", "nowhere.py"], "nowhere.py"),
        (["run", "quickstart", "--size", "huge"], "tiny, small, paper, not 'huge'"),
        (["run", "quickstart", "--seeds", "0"], "seeds must be a whole number >= 1, not 0"),
        (["run", "quickstart", "--generations", "1"], "generations must be a whole number >= 2, not 1"),
        (["run", "quickstart", "--set", "lam=1"], "axis 'lam' is not one that quickstart takes; its axes are regime, n"),
        (["run", "quickstart", "--set", "n"], "--set must look like"),
        (["run", "quickstart", "--set", "n=1"], "n must be a whole number >= 2, not 1"),
        (["run", "quickstart", "--set", "n=ten"], "axis 'n' must be numbers, not 'ten'"),
        (["run", "quickstart", "--set", "regime=rplace"], "axis 'regime' must be among replace, accumulate"),
        (["run", "beyond/lam_gamma_map", "--set", "lam=-1"], "lam must be a number >= 0, not -1"),
        (["run", "beyond/lam_gamma_map", "--set", "lam=nan"], "lam must be a number, not nan"),
        (["run", "beyond/lam_gamma_map", "--set", "gamma=-0.5"], "gamma must be a number >= 0, not -0.5"),
        (["run", "gerstgrasser/linear_regression", "--set", "n=10"], "n must be larger than d"),
        (["run", "quickstart", "--data", "x.csv"], "beyond/real_table takes a table"),
        (["run", "beyond/real_table", "--data", "no_such.csv"], "no_such.csv"),
        (["plot", "no/such/folder"], "no run"),
        (["validate", "--quick", "--full"], "not both"),
        (["validate", "--quick", "--only", "Q9"], "Q9"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = [] if arguments[0] != "run" else ["--quiet"]
    assert words in refused(capsys, *arguments, *extra)
    assert [p for p in tmp_path.rglob("*") if p.name == "results.nc"] == []


def test_warns_where_the_law_has_no_mean(tmp_path, capsys):
    arguments = ["run", "gerstgrasser/linear_regression", "--set", "n=11", "--set", "d=10", *QUICK, "--out", tmp_path / "r"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main([str(a) for a in arguments])
    assert "warning: the error has no mean at n = 11 < d + 2" in capsys.readouterr().err


def test_same_command_again_reuses_and_other_settings_are_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    main(["run", "quickstart", *QUICK, "--set", "regime=replace", "--out", str(folder)])
    before = (folder / "results.nc").stat().st_mtime_ns
    main(["run", "quickstart", *QUICK[:-1], "--set", "regime=replace", "--out", str(folder)])
    assert "nothing was computed again" in capsys.readouterr().out
    assert (folder / "results.nc").stat().st_mtime_ns == before
    message = refused(capsys, "run", "quickstart", "--set", "regime=replace", *QUICK[:3], "4", *QUICK[4:], "--out", folder)
    assert "seeds was 3 there and is 4 now" in message
    assert (folder / "results.nc").stat().st_mtime_ns == before
    (folder / "report.md").unlink()
    main(["plot", str(folder)])
    assert (folder / "report.md").is_file()


def test_a_strangers_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "thesis.tex" in refused(capsys, "run", "quickstart", *QUICK, "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_users_own_config_file_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ex.find("quickstart").path).read_text()
    (tmp_path / "mine.py").write_text(text)
    main(["run", "mine.py", *QUICK, "--set", "regime=replace", "--out", "out"])
    assert (tmp_path / "out" / "results.nc").is_file()
    capsys.readouterr()
    (tmp_path / "broken.py").write_text("import nothing_like_this\n")
    assert "broken.py" in refused(capsys, "run", "broken.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "must define `experiment`" in refused(capsys, "run", "empty.py")
    (tmp_path / "syntax.py").write_text("def (:\n")
    assert "syntax.py" in refused(capsys, "run", "syntax.py")


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_set_never_fails_in_any_other_way(text):
    name, equals, rest = text.partition("=")
    if name.strip() and equals and rest.replace(",", "").strip():
        assert axis(text)[0] == name.strip()
    else:
        with pytest.raises(InputError, match="--set must look like"):
            axis(text)


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_text_in_a_config_file_is_refused_in_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "config.py"
    # only what cannot run: fuzzing must not execute accidents
    path.write_text(f"'''{text!r}'''\nexperiment = {text!r}\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=r"must define `experiment`|cannot be read"):
        ex.load(ex.find(str(path)))


def test_real_table_from_a_users_csv(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=60)
    lines = ["age,height,weight,city,price"]
    lines += [f"{a:.5f},{b:.5f},{c:.5f},town{i % 3},{d:.5f}" for i, ((a, b, c), d) in enumerate(zip(x, y, strict=True))]
    (tmp_path / "some.csv").write_text("\n".join(lines))
    arguments = ["run", "beyond/real_table", "--size", "tiny", "--data", tmp_path / "some.csv", "--out", tmp_path / "out"]
    main([str(a) for a in [*arguments, "--set", "family=gaussian,regression"]])
    report = (tmp_path / "out" / "report.md").read_text()
    assert "rows had been lost" in report
    assert "column city was left out" in report
    assert "regression of price on 3 columns" in report
    ds = xr.load_dataset(tmp_path / "out" / "results.nc")
    first = ds["trace_ratio"].sel(family="gaussian").isel(generation=0).values
    np.testing.assert_allclose(first, 1.0, rtol=1e-4)  # generation 1 is the fit on the user's own rows
    lines[5] = lines[5].replace(lines[5].split(",")[1], "", 1)
    (tmp_path / "gap.csv").write_text("\n".join(lines))
    capsys.readouterr()
    assert "'height'" in refused(capsys, "run", "beyond/real_table", "--data", tmp_path / "gap.csv", "--out", tmp_path / "o2")


def test_ctrl_c_keeps_finished_blocks(tmp_path):
    """SIGINT in the middle of a real run: exit 130, one line; the same command then ends with the undisturbed numbers."""
    settings_ = ["run", "gillman/gaussian_toy_faithful", "--size", "tiny", "--generations", "20", "--seeds", "2000", "--quiet"]
    command = [sys.executable, "-m", "mcloop.cli", *settings_, "--out", str(tmp_path / "a")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    chunks = tmp_path / "a" / "chunks"
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None and not list(chunks.glob("*.npz")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    if process.returncode == 130:  # else it had finished first, which the comparison below still checks
        assert "all that was finished is kept" in said
        assert "Traceback" not in said
        assert json.loads((tmp_path / "a" / "manifest.json").read_text())["status"] == "interrupted"
        assert list(chunks.glob("*.npz"))
    subprocess.run(command, check=True, env=os.environ)
    command[-1] = str(tmp_path / "b")
    subprocess.run(command, check=True)
    a, b = (xr.load_dataset(tmp_path / x / "results.nc") for x in "ab")
    assert a.equals(b)


def test_help_does_not_wait_for_jax():
    code = "import sys; sys.argv=['mcloop','--help']\nfrom mcloop.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "validate" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_our_letters(tmp_path, encoding):
    """Every command writes to streams that lack letters; what a user typed in letters of theirs is quoted, and no fault."""
    script = tmp_path / "all.py"
    script.write_text(ALL_COMMANDS, encoding="ascii")
    environment = {**os.environ, "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 0 and "Traceback" not in said, said[-2000:]
    codes = [line.split("=")[1] for line in said.splitlines() if line.startswith("code=")]
    assert codes == ["None"] * 8 + ["2"] * 3
    assert "holds no run" in said and "must be a file that exists" in said and "There is no file" in said


ALL_COMMANDS = """
import os
from mcloop.cli import main
folder = os.fsdecode(b"r\\xc3\\xbcn")  # as the system hands it over
for words in (
    ["list"],
    ["list", "-v"],
    ["show", "quickstart"],
    ["plan", "--tolerance", "1.2"],
    ["translate"],
    ["run", "quickstart", "--size", "tiny", "--seeds", "4", "--generations", "3", "--set", "n=10", "--out", "run"],
    ["plot", "run"],
    ["certify", "quickstart", "--size", "tiny", "--set", "n=10", "--set", "regime=accumulate"],
    ["plot", folder],
    ["run", folder + ".py"],
    ["run", "beyond/real_table", "--data", folder + ".csv"],
):
    code = None
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code
    print(f"code={code}")
"""
