"""Digits, self-corrected or not: a diffusion model of MNIST that is fine-tuned on its own drawings

Paper: Gillman et al. 2402.07087, section 6 and appendix E
Claim: Fine-tuned on its own digits the model gets worse; with every digit moved to the nearest of 16 typical real ones of its
    class before training, it stays near the model that sees real digits only.
Command: mcloop run gillman/mnist
Minutes: tiny 1, small 60, paper 600
Expected: in the paper, at lam 1.5, iterative fine-tuning ends above self-correction, and that near the baseline (figure 5;
    its FID is of 100 digits and mostly bias). At size small FID is 18.4 +- 3 (baseline), 19.9 +- 1 (fine-tuning) and
    19.6 +- 2 (correction): no order is resolved; but recall is .74, .59 and .51, and precision .78, .74 and .90 (precision
    and recall against the first 2,000 test images, which are cleaner than the mixed ones that are taken now)
"""

from contextlib import suppress
from functools import cache
from typing import Any

import jax
import numpy as np

from mcloop import correctors, make_loop, regimes
from mcloop.correctors.nearest_centroid import move
from mcloop.data.images import load
from mcloop.experiment import Accept, Experiment, Size
from mcloop.metrics.features import lenet_features, pixels_features
from mcloop.metrics.panel import image_panel
from mcloop.models.diffusion import diffusion
from mcloop.models.hosted import Diverged, hosted_model, images
from mcloop.models.processes import ddpm
from mcloop.models.samplers import ancestral, ddim
from mcloop.models.training import Budget, compute_dtype, linear, staircase, training
from mcloop.nets.unet import context_unet

ARMS = ("baseline", "iterative fine-tuning", "with self-correction")


def make(arm, lam=1.5, k=16, gamma=np.inf, data="mnist", count=12_000, pixels=28, space="paper", samples=5000, **fit):
    """One arm of the study.

    Args:
        arm: one of ARMS.
        lam: synthetic : real ratio.
        k: centroids a class.
        gamma: strength of the correction; gamma / (1 + gamma) of the digits are moved.
        data: "mnist", "fashion_mnist" or "digits".
        count: real images.
        pixels: a side, a multiple of 4.
        space: the features that metrics compare: "paper" (the last hidden layer, before its activation, of a LeNet of
            sigmoids), "lenet" (after it, of ReLUs) or "pixels".
        samples: images that a generation is judged by.
        fit: of `family`.
    """
    model = family(data, count, pixels, space, samples, **fit)
    if arm == "baseline":
        return baseline(model)  # the same loop at every lam, which is then run once
    if arm == "iterative fine-tuning":
        return make_loop(model, regimes.augment(lam))
    return make_loop(model, regimes.augment(lam), correctors.nearest_centroid(centroids(data, count, pixels, k), gamma))


@cache
def baseline(model):
    return make_loop(model, regimes.baseline())


@cache
def real(data, pixels):
    return load(data, pixels)


@cache
def panel(data, pixels, space, samples):
    chosen = real(data, pixels)
    if space == "pixels":
        features = pixels_features()
    else:
        features = lenet_features(chosen, before=space == "paper", activation="sigmoid" if space == "paper" else "relu")
    return image_panel(chosen, samples, features)


@cache
def centroids(data, count, pixels, k):
    chosen = real(data, pixels)
    return correctors.fit_centroids(chosen.train_x[:count], chosen.train_y[:count], int(k))


