"""The planner: every safe number put back into its law, one simulation, and runs whose answer is known."""

import json
import re

import numpy as np
import pytest
from scipy.special import zeta

import mcloop
from mcloop import correctors, exact, laws, make_loop, regimes, results
from mcloop.cli import main
from mcloop.experiment import config as ex
from mcloop.planner import choice, safe
from mcloop.planner.measured import measured
from mcloop.planner.plan import Line, plan
from mcloop.storage.run_folder import open_run

TAUS = [1.0, 1.01, 1.2, 1.35, 1.49, 1.64, 1.7, 2.9, 3.0, 10.0]
MANY = 10**7


def values(tau, **more) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in plan(tau, **more):
        found.setdefault(line.unit, []).append(line.value)
    return found


# every number, put back


@pytest.mark.parametrize("tau", TAUS[:5])
def test_the_largest_lam_meets_the_tolerance_exactly(tau):
    lam = values(tau)["lam"][0]
    assert laws.stationary_relative_error(lam) == pytest.approx(tau, rel=1e-12)
    assert laws.stationary_relative_error(lam + 1e-6) > tau
    assert np.isinf(values(1.5)["lam"][0])


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.3, 1.0, 20.0])
def test_the_corrected_error_is_law_b5_for_many_points(lam, gamma):
    g = np.arange(1, 1500)
    path = MANY * laws.corrected_mean_error(g, MANY, lam * MANY, gamma)
    np.testing.assert_allclose(safe.corrected_relative_error(g, lam, gamma), path, rtol=1e-5)
    assert safe.worst_corrected_error(lam, gamma) == pytest.approx(path[1:].max(), rel=1e-5)
    assert safe.stationary_corrected_error(lam, gamma) == pytest.approx(safe.corrected_relative_error(1e6, lam, gamma))
    if gamma == 0:
        np.testing.assert_allclose(safe.corrected_relative_error(g, lam, 0.0), laws.fixed_relative_error(g, lam), rtol=1e-9)


@pytest.mark.parametrize("tau", [1.0, 1.05, 1.2, 1.3])
def test_the_least_gamma_holds_at_every_generation_and_the_stationary_one_does_not(tau):
    gamma = values(tau, lam=1.0)["gamma"][0]
    worst = [MANY * laws.corrected_mean_error(np.arange(2, 200), MANY, MANY, x).max() for x in (gamma, 0.99 * gamma)]
    assert worst[0] == pytest.approx(tau, rel=1e-5)
    assert worst[1] > tau + 1e-5
    # the corrector at which only the limit is tau lets earlier generations exceed it
    at_limit = np.interp(-tau, [-safe.stationary_corrected_error(1.0, x) for x in np.arange(0, 1, 1e-4)], np.arange(0, 1, 1e-4))
    assert at_limit < gamma
    assert safe.worst_corrected_error(1.0, at_limit) > tau + 1e-4
    assert values(1.34, lam=1.0)["gamma"] == [0.0]


@pytest.mark.parametrize("tau", TAUS)
def test_generations_within(tau):
    kept, part, replaced = values(tau)["generations"]
    for held, error, worst in (
        (kept, laws.accumulate_relative_error, np.pi**2 / 6),
        (part, laws.subsample_relative_error, np.pi**2 / 2 - 2),
        (replaced, laws.replace_relative_error, np.inf),
    ):
        assert np.isinf(held) == (tau >= worst)
        if np.isfinite(held):
            assert error(np.array([held]))[0] <= tau < error(np.array([held + 1]))[0]
        else:
            assert error(np.array([10**6]))[0] <= tau


@pytest.mark.parametrize("tau", TAUS[1:])
def test_growing_sets_keep_the_sum_at_the_tolerance(tau):
    ratio, power = values(tau)["growth factor"][0], values(tau)["growth power"][0]
    g = np.arange(1, 400)
    worst = []
    for r in (ratio, 0.98 * ratio):
        sizes = MANY * np.exp(np.minimum((g - 1) * np.log(r), 20.0))
        worst.append(MANY * (1 - laws.replace_sizes_covariance(g, sizes)[-1]))
    assert worst[0] == pytest.approx(tau, rel=1e-5)
    assert worst[1] > tau * (1 + 1e-4)
    assert zeta(power) == pytest.approx(tau, rel=1e-9)
    assert zeta(1 + 0.99 * (power - 1)) > tau * (1 + 1e-6)


