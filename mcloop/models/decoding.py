"""Autoregressive generation: a batch of sequences in one compiled program, with a cache that grows in blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop.errors import InputError
from mcloop.nets.network import Network

_BLOCKS = 4  # sizes of the cache: more of them attend less over places that are still empty, and compile longer


def decoder(
    net: Network,
    length: int,
    end: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    first: np.ndarray | None = None,
    stop: bool = True,
    blocks: int = _BLOCKS,
    checked: bool = False,
) -> Callable[[jax.Array, Any, int], Any]:
    """How sequences are drawn from a transformer: `draw(key, variables, count) -> tokens (count, length) int32`.

    Whatever the logits, a token is one of the vocabulary; `checked` tells where they were no numbers.

    Args:
        net: of `mcloop.nets.transformer`.
        length: tokens a sequence, at most the network's context.
        end: the token that ends a story; after it a sequence is filled with it.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: draw among the so many likeliest tokens only.
        top_p: draw among the likeliest tokens that together have this probability (Holtzman et al. 1904.09751), after `top_k`.
        first: (vocabulary,) weights of the first token, which is then drawn from them ("first token inclusive"); None reads
            an `end` before it and draws the first token like any other.
        stop: whether a story's end ends the sequence; if not, the next story begins (contiguous text).
        blocks: how many times the cache grows on the way.
        checked: return (tokens, sound (count,)), false where a sequence has a token drawn from logits that are not finite.

    Raises:
        InputError: a number outside of what is allowed.
    """
    _check_numbers(temperature, top_k, top_p, length, blocks)
    rooms = sorted({-(-length * (i + 1) // blocks) for i in range(blocks)})
    opening = None if first is None else _cumulative(first)

    def choose(logits, u):
        if temperature == 0:
            return jnp.argmax(logits, -1).astype(jnp.int32)
        # the largest is made 0 before a small temperature can make it infinite
        return _choose((logits - logits.max(-1, keepdims=True)) / temperature, u, top_k, top_p)

    def draw(key, variables, count: int):
        module = net.bind(variables)
        _check_room(module.shape, length, end, opening)
        noise = jax.random.uniform(key, (length, count))
        tokens = jnp.full((count, length), end, jnp.int32)

        def advance(carry):
            at, latest, done, tokens, good, cache = carry
            states, cache = module.decode(latest, cache, at)
            place = at + (opening is not None)  # of the token that is drawn now
            logits = module.logits(states)
            good = good & (done | jnp.isfinite(logits).all(-1))
            drawn = choose(logits, noise[place])
            if stop:
                drawn = jnp.where(done, end, drawn)
                done = done | (drawn == end)
            return at + 1, drawn, done, lax.dynamic_update_slice(tokens, drawn[:, None], (0, place)), good, cache

        def unfinished(until, carry):
            return (carry[0] < until) & ~jnp.all(carry[2])

        latest = jnp.full(count, end, jnp.int32)
        if opening is not None:
            latest = jnp.searchsorted(opening, noise[0], side="right").astype(jnp.int32)
            tokens = tokens.at[:, 0].set(latest)
        done = (latest == end) if stop and opening is not None else jnp.zeros(count, bool)
        carry = jnp.int32(0), latest, done, tokens, jnp.ones(count, bool), module.empty(count, rooms[0])
        last = length - (opening is not None)
        for room in rooms:
            carry = *carry[:-1], carry[-1].grown(room)
            carry = lax.while_loop(partial(unfinished, min(room, last)), advance, carry)
        return carry[3:5] if checked else carry[3]

    return draw


def _check_numbers(temperature, top_k, top_p, length, blocks) -> None:
    if not (np.isfinite(temperature) and temperature >= 0):
        raise InputError(f"temperature must be a finite number >= 0, not {temperature!r}.")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise InputError(f"top_k must be a whole number >= 1 or None, not {top_k!r}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be a probability in (0, 1] or None, not {top_p!r}.")
    if not isinstance(length, int) or length < 2:
        raise InputError(f"length must be a whole number >= 2, not {length!r}.")
    if not isinstance(blocks, int) or blocks < 1:
        raise InputError(f"blocks must be a whole number >= 1, not {blocks!r}.")


def _check_room(shape, length: int, end: int, opening) -> None:
    """Refuses what a network of this shape would read from beside its tables."""
    if length > shape.context:
        raise InputError(f"length must be at most the network's context of {shape.context} tokens, not {length}.")
    if not 0 <= end < shape.vocabulary:
        raise InputError(f"end must be a token of the vocabulary, 0 to {shape.vocabulary - 1}, not {end}.")
    if opening is not None and len(opening) != shape.vocabulary:
        raise InputError(f"first must have a weight for each of the {shape.vocabulary} tokens, not {len(opening)} weights.")


def _cumulative(weights) -> np.ndarray:
    """(vocabulary,) upper ends of the tokens' shares of [0, 1)."""
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InputError("first must be the tokens' weights, numbers >= 0 of which one is positive.")
    edges = np.cumsum(weights) / weights.sum()
    edges[np.flatnonzero(weights)[-1] :] = np.inf  # no uniform may fall behind the last token that has a weight
    return edges.astype(np.float32)


def _choose(logits, u, top_k: int | None, top_p: float | None):
    """One token a row by inverting the distribution function at u: logits (b, vocabulary) of which the largest is 0, u (b,)."""
    if top_k is None and top_p is None:
        return _invert(jnp.exp(logits), u)
    values, tokens = lax.top_k(logits, min(top_k or logits.shape[-1], logits.shape[-1]))
    weights = jnp.exp(values)
    if top_p is not None:
        before = jnp.cumsum(weights, -1) - weights
        weights = jnp.where(before < top_p * weights.sum(-1, keepdims=True), weights, 0.0)
    place = _invert(weights, u)
    return jnp.take_along_axis(tokens, place[:, None], 1)[:, 0].astype(jnp.int32)


def _invert(weights, u):
    """The place at which the cumulative weight of each row passes u of its total; (b, k), (b,) -> (b,) int32, below k always.

    In two steps, of groups and then within the group: a cumulative sum over the whole vocabulary costs more than its softmax.
    """
    b, k = weights.shape
    width = max(1, int(np.sqrt(k)))
    groups = -(-k // width)
    parts = jnp.pad(weights, ((0, 0), (0, groups * width - k))).reshape(b, groups, width)
    sums = parts.sum(-1)
    edges = jnp.cumsum(sums, -1)
    target = u * edges[:, -1]
    group = _passed(sums, edges, target)
    inside = jnp.take_along_axis(parts, group[:, None, None], 1)[:, 0]
    before = jnp.where(group > 0, jnp.take_along_axis(edges, jnp.maximum(group - 1, 0)[:, None], 1)[:, 0], 0.0)
    place = group * width + _passed(inside, jnp.cumsum(inside, -1), target - before)
    return jnp.minimum(place, k - 1).astype(jnp.int32)  # where nothing weighs anything, the last place is one that was added


def _passed(weights, edges, target):
    """The first place with a weight of its own whose edge is beyond the target, or the last such place.

    A sum that is made in parallel may round an edge up where nothing was added, so that edges alone do not tell.
    """
    own = weights > 0
    beyond = own & (edges > target[:, None])
    last = edges.shape[-1] - 1 - jnp.argmax(own[:, ::-1], -1)
    return jnp.where(beyond.any(-1), jnp.argmax(beyond, -1), last)
