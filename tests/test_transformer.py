"""The transformers: sizes, equality with Hugging Face's, causality, and every shortcut against the plain form."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcloop.models import likelihood
from mcloop.models.likelihood import token_losses, weighted_loss
from mcloop.nets import attention
from mcloop.nets.attention import attend, attend_cached, rotary, rotate
from mcloop.nets.transformer import GPT2_9M, LLAMA2_12M, LLAMA2_42M, LLAMA2_126M, Shape, transformer

FAMILIES = ("gpt2", "llama2")
SMALL = {name: Shape(name, layers=2, width=32, hidden=64, heads=4, vocabulary=50, context=20) for name in FAMILIES}


@pytest.fixture(autouse=True, scope="module")
def short_blocks():
    """Blocks so short that small arrays have several, and a last one that is not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK", 7)
        patch.setattr(likelihood, "_ROOM", 50 * 3 * 4)
        yield


@pytest.fixture(scope="module")
def language():
    """The benchmark, which makes Hugging Face's models with our weights."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
        yield importlib.import_module("language")


def at_random(shape, key=0, **options):
    """A network, and weights none of which is at its initial 0 or 1, or so small that nothing depends on it."""
    net = transformer(shape, **options)
    leaves, tree = jax.tree.flatten(jax.jit(net.init)(jax.random.key(key)))
    keys = jax.random.split(jax.random.key(key + 1), len(leaves))
    moved = [4 * x * (x.ndim > 2) + x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return net, jax.tree.unflatten(tree, moved)


def tokens(b, t, vocabulary=50, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, vocabulary, (b, t)), jnp.int32)


def plain_attention(q, k, v):
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    t = q.shape[1]
    scores = jnp.where(jnp.arange(t)[:, None] >= jnp.arange(t), scores, -jnp.inf)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)


def close(a, b, rtol=1e-5):
    """Trees that agree to a share of each leaf's largest entry."""

    def check(x, y):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.max(np.abs(y)) > 0
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.max(np.abs(y)))

    jax.tree.map(check, a, b)


