"""Where a loop's error comes from: too few points, too few steps, a coarse sampler, or a model that cannot say it

Paper: beyond Bertrand et al. 2310.00429, Theorem 2, which bounds a statistical and an optimisation error and takes the sampler
    for exact
Claim: Switched off one at a time on the same seeds, the parts add up to the error, and most of it is not finite sampling: what
    the model cannot say and what a coarse sampler adds both grow from fit to fit, and training that stops early, a cost at
    first, lowers the error from the second fit on.
Command: mcloop run beyond/error_decomposition
Minutes: tiny 1, small 3, paper 60
Expected: generation 6, in 1e-3 of MMD^2: expressivity 9.3, sampler 5.7, sampling 2.8, optimisation -5.0 (+2.6 at generation 1);
    the error is 12.8

Ideal means as good as is affordable. "Many points" are 8,192 where "few" are 256, so that about a thirty-second of the sampling
error stays with the expressivity; half as many change that part by less than its standard error, 2 %. The fine sampler, 32
steps of Heun's method, is .3 % from 64. The optimum is exact. A fit sees the same number of noisy points in every cell.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mcloop import make_loop, random, regimes
from mcloop.data.toys import two_moons
from mcloop.experiment import Experiment, Size
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.metrics.mmd import mmd2, self_term
from mcloop.models.diffusion import diffusion
from mcloop.models.processes import edm
from mcloop.models.samplers import heun
from mcloop.nets.features import random_features
from mcloop.nets.network import Variables
from mcloop.report import decompose, plots
from mcloop.types import Model

TOY = two_moons()
PROCESS = edm(sigma_data=1.0, sigma_min=0.05, sigma_max=5.0)
NETWORK = random_features(2, width=24, reach=1.5)
PAIRS = 2**15  # noisy points that a fit sees, however many points there are
BANDWIDTH = (1.0,)  # of the kernel, data units: the moons' radius is 3

# the values of each switch: as it is, then ideal
SAMPLING = {"few points": 2**8, "many points": 2**13}
STEPS = [30, math.inf]  # of gradient descent, from the last generation's weights
SAMPLERS = {"coarse sampler": 5, "fine sampler": 32}  # steps of Heun's method
SWITCHES = ("sampling", "optimisation", "sampler")


class Truth(NamedTuple):
    """What a model is held against: points of the truth (samples, 2), and their own term of the MMD."""

    points: jax.Array
    term: jax.Array


def output(weights, x, noise):
    return NETWORK.apply(Variables({"out": weights}, {}), x, noise)[0]


def fit(key, old, points, weight, steps):
    """`steps` (inf: the optimum) of gradient descent of length 1/(largest curvature) on the denoising loss of EDM.

    The loss is quadratic in the weights W (f, 2), with curvature G and optimum W*: k steps leave (I - G/|G|)^k of W - W*.
    """
    times = PAIRS // len(points)
    pair = PROCESS.pair(key, (jnp.tile(points, (times, 1)) - TOY.shift) / TOY.scale)
    told = output(jnp.eye(old.shape[0]), pair.x, pair.noise)  # the network is linear: these are its features
    share = jnp.tile(weight / weight.sum(), times)[:, None] / times
    gram, cross = (jnp.matmul((share * told).T, y, precision="highest") for y in (told, pair.target))
    values, vectors = jnp.linalg.eigh(gram)
    best = jnp.matmul(vectors, (vectors.T @ cross) / values[:, None], precision="highest")
    left = jnp.clip(1 - values / values[-1], 0, 1) ** steps
    return best + vectors @ (left[:, None] * (vectors.T @ (old - best)))


def model(n, steps, sampler, samples):
    """A diffusion model of two moons; measures MMD^2, without bias, to points of the truth that each seed draws for itself."""
    learner = diffusion(NETWORK, PROCESS, heun(sampler), (2,), shift=TOY.shift, scale=TOY.scale)

    def draw(key, weights, count):
        return learner.sample(key, Variables({"out": weights}, {}), count)

    def sample(key, params, count) -> Rows:
        return rows(TOY.sample(key, n) if isinstance(params, Truth) else draw(key, params, n), count)

    def observe(key, real):
        k_data, k_held = (random.fold_in(key, i) for i in range(2))
        held = TOY.sample(k_held, samples)
        return rows(TOY.sample(k_data, n), real=True), Truth(held, self_term(held, BANDWIDTH))

    def refit(key, params, data: Rows):
        old = jnp.zeros_like(NETWORK.init(jax.random.key(0)).params["out"]) if isinstance(params, Truth) else params
        return fit(key, old, data.values, data.weight, steps), {}

    def evaluate(key, params, truth):
        return {"mmd2": mmd2(draw(random.fold_in(key, 1), params, samples), truth.points, BANDWIDTH, truth.term)}

    return Model(
        "diffusion",
        n,
        rows_memory(n),
        observe,
        sample,
        refit,
        evaluate=evaluate,
        estimator="random-feature denoiser on two_moons, gradient descent on its quadratic loss",
    )


def make(sampling, optimisation, sampler, lam=1.0, samples=2048):
    parts = SAMPLING[sampling], optimisation, SAMPLERS[sampler]
    return make_loop(model(*parts, samples), regimes.augment(lam))


def split(ds):
    """The shares of those switches that the run has in both positions; None where it has none of them so."""
    both = [s for s in SWITCHES if ds.sizes[s] == 2]
    at = {s: 0 for s in SWITCHES if s not in both}
    return decompose.contributions(ds.isel(at, drop=True), "mmd2", both) if both else None


def figure(ds, experiment):
    shares, title = split(ds), "Where the error of a diffusion loop comes from"
    if shares is None:
        return {"curves": plots.curves(ds, experiment, title)}
    return {"decomposition": decompose.stacked(shares, title)}


def notes(ds):
    shares = split(ds)
    if shares is None:
        return ["No share of the error can be told, since no switch is in both of its positions here."]
    fixed = [f"{s} at {ds[s].values[0]}" for s in SWITCHES if ds.sizes[s] != 2]
    return [*decompose.sentences(shares), *([f"The split is at {', '.join(fixed)}."] if fixed else [])]


grid: dict[str, Any] = dict(zip(SWITCHES, (list(SAMPLING), STEPS, list(SAMPLERS)), strict=True))
experiment = Experiment(
    make=make,
    grid=grid,
    sizes={
        "tiny": Size(6, 4, options={"samples": 512}),
        "small": Size(32, 6),
        "paper": Size(400, 12, options={"samples": 4096}),
    },
    measure=("mmd2",),
    figure=figure,
    notes=notes,
    worse="",
    block=(1, 8),
)