def test_nothing_grows_fast_enough_for_no_loss():
    assert np.isinf(values(1.0)["growth factor"][0])
    assert np.isinf(values(1.0)["growth power"][0])


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("lam", [0.2, 1.0, 7.0])
def test_the_fewest_fresh_points_meet_the_tolerance_at_the_best_weight(tau, lam):
    n = 1000
    few, w = safe.fresh_points(tau, n, lam * n)
    assert values(tau, n=n, lam=lam)["fresh real points"][0] == few
    assert w == pytest.approx(float(laws.fresh_best_weight(few / (lam * n))))
    path = n * laws.fresh_mean_error(np.arange(2, 5000), few, lam * n, w)
    assert path[-1] == pytest.approx(tau)
    for worse in (0.97 * w, min(1.03 * w, 1.0)):
        assert n * laws.fresh_mean_error([20_000], few, lam * n, worse)[0] > tau
    best = float(laws.fresh_best_weight(0.99 * few / (lam * n)))
    assert n * laws.fresh_mean_error([20_000], 0.99 * few, lam * n, best)[0] > tau
    # the first fit is on n real points; from there the error goes to its limit and not beyond
    first = n * ((1 - w) ** 2 * (1 / n + 1 / (lam * n)) + w**2 / few)
    assert 1 - 1e-12 <= first <= tau + 1e-9


def test_the_first_answer_is_which_regime_and_what_error():
    first = plan(1.4, n=1000, lam=1.0, generations=6)[0]
    assert first.value == pytest.approx(laws.fixed_relative_error(6, 1.0))  # 1.333 against accumulate's 1.49
    assert first.safe.startswith("keep the real data, replace the synthetic: error 1.333 at generation 6, within 1.4.")
    assert f"keep all data {laws.accumulate_relative_error(6):.4g}" in first.safe
    assert "keep only the newest 6" in first.safe
    few = plan(1.2, n=1000, lam=0.5, generations=4)[0]
    sizes = np.array([1000, 500, 500, 500])
    replaced = 1e4 * (1 - laws.replace_sizes_covariance([4], 1e4 * sizes / 1000))[0]
    assert f"keep only the newest {replaced:.3g}" in few.safe


def test_the_second_is_how_many_points_an_error_allows():
    tau, n, g = 1.2, 1000, 5
    second = plan(tau, n=n, generations=g)[1]
    for name, error in choice.REGIMES.items():
        for low, high in choice.within(lambda lam, error=error: error(lam, g), tau):
            assert all(error(lam, g) == pytest.approx(tau, rel=1e-9) for lam in (low, high) if 0 < lam < np.inf), name
            assert error(min(max(low, 1e-6) * 1.01, high), g) <= tau and error(min(high, 1e6) * 0.99, g) <= tau
            assert low == 0 or error(low * 0.99, g) > tau
            assert high == np.inf or error(high * 1.01, g) > tau
    assert "keep only the newest: 20,000 or more" in second.safe  # (g - 1)/(tau - 1) times n
    assert re.search(
        r"keep all data: up to \d+ or [\d,]+ or more", second.safe
    )  # a flood of synthetic points is a large sample
    assert "keep the real data, replace the synthetic: any number" in plan(1.5, n=n)[1].safe
    assert "keep the real data, replace the synthetic: none" in plan(1.0, n=n)[1].safe


def test_m_points_are_lam_n(refused):
    assert plan(1.3, n=400, m=100) == plan(1.3, n=400, lam=0.25)
    with refused("m must be a whole number >= 1, not 0"):
        plan(1.3, m=0)
    with refused("lam must be left out where m, which is lam n, is given, not 0.5"):
        plan(1.3, m=10, lam=0.5)


