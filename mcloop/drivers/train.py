"""The driver of neural loops: grids of them, a checkpoint for every generation, resumed to the bit."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mcloop import random
from mcloop.drivers.gather import assemble
from mcloop.drivers.identity import cells_of, label
from mcloop.drivers.scan import check_generations, first_generation
from mcloop.drivers.sweep import check_axes, check_seeds, is_number, read_axis, shaping
from mcloop.drivers.unit import Codec, Info, Unit, arrays_codec, shards_codec
from mcloop.errors import InputError
from mcloop.memory.shard_files import write_shards
from mcloop.memory.shards import fingerprint
from mcloop.models.hosted import Diverged
from mcloop.progress import listening
from mcloop.regimes import check_room
from mcloop.storage.checkpoints import Keep
from mcloop.storage.identity import describe, describe_loop, digest, numerics
from mcloop.storage.partial_draws import PartialDraws, keeping
from mcloop.storage.run_folder import locked
from mcloop.types import Loop, State


class Plan(NamedTuple):
    """One resumable computation: a hosted loop, or a grid of loops and seeds that run as one program.

    Attributes:
        name: of its folder.
        settings: what its numbers depend on.
        codec: how its state goes to disk.
        first: () -> (state, info) of generation 1; given the generation 1 of a plan that shares it, -> (state, its info).
        step: state -> (state, info); its argument may be given away.
        place: (grid index, seed) -> this plan's part of an info's leaf.
        shared: plans with an equal value have the same generation 1.
        tidy: (whether the plan is at its end) -> None, called when a generation is safe on disk, and at the end.
    """

    name: str
    settings: dict[str, Any]
    codec: Codec
    first: Callable[[tuple[State, Info] | None], tuple[State, Info]]
    step: Callable[[State], tuple[State, Info]]
    place: Callable[[int, int], tuple[int, ...] | None]
    shared: Any = None
    tidy: Callable[[bool], None] = lambda finished: None


def train(
    make: Callable[..., Loop],
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 3,
    generations: int = 10,
    *,
    folder: str | os.PathLike[str],
    seed: int = 0,
    keep: Keep | None = None,
    progress: bool = False,
    attributes: Mapping[str, Any] | None = None,
    identify: Callable[[dict[str, Any]], None] = lambda loops: None,
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
        seed: root of all randomness.
        keep: which checkpoints stay; default all of them.
        progress: show a bar on standard error, or a line a generation where that is a file.
        identify: called with what the loops are, as JSON holds it, before anything runs; may refuse.

    Returns:
        xarray.Dataset with dimensions (*grid, seed, generation); what is seen as pictures is shown for seed 0.

    Raises:
        InputError: before anything runs for a bad axis or value; later for a full disk.
    """
    where = Path(folder)
    axes, cells, loops, plans = _lay_out(make, grid, seeds, generations, seed, where)
    identify(cells_of(list(zip(cells, loops, strict=True))))
    with locked(where):
        results, remarks = _run(plans, where, generations, keep or Keep(), progress)
    return assemble(plans, results, axes, len(cells), seeds, generations, loops, {"seed": seed, **(attributes or {})}, remarks)


def _lay_out(make, grid, seeds: int, generations: int, seed: int, folder: Path):
    """Axes, cells, their loops, and the plans that compute them; refuses what cannot be run."""
    check_generations(generations)
    check_seeds(seeds, seed)
    seeds, generations, seed = int(seeds), int(generations), int(seed)
    axes = {name: read_axis(name, values) for name, values in dict(grid or {}).items()}
    check_axes(make, axes)
    cells = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    keys = _keys(seed, seeds)
    loops = [make(**cell) for cell in cells]
    for loop in loops:
        if not isinstance(loop, Loop):
            raise InputError(f"make must return a mcloop Loop, not {type(loop).__name__}.")
        check_room(loop.model, loop.regime, generations)
    common = {"seed": seed, "generations": generations, "numerics": numerics()}
    arrays: dict[int, Any] = {}
    # cells of one and the same loop (a baseline at every lam) are one plan, named after the first of them
    same = [[c for c, other in enumerate(loops) if other is loop] for loop in loops]
    hosted = [
        (places, cell, loop)
        for c, (places, cell, loop) in enumerate(zip(same, cells, loops, strict=True))
        if loop.model.hosted is not None and c == places[0]
    ]
    known = {places[0]: describe_loop(loop, arrays) for places, _, loop in hosted}
    plans = [
        _hosted(loop, cell, places, i, keys[i], folder, {**common, "loop": known[places[0]]}, generations)
        for i in range(seeds)
        for places, cell, loop in hosted
    ]
    members = [(p, c, loop) for p, (c, loop) in enumerate(zip(cells, loops, strict=True)) if loop.model.hosted is None]
    plans += _compiled(make, members, keys, common, generations)
    return axes, cells, loops, plans


