"""Every law of the registry against brute-force replicas, which must also reject its wrong neighbour."""

from __future__ import annotations

import numpy as np
import pytest

from mcloop import laws
from mcloop.laws import LAWS
from mcloop.validation.validate import EXPERIMENTS

R = 40_000


def replace(rng, g, n, ddof=0, sizes=None):
    """Means and variances, each (g, R), of a Gaussian refitted on its own draws."""
    mu, v, out = np.zeros(R), np.ones(R), []
    for i in range(g):
        x = mu[:, None] + np.sqrt(v)[:, None] * rng.normal(size=(R, sizes[i] if sizes else n))
        mu, v = x.mean(1), x.var(1, ddof=ddof)
        out.append((mu, v))
    return np.moveaxis(np.array(out), 1, 0)


def grow(rng, g, n, subsample=False):
    """As `replace`, on all data so far or on n of them without replacement."""
    pool, out = rng.normal(size=(R, n)), []
    for _ in range(g):
        used = rng.permuted(pool, axis=1)[:, :n] if subsample else pool
        mu, v = used.mean(1), used.var(1)
        out.append((mu, v))
        pool = np.concatenate([pool, mu[:, None] + np.sqrt(v)[:, None] * rng.normal(size=(R, n))], axis=1)
    return np.moveaxis(np.array(out), 1, 0)


def fixed(rng, g, n, m, gamma=0.0):
    """As `replace`, on n fixed real points and m new ones, each of which the corrector may redraw from the truth."""
    real = rng.normal(size=(R, n))
    data, out = real, []
    for _ in range(g):
        mu, v = data.mean(1), data.var(1)
        out.append((mu, v))
        z, truth = rng.normal(size=(R, m)), rng.random((R, m)) < gamma / (1 + gamma)
        data = np.concatenate([real, np.where(truth, z, mu[:, None] + np.sqrt(v)[:, None] * z)], axis=1)
    return np.moveaxis(np.array(out), 1, 0)


def fixed_large(rng, g, n, lam):
    """n times the mean's squared error from sufficient statistics."""
    m, xbar, vr = int(lam * n), rng.normal(size=R) / np.sqrt(n), rng.chisquare(n - 1, R) / n
    mu, v, out = xbar, vr, []
    for _ in range(g):
        out.append(n * mu**2)
        xs, vs = mu + np.sqrt(v / m) * rng.normal(size=R), v * rng.chisquare(m - 1, R) / m
        mu, a = (n * xbar + m * xs) / (n + m), m / (n + m)
        v = (1 - a) * vr + a * vs + a * (1 - a) * (xbar - xs) ** 2
    return np.array(out)


def gap(rng, g, n, m, gamma):
    """Gap of two corrected loops that share their randomness."""
    d, out = np.ones(R), []
    for _ in range(g):
        out.append(d)
        d = m / (n + m) * (rng.random((R, m)) > gamma / (1 + gamma)).mean(1) * d
    return np.array(out)


def fresh(rng, g, n, m, w):
    mu, out = rng.normal(size=(R, n)).mean(1), []
    for _ in range(g):
        out.append(mu**2)
        mu = w * rng.normal(size=(R, n)).mean(1) + (1 - w) * (mu + rng.normal(size=(R, m)).mean(1))
    return np.array(out)


def ols(rng, g, T, d, keep, same):
    """Squared error of OLS whose labels come from the fit before; `keep` accumulates, `same` re-uses the design."""
    w, A, b, out = np.zeros((R, d)), 0.0, 0.0, []
    X = rng.normal(size=(R, T, d))
    for _ in range(g):
        y = np.einsum("rtd,rd->rt", X, w) + rng.normal(size=(R, T))
        A, b = X.mT @ X + keep * A, np.einsum("rtd,rt->rd", X, y) + keep * b
        w = np.linalg.solve(A, b[..., None])[..., 0]
        out.append((w**2).sum(1))
        X = X if same else rng.normal(size=X.shape)
    return np.array(out)


