"""Eight Gaussians, retrained on their own samples by a DDPM, an EDM, an OT-CFM and a normalizing flow

Paper: Bertrand et al. 2310.00429, section 5 and figure 2
Claim: Retrained on its own samples alone a model drifts away from the data; with real data and a small share of synthetic
    data in every generation it does not. The paper shows pictures; here are numbers, seeds, a likelihood and |theta - theta*|.
Command: mcloop run bertrand/toy_2d_eight_gaussians
Minutes: tiny 1, small 10, paper 240
Expected: sliced W2 at generation 12 of 6 seeds is .82 (DDPM), 1.51 (EDM), .62 (OT-CFM) and .64 (flow) at lam = inf;
    .39 to .48 at lam = 0 and 0.1, which are not told apart; .36 for true points
"""

from functools import cache

import numpy as np

from mcloop import make_loop, regimes
from mcloop.data.toys import eight_gaussians
from mcloop.experiment import Experiment, Size
from mcloop.models.training import cosine, training
from mcloop.studies.toys import FAMILIES, annotate, toy_model

TOY = eight_gaussians()


def make(family, lam, n=1000, most=1000, first=3000, later=300, width=64, samples=1000):
    """One loop: `n` real points, at most `most` synthetic ones, `first` and then `later` steps."""
    return make_loop(model(family, n, most, first, later, width, samples), regimes.augment(lam))


@cache
def model(family, n, most, first, later, width, samples):
    # exact transport in a minibatch costs more than the network: its batches are smaller
    batch = 64 if family == "ot_cfm" else 128
    spec = training(first, later, rate=cosine(5e-3, 1e-5), later_rate=1e-3, batch=batch, ema=0.995)
    return toy_model(family, TOY, spec, n, capacity=max(n, most), width=width, samples=samples)


TINY = {"n": 50, "most": 50, "first": 5, "later": 2, "width": 8, "samples": 50}

experiment = Experiment(
    make=make,
    grid={"family": list(FAMILIES), "lam": [0.0, 0.1, 0.5, 1.0, np.inf]},
    sizes={
        "tiny": Size(2, 2, {"family": ["edm"], "lam": [0.0, np.inf]}, TINY),
        "small": Size(6, 12),
        "paper": Size(
            16,
            21,
            {"lam": [0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, np.inf]},
            {"n": 5000, "most": 5000, "first": 20000, "later": 2000, "width": 128, "samples": 5000},
        ),
    },
    measure=("sliced_w2", "mmd2", "high_quality", "nll", "field_distance", "param_distance"),
    worse="up",
    neural=True,
    annotate=lambda ds, options: annotate(ds, TOY, options.get("samples", 1000)),
)
