"""Small networks fitted to their optimum, so that a loop is what theory says it is: an argmin, and not a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mcloop import random
from mcloop.errors import InputError
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.models.newton import DENSE, minimise
from mcloop.types import ClosedForms, Model, Objective

_REFERENCE = 2**13  # points of the truth that theta* is fitted to


class Reference(NamedTuple):
    """What plays the truth: points that come from the true distribution, and the best fit to them.

    Attributes:
        params: theta* (P,).
        centre: (P,) of the ridge that every refit has.
    """

    params: jax.Array
    centre: jax.Array


def optimum(start: Any, risk: Callable, source: Any, ridge: float, seed: int = 0) -> Reference:
    """theta* for 8,192 points of the truth, by Newton's method from `start`; arguments as for `optimum_model`.

    Where a ridge is asked for, theta* is found with .001 of it, and the ridge of the refits is centred at theta* + grad/ridge:
    theta* then stays where it is, whatever gradient rounding or a flat valley has left.

    Raises:
        InputError: more than 600 parameters, or a ridge below 0.
    """
    flat, unravel = ravel_pytree(start)
    if flat.size > DENSE:
        raise InputError(f"start must have at most {DENSE} parameters to be refitted by Newton's method, not {flat.size}.")
    if not 0 <= ridge < float("inf"):
        raise InputError(f"ridge must be a finite number >= 0, not {ridge!r}.")
    k_points, k_risk = (random.fold_in(random.as_key(jax.random.key(seed)), i) for i in range(2))
    everyone, alike = source.sample(k_points, _REFERENCE), jnp.full(_REFERENCE, 1 / _REFERENCE)

    @jax.jit
    def find(start):
        def objective(theta):
            return risk(k_risk, unravel(theta), everyone, alike)

        small = 1e-3 if ridge else 0.0
        best = minimise(lambda theta: objective(theta) + small / 2 * jnp.sum((theta - start) ** 2), start, 100)
        return Reference(best, best + jax.grad(objective)(best) / ridge if ridge else best)

    with jax.ensure_compile_time_eval():
        return find(flat)


def optimum_model(
    name: str,
    start: Any,
    reference: Reference,
    risk: Callable[[Any, Any, jax.Array, jax.Array], jax.Array],
    draw: Callable[[Any, Any, int], jax.Array],
    source: Any,
    n: Any,
    *,
    capacity: int,
    ridge: float,
    steps: int = 8,
    likelihood: bool = False,
) -> Model:
    """A family of networks refitted to the optimum: risk + ridge/2 |theta - centre|^2 by Newton's method from the last one.

    The ridge, which is the certificate's `damping`, makes the optimum one point where the data leave directions open. Measures
    `param_distance`, |theta - theta*|/|theta*|.

    Args:
        name: of the family.
        start: the parameters' shapes, a pytree.
        reference: theta*, from `optimum`.
        risk: (key, params, points (r, d), weight (r,)) -> the weighted mean loss.
        draw: (key, params, count) -> points (count, d), differentiable in params.
        source: the true distribution: `source.name`, `source.sample(key, count)`.
        n: real points.
        capacity: the most points that one draw holds, >= n.
        ridge: >= 0.
        steps: Newton steps of a refit at most; one is enough where the loss is quadratic.
        likelihood: whether the risk is a negative log-likelihood that `draw` samples exactly.
    """
    unravel = ravel_pytree(start)[1]

    def sample(key, params, count) -> Rows:
        if isinstance(params, Reference):
            return rows(source.sample(key, capacity), count)
        return rows(draw(key, unravel(params), capacity), count)

    def observe(key, real):
        values = source.sample(key, int(n)) if real is None else jnp.asarray(real, jnp.float32)
        return rows(values, real=True), reference

    def fit(key, params, data: Rows):
        weight = data.weight / data.weight.sum()

        def objective(theta):
            # against the mean over real points, as in the certificate: their share of the weight is 1/(1 + lam)
            share = data.real.sum() / data.weight.sum()
            gap = theta - reference.centre
            return risk(key, unravel(theta), data.values, weight) + share * ridge / 2 * jnp.sum(gap**2)

        return minimise(objective, params.params if isinstance(params, Reference) else params, steps), {}

    return Model(
        name=name,
        n=n,
        memory=rows_memory(capacity),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=lambda params, truth: {
            "param_distance": jnp.linalg.norm(params - truth.params) / jnp.linalg.norm(truth.params)
        },
        estimator=f"{name} on {source.name}, refitted to its optimum (Newton, ridge {ridge:g})",
        forms=ClosedForms(
            objective=Objective(
                lambda key, theta, data: risk(key, unravel(theta), data.values, data.weight / data.weight.sum()),
                lambda params: params,
                lambda free: free,
                likelihood,
            )
        ),
    )
