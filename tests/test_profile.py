"""The collapse profile: loops whose laws are known get the verdicts that the laws give, and wrong laws are told apart."""

import re

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from mcloop import exact, make_loop, regimes, results, sweep
from mcloop.experiment.config import Caption, Experiment, Settings, Size
from mcloop.report import estimates, html, profile, story

REGIMES = {
    "replace": regimes.replace(),
    "replace_multiple": regimes.replace_multiple(),
    "accumulate": regimes.accumulate(),
    "augment": regimes.augment(1.0),
}
CAPTION = Caption("a/b", None, "Loops.", "2503.03150", "They differ.", {})
SETTINGS = Settings("a/b", "tiny", 4, 6, 0, {}, None)


def experiment(*measure, **changes):
    sizes = {"tiny": Size(4, 6)}
    return Experiment(make=lambda regime: None, grid={}, sizes=sizes, measure=measure, worse="up")._replace(**changes)


def scored(ds, *measure):
    """(definition, label) -> Entry."""
    scores = profile.profile(ds, experiment(*measure))
    return {(s.definition, e.label): e for s in scores for e in s.entries}


@pytest.fixture(scope="module")
def regression():
    """Its error: g under replace, 1 + 1/4 + ... + 1/g^2 under accumulate (laws L1, L2), at every n alike."""

    def make(regime, n):
        return make_loop(exact.linear_regression(d=20, n=n), REGIMES[regime])

    return sweep(make, {"regime": ["replace", "accumulate"], "n": [60, 200]}, 300, 32)


@pytest.fixture(scope="module")
def gaussian():
    """Its mean's error: g under replace, log g under replace_multiple, bounded otherwise (laws G2, A5, A2, B1)."""

    def make(regime):
        return make_loop(exact.gaussian(d=30, n=300, covariance="isotropic"), REGIMES[regime])

    return sweep(make, {"regime": list(REGIMES)}, 400, 48)


@pytest.mark.parametrize("n", ["n 60", "n 200"])
def test_regression(regression, n):
    found = scored(regression, "test_error")
    replace, accumulate = (
        {d: e for (d, label), e in found.items() if label == f"{regime}, {n}"} for regime in ("replace", "accumulate")
    )
    verdicts = {d: (replace[d].verdict, accumulate[d].verdict) for d in replace}
    assert verdicts["catastrophic risk"] == ("yes", "no")
    assert verdicts["any more risk"] == ("yes", "yes")
    assert verdicts["diverging risk"] == ("yes", "no")
    assert verdicts["linear growth of the risk"] == ("yes", "no")
    assert verdicts["changed scaling law"] == ("no", "no")  # both go like 1/(n - d - 1) at every generation
    assert verdicts["variance to zero"] == verdicts["tails lost"] == ("not measured",) * 2
    assert (replace["linear growth of the risk"].words, accumulate["linear growth of the risk"].words) == ("linear", "bounded")
    assert replace["any more risk"].low < 32 < replace["any more risk"].high
    assert accumulate["any more risk"].low < sum(1 / i**2 for i in range(1, 33)) < accumulate["any more risk"].high
    assert (
        replace["linear growth of the risk"].low < 1 < replace["linear growth of the risk"].high
    )  # one real fit's risk a generation
    assert replace["linear growth of the risk"].low > 0.7
    assert replace["diverging risk"].low > 0.7 and accumulate["diverging risk"].high < -0.3


def test_gaussian(gaussian):
    found = scored(gaussian, "mean_sq_error", "trace_ratio")
    words = {label: e.words for (d, label), e in found.items() if d == "linear growth of the risk"}
    assert words == {"replace": "linear", "replace_multiple": "log g", "accumulate": "bounded", "augment": "bounded"}
    diverging = {label: e.verdict for (d, label), e in found.items() if d == "diverging risk"}
    assert diverging == {"replace": "yes", "replace_multiple": "yes", "accumulate": "no", "augment": "no"}
    gone = {label: e for (d, label), e in found.items() if d == "variance to zero"}
    assert gone["replace"].verdict == "yes" and gone["replace"].words == "its log falls: linear"  # (1 - 1/n)^g
    assert gone["replace"].low < (1 - 1 / 300) ** 47 < gone["replace"].high < 0.9
    assert "yes" not in {gone["accumulate"].verdict, gone["augment"].verdict}


def test_a_typical_seed_loses_its_variance_though_the_mean_does_not():
    """With 1/(n - 1) the mean of the trace is a martingale; log S falls by psi(4.5) - log 4.5 = -.115 a generation (G4, G6)."""
    ds = sweep(lambda: make_loop(exact.gaussian(d=1, n=10, ddof=1), regimes.replace()), seeds=200, generations=40)
    entry = scored(ds, "trace_ratio")["variance to zero", "the loop"]
    assert entry.verdict == "yes"
    assert entry.low < np.exp(-0.1152 * 39) < entry.high < 0.1
    assert float(ds["trace_ratio"].isel(generation=-1).mean()) > 0.2


