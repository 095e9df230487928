"""A DDPM of diffusers: a pipeline, trained on its own digits (a recipe)

Paper: beyond the papers; Ho et al. 2006.11239 by diffusers' DDPMPipeline and UNet2DModel, from a config, without a download
Claim: Trained on its own digits alone, a diffusion model moves away from the real ones, generation by generation; where the
    real digits are kept, it stays.
Command: mcloop run recipes/diffusers_pipeline
Minutes: tiny 1, small 30, paper 600
Expected: of 600 digits, after 500 steps of training, a squared Frechet distance of .70 along 16 components (real digits drawn
    again: .12): underfitted, it shows how a pipeline enters a loop; its loops were run at size tiny alone, and the minutes
    are a guess
"""

from functools import cache, partial
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from mcloop import make_loop, regimes
from mcloop.experiment import Experiment, Size, once
from mcloop.own.external import external
from mcloop.own.floor import with_floor
from mcloop.own.measures import array_metrics
from mcloop.own.optional import optional

ARMS = {"replace": regimes.replace(), "augment": regimes.augment(1.0)}
DIMS = 16  # principal components of the real digits, by which drawn ones are judged: 86 % of the variance


@cache
def digits(count):
    """(n, 8, 8), in [0, 1]"""
    found: Any = load_digits()
    return found.images[:count].astype(np.float32) / 16


class Pipeline:
    """A DDPM by the parts of diffusers: noise is predicted, and taken away in `denoising` of the schedule's 1,000 steps.

    Args:
        channels: at 8 x 8 and at 4 x 4.
        steps, batch, rate: optimiser steps of AdamW, images in each, and the highest learning rate, which falls to nothing.
        denoising: steps of the sampler.
    """

    def __init__(self, channels, steps, batch, rate, denoising):
        self.channels, self.steps, self.batch, self.rate, self.denoising = channels, steps, batch, rate, denoising
        self.torch, self.library = optional("torch", "hf"), optional("diffusers", "hf")

    def fit(self, images, seed):
        """Trains a new network on images (n, 8, 8) in [0, 1]."""
        torch = self.torch
        torch.set_num_threads(1)  # a network so small gains nothing by more, and its numbers would depend on them
        torch.manual_seed(seed)
        net = self.library.UNet2DModel(
            sample_size=images.shape[1],
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=self.channels,
            down_block_types=("DownBlock2D",) * len(self.channels),
            up_block_types=("UpBlock2D",) * len(self.channels),
            norm_num_groups=8,
        )
        schedule = self.library.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
        optimiser = torch.optim.AdamW(net.parameters(), lr=self.rate)
        falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=self.steps + 1, pct_start=0.1)
        clean = 2 * torch.tensor(np.ascontiguousarray(images, np.float32))[:, None] - 1
        net.train()
        for _ in range(self.steps):
            x = clean[torch.randint(len(clean), (self.batch,))]
            noise, t = torch.randn_like(x), torch.randint(1000, (self.batch,))
            loss = (net(schedule.add_noise(x, noise, t), t).sample - noise).pow(2).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            falling.step()
        self.pipeline = self.library.DDPMPipeline(net.eval(), schedule)
        self.pipeline.set_progress_bar_config(disable=True)

    def sample(self, n, seed):
        """n images (n, 8, 8) in [0, 1]."""
        seeded = self.torch.Generator().manual_seed(seed)
        drawn = self.pipeline(n, generator=seeded, num_inference_steps=self.denoising, output_type="np").images
        return drawn[..., 0].astype(np.float32)


@once
def model(count, channels, steps, batch, rate, denoising):
    made = partial(Pipeline, (channels, 2 * channels), steps, batch, rate, denoising)
    return external(made, digits(count), measure)


def measure(real, drawn):
    """How far drawn digits are from real ones, along the principal components of these."""
    seen = PCA(min(DIMS, len(real) - 1), random_state=0).fit(real.reshape(len(real), -1))
    return array_metrics(*(seen.transform(x.reshape(len(x), -1)) for x in (real, drawn)))


def make(arm, count=600, channels=16, steps=500, batch=64, rate=4e-3, denoising=20):
    """One loop.

    Args:
        arm: one of ARMS; augment keeps as many real digits as there are synthetic ones.
        count: real digits, at most 1,797.
        channels: of the network at 8 x 8, a multiple of eight; twice as many at 4 x 4.
        steps, batch, rate: of its training, the same in every generation.
        denoising: steps of the sampler, of the schedule's 1,000.
    """
    return make_loop(model(int(count), int(channels), steps, batch, rate, denoising), ARMS[arm])


def annotate(ds, options):
    return with_floor(ds, digits(int(options["count"])), measure)


experiment = Experiment(
    make=make,
    grid={"arm": list(ARMS)},
    sizes={
        "tiny": Size(2, 3, options={"count": 40, "channels": 8, "steps": 3, "denoising": 3}),
        "small": Size(2, 4),
        "paper": Size(5, 10, options={"count": 1797, "channels": 64, "steps": 20_000, "denoising": 250}),
    },
    measure=("frechet", "precision", "recall", "variance_kept", "narrowest"),
    annotate=annotate,
    worse="up",
    neural=True,
)
