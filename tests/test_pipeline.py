"""From a command to a folder: what is computed is safe before anything that may fail, and a run knows its own config."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from mcloop import progress, results
from mcloop.cli import main
from mcloop.drivers import sweep as sweeping
from mcloop.drivers import train as training
from mcloop.drivers.unit import Unit
from mcloop.experiment import config as ex
from mcloop.experiment import drawing, origin
from mcloop.experiment.arguments import complete
from mcloop.report import html, story
from mcloop.storage.checkpoints import Keep

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # what fails is told, and the run goes on
ARGUMENTS = ["--size", "tiny", "--seeds", "4", "--generations", "3", "--set", "regime=replace"]


def hollow(plans, folder, progress, settings=None):
    """What `run_plans` would give: numbers that are nobody's, in the shapes of a run."""
    rng = np.random.default_rng(0)
    return [
        {n: rng.uniform(0.5, 1.5, (p.points, p.seeds, p.generations)).astype(np.float32) for n in p.variables} for p in plans
    ]


@pytest.fixture(name="own")
def _own(tmp_path, monkeypatch):
    """own(replaced, by) writes a user's config, quickstart with something replaced; nothing is simulated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweeping, "run_plans", hollow)

    def write(replaced="", by="", name="quickstart.py"):
        text = ex.find("quickstart").path.read_text()
        assert replaced in text
        (tmp_path / name).write_text(text.replace(replaced, by) if replaced else text)
        return name

    return write


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err.count("\n") == 1 and said.err.startswith("mcloop: ")
    return said.err


@pytest.mark.parametrize(
    ("replaced", "by", "words"),
    [
        ("    law=law,\n", "    law=lambda g, regime: 1 / 0,\n", "law of this experiment failed (ZeroDivisionError"),
        ("    law=law,\n", "    law=lambda g: {'trace_ratio': [1.0, 2.0]},\n", "law of this experiment failed (ValueError"),
        ("    law=law,\n", "    notes=lambda ds: ds['nothing'],\n", "notes of this experiment failed (KeyError"),
        ("    law=law,\n", "    figure=lambda ds, experiment: [].pop(),\n", "figure of this experiment failed (IndexError"),
        (
            "    law=law,\n",
            "    annotate=lambda ds, options: options['nothing'],\n",
            "annotate of this experiment failed (KeyError",
        ),
        ('measure=("trace_ratio",', 'measure=("no_such",', "trace_ratio"),
    ],
)
def test_whatever_fails_after_the_numbers_is_a_remark(own, replaced, by, words, capsys, tmp_path):
    main(["run", own(replaced, by), *ARGUMENTS, "--out", "out"])
    assert "Done." in capsys.readouterr().out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["status"] == "finished"
    assert xr.load_dataset(tmp_path / "out/results.nc")["trace_ratio"].sizes["seed"] == 4
    assert words in (tmp_path / "out/report.md").read_text()
    assert (tmp_path / "out/report.html").is_file()


def test_annotate_that_was_mended_is_done_by_plot(own, tmp_path, capsys):
    broken = "    annotate=lambda ds, options: 1 / 0,\n"
    main(["run", own("    law=law,\n", broken), *ARGUMENTS, "--out", "out"])
    own("    law=law,\n", "    annotate=lambda ds, options: ds.assign_attrs(evaluation=f'It had {options[\"n\"]} points.'),\n")
    main(["plot", "out", "--config", "quickstart.py"])
    assert "It had 20 points." in (tmp_path / "out/report.md").read_text()
    assert "1 / 0" in (tmp_path / "out/config.py").read_text()


def test_a_run_knows_its_own_config(own, tmp_path, capsys):
    """A user's file that is named like a built-in; then it is changed, and then it is gone."""
    name = own("Four fates of a Gaussian", "My own title")
    main(["run", name, *ARGUMENTS, "--out", "out"])
    kept = json.loads((tmp_path / "out/manifest.json").read_text())["config"]
    assert kept["name"] == "quickstart.py"
    for change in ("nothing", "changed", "gone"):
        if change == "changed":
            own("Four fates of a Gaussian", "Another title")
        elif change == "gone":
            (tmp_path / "quickstart.py").unlink()
        (tmp_path / "out/report.md").unlink()
        capsys.readouterr()
        main(["plot", "out"])
        assert ("has changed" in capsys.readouterr().err) == (change == "changed")
        assert "My own title" in (tmp_path / "out/report.md").read_text()
    main(["plot", "out", "--config", "quickstart"])
    assert "Four fates" in (tmp_path / "out/report.md").read_text()
    (tmp_path / "out/config.py").write_text("experiment = None\n")
    assert "--config FILE" in refused(capsys, "plot", "out")
    assert "--config FILE" in refused(capsys, "certify", "out")


