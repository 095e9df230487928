"""Grids: named results, one compilation, the same numbers whatever the blocks and devices, and no work done twice."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mcloop import regimes
from mcloop.drivers.sweep import sweep
from mcloop.drivers.train import train
from mcloop.loop import make_loop
from mcloop.storage.chunks import ChunkStore

GRID = {"lam": [0.0, 0.5, 2.0], "n": [4, 9]}
SEEDS, T = 11, 4
SAME = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def make(walker):
    def build(lam, n=4):
        return make_loop(walker(n, batched=True), regimes.augment(lam))

    return build


@pytest.fixture(scope="module")
def whole(make):
    return sweep(make, GRID, SEEDS, T)


def same(a, b, **tolerance):
    assert a.sizes == b.sizes and list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **(tolerance or SAME))


def identical(a, b):
    assert list(a) == list(b)
    for name in a:
        assert_array_equal(a[name], b[name])


def test_results_have_names_units_and_a_history(make, whole):
    assert dict(whole.sizes) == {"lam": 3, "n": 2, "seed": SEEDS, "generation": T}
    assert whole["fitted"].dims == ("lam", "n", "seed", "generation")
    assert_array_equal(whole.lam, GRID["lam"])
    assert_array_equal(whole.n, GRID["n"])
    assert_array_equal(whole.generation, [1, 2, 3, 4])
    assert set(whole) == {"fitted", "mean_sq_error", "effective_lam"}
    assert whole.mean_sq_error.attrs["units"] == "data units^2" and whole.lam.attrs["long_name"] == "synthetic : real ratio"
    assert (whole.attrs["seed"], whole.attrs["sample_count"], whole.attrs["estimator"]) == (0, SEEDS, "walker: sample mean")
    assert whole.attrs["version_jax"] == jax.__version__
    told = sweep(make, {"lam": 1}, 1, 1, variables="fitted", attributes={"paper": "none", "empty": None})
    assert list(told) == ["fitted"] and told.attrs["paper"] == "none" and "empty" not in told.attrs
    assert dict(told.sizes) == {"lam": 1, "seed": 1, "generation": 1}


def test_a_cell_is_that_loop_with_that_seed(make, whole):
    from mcloop import random
    from mcloop.drivers.scan import scan

    key = random.fold_in(jax.random.key(0), 7)
    infos = scan(make(0.5, 9), key, generations=T)[1]
    cell = whole.sel(lam=0.5, n=9, seed=7)
    for name in cell:
        np.testing.assert_allclose(cell[name], infos[name], **SAME)
    assert not np.allclose(whole.fitted, sweep(make, GRID, SEEDS, T, seed=1).fitted)


def test_numbers_share_one_compilation_and_words_take_one_each(walker):
    traced, built = [], []

    def build(regime, lam, n):
        (traced if isinstance(lam, jax.core.Tracer) else built).append(regime)
        chosen = regimes.augment(lam) if regime == "augment" else regimes.replace()
        return make_loop(walker(n, batched=True), chosen)

    grid = {"lam": [0.5, 1.0, 2.0, 4.0], "regime": ["replace", "augment"], "n": [4, 9]}
    ds = sweep(build, grid, 3, 2)
    assert sorted(traced) == ["augment", "augment", "replace", "replace"]  # to see what shapes a program, and to compile it
    assert ds["fitted"].dims == ("lam", "regime", "n", "seed", "generation")
    assert_array_equal(ds.regime, ["replace", "augment"])
    assert np.isinf(ds.effective_lam.sel(regime="replace", generation=2)).all()
    assert_array_equal(ds.effective_lam.sel(regime="augment", generation=2, n=4)[:, 0], [0.5, 1, 2, 4])
    traced.clear()
    again = sweep(build, {**grid, "lam": [0.5, 1.0]}, 3, 2, static=("regime", "lam"))
    assert not traced and not isinstance(again.lam.values[0], str)
    same(again, ds.sel(lam=[0.5, 1.0]))


def test_families_that_measure_different_things_share_a_table(walker):
    def build(family, lam=0.5):
        model = walker(batched=True)
        if family == "loud":
            model = model._replace(measure=lambda params, truth: {"fitted": params, "noise": params**2})
        return make_loop(model, regimes.augment(lam))

    ds = sweep(build, {"family": ["quiet", "loud"]}, 3, 2, variables=("fitted", "noise"))
    assert np.isnan(ds.noise.sel(family="quiet")).all() and np.isfinite(ds.noise.sel(family="loud")).all()
    assert list(ds) == ["fitted", "noise"]


@pytest.mark.parametrize("block", [(1, 11), (4, 5), (6, 3)])
def test_blocks_do_not_change_a_number(make, whole, block):
    same(sweep(make, GRID, SEEDS, T, block=block), whole, rtol=1e-6, atol=1e-7)


def test_loops_for_one_cell_give_the_same_numbers(walker, whole):
    def single(lam, n):
        return make_loop(walker(n), regimes.augment(lam))

    def corrected(lam, n):
        return make_loop(walker(n, batched=True), regimes.augment(lam), lambda key, batch, params: batch)

    same(sweep(single, GRID, SEEDS, T, block=(4, 5)), whole)
    reduced = sweep(single, GRID, SEEDS, T, reduce=("mean", "median"))
    np.testing.assert_allclose(reduced.fitted.sel(statistic="mean"), whole.fitted.mean("seed"), **SAME)
    other = sweep(corrected, {**GRID, "n": [4]}, SEEDS, T)
    assert_array_equal(other.effective_lam, whole.effective_lam.sel(n=[4]))
    assert abs(float(other.fitted.std() / whole.fitted.sel(n=4).std()) - 1) < 0.3
    alone = sweep(lambda: make_loop(walker(), regimes.replace()), seeds=3, generations=2)
    assert dict(alone.sizes) == {"seed": 3, "generation": 2}


STATISTICS = ("mean", "sem", "std", "mean_log", "sem_log", "median", "min", "max", "q05", "q90")


def test_reductions_are_numpys(make, whole):
    x = whole.mean_sq_error.transpose("lam", "n", "generation", "seed").values.astype(np.float64)
    root = np.sqrt(SEEDS)
    ideal = {
        "mean": x.mean(-1),
        "sem": x.std(-1, ddof=1) / root,
        "std": x.std(-1, ddof=1),
        "mean_log": np.log(x).mean(-1),
        "sem_log": np.log(x).std(-1, ddof=1) / root,
        "median": np.median(x, -1),
        "min": x.min(-1),
        "max": x.max(-1),
        "q05": np.quantile(x, 0.05, axis=-1),
        "q90": np.quantile(x, 0.9, axis=-1),
    }
    ds = sweep(make, GRID, SEEDS, T, reduce=STATISTICS, block=(4, 11))
    assert ds.mean_sq_error.dims == ("lam", "n", "statistic", "generation") and tuple(ds.statistic.values) == STATISTICS
    for name, value in ideal.items():
        np.testing.assert_allclose(ds.mean_sq_error.sel(statistic=name), value, rtol=2e-5, err_msg=name)
    merged = sweep(make, GRID, SEEDS, T, reduce=STATISTICS[:5], block=(4, 3))
    for name in STATISTICS[:5]:
        np.testing.assert_allclose(merged.mean_sq_error.sel(statistic=name), ideal[name], rtol=2e-5, err_msg=name)


def test_an_infinity_is_not_made_a_nan_by_the_number_beside_it(walker):
    ds = sweep(
        lambda: make_loop(walker(batched=True), regimes.replace()), None, 5, 2, reduce=("median", "min", "max", "q25", "q30")
    )
    assert np.isposinf(ds.effective_lam.sel(generation=2)).all()


class Interrupted:
    """Counts the blocks that are put down, and stops the sweep as the one after `after` is."""

    def __init__(self, monkeypatch, after=None, error=KeyboardInterrupt):
        self.names = []
        put = ChunkStore.put

        def counted(store, name, arrays):
            if len(self.names) == after:
                raise error
            self.names.append(name)
            put(store, name, arrays)

        monkeypatch.setattr(ChunkStore, "put", counted)


@pytest.mark.parametrize(("reduce", "error"), [(None, KeyboardInterrupt), (("mean", "sem"), MemoryError)])
def test_an_interrupted_sweep_goes_on_where_it_stopped(make, tmp_path, monkeypatch, reduce, error):
    settings = {"seeds": SEEDS, "generations": T, "reduce": reduce, "block": (2, 4)}
    once = sweep(make, GRID, **settings)
    with monkeypatch.context() as patch:
        first = Interrupted(patch, after=4, error=error)
        with pytest.raises(error):
            sweep(make, GRID, **settings, folder=tmp_path)
    assert len(first.names) == 4
    with monkeypatch.context() as patch:
        rest = Interrupted(patch)
        identical(sweep(make, GRID, **settings, folder=tmp_path, progress=True), once)
    assert len(rest.names) == 9 - 4 and not set(rest.names) & set(first.names)

    damaged = sorted(tmp_path.glob("*.npz"))[3]
    payload = bytearray(damaged.read_bytes())
    payload[len(payload) // 2] ^= 1
    damaged.write_bytes(payload)
    with monkeypatch.context() as patch:
        last = Interrupted(patch)
        with pytest.warns(UserWarning, match="damaged .* computed again"):
            mended = sweep(make, GRID, **settings, folder=tmp_path)
    assert last.names == [damaged.stem]
    same(mended, once, rtol=1e-6)  # the merge of blocks takes another order
    with monkeypatch.context() as patch:
        Interrupted(patch, after=0)
        identical(sweep(make, GRID, **settings, folder=tmp_path), once)


def test_another_sweep_does_not_take_these_blocks_for_its_own(make, tmp_path, monkeypatch, refused):
    asked = []

    def first(store, name):
        asked.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkStore, "get", first)
    settings = {"seeds": SEEDS, "generations": T, "block": (2, 4)}
    # another view of the same loops has blocks of its own
    changes = [{}, {"variables": ("fitted",)}, {"reduce": "mean"}, {"block": (2, 5)}]
    # other loops, or others of their generations, have a folder of their own, and in another folder other blocks
    others = {"seed": {"seed": 1}, "generations": {"generations": T + 1}, "seeds": {"seeds": SEEDS + 1}}
    others |= {"grid.lam[2]": {"grid": {**GRID, "lam": [0.0, 0.5, 2.5]}}, "real": {"real": np.arange(4.0)}}
    for change in changes:
        with pytest.raises(KeyboardInterrupt):
            sweep(make, **{"grid": GRID, **settings, **change}, folder=tmp_path)
    for name, change in others.items():
        with refused("holds another sweep", f"{name} was"):
            sweep(make, **{"grid": GRID, **settings, **change}, folder=tmp_path)
        with pytest.raises(KeyboardInterrupt):
            sweep(make, **{"grid": GRID, **settings, **change}, folder=tmp_path / name)
    assert len(set(asked)) == len(asked) == len(changes) + len(others)


def test_a_folder_knows_which_loops_it_holds(make, walker, tmp_path, refused):
    settings = {"grid": {"lam": [0.5, 1.0]}, "seeds": 3, "generations": 2, "folder": tmp_path}
    once = sweep(make, **settings)
    for part, other in {
        "regime.name": lambda lam: make_loop(walker(batched=True), regimes.fresh(1.0, lam)),
        "model.n": lambda lam: make_loop(walker(5, batched=True), regimes.augment(lam)),
        "corrector.name": lambda lam: make_loop(walker(batched=True), regimes.augment(lam), lambda key, batch, params: batch),
        # the same at the first cell
        "cells_are.lam=1.regime": lambda lam: make_loop(walker(batched=True), regimes.augment(lam + (lam - 0.5))),
    }.items():
        with refused("holds another sweep", f"{part} was"):
            sweep(other, **settings)
    identical(sweep(make, **settings), once)
    (tmp_path / "settings.json").unlink()  # without it the blocks still are nobody else's
    larger = sweep(lambda lam: make_loop(walker(5, batched=True), regimes.augment(lam)), **settings)
    assert not np.array_equal(larger.fitted, once.fitted)


def test_blocks_that_change_places_are_noticed(make, tmp_path):
    settings = {"grid": GRID, "seeds": SEEDS, "generations": T, "block": (2, 4), "folder": tmp_path}
    once = sweep(make, **settings)
    a, b = sorted(tmp_path.glob("*.npz"))[2:4]
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)
    with pytest.warns(UserWarning, match=r"damaged .*another's.* computed again"):
        identical(sweep(make, **settings), once)


def test_capacity_is_asked_of_every_cell_and_generation(refused):
    from mcloop import exact

    def build(lam, n):
        return make_loop(exact.gaussian(1, n, literal=True, capacity=30), regimes.augment(lam))

    with refused("capacity must be at least 40"):
        sweep(build, {"lam": [0.5, 2.0], "n": [10, 20]}, 2, 3)

    def early(lam):
        return make_loop(exact.gaussian(1, 10, literal=True), regimes.replace(lambda n, t: n * (3 if t == 2 else 1)))

    with refused("capacity must be at least 30"):
        sweep(early, {"lam": [1.0]}, 2, 3)


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999, 1.0, True, None])
def test_two_seeds_are_never_one(make, refused, seed):
    from mcloop.certificates.boundary import boundary
    from mcloop.cli import main
    from mcloop.validation.validate import validate

    for call in (
        lambda: sweep(make, {"lam": 1}, 1, 1, seed=seed),
        lambda: train(make, {"lam": [1]}, 1, 1, folder="nowhere", seed=seed),
        lambda: boundary(make, seed=seed),
        lambda: validate("quick", seed, ["G1"]),
    ):
        with refused("seed must be a whole number from 0 to 4294967295"):
            call()
    if isinstance(seed, int) and not isinstance(seed, bool):
        for command in (["run", "quickstart"], ["certify", "quickstart"], ["validate", "--only", "G1"]):
            with pytest.raises(SystemExit, match="2"):
                main([*command, "--seed", str(seed)])


SCRIPT = """
import sys, numpy as np, jax
assert len(jax.devices()) == 8
sys.path.insert(0, sys.argv[1])
from conftest import walker
from mcloop import regimes
from mcloop.loop import make_loop
from mcloop.drivers.sweep import sweep
make = lambda lam, n: make_loop(walker(n, batched=True), regimes.augment(lam))
found = {}
for name, settings in (("whole", {}), ("reduced", {"reduce": ("mean", "sem", "median", "q90")})):
    ds = sweep(make, {"lam": [0.5, 2.0], "n": [4, 9]}, 13, 3, **settings)
    found |= {f"{name} {variable}": ds[variable].values for variable in ds}