def test_words():
    def make(regime):
        return make_loop(exact.categorical(k=200, n=500, zipf=1.0), REGIMES[regime])

    found = scored(sweep(make, {"regime": ["replace", "accumulate"]}, 60, 16), "lost_mass")
    assert found["tails lost", "replace"].verdict == found["diversity lost", "replace"].verdict == "yes"
    assert found["tails lost", "accumulate"][2:6] == (0, 0, 0, "no")  # a token that was seen is never lost
    assert found["diversity lost", "replace"].low < (1 - 1 / 500) ** 15 < found["diversity lost", "replace"].high
    assert found["diversity lost", "accumulate"].verdict == "no"
    assert found["linear growth of the risk", "accumulate"].words == "bounded"


def walks(steps, seeds, d=8, seed=0):
    """(seeds, generations): squared length of a walk with independent steps, of variance `steps`: E = their sum, to g."""
    z = np.random.default_rng(seed).normal(size=(seeds, len(steps), d)) * np.sqrt(steps)[:, None] / d**0.5
    return (z.cumsum(1) ** 2).sum(-1)


G = np.arange(1, 41)
LAWS = {"linear": G**0.0, "log g": 1 / G, "bounded": G**-2.0}


@pytest.mark.parametrize("law", LAWS)
def test_growth_covers_its_law_and_excludes_the_others(law):
    expected = {name: np.cumsum(steps) for name, steps in LAWS.items()}
    p = {k: estimates.power((e[-1] - e[19]) / (e[-1] - e[0]), (1, 20, 40)) for k, e in expected.items()}
    found = [estimates.growth(estimates.of_seeds(G, walks(LAWS[law], 60, seed=i))) for i in range(200)]
    told = [f.p or estimates.Interval(0, -np.inf, np.inf) for f in found]
    assert np.mean([q.low <= p[law] <= q.high for q in told]) > 0.9
    for other in set(LAWS) - {law}:
        assert np.mean([q.low <= p[other] <= q.high for q in told]) < 0.2
        assert np.mean([f.words.startswith(other) and "or" not in f.words for f in found]) < 0.05
    assert np.mean([f.words == law for f in found]) > 0.6


def test_a_power_is_read_off_its_own_curve():
    for p in (-1.5, -0.3, 0.4, 1.0, 2.5):
        rise = [x**p for x in (3.0, 17.0, 60.0)]
        assert estimates.power((rise[2] - rise[1]) / (rise[2] - rise[0]), (3.0, 17.0, 60.0)) == pytest.approx(p, abs=1e-3)
    assert estimates.power(np.log(2) / np.log(64), (1, 32, 64)) == pytest.approx(0, abs=1e-3)
    assert estimates.power(-0.1, (1, 5, 10)) == -np.inf


def test_a_jump_at_the_start_does_not_make_growth_bounded():
    g = np.arange(1, 65)
    y = np.where(g > 1, 20.0, 0) + 0.1 * g + walks(1e-4 + 0 * g, 30)
    found = estimates.growth(estimates.of_seeds(g, y))
    assert found.words == "linear from generation 16 on"
    assert found.rate.value == pytest.approx(0.1, rel=0.01)


def test_geometric_growth_is_faster_than_linear():
    y = 1.15**G * (1 + 0.1 * np.random.default_rng(0).normal(size=(30, 1)))
    found = estimates.growth(estimates.of_seeds(G, y))
    assert found.words == "faster than linear" and found.p.low > 1.5


def test_constant_falling_and_unknown():
    noise = np.random.default_rng(0).normal(size=(10, len(G)))
    assert estimates.growth(estimates.of_seeds(G, 0 * noise + 2)).words == "constant"
    assert estimates.growth(estimates.of_seeds(G, 0.1 * noise - G)).words == "falls"
    assert estimates.growth(estimates.of_seeds(G, noise)).words == "too noisy to tell"
    assert estimates.growth(estimates.of_seeds(G, noise[:1])).words == "one seed"
    assert estimates.growth(estimates.of_seeds(G[:3], noise[:, :3])) is None


