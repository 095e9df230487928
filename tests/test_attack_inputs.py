"""A thousand malformed command lines: each ends in one sentence (or in what it asked for), none in a traceback or a hang."""

import os
import random
import sys

import pytest

from mcloop import cli
from mcloop.drivers import sweep as sweeping
from mcloop.drivers import train as training
from mcloop.errors import InputError
from mcloop.experiment import config as ex

LINES = 1000

# what people type, and what a hostile neighbour would
ODD = [
    *("", " ", "-1", "0", "1", "2", "1e3", "1.5", "nan", "inf", "-inf", "1e999", "99999999999999999999", "4294967296"),
    *("none", "None", "true", "'", '"', "\\", "$(x)", "%s", "{}", "[bold]", "a=b", "=", ",", "=,"),
    *("é", "数", "\u202e", "\udcff"),
    *("a\nb", "\t", "\0", "x" * 300, ".", "..", "/", "~", "/dev/null", "no/such/file", "-", "--", "--help"),
]
NAMES = ["quickstart", "beyond/kde", "beyond/tails", "beyond/lam_gamma_map", "beyond/real_table", "gillman/mnist"]
AXES = ["regime", "n", "lam", "gamma", "d", "bandwidth", "k", "zipf", "arm", "family", "width", "first", "nothing"]
COMMANDS = {
    "list": ["--verbose", "-v"],
    "show": [],
    "copy": [],
    "plot": ["--config"],
    "run": [
        *("--size", "--out", "--seeds", "--generations", "--seed", "--set", "--data", "--data-dir", "--no-resume"),
        *("--keep-last", "--keep-every", "--quiet"),
    ],
    "plan": [
        "--tolerance",
        "--n",
        "--lam",
        "--phi",
        "--psi",
        "--spread",
        "--rare",
        "--lost",
        "--generations",
        "--measure",
        "--json",
    ],
    "translate": ["--paper", "--set", "--n", "--to", "--generations"],
    "validate": ["--quick", "--full", "--json", "--out", "--seed"],
    "certify": ["--size", "--set", "--damping", "--generations", "--seed"],
}
FLAGS = {"--no-resume", "--quick", "--full", "--verbose", "-v"}
USUAL = {
    "--size": ["tiny"],
    "--seeds": ["2", "3"],
    "--generations": ["2", "4"],
    "--set": [f"{axis}={value}" for axis in AXES for value in ("1", "0.5,2", "replace", "x", "nan")],
    "--tolerance": ["1.2"],
    "--paper": ["gillman", "bertrand"],
    "--to": ["kazdan"],
    "--only": ["G1"],
}


def line(rng: random.Random) -> list[str]:
    """One command line: a command, sometimes none, what it takes in any order, and odd values where usual ones belong."""
    command = rng.choice(list(COMMANDS)) if rng.random() < 0.95 else rng.choice(ODD)
    said = [command]
    for _ in range(rng.randint(0, 2)):
        said.append(rng.choice(NAMES) if rng.random() < 0.6 else rng.choice(ODD))
    for option in rng.choices(COMMANDS.get(command, ["--size"]) or ["--size"], k=rng.randint(0, 4)):
        said.append(option if rng.random() < 0.95 else option + rng.choice(ODD))
        if option not in FLAGS and rng.random() < 0.95:
            usual = USUAL.get(option, ODD)
            value = rng.choice(usual) if rng.random() < 0.5 else rng.choice(ODD)
            said.append(f"{rng.choice(AXES)}={value}" if option == "--set" and rng.random() < 0.5 else value)
    if command == "validate":  # nothing is simulated: a law that there is not
        said += ["--only", rng.choice(["Q9", "", "g1", *ODD[:20]])]
    if command == "run":
        said.append("--quiet")
    return said


@pytest.fixture(name="nothing_runs")
def _nothing_runs(monkeypatch, tmp_path):
    """Where computations begin, they end; what is printed stays within this test."""

    def begins(*_, **__):
        raise InputError("here a computation would begin.")

    from mcloop.experiment import certify, pipeline
    from mcloop.validation import validate

    monkeypatch.chdir(tmp_path)
    load, kept = ex.load, {}  # a file is run once, so that a thousand lines take seconds

    def once(known):
        if known.path not in kept:
            kept[known.path] = load(known)
        return kept[known.path]

    monkeypatch.setattr(ex, "load", once)
    monkeypatch.setattr(sweeping, "run_plans", begins)
    monkeypatch.setattr(sweeping, "_shaping", lambda *_: set())
    monkeypatch.setattr(sweeping, "_rehearse", begins)
    monkeypatch.setattr(training, "_lay_out", begins)
    monkeypatch.setattr(certify, "certify", begins)
    monkeypatch.setattr(certify, "prepared", begins)
    monkeypatch.setattr(validate, "EXPERIMENTS", ())
    assert pipeline


@pytest.mark.parametrize("part", range(4))
def test_a_thousand_command_lines(part, nothing_runs, capsys, tmp_path):
    rng = random.Random(part)
    ends = {}
    for _ in range(LINES // 4):
        said = line(rng)
        try:
            cli.main(said)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        heard = capsys.readouterr()
        assert code in (0, 1, 2), (said, code, heard.err[-500:])
        assert "Traceback" not in heard.err + heard.out, said
        if heard.err.startswith("mcloop: "):
            assert heard.err.count("\n") == 1, (said, heard.err)
        ends[code] = ends.get(code, 0) + 1
    assert ends[2] > 150  # most of them are refused, and some are good
    assert ends.get(0, 0) > 0
    left = [p.name for p in tmp_path.rglob("*.nc")]
    assert left == []
    assert os.getcwd() == str(tmp_path) and sys.stdout
