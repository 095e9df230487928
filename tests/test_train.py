"""The driver of neural loops: resumed to the bit whatever happens to its folder, with every regime of the exact families."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import learners
import numpy as np
import pytest
import xarray as xr

from mcloop import correctors, make_loop, regimes, scan, train
from mcloop.drivers.plans import unit_name
from mcloop.drivers.train import last_states
from mcloop.errors import InputError
from mcloop.models.compiled import compiled_model
from mcloop.models.training import Budget, linear, training
from mcloop.storage import checkpoints
from mcloop.storage.checkpoints import Checkpoints, Keep
from mcloop.storage.files import system_error
from mcloop.storage.run_folder import locked

GENERATIONS = 4
MAKE = learners.hosted_maker()
ARMS = {"arm": ["accumulate", "augment"]}


def run(folder, make=MAKE, grid=ARMS, seeds=1, generations=GENERATIONS, **options):
    return train(make, grid, seeds, generations, folder=folder, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, run(folder)


def same_files(a, b):
    """Every checkpointed array, every shard and everything seen, bit for bit."""
    for unit in sorted(p.name for p in a.iterdir() if p.is_dir()):
        ours, theirs = Checkpoints(a / unit), Checkpoints(b / unit)
        assert ours.generations() == theirs.generations()
        for t in ours.generations():
            assert ours.notes(t) == theirs.notes(t)  # shards by their SHA-256
            shapes = jax.tree.map(lambda x: x, _shapes(a / unit, t))
            for x, y in zip(ours.load(t, shapes).values(), theirs.load(t, shapes).values(), strict=True):
                np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
        for place in ("seen", "shards"):
            names = [p.name for p in sorted((a / unit / place).glob("*"))]
            assert names == [p.name for p in sorted((b / unit / place).glob("*"))]
            assert all((a / unit / place / n).read_bytes() == (b / unit / place / n).read_bytes() for n in names)
        assert (a / unit / "metrics.jsonl").read_text() == (b / unit / "metrics.jsonl").read_text()


def _shapes(unit, t):
    params = MAKE().model.hosted.blank()
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}


def test_every_regime_of_part_one_drives_shards(tmp_path):
    ds = run(tmp_path, grid={"arm": list(learners.REGIMES)}, generations=3)
    n, inf = 40, np.inf
    expected = {
        "replace": [0, inf, inf],
        "accumulate": [0, 1, 2],
        "augment": [0, 0.5, 0.5],
        "window": [0, 1, inf],
        "baseline": [0, 0, 0],
        "fresh": [0, 2 / 3, 2 / 3],
        "replace_multiple": [0, inf, inf],
    }
    for arm, ratios in expected.items():
        np.testing.assert_allclose(ds.effective_lam.sel(arm=arm, seed=0), ratios, rtol=1e-6)
    # a subsample of n from half real, half synthetic points: hypergeometric
    drawn = ds.effective_lam.sel(arm="accumulate_subsample", seed=0).values[1]
    real = n / (1 + drawn)
    assert abs(real - n / 2) < 5 * np.sqrt(n / 4 * n / (2 * n - 1))
    assert np.isfinite(ds.spread).all()
    # loops of one model share their first fit; what they remember then tells them apart
    first, last = ds.spread.isel(generation=0, seed=0).values, ds.spread.isel(generation=-1, seed=0).values
    assert len(set(first.tolist())) == 1 and len(set(last.tolist())) > 5


def test_old_generations_are_mapped_from_disk_and_not_held(tmp_path, monkeypatch):
    from mcloop.drivers import plans

    pools = []
    write_shards = plans.write_shards
    monkeypatch.setattr(plans, "write_shards", lambda state, folder: pools.append(write_shards(state, folder)) or pools[-1])
    run(tmp_path, grid={"arm": ["accumulate"]})
    parts = pools[-1].pool.parts
    assert [len(p) for p in parts] == [40] * GENERATIONS
    assert all(isinstance(p.values["x"], np.memmap) for p in parts[1:])


def test_a_finished_run_is_read_and_not_computed(reference, monkeypatch):
    folder, ds = reference
    monkeypatch.setattr("mcloop.models.hosted.step", lambda *a: pytest.fail("a step was computed again"))
    assert run(folder).identical(ds)


def test_the_same_seed_gives_the_same_numbers_in_another_folder(reference, tmp_path):
    folder, ds = reference
    assert run(tmp_path / "again").identical(ds)
    same_files(folder, tmp_path / "again")
    other = run(tmp_path / "other", seed=1)
    assert not np.array_equal(other.spread, ds.spread)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


UNIT = unit_name({"arm": "accumulate", "seed": 0})
DAMAGES = {
    "an array file cut": (truncate, lambda unit: largest(unit / "generation-0004" / "state")),
    "an array file with one bit flipped": (flip, lambda unit: largest(unit / "generation-0004" / "state")),
    "a part of the state deleted": (remove, lambda unit: largest(unit / "generation-0004" / "state")),
    "the seal deleted": (remove, lambda unit: unit / "generation-0004" / "seal.json"),
    "the seal with one bit flipped": (flip, lambda unit: unit / "generation-0004" / "seal.json"),
    "two generations cut": (
        lambda unit: [truncate(largest(unit / f"generation-000{t}" / "state")) for t in (3, 4)],
        lambda u: u,
    ),
    "every generation cut": (
        lambda u: [truncate(largest(u / f"generation-000{t}" / "state")) for t in range(1, 5)],
        lambda u: u,
    ),
    "what was seen flipped": (flip, lambda unit: unit / "seen" / "generation-0003.npz"),
    "what was seen deleted": (remove, lambda unit: unit / "seen" / "generation-0002.npz"),
    "a shard flipped": (flip, lambda unit: unit / "shards" / "generation-0003-0-2.x.npy"),
    "a shard cut": (truncate, lambda unit: unit / "shards" / "generation-0002-0-1.x.npy"),
}


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_walked_back_over_and_said(reference, tmp_path, name):
    folder, ds = reference
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    damage, where = DAMAGES[name]
    damage(where(copy / UNIT))
    with pytest.warns(UserWarning, match=r"damaged|goes on from|begins again") as caught:
        again = run(copy)
    assert any("the loop goes on from generation" in str(w.message) or "begins again" in str(w.message) for w in caught)
    assert again.identical(ds)
    for unit in copy.iterdir():
        for old in unit.glob("old-*") if unit.is_dir() else ():
            shutil.rmtree(old)  # what was damaged is kept for a look
    same_files(folder, copy)


def test_a_whole_generation_deleted_is_computed_again(reference, tmp_path):
    folder, ds = reference
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / UNIT / "generation-0004")
    (copy / UNIT / "8").mkdir()  # a stray folder is nobody's checkpoint
    assert run(copy).identical(ds)


def test_other_settings_in_the_same_folder_are_refused(reference, tmp_path):
    folder, _ = reference
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with pytest.raises(InputError, match=r"holds another loop: seed was 0 there and is 1 now"):
        run(copy, seed=1)


def test_other_data_in_the_same_folder_are_refused(reference, tmp_path):
    folder, _ = reference
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with pytest.raises(InputError, match=r"holds another loop: model.n was"):
        run(copy, learners.hosted_maker(n=41))


def test_a_folder_knows_which_loop_it_holds(reference, tmp_path):
    folder, ds = reference
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    arms = {"accumulate": "accumulate", "augment": "augment"}
    halved = learners.hosted_model(later_rate=0.025)
    louder = MAKE().model._replace(measure=lambda params, truth: {"louder": jnp.float32(2)})
    for part, make in {
        "regime.name": lambda arm: MAKE("replace"),
        "training.later_rate.rate": lambda arm: make_loop(halved, learners.REGIMES[arm]),
        "corrector.name": lambda arm: make_loop(MAKE().model, learners.REGIMES[arm], lambda key, batch, params: batch),
        "model.measure": lambda arm: make_loop(louder, learners.REGIMES[arms[arm]]),
    }.items():
        with pytest.raises(InputError, match=f"holds another loop: {part}.* was .* there and is .* now; choose another folder"):
            run(copy, make)
    assert run(copy).identical(ds)


def test_what_lies_under_another_name_is_damage(reference, tmp_path):
    folder, ds = reference
    other = unit_name({"arm": "augment", "seed": 0})
    for n, (a, b) in enumerate(
        [
            (f"{UNIT}/seen/generation-0001.npz", f"{UNIT}/seen/generation-0002.npz"),
            (f"{UNIT}/generation-0002", f"{UNIT}/generation-0004"),
            (f"{UNIT}/generation-0004", f"{other}/generation-0004"),
            (f"{UNIT}/seen", f"{other}/seen"),
            (UNIT, other),
        ]
    ):
        copy = tmp_path / str(n)
        shutil.copytree(folder, copy)
        (copy / a).rename(copy / "aside")
        (copy / b).rename(copy / a)
        (copy / "aside").rename(copy / b)
        with pytest.warns(UserWarning, match=r"damaged|goes on from|begins again") as caught:
            assert run(copy).identical(ds)
        assert any("it is generation" in str(w.message) or "another's" in str(w.message) for w in caught)


def test_cells_of_like_names_have_folders_of_their_own(tmp_path):
    names = ["é", "ü", "real only", "real_only", "1", "REAL_ONLY", "x" * 200 + "1", "x" * 200 + "2"]
    cells = [{"arm": name, **{f"axis_{i}": 0.123456789 for i in range(12)}} for name in names]
    cells += [{"arm": 1}, {"lam": 0.123456789}, {"lam": 0.1234567891}]
    found = [unit_name({**cell, "seed": i}) for cell in cells for i in range(2)]
    assert len({name.lower() for name in found}) == len(found) and max(map(len, found)) < 120
    ds = run(tmp_path, lambda arm: MAKE("baseline"), {"arm": ["é", "ü"]}, seeds=2, generations=1)
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 4 and list(ds.arm.values) == ["é", "ü"]


def test_no_room_that_orbax_hides(tmp_path, capfd):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match=r"is full: generation 1 .* was not saved; all generations before it are kept"):
            Checkpoints(tmp_path).save(1, {"x": jnp.asarray(np.random.default_rng(0).normal(size=(100, 300)))}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == [] and "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("OUT_OF_RANGE: Failed to write 9 bytes: File too large [os_error_code='27']"), errno.EFBIG),
        (RuntimeError(f"[Errno {errno.EDQUOT}] {os.strerror(errno.EDQUOT)}"), errno.EDQUOT),
        (ExceptionGroup("two", [KeyError("x"), OSError(errno.ENOSPC, "No space left on device")]), errno.ENOSPC),
        (RuntimeError("no room in the plan"), None),
        (ValueError("shape 27"), None),
    ],
)
def test_what_the_system_said_is_found_where_it_hides(error, code):
    found = system_error(error)
    assert code == (None if found is None else found.errno)
    outer = RuntimeError("outer")
    outer.__cause__ = error
    assert code == (None if (found := system_error(outer)) is None else found.errno)


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="in use by another process"):
        run(tmp_path)


def test_a_full_disk_loses_nothing(reference, tmp_path, monkeypatch):
    folder, ds = reference
    calls = []
    call = checkpoints._call

    def full(ocp, name):
        calls.append(name)
        if calls.count("save") == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(ocp, name)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_call", full)
        with pytest.raises(InputError, match=r"is full: generation 3 .* was not saved; all generations before it are kept"):
            run(tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / UNIT).generations() == [1, 2]
    assert not list((tmp_path / "run" / UNIT).glob(".*.tmp"))
    assert run(tmp_path / "run").identical(ds)
    same_files(folder, tmp_path / "run")


def test_a_loop_that_diverges_stops_alone(tmp_path):
    broken = learners.hosted_model(later_rate=lambda share: float("nan"))

    def make(arm):
        return make_loop(broken, learners.REGIMES["augment"]) if arm == "broken" else MAKE(arm)

    grid = {"arm": ["broken", "augment"]}
    ds = run(tmp_path, make, grid)
    assert np.isfinite(ds.spread.sel(arm="augment")).all()
    assert np.isfinite(ds.spread.sel(arm="broken")).values.tolist() == [[True, False, False, False]]
    assert "generation 2 could not be fitted: the loss is nan" in ds.attrs["remarks"][0]
    assert run(tmp_path, make, grid).identical(ds)


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Keep(), [1, 2, 3, 4]),
        (Keep(last=1), [1, 4]),
        (Keep(last=2), [1, 3, 4]),
        (Keep(every=2), [1, 2, 4]),
        (Keep(1, 3), [1, 3, 4]),
    ],
)
def test_retention(reference, tmp_path, keep, left):
    ds = run(tmp_path, keep=keep)
    assert Checkpoints(tmp_path / UNIT).generations() == left
    assert ds.identical(reference[1])
    assert run(tmp_path, keep=keep).identical(ds)


class TestCompiled:
    """Grids of loops in one program."""

    MODEL = compiled_model(
        learners.gaussian_learner(),
        training(40, 20, rate=linear(0.05), batch=16, ema=0.9, clip=10.0),
        learners.Normal,
        40,
        capacity=80,
        evaluate=lambda points, variables: {"spread": points.var(0).sum(), "density": jnp.histogram2d(*points.T, 3)[0]},
        samples=50,
    )

    @classmethod
    def make(cls, lam):
        return make_loop(cls.MODEL, regimes.augment(lam))

    GRID = {"lam": [0.0, 1.0, np.inf]}  # noqa: RUF012

    @pytest.fixture(scope="class")
    def reference(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("grid") / "run"
        return folder, run(folder, self.make, self.GRID, seeds=2)

    def test_every_cell_is_the_loop_alone(self, reference):
        ds = reference[1]
        for lam in self.GRID["lam"][1:]:
            key = jax.random.fold_in(jax.random.key(0), 1)
            alone = scan(self.make(lam), key, None, GENERATIONS)[1]
            for name in ("spread", "loss", "param_distance", "field_distance", "effective_lam"):
                np.testing.assert_allclose(ds[name].sel(lam=lam, seed=1), alone[name], rtol=2e-3, atol=1e-4)
        assert ds.density.attrs["picture"] == "density" and (ds.density.sum(("y", "x")) == 50).all()

    def test_real_points_of_the_user(self, tmp_path):
        """They are what a scan starts from, part of what the folder holds, and refused in one sentence where they are none."""
        real = np.random.default_rng(3).normal(5, 1, (40, 2))
        grid = {"lam": [1.0]}
        ds = run(tmp_path, self.make, grid, generations=3, real=real)
        alone = scan(self.make(1.0), jax.random.fold_in(jax.random.key(0), 0), real, 3)[1]
        for name in ("spread", "loss", "param_distance", "effective_lam"):
            np.testing.assert_allclose(ds[name].sel(lam=1, seed=0), alone[name], rtol=2e-3, atol=1e-4)
        for t in (2, 3):
            shutil.rmtree(tmp_path / "grid" / f"generation-000{t}")
        assert run(tmp_path, self.make, grid, generations=3, real=real).identical(ds)
        for other in (real + 1, None):
            with helpers.refused("holds another loop", "real was"):
                run(tmp_path, self.make, grid, generations=3, real=other)
        (_, _, _, state), *_ = last_states(self.make, grid, 1, 3, folder=tmp_path, real=real)
        assert int(state.t) == 3
        for wrong, said in ((real[:30], "shape (40, 2)"), (np.full((40, 2), np.nan), "finite"), ("text", "real numbers")):
            with helpers.refused("real must be", said):
                run(tmp_path / "wrong", self.make, grid, generations=3, real=wrong)
        with helpers.refused("real must be None for a hosted model"):
            run(tmp_path / "wrong", real=real)

    def test_resumed_is_uninterrupted(self, reference, tmp_path):
        folder, ds = reference
        copy = tmp_path / "run"
        shutil.copytree(folder, copy)
        for t in (3, 4):
            shutil.rmtree(copy / "grid" / f"generation-000{t}")
        (copy / "grid" / "seen" / "generation-0004.npz").unlink()
        assert run(copy, self.make, self.GRID, seeds=2).identical(ds)
        assert Checkpoints(copy / "grid").notes(4) == Checkpoints(folder / "grid").notes(4)

    def test_seeds_are_spread_over_devices(self, reference, tmp_path):
        folder, ds = reference
        script = tmp_path / "two.py"
        script.write_text(
            "import sys, jax\n"
            "from test_train import TestCompiled as T, run\n"
            "assert len(jax.devices()) == 2\n"
            "run(sys.argv[1], T.make, T.GRID, seeds=2).to_netcdf(sys.argv[2])\n"
        )
        copy = tmp_path / "run"
        shutil.copytree(folder, copy)
        for t in (3, 4):  # goes on, on two devices, from what one device saved
            shutil.rmtree(copy / "grid" / f"generation-000{t}")
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, str(script), str(copy), str(tmp_path / "two.nc")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        two = xr.load_dataset(tmp_path / "two.nc")
        for name in ("spread", "param_distance", "effective_lam"):
            np.testing.assert_allclose(two[name], ds[name], rtol=2e-3, atol=1e-4)

    def test_a_program_without_numbers(self, tmp_path):
        ds = run(tmp_path, lambda arm: make_loop(self.MODEL, learners.REGIMES[arm]), {"arm": ["accumulate"]}, seeds=2)
        assert ds.spread.shape == (1, 2, GENERATIONS) and np.isfinite(ds.spread).all()
        np.testing.assert_allclose(ds.effective_lam.sel(arm="accumulate", seed=0), [0, 1, 2, 3], rtol=1e-6)


def test_a_warm_start_goes_on_and_a_cold_one_does_not(tmp_path):
    slow = {"first": 200, "later": 1, "rate": 0.05, "batch": 16}
    found = {}
    for warm in (True, False):
        model = compiled_model(learners.gaussian_learner(), training(**slow, warm=warm), learners.Normal, 200, capacity=200)
        state, _ = scan(make_loop(model, regimes.baseline()), jax.random.key(3), None, 2)
        found[warm] = float(jnp.abs(state.params.variables.params["log_scale"]).max()), state.params.variables.stats["seen"]
    assert found[True][1] == 201 and found[False][1] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first": 0, "later": 1}, "first must be a number of steps >= 1"),
        ({"first": 1, "later": Budget(epochs=0)}, "later must be a number of steps >= 1 or of epochs > 0"),
        ({"first": 1, "later": 1, "rate": -1.0}, "rate must be a finite number > 0, not -1.0"),
        ({"first": 1, "later": 1, "batch": 0}, "batch must be a whole number >= 1, not 0"),
        ({"first": 1, "later": 1, "ema": 1.0}, r"ema must be a decay in \(0, 1\), not 1.0"),
        ({"first": 1, "later": 1, "clip": 0.0}, "clip must be a norm > 0, not 0.0"),
    ],
)
def test_training_refuses_what_makes_no_sense(options, said):
    with pytest.raises(InputError, match=said):
        training(**options)


def test_bad_grids_are_refused_before_anything_runs(tmp_path):
    for options, said in (
        ({"grid": {"regime": ["augment"]}}, "axis 'regime' is not one that this loop takes"),
        ({"seeds": 0}, "seeds must be a whole number >= 1, not 0"),
        ({"generations": 0}, "generations must be a whole number >= 1, not 0"),
    ):
        with pytest.raises(InputError, match=said):
            run(tmp_path, **options)


def test_what_chooses_statistics_is_refused_by_a_loop_of_networks(tmp_path):
    loop = make_loop(MAKE().model, regimes.augment(0.5), correctors.best_of_k(2, lambda x: x))
    with pytest.raises(InputError, match="chooses point by point"):
        run(tmp_path, lambda: loop, {})
