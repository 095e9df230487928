"""mcloop: self-consuming generative loops in JAX.

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
    from mcloop.planner.plan import plan
    from mcloop.validation.validate import validate

__all__ = [
    "InputError",
    "boundary",
    "certify",
    "correctors",
    "exact",
    "make_loop",
    "plan",
    "regimes",
    "scan",
    "sweep",
    "train",
    "validate",
]

_WHERE = {
    "boundary": "mcloop.certificates.boundary",
    "certify": "mcloop.certificates.verdict",
    "make_loop": "mcloop.loop",
    "plan": "mcloop.planner.plan",
    "scan": "mcloop.drivers.scan",
    "sweep": "mcloop.drivers.sweep",
    "train": "mcloop.drivers.train",
    "validate": "mcloop.validation.validate",
}


def __getattr__(name: str) -> Any:
    # imported on first use: `mcloop --help` must not wait for JAX
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in __all__:
        return import_module(f"mcloop.{name}")
    raise AttributeError(f"module 'mcloop' has no attribute {name!r}")
