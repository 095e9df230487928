"""The README's Python runs as a user would run it, and its lists are the library's."""

import re
import subprocess
import sys
from pathlib import Path

import mcloop
from mcloop.correctors import curation
from mcloop.experiment.config import captions

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "configs/README.md", "benchmarks/README.md")
README, PARTS = ((ROOT / page).read_text(encoding="utf-8") for page in PAGES[:2])

# what the snippets must do beyond not failing: the user's own parts run under both drivers
AFTER = """
for name, loop in (("fading", fading), ("clipped", clipped), ("heavy", heavy)):
    _, seen = mcloop.scan(loop, jax.random.split(key, 3), generations=4)
    assert seen["mean_sq_error"].shape == (4, 3), name
    assert bool(jnp.isfinite(seen["mean_sq_error"]).all()), name
assert 0.5 < float(mcloop.scan(fading, key, generations=4)[1]["effective_lam"][1]) < 20
swept = mcloop.sweep(lambda keep: mcloop.make_loop(mcloop.exact.gaussian(d=1, n=50), forget(keep)),
                     {"keep": [0.5, 0.9]}, seeds=4, generations=3)
assert swept["trace_ratio"].dims == ("keep", "seed", "generation")
assert swept["effective_lam"].sel(keep=0.5).values[0, 2] > swept["effective_lam"].sel(keep=0.9).values[0, 2]
assert data["w2"].sizes == {"lam": 3, "gamma": 3, "seed": 1000, "generation": 100}
assert runs["nll"].sizes == {"lam": 3, "seed": 4, "generation": 3}
assert bool((runs["nll"] > 3.5).all())
assert verdict.alarm and verdict.since == 3
assert mine["variance_kept"].sizes == {"lam": 2, "seed": 3, "generation": 4}
assert 0.5 < float(mine["variance_kept"].mean()) < 1.5
assert 1.9 < found.low < 2 < found.high < 2.1
print("all ran")
"""


def test_snippets_run_from_a_file_outside_the_package(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 10
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(blocks) + AFTER)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("all ran\n")


def test_custom_parts_take_about_twenty_lines():
    for title in ("# a regime", "# a corrector", "# a family"):
        block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if b.startswith(title))
        assert len([line for line in block.splitlines() if line.strip()]) <= 26


def test_the_experiments_of_the_readme_are_those_that_exist():
    listed = re.findall(r"^\| `([a-z0-9_/]+)` \| ", PARTS, re.MULTILINE)
    names = {c.name for c in captions()}
    parts = {"regimes", "correctors", "curation", "exact", "external", "models", "metrics"}
    assert set(listed) - parts == names


def test_every_name_in_the_parts_table_exists():
    rows = {"regimes": mcloop.regimes, "correctors": mcloop.correctors, "curation": curation, "exact": mcloop.exact}
    for row, module in rows.items():
        line = re.search(rf"^\| `{row}` \| (.*) \|$", PARTS, re.MULTILINE)
        assert line is not None
        for name in re.findall(r"`([a-z_]+)(?:\([^`]*\))?`", line.group(1)):
            assert hasattr(module, name), name


def test_what_the_pages_lead_to_is_there():
    """Pictures, other pages, and their headings."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(r"\]\(([^)]+)\)", text):
            if path.startswith("http"):
                continue
            file, _, heading = path.partition("#")
            there = (ROOT / page).parent / file if file else ROOT / page
            assert there.is_file(), f"{page}: {path}"
            if heading:
                headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, f"{page}: {path}"


def test_every_figure_is_shown():
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    shown = {path.rsplit("/", 1)[-1] for text in texts for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert {path.name for path in (ROOT / "benchmarks" / "figures").glob("*.png")} == shown