def test_golden_ratio():
    line = next(line for line in plan(1.2) if line.unit == "weight of real data")
    assert line.value == pytest.approx((5**0.5 - 1) / 2)


def test_verifier_and_spread_break_even():
    edge = values(1.2, phi=0.9, psi=0.2)["share of wrong labels"][0]
    assert laws.verified_label_error(2, edge, 0.9, 0.2) == pytest.approx(0.5)
    assert laws.verified_label_error(2, edge + 0.01, 0.9, 0.2) > 0.5
    assert "nothing is gained" in next(line.safe for line in plan(1.2, phi=0.3, psi=0.3) if "verified" in line.regime)
    lam = values(1.2, spread=1.1)["lam"][1]
    assert laws.spread_relative_error(lam, 1.1, 1000) == pytest.approx(1.2, rel=1e-6)
    assert 0.06 < lam < 0.07  # stable is another question: that holds up to 4.76, at 266 times the error from lam 2 on
    np.testing.assert_allclose(laws.spread_relative_error([0.5, 2.0], 1.1, 1000), [8.4, 266], rtol=0.03)
    assert values(1.2, spread=1.0)["lam"] == pytest.approx([1 / 3, 1 / 3])  # law B2
    assert values(1.2, spread=0.9)["lam"][1] < 1  # a narrow sampler is stable at every lam and wrong
    voided = [line for line in plan(1.2, spread=1.1) if "exact sampler" in " ".join(line.assumption)]
    assert voided and all(np.isnan(line.value) and "not known" in line.safe for line in voided)
    assert "1.117" in next(line.safe for line in plan(1.2, spread=1.1, lam=0.5) if "sampler" in line.regime)


@pytest.mark.parametrize(("count", "lost"), [(1, 0.3), (1, 0.5), (3, 0.5), (20, 0.01), (5, 0.9)])
def test_rare_items(count, lost):
    held = values(1.2, rare=count, lost=lost)["generations"][-2]
    assert laws.token_lost([held], count)[0] <= lost < laws.token_lost([held + 1], count)[0]
    assert np.isinf(values(1.2, rare=count, lost=lost)["generations"][-1])


def test_more_tolerance_never_allows_less():
    for unit, sign in [("lam", 1), ("generations", 1), ("gamma", -1), ("growth factor", -1), ("fresh real points", -1)]:
        path = np.array([values(tau)[unit] for tau in TAUS])
        with np.errstate(invalid="ignore"):
            steps = sign * np.diff(path, axis=0)
        assert np.all((steps >= 0) | np.isnan(steps)), unit
        assert np.any(steps > 0)


def test_every_line_says_everything():
    everything = {"lam": 0.5, "phi": 0.9, "psi": 0.2, "spread": 1.1, "rare": 3}
    for tau in TAUS:
        for line in plan(tau, **everything):
            words = (line.regime, line.safe, line.unit, line.formula, *line.assumption, line.source)
            assert isinstance(line, Line)
            assert all(words)
            assert not any("nan" in w or "inf" in w.split() for w in words)


def test_points_and_generations_for_the_users_n():
    line = plan(1.2, n=6000)[2]
    assert line.points == pytest.approx(2000)
    assert "2,000 new synthetic points" in line.safe
    assert "exceeds it from generation 2 on" in plan(1.2, lam=0.5)[2].safe
    assert "exceeds it from generation 3 on" in plan(1.23, lam=0.5)[2].safe
    assert "is safe" in plan(1.2, lam=0.3)[2].safe


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *[("tolerance", {"tolerance": x}) for x in (0.99, -1, np.nan, np.inf)],
        ("n", {"n": 1}),
        ("n", {"n": 2.5}),
        ("lam", {"lam": -0.1}),
        ("lam", {"lam": np.inf}),
        ("psi", {"phi": 0.5}),
        ("phi", {"phi": 0, "psi": 0}),
        ("psi", {"phi": 0.5, "psi": 1.5}),
        ("spread", {"spread": 0}),
        ("rare", {"rare": 0.5}),
        ("lost", {"lost": 1}),
        ("generations", {"generations": 0}),
    ],
)
def test_bad_input(field, arguments, refused):
    with refused(field):
        plan(**{"tolerance": 1.2, **arguments})


