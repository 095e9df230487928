"""The self-correcting toy, clean: a Gaussian, fresh synthetic data every generation, an exact mixture corrector

Paper: Gillman et al. 2402.07087, Appendix D, Figure 5 (without the released script's quirks)
Claim: Correction strength gamma contracts the loop by lam/((1 + lam)(1 + gamma)); more correction, nearer to the truth.
Command: mcloop run gillman/gaussian_toy
Minutes: tiny 0.3, small 0.5, paper 3
Expected: stationary RMS W2, lam .5, n 50: gamma 0 .2965, .1 .2843, .3 .2714, 1 .2467, 2 .2349, 5 .2252 (+-.0007)
"""

from mcloop import correctors, exact, make_loop, regimes
from mcloop.experiment import Experiment, Size
from mcloop.studies.corrected_gaussian import mean_sq_error

# at lam = .5, 50 points in the plane
STATIONARY = {0.0: 0.2965, 0.1: 0.2843, 0.3: 0.2714, 1.0: 0.2467, 2.0: 0.2349, 5.0: 0.2252}


def make(gamma, lam=0.5, n=50, d=2):
    return make_loop(exact.gaussian(d=d, n=n), regimes.augment(lam), correctors.mixture(gamma))


def notes(ds, lam, n, d):
    """RMS W2 over the second half of the generations, beside the value found by 20,000 seeds."""
    said = []
    half = ds["w2"].isel(generation=slice(ds.sizes["generation"] // 2, None))
    for gamma in ds["gamma"].values:
        square = (half.sel(gamma=gamma) ** 2).mean("generation")
        rms = float(square.mean()) ** 0.5
        error = float(square.std(ddof=1)) / square.size**0.5 / (2 * rms)
        known = STATIONARY.get(round(float(gamma), 3)) if (lam, n, d) == (0.5, 50, 2) else None
        beside = f" (reference {known:.4f} +- .0007)" if known else ""
        said.append(f"gamma {gamma:g}: stationary RMS W2 {rms:.4f} +- {error:.4f}{beside}.")
    return said


experiment = Experiment(
    make=make,
    grid={"gamma": [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0]},
    sizes={"tiny": Size(50, 10), "small": Size(4000, 60), "paper": Size(20000, 500)},
    measure=("w2", "mean_sq_error"),
    law=mean_sq_error,
    notes=notes,
    worse="up",
)
