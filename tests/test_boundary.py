"""The search for a boundary finds the one that the laws have, with an honest interval, and says so where there is none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom
from scipy.stats import t as student

import mcloop
from mcloop import correctors, exact, regimes
from mcloop.certificates import boundary as module
from mcloop.certificates.boundary import boundary, draw_map, growth_map
from mcloop.certificates.search import _GRAIN, STATISTICS, _moment, _place, _told, relaxation, search
from mcloop.certificates.twins import growth_twins
from mcloop.drivers.scan import scan
from mcloop.exact.normal import normal
from mcloop.experiment import config
from mcloop.experiment.arguments import bind
from mcloop.laws import LAWS, spread_safe_lam


def stretched(lam, s=1.0, n=2**22):
    """Law S1: a sampler that multiplies the spread by s; one program for every test that takes it as it is."""
    return mcloop.make_loop(exact.gaussian(d=1, n=n), regimes.augment(lam), correctors.temperature(s**2))


@pytest.fixture(scope="module")
def amplified(walker):
    """(lam, a) -> a loop of one number, not batched, whose synthetic mean is multiplied by a: stable iff lam (a - 1) < 1."""

    def make(lam, a=1.5, n=1000):
        def stretch(key, batch, params):
            return batch._replace(mean=a * batch.mean)

        return mcloop.make_loop(walker(n), regimes.augment(lam), correctors.pointwise(stretch))

    return make


@pytest.mark.parametrize("s", [1.1, 1.3, 1.5, 2.0])
def test_the_boundary_of_a_stretching_sampler(s):
    found = boundary(stretched, "lam", (0.1, 50.0), fixed={"s": s})
    truth = float(spread_safe_lam(s))
    assert found.found and found.stable == "below" and found.settled and len(found.crossings) == 1
    assert found.low <= truth <= found.high
    assert abs(found.value / truth - 1) < 0.002
    for wrong in (1 / (s - 1), 1 / s**2, 1 / (s**2 + 1), 1 / (s**4 - 1)):
        assert not found.low <= wrong <= found.high
    rates = [(e.value * s**2 / (1 + e.value), e) for e in found.evaluations]
    assert all(e.low * (1 - 2e-5) <= rate <= e.high * (1 + 2e-5) for rate, e in rates)
    assert all(e.stable is (rate < 1) for rate, e in rates if e.stable is not None)


def test_intervals_cover_as_often_as_they_say_and_are_no_wider_than_they_need():
    truth, confidence, repeats = float(spread_safe_lam(1.3)), 0.5, 40
    found = [boundary(stretched, fixed={"s": 1.3}, confidence=confidence, seed=i) for i in range(1, repeats + 1)]
    covered = sum(b.low <= truth <= b.high for b in found)
    assert covered >= binom.ppf(0.001, repeats, confidence)
    # half of the error over six looks, of which the first is enough: the width is 2.1 standard errors
    z = [(np.log(b.value / truth)) / (np.log(b.high / b.low) / 2) for b in found]
    assert 0.25 < np.sqrt(np.mean(np.square(z))) < 0.75
    assert abs(np.mean(z)) < 0.3


def test_an_exact_sampler_has_no_boundary_and_that_is_said():
    found = boundary(stretched, between=(0.1, 100.0), fixed={"s": 1.0})
    assert not found.found and found.stable == "everywhere" and np.isnan(found.value)
    assert found.words.startswith("no boundary between lam = 0.1 and 100: the growth factor a generation is 0.0909")
    assert "0.9901" in found.words and "below 1 throughout" in found.words and "nan" not in found.words
    for e, lam in zip(found.ends, (0.1, 100.0), strict=True):
        assert e.low <= lam / (1 + lam) <= e.high and e.stable


def test_unstable_everywhere():
    found = boundary(stretched, between=(3.0, 100.0), fixed={"s": 1.3})
    assert not found.found and found.stable == "nowhere" and "above 1 throughout" in found.words
    assert all(e.low <= 1.69 * e.value / (1 + e.value) * (1 + 1e-4) and e.stable is False for e in found.evaluations)


def test_the_sign_test_at_growth_one():
    """At lam = 1/(s^2 - 1) exactly, where growth is 1: batches call it told from 1 as often as their level says."""
    plan = module._Plan(stretched, "lam", (), ("s",), 32, 100, None, None, None)
    values = jnp.full(12, 1 / (1.3**2 - 1), jnp.float32)
    batches = [module._run(plan, jax.random.key(5), jnp.uint32(32 * i), values, {"s": 1.3})[0, 0] for i in range(200)]
    x = np.asarray(batches, np.float64)
    z = x.mean(1) / (x.std(1, ddof=1) / np.sqrt(x.shape[1]))
    wrong = int((np.abs(z) > student.isf(0.025, x.shape[1] - 1)).sum())
    assert binom.ppf(0.0005, 200, 0.05) <= wrong <= binom.ppf(0.9995, 200, 0.05)


def test_looking_often_is_paid_for():
    """Noise around growth 1 at every value: a wrong sign anywhere, in any look, is rarer than half of 1 - confidence."""
    rng = np.random.default_rng(0)

    def wrong(batches):
        found = search(
            lambda values, batch: np.stack([rng.normal(size=(12, 8))] * 2),
            STATISTICS["twins"](10),
            "x",
            (1.0, 2.0),
            12,
            batches,
            0.05,
            0.6,
        )
        return any(e.stable is not None for e in found.evaluations[:12])

    assert sum(wrong(16) for _ in range(200)) <= binom.ppf(0.999, 200, 0.2)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_search_on_a_known_curve(slope):
    """A cubic through 0 at 2 with correlated noise: right side, interval that covers, and no reversed sign."""
    rng = np.random.default_rng(1)

    def draw(values, batch):
        u = np.log(np.asarray(values) / 2)[:, None]
        x = slope * (u + 0.2 * u**2 + 0.1 * u**3) + rng.normal(0, 0.05, 16) + rng.normal(0, 0.02, (len(u), 16))
        return np.stack([x, x])

    runs = [search(draw, STATISTICS["twins"](10), "x", (0.1, 30.0), 12, 32, 0.02, 0.5) for _ in range(60)]
    assert all(b.found and b.stable == ("below" if slope > 0 else "above") for b in runs)
    assert sum(b.low <= 2 <= b.high for b in runs) >= binom.ppf(0.001, 60, 0.5)
    assert all((b.high - b.low) / 2 <= 0.02 * b.value for b in runs)


def test_another_axis_and_two_dimensions():
    """T = 1 + 1/lam, whatever the covariance of the truth."""
    truth = normal([1.0, -2.0], [[4.0, 1.0], [1.0, 0.5]])

    def make(T, lam):
        model = exact.gaussian(d=2, n=2**22, truth=truth)
        return mcloop.make_loop(model, regimes.augment(lam), correctors.temperature(T))

    found = boundary(make, "T", (0.5, 10.0), fixed={"lam": 0.8}, generations=60)
    assert found.low <= 2.25 <= found.high and abs(found.value / 2.25 - 1) < 0.005
    assert not found.low <= np.sqrt(2.25) <= found.high
    other = boundary(make, "T", (0.5, 10.0), fixed={"lam": 2.0}, generations=60)
    assert other.low <= 1.5 <= other.high


def test_a_loop_that_is_not_batched(amplified):
    found = boundary(amplified, "a", (1.0, 4.0), fixed={"lam": 2.0}, generations=20, distance=lambda a, b: 3 * abs(a - b))
    assert found.low <= 1.5 <= found.high and abs(found.value - 1.5) < 1e-3


def test_stable_above_and_more_than_one_crossing(amplified):
    def bump(x):
        return amplified(1.0, 2.5 - jnp.log(x) ** 2 / 4)

    found = boundary(bump, "x", (0.1, 10.0), generations=20)
    edge = np.exp(np.sqrt(2))
    assert found.stable == "below" and abs(found.value * edge - 1) < 1e-3
    assert len(found.crossings) == 2 and found.crossings[1][0] < edge < found.crossings[1][1]
    assert "changes again" in found.words
    upper = boundary(bump, "x", (1.0, 10.0), generations=20)
    assert upper.stable == "above" and abs(upper.value / edge - 1) < 1e-3


def test_what_cannot_be_told_is_not_told(walker):
    def neutral(a):
        return mcloop.make_loop(walker(4), regimes.replace(lambda n, t: n * (1 + 0 * a)))

    found = boundary(neutral, "a", (1.0, 10.0), generations=20, most_seeds=64)
    assert found.stable == "unresolved" and not found.found and found.words.startswith("not resolved")
    assert all(abs(np.log(e.growth)) < _GRAIN and e.stable is None for e in found.evaluations)
    # lam n < 1 point is no sample: nothing finite to read
    empty = boundary(
        lambda lam: mcloop.make_loop(walker(4), regimes.augment(lam)), "lam", (0.1, 0.2), generations=8, most_seeds=32
    )
    assert empty.stable == "unresolved" and "not measured" in empty.words and "nan" not in empty.words


def test_the_error_itself_as_statistic():
    """E v' = (v0 + lam s^2 v)/(1 + lam): increments of the mean error are geometric, and equal at the boundary."""
    found = boundary(stretched, fixed={"s": 1.3}, statistic="trace_ratio", generations=25)
    truth = float(spread_safe_lam(1.3))
    assert found.low <= truth <= found.high and abs(found.value / truth - 1) < 0.01
    g, at = np.arange(1, 26), np.array([-17, -9, -1])
    for lam in (0.2, truth, 10.0):
        raw = np.repeat(np.asarray(LAWS["S1"].value(g, lam=lam, s=1.3))[at][:, None, None], 4, -1)
        raw = raw * (1 + 1e-9 * np.arange(4))
        reading = relaxation(8)
        assert np.allclose(reading.growth(reading.values(raw).mean(-1)), np.log(lam * 1.69 / (1 + lam)), atol=1e-4)
    lost = np.stack([np.ones((2, 8)), np.full((2, 8), 2.0), np.full((2, 8), np.inf)])
    assert (reading.values(lost) == 1).all()
    flat = np.random.default_rng(0).normal(size=(3, 2, 8))
    assert np.isnan(reading.values(flat)).all()