def _keys(seed: int, seeds: int) -> jax.Array:
    return random.fold_in(jnp.broadcast_to(jax.random.key(seed), (seeds,)), jnp.arange(seeds, dtype=jnp.uint32))


def last_states(make, grid, seeds: int, generations: int, *, folder: str | os.PathLike[str], seed: int = 0):
    """The last checkpoint of replica 0 of every cell: (cell, loop, key, State), a cell without one left out.

    Arguments as for `train`, whose run is in `folder`; nothing is computed.
    """
    _, cells, loops, plans = _lay_out(make, grid, seeds, generations, seed, Path(folder))
    found = []
    with locked(Path(folder)):
        for plan in plans:
            _, state = Unit(Path(folder) / plan.name, plan.settings, Keep()).restore(plan.codec, generations)
            for c, cell in enumerate(cells):
                if state is not None and (place := plan.place(c, 0)) is not None:
                    one = jax.tree.map(lambda x, place=place: x[place], state) if place else state
                    found.append((cell, loops[c], _keys(seed, seeds)[0], one))
    return found


def _hosted(loop: Loop, cell, places: list[int], i: int, key, folder: Path, common, generations: int) -> Plan:
    name = unit_name({**cell, "seed": i})
    shards, partial = folder / name / "shards", PartialDraws(folder / name / "partial_draws")

    def first(given: tuple[State, Info] | None) -> tuple[State, Info]:
        state = write_shards(loop.init(key, None, generations, first=None if given is None else given[0].params), shards)
        if given is not None:
            return state, given[1]
        with keeping(partial):
            return state, {k: np.asarray(v) for k, v in loop.measure(key, state).items()}

    def step(state: State) -> tuple[State, Info]:
        with keeping(partial):
            state, info = loop.generation(key, state)
        return write_shards(state, shards), {k: np.asarray(v) for k, v in info.items()}

    def start() -> State:
        return loop.init(key, None, generations, first=())

    # the data count by what is in them: a folder begun with other images is refused
    settings = {**common, "cell": describe(cell), "replica": i, "data_sha256": fingerprint(start().real)}
    codec = shards_codec(loop, start, shards)
    shared = (id(loop.model.observe), i)  # the same in models that differ only in how they go on after the first fit
    return Plan(name, settings, codec, first, step, lambda c, s: () if c in places and s == i else None, shared, partial.tidy)


def _compiled(make, cells: list[tuple[int, dict[str, Any], Loop]], keys, common, generations: int) -> list[Plan]:
    """One plan for each combination of the axes that are not numbers, or whose numbers shape the program."""
    groups: dict[tuple, list[tuple[int, dict[str, Any], Loop]]] = {}
    for one in cells:
        groups.setdefault(tuple((k, v) for k, v in one[1].items() if not is_number(v)), []).append(one)
    plans = []
    for fixed, members in groups.items():
        try:
            plans.append(_group(make, fixed, members, keys, common, generations))
        except Exception:  # a number that cannot be traced; what fails for another reason fails again below
            traced = {k: [cell[k] for _, cell, _ in members] for k in members[0][1] if k not in dict(fixed)}
            shapes = shaping(lambda v, f=fixed: _began(make(**dict(f), **v), keys[0], generations), traced)
            if not shapes:
                raise
            again: dict[tuple, list[tuple[int, dict[str, Any], Loop]]] = {}
            for one in members:
                again.setdefault(fixed + tuple((k, one[1][k]) for k in shapes), []).append(one)
            plans += [_group(make, key, group, keys, common, generations) for key, group in again.items()]
    return plans


