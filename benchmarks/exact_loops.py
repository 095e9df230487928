"""Cell-generations a second: mcloop's exact loops against the papers' NumPy loops and against vectorised NumPy.

    python benchmarks/exact_loops.py [--quick] [--only gaussian] [--json results.json]

A cell is one replica of one loop. Beside every timing stands a check that the programs have the same mean after the last
generation, so that nobody times a wrong program. Compilation is timed apart; every figure is the best of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peers

from mcloop import exact, make_loop, random, regimes
from mcloop.drivers.scan import trajectory
from mcloop.studies.gillman_toy import gillman_toy

_GPU_CELLS = 32  # times as many cells a block as on a CPU; a GPU idles under fewer


class Case(NamedTuple):
    """One row: `make` builds mcloop's loop, `loop` and `batched` are its peers, which run `cells` and `batch` at once."""

    name: str
    regime: str
    size: str
    make: Callable[[], Any]
    measure: str
    generations: int
    cells: int
    loop: Callable | None = None
    batched: Callable | None = None
    batch: int = 1


def _peers(name, batch, **law):
    loop, batched = (partial(getattr(peers, f"{name}_{kind}"), **law) for kind in ("loop", "batched"))
    return loop, batched, batch


def _gaussian_cases() -> list[Case]:
    def row(regime, size, generations, cells, *numpy, **family):
        def make():
            return make_loop(exact.gaussian(**family, ddof=1), getattr(regimes, regime)())

        return Case("Gaussian", regime, size, make, "trace_ratio", generations, cells, *numpy)

    two, ten = {"d": 2, "n": 50}, {"d": 10, "n": 100}
    in_pairs = (partial(peers.gaussian_loop, **two), partial(peers.gaussian_pairs, n=50), 512)
    small = row("replace", "d=2, n=50", 100, 2**14, *in_pairs, **two)
    large = row("replace", "d=10, n=100", 100, 2**12, *_peers("gaussian", 256, **ten), **ten)
    rows = [small, row("replace", "d=2, n=1e6", 100, 2**14, d=2, n=10**6), large]
    grown = _peers("gaussian", 256, **ten, accumulate=True)
    rows.append(row("accumulate", "d=10, n=100", 100, 2**12, *grown, **ten))
    for case, law in ((small, two), (large, ten)):
        bartlett = partial(peers.gaussian_bartlett, **law)
        rows.append(case._replace(name="Gaussian (NumPy by Bartlett)", loop=None, batched=bartlett, batch=2048))
    return rows


def _row_cases() -> list[Case]:
    """Families that keep rows: their cost grows with n."""
    replace = regimes.replace()
    kernel, blobs = {"d": 2, "n": 100, "bandwidth": 0.1}, {"k": 3, "n": 300, "separation": 4.0}
    return [
        Case(
            *("KDE", "replace", "d=2, n=100", lambda: make_loop(exact.kde(**kernel), replace), "second_moment", 100, 2**10),
            *_peers("kde", 256, **kernel),
        ),
        Case(
            *("Mixture", "replace", "k=3, n=300, 10 EM"),
            *(lambda: make_loop(exact.gaussian_mixture(**blobs), replace), "trace_ratio", 20, 2**8),
            *_peers("mixture", 64, **blobs, steps=10),
        ),
        Case(
            *("Gillman's released toy", "accrue", "n=50, 25 a step"),
            *(partial(gillman_toy, 1.0), "trace_ratio", 500, 2**8),
            *_peers("toy", 256, gamma=1.0),
        ),
    ]


