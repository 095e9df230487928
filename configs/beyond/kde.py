"""A kernel density diffuses: on its own samples by h^2 a generation, or by h^2 log g if everything is kept

Paper: beyond the three papers: laws K1 and K2, the opposite of collapse
Claim: The second moment is sigma^2 + g h^2 under replace and sigma^2 + h^2 (1 + 1/2 + ... + 1/g) under accumulate.
Command: mcloop run beyond/kde
Minutes: tiny 0.3, small 0.5, paper 6
Expected: h = .3, generation 30: 3.7 under replace, 1.36 under accumulate
"""

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

REGIMES = {"replace": (regimes.replace(), "K1"), "accumulate": (regimes.accumulate(), "K2")}


def make(regime, bandwidth, n=50):
    return make_loop(exact.kde(d=1, n=n, bandwidth=bandwidth), REGIMES[regime][0])


def law(g, regime, bandwidth):
    return {"second_moment": laws.LAWS[REGIMES[regime][1]].value(g, h=bandwidth)}


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES), "bandwidth": [0.1, 0.3]},
    sizes={"tiny": Size(50, 8), "small": Size(1000, 30), "paper": Size(4000, 100)},
    measure=("second_moment", "mean_sq_error"),
    law=law,
    worse="up",
)
