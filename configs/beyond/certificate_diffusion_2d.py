"""Certificate of a diffusion model: in the plane, differentiated through its sampler

Paper: beyond Bertrand et al. 2310.00429, Theorem 1, and Gillman et al. 2402.07087, which take the sampler for exact
Claim: Eight steps of Heun's method do not draw from what the network has learned. The certificate through those steps is above
    that of an exact sampler, lam/(1 + lam), and the loops follow it.
Command: mcloop run beyond/certificate_diffusion_2d
Minutes: tiny 1, small 10, paper 120
Expected: certified and measured rates within 10 %; at lam = 2 .85, where an exact sampler would have .67
"""

from functools import cache

import jax

from mcloop.certificates.certificate import certificate
from mcloop.data.toys import two_moons
from mcloop.experiment import Experiment, Size
from mcloop.models.diffusion import diffusion
from mcloop.models.optimum import optimum, optimum_model
from mcloop.models.processes import edm
from mcloop.models.samplers import heun
from mcloop.nets.features import random_features
from mcloop.nets.network import Variables
from mcloop.studies import certificates

LAMS = [0.25, 0.5, 1.0, 2.0]
TOY = two_moons()
PROCESS = edm(sigma_data=1.0, sigma_min=0.05, sigma_max=5.0)
NETWORK = random_features(2, width=12, reach=1.5)
LEARNER = diffusion(NETWORK, PROCESS, heun(8), (2,), shift=TOY.shift, scale=TOY.scale)
NOISES = 4  # a point


def risk(key, params, points, weight):
    """The denoising loss of EDM, each point under four noises; a quadratic in the parameters."""

    def one(i):
        pair = PROCESS.pair(jax.random.fold_in(key, i), (points - TOY.shift) / TOY.scale)
        output, _ = NETWORK.apply(Variables(params, {}), pair.x, pair.noise)
        return weight @ ((output - pair.target) ** 2).mean(1)

    return sum(one(i) for i in range(NOISES)) / NOISES


def draw(key, params, count):
    return LEARNER.sample(key, Variables(params, {}), count)


@cache
def start():
    with jax.ensure_compile_time_eval():
        return NETWORK.init(jax.random.key(0)).params


@cache
def best():
    return optimum(start(), risk, TOY, 0.0)


@cache
def problem():
    with jax.ensure_compile_time_eval():
        return certificates.population(start(), best(), risk, draw, TOY, 2**15)


@cache
def table():
    with jax.ensure_compile_time_eval():
        return certificates.tabulate(problem(), LAMS)


def make(lam, n=1000, most=2000):
    fit = {"capacity": most, "ridge": 0.0, "steps": 2}
    return certificates.loop(optimum_model("diffusion", start(), best(), risk, draw, TOY, n, **fit), table(), lam, step=0.02)


experiment = Experiment(
    make=make,
    grid={"lam": LAMS},
    sizes={
        "tiny": Size(2, 2, {"lam": [1.0]}, {"n": 200, "most": 200}),
        "small": Size(1000, 5),
        "paper": Size(10_000, 8, options={"n": 5000, "most": 10_000}),
    },
    measure=("gap",),
    law=lambda g, lam: certificates.law(table(), g, lam),
    figure=lambda ds, experiment: certificates.figure(
        ds, experiment, "A diffusion model and its sampler: the certificate against its loops"
    ),
    notes=lambda ds: certificates.notes(ds, experiment),
    annotate=lambda ds, options: certificates.annotate(ds, table()),
    worse="",
    certify=lambda lam: certificate(problem(), lam),
    block=(1, 25),
)
