"""Families whose loop can be drawn exactly in law, each beside its literal twin."""

from mcloop.exact.gaussian import Normal, gaussian, normal

__all__ = ["Normal", "gaussian", "normal"]
