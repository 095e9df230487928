"""Draws under way: nothing is drawn twice, whatever happens to the process, and nothing is left behind."""

import errno
import hashlib
import io
import mmap
import os
import shutil

import jax
import jax.numpy as jnp
import learners
import numpy as np
import pytest
from test_train import flip, same_files

from mcloop import make_loop, train
from mcloop.memory import shard_files
from mcloop.memory.shards import Shard
from mcloop.models import hosted
from mcloop.models.training import Budget, training
from mcloop.storage import chunks, partial_draws
from mcloop.storage.partial_draws import PartialDraw, PartialDraws, digest, keeping

COUNT, CHUNK, GENERATIONS = 50, 20, 4  # a draw is three parts, of which the last is not needed whole


class Stop(Exception):
    """What a process dies of here."""


class Counter:
    """Counts the draws, and dies in the middle of one when it is told to."""

    draws, dies_at = 0, None

    def mcloop_identity(self):
        return "a counter"  # what it has counted is no part of what a loop is

    def encode(self, points):
        if self.draws == self.dies_at:
            raise Stop
        self.draws += 1
        return learners.CODEC.encode(points)


COUNTER = Counter()


def model(gate):
    return hosted.hosted_model(
        learners.gaussian_learner(),
        training(30, Budget(epochs=2), rate=0.05, batch=16),
        {"x": np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)},
        codec=hosted.Codec(COUNTER.encode, learners.CODEC.decode),
        evaluate=learners.evaluate,
        samples=COUNT,
        chunk=CHUNK,
        gate=gate,
    )


MODEL = model(gate=False)
KEY = jax.random.key(7)


@pytest.fixture(autouse=True)
def counter():
    """A count of zero, in a process that lives."""
    COUNTER.draws, COUNTER.dies_at = 0, None
    return COUNTER


@pytest.fixture(scope="module")
def params():
    data, truth = MODEL.observe(jax.random.key(0), None)
    return MODEL.fit(jax.random.key(1), truth, data)[0]


def drawn(params, folder=None, count=COUNT, key=KEY):
    """What a new process draws, in memory or with what is in a folder."""
    with keeping(PartialDraws(folder)):
        body = MODEL.sample(key, params, count)
    assert len(body) == count
    return body.parts[0].values["x"]


def part(folder, number=1):
    """The file of one part of the only draw in a folder."""
    (draw,) = folder.iterdir()
    return draw / f"part-{number:07d}.npz"


# one draw


def test_a_draw_is_the_same_in_memory_and_on_disk(params, tmp_path, counter):
    expected = drawn(params)
    np.testing.assert_array_equal(drawn(params, tmp_path), expected)
    assert counter.draws == 6 and len(np.unique(expected)) == 2 * COUNT
    np.testing.assert_array_equal(drawn(params, tmp_path, 33), expected[:33])  # a shorter draw is its beginning
    assert counter.draws == 6
    np.testing.assert_array_equal(drawn(params, tmp_path, 90)[:COUNT], expected)
    assert counter.draws == 8


def test_a_draw_is_made_once_by_one_process_too(params, counter):
    with keeping(PartialDraws()):
        first, again = (MODEL.sample(KEY, params, COUNT).parts[0].values["x"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert counter.draws == 3


@pytest.mark.parametrize("died_at", [0, 1, 2])
def test_a_part_that_was_written_is_not_drawn_again(params, tmp_path, counter, died_at):
    expected, counter.draws, counter.dies_at = drawn(params), 0, died_at
    with pytest.raises(Stop):
        drawn(params, tmp_path)
    assert counter.draws == died_at == len(list(tmp_path.rglob("part-*.npz")))
    counter.dies_at = None
    np.testing.assert_array_equal(drawn(params, tmp_path), expected)
    assert counter.draws == 3


@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 100), lambda path: path.write_bytes(b"")])
def test_a_damaged_part_is_noticed_and_drawn_again(params, tmp_path, counter, damage):
    expected = drawn(params, tmp_path)
    damage(part(tmp_path))
    with pytest.warns(UserWarning, match="'part-0000001' .* is damaged .* and will be computed again"):
        again = drawn(params, tmp_path)
    np.testing.assert_array_equal(again, expected)
    assert counter.draws == 4
    np.testing.assert_array_equal(drawn(params, tmp_path), expected)  # and is whole again
    assert counter.draws == 4


