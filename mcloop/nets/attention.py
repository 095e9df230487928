"""Causal attention: over whole sequences, and of one token over a cache; rotary positions."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_BLOCK = 64  # queries (forward) or keys (backward) at a time on a CPU; longer sequences take an eighth of themselves


def attend(q, k, v):
    """Causal attention, each argument and the result (b, t, heads, head width); softmax in float32.

    The kernel is the platform's for which the program is lowered, whatever the machine that it is traced on: blocks written out
    for a CPU, cuDNN's flash attention on cards that have it, and what XLA makes of a plain product elsewhere.
    """
    return _attend(q, k, v)


def flash(q) -> bool:
    """Whether cuDNN's flash attention takes such queries, and the cards in sight (if any) have it: 8.0 and newer."""
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    cards = [device for device in jax.devices() if device.platform == "gpu"]
    if any(float(getattr(card, "compute_capability", 0) or 0) < 8 for card in cards):
        return False
    shape = jax.ShapeDtypeStruct(q.shape, q.dtype)
    try:
        jax.eval_shape(partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn"), shape, shape, shape)
    except (RuntimeError, NotImplementedError, ValueError):  # no cuDNN here, or heads that it does not take
        return False
    return True


def _by_platform(cpu, accelerator, q, *operands):
    """`cpu` on a CPU; elsewhere `accelerator`, given the kernel."""
    plain = partial(jax.nn.dot_product_attention, is_causal=True)
    card = partial(plain, implementation="cudnn") if flash(q) else plain
    own, others = partial(accelerator, card), partial(accelerator, plain)
    return lax.platform_dependent(q, *operands, cpu=cpu, cuda=own, default=others)


@jax.custom_vjp
def _attend(q, k, v):
    """On a CPU a head at a time, in blocks above the diagonal of which nothing is computed.

    What is kept for the backward pass is one number a query, the logarithm of its normaliser (Dao et al. 2205.14135): on a
    CPU the first touch of fresh memory costs more than the exponentials. Accelerators make theirs anew.
    """
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    out, normaliser = _by_platform(_forward_blocks, _forward_kernel, q, k, v)
    return out, (q, k, v, out, normaliser)


def _backward(kept, g):
    return _by_platform(_backward_blocks, _backward_kernel, *kept, g)


_attend.defvjp(_forward, _backward)


def _forward_kernel(kernel, q, k, v):
    return kernel(q, k, v), jnp.zeros((q.shape[2], *q.shape[:2]), jnp.float32)


def _backward_kernel(kernel, q, k, v, out, normaliser, g):
    return jax.vjp(kernel, q, k, v)[1](g)


def _forward_blocks(q, k, v):
    out, normaliser = lax.map(lambda head: _head_forward(*head), tuple(jnp.moveaxis(x, 2, 0) for x in (q, k, v)))
    return jnp.moveaxis(out, 0, 2), normaliser


def _backward_blocks(q, k, v, out, normaliser, g):
    shift = jnp.einsum("bthd,bthd->hbt", g, out, preferred_element_type=jnp.float32)
    parts = tuple(jnp.moveaxis(x, 2, 0) for x in (q, k, v, g))
    gradients = lax.map(lambda head: _head_backward(*head), (*parts, normaliser, shift))
    return tuple(jnp.moveaxis(x, 0, 2) for x in gradients)


def attend_dropped(q, k, v, rate: float, key):
    """The same with a share `rate` of the weights dropped, and the others made larger: for training, by plain products."""
    scores = _product("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(jnp.arange(q.shape[1])[:, None] >= jnp.arange(k.shape[1]), scores, -jnp.inf)
    weights = dropped(jax.nn.softmax(scores), rate, key)
    return _product("bhts,bshd->bthd", weights.astype(v.dtype), v).astype(v.dtype)


def dropped(x, rate: float, key):
    """x with a share `rate` of its numbers at zero, and the others made larger by as much; x itself without a key."""
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)


def _head_forward(q, k, v):
    """One head, (b, t, head width): what it gives, and the logarithm of every query's normaliser (b, t)."""
    out, normaliser = [], []
    for a, b in _blocks(q.shape[1]):
        scores = _product("btd,bsd->bts", q[:, a:b], k[:, :b]) * q.shape[-1] ** -0.5
        scores = jnp.where(jnp.arange(a, b)[:, None] >= jnp.arange(b), scores, -jnp.inf)
        top = scores.max(-1, keepdims=True)
        p = jnp.exp(scores - top)
        total = p.sum(-1, keepdims=True)
        out.append(_product("bts,bsd->btd", p.astype(v.dtype), v[:, :b]) / total)
        normaliser.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(out, 1).astype(v.dtype), jnp.concatenate(normaliser, 1)


def _head_backward(q, k, v, g, normaliser, shift):
    """Gradients of one head. Scores are held as (keys, queries), so that two of the three products read them as they lie."""
    t, scale = q.shape[1], q.shape[-1] ** -0.5
    of_q, of_k, of_v = jnp.zeros(q.shape, jnp.float32), [], []
    for a, b in _blocks(t):
        late, due = q[:, a:], g[:, a:]
        scores = _product("bsd,btd->bst", k[:, a:b], late) * scale
        seen = jnp.arange(a, b)[:, None] <= jnp.arange(a, t)
        p = jnp.where(seen, jnp.exp(scores - normaliser[:, None, a:]), 0)
        of_v.append(_product("bst,btd->bsd", p.astype(g.dtype), due))
        p = p * (_product("bsd,btd->bst", v[:, a:b], due) - shift[:, None, a:]) * scale
        p = p.astype(q.dtype)
        of_k.append(_product("bst,btd->bsd", p, late))
        of_q += jnp.pad(_product("bst,bsd->btd", p, k[:, a:b]), ((0, 0), (a, 0), (0, 0)))
    of_k, of_v = jnp.concatenate(of_k, 1), jnp.concatenate(of_v, 1)
    return of_q.astype(q.dtype), of_k.astype(k.dtype), of_v.astype(v.dtype)


def _blocks(t: int) -> list[tuple[int, int]]:
    """Where the blocks of a sequence begin and end."""
    width = max(_BLOCK, -(-t // 8))
    return [(a, min(a + width, t)) for a in range(0, t, width)]


def _product(axes, x, y):
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


def attend_cached(q, keys, values, at):
    """Attention of one token over a cache of which places 0 .. at are filled.

    Args:
        q: (b, heads, head width).
        keys, values: (b, heads, room, head width): a head's places lie together, which is read twice as fast on a CPU as
            the layout of whole sequences.
        at: the token's own place.

    Returns:
        (b, heads, head width).
    """
    scores = jnp.einsum("bhd,bhld->bhl", q * q.shape[-1] ** -0.5, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(jnp.arange(keys.shape[2]) <= at, scores, -jnp.inf)
    return jnp.einsum("bhl,bhld->bhd", jax.nn.softmax(scores).astype(values.dtype), values)


def rotary(positions, width: int, base: float = 10000.0):
    """Cosine and sine of the angles by which Llama turns the pairs (i, i + width / 2) of a head: each (t, 1, width / 2)."""
    frequency = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = positions[:, None, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x, angles):
    """Turns queries or keys (b, t, heads, head width) by their positions' angles."""
    cos, sin = angles
    a, b = jnp.split(x.astype(jnp.float32), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
