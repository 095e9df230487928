"""Certificates against PyTorch: a Hessian product of a flow, and how long a whole certificate takes.

    python benchmarks/certificates.py [--quick]

The peer takes the same product with torch.func, forward over reverse, on the same network, weights and points; both must agree
before anything is timed. The certificate is two least stable directions, at damping 10, and the papers' bound.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.flatten_util import ravel_pytree

from mcloop.certificates.certificate import certificate
from mcloop.certificates.stability import equal, likelihood, products
from mcloop.data.toys import two_moons
from mcloop.models.flow import normalizing_flow
from mcloop.models.training import begin, cosine, start, step, training

POINTS = 1000


def _trained(layers: int, width: int, steps: int):
    """A flow on two moons after so many steps of Adam: (learner, variables, points)."""
    toy = two_moons()
    learner = normalizing_flow((2,), layers=layers, width=width, kind="affine", shift=toy.shift, scale=toy.scale)
    spec = training(steps, steps, rate=cosine(3e-3, 1e-6))
    key = jax.random.key(0)
    x = toy.sample(jax.random.key(1), POINTS)
    advance = jax.jit(lambda run, i: step(learner, spec, key, run, x, spec.rate(i / steps))[0])
    run = start(spec, begin(spec, learner.init(key)))
    for i in range(steps):
        run = advance(run, i)
    return toy, learner, run.variables, x


def _torch_product(params, toy, x):
    """The same Hessian product in PyTorch, over the same parameters in the same order as JAX's flattening."""
    leaves, _ = jax.tree.flatten(params)
    shapes = [np.shape(leaf) for leaf in leaves]
    flat = torch.tensor(np.asarray(ravel_pytree(params)[0]))
    u = torch.tensor(np.asarray((x - toy.shift) / toy.scale))
    tree = jax.tree.structure(params)

    def nll(theta):
        pieces, place = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            pieces.append(theta[place : place + size].reshape(shape))
            place += size
        couplings = jax.tree.unflatten(tree, pieces)["couplings"]
        z, log_det = u, torch.zeros(len(u))
        for i in range(len(couplings)):
            part = couplings[str(i)]
            a, b = z[:, :1], z[:, 1:]
            given, moved = (b, a) if i % 2 else (a, b)
            h = torch.nn.functional.silu(given @ part["enter"]["kernel"] + part["enter"]["bias"])
            h = torch.nn.functional.silu(h @ part["hidden"]["kernel"] + part["hidden"]["bias"])
            raw = h @ part["leave"]["kernel"] + part["leave"]["bias"]
            log_scale = 2.0 * torch.tanh(raw[:, :1] / 2.0)
            moved = moved * torch.exp(log_scale) + raw[:, 1:]
            z = torch.cat([moved, given] if i % 2 else [given, moved], 1)
            log_det = log_det + log_scale.sum(1)
        return (0.5 * (z**2).sum(1) - log_det).mean()

    gradient = torch.func.grad(nll)
    return lambda v: torch.func.jvp(gradient, (flat,), (v,))[1]


def _best(work, v, repeats: int = 10) -> float:
    """The best of the repeats, after one that is not counted."""
    jax.block_until_ready(work(v))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work(v))
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    head = ("flow", "parameters", "product ms", "PyTorch ms", "PyTorch / mcloop", "certificate s, with compilation", "rate")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for layers, width in ((4, 48), (6, 128)):
        toy, learner, variables, x = _trained(layers, width, 300 if quick else 1500)
        assert learner.log_prob is not None

        def log_prob(params, y, log_density=learner.log_prob, variables=variables):
            return log_density(variables._replace(params=params), y[None])[0]

        def draw(params, learner=learner, variables=variables):
            return equal(learner.sample(jax.random.key(5), variables._replace(params=params), POINTS))

        problem = likelihood(log_prob, variables.params, equal(x), draw)
        parts = products(problem)
        ours, v = jax.jit(parts.n), np.random.default_rng(0).standard_normal(parts.size).astype(np.float32)
        theirs = _torch_product(variables.params, toy, x)
        a, b = np.asarray(ours(v)), theirs(torch.tensor(v)).numpy()
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(a), "the two Hessian products differ"
        own, peer = _best(ours, jnp.asarray(v)), _best(theirs, torch.tensor(v))
        began = time.perf_counter()
        found = certificate(problem, 1.0, damping=10.0, count=2)
        whole = time.perf_counter() - began
        cells = (
            f"affine, {layers} x {width}",
            f"{parts.size:,}",
            f"{1e3 * own:.1f}",
            f"{1e3 * peer:.1f}",
            f"{peer / own:.2f}x",
        )
        print(f"| {' | '.join(cells)} | {whole:.1f} | {found.rate:.3f} |", flush=True)


if __name__ == "__main__":
    main()
