"""Language models as distributions: they sum to one over all sequences, learn what can be learnt, and are judged rightly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mcloop.data import grammar
from mcloop.data.grammar import Slot, zipf
from mcloop.models.language import language, mask, sides, tokens_codec
from mcloop.models.training import begin, start, step, training
from mcloop.nets.transformer import Shape, transformer
from mcloop.report import sample_texts as kept
from mcloop.studies.story_models import corpus_of, rows, story_panel
from mcloop.types import Learner

END, LENGTH = 3, 4
SHAPE = Shape("llama2", 1, 8, 16, 2, 4, LENGTH)
EVERY = np.array(list(itertools.product(range(4), repeat=LENGTH)))
STORIES = EVERY[[all(END not in row[:i] or row[i] == END for i in range(LENGTH)) for row in EVERY]]
COUNTS = np.array([5.0, 2.0, 1.0, 0.0])
KINDS = list(itertools.product(("stories", "contiguous"), (None, COUNTS)))
kinds = pytest.mark.parametrize(("packing", "first"), KINDS, ids=lambda x: "given" if isinstance(x, np.ndarray) else str(x))


def learner(packing, first):
    return language(SHAPE, end=END, length=LENGTH, packing=packing, first=first)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(transformer(SHAPE).init, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(0.7 * rng.normal(size=x.shape)), shapes)


@pytest.fixture(scope="module")
def scored(variables):
    """(packing, whether the first token is given) -> nats of each of EVERY, (v^t,)."""
    return {
        (packing, first is not None): np.asarray(jax.jit(learner(packing, first).log_prob)(variables, {"tokens": EVERY}))
        for packing, first in KINDS
    }


# a distribution


def test_all_stories_together_have_probability_one(scored):
    assert len(STORIES) == 1 + 3 + 9 + 27 + 81
    story = (EVERY[:, None] == STORIES).all(-1).any(1)
    p = np.exp(scored["stories", False])
    assert p[story].sum() == pytest.approx(1, abs=1e-5)
    assert p.sum() > 1.3  # what stands after an end does not count, so that every other row is one of these once more
    assert p[story].max() > 3 / len(STORIES)  # far from uniform


def test_all_contiguous_rows_together_have_probability_one(scored):
    assert np.exp(scored["contiguous", False]).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("packing", ["stories", "contiguous"])
def test_given_a_first_token_all_that_follows_has_probability_one(scored, packing):
    valid = (EVERY[:, None] == STORIES).all(-1).any(1) if packing == "stories" else np.full(len(EVERY), True)
    for token in range(4):
        p = np.exp(scored[packing, True][valid & (EVERY[:, 0] == token)])
        assert p.sum() == pytest.approx(1, abs=1e-5)


@kinds
def test_the_loss_is_the_mean_over_tokens_that_count(variables, scored, packing, first):
    model, points = learner(packing, first), {"tokens": EVERY[::7]}
    loss, stats = jax.jit(model.loss)(jax.random.key(0), variables, points)
    count = np.asarray(mask(points["tokens"], END, packing))[:, int(first is not None) :].sum()
    by_story = scored[packing, first is not None][::7]
    assert loss == pytest.approx(-by_story.sum() / count, rel=1e-5)
    assert abs(loss + by_story.mean()) > 0.1  # not the mean over stories
    assert stats == variables.stats


def test_what_stands_after_the_end_changes_neither_loss_nor_gradient(variables):
    model = learner("stories", None)
    points = np.array([[0, 1, END, END], [END, END, END, END], [2, END, END, END], [0, 1, 2, 1]])
    noisy = np.array([[0, 1, END, 2], [END, 0, 2, 1], [2, END, 1, 0], [0, 1, 2, 1]])
    graded = {
        p: jax.jit(jax.value_and_grad(lambda v, x, p=p: learner(p, None).loss(None, v, x)[0]))
        for p in ("stories", "contiguous")
    }
    clean, same = (graded["stories"](variables, {"tokens": x}) for x in (points, noisy))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), clean, same)
    assert model.log_prob is not None
    other, changed = (graded["contiguous"](variables, {"tokens": x}) for x in (points, noisy))
    assert abs(other[0] - changed[0]) > 0.1  # where every token counts, it does


def test_masks_and_sides_by_hand():
    tokens = np.array([[0, 3, 3, 3], [3, 1, 3, 0], [0, 1, 2, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(mask(tokens, 3, "stories"), [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mask(tokens, 3, "contiguous"), np.ones((4, 4)))
    read, learnt = sides(tokens[:2], 3, False)
    np.testing.assert_array_equal(read, [[3, 0, 3, 3], [3, 3, 1, 3]])
    np.testing.assert_array_equal(learnt, tokens[:2])
    read, learnt = sides(tokens[:2], 3, True)
    np.testing.assert_array_equal(read, [[0, 3, 3], [3, 1, 3]])
    np.testing.assert_array_equal(learnt, [[3, 3, 3], [1, 3, 0]])


def test_a_draw_begins_as_the_real_ones_do(variables):
    tokens = np.asarray(
        jax.jit(learner("stories", COUNTS).sample, static_argnums=2)(jax.random.key(0), variables, 4000)["tokens"]
    )
    seen = np.bincount(tokens[:, 0], minlength=4)
    assert seen[END] == 0
    np.testing.assert_allclose(seen / 4000, COUNTS / 8, atol=5 * 0.5 / 4000**0.5)


def test_tokens_come_back_from_the_disk():
    points = {"tokens": np.array([[0, 1, 2**16 - 1], [5, 300, 40_000]], np.int32)}
    codec = tokens_codec()
    stored = codec.encode(points)
    back = codec.decode({"tokens": jnp.asarray(stored["tokens"])})
    assert stored["tokens"].dtype == np.uint16 and back["tokens"].dtype == jnp.int32
    np.testing.assert_array_equal(back["tokens"], points["tokens"])


# what can be learnt is learnt


def test_a_chain_of_tokens_is_learnt_to_its_entropy():
    chain = np.array([[0.1, 0.8, 0.05, 0.05], [0.05, 0.05, 0.1, 0.8], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
    at_rest = np.linalg.matrix_power(chain, 100)[0]
    rng, length = np.random.default_rng(0), 12

    def rows_of(n):
        found = np.empty((n, length), np.int64)
        found[:, 0] = rng.choice(4, n, p=at_rest)
        for t in range(1, length):
            found[:, t] = (rng.random(n)[:, None] > chain.cumsum(1)[found[:, t - 1]]).sum(1)
        return found

    model = language(Shape("gpt2", 1, 16, 32, 2, 4, length), end=END, length=length, packing="contiguous")
    spec = training(300, 300, rate=1e-2, batch=64)
    batches = rows_of(300 * 64).reshape(300, 64, length)

    @jax.jit
    def fit(key, batches):
        def one(run, x):
            return step(model, spec, key, run, {"tokens": x[0]}, x[1])

        run = start(spec, begin(spec, model.init(key)))
        return jax.lax.scan(one, run, (batches, jnp.linspace(1e-2, 1e-4, 300)))[0].variables

    fresh = rows_of(4000)
    truth = np.log(at_rest)[fresh[:, 0]] + np.log(chain)[fresh[:, :-1], fresh[:, 1:]].sum(1)
    rate = -(at_rest[:, None] * chain * np.log(chain)).sum()
    assert -truth.mean() == pytest.approx(rate * (length - 1) - (at_rest * np.log(at_rest)).sum(), rel=0.01)
    fitted = fit(jax.random.key(0), batches)
    assert model.log_prob is not None
    excess = (truth - np.asarray(jax.jit(model.log_prob)(fitted, {"tokens": fresh}))) / length
    assert -0.002 < excess.mean() < 0.01
    # a model that does not look back would be this far off
    assert -(at_rest * np.log(at_rest)).sum() - rate > 0.3


# stories of a grammar, and how a model of them is judged

PLOTS = (
    (3, (((1, "{who} saw a {pet}."), (2, "{who} ran.")), ((1, "The {pet} and {who.he} ran."), (1, "")))),
    (1, (((1, "A {pet} saw {who}."),),)),
)
SLOTS = {"who": Slot(np.array([0.7, 0.3]), {"": ["Mia", "Tom"], "he": ["she", "he"]}), "pet": zipf(["cat", "dog", "hen"], 1.0)}


@pytest.fixture(scope="module")
def known():
    return grammar.grammar("tiny", PLOTS, SLOTS, "pet")


def test_rows_are_stories_and_then_ends(known):
    end, found = len(known.words), rows(known, np.random.default_rng(5), 60, 16)
    assert found.shape == (60, 16) and found.dtype == np.uint16
    for row, story in zip(found, known.sample(np.random.default_rng(5), 60), strict=True):
        np.testing.assert_array_equal(row[: len(story)], story)
        assert (row[len(story) :] == end).all() and end not in story
    short = rows(known, np.random.default_rng(5), 60, 4)
    np.testing.assert_array_equal(short, found[:, :4])


def test_a_corpus_is_told(known):
    corpus = corpus_of(known, 300, 100, 16)
    end = corpus.tokenizer.end
    assert corpus.train.shape == (300, 16) and corpus.validation.shape == (100, 16) and corpus.packing == "stories"
    assert corpus.tokenizer.vocabulary == end + 1 == len(known.words) + 1
    assert corpus.tokens == (corpus.train != end).sum() + 300  # a story, and its end
    np.testing.assert_array_equal(corpus.first, np.bincount(corpus.train[:, 0], minlength=end + 1))
    np.testing.assert_array_equal(corpus_of(known, 300, 100, 16).train, corpus.train)
    assert not np.array_equal(corpus_of(known, 300, 100, 16, seed=1).train, corpus.train)
    assert not np.array_equal(corpus.train[:100], corpus.validation)
    assert all(np.isfinite(known.log_prob(row[row != end])) for row in corpus.validation)


def pretender(known, off=0.0) -> Learner:
    """A learner whose log-probabilities are the grammar's, but for so many nats a story."""
    end = len(known.words)

    def host(tokens):
        return np.array([known.log_prob(row[: np.argmax(row == end)]) - off for row in np.asarray(tokens)], np.float32)

    def log_prob(variables, points):
        return jax.pure_callback(host, jax.ShapeDtypeStruct(points["tokens"].shape[:1], jnp.float32), points["tokens"])

    def none(*_):
        raise AssertionError("a judge only asks for log-probabilities")

    return Learner("pretender", none, none, none, none, log_prob)