def test_twins_are_the_loop_and_its_derivative():
    loop = mcloop.make_loop(exact.gaussian(d=1, n=500), regimes.augment(0.8), correctors.temperature(1.7))
    key = jax.random.split(jax.random.key(3), 6)
    _, alone = scan(loop, key, generations=12)
    _, seen = scan(growth_twins(loop), key, generations=12)
    for name, x in alone.items():
        np.testing.assert_allclose(seen[name], x, rtol=2e-4, atol=1e-7)
    assert np.isnan(seen["log_growth"][0]).all() and np.isfinite(seen["log_growth"][1:]).all()


def test_a_square_root_shows_a_decay_that_is_none():
    """At the boundary v grows linearly: differences of standard deviations shrink by (v_g/v_{g+1})^(1/2)."""
    lam, s = 1 / (1.3**2 - 1), 1.3
    loop = growth_twins(stretched(lam, s), distance=lambda a, b: jnp.abs(a.root - b.root)[0, 0])
    _, seen = scan(loop, jax.random.split(jax.random.key(1), 16), generations=16)
    v = np.asarray(LAWS["S1"].value(np.arange(1, 17), lam=lam, s=s))
    assert np.allclose(np.asarray(seen["log_growth"])[1:].mean(1), -np.log(v[1:] / v[:-1]) / 2, atol=2e-3)


