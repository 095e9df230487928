"""mcloop: self-consuming generative loops in JAX.

make_loop      a loop from a model, a regime and a corrector
scan           one loop, compiled
sweep          a grid of closed-form loops and seeds, as an xarray.Dataset
train          the same for networks, with a checkpoint for every generation
external       a model of a loop from a generator of your own
Monitor        batches of a loop that runs elsewhere, watched: whether its generator has changed
plot           a measure of such a Dataset by generation, theory dashed
certify        the exact rate at which a loop forgets a perturbation
boundary       where on an axis a loop becomes unstable, by simulation
plan           how much synthetic data is safe
validate       every law against its simulation
regimes, correctors, exact      what loops are made of
InputError     what is raised where an argument cannot be used

`help(mcloop.sweep)` says more of each; `mcloop list` at the shell shows the experiments.

Glossary
    loop          a model that is trained, generation after generation, on data that it generated itself
    generation    one round of it: sample, correct, pool, fit; generation 1 is the fit on real data
    fit           the training of one generation; a run of g generations has g fits
    regime        what is remembered from one generation to the next, and trained on
    corrector     what is done to synthetic data before it is trained on
    lam           synthetic : real, in points; inf is fully synthetic
    cell          one point of a grid of settings; every cell is run for the same seeds
    arm           a cell whose setting is a whole way to run the loop, and not a number
    seed          a replica; the same seed has the same random numbers in every cell
    measure       a number that is seen of every generation
    law           a closed form of a measure's expectation; a certificate is a loop's exact local rate
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mcloop.errors import InputError

if TYPE_CHECKING:
    from mcloop import correctors, exact, regimes
    from mcloop.certificates.boundary import boundary
    from mcloop.certificates.verdict import certify
    from mcloop.drivers.scan import scan
    from mcloop.drivers.sweep import sweep
    from mcloop.drivers.train import train
    from mcloop.loop import make_loop
    from mcloop.own.external import external
    from mcloop.own.monitor import Monitor
    from mcloop.planner.plan import plan
    from mcloop.report.plot import plot
    from mcloop.validation.validate import validate

__all__ = [
    "InputError",
    "Monitor",
    "boundary",
    "certify",
    "correctors",
    "exact",
    "external",
    "make_loop",
    "plan",
    "plot",
    "regimes",
    "scan",
    "sweep",
    "train",
    "validate",
]

_WHERE = {
    "Monitor": "mcloop.own.monitor",
    "boundary": "mcloop.certificates.boundary",
    "certify": "mcloop.certificates.verdict",
    "external": "mcloop.own.external",
    "make_loop": "mcloop.loop",
    "plan": "mcloop.planner.plan",
    "plot": "mcloop.report.plot",
    "scan": "mcloop.drivers.scan",
    "sweep": "mcloop.drivers.sweep",
    "train": "mcloop.drivers.train",
    "validate": "mcloop.validation.validate",
}


def __getattr__(name: str) -> Any:
    # imported on first use: `mcloop --help` must not wait for JAX
    if name == "__version__":
        from importlib import metadata

        return metadata.version("mcloop")
    if name == "plots":  # a module of `report`, which is where one looks for it
        return import_module("mcloop.report.plots")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in __all__:
        return import_module(f"mcloop.{name}")
    raise AttributeError(f"module 'mcloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "plots"})
