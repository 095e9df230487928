"""Loops of Gaussians and kernel densities, for the laws that they obey."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import correctors, regimes
from mcloop.drivers.scan import trajectory
from mcloop.exact.gaussian import gaussian
from mcloop.exact.kde import kde
from mcloop.exact.normal import Normal, normal
from mcloop.loop import make_loop
from mcloop.validation.simulations import case, check, experiment, infos, seeing, started


def replace(key, n, ddof, grow):
    """n points at every fit, or i n at fit i (grow = 1)."""
    model = gaussian(d=1, n=n, ddof=ddof)
    return infos(make_loop(model, regimes.replace(lambda n, t: n * (1 + grow * (t - 1)))), key, 3)


def accumulate(key, n):
    """Every draw of every model is kept beside n real points in the plane."""
    return infos(make_loop(gaussian(d=2, n=n), regimes.accumulate()), key, 3)


def subsample(key):
    """Three points drawn anew, at every fit, from all that was ever made."""
    return infos(make_loop(gaussian(d=1, n=3, literal=True), regimes.accumulate_subsample()), key, 5)


def augment(key, n, lam, gamma, shift):
    """Fixed real set + lam corrected; the first fit's mean moved by `shift`."""
    model = seeing(gaussian(d=1, n=n), fitted_mean=lambda p: p.mean[0])
    loop = make_loop(model, regimes.augment(lam), correctors.mixture(gamma))
    moved = started(loop, lambda s: s._replace(params=s.params._replace(mean=s.params.mean + shift)))
    return infos(moved, key, 6)


def fresh(key, n, m, w):
    """n new real points and m synthetic ones of weight w at every fit."""
    return infos(make_loop(gaussian(d=1, n=n, ddof=1), regimes.fresh(1.0, m / n, w)), key, 3)


def curved(key, n, lam, gamma, shift):
    """N(theta, theta^2) fitted by maximum likelihood to N(0, 1): theta* = 1 and F/N = 3/2, a misspecified model.

    Two loops with the same random numbers start either side of the fit: half their gap is the derivative, to shift^2.
    """
    base = seeing(gaussian(d=1, n=n, covariance="diagonal"), theta=lambda p: p.root[0])

    def fit(key, params, data):
        mean, square = data.mean, data.root**2 / data.size + data.mean**2
        theta = (jnp.sqrt(mean**2 + 4 * square) - mean) / 2
        return Normal(theta, theta), {}

    def start(state):
        side = shift * jnp.float32([[1.0], [-1.0]])
        ideal = jax.tree.map(jnp.ones_like, state.truth)  # the corrector's p* is the model at theta*, not the data
        return state._replace(params=jax.tree.map(lambda x: x + side, state.params), truth=ideal)

    loop = make_loop(base._replace(fit=fit), regimes.augment(lam), correctors.mixture(gamma))
    theta = infos(started(loop, start), jnp.concatenate([key, key]), 3)["theta"]
    return {"slope": (theta[:, 0] - theta[:, 1]) / (2 * shift)}


def verified(key, n, c, tau2):
    """Synthetic points near c are kept; c and tau2 are the verifier's centre and squared width."""
    model = seeing(gaussian(d=1, n=n), fitted_mean=lambda p: p.mean[0])
    loop = make_loop(model, regimes.replace(), correctors.verifier(jnp.reshape(c, (1,)), jnp.sqrt(tau2)))
    return infos(loop, key, 3)


def extrapolated(key, n, m, w):
    """Two generations of the loop are one step of the law, and the model that they end with is the truth of the next."""
    loop = make_loop(gaussian(d=1, n=n, covariance="diagonal"), regimes.replace(lambda n, t: m), correctors.extrapolate(w))

    def step(truth, key):
        final = trajectory(loop, key, truth, 2)[0].params
        return final, final.root[0] ** 2

    def one(key):
        return jax.lax.scan(step, normal([0.0], [1.0]), jax.random.split(key, 2))[1]

    return {"variance": jax.vmap(one, out_axes=-1)(key.ravel())}


def spread(key, n, lam, s):
    """A sampler that stretches by s is one at temperature s^2."""
    return infos(make_loop(gaussian(d=1, n=n), regimes.augment(lam), correctors.temperature(s**2)), key, 4)


def plane(key, n, lam, gamma):
    """Two dimensions, where a mean's error and a variance's are told apart."""
    return infos(make_loop(gaussian(d=2, n=n), regimes.augment(lam), correctors.mixture(gamma)), key, 2)


def narrow_data(key):
    """A unit Gaussian's mean, fitted to data of half its spread."""
    base = gaussian(d=1, n=10**4, covariance="diagonal")

    def fit(key, params, data):
        return Normal(data.mean, jnp.ones_like(data.mean)), {}

    def measure(params, truth):
        return {"relative": 4e4 * params.mean[0] ** 2}

    loop = make_loop(base._replace(fit=fit, measure=measure), regimes.augment(2.0))
    return infos(loop, key, 4, real=normal([0.0], [0.25]))


def volume(key):
    """Three dimensions, for the determinant of the covariance."""
    return infos(make_loop(gaussian(d=3, n=9, ddof=1), regimes.replace()), key, 3)


