"""Regression on its own labels: the test error grows linearly under replace, and stops at pi^2/6 under accumulate

Paper: Gerstgrasser et al. 2404.01413, Theorem 2 and Figure 2
Claim: Replace: g sigma^2 d/(T - d - 1); accumulate on the same design: sigma^2 d/(T - d - 1) (1 + 1/4 + ... + 1/g^2).
Command: mcloop run gerstgrasser/linear_regression
Minutes: tiny 0.6, small 1, paper 10
Expected: d = 10, T = 100, sigma 1, generation 100: 11.2 under replace, .184 under accumulate
"""

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

REGIMES = {"replace": (regimes.replace(), "L1"), "accumulate": (regimes.accumulate(), "L2")}


def make(regime, d, n, noise=1.0):
    return make_loop(exact.linear_regression(d=d, n=n, noise=noise), REGIMES[regime][0])


def law(g, regime, d, n, noise):
    if n < d + 2:  # the error has no mean
        return {}
    return {"test_error": laws.LAWS[REGIMES[regime][1]].value(g, T=int(n), d=int(d), sigma2=noise**2)}


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES), "d": [10], "n": [32, 100, 316], "noise": [1.0]},
    sizes={
        "tiny": Size(100, 10, {"n": [100]}),
        "small": Size(1000, 100),
        "paper": Size(1000, 100, {"d": [1, 3, 10, 32], "n": [100, 316, 1000], "noise": [0.1**0.5, 1.0, 10**0.5]}),
    },
    measure=("test_error",),
    law=law,
    worse="up",
)
