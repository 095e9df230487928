#!/usr/bin/env bash
# The lowest versions that pyproject.toml allows, exactly: the quickstart, one tiny network and one table must run with them.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" - > "$work/lowest.txt" <<'PYTHON'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    for wanted in tomllib.load(file)["project"]["dependencies"]:
        name, lowest = re.match(r"([\w-]+)>=([\w.]+)", wanted).groups()
        print(f"{name}=={lowest}")
        if name == "jax":  # of the same number, and not named by itself
            print(f"jaxlib=={lowest}")
PYTHON
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -c "$work/lowest.txt" .
cd "$work"
"$work/venv/bin/mcloop" run quickstart --size tiny --quiet
"$work/venv/bin/mcloop" run bertrand/toy_2d_two_moons --size tiny --quiet
"$work/venv/bin/mcloop" run beyond/own_synthesizer --size tiny --quiet
