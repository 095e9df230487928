"""Square roots of covariances over trailing cells: products and unions of lower-triangular factors, never a Cholesky.

A scatter matrix is carried as L with L L^T = scatter. Products keep their relative accuracy down to the smallest float,
and the union of two scatters is an orthogonal update (Householder reflections), exact for singular ones too.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import random

_BELOW = 2**16 + 1  # stream of a Bartlett factor's normals, beside its chi-squares
_OCTAVE, _NOTHING = 2**14, -(2**29)  # octaves: steps in one, and the count of nothing
_SMALL = 2.0**-100  # below, a product may underflow before it is counted
_UNROLL = 16  # dimensions up to which code is written out entry by entry: elementwise over cells, so it fuses


def stack(entries) -> jax.Array:
    """`jnp.stack` of entries that may differ in their (broadcastable) cells."""
    return jnp.stack(jnp.broadcast_arrays(*entries))


def total(x: jax.Array, axes: int = 1) -> jax.Array:
    """Sum over the leading `axes`; written out while short, since a reduction over strided cells does not vectorise."""
    flat = x.reshape((-1,) + x.shape[axes:])
    few = flat.shape[0] <= _UNROLL**2
    return sum((flat[i] for i in range(1, flat.shape[0])), flat[0]) if few else flat.sum(0)


def diagonal(a: jax.Array) -> jax.Array:
    """The diagonal (d, *cells) of (d, d, *cells)."""
    d = a.shape[0]
    return jnp.moveaxis(jnp.diagonal(a), -1, 0) if d > _UNROLL else jnp.stack([a[i, i] for i in range(d)])


def octaves(x) -> jax.Array:
    """log2 of x >= 0 in units of 2^-14, as whole numbers (int32); of 0, a number below all others.

    A float32 ends at 2^-149; a count of octaves goes on. It is whole so that no derivative and no distance sees it.
    """
    x = lax.stop_gradient(jnp.asarray(x, jnp.float32))
    known = jnp.round(jnp.log2(jnp.where(x > 0, x, 1.0)) * _OCTAVE).astype(jnp.int32)
    return jnp.where(x > 0, known, _NOTHING)


def follow(diagonal, counted) -> jax.Array:
    """The octaves of a root's diagonal: read off it while it is well inside of float32, else as they were `counted`."""
    return jnp.where(jnp.abs(diagonal) > _SMALL, octaves(jnp.abs(diagonal)), jnp.maximum(counted, _NOTHING))


def octaves_of_union(a, b) -> jax.Array:
    """The octaves of sqrt(x^2 + y^2) from those of x and y."""
    wide = jnp.logaddexp2(2 * a.astype(jnp.float32) / _OCTAVE, 2 * b.astype(jnp.float32) / _OCTAVE) / 2
    return jnp.round(wide * _OCTAVE).astype(jnp.int32)