def cases() -> list[Case]:
    """Every family under its main regimes."""
    replace, accumulate, ols = regimes.replace(), regimes.accumulate(), {"d": 100, "n": 1000}

    def linear(regime):
        return lambda: make_loop(exact.linear_regression(**ols), regime)

    def words(regime):
        return lambda: make_loop(exact.categorical(k=1000, n=1000, zipf=1.0), regime)

    zipf = ("k=1000, n=1000", "heterozygosity")
    coins = partial(make_loop, exact.bernoulli(n=100), replace)
    events = partial(make_loop, exact.poisson(n=100), accumulate)
    return [
        *_gaussian_cases(),
        Case("OLS", "replace", "d=100, T=1000", linear(replace), "test_error", 50, 2**11, *_peers("ols", 16, **ols)),
        Case(
            *("OLS", "accumulate", "d=100, T=1000", linear(accumulate), "test_error", 50, 2**11),
            *_peers("ols", 16, **ols, accumulate=True),
        ),
        Case("Words, Zipf", "replace", zipf[0], words(replace), zipf[1], 50, 2**8, *_peers("words", 64, k=1000, n=1000)),
        Case(
            *("Words, Zipf", "augment, lam=0.5", zipf[0], words(regimes.augment(lam=0.5)), zipf[1], 50, 2**8),
            *_peers("words", 64, k=1000, n=1000, lam=0.5),
        ),
        Case("Bernoulli", "replace", "n=100", coins, "mean", 50, 2**14, *_peers("coins", 2**14, n=100)),
        Case("Poisson", "accumulate", "n=100", events, "mean", 50, 2**14, *_peers("poisson", 2**14, n=100)),
        *_row_cases(),
    ]


class Compiled(NamedTuple):
    """A loop over `cells` seeds as one program; `blocks` of them run side by side."""

    program: Callable
    keys: list[jax.Array]
    cells: int
    generations: int
    seconds: float

    def run(self) -> np.ndarray:
        """Mean and standard deviation over cells at every generation, (blocks, generations, 2), of all the blocks."""
        with ThreadPoolExecutor(len(self.keys)) as pool:
            return np.stack(list(pool.map(lambda k: np.asarray(self.program(k)), self.keys)))


def compiled(make, measure: str, generations: int, cells: int, *hyper) -> Compiled:
    """What `mcloop.sweep` runs: keys (1, seeds), reduced over seeds at every generation, a block a core on a CPU."""
    on_cpu = jax.default_backend() == "cpu"
    cells = cells if on_cpu else cells * _GPU_CELLS
    blocks = (os.cpu_count() or 1) if on_cpu else 1

    def program(keys, *hyper):
        def see(loop, info):
            x = jnp.broadcast_to(info[measure], keys.shape)
            return jnp.stack([x.mean(), x.std()])

        loop = make(*hyper)
        if loop.batched:
            return trajectory(loop, keys, None, generations, partial(see, loop))[1]
        info: Any = jax.vmap(lambda k: trajectory(loop, k, None, generations, lambda i: i[measure])[1])(keys[0])
        return jnp.stack([info.mean(0), info.std(0)], -1)

    seeds = jnp.arange(blocks * cells, dtype=jnp.uint32)
    every = random.fold_in(jnp.broadcast_to(jax.random.key(0), seeds.shape), seeds)
    keys = [jax.block_until_ready(every[None, b * cells : (b + 1) * cells]) for b in range(blocks)]
    start = time.perf_counter()
    run = jax.jit(program).lower(keys[0], *hyper).compile()
    return Compiled(lambda k, *h: run(k, *(h or hyper)), keys, cells, generations, time.perf_counter() - start)


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the fastest of `repeats`, and what the last returned."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        out = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), out


def _time_peer(peer, cells, generations, repeats):
    """Cell-generations a second, and the measure of every cell that was run."""
    rng, values = np.random.default_rng(0), []

    def work():
        values.append(np.atleast_1d(peer(rng, cells, generations) if cells else peer(rng, generations)))

    seconds, _ = best(work, repeats)
    return max(cells, 1) * generations / seconds, np.concatenate(values)


def compare(case: Case, quick: bool) -> dict:
    """One row of the table."""
    generations = case.generations // 5 if quick else case.generations
    program = compiled(case.make, case.measure, generations, case.cells)
    seen = program.run()[:, -1]
    seconds, _ = best(program.run, 3 if quick else 5)
    ours = len(program.keys) * program.cells * generations / seconds
    row: dict[str, Any] = {
        **{"loop": case.name, "regime": case.regime, "size": case.size, "generations": generations},
        **{"NumPy loop": None, "vectorised NumPy": None, "mcloop": ours, "compile s": program.seconds},
    }
    mean, spread, count = seen[:, 0].mean(), seen[:, 1].mean(), len(program.keys) * program.cells
    for label, peer, cells in (("NumPy loop", case.loop, 0), ("vectorised NumPy", case.batched, case.batch)):
        if peer is not None:
            row[label], values = _time_peer(peer, cells, generations, 1 if quick else 3)
            z = (values.mean() - mean) / (spread * np.sqrt(1 / values.size + 1 / count))
            if not abs(z) < 5:
                means = f"mcloop's mean is {mean:.4g}, that of the {label} {values.mean():.4g}, {z:.1f} standard errors away"
                raise RuntimeError(f"{case.name}, {case.regime}: {means}.")
    for label in ("NumPy loop", "vectorised NumPy"):
        row[f"/ {label}"] = ours / row[label] if row[label] else None
    return row


