"""The sampler against full forward passes, sequence by sequence, against Hugging Face, and against NumPy."""

import functools
import importlib
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_lowering import lowers

from mcloop.models import decoding
from mcloop.models.decoding import decoder
from mcloop.nets.transformer import Shape, Transformer, transformer

FAMILIES = ("gpt2", "llama2")
VOCABULARY, LENGTH, END = 5, 3, 2
DRAWN = 40_000
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None, "first": None, "stop": True}


def tiny(family, vocabulary=VOCABULARY, context=LENGTH, layers=1, loud=0.6):
    """A network whose weights are so large that what it says next is far from uniform, and depends on all that it read."""
    shape = Shape(family, layers, 8, 16, 2, vocabulary, context)
    net = transformer(shape)
    rng = np.random.default_rng(1)

    def fill(path, x):
        return jnp.float32(("scale" in jax.tree_util.keystr(path)) + loud * rng.normal(size=x.shape))

    return shape, net, jax.tree_util.tree_map_with_path(fill, jax.eval_shape(net.init, jax.random.key(0)))


def quick(draw):
    """A compiled draw, of which the compilation is what takes time."""
    return jax.jit(draw, static_argnums=2, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def known(family):
    """(network, variables, every sequence (v^t, t), log-probabilities (v^t, t, v) of what comes next by full passes)."""
    _, net, variables = tiny(family)
    every = np.array(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))

    @jax.jit
    def logits(read):
        return net.apply(variables, read)[0]

    def after(read):
        found = np.asarray(logits(read), np.float64)
        return found - np.log(np.exp(found).sum(-1, keepdims=True))

    shifted = np.concatenate([np.full((len(every), 1), END), every[:, :-1]], 1)
    return net, variables, every, {"after an end": after(shifted), "given the first": after(every)}


def kept(p, temperature, top_k, top_p):
    """The probabilities (v,) that sampling with these settings has, from those of the network."""
    p = p ** (1 / temperature)
    order = np.argsort(-p, kind="stable")
    if top_k is not None:
        p[order[top_k:]] = 0
    p /= p.sum()
    if top_p is not None:  # the smallest set of the likeliest whose mass reaches top_p
        size = np.searchsorted(np.cumsum(p[order]), top_p) + 1
        p[order[size:]] = 0
    return p / p.sum()


def joint(family, temperature, top_k, top_p, first, stop):
    """The probability of every sequence."""
    _, _, every, after = known(family)
    logs = after["after an end"] if first is None else np.roll(after["given the first"], 1, 1)
    found, after_prefix = np.ones(len(every)), {}
    for i, row in enumerate(every):
        for t, token in enumerate(row):
            if stop and END in row[:t]:
                found[i] *= token == END
            elif t == 0 and first is not None:
                found[i] *= first[token] / np.sum(first)
            else:
                prefix = tuple(row[:t])
                if prefix not in after_prefix:
                    after_prefix[prefix] = kept(np.exp(logs[i, t]), temperature, top_k, top_p)
                found[i] *= after_prefix[prefix][token]
    assert found.sum() == pytest.approx(1)
    return found


def counted(tokens):
    """How often each sequence was drawn, in the order of `every`."""
    tokens = np.asarray(tokens)
    assert tokens.shape == (DRAWN, LENGTH) and tokens.min() >= 0 and tokens.max() < VOCABULARY
    return np.bincount(tokens @ VOCABULARY ** np.arange(LENGTH)[::-1], minlength=VOCABULARY**LENGTH)


def agreement(seen, p) -> float:
    """The p-value of Pearson's chi-square; cells that are expected less than five times are taken together."""
    if seen[p == 0].any():
        return 0.0
    rare = p * seen.sum() < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    p = np.append(p[~rare], p[rare].sum())
    if p[-1] == 0:
        seen, p = seen[:-1], p[:-1]
    return stats.chisquare(seen, p / p.sum() * seen.sum()).pvalue


def draws(family, blocks=1, **settings):
    net, variables, _, _ = known(family)
    return quick(decoder(net, LENGTH, END, blocks=blocks, **settings))(jax.random.key(0), variables, DRAWN)