def test_intervals_are_the_tests_inverted():
    rng = np.random.default_rng(1)
    x = np.array([[3.0], [2.0], [1.0]]) + rng.normal(0, 0.3, (3, 9)) + rng.normal(0, 2, (1, 9)) * 0.2
    curve = estimates.of_seeds(np.arange(3), x.T)
    found = estimates.sample([(curve, i) for i in range(3)])
    q = estimates.quotient(found, (1, -1, 0), (1, 0, -1))
    for end in (q.low, q.high):
        assert stats.ttest_1samp((x[0] - x[1]) - end * (x[0] - x[2]), 0).pvalue == pytest.approx(0.05, abs=1e-6)
    low, high = stats.ttest_rel(x[0], x[2]).confidence_interval(0.95)
    assert estimates.contrast(found, (1, 0, -1))[1:] == pytest.approx((low, high))
    assert estimates.quotient(found, (1, 0, 0), (0, 0, 1e-9)) is not None
    assert (
        estimates.quotient(
            estimates.sample([(estimates.of_seeds(G, rng.normal(size=(9, 40))), i) for i in (0, 1)]), (1, 0), (0, 1)
        )
        is None
    )


def luck(seeds=5, generations=6, arms=("baseline", "better", "worse")):
    """fid of arms whose seeds share their luck, which is larger than what the arms differ by."""
    rng = np.random.default_rng(0)
    drift = np.array([0.1, 0.1, 1.0])[:, None, None] * np.arange(generations)
    x = 50 + rng.normal(0, 12, (1, seeds, 1)) + drift + rng.normal(0, 0.05, (3, seeds, generations))
    axes = {"arm": list(arms), "seed": np.arange(seeds), "generation": np.arange(1, generations + 1)}
    return results.assemble({"fid": x, "precision": 0.9 - 0.02 * drift + 0 * x, "recall": 0.8 + 0 * x}, axes, {})


def test_real_data_only_is_the_baseline_on_the_same_seeds():
    ds = luck()
    found = scored(ds, "fid")
    last = ds["fid"].isel(generation=-1).mean("seed")
    assert found["any more risk", "worse"].value == pytest.approx(float(last[2] / last[0]))
    assert found["any more risk", "worse"].verdict == "yes"
    assert found["any more risk", "better"].verdict == "not resolved"  # it drifts, but as the baseline does
    assert found["any more risk", "baseline"].verdict == "yes"  # against its own generation 1
    assert found["hallucinated data", "worse"].value == pytest.approx(0.02 * (5.0 - 0.5))
    assert found["hallucinated data", "worse"].verdict == "yes"
    assert found["tails lost", "worse"][2:6] == (0, 0, 0, "no")
    alone = scored(luck(arms=("first", "better", "worse")), "fid")
    assert alone["any more risk", "better"].verdict == "yes"  # with no baseline: generation 1
    # the same numbers as statistics: the seeds' luck no longer cancels
    reduced = xr.concat([ds["fid"].mean("seed"), ds["fid"].std("seed", ddof=1) / 5**0.5], "statistic")
    reduced = reduced.assign_coords(statistic=["mean", "sem"]).to_dataset(name="fid").assign_attrs(sample_count=5)
    entry = scored(reduced, "fid")["any more risk", "worse"]
    assert entry.verdict == "not resolved" and entry.value == pytest.approx(float(last[2] / last[0]))
    assert "unpaired" in profile.preamble(reduced, profile.profile(reduced, experiment("fid")))


def test_lam_0_is_real_data_only_unless_a_regime_may_not_heed_it():
    ds = luck().rename(arm="lam").assign_coords(lam=[0.0, 0.5, np.inf])
    last = ds["fid"].isel(generation=-1).mean("seed")
    assert scored(ds, "fid")["any more risk", "lam inf"].value == pytest.approx(float(last[2] / last[0]))
    first = ds["fid"].isel(generation=0).mean("seed")
    entry = scored(ds.expand_dims(regime=["replace"]), "fid")["any more risk", "lam inf"]
    assert entry.value == pytest.approx(float(last[2] / first[2]))


def test_what_diverged_and_what_cannot_be_said():
    ds = luck()
    ds["fid"][2, 3, 2:] = np.nan
    found = scored(ds, "fid")
    assert found["catastrophic risk", "worse"][5:] == ("yes", "not finite in 1 of 5 seeds")
    assert found["diverging risk", "worse"].verdict == "yes"
    one = scored(luck(seeds=1), "fid")
    assert {e.verdict for (d, _), e in one.items() if "risk" in d} == {"not resolved"}
    assert {e.words for (d, _), e in one.items() if "more risk" in d} == {"one seed"}
    assert np.isfinite(one["any more risk", "worse"].value) and np.isnan(one["any more risk", "worse"].low)
    short = scored(ds.isel(generation=slice(2)), "fid")
    assert short["linear growth of the risk", "better"][5:] == ("not measured", "needs 4 generations")
    ds["recall"][:] = 0
    assert scored(ds, "fid")["tails lost", "worse"][5:] == ("not measured", "0 with real data only: none to lose")
    ds["fid"][:] = np.nan
    assert scored(ds, "fid")["any more risk", "worse"].verdict == "not measured"
    ds["fid"][:] = 0.0
    assert scored(ds, "fid")["any more risk", "worse"][5:] == ("not measured", "0 with real data only: no ratio")


