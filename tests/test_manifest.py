"""Settings: equal ones open a folder again, others are refused by name, and a damaged manifest is left as it is."""

import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import flip, refused
from hypothesis import given
from hypothesis import strategies as st

from mcloop.storage.manifest import difference, normalise
from mcloop.storage.run_folder import open_run
from mcloop.types import InputError

SETTINGS = {"lam": 0.5, "grid": {"n": [10, 100]}, "seed": 0}


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"lam": 0.7}, "lam was 0.5 there and is 0.7 now; choose another folder (--out)"),
        ({"grid": {"n": [10, 200]}}, "grid.n[1] was 100 there and is 200 now"),
        ({"grid": {"n": [10]}}, "grid.n was [10, 100] there and is [10] now"),
        ({"lam": True}, "lam was 0.5 there and is true now"),
        ({"seed": False}, "seed was 0 there and is false now"),
        ({"extra": "x"}, 'extra was absent there and is "x" now'),
        ({"lam": math.nan}, "lam was 0.5 there and is NaN now"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, new, said):
    open_run(tmp_path, SETTINGS).close()
    before = (tmp_path / "manifest.json").read_bytes()
    with refused(said):
        open_run(tmp_path, {**SETTINGS, **new})
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_equal_settings_in_other_clothes(tmp_path):
    open_run(tmp_path, {"a": (1, 2), "b": float("nan"), "c": np.float32(0.5), "d": 1, "e": Path("x")}).close()
    open_run(tmp_path, {"e": "x", "d": 1.0, "c": 0.5, "b": np.float64("nan"), "a": np.array([1, 2])}).close()
    with refused("The setting 'f' is a function"):
        open_run(tmp_path, {"f": lambda: 0})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_difference_is_the_negation_of_equality(a, b):
    assert difference(a, json.loads(json.dumps(normalise(a)))) is None
    assert (difference(a, b) is None) == (difference(b, a) is None)
    if json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True):
        assert difference(a, b) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged"),
        ('{"format": 1, "settings": {', "is damaged"),
        ("\udcff", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"format": 1, "settings": {}}', "is damaged (no valid 'versions')"),
        (
            '{"format": 1, "settings": {}, "versions": {}, "files": {}, "status": "running", "pending": 0}',
            "is damaged (no valid 'pending')",
        ),
        ('{"name": "a web app"}', "was not written by mcloop"),
        ("[]", "was not written by mcloop"),
        ('{"format": 2, "settings": {}}', "has format 2, and this mcloop reads format 1"),
    ],
)
def test_a_manifest_that_is_damaged_or_foreign_is_never_overwritten(tmp_path, text, said):
    path = tmp_path / "manifest.json"
    path.write_text(text, errors="surrogateescape")
    before = path.read_bytes()
    with refused(said, "mcloop does not overwrite it"):
        open_run(tmp_path, SETTINGS)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["manifest.json"]


def test_any_flipped_bit_in_a_manifest_is_met_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # 500 openings
    with open_run(tmp_path, SETTINGS) as run:
        run.save_text("a.txt", "a")
    whole = (tmp_path / "manifest.json").read_bytes()
    for position in range(len(whole)):
        flip(tmp_path / "manifest.json", 8 * position + position % 8)
        said = "."
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a version may differ now
            try:
                open_run(tmp_path, SETTINGS).close()
            except InputError as error:
                said = str(error)
        assert len(said.splitlines()) == 1 and said.endswith(".")
        (tmp_path / "manifest.json").write_bytes(whole)
