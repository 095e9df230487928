"""The log-likelihood of tokens under a language model, without ever holding the logits of a whole batch."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_ROOM = 2**22  # logits that are held at a time: 16 MB, what stays in a CPU's cache; 16 times as many elsewhere


def token_losses(module, states, targets) -> jax.Array:
    """Minus the log-probability of every target: float32 nats, (b, t).

    A chunk of positions at a time: the forward pass keeps one number a position, the logarithm of its normaliser, and the
    backward pass makes the chunk's logits anew. Chunks are cut along time, so that a batch that is sharded over devices stays
    where it is.

    Args:
        module: a bound `mcloop.nets.transformer.Transformer`, whose head is used.
        states: what the head reads, (b, t, width), from `module.states`.
        targets: the token that comes next at every position, (b, t) integers.
    """
    return _losses(*_head(module), states, targets)


def weighted_loss(module, states, targets, weights) -> jax.Array:
    """`sum(weights * token_losses(module, states, targets))`, for training: the gradient is formed in the forward pass.

    Every weight is known before its chunk's logits are made, so that these serve both passes and are never made twice
    (fused linear cross-entropy, as in Hsu et al. 2410.10989).

    Args:
        module, states, targets: as for `token_losses`.
        weights: (b, t), of every position; for a mean 1 / (number of positions that count), or 0.
    """
    return _summed(*_head(module), states, targets, weights)


def _head(module):
    """Whether the head is the embedding, and the head: (vocabulary, width) if it is, else (width, vocabulary)."""
    tied = module.shape.family == "gpt2"
    return tied, (module.tokens if tied else module.head)[...]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(tied, kernel, states, targets):
    return _losses_forward(tied, kernel, states, targets)[0]


def _losses_forward(tied, kernel, states, targets):
    cast = kernel.astype(states.dtype)

    def chunk(_, inputs):
        x, y = inputs
        logits = _logits(tied, cast, x)
        total = jax.nn.logsumexp(logits, -1)
        return None, (total - _at(logits, y), total)

    _, found = lax.scan(chunk, None, _cut(kernel, states, targets))
    losses, totals = _joined(found, targets)
    return losses, (kernel, states, targets, totals)


def _losses_backward(tied, kept, weights):
    kernel, states, targets, totals = kept
    cast = kernel.astype(states.dtype)

    def chunk(total, inputs):
        x, y, normaliser, weight = inputs
        more, back = _gradients(tied, cast, x, y, jnp.exp(_logits(tied, cast, x) - normaliser[..., None]), weight)
        return total + more, back

    gradient, back = lax.scan(chunk, _nothing(tied, kernel), _cut(kernel, states, targets, totals, weights))
    return (gradient.T if tied else gradient).astype(kernel.dtype), _joined(back, targets), None


_losses.defvjp(_losses_forward, _losses_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(tied, kernel, states, targets, weights):
    return jnp.sum(weights * _losses(tied, kernel, states, targets))


def _summed_forward(tied, kernel, states, targets, weights):
    cast = kernel.astype(states.dtype)

    def chunk(total, inputs):
        x, y, weight = inputs
        logits = _logits(tied, cast, x)
        top = logits.max(-1, keepdims=True)
        p = jnp.exp(logits - top)
        mass = p.sum(-1, keepdims=True)
        more, back = _gradients(tied, cast, x, y, p / mass, weight)
        return total + more, (back, (top + jnp.log(mass))[..., 0] - _at(logits, y))

    gradient, found = lax.scan(chunk, _nothing(tied, kernel), _cut(kernel, states, targets, weights))
    back, losses = _joined(found, targets)
    return jnp.sum(weights * losses), ((gradient.T if tied else gradient).astype(kernel.dtype), back, losses)


def _summed_backward(tied, kept, g):
    gradient, back, losses = kept
    return (g * gradient).astype(gradient.dtype), (g * back).astype(back.dtype), None, g * losses


_summed.defvjp(_summed_forward, _summed_backward)


def _logits(tied, kernel, x):
    return jnp.einsum("btw,vw->btv" if tied else "btw,wv->btv", x, kernel, preferred_element_type=jnp.float32)


def _at(logits, targets):
    return jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]


def _gradients(tied, kernel, x, targets, p, weights):
    """Of the weighted losses of a chunk: with respect to the head, as (width, vocabulary), and to the states."""
    error = (jnp.where(jnp.arange(p.shape[-1]) == targets[..., None], p - 1, p) * weights[..., None]).astype(x.dtype)
    # x, much the smaller of the two, is the one that the product has to transpose
    head = jnp.einsum("btw,btv->wv", x, error, preferred_element_type=jnp.float32)
    return head, jnp.einsum("btv,vw->btw" if tied else "btv,wv->btw", error, kernel)


def _nothing(tied, kernel):
    return jnp.zeros(kernel.shape[::-1] if tied else kernel.shape, jnp.float32)


def _cut(kernel, *arrays):
    """Each (b, t, ...) -> (chunks, b, t / chunks, ...), filled up with zeros."""
    b, t = arrays[0].shape[:2]
    room = _ROOM * (1 if jax.default_backend() == "cpu" else 16)
    chunks = -(-t // max(1, room // (max(kernel.shape) * b)))
    step = -(-t // chunks)

    def cut(x):
        x = jnp.pad(x, [(0, 0), (0, chunks * step - t)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(b, chunks, step, *x.shape[2:]), 1, 0)

    return tuple(cut(x) for x in arrays)


def _joined(found, like):
    """The inverse of `_cut`."""

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(like.shape[0], -1, *x.shape[3:])[:, : like.shape[1]]

    return jax.tree.map(join, found)
