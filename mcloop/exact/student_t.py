"""A Student-t fitted by location and scale, sample by sample, to data that need not be one: the smallest misspecified loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.stats import t as student

from mcloop import random
from mcloop.checks import check
from mcloop.exact import reading
from mcloop.memory.rows import Rows, bootstrap, rows, rows_memory
from mcloop.types import ClosedForms, InputError, Model, Objective

_STEPS = 30  # of EM from a warm start: what is left shrinks by about 3/(nu + 3) a step
_NODES = 400  # of a quadrature over the family


class StudentT(NamedTuple):
    """Location and log-scale, each (*cells,)."""

    loc: jax.Array
    log_scale: jax.Array


class Mixture(NamedTuple):
    """A mixture of Gaussians on the line, the truth that a Student-t cannot fit: `weight`, `mean` and `std`, each (k,)."""

    weight: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def nodes(self, order: int = 60) -> tuple[np.ndarray, np.ndarray]:
        """Points (k order,) and weights of a Gauss-Hermite quadrature, exact for polynomials of degree below 2 order."""
        z, w = np.polynomial.hermite_e.hermegauss(order)
        x = np.concatenate([m + s * z for m, s in zip(self.mean, self.std, strict=True)])
        return x, np.concatenate([p * w / w.sum() for p in self.weight])


def student_t(n, nu: float = 5.0, data: Mixture | None = None, capacity: int | None = None) -> Model:
    """The location-scale family of Student's t with known degrees of freedom, fitted by maximum likelihood (EM).

    Measures `mean_sq_error`, (loc - loc*)^2, and `log_scale_gap`, log scale - log scale*, where * is the best fit to the
    truth. Lange, Little & Taylor 1989 for the EM.

    Args:
        n: real points, and the unit of every draw; may be traced.
        nu: degrees of freedom, > 0.
        data: what real points are drawn from; default the standard Student-t itself.
        capacity: the most points in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: nu that is not positive, a mixture whose weights are not shares or whose deviations are not positive.
    """
    reading.check_size(n, 2)
    check("nu", nu, "a finite number > 0", lambda v: (v > 0) & np.isfinite(v))
    if data is not None and (min(data.std) <= 0 or min(data.weight) <= 0 or not np.isclose(sum(data.weight), 1.0)):
        raise InputError(f"data must have weights > 0 that sum to 1 and deviations > 0, not {data}.")
    slots = reading.slots(n, capacity)
    best = _best(nu, data)

    def expect(params: StudentT) -> Rows:
        """Quadrature in the quantiles."""
        u, w = np.polynomial.legendre.leggauss(_NODES)
        nodes = jnp.asarray(student.ppf((u + 1) / 2, nu), jnp.float32)
        return rows(params.loc + jnp.exp(params.log_scale) * nodes)._replace(weight=jnp.asarray(w / 2, jnp.float32))

    def draw(key, params: StudentT):
        z = random.normal(key, (slots,), block=2**16)
        return params.loc + jnp.exp(params.log_scale) * z / jnp.sqrt(random.chi_square(key, nu, (slots,)) / nu)

    def sample(key, params, count):
        values = draw(key, params)
        return rows(values, count, cells=values.shape[1:])

    def fit(key, params: StudentT, body: Rows):
        return _em(nu, params, body.values, body.weight), {}

    def fresh(key, kept, truth, count):
        if isinstance(kept, Rows):
            return bootstrap(key, kept, count)
        values = draw(key, truth) if data is None else _draw_mixture(key, data, slots)
        return rows(values, count, cells=values.shape[1:])

    def observe(key, real):
        truth = reading.over_cells(StudentT(*(jnp.float32(x) for x in best)), key.ndim)
        if real is not None:
            values = reading.over_cells(reading.points(real, None, n), key.ndim)
            return rows(values, real=True, cells=(1,) * key.ndim), _em(nu, truth, values, jnp.ones_like(values))
        return reading.as_real(fresh(key, (), truth, n)), truth

    def measure(params: StudentT, truth: StudentT):
        return {"mean_sq_error": (params.loc - truth.loc) ** 2, "log_scale_gap": params.log_scale - truth.log_scale}

    return Model(
        name="student_t",
        n=n,
        memory=rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=measure,
        fresh=fresh,
        batched=True,
        estimator=f"maximum likelihood, {nu:g} degrees of freedom",
        forms=ClosedForms(
            objective=Objective(
                lambda key, free, body: -(body.weight @ log_prob(free, body.values, nu)) / body.weight.sum(),
                lambda params: params,
                lambda free: free,
                likelihood=True,
                expect=expect,
            )
        ),
    )


def log_prob(params: StudentT, x: jax.Array, nu: float) -> jax.Array:
    """Log-density at x, nats, without the constant that depends on nu alone."""
    z = (x - params.loc) * jnp.exp(-params.log_scale)
    return -(nu + 1) / 2 * jnp.log1p(z * z / nu) - params.log_scale


def _em(nu, start: StudentT, x, weight, steps: int = _STEPS) -> StudentT:
    """Weighted maximum likelihood from a start; x and weight (r, *cells)."""
    size = weight.sum(0)

    def step(_, found: StudentT):
        z = (x - found.loc) * jnp.exp(-found.log_scale)
        pull = weight * (nu + 1) / (nu + z * z)
        loc = (pull * x).sum(0) / pull.sum(0)
        return StudentT(loc, 0.5 * jnp.log((pull * (x - loc) ** 2).sum(0) / size))

    cells = jnp.broadcast_shapes(x.shape[1:], weight.shape[1:], start.loc.shape)
    return lax.fori_loop(0, steps, step, jax.tree.map(lambda a: jnp.broadcast_to(a, cells), start))


def _best(nu, data: Mixture | None) -> tuple[float, float]:
    """Location and log-scale of the best fit to the truth, by quadrature in double precision."""
    if data is None:
        return 0.0, 0.0
    x, w = data.nodes()
    loc, square = float(w @ x), float(w @ (x - w @ x) ** 2)
    for _ in range(500):
        pull = w * (nu + 1) / (nu + (x - loc) ** 2 / square)
        loc = float(pull @ x / pull.sum())
        square = float(pull @ (x - loc) ** 2)
    return loc, 0.5 * float(np.log(square))


def _draw_mixture(key, data: Mixture, slots) -> Any:
    weights = jnp.asarray(data.weight, jnp.float32).reshape((-1,) + (1,) * key.ndim)
    which = random.categorical(key, weights, slots)
    mean, std = (jnp.asarray(v, jnp.float32)[which] for v in (data.mean, data.std))
    return mean + std * random.normal(key, (slots,))