RIDGE = {"T": 6, "T0": 10, "ridge": 0.5, "w": np.array([1.0, -0.5]), "Sigma": np.array([[1.0, 0.4], [0.4, 2.0]])}
DESIGN = np.random.default_rng(5).normal(size=(RIDGE["T"], 2))
C_RIDGE = DESIGN.T @ DESIGN / RIDGE["T"]


def ridge(rng, g):
    """Error above that of real labels when the g-th fit is a ridge on `DESIGN`, after OLS on correlated rows."""
    w, out, root = np.tile(RIDGE["w"], (R, 1)), [], np.linalg.cholesky(RIDGE["Sigma"])
    clean = laws.ridge_clean_error(C_RIDGE, RIDGE["ridge"], RIDGE["T"], RIDGE["w"], Sigma=RIDGE["Sigma"])
    for _ in range(g):
        y = w @ DESIGN.T + rng.normal(size=(R, RIDGE["T"]))
        e = np.linalg.solve(C_RIDGE + RIDGE["ridge"] * np.eye(2), (y @ DESIGN / RIDGE["T"]).T).T - RIDGE["w"]
        out.append(np.einsum("ri,ij,rj->r", e, RIDGE["Sigma"], e) - clean)
        X = rng.normal(size=(R, RIDGE["T0"], 2)) @ root.T
        y = np.einsum("rtd,rd->rt", X, w) + rng.normal(size=X.shape[:2])
        w = np.linalg.solve(X.mT @ X, np.einsum("rtd,rt->rd", X, y)[..., None])[..., 0]
    return np.array(out)


def two_sources(rng, n1, n2, d):
    X, delta = rng.normal(size=(R, n1 + n2, d)), np.eye(d)[0]
    y = rng.normal(size=X.shape[:2]) + np.where(np.arange(n1 + n2) < n1, 0.0, X @ delta)
    w = np.linalg.solve(X.mT @ X, np.einsum("rtd,rt->rd", X, y)[..., None])[..., 0]
    return (w**2).sum(1)[None]


def counts(rng, g, n, p, keep=False, fixed_n=0, size=R):
    """Relative counts (g, size, k) under replace, accumulate (`keep`) or fixed_n real draws that stay."""
    seen = rng.multinomial(fixed_n or n, np.tile(p, (size, 1))).astype(float)
    real, out = seen, []
    for _ in range(g):
        q = seen / seen.sum(1, keepdims=True)
        out.append(q)
        drawn = rng.multinomial(n, q)
        seen = seen + drawn if keep else (real + drawn if fixed_n else drawn)
    return np.array(out)


def diversity(q, p):
    return (1 - (q**2).sum(-1)) / (1 - (np.asarray(p) ** 2).sum())


def frequency_error(rng, g, N, n):
    """E||p_g - phat||^2 over H(phat), one real sample kept for all replicas: counts 2, 1 and 1 of N = 4."""
    phat, q = np.array([2, 1, 1]) / N, np.tile([0.5, 0.25, 0.25], (R, 1))
    out = []
    for _ in range(g):
        out.append(((q - phat) ** 2).sum(1))
        q = (N * phat + rng.multinomial(n, q)) / (N + n)
    return np.array(out)


def lost_token(rng, g, c, n=5000):
    x, out = np.full(R, c), []
    for _ in range(g):
        out.append(x == 0)
        x = rng.binomial(n, x / n)
    return np.array(out, dtype=float)


ZIPF = (1.0 / np.arange(1, 301)) / (1.0 / np.arange(1, 301)).sum()


def mixture(rng, g, n, w):
    """Weights of a mixture whose components, 100 apart, are told apart by the nearest centre."""
    w, out, k = np.tile(w, (R, 1)), [], len(w)
    for _ in range(g):
        z = (rng.random((R, n, 1)) > np.cumsum(w, axis=1)[:, None, :-1]).sum(-1)
        near = np.rint((100.0 * z + rng.normal(size=z.shape)) / 100.0)
        w = (near[..., None] == np.arange(k)).mean(1)
        out.append(w)
    return np.array(out)


