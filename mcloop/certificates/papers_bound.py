"""The papers' sufficient condition for stability, with the three constants that it leaves unknown estimated."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mcloop.certificates.stability import Problem, Weighted
from mcloop.laws.stability import papers_rho, papers_safe_lam
from mcloop.models.newton import DENSE


class Bound(NamedTuple):
    """The papers' sufficient condition with its three constants estimated; a guarantee only if `rate` < 1.

    Attributes:
        alpha: least eigenvalue of N (+ damping): strong concavity at theta*.
        lipschitz: of x -> hess_theta log p(x), the largest that was seen between points: the true one is not smaller.
        epsilon: Wasserstein-1 distance between the real points and the model's, data units.
        k: 1 + epsilon lipschitz/alpha.
        rate: rho/(1 + gamma), rho = lam k/(1 - lam k); infinite from lam k = 1.
        safe_lam: the lam below which it guarantees stability.
    """

    alpha: float
    lipschitz: float
    epsilon: float
    k: float
    rate: float
    safe_lam: float


def papers_bound(problem: Problem, lam: float, gamma: float, alpha: float, pairs: int = 64, seed: int = 0) -> Bound:
    """rho(lam)/(1 + gamma) of Bertrand et al. 2310.00429, Theorem 1, and Gillman et al. 2402.07087, Theorem 4.3, estimated.

    alpha is the certificate's; epsilon the Wasserstein-1 distance between real points and the model's (500 of each, beyond one
    dimension); L the largest |hess l(x) - hess l(y)|/|x - y| over pairs of real points and pairs close by, in operator norm by
    power iteration. L is seen from below, so the papers' own bound is never better than this one.
    """
    data, own = problem.data, problem.draw(problem.params)
    rng = np.random.default_rng(seed)
    if ravel_pytree(problem.params)[0].size > DENSE:
        pairs //= 8
    lipschitz = _lipschitz(problem, data, rng, pairs)
    epsilon = _wasserstein1(data, own, seed)
    k = 1 + epsilon * lipschitz / alpha
    rate = float(papers_rho(lam, k)) / (1 + gamma)
    return Bound(alpha, lipschitz, epsilon, k, rate, float(papers_safe_lam(k, gamma)))


def _lipschitz(problem: Problem, data: Weighted, rng, pairs: int) -> float:
    flat, unravel = ravel_pytree(problem.params)
    pointwise = problem.pointwise
    assert pointwise is not None
    weight = np.asarray(data.weight, np.float64)
    i, j = (rng.choice(len(weight), pairs, p=weight / weight.sum()) for _ in range(2))
    x, y = data.x[i], data.x[j]
    near = x + jnp.asarray(1e-2 * rng.standard_normal(x.shape) * np.std(np.asarray(data.x)), x.dtype)
    x, y = jnp.concatenate([x, x]), jnp.concatenate([y, near])
    start = jnp.asarray(rng.standard_normal(flat.size), flat.dtype)

    def steepest(pair):
        x, y = pair

        def apply(v):
            def gradient(theta):
                return jax.grad(lambda t: pointwise(unravel(t), x) - pointwise(unravel(t), y))(theta)

            return jax.jvp(gradient, (flat,), (v,))[1]

        def iterate(v, _):
            w = apply(v)
            return w / jnp.maximum(jnp.linalg.norm(w), 1e-30), None

        v = jax.lax.scan(iterate, start / jnp.linalg.norm(start), None, length=10)[0]
        gap = jnp.sqrt(jnp.sum((x - y) ** 2))
        return jnp.where(gap > 0, jnp.linalg.norm(apply(v)) / jnp.where(gap > 0, gap, 1.0), 0.0)

    return float(jnp.max(jax.jit(lambda pairs: jax.lax.map(steepest, pairs))((x, y))))


def _wasserstein1(a: Weighted, b: Weighted, seed: int, most: int = 500) -> float:
    """Exact on a line; elsewhere by assigning points of one to the other, less (in square) what two parts of one give."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist
    from scipy.stats import wasserstein_distance

    xs, ws = zip(
        *((np.asarray(p.x, np.float64).reshape(len(p.x), -1), np.asarray(p.weight, np.float64)) for p in (a, b)), strict=True
    )
    if xs[0].shape[1] == 1:
        return float(wasserstein_distance(xs[0][:, 0], xs[1][:, 0], ws[0], ws[1]))
    size = min(most, len(xs[0]) // 2, len(xs[1]) // 2)

    def chosen(i, half):
        # the same places in both where they have the same weights: what is equal is then found equal
        rng = np.random.default_rng(seed + (0 if np.array_equal(*ws) else i))
        if np.ptp(ws[i]) <= 1e-6 * ws[i].max():  # a sample: two parts of it, no point twice
            return xs[i][rng.permutation(len(xs[i]))[half * size : (half + 1) * size]]
        return xs[i][rng.choice(len(xs[i]), (2, size), p=ws[i] / ws[i].sum())[half]]

    def assigned(x, y):
        cost = cdist(x, y)
        return float(cost[linear_sum_assignment(cost)].mean())

    # two samples of one law are some way apart as well: that adds to a shift in square
    own = np.mean([assigned(chosen(i, 0), chosen(i, 1)) for i in range(2)])
    between = assigned(chosen(0, 0), chosen(1, 0))
    return float(np.sqrt(max(0.0, between**2 - own**2)))
