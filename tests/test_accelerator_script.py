"""The script for accelerators, at toy sizes on a CPU: every row is there, and what fails or does not fit is told."""

import importlib
import json
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mcloop import make_loop, regimes

# a peer may warn of whatever it likes
pytestmark = pytest.mark.filterwarnings("default")
RUNS = ("gillman/mnist", "gerstgrasser/tinystories_gpt2_9m")
OF_A_RUN = ("training step", "drawing", "measuring", "one generation", "whole run")
BOUNDED = {
    **{"Gaussian grid, d=2, n=50": "NumPy, host"},
    **{f"{model}, training": "bf16 matrix product" for model in ("GPT-2 9M", "Llama-2 126M")},
    **{f"{model}, sampling": "memory bandwidth" for model in ("GPT-2 9M", "Llama-2 126M")},
    **{"precision and recall": "JAX, device"},
}
PEERED = ("U-Net, training step", "U-Net, sampling pass")
BARE = ("bf16 matrix product", "memory bandwidth", *(f"{run}: {what}" for run in RUNS for what in OF_A_RUN))


@pytest.fixture(scope="module", name="script")
def _script():
    """The script and what it is made of."""
    names = ("accelerator", "accelerator_rows", "accelerator_parts", "accelerator_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
        # exact loops and networks bring their own; nothing of it is data of the machine
        patch.delenv("MCLOOP_DATA", raising=False)
        yield SimpleNamespace(**{name.removeprefix("accelerator_"): importlib.import_module(name) for name in names})


def test_every_row_at_toy_size(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    rows = script.accelerator.main(["--tiny", "--minutes", "60", "--out", str(tmp_path)])
    assert sorted(row.what for row in rows) == sorted((*BOUNDED, *PEERED, *BARE))
    bad = [row for row in rows if row.rate is None or not 0 < row.rate < np.inf or "failed" in row.remark]
    assert not bad
    for row in rows:
        if row.what in BOUNDED:
            assert row.against == BOUNDED[row.what] and 0 < row.ratio < np.inf, row
        elif row.what in PEERED:
            assert (row.ratio is not None) == (script.parts.no_torch() == ""), row
        else:
            assert row.ratio is None
    assert not jax.config.values["jax_disable_most_optimizations"]
    found = json.loads((tmp_path / "accelerator_cpu.json").read_text())
    assert [row["what"] for row in found["rows"]] == [row.what for row in rows]
    assert found["machine"]["device"] == "cpu" and "no figure means anything" in found["title"]
    shown = script.rows.table(rows)
    assert shown in (tmp_path / "accelerator_cpu.md").read_text() and shown in capsys.readouterr().out
    assert "MCLOOP_DATA" not in __import__("os").environ


def setting(script, seconds=60.0):
    return script.rows.Setting(True, False, time.monotonic() + seconds, {})


def test_a_row_that_fails_says_why_and_the_others_go_on(script):
    row, part, shown = script.rows.Row, script.rows.Part, []

    def full(setting):
        yield row("a", 1.0, "steps/s")
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory | of 16 GB\nand a long trace")

    def endless(setting):
        yield row("d", float("inf"), "steps/s", remark="at once")

    def missing(setting):
        yield from ()

    def seen(setting):
        yield row("e", 6.0, "steps/s", "a", 3 * setting.measured["a"])

    parts = [part("full", ("a", "b", "c"), 0, full), part("endless", ("d",), 0, endless), part("m", ("m",), 0, missing)]
    rows = script.rows.measure([*parts, part("seen", ("e",), 0, seen)], setting(script), lambda rows: shown.append(len(rows)))
    assert [r.what for r in rows] == ["a", "b", "c", "d", "m", "e"] and shown == [3, 4, 5, 6]
    assert [r.rate for r in rows] == [1.0, None, None, None, None, 6.0] and rows[-1].ratio == 2.0
    assert all(r.remark == "failed: RuntimeError: RESOURCE_EXHAUSTED: out of memory | of 16 GB" for r in rows[1:3])
    assert rows[3].remark == "failed: its figure is inf; at once" and "not measured" in rows[4].remark
    lines = script.rows.table(rows).splitlines()
    assert {line.count("|") for line in lines} == {9} and "out of memory / of 16 GB" in lines[3]


def test_what_no_longer_fits_is_left_out_and_said(script, capsys):
    rows = script.accelerator.main(["--tiny", "--minutes", "0"])
    assert sorted(row.what for row in rows) == sorted((*BOUNDED, *PEERED, *BARE))
    assert all(row.rate is None and row.remark.startswith("skipped: 0 s were left") for row in rows)
    # eight minutes hold all that an accelerator is to do
    assert sum(part.seconds for part in script.accelerator.every_part(False)) <= 480
    with pytest.raises(SystemExit):
        script.accelerator.main([])
    assert "no accelerator is here" in capsys.readouterr().err


def test_a_peer_that_fails_is_told(script, monkeypatch):
    def full(*given):
        raise MemoryError("CUDA out of memory")

    monkeypatch.setattr(script.parts, "no_torch", lambda: "")
    monkeypatch.setattr(script.parts.neural, "torch_unet", full)
    given = (None, 8, None, None, 1)
    assert script.parts.their_unet(setting(script), *given) == ({}, "; no peer: MemoryError: CUDA out of memory")
    late = setting(script, 5.0)._replace(tiny=False)
    assert "s were left for PyTorch" in script.parts.their_unet(late, *given)[1]
    monkeypatch.setattr(script.parts, "no_torch", lambda: "PyTorch is not installed")
    assert script.parts.their_unet(setting(script), *given)[1] == "; no peer: PyTorch is not installed"


REGIMES = (regimes.baseline(), regimes.replace(), regimes.accumulate(), regimes.replace_multiple(), regimes.augment(1.5))


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_a_run_is_reckoned_with_the_points_that_its_loop_trains_on_and_draws(script, walker, regime):
    model, seen, drawn = walker(n=4), [], []

    def fit(key, params, data):
        seen.append(float(data.size))
        return model.fit(key, params, data)

    def sample(key, params, count):
        drawn.append(float(count))
        return model.sample(key, params, max(count, 1))._replace(size=count)

    loop, key = make_loop(model._replace(fit=fit, sample=sample), regime), jax.random.key(0)
    state = loop.init(key, generations=5)
    seen.clear(), drawn.clear()
    for _ in range(4):
        state, _ = loop.generation(key, state)
    assert script.runs.work(loop, 4, 5) == list(zip(seen, drawn[::2] if len(drawn) == 8 else drawn, strict=True))


def test_a_run_of_two_loops_by_hand(script):
    loops = [SimpleNamespace(regime=regimes.baseline()), SimpleNamespace(regime=regimes.augment(2.0))]
    plan = script.runs.Plan(loops, 3, 3, points=100, chunk=30, samples=50, batch=10, first=2.0, later=1.0)
    step, rest, chunk, look = costs = script.runs.Costs(1.0, 1e2, 1e4, 1e6)
    first = 20 * step + rest + 2 * chunk + look  # and the look at half of its steps
    baseline = 2 * (10 * step + rest) + 3 * (2 * chunk + look)
    # 200 points are handed on by fits 1 and 2; the last is only measured
    augment = 2 * (30 * step + rest) + (7 + 7 + 2) * chunk + 3 * look
    assert script.runs.whole(plan, costs) == pytest.approx(3 * (first + baseline + augment))
