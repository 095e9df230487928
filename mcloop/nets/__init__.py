"""Flax modules as pure functions, and nothing else: what a network computes, not what it is trained for."""

from mcloop.nets.mlp import mlp
from mcloop.nets.network import Network, Variables, network
from mcloop.nets.unet import context_unet

__all__ = ["Network", "Variables", "context_unet", "mlp", "network"]