def test_a_model_that_is_the_grammar_has_no_excess(known):
    corpus = corpus_of(known, 200, 70, 16)
    end = corpus.tokenizer.end
    tokens = rows(known, np.random.default_rng(9), 40, 16)
    panel = story_panel(corpus, pretender(known), 40, False, known)
    seen = panel.see({"tokens": tokens}, None)
    assert seen["excess"] == pytest.approx(0, abs=1e-6) and seen["ungrammatical"] == 0
    nats = -np.array([known.log_prob(row[row != end]) for row in corpus.validation])
    counted = (corpus.validation != end).sum() + len(corpus.validation)
    assert seen["cross_entropy"] == pytest.approx(nats.sum() / counted, rel=1e-6)
    own = -np.array([known.log_prob(row[row != end]) for row in tokens])
    assert seen["own_perplexity"] == pytest.approx(np.exp(own.sum() / ((tokens != end).sum() + 40)), rel=1e-5)
    assert seen["rare_lost"] == 1 - np.isin(known.rare, tokens).mean()
    assert kept.as_texts(seen["stories"])[0] == corpus.tokenizer.decode(tokens[0])
    ds = xr.Dataset({name: ("generation", [x]) for name, x in seen.items() if np.ndim(x) == 0}).assign_coords(generation=[1])
    said = panel.annotate(ds)
    assert said["cross_entropy"].attrs["floor"] == pytest.approx(float(seen["cross_entropy"]), rel=1e-6)
    assert kept.as_texts(said["real_stories"].values) == list(corpus.held_out)

    # half a nat a story too few, some broken stories, no hen
    broken = tokens.copy()
    broken[:10, 0] = known.words.index("ran")
    broken[broken == known.words.index("hen")] = known.words.index("dog")
    other = story_panel(corpus, pretender(known, 0.5), 40, False, known).see({"tokens": broken}, None)
    assert other["excess"] == pytest.approx(0.5, abs=1e-5)
    assert other["ungrammatical"] == 0.25
    assert other["rare_lost"] == pytest.approx(1 / 3)


