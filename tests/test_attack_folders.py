"""Folders under attack: whatever is swapped, copied, flipped, cut or deleted, the end is the same, or one sentence says why."""

import random
import shutil
import warnings

import learners
import pytest

from mcloop import make_loop, regimes, sweep, train
from mcloop.drivers import blocks, plans
from mcloop.errors import InputError
from mcloop.models.compiled import compiled_model
from mcloop.models.training import training
from mcloop.storage.identity import describe, digest

GENERATIONS = 3
QUICK, ALL = 10, 100  # attacks on each kind of folder, those of every day and those of `slow`

HOSTED = learners.hosted_model()
COMPILED = compiled_model(
    learners.gaussian_learner(), training(4, 2, rate=0.05, batch=8), learners.Normal, 12, capacity=12, reference=False
)


def hosted(folder, other=False):
    """Two loops that share their first fit, of two replicas; or, in the same cells, others of another regime."""
    chosen = {"a": regimes.accumulate(), "b": regimes.replace()}
    arms = {"a": chosen["b"], "b": chosen["a"]} if other else chosen
    return train(lambda arm: make_loop(HOSTED, arms[arm]), {"arm": ["a", "b"]}, 2, GENERATIONS, folder=folder)


def compiled(folder, other=False):
    """Two programs of two cells each."""

    def make(arm, lam):
        return make_loop(COMPILED, regimes.augment(lam / 2 if other else lam) if arm == "a" else regimes.replace())

    return train(make, {"arm": ["a", "b"], "lam": [0.5, 1.0]}, 2, GENERATIONS, folder=folder)


def swept(folder, walker, other=False):
    """Six blocks."""

    def make(lam, n):
        return make_loop(walker(n + other, batched=True), regimes.augment(lam))

    return sweep(make, {"lam": [0.5, 1.0, 2.0], "n": [4, 9]}, 4, GENERATIONS, block=(2, 2), folder=folder)


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Compiles every program once, and not anew for every attack: what is attacked are files."""
    known = {}

    def once(function, name):
        def made(*given):
            key = name(*given)
            if key not in known:
                known[key] = function(*given)
            return known[key]

        return made

    with pytest.MonkeyPatch.context() as patch:
        program = plans._program
        patch.setattr(plans, "_program", once(program, lambda make, fixed, *rest: digest(describe((fixed, rest[2])))))
        patch.setattr(blocks, "_compile", once(blocks._compile, blocks._fingerprint))
        yield


@pytest.fixture(scope="module", params=["hosted", "compiled", "swept"])
def attacked(request, tmp_path_factory, walker):
    """(run, its folder, the folder of the same cells of other loops, an unfinished folder, what it gives)."""
    run = {"hosted": hosted, "compiled": compiled, "swept": lambda f, other=False: swept(f, walker, other)}[request.param]
    base = tmp_path_factory.mktemp(request.param)
    expected = run(base / "whole")
    run(base / "other", other=True)
    shutil.copytree(base / "whole", base / "half")
    if request.param == "swept":
        for path in sorted((base / "half").glob("*.npz"))[::2]:
            path.unlink()
    else:
        for unit in sorted(p for p in (base / "half").iterdir() if p.is_dir())[::2]:
            shutil.rmtree(unit / f"generation-{GENERATIONS:04d}")
            (unit / "seen" / f"generation-{GENERATIONS:04d}.npz").unlink()
    return run, base, expected


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def pieces(folder):
    """Files, and the folders of units and of generations."""
    return files(folder) + sorted(p for p in folder.rglob("*") if p.is_dir() and p.name != "state")


def swap(rng, folder, other):
    """Two things of the same kind change places."""
    a = rng.choice(pieces(folder))
    alike = [p for p in pieces(folder) if p.is_dir() == a.is_dir() and p.suffix == a.suffix and a not in p.parents]
    b = rng.choice([p for p in alike if p not in a.parents] or [a])
    if a != b:
        aside = folder.with_name("aside")
        a.rename(aside)
        b.rename(a)
        aside.rename(b)


def copy(rng, folder, other):
    """One thing is put in the place of another."""
    a, b = rng.choice(files(folder)), rng.choice(files(folder))
    if a != b:
        shutil.copy(a, b)


def foreign(rng, folder, other):
    """A file or a folder is that of other loops in cells of the same name."""
    there = [p for p in pieces(folder) if (other / p.relative_to(folder)).exists()]
    a = rng.choice(there)
    b = other / a.relative_to(folder)
    if a.is_dir():
        shutil.rmtree(a)
        shutil.copytree(b, a)
    else:
        shutil.copy(b, a)


def flip(rng, folder, other):
    path = rng.choice(files(folder))
    data = bytearray(path.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def cut(rng, folder, other):
    path = rng.choice(files(folder))
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def delete(rng, folder, other):
    path = rng.choice(pieces(folder))
    shutil.rmtree(path) if path.is_dir() else path.unlink()


ATTACKS = [swap, copy, foreign, flip, cut, delete]


def survives(attacked, tmp_path, number):
    run, base, expected = attacked
    rng = random.Random(number)
    folder = tmp_path / "run"
    shutil.copytree(base / rng.choice(["whole", "half"]), folder)
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        attack = ATTACKS[number % len(ATTACKS)] if not done else rng.choice(ATTACKS)
        done.append(attack.__name__)
        if pieces(folder):
            attack(rng, folder, base / "other")
    said = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = run(folder)
        except InputError as error:
            said = str(error)
    if said:
        assert len(said.splitlines()) == 1 and said.endswith("."), (number, done)
        return "refused"
    assert found.identical(expected), (number, done)
    return "the same"


@pytest.mark.parametrize("number", range(QUICK))
def test_a_folder_survives(attacked, tmp_path, number):
    survives(attacked, tmp_path, number)


@pytest.mark.slow
def test_a_folder_survives_for_long(attacked, tmp_path):
    found = []
    for number in range(QUICK, ALL):
        found.append(survives(attacked, tmp_path / str(number), number))
        shutil.rmtree(tmp_path / str(number))
    assert found.count("the same") > len(found) / 2