def test_the_moment_reading():
    x = np.log(np.random.default_rng(0).uniform(0.5, 2.0, (3, 4000)))
    y = _moment(x, 10)
    assert np.allclose(y.mean(-1), np.log(np.mean(np.exp(10 * x), -1)) / 10)
    assert (y.mean(-1) > x.mean(-1) + 0.1).all()
    # its spread is that of the estimate: the delta method against the estimate's own scatter over blocks
    blocks = [_moment(np.log(np.random.default_rng(i).uniform(0.5, 2.0, 4000)), 10).mean() for i in range(1, 60)]
    assert 0.75 < np.std(blocks) / (y.std(-1).mean() / np.sqrt(4000)) < 1.3


def test_places_and_looks():
    u = np.linspace(-1, 1, 12)[:, None]
    x = u - 0.3 + np.array([-0.01, 0.01] * 8)
    value, low, high = _place(x, (1.0, np.e**2), 0.05)
    half = student.isf(0.025, 15) * x.std(-1, ddof=1)[0] / 4
    assert np.allclose(np.log([value, low, high]), [1.3, 1.3 - half - _GRAIN, 1.3 + half + _GRAIN], atol=1e-6)
    assert _told(np.array([-1, -1, 0, 0, 1])) and _told(np.array([1, 1, 1]))
    assert not _told(np.array([-1, 0, -1])) and not _told(np.array([-1, 0, 0, 0, 1])) and not _told(np.array([0, 1, 1]))