def test_a_simulated_loop_at_the_safe_lam_has_the_tolerated_error():
    n, d, seeds, lam = 3000, 2, 16_000, values(1.2)["lam"][0]

    def make(lam):
        return make_loop(exact.gaussian(d=d, n=n), regimes.augment(lam), correctors.none())

    ds = mcloop.sweep(make, {"lam": [lam, 2 * lam]}, seeds, 12, variables=["mean_sq_error"])
    last = ds["mean_sq_error"].isel(generation=-1).values * n / d
    z = (last.mean(1) - 1.2) / (last.std(1, ddof=1) / seeds**0.5)
    assert abs(z[0]) < 3
    assert z[1] > 5


# runs whose answer is known


@pytest.fixture
def saved(tmp_path):
    """saved(values, axes, name, finish, attributes) -> the folder of a run with these results."""

    def save(values, axes, name="beyond/nothing_like_this", finish=True, size="tiny", untrained=None, **attributes):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        ds = results.assemble(values, axes, {"sample_count": 40, **attributes})
        grid = {axis: np.asarray(found).tolist() for axis, found in axes.items() if axis not in results.INSIDE}
        counts = {"seeds": 40, "generations": len(axes["generation"]) if "generation" in axes else 2, "seed": 0}
        for variable in values:
            ds[variable].attrs |= {} if untrained is None else {"untrained": untrained}
        with open_run(folder, {"name": name, "size": size, **counts, "grid": grid, "data": None}) as run:
            run.save_dataset(ds)
            if finish:
                run.finish()
        return folder

    return save


def noise(seeds=40, generations=4, spread=0.1, seed=0):
    return 1 + spread * np.random.default_rng(seed).normal(size=(seeds, generations))


def test_generation_one_is_the_baseline_and_seeds_are_paired(saved):
    first = np.random.default_rng(1).exponential(size=(40, 1))  # heavy between seeds, cancelled by pairing
    path = np.concatenate([first, 1.1 * first, 1.3 * first, 1.3 * first * noise(generations=1, spread=0.02)], 1)
    found = measured(saved({"mean_sq_error": path}, {"seed": range(40), "generation": [1, 2, 3, 4]}), 1.2)
    (cell,) = found.cells
    ratio = path.mean(0)[3] / path.mean(0)[0]
    assert cell.relative == pytest.approx(ratio)
    rest = (path[:, 3] - ratio * path[:, 0]) / path[:, 0].mean()
    assert cell.sem == pytest.approx(rest.std(ddof=1) / 40**0.5)
    assert cell.sem < 0.02  # unpaired it would be .2
    assert cell.verdict == "exceeded"
    assert cell.first == 3
    assert "generation 1" in found.baseline
    assert measured(saved({"mean_sq_error": path}, {"seed": range(40), "generation": [1, 2, 3, 4]}), 1.5).cells[0].first is None


def test_the_cell_at_lam_zero_is_the_baseline_and_lam_is_judged(saved):
    base = noise(seed=2) * np.array([4.0, 2.0, 1.0, 1.0])  # real data only improves: generation 1 would mislead
    factors = [1.0, 1.1, 1.2001, 1.5]  # 1.2001 exceeds 1.2, and by less than the seeds can tell
    extra = [0.01 * (noise(seed=3 + i) - noise(seed=3 + i).mean(0)) for i in range(4)]
    path = np.stack([f * base + (f > 1) * e for f, e in zip(factors, extra, strict=True)])
    axes = {"lam": [0.0, 0.1, 0.5, 2.0], "seed": range(40), "generation": [1, 2, 3, 4]}
    found = measured(saved({"test_error": path}, axes), 1.2)
    assert "lam 0" in found.baseline
    np.testing.assert_allclose([c.relative for c in found.cells], factors, rtol=1e-9)
    assert [c.verdict for c in found.cells] == ["within", "within", "not resolved", "exceeded"]
    assert found.summary == ["The largest lam within 1.2 at generation 4 is 0.1 (not resolved: 0.5; exceeded: 2)."]
    expected = [laws.fixed_relative_error([4], lam)[0] if lam else 1.0 for lam in axes["lam"]]
    np.testing.assert_allclose([c.theory for c in found.cells], expected, rtol=1e-9)


