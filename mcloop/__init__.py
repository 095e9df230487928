"""mcloop: self-consuming generative loops in JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcloop import correctors, exact, regimes
    from mcloop.errors import InputError
    from mcloop.grids import sweep
    from mcloop.loop import make_loop
    from mcloop.neural import train
    from mcloop.run import scan
    from mcloop.theory.boundary import boundary
    from mcloop.theory.planner import plan
    from mcloop.theory.validate import validate
    from mcloop.verdicts import certify

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
    "InputError": "mcloop.errors",
    "boundary": "mcloop.theory.boundary",
    "certify": "mcloop.verdicts",
    "make_loop": "mcloop.loop",
    "plan": "mcloop.theory.planner",
    "scan": "mcloop.run",
    "sweep": "mcloop.grids",
    "train": "mcloop.neural",
    "validate": "mcloop.theory.validate",
}


def __getattr__(name: str) -> Any:
    # imported on first use: `mcloop --help` must not wait for JAX
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in __all__:
        return import_module(f"mcloop.{name}")
    raise AttributeError(f"module 'mcloop' has no attribute {name!r}")
