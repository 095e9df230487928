"""An unbiased Gaussian collapses: fully synthetic, the mean of its variance stays, and the model dies

Paper: Bertrand et al. 2310.00429, Section 2.2 and Proposition 1
Claim: With 1/(n-1) the expected variance never moves, and yet E sqrt(S_g) = alpha^g: every run collapses.
Command: mcloop run bertrand/gaussian_collapse
Minutes: tiny 0.2, small 0.5, paper 2
Expected: n = 10, d = 1: mean log trace ratio falls by psi(4.5) - log(4.5) = -.115 a generation (law G6)
"""

import numpy as np

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size


def make(n, d=1):
    return make_loop(exact.gaussian(d=d, n=n, ddof=1), regimes.replace())


def law(g, n, d):
    mean = {"mean_sq_error": d * laws.LAWS["G7"].value(g, n=n)}
    # n points or fewer in d dimensions enclose no volume
    return mean | {"log_det": laws.LAWS["G8"].value(g, n=n, d=d)} if n > d else mean


def notes(ds, d):
    said = []
    for n in ds["n"].values:
        last = ds["log_det"].sel(n=n).isel(generation=-1).mean("seed").item()
        died = float((ds["trace_ratio"].sel(n=n).isel(generation=-1) < 0.01).mean())
        typical = np.exp(last / d)  # the determinant is a product of d variances
        said.append(
            f"n {n:g}: the typical variance is {typical:.2g} of the true one; {100 * died:.0f} % of runs lost 99 % of it."
        )
    return said


experiment = Experiment(
    make=make,
    grid={"n": [10, 30, 100]},
    sizes={"tiny": Size(50, 10), "small": Size(4000, 200), "paper": Size(40000, 1000)},
    measure=("log_det", "trace_ratio", "mean_sq_error"),
    law=law,
    notes=notes,
    worse="log",
)