def test_few_seeds_that_carry_the_mean_do_not_carry_the_verdict():
    rng = np.random.default_rng(0)
    x = np.ones((1, 100, 8)) * np.linspace(1, 0.5, 8) * np.exp(rng.normal(0, 0.1, (1, 100, 1)))
    x[0, 0, -1] = 1e5
    axes = {"arm": ["one"], "seed": np.arange(100), "generation": np.arange(1, 9)}
    found = scored(results.assemble({"fid": x}, axes, {}), "fid")
    assert found["any more risk", "one"][5:] == ("not resolved", "a few seeds carry the mean")
    assert found["any more risk", "one"].value == pytest.approx(x[0, :, -1].mean() / x[0, :, 0].mean())  # as the text says
    assert found["diverging risk", "one"][5:] == ("not resolved", "a few seeds carry the mean")


def test_a_table_that_is_its_own_truth_is_compared_with_its_own_error():
    """Errors measured from the fit on the table: (g - 1) units under replace, so that g units are left with real data only."""
    x = walks(np.r_[0, np.ones(19)], 200)[None]
    axes = {"arm": ["replace"], "seed": np.arange(200), "generation": np.arange(1, 21)}
    ds = results.assemble({"test_error": x, "unit_error": np.ones_like(x)}, axes, {})
    entry = scored(ds, "test_error")["any more risk", "replace"]
    assert entry.low < 20 < entry.high and entry.low > 16
    assert scored(ds, "test_error")["linear growth of the risk", "replace"].words == "linear"
    unknown = ds.assign(unit_error=ds["unit_error"] * np.nan)
    assert scored(unknown, "test_error")["any more risk", "replace"].verdict == "not measured"


def test_scaling_law():
    """Risk n^-1 at generation 1 that has become n^-.5 is another law; n^-1 all along is not."""
    n, g = np.array([10.0, 30, 100]), np.arange(1, 7)
    a = np.array([1 - 0.1 * (g - 1), 1 + 0 * g])
    mean = n[None, :, None] ** -a[:, None]
    x = mean[:, :, None] * np.exp(np.random.default_rng(0).normal(0, 0.05, (2, 3, 60, 6)))
    axes = {"arm": ["changed", "same"], "n": n, "seed": np.arange(60), "generation": g}
    found = scored(results.assemble({"test_error": x}, axes, {}), "test_error")
    assert found["changed scaling law", "changed, n 30"].verdict == "yes"
    assert found["changed scaling law", "changed, n 30"].value == pytest.approx(-0.5, abs=0.05)
    assert found["changed scaling law", "same, n 30"].verdict == "no"


def test_a_large_grid_shows_its_extremes():
    lam = np.linspace(0.1, 2, 30)
    x = 1 + lam[:, None, None] * np.arange(5) + 0.01 * np.random.default_rng(0).normal(size=(30, 4, 5))
    ds = results.assemble({"fid": x}, {"lam": lam, "seed": np.arange(4), "generation": np.arange(1, 6)}, {})
    scores = profile.profile(ds, experiment("fid"))
    shown = [e.label for e in scores[0].entries]
    assert shown == [results.named("lam", v) for v in [*lam[:4], *lam[-4:]]]
    assert "Of 30 cells, 8 are shown" in profile.preamble(ds, scores)


def test_reports_carry_the_profile():
    evil = "<b>worse</b>"
    ds = luck(arms=("baseline", "better", evil))
    markdown = story.write(ds, experiment("fid"), CAPTION, SETTINGS, [])
    part = markdown.split("## Collapse profile")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    head, lines = profile.table(profile.profile(ds, experiment("fid")))
    assert len(rows) == len(lines) + 2 <= 14
    assert {row.count("|") for row in rows} == {len(head) + 1}
    assert "nan" not in part.lower()
    assert 'Real data only is the cell "baseline"' in part
    page = html.write(ds, experiment("fid"), CAPTION, SETTINGS, {})
    table = page.split("<h2>Collapse profile</h2>")[1].split("</section>")[0]
    assert "<b>" not in table and "&lt;b&gt;worse" in table
    cells = [
        re.sub(r"<[^>]+>", "", c).replace("&gt;", ">").replace("&lt;", "<") for c in re.findall(r"<t[dh].*?</t[dh]>", table)
    ]
    assert [c.replace("&#x27;", "'") for c in cells] == [*head, *(c for line in lines for c in line)]
    flagged = re.findall(r'<td class="yes">(.*?)</td>', table)
    assert flagged and len(flagged) == sum(": yes" in c for line in lines for c in line)
    assert all(": yes" in c for c in flagged)
