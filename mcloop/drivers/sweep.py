"""Grids of loops: named axes x seeds as one compiled program, in blocks, over all devices, resumable; an xarray.Dataset out."""

from __future__ import annotations

import inspect
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mcloop import results
from mcloop.checks import check_seed, detached
from mcloop.drivers import reduce as reductions
from mcloop.drivers.blocks import Plan, loops_of, run_plans
from mcloop.drivers.identity import cells_of
from mcloop.drivers.scan import check_generations
from mcloop.regimes import check_room
from mcloop.storage.identity import describe, numerics
from mcloop.types import InputError, Loop

_BLOCK_BYTES = 2**29  # what one block may hold on a CPU; a quarter of the memory elsewhere
STATIC = ("regime", "family", "d", "k")  # axes whose numbers shape a program
_CPU_CELLS = 2**14  # larger blocks leave the cache, smaller ones leave the vector units idle


def sweep(
    make: Callable[..., Loop],
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 100,
    generations: int = 100,
    *,
    real: Any = None,
    seed: int = 0,
    variables: Sequence[str] | None = None,
    reduce: Sequence[str] | str | None = None,
    static: Sequence[str] = STATIC,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
    block: tuple[int, int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    identify: Callable[[dict[str, Any]], None] | None = None,
):
    """Run a loop over the product of named axes and over seeds.

    A seed is the same random numbers in every cell (common random numbers), whatever the grid, the blocks or the devices:
    differences between cells are seen with less noise, and a cell can be run again alone.

    Args:
        make: keyword arguments, one for each axis -> Loop. Called inside the compiled program: numbers arrive traced.
        grid: axis -> values. Numbers are traced (one compilation for all of them), but for the axes named in `static` and
            those that shape the program (a width, a number of samples), which are found by tracing; those and anything that
            is not a number are compiled one value at a time.
        seeds: replicas of every cell.
        generations: fits; generation 1 is the fit on real data.
        real: what every loop starts from (see `make_loop`).
        seed: root of all randomness.
        variables: which measures to keep; default all. The rest is not even computed.
        reduce: statistics over seeds in place of the seeds (`mean`, `sem`, `median`, `q05`, `mean_log`, ...), computed on
            the device at every generation.
        folder: where finished blocks are kept; the same sweep goes on from there after an interruption, another one is
            refused.
        progress: show a progress bar on standard error.
        block: (grid points, seeds) that run at once; default what fits.
        identify: called with what the loops are, as JSON holds it, before anything runs; may refuse.

    Returns:
        xarray.Dataset with dimensions (*grid, seed or statistic, generation).

    Raises:
        InputError: before anything runs, for an axis that `make` does not take, a value that is not allowed, ...
    """
    check_generations(generations)
    check_seeds(seeds, seed)
    seeds, generations, seed, real = int(seeds), int(generations), int(seed), detached(real)
    if block is not None and min(block) < 1:
        raise InputError(f"block must be (grid points, seeds), both >= 1, not {block}.")
    variables = (variables,) if isinstance(variables, str) else variables
    axes = {name: read_axis(name, values) for name, values in dict(grid or {}).items()}
    check_axes(make, axes)
    statistics = () if reduce is None else reductions.check_statistics(reduce)
    fixed_axes = {n: v for n, v in axes.items() if n in static or not all(is_number(x) for x in v)}
    traced_axes = {n: v for n, v in axes.items() if n not in fixed_axes}
    if shapes := _shaping(make, fixed_axes, traced_axes, real, generations):
        fixed_axes = {n: v for n, v in axes.items() if n in fixed_axes or n in shapes}
        traced_axes = {n: v for n, v in traced_axes.items() if n not in shapes}
    mesh = list(itertools.product(*traced_axes.values()))
    flat = {n: np.asarray([p[i] for p in mesh], np.float32) for i, n in enumerate(traced_axes)}

    plans, known = [], folder is not None or identify is not None
    for combination in itertools.product(*fixed_axes.values()):
        fixed = dict(zip(fixed_axes, combination, strict=True))
        found, is_ = _rehearse(make, fixed, traced_axes, real, generations, variables, known)
        shape = (len(mesh), seeds, generations, real, seed, found, statistics)
        plans.append(_lay_out(make, fixed, flat, *shape, block, is_))
    names = tuple(dict.fromkeys(itertools.chain.from_iterable(p.variables for p in plans)))
    if missing := sorted(set(variables or ()) - set(names)):
        raise InputError(f"variables must be measured by some family, not {missing[0]!r}; found are {', '.join(names)}.")
    _check_memory(plans, names)
    if identify is not None:
        identify(loops_of(plans))
    settings = {"grid": axes, "seeds": seeds, "generations": generations, "seed": seed, "numerics": numerics(), "real": real}
    parts = run_plans(plans, folder, progress, None if folder is None else describe(settings))
    attributes = {"seed": seed, "sample_count": seeds, "estimator": _estimators(plans), **(attributes or {})}
    last = {"statistic": list(statistics)} if statistics else {"seed": np.arange(seeds)}
    return _gathered(parts, names, fixed_axes, traced_axes, last, generations, attributes).transpose(*axes, ...)


def _gathered(parts, names, fixed_axes, traced_axes, last: dict[str, Any], generations: int, attributes):
    """The Dataset of all plans' blocks; a measure that a family lacks is NaN there."""
    order = {**fixed_axes, **traced_axes}
    points = math.prod(len(v) for v in traced_axes.values())
    inner = (*(len(v) for v in last.values()), generations)
    hollow = np.full((points, *inner), np.nan, np.float32)
    shape = tuple(len(v) for v in order.values()) + inner
    values = {n: np.stack([part.get(n, hollow) for part in parts]).reshape(shape) for n in names}
    labels = {n: [str(x) if not is_number(x) else x for x in v] for n, v in order.items()}
    return results.assemble(values, {**labels, **last, "generation": np.arange(1, generations + 1)}, attributes)


def check_seeds(seeds, seed) -> None:
    """Raise InputError unless `seeds` is a whole number >= 1 and `seed` one that names random numbers of its own."""
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 1:
        raise InputError(f"seeds must be a whole number >= 1, not {seeds!r}.")
    check_seed(seed)


def is_number(x) -> bool:
    """Whether an axis value can be traced."""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def read_axis(name: str, values) -> list[Any]:
    """The values of an axis as a list of plain Python values, all different."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        values = [values]
    values = [v.item() if isinstance(v, (np.generic, jax.Array)) else v for v in values]
    if not values:
        raise InputError(f"axis {name!r} must have at least one value, not none.")
    if len({float(v) if is_number(v) else str(v) for v in values}) < len(values):
        raise InputError(f"axis {name!r} must have different values, not {values}.")
    return values


def check_axes(make, axes) -> None:
    """Raise InputError unless `make` takes every axis, and every argument that it needs is an axis."""
    parameters = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in axes:
        if name not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise InputError(f"axis {name!r} is not one that this loop takes; its axes are {allowed}.")
    for name, p in parameters.items():
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and name not in axes:
            raise InputError(f"grid must have an axis {name!r}, which this loop needs; it has {', '.join(axes) or 'none'}.")


def shaping(attempt: Callable[[Mapping[str, Any]], Any], traced: Mapping[str, Sequence[Any]]) -> set[str]:
    """The axes whose numbers shape the program, so that it cannot be traced for all of them at once.

    Args:
        attempt: values of all axes, some of them abstract -> anything; it fails if one of those must be known.
        traced: axis -> values.
    """
    first = {name: values[0] for name, values in traced.items()}
    if not traced or _works(attempt, first, tuple(first)):
        return set()
    attempt(first)  # what fails with known values too is no matter of tracing: its own error is the one to see
    return {name for name in first if not _works(attempt, first, (name,))} or set(first)


def _works(attempt, values, names) -> bool:
    try:
        jax.eval_shape(
            lambda some: attempt({**values, **some}), {n: jax.ShapeDtypeStruct((), np.dtype(np.float32)) for n in names}
        )
    except Exception:  # whatever Python does with a number that is not one
        return False
    return True


def _shaping(make, fixed_axes, traced_axes, real, generations) -> set[str]:
    found: set[str] = set()
    for combination in itertools.product(*fixed_axes.values()):
        fixed = dict(zip(fixed_axes, combination, strict=True))

        def attempt(values, fixed=fixed):
            loop = make(**fixed, **values)
            if not isinstance(loop, Loop):
                raise InputError(f"make must return a mcloop Loop, not {type(loop).__name__}.")
            # what is seen of generation 1 may need numbers that no later one does
            jax.eval_shape(lambda k: loop.measure(k, loop.init(k, real, generations)), jax.random.key(0))
            return jax.eval_shape(lambda k: _one_step(loop, k, real, generations), jax.random.key(0))

        # what `make` computes once and keeps (an optimum, a certificate) must not be made of traced numbers
        for trial in _trials(traced_axes):
            make(**fixed, **trial)
        found |= shaping(attempt, {n: v for n, v in traced_axes.items() if n not in found})
    return found


def _trials(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every value of every axis, beside the first ones of the others."""
    first = {name: values[0] for name, values in axes.items()}
    return [first] + [{**first, name: value} for name, values in axes.items() for value in values[1:]]


def _rehearse(make, fixed, traced_axes, real, generations, variables, known: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Build a loop at every value of every axis, so that a bad one is refused before anything runs.

    Returns:
        The variables kept, and what these loops are where that is to be `known`.
    """
    loops: list[tuple[dict[str, Any], Loop]] = []
    info: dict[str, Any] = {}
    for trial in _trials(traced_axes):
        loop = make(**fixed, **trial)
        if not isinstance(loop, Loop):
            raise InputError(f"make must return a mcloop Loop, not {type(loop).__name__}.")
        if not loops:
            info = jax.eval_shape(lambda k, one=loop: _one_step(one, k, real, generations), jax.random.key(0))
        elif loop.model.memory.capacity is not None:
            jax.eval_shape(lambda k, one=loop: one.init(k, real, generations), jax.random.key(0))
        loops.append((trial, loop))
    if loops[0][1].model.memory.capacity is not None:  # two axes that fit each alone may not fit together
        for point in itertools.product(*traced_axes.values()):
            loop = make(**fixed, **dict(zip(traced_axes, point, strict=True)))
            check_room(loop.model, loop.regime, generations)
    numbers = [v for v in info if not info[v].shape]
    if pictured := [v for v in variables or () if v in info and v not in numbers]:
        raise InputError(
            f"variables must be numbers, and {pictured[0]!r} has the shape {info[pictured[0]].shape}; `train` keeps it."
        )
    kept = tuple(numbers) if variables is None else tuple(v for v in variables if v in info)
    if not kept:
        raise InputError(f"variables must name some of {', '.join(info)}, not {list(variables or ())}.")
    return kept, cells_of(loops) if known else {}


def _one_step(loop, key, real, generations):
    return loop.generation(key, loop.init(key, real, generations))[1]


def _lay_out(make, fixed, flat, points, seeds, generations, real, seed, variables, statistics, block, is_=None) -> Plan:
    """Choose the block: as many seeds, then grid points, as fit the budget; all the seeds where order statistics need them."""
    devices = tuple(jax.devices())
    loop = make(**fixed, **{n: float(v[0]) for n, v in flat.items()})
    state = jax.eval_shape(lambda k: loop.init(k, real, generations), jax.random.key(0))
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.params, state.pool, state.real)))
    kept = 1 if statistics else generations
    cell_bytes = 6 * state_bytes + 4 * len(variables) * kept + 64
    budget, most = _BLOCK_BYTES, _CPU_CELLS
    if devices[0].platform != "cpu":
        budget, most = (devices[0].memory_stats() or {}).get("bytes_limit", 2**33) // 4, 2**21
    cells = max(1, min(most, budget // cell_bytes)) * len(devices)
    whole = reductions.needs_all_seeds(statistics)
    if block is not None:
        block_points, block_seeds = min(block[0], points), min(block[1], seeds)
    elif whole:
        block_points, block_seeds = max(1, min(points, cells // seeds)), seeds
    else:
        block_seeds = min(seeds, cells)
        block_points = max(1, min(points, cells // block_seeds))
    if whole and block_seeds < seeds:
        raise InputError(f"block must hold all {seeds} seeds for a median or a quantile, not {block_seeds}.")
    block_seeds = -(-block_seeds // len(devices)) * len(devices)
    shape = (make, fixed, flat, points, seeds, generations, real, seed, variables, statistics)
    return Plan(*shape, block_points, block_seeds, devices, is_)


def _check_memory(plans, names) -> None:
    kept = [len(p.statistics) or p.seeds for p in plans]
    wanted = sum(p.points * k * p.generations * 4 * len(names) for p, k in zip(plans, kept, strict=True))
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**63
    if wanted > room // 2:
        raise InputError(
            f"seeds must be fewer, or reduced: keeping every one of {plans[0].seeds} needs {wanted / 2**30:.0f} GiB of "
            f"{room / 2**30:.0f}; pass reduce=('mean', 'sem', 'median') or fewer variables."
        )


def _estimators(plans) -> str:
    found = []
    for plan in plans:
        model = plan.make(**plan.fixed, **{n: float(v[0]) for n, v in plan.traced.items()}).model
        found.append(f"{model.name}: {model.estimator}" if model.estimator else model.name)
    return "; ".join(dict.fromkeys(found))
