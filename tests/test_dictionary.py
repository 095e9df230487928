"""The dictionary of lambdas: every paper's symbols there and back, and the ratios that loops themselves report."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mcloop
from mcloop import exact, make_loop, regimes
from mcloop.cli import main
from mcloop.planner import dictionary
from mcloop.planner.dictionary import PAPERS, Canonical, call_of, effective_ratio, find_paper, regime_of, settle, translate

POINTS = st.integers(1, 100_000)
RATIO = st.integers(0, 5000).map(lambda i: i / 1000)
SHARE = st.integers(0, 1000).map(lambda i: i / 1000)
ENDLESS = RATIO | st.just(math.inf)
PARAMETERS = {
    "bertrand": {"lam": ENDLESS, "n": POINTS},
    "bertrand-script": {"prop_gen_data": SHARE, "n": POINTS},
    "gillman": {"lam": RATIO, "gamma": ENDLESS, "n": POINTS},
    "alemohammad": {
        "loop": st.sampled_from(["fully synthetic", "synthetic augmentation", "fresh data"]),
        "n_r": POINTS,
        "n_s": POINTS,
        "lam": SHARE,
    },
    "gerstgrasser": {"regime": st.sampled_from(["replace", "accumulate", "replace-multiple"]), "n": POINTS},
    "kazdan": {"regime": st.sampled_from(["replace", "accumulate", "accumulate-subsample"]), "n": POINTS},
    "seddik": {"alpha": SHARE, "N": POINTS},
    "khelifa": {"alpha": SHARE, "n": POINTS},
    "he-xu-cheng": {"w": st.integers(1, 1000).map(lambda i: i / 1000), "k": RATIO.filter(bool), "n": POINTS},
    "ferbach": {"lam": ENDLESS, "K": st.integers(1, 9), "n": POINTS},
}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda p: p.name)
@settings(max_examples=60)
@given(data=st.data())
def test_a_papers_symbols_come_back_and_every_translation_is_the_same_loop(paper, data):
    parameters = data.draw(st.fixed_dictionaries(PARAMETERS[paper.name]))
    assert settle(paper, parameters) == parameters
    c = paper.to_canonical(**parameters)
    assert paper.from_canonical(c) == parameters
    for other in PAPERS:
        said = other.from_canonical(c)
        if isinstance(said, str):
            assert said.startswith(f"{other.name} cannot express it: ")
            assert said.endswith(".")
            assert said.count("\n") == 0
            continue
        there = other.to_canonical(**settle(other, said))
        # a weight stands for the exact ratio, counts for whole points
        near = 1e-9 if there.weight is None and c.weight is None else 2 / c.synthetic
        np.testing.assert_allclose(effective_ratio(there, 6), effective_ratio(c, 6), rtol=near)
        for field in ("first", "fixed", "fresh", "keeps", "growth", "budget", "gamma", "candidates", "bias"):
            assert getattr(there, field) == pytest.approx(getattr(c, field)), (other.name, field)


@pytest.mark.parametrize(
    ("a", "given_a", "b", "given_b"),
    [
        ("bertrand", {"lam": 0.5}, "gillman", {"lam": 0.5, "gamma": 0}),
        ("bertrand", {"lam": 0.5}, "bertrand-script", {"prop_gen_data": 0.5}),
        ("bertrand", {"lam": 0.5}, "ferbach", {"lam": 0.5, "K": 1}),
        ("bertrand", {"lam": 3}, "seddik", {"alpha": 0.75}),
        ("bertrand", {"lam": math.inf}, "gerstgrasser", {"regime": "replace"}),
        ("bertrand", {"lam": math.inf}, "khelifa", {"alpha": 0}),
        ("bertrand", {"lam": 0.5}, "alemohammad", {"loop": "synthetic augmentation", "n_s": 500}),
        ("gerstgrasser", {"regime": "accumulate"}, "kazdan", {"regime": "accumulate"}),
        ("he-xu-cheng", {"w": 2 / 3, "k": 2}, "alemohammad", {"loop": "fresh data", "n_s": 500}),
    ],
)
def test_papers_that_mean_the_same(a, given_a, b, given_b):
    for this, mine, that, theirs in ((a, given_a, b, given_b), (b, given_b, a, given_a)):
        found = translate(this, mine).others[that]
        assert isinstance(found, dict)
        for symbol, value in settle(find_paper(that), theirs).items():
            assert found[symbol] == (value if isinstance(value, str) else pytest.approx(value))


@pytest.mark.parametrize(
    ("a", "given_a", "b", "why"),
    [
        ("bertrand", {"lam": 0.5}, "khelifa", "every real point after generation 1 is fresh"),
        ("khelifa", {"alpha": 0.5}, "bertrand", "no fresh real points"),
        ("bertrand", {"lam": 2}, "bertrand-script", "at most 1"),
        ("gillman", {"gamma": 1.0}, "bertrand", "no corrector"),
        ("ferbach", {"K": 4}, "bertrand", "no curation"),
        ("alemohammad", {"lam": 0.8}, "bertrand", "no sampling bias"),
        ("kazdan", {"regime": "accumulate-subsample"}, "gerstgrasser", "no subsample"),
        ("gerstgrasser", {"regime": "replace-multiple"}, "kazdan", "draw equally many"),
        ("gerstgrasser", {"regime": "accumulate"}, "seddik", "old synthetic points are discarded"),
        ("he-xu-cheng", {}, "alemohammad", "every point weighs alike"),
        ("he-xu-cheng", {"w": 0.5, "k": 1}, "khelifa", "as large as the first"),
        ("bertrand", {"lam": math.inf}, "gillman", "every generation has real points"),
    ],
)
def test_what_a_paper_cannot_express_is_said(a, given_a, b, why):
    said = translate(a, given_a).others[b]
    assert isinstance(said, str)
    assert why in said


LOOPS = [
    translate("bertrand", {"lam": 0.55}, n=10).canonical,
    translate("bertrand", {"lam": 0.3}, n=10).canonical,
    translate("bertrand", {"lam": math.inf}, n=10).canonical,
    translate("gerstgrasser", {"regime": "replace-multiple"}, n=10).canonical,
    translate("gerstgrasser", {"regime": "accumulate"}, n=10).canonical,
    Canonical(10, fixed=10, synthetic=5, keeps=True),
    translate("khelifa", {"alpha": 0.3}, n=10).canonical,
    translate("he-xu-cheng", {"w": 0.7, "k": 2}, n=10).canonical,
    translate("alemohammad", {"loop": "fully synthetic", "n_s": 4}, n=10).canonical,
    Canonical(10, synthetic=10, window=3),
    Canonical(10, synthetic=4, growth=2, window=3),
]


@pytest.mark.parametrize("c", LOOPS, ids=call_of)
def test_the_ratio_is_the_one_that_a_loop_reports(c, walker):
    _, infos = mcloop.scan(make_loop(walker(n=10, batched=True), regime_of(c)), jax.random.key(0), generations=6)
    seen = np.asarray(infos["effective_lam"], dtype=float)
    np.testing.assert_allclose(effective_ratio(c, 6), seen, rtol=1e-5)
    assert seen[0] == 0
    assert seen[1] > 0


def test_a_subsample_has_the_ratio_of_its_pool_on_average():
    c = translate("kazdan", {"regime": "accumulate-subsample"}, n=8).canonical
    loop = make_loop(exact.gaussian(d=1, n=8, literal=True, capacity=8), regime_of(c))
    _, infos = mcloop.scan(loop, jax.random.split(jax.random.key(1), 2000), generations=4)
    real = 1 / (1 + np.asarray(infos["effective_lam"], dtype=float))
    expected = 1 / (1 + effective_ratio(c, 4))
    error = real.std(1) / 2000**0.5 + 1e-9
    assert np.all(np.abs(real.mean(1) - expected) < 4 * error)
    # a generation late, the share would be 1/3 where it is 1/2
    assert np.all(np.abs(real.mean(1)[1:3] - expected[2:]) > 10 * error[1:3])


@pytest.mark.parametrize("c", LOOPS, ids=call_of)
def test_the_call_as_text_is_the_regime(c):
    written = eval(call_of(c), {"regimes": regimes})
    made = regime_of(c)
    assert written.name == made.name
    for t in (2, 3, 5):
        drawn = [[float(x) for x in one.draw(np.float32(10), np.float32(t))] for one in (written, made)]
        assert drawn[0] == drawn[1]
        assert drawn[0][0] == np.floor(c.synthetic * t**c.growth + 1e-6)


def test_the_call_names_the_other_parts():
    assert translate("gillman", {"lam": 0.5, "gamma": 1}).call == "regimes.augment(lam=0.5), correctors.mixture(gamma=1)"
    assert "best_of_k(k=4" in translate("ferbach", {"K": 4}).call
    assert translate("khelifa", {"alpha": 1}).call == "This is no loop: no generation has synthetic points."


@pytest.mark.parametrize(
    "c",
    [
        Canonical(10, fixed=10, fresh=5, synthetic=5),
        Canonical(10, fixed=10, synthetic=5, weight=0.5),
        Canonical(10, 10, budget=5.0),
    ],
)
def test_what_no_regime_does_is_refused(c, refused):
    with refused():
        regime_of(c)


@pytest.mark.parametrize("name", ["MAD", "Alemohammad", "2307.01850", "arXiv:2307.01850", "alemohammad2023"])
def test_aliases(name):
    assert find_paper(name).name == "alemohammad"
    assert find_paper("2310.00429").name == "bertrand"
    assert find_paper("Bertrand Script").name == "bertrand-script"


def test_bad_input(refused):
    with refused("'gilman'", "did you mean gillman"):
        translate("gilman")
    with refused("'mu'", "lam, gamma, n"):
        translate("gillman", {"mu": 1})
    with refused("prop_gen_data", "[0, 1]", "1.5"):
        translate("bertrand-script", {"prop_gen_data": 1.5})
    with refused("alpha", "nan"):
        translate("seddik", {"alpha": math.nan})
    with refused("loop", "fresh data", "'stale'"):
        translate("mad", {"loop": "stale"})
    with refused("n (gillman", "0"):
        translate("gillman", n=0)
    with refused("generations", "0"):
        translate("gillman", generations=0)


def test_the_command(capsys):
    main(["translate"])
    shown = capsys.readouterr().out
    assert all(p.name in shown for p in PAPERS)
    main(["translate", "--paper", "gillman", "--set", "lam=0.5", "--set", "GAMMA=1", "--n", "1000", "--generations", "3"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "regimes.augment(lam=0.5), correctors.mixture(gamma=1)" in shown
    assert "1: 0, 2: 0.5, 3: 0.5" in shown
    assert "500 new synthetic points" in shown
    main(["translate", "--paper", "mad", "--set", "loop=Fresh_Data", "--set", "n_s=500", "--to", "he"])
    shown = capsys.readouterr().out
    assert "k = 2" in shown
    assert "kazdan" not in shown
    for arguments in (
        ["--paper", "gilman"],
        ["--to", "mad"],
        ["--paper", "mad", "--set", "n_s=1,2"],
        ["--paper", "mad", "--to", "x"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(["translate", *arguments])
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_every_paper_is_described_in_full():
    for p in PAPERS:
        c = p.to_canonical(**settle(p, {}))
        assert dictionary.describe(c).startswith("Generation 1 is fitted on 1000 real points.")
        assert p.size in p.symbols