def test_other_parameters_or_another_key_do_not_take_a_draw(params, tmp_path, counter):
    mine = drawn(params, tmp_path)
    moved = params._replace(
        variables=params.variables._replace(params=jax.tree.map(lambda x: x + 1e-6, params.variables.params))
    )
    theirs = drawn(moved, tmp_path)
    assert counter.draws == 6 and not np.array_equal(mine, theirs)
    drawn(params, tmp_path, key=jax.random.key(8))
    assert counter.draws == 9 and len(list(tmp_path.iterdir())) == 3


def test_a_digest_tells_apart_all_that_a_draw_depends_on():
    tree = {"a": jnp.arange(6.0), "b": jnp.zeros(2)}
    others = [
        (jax.random.key(8), tree),
        (KEY, {"a": jnp.arange(6.0).at[3].add(1e-6), "b": jnp.zeros(2)}),
        (KEY, {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(2)}),
        (KEY, {"c": jnp.arange(6.0), "b": jnp.zeros(2)}),
        (KEY, {"a": jnp.arange(6.0), "b": jnp.zeros(2, jnp.int32)}),
        (KEY, {"b": jnp.arange(6.0), "a": jnp.zeros(2)}),
        (KEY, tree, "in chunks of 20"),
    ]
    found = {digest(*given) for given in others} | {digest(KEY, tree)}
    assert len(found) == 8
    assert digest(jax.random.key(7), {"a": np.arange(6, dtype=np.float32), "b": np.zeros(2, np.float32)}) == digest(KEY, tree)


def mapped(x) -> bool:
    """Whether an array's memory is a file."""
    while isinstance(x, np.ndarray):
        x = x.base
    return isinstance(x, mmap.mmap)


def test_large_draws_are_mapped_and_not_held(params, tmp_path, monkeypatch):
    small = drawn(params, tmp_path)
    assert not mapped(small)
    monkeypatch.setattr(partial_draws, "_IN_MEMORY", 3 * CHUNK * 8 - 1)
    large = drawn(params, tmp_path)
    assert mapped(large) and not mapped(drawn(params, tmp_path, 2 * CHUNK))
    np.testing.assert_array_equal(large, small)
    larger = drawn(params, tmp_path, 90)  # takes the file's place while the first draw is still read
    assert mapped(larger)
    np.testing.assert_array_equal(large, small)
    np.testing.assert_array_equal(larger[:COUNT], small)
    monkeypatch.undo()
    np.testing.assert_array_equal(drawn(params, None, 90), larger)


@pytest.mark.parametrize(("limit", "written"), [(2**26, 0), (1, 3)], ids=["a part", "the whole"])
def test_a_full_disk_is_said_in_one_sentence(params, tmp_path, monkeypatch, refused, counter, limit, written):
    expected, counter.draws = drawn(params), 0
    calls, fsync = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2 * written:  # the file, and its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(partial_draws, "_IN_MEMORY", limit)
        patch.setattr(chunks.os, "fsync", full)
        with refused("The disk holding", "is full"):
            drawn(params, tmp_path)
    assert len(list(tmp_path.rglob("part-*.npz"))) == written and not list(tmp_path.rglob("*.tmp"))
    np.testing.assert_array_equal(drawn(params, tmp_path), expected)
    assert counter.draws == 3 + (written == 0)  # the draw that found no room is lost, and no other


def test_a_part_that_goes_missing_in_use_is_no_silent_gap(tmp_path):
    draw = PartialDraw(tmp_path)
    for i in range(2):
        draw.put(i, {"x": np.full(3, i)})
    (tmp_path / "part-0000001.npz").unlink()
    with pytest.raises(RuntimeError, match=r"part 1 .* went missing"):
        draw.gather(2)


# many draws


def test_tidying_leaves_what_the_next_generation_begins_with(tmp_path):
    draws, folder = PartialDraws(tmp_path / "partial_draws"), tmp_path / "partial_draws"
    draws.tidy(True)  # where nothing was drawn there is nothing to do
    for name in ("old", "older", "last"):
        draws.open(name).put(0, {"x": np.arange(3)})
    draws.tidy(False)
    assert [path.name for path in folder.iterdir()] == ["last"]
    np.testing.assert_array_equal(PartialDraws(folder).open("last").gather(1)["x"], np.arange(3))
    draws.tidy(True)
    assert not folder.exists() and tmp_path.exists()


def test_partial_draws_in_memory_keeps_the_last_draw_only():
    draws = PartialDraws()
    first = draws.open("a")
    first.put(0, {"x": np.arange(3)})
    assert draws.open("a") is first
    draws.open("b")
    assert draws.open("a") is not first and not draws.open("a").has(0)


# a run


def run(folder, arm):
    return train(lambda: make_loop(MODEL, learners.REGIMES[arm]), {}, 1, GENERATIONS, folder=folder)


