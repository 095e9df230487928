"""Flax modules as pure functions, and nothing else: what a network computes, not what it is trained for."""

from mcloop.nets.mlp import mlp
from mcloop.nets.network import Network, Variables, network

__all__ = ["Network", "Variables", "mlp", "network"]