def test_a_map_and_its_contours(amplified):
    ds = growth_map(amplified, {"lam": [0.5, 1.0, 2.0, 4.0], "a": [1.0, 1.5, 2.0]}, seeds=4, generations=12)
    lam, a = np.meshgrid(ds["lam"], ds["a"], indexing="ij")
    assert ds["growth"].dims == ("lam", "a")
    assert np.allclose(ds["growth"], lam * a / (1 + lam), rtol=1e-4)
    assert (ds["growth_low"] <= ds["growth"]).all() and (ds["growth"] <= ds["growth_high"]).all()
    figure = draw_map(ds, "lam", "a", lambda x, y: np.log(x * y / (1 + x)), "theory")
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["theory", "measured: growth 1"]
    assert figure.axes[0].get_ylabel() == "a"


@pytest.mark.parametrize("name", ["boundary_map", "boundary_spread"])
def test_a_config_says_where_the_mean_error_explodes_beside_the_typical_seed(name):
    """At n = 10 the two are apart: law S2 against S1's 1/(T - 1), for T = 1.69."""
    run = config.load(config.find(f"beyond/{name}"))
    lam, stretch = [1.0, 2.0], ("temperature", [1.0, 1.69]) if name == "boundary_map" else ("s", [1.0, 1.3])
    growths = np.random.default_rng(0).normal(size=(2, 2, 8, 12))
    ds = xr.Dataset({"log_growth": (("lam", stretch[0], "seed", "generation"), growths)}, {"lam": lam, stretch[0]: stretch[1]})
    ds = ds.assign_coords(generation=np.arange(1, 13))
    found = {f"boundary_{name}": (stretch[0], [np.nan, 1.5]) for name in ("value", "low", "high")}
    ds = ds.assign(found).assign_attrs(boundary=["none", "one"])
    said = " ".join(bind(run, "tiny", {"n": [10]}).notes(ds))
    assert "1.449" in said and "1.54175" in said and "law S2, n = 10" in said
    assert "n = 1e+06" in " ".join(bind(run, "tiny", {}).notes(ds))
    if name == "boundary_map":
        assert "T = 1:" not in said and "typical seeds" in " ".join(bind(run, "tiny", {"d": [2]}).notes(ds))


def test_refusals(refused, amplified):
    search_it = partial(boundary, amplified, generations=20)
    with refused("axis 'gamma'", "lam, a, n"):
        search_it("gamma")
    for between in ((1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (1.0, float("nan")), (1.0, float("inf")), 3, ("a", "b")):
        with refused("between"):
            search_it(between=between)
    for name, value in (
        ("precision", 0.0),
        ("precision", 1.0),
        ("precision", float("nan")),
        ("confidence", 1.0),
        ("confidence", "x"),
    ):
        with refused(name, "(0, 1)"):
            search_it(**{name: value})
    for name, value in (
        ("generations", 7),
        ("generations", 2.5),
        ("seeds", 4),
        ("seeds", 0),
        ("most_seeds", 16),
        ("seed", 0.5),
    ):
        with refused(name.removeprefix("most_"), "whole number"):
            search_it(**{name: value})
    with refused("statistic", "twins, moment", "fitted", "nothing"):
        search_it(statistic="nothing")
    with refused("fixed", "'lam'"):
        search_it(fixed={"lam": 1.0})
    with refused("fixed", "list"):
        search_it(fixed={"a": [1.0]})
    with refused("regime 'accumulate'", "kde", "shape"):
        boundary(
            lambda h: mcloop.make_loop(exact.kde(d=1, n=4, bandwidth=h), regimes.accumulate()), "h", (1.0, 2.0), generations=8
        )
    with refused("make", "str"):
        boundary(lambda lam: "loop", between=(1.0, 2.0))
    with refused("lam", "-"):
        boundary(lambda lam: amplified(-lam), between=(1.0, 2.0))
