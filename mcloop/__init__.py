"""mcloop: self-consuming generative loops in JAX."""

from mcloop import correctors, exact, regimes
from mcloop.loop import make_loop
from mcloop.run import scan
from mcloop.sweep import sweep
from mcloop.types import InputError

__all__ = ["InputError", "correctors", "exact", "make_loop", "regimes", "scan", "sweep"]
