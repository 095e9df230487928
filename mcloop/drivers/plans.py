"""What `train` computes, as resumable plans: a hosted loop each, or a grid of compiled loops and seeds as one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mcloop import random
from mcloop.drivers.identity import cells_of, label
from mcloop.drivers.scan import first_generation
from mcloop.drivers.sweep import is_number, shaping
from mcloop.drivers.unit import Codec, Info, arrays_codec, shards_codec
from mcloop.memory.shard_files import write_shards
from mcloop.memory.shards import fingerprint
from mcloop.storage.identity import describe, digest
from mcloop.storage.partial_draws import PartialDraws, keeping
from mcloop.types import Loop, State, begun


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
        loop: the hosted loop that it is; None for a program.
    """

    name: str
    settings: dict[str, Any]
    codec: Codec
    first: Callable[[tuple[State, Info] | None], tuple[State, Info]]
    step: Callable[[State], tuple[State, Info]]
    place: Callable[[int, int], tuple[int, ...] | None]
    shared: Any = None
    tidy: Callable[[bool], None] = lambda finished: None
    loop: Loop | None = None


def root_keys(seed: int, seeds: int) -> jax.Array:
    """The key of every replica, shape (seeds,)."""
    return random.fold_in(jnp.broadcast_to(jax.random.key(seed), (seeds,)), jnp.arange(seeds, dtype=jnp.uint32))


def hosted_plan(loop: Loop, cell, places: list[int], i: int, key, folder: Path, common, generations: int, real=None) -> Plan:
    """One hosted loop and seed; the loop of all of `places`, cells of the grid."""
    name = unit_name({**cell, "seed": i})
    shards, partial = folder / name / "shards", PartialDraws(folder / name / "partial_draws")

    def first(given: tuple[State, Info] | None) -> tuple[State, Info]:
        with keeping(partial):
            state, told = begun(loop, key, real, generations, first=None if given is None else given[0].params)
            state = write_shards(state, shards)
            if given is not None:
                return state, given[1]
            return state, {k: np.asarray(v) for k, v in {**loop.measure(key, state), **told}.items()}

    def step(state: State) -> tuple[State, Info]:
        with keeping(partial):
            state, info = loop.generation(key, state)
        return write_shards(state, shards), {k: np.asarray(v) for k, v in info.items()}

    def start() -> State:
        return loop.init(key, real, generations, first=())

    def place(c: int, s: int) -> tuple[int, ...] | None:
        return () if c in places and s == i else None

    # the data count by what is in them: a folder begun with other images is refused
    settings = {**common, "cell": describe(cell), "replica": i, "data_sha256": fingerprint(start().real)}
    codec = shards_codec(loop, start, shards)
    shared = (id(loop.model.observe), i)  # the same in models that differ only in how they go on after the first fit
    return Plan(name, settings, codec, first, step, place, shared, partial.tidy, loop)


def compiled_plans(
    make, cells: list[tuple[int, dict[str, Any], Loop]], keys, common, generations: int, real=None
) -> list[Plan]:
    """One plan for each combination of the axes that are not numbers, or whose numbers shape the program."""
    groups: dict[tuple, list[tuple[int, dict[str, Any], Loop]]] = {}
    for one in cells:
        groups.setdefault(tuple((k, v) for k, v in one[1].items() if not is_number(v)), []).append(one)
    plans = []
    for fixed, members in groups.items():
        try:
            plans.append(_group(make, fixed, members, keys, common, generations, real))
        except Exception:  # a number that cannot be traced; what fails for another reason fails again below
            traced = {k: [cell[k] for _, cell, _ in members] for k in members[0][1] if k not in dict(fixed)}
            shapes = shaping(lambda v, f=fixed: _began(make(**dict(f), **v), keys[0], generations, real), traced)
            if not shapes:
                raise
            again: dict[tuple, list[tuple[int, dict[str, Any], Loop]]] = {}
            for one in members:
                again.setdefault(fixed + tuple((k, one[1][k]) for k in shapes), []).append(one)
            plans += [_group(make, key, group, keys, common, generations, real) for key, group in again.items()]
    return plans


def _group(make, fixed: tuple, members: list[tuple[int, dict[str, Any], Loop]], keys, common, generations: int, real) -> Plan:
    loops = cells_of([(cell, loop) for _, cell, loop in members])
    places = [(place, cell) for place, cell, _ in members]
    return _program(make, dict(fixed), places, keys, {**common, **loops}, generations, real)


def _began(loop: Loop, key, generations: int, real):
    return first_generation(loop, key, real, generations, lambda s: loop.generation(key, s), all_seen=True)


def _program(make, fixed: dict[str, Any], members, keys, common, generations: int, real) -> Plan:
    traced = [k for k in members[0][1] if k not in fixed]
    flat = {k: jnp.asarray([cell[k] for _, cell in members], jnp.float32) for k in traced}
    places = {place: j for j, (place, _) in enumerate(members)}

    # the places are mapped over too, so that a program without numbers has an axis of cells like any other
    where = jnp.arange(len(members))
    along, across = _along_seeds(len(keys))
    keys = jax.device_put(keys, along)
    flat, where = jax.device_put((flat, where), across)

    def begin(key, where, cell):
        return _began(make(**fixed, **cell), key, generations, real)

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


def unit_name(cell: Mapping[str, Any]) -> str:
    """A folder's name for a cell: its values where they are short and plain, and always a hash of all of them."""
    return f"{label(cell)}-{digest(describe(dict(cell)))[:8]}" if cell else ""
