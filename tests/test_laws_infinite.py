"""Laws of infinite data against an independent computation, by quadrature or by summation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import norm

from mcloop import laws
from mcloop.laws import LAWS


def student_slopes(g, lam, nu, s2, gamma):
    """theta_g/theta_1 of a Student-t location refitted to Gaussian data and to its own density, by quadrature."""
    x = np.linspace(-300, 300, 120_001)
    data, t = np.exp(-(x**2) / (2 * s2)), lambda c: (1 + (x - c) ** 2 / nu) ** (-(nu + 1) / 2)
    data, mass = data / trapezoid(data, x), trapezoid(t(0.0), x)

    def refit(theta) -> Any:
        target = data + lam * (t(theta) + gamma * t(0.0)) / mass / (1 + gamma)
        return brentq(lambda c: trapezoid(target * (x - c) / (nu + (x - c) ** 2), x), -1, 1, xtol=1e-13)

    path = [1e-3]
    for _ in range(g - 1):
        path.append(refit(path[-1]))
    score, hess = (nu + 1) / (nu + 3), (nu + 1) * (nu - x**2) / (nu + x**2) ** 2
    return np.array(path) / path[0], score / trapezoid(data * hess, x)


def rare_reward(g, lam, K):
    """Gain of a rare outcome of huge reward, the worst case of curation mixed with real data."""
    reference = np.array([1e-6, 1 - 1e-6])
    p, out = reference, []
    for _ in range(g):
        out.append(p[0] / reference[0])
        p = (reference + lam * laws.curate(p, [16.0, 0.0], K)) / (1 + lam)
    return np.array(out)


def on_grid(g, step, v=1.0, mu=0.0):
    """Moments (mean, variance) of a Gaussian refitted to `step(x, density)` on a grid."""
    x, out = np.linspace(-30, 30, 20_001), []
    for _ in range(g):
        out.append((mu, v))
        density = step(x, norm.pdf(x, mu, np.sqrt(v)))
        density /= trapezoid(density, x)
        mu = trapezoid(x * density, x)
        v = trapezoid((x - mu) ** 2 * density, x)
    return np.array(out).T


def spread(g, lam, s):
    """A sampler that stretches the model's density by s before real data are added."""
    return on_grid(g, lambda x, q: norm.pdf(x) + lam * np.interp(x / s, x, q) / s)[1]


def cooled(g, p, T):
    p, out = np.asarray(p), []
    for _ in range(g):
        out.append(p)
        p = p ** (1 / T) / (p ** (1 / T)).sum()
    return np.array(out)


def pairs(g, p, r):
    """E[e^r] when the better of two is kept by Bradley-Terry odds, by summing over all pairs."""
    p, utility, out = np.asarray(p), np.exp(r), []
    for _ in range(g):
        out.append(p @ utility)
        p = 2 * p * utility * (p / (utility[:, None] + utility)).sum(1)
    return np.array(out)


CURATE = {"p": [0.5, 0.3, 0.2], "r": [0.0, 1.0, 2.0], "K": 2}
STUDENT = dict(lam=0.7, nu=4.0, s2=2.0, gamma=0.3)
STUDENT_PATH, STUDENT_MU = student_slopes(4, **STUDENT)
COMPUTED = {  # id: parameters, an independent value at g = 1, 2, ..., relative tolerance
    "J1": (dict(lam=0.7, mu=STUDENT_MU, gamma=0.3), STUDENT_PATH, 1e-4),
    "F1b": (dict(lam=0.4, K=3), rare_reward(5, 0.4, 3), 2e-3),
    "F1": (CURATE, pairs(4, CURATE["p"], CURATE["r"]), 1e-12),
    "F2": (dict(tau2=2.0), on_grid(4, lambda x, q: q * np.exp(-((x - 1.5) ** 2) / 4.0))[1], 1e-9),
    "F2m": (dict(tau2=2.0, c=1.5), on_grid(4, lambda x, q: q * np.exp(-((x - 1.5) ** 2) / 4.0))[0], 1e-9),
    "T1": (dict(p=CURATE["p"], T=0.8), cooled(5, CURATE["p"], 0.8), 1e-12),
    "S1": (dict(lam=0.5, s=1.3), spread(4, 0.5, 1.3), 1e-5),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_infinite_data_agrees_with_the_law_and_rejects_its_neighbour(name):
    parameters, expected, rtol = COMPUTED[name]
    g = np.arange(1, len(expected) + 1)
    np.testing.assert_allclose(LAWS[name].value(g, **parameters), expected, rtol=rtol, atol=1e-12)
    assert not np.allclose(LAWS[name].wrong(g, **parameters), expected, rtol=10 * rtol, atol=1e-9)


def test_every_law_of_infinite_data_is_computed():
    assert COMPUTED.keys() == {name for name, law in LAWS.items() if "infinite data" in law.regime}
