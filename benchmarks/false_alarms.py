"""How often a report says what is not so: every printed verdict over thousands of simulated reports of known truth.

    python benchmarks/false_alarms.py [--quick] [--reports N] [--only WORDS] [--json FILE]

The loops are those of the tests (tests/simulated_reports.py); nothing is compiled. An interval is Clopper and Pearson's, 95 %;
a bound is what the docstring of the verdict says. A rate is "below" it where the whole interval is, and "ABOVE" it where a rate
at the bound would have given as many in one of a thousand tables' rows at most, with which the script ends in an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import beta, binom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from simulated_reports import CASES, Case  # pyright: ignore[reportMissingImports]

HEAD = ("verdict", "loops", "seeds", "reports", "false alarms", "rate %", "95 % interval", "bound %", "rate is")


def interval(wrong: int, reports: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a rate."""
    low = float(beta.ppf(0.025, wrong, reports - wrong + 1)) if wrong else 0.0
    return low, float(beta.ppf(0.975, wrong + 1, reports - wrong)) if wrong < reports else 1.0


def measure(case: Case, reports: int, seed: int = 0) -> dict:
    """A row of the table: so many reports of one case, each with its own stream of random numbers."""
    began = time.perf_counter()
    streams = np.random.SeedSequence([seed, CASES.index(case)]).spawn(reports)
    wrong = sum(bool(case.wrong(np.random.default_rng(s))) for s in streams)
    low, high = interval(wrong, reports)
    judged = "below" if high < case.bound else "ABOVE" if binom.sf(wrong - 1, reports, case.bound) < 1e-3 else "not told"
    row = {"verdict": case.verdict, "loops": case.loops, "seeds": case.seeds, "reports": reports, "wrong": wrong}
    return row | {"low": low, "high": high, "bound": case.bound, "judged": judged, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the reports")
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--only", help="a row's beginning, such as '< | 2 equal'")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    reports = max(given.reports // 10 if given.quick else given.reports, 1)
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    rows = []
    for case in CASES:
        if not f"{case.verdict} | {case.loops} | {case.seeds} ".startswith(given.only or ""):
            continue
        row = measure(case, reports)
        rows.append(row)
        between = f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"
        shown = (f"{100 * row['wrong'] / reports:.2f}", between, f"{100 * case.bound:g}", row["judged"])
        print(f"| {' | '.join(map(str, (*case[:3], reports, row['wrong'], *shown)))} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if above := [row for row in rows if row["judged"] == "ABOVE"]:
        sys.exit(f"{len(above)} of {len(rows)} rates lie above their bound.")


if __name__ == "__main__":
    main()
