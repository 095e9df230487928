"""What is remembered from one generation to the next: each regime once, against the algebra of a memory.

Generation t (t = 1 is the fit on real data) trains on what a regime's `view` returns. `size` schedules are functions
(n, t) -> points; `lam`, `weight` and sizes may be traced, so a grid over them is one program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from mcloop.checks import check, known
from mcloop.types import Draw, InputError, Memory, Model, Regime, Supply

Schedule = Callable[[Any, Any], Any]


def _all(n, t):
    return n


def _points(multiple, n):
    """floor(multiple n), where a product within a float's grain of a whole number is that number: 0.3 * 10 is 3 points."""
    # in NumPy where both are known, so that a size stays known inside a compiled loop and can be refused there
    known_both = (m := known(multiple)) is not None and (k := known(n)) is not None
    xp, product = (np, m * k) if known_both else (jnp, multiple * n)
    nearest = xp.round(product)
    return xp.where(xp.abs(product - nearest) <= 2e-7 * product + 1e-6, nearest, xp.floor(product))


def baseline() -> Regime:
    """No loop at all: every generation is the fit on the same real data (the reference that a loop is judged by)."""
    return Regime("baseline", lambda n, t: Draw(0 * n), lambda key, memory, pool, supply, n, t: supply.real, lam=0.0)


def replace(size: Schedule = _all) -> Regime:
    """Fully synthetic: generation t trains on size(n, t) points (default n) of generation t - 1 and on nothing else."""
    return Regime("replace", lambda n, t: Draw(size(n, t)), lambda key, memory, pool, supply, n, t: supply.synthetic)


def replace_multiple() -> Regime:
    """Fully synthetic with n t points at generation t: Gerstgrasser's control, as much data as `accumulate` has."""
    return replace(lambda n, t: n * t)._replace(name="replace_multiple")


def _growing(memory: Memory, real, capacity, generations):
    if capacity is not None and generations is None:
        raise InputError(
            "generations must be given to init for a regime that keeps every row, so that room can be made; it is None."
        )
    return memory.reserve(real, generations or 1)


def _grow(memory: Memory, pool, supply: Supply, t):
    return memory.append(pool, supply.synthetic, t - 1)


def accumulate(size: Schedule = _all) -> Regime:
    """Real data and every generation's synthetic data, all kept (Gerstgrasser et al. 2404.01413)."""
    return Regime("accumulate", lambda n, t: Draw(size(n, t)), lambda key, memory, pool, supply, n, t: pool, _growing, _grow)


def accumulate_subsample(size: Schedule = _all) -> Regime:
    """A fixed budget of n points drawn without replacement from all that was accumulated (Kazdan et al. 2410.16713)."""

    def view(key, memory: Memory, pool, supply, n, t):
        if memory.subsample is None:
            raise InputError(
                "regime 'accumulate_subsample' selects old points again, so it needs a model that keeps rows, such as "
                "gaussian(..., literal=True), not one that keeps statistics."
            )
        return memory.subsample(key, pool, n)

    return Regime("accumulate_subsample", lambda n, t: Draw(size(n, t)), view, _growing, _grow)


def lam_of(share: float | str) -> float:
    """The synthetic : real ratio of a training set of which this share is synthetic: lam = share / (1 - share).

    Args:
        share: a number in [0, 1], or a percentage such as "40%"; all of it is lam = inf.

    Raises:
        InputError: it is neither.
    """
    text = str(share).strip()
    try:
        given = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        given = -1.0
    if not 0 <= given <= 1:
        raise InputError(f"share must be a number from 0 to 1, or a percentage such as 40%, not {share!r}.")
    return float("inf") if given == 1 else given / (1 - given)


def augment(lam) -> Regime:
    """The same real data and floor(lam n) new synthetic points every generation (Bertrand et al., Gillman et al.).

    Args:
        lam: synthetic : real ratio, >= 0; inf is fully synthetic (n points, no real data), so that one grid holds both.
    """
    check("lam", lam, "a number >= 0", lambda v: v >= 0)
    given = known(lam)
    if given is None or not np.all(np.isfinite(given)):
        endless = jnp.isinf(lam)
        points, share = jnp.where(endless, 1.0, lam), jnp.where(endless, 0.0, 1.0)
    else:
        points, share = lam, None

    def view(key, memory: Memory, pool, supply: Supply, n, t):
        real = supply.real if share is None else memory.scale(supply.real, share)
        return memory.merge(real, supply.synthetic)

    return Regime("augment", lambda n, t: Draw(_points(points, n)), view, lam=lam)


def fresh(real=1.0, synthetic=1.0, weight=None) -> Regime:
    """New real and new synthetic points every generation, none kept (Alemohammad et al., Khelifa et al., He et al.).

    Args:
        real: fresh real points a generation, as a multiple of n, > 0.
        synthetic: synthetic points a generation, as a multiple of n, > 0.
        weight: share of the fit that the real points carry, in (0, 1]; None weighs every point alike.
    """
    check("real", real, "a finite multiple of n > 0", lambda v: (v > 0) & np.isfinite(v))
    check("synthetic", synthetic, "a finite multiple of n > 0", lambda v: (v > 0) & np.isfinite(v))
    if weight is not None:
        check("weight", weight, "a share in (0, 1]", lambda v: (v > 0) & (v <= 1))

    def view(key, memory: Memory, pool, supply: Supply, n, t):
        a, b = supply.fresh, supply.synthetic
        if weight is not None:
            total = memory.size(a) + memory.size(b)
            a = memory.scale(a, weight * total / memory.size(a))
            b = memory.scale(b, (1 - weight) * total / memory.size(b))
        return memory.merge(a, b)

    return Regime("fresh", lambda n, t: Draw(_points(synthetic, n), _points(real, n)), view)


def window(generations: int, size: Schedule = _all) -> Regime:
    """The data of the last `generations` generations (the real set is generation 1's and falls out in its turn)."""
    check("window", generations, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    k = int(generations)

    def init(memory: Memory, real, capacity, horizon):
        block = memory.reserve(real, 1)
        return (*[memory.scale(block, 0.0)] * (k - 1), block)

    def update(memory: Memory, pool, supply: Supply, t):
        return (*pool[1:], supply.synthetic)

    def view(key, memory: Memory, pool, supply, n, t):
        return reduce(memory.merge, pool)

    return Regime("window", lambda n, t: Draw(size(n, t)), view, init, update)


def check_room(model: Model, regime: Regime, generations: int | None) -> None:
    """Raise InputError, before anything is drawn, for a regime that asks for more rows at once than the model's capacity.

    Numbers that are traced are not seen: whoever traces a loop asks this for every cell first.
    """
    if model.memory.capacity is None or generations is None:
        return
    try:
        most = _most(model, regime, generations)
    except TypeError:  # a traced n or lam
        return
    if most > model.memory.capacity:
        raise InputError(
            f"capacity must be at least {most:.0f} for regime '{regime.name}' over {generations} generations, "
            f"not {model.memory.capacity}."
        )


def _most(model: Model, regime: Regime, generations: int) -> float:
    """The most points that one draw of a generation asks for."""
    n, every = np.float32(model.n), np.arange(2, max(generations, 2) + 1, dtype=np.float32)
    try:
        wanted = [regime.draw(n, every)]
    except (TypeError, ValueError):  # a schedule that takes one generation at a time
        wanted = [regime.draw(n, t) for t in every]
    return max(float(np.max(x)) for draw in wanted for x in (draw.synthetic, draw.fresh))
