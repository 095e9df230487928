"""The data or their number: replace with as many points as accumulate has

Paper: Gerstgrasser et al. 2404.01413, the replace-multiple control; Kazdan et al. 2410.16713
Claim: Growing the synthetic set like accumulate's (n_t = n t) slows collapse from linear to logarithmic, and does not stop it.
Command: mcloop run gerstgrasser/replace_multiple
Minutes: tiny 0.2, small 0.4, paper 2
Expected: n = 20: E trace ratio at generation 100 is .006 replace, .77 replace-multiple, .92 accumulate
"""

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

REGIMES = {
    "replace": regimes.replace(),
    "replace_multiple": regimes.replace_multiple(),
    "accumulate": regimes.accumulate(),
}
LAW = {"replace": ("G1", "G2"), "accumulate": ("A1", "A2")}


def make(regime, n=20, d=1):
    return make_loop(exact.gaussian(d=d, n=n), REGIMES[regime])


def law(g, regime, n, d):
    if regime in LAW:
        spread, mean = (laws.LAWS[i].value(g, n=n) for i in LAW[regime])
        return {"trace_ratio": spread, "mean_sq_error": d * mean}
    spread = laws.LAWS["A5"].value(g, n=n)
    return {"trace_ratio": spread, "mean_sq_error": d * (1 - spread)}


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES)},
    sizes={"tiny": Size(50, 10), "small": Size(4000, 100), "paper": Size(40000, 1000)},
    measure=("trace_ratio", "mean_sq_error"),
    law=law,
)
