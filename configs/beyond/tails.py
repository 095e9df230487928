"""Which rare words survive: a Zipf vocabulary that is learned from its own text

Paper: beyond Shumailov et al. 2305.17493 and Dohmatob et al. 2402.07712: the exact law of what is lost
Claim: A word drawn c times is lost g fits later with probability f_g^c, f_(g+1) = exp(f_g - 1); accumulate forgets nothing.
Command: mcloop run beyond/tails
Minutes: tiny 0.8, small 1, paper 4
Expected: 1,000 words, exponent 1, 10,000 tokens, generation 50: 30 % of real text's mass is lost under replace
"""

import numpy as np

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

REGIMES = {
    "replace": regimes.replace(),
    "accumulate": regimes.accumulate(),
    "augment, lam 1": regimes.augment(1.0),
    "window of 5": regimes.window(5),
}


def make(regime, k=1000, n=10000, zipf=1.0):
    return make_loop(exact.categorical(k=k, n=n, zipf=zipf), REGIMES[regime])


def _words(k, zipf):
    p = np.arange(1, k + 1, dtype=float) ** -zipf
    return p / p.sum()


def law(g, regime, k, n, zipf):
    p = _words(int(k), zipf)
    start = 1 - (p**2).sum()
    if regime == "replace":
        lost = {"lost_mass": laws.LAWS["Z1"].value(g, p=p, N=n)} if laws.lost_mass_holds(p, n) else {}
        return lost | {"heterozygosity": start * laws.LAWS["D1"].value(g, n=n)}
    if regime in ("accumulate", "augment, lam 1"):
        # a word that is in the real data is never lost: what is missing is what the first draw missed
        missed = {"lost_mass": laws.lost_mass_accumulate(g, p=p, N=n)}
        return missed | ({"heterozygosity": start * laws.LAWS["D2"].value(g, n=n)} if regime == "accumulate" else {})
    return {}


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES)},
    sizes={
        "tiny": Size(20, 8),
        "small": Size(100, 50),
        "paper": Size(400, 200),
    },
    measure=("lost_mass", "distinct", "heterozygosity"),
    law=law,
    worse="up",
)