def against_size(quick: bool) -> list[dict]:
    """Throughput at n = 1e2 .. 1e8 (n is traced: one program for all), of the families that draw statistics."""
    families = {
        "Gaussian, d=2": (lambda n: exact.gaussian(d=2, n=n), "trace_ratio", 2**14),
        "OLS, d=50": (lambda n: exact.linear_regression(d=50, n=n), "test_error", 2**11),
        "Words, k=100": (lambda n: exact.categorical(k=100, n=n, zipf=1.0), "heterozygosity", 2**9),
        "Bernoulli": (lambda n: exact.bernoulli(n=n), "mean", 2**14),
        "Poisson": (lambda n: exact.poisson(n=n), "mean", 2**14),
    }
    rows = []
    for name, (family, measure, cells) in families.items():
        made = compiled(lambda n, f=family: make_loop(f(n), regimes.replace()), measure, 50, cells, jnp.float32(100))
        row: dict[str, Any] = {"loop": name, "regime": "replace"}
        for n in (1e2, 1e3, 1e4, 1e6, 1e8):
            sized = made._replace(program=partial(lambda k, program, n: program(k, n), program=made.program, n=jnp.float32(n)))
            sized.run()
            row[f"n = {n:,.0f}"] = len(made.keys) * made.cells * 50 / best(sized.run, 3 if quick else 5)[0]
        rows.append(row)
    return rows


def against_age(quick: bool) -> list[dict]:
    """Throughput of `accumulate` over 10, 100 and 1000 generations: the pool grows, the cost of a generation does not."""
    families = {
        "Gaussian, d=2, n=50": (lambda: exact.gaussian(d=2, n=50), "trace_ratio", 2**13),
        "OLS, d=50, T=500": (lambda: exact.linear_regression(d=50, n=500), "test_error", 2**11),
        "Poisson, n=100": (lambda: exact.poisson(n=100), "mean", 2**13),
    }
    rows = []
    for name, (family, measure, cells) in families.items():
        row: dict[str, Any] = {"loop": name, "regime": "accumulate"}
        for age in (10, 100, 1000):
            made = compiled(lambda f=family: make_loop(f(), regimes.accumulate()), measure, age, cells)
            made.run()
            row[f"{age} generations"] = len(made.keys) * made.cells * age / best(made.run, 3 if quick else 5)[0]
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """GitHub markdown."""

    def cell(name, x):
        if x is None or isinstance(x, (str, int)):
            return "-" if x is None else str(x)
        if name[0] == "/":
            return f"{x:,.1f}x" if x < 10 else f"{x:,.0f}x"
        return f"{x:.1f}" if name == "compile s" or x < 100 else f"{float(f'{x:.3g}'):,.0f}"

    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(n, row.get(n)) for n in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> dict:
    """What the figures were measured on."""
    device = jax.devices()[0]
    versions = {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__}
    return {"device": device.device_kind, "platform": device.platform, "cores": os.cpu_count(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the generations, fewer repeats")
    parser.add_argument("--only", default="", help="the loops whose name contains this")
    parser.add_argument("--json", help="also write the figures here")
    given = parser.parse_args()
    where = machine()
    print(", ".join(f"{k} {v}" for k, v in where.items()), flush=True)
    found = []
    for case in cases():
        if given.only.lower() in case.name.lower():
            found.append(compare(case, given.quick))
            print(table(found[-1:]).splitlines()[-1], flush=True)
    results = {"machine": where, "loops": found}
    print("\n" + table(found))
    if not given.only:
        results |= {"size": against_size(given.quick), "age": against_age(given.quick)}
        print("\n" + table(results["size"]) + "\n\n" + table(results["age"]))
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