@pytest.mark.parametrize(
    ("shape", "count"),
    [(GPT2_9M, 8_890_880), (LLAMA2_12M, 12_488_960), (LLAMA2_42M, 41_755_136), (LLAMA2_126M, 125_553_408)],
)
def test_the_papers_sizes_are_exact(shape, count):
    assert shape.parameters == count


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_hugging_faces(family, language):
    import torch

    net, variables = at_random(SMALL[family])
    x = tokens(2, 13)
    model = language.hugging_face(SMALL[family], variables)
    theirs = model(torch.tensor(np.array(x)).long(), labels=torch.tensor(np.array(x)).long())
    theirs.loss.backward()

    @jax.jit
    def found(params):
        def loss(params):
            module = net.bind(variables._replace(params=params))
            states = module.states(x)
            return token_losses(module, states[:, :-1], x[:, 1:]).mean(), module.logits(states)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, logits), gradient = found(variables.params)
    expected = theirs.logits.detach().numpy()
    assert logits.dtype == jnp.float32 and np.std(expected) > 0.3  # far from a model that says nothing
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert float(value) == pytest.approx(theirs.loss.item(), abs=1e-5)
    named = language.gpt2_names if family == "gpt2" else language.llama_names
    wanted = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    ours = named(SMALL[family], gradient)
    assert set(ours) == set(wanted)
    close({name: ours[name] for name in wanted}, wanted, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_is_hugging_faces(family, language):
    import torch

    net, variables = at_random(SMALL[family])
    with torch.no_grad():
        expected = language.hugging_face(SMALL[family], variables)(torch.tensor([[7]])).logits.numpy()
    np.testing.assert_allclose(net.apply(variables, jnp.array([[7]]))[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_sees_what_comes_after_it(family):
    net, variables = at_random(SMALL[family])
    x = tokens(1, 8)

    def logits(moves):
        # every token a row of its own in the embedding, which can then be moved alone
        table = variables.params["tokens"][x[0]] + moves
        module = net.bind(variables._replace(params=variables.params | {"tokens": jnp.zeros((50, 32)).at[:8].set(table)}))
        return module.states(jnp.arange(8)[None])[0]

    jacobian = jax.jit(jax.jacrev(logits))(jnp.zeros((8, 32)))  # (place, width, place, width)
    sees = np.abs(jacobian).max((1, 3))
    np.testing.assert_array_equal(sees[np.triu_indices(8, 1)], 0)
    assert (sees[np.tril_indices(8)] > 1e-3).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_scanned_and_rematerialised_layers_are_the_same_function(family):
    shape, x = SMALL[family], tokens(2, 13)
    _, variables = at_random(shape)

    def loss(net):
        def of(params):
            module = net.bind(variables._replace(params=params))
            return token_losses(module, module.states(x[:, :-1]), x[:, 1:]).mean()

        return jax.jit(jax.value_and_grad(of))(variables.params)

    expected = loss(transformer(shape))
    close(loss(transformer(shape, remat=True)), expected)
    close(loss(transformer(shape, scan=True)), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_decoding_with_a_cache_is_the_full_pass(family, dtype):
    net, variables = at_random(SMALL[family], dtype=dtype)
    x = tokens(3, 13)
    full = jax.jit(net.apply)(variables, x)[0]

    @jax.jit
    def one(token, cache, at):
        module = net.bind(variables)
        states, cache = module.decode(token, cache, at)
        return module.logits(states), cache

    cache, found = net.bind(variables).empty(3, 7), []
    for at in range(13):
        cache = cache.grown(13) if at == 7 else cache
        logits, cache = one(x[:, at], cache, jnp.int32(at))
        found.append(logits)
    assert cache.room == 13
    # bfloat16 has 8 bits; the two ways round at other places
    np.testing.assert_allclose(jnp.stack(found, 1), full, rtol=0, atol=1e-5 if dtype is None else 0.03 * np.abs(full).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close_to_float32_and_keeps_parameters_in_float32(family):
    shape, x = SMALL[family], tokens(2, 13)
    net, variables = at_random(shape)
    half = transformer(shape, dtype=jnp.bfloat16)

    def loss(params, net):
        module = net.bind(variables._replace(params=params))
        states = module.states(x[:, :-1])
        return token_losses(module, states, x[:, 1:]).mean(), states

    (value, states), gradient = jax.jit(jax.value_and_grad(lambda p: loss(p, half), has_aux=True))(variables.params)
    (expected, _), exact = jax.jit(jax.value_and_grad(lambda p: loss(p, net), has_aux=True))(variables.params)
    assert states.dtype == jnp.bfloat16 and value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert 0 < abs(value - expected) < 0.02 * expected
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a - b) < 0.08 * jnp.linalg.norm(b)


@pytest.mark.parametrize("t", [1, 5, 13])
def test_attention_in_blocks_is_attention(t):
    q, k, v, g = (2 * x for x in jax.random.normal(jax.random.key(0), (4, 2, t, 3, 8)))

    def both(function):
        out, back = jax.vjp(function, q, k, v)
        return (out, *back(g)[2 if t == 1 else 0 :])  # of one token alone nothing depends on its scores

    close(jax.jit(lambda: both(attention._attend))(), jax.jit(lambda: both(plain_attention))())
    close(attend(q, k, v), plain_attention(q, k, v))


def test_attention_stands_large_scores():
    q, v = 300 * jax.random.normal(jax.random.key(0), (2, 1, 13, 2, 8))
    close(attend(q, q, v), plain_attention(q, q, v))
    assert all(jnp.isfinite(x).all() for x in jax.vjp(attend, q, q, v)[1](v))


def test_attention_over_a_cache_reads_only_what_is_filled():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 7, 3, 8))
    expected = plain_attention(q, k, v)[:, 4]
    spoilt = [x.at[:, 5:].set(1e9).swapaxes(1, 2) for x in (k, v)]
    close(attend_cached(q[:, 4], *spoilt, jnp.int32(4)), expected)


def test_rotary_scores_depend_on_differences_of_positions_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 8))

    def score(i, j):
        turned = [rotate(x[None, None, None], rotary(jnp.array([at]), 8))[0, 0, 0] for x, at in ((q, i), (k, j))]
        return float(turned[0] @ turned[1])

    assert score(5, 2) == pytest.approx(score(103, 100), abs=1e-4)
    assert score(0, 0) == pytest.approx(float(q @ k), abs=1e-5)
    assert abs(score(5, 2) - score(5, 3)) > 1e-2 and abs(score(5, 2) - score(2, 5)) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_in_chunks_are_minus_the_log_softmax(family):
    net, variables = at_random(SMALL[family])
    head = "tokens" if family == "gpt2" else "head"
    states, y = 3 * jax.random.normal(jax.random.key(1), (3, 13, 32)), tokens(3, 13)
    weights = jax.random.uniform(jax.random.key(2), (3, 13)) * (jnp.arange(13) != 4)

    def checked(function):
        def of(kernel, states, weights):
            return function(net.bind(variables._replace(params=variables.params | {head: kernel})), states, weights)

        return jax.jit(jax.value_and_grad(of, (0, 1, 2)))(variables.params[head], states, weights)

    def plain(module, states, weights):
        logits = jax.nn.log_softmax(module.logits(states))
        return -jnp.sum(weights * jnp.take_along_axis(logits, y[..., None], -1)[..., 0])

    expected = checked(plain)
    close(checked(lambda module, x, w: jnp.sum(w * token_losses(module, x, y))), expected)
    close(checked(lambda module, x, w: weighted_loss(module, x, y, w)), expected)
    close(checked(lambda module, x, w: 2.5 * weighted_loss(module, x, y, w)), jax.tree.map(lambda x: 2.5 * x, expected))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"family": "gpt3"}, ("family", "'gpt3'", "'llama2'")),
        ({"layers": 0}, ("layers", "0", ">= 1")),
        ({"vocabulary": 2.5}, ("vocabulary", "2.5")),
        ({"width": 30}, ("width", "30", "heads (4)")),
        ({"family": "llama2", "width": 36}, ("width", "even", "36")),
    ],
)
def test_impossible_shapes_are_refused(refused, wrong, said):
    with refused(*said):
        transformer(SMALL["gpt2"]._replace(**wrong))