def gamma_means(rng, g, n, k):
    m, out = np.ones(R), []
    for _ in range(g):
        m = (rng.gamma(k, size=(R, n)) * m[:, None] / k).mean(1)
        out.append(m**2)
    return np.array(out)


def kde(rng, g, n, h, keep):
    """Second moment of a kernel density, of the points plus h^2."""
    x, out = rng.normal(size=(R, n)), []
    for _ in range(g):
        out.append((x**2).mean(1) + h**2)
        chosen = rng.integers(x.shape[1], size=(R, n))
        drawn = np.take_along_axis(x, chosen, 1) + h * rng.normal(size=(R, n))
        x = np.concatenate([x, drawn], axis=1) if keep else drawn
    return np.array(out)


def curated(rng, g, p, r, K):
    """e^r of draws from p_g, each the survivor of K^(g-1) draws from p_1."""
    r, out = np.asarray(r), []
    for i in range(g):
        x = rng.choice(len(r), p=p, size=(R, K**i))
        while x.shape[1] > 1:
            x = x.reshape(R, -1, K)
            winner = (r[x] + rng.gumbel(size=x.shape)).argmax(-1)
            x = np.take_along_axis(x, winner[..., None], -1)[..., 0]
        out.append(np.exp(r[x[:, 0]]))
    return np.array(out)


def verified(rng, g, p, phi, psi):
    wrong, out = rng.random(4 * R) < p, []
    for _ in range(g):
        out.append(wrong.astype(float))
        wrong = wrong[rng.random(wrong.size) < np.where(wrong, psi, phi)]
    return out


def extrapolated(rng, g, n, m, w):
    v, out = np.ones(2 * R), []
    for _ in range(g):
        vr = v * rng.chisquare(n - 1, v.size) / n
        v = (1 + w) * vr - w * vr * rng.chisquare(m - 1, v.size) / m
        out.append(v)
    return np.array(out)


