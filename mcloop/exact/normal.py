"""What a Gaussian and a sample of it are in memory, and what differs between structures of the covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mcloop import random
from mcloop.exact import factors
from mcloop.types import InputError

_FROM_ROOT: Any = object()


class _Normal(NamedTuple):
    mean: jax.Array
    root: jax.Array
    octaves: jax.Array


class Normal(_Normal):
    """A Gaussian: `mean` (d, *cells); `root` (d, d, *cells) lower-triangular with root root^T = covariance.

    With covariance="diagonal" root is the standard deviations (d, *cells), with "isotropic" the one of them (1, *cells).
    `octaves` (d, *cells) is log2 of root's diagonal, as `factors.octaves` counts it; left out, it is taken from root.
    """

    __slots__ = ()

    def __new__(cls, mean, root, octaves=_FROM_ROOT):
        return super().__new__(cls, mean, root, _octaves(mean, root) if octaves is _FROM_ROOT else octaves)


class _Statistics(NamedTuple):
    size: jax.Array
    real: jax.Array
    mean: jax.Array
    root: jax.Array
    octaves: jax.Array


class Statistics(_Statistics):
    """A Gaussian sample's sufficient statistics: `size` and `real` weights, `mean`, the scatter's `root` and its `octaves`."""

    __slots__ = ()

    def __new__(cls, size, real, mean, root, octaves=_FROM_ROOT):
        return super().__new__(cls, size, real, mean, root, _octaves(mean, root) if octaves is _FROM_ROOT else octaves)


class Kind(NamedTuple):
    """What differs between covariance structures.

    `factor` (key, dof) -> what a root is multiplied by to be that of the scatter of dof + 1 draws; `product` multiplies them.
    """

    factor: Callable[..., jax.Array]
    product: Callable[..., jax.Array]
    diagonal: Callable[..., jax.Array]
    matvec: Callable[..., jax.Array]
    union: Callable[..., jax.Array]
    of_rows: Callable[..., jax.Array]
    eye: Callable[[], jax.Array]


def _octaves(mean, root):
    return factors.octaves(factors.diagonal(root) if jnp.ndim(root) > jnp.ndim(mean) else jnp.asarray(root))


def _column(factor, x):
    return factor * x


def _hypot(root, other, gap):
    scale = jnp.maximum(jnp.maximum(jnp.abs(root), jnp.abs(other)), jnp.abs(gap))
    safe = jnp.where(scale > 0, scale, 1.0)
    return scale * jnp.sqrt((root / safe) ** 2 + (other / safe) ** 2 + (gap / safe) ** 2)


def kind_of(covariance: str, d: int) -> Kind:
    """The operations of a structure: "full", "diagonal" or "isotropic"; InputError for another."""
    if covariance == "full":
        return Kind(
            lambda key, dof: factors.bartlett(key, d, dof),
            factors.product,
            factors.diagonal,
            factors.matvec,
            factors.union,
            factors.of_rows,
            lambda: jnp.eye(d),
        )
    if covariance == "diagonal":
        return Kind(
            lambda key, dof: jnp.sqrt(random.chi_square(key, dof, (d,))),
            _column,
            lambda root: root,
            _column,
            _hypot,
            lambda r: jnp.sqrt((r**2).sum(0)),
            lambda: jnp.ones(d),
        )
    if covariance == "isotropic":
        return Kind(
            lambda key, dof: jnp.sqrt(random.chi_square(key, d * dof, (1,)) / d),
            _column,
            lambda root: root,
            _column,
            lambda root, other, gap: _hypot(root, other, jnp.sqrt((gap**2).mean(0, keepdims=True))),
            lambda r: jnp.sqrt((r**2).sum(0).mean(0, keepdims=True)),
            lambda: jnp.ones(1),
        )
    raise InputError(f"covariance must be 'full', 'diagonal' or 'isotropic', not {covariance!r}.")


def normal(mean, covariance) -> Normal:
    """The Gaussian with this mean (d,) and this covariance: a matrix (d, d), variances (d,), or one variance (1,)."""
    mean, covariance = jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32)
    if covariance.ndim == 2:
        return Normal(mean, factors.of_matrix(covariance))
    return Normal(mean, jnp.sqrt(covariance))


def stretched(kind, body, by):
    """A Gaussian, or a sample's statistics, whose root is `by` times as large."""
    root = body.root * by
    return body._replace(root=root, octaves=factors.follow(kind.diagonal(root), body.octaves + factors.octaves(by)))
