"""What the exact families ask of the user's values: sizes, capacities, and the array that stands for real data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcloop.checks import check, known
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


def points(real, d: int | None, n) -> jax.Array:
    """The user's points, float32 (n, d), or (n,) if d is None; shapes are always checked, values where they are known.

    Raises:
        InputError: another shape, NaN or infinity, a number of rows other than n.
    """
    shape = np.shape(real)
    if d == 1 and len(shape) == 1:
        real, shape = jnp.asarray(real)[:, None] if known(real) is None else np.asarray(real)[:, None], (*shape, 1)
    if len(shape) != (1 if d is None else 2) or (d is not None and shape[1] != d):
        raise InputError(f"real must be an array of shape {'(n,)' if d is None else f'(n, {d})'}, not {list(shape)}.")
    if (size := known(n)) is not None and np.any(size != shape[0]):
        raise InputError(f"n must be the number of real rows, {shape[0]}, not {n}.")
    if (array := known(real)) is not None and not np.isfinite(array.astype(float)).all():
        raise InputError("real must be finite everywhere, but it holds NaN or infinity.")
    return jnp.asarray(real, jnp.float32)
