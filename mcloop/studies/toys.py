"""Four generative models of points in the plane, small enough to be trained side by side: the study, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import make_loop, regimes
from mcloop.data.toys import Toy
from mcloop.errors import InputError
from mcloop.experiment import Accept, Experiment, Size
from mcloop.metrics import mmd, modes
from mcloop.metrics.wasserstein import sliced_w2
from mcloop.models.compiled import compiled_model
from mcloop.models.diffusion import diffusion
from mcloop.models.flow import normalizing_flow
from mcloop.models.processes import ddpm, edm, flow_matching
from mcloop.models.samplers import ddim, heun
from mcloop.models.training import Training, cosine, training
from mcloop.nets.mlp import mlp
from mcloop.types import Learner, Model

_TEST = 2000  # real points that every generation is compared with


def learner(family: str, toy: Toy, width: int = 64) -> Learner:
    """A model of a toy distribution: "ddpm", "edm", "ot_cfm" or "flow".

    Args:
        family: which.
        toy: gives the shift and scale to network units.
        width: units of the networks' hidden layers.

    Raises:
        InputError: another name.
    """
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}.")
    return FAMILIES[family](toy, width)


def _denoiser(process, sampler) -> Callable[[Toy, int], Learner]:
    def build(toy: Toy, width: int) -> Learner:
        return diffusion(mlp(2, width, depth=2), process, sampler, (2,), shift=toy.shift, scale=toy.scale)

    return build


FAMILIES: Mapping[str, Callable[[Toy, int], Learner]] = {
    "ddpm": _denoiser(ddpm(steps=100, beta=(1e-4, 0.1)), ddim(50, "quadratic")),
    "edm": _denoiser(edm(sigma_data=1.0, sigma_min=0.01, sigma_max=10.0), heun(16)),
    "ot_cfm": _denoiser(flow_matching("ot"), heun(8)),
    "flow": lambda toy, width: normalizing_flow((2,), layers=4, width=max(8, width // 2), shift=toy.shift, scale=toy.scale),
}


def toy_model(
    family: str,
    toy: Toy,
    training: Training,
    n: int,
    *,
    capacity: int,
    width: int = 64,
    samples: int = 1000,
    gate: bool = False,
) -> Model:
    """A model of a toy distribution as a family of compiled loops.

    Measures of a generation: `sliced_w2` and `mmd2` to 2,000 real points that no generation is trained on, `high_quality`
    (and `mode_coverage`, `kl_modes` where there are modes), `nll` of those points where the model has a likelihood,
    `param_distance` and `field_distance` to theta*, and the picture `density`.

    Args:
        training: budgets in steps.
        n: real points.
        capacity: the most points that one generation draws.
        samples: points drawn to measure a generation.
        gate: whether to see also how finished the first fit is, see `compiled_model`.
    """
    chosen = learner(family, toy, width)
    test = toy.sample(jax.random.key(2**31 - 1), _TEST)
    bandwidths = [toy.std, toy.scale]
    own = mmd.self_term(test, bandwidths)
    lines, judged = jax.random.key(1), quality(toy)

    def evaluate(points, variables) -> dict[str, Any]:
        seen = {
            "sliced_w2": sliced_w2(lines, points, test),
            "mmd2": mmd.mmd2(points, test, bandwidths, own),
            **judged(points),
            "density": modes.density(points, toy.box, 48).T,  # rows are y, as pictures have them
        }
        if chosen.log_prob is not None:
            seen["nll"] = -chosen.log_prob(variables, test).mean()
        return seen

    return compiled_model(chosen, training, toy, n, capacity=capacity, evaluate=evaluate, samples=samples, gate=gate)


def quality(toy: Toy) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """points (n, 2) -> the share that is near a mode, and which modes are reached; or the share of likely points."""
    if toy.modes is not None:
        centres = jnp.asarray(toy.modes)
        return lambda points: modes.mode_statistics(points, centres, toy.std)
    if toy.log_prob is None:
        return lambda points: {}
    log_prob = toy.log_prob
    with jax.ensure_compile_time_eval():  # one program, not one for every operation of it
        threshold = float(jax.jit(lambda key: modes.density_threshold(log_prob(toy.sample(key, 100_000))))(jax.random.key(2)))
    return lambda points: {"high_quality": modes.density_quality(log_prob(points), threshold)}


def floor(toy: Toy, samples: int = 1000, repeats: int = 16) -> dict[str, float]:
    """What each measure gives for points of the true distribution itself, the mean over independent samples."""
    return {name: mean for name, (mean, _) in _floors(toy, samples, repeats).items()}


def _floors(toy: Toy, samples: int, repeats: int = 16) -> dict[str, tuple[float, float]]:
    """The same, each with the standard deviation over the samples; NaN where there is but one."""
    test = toy.sample(jax.random.key(2**31 - 1), _TEST)
    bandwidths = [toy.std, toy.scale]

    def one(key):
        points = toy.sample(key, samples)
        return {
            "sliced_w2": sliced_w2(jax.random.key(1), points, test),
            "mmd2": mmd.mmd2(points, test, bandwidths),
            **quality(toy)(points),
        }

    values = jax.lax.map(one, jax.random.split(jax.random.key(3), repeats))
    found = {name: (float(np.mean(x)), float(np.std(x, ddof=1))) for name, x in values.items()}
    return found | ({} if toy.log_prob is None else {"nll": (float(-toy.log_prob(test).mean()), float("nan"))})


def annotate(ds, toy: Toy, samples: int = 1000):
    """The dataset with what figures and report need beside the measures: what true points score, and their picture."""
    for name, (value, spread) in _floors(toy, samples).items():
        if name in ds:
            ds[name].attrs |= {"floor": value} | ({"floor_spread": spread} if np.isfinite(spread) else {})
    if "sliced_w2" in ds:  # what a network gives that was never trained: about the noise that it starts from
        noise = toy.shift + toy.scale * jax.random.normal(jax.random.key(5), (samples, 2))
        seen = sliced_w2(jax.random.key(1), noise, toy.sample(jax.random.key(2**31 - 1), _TEST))
        ds["sliced_w2"].attrs["untrained"] = float(seen)
    if "density" in ds:
        real = modes.density(toy.sample(jax.random.key(4), 20_000), toy.box, 48).T
        ds["density"].attrs["box"] = list(toy.box)
        attributes = {"picture": "density", "real": 1, "box": list(toy.box)}
        ds["real_density"] = (("y", "x"), np.asarray(real), attributes)
    entropy = "" if toy.entropy is None else f"; the entropy of the truth is {toy.entropy:.3f} nats"
    ds.attrs["evaluation"] = (
        f"Every generation is judged by {samples} points that it draws, against {_TEST} real points that no model is "
        "trained on; theta* is trained as long as generation 1, from the same start, on fresh real points at every "
        f"step{entropy}. The dotted line is what true points score."
    )
    return ds


TINY = {"n": 50, "most": 50, "first": 5, "later": 2, "width": 8, "samples": 50}
PAPER = {"n": 5000, "most": 5000, "first": 20000, "later": 2000, "width": 128, "samples": 5000}


def toy_study(toy: Toy) -> Experiment:
    """The experiment of one toy distribution: every family, from real data only to synthetic data only."""

    @cache
    def model(family, n, most, first, later, width, samples):
        # exact transport in a minibatch costs more than the network: its batches are smaller
        batch = 64 if family == "ot_cfm" else 128
        spec = training(first, later, rate=cosine(3e-3, 1e-5), later_rate=cosine(1e-3, 1e-5), batch=batch, ema=0.995)
        return toy_model(family, toy, spec, n, capacity=max(n, most), width=width, samples=samples, gate=True)

    def make(family, lam, n=4000, most=4000, first=20000, later=300, width=64, samples=1000):
        """One loop: `n` real points, at most `most` synthetic ones, `first` and then `later` steps."""
        return make_loop(model(family, n, most, first, later, width, samples), regimes.augment(lam))

    return Experiment(
        make=make,
        grid={"family": list(FAMILIES), "lam": [0.0, 0.1, 0.5, 1.0, np.inf]},
        sizes={
            "tiny": Size(2, 2, {"family": ["edm"], "lam": [0.0, np.inf]}, TINY),
            "small": Size(6, 12),
            "paper": Size(16, 21, {"lam": [0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, np.inf]}, PAPER),
        },
        # the headline is the one that noise hides least: sliced W2 of 1,000 points is mostly which modes they happen to be of
        measure=("mmd2", "high_quality", "sliced_w2", "nll", "field_distance", "param_distance"),
        worse="up",
        neural=True,
        gate={"sliced_w2": Accept(1.2, 2.0, floors=True), "high_quality": Accept(0.95, 0.8, settled=0.05)},
        annotate=lambda ds, options: annotate(ds, toy, options.get("samples", 1000)),
    )
