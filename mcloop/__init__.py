"""mcloop: self-consuming generative loops in JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcloop import correctors, exact, regimes
    from mcloop.certificates.boundary import boundary
    from mcloop.certificates.verdict import certify
    from mcloop.drivers.scan import scan
    from mcloop.drivers.sweep import sweep
    from mcloop.drivers.train import train
    from mcloop.errors import InputError
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
    "InputError": "mcloop.errors",
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