# refusals

REFUSALS = [
    ({"length": 1}, ("length", "2", "context of 4", "1")),
    ({"length": 5}, ("length", "context of 4", "5")),
    ({"end": 4}, ("end", "0 to 3", "4")),
    ({"end": -1}, ("end", "0 to 3", "-1")),
    ({"packing": "books"}, ("packing", "'stories' or 'contiguous'", "'books'")),
    ({"first": np.ones(3)}, ("first", "4 tokens", "(3,)")),
    ({"temperature": -1.0}, ("temperature", "-1.0")),
    ({"top_p": 2.0}, ("top_p", "2.0")),
]


@pytest.mark.parametrize(("wrong", "said"), REFUSALS, ids=lambda x: "-".join(map(str, x)))
def test_what_is_no_language_model_is_refused(refused, wrong, said):
    with refused(*said):
        language(SHAPE, **{"end": END, "length": LENGTH, **wrong})


# stories in results

WIDTH = 24


@given(st.lists(st.text(max_size=40), max_size=4))
def test_texts_come_back_from_bytes(texts):
    found = kept.as_bytes(texts, WIDTH)
    assert found.shape == (len(texts), WIDTH) and found.dtype == np.uint8
    for text, back in zip(texts, kept.as_texts(found), strict=True):
        whole = itertools.accumulate(text, initial="")
        fits = [part for part in whole if len(part.encode()) <= WIDTH][-1]  # a letter that was cut is left out
        assert back == fits.rstrip("\0")


