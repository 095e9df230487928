"""Values that a user gives, and a JAX that cannot compute: refused in one sentence where they are not allowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mcloop.errors import InputError
from mcloop.errors import not_forked as not_forked


def known(value) -> np.ndarray | None:
    """The value as NumPy, or None while it is being traced (its concrete values were checked before tracing)."""
    not_forked()  # here, since every part asks before it computes anything
    return None if isinstance(value, Tracer) else np.asarray(value)


def check(field: str, value, allowed: str, test: Callable[[np.ndarray], Any]) -> None:
    """Raise InputError unless `test` holds for every (known) entry of `value`."""
    array = known(value)
    if array is None:
        return
    if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array) | np.isposinf(array)) or not np.all(test(array)):
        shown = array.item() if array.ndim == 0 else array.tolist()
        raise InputError(f"{field} must be {allowed}, not {shown!r}.")


def detached(real: Any) -> Any:
    """The same data with tensors of PyTorch, whatever gradients, device or width they have, as NumPy arrays."""

    def one(value):
        if not callable(getattr(value, "detach", None)):
            return value
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()  # which NumPy has no name for

    return jax.tree.map(one, real)


def numbers(field: str, value) -> np.ndarray:
    """Real numbers, whole or not, from whatever `np.asarray` takes; a value that is being traced is left as it is.

    Raises:
        InputError: no numbers, complex ones, masked or missing values.
    """
    if isinstance(value, Tracer):
        return value  # type: ignore[return-value]
    if np.ma.is_masked(value):
        raise InputError(f"{field} must be known everywhere, but {np.ma.count_masked(value)} of its values are masked.")
    try:
        array = np.asarray(detached(value))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{field} must be an array that NumPy can read, not {type(value).__name__}.") from None
    try:
        if array.dtype.kind == "O":  # nullable columns, Decimals: by their values
            array = np.array(array.tolist())
            array = array.astype(np.float64) if array.dtype.kind == "O" else array
        if jnp.issubdtype(array.dtype, np.floating) and array.dtype.kind != "f":  # bfloat16 and its kin
            array = array.astype(np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{field} must be an array of numbers, and {type(value).__name__} holds something else.") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{field} must be an array of real numbers, not of {array.dtype}.")
    return array


def whole(name: str, value, low: int, high: int) -> int:
    """A whole number from `low` to `high`, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(value)


def check_seed(value, name: str = "seed") -> int:
    """A root of random numbers, or InputError: of a larger number than these JAX would take what is left of it by 2^32."""
    return whole(name, value, 0, 2**32 - 1)


def ready() -> None:
    """Raise InputError where JAX cannot compute as it is set up, so that nothing else is blamed for it."""
    not_forked()
    asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms
    try:
        jax.devices()
    except Exception as error:
        which = f"JAX_PLATFORMS asks for {asked!r}, which" if asked else "JAX's accelerator"
        cure = "unset it, or set it to cpu" if asked else "set JAX_PLATFORMS to cpu"
        raise InputError(f"{which} does not work on this machine; {cure}.") from error
    if (found := jax.config.jax_default_prng_impl) != "threefry2x32":  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(f"JAX_DEFAULT_PRNG_IMPL must be threefry2x32 (the default), not {found}: unset it.")
