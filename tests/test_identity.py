"""What a thing is, in words: the same in every process, another for whatever changes a number, and no more than that."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcloop import correctors, exact, make_loop, regimes
from mcloop.drivers.identity import cells_of
from mcloop.models.training import cosine, linear, training
from mcloop.nets.mlp import mlp
from mcloop.storage.identity import describe, describe_loop, digest
from mcloop.storage.manifest import difference

SCALE = 2.0


def function(text, **names):
    """A user's function, from its text."""
    space = {"jnp": jnp, "__name__": "user", **names}
    exec(compile(text, "somewhere.py", "exec"), space)
    return space["f"]


BASE = "def f(x, a=1):\n    return x * a + s"


@pytest.mark.parametrize(
    "other",
    [
        function("\n\n\n\ndef f(x, a=1):\n    return x * a + s", s=1),  # lines
        function("def f(x, a=1):\n    'Says what it does.'\n    # and how\n    return (x * a) + s", s=1),
        function(BASE, s=1, t=2),  # a global that it does not read
        function(BASE, s=1.0),
    ],
)
def test_what_changes_no_number_does_not_count(other):
    assert describe(other) == describe(function(BASE, s=1))


@pytest.mark.parametrize(
    "other",
    [
        function("def f(x, a=1):\n    return x * a - s", s=1),
        function("def f(x, a=2):\n    return x * a + s", s=1),
        function("def f(x, *, a=1):\n    return x * a + s", s=1),
        function(BASE, s=2),
        function(BASE, s=np.arange(3)),
        function("def f(x, a=1):\n    return [x * a + s for _ in range(3)]", s=1),
        functools.partial(function(BASE, s=1), a=1),
    ],
)
def test_what_changes_a_number_counts(other):
    assert describe(other) != describe(function(BASE, s=1))


def test_what_is_inside_counts_however_deep():
    def nest(scale, inner=lambda x: x + 1):
        cell = {"scale": jnp.full(3, scale)}

        def outer(x):
            def deep(y):
                return inner(y) * cell["scale"]

            return jax.jit(deep)(x)

        return jax.jit(functools.partial(outer))

    assert describe(nest(1.0)) == describe(nest(1.0))
    assert difference(describe(nest(1.0)), describe(nest(2.0))) is not None
    assert difference(describe(nest(1.0)), describe(nest(1.0, lambda x: x + 2))) is not None
    made = {k: describe(lambda x, k=k: x * SCALE + k) for k in range(2)}
    assert made[0] != made[1]


def test_cycles_end_and_long_things_are_digests():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    loop: list = [1, even]
    loop.append(loop)
    said = json.dumps(describe({"loop": loop, "long": list(range(10**4)), "text": "x" * 10**5}))
    assert "itself" in said and len(said) < 2000
    assert describe(list(range(10**4))) != describe([*range(10**4 - 1), 0])


class Shape(NamedTuple):
    width: int
    of: object = None


class Counter:
    """Changes while it is used."""

    calls = 0

    def __init__(self, step):
        self.step = step

    def mcloop_identity(self):
        return self.step

    def use(self, x):
        self.calls += 1
        return x


def test_objects_say_what_they_are():
    class Plain:
        def __init__(self, a):
            self.a = a

        def __call__(self, x):
            return x * self.a

    assert describe(Plain(1)) == describe(Plain(1)) != describe(Plain(2))
    assert describe(Shape(1)) != describe(Shape(2)) and describe(Shape(1))["kind"] == "Shape"
    counter, before = Counter(2), describe(Counter(2).use)
    counter.use(1)
    assert describe(counter.use) == before != describe(Counter(3).use)
    here, there = (describe(Path(p)) for p in ("/a", "/b"))
    assert here == there
    assert describe(jax.random.key(0)) != describe(jax.random.key(1))
    assert describe(jnp.arange(3)) == describe(np.arange(3, dtype=np.int32)) != describe(np.arange(3.0))
    assert describe({"a", "b", "c"}) == describe({"c", "b", "a"})
    assert describe(float("nan")) != describe(1.0) and describe(np.float64(0.5)) == describe(0.5)


LOOPS = {
    "regime.name": (regimes.replace(), None, {}),
    "regime.draw.points": (regimes.augment(0.7), None, {}),
    "regime.view": (regimes.augment(np.inf), None, {}),
    "corrector.name": (regimes.augment(0.5), correctors.mixture(1.0), {}),
    "corrector": (regimes.augment(0.5), lambda key, batch, params: batch, {}),
    "model": (regimes.augment(0.5), None, {"n": 51}),
    "model.estimator": (regimes.augment(0.5), None, {"covariance": "diagonal"}),
    "model.memory": (regimes.augment(0.5), None, {"literal": True}),
}


@pytest.mark.parametrize("part", LOOPS)
def test_a_difference_is_named(part):
    regime, corrector, options = LOOPS[part]
    one = describe_loop(make_loop(exact.gaussian(2, 50), regimes.augment(0.5)))
    other = describe_loop(make_loop(exact.gaussian(2, **{"n": 50, **options}), regime, corrector))
    found = difference(one, other)
    assert found is not None and found[0].startswith(part.split(".")[0])
    assert one == describe_loop(make_loop(exact.gaussian(2, 50), regimes.augment(0.5)))


def test_schedules_and_networks_are_told_apart():
    trainings = [training(9, 9, rate=r) for r in (1e-3, 2e-3, linear(1e-3), linear(1e-3, 1e-4), cosine(1e-3))]
    trainings += [training(9, 9, warm=False), training(9, 9, clip=1.0), training(9, 9, ema=0.9), training(9, 8)]
    nets = [mlp(2, 8, 1), mlp(2, 8, 2), mlp(2, 9, 1), mlp(2, 8, 1, classes=2)]
    found = [digest(describe(x)) for x in trainings + nets]
    assert len(set(found)) == len(found)


def test_every_cell_is_there():
    def cells(change):
        return cells_of([({"lam": lam}, make_loop(exact.gaussian(1, 9), regimes.augment(change(lam)))) for lam in (1.0, 2.0)])

    assert difference(cells(lambda lam: lam), cells(lambda lam: lam**2))[0] == "cells_are.lam=2.regime"


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[1])
import learners
from mcloop import make_loop, regimes
from mcloop.storage.identity import describe_loop
print(json.dumps(describe_loop(make_loop(learners.hosted_model(), regimes.augment(.5), lambda key, batch, params: batch))))
"""


def test_another_process_says_the_same():
    said = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)]
        said.append(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert said[0] == said[1] and "0x" not in said[0] and str(Path(__file__).parent) not in said[0]
    assert len(said[0]) < 20_000
