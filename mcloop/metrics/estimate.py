"""What the metrics of samples share: features as they must be, an estimate with its error, and a shuffle by key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mcloop.errors import InputError
from mcloop.random import as_key


class Estimate(NamedTuple):
    """A number and its standard error, both in the unit of the metric."""

    value: float
    error: float


def features(name: str, x, least: int = 2) -> np.ndarray:
    """Features as float64, shape (n, d).

    Raises:
        InputError: another number of axes, fewer than `least` rows, no column, a value that is no finite number.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] < least or x.shape[1] < 1 or x.dtype.kind not in "fiub":
        raise InputError(f"{name} must be numbers of shape (n, d) with n >= {least}, not {x.dtype} of shape {x.shape}.")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise InputError(f"{name} must be finite; {np.count_nonzero(~np.isfinite(x).all(1))} of {len(x)} rows are not.")
    return x


def pair(a, b, names: tuple[str, str], least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features in the same space."""
    a, b = features(names[0], a, least), features(names[1], b, least)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"{names[0]} and {names[1]} must have the same number of columns, not {a.shape[1]} and {b.shape[1]}.")
    return a, b


def permutation(key, n: int) -> np.ndarray:
    """An order of n rows, drawn by a JAX key: NumPy's generator on the key's words, which compiles nothing."""
    return np.random.default_rng(np.asarray(jax.random.key_data(as_key(key)))).permutation(n)
