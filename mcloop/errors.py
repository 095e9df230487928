"""The one error that a user should ever read, and the one that ends a loop and not the run."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence: the field, the value and what is allowed."""


class OwnCodeError(InputError):
    """The user's own code failed, or gave what cannot be used; the driver names the generation."""


def own(call: Callable[[], Any], where: str) -> Any:
    """What the user's code gives.

    Raises:
        OwnCodeError: it fails; in its own words, and with the line on which.
    """
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if len(frames) > 1 else ""
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
        raise OwnCodeError(f"{where} failed{at} ({said}).") from error


class Diverged(Exception):
    """A loop that cannot go on: what it fitted or drew is not finite. The driver names the generation, and runs the others."""


_running: list[bool] = []  # whether JAX ran when this process was last forked
_forked: list[bool] = []  # whether this process came from such a fork


def not_forked() -> None:
    """Raise InputError in a process that was forked from one in which JAX had computed: it would wait for ever."""
    if _forked:
        raise InputError(
            "This process was forked from one in which JAX had already computed, and would wait for ever: start workers by "
            "multiprocessing.get_context('spawn')."
        )


def _before() -> None:
    # the threads that JAX computes with do not come along, while the locks that they hold do
    _running[:] = [True] if getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None) else []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=lambda: _forked.extend(_running))
