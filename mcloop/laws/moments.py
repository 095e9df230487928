"""One-parameter exponential families with quadratic variance, and kernel density estimates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, product, total, upto


def replace_variance(g: ArrayLike, n: float, v2: float) -> np.ndarray:
    """E[V(m_g)] / V(m*) = (1 + v2/n)^g; exponential family with variance function V(m) = v0 + v1 m + v2 m^2, replace.

    `m_g` is the fitted mean, by maximum likelihood the sample mean. v2: Gaussian mean 0, Poisson 0, Bernoulli -1,
    gamma of shape k +1/k. Derived here: E V(xbar) = V(m) + v2 Var(xbar) = V(m)(1 + v2/n). Families: Morris (1982).
    """
    return np.power(1.0 + v2 / n, fits(g))


def replace_variance_wrong(g: ArrayLike, n: float, v2: float) -> np.ndarray:
    """M1 relative to the first fit: g - 1 for g."""
    return np.power(1.0 + v2 / n, fits(g) - 1.0)


def accumulate_variance(g: ArrayLike, n: float, v2: float) -> np.ndarray:
    """E[V(m_g)] / V(m*) = prod_{i <= g} (1 + v2/(n i^2)); as M1 under accumulate: the mean moves by 1/i of a batch."""
    return product(g, 1.0 + v2 / (n * upto(g) ** 2))


def accumulate_variance_wrong(g: ArrayLike, n: float, v2: float) -> np.ndarray:
    """M2 with 1/(n i) for 1/(n i^2)."""
    return product(g, 1.0 + v2 / (n * upto(g)))


def kde_replace(g: ArrayLike, h: float, sigma2: float = 1.0) -> np.ndarray:
    """E of the second moment about mu* of model g: sigma2 + g h^2; kernel density of bandwidth h, replace, any n.

    Draws keep the second moment of the points on average and add the kernel's h^2 each time. Any kernel of
    variance h^2; in d dimensions one coordinate. Derived here.
    """
    return sigma2 + fits(g) * h**2


def kde_replace_wrong(g: ArrayLike, h: float, sigma2: float = 1.0) -> np.ndarray:
    """K1 for the points that model g is fitted on, not for its draws: g - 1 for g."""
    return sigma2 + (fits(g) - 1.0) * h**2


def kde_accumulate(g: ArrayLike, h: float, sigma2: float = 1.0) -> np.ndarray:
    """As K1 under accumulate: sigma2 + h^2 (1 + 1/2 + ... + 1/g).

    The pool's second moment grows by h^2/i when batch i joins, and the model adds h^2 to the pool. Derived here.
    """
    return sigma2 + h**2 * total(g, 1.0 / upto(g))


def kde_accumulate_wrong(g: ArrayLike, h: float, sigma2: float = 1.0) -> np.ndarray:
    """K2 with 1/i^2 for 1/i, by analogy with the means."""
    return sigma2 + h**2 * total(g, 1.0 / upto(g) ** 2)


TABLE = (
    Law(
        id="M1",
        family="exponential",
        regime="replace",
        quantity="E V(m_g) / V(m*)",
        formula="(1 + v2/n)^g",
        source="derived here",
        value=replace_variance,
        neighbour="g-1 for g",
        wrong=replace_variance_wrong,
    ),
    Law(
        id="M2",
        family="exponential",
        regime="accumulate",
        quantity="E V(m_g) / V(m*)",
        formula="prod_{i<=g} (1 + v2/(n i^2))",
        source="derived here",
        value=accumulate_variance,
        neighbour="1/(n i) for 1/(n i^2)",
        wrong=accumulate_variance_wrong,
    ),
    Law(
        id="K1",
        family="kde",
        regime="replace",
        quantity="E[second moment of model g]",
        formula="sigma2 + g h^2",
        source="derived here",
        value=kde_replace,
        neighbour="g-1 for g",
        wrong=kde_replace_wrong,
    ),
    Law(
        id="K2",
        family="kde",
        regime="accumulate",
        quantity="E[second moment of model g]",
        formula="sigma2 + h^2 (1 + 1/2 + ... + 1/g)",
        source="derived here",
        value=kde_accumulate,
        neighbour="1/i^2 for 1/i",
        wrong=kde_accumulate_wrong,
    ),
)
