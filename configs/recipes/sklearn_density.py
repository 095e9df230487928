"""scikit-learn's densities: a mixture and a kernel density, fitted on their own digits (a recipe)

Paper: beyond the papers; GaussianMixture and KernelDensity of scikit-learn, as they are
Claim: Fitted on its own points alone, a mixture loses variance, first along its narrowest axis, while a kernel density, which
    widens its points by its bandwidth in every draw, gains it; where the real points are kept, both stay near.
Command: mcloop run recipes/sklearn_density
Minutes: tiny 1, small 5, paper 60
Expected: with 2 seeds, after 8 generations of replace the mixture's narrowest axis has kept .70 of its variance (real points
    drawn again: .90), and the kernel density has 1.35 times the real variance and a precision of .34; both first fits are good
"""

from typing import Any

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from mcloop import make_loop, regimes
from mcloop.experiment import Accept, Experiment, Size, once
from mcloop.own.external import external
from mcloop.own.floor import with_floor

ARMS = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(1.0)}


@once
def digits(count, dims):
    """The first `count` digits along their first principal components, each of which has variance one."""
    found: Any = load_digits()
    return PCA(int(dims), whiten=True, random_state=0).fit_transform(found.data)[: int(count)]


@once
def model(generator, count, dims, components, bandwidth):
    made = {
        "mixture": lambda: GaussianMixture(components, reg_covar=1e-4),
        "kernel density": lambda: KernelDensity(bandwidth=bandwidth),
    }
    return external(made[generator], digits(count, dims))


def make(generator, arm, count=1797, dims=8, components=10, bandwidth=0.2):
    """One loop.

    Args:
        generator: "mixture" or "kernel density".
        arm: one of ARMS; augment keeps as many real points as there are synthetic ones.
        count: real digits, at most 1,797.
        dims: principal components.
        components: of the mixture.
        bandwidth: of the kernel density, in standard deviations of a component.
    """
    return make_loop(model(generator, count, dims, components, bandwidth), ARMS[arm])


def annotate(ds, options):
    return with_floor(ds, digits(options["count"], options["dims"]))


experiment = Experiment(
    make=make,
    grid={"generator": ["mixture", "kernel density"], "arm": list(ARMS)},
    sizes={
        "tiny": Size(2, 3, options={"count": 100, "components": 2}),
        "small": Size(4, 8),
        "paper": Size(20, 30, {"components": [10, 50]}),
    },
    measure=("frechet", "variance_kept", "narrowest", "precision", "recall"),
    annotate=annotate,
    worse="up",
    neural=True,
    quick=True,
    gate={"frechet": Accept(0.1, 0.3)},
)
