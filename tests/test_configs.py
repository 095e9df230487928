"""Every config is a caption with an experiment behind it, and runs at toy size from the command line's own entrance."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from mcloop.cli import main
from mcloop.experiment import config as ex

CAPTIONS = ex.captions()
NAMES = [c.name for c in CAPTIONS]


def test_the_published_list():
    assert len(NAMES) >= 11
    assert NAMES == sorted(NAMES)


@pytest.mark.parametrize("known", CAPTIONS, ids=NAMES)
def test_captions_say_what_they_must(known):
    assert known.title
    assert known.paper
    assert known.claim.endswith(".")
    text = known.path.read_text()
    assert f"Command: mcloop run {known.name}" in text
    assert "Expected: " in text
    declared = ex.load(known)
    assert set(declared.sizes) == set(ex.SIZES) == set(known.minutes)
    assert known.minutes["tiny"] <= 1


# recipes, which need other libraries, have tests of their own
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("recipes/")])
def test_every_config_runs_at_toy_size(name, tmp_path, capsys):
    # as many seeds as tiny has, of which closed forms have hundreds and networks one or two
    seeds = str(min(6, max(2, ex.load(ex.find(name)).sizes["tiny"].seeds)))
    arguments = [
        "run",
        name,
        "--size",
        "tiny",
        "--seeds",
        seeds,
        "--generations",
        "4",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    main(arguments)
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["settings"]["name"] == name
    ds = xr.load_dataset(folder / "results.nc")
    assert ds.sizes["generation"] == 4
    assert ds.attrs["config"] == name
    measured = [v for v in ex.load(ex.find(name)).measure if v in ds]
    assert measured
    assert np.isfinite(ds[measured[0]].values).any()
    report = (folder / "report.md").read_text()
    assert "## What was seen" in report
    assert re.search(r"\bnan\b", report.lower()) is None  # stories may have bananas
    pictures = list((folder / "plots").glob("*.png"))
    assert pictures
    assert all(p.stat().st_size > 5000 for p in pictures)
    capsys.readouterr()


def test_theory_is_checked_in_the_report(tmp_path, capsys):
    main(["run", "quickstart", "--size", "tiny", "--seeds", "400", "--generations", "6", "--out", str(tmp_path / "q")])
    said = capsys.readouterr().out
    assert "agree with theory" in said
    # the same data against a wrong law must be called out
    from mcloop.report import story

    ds = xr.load_dataset(tmp_path / "q" / "results.nc")
    right = ex.load(ex.find("quickstart"))
    wrong = right._replace(law=lambda g, regime: {"trace_ratio": (1 - 1 / 19) ** (2.0 * g)} if regime == "replace" else {})
    sentences = story._sentences(list(story.cells(ds, wrong)), "trace_ratio", wrong)
    assert any("DISAGREE" in s for s in sentences)
