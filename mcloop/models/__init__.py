"""Learners: a network with an objective and a sampler, written for one loop; diffusion, flow matching, normalizing flows."""

from mcloop.models.diffusion import diffusion
from mcloop.models.flow import normalizing_flow
from mcloop.models.processes import ddpm, edm, flow_matching
from mcloop.models.samplers import ancestral, ddim, dopri5, euler, heun

__all__ = ["ancestral", "ddim", "ddpm", "diffusion", "dopri5", "edm", "euler", "flow_matching", "heun", "normalizing_flow"]
