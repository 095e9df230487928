"""Three regimes on a Gaussian: replace, accumulate, accumulate-subsample, against the published runs

Paper: Kazdan et al. 2410.16713 (Gaussian part), the authors' released results over about 100 runs
Claim: Replace collapses, accumulate does not, and a fixed budget drawn from all that was accumulated lies between.
Command: mcloop run kazdan/gaussian_regimes
Minutes: tiny 0.4, small 2, paper 15
Expected: published trace ratios, n = 10, generation 50: .0033 replace, .877 accumulate; n = 100, 100: .309 and .997
"""

import numpy as np

from mcloop import exact, laws, make_loop, regimes
from mcloop.experiment import Experiment, Size

REGIMES = {
    "replace": regimes.replace(),
    "accumulate": regimes.accumulate(),
    "accumulate_subsample": regimes.accumulate_subsample(),
}
# regime, n -> {iteration: (mean trace ratio, mean squared error of the mean)} in the released results; their iteration
# counts fits, as our generation does
PUBLISHED = {
    ("replace", 10): {1: (0.964, 0.108), 10: (0.301, 0.541), 50: (0.0033, 0.941)},
    ("replace", 100): {1: (0.991, 0.009), 10: (0.891, 0.094), 50: (0.579, 0.339), 100: (0.309, 0.584)},
    ("accumulate", 10): {1: (0.967, 0.101), 10: (0.874, 0.145), 50: (0.877, 0.160), 100: (0.873, 0.158)},
    ("accumulate", 100): {1: (0.997, 0.009), 10: (0.994, 0.015), 50: (0.996, 0.016), 100: (0.997, 0.016)},
}


def make(regime, n, d=1):
    literal = regime == "accumulate_subsample"
    return make_loop(exact.gaussian(d=d, n=n, literal=literal, capacity=100 if literal else None), REGIMES[regime])


def law(g, regime, n, d):
    if regime == "accumulate_subsample":
        mean = d * np.asarray(laws.LAWS["A3"].value(g, n=int(n)))
        return {"mean_sq_error": mean, "trace_ratio": 1 - mean / d}
    spread, mean = (laws.LAWS[i].value(g, n=n) for i in {"replace": ("G1", "G2"), "accumulate": ("A1", "A2")}[regime])
    return {"trace_ratio": spread, "mean_sq_error": d * mean}


def notes(ds, d):
    """z of each published mean against ours, its error taken from the spread of our seeds over 100 runs."""
    said, seen = [], []
    if d != 1:
        return ["The published runs are in one dimension."]
    for (regime, n), rows in PUBLISHED.items():
        if n not in ds["n"].values or regime not in ds["regime"].values:
            continue
        for iteration, published in rows.items():
            if iteration > ds.sizes["generation"]:
                continue
            here = ds.sel(regime=regime, n=n, generation=iteration)
            for name, value in zip(("trace_ratio", "mean_sq_error"), published, strict=True):
                spread = float(here[name].std("seed")) / 100**0.5
                if spread > 0:
                    seen.append((value - float(here[name].mean())) / spread)
    if seen:
        worst = max(seen, key=abs)
        said.append(
            f"{len(seen)} published means against ours: the largest |z| is {abs(worst):.1f}, the root mean square "
            f"{np.sqrt(np.mean(np.square(seen))):.2f} (about 1 if both draw from the same law; theirs are 100 runs)."
        )
    return said


experiment = Experiment(
    make=make,
    grid={"regime": list(REGIMES), "n": [10, 100]},
    sizes={"tiny": Size(50, 10), "small": Size(400, 100), "paper": Size(4000, 100)},
    measure=("trace_ratio", "mean_sq_error"),
    law=law,
    notes=notes,
)
