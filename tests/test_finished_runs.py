"""A finished run of a user's own config: what is damaged is made again and said; what it holds are its loops, not its file."""

import json
from pathlib import Path

import pytest

from mcloop.experiment.certify import of_name_or_folder
from mcloop.experiment.config import find, load, settle
from mcloop.experiment.pipeline import draw_again, run_into
from mcloop.planner.run_errors import read_results

CONFIG = '''"""A small loop

Paper: none
Claim: none
"""
from mcloop import exact, make_loop, regimes
from mcloop.experiment import Experiment, Size


def make(lam):
    return make_loop(exact.gaussian(d=1, n=10), regimes.augment(lam))


experiment = Experiment(make, {"lam": [0.5]}, {"tiny": Size(8, 3)}, ("w2",))
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("finished")
    (place / "mine.py").write_text(CONFIG)
    run(place)
    return place


def run(place):
    known = find(str(place / "mine.py"))
    experiment = load(known)
    return run_into(place / "run", known, experiment, settle(known, experiment, "tiny"), quiet=False)


@pytest.mark.parametrize("name", ["report.md", "report.html", "plots/curves.png"])
@pytest.mark.parametrize("damage", ["deleted", "changed", "not text"])
def test_what_is_damaged_is_made_again_and_said(finished, name, damage):
    path = finished / "run" / name
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"\xff\xfe\x00" if damage == "not text" else whole[:-1])
    with pytest.warns(UserWarning, match=f"'{name}' is .*made again from the results"):
        said = run(finished)
    assert said.startswith("Already there") and path.stat().st_size > 3 and path.read_bytes()[:40] == whole[:40]
    aside = path.with_name(f"{path.name}.damaged-1")
    assert aside.exists() == (damage != "deleted")
    aside.unlink(missing_ok=True)
    assert run(finished).startswith("Already there")  # and nothing is said of a whole one


def test_temporary_files_are_swept(finished):
    left = [finished / "run" / place / ".x.png.1-0123abcd.tmp" for place in ("", "plots")]
    for path in left:
        path.write_bytes(b"")
    run(finished)
    assert not any(path.exists() for path in left)


def test_a_config_that_is_mended_still_holds_its_run(finished, refused):
    path = finished / "mine.py"
    path.write_text(CONFIG.replace('"""A small', '"""A very small').replace("def make", "unused = 1\n\n\ndef make"))
    assert run(finished).startswith("Already there")
    path.write_text(CONFIG.replace("n=10", "n=11"))
    for _ in range(2):
        with refused("holds a run of other loops", "n was 10 there and is 11 now"):
            run(finished)
    path.write_text(CONFIG)
    assert run(finished).startswith("Already there")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seeds", "eight"), ("seeds", 0), ("seed", -1), ("generations", None), ("grid", {"lam": 1}), ("grid", []), ("data", 3)]
    + [("name", 7), ("size", "huge"), ("size", None)],
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_mistyped_manifest_is_one_sentence_in_every_reader(finished, refused, name, value, missing):
    path = finished / "run" / "manifest.json"
    whole = path.read_text()
    manifest = json.loads(whole)
    if missing and name != "data":
        del manifest["settings"][name]
    else:
        manifest["settings"][name] = value
    path.write_text(json.dumps(manifest))
    try:
        with refused(*(["manifest", name] if missing or name not in ("name", "size") else [])):
            draw_again(path.parent)
        with refused():
            of_name_or_folder(str(path.parent), "tiny", {}, 0.0, 3, 0)
        if name == "name":
            with refused("'name'"):
                read_results(path.parent)
    finally:
        path.write_text(whole)


def test_a_record_of_a_file_that_is_none_of_the_run(finished, refused):
    path = finished / "run" / "manifest.json"
    whole = path.read_text()
    manifest = json.loads(whole)
    outside = Path(finished / "outside")
    outside.write_text("not ours")
    try:
        path.write_text(json.dumps({**manifest, "files": {**manifest["files"], "../outside": {}}}))
        with refused("'../outside' is not a relative path inside the run's folder"):
            run(finished)
        path.write_text(json.dumps({**manifest, "files": dict.fromkeys(manifest["files"], 3)}))
        with refused("not finished"):
            read_results(path.parent)
        assert outside.read_text() == "not ours"
    finally:
        path.write_text(whole)