@pytest.mark.parametrize("scan", [False, True])
def test_dropout_drops_in_training_alone(scan):
    net = transformer(SMALL["gpt2"], scan=scan, dropout=0.5)
    variables, read = jax.jit(net.init)(jax.random.key(0)), tokens(3, 12)

    @jax.jit
    def states(key, given):
        return net.bind(variables).states(given, key), net.bind(variables).states(given)

    (one, plain), (again, _), (other, _) = (states(jax.random.key(i), read) for i in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other) and not np.allclose(one, plain)
    later = read.at[:, 8:].set(0)  # still causal
    np.testing.assert_allclose(states(jax.random.key(1), later)[0][:, :8], one[:, :8], rtol=1e-4, atol=1e-5)
    ordinary = transformer(SMALL["gpt2"], scan=scan)
    # another program, of which the last bit may differ
    np.testing.assert_allclose(plain, jax.jit(lambda v: ordinary.bind(v).states(read))(variables), rtol=1e-5, atol=1e-6)


def test_dropped_attention_is_attention_on_the_mean():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 6, 2, 8))
    some = jax.jit(jax.vmap(lambda key: attention.attend_dropped(q, k, v, 0.3, key)))(jax.random.split(jax.random.key(1), 4000))
    gap = (some.mean(0) - plain_attention(q, k, v)) / (some.std(0) / np.sqrt(4000) + 1e-6)
    assert np.abs(gap).max() < 5
