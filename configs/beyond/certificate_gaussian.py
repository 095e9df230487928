"""Certificate of a Gaussian loop: the exact rate, where the papers' bound is silent

Paper: beyond Bertrand et al. 2310.00429, Theorem 1, whose constants nobody can evaluate; here autodiff computes the rate itself
Claim: A perturbation of the Gaussian loop shrinks by lam/(1 + lam) a generation at every lam; the papers' bound guarantees
    nothing from lam = 1/2 on.
Command: mcloop run beyond/certificate_gaussian
Minutes: tiny 0.5, small 1, paper 5
Expected: certified and measured rates within 0.5 %; stable at every lam, lam = 20 (rate .952) included
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from mcloop import exact
from mcloop.certificates.certificate import certificate
from mcloop.certificates.stability import Weighted, likelihood
from mcloop.exact.normal import Statistics
from mcloop.experiment import Experiment, Size
from mcloop.studies import certificates

LAMS = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0]


@cache
def problem():
    """Expectations by Gauss-Hermite quadrature."""
    with jax.ensure_compile_time_eval():
        objective: Any = exact.gaussian(d=2, n=100).forms.objective
        z, w = hermegauss(12)
        nodes = jnp.asarray(np.stack(np.meshgrid(z, z), -1).reshape(-1, 2), jnp.float32)
        weight = jnp.asarray(np.outer(w, w).ravel() / w.sum() ** 2, jnp.float32)

        def log_prob(free, x):
            return -objective.risk(None, free, Statistics(1.0, 1.0, x, jnp.zeros((2, 2))))

        def draw(free):
            params = objective.params(free)
            return Weighted(params.mean + nodes @ params.root.T, weight)

        truth = objective.free(exact.normal([0.0, 0.0], np.eye(2)))
        return likelihood(log_prob, truth, Weighted(nodes, weight), draw)


@cache
def table():
    with jax.ensure_compile_time_eval():
        return certificates.tabulate(problem(), LAMS)


def make(lam, n=1000):
    return certificates.loop(exact.gaussian(d=2, n=n), table(), lam, step=0.05)


experiment = Experiment(
    make=make,
    grid={"lam": LAMS},
    sizes={"tiny": Size(200, 4, {"lam": [0.5, 5.0]}), "small": Size(10_000, 6), "paper": Size(100_000, 11)},
    measure=("gap",),
    law=lambda g, lam: certificates.law(table(), g, lam),
    figure=lambda ds, experiment: certificates.figure(ds, experiment, "A Gaussian: the certificate against its loops"),
    notes=lambda ds: certificates.notes(ds, experiment),
    annotate=lambda ds, options: certificates.annotate(ds, table()),
    worse="",
    certify=lambda lam: certificate(problem(), lam),
)
