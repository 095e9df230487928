"""Statistics over seeds, computed on the device, one generation at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mcloop.types import InputError

# sums that blocks of seeds can be added over; everything else needs all the seeds of a cell at once
_ADDITIVE = ("mean", "sem", "std", "mean_log", "sem_log")
_ORDERED = ("median", "min", "max")


def check_statistics(names: Sequence[str]) -> tuple[str, ...]:
    """The names, or InputError: mean, sem, std, mean_log, sem_log, median, min, max, or quantiles such as q05."""
    if isinstance(names, str):
        names = (names,)
    for name in names:
        if name not in _ADDITIVE + _ORDERED and not re.fullmatch(r"q\d\d", name):
            allowed = ", ".join(_ADDITIVE + _ORDERED)
            raise InputError(f"reduce must name statistics among {allowed}, or quantiles q01 to q99, not {name!r}.")
    if not names:
        raise InputError("reduce must name at least one statistic, not none.")
    return tuple(names)


def needs_all_seeds(names: Sequence[str]) -> bool:
    """Whether any of these is an order statistic, for which the blocks of seeds cannot be merged."""
    return any(name not in _ADDITIVE for name in names)


def partial_sums(x: jax.Array, live: jax.Array) -> jax.Array:
    """Centred moments of x (cells, seeds) over the `live` (seeds,) ones, which blocks can merge: (5, cells).

    Rows: mean and sum of squared deviations of x; the same of log x; count.
    """
    rows = []
    for y, defined in ((x, None), (jnp.log(jnp.where(x > 0, x, 1.0)), jnp.where(live, x > 0, True).all(-1))):
        count = live.sum()
        mean = jnp.where(live, y, 0.0).sum(-1) / count
        pair = [mean, jnp.where(live, (y - mean[..., None]) ** 2, 0.0).sum(-1)]
        rows += pair if defined is None else [jnp.where(defined, z, jnp.nan) for z in pair]
    return jnp.stack([*rows, jnp.broadcast_to(live.sum(), rows[0].shape)])


def merge_sums(a, b):
    """Chan's update of two blocks' `partial_sums`, in NumPy float64."""
    count = a[4] + b[4]
    out = [None] * 4 + [count]
    for i in (0, 2):
        gap = b[i] - a[i]
        out[i] = a[i] + gap * b[4] / count
        out[i + 1] = a[i + 1] + b[i + 1] + gap**2 * a[4] * b[4] / count
    return out


def finish_sums(sums, names: Sequence[str]) -> dict:
    """name -> statistic from merged sums (arrays of any shape)."""
    mean, squares, mean_log, squares_log, count = sums
    unbiased = (count - 1).clip(1)
    table = {
        "mean": mean,
        "std": (squares / unbiased) ** 0.5,
        "sem": (squares / unbiased / count) ** 0.5,
        "mean_log": mean_log,
        "sem_log": (squares_log / unbiased / count) ** 0.5,
    }
    return {name: table[name] for name in names if name in table}


def order_statistics(x: jax.Array, names: Sequence[str]) -> jax.Array:
    """Median, extremes and quantiles of x (cells, seeds), one sort for all of them: (names, cells)."""
    ordered = jnp.sort(x, -1)
    last = x.shape[-1] - 1
    rows = []
    for name in names:
        level = {"median": 0.5, "min": 0.0, "max": 1.0}.get(name)
        place = (int(name[1:]) / 100 if level is None else level) * last
        low = int(place)
        share = place - low
        # an order statistic itself, where it is one: 0 times the infinity beside it would be NaN
        between = share > 0
        rows.append((1 - share) * ordered[..., low] + share * ordered[..., low + 1] if between else ordered[..., low])
    return jnp.stack(rows)


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(additive, ordered) names."""
    return [n for n in names if n in _ADDITIVE], [n for n in names if n not in _ADDITIVE]
