"""Loops of categories, coins, waiting times, mixtures and curated choices, for the laws that they obey."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mcloop import correctors, regimes
from mcloop.exact.categorical import categorical
from mcloop.exact.exponential import bernoulli, gamma_family
from mcloop.exact.mixture import gaussian_mixture
from mcloop.loop import make_loop
from mcloop.validation.simulations import case, check, experiment, infos, seeing, started

P = (0.5, 0.3, 0.2)
REWARDS = (0.0, 1.0, 2.0)
ZIPF = (1.0 / np.arange(1, 1025)) / (1.0 / np.arange(1, 1025)).sum()


def drift(key, n, p, T, known):
    """Replace at temperature T; `known` = 1 starts from the true frequencies, not from n draws of them."""
    model = seeing(categorical(k=3, n=n, p=p), first=lambda p: p.p[0])
    loop = make_loop(model, regimes.replace(), correctors.temperature(T))
    start = started(loop, lambda s: s._replace(params=s.params._replace(p=jnp.where(known, s.truth.p, s.params.p))))
    return infos(start, key, 3)


def drift_accumulate(key):
    """Three tokens, draw by draw, none ever thrown away."""
    return infos(make_loop(categorical(k=3, n=3, p=P, literal=True), regimes.accumulate()), key, 3)


def drift_fixed(key, lam):
    """Four tokens that never change, two of them alike, and lam 4 new ones."""
    return infos(make_loop(categorical(k=3, n=4), regimes.augment(lam)), key, 4, real=np.array([0, 0, 1, 2]))


def zipf(key):
    """Token by token: a multinomial over so many categories takes longer to compile than this does to run."""
    return infos(make_loop(categorical(k=ZIPF.size, n=4096, p=ZIPF, literal=True), regimes.replace()), key, 2)


def labels(key, n, p, phi, psi):
    """Category 1 is a wrong label."""
    loop = make_loop(bernoulli(p, n), regimes.replace(), correctors.verifier(keep=jnp.stack([phi, psi])))
    return infos(loop, key, 3)


def curated(key):
    """Point by point; n is large, since the law is of infinite data."""
    utility = jnp.exp(jnp.float32(REWARDS))
    model = seeing(categorical(k=3, n=2**12, p=P, literal=True), utility=lambda p: jnp.tensordot(utility, p.p, 1))
    curate = correctors.best_of_k(2, lambda x: jnp.log(utility)[x])
    return infos(make_loop(model, regimes.replace(), curate), key, 3)


def curated_fixed(key):
    """A rare outcome of huge reward attains the bound, short of it by its own mass; the first model is the truth."""
    rare = 2.0**-10
    model = seeing(categorical(k=2, n=2**11, p=[rare, 1 - rare], literal=True), ratio=lambda p: p.p[0] / rare)
    curate = correctors.best_of_k(3, lambda x: jnp.where(x == 0, 16.0, 0.0))
    loop = make_loop(model, regimes.augment(0.4), curate)
    return infos(started(loop, lambda s: s._replace(params=s.truth)), key, 3)


def weights(key):
    """Components a hundred standard deviations apart are told apart."""
    return infos(make_loop(gaussian_mixture(k=3, d=1, n=4, em_steps=1, separation=100.0), regimes.replace()), key, 3)


def waiting(key, n):
    """A gamma law, whose variance grows with its mean squared."""
    return infos(make_loop(gamma_family(shape=2.0, n=n), regimes.replace()), key, 3)


def coins(key, n):
    """A coin, whose variance is cut as its chance moves away from a half; all draws are kept."""
    return infos(make_loop(bernoulli(0.3, n), regimes.accumulate()), key, 3)


def _diversity(p):
    whole = 1.0 - sum(x * x for x in p)
    return lambda infos: infos["heterozygosity"] / whole


COUNTS = (
    experiment(
        drift,
        case(check("D1", 3, "n=3, p=(.5, .3, .2)", _diversity(P), n=3), n=3, p=P, T=1, known=0),
        case(
            check("D4", 3, "c=2, n=1e6", lambda i: i["lost_mass"] > 0, c=2),
            n=2**20,
            p=(2.0**-19, 0.5, 0.5 - 2.0**-19),
            T=1,
            known=1,
        ),
        case(check("T1", 3, "T=.8, n=4e6; p_g[0] from (.5, .3, .2)", "first", p=P, T=0.8), n=2**22, p=P, T=0.8, known=0),
    ),
    experiment(drift_accumulate, case(check("D2", 3, "n=3, p=(.5, .3, .2)", _diversity(P), n=3))),
    experiment(
        drift_fixed,
        case(check("D3", 4, "N=4, n=8, phat=(.5, .25, .25)", "mean_sq_error", N=4, n=8, H=0.625), lam=2),
        calls=2,
    ),
    experiment(zipf, case(check("Z1", 2, "N=4096, p_i ~ 1/i over 1024 tokens", "lost_mass", p=ZIPF, N=4096)), replicas=128),
    experiment(weights, case(check("P1", 3, "n=4, three components, 100 apart", _diversity((1 / 3, 1 / 3, 1 / 3)), n=4))),
    experiment(waiting, case(check("M1", 3, "gamma of shape 2: v2=.5; n=3", "variance_ratio", n=3, v2=0.5), n=3), calls=2),
    experiment(coins, case(check("M2", 3, "coins: v2=-1; n=3", "variance_ratio", n=3, v2=-1.0), n=3)),
)

SELECTION = (
    experiment(
        curated,
        case(check("F1", 3, "K=2, r=(0, 1, 2), p=(.5, .3, .2), n=4096", "utility", p=P, r=REWARDS, K=2)),
        replicas=256,
    ),
    experiment(
        curated_fixed,
        case(check("F1b", 3, "lam=.4, K=3; an outcome of mass 2^-10, reward 16", "ratio", lam=0.4, K=3)),
        replicas=256,
        calls=2,
    ),
    experiment(
        labels,
        case(
            check("F3", 3, "p=.4, phi=.8, psi=.3, n=4e6", "mean", p=0.4, phi=0.8, psi=0.3),
            n=2**22,
            p=0.4,
            phi=0.8,
            psi=0.3,
        ),
        replicas=2**11,
    ),
)
