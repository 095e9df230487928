"""Curation: what is kept is what a loop over all candidates keeps, in exact shares, and a killed run keeps it again."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import walker

from mcloop import correctors, make_loop, random, regimes, train
from mcloop.correctors.curation import best_of, diversity, keep, likelihood, strings
from mcloop.data.grammar import story_grammar
from mcloop.data.tokens import word_tokenizer
from mcloop.memory.shards import generator, shards, shards_memory
from mcloop.models.hosted import Origin
from mcloop.models.training import Budget, cosine, training
from mcloop.nets.transformer import Shape
from mcloop.storage import partial_draws
from mcloop.studies.story_models import corpus_of, story_model
from mcloop.types import Hosted, Learner, Model

GRAMMAR = story_grammar(20)
CORPUS = corpus_of(GRAMMAR, 120, 64, 128)
END, LENGTH = CORPUS.tokenizer.end, CORPUS.length
KEY = jax.random.key(3)
CHUNK = 64


@pytest.fixture(scope="module")
def tiny():
    """A transformer of one layer on 120 stories of a grammar."""
    shape = Shape("gpt2", 1, 16, 32, 2, CORPUS.tokenizer.vocabulary, LENGTH)
    spec = training(Budget(epochs=6), Budget(epochs=1), rate=cosine(2e-2), batch=20, warm=False)
    return story_model(CORPUS, shape, spec, grammar=GRAMMAR, inclusive=False, samples=CHUNK, chunk=CHUNK)


@pytest.fixture(scope="module")
def fitted(tiny):
    real, origin = tiny.model.observe(KEY, None)
    return tiny.model.fit(KEY, origin, real)[0]


class Urn:
    """A hosted model that draws rows of uniform tokens, and remembers what it drew, by which keys."""

    def __init__(self, real=1000, length=2):
        self.drawn, self.keys, self.fits = [], [], 0
        data = shards({"tokens": rows(jax.random.key(99), real, length)}, real=True)

        def sample(key, params, count):
            self.keys.append(jax.random.key_data(key).tolist())
            self.drawn.append(shards({"tokens": rows(key, count, length)}))
            return self.drawn[-1]

        def fit(key, params, data):
            self.fits += 1
            seed = 0.0 if params is None else params.initial
            return Origin(random.uniform(key, ()) + seed), {}

        self.model = Model(
            "urn",
            real,
            shards_memory(),
            lambda key, given: (data, Origin(random.uniform(key, ()))),
            sample,
            fit,
            lambda params, truth: {},
            hosted=Hosted(lambda: ()),
        )
        self.real = data

    def tokens(self):
        return np.concatenate([body.take(np.arange(len(body)))["tokens"] for body in self.drawn])


def rows(key, count, length=2):
    return generator(key).integers(0, 2**16, (count, length)).astype(np.uint16)


def uniform(model, truth):
    """A score that is uniform on [0, 1)."""
    return lambda tokens: (tokens[:, 0] * 65536.0 + tokens[:, 1]) / 2**32


def coarse(model, truth):
    """A score with many ties."""
    return lambda tokens: tokens[:, 0] // 16384


def told_by(corrector, model, count, key=KEY, params=None, truth=None):
    return corrector.sample(key, model, params, truth, count)


def everything(body):
    return body.take(np.arange(len(body)))["tokens"]


def sorted_rows(tokens):
    return tokens[np.lexsort(tokens.T)].tolist()


def mapped(array):
    return array is not None and (isinstance(array, np.memmap) or mapped(array.base))


def z(hits, total, share):
    return (hits - total * share) / math.sqrt(total * share * (1 - share))


# best of k


@pytest.mark.parametrize(("k", "score"), [(2, uniform), (4, uniform), (4, coarse)])
def test_the_best_candidate_of_every_story_is_kept_and_of_equal_ones_the_first(k, score):
    urn = Urn()
    kept = told_by(best_of(k, score), urn.model, 2500)
    rate, candidates = score(urn.model, None), [everything(body) for body in urn.drawn]
    loop = []
    for story in range(2500):
        best = 0
        for i in range(1, k):
            if rate(candidates[i][story : story + 1])[0] > rate(candidates[best][story : story + 1])[0]:
                best = i
        loop.append(candidates[best][story])
    assert len(kept) == 2500 and len(urn.drawn) == k and len({str(key) for key in urn.keys}) == k
    assert sorted_rows(everything(kept)) == sorted_rows(np.array(loop))


def test_no_draw_of_a_candidate_has_the_key_of_a_chunk_of_another():
    urn = Urn()
    told_by(best_of(4, uniform), urn.model, 10)
    chunks = {str(jax.random.key_data(random.fold_in(KEY, i)).tolist()) for i in range(1000)}
    assert urn.keys[0] == jax.random.key_data(KEY).tolist() and not chunks & {str(key) for key in urn.keys}


def test_a_best_of_one_is_no_correction(tiny, fitted):
    plain = told_by(correctors.none(), tiny.model, 100, params=fitted)
    one = told_by(best_of(1, lambda model, truth: pytest.fail("scored")), tiny.model, 100, params=fitted)
    np.testing.assert_array_equal(everything(one), everything(plain))


@pytest.mark.parametrize("k", [2, 5])
def test_the_best_of_k_is_k_times_as_frequent_at_the_top(k):
    # of uniform scores the kept one is below u with probability u^k
    kept = uniform(None, None)(everything(told_by(best_of(k, uniform), Urn().model, 40_000)))
    for u in (0.5, 0.8, 0.95):
        hits = (kept < u).sum()
        assert abs(z(hits, 40_000, u**k)) < 4
        assert min(abs(z(hits, 40_000, u ** (k + wrong))) for wrong in (-1, 1)) > 8


# a threshold


@pytest.mark.parametrize("bar", [0.3, 0.7])
def test_every_kept_story_passes_and_there_are_as_many_as_were_asked_for(bar):
    urn = Urn()
    kept = everything(told_by(keep(uniform, at_least=bar), urn.model, 3000))
    seen = urn.tokens()
    passed = seen[uniform(None, None)(seen) >= bar]
    np.testing.assert_array_equal(kept, passed[:3000])
    assert abs(z(len(passed), len(seen), 1 - bar)) < 4
    # what is drawn is what is needed, up to a twentieth more and chance
    assert 0.95 < len(seen) * (1 - bar) / 3000 < 1.08 and max(len(body) for body in urn.drawn) <= 3000


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9])
def test_a_quantile_of_real_scores_lets_the_rest_of_the_same_law_pass(q):
    urn = Urn(real=12_000)
    kept = everything(told_by(keep(uniform, quantile=q), urn.model, 8000))
    real = np.sort(uniform(None, None)(everything(urn.real)))
    scores = uniform(None, None)(urn.tokens())
    assert len(kept) == 8000
    least = uniform(None, None)(kept).min()
    # the bar is a real score, at the place that was asked for: of 10,000 of the 12,000 stories, exact to 5 / sqrt(10,000)
    place = np.searchsorted(real, least) / len(real)
    assert abs(place - q) < 5 * math.sqrt(q * (1 - q) / 10_000) + 1e-3
    assert abs((scores >= least).mean() - (1 - q)) < 5 * math.sqrt(q * (1 - q) * (1 / 10_000 + 1 / len(scores))) + 1e-3


def test_a_quantile_among_ties_and_minus_infinity_is_a_score_that_passes():
    urn = Urn(real=4)
    body = replace(urn.real.parts[0], values={"tokens": np.array([[0, 0], [0, 1], [7, 0], [9, 0]], np.uint16)})
    model = urn.model._replace(observe=lambda key, given: (replace(urn.real, parts=(body,)), None))

    def score(model, truth):
        return lambda tokens: np.where(tokens[:, 0] == 0, -np.inf, tokens[:, 0])

    assert (everything(told_by(keep(score, quantile=0.5), model, 200))[:, 0] >= 7).all()
    assert len(told_by(keep(score, quantile=0.4), model, 200)) == 200


def test_a_verifier_leaves_the_wrong_stories_that_it_does_not_see():
    # right stories pass with probability phi, wrong ones with psi: law F3 of Feng et al.
    phi, psi, p, count = 0.8, 0.4, 0.25, 20_000

    def wrong(tokens):
        return tokens[:, 0] < 65536 * p

    def score(model, truth):
        return lambda tokens: np.where(wrong(tokens), psi, phi) - tokens[:, 1] / 65536

    kept = everything(told_by(keep(score, at_least=0.0), Urn().model, count))
    share = p * psi / (p * psi + (1 - p) * phi)
    assert abs(z(wrong(kept).sum(), count, share)) < 4 and abs(z(wrong(kept).sum(), count, p)) > 8


def test_too_few_that_pass_are_one_clear_error(refused):
    urn = Urn()
    with refused("at_least of 1.5", "0 of 400 stories (0.00%)", "100", "lower it"):
        told_by(keep(uniform, at_least=1.5, most=4), urn.model, 100)
    assert len(urn.tokens()) == 400
    with refused("at_least", "quantile 0.9", "raise most"):
        told_by(keep(uniform, quantile=0.9, most=2), Urn().model, 1000)


# what both share

CORRECTORS = {"best_of": lambda score: best_of(3, score), "keep": lambda score: keep(score, at_least=0.6)}


@pytest.mark.parametrize("make", CORRECTORS.values(), ids=CORRECTORS)
def test_equal_keys_tell_equal_stories_and_nothing_asked_for_is_nothing_drawn(make):
    stories = [everything(told_by(make(uniform), Urn().model, 500, jax.random.key(i))) for i in (1, 1, 2)]
    np.testing.assert_array_equal(stories[0], stories[1])
    assert not np.array_equal(stories[0], stories[2])
    urn = Urn()
    assert len(told_by(make(lambda model, truth: pytest.fail("scored")), urn.model, 0)) == 0 and not sum(map(len, urn.drawn))


@pytest.mark.parametrize("make", CORRECTORS.values(), ids=CORRECTORS)
def test_drawn_stories_stay_where_they_are_on_disk(make, tiny, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(partial_draws, "_IN_MEMORY", 0)
    drawn = []

    def sample(key, params, count):
        drawn.append(tiny.model.sample(key, params, count))
        return drawn[-1]

    def score(model, truth):
        return lambda tokens: tokens[:, 3] % 10 / 10

    with partial_draws.keeping(partial_draws.PartialDraws(tmp_path)):
        kept = told_by(make(score), tiny.model._replace(sample=sample), 100, params=fitted)
        values = {id(body.parts[0].values) for body in drawn}
        assert len(kept) == 100 and len(kept.parts) > 1
        for part in kept.parts:
            assert mapped(part.values["tokens"]) and id(part.values) in values and part.real == 0
            assert np.all(np.diff(part.rows) > 0)
        # the same stories as in memory, twice selected: rows of rows are rows of what was drawn
        again = replace(kept, parts=tuple(replace(part, rows=part.rows[::2]) for part in kept.parts))
        model = tiny.model._replace(sample=lambda key, params, count: again)
        twice = told_by(keep(lambda m, t: lambda x: np.arange(len(x)) % 2, at_least=1, most=9), model, len(again) // 2)
        np.testing.assert_array_equal(everything(twice), everything(again)[1::2])
        assert {id(part.values) for part in twice.parts} <= values


def test_a_model_that_is_not_hosted_and_scores_that_are_none_are_refused(refused):
    for make in CORRECTORS.values():
        with refused("walker", "hosted"):
            told_by(make(uniform), walker(), 10)
        for bad in (lambda tokens: np.full(len(tokens), np.nan), lambda tokens: np.zeros(3)):
            with refused("score must give a number for each of 10 stories"):
                told_by(make(lambda model, truth, bad=bad: bad), Urn().model, 10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: best_of(0, uniform), ("k must be", "not 0")),
        (lambda: best_of(1.5, uniform), ("k must be", "not 1.5")),
        (lambda: best_of(True, uniform), ("k must be", "not True")),
        (lambda: best_of(2, 3.0), ("score must be a function", "not 3.0")),
        (lambda: keep(None, at_least=1), ("score must be a function",)),
        (lambda: keep(uniform), ("either at_least or quantile",)),
        (lambda: keep(uniform, at_least=1, quantile=0.5), ("either at_least or quantile",)),
        (lambda: keep(uniform, at_least=np.nan), ("at_least must be a finite number", "nan")),
        (lambda: keep(uniform, at_least="1"), ("at_least must be a finite number", "'1'")),
        (lambda: keep(uniform, quantile=1.0), ("quantile must be a number in [0, 1)", "not 1.0")),
        (lambda: keep(uniform, quantile=-0.1), ("quantile must be a number in [0, 1)", "not -0.1")),
        (lambda: keep(uniform, at_least=0, most=0), ("most must be", "not 0")),
        (lambda: diversity(END, "stories", 0), ("n must be", "not 0")),
        (lambda: diversity(END, "rows"), ("packing must be one of", "'rows'")),
        (lambda: diversity(-1, "stories"), ("end must be", "not -1")),
        (lambda: strings("len", CORPUS.tokenizer, "stories"), ("function must be a function", "'len'")),
        (lambda: strings(len, CORPUS.tokenizer, "rows"), ("packing must be one of", "'rows'")),
        (lambda: likelihood(SUM, END, "stories", True, seed=-1), ("seed must be", "not -1")),
        (lambda: likelihood(SUM, END, "rows", True), ("packing must be one of", "'rows'")),
        (lambda: likelihood(SUM._replace(log_prob=None), END, "stories", True), ("learner must be", "log_prob")),
    ],
)
def test_what_is_out_of_range_is_refused_at_once(make, said, refused):
    with refused(*said):
        make()


# likelihood

SUM = Learner(
    "sum",
    lambda key: None,
    lambda key, variables, points: None,
    lambda key, variables, count, label=None: None,
    lambda variables, points: None,
    lambda variables, points: -variables.initial * jnp.sum(points["tokens"] * (points["tokens"] < 9), 1),
)  # a learner that says minus the sum of the tokens below 9, times its only parameter


@pytest.mark.parametrize(("inclusive", "expected"), [(False, [2, 6 / 4, 0, 8]), (True, [3, 6 / 3, np.inf, 8 * 4 / 3])])
def test_a_likelihood_is_a_mean_over_the_tokens_that_count(inclusive, expected):
    tokens = np.array([[1, 5, 9, 9], [1, 2, 3, 9], [9, 9, 9, 9], [8, 8, 8, 8]], np.uint16)
    urn = Urn()
    rate = likelihood(SUM, 9, "stories", inclusive)(urn.model, None)
    reference = urn.model.fit(*urn_fit(urn))[0].initial
    np.testing.assert_allclose(rate(tokens), -reference * np.array(expected), rtol=1e-6)
    # blocks, and rows that fill the last one up, change nothing
    np.testing.assert_array_equal(rate(np.tile(tokens, (20, 1))), np.tile(rate(tokens), 20))
    everywhere = likelihood(SUM, 9, "contiguous", inclusive)(urn.model, None)(tokens)
    np.testing.assert_allclose(everywhere, -reference * np.array([6, 6, 0, 32]) / (4 - inclusive), rtol=1e-6)


def urn_fit(urn, seed=0):
    key = random.fold_in(jax.random.key(seed), 2**30)
    real, origin = urn.model.observe(key, None)
    return key, origin, real


def test_a_reference_is_fitted_once_and_whoever_asks_first_it_is_the_same():
    urn, tokens = Urn(), np.array([[1, 5]], np.uint16)
    score = likelihood(SUM, 9, "stories", False)
    truths = [urn.model.observe(jax.random.key(i), None)[1] for i in (5, 6)]
    seen = [score(urn.model, truth)(tokens)[0] for truth in truths]
    assert urn.fits == 1 and seen[0] == seen[1]
    assert likelihood(SUM, 9, "stories", False)(urn.model, truths[1])(tokens)[0] == seen[0]
    assert likelihood(SUM, 9, "stories", False, seed=1)(urn.model, truths[0])(tokens)[0] != seen[0]
    other = Urn()
    score(other.model, truths[0])
    assert other.fits == 1 and urn.fits == 3
    given = likelihood(SUM, 9, "stories", False, params=Origin(2.0))(other.model, None)
    assert given(tokens)[0] == -6.0 and other.fits == 1


def test_a_reference_finds_real_stories_likelier_than_their_words_shuffled(tiny, fitted):
    rate = likelihood(tiny.learner, END, "stories", False, params=fitted)(tiny.model, None)
    real, rng = CORPUS.validation, np.random.default_rng(0)
    shuffled = real.copy()
    for row in shuffled:
        words = np.count_nonzero(row != END)
        row[:words] = rng.permutation(row[:words])
    assert (rate(real) > rate(shuffled)).mean() > 0.9


# diversity and strings


@pytest.mark.parametrize("n", [1, 2, 3])
def test_diversity_is_that_of_a_loop_and_an_empty_story_scores_nothing(n):
    rng = np.random.default_rng(n)
    tokens = rng.integers(0, 5, (60, 12)).astype(np.uint16)
    tokens[0], tokens[1, 0] = 4, 4
    loop, mean = [], []
    for row in tokens.tolist():
        cut, stories = [i for i, x in enumerate(row) if x == 4], []
        for a, b in zip([-1, *cut], [*cut, 12], strict=True):
            stories.append(row[a + 1 : b])
        stories = stories if stories[-1] else stories[:-1]
        shares = [ratio([tuple(story[i : i + n]) for i in range(len(story) - n + 1)]) for story in stories]
        loop.append(shares[0])
        mean.append(np.mean(shares[1:] or shares))
    assert loop[:2] == [0, 0] and len(set(loop)) > 5
    np.testing.assert_allclose(diversity(4, "stories", n)(None, None)(tokens), loop, rtol=1e-12)
    np.testing.assert_allclose(diversity(4, "contiguous", n)(None, None)(tokens), mean, rtol=1e-12)


def ratio(grams):
    return len(set(grams)) / len(grams) if grams else 0.0


WORDS = word_tokenizer(["yes", "no", "maybe"])


def words_model(real=((0, 1, 3, 3),)):
    body = shards({"tokens": np.array(real, np.uint16)}, real=True)
    urn = Urn()
    return urn, urn.model._replace(
        observe=lambda key, given: (body, None),
        sample=lambda key, params, count: shards(
            {"tokens": urn.model.sample(key, params, count).parts[0].values["tokens"] % 4}
        ),
    )


def test_a_function_of_the_text_selects_by_the_text():
    _, model = words_model()
    kept = told_by(keep(strings(lambda text: "maybe" in text, WORDS, "stories"), at_least=1), model, 300)
    said = [WORDS.decode(row) for row in everything(kept)]
    assert len(said) == 300 and all("maybe" in text for text in said) and len(set(said)) > 2
    rate = strings(len, WORDS, "contiguous")(model, None)
    # the first piece is left out where there is another: "no" and "maybe no" are 2 and 8 letters
    assert rate(np.array([[0, 3, 1, 3, 2, 1], [2, 0, 3, 3, 3, 3]], np.uint16)).tolist() == [5.0, 0.0]


def fails(text):
    return {"yes no": 1.0}[text]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (fails, ("function fails failed", "KeyError", "begins 'maybe yes'")),
        (lambda text: np.nan, ("function <lambda> must give a finite number", "nan", "begins 'maybe yes'")),
        (lambda text: "7", ("must give a finite number", "'7'")),
        (lambda text: None, ("must give a finite number", "None")),
        (lambda text: 10**400, ("failed", "OverflowError")),
    ],
)
def test_a_function_that_fails_is_found_out_before_anything_is_drawn(function, said, refused):
    urn, model = words_model(((2, 0, 3, 3),))
    for make in (lambda score: best_of(2, score), lambda score: keep(score, at_least=0)):
        with refused(*said):
            told_by(make(strings(function, WORDS, "stories")), model, 10)
    assert not urn.drawn


def test_a_function_may_give_any_kind_of_number():
    _, model = words_model()
    tokens = np.array([[0, 1, 3, 3]], np.uint16)
    for value in (True, 2, 2.5, np.float32(1), np.int64(3), np.bool_(True)):
        assert strings(lambda text, value=value: value, WORDS, "stories")(model, None)(tokens) == float(value)


# loops


class Killed(Exception):
    pass


def loops(tiny, score, folder):
    """Two replicas of two generations."""

    def look(key, params, truth):
        return {"token": np.float32(everything(tiny.model.sample(key, params, CHUNK)).mean())}

    model = tiny.model._replace(evaluate=look)  # not all that is measured of stories, which takes longer than to tell them
    return train(lambda: make_loop(model, regimes.replace(), best_of(2, score)), seeds=2, generations=2, folder=folder)


def test_a_loop_that_is_killed_in_its_second_candidate_ends_as_one_that_was_not(tiny, tmp_path, monkeypatch):
    put, puts, die_at = partial_draws.PartialDraw.put, [], None

    def counted(self, part, values):
        puts.append(part)
        if len(puts) == die_at:
            raise Killed
        put(self, part, values)

    monkeypatch.setattr(partial_draws.PartialDraw, "put", counted)
    score, again = (likelihood(tiny.learner, END, "stories", False) for _ in range(2))
    whole = loops(tiny, score, tmp_path / "whole")
    # a replica: one chunk at half of the first fit; one to measure, which is the first of the first candidate; one more; two;
    # and one to measure again. The reference, which is fitted once, has a half too
    replica = [0, 0, 1, 0, 1, 0]
    assert puts == [*replica[:2], 0, *replica[2:], *replica]
    puts, die_at = [], 6 + 5  # the reference is there
    with pytest.raises(Killed):
        loops(tiny, score, tmp_path / "killed")
    puts, die_at = [], None
    # as in another process: the reference is fitted anew, and the second replica is the first that asks for it
    assert loops(tiny, again, tmp_path / "killed").identical(whole)
    assert puts == [0, 1, 0]
    assert whole.loss.size == 4 and (whole.effective_lam.sel(generation=2) == np.inf).all()
