"""A network of which only the last layer is trained: its fit is a linear regression, exact in one step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mcloop.errors import InputError
from mcloop.nets.network import Network, Variables


def random_features(dim: int, width: int = 16, reach: float = 2.0, seed: int = 0) -> Network:
    """f(x, noise) = W [1, x, noise, x noise, tanh(A x + b + c noise)], called as `apply(variables, x, noise, label, keep)`.

    A, b and c are drawn once, from `seed`, and never trained (Rahimi & Recht 2007); W starts at zero. Any squared loss of the
    output is a quadratic in W, so that its optimum is the solution of a linear system.

    Args:
        dim: coordinates of a point; x is (b, dim), and so is the output.
        width: random features.
        reach: standard deviation of the entries of A and b.
        seed: of the features.

    Raises:
        InputError: a number outside of what is allowed.
    """
    for name, value, least in (("dim", dim, 1), ("width", width, 0)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}.")
    if not 0 < reach < np.inf:
        raise InputError(f"reach is {reach!r}; it must be a finite number > 0.")
    rng = np.random.default_rng(seed)
    a, b, c = (jnp.asarray(reach * rng.standard_normal(s), jnp.float32) for s in ((dim, width), (width,), (width,)))

    def apply(variables, x, noise, label=None, keep=None, train=False, key=None):
        bent = jnp.tanh(x @ a + b + noise[:, None] * c)
        told = jnp.concatenate([jnp.ones((len(x), 1)), x, noise[:, None], x * noise[:, None], bent], 1)
        return told @ variables.params["out"], variables.stats

    def init(key: jax.Array) -> Variables:
        return Variables({"out": jnp.zeros((2 + 2 * dim + width, dim), jnp.float32)}, {})

    return Network(init, apply)