def kernels(regime: Callable):
    """Four points under a kernel of bandwidth h."""
    return lambda key, h: infos(make_loop(kde(d=1, n=4, bandwidth=h), regime()), key, 3)


GAUSSIAN = (
    experiment(
        replace,
        case(
            check("G1", 3, "n=4", "trace_ratio", n=4),
            check("G2", 3, "n=4", "mean_sq_error", n=4),
            check("G3", 3, "n=4", lambda i: i["w2"] ** 2, n=4),
            n=4,
            ddof=0,
            grow=0,
        ),
        case(
            check("G4", 3, "n=6", "trace_ratio", n=6),
            check("G5", 3, "n=6", lambda i: np.sqrt(i["trace_ratio"]), n=6),
            check("G6", 3, "n=6", "log_det", n=6),
            check("G7", 3, "n=6", "mean_sq_error", n=6),
            n=6,
            ddof=1,
            grow=0,
        ),
        case(check("A5", 3, "n=2", "trace_ratio", n=2), n=2, ddof=0, grow=1),
        calls=4,
    ),
    experiment(
        accumulate,
        case(check("A1", 3, "n=3, d=2", "trace_ratio", n=3), n=3),
        case(check("A2", 3, "n=2, d=2", lambda i: i["mean_sq_error"] / 2, n=2), n=2),
    ),
    experiment(
        subsample,
        case(
            check("A3", 5, "n=3, drawn point by point", "mean_sq_error", n=3),
            check("A3v", 5, "n=3, drawn point by point", "trace_ratio", n=3),
        ),
        calls=4,
    ),
    experiment(
        augment,
        case(
            check("B1", 2, "n=3, m=6", "mean_sq_error", n=3, m=6),
            check("B1v", 2, "n=3, m=6", "trace_ratio", n=3, m=6),
            n=3,
            lam=2,
            gamma=0,
            shift=0,
        ),
        case(
            check("B2", 6, "lam=2, n=1e5", lambda i: 1e5 * i["mean_sq_error"], lam=2.0),
            n=1e5,
            lam=2,
            gamma=0,
            shift=0,
        ),
        case(
            check("B4", 3, "lam=1, gamma=.5, n=4, first mean moved by 1", "fitted_mean", lam=1.0, gamma=0.5),
            n=4,
            lam=1,
            gamma=0.5,
            shift=1,
        ),
        case(
            check("B5", 3, "n=3, m=6, gamma=.5", "mean_sq_error", n=3, m=6, gamma=0.5),
            check("B5v", 3, "n=3, m=6, gamma=.5", "trace_ratio", n=3, m=6, gamma=0.5),
            n=3,
            lam=2,
            gamma=0.5,
            shift=0,
        ),
        calls=4,
    ),
    experiment(
        fresh,
        case(check("C1", 3, "n=9e4, m=6e4, w=.6", "mean_sq_error", n=9e4, m=6e4, w=0.6), n=9e4, m=6e4, w=0.6),
    ),
    experiment(
        curved,
        case(
            check(
                "J1",
                3,
                "N(theta, theta^2) on N(0, 1), mu=1.5; lam=.5, gamma=.3, n=4e6",
                "slope",
                lam=0.5,
                mu=1.5,
                gamma=0.3,
            ),
            n=2**22,
            lam=0.5,
            gamma=0.3,
            shift=2**-9,
        ),
        replicas=2**11,
    ),
    experiment(
        verified,
        case(
            check("F2", 3, "tau2=2, c=1.5, n=4e6", "trace_ratio", tau2=2.0),
            check("F2m", 3, "tau2=2, c=1.5, n=4e6", "fitted_mean", tau2=2.0, c=1.5),
            n=2**22,
            c=1.5,
            tau2=2.0,
        ),
        replicas=2**11,
    ),
    experiment(
        extrapolated,
        case(check("N1", 2, "n=6, m=10, w=.5", "variance", n=6, m=10, w=0.5), n=6, m=10, w=0.5),
        calls=2,
    ),
    experiment(
        spread,
        case(check("S1", 4, "lam=.5, s=1.3, n=4e6", "trace_ratio", lam=0.5, s=1.3), n=2**22, lam=0.5, s=1.3),
        case(check("S2", 3, "n=6, m=12, T=1.5", "trace_ratio", n=6, m=12, T=1.5), n=6, lam=2, s=1.5**0.5),
        replicas=2**14,
    ),
    experiment(
        plane,
        case(
            check("B6", 2, "d=2, n=1e4, lam=.5, gamma=1", lambda i: 1e4 * i["w2"] ** 2, d=2, lam=0.5, gamma=1.0),
            n=1e4,
            lam=0.5,
            gamma=1,
        ),
    ),
    experiment(
        narrow_data,
        case(check("J2", 4, "mean of N(theta, 1) on data of variance 1/4, lam=2", "relative", lam=2.0, mu=1.0, ratio=4.0)),
    ),
    experiment(volume, case(check("G8", 3, "d=3, n=9", "log_det", n=9, d=3))),
)

KERNEL = (
    experiment(kernels(regimes.replace), case(check("K1", 3, "n=4, h=.5", "second_moment", h=0.5), h=0.5)),
    experiment(kernels(regimes.accumulate), case(check("K2", 3, "n=4, h=.7", "second_moment", h=0.7), h=0.7)),
)
