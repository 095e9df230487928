"""How often a report says what is not so: every printed verdict, over many simulated reports of loops whose truth is known."""

import numpy as np
import pytest

from mcloop import results
from mcloop.experiment.config import Experiment, Size
from mcloop.planner.measured import _cell, _ratio
from mcloop.planner.run_errors import Curve as Errors
from mcloop.report import paired, profile, theory, verdicts
from mcloop.report.cells import Cell
from mcloop.report.limits import MISS, limits


def most(reports: int, rate: float) -> float:
    """How many of so many reports may be wrong, at a true rate, in all but one of a thousand trials of this test."""
    from scipy.stats import binom

    return float(binom.ppf(0.999, reports, rate))


def cell(values: dict, law: dict | None = None) -> Cell:
    """A cell of (seeds, generations) arrays."""
    seeds, generations = next(iter(values.values())).shape
    mean = {k: x.mean(0) for k, x in values.items()}
    sem = {k: x.std(0, ddof=1) / seeds**0.5 for k, x in values.items()}
    return Cell({}, "", np.arange(1, generations + 1), mean, sem, {}, law or {}, values, seeds)


def gaussian(rng, seeds, generations, n, keep):
    """Gaussians of one dimension under replace or accumulate (`keep`), by sufficient statistics; laws G1 and A1."""
    mean, variance, total, square = np.zeros(seeds), np.ones(seeds), 0.0, 0.0
    ratio, error = [], []
    for g in range(1, generations + 1):
        drawn = mean + np.sqrt(variance / n) * rng.normal(size=seeds)
        spread = variance * rng.chisquare(n - 1, seeds) / n
        total, square = (total + drawn, square + spread + drawn**2) if keep else (drawn, spread + drawn**2)
        count = g if keep else 1
        mean, variance = total / count, square / count - (total / count) ** 2
        ratio.append(variance)
        error.append(mean**2)
    g = np.arange(1, generations + 1)
    law = np.cumprod(1 - 1 / (n * g**2)) if keep else (1 - 1 / n) ** g
    return cell(
        {"trace_ratio": np.stack(ratio, 1), "mean_sq_error": np.stack(error, 1)}, {"trace_ratio": law, "mean_sq_error": 1 - law}
    )


def few_rows(rng, seeds, generations, d=3):
    """The error of a regression under replace with T = d + 2 rows (law L1), whose variance is infinite."""
    steps = rng.chisquare(d, (seeds, generations)) / rng.chisquare(3, (seeds, generations))
    return cell({"test_error": steps.cumsum(1)}, {"test_error": d * np.arange(1.0, generations + 1)})


def walks(rng, seeds, generations, sigma):
    """Log-normals that wander from 1 on: a law of 1, and a tail that grows to `sigma`."""
    steps = rng.normal(size=(seeds, generations)) * sigma / generations**0.5 - sigma**2 / 2 / generations
    return cell({"a": np.exp(steps.cumsum(1))}, {"a": np.ones(generations)})


REPORTS = {
    "tiny": lambda rng: [gaussian(rng, 50, 10, n, keep) for n in (10, 100) for keep in (False, True)],
    "few seeds": lambda rng: [gaussian(rng, 5, 10, 10, keep) for keep in (False, True)],
    "small": lambda rng: [gaussian(rng, 400, 60, 10, keep) for keep in (False, True)],
    "T = d + 2, 50 seeds": lambda rng: [few_rows(rng, 50, 10)],
    "T = d + 2, 100 seeds": lambda rng: [few_rows(rng, 100, 10)],
    "T = d + 2, 400 seeds": lambda rng: [few_rows(rng, 400, 20)],
    "log-normal, 25 seeds": lambda rng: [walks(rng, 25, 10, 1.0) for _ in range(4)],
    "log-normal, 100 seeds": lambda rng: [walks(rng, 100, 10, s) for s in (0.5, 1.0, 1.5, 2.0)],
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_right_library_is_not_said_to_disagree_with_theory(name):
    rng, reports = np.random.default_rng(1), 40 if "small" in name or "400" in name else 100
    said = [theory.agreement(theory.looks(REPORTS[name](rng)))[0] for _ in range(reports)]
    assert sum("DISAGREE" in s for s in said) <= most(reports, 0.01)


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


DRAWS = {"normal": "normal", "exponential": "exponential", "log-normal": "lognormal"}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (6, 5), (6, 50)])
def test_equal_arms_are_not_ordered(draw, arms, seeds):
    rng, reports = np.random.default_rng(4), 60
    axes = {"arm": [f"arm {i}" for i in range(arms)], "seed": np.arange(seeds), "generation": [1]}
    wrong = 0
    for _ in range(reports):
        x = getattr(rng, DRAWS[draw])(size=(arms, seeds, 1))
        (said,) = paired.compare_paired(results.assemble({"fid": x}, axes, {}), "fid")
        gaps = [part.split(" to ") for part in said.split("(")[1:] if " to " in part]
        held = all(float(low) <= 0 <= float(high.split(")")[0]) for low, high in gaps)
        wrong += " < " in said or not held
    assert wrong <= most(reports, MISS)


