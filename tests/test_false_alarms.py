"""How often a report says what is not so: every printed verdict, over simulated reports of loops whose truth is known.

Some dozens of reports a case exclude several per cent; `benchmarks/false_alarms.py` measures the rates over thousands.
"""

import numpy as np
import pytest
from simulated_reports import CASES, Case, gaussian

from mcloop import results
from mcloop.experiment.config import Experiment, Size
from mcloop.report import profile, theory
from mcloop.report.limits import limits


def most(reports: int, rate: float) -> float:
    """How many of so many reports may be wrong, at a true rate, in all but one of a thousand trials of this test."""
    from scipy.stats import binom

    return float(binom.ppf(0.999, reports, rate))


# of each verdict; a profile takes longer
REPORTS = {"DISAGREE": 100, "<": 60, "exceeded": 100, "first exceeded": 100, "collapsed": 50, "moved": 50, "yes": 12}
FIRST = {case.verdict: case for case in reversed(CASES)}  # the first case of each


def seldom_wrong(case: Case) -> None:
    rng, reports = np.random.default_rng(1), REPORTS[case.verdict] if case.seeds < 400 else 40
    assert sum(case.wrong(rng) for _ in range(reports)) <= most(reports, case.bound)


@pytest.mark.parametrize("verdict", REPORTS)
def test_what_is_not_so_is_seldom_said(verdict):
    seldom_wrong(FIRST[verdict])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.verdict}, {case.loops}, {case.seeds} seeds")
def test_what_is_not_so_is_seldom_said_of_any_loop(case):
    seldom_wrong(case)


def test_a_few_skewed_seeds_do_not_exceed_a_tolerance():
    """Squared errors of one number over 5 seeds, of which Student's limit alone gives seven per cent a "first exceeded"."""
    case = next(c for c in CASES if c.verdict == "first exceeded" and "squares" in c.loops and c.seeds == 5)
    rng, reports = np.random.default_rng(9), 600
    assert sum(case.wrong(rng) for _ in range(reports)) <= most(reports, case.bound)


def test_a_wrong_law_is_called_out_and_a_shift_changes_nothing():
    rng = np.random.default_rng(2)
    for _ in range(5):
        found = gaussian(rng, 3000, 8, 8, False)
        wrong = found._replace(law={"trace_ratio": (1 - 1 / 8) ** np.arange(0.0, 8)})  # off by one generation
        assert "DISAGREE" in theory.agreement(theory.looks([wrong]))[0]
        x = found.values["mean_sq_error"]
        for a, b in zip(limits(x, 1e-3, 3.0, True), limits(x + 100, 1e-3, 3.0, True), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_unequal_tails_move_the_limit_to_their_own_side_only():
    x = np.exp(np.random.default_rng(3).normal(size=(400, 1)))
    low, high = limits(x, 0.01)
    assert low[0] > 1.3 * high[0]
    assert [v[0] for v in limits(-x, 0.01)] == [high[0], low[0]]


def test_a_distance_is_squared_where_a_risk_is_meant():
    """The same loops by w2 and by its square: the ratio of risks is that of the squares."""
    x = np.sqrt(np.arange(1.0, 41)) * (1 + 0.01 * np.random.default_rng(8).normal(size=(40, 1)))
    axes = {"arm": ["replace"], "seed": np.arange(40), "generation": np.arange(1, 41)}
    made = Experiment(make=lambda arm: None, grid={}, sizes={"tiny": Size(40, 40)}, measure=("w2",), worse="up")
    scores = {s.definition: s for s in profile.profile(results.assemble({"w2": x[None]}, axes, {}), made)}
    (entry,) = scores["catastrophic risk"].entries
    assert entry.value == pytest.approx(40, rel=0.02) and entry.verdict == "yes"
    assert scores["linear growth of the risk"].entries[0].words == "linear"
    assert scores["any more risk"].measure == "w2 squared"
