"""The decomposition of a loop's error: exact on games that are known, and on a Gaussian loop whose parts have closed forms."""

import itertools
import math
import runpy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from mcloop import correctors, exact, make_loop, regimes, sweep
from mcloop.experiment.config import find
from mcloop.report import decompose

SWITCHES = ("a", "b", "c")


def errors(game, seeds=5, generations=2, noise=None):
    """A sweep's Dataset in which the error of a cell is game(which are as they are, seed, generation)."""
    shape = (2, 2, 2, seeds, generations)
    values = np.array([game([i == 0 for i in index[:3]], *index[3:]) for index in np.ndindex(shape)], float).reshape(shape)
    axes = {s: ["as it is", "ideal"] for s in SWITCHES} | {"seed": np.arange(seeds), "generation": 1 + np.arange(generations)}
    variable = (tuple(axes), values + (0 if noise is None else noise), {"long_name": "error", "units": "data units^2"})
    return xr.Dataset({"error": variable}, axes)


def shares(found):
    return {str(s): found["mean"].sel(source=s).values for s in found["source"].values}


def test_additive_errors_are_told_apart_whatever_the_order():
    parts = np.array([3.0, -1.0, 0.5])
    ds = errors(lambda on, seed, g: 2 + g * (parts @ on))
    for order in (None, *itertools.permutations(SWITCHES)):
        found = decompose.contributions(ds, "error", SWITCHES, order=order)
        for name, value in zip((*SWITCHES, "expressivity"), [*([0, x] for x in parts), [2, 2]], strict=True):
            np.testing.assert_allclose(shares(found)[name], value, atol=1e-12)
    np.testing.assert_allclose(found["least"], found["most"], atol=1e-12)


def test_what_two_do_together_is_halved_and_a_single_order_gives_it_to_the_first():
    ds = errors(lambda on, seed, g: 12 * on[0] * on[1] + 6 * on[0] * on[1] * on[2])
    found = shares(decompose.contributions(ds, "error", SWITCHES))
    for name, value in (("a", 8), ("b", 8), ("c", 2), ("expressivity", 0)):
        np.testing.assert_allclose(found[name], value, atol=1e-12)
    along = shares(decompose.contributions(ds, "error", SWITCHES, order="cab"))
    for name, value in (("c", 6), ("a", 12), ("b", 0)):
        np.testing.assert_allclose(along[name], value, atol=1e-12)
    ends = decompose.contributions(ds, "error", SWITCHES).sel(source="a", generation=1)
    assert (float(ends["least"]), float(ends["most"])) == (0, 18)


def test_parts_add_up_and_do_not_depend_on_how_the_axes_lie():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((2, 2, 2, 5, 2))
    ds = errors(lambda on, seed, g: 0.0, noise=table)
    found = decompose.contributions(ds, "error", SWITCHES)
    np.testing.assert_allclose(found["share"].sum("source").transpose("seed", "generation"), table[0, 0, 0], atol=1e-12)
    e = table[..., 1]  # the formula of three players, written out
    first = (e[0, 0, 0] - e[1, 0, 0]) / 3 + (e[0, 1, 0] - e[1, 1, 0]) / 6 + (e[0, 0, 1] - e[1, 0, 1]) / 6
    first += (e[0, 1, 1] - e[1, 1, 1]) / 3
    np.testing.assert_allclose(found["share"].sel(source="a", generation=2), first, atol=1e-12)
    turned = decompose.contributions(ds.transpose("c", "seed", "b", "generation", "a"), "error", SWITCHES[::-1])
    for name in (*SWITCHES, "expressivity"):
        np.testing.assert_allclose(turned["share"].sel(source=name), found["share"].sel(source=name), atol=1e-12)


def test_luck_that_cells_share_leaves_the_errors_of_the_switches():
    rng = np.random.default_rng(1)
    luck, own = 100 * rng.standard_normal((1, 1, 1, 400, 1)), rng.standard_normal((2, 2, 2, 400, 1))
    ds = errors(lambda on, seed, g: 5.0 * on[0], 400, 1, luck + own)
    found = decompose.contributions(ds, "error", SWITCHES).isel(generation=0)
    # independent cells of variance 1: weights +-1/3 (four) and +-1/6 (four) give 4/9 + 4/36 = 5/9
    np.testing.assert_allclose(found["sem"].sel(source=list(SWITCHES)), math.sqrt(5 / 9 / 400), rtol=0.15)
    np.testing.assert_allclose(found["sem"].sel(source="expressivity"), 100 / 20, rtol=0.15)
    assert abs(float(found["mean"].sel(source="a")) - 5) < 4 * math.sqrt(5 / 9 / 400)


class Start(NamedTuple):
    """The truth, and where the first fit starts from."""

    start: Any
    truth: Any


def lazy(model, start, share):
    """The model with a fit that goes `share` of the way from the last parameters to the optimum, at first from `start`."""

    def truth(params):
        return params.truth if isinstance(params, Start) else params

    def observe(key, real):
        data, found = model.observe(key, real)
        return data, Start(start, found)

    def fit(key, params, data):
        old = params.start if isinstance(params, Start) else params
        return model.forms.blend(old, model.fit(key, truth(params), data)[0], share), {}

    return model._replace(
        observe=observe,
        fit=fit,
        sample=lambda key, params, count: model.sample(key, truth(params), count),
        measure=lambda params, found: model.measure(params, truth(found)),
        batched=False,
    )


