"""What a user names as data, and an environment in which nothing can be computed: taken as it is, or the cause is named."""

import os
import subprocess
import sys
import threading

import pytest

from mcloop.data.given import given
from mcloop.data.tables import load_table
from mcloop.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_files_folders_and_names_are_taken_as_they_are(tmp_path, cache, monkeypatch):
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert given("a.csv") == given("~/a.csv") == str((tmp_path / "a.csv").resolve())
    assert given(tmp_path) == str(tmp_path.resolve())
    for name in ("tinystories", "tfds:a/b", "hf:a/b", "none.csv"):
        assert given(name) == name
    assert not cache.exists()


def test_a_pipe_is_read_once_and_kept_by_what_is_in_it(tmp_path, cache, capfd, refused):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def through(text):
        writer = threading.Thread(target=lambda: path.write_text(text))
        writer.start()
        try:
            return given(str(path))
        finally:
            writer.join()

    first = through("x,y\n1,2\n3,5\n")
    assert load_table(first).target == "y" and os.path.dirname(first) == str(cache.resolve())
    assert first == through("x,y\n1,2\n3,5\n") != through("x,y\n1,2\n3,6\n")
    assert first in capfd.readouterr().err
    with refused("pipe", "empty"):
        through("")


def test_standard_input(cache):
    code = "from mcloop.data.given import given; from mcloop.data.tables import load_table\nprint(load_table(given('-')).names)"
    done = subprocess.run([sys.executable, "-c", code], input="x;y\n1,5;2\n3;4\n", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('x', 'y')" and "standard input was read" in done.stderr


@pytest.mark.parametrize("address", ["https://example.org/a.csv", "https:/example.org/a.csv", "s3://bucket/a.csv"])
def test_an_address_is_refused(address, refused):
    with refused("data", "not an address", "download it first"):
        given(address)


def test_what_is_no_file_is_refused(cache, refused, monkeypatch):
    with refused("home folder"):
        given("~nobody-of-this-name/a.csv")
    monkeypatch.setenv("MCLOOP_CACHE", os.devnull)
    with pytest.raises(InputError, match="is empty"):
        given(os.devnull)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("JAX_PLATFORMS", "nonesuch", "JAX_PLATFORMS asks for 'nonesuch'"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg", "JAX_DEFAULT_PRNG_IMPL must be threefry2x32 (the default), not rbg"),
    ],
)
def test_an_environment_that_cannot_compute_is_named(name, value, said):
    code = "from mcloop.experiment import config as c\ntry: c.load(c.find('quickstart'))\nexcept c.InputError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: value}, capture_output=True, text=True, check=True
    )
    assert said in done.stdout and "config" not in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_worker_that_was_forked_too_late_says_so_and_does_not_hang():
    code = """
import multiprocessing, warnings
import jax
import mcloop
warnings.simplefilter("ignore")

def work(i):
    try:
        loop = mcloop.make_loop(mcloop.exact.gaussian(d=1, n=5), mcloop.regimes.replace())
    except mcloop.InputError as error:
        return str(error)

jax.numpy.zeros(1)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(work, [0])[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "multiprocessing.get_context('spawn')" in done.stdout
