"""Every family, regime and corrector compiles for accelerators that are not there: lowered for a TPU and a GPU, not run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mcloop import correctors, exact, regimes
from mcloop.drivers import blocks
from mcloop.drivers.scan import trajectory
from mcloop.drivers.sweep import _lay_out
from mcloop.loop import make_loop
from mcloop.studies.gillman_toy import gillman_toy

PLATFORMS = ("tpu", "cuda")
KEYS = jax.ShapeDtypeStruct((1, 8, 2), np.uint32)  # raw data of keys (1, 8): threefry, two words each

# what it is called here -> (its name in mcloop.exact, arguments)
FAMILIES = {
    "gaussian": ("gaussian", {"d": 2, "n": 5}),
    "gaussian, 17 dimensions": ("gaussian", {"d": 17, "n": 5}),
    "gaussian, diagonal": ("gaussian", {"d": 2, "n": 5, "covariance": "diagonal"}),
    "gaussian, isotropic": ("gaussian", {"d": 2, "n": 5, "covariance": "isotropic"}),
    "gaussian, literal": ("gaussian", {"d": 2, "n": 5, "literal": True}),
    "linear_regression": ("linear_regression", {"d": 2, "n": 8}),
    "linear_regression, fresh": ("linear_regression", {"d": 2, "n": 8, "design": "fresh"}),
    "linear_regression, literal": ("linear_regression", {"d": 2, "n": 8, "literal": True}),
    "categorical": ("categorical", {"k": 5, "n": 10}),
    "categorical, literal": ("categorical", {"k": 80, "n": 10, "zipf": 1.0, "literal": True}),
    "bernoulli": ("bernoulli", {"n": 10}),
    "poisson": ("poisson", {"n": 10}),
    "poisson, literal": ("poisson", {"n": 10, "literal": True}),
    "gamma_family": ("gamma_family", {"n": 10}),
    "kde": ("kde", {"n": 10}),
    "gaussian_mixture": ("gaussian_mixture", {"n": 10}),
    "student_t": ("student_t", {"n": 10}),
}
BOTH_MEMORIES = ("gaussian", "gaussian, literal", "linear_regression, fresh", "categorical", "kde")
REGIMES = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(1.0)}
EVERY = {"none": correctors.none(), "mixture": correctors.mixture(1.0)}
SOME = {
    "temperature": (correctors.temperature(0.8), ("gaussian", "gaussian, literal", "categorical", "bernoulli")),
    "extrapolate": (correctors.extrapolate(0.5), ("gaussian", "gaussian, diagonal")),
    "verifier": (correctors.verifier([1.0], 2.0), ("gaussian", "gaussian, isotropic")),
    "verifier of labels": (correctors.verifier(keep=[0.9, 0.5, 0.5, 0.5, 0.5]), ("categorical",)),
    "best_of_k": (correctors.best_of_k(2, lambda x: x[:, 0]), ("gaussian, literal", "kde")),
    "histogram": (correctors.histogram(1.0), ("gaussian, literal",)),
    "histogram, released": (correctors.histogram(1.0, released=True), ("gaussian, literal",)),
}


def rows():
    for family in FAMILIES:
        # a variant differs from its family in what it remembers, and `accumulate` asks a memory for everything
        for regime in ("accumulate",) if "," in family else REGIMES:
            for corrector, part in EVERY.items():
                # a corrector sees no regime, and of a family only its memory: a pair of each is enough
                if corrector == "none" or (regime == "accumulate" and family in BOTH_MEMORIES):
                    yield pytest.param(family, regime, part, id=f"{family}-{regime}-{corrector}")
    for corrector, (part, families) in SOME.items():
        for family in families:
            yield pytest.param(family, "augment", part, id=f"{family}-augment-{corrector}")


def lowers(run, *inputs, platforms=PLATFORMS):
    exported = export.export(jax.jit(run), platforms=platforms)(*inputs)
    assert exported.platforms == tuple(platforms)
    return exported


def whole(loop):
    def run(key):
        return trajectory(loop, key, None, 4)[1]

    mapped = run if loop.batched else jax.vmap(jax.vmap(run, out_axes=-1), out_axes=-2)
    return lambda data: mapped(jax.random.wrap_key_data(data))


@pytest.mark.parametrize(("family", "regime", "corrector"), rows())
def test_every_loop_lowers_for_accelerators(family, regime, corrector):
    name, arguments = FAMILIES[family]
    if name not in exact.__all__:
        pytest.skip(f"mcloop.exact does not export {name}")
    exported = lowers(whole(make_loop(getattr(exact, name)(**arguments), REGIMES[regime], corrector)), KEYS)
    assert all(x.shape in ((4,), (4, 1, 1), (4, 1, 8)) for x in exported.out_avals)


def test_nothing_exported_is_left_out():
    made = {name for name in exact.__all__ if name[0].islower()} - {"normal"}
    assert made == {name for name, _ in FAMILIES.values()}
    named = set(correctors.__all__) - {"pointwise", "fit_centroids", "nearest_centroid"}  # the last two run on the host
    assert named == {name.split(",")[0].removesuffix(" of labels") for name in (*EVERY, *SOME)}


OTHERS = (regimes.baseline(), regimes.replace_multiple(), regimes.fresh(1.0, 0.5, 0.6), regimes.window(2))


@pytest.mark.parametrize("regime", OTHERS, ids=lambda regime: regime.name)
def test_the_other_regimes_lower(regime):
    lowers(whole(make_loop(exact.gaussian(d=1, n=5), regime)), KEYS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_lowers_alone(platform):
    loop = make_loop(exact.gaussian(d=2, n=5), regimes.augment(0.6), correctors.mixture(1.0))
    lowers(whole(loop), KEYS, platforms=(platform,))


def test_subsampling_lowers():
    lowers(whole(make_loop(exact.gaussian(d=1, n=5, literal=True), regimes.accumulate_subsample())), KEYS)


def test_the_released_toy_lowers():
    lowers(whole(gillman_toy(jnp.float32([[0.1], [1.0]]), n=8)), KEYS)


@pytest.mark.parametrize("literal", [False, True], ids=["statistics", "rows"])
@pytest.mark.parametrize("statistics", [(), ("mean", "sem", "median", "q05")], ids=["all seeds", "reduced"])
def test_a_sweeps_block_lowers(statistics, literal):
    def make(lam, gamma, n):
        model = exact.gaussian(d=2, n=n, literal=literal, capacity=20 if literal else None)
        return make_loop(model, regimes.augment(lam), correctors.mixture(gamma))

    traced = {"lam": np.float32([0.5, 1, 1]), "gamma": np.float32([0, 0.5, np.inf]), "n": np.float32([5, 9, 20])}
    plan = _lay_out(make, {}, traced, 3, 8, 4, None, 0, ("trace_ratio", "w2"), statistics, None)
    program = blocks._program(plan)
    hyper = {name: jax.ShapeDtypeStruct((3, 1), np.float32) for name in traced}
    exported = lowers(
        lambda data, live, hyper: program(jax.random.wrap_key_data(data), live, hyper),
        jax.ShapeDtypeStruct((1, 8, 2), np.uint32),
        jax.ShapeDtypeStruct((8,), bool),
        hyper,
    )
    kept = (7, 3) if statistics else (3, 8)
    assert [x.shape for x in exported.out_avals] == [(4, *kept)] * 2
