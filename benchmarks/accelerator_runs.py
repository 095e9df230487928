"""Parts of `accelerator.py` that reckon whole runs of two configs from some timed steps, draws and measurements."""

from __future__ import annotations

import itertools
import math
import os
import runpy
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from accelerator_rows import Part, Row, Setting

from mcloop.data.images import load
from mcloop.experiment.arguments import complete
from mcloop.experiment.config import Experiment, find
from mcloop.models.training import Budget
from mcloop.studies import tinystories
from mcloop.types import Loop, Memory, Model, Supply

DIGITS, STORIES = "gillman/mnist", "gerstgrasser/tinystories_gpt2_9m"
_ALL_STORIES = 1.92e9  # bytes of the published TinyStories-train.txt
_STEPS = ("training step", "drawing", "measuring", "one generation", "whole run")


class Costs(NamedTuple):
    """Seconds of a step, of everything else in a fit, of drawing a chunk of points, and of measuring a generation's points."""

    step: float
    fit: float
    chunk: float
    see: float


class Plan(NamedTuple):
    """What a run is: distinct loops, replicas, fits; points that a chunk holds, that a generation is judged by, in a minibatch.

    `points` are those of the real set; `first` and `later` the epochs of the first fit and of every later one.
    """

    loops: Sequence[Loop]
    seeds: int
    generations: int
    points: int
    chunk: int
    samples: int
    batch: int
    first: float
    later: float


def plan(experiment: Experiment, size: str, loops: Sequence[Loop], points: int, first: float, later: float) -> Plan:
    """The run that `mcloop run --size` makes of these loops."""
    chosen = experiment.sizes[size]
    options = complete(experiment, size, chosen.grid)
    chunk, samples, batch = (int(options[name]) for name in ("chunk", "samples", "batch"))
    return Plan(loops, chosen.seeds, chosen.generations, points, chunk, samples, batch, first, later)


def loops_of(experiment: Experiment, size: str, **more) -> list[Loop]:
    """The distinct loops of a run: one of several cells (a baseline at every lam) is run once."""
    chosen = experiment.sizes[size]
    axes = {**experiment.grid, **chosen.grid}
    cells = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    made = [experiment.make(**chosen.options, **more, **cell) for cell in cells]
    return list({id(loop): loop for loop in made}.values())


def work(loop: Loop, points: int, generations: int) -> list[tuple[int, int]]:
    """Points that generations 2, 3, ... train on, and that each has drawn for it: the loop's regime, run on mere counts."""
    counts = Memory(
        merge=lambda a, b: a + b,
        scale=lambda a, w: a if w > 0 else 0,
        size=lambda a: a,
        real=lambda a: a,
        reserve=lambda a, blocks: a,
        append=lambda pool, a, place: pool + a,
        subsample=lambda key, pool, count: min(pool, count),
    )
    regime, found = loop.regime, []
    pool = regime.init(counts, points, None, generations)
    for t in range(2, generations + 1):
        wanted = regime.draw(points, t)
        supply = Supply(points, int(wanted.fresh), int(wanted.synthetic))
        pool = regime.update(counts, pool, supply, t)
        found.append((int(regime.view(None, counts, pool, supply, points, t)), supply.synthetic))
    return found


def generation(run: Plan, costs: Costs, trained: int, handed_on: int) -> float:
    """Seconds of a later generation: its fit, what is drawn to measure it and to hand on (which are the same), its measures."""
    steps = Budget(epochs=run.later).of(trained, run.batch)
    return steps * costs.step + costs.fit + drawn(run, handed_on) * costs.chunk + costs.see


def drawn(run: Plan, handed_on: int) -> int:
    """Chunks that are drawn of one fit."""
    return math.ceil(max(run.samples, handed_on) / run.chunk)


def whole(run: Plan, costs: Costs) -> float:
    """Seconds of a run; the first fit of a seed is shared by its loops, and looked at once at half of its steps."""
    opening = Budget(epochs=run.first).of(run.points, run.batch) * costs.step + costs.fit
    total = opening + math.ceil(run.samples / run.chunk) * costs.chunk + costs.see
    for loop in run.loops:
        asked = work(loop, run.points, run.generations)
        handed = [count for _, count in asked] + [0]
        total += drawn(run, handed[0]) * costs.chunk + costs.see
        total += sum(generation(run, costs, trained, n) for (trained, _), n in zip(asked, handed[1:], strict=True))
    return run.seeds * total


