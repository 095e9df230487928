"""Values that a user gives: refused in one sentence where they are not allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer

from mcloop.errors import InputError


def known(value) -> np.ndarray | None:
    """The value as NumPy, or None while it is being traced (its concrete values were checked before tracing)."""
    return None if isinstance(value, Tracer) else np.asarray(value)


def check(field: str, value, allowed: str, test: Callable[[np.ndarray], Any]) -> None:
    """Raise InputError unless `test` holds for every (known) entry of `value`."""
    array = known(value)
    if array is None:
        return
    if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array) | np.isposinf(array)) or not np.all(test(array)):
        shown = array.item() if array.ndim == 0 else array.tolist()
        raise InputError(f"{field} must be {allowed}, not {shown!r}.")


def whole(name: str, value, low: int, high: int) -> int:
    """A whole number from `low` to `high`, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(value)


def check_seed(value, name: str = "seed") -> int:
    """A root of random numbers, or InputError: of a larger number than these JAX would take what is left of it by 2^32."""
    return whole(name, value, 0, 2**32 - 1)
