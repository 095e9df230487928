"""The driver of neural loops: grids of them, a checkpoint for every generation, resumed to the bit."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mcloop.checks import detached
from mcloop.drivers.costs import Forecast, forecast
from mcloop.drivers.gather import assemble
from mcloop.drivers.identity import cells_of
from mcloop.drivers.plans import Plan, compiled_plans, hosted_plan, root_keys
from mcloop.drivers.scan import check_generations
from mcloop.drivers.sweep import check_axes, check_seeds, read_axis
from mcloop.drivers.unit import Info, Unit
from mcloop.errors import Diverged, InputError, OwnCodeError
from mcloop.progress import Bar, listening
from mcloop.regimes import check_room
from mcloop.storage.checkpoints import Keep
from mcloop.storage.files import show
from mcloop.storage.identity import describe, describe_loop, numerics
from mcloop.storage.run_folder import locked
from mcloop.types import Loop, State

_WORTH = 500  # optimiser steps of a run from which timing some of them is worth its seconds


def train(
    make: Callable[..., Loop],
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 3,
    generations: int = 10,
    *,
    folder: str | os.PathLike[str],
    real: Any = None,
    seed: int = 0,
    keep: Keep | None = None,
    progress: bool = False,
    attributes: Mapping[str, Any] | None = None,
    identify: Callable[[dict[str, Any]], None] = lambda loops: None,
    judge: Callable[[Any], Sequence[str]] = lambda ds: (),
):
    """Run neural loops over the product of named axes and over seeds, with a checkpoint for every generation.

    Loops whose model is compiled run side by side: every number of the grid and every seed in one program, one program for
    each combination of the other axes. Loops whose model is hosted run one after the other; those that share a model object
    share its first fit. The same call goes on from the last good generation of each, and ends bit-identical to one that
    was never stopped.

    Args:
        make: keyword arguments, one for each axis -> Loop.
        grid: axis -> values.
        seeds: replicas of every cell; a seed draws the same numbers in every cell.
        generations: fits; generation 1 is the fit on real data.
        folder: where checkpoints, shards and measures go.
        real: what every loop starts from (see `make_loop`); a hosted model has its own.
        seed: root of all randomness.
        keep: which checkpoints stay; default all of them.
        progress: show a bar on standard error, or a line a generation where that is a file.
        judge: given the Dataset of generation 1 of a program, or of a hosted loop, as soon as it is there: lines to show with
            the progress.
        identify: called with what the loops are, as JSON holds it, before anything runs; may refuse.

    Returns:
        xarray.Dataset with dimensions (*grid, seed, generation); what is seen as pictures is shown for seed 0.

    Raises:
        InputError: before anything runs for a bad axis or value; later for a full disk.
    """
    where = Path(folder)
    axes, cells, loops, plans = _lay_out(make, grid, seeds, generations, real, seed, where)
    identify(cells_of(list(zip(cells, loops, strict=True))))
    with locked(where):
        first = partial(_told, judge, axes, len(cells), seeds, loops, attributes or {})
        results, remarks = _run(plans, where, generations, keep or Keep(), progress, first)
    return assemble(plans, results, axes, len(cells), seeds, generations, loops, {"seed": seed, **(attributes or {})}, remarks)


def _lay_out(make, grid, seeds: int, generations: int, real, seed: int, folder: Path):
    """Axes, cells, their loops, and the plans that compute them; refuses what cannot be run."""
    axes, cells, loops = _loops(make, grid, seeds, generations, seed)
    seeds, generations, seed, real = int(seeds), int(generations), int(seed), detached(real)
    keys = root_keys(seed, seeds)
    common = {"seed": seed, "generations": generations, "numerics": numerics()}
    common |= {} if real is None else {"real": describe(real)}
    arrays: dict[int, Any] = {}
    hosted = [(places, cells[places[0]], loop) for places, loop in _distinct(loops) if loop.model.hosted is not None]
    known = {places[0]: describe_loop(loop, arrays) for places, _, loop in hosted}
    plans = [
        hosted_plan(loop, cell, places, i, keys[i], folder, {**common, "loop": known[places[0]]}, generations, real)
        for i in range(seeds)
        for places, cell, loop in hosted
    ]
    members = [(p, c, loop) for p, (c, loop) in enumerate(zip(cells, loops, strict=True)) if loop.model.hosted is None]
    plans += compiled_plans(make, members, keys, common, generations, real)
    return axes, cells, loops, plans


def _loops(make, grid, seeds: int, generations: int, seed: int) -> tuple[dict[str, list], list[dict[str, Any]], list[Loop]]:
    """Axes, cells, and a loop for each; refuses what cannot be run."""
    check_generations(generations)
    check_seeds(seeds, seed)
    axes = {name: read_axis(name, values) for name, values in dict(grid or {}).items()}
    check_axes(make, axes)
    cells = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    loops = [make(**cell) for cell in cells]
    for loop in loops:
        if not isinstance(loop, Loop):
            raise InputError(f"make must return a mcloop Loop, not {type(loop).__name__}.")
        check_room(loop.model, loop.regime, int(generations))
    return axes, cells, loops


def _distinct(loops: list[Loop]) -> list[tuple[list[int], Loop]]:
    """(its cells, loop): cells of one and the same loop (a baseline at every lam) are one plan, named after the first."""
    same = [[c for c, other in enumerate(loops) if other is loop] for loop in loops]
    return [(places, loop) for c, (places, loop) in enumerate(zip(same, loops, strict=True)) if c == places[0]]


def estimate(make, grid, seeds: int, generations: int, seed: int = 0) -> Forecast | None:
    """How long `train` would take on this machine, by timing a few steps and draws; nothing else is computed.

    Arguments as for `train`.

    Returns:
        None where a loop is compiled: its steps are no calls that could be timed.
    """
    _, _, loops = _loops(make, grid, seeds, generations, seed)
    hosted = [loop for _, loop in _distinct(loops)]
    todo = [(loop, (id(loop.model.observe), i)) for i in range(int(seeds)) for loop in hosted]
    return forecast(todo, [0] * len(todo), int(generations), briefly=True)


def last_states(make, grid, seeds: int, generations: int, *, folder: str | os.PathLike[str], real: Any = None, seed: int = 0):
    """The last checkpoint of replica 0 of every cell: (cell, loop, key, State), a cell without one left out.

    Arguments as for `train`, whose run is in `folder`; nothing is computed.
    """
    _, cells, loops, plans = _lay_out(make, grid, seeds, generations, real, seed, Path(folder))
    found = []
    with locked(Path(folder)):
        for plan in plans:
            _, state = Unit(Path(folder) / plan.name, plan.settings, Keep()).restore(plan.codec, generations)
            for c, cell in enumerate(cells):
                if state is not None and (place := plan.place(c, 0)) is not None:
                    one = jax.tree.map(lambda x, place=place: x[place], state) if place else state
                    found.append((cell, loops[c], root_keys(seed, seeds)[0], one))
    return found


def _told(judge, axes, cells: int, seeds: int, loops, attributes, plan: Plan, info: Info) -> Sequence[str]:
    """Lines on a plan's generation 1, or why there are none: nothing computed depends on them."""
    try:
        return judge(assemble([plan], [[info]], axes, cells, seeds, 1, loops, attributes, []))
    except Exception as error:
        return (f"Generation 1 of {plan.name} could not be judged ({type(error).__name__}: {error}).",)