def test_a_letter_that_was_cut_is_left_out():
    assert kept.as_texts(kept.as_bytes(["añb", "añb", "añb", "日"], 3)) == ["añ", "añ", "añ", "日"]
    assert kept.as_texts(kept.as_bytes(["añb", "日"], 2)) == ["a", ""]


def dataset(generations=3):
    texts = [[[f"{arm} {g} {i}" for i in range(2)] for g in range(generations)] for arm in ("replace", "accumulate")]
    return xr.Dataset(
        {
            "cross_entropy": (("arm", "seed", "generation"), np.zeros((2, 2, generations), np.float32)),
            "stories": (
                ("arm", "generation", "story", "byte"),
                np.stack([np.stack([kept.as_bytes(t) for t in arm]) for arm in texts]),
                {"text": 1},
            ),
            "real_stories": (("story", "byte"), kept.as_bytes(["once  upon\na time", "word " * 300])),
        },
        coords={"arm": ["replace", "accumulate"], "seed": [0, 1], "generation": np.arange(1, generations + 1)},
    )


def test_stories_are_shown_first_and_last():
    shown = kept.shown(dataset())
    assert [where for where, _ in shown] == [
        "real stories",
        "the fit on real data (generation 1)",
        "replace, generation 3",
        "accumulate, generation 3",
    ]
    real, first, replace, accumulate = (texts for _, texts in shown)
    assert real[0] == "once upon a time" and real[1].endswith("word ...") and len(real[1]) < 450
    assert (first, replace, accumulate) == (
        [f"replace 0 {i}" for i in (0, 1)],
        [f"replace 2 {i}" for i in (0, 1)],
        [f"accumulate 2 {i}" for i in (0, 1)],
    )


def test_a_single_generation_is_shown_once():
    assert [where for where, _ in kept.shown(dataset(1))].count("the fit on real data (generation 1)") == 1


def test_a_dataset_without_stories_shows_none():
    assert kept.shown(dataset().drop_vars(["stories", "real_stories"])) == []
