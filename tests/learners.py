"""The smallest learner there is, a Gaussian with learned mean and scale, for tests of what drives learners."""

import jax.numpy as jnp
import numpy as np

from mcloop import make_loop, random, regimes
from mcloop.models import hosted
from mcloop.models.training import Budget, training
from mcloop.nets.network import Variables
from mcloop.types import Learner


def gaussian_learner(dim=2) -> Learner:
    def init(key):
        return Variables({"mean": 0.1 * random.normal(key, (dim,)), "log_scale": jnp.zeros(dim)}, {"seen": jnp.zeros(())})

    def log_prob(variables, x):
        z = (x - variables.params["mean"]) / jnp.exp(variables.params["log_scale"])
        return -0.5 * (z**2).sum(-1) - variables.params["log_scale"].sum() - dim / 2 * jnp.log(2 * jnp.pi)

    def loss(key, variables, points):
        # a little noise from the key, so that a step depends on it
        jitter = 0.01 * random.normal(key, points.shape)
        return -log_prob(variables, points + jitter).mean(), {"seen": variables.stats["seen"] + 1}

    def sample(key, variables, count, label=None):
        return variables.params["mean"] + jnp.exp(variables.params["log_scale"]) * random.normal(key, (count, dim))

    return Learner("gaussian_learner", init, loss, sample, lambda v, x: log_prob(v, x)[:, None], log_prob)


class Normal:
    """The standard normal distribution as a source of real points."""

    name = "normal"

    @staticmethod
    def sample(key, count, dim=2):
        return random.normal(key, (count, dim))


CODEC = hosted.Codec(lambda points: {"x": np.asarray(points)}, lambda stored: stored["x"])


def evaluate(points, variables):
    x = points["x"]
    sheet = np.clip(60 * x[:24, :, None] + 128, 0, 255).astype(np.uint8) * np.ones((1, 1, 3), np.uint8)
    return {"spread": np.float32(x.var(0).sum()), "samples": sheet}


def hosted_model(n=40, **options):
    real = {"x": np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)}
    spec = training(30, Budget(epochs=2), rate=0.05, batch=16, **options)
    return hosted.hosted_model(gaussian_learner(), spec, real, codec=CODEC, evaluate=evaluate, samples=50, chunk=20)


REGIMES = {
    "replace": regimes.replace(),
    "accumulate": regimes.accumulate(),
    "augment": regimes.augment(0.5),
    "accumulate_subsample": regimes.accumulate_subsample(),
    "window": regimes.window(2),
    "baseline": regimes.baseline(),
    "fresh": regimes.fresh(1.0, 0.5, 0.6),
    "replace_multiple": regimes.replace_multiple(),
}


def hosted_maker(**options):
    model = hosted_model(**options)
    return lambda arm="augment": make_loop(model, REGIMES[arm])
