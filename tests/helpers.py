"""What the tests of several files do: see that something is refused, flip a bit, make a small Dataset."""

from contextlib import contextmanager

import numpy as np
import pytest

from mcloop.errors import InputError


@contextmanager
def refused(*said):
    """`with refused("lam", "-1"):` holds if what is inside is refused in one sentence that says so."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.endswith(".") and len(message) < 300
    for part in said:
        assert part in message


def dataset(k):
    """A small result whose every number is `k`."""
    xr = pytest.importorskip("xarray")
    return xr.Dataset({"x": (("n", "seed"), np.full((4, 3), float(k)))}, {"n": [1, 2, 3, 4]}, {"unit": "points"})


def flip(path, bit):
    """Turns one bit of a file over; any number names one."""
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)