@cache
def family(
    data,
    count,
    pixels,
    space,
    samples,
    features=128,
    steps=None,
    first=20,
    rate=1e-4,
    later=1,
    later_rate=2.5e-7,
    stairs=True,
    anneal=False,
    moments=True,
    batch=256,
    chunk=250,
):
    """ContextUnet of `features`, T = 400, drawn by DDIM in `steps` or (None) step by step; `first`, `later` in epochs.

    As released, the first fit's rate falls by `rate` / `first` an epoch (`stairs`; otherwise straight to zero), and Adam's
    `moments` go on from generation to generation (otherwise every fit begins with new ones).

    `anneal` lets the learning rate of every later fit go to zero: large rates otherwise leave each generation at a random place
    around its optimum, which hides what the data does.
    """
    chosen = real(data, pixels)
    learner = diffusion(
        context_unet(features=features, image=pixels, dtype=compute_dtype()),
        ddpm(steps=400, beta=(1e-4, 0.02), schedule="mnist"),
        ancestral() if steps is None else ddim(steps),
        (pixels, pixels, 1),
        classes=10,
        drop=0.1,
        guidance=0.5,
    )
    falling = staircase(rate, int(first)) if stairs else linear(rate)
    later_rate = linear(later_rate) if anneal else later_rate
    budgets = Budget(epochs=first), Budget(epochs=later)
    spec = training(*budgets, rate=falling, later_rate=later_rate, batch=batch, keep_moments=bool(moments))
    return hosted_model(
        learner,
        spec,
        {"x": chosen.train_x[:count], "label": chosen.train_y[:count]},
        codec=images(),
        evaluate=panel(data, pixels, space, samples).see,
        samples=samples,
        chunk=chunk,
        estimator=f"ContextUnet of {features} features on {count} images of {pixels} x {pixels}, {first} then {later} epochs",
    )


def annotate(ds, options):
    """The dataset with what its figures and report say: the evaluation, and what the correction does to a perfect model."""
    data, count, pixels, samples = (options[name] for name in ("data", "count", "pixels", "samples"))
    judge = panel(data, pixels, options["space"], samples)
    ds = judge.annotate(ds)
    model: Any = make(**options).model  # which has an `evaluate`
    _, start = model.observe(jax.random.key(1), None)
    with suppress(Diverged):  # what draws nothing finite is no model to compare with
        ds["fid"].attrs["untrained"] = float(model.evaluate(jax.random.key(2), start.initial, None)["fid"])
    chosen = real(data, pixels)
    held_out = {"x": chosen.train_x[-samples:], "label": chosen.train_y[-samples:]}
    ds.attrs["dtype"] = np.dtype(compute_dtype() or np.float32).name
    said = []
    for k in sorted({options["k"], 4 * options["k"]}):
        moved = move(jax.random.key(0), held_out, centroids(data, count, pixels, k))
        seen = judge.see({name: np.asarray(x) for name, x in moved.items()}, None)
        said.append(f"FID {seen['fid']:.3g}, precision {seen['precision']:.2f} and recall {seen['recall']:.2f} at K = {k}")
    ds.attrs["remarks"] = [
        *ds.attrs.get("remarks", []),
        f"What the correction does to a perfect model: {samples} real digits, each moved to its nearest centroid, have "
        f"{' and '.join(said)}; unmoved, FID {ds.fid.attrs['floor']:.3g}. Where that is large, correction pulls the loop away "
        "from the data, however good the model.",
    ]
    return ds


# eight-pixel digits that every machine has: to see that everything runs, not to learn anything
TINY = {
    "data": "digits",
    "count": 60,
    "pixels": 8,
    "space": "pixels",
    "samples": 60,
    "features": 8,
    "steps": 2,
    "first": 1,
    "stairs": False,
    "moments": False,
    "batch": 20,
    "chunk": 60,
}

# a thousand digits at 16 x 16 and a U-Net of 24 features: every fit is shorter and its rates are larger in proportion, go
# straight to zero, and begin with new moments
SMALL = {
    "count": 1000,
    "pixels": 16,
    "space": "lenet",
    "stairs": False,
    "moments": False,
    "features": 24,
    "steps": 10,
    "first": 60,
    "rate": 2e-3,
    "later": 2,
    "later_rate": 6e-4,
    "anneal": True,
    "batch": 50,
    "samples": 1500,
}

experiment = Experiment(
    make=make,
    grid={"arm": ARMS, "lam": [1.5]},
    sizes={
        "tiny": Size(1, 2, options=TINY),
        "small": Size(3, 7, options=SMALL),
        "paper": Size(3, 51, {"lam": [0.2, 0.5, 1.0, 1.5]}),
    },
    measure=("fid", "fid_inf", "kid", "precision", "recall", "diversity"),
    worse="up",
    neural=True,
    gate={"fid": Accept(5.0, 15.0, floors=True), "recall": Accept(0.85, 0.6, settled=0.1)},
    annotate=annotate,
    family=family,
)
