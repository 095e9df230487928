"""What the rows of a linear regression are: drawn once and re-used, drawn afresh, or the user's own table."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random
from mcloop.checks import known
from mcloop.exact import factors
from mcloop.types import InputError

NOISE = 2**16  # the stream of the labels' noise, beside a Bartlett factor's


class Setting(NamedTuple):
    """What every generation of a regression shares.

    Attributes:
        noise: standard deviation of the labels, () or (*cells,).
        design: what is re-used: `Bands`, the root of X^T X (d, d, *cells), the rows X (n, d, *cells), or () if nothing is.
        norm: root of the matrix in whose norm errors are measured: (d, *cells) if it is diagonal, else (d, d, *cells).
        held_out: root (d + 1, d + 1, *cells) of the second moments of held-out rows (x, y - x.w*), or () without any.
    """

    noise: Any
    design: Any
    norm: Any
    held_out: Any = ()


class Bands(NamedTuple):
    """An upper bidiagonal B through 1 / diagonal and superdiagonal / diagonal (0 in the last place), each (d, *cells)."""

    inverse: jax.Array
    ratio: jax.Array


def draw_bands(key: jax.Array, d: int, n) -> Bands:
    """The bidiagonal factor of an (n, d) standard normal design, n >= d: 2 d - 1 independent chi variates.

    Householder reflections from both sides leave chi_n, ..., chi_{n-d+1} on the diagonal and chi_{d-1}, ..., chi_1 above it
    (Golub & Kahan 1965; Silverstein 1985; Dumitriu & Edelman 2002).
    """
    place = jnp.arange(d, dtype=jnp.float32).reshape((d,) + (1,) * key.ndim)
    diagonal = jnp.sqrt(random.chi_square(random.fold_in(key, 0), n - place, (d,)))
    above = jnp.sqrt(random.chi_square(random.fold_in(key, 1), d - 1 - place, (d,)))
    return Bands(1 / diagonal, above / diagonal)


def squared_solution(bands: Bands, score: jax.Array) -> jax.Array:
    """||B^-1 score||^2, shape (*cells,), by back substitution: a scan over d whose every step is one row of cells."""

    def step(carry, row):
        x, squares = carry
        s, inverse, ratio = row
        x = s * inverse - ratio * x
        return (x, squares + x * x), None

    rows = (score, *bands)
    start = jnp.zeros(jnp.broadcast_shapes(*(r.shape[1:] for r in rows)), score.dtype)
    return lax.scan(step, (start, start), rows, reverse=True)[0][1]


def copies(count, n):
    """Copies of the design in a draw of `count` labels: whole, or InputError where it is known and NaN where it is not."""
    a, b = known(count), known(n)
    if a is not None and b is not None and np.any(np.abs(a / b - np.round(a / b)) > 1e-5):
        raise InputError(
            f"a draw must be a whole number of copies of a re-used design of {np.max(b):g} rows, not {np.max(a):g} rows; use "
            "design='fresh' or literal=True."
        )
    times = jnp.asarray(count, jnp.float32) / n
    return jnp.where(jnp.abs(times - jnp.round(times)) > 1e-5, jnp.nan, times)


def need_noise(noise):
    """The noise, or InputError where there is no table to estimate it from."""
    if noise is None:
        raise InputError("noise must be given unless real is a table (X, y) to estimate it from; it is None.")
    return jnp.asarray(noise, jnp.float32)


def measure(gap: jax.Array, setting: Setting) -> dict:
    """Squared norm of w - w* (d, *cells), and the mean squared error on held-out rows if there are any."""
    scaled = factors.transposed_matvec(setting.norm, gap) if setting.norm.ndim > gap.ndim else setting.norm * gap
    out = {"test_error": factors.total(scaled**2)}
    if isinstance(setting.held_out, tuple):
        return out
    return {**out, "held_out_error": _held_out(gap, setting.held_out)}


def _held_out(gap, root):
    against = jnp.concatenate([gap, -jnp.ones((1, *gap.shape[1:]), gap.dtype)])
    return factors.total(factors.transposed_matvec(root, against) ** 2)


class Table(NamedTuple):
    """What a user's table says: OLS on all of it, its setting, its rows (n, d), labels (n,), and root of the joint Gram."""

    coefficients: jax.Array
    setting: Setting
    x: jax.Array
    y: jax.Array
    root: jax.Array


def read_table(real, d: int, n, noise, axes: int) -> Table:
    """Read `real` = (X, y) or (X, y, X_test, y_test); every array gets `axes` trailing cell axes of length one.

    Raises:
        InputError: shapes that do not fit together, other than n rows or d columns, or a value that is not finite.
    """
    if not isinstance(real, (tuple, list)) or len(real) not in (2, 4):
        raise InputError("real must be (X, y) or (X, y, X_test, y_test) for linear_regression.")
    x, y = _labelled(real[0], real[1], d, "")
    if (size := known(n)) is not None and np.any(size != x.shape[0]):
        raise InputError(f"n must be the number of real rows, {x.shape[0]}, not {n}.")
    x, y = (jnp.reshape(v, v.shape + (1,) * axes) for v in (x, y))
    root = factors.of_rows(jnp.concatenate([x, y[:, None]], 1))
    w = factors.transposed_solve(root[:d, :d], root[d, :d])
    if noise is None:
        noise = root[d, d] / np.sqrt(x.shape[0] - d)  # the residual standard deviation, unbiased for the variance
    held_out = ()
    if len(real) == 4:
        test_x, test_y = (jnp.reshape(v, v.shape + (1,) * axes) for v in _labelled(real[2], real[3], d, "_test"))
        residual = test_y - (test_x * w).sum(1)
        held_out = factors.of_rows(jnp.concatenate([test_x, residual[:, None]], 1)) / np.sqrt(test_x.shape[0])
    setting = Setting(jnp.asarray(noise, jnp.float32), root[:d, :d], root[:d, :d] / np.sqrt(x.shape[0]), held_out)
    return Table(w, setting, x, y, root)


def _labelled(x, y, d, which):
    for name, value, shape in ((f"X{which}", x, (None, d)), (f"y{which}", y, (np.shape(x)[0],))):
        found = np.shape(value)
        if len(found) != len(shape) or found[-1] != shape[-1]:
            wanted = f"(n, {d})" if name[0] == "X" else f"({shape[0]},)"
            raise InputError(f"real's {name} must be an array of shape {wanted}, not {list(found)}.")
        if (array := known(value)) is not None and not np.isfinite(array.astype(float)).all():
            raise InputError(f"real's {name} must be finite everywhere, but it holds NaN or infinity.")
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
