"""The leading eigenvalues of a loop's Jacobian: whole matrices where they are small, products with them where they are not."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg as sparse
from jax.flatten_util import ravel_pytree

from mcloop.certificates.stability import Matrices, Problem, jacobian, matrices, products
from mcloop.errors import InputError
from mcloop.models.newton import DENSE


class Spectrum(NamedTuple):
    """The least stable directions, by falling |rate|.

    Attributes:
        rates: (k,) eigenvalues of J, complex where the sampler turns.
        mu: (k,) eigenvalues of F v = mu N v where the sampler is exact, otherwise NaN.
        directions: (k, P) right eigenvectors, of norm one; of a complex pair the real part.
        least, largest: the extreme eigenvalues of N + damping, the curvature of the refit on real data.
    """

    rates: np.ndarray
    mu: np.ndarray
    directions: np.ndarray
    least: float
    largest: float


def spectrum(
    problem: Problem, lam: float, gamma=0.0, damping=0.0, count: int = 4, differences: float | None = None
) -> Spectrum:
    """The `count` least stable directions; matrices up to 600 parameters, LOBPCG or Arnoldi with conjugate gradients beyond.

    Beyond 600 the first direction is converged to about 1e-3; the others, which LOBPCG finds on the way, are lower bounds.

    Raises:
        InputError: N + damping is singular or indefinite: theta* is no strict minimum of the real risk, and the loop has
            no isolated fixed point there. The message names a damping that would do.
    """
    size = ravel_pytree(problem.params)[0].size
    if size <= DENSE:
        return dense_spectrum(matrices(problem, differences), problem.exact, lam, gamma, damping, count)
    return _matrix_free(problem, float(lam), float(gamma), float(damping), count, differences)


def dense_spectrum(m: Matrices, exact: bool, lam: float, gamma=0.0, damping=0.0, count: int = 4) -> Spectrum:
    """`spectrum` from matrices."""
    _finite(*m)
    curvature = np.linalg.eigvalsh(m.n) + damping
    _definite(curvature[0], curvature[-1], damping)
    if exact:
        mu, vectors = scipy.linalg.eigh(m.f, m.n + damping * np.eye(len(m.n)))
        mu, vectors = mu[::-1][:count], vectors[:, ::-1][:, :count]
        rates = _rates(mu, lam, gamma)
    else:
        rates, vectors = np.linalg.eig(jacobian(m, lam, gamma, damping))
        order = np.argsort(-np.abs(rates))[:count]
        rates, vectors, mu = rates[order], vectors[:, order], np.full(len(order), np.nan)
    return Spectrum(_real(rates), mu, _unit(vectors.T), float(curvature[0]), float(curvature[-1]))


def _matrix_free(problem, lam, gamma, damping, count, differences) -> Spectrum:
    """LOBPCG, or Arnoldi where B is not symmetric, with conjugate gradients inside; memory is a few dozen vectors."""
    parts = products(problem, differences)
    weight = 1.0 if problem.exact else lam

    def operator(f) -> Any:
        compiled = jax.jit(jax.vmap(f, 1, 1))

        def apply(block):
            return np.asarray(compiled(jnp.asarray(block.reshape(parts.size, -1), parts.dtype)), np.float64)

        make: Any = sparse.LinearOperator  # whose constructor is of another class, which types do not know
        return make((parts.size, parts.size), matvec=lambda v: apply(v)[:, 0], matmat=apply, dtype=np.float64)

    def left(v):
        return parts.n(v) + damping * v + weight * parts.f(v)

    def solve(v, steps=_STEPS):
        return jax.scipy.sparse.linalg.cg(left, v, tol=_SOLVE, maxiter=steps)[0]

    rng = np.random.default_rng(0)
    least, largest = _ends(operator(lambda v: parts.n(v) + damping * v), rng)
    _definite(least, largest, damping)
    if problem.exact:
        start = rng.standard_normal((parts.size, count))
        refine = operator(lambda v: solve(v, _INNER))
        with warnings.catch_warnings():
            # it warns where the last of several directions is not there yet; the first ones are what is asked for
            warnings.simplefilter("ignore", UserWarning)
            share, vectors = sparse.lobpcg(operator(parts.f), start, operator(left), refine, tol=_TOLERANCE, maxiter=_OUTER)[:2]
        order = np.argsort(-share)
        mu, vectors = share[order] / np.maximum(1 - share[order], np.finfo(np.float32).eps), vectors[:, order]
        rates = _rates(mu, lam, gamma)
    else:
        whole = operator(lambda v: solve(lam / (1 + gamma) * parts.b(v)))
        rates, vectors = sparse.eigs(whole, count, which="LM", tol=_TOLERANCE, v0=rng.standard_normal(parts.size))
        order = np.argsort(-np.abs(rates))
        rates, vectors, mu = rates[order], vectors[:, order], np.full(count, np.nan)
    return Spectrum(_real(rates), mu, _unit(vectors.T), least, largest)


_SOLVE, _STEPS = 1e-4, 500  # of conjugate gradients: relative residual, and most steps
_INNER = 10  # steps of theirs that make a preconditioner
_TOLERANCE, _OUTER = 1e-3, 12  # of an eigenvalue


def _ends(operator, rng, steps: int = 40) -> tuple[float, float]:
    """Both ends of a spectrum by a short Lanczos run: from inside, so the least is never below the true one."""
    v, before, beta = rng.standard_normal(operator.shape[0]), np.zeros(operator.shape[0]), 0.0
    v /= np.linalg.norm(v)
    basis, alphas, betas = [], [], []
    for _ in range(steps):
        w = operator.matvec(v) - beta * before
        alphas.append(float(w @ v))
        w -= alphas[-1] * v
        basis.append(v)
        for q in basis:  # rounding would bring converged ends back
            w -= (q @ w) * q
        beta = float(np.linalg.norm(w))
        betas.append(beta)
        before, v = v, w / beta
    ends = scipy.linalg.eigh_tridiagonal(alphas, betas[:-1], eigvals_only=True)
    return float(ends[0]), float(ends[-1])


def _finite(*matrices: np.ndarray) -> None:
    """Refuse derivatives that are none: where the model has no density, as on data that fill fewer dimensions than it has."""
    if not all(np.isfinite(x).all() for x in matrices):
        raise InputError(
            "params must be where the loss has finite second derivatives; it has none here, as where a fit is singular (data "
            "on a plane, a column that is constant, fewer rows than columns)."
        )


def _definite(least: float, largest: float, damping: float) -> None:
    """Refuse a curvature that is not positive definite to the precision of single-precision products."""
    if least > 1e-6 * largest and np.isfinite(largest):
        return
    _finite(np.array([least, largest]))
    wanted = 1.1 * (damping - least + 1e-3 * largest)  # enough when it is rounded to two digits, too
    kind = "indefinite" if least < -1e-6 * largest else "singular"
    raise InputError(
        f"damping must be larger, for example {wanted:.2g}, not {damping:g}: the Hessian of the real risk is {kind} at these "
        f"parameters (least eigenvalue {least - damping:.2g})."
    )


def _rates(mu, lam, gamma) -> np.ndarray:
    return lam * mu / ((1 + lam * mu) * (1 + gamma))


def _real(rates: np.ndarray) -> np.ndarray:
    """Eigenvalues without an imaginary part that is only rounding."""
    small = np.abs(np.imag(rates)) <= 1e-6 * np.maximum(np.abs(rates).max(initial=0.0), 1e-12)
    return np.real(rates) if np.all(small) else rates


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of norm one, their largest entry positive."""
    rows = np.real(vectors)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows * np.where(largest < 0, -1.0, 1.0)