def test_distances_are_squared_and_an_arm_may_be_the_baseline(saved):
    base = noise(seed=5)
    axes = {"arm": ["baseline", "replace"], "seed": range(40), "generation": [1, 2, 3, 4]}
    found = measured(saved({"w2": np.stack([base, 1.5 * base])}, axes), 1.2)
    assert "squared here" in found.scale
    assert "'baseline'" in found.baseline
    assert [c.relative for c in found.cells] == pytest.approx([1.0, 2.25])
    assert [c.verdict for c in found.cells] == ["within", "exceeded"]
    share = measured(saved({"lost_mass": np.stack([base, 1.5 * base])}, axes), 1.2)
    assert share.cells[1].relative == pytest.approx(1.5)
    assert "no squared error" in share.scale
    assert np.isnan(share.cells[1].theory)


def test_statistics_over_seeds_are_enough(saved):
    mean, sem = np.array([1.0, 1.1, 1.3]), np.array([0.01, 0.01, 0.02])
    axes = {"gamma": [0.0, 1.0], "statistic": ["mean", "sem"], "generation": [1, 2, 3]}
    table = np.stack([np.stack([mean, sem]), np.stack([mean[[0, 0, 0]], sem])])
    found = measured(saved({"mean_sq_error": table}, axes), 1.2)
    assert [c.relative for c in found.cells] == pytest.approx([1.3, 1.0])
    assert found.cells[0].sem == pytest.approx(1.3 * np.hypot(0.01, 0.02 / 1.3))
    assert [c.verdict for c in found.cells] == ["exceeded", "within"]
    assert found.summary == ["The smallest gamma within 1.2 at generation 3 is 1 (exceeded: 0)."]
    squared = measured(saved({"w2": table}, axes), 1.2).cells[0]
    assert squared.relative == pytest.approx(1.69)
    assert squared.sem == pytest.approx(1.69 * 2 * np.hypot(0.01, 0.02 / 1.3))
    alone = measured(saved({"w2": table[:, :1] ** 0.5}, {**axes, "statistic": ["mean"]}), 1.2)
    assert [c.relative for c in alone.cells] == pytest.approx([1.3, 1.0])
    assert {c.verdict for c in alone.cells} == {"not tested"}


def test_an_error_counted_from_the_users_own_fit_adds_to_the_real_one(saved):
    path = np.concatenate([np.zeros((40, 1)), 0.5 * noise(generations=3)], 1)
    axes = {"seed": range(40), "generation": [1, 2, 3, 4]}
    begun = 0.5 * noise(seed=1)
    values = {
        "mean_sq_error": np.stack([path, begun, begun]),
        "unit_error": np.stack([np.full((40, 4), x) for x in (0.25, 0.25, np.nan)]),
    }
    found = measured(saved(values, {"family": ["gaussian", "other", "kde"], **axes}), 1.2)
    assert [c.relative for c in found.cells] == pytest.approx([1 + path[:, -1].mean() / 0.25, begun[:, -1].mean() / 0.25])
    assert "unit_error" in found.baseline


def test_one_seed_tests_nothing_and_a_collapsed_cell_is_named(saved):
    axes = {"lam": [0.0, 1.0], "seed": [0], "generation": [1, 2]}
    found = measured(saved({"fid": np.array([[[2.0, 2.0]], [[2.0, np.inf]]])}, axes), 1.2)
    assert [c.verdict for c in found.cells] == ["not tested", "not finite"]


