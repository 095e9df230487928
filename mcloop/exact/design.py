"""What the rows of a linear regression are: drawn once and re-used, drawn afresh, or the user's own table."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax

from mcloop import random
from mcloop.checks import known, numbers
from mcloop.exact import factors, reading
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


def copies(count, n) -> tuple[jax.Array, jax.Array]:
    """Copies of the design in a draw of `count` labels, and whether they are whole (`make_loop` refuses those it knows)."""
    times = jnp.asarray(count, jnp.float32) / n
    return times, jnp.abs(times - jnp.round(times)) <= 1e-5


def whole_copies(count, n) -> jax.Array:
    """The same where a draw can be nothing else: NaN, and so is all that comes of it, where they are not whole."""
    times, whole = copies(count, n)
    return jnp.where(whole, times, jnp.nan)


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
    """What a user's table says: OLS on all of it, its setting, its rows (n, d), labels (n,), and root of the joint Gram.

    Where columns are sums of others, or all but sums, everything is in the coordinates of X's singular vectors, of which
    there are as many as X has rank: least squares then has the one solution that the pseudo-inverse gives.
    """

    coefficients: jax.Array
    setting: Setting
    x: jax.Array
    y: jax.Array
    root: jax.Array
    coarse: bool


_CONDITION = 1e3  # of a design, from which float32 would lose half its digits in solving


def read_table(real, d: int, n, noise, axes: int) -> Table:
    """Read `real` = (X, y) or (X, y, X_test, y_test); every array gets `axes` trailing cell axes of length one.

    All that is solved for is solved in float64.

    Raises:
        InputError: shapes that do not fit together, other than n rows or d columns, a value that is missing, not finite, or
            too large for float32.
    """
    if not isinstance(real, (tuple, list)) or len(real) not in (2, 4):
        raise InputError("real must be (X, y) or (X, y, X_test, y_test) for linear_regression.")
    (x, y), kind = _labelled(real[0], real[1], d, "")
    if (size := known(n)) is not None and np.any(size != x.shape[0]):
        raise InputError(f"n must be the number of real rows, {x.shape[0]}, not {n}.")
    basis = _basis(x, np.finfo(kind).eps if kind.kind == "f" else np.finfo(np.float64).eps)
    x = x if basis is None else x @ basis
    rank = x.shape[1]
    if noise is None and len(x) <= rank:
        raise InputError(f"noise must be given where real has {len(x)} rows for {rank} coefficients; it is None.")
    root = _root(x, y)
    w = np.linalg.solve(root[:rank, :rank].T, root[rank, :rank])
    if noise is None:
        noise = root[rank, rank] / np.sqrt(len(x) - rank)  # the residual standard deviation, unbiased for the variance
    held_out = ()
    if len(real) == 4:
        test_x, test_y = _labelled(real[2], real[3], d, "_test")[0]
        test_x = test_x if basis is None else test_x @ basis
        held_out = _root(test_x, test_y - test_x @ w) / np.sqrt(len(test_x))
    coarse = bool(np.any(reading.far(x)) or reading.far(y))

    def cell(value):
        return jnp.asarray(value, jnp.float32).reshape(np.shape(value) + (1,) * axes)

    design, held_out = cell(root[:rank, :rank]), held_out if isinstance(held_out, tuple) else cell(held_out)
    setting = Setting(jnp.asarray(noise, jnp.float32), design, cell(root[:rank, :rank] / np.sqrt(len(x))), held_out)
    return Table(cell(w), setting, cell(x), cell(y), cell(root), coarse)


def _root(x, y):
    """Lower-triangular root (d + 1, d + 1) of the Gram matrix of rows (x, y), its diagonal >= 0, in float64."""
    rows = np.column_stack([x, y])
    upper = np.linalg.qr(np.concatenate([rows, np.zeros((max(0, rows.shape[1] - len(rows)), rows.shape[1]))]), mode="r")
    return (upper * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]).T


def _basis(x, eps):
    """Singular vectors (d, rank) in which least squares on x is well posed, or None where its own columns will do."""
    _, scale, vectors = np.linalg.svd(x, full_matrices=False)
    rank = int((scale > eps * max(x.shape) * scale[0]).sum())
    if rank == 0:
        raise InputError("real's X must have a column that is not 0 everywhere.")
    if rank < x.shape[1]:
        surplus = sorted(scipy.linalg.qr(x, mode="r", pivoting=True)[-1][rank:].tolist())
        warnings.warn(
            f"real's X has {x.shape[1]} columns of rank {rank}: {surplus} (counted from 0) are sums of others, or there are "
            "fewer rows; of all least-squares solutions the shortest is taken, as by the pseudo-inverse.",
            stacklevel=2,
        )
    return None if rank == x.shape[1] and scale[0] <= _CONDITION * scale[-1] else vectors[:rank].T


def _labelled(x, y, d, which):
    """X and y in float64, and the type in which X was given."""
    x, y = numbers(f"real's X{which}", x), numbers(f"real's y{which}", y)
    for name, value, shape in ((f"X{which}", x, (None, d)), (f"y{which}", y, (np.shape(x)[0] if np.ndim(x) else 0,))):
        found = np.shape(value)
        if len(found) != len(shape) or found[-1] != shape[-1]:
            wanted = f"(n, {d})" if name[0] == "X" else f"({shape[0]},)"
            raise InputError(f"real's {name} must be an array of shape {wanted}, not {list(found)}.")
        if known(value) is None:
            raise InputError(f"real's {name} must be known when a loop is compiled, not traced.")
        reading.check_held(f"real's {name}", reading.finite(f"real's {name}", value.astype(np.float64)))
    return (x.astype(np.float64), y.astype(np.float64)), x.dtype
