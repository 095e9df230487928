"""The story grammar: every number that it states against enumeration, sampling and a grammar that is a little wrong."""

import itertools
import math
import re

import numpy as np
import pytest
from scipy import stats

from mcloop.data import grammar, words
from mcloop.data.grammar import Slot, story_grammar, zipf
from mcloop.data.story_plots import PLOTS
from mcloop.data.tokens import word_tokenizer

TINY = (
    (3, (((1, "{who} saw a {pet}."), (2, "{who} ran.")), ((1, "The {pet} and {who.he} ran."), (1, "")))),
    (1, (((1, "A {pet} saw {who}."),),)),
)
SLOTS = {"who": Slot(np.array([0.7, 0.3]), {"": ["Mia", "Tom"], "he": ["she", "he"]}), "pet": zipf(["cat", "dog"], 1.0)}


@pytest.fixture(scope="module")
def stories():
    """(the grammar, 40,000 of its stories)."""
    known = story_grammar()
    return known, known.sample(np.random.default_rng(1), 40_000)


def strings(known, longest):
    """Every string of at most so many words with its probability, where it has one."""
    lengths = (itertools.product(range(len(known.words)), repeat=n) for n in range(longest + 1))
    found = {words: math.exp(known.log_prob(words)) for words in itertools.chain(*lengths)}
    return {words: p for words, p in found.items() if p > 0}


def sentence(known, text):
    return [known.words.index(word) for word in re.findall(r"[\w-]+|[.,!?]", text)]


# a grammar small enough to say everything that it can


def test_a_tiny_grammar_sums_to_one_and_all_of_its_numbers_are_those_of_the_list():
    tiny = (
        (3, (((1, "{who} {pet}"), (2, "{who} ran")), ((1, "{pet} and {who.he}"), (1, "")))),
        (1, (((1, "and {pet} {who}"),),)),
    )
    known = grammar.grammar("tiny", tiny, SLOTS, "pet")
    said = strings(known, 5)
    p = np.array(list(said.values()))
    assert len(known.words) == 8
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert known.entropy == pytest.approx(-(p * np.log(p)).sum(), abs=1e-12)
    assert known.length == pytest.approx(sum(p * len(words) for words, p in said.items()), abs=1e-12)
    counts = sum(p * np.bincount(words, minlength=8) for words, p in said.items())
    np.testing.assert_allclose(known.counts, counts, atol=1e-12)


def test_probabilities_by_hand():
    known = grammar.grammar("tiny", TINY, SLOTS, "pet")

    def p(text):
        return math.exp(known.log_prob(sentence(known, text)))

    assert p("Mia ran.") == pytest.approx(3 / 4 * 2 / 3 * 1 / 2 * 0.7)
    assert p("Mia saw a dog. The dog and she ran.") == pytest.approx(3 / 4 * 1 / 3 * 1 / 2 * 0.7 / 3)
    assert p("Tom ran. The cat and he ran.") == pytest.approx(3 / 4 * 2 / 3 * 1 / 2 * 0.3 * 2 / 3)
    assert p("A cat saw Tom.") == pytest.approx(1 / 4 * 2 / 3 * 0.3)
    # a copy that is none, a pronoun of somebody else, half a story, nothing, and what comes after the end
    for text in ("Mia saw a dog. The cat and she ran.", "Mia ran. The cat and he ran.", "Mia saw a", "", "Mia ran. Mia ran."):
        assert p(text) == 0
    assert known.log_prob([*sentence(known, "Mia ran."), len(known.words)]) == -math.inf


def test_an_ambiguous_grammar_still_sums_to_one_but_its_derivations_have_more_entropy_than_its_stories():
    twice = ((1, (((1, "Mia ran"), (1, "{who} ran")),)),)
    known = grammar.grammar("twice", twice, SLOTS, "pet")
    said = strings(known, 2)
    p = np.array(list(said.values()))
    assert p.sum() == pytest.approx(1, abs=1e-12) and max(p) == pytest.approx(1 / 2 + 0.7 / 2)
    assert known.entropy > -(p * np.log(p)).sum() + 0.3


# no story comes about in two ways


def heads(plot, place):
    """The lines that may be read next, from a beat on; a line is a list of sets of words."""
    if place == len(plot):
        return []
    lines = [line for line in plot[place] if line]
    return lines + (heads(plot, place + 1) if len(lines) < len(plot[place]) else [])