def test_folders_that_are_no_finished_run(saved, tmp_path, refused):
    axes = {"seed": range(40), "generation": [1, 2, 3, 4]}
    with refused("not finished"):
        measured(saved({"mean_sq_error": noise()}, axes, finish=False), 1.2)
    with refused("no run"):
        measured(tmp_path / "nowhere", 1.2)
    with refused("measure", "loss"):
        measured(saved({"loss": noise()}, axes), 1.2)
    folder = saved({"mean_sq_error": noise(), "loss": noise()}, axes)
    with refused("measure", "'fid'", "loss"):
        measured(folder, 1.2, "fid")
    (folder / "results.nc").write_bytes(b"else")
    with refused("damaged"):
        measured(folder, 1.2)
    with refused("0 at generation 1"):
        measured(saved({"mean_sq_error": noise() * [0, 1, 1, 1]}, axes), 1.2)


def test_the_command_on_a_run_of_the_library(saved, tmp_path, capsys):
    experiment, written = ex.load(ex.find("beyond/lam_gamma_map")), tmp_path / "plan.json"
    grid = {"lam": [1.0, 20.0], "gamma": [0.0, 5.0]}
    ds = mcloop.sweep(experiment.make, grid, 400, 12, variables=["mean_sq_error"], reduce=experiment.reduce)
    axes = {name: ds[name].values for name in ds["mean_sq_error"].dims}
    folder = saved({"mean_sq_error": ds["mean_sq_error"].values}, axes, "beyond/lam_gamma_map", sample_count=400)
    main(["plan", "--tolerance", "1.2", "--lam", "0.5", "--rare", "3", "--json", str(written), str(folder)])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    words = " ".join(shown.split())
    assert "lam up to 0.3333" in words
    assert "Your lam 0.5" in " ".join(words.replace("│", " ").split())
    assert "When it is true:" in shown
    assert "the experiment's own law" in words
    told = json.loads(written.read_text())
    assert told["lines"][2]["value"] == pytest.approx(1 / 3)
    cells = {(c["where"]["lam"], c["where"]["gamma"]): c for c in told["measured"]["cells"]}
    assert len(cells) == 4
    assert cells[(20.0, 5.0)]["verdict"] == "within"
    for (lam, gamma), cell in cells.items():
        law = laws.corrected_mean_error([12], 100, 100 * lam, gamma)[0] * 100
        assert cell["theory"] == pytest.approx(law)
        assert abs(cell["relative"] - law) < 4 * cell["sem"]


@pytest.mark.parametrize(("size", "untrained"), [("small", 2.0), ("tiny", None), ("small", 8.0)])
def test_networks_that_learned_nothing_are_told_and_nothing_is_advised(saved, tmp_path, capsys, size, untrained):
    axes = {"arm": ["baseline", "iterative fine-tuning"], "lam": [1.5], "seed": range(40), "generation": [1, 2, 3, 4]}
    values = {"fid": 4 * np.stack([noise(), 2 * noise()])[:, None]}
    folder, written = saved(values, axes, "gillman/mnist", size=size, untrained=untrained), tmp_path / "plan.json"
    main(["plan", "--tolerance", "1.2", "--json", str(written), str(folder)])
    shown = " ".join(capsys.readouterr().out.split())
    found = json.loads(written.read_text())["measured"]
    if untrained == 8.0:  # twice as good at generation 1 as what was never trained
        assert "exceeded" in shown and "learned" not in shown and len(found["cells"]) == 2 and found["unsound"] == ""
        return
    why = "at generation 1 fid is" if untrained else "this size shows that everything runs"
    said = f"The run of gillman/mnist says nothing of a tolerance, since its networks have learned next to nothing ({why}"
    assert said in shown and shown.endswith(".") and found["cells"] == found["summary"] == [] and found["unsound"] in shown
    assert not any(word in shown for word in ("exceeded", "within 1.2?", "Measured by"))


@pytest.mark.parametrize(
    "arguments",
    [["--tolerance", "0.9"], ["--tolerance", "nan"], ["--tolerance", "1.2", "nowhere"], ["--tolerance", "2", "--phi", "1"]],
)
def test_the_command_refuses_in_one_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *arguments])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mcloop: ")
    assert said.err.count("\n") == 1
