"""Loops of regressions, for the laws that they obey."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from mcloop import regimes
from mcloop.exact.regression import linear_regression
from mcloop.loop import make_loop
from mcloop.validation.simulations import case, check, experiment, infos, started


def regression(regime: Callable, design: str):
    """The fewest rows whose squared errors have a finite variance (T = d + 4), and three more."""
    return lambda key: infos(make_loop(linear_regression(d=3, n=10, design=design), regime()), key, 3)


def ridged(key, ridge):
    """Plain least squares but for the last fit, which has a ridge."""
    model = linear_regression(d=2, n=9, design="fresh", last_ridge=ridge)
    return infos(make_loop(model, regimes.replace()), key, 3)


def two_teachers(key, n1, n2):
    """One fit on real labels and on those of a model one unit away."""
    loop = make_loop(linear_regression(d=3, n=n1, design="fresh"), regimes.augment(n2 / n1))
    away = jnp.float32([1.0, 0.0, 0.0])[:, None, None]
    other = started(loop, lambda s: s._replace(params=s.params._replace(value=s.truth.value + away)))
    return infos(other, key, 2)


def mean_design(T: int, ridge: float) -> np.ndarray:
    """The C = c I whose `ridge_transfer` is the mean one of standard normal designs with T rows and two columns.

    By a sum over the eigenvalues x >= x u of X^T X, of density x^(T-1) (1 - u) u^((T-3)/2) e^(-x (1 + u)/2).
    """
    x, u = (np.arange(800)[:, None] + 0.5) / 8, (np.arange(400) + 0.5) / 400
    density = x ** (T - 1) * (1 - u) * u ** ((T - 3) / 2) * np.exp(-x * (1 + u) / 2)
    kept = (x / (x + T * ridge)) ** 2 + (x * u / (x * u + T * ridge)) ** 2
    root = np.sqrt((density * kept).sum() / density.sum() / 2)
    return ridge * root / (1 - root) * np.eye(2)


REGRESSION = (
    experiment(regression(regimes.replace, "same"), case(check("L1", 3, "T=10, d=3", "test_error", T=10, d=3))),
    experiment(
        regression(lambda: regimes.augment(2.0), "same"),
        case(check("L5", 2, "T=10, d=3, lam=2", "test_error", T=10, d=3, lam=2.0)),
        calls=4,
    ),
    experiment(regression(regimes.accumulate, "same"), case(check("L2", 3, "T=10, d=3", "test_error", T=10, d=3)), calls=4),
    experiment(regression(regimes.accumulate, "fresh"), case(check("L2b", 3, "T=10, d=3", "test_error", T=10, d=3)), calls=2),
    experiment(
        ridged,
        case(
            check(
                "L3",
                3,
                "T=T0=9, d=2, l=.5, mean over designs",
                lambda i: i["ridge_test_error"] - i["ridge_test_error"][:1],
                C=mean_design(9, 0.5),
                ridge=0.5,
                T0=9,
            ),
            ridge=0.5,
        ),
    ),
    experiment(
        two_teachers,
        case(check("L4", 2, "n1=6, n2=8, d=3, gap2=1", "test_error", n1=6, n2=8, d=3, gap2=1.0), n1=6, n2=8),
    ),
)
