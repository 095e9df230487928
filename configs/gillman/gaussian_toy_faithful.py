"""The self-correcting toy, released: a growing pool and a corrector that cuts tails off, as the script runs them

Paper: Gillman et al. 2402.07087, Appendix D, Figure 5, by the released program
Claim: More correction, smaller W2. True here as well; but gamma = 0 is not "no correction", and lam ends at 120, not .5.
Command: mcloop run gillman/gaussian_toy_faithful
Minutes: tiny 0.4, small 0.5, paper 5
Expected: W2 at script steps 50, 100, 500: gamma 0 .445 .491 .581; .1 .348 .365 .408; 1 .130 .139 .133; 5 .075 .062 .045
"""

from mcloop.experiment import Experiment, Size
from mcloop.studies.gillman_toy import gillman_toy


def make(gamma, n=50, lam=0.5):
    return gillman_toy(gamma, n=n, lam=lam)


def notes(ds, lam):
    pooled = float(ds["effective_lam"].isel(generation=-1).mean())
    said = [f"the effective synthetic : real ratio is {pooled:.3g} at the last generation, for a nominal {lam:g}."]
    steps = [s for s in (50, 100, 500) if s < ds.sizes["generation"]]
    for gamma in ds["gamma"].values if steps else ():
        part = ds["w2"].sel(gamma=gamma)
        shown = [part.sel(generation=s + 1) for s in steps]
        numbers = ", ".join(f"{float(x.mean()):.3f} +- {float(x.std()) / x.size**0.5:.3f}" for x in shown)
        said.append(f"gamma {gamma:g}: W2 at script steps {steps}: {numbers}.")
    return said


experiment = Experiment(
    make=make,
    grid={"gamma": [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0]},
    sizes={"tiny": Size(8, 10), "small": Size(64, 501), "paper": Size(512, 501)},
    measure=("w2", "trace_ratio"),
    notes=notes,
    worse="up",
)