LAM, N, MANY, SHARE, SPREAD, OFF = 0.5, 400, 10**8, 0.6, 1.3, 0.2


def loop(sampling, optimisation, sampler):
    n = {"few": N, "many": MANY}[sampling]
    start = exact.normal([OFF], [[1.0]])
    model = lazy(exact.gaussian(d=1, n=n), start, {"some": SHARE, "all": 1.0}[optimisation])
    spread = {"stretched": SPREAD, "exact": 1.0}[sampler]
    return make_loop(model, regimes.augment(LAM), correctors.temperature(spread**2))


GRID = {"sampling": ["few", "many"], "optimisation": ["some", "all"], "sampler": ["stretched", "exact"]}
AXES = tuple(GRID)


def theory(n, share, s, generations):
    """E m^2 of the fitted mean, and the fitted variance of the population, from the loop's own recursion.

    Each fit goes `share` of the way to (x + lam (m + e))/(1 + lam), with x the mean of the real points, of variance 1/n, and e
    of variance s^2 v/(lam n); v goes as far towards (1 + lam s^2 v)/(1 + lam) and what the two means being apart adds.
    """
    bias, real, noise, v = (1 - share) * OFF, share, 0.0, 1.0
    squares, variances = [], []
    for _ in range(generations):
        squares.append(bias**2 + real**2 / n + noise)
        variances.append(v)
        hold, pull = 1 - share + share * LAM / (1 + LAM), share / (1 + LAM)
        noise = hold**2 * noise + (pull * LAM) ** 2 * s**2 * v / (LAM * n)
        v = (1 - share) * v + share * ((1 + LAM * s**2 * v) / (1 + LAM) + LAM / (1 + LAM) ** 2 * bias**2)
        bias, real = hold * bias, hold * real + pull
    return np.array(squares), np.array(variances)


def expected(quantity, generations):
    """The parts of `theory`'s quantity (0: squares, 1: variances - 1) by the formula of three players."""
    ideal = {"sampling": (N, MANY), "optimisation": (SHARE, 1.0), "sampler": (SPREAD, 1.0)}

    def e(*on):
        where = [ideal[axis][axis in on] for axis in AXES]
        return theory(*where, generations)[quantity] - quantity

    def part(i):
        j, k = (a for a in AXES if a != i)
        return (e() - e(i)) / 3 + (e(j) - e(i, j)) / 6 + (e(k) - e(i, k)) / 6 + (e(j, k) - e(*AXES)) / 3

    return {**{i: part(i) for i in AXES}, "expressivity": e(*AXES)}


@pytest.fixture(scope="module")
def gaussian():
    return sweep(loop, GRID, seeds=4000, generations=12, variables=("mean_sq_error", "trace_ratio"))


def test_a_gaussian_loop_is_split_as_its_recursion_says(gaussian):
    found = decompose.contributions(gaussian, "mean_sq_error", AXES)
    law = expected(0, 12)
    for axis in AXES:
        part = found.sel(source=axis)
        gap, sem = part["mean"].values - law[axis], part["sem"].values
        assert (np.abs(gap) <= 4 * sem + 1e-9).all(), axis
    # the same seeds: what a sampler does is not seen before it has drawn anything
    assert (found["share"].sel(source="sampler", generation=1) == 0).all()
    # power: the parts are large against their errors, and a single order would give others
    last = found.isel(generation=-1)
    assert float(last["mean"].sel(source="sampling") / last["sem"].sel(source="sampling")) > 20
    first = found.sel(source="optimisation", generation=1)
    along = decompose.contributions(gaussian, "mean_sq_error", AXES, order=AXES).sel(source="optimisation", generation=1)
    assert abs(float(along["mean"] - first["mean"])) > 10 * float(first["sem"])


def test_with_the_other_two_ideal_the_sampling_error_is_the_papers_floor(gaussian):
    ideal = gaussian.sel(optimisation="all", sampler="exact")
    found = decompose.contributions(ideal, "mean_sq_error", ["sampling"]).sel(source="sampling", generation=12)
    floor = (1 + 3 * LAM) / (1 + 2 * LAM) / N
    assert abs(float(found["mean"]) - floor) < 4 * float(found["sem"])
    assert abs(float(found["mean"]) - 1 / N) > 8 * float(found["sem"])  # what the real points alone would leave


def test_a_sampler_that_stretches_moves_the_variance_to_its_fixed_point(gaussian):
    ideal = gaussian.sel(sampling="many", optimisation="all")
    ideal["error"] = ideal["trace_ratio"] - 1
    found = decompose.contributions(ideal, "error", ["sampler"]).isel(generation=-1)
    away = 1 / (1 - LAM * (SPREAD**2 - 1)) - 1
    rate = LAM * SPREAD**2 / (1 + LAM)
    np.testing.assert_allclose(found["mean"].sel(source="sampler"), away * (1 - rate**11), rtol=1e-3)


