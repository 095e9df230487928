"""How a sweep runs: rectangles of the grid, each one call of a compiled program, side by side, kept as they finish."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mcloop import dataset, random
from mcloop import reduce as reductions
from mcloop.chunks import ChunkStore
from mcloop.run import trajectory
from mcloop.types import Loop


class _Block(NamedTuple):
    """A rectangle of the grid that runs as one call: `points` x `seeds`, from these offsets."""

    name: str
    point: int
    seed: int


class Plan(NamedTuple):
    """Everything about a sweep that is known before anything runs."""

    make: Callable[..., Loop]
    fixed: dict[str, Any]
    traced: dict[str, np.ndarray]  # name -> value at every point of the flattened grid
    points: int
    seeds: int
    generations: int
    real: Any
    seed: int
    variables: tuple[str, ...]
    statistics: tuple[str, ...]
    block_points: int
    block_seeds: int
    devices: tuple[Any, ...]


def _blocks(plan: Plan, prefix: str) -> list[_Block]:
    starts = itertools.product(range(0, plan.points, plan.block_points), range(0, plan.seeds, plan.block_seeds))
    return [_Block(f"{prefix}-p{p}-s{s}", p, s) for p, s in starts]


def _program(plan: Plan):
    """The function of one block: keys (1, seeds), live (seeds,), hyperparameters (points, 1) -> arrays."""

    def run(keys, live, hyper):
        loop = plan.make(**plan.fixed, **hyper)
        if loop.batched:
            shape = (plan.block_points, plan.block_seeds)

            def see(info):
                kept = {n: jnp.broadcast_to(info[n], shape) for n in plan.variables}
                return {n: _summary(plan, x, live) for n, x in kept.items()} if plan.statistics else kept

            return trajectory(loop, keys, plan.real, plan.generations, see)[1]

        def one(key, cell):
            loop = plan.make(**plan.fixed, **cell)
            return trajectory(loop, key, plan.real, plan.generations, lambda i: {n: i[n] for n in plan.variables})[1]

        over_seeds = jax.vmap(one, (0, None), -1)
        flat = {n: x[:, 0] for n, x in hyper.items()}
        kept = jax.vmap(over_seeds, (None, 0), -2)(keys[0], flat) if flat else over_seeds(keys[0], {})
        kept = jax.tree.map(lambda x: x.reshape(plan.generations, plan.block_points, plan.block_seeds), kept)
        if plan.statistics:
            kept = {n: jax.lax.map(lambda y: _summary(plan, y, live), x) for n, x in kept.items()}
        return kept

    return run


def _summary(plan: Plan, x, live):
    """(rows, points) of what the statistics need: mergeable sums, then order statistics."""
    additive, ordered = reductions.split(plan.statistics)
    rows = [reductions.partial_sums(x, live)] if additive else []
    if ordered:
        rows.append(reductions.order_statistics(x[:, : plan.seeds], ordered))
    return jnp.concatenate(rows)


def _compile(plan: Plan):
    mesh = jax.make_mesh((len(plan.devices),), ("seeds",), axis_types=(AxisType.Auto,), devices=plan.devices)
    along, across = NamedSharding(mesh, P(None, "seeds")), NamedSharding(mesh, P())
    live_sharding = NamedSharding(mesh, P("seeds"))
    program = jax.jit(_program(plan), in_shardings=(along, live_sharding, across))
    index = jnp.arange(plan.block_seeds, dtype=jnp.uint32)
    root = jax.random.key(plan.seed)
    compiled = None

    def call(block: _Block):
        nonlocal compiled
        seeds = index + jnp.uint32(block.seed)
        keys = jax.device_put(random.fold_in(jnp.broadcast_to(root, seeds.shape), seeds)[None], along)
        live = jax.device_put(seeds < plan.seeds, live_sharding)
        chosen = np.minimum(np.arange(block.point, block.point + plan.block_points), plan.points - 1)
        hyper = jax.device_put({n: v[chosen][:, None] for n, v in plan.traced.items()}, across)
        if compiled is None:
            compiled = program.lower(keys, live, hyper).compile()
        return {n: np.asarray(x) for n, x in compiled(keys, live, hyper).items()}

    return call


def run_plans(plans: list[Plan], folder, progress: bool) -> list[dict[str, np.ndarray]]:
    store = None if folder is None else ChunkStore(folder)
    work = [(plan, _blocks(plan, f"{i}-{_fingerprint(plan)}")) for i, plan in enumerate(plans)]
    with _progress(progress) as bar:
        task = bar.add_task("cells", total=sum(p.points * p.seeds for p in plans)) if bar else None
        return [_run_plan(plan, blocks, store, bar, task) for plan, blocks in work]


def _run_plan(plan: Plan, blocks, store, bar, task) -> dict[str, np.ndarray]:
    call = None
    out = _Collector(plan)

    def finish(block, arrays):
        if store is not None:
            store.put(block.name, arrays)
        out.add(block, arrays)
        if bar:
            bar.advance(task, out.cells(block))

    todo = []
    for block in blocks:
        saved = store.get(block.name) if store is not None else None
        if saved is None:
            todo.append(block)
        else:
            out.add(block, saved)
            if bar:
                bar.advance(task, out.cells(block))
    if todo:
        call = _compile(plan)
        finish(todo[0], call(todo[0]))
    # on a CPU one program uses little more than one core: blocks run side by side
    workers = (os.cpu_count() or 1) if plan.devices[0].platform == "cpu" and len(plan.devices) == 1 else 1
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(todo[1:])
        running = [(b, pool.submit(call, b)) for b in itertools.islice(waiting, workers + 1)] if call else []
        try:
            while running:
                block, future = running.pop(0)
                finish(block, future.result())
                running += [(b, pool.submit(call, b)) for b in itertools.islice(waiting, 1)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return out.result()


class _Collector:
    """Blocks put back where they belong; sums merged over blocks of seeds."""

    def __init__(self, plan: Plan):
        self.plan = plan
        kept = len(plan.statistics) or plan.seeds
        shape = (plan.points, kept, plan.generations)
        self.values = {n: np.full(shape, np.nan, np.float32) for n in plan.variables}
        self.sums: dict[tuple[str, int], Any] = {}

    def cells(self, block: _Block) -> int:
        points = min(self.plan.block_points, self.plan.points - block.point)
        return points * min(self.plan.block_seeds, self.plan.seeds - block.seed)

    def add(self, block: _Block, arrays) -> None:
        plan = self.plan
        points = slice(block.point, min(block.point + plan.block_points, plan.points))
        seeds = slice(block.seed, min(block.seed + plan.block_seeds, plan.seeds))
        additive, ordered = reductions.split(plan.statistics)
        for name, x in arrays.items():  # x: (generations, rows or nothing, points[, seeds])
            if not plan.statistics:
                part = x.transpose(1, 2, 0)[: points.stop - points.start, : seeds.stop - seeds.start]
                self.values[name][points, seeds] = part
                continue
            rows = x.transpose(1, 2, 0)[:, : points.stop - points.start]  # (rows, points, generations)
            if additive:
                sums, old = rows[:5].astype(np.float64), self.sums.get((name, block.point))
                self.sums[name, block.point] = sums if old is None else reductions.merge_sums(old, sums)
                for statistic, value in reductions.finish_sums(self.sums[name, block.point], additive).items():
                    self.values[name][points, plan.statistics.index(statistic)] = value
            for i, statistic in enumerate(ordered):
                self.values[name][points, plan.statistics.index(statistic)] = rows[-len(ordered) + i]

    def result(self) -> dict[str, np.ndarray]:
        return self.values


def _fingerprint(plan: Plan) -> str:
    """A short hash of all that a block's numbers depend on and that can be named (not of the code of `make`)."""
    named = {
        "fixed": {k: str(v) for k, v in plan.fixed.items()},
        "traced": {k: v.tolist() for k, v in plan.traced.items()},
        "block": [plan.block_points, plan.block_seeds, plan.points, plan.seeds, plan.generations, plan.seed],
        "what": [plan.variables, plan.statistics, dataset.versions()],
        "real": [np.asarray(x).tobytes().hex() for x in jax.tree.leaves(plan.real)],
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def _progress(show: bool):
    if not show:
        return nullcontext(None)
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)