def test_a_runs_folder_does_not_say_where_its_config_was(own, tmp_path):
    """From its folder the config may import what lies beside it, so it is found there again; by a note in the cache."""
    home, name = tmp_path / "Jane Roes ideas", own("Four fates", "Some fates")
    home.mkdir()
    Path(name).rename(home / name)
    main(["run", str(home / name), *ARGUMENTS, "--out", "out", "--quiet"])
    main(["plot", "out", "--config", str(home / name)])
    assert not [path for path in Path("out").rglob("*") if path.is_file() and b"Roes ideas" in path.read_bytes()]
    (note,) = (tmp_path / "cache/places").iterdir()
    assert note.read_text() == str(home / name)

    def found():
        return origin.of_run(Path("out"))[0].path

    assert found() == home / name
    note.unlink()
    assert found() == Path("out/config.py")
    Path(name).write_bytes((home / name).read_bytes())
    assert found() == Path(name)  # by its name in the current folder
    assert len(list((tmp_path / "cache").rglob("*"))) == 1  # nothing is noted by looking


def test_all_loops_that_diverge_at_once_are_reported(tmp_path, monkeypatch, capsys):
    def diverged(make, grid, seeds, generations, attributes, **_):
        axes = {**grid, "seed": np.arange(seeds), "generation": np.arange(1, generations + 1)}
        return results.assemble({}, axes, {**attributes, "remarks": ["arm=replace: generation 1 could not be fitted: NaN"]})

    monkeypatch.setattr(training, "train", diverged)
    arguments = ["run", "beyond/story_grammar", "--size", "tiny", "--set", "arm=replace", "--out", tmp_path / "out"]
    for _ in range(2):
        main([str(a) for a in arguments])
    report = (tmp_path / "out/report.md").read_text()
    assert "generation 1 could not be fitted" in report
    assert "KeyError" not in report


def test_one_line_before_anything_runs(own, capsys, tmp_path):
    main(["run", own(), *ARGUMENTS, "--out", "out"])
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("quickstart, tiny (only to see that it runs): 1 cell x 4 seeds x 3 generations")
    assert first.endswith("into out")
    main(["run", "quickstart.py", *ARGUMENTS, "--out", "quiet", "--quiet"])
    assert capsys.readouterr().err == ""


def test_a_log_file_gets_a_line_a_minute(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.1)
    with progress.listening(None, True), progress.stage("training features"):
        with progress.listening(3, True) as bar:
            assert bar is not None
            bar.at("arm=replace, generation 1 of 3")
            time.sleep(0.4)
            bar.advance(0.4)
    said = capsys.readouterr().err
    assert "arm=replace, generation 1 of 3, compiling" in said
    assert "1 of 3 done, about" in said


def test_what_is_left_is_told_by_generations_of_its_kind(capsys):
    # two loops of three generations, whose first fits take a hundred times as long as later ones
    with progress.listening(6, True, firsts=2) as bar:
        bar.at("the first loop")
        bar.advance(1000.0, first=True)
        bar.advance(10.0)
        bar.advance(10.0)
        bar.advance(1000.0, first=True)
        bar.advance(20.0)
    said = capsys.readouterr().err.splitlines()
    assert "left" not in said[0]
    assert said[1].endswith("about 17 min left") and said[2].endswith("about 17 min left")
    assert said[3].endswith("about 20 s left") and said[4].endswith("about 20 s left")