P, G = [0.5, 0.3, 0.2], 3
CURATE = {"p": P, "r": [0.0, 1.0, 2.0], "K": 2}
SIMULATED = {
    "G1": (dict(n=4), lambda rng, n: replace(rng, G, n)[1]),
    "G2": (dict(n=4), lambda rng, n: replace(rng, G, n)[0] ** 2),
    "G3": (dict(n=4), lambda rng, n: (lambda mu, v: mu**2 + (np.sqrt(v) - 1) ** 2)(*replace(rng, G, n))),
    "G4": (dict(n=6), lambda rng, n: replace(rng, G, n, ddof=1)[1]),
    "G5": (dict(n=4), lambda rng, n: np.sqrt(replace(rng, G, n, ddof=1)[1])),
    "G6": (dict(n=4), lambda rng, n: np.log(replace(rng, G, n, ddof=1)[1])),
    "G7": (dict(n=6), lambda rng, n: replace(rng, G, n, ddof=1)[0] ** 2),
    "A1": (dict(n=3), lambda rng, n: grow(rng, G, n)[1]),
    "A2": (dict(n=2), lambda rng, n: grow(rng, G, n)[0] ** 2),
    "A3": (dict(n=3), lambda rng, n: grow(rng, 5, n, subsample=True)[0] ** 2),
    "A5": (dict(n=2), lambda rng, n: replace(rng, G, n, sizes=[n, 2 * n, 3 * n])[1]),
    "B1": (dict(n=3, m=3), lambda rng, n, m: fixed(rng, G, n, m)[0] ** 2),
    "B2": (dict(lam=2.0), lambda rng, lam: fixed_large(rng, 6, 1000, lam)),
    "B4": (dict(lam=1.0, gamma=0.5), lambda rng, lam, gamma: gap(rng, G, 4, int(4 * lam), gamma)),
    "B5": (dict(n=3, m=6, gamma=0.5), lambda rng, n, m, gamma: fixed(rng, G, n, m, gamma)[0] ** 2),
    "C1": (dict(n=3, m=2, w=0.6), lambda rng, n, m, w: fresh(rng, G, n, m, w)),
    "L1": (dict(T=10, d=3), lambda rng, T, d: ols(rng, G, T, d, keep=False, same=False)),
    "L2": (dict(T=10, d=3), lambda rng, T, d: ols(rng, G, T, d, keep=True, same=True)),
    "L2b": (dict(T=10, d=3), lambda rng, T, d: ols(rng, G, T, d, keep=True, same=False)),
    "L3": (dict(C=C_RIDGE, ridge=0.5, T0=10, Sigma=RIDGE["Sigma"]), lambda rng, **_: ridge(rng, G)),
    "L4": (dict(n1=6, n2=8, d=3, gap2=1.0), lambda rng, n1, n2, d, gap2: two_sources(rng, n1, n2, d)),
    "D1": (dict(n=3), lambda rng, n: diversity(counts(rng, G, n, P), P)),
    "D2": (dict(n=3), lambda rng, n: diversity(counts(rng, G, n, P, keep=True), P)),
    "D3": (dict(N=4, n=4, H=0.625), lambda rng, N, n, H: frequency_error(rng, 5, N, n)),
    "D4": (dict(c=2), lambda rng, c: lost_token(rng, 4, c)),
    "Z1": (dict(p=ZIPF, N=500), lambda rng, p, N: (counts(rng, G, N, p, size=1000) == 0) @ p),
    "P1": (dict(n=4), lambda rng, n: diversity(mixture(rng, G, n, P), P)),
    "M1": (dict(n=3, v2=0.5), lambda rng, n, v2: gamma_means(rng, G, n, 1 / v2)),
    "M2": (dict(n=3, v2=-1.0), lambda rng, n, v2: diversity(counts(rng, G, n, [0.3, 0.7], keep=True), [0.3, 0.7])),
    "K1": (dict(h=0.5), lambda rng, h: kde(rng, G, 4, h, keep=False)),
    "K2": (dict(h=0.7), lambda rng, h: kde(rng, G, 4, h, keep=True)),
    "F1": (CURATE, lambda rng, p, r, K: curated(rng, G, p, r, K)),
    "F3": (dict(p=0.4, phi=0.8, psi=0.3), lambda rng, p, phi, psi: verified(rng, G, p, phi, psi)),
    "N1": (dict(n=6, m=10, w=0.5), lambda rng, n, m, w: extrapolated(rng, G, n, m, w)),
}


def scores(predicted, replicas):
    """z at each g, and whether the quantity has any spread there; one without spread must be met exactly."""
    mean = np.array([np.mean(r) for r in replicas])
    error = np.array([np.std(r, ddof=1) / np.sqrt(len(r)) for r in replicas])
    return (mean - predicted) / np.maximum(error, 1e-12), error > 0


@pytest.mark.parametrize("name", SIMULATED)
def test_replicas_agree_with_the_law_and_reject_its_neighbour(name):
    parameters, simulate = SIMULATED[name]
    replicas = simulate(np.random.default_rng(2024), **parameters)
    g = np.arange(1, len(replicas) + 1)
    z, _ = scores(LAWS[name].value(g, **parameters), replicas)
    assert np.abs(z).max() < 4
    z, spread = scores(LAWS[name].wrong(g, **parameters), replicas)
    assert np.abs(z[spread]).max() > 7


def test_every_law_of_finite_data_is_simulated():
    """Here in plain NumPy, or, the laws of where loops come to rest, by `validate` with the library's own loops."""
    held = {check.law for experiment in EXPERIMENTS for case in experiment.cases for check in case.checks}
    assert SIMULATED.keys() | held >= {name for name, law in LAWS.items() if "infinite data" not in law.regime}