def apart(a, b):
    """Whether no text begins with both lines."""
    return any(not x & y for x, y in zip(a, b, strict=False))


def forks(plots, slots):
    """The pairs of lines between which a reader has to choose and may not be able to."""
    rules = grammar._compile(plots, slots)

    def words(symbol):
        return {symbol} if isinstance(symbol, int) else {*rules.forms[symbol.slot][symbol.form].tolist()}

    read = [[[[words(s) for s in line.symbols] for line in beat] for beat in plot.beats] for plot in rules.plots]
    pairs = []
    for plot in read:
        for place, beat in enumerate(plot):
            lines = [line for line in beat if line]
            pairs += itertools.combinations(lines, 2)
            if len(lines) < len(beat):
                pairs += itertools.product(lines, heads(plot, place + 1))
    for a, b in itertools.combinations(read, 2):
        place = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        pairs += itertools.product(heads(a, place), heads(b, place))
    return [pair for pair in pairs if not apart(*pair)]


def test_every_story_has_one_derivation_by_design():
    slots = grammar._slots(7, 1.0)
    assert not forks(PLOTS, slots)
    assert not forks(TINY, SLOTS)
    plot = PLOTS[0][1]
    assert forks([(1, [(*plot[0], (1, "Once there was a {mood} {hero.child} whose name was Tom."))])], slots)
    assert forks([(1, [plot[0], ((1, "Well."), (1, "")), ((1, "Well."),)])], slots)
    assert forks([*PLOTS, (1, (*plot[:2], plot[2][1:], *plot[3:]))], slots)


def test_a_pronoun_never_comes_before_the_name_and_every_slot_is_told_by_its_words():
    for slot in grammar._slots(600, 1.0).values():
        assert len(set(slot.forms[""])) == len(slot.p) and slot.p.sum() == pytest.approx(1)
    for _, plot in PLOTS:
        assert all("{hero}" in line for _, line in plot[0])
        assert all(line for _, line in plot[0])


# the stories


def test_entropy_is_the_mean_surprise(stories):
    known, told = stories
    surprise = -np.array([known.log_prob(story) for story in told[:5000]])
    assert np.isfinite(surprise).all()
    error = surprise.std(ddof=1) / np.sqrt(len(surprise))
    assert abs(surprise.mean() - known.entropy) < 4 * error
    # were every copy of the thing a draw of its own, or the friend (a list of 30) drawn twice, it would show
    things = known.counts[list(known.rare)]
    drawn_each_time = (things.sum() - 1) * stats.entropy(things)
    assert drawn_each_time > 50 * error
    assert stats.entropy(grammar._slots(1, 1.0)["friend"].p) > 20 * error


def test_counts_and_length_are_those_of_a_sample(stories):
    known, told = stories
    lengths = np.array([len(story) for story in told])
    assert lengths.min() >= 62 and lengths.max() <= 127 and known.counts.sum() == pytest.approx(known.length)
    assert abs(lengths.mean() - known.length) < 4 * lengths.std() / np.sqrt(len(told))
    size = len(known.words)
    rows = np.repeat(np.arange(len(told)), lengths)
    cells, times = np.unique(rows * size + np.concatenate(told), return_counts=True)
    sums = np.bincount(cells % size, times, size)
    squares = np.bincount(cells % size, times**2, size)
    often = known.counts * len(told) > 30
    error = np.sqrt(squares / len(told) - (sums / len(told)) ** 2) / np.sqrt(len(told))
    z = ((sums / len(told) - known.counts) / np.where(error > 0, error, 1))[often]
    assert often.sum() > 700 and abs(z).max() < 4.7 and 0.8 < (z**2).mean() < 1.2
    # a grammar in which things repeat half as often is told from this one
    things = np.array(known.rare)[:50]
    assert (abs(sums[things] / len(told) - known.counts[things] / 2) / error[things]).min() > 4.7