def _run(
    plans: list[Plan], folder: Path, generations: int, keep: Keep, show: bool, first: Callable[[Plan, Info], Sequence[str]]
) -> tuple[list[list[Info]], list[str]]:
    """Every plan to its end; what was seen of each generation, and remarks on those that could not be computed."""
    results, remarks = [], []
    openings: dict[Any, tuple[Unit, Plan]] = {}
    units = [Unit(folder / plan.name, plan.settings, keep) for plan in plans]
    with listening(len(plans) * generations, show, len(plans)) as bar:
        if bar is not None:
            _foresee(bar, plans, units, generations)
        for plan, unit in zip(plans, units, strict=True):
            donor = openings.get(plan.shared) if plan.shared is not None else None
            infos, why = _carry_on(plan, unit, donor, generations, bar, first if donor is None else lambda plan, info: ())
            if why:
                remarks.append(f"{plan.name}: {why}")
            if plan.shared is not None:
                openings.setdefault(plan.shared, (unit, plan))
            results.append(infos)
    return results, remarks


def _foresee(bar: Bar, plans: list[Plan], units: list[Unit], generations: int) -> None:
    """Tells how long the run will take here, where its loops know; nothing computed depends on it."""
    loops = [(plan.loop, plan.shared) for plan in plans if plan.loop is not None]
    if len(loops) < len(plans):
        return
    bar.stage("timing a few steps")
    try:
        there = [max((t for t in unit.checkpoints.generations() if t <= generations), default=0) for unit in units]
        found = forecast(loops, there, generations, _WORTH)
    except Exception as error:
        bar.note(f"How long this takes could not be told ({type(error).__name__}: {error}).")
        return
    if found is not None:
        bar.foresee([seconds for one in found.seconds for seconds in one])
        bar.note(f"{found.words}.")


def _carry_on(plan: Plan, unit: Unit, donor, generations: int, bar, first) -> tuple[list[Info], str]:
    """One plan from its last good generation to its end, or to the generation that diverges."""
    failed = unit.failure()
    last = generations if failed is None else failed[0] - 1
    t, state = unit.restore(plan.codec, last)
    infos: list[Info] = [_kept(unit, i + 1) for i in range(t)]
    for i in range(t):
        if bar is not None:
            bar.advance(None, first=i == 0)
    while t < last:
        began = time.monotonic()
        if bar is not None:
            bar.at(f"{plan.name}, generation {t + 1} of {generations}")
        try:
            if state is None:
                state, info = plan.first(None if donor is None else _first_of(*donor))
            else:
                state, info = plan.step(state)
        except Diverged as error:
            failed = t + 1, f"generation {t + 1} could not be fitted: {error}"
            unit.fail(*failed)
            break
        except OwnCodeError as error:
            before = f"all before it is kept in {show(unit.folder)}" if t else "nothing was there before it"
            raise OwnCodeError(f"Generation {t + 1} of {plan.name} could not be made: {error} ({before})") from error
        t += 1
        unit.save(t, state, info, plan.codec)
        plan.tidy(False)
        infos.append(info)
        if bar is not None:
            bar.advance(time.monotonic() - began, first=t == 1)
            for line in first(plan, info) if t == 1 else ():
                bar.note(line)
    for i in range(t, generations):  # those of a loop that diverged are not to come
        if bar is not None:
            bar.advance(None, first=i == 0)
    plan.tidy(True)
    return infos, "" if failed is None else failed[1]


def _first_of(unit: Unit, plan: Plan) -> tuple[State, Info] | None:
    """Generation 1 of another loop of the same model, if its checkpoint is still good."""
    _, state = unit.restore(plan.codec, 1)
    return None if state is None else (state, _kept(unit, 1))


def _kept(unit: Unit, t: int) -> Info:
    info = unit.info(t)
    if info is None:
        raise InputError(f"what was seen of generation {t} in {str(unit.folder)!r} went missing while the run was under way.")
    return info