def log_diagonal(diagonal, counted) -> jax.Array:
    """ln of a root's diagonal, nats, from its octaves where the root itself underflows; -inf where it is 0."""
    apart = jnp.where(counted > _NOTHING // 2, counted.astype(jnp.float32) * np.float32(np.log(2) / _OCTAVE), -jnp.inf)
    return jnp.where(diagonal > _SMALL, jnp.log(jnp.where(diagonal > _SMALL, diagonal, 1.0)), apart)


def matvec(a: jax.Array, x: jax.Array) -> jax.Array:
    """Lower-triangular (d, d, *cells) times (d, *cells)."""
    d = a.shape[0]
    if d > _UNROLL:
        return jnp.einsum("ij...,j...->i...", a, x)
    return stack([sum(a[i, j] * x[j] for j in range(i + 1)) for i in range(d)])


def transposed_matvec(a: jax.Array, x: jax.Array) -> jax.Array:
    """The transpose of a lower-triangular (d, d, *cells) times (d, *cells)."""
    d = a.shape[0]
    if d > _UNROLL:
        return jnp.einsum("ij...,i...->j...", a, x)
    return stack([sum(a[i, j] * x[i] for i in range(j, d)) for j in range(d)])


def transposed_solve(a: jax.Array, x: jax.Array) -> jax.Array:
    """w (d, *cells) with a^T w = x, by back substitution, for a lower-triangular a (d, d, *cells)."""
    d = a.shape[0]
    if d > _UNROLL:
        cells = jnp.broadcast_shapes(a.shape[2:], x.shape[1:])
        a, x = jnp.broadcast_to(a, (d, d, *cells)), jnp.broadcast_to(x, (d, *cells))
        a, x = jnp.moveaxis(a, (0, 1), (-2, -1)), jnp.moveaxis(x, 0, -1)[..., None]
        solved = lax.linalg.triangular_solve(a, x, left_side=True, lower=True, transpose_a=True)
        return jnp.moveaxis(solved[..., 0], -1, 0)
    w = [jnp.zeros(())] * d
    for i in reversed(range(d)):
        w[i] = (x[i] - sum(a[j, i] * w[j] for j in range(i + 1, d))) / a[i, i]
    return stack(w)


def bartlett(key: jax.Array, d: int, dof) -> jax.Array:
    """Lower-triangular B (d, d, *cells) with B B^T Wishart of `dof` degrees of freedom, dof < d included (Bartlett 1933)."""
    place = jnp.arange(d, dtype=jnp.float32).reshape((d,) + (1,) * key.ndim)
    diagonal = jnp.sqrt(random.chi_square(key, jnp.maximum(dof - place, 0.0), (d,)))
    if d == 1:
        return diagonal[None]
    column = jnp.asarray(np.tril_indices(d, -1)[1], jnp.float32).reshape((-1,) + (1,) * key.ndim)
    below = random.normal(key, (d * (d - 1) // 2,), block=_BELOW)
    return lower(diagonal, jnp.where(column < dof, below, 0.0))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Product of two lower-triangular (d, d, *cells)."""
    d = a.shape[0]
    if d > _UNROLL:
        return jnp.einsum("ik...,kj...->ij...", a, b)
    entries = [sum(a[i, k] * b[k, j] for k in range(j, i + 1)) if j <= i else 0.0 for i in range(d) for j in range(d)]
    flat = stack(entries)
    return flat.reshape((d, d) + flat.shape[1:])


def lower(diagonal: jax.Array, below: jax.Array) -> jax.Array:
    """(d, d, *cells) from its diagonal (d, *cells) and the entries below it, row by row (d (d - 1) / 2, *cells)."""
    d = diagonal.shape[0]
    if d > _UNROLL:
        rows, columns = jnp.tril_indices(d, -1)
        cells = jnp.broadcast_shapes(diagonal.shape[1:], below.shape[1:])
        out = jnp.zeros((d, d) + cells, diagonal.dtype)
        return out.at[rows, columns].set(below).at[jnp.arange(d), jnp.arange(d)].set(diagonal)
    entry = [below[i * (i - 1) // 2 + j] if j < i else diagonal[i] if j == i else 0.0 for i in range(d) for j in range(d)]
    flat = stack(entry)
    return flat.reshape((d, d) + flat.shape[1:])


def union(root: jax.Array, other: jax.Array, gap: jax.Array | None = None) -> jax.Array:
    """Lower-triangular L with L L^T = root root^T + other other^T + gap gap^T.

    Args:
        root, other: lower-triangular, (d, d, *cells).
        gap: one more column, (d, *cells), or none.
    """
    d = root.shape[0]
    gaps = [] if gap is None else [gap]
    if d > _UNROLL:
        return _union_by_qr(root, other, gaps)
    cells = jnp.broadcast_shapes(root.shape[2:], other.shape[2:], *(g.shape[1:] for g in gaps))
    root, other = (jnp.broadcast_to(x, (d, d) + cells) for x in (root, other))
    extra = jnp.stack([jnp.broadcast_to(g, (d,) + cells) for g in gaps]) if gaps else jnp.zeros((0, d) + cells, root.dtype)
    columns = []
    for j in range(d):
        # a column of `other` starts at its diagonal, and is not touched before
        extra = jnp.concatenate([extra, other[None, j:, j]])
        column, extra = _reflect(root[j:, j], extra)
        columns.append(jnp.concatenate([jnp.zeros((j,) + cells, root.dtype), column]))
    return jnp.stack(columns, 1)


def _reflect(column, extra):
    """One Householder reflection, which gathers the first row of (column, *extra) in its first entry.

    Args:
        column: (r, *cells).
        extra: (w, r, *cells).

    Returns:
        The new column (r, *cells), and what is left of the others, (w, r - 1, *cells).
    """
    # materialised step by step: XLA would otherwise compute each again for every entry below
    now = lax.optimization_barrier
    extra, width = now(extra), extra.shape[0]
    # scaled, so that no square under- nor overflows at the ends of float32
    scale = reduce(jnp.maximum, [jnp.abs(extra[k, 0]) for k in range(width)], jnp.abs(column[0]))
    inverse = now(1 / jnp.where(scale > 0, scale, 1.0))
    first, rest = column[0] * inverse, now(extra[:, 0] * inverse)
    tail = now(sum(rest[k] * rest[k] for k in range(width)))
    head = now(first + jnp.sqrt(first * first + tail))
    weight = now(jnp.where(tail > 0, 2 / jnp.where(tail > 0, head * head + tail, 1.0), 0.0))
    along = now(weight * (column * head + sum(extra[k] * rest[k] for k in range(width))))
    # the reflection's sign is turned back; with nothing to add the column stays as it was, to the last bit
    return jnp.where(tail > 0, along * head - column, column), extra[:, 1:] - along[None, 1:] * rest[:, None]


def _union_by_qr(root, other, gaps):
    blocks = [root, other, *(g[:, None] for g in gaps)]
    cells = jnp.broadcast_shapes(*(x.shape[2:] for x in blocks))
    blocks = [jnp.broadcast_to(x, x.shape[:2] + cells) for x in blocks]
    return of_rows(jnp.swapaxes(jnp.concatenate(blocks, 1), 0, 1))


def of_rows(rows: jax.Array) -> jax.Array:
    """Lower-triangular L (d, d, *cells) with L L^T = rows^T rows, for rows (r, d, *cells) of any rank, by QR."""
    r, d = rows.shape[:2]
    if r < d:
        rows = jnp.concatenate([rows, jnp.zeros((d - r,) + rows.shape[1:], rows.dtype)])
    upper = jnp.linalg.qr(jnp.moveaxis(rows, (0, 1), (-2, -1)), mode="r")
    sign = jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return jnp.moveaxis(upper * sign[..., None], (-1, -2), (0, 1))


def of_matrix(matrix: jax.Array) -> jax.Array:
    """Lower-triangular root of a symmetric matrix (d, d, *cells); negative eigenvalues count as zero."""
    values, vectors = jnp.linalg.eigh(jnp.moveaxis(matrix, (0, 1), (-2, -1)))
    half = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]
    return of_rows(jnp.moveaxis(half, (-1, -2), (0, 1)))  # half half^T = matrix


def cholesky(matrix: jax.Array) -> jax.Array:
    """Lower-triangular root of a positive definite matrix (d, d, *cells), written out; a pivot below zero counts as zero."""
    d = matrix.shape[0]
    if d > _UNROLL:
        return of_matrix(matrix)
    root: list[list] = [[0.0] * d for _ in range(d)]
    for j in range(d):
        root[j][j] = jnp.sqrt(jnp.maximum(matrix[j, j] - sum(root[j][k] ** 2 for k in range(j)), 0.0))
        inverse = jnp.where(root[j][j] > 0, 1 / jnp.where(root[j][j] > 0, root[j][j], 1.0), 0.0)
        for i in range(j + 1, d):
            root[i][j] = (matrix[i, j] - sum(root[i][k] * root[j][k] for k in range(j))) * inverse
    flat = stack([x for row in root for x in row])
    return flat.reshape((d, d) + flat.shape[1:])