def test_untrained_networks_get_no_verdict():
    declared = ex.load(ex.find("beyond/story_grammar"))
    known = ex.find("beyond/story_grammar")
    settings = ex.settle(known, declared, "small", 2, 3, {"arm": ["replace"]})
    axes = {**settings.grid, "seed": [0, 1], "generation": [1, 2, 3]}
    shape = (1, 1, 1, 2, 3)
    for level, told in ((5.6, False), (3.0, True)):
        ds = results.assemble({"cross_entropy": np.full(shape, level), "excess": np.full(shape, 10 * level)}, axes, {})
        ds["cross_entropy"].attrs["untrained"] = 5.63
        ds, bound = drawing.sound(ds, declared, settings)
        report = story.write(ds, bound, known, settings, [])
        assert ("UNTRAINED" in report) != told
        assert ("held" in report.split("## Collapse profile")[0]) == told
        page = html.write(ds, bound, known, settings, {})
        for text in (report, page):
            assert ("No definition of collapse is judged" in text) != told and ("collapsed if" in text) == told
        assert ("unsound" in page) is False


def test_untrained_digits_are_told_from_trained_ones():
    """What an untrained network draws has a score; a first generation no better than it gets no word on its arms."""
    known = ex.find("gillman/mnist")
    declared = ex.load(known)
    settings = ex.settle(known, declared, "tiny", 2, 2)
    axes = {**settings.grid, "seed": [0, 1], "generation": [1, 2]}
    ds = results.assemble({"fid": np.ones((3, 1, 2, 2)), "diversity": np.ones((3, 1, 2, 2))}, axes, {})
    ds = declared.annotate(ds, complete(declared, "tiny", settings.grid))
    blank = ds["fid"].attrs["untrained"]
    floor = ds["fid"].attrs["floor"]
    assert 0.9 * blank > 20 * floor > 0
    # as bad as untrained; better, and yet worse than the study accepts; near real data
    for level, word in ((blank, "UNTRAINED"), (20 * floor, "UNDERFITTED"), (3 * floor, "")):
        told, seen = not word, ds.assign(fid=ds["fid"].copy(data=np.full(ds["fid"].shape, level)))
        drawn, bound = drawing.sound(seen, declared, settings._replace(size="small"))
        report = story.write(drawn, bound, known, settings, [])
        assert word in report and ("collapsed if" in report) == told
        assert ("UNDERFITTED" in report or "UNTRAINED" in report) != told
        assert (" baseline" in " ".join(story.tell(drawn, bound, known, settings).seen)) == told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_in_one_sentence(number, own, monkeypatch, capsys, tmp_path):
    def killed(*_):
        os.kill(os.getpid(), number)
        time.sleep(5)

    name = own()
    monkeypatch.setattr(sweeping, "run_plans", killed)
    with pytest.raises(SystemExit) as stop:
        main(["run", name, *ARGUMENTS, "--out", "out", "--quiet"])
    assert stop.value.code == 128 + number
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and number.name in said
    assert json.loads((tmp_path / "out/manifest.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(number) is signal.SIG_DFL


def test_places_that_cannot_be(own, tmp_path, capsys):
    name = own()
    refused(capsys, "run", "beyond/real_table", "--data", "\0")
    for out in ("x" * 300, "a\0b"):
        for more in ((), ("--no-resume",)):
            refused(capsys, "run", name, *ARGUMENTS, "--quiet", "--out", out, *more)
    main(["run", name, *ARGUMENTS, "--out", "deep/real", "--quiet"])
    os.symlink("deep/real", "link")
    main(["run", name, *ARGUMENTS, "--out", "link", "--quiet", "--no-resume"])
    assert os.path.islink("link") and (tmp_path / "deep/real.old-1").is_dir() and (tmp_path / "deep/real/results.nc").is_file()
    os.chdir(tmp_path / "deep/real")
    assert "is the folder that you are in" in refused(capsys, "run", "quickstart", "--out", ".", "--no-resume")
    os.chdir(tmp_path)
    refused(capsys, "validate", "--only", "nope", "--json", "f.json")
    assert not (tmp_path / "f.json").exists()
    refused(capsys, "validate", "--only", "G1", "--json", "a\0b")
    refused(capsys, "plan", "--tolerance", "1.2", "--json", "a\0b")
    refused(capsys, "run", "x" * 300 + ".py")


def test_a_config_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["show", "beyond/story_grammar"])
    page = capsys.readouterr().out
    for words in (
        "things: things that a story may be about",
        "layers",
        "held_out",
        "tiny (does it run?",
        "about 30 minutes",
        "nothing",
        "First fit accepted: ungrammatical at most 0.1 (usable: 0.5)",
    ):
        assert words in page, words
    main(["copy", "quickstart", "my.py"])
    assert "mcloop run my.py" in capsys.readouterr().out
    assert (tmp_path / "my.py").read_bytes() == ex.find("quickstart").path.read_bytes()
    assert "is there already" in refused(capsys, "copy", "quickstart", "my.py")
    assert "Python file" in refused(capsys, "copy", "quickstart", "my.txt")
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for line, known in zip(lines, ex.captions(), strict=True):  # whole titles, and the minutes of a usual run
        name, minutes, title = re.split(r"\s{2,}", line)
        assert name == known.name and minutes == f"{known.minutes['small']:g} min"
        assert known.title == title or known.title.startswith(f"{title}: ")
    main(["--version"])
    assert capsys.readouterr().out.startswith("mcloop ")


def test_metrics_are_logged_as_json(tmp_path):
    """A number a measure for one loop, rows of seeds for a grid that is one program; what is not finite is null."""
    unit = Unit(tmp_path, {}, Keep())
    unit._log(1, {"w2": np.float32([[1.0, np.nan]]), "loss": np.array(np.inf), "picture": np.zeros((4, 4), np.uint8)})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert row == {"generation": 1, "w2": [[1.0, None]], "loss": None}


def test_plot_draws_a_measure_with_its_law():
    import matplotlib.figure

    import mcloop

    axes = {"n": [10, 20], "seed": [0, 1, 2], "generation": [1, 2, 3]}
    ds = results.assemble({"trace_ratio": np.random.default_rng(0).uniform(0.5, 1, (2, 3, 3))}, axes, {})

    def law(g, n):
        return mcloop.exact and (1 - 1 / n) ** g

    figure = mcloop.plot(ds, "trace_ratio", law=law)
    assert isinstance(figure, matplotlib.figure.Figure)
    ax = matplotlib.figure.Figure().subplots()
    assert mcloop.plot(ds, law=law, ax=ax) is ax.figure
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed[1].get_ydata(), 0.95 ** np.arange(1, 4))
    for wrong in ({"measure": "w2"}, {"measure": 3}):
        with pytest.raises(mcloop.InputError, match="must be one of trace_ratio"):
            mcloop.plot(ds, **wrong)
    assert {"sweep", "plot", "plots", "train"} <= set(dir(mcloop))
    assert "sweep" in mcloop.__doc__ and mcloop.plots.curves


