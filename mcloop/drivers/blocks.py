"""How a sweep runs: rectangles of the grid, each one call of a compiled program, side by side, kept as they finish."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mcloop import random, results
from mcloop.drivers import reduce as reductions
from mcloop.drivers.scan import trajectory
from mcloop.progress import listening
from mcloop.storage.chunks import ChunkStore
from mcloop.storage.identity import describe, digest, numerics
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
    loops: Any = None  # what they are, for a sweep that keeps its blocks


def _blocks(plan: Plan, prefix: str) -> list[_Block]:
    starts = itertools.product(range(0, plan.points, plan.block_points), range(0, plan.seeds, plan.block_seeds))
    return [_Block(f"{prefix}-p{p}-s{s}", p, s) for p, s in starts]


def _program(plan: Plan):
    """The function of one block: keys (1, seeds), live (seeds,), hyperparameters (points, 1) -> arrays."""

    @random.by_own_rules
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
    """Compile the program of a plan's blocks, all of one shape; returns block -> arrays."""
    mesh = jax.make_mesh((len(plan.devices),), ("seeds",), axis_types=(AxisType.Auto,), devices=plan.devices)
    along, across, flat = (NamedSharding(mesh, spec) for spec in (P(None, "seeds"), P(), P("seeds")))
    index = jnp.arange(plan.block_seeds, dtype=jnp.uint32)
    root = jax.random.key(plan.seed)

    def arguments(point: int, seed: int):
        seeds = index + jnp.uint32(seed)
        keys = jax.device_put(random.fold_in(jnp.broadcast_to(root, seeds.shape), seeds)[None], along)
        chosen = np.minimum(np.arange(point, point + plan.block_points), plan.points - 1)
        hyper = jax.device_put({n: v[chosen][:, None] for n, v in plan.traced.items()}, across)
        return keys, jax.device_put(seeds < plan.seeds, flat), hyper

    program = jax.jit(_program(plan), in_shardings=(along, flat, across))
    compiled = program.lower(*arguments(0, 0)).compile()
    return lambda block: {n: np.asarray(x) for n, x in compiled(*arguments(block.point, block.seed)).items()}


def run_plans(plans: list[Plan], folder, progress: bool, settings: Any = None) -> list[dict[str, np.ndarray]]:
    """Run every block of every plan that `folder` does not hold yet; name -> (points, seeds or statistics, generations).

    Raises:
        InputError: the folder holds blocks of other loops, or of other `settings`.
    """
    store = None if folder is None else ChunkStore(folder)
    if store is not None:
        store.belong({**settings, **loops_of(plans)})
    with listening(sum(p.points * p.seeds for p in plans), progress) as bar:
        if bar is not None:
            bar.stage("compiling")
        jobs = [_Job(plan, i, store, lambda cells: bar.advance(0.0, cells) if bar else None) for i, plan in enumerate(plans)]
        # programs are compiled side by side, and ahead of their turn
        with _pool(os.cpu_count() or 1) as compiler:
            calls = [compiler.submit(_compile, job.plan) if job.todo else None for job in jobs]
            for job, call in zip(jobs, calls, strict=True):
                if call is not None:
                    compiled = call.result()
                    if bar is not None:
                        bar.stage("loops of all seeds")
                    job.run(compiled)
    return [job.collected.values for job in jobs]


@contextmanager
def _pool(workers: int):
    """A pool of threads that an error or a Ctrl-C does not wait for."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


class _Job:
    """One plan's blocks: those that the store holds are read at once, the others are to do."""

    def __init__(self, plan: Plan, number: int, store: ChunkStore | None, advance):
        self.plan, self.store, self.advance = plan, store, advance
        self.collected, self.todo = _Collector(plan), []
        for block in _blocks(plan, f"{number}-{_fingerprint(plan)}"):
            saved = None if store is None else store.get(block.name)
            if saved is None:
                self.todo.append(block)
            else:
                self._take(block, saved)

    def run(self, call) -> None:
        # on a CPU one program uses little more than one core: blocks run side by side
        single = self.plan.devices[0].platform == "cpu" and len(self.plan.devices) == 1
        workers = min(os.cpu_count() or 1, len(self.todo)) if single else 1
        with _pool(workers) as pool:
            waiting = iter(self.todo)
            running = [(b, pool.submit(call, b)) for b in itertools.islice(waiting, workers + 1)]
            while running:
                block, future = running.pop(0)
                arrays = future.result()
                running += [(b, pool.submit(call, b)) for b in itertools.islice(waiting, 1)]
                if self.store is not None:
                    self.store.put(block.name, arrays)
                self._take(block, arrays)

    def _take(self, block: _Block, arrays) -> None:
        self.collected.add(block, arrays)
        self.advance(self.collected.cells(block))


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


def loops_of(plans: list[Plan]) -> dict[str, Any]:
    """What the loops of all plans are, by the values that each plan has fixed."""
    return {"loops": {", ".join(f"{k}={v}" for k, v in describe(p.fixed).items()) or "all": p.loops for p in plans}}


def _fingerprint(plan: Plan) -> str:
    """A short hash of all that a block's numbers depend on."""
    named = {
        "loops": plan.loops,
        "fixed": plan.fixed,
        "traced": {k: v.tolist() for k, v in plan.traced.items()},
        "block": [plan.block_points, plan.block_seeds, plan.points, plan.seeds, plan.generations, plan.seed],
        "what": [plan.variables, plan.statistics, results.versions(), numerics()],
        "real": plan.real,
    }
    return digest(describe(named))
