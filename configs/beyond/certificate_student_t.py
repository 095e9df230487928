"""Certificate of a wrong model: a Student-t that is fitted to data with two humps

Paper: beyond Bertrand et al. 2310.00429, Theorem 1, and Gillman et al. 2402.07087, Theorem 4.3
Claim: Where the model cannot fit the data the rate is lam mu/(1 + lam mu) with mu no longer one; the loop is stable at every
    lam, and the papers' bound, with its constants estimated, guarantees nothing from lam = .13 on.
Command: mcloop run beyond/certificate_student_t
Minutes: tiny 0.5, small 1.5, paper 60
Expected: mu = 1.17; certified and measured rates within 1 %
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mcloop import exact
from mcloop.certificates.certificate import certificate
from mcloop.certificates.stability import Weighted, likelihood
from mcloop.exact.student_t import Mixture, StudentT, log_prob
from mcloop.experiment import Experiment, Size
from mcloop.studies import certificates

LAMS = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0]
NU = 5.0
HUMPS = Mixture(weight=(0.6, 0.4), mean=(-1.0, 2.0), std=(0.5, 1.0))


@cache
def problem():
    """Expectations over the data by Gauss-Hermite quadrature, over the model by Gauss-Legendre in its quantiles."""
    with jax.ensure_compile_time_eval():
        u, w = np.polynomial.legendre.leggauss(400)
        nodes = jnp.asarray(stats.t.ppf((u + 1) / 2, NU), jnp.float32)
        weight = jnp.asarray(w / 2, jnp.float32)
        best = exact.student_t(100, NU, HUMPS).observe(jax.random.key(0), None)[1]
        data = Weighted(*(jnp.asarray(v, jnp.float32) for v in HUMPS.nodes()))
        return likelihood(
            lambda params, x: log_prob(params, x, NU),
            StudentT(*best),
            data,
            lambda params: Weighted(params.loc + jnp.exp(params.log_scale) * nodes, weight),
        )


@cache
def table():
    with jax.ensure_compile_time_eval():
        return certificates.tabulate(problem(), LAMS)


def make(lam, n=1000, most=5000):
    return certificates.loop(exact.student_t(n, NU, HUMPS, capacity=most), table(), lam, step=0.05)


experiment = Experiment(
    make=make,
    grid={"lam": LAMS},
    sizes={
        "tiny": Size(50, 4, {"lam": [0.5, 2.0]}, {"n": 100, "most": 200}),
        "small": Size(1000, 5),
        "paper": Size(10_000, 8, options={"n": 2000, "most": 10_000}),
    },
    measure=("gap",),
    law=lambda g, lam: certificates.law(table(), g, lam),
    figure=lambda ds, experiment: certificates.figure(
        ds, experiment, "A Student-t on data with two humps: misspecified, and stable"
    ),
    notes=lambda ds: certificates.notes(ds, experiment),
    annotate=lambda ds, options: certificates.annotate(ds, table()),
    worse="",
    certify=lambda lam: certificate(problem(), lam),
)