def test_the_number_of_stories_with_a_thing_is_binomial_under_zipf(stories):
    known, told = stories
    rank = np.full(len(known.words), -1)
    rank[list(known.rare)] = np.arange(600)
    drawn = []
    for story in told:
        ranks = rank[story]
        drawn.append(set(ranks[ranks >= 0].tolist()))
    assert all(len(one) == 1 for one in drawn)  # once in every story, and every copy is one
    seen = np.bincount([next(iter(one)) for one in drawn], minlength=600)
    p = 1 / np.arange(1, 601)
    p /= p.sum()
    assert stats.chisquare(seen, p * len(told)).pvalue > 1e-3
    wrong = np.arange(1, 601) ** -1.05
    assert stats.chisquare(seen, wrong / wrong.sum() * len(told)).pvalue < 1e-9


def test_what_the_grammar_cannot_say(stories):
    known, told = stories
    rng = np.random.default_rng(2)
    rare = set(known.rare)
    for story in told[:200]:
        assert story.dtype == np.uint16 and np.isfinite(known.log_prob(story))
        changed = story.copy()
        changed[rng.integers(len(story))] = len(known.words)
        assert known.log_prob(changed) == -math.inf
        places = [i for i, word in enumerate(story) if int(word) in rare]
        other = known.rare[5] if story[places[0]] != known.rare[5] else known.rare[6]
        copied = story.copy()
        copied[places[-1]] = other
        assert len(places) >= 2 and known.log_prob(copied) == -math.inf
        copied[places] = other  # everywhere, it is another story, by as much as the things differ
        p = known.counts[[other, story[places[0]]]]
        assert known.log_prob(copied) - known.log_prob(story) == pytest.approx(np.log(p[0] / p[1]), abs=1e-9)
        assert known.log_prob(story[:-1]) == known.log_prob([*story, story[-1]]) == -math.inf


def test_stories_read_as_english(stories):
    known, told = stories
    tokenizer = word_tokenizer(known.words)
    texts = [tokenizer.decode(story) for story in told[:2000]]
    for text in texts:
        sentences = re.findall(r'"[A-Z][^"]*[,!?]" \w[^.!?"]*\.|[A-Z][^.!?"]*(?:, "[A-Z][^"]*\."|[.!?])', text)
        assert " ".join(sentences) == text  # every one begins with a capital, ends with a stop, and closes its quotation
        assert not re.search(r"\ba [aeiou]|[{}]|  | [.,!?]", text)
    assert len(set(texts)) == len(texts)
    assert all(map(np.array_equal, tokenizer.encode(texts), told))
    assert tokenizer.vocabulary == len(known.words) + 1 and tokenizer.end == len(known.words)


def test_rare_words_are_nowhere_else():
    fixed = {word for _, plot in PLOTS for beat in plot for _, line in beat for word in re.findall(r"[\w-]+", line)}
    others = fixed.union(
        *(slot.forms[form] for name, slot in grammar._slots(1, 1.0).items() for form in slot.forms if name != "thing")
    )
    things = words.thing_words(words.MOST)
    assert len(set(things)) == len(things) == words.MOST and not others & set(things)
    assert len(story_grammar().words) <= 1500
    after_a = [*things, *(word for name in ("mood", "home", "colour", "nature", "weather") for word in words.SLOTS[name])]
    assert not [word for word in after_a if word[0] in "aeiou"]  # "a", never "an"


def test_the_exponent_and_the_number_of_things():
    flat, steep = story_grammar(50, 0.0), story_grammar(50, 2.0)
    assert flat.entropy - steep.entropy == pytest.approx(math.log(50) - stats.entropy(np.arange(1, 51) ** -2.0), rel=1e-9)
    assert flat.length == pytest.approx(steep.length) and len(flat.rare) == 50
    assert story_grammar(1).rare == (story_grammar(1).words.index("ball"),)


def test_the_same_seed_tells_the_same_stories():
    known = story_grammar(20)
    first, again, other = (known.sample(np.random.default_rng(seed), 20) for seed in (3, 3, 4))
    assert all(map(np.array_equal, first, again)) and not all(map(np.array_equal, first, other))
    assert known.sample(np.random.default_rng(0), 0) == []


@pytest.mark.parametrize("things", [0, -3, 2.5, True, "many", words.MOST + 1])
def test_a_wrong_number_of_things_is_refused(refused, things):
    with refused("things", repr(things), str(words.MOST)):
        story_grammar(things)


@pytest.mark.parametrize("exponent", [-0.1, math.nan, math.inf, 11, "1", True])
def test_a_wrong_exponent_is_refused(refused, exponent):
    with refused("exponent", repr(exponent)):
        story_grammar(5, exponent)
