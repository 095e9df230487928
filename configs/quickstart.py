"""Four fates of a Gaussian: replace, accumulate, augment or correct, where it eats its own samples

Paper: Gerstgrasser et al. 2404.01413; Bertrand et al. 2310.00429; Gillman et al. 2402.07087
Claim: A model trained only on its own samples loses its variance; keep the data and it does not, and a corrector helps.
Command: mcloop run quickstart
Minutes: tiny 0.6, small 0.7, paper 1
Expected: E tr S_g / tr S_0 is (1 - 1/20)^60 = .046 under replace at generation 60, and .92 under accumulate
"""

import numpy as np

from mcloop import correctors, exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

ARMS = {
    "replace": (regimes.replace(), correctors.none()),
    "accumulate": (regimes.accumulate(), correctors.none()),
    "augment, lam 1": (regimes.augment(1.0), correctors.none()),
    "augment, lam 1, corrected (gamma 1)": (regimes.augment(1.0), correctors.mixture(1.0)),
}


def make(regime, n=20):
    return make_loop(exact.gaussian(d=2, n=n), *ARMS[regime])


def law(g, regime, n):
    if regime == "replace":
        spread, mean = laws.LAWS["G1"].value(g, n=n), laws.LAWS["G2"].value(g, n=n)
    elif regime == "accumulate":
        spread, mean = laws.LAWS["A1"].value(g, n=n), laws.LAWS["A2"].value(g, n=n)
    elif "corrected" in regime:
        return {"mean_sq_error": 2 * laws.LAWS["B5"].value(g, n=n, m=n, gamma=1.0)}
    else:
        mean = laws.LAWS["B1"].value(g, n=n, m=n)
        spread = 1 - mean  # conservation: what the mean gains, the covariance loses
    return {"trace_ratio": spread, "mean_sq_error": 2 * np.asarray(mean)}


experiment = Experiment(
    make=make,
    grid={"regime": list(ARMS)},
    sizes={"tiny": Size(50, 10), "small": Size(4000, 60), "paper": Size(20000, 200)},
    measure=("trace_ratio", "mean_sq_error"),
    law=law,
)