def _group(make, fixed: tuple, members: list[tuple[int, dict[str, Any], Loop]], keys, common, generations: int) -> Plan:
    loops = cells_of([(cell, loop) for _, cell, loop in members])
    places = [(place, cell) for place, cell, _ in members]
    return _program(make, dict(fixed), places, keys, {**common, **loops}, generations)


def _began(loop: Loop, key, generations: int):
    return first_generation(loop, key, None, generations, lambda s: loop.generation(key, s))


def _program(make, fixed: dict[str, Any], members, keys, common, generations: int) -> Plan:
    traced = [k for k in members[0][1] if k not in fixed]
    flat = {k: jnp.asarray([cell[k] for _, cell in members], jnp.float32) for k in traced}
    places = {place: j for j, (place, _) in enumerate(members)}

    # the places are mapped over too, so that a program without numbers has an axis of cells like any other
    where = jnp.arange(len(members))
    along, across = _along_seeds(len(keys))
    keys = jax.device_put(keys, along)
    flat, where = jax.device_put((flat, where), across)

    def begin(key, where, cell):
        return _began(make(**fixed, **cell), key, generations)

    def advance(key, where, cell, state):
        return make(**fixed, **cell).generation(key, state)

    # cells inside, seeds outside: what does not depend on the cell (the first fit) is computed once a seed
    begin_ = jax.jit(jax.vmap(jax.vmap(begin, (None, 0, 0)), (0, None, None)))
    advance_ = jax.jit(jax.vmap(jax.vmap(advance, (None, 0, 0, 0)), (0, None, None, 0)), donate_argnums=3)
    shapes = jax.eval_shape(begin_, keys, where, flat)[0]

    def seen(result):
        state, info = result
        return state, {k: np.asarray(v) for k, v in info.items()}

    settings = {**common, "cells": [describe(cell) for _, cell in members], "replicas": len(keys)}
    return Plan(
        unit_name(fixed) or "grid",
        settings,
        arrays_codec(lambda: shapes),
        lambda given: seen(begin_(keys, where, flat)),
        lambda state: seen(advance_(keys, where, flat, jax.device_put(state, along))),
        lambda c, s: (s, places[c]) if c in places else None,
    )


def _along_seeds(seeds: int) -> tuple[NamedSharding, NamedSharding]:
    """(seeds spread over as many devices as divide them, everything on each of those)."""
    devices = jax.devices()
    used = max(k for k in range(1, len(devices) + 1) if seeds % k == 0)
    mesh = jax.make_mesh((used,), ("seeds",), axis_types=(AxisType.Auto,), devices=devices[:used])
    return NamedSharding(mesh, P("seeds")), NamedSharding(mesh, P())


def _run(plans: list[Plan], folder: Path, generations: int, keep: Keep, show: bool) -> tuple[list[list[Info]], list[str]]:
    """Every plan to its end; what was seen of each generation, and remarks on those that could not be computed."""
    results, remarks = [], []
    openings: dict[Any, tuple[Unit, Plan]] = {}
    with listening(len(plans) * generations, show) as bar:
        for plan in plans:
            unit = Unit(folder / plan.name, plan.settings, keep)
            donor = openings.get(plan.shared) if plan.shared is not None else None
            infos, why = _carry_on(plan, unit, donor, generations, bar)
            if why:
                remarks.append(f"{plan.name}: {why}")
            if plan.shared is not None:
                openings.setdefault(plan.shared, (unit, plan))
            results.append(infos)
    return results, remarks


def _carry_on(plan: Plan, unit: Unit, donor, generations: int, bar) -> tuple[list[Info], str]:
    """One plan from its last good generation to its end, or to the generation that diverges."""
    failed = unit.failure()
    last = generations if failed is None else failed[0] - 1
    t, state = unit.restore(plan.codec, last)
    infos: list[Info] = [_kept(unit, i + 1) for i in range(t)]
    for _ in range(t):
        if bar is not None:
            bar.advance(None)
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
        t += 1
        unit.save(t, state, info, plan.codec)
        plan.tidy(False)
        infos.append(info)
        if bar is not None:
            bar.advance(time.monotonic() - began)
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


def unit_name(cell: Mapping[str, Any]) -> str:
    """A folder's name for a cell: its values where they are short and plain, and always a hash of all of them."""
    return f"{label(cell)}-{digest(describe(dict(cell)))[:8]}" if cell else ""