@pytest.fixture(scope="module", params=["replace", "accumulate"])
def whole(request, tmp_path_factory):
    """(arm, its folder, its results, the draws that it took) of a run that was never stopped."""
    COUNTER.draws, COUNTER.dies_at = 0, None
    folder = tmp_path_factory.mktemp("whole") / "run"
    return request.param, folder, run(folder, request.param), COUNTER.draws


def draws_on_disk(folder):
    return sorted(folder.glob("*/partial_draws/*"))


def test_a_model_is_judged_by_the_points_that_it_hands_on(whole):
    arm, folder, _, draws = whole
    assert draws == 3 * GENERATIONS  # 50 points to measure a model, the first 40 of which train the next
    assert not list(folder.rglob("partial_draws"))
    assert bool(list(folder.rglob("shards/*.npy"))) == (arm == "accumulate")


@pytest.mark.parametrize("died_at", [0, 4, 8, 11])
def test_a_run_killed_while_it_draws_goes_on_to_the_bit(whole, tmp_path, counter, died_at):
    arm, folder, ds, draws = whole
    counter.dies_at = died_at
    with pytest.raises(Stop):
        run(tmp_path / "run", arm)
    left = draws_on_disk(tmp_path / "run")
    # the draw under way, and before it the one that this generation was trained on
    assert len(left) == (died_at % 3 > 0) + (died_at >= 3) and sum(len(list(d.glob("part-*"))) for d in left) == (
        died_at % 3 + 3 * (died_at >= 3)
    )
    counter.dies_at = None
    assert run(tmp_path / "run", arm).identical(ds)
    assert counter.draws == draws  # not one of them twice
    same_files(folder, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("partial_draws"))


@pytest.mark.parametrize("died_at", [1, 4])
def test_a_first_fit_that_is_seen_at_its_half_goes_on_to_the_bit(tmp_path, counter, died_at):
    watched = model(gate=True)

    def two(name):
        return train(lambda: make_loop(watched, learners.REGIMES["replace"]), {}, 1, 2, folder=tmp_path / name)

    whole, drawn = two("whole"), counter.draws
    assert drawn == 3 * 3 and np.isfinite(whole.first_fit_loss_slope)
    assert [name for name in whole if str(name).startswith("first_fit_half_")]
    counter.draws, counter.dies_at = 0, died_at
    with pytest.raises(Stop):
        two("run")
    counter.dies_at = None
    assert two("run").identical(whole)
    assert counter.draws == drawn  # not one of them twice


def test_without_its_drafts_a_run_draws_again_and_ends_the_same(whole, tmp_path, counter):
    arm, folder, ds, draws = whole
    counter.dies_at = 8
    with pytest.raises(Stop):
        run(tmp_path / "run", arm)
    for draw in draws_on_disk(tmp_path / "run"):
        shutil.rmtree(draw)
    counter.dies_at = None
    assert run(tmp_path / "run", arm).identical(ds)
    assert counter.draws == draws + 2 + 2  # two parts of the draw under way, two that the generation is trained on
    same_files(folder, tmp_path / "run")


# what outlives a draw: shards


@pytest.mark.parametrize("piece", [1, 100, 2**24])
@pytest.mark.parametrize("rows", [None, np.array([5, 0, 11, 11, 3]), np.arange(0)], ids=["all", "some", "none"])
def test_a_shard_is_written_in_pieces_as_numpy_writes_it_whole(tmp_path, monkeypatch, rows, piece):
    monkeypatch.setattr(shard_files, "_PIECE", piece)
    rng = np.random.default_rng(0)
    values = {
        "x": rng.integers(0, 255, (12, 3, 4)).astype(np.uint8),
        "tokens": rng.integers(0, 9, (7, 12)).astype(np.uint16).T,  # not in the order in which it lies in memory
        "label": np.arange(12, dtype=np.int32),
    }
    kept = shard_files._write(Shard(values, rows=rows), tmp_path, "generation-0002-0-0")
    assert kept.files is not None and kept.rows is None and len(kept) == (12 if rows is None else len(rows))
    for name, x in values.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(x if rows is None else x[rows]))
        file, sha256 = kept.files[name]
        assert (tmp_path / file).read_bytes() == buffer.getvalue()
        assert sha256 == hashlib.sha256(buffer.getvalue()).hexdigest()
        np.testing.assert_array_equal(kept.values[name], x if rows is None else x[rows])
    again = shard_files._write(Shard(kept.values), tmp_path, "again")  # from files that are mapped themselves
    assert again.files is not None
    assert [sha for _, sha in again.files.values()] == [sha for _, sha in kept.files.values()]
