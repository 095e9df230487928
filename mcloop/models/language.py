"""Language models: a transformer trained on packed stories, and drawn from token by token."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from mcloop.errors import InputError
from mcloop.models.decoding import decoder
from mcloop.models.hosted import Codec
from mcloop.models.likelihood import token_losses, weighted_loss
from mcloop.nets.transformer import Shape, transformer
from mcloop.types import Learner

Packing = Literal["stories", "contiguous"]


def language(
    shape: Shape,
    *,
    end: int,
    length: int,
    packing: Packing = "stories",
    first: np.ndarray | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    dtype: Any = None,
    scan: bool = False,
    remat: bool = False,
    dropout: float = 0.0,
) -> Learner:
    """A language model of stories; points are {"tokens": (n, length)}, and beside those that it draws, "sound" (n,).

    Args:
        shape: of the transformer.
        end: the token that ends a story.
        length: tokens a sequence, at most the transformer's context.
        packing: "stories", one a sequence, of which everything up to and with the first `end` counts; or "contiguous", of
            which every token counts.
        first: (vocabulary,) how often each token begins a real sequence. Samples then begin with a token drawn from these
            ("first token inclusive"), which is not learnt, and on which `log_prob` is conditional; None learns the first
            token too, from an `end` read before it.
        temperature, top_k, top_p: of sampling, see `decoding.decoder`.
        dtype, scan, remat, dropout: of the network, see `transformer`; it is sampled from with its layers written out.

    Raises:
        InputError: a length beyond the context, an `end` outside of the vocabulary.
    """
    if not 2 <= length <= shape.context:
        raise InputError(f"length must be from 2 to the transformer's context of {shape.context} tokens, not {length}.")
    if not 0 <= end < shape.vocabulary:
        raise InputError(f"end must be a token of the vocabulary, 0 to {shape.vocabulary - 1}, not {end}.")
    if packing not in ("stories", "contiguous"):
        raise InputError(f"packing must be 'stories' or 'contiguous', not {packing!r}.")
    if first is not None and np.shape(first) != (shape.vocabulary,):
        raise InputError(f"first must have a weight for each of the {shape.vocabulary} tokens, not shape {np.shape(first)}.")
    net, unrolled = transformer(shape, dtype=dtype, scan=scan, remat=remat, dropout=dropout), transformer(shape, dtype=dtype)
    stop = packing == "stories"
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "first": first, "stop": stop}
    draw = decoder(unrolled, length, end, **how, checked=True)

    def read(variables, tokens, key=None):
        """The network, what it makes of the tokens, the tokens that it is to say next, and which of those count."""
        seen, learnt = sides(tokens, end, first is not None)
        module = net.bind(variables)
        return module, module.states(seen, key), learnt, mask(tokens, end, packing)[:, tokens.shape[1] - learnt.shape[1] :]

    def loss(key, variables, points):
        module, states, learnt, counted = read(variables, points["tokens"], key)
        return weighted_loss(module, states, learnt, counted / jnp.maximum(jnp.sum(counted), 1)), variables.stats

    def log_prob(variables, points):
        module, states, learnt, counted = read(variables, points["tokens"])
        return -jnp.sum(token_losses(module, states, learnt) * counted, 1)

    def sample(key, variables, count, label=None):
        tokens, good = draw(key, variables, count)
        return {"tokens": tokens, "sound": good}

    def field(variables, points):
        module = net.bind(variables)
        return module.logits(module.states(sides(points["tokens"], end, first is not None)[0])[:, -1])

    name = f"{shape.family} of {shape.parameters:,} parameters"
    return Learner(name, net.init, loss, sample, field, log_prob)


def sides(tokens, end: int, given: bool):
    """What the network reads and what it learns to say next.

    Args:
        tokens: (n, t).
        given: whether the first token is given, and not learnt.

    Returns:
        Two arrays (n, t - 1) if it is; otherwise (n, t), with an `end` read before the first token.
    """
    if given:
        return tokens[:, :-1], tokens[:, 1:]
    return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=end), tokens


def mask(tokens, end: int, packing: Packing):
    """(n, t) 1 where a token counts: all of them in contiguous text, those up to and with the first `end` in stories."""
    if packing == "contiguous":
        return jnp.ones(tokens.shape, jnp.float32)
    ended = jnp.cumsum(tokens == end, 1)
    return (ended - (tokens == end) == 0).astype(jnp.float32)


def tokens_codec() -> Codec:
    """Tokens as 16-bit integers on disk and 32-bit ones in the network."""
    return Codec(
        lambda points: {"tokens": np.asarray(points["tokens"]).astype(np.uint16)},
        lambda stored: {"tokens": stored["tokens"].astype(jnp.int32)},
    )
