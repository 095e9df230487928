"""The border between Flax and plain JAX: a module becomes a pair of pure functions, split once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mcloop.errors import InputError


class Variables(NamedTuple):
    """What a network holds.

    Attributes:
        params: what is trained: nested dicts of float32 arrays.
        stats: what is not (the running statistics of BatchNorm): nested dicts of arrays, {} where there is none.
    """

    params: Any
    stats: Any


def _one_function(variables):
    raise InputError("bind must be called on a network made of a Flax module, not on one that is a single function.")


class Network(NamedTuple):
    """A network as pure functions, for any transformation of JAX: jit, grad, scan, vmap over `Variables`.

    Attributes:
        init: (key) -> Variables.
        apply: (variables, *inputs, train=False, key=None, **options) -> (output, stats). `stats` are those after a
            forward pass in training mode, and come back unchanged where `train` is false. `key` feeds what is random
            in training (dropout). `options` are the network's own keywords.
        bind: (variables) -> the Flax module, for networks that can do more than one thing and have nothing random.
    """

    init: Callable[[jax.Array], Variables]
    apply: Callable[..., tuple[Any, Any]]
    bind: Callable[[Variables], Any] = _one_function


def network(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """A `Network` of the module that `build` makes, whose call is `module(*inputs, train, **options)`.

    Nothing is allocated here: the graph is found from shapes. The module's own random streams (dropout) are no part of
    the variables; they start from `key` at every call, so that equal calls give equal answers.
    """
    graph, *parts = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), *_FILTERS)
    params_of, streams_of, stats_of = (dict(nnx.to_flat_state(part)) for part in parts)

    def init(key):
        _, params, _, stats = nnx.split(build(nnx.Rngs(key)), *_FILTERS)
        return Variables(_nested(nnx.to_flat_state(params)), _nested(nnx.to_flat_state(stats)))

    def _merged(variables, streams):
        filled = _filled(params_of, variables.params), nnx.from_flat_state(streams), _filled(stats_of, variables.stats)
        return nnx.merge(graph, *filled)

    def apply(variables, *inputs, train=False, key=None, **options):
        if key is None:
            if train and streams_of:
                raise InputError("key is None, but this network has dropout: training needs a key.")
            key = jax.random.key(0)  # never used: nothing is random outside training
        streams = {path: _begin(key, number, stream) for number, (path, stream) in enumerate(streams_of.items())}
        module = _merged(variables, streams)
        output = module(*inputs, train=train, **options)
        if not train:
            return output, variables.stats
        return output, _nested(nnx.to_flat_state(nnx.state(module, _FILTERS[0], _FILTERS[1], ...)[2]))

    return Network(init, apply, lambda variables: _merged(variables, streams_of))


_FILTERS = (nnx.Param, nnx.RngState, ...)


def _begin(key, number, stream):
    """One leaf of a module's random streams at the start of a call: a key of its own, or a count of zero."""
    fresh = jax.random.fold_in(key, number) if isinstance(stream, nnx.RngKey) else jnp.zeros((), jnp.uint32)
    return stream.replace(fresh)


def _nested(flat) -> dict:
    """Plain nested dicts, with words for keys, of a flat NNX state."""
    tree: dict = {}
    for path, variable in flat:
        *parents, name = map(str, path)
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = variable[...]
    return tree


def _filled(shapes, tree):
    """The NNX state of `shapes` with the arrays of `tree`."""

    def find(path):
        branch = tree
        for name in path:
            branch = branch[str(name)]
        return branch

    return nnx.from_flat_state({path: variable.replace(find(path)) for path, variable in shapes.items()})