@pytest.mark.parametrize("seeds", [5, 50, 400])
def test_a_run_that_never_exceeds_is_given_no_generation_at_which_it_did(seeds):
    rng, reports, generations = np.random.default_rng(5), 100, 20
    first = exceeded = 0
    for _ in range(reports):
        found = []
        for _ in range(3):
            x = rng.gamma(2, size=(seeds, 1)) * np.exp(0.3 * rng.normal(size=(seeds, generations)) - 0.045)
            real = rng.gamma(2, size=(seeds, generations))
            both = [Errors(v.mean(0), v.std(0, ddof=1) / seeds**0.5, v) for v in (1.2 * x, real)]
            found.append(_cell({}, "", _ratio(*both, seeds), 1.2, np.arange(1, generations + 1), np.nan, 3))
        assert all(c.low > 0 for c in found)
        first += any(c.first is not None for c in found)
        exceeded += any(c.verdict == "exceeded" for c in found)
    assert first <= most(reports, MISS)
    assert exceeded <= most(reports, MISS)


@pytest.mark.parametrize("seeds", [5, 50, 400])
def test_what_lies_on_the_edge_of_a_word_is_not_called_by_it(seeds):
    """Variances that end at a tenth are not collapsed, and errors that stay where they are get no worse."""
    rng, reports, cells = np.random.default_rng(6), 50, 4
    collapsed = moved = 0
    for _ in range(reports):
        for_all = []
        for _ in range(cells):
            x = np.exp(rng.normal(0, 0.4, (seeds, 12)).cumsum(1) + np.linspace(0, np.log(0.1), 12))
            x[:, 0] = 1.0
            for_all.append(verdicts.verdict(cell({"trace_ratio": x}), "trace_ratio", "down", MISS / cells))
        collapsed += any(s.startswith("collapsed") for s in for_all)
        still = [cell({"fid": 10 + rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, 12))}) for _ in range(cells)]
        moved += any(not verdicts.verdict(c, "fid", "up", MISS / cells).startswith("held") for c in still)
    assert collapsed <= most(reports, MISS)
    assert moved <= most(reports, MISS)


@pytest.mark.parametrize("seeds", [5, 50])
def test_a_loop_on_the_threshold_of_collapse_is_called_neither_worse_nor_well(seeds):
    """Risks that are those of real data only, in three arms, by all definitions that speak of them."""
    rng, reports = np.random.default_rng(7), 12
    made = Experiment(make=lambda arm: None, grid={}, sizes={"tiny": Size(seeds, 8)}, measure=("fid", "recall"), worse="up")
    axes = {"arm": ["baseline", "a", "b"], "seed": np.arange(seeds), "generation": np.arange(1, 9)}
    wrong = 0
    for _ in range(reports):
        x = rng.gamma(4, size=(3, seeds, 8))
        ds = results.assemble({"fid": x, "recall": 0.8 + 0.02 * rng.normal(size=x.shape)}, axes, {})
        scores = {s.definition: s.entries for s in profile.profile(ds, made)}
        false = [e.verdict == "yes" for d in ("catastrophic risk", "any more risk", "diverging risk") for e in scores[d]]
        wrong += any(false) or any(e.verdict == "yes" for d in ("tails lost", "diversity lost") for e in scores[d])
    assert wrong <= most(reports, MISS)


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