SETTINGS = {
    "plain": {},
    "contiguous": {"stop": False},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.8},
    "all three": {"temperature": 1.5, "top_k": 4, "top_p": 0.9, "stop": False},
    "first": {"first": np.array([0.0, 3.0, 0.5, 1.0, 0.0])},
    "first, contiguous, cool": {"first": np.array([1.0, 0.0, 0.5, 0.0, 2.0]), "stop": False, "temperature": 0.7},
}


FEWER = ("plain", "all three", "first")  # the families differ in the network, not in what is chosen


@pytest.mark.parametrize(("family", "name"), [("gpt2", n) for n in SETTINGS] + [("llama2", n) for n in FEWER])
def test_sequences_are_drawn_as_often_as_full_forward_passes_say(family, name):
    chosen = {**PLAIN, **SETTINGS[name]}
    seen, p = counted(draws(family, **chosen)), joint(family, **chosen)
    assert agreement(seen, p) > 1e-4
    # a test that could not tell a nearby law would say nothing
    wrong = {"temperature": 1.1 * chosen["temperature"], "stop": not chosen["stop"], "top_k": 3, "top_p": 0.6}
    others = {field: joint(family, **{**chosen, field: value}) for field, value in wrong.items()}
    apart = {field: other for field, other in others.items() if np.abs(other - p).sum() > 0.05}
    assert len(apart) >= 2 and (name != "plain" or "temperature" in apart)
    for field, other in apart.items():
        assert agreement(seen, other) < 1e-6, field


@pytest.mark.parametrize("family", FAMILIES)
def test_a_place_too_far_is_noticed(family, monkeypatch):
    decode = Transformer.decode
    monkeypatch.setattr(Transformer, "decode", lambda self, tokens, cache, at: decode(self, tokens, cache, at + 1))
    assert agreement(counted(draws(family)), joint(family, **PLAIN)) < 1e-6


# what a draw depends on, and the ends


@pytest.fixture(scope="module")
def stories():
    """(network, variables, end): longer stories, of which some end early and some not at all."""
    _, net, variables = tiny("llama2", 7, 23, 1, loud=0.4)
    return net, variables, 3


@functools.cache
def compiled(net, length, end, **options):
    first = options.pop("first", None)
    draw = decoder(net, length, end, first=None if first is None else np.array(first), **options)
    return quick(draw)


def decoded(stories, seed=0, length=23, count=64, blocks=1, **options):
    net, variables, end = stories
    return np.asarray(compiled(net, length, end, blocks=blocks, **options)(jax.random.key(seed), variables, count))


@pytest.mark.parametrize("first", [None, tuple(range(7))], ids=["learnt", "given"])
def test_how_often_the_cache_grows_changes_nothing(stories, first):
    whole = decoded(stories, blocks=1, first=first)
    assert len(np.unique(whole, axis=0)) > 40
    for blocks in (2, 4, 7) if first is None else (3,):
        np.testing.assert_array_equal(decoded(stories, blocks=blocks, first=first), whole)


def test_after_the_first_end_everything_is_end(stories):
    tokens, end = decoded(stories), stories[2]
    ended = np.cumsum(tokens == end, 1) > 0
    assert (tokens[ended] == end).all()
    lengths = (~ended).sum(1)
    assert lengths.min() < 5 and lengths.max() == 23  # short stories, and some that fill the context
    on = decoded(stories, stop=False)
    after = np.cumsum(on == end, 1) > 0
    assert (on[after] != end).mean() > 0.3
    # up to its first end a row is the same: what came after was cut, nothing else
    np.testing.assert_array_equal(np.where(ended, end, on), tokens)


def test_an_end_that_opens_a_sequence_ends_it(stories):
    assert (decoded(stories, first=tuple(np.eye(7)[stories[2]])) == stories[2]).all()


def test_draws_depend_on_key_variables_and_count_only(stories):
    net, variables, end = stories
    tokens = decoded(stories)
    np.testing.assert_array_equal(decoded(stories), tokens)
    assert not np.array_equal(decoded(stories, seed=1), tokens)
    other = variables._replace(params=jax.tree.map(lambda x: 1.1 * x, variables.params))
    assert not np.array_equal(decoded((net, other, end)), tokens)


