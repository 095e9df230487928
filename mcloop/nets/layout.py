"""Where a network's arrays lie on a mesh of devices: large matrices cut into shards, the batch over all devices."""

from __future__ import annotations

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mcloop.errors import InputError

_SMALL = 2**12  # arrays of fewer numbers are kept whole on every device: cutting them saves nothing and costs a message


def mesh(data: int, fsdp: int, devices=None) -> Mesh:
    """A mesh with axes "data" (copies of the parameters) and "fsdp" (shards of them), which XLA's partitioner fills in.

    Args:
        data, fsdp: devices along each axis, >= 1.
        devices: which ones; None takes the first data * fsdp of all.

    Raises:
        InputError: fewer devices than the axes ask for, an axis < 1.
    """
    for field, value in (("data", data), ("fsdp", fsdp)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{field} must be a whole number of devices >= 1, not {value!r}.")
    devices = jax.devices() if devices is None else list(devices)
    if data * fsdp > len(devices):
        raise InputError(f"data * fsdp is {data} * {fsdp}, which must be at most the number of devices, {len(devices)}.")
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices[: data * fsdp])


def variables_sharding(variables, mesh: Mesh):
    """A sharding for every array of `Variables` (or of an optimiser's state, or of shapes), in a tree of the same form.

    A matrix is cut along the largest of its last two axes that "fsdp" divides (fully sharded data parallelism, Rajbhandari et
    al. 1910.02054). A stacked axis of layers is never cut, since a scan reads one layer after the other; vectors, also
    stacked ones, and small or indivisible matrices lie whole on every device.
    """

    def place(path, leaf):
        stacked = any(getattr(key, "key", None) == "blocks" for key in path)
        return NamedSharding(mesh, _spec(leaf.shape, int(stacked), mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(place, variables)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis of a batch over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def _spec(shape: tuple[int, ...], stacked: int, fsdp: int) -> P:
    """Which axis of an array is cut; the first `stacked` axes count layers."""
    if len(shape) - stacked < 2 or math.prod(shape[stacked:]) < _SMALL:
        return P()
    axes = [axis for axis in range(stacked, len(shape)) if shape[axis] % fsdp == 0]
    if not axes:
        return P()
    largest = max(axes, key=lambda axis: shape[axis])
    return P(*(None,) * largest, "fsdp")
