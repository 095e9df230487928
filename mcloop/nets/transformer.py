"""GPT-2 and Llama-2 as one module with two presets: for training, for reading out logits, and for decoding with a cache."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from mcloop.errors import InputError
from mcloop.nets.attention import attend, attend_cached, attend_dropped, dropped, rotary, rotate
from mcloop.nets.network import Network, network


class Shape(NamedTuple):
    """How large a transformer is, and of which family.

    Attributes:
        family: "gpt2" (learned positions, LayerNorm, GELU, biases, tied head) or "llama2" (rotary positions, RMSNorm, SwiGLU,
            no biases, a head of its own).
        layers, width, hidden, heads: blocks, residual width, width inside the feed-forward part, attention heads.
        vocabulary: token ids are 0 .. vocabulary - 1.
        context: the most tokens that a sequence has.
    """

    family: Literal["gpt2", "llama2"]
    layers: int
    width: int
    hidden: int
    heads: int
    vocabulary: int
    context: int

    @property
    def parameters(self) -> int:
        """Trainable parameters, counted without making them."""
        tree = jax.eval_shape(transformer(self).init, jax.random.key(0)).params
        return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _paper(family, layers, width, hidden, heads) -> Shape:
    return Shape(family, layers, width, hidden, heads, vocabulary=8000, context=2048)


# Gerstgrasser et al. 2404.01413; the number of heads, which no parameter count shows, keeps heads of 32 or 64
GPT2_9M = _paper("gpt2", 8, 256, 1024, 8)
LLAMA2_12M = _paper("llama2", 8, 256, 1024, 8)
LLAMA2_42M = _paper("llama2", 8, 512, 2048, 8)
LLAMA2_126M = _paper("llama2", 12, 768, 3072, 12)


class Cache(NamedTuple):
    """Keys and values of the tokens read so far: for every layer an array (batch, heads, room, head width)."""

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @property
    def room(self) -> int:
        """Tokens that fit in."""
        return self.keys[0].shape[2]

    def grown(self, room: int) -> Cache:
        """The same cache with room for more tokens."""
        more = ((0, 0), (0, 0), (0, room - self.room), (0, 0))
        return jax.tree.map(lambda x: jnp.pad(x, more), self)


def transformer(shape: Shape, *, dtype=None, scan: bool = False, remat: bool = False, dropout: float = 0.0) -> Network:
    """A causal language model: `apply(variables, tokens (b, t)) -> (logits (b, t, vocabulary) float32, {})`.

    `bind(variables)` gives the module itself, with `states`, `logits`, `decode` and `empty`.

    Args:
        shape: how large.
        dtype: what to compute in; None is float32. Parameters are float32 always, and so are softmax, norms and logits.
        scan: one compiled layer run in a loop, for quick compilation and sharded training; otherwise the layers are written
            out one after the other, which is faster on a CPU and needed for caches that are updated in place.
        remat: recompute a layer's inside in the backward pass in place of keeping it.
        dropout: share in [0, 1) that training drops, where GPT-2 does: of the embedding, of attention's weights and of what is
            added to the residual stream; only where `states` is given a key.

    Raises:
        InputError: a width that the heads do not divide, a family that is not known, a size < 1.
    """
    if shape.family not in ("gpt2", "llama2"):
        raise InputError(f"family must be 'gpt2' or 'llama2', not {shape.family!r}.")
    for field, value in shape._asdict().items():
        if field != "family" and (not isinstance(value, int) or value < 1):
            raise InputError(f"{field} must be a whole number >= 1, not {value!r}.")
    if shape.width % shape.heads or (shape.family == "llama2" and shape.width // shape.heads % 2):
        even = "an even multiple" if shape.family == "llama2" else "a multiple"
        raise InputError(f"width must be {even} of heads ({shape.heads}), not {shape.width}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be a share in [0, 1), not {dropout!r}.")
    return network(lambda rngs: Transformer(shape, dtype, scan, remat, float(dropout), rngs))


class Transformer(nnx.Module):
    """Embedding, blocks, final norm and head; the blocks' parameters are stacked along a first axis of layers."""

    def __init__(self, shape: Shape, dtype, scan: bool, remat: bool, dropout: float, rngs: nnx.Rngs) -> None:
        self.shape, self.dtype, self.scan, self.remat, self.dropout = shape, dtype or jnp.float32, scan, remat, dropout
        normal = nnx.initializers.normal(0.02)
        self.tokens = nnx.Param(normal(rngs.params(), (shape.vocabulary, shape.width)))
        if shape.family == "gpt2":
            self.positions = nnx.Param(normal(rngs.params(), (shape.context, shape.width)))

        @nnx.split_rngs(splits=shape.layers)
        @nnx.vmap
        def blocks(rngs):
            return Block(shape, dropout, rngs)

        self.blocks = blocks(rngs)
        self.norm = Norm(shape)
        if shape.family == "llama2":
            self.head = nnx.Param(normal(rngs.params(), (shape.width, shape.vocabulary)))

    def __call__(self, tokens, train: bool = False):
        """Logits of the next token: (b, t) integers -> (b, t, vocabulary) float32."""
        return self.logits(self.states(tokens))

    def states(self, tokens, key=None):
        """What the head reads: (b, t) integers -> (b, t, width); a key is given in training, for dropout."""
        length, layers = tokens.shape[1], self.shape.layers
        keys = None if key is None or not self.dropout else jax.random.split(key, layers + 1)
        x = dropped(self._embedded(tokens, jnp.arange(length)), self.dropout, None if keys is None else keys[-1])
        angles = self._angles(jnp.arange(length))

        def layer(x, weights, key):
            return nnx.merge(graph, weights)(x, angles, key)

        graph, weights = nnx.split(self.blocks)
        layer = jax.checkpoint(layer) if self.remat else layer
        if self.scan:
            both = weights, None if keys is None else keys[:-1]
            x, _ = lax.scan(lambda x, both: (layer(x, *both), None), x, both)
        else:
            for i, one in enumerate(_unstacked(weights, layers)):
                x = layer(x, one, None if keys is None else keys[i])
        return self.norm(x)

    def logits(self, states):
        """(..., width) -> (..., vocabulary) float32."""
        kernel = self.tokens[...].T if self.shape.family == "gpt2" else self.head[...]
        return jnp.matmul(states, kernel.astype(self.dtype), preferred_element_type=jnp.float32)

    def empty(self, batch: int, room: int) -> Cache:
        """A cache with nothing in it."""
        one = (batch, self.shape.heads, room, self.shape.width // self.shape.heads)
        zeros = tuple(jnp.zeros(one, self.dtype) for _ in range(self.shape.layers))
        return Cache(zeros, tuple(jnp.zeros_like(z) for z in zeros))

    def decode(self, tokens, cache: Cache, at) -> tuple[jax.Array, Cache]:
        """Reads one more token of every sequence.

        Args:
            tokens: (b,) integers.
            cache: of the tokens before, with room for this one.
            at: its position, the same in every sequence.

        Returns:
            What the head reads (b, width), and the cache with this token in it.
        """
        x = self._embedded(tokens, at)
        angles = self._angles(at[None])
        graph, weights = nnx.split(self.blocks)
        keys, values = [], []
        for one, k, v in zip(_unstacked(weights, self.shape.layers), cache.keys, cache.values, strict=True):
            x, k, v = nnx.merge(graph, one).decode(x, k, v, at, angles)
            keys.append(k)
            values.append(v)
        return self.norm(x), Cache(tuple(keys), tuple(values))

    def _embedded(self, tokens, positions):
        x = self.tokens[...].astype(self.dtype)[tokens]
        return x + self.positions[...].astype(self.dtype)[positions] if self.shape.family == "gpt2" else x

    def _angles(self, positions):
        return rotary(positions, self.shape.width // self.shape.heads) if self.shape.family == "llama2" else None


def _unstacked(weights, layers: int):
    """The parameters of each layer; the gradient of this is one concatenation, where that of indexing is a sum of zeros."""
    leaves, tree = jax.tree.flatten(weights)
    columns = [jnp.unstack(leaf) for leaf in leaves]
    return [jax.tree.unflatten(tree, [column[i] for column in columns]) for i in range(layers)]


class Norm(nnx.Module):
    """LayerNorm (gpt2) or RMSNorm (llama2), computed in float32."""

    def __init__(self, shape: Shape) -> None:
        self.scale = nnx.Param(jnp.ones(shape.width))
        if shape.family == "gpt2":
            self.bias = nnx.Param(jnp.zeros(shape.width))
        self.centred = shape.family == "gpt2"

    def __call__(self, x):
        """(..., width) -> (..., width)."""
        y = x.astype(jnp.float32)
        if self.centred:
            y = y - y.mean(-1, keepdims=True)
        y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + (1e-5 if self.centred else 1e-6)) * self.scale[...]
        return (y + self.bias[...] if self.centred else y).astype(x.dtype)


class Block(nnx.Module):
    """One layer: attention and a feed-forward part, each on the norm of what it is added to."""

    def __init__(self, shape: Shape, dropout: float, rngs: nnx.Rngs) -> None:
        gpt2, width, hidden = shape.family == "gpt2", shape.width, shape.hidden
        # GPT-2 makes what is added to the residual stream smaller, the deeper it is
        small = 0.02 / (2 * shape.layers) ** 0.5 if gpt2 else 0.02
        self.norm1, self.norm2 = Norm(shape), Norm(shape)
        self.attention = Linear(width, 3 * width, 0.02, gpt2, rngs)
        self.project = Linear(width, width, small, gpt2, rngs)
        self.enter = Linear(width, hidden, 0.02, gpt2, rngs)
        if not gpt2:
            self.gate = Linear(width, hidden, 0.02, False, rngs)
        self.leave = Linear(hidden, width, small, gpt2, rngs)
        self.heads, self.gpt2, self.dropout = shape.heads, gpt2, dropout

    def __call__(self, x, angles, key=None):
        """(b, t, width) -> (b, t, width); with a key, some of it is dropped."""
        one, two, three = (None,) * 3 if key is None else jax.random.split(key, 3)
        # norms, turns and GELU are made anew in the backward pass: cheaper than fresh memory to keep them in
        q, k, v = jax.checkpoint(lambda x: self._queries(self.norm1(x), angles))(x)
        seen = attend(q, k, v) if key is None else attend_dropped(q, k, v, self.dropout, one)
        x = x + dropped(self.project(seen.reshape(x.shape)), self.dropout, two)
        added = jax.checkpoint(self._leave)(*jax.checkpoint(lambda x: self._enter(self.norm2(x)))(x))
        return x + dropped(added, self.dropout, three)

    def decode(self, x, keys, values, at, angles):
        """One token: (b, width), with caches (b, heads, room, head width) -> the same, with the token at place `at`."""
        q, k, v = self._queries(self.norm1(x)[:, None], angles)
        keys = lax.dynamic_update_slice_in_dim(keys, k[:, 0, :, None], at, 2)
        values = lax.dynamic_update_slice_in_dim(values, v[:, 0, :, None], at, 2)
        x = x + self.project(attend_cached(q[:, 0], keys, values, at).reshape(x.shape))
        return x + self._leave(*self._enter(self.norm2(x))), keys, values

    def _queries(self, x, angles):
        """Queries, keys and values, each (b, t, heads, head width)."""
        b, t, width = x.shape
        q, k, v = (part.reshape(b, t, self.heads, width // self.heads) for part in jnp.split(self.attention(x), 3, -1))
        return (q, k, v) if angles is None else (rotate(q, angles), rotate(k, angles), v)

    def _enter(self, x):
        return (self.enter(x),) if self.gpt2 else (self.enter(x), self.gate(x))

    def _leave(self, x, gate=None):
        return self.leave(jax.nn.gelu(x, approximate=True) if gate is None else jax.nn.silu(gate) * x)


@jax.custom_vjp
def _product(x, kernel):
    """x W, (..., inputs) by (inputs, outputs), with a gradient that transposes the smaller of its two factors."""
    return x @ kernel


def _product_backward(kept, g):
    x, kernel = kept
    rows, due = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    wide = rows.shape[1] > due.shape[1]
    return g @ kernel.T, (due.T @ rows).T if wide else rows.T @ due


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


class Linear(nnx.Module):
    """x W (+ b), computed in the type of x."""

    def __init__(self, inputs: int, outputs: int, scale: float, bias: bool, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(nnx.initializers.normal(scale)(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x):
        """(..., inputs) -> (..., outputs)."""
        y = _product(x, self.kernel[...].astype(x.dtype))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)