def test_parts_of_the_variance_have_signs(gaussian):
    found = decompose.contributions(gaussian.assign(error=gaussian["trace_ratio"] - 1), "error", AXES)
    law = expected(1, 12)
    for axis in ("optimisation", "sampler"):
        part = found.sel(source=axis)
        bias = 2 / N  # the population's law leaves out terms of order 1/n
        assert (np.abs(part["mean"].values - law[axis]) < 4 * part["sem"].values + bias).all(), axis
    assert law["optimisation"][3] < -10 * bias  # slow fits hold the stretched variance back


def test_words_and_figure_show_a_part_below_zero():
    rng = np.random.default_rng(2)
    parts = np.array([3.0, -1.0, -0.5])
    ds = errors(lambda on, seed, g: 2 + (1 + g) * (parts @ on), 20, 3, 0.1 * rng.standard_normal((2, 2, 2, 20, 3)))
    found = decompose.contributions(ds, "error", SWITCHES)
    whole, largest = decompose.sentences(found)
    assert "b -3.0" in whole or "b -2.9" in whole, whole
    assert "data units^2" in whole
    assert largest.startswith("The largest part is a, more than expressivity"), largest
    assert "it grows" in largest
    figure = decompose.stacked(found, "title")
    bars = figure.axes[0].patches
    assert len({bar.get_hatch() for bar in bars}) == 4  # told apart without colour
    for g in found["generation"].values:
        mean = found["mean"].sel(generation=g).values
        column = [b for b in bars if abs(b.get_x() + b.get_width() / 2 - g) < 0.1]
        ends = sorted(tuple(sorted((b.get_y(), b.get_y() + b.get_height()))) for b in column)
        assert all(math.isclose(one[1], other[0], abs_tol=1e-9) for one, other in itertools.pairwise(ends)), ends  # no overlap
        np.testing.assert_allclose((ends[0][0], ends[-1][1]), (mean[mean < 0].sum(), mean[mean > 0].sum()))


def test_what_is_lost_or_falls_is_said():
    ds = errors(lambda on, seed, g: (3 - g) * on[0], 6, 3)
    said = decompose.sentences(decompose.contributions(ds, "error", SWITCHES))[1]
    assert "it falls" in said
    ds["error"][0, 0, 0, 2, -1] = np.nan
    assert "not finite" in decompose.sentences(decompose.contributions(ds, "error", SWITCHES))[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"measure": "w2"}, "measure"),
        ({"switches": ()}, "switches"),
        ({"switches": ("a", "a")}, "switches"),
        ({"switches": ("a", "seed")}, "seed"),
        ({"switches": ("a", "lam")}, "lam"),
        ({"rest": "a"}, "rest"),
        ({"order": ("a", "b")}, "order"),
    ],
)
def test_bad_input_is_refused(refused, change, words):
    call = {"measure": "error", "switches": SWITCHES} | change
    with refused(words):
        decompose.contributions(errors(lambda on, seed, g: 0.0), **call)


def test_statistics_over_seeds_and_further_axes_are_refused(refused):
    ds = errors(lambda on, seed, g: 0.0)
    with refused("seeds"):
        decompose.contributions(ds.rename(seed="statistic"), "error", SWITCHES)
    with refused("c"):
        decompose.stacked(decompose.contributions(ds, "error", ("a", "b")))


def test_the_gradient_descent_of_the_config_is_the_one_that_it_stands_for():
    config = runpy.run_path(str(find("beyond/error_decomposition").path))
    key, points = jax.random.key(3), config["TOY"].sample(jax.random.key(4), 64)
    old = 0.3 * jax.random.normal(jax.random.key(5), config["NETWORK"].init(key).params["out"].shape)
    tiled = jnp.tile(points, (config["PAIRS"] // len(points), 1))
    pair = config["PROCESS"].pair(key, (tiled - config["TOY"].shift) / config["TOY"].scale)

    def loss(weights):
        return ((config["output"](weights, pair.x, pair.noise) - pair.target) ** 2).sum(1).mean() / 2

    curvature = jax.hessian(lambda w: loss(old.at[:, 0].set(w)))(old[:, 0])
    size, descend = 1 / jnp.linalg.eigvalsh(curvature)[-1], jax.jit(jax.grad(loss))
    weights = old
    for _ in range(5):
        weights = weights - size * descend(weights)
    fit, alike = jax.jit(config["fit"], static_argnums=4), jnp.ones(64)
    np.testing.assert_allclose(fit(key, old, points, alike, 5), weights, atol=2e-4)
    assert np.abs(fit(key, old, points, alike, 4) - weights).max() > 2e-3
    best = fit(key, old, points, alike, math.inf)
    assert float(jnp.abs(descend(best)).max()) < 1e-5
    assert float(loss(best)) < float(loss(weights))
    empty = alike.at[:32].set(0.0)  # slots that hold no point
    elsewhere = fit(key, old, points.at[:32].set(7.0), empty, 5)
    np.testing.assert_allclose(fit(key, old, points, empty, 5), elsewhere, atol=1e-5)
