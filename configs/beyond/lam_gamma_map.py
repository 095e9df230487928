"""Synthetic data and correction: how much of either, in a phase map of the Gaussian loop

Paper: beyond Bertrand et al. 2310.00429 and Gillman et al. 2402.07087, which run one cell at a time
Claim: The error of the mean rises by (1 + 3 lam)/(1 + 2 lam) at gamma 0, never more than 3/2; correction takes it below 1.
Command: mcloop run beyond/lam_gamma_map
Minutes: tiny 0.3, small 1, paper 6
Expected: relative error 1.33 at lam 1, gamma 0; the dashed line, where synthetic data stops doing harm, at gamma .24 for lam 1
"""

import numpy as np

from mcloop import correctors, exact, make_loop, regimes
from mcloop.experiment import Experiment, Size
from mcloop.report import plots
from mcloop.studies.corrected_gaussian import mean_sq_error


def make(lam, gamma, n=100, d=1):
    return make_loop(exact.gaussian(d=d, n=n), regimes.augment(lam), correctors.mixture(gamma))


def figure(ds, experiment, n, d):
    alone = d / n  # the error of real data only
    relative = ds["mean_sq_error"] / alone
    relative.attrs = {"long_name": "squared error of the mean, relative to real data only", "units": "1"}
    shown = ds.assign(relative_error=relative)

    def excess(lam, gamma):
        last = np.array([100])
        values = [
            float(np.ravel(mean_sq_error(last, x, y, n, d)["mean_sq_error"])[0]) / alone - 1
            for x, y in zip(lam.flat, gamma.flat, strict=True)
        ]
        return np.reshape(values, lam.shape)

    title = "Fixed real data + lam synthetic, corrected with strength gamma"
    contours = ("theory: as good as real data only", excess)
    return {"map": plots.phase_map(shown, "relative_error", "lam", "gamma", title, log=False, contours=contours)}


experiment = Experiment(
    make=make,
    grid={"lam": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20], "gamma": [0, 0.1, 0.2, 0.5, 1, 2, 5]},
    sizes={
        "tiny": Size(50, 10, {"lam": [0.5, 1], "gamma": [0, 1]}),
        "small": Size(4000, 60),
        "paper": Size(20000, 100, {"lam": list(np.geomspace(0.05, 50, 25)), "gamma": [0, *np.geomspace(0.03, 10, 24)]}),
    },
    measure=("mean_sq_error", "trace_ratio"),
    law=mean_sq_error,
    reduce=("mean", "sem", "q05", "q95"),
    figure=figure,
    worse="up",
)