def test_arguments_of_functions_are_refused_in_a_sentence():
    import mcloop

    loop = mcloop.make_loop(mcloop.exact.gaussian(d=1, n=5), mcloop.regimes.replace())
    for key in (0, None, "key"):
        with pytest.raises(mcloop.InputError, match=r"key must be made by jax.random.key\(seed\)"):
            mcloop.scan(loop, key)
    with pytest.raises(mcloop.InputError, match="loop must be a mcloop Loop"):
        mcloop.scan(None, jax.random.key(0))
    sweeping.check_seeds(np.int64(3), np.uint32(4))
    for bad in (np.float32(2), np.int32(0), True):
        with pytest.raises(mcloop.InputError):
            sweeping.check_generations(bad)


def test_output_never_dies_of_its_letters(own, tmp_path, capsys, monkeypatch):
    """A folder and a table whose names are not UTF-8, no home, and a console of ASCII."""
    from mcloop.storage import places

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places.Path, "home", homeless)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    rows = "\n".join(f"{a:.3f},{b:.3f}" for a, b in np.random.default_rng(0).normal(size=(40, 2)))
    (tmp_path / "t\udcff.csv").write_text(f"a,b\n{rows}\n")
    arguments = ["run", "beyond/real_table", "--size", "tiny", "--set", "family=gaussian", "--set", "regime=replace"]
    main([*arguments, "--data", "t\udcff.csv", "--out", "out\udcff"])
    assert (tmp_path / "out\udcff/results.nc").is_file()
    assert "t\\udcff.csv" in (tmp_path / "out\udcff/report.md").read_text()
    monkeypatch.setenv("MCLOOP_CACHE", "/dev/null/cache")
    with pytest.warns(UserWarning, match="cache '/dev/null/cache' cannot be written"):
        assert places.cache_folder().name == "mcloop-cache"


def test_a_console_of_ascii_shows_everything():
    code = "import sys; from mcloop.cli import main; main(['list', '-v', 'kde']); print('\\u2202 \\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii:strict"}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u2202 \\udcff" in done.stdout