# greedy decoding, as Hugging Face has it


@pytest.mark.parametrize(("family", "given"), [("gpt2", False), ("llama2", True)])
def test_greedy_stories_are_those_of_hugging_face(family, given, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    shape, net, variables = tiny(family, 31, 40, 2, loud=0.4)
    end, model = 14, importlib.import_module("language").hugging_face(shape, variables)
    first = tuple(1.0 - np.eye(31)[end]) if given else None
    ours = decoded((net, variables, end), count=12, length=40, temperature=0, first=first, blocks=3)
    begun = torch.tensor(ours[:, :1], dtype=torch.long) if given else torch.full((12, 1), end)
    how = {"max_new_tokens": 40 - given, "eos_token_id": end, "pad_token_id": end}
    theirs = model.generate(begun, attention_mask=torch.ones_like(begun), do_sample=False, **how).numpy()[
        :, 0 if given else 1 :
    ]
    np.testing.assert_array_equal(ours, np.pad(theirs, ((0, 0), (0, 40 - theirs.shape[1])), constant_values=end))
    lengths = (np.cumsum(ours == end, 1) == 0).sum(1)
    assert lengths.max() > 10 and len(np.unique(ours)) > 4, lengths  # past the first growth of the cache, in words of its own


# one token


@pytest.mark.parametrize("size", [1, 2, 3, 10, 8000])
def test_the_distribution_function_is_inverted_exactly(size):
    # whole weights of total 2^16 and u in steps of 2^-16: every sum is exact, and so must be the answer
    rng, total = np.random.default_rng(size), 2**16
    p = rng.exponential(size=size) * (rng.random(size) < 0.6)
    p[size // 2] += 1e-3
    weights = rng.multinomial(total, p / p.sum()).astype(np.float32)
    steps = np.arange(total) if size <= 10 else np.concatenate([[0, total - 1], np.cumsum(weights.astype(int)) % total])
    steps = steps if size <= 10 else rng.choice(steps, 400)
    u = (steps / total).astype(np.float32)
    found = np.asarray(jax.jit(decoding._invert)(jnp.broadcast_to(weights, (len(u), size)), u))
    np.testing.assert_array_equal(found, np.searchsorted(np.cumsum(weights.astype(np.float64)), u * total, side="right"))
    if size <= 10:  # each token has exactly its share of all u
        np.testing.assert_array_equal(np.bincount(found, minlength=size), weights)


LARGEST = np.nextafter(np.float32(1), np.float32(0))  # the largest u


TOPS = [({}, n) for n in (1, 2, 3, 10, 8000)] + [(top, n) for top in ({"top_k": 3}, {"top_p": 0.95}) for n in (2, 8000)]


@pytest.mark.parametrize(("top", "size"), TOPS, ids=str)
def test_a_token_without_weight_is_never_drawn(size, top):
    rng, top = np.random.default_rng(0), {"top_k": None, "top_p": None, **top}
    logits = rng.normal(size=(6, size)).astype(np.float32) * np.array([1, 1, 30, 1, 1e4, 1e30], np.float32)[:, None]
    logits[[0, 1, 3]] = np.where(rng.random((3, size)) < 0.5, -np.inf, logits[[0, 1, 3]])
    logits[1, : size // 2], logits[3, size // 2 + 1 :] = -np.inf, -np.inf
    logits[:4, size // 2] = 0.0
    choose = jax.jit(lambda x, u: decoding._choose(x - x.max(-1, keepdims=True), u, **top))
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    # u at both ends, and within some units in the last place of where the shares of the tokens without weight would begin
    edges = (np.cumsum(weights, 1) / weights.sum(1, keepdims=True))[:, :: max(1, size // 10)].T
    for u in (0.0, np.float32(1e-45), LARGEST, *edges, *(edges * (1 - 1e-7)), *(edges * (1 + 1e-7))):
        u = np.broadcast_to(np.clip(np.float32(u), 0, LARGEST), 6)
        found = np.asarray(choose(logits, u))
        assert found.min() >= 0 and found.max() < size
        drawn = np.take_along_axis(weights, found[:, None], 1)[:, 0]
        assert (drawn > 0).all(), (u, found)
        if top["top_k"]:
            assert (drawn >= -np.sort(-weights, 1)[:, : top["top_k"]][:, -1]).all()


def test_an_edge_that_was_rounded_up_draws_nothing():
    # as sums that are made in parallel may have it: the second token adds nothing, but its edge is the next number
    edges = jnp.float32([[1.0, np.nextafter(np.float32(1), np.float32(2)), 2.0]])
    assert decoding._passed(jnp.float32([[1.0, 0.0, 1.0]]), edges, jnp.float32([1.0])) == 2
    # and where the target is beyond all edges, the last token that has weight
    assert decoding._passed(jnp.float32([[1.0, 1.0, 0.0]]), jnp.float32([[1.0, 2.0, 2.0]]), jnp.float32([2.0])) == 1


@pytest.mark.parametrize("weights", [[0, 1, 0, 2, 0], [1], [0, 0, 3], [1e-30, 1, 1e-30]])
def test_the_first_token_has_its_weight(weights):
    edges = decoding._cumulative(np.array(weights))
    found = np.searchsorted(edges, np.array([0, 1e-7, 0.5, 1 - 1e-7, LARGEST], np.float32), side="right")
    assert np.asarray(weights)[found].min() > 0
    share = np.bincount(np.searchsorted(edges, (np.arange(10_000) + 0.5).astype(np.float32) / 10_000, side="right"))
    np.testing.assert_allclose(share / 10_000, (np.array(weights) / np.sum(weights))[: len(share)], atol=2e-4)


def test_a_temperature_near_zero_takes_the_likeliest(stories):
    np.testing.assert_array_equal(decoded(stories, temperature=1e-36), decoded(stories, temperature=0))


# refusals, and accelerators

REFUSALS = [
    ({"temperature": -0.1}, ("temperature", ">= 0", "-0.1")),
    ({"temperature": np.inf}, ("temperature", "inf")),
    ({"temperature": np.nan}, ("temperature", "nan")),
    ({"top_k": 0}, ("top_k", ">= 1", "0")),
    ({"top_k": 2.5}, ("top_k", "2.5")),
    ({"top_p": 0.0}, ("top_p", "(0, 1]", "0.0")),
    ({"top_p": 1.1}, ("top_p", "1.1")),
    ({"length": 1}, ("length", ">= 2", "1")),
    ({"length": 4}, ("length", "context of 3", "4")),
    ({"end": 5}, ("end", "0 to 4", "5")),
    ({"blocks": 0}, ("blocks", ">= 1", "0")),
    ({"first": [1.0, -1.0, 1, 1, 1]}, ("first", ">= 0")),
    ({"first": [0.0] * 5}, ("first", "positive")),
    ({"first": [np.nan] + [1.0] * 4}, ("first", "weights")),
    ({"first": [1.0] * 4}, ("first", "5 tokens", "4 weights")),
]


@pytest.mark.parametrize(("wrong", "said"), REFUSALS, ids=lambda x: "-".join(map(str, x)))
def test_what_cannot_be_drawn_is_refused(refused, wrong, said):
    _, net, variables = tiny("gpt2")
    with refused(*said):
        decoder(net, **{"length": LENGTH, "end": END, **wrong})(jax.random.key(0), variables, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_lowers_for_accelerators(family):
    _, net, variables = tiny(family)
    shapes = jax.eval_shape(lambda: variables)
    draw = decoder(net, LENGTH, END, temperature=0.8, top_k=3, top_p=0.9, first=np.ones(VOCABULARY))
    exported = lowers(
        lambda data, variables: draw(jax.random.wrap_key_data(data), variables, 4),
        jax.ShapeDtypeStruct((2,), np.uint32),
        shapes,
    )
    assert [x.shape for x in exported.out_avals] == [(4, LENGTH)]