np.savez(sys.argv[2], **found)
"""


def test_eight_devices_give_what_one_gives(make, tmp_path):
    out, here = tmp_path / "eight.npz", Path(__file__).parent
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    path = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", SCRIPT, str(here), str(out)], env=env, check=True, timeout=300)
    found = dict(np.load(out))
    grid = {"lam": [0.5, 2.0], "n": [4, 9]}
    for name, settings in (("whole", {}), ("reduced", {"reduce": ("mean", "sem", "median", "q90")})):
        ds = sweep(make, grid, 13, 3, **settings)
        for variable in ds:
            np.testing.assert_allclose(found[f"{name} {variable}"], ds[variable], rtol=1e-6, atol=1e-6, err_msg=variable)


@pytest.mark.parametrize(
    ("grid", "settings", "said"),
    [
        ({"lamb": [0.5]}, {}, ("axis 'lamb'", "its axes are lam, n")),
        ({"n": [4]}, {}, ("grid must have an axis 'lam'", "it has n")),
        ({"lam": [0.5, 0.5]}, {}, ("axis 'lam'", "different values")),
        ({"lam": [1, 1.0]}, {}, ("axis 'lam'", "different values")),
        ({"lam": []}, {}, ("axis 'lam'", "at least one value")),
        ({"lam": [0.5, float("nan")]}, {}, ("lam must be", "nan")),
        ({"lam": [0.5, -1]}, {}, ("lam must be", "-1")),
        ({"lam": ["half"]}, {}, ("lam must be", "'half'")),
        ({"lam": "half"}, {}, ("lam must be", "'half'")),
        ({"lam": [0.5, "half"]}, {}, ("lam must be", "'half'")),
        ({"lam": [None]}, {}, ("lam must be", "None")),
        ({"lam": [0.5]}, {"seeds": 0}, ("seeds must be", "0")),
        ({"lam": [0.5]}, {"seeds": 2.0}, ("seeds must be", "2.0")),
        ({"lam": [0.5]}, {"seed": "a"}, ("seed must be", "'a'")),
        ({"lam": [0.5]}, {"generations": 0}, ("generations must be", "0")),
        ({"lam": [0.5]}, {"seeds": 10**8, "generations": 10**4}, ("seeds must be fewer", "GiB")),
        ({"lam": [0.5]}, {"reduce": "median", "block": (1, 3)}, ("block must hold all 5 seeds", "not 3")),
        ({"lam": [0.5]}, {"block": (0, 3)}, ("block must be", "(0, 3)")),
        ({"lam": [0.5]}, {"reduce": ("mean", "mode")}, ("reduce must name", "'mode'")),
        ({"lam": [0.5]}, {"reduce": ()}, ("reduce must name", "none")),
        ({"lam": [0.5]}, {"variables": ("w3",)}, ("variables must", "w3")),
        ({"lam": [0.5]}, {"variables": ("fitted", "w3")}, ("variables must", "'w3'")),
        ({"lam": [0.5]}, {"variables": ()}, ("variables must",)),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(make, grid, settings, said, refused):
    with refused(*said):
        sweep(make, grid, **{"seeds": 5, "generations": 2, **settings})


def test_the_module_does_not_take_the_functions_name():
    import mcloop

    for _ in range(2):
        assert mcloop.sweep is sweep
    assert sys.modules["mcloop.drivers.sweep"].sweep is sweep


def test_make_must_make_loops(refused, walker):
    with refused("make must return a mcloop Loop", "Model"):
        sweep(lambda: walker(), seeds=2, generations=2)
