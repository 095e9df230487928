"""What the exact families ask of the user's values: sizes, capacities, and the array that stands for real data."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcloop.checks import check, known, numbers
from mcloop.types import InputError


def check_size(n, least: int = 1) -> None:
    """Raise InputError unless n (where it is known) is a whole number of at least `least` points."""
    check("n", n, f"a whole number >= {least}", lambda v: (v >= least) & (v == np.floor(v)) & np.isfinite(v))


def slots(n, capacity: int | None) -> int:
    """Rows that one draw can hold: `capacity`, or n where that is one known number."""
    if capacity is not None:
        check("capacity", capacity, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
        return int(capacity)
    if known(n) is None or np.ndim(n):
        raise InputError("capacity must be given for a model that keeps rows when n is swept; it is None.")
    return int(n)


def over_cells(tree, axes: int):
    """Every leaf with `axes` more trailing axes of length one."""
    return jax.tree.map(lambda x: jnp.reshape(x, jnp.shape(x) + (1,) * axes), tree)


def as_real(batch: Any):
    """The same points, marked as real data (rows carry weights, statistics a size)."""
    return batch._replace(real=batch.weight if hasattr(batch, "weight") else batch.size)


def points(real, d: int | None, n, centred: bool = True) -> jax.Array:
    """The user's points, float32 (n, d), or (n,) if d is None; shapes are always checked, values where they are known.

    A column that float32 would round away beside its distance from 0 is taken relative to its mean, and a warning says so.

    Args:
        centred: whether such a column may be moved; a family of positive points knows its zero.

    Raises:
        InputError: no numbers, another shape, NaN or infinity, a number of rows other than n, values that float32 cannot hold.
    """
    real = numbers("real", real)
    shape = np.shape(real)
    if d == 1 and len(shape) == 1:
        real, shape = real[:, None], (*shape, 1)
    if len(shape) != (1 if d is None else 2) or (d is not None and shape[1] != d):
        raise InputError(f"real must be an array of shape {'(n,)' if d is None else f'(n, {d})'}, not {list(shape)}.")
    if (size := known(n)) is not None and np.any(size != shape[0]):
        raise InputError(f"n must be the number of real rows, {shape[0]}, not {n}.")
    if (array := known(real)) is None:
        return jnp.asarray(real, jnp.float32)
    return jnp.asarray(_held(finite("real", array.astype(np.float64)), centred), jnp.float32)


def finite(field: str, array: np.ndarray) -> np.ndarray:
    """The same array, or InputError."""
    if not np.isfinite(array).all():
        raise InputError(f"{field} must be finite everywhere, but it holds NaN or infinity.")
    return array


_FAR = 2**10  # spreads from 0 at which float32 leaves 1/16,000 of a spread
_MOST = 1e17  # squares of this still add up in float32


def far(array: np.ndarray) -> np.ndarray:
    """Columns of float64 (n, ...) that float32 would round beside their own spread."""
    spread = array.std(0)
    return (spread > 0) & (np.abs(array.mean(0)) > _FAR * spread)


def _held(array, centred):
    """float64 points as float32 can hold them, their squares included."""
    moved = far(array) if centred and np.abs(array).max(initial=0) < np.sqrt(np.finfo(np.float64).max) else False
    if np.any(moved):
        warnings.warn(
            f"{np.sum(moved)} of real's columns lie further than {_FAR} spreads from 0, where float32 cannot tell their points "
            "apart: they are taken relative to their means, in everything that is fitted, drawn and measured.",
            stacklevel=2,
        )
        array = array - np.where(moved, array.mean(0), 0.0)
    check_held("real", array)
    return array


def check_held(field: str, array: np.ndarray) -> None:
    """Raise InputError where float32 cannot hold the squares of these float64 values."""
    largest = np.abs(array).max(initial=0.0)
    if largest > _MOST or 0 < largest < 1 / _MOST:
        raise InputError(
            f"{field} must lie between {1 / _MOST:.0e} and {_MOST:.0e} in size, whose squares float32 holds, and its largest "
            f"value is {largest:.3g}: give it in another unit."
        )
