"""What every test shares: strict settings, a quick property-testing profile, where real data is, and what a refusal is."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # parallel test processes may share an accelerator

# what one worker or child process has compiled, no other compiles again; the folder belongs to one run of the suite
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir(), f"mcloop-tests-{os.getpid()}")))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import helpers
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from slow_tests import SLOW

from mcloop.random import variates
from mcloop.types import Model, additive

# rank promotion stays allowed: the library broadcasts over trailing cells on purpose
jax.config.update("jax_legacy_prng_key", "error")
settings.register_profile("mcloop", deadline=None, max_examples=10, derandomize=True)
settings.load_profile("mcloop")


def pytest_collection_modifyitems(items):
    """What is slow stands in one list, by its measured seconds, so that nobody has to guess."""
    for item in items:
        if not {item.function.__name__, *item.fixturenames}.isdisjoint(SLOW.get(item.path.name, ())):
            item.add_marker(pytest.mark.slow)


def pytest_unconfigure(config):
    """The process that named the cache after itself clears it away; workers and child processes only use it."""
    folder = Path(tempfile.gettempdir(), f"mcloop-tests-{os.getpid()}")
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") == str(folder):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets; tests that need it are skipped where it is not."""
    named = os.environ.get("MCLOOP_DATA")
    if not named:
        pytest.skip("set MCLOOP_DATA to the folder of real data sets to run this")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"MCLOOP_DATA names {named!r}, which is not a folder")
    return folder


class Mean(NamedTuple):
    """What is remembered of a sample."""

    size: Any
    real: Any
    mean: Any


def walker(n=4, batched=False) -> Model:
    """A law of known variance 1, its mean refitted: the smallest model there is, and quick to compile."""

    def merge(a, b):
        size = a.size + b.size
        return Mean(size, a.real + b.real, (a.size * a.mean + b.size * b.mean) / size)

    def sample(key, params, count):
        count = jnp.asarray(count, jnp.float32)
        # the key is a hash already; as a uniform it spares a second one
        noise = variates.open_unit(jax.random.key_data(key)[..., 0]) - 0.5
        return Mean(count, 0 * count, params + noise * jnp.sqrt(12 / count))

    def observe(key, real):
        truth = jnp.zeros(()) if real is None else jnp.asarray(np.mean(real), jnp.float32)
        drawn = sample(key, truth, n)
        return drawn._replace(real=drawn.size), truth

    return Model(
        name="walker",
        n=n,
        memory=additive(merge, lambda a, w: Mean(a.size * w, a.real * w, a.mean), lambda a: a.size, lambda a: a.real),
        observe=observe,
        sample=sample,
        fit=lambda key, params, data: (data.mean, {}),
        measure=lambda params, truth: {"fitted": params, "mean_sq_error": (params - truth) ** 2},
        batched=batched,
        estimator="sample mean",
    )


@pytest.fixture(scope="session", name="walker")
def _walker():
    """walker(n, batched) -> the smallest Model there is."""
    return walker


@pytest.fixture(scope="session")
def refused():
    """`with refused("lam", "-1"):` holds if what is inside is refused in one sentence that says so."""
    return helpers.refused
