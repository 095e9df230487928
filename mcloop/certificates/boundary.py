"""Where a loop stops being stable along an axis, found by simulation: a sequential test, then an interval, or no boundary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import t as student

from mcloop import random
from mcloop.certificates.search import STATISTICS, Boundary, Evaluation, relaxation, search
from mcloop.certificates.twins import growth_twins, late_growth
from mcloop.checks import check
from mcloop.drivers.scan import check_generations, trajectory
from mcloop.drivers.sweep import check_axes, check_seeds, is_number, sweep
from mcloop.errors import InputError
from mcloop.types import Loop

_POINTS = 12  # axis values in one program
_TYPICAL = (
    "This is about a typical seed; at small n the mean error grows from lower values on (law S2, `laws.mean_square_safe_lam`)."
)


def boundary(
    make: Callable[..., Loop],
    axis: str = "lam",
    between: tuple[float, float] = (0.1, 100.0),
    *,
    fixed: Mapping[str, Any] | None = None,
    seeds: int = 32,
    most_seeds: int = 1024,
    generations: int = 100,
    precision: float = 0.05,
    confidence: float = 0.95,
    statistic: str = "twins",
    distance: Callable | None = None,
    real: Any = None,
    seed: int = 0,
) -> Boundary:
    """Find where a loop stops being stable along an axis, or say that it does not between these values.

    The test: at twelve values of the axis, spaced geometrically, the log of the growth factor is averaged over seeds. After
    32, 64, 128, ... seeds a value is called stable or unstable if Student's interval leaves 0 out. Half of the error
    `1 - confidence` is split evenly over all looks, values and rounds (Bonferroni, so looking often is paid for), the other
    half over the looks at the last interval. The bracket of the first change of sign is then searched again, with new
    seeds, until it is `2 precision` wide or noise says no more. A seed draws the same numbers at every value, so that the
    curves of the seeds are parallel; a parabola through the values of the last bracket gives the crossing, and the points
    at which it is not told from 0 the interval (Fieller's set; Fieller 1954). All of it is one compiled program.

    What is averaged, `statistic`:
        "twins" (default): log growth of a small difference (see `growth_twins`). Additive noise cancels in it, and it is there
            wherever the loop starts. Its mean over seeds is what a typical seed does.
        "moment": the same, but the log of the mean of the seeds' growth over the last half of the run. It is never below
            the typical one (Jensen): with independent factors of log-variance s2 a generation the two are s2/2 apart in
            log growth, of order 1/n. At small n it is heavy-tailed, and what few seeds say of it is too low, interval and
            all. Take n large for the boundary of the population, where both are one.
        a measure, such as "trace_ratio": with e its mean over seeds, T generations apart at the end of the run,
            (e_3 - e_2)/(e_2 - e_1) = r^T for e = a + b r^g, and 1 where e grows linearly. Derived here. It needs no
            second run, but an error that still moves, and keeps all of the sampling noise: the worse choice.

    Args:
        make: keyword arguments -> Loop; the axis and any float of `fixed` arrive traced.
        axis: the name of a number that `make` takes, such as "lam".
        between: the lowest and highest value, both > 0.
        fixed: the other arguments of `make`.
        seeds: of a batch, >= 8; `most_seeds` of a round, where it is the noise that decides.
        generations: fits, >= 8; growth is read over their last half. Directions of nearly equal growth need more.
        precision: half the width of the interval over the value at which the search may end, in (0, 1).
        confidence: of all that is said, in (0, 1).
        distance: see `growth_twins`.
        real: what the loops start from (see `make_loop`).
        seed: root of all randomness.

    Returns:
        Boundary; `words` says it in a sentence.

    Raises:
        InputError: before anything runs, for an axis that `make` does not take, a range that is none, ...
    """
    low, high = _range(between)
    fixed = dict(fixed or {})
    _check(axis, fixed, seeds, most_seeds, seed, generations, precision, confidence)
    check_axes(make, {**fixed, axis: [low]})
    for value in (low, high):
        _check_loop(make(**fixed, **{axis: value}), statistic, real, generations)
    traced = {name: value for name, value in fixed.items() if isinstance(value, float)}
    static = tuple((name, value) for name, value in fixed.items() if name not in traced)
    held = None if real is None else _Held(real)
    measure = None if statistic in STATISTICS else statistic
    plan = _Plan(make, axis, static, tuple(traced), seeds, generations, measure, distance, held)
    root = jax.random.key(seed)

    def draw(values, batch: int) -> np.ndarray:
        first, values = jnp.uint32(batch * seeds), jnp.asarray(values, jnp.float32)
        return np.asarray(_run(plan, root, first, values, traced), np.float64)

    span = (generations - 1) // 2
    reading = STATISTICS[statistic](span) if measure is None else relaxation((generations - 1) // 3)
    found = search(draw, reading, axis, (low, high), _POINTS, most_seeds // seeds, precision, confidence)
    return found._replace(words=f"{found.words} {_TYPICAL}") if statistic == "twins" else found


def growth_map(
    make: Callable[..., Loop],
    grid: Mapping[str, Sequence[float]],
    *,
    seeds: int = 32,
    generations: int = 100,
    confidence: float = 0.95,
    distance: Callable | None = None,
    real: Any = None,
    seed: int = 0,
):
    """The growth factor a generation over a grid of axes, one compiled program: a Dataset as from `growth`."""

    @functools.wraps(make)
    def made(**cell):
        return growth_twins(make(**cell), distance)

    ds = sweep(made, grid, seeds, generations, real=real, seed=seed, variables=("log_growth",))
    return growth(ds, confidence)


def growth(ds, confidence: float = 0.95):
    """The growth of every cell of a sweep over `growth_twins`: `growth`, and `growth_low` and `growth_high` by the seeds.

    It is that of a typical seed over the last half of the run: exp of the mean of `log_growth`; Student's interval.
    """
    import xarray as xr

    x = ds["log_growth"].transpose("generation", ..., "seed")
    late = np.asarray(late_growth(x.values)[0], np.float64)
    mean, half = late.mean(-1), np.zeros(late.shape[:-1])
    if late.shape[-1] > 1:
        half = student.isf((1 - confidence) / 2, late.shape[-1] - 1) * late.std(-1, ddof=1) / late.shape[-1] ** 0.5
    dims = x.dims[1:-1]
    words = {
        "growth": "growth of a small difference, a generation",
        "growth_low": "its lower end",
        "growth_high": "its upper end",
    }
    values = {"growth": mean, "growth_low": mean - half, "growth_high": mean + half}
    attributes = {n: {"long_name": words[n], "units": "factor", "confidence": confidence} for n in words}
    variables = {n: (dims, np.exp(v), attributes[n]) for n, v in values.items()}
    return xr.Dataset(variables, {d: ds[d] for d in dims})


def draw_map(ds, x: str, y: str, rate: Callable | None = None, words: str = "theory: growth 1", title: str = ""):
    """A phase map of `growth`, its level 1 as measured in white, and theory's in dashes.

    Args:
        ds: from `growth` or `growth_map`, with these two axes.
        rate: (x values, y values) -> log growth that theory expects; its zero is drawn.
    """
    from mcloop.report import plots
    from mcloop.results import AXES

    shown = ds[["growth"]].expand_dims({"seed": [0], "generation": [0]})
    contours = None if rate is None else (words, rate)
    figure = plots.phase_map(shown, "growth", x, y, title, contours=contours)
    level, ax = ds["growth"].transpose(y, x).values, figure.axes[0]
    if min(level.shape) > 1 and level.min() < 1 < level.max():
        # below theory's dashes, which it should coincide with
        ax.contour(np.arange(ds.sizes[x]), np.arange(ds.sizes[y]), level, levels=[1.0], colors="white", linewidths=4, zorder=1)
        ax.plot([], [], color="0.8", linewidth=4, label="measured: growth 1")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=8.5, frameon=False)
    ticks = [v for v in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if level.min() <= v <= level.max()]
    if len(ticks) > 1:
        figure.axes[1].set_yticks(ticks, [f"{v:g}" for v in ticks], fontsize=8.5)
        figure.axes[1].set_yticks([], minor=True)
    for axis, label in ((x, ax.set_xlabel), (y, ax.set_ylabel)):
        if axis not in AXES:
            label(axis, fontsize=9)
    return figure


class _Held:
    """A value that is part of the program, equal to itself alone."""

    def __init__(self, value):
        self.value = value


class _Plan(NamedTuple):
    """What a search's program depends on, beside its numbers; hashable."""

    make: Callable[..., Loop]
    axis: str
    static: tuple[tuple[str, Any], ...]
    traced: tuple[str, ...]
    seeds: int
    generations: int
    measure: str | None  # None: the growth of twins
    distance: Callable | None
    real: _Held | None


@functools.partial(jax.jit, static_argnames=("plan",))
def _run(plan: _Plan, root, first, values, traced) -> jax.Array:
    """(features, values, seeds) of what the statistic reads."""
    name = plan.measure or "log_growth"
    real = None if plan.real is None else plan.real.value

    def path(key, cell):
        loop = plan.make(**dict(plan.static), **traced, **{plan.axis: cell})
        loop = growth_twins(loop, plan.distance) if plan.measure is None else loop
        return trajectory(loop, key, real, plan.generations, lambda info: {name: info[name]})[1][name]

    index = first + jnp.arange(plan.seeds, dtype=jnp.uint32)
    keys = random.fold_in(jnp.broadcast_to(root, index.shape), index)
    if plan.make(**dict(plan.static), **traced, **{plan.axis: values[0]}).batched:
        seen = path(keys[None], values[:, None])
    else:
        seen = jax.vmap(jax.vmap(path, (0, None), -1), (None, 0), -2)(keys, values)
    seen = jnp.broadcast_to(seen, (plan.generations, len(values), plan.seeds))
    if plan.measure is None:
        return jnp.stack(late_growth(seen))
    apart = (plan.generations - 1) // 3
    return seen[jnp.array([-1 - 2 * apart, -1 - apart, -1])]


def _range(between) -> tuple[float, float]:
    try:
        low, high = (float(x) for x in between)
    except (TypeError, ValueError) as error:
        raise InputError(f"between must be two numbers (low, high), not {between!r}.") from error
    if not (0 < low < high < np.inf):
        raise InputError(f"between must be two finite numbers with 0 < low < high, not ({low:g}, {high:g}).")
    return low, high


def _check(axis, fixed, seeds, most_seeds, seed, generations, precision, confidence) -> None:
    if axis in fixed:
        raise InputError(f"fixed must not hold {axis!r}, which is the axis that is searched.")
    for name, value in fixed.items():
        if not isinstance(value, Hashable):
            raise InputError(f"fixed must hold numbers and names, but {name!r} is a {type(value).__name__}.")
    for field, value in (("seeds", seeds), ("most_seeds", most_seeds)):
        check_seeds(value, seed)
        least = 8 if field == "seeds" else seeds
        if value < least:
            raise InputError(f"{field} must be a whole number >= {least}, not {value}.")
    check_generations(generations)
    if generations < 8:
        raise InputError(f"generations must be a whole number >= 8, half of which are read, not {generations}.")
    for field, value in (("precision", precision), ("confidence", confidence)):
        if not is_number(value):
            raise InputError(f"{field} must be a number in (0, 1), not {value!r}.")
        check(field, value, "a number in (0, 1)", lambda v: (v > 0) & (v < 1))


def _check_loop(loop, statistic: str, real, generations: int) -> None:
    if not isinstance(loop, Loop):
        raise InputError(f"make must return a mcloop Loop, not {type(loop).__name__}.")
    if loop.model.hosted is not None:
        raise InputError(f"make must return loops that compile; the {loop.model.name} model runs on the host.")
    _check_measure(loop, statistic, real, generations)


def _check_measure(loop: Loop, statistic: str, real, generations: int) -> None:
    """Rehearse one generation's shapes, which refuses bad data and sizes; and refuse an unknown statistic."""

    def step(key):
        return loop.generation(key, loop.init(key, real, generations))[1]

    shape = (1, 1) if loop.batched else ()
    seen = jax.eval_shape(lambda: step(jnp.broadcast_to(jax.random.key(0), shape)))
    if statistic not in STATISTICS and statistic not in seen:
        raise InputError(f"statistic must be {', '.join(STATISTICS)} or a measure ({', '.join(seen)}), not {statistic!r}.")


__all__ = ["Boundary", "Evaluation", "boundary", "draw_map", "growth", "growth_map"]