def timed(
    name: str, model: Model, see: Callable[[dict, Any], dict], run: Plan, setting: Setting
) -> Generator[Row, None, Costs]:
    """Rows of a step, of drawing and of measuring by the model's own functions, as the loop calls them; returns the costs."""
    keys = iter(jax.random.split(jax.random.key(0), 20))
    pool, origin = model.observe(next(keys), None)
    fitted: Any = origin.initial
    few, many = (1, 3) if setting.tiny else (10, 60)

    def fit(steps: int) -> float:
        budget = {"later": Budget(steps=steps)}
        return _seconds(lambda: model.fit(next(keys), fitted, pool, **budget))

    def draw() -> float:
        return _seconds(lambda: model.sample(next(keys), fitted, run.chunk))

    first = fit(few)
    short, long = min(fit(few), fit(few)), min(fit(many), fit(many))
    step = (long - short) / (many - few)
    # where others work too, a short fit may take as long as a long one
    step, rest = (step, max(short - few * step, 0.0)) if step > 0 else (long / many, 0.0)
    said = f"{1000 * step:.3g} ms a step of {run.batch} points; {rest:.2g} s more a fit"
    yield Row(f"{name}: training step", 1 / step, "steps/s", compile_s=max(first - short, 0.0), remark=said)
    first = draw()
    chunk = min(draw() for _ in range(2 if 2 * first < setting.left else 1))
    said = f"{chunk:.3g} s a chunk of {run.chunk}"
    yield Row(f"{name}: drawing", run.chunk / chunk, "points/s", compile_s=max(first - chunk, 0.0), remark=said)
    points = pool.take(np.arange(run.samples) % len(pool))
    first, look = (_seconds(lambda: see(points, fitted.variables)) for _ in range(2))
    said = f"{run.samples:,} points, mostly on the host; less is better"
    yield Row(f"{name}: measuring", look, "s", compile_s=max(first - look, 0.0), remark=said)
    return Costs(step, rest, chunk, look)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def rows(name: str, model: Model, see, run: Plan, told: str, setting: Setting) -> Iterator[Row]:
    """What was timed, and what it makes of the second generation of the loop that has most to do, and of the whole run."""
    costs = yield from timed(name, model, see, run, setting)
    most = max(run.loops, key=lambda loop: sum(map(sum, work(loop, run.points, run.generations))))
    (trained, _), (_, handed_on) = work(most, run.points, 3)
    said = f"{most.regime.name}: the second, trained on {trained:,} points; it draws {max(handed_on, run.samples):,}"
    yield Row(f"{name}: one generation", generation(run, costs, trained, handed_on), "s", remark=f"{said}; less is better")
    said = f"{len(run.loops)} loops x {run.seeds} seeds x {run.generations} fits {told}; reckoned from the rows above"
    yield Row(f"{name}: whole run", whole(run, costs) / 3600, "hours", remark=said)


def digits(setting: Setting) -> Iterator[Row]:
    """`gillman/mnist`: the networks and measures that its config makes; noise stands in where MNIST is not."""
    with data("mnist.npz", write_digits, setting.tiny or load("mnist").name == "mnist") as made_up:
        config = runpy.run_path(str(find(DIGITS).path))
        experiment: Experiment = config["experiment"]
        size, loops, options = _made(experiment, setting)
        see = config["panel"](*(options[key] for key in ("data", "pixels", "space", "samples"))).see
        model = loops[0].model
        run = plan(experiment, size, loops, int(model.n), options["first"], options["later"])
        yield from rows(DIGITS, model, see, run, f"on {run.points:,} images{made_up}", setting)


def stories(setting: Setting) -> Iterator[Row]:
    """`gerstgrasser/tinystories_gpt2_9m`, from the stories that are here to all of TinyStories; made-up words stand in."""
    with data(
        "tinystories.txt", partial(write_stories, 300 if setting.tiny else 4000), tinystories.stories(None).text is not None
    ) as made_up:
        experiment: Experiment = runpy.run_path(str(find(STORIES).path))["experiment"]
        source: Any = tinystories.stories(None)
        size, loops, options = _made(experiment, setting, table=source)
        made: Any = experiment.family
        story = made[0](source, **experiment.sizes[size].options)
        here = sum(len(text.encode()) for text in source.text.train)
        points = int(story.model.n) if setting.tiny else math.ceil(story.model.n * _ALL_STORIES / here)
        run = plan(experiment, size, loops, points, options["first"] * options["epochs"], options["epochs"])
        told = f"on {points:,} rows of {options['length']} tokens{'' if setting.tiny else ' (all of TinyStories)'}{made_up}"
        yield from rows(STORIES, story.model, story.panel.see, run, told, setting)


def _made(experiment: Experiment, setting: Setting, **more) -> tuple[str, list[Loop], dict[str, Any]]:
    """The size, its loops, and the value of every argument of them."""
    size = "tiny" if setting.tiny else "paper"
    options = complete(experiment, size, {**experiment.grid, **experiment.sizes[size].grid})
    return size, loops_of(experiment, size, **more), options


@contextmanager
def data(name: str, write: Callable[[Path], None], there: bool) -> Iterator[str]:
    """A folder of data while the block runs: the user's, or one with stand-ins; gives what a remark must say of them."""
    if there:
        yield ""
        return
    before = os.environ.get("MCLOOP_DATA")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        os.environ["MCLOOP_DATA"] = folder
        try:
            yield "; made-up data of the same form, since MCLOOP_DATA has none"
        finally:
            os.environ.pop("MCLOOP_DATA")
            if before is not None:
                os.environ["MCLOOP_DATA"] = before


def write_digits(path: Path) -> None:
    """Noise in the form of MNIST, a third as many."""
    rng = np.random.default_rng(0)
    sets = {}
    for part, count in (("train", 20_000), ("test", 10_000)):
        sets[f"x_{part}"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        sets[f"y_{part}"] = rng.integers(0, 10, count).astype(np.uint8)
    np.savez(path, **sets)


def write_stories(count: int, path: Path) -> None:
    """Stories of 200 made-up words, as frequent as words are."""
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (20_000, 8)).astype(np.uint8)
    words = np.array([bytes(row[: 2 + i % 7]).decode() for i, row in enumerate(letters)])
    share = 1 / np.arange(1, len(words) + 1)
    told = rng.choice(words, (count, 200), p=share / share.sum())
    path.write_text("\n<|endoftext|>\n".join(" ".join(story) for story in told), encoding="utf-8")


def parts() -> list[Part]:
    """Both runs."""
    names = {DIGITS: (90, digits), STORIES: (75, stories)}
    return [Part(n.split("/")[1], tuple(f"{n}: {s}" for s in _STEPS), t, f) for n, (t, f) in names.items()]
