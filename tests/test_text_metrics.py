"""Metrics of stories: brute-force loops, closed forms and scikit-learn; what they must tell apart; samples that say nothing."""

import math
import re
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from sklearn.feature_extraction import DictVectorizer

from mcloop.data.grammar import story_grammar
from mcloop.laws import extinction
from mcloop.metrics import text
from mcloop.metrics.frechet import frechet_distance
from mcloop.metrics.ngrams import flat, grams, ngram_features, pieces

GRAMMAR = story_grammar(60)
END = len(GRAMMAR.words)


def corpus_of(seed, n):
    return GRAMMAR.sample(np.random.default_rng(seed), n)


def windows(story, n):
    return [tuple(story[i : i + n].tolist()) for i in range(len(story) - n + 1)]


def noise(seed, count=40, most=12, words=6):
    """Random stories over few words, some of them empty."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, words, rng.integers(0, most)).astype(np.uint16) for _ in range(count)]


def padded(stories, length=128):
    rows = np.full((len(stories), length), END, np.uint16)
    for row, story in zip(rows, stories, strict=True):
        row[: len(story)] = story[:length]
    return rows


def joined(stories, length=128):
    line = np.concatenate([np.append(story, END) for story in stories]).astype(np.uint16)
    return line[: len(line) // length * length].reshape(-1, length)


# n-grams


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ngrams_are_those_of_a_loop(n):
    stories = noise(n)
    codes, of = grams(*flat(stories), n)
    loop = [(gram, i) for i, story in enumerate(stories) for gram in windows(story, n)]
    assert of.tolist() == [i for _, i in loop]
    assert len(set(zip(codes.tolist(), (gram for gram, _ in loop), strict=True))) == len({gram for gram, _ in loop})
    assert len(set(codes.tolist())) == len({gram for gram, _ in loop})


def test_a_million_ngrams_are_told_apart():
    pairs = np.stack(np.meshgrid(np.arange(1000), np.arange(1000)), -1).reshape(-1, 2)
    codes, _ = grams(pairs.ravel().astype(np.uint64), np.repeat(np.arange(len(pairs)), 2), 2)
    assert len(np.unique(codes)) == 10**6
    bits = np.unpackbits(np.ascontiguousarray(codes).view(np.uint8)).reshape(-1, 64).mean(0)
    assert abs(bits - 0.5).max() < 0.003  # 6 standard errors


@pytest.mark.parametrize("n", [1, 2, 4])
def test_diversity_repetition_and_entropy_are_those_of_counters(n):
    stories = noise(10 + n, words=3)
    every = [gram for story in stories for gram in windows(story, n)]
    assert text.distinct_n(stories, n) == len(set(every)) / len(every)
    shares = [1 - len(set(g)) / len(g) for story in stories if (g := windows(story, n))]
    assert text.repetition(stories, n) == pytest.approx(np.mean(shares), rel=1e-12)
    again = []  # a loop that asks of every n-gram whether it was there before
    for story in stories:
        g = windows(story, n)
        again += [np.mean([g[i] in g[:i] for i in range(len(g))])] if g else []
    assert text.repetition(stories, n) == pytest.approx(np.mean(again), rel=1e-12)
    assert text.entropy_n(stories, n) == pytest.approx(stats.entropy(list(Counter(every).values())), rel=1e-12)


def test_lost_words_and_survival_are_those_of_counters():
    reference, stories = noise(1, words=300, count=60), noise(2, words=150, count=20)
    counts = Counter(int(w) for story in reference for w in story)
    seen = {int(w) for story in stories for w in story}
    lost = text.lost_vocabulary(stories, reference)
    assert lost.words == pytest.approx(np.mean([w not in seen for w in counts]), rel=1e-12)
    assert lost.mass == pytest.approx(sum(c for w, c in counts.items() if w not in seen) / sum(counts.values()), rel=1e-12)
    assert 0 < lost.mass < 1 and text.lost_vocabulary(reference, reference) == (0, 0)
    table = np.array([counts[w] for w in range(300)])
    survived = text.survival(stories, table)
    for name, low, high in (("1", 1, 1), ("2", 2, 2), ("3-5", 3, 5)):
        assert survived[name] == pytest.approx(np.mean([w in seen for w, c in counts.items() if low <= c <= high]))
    assert math.isnan(survived["> 10"]) and list(survived) == ["1", "2", "3-5", "6-10", "> 10"]
    assert text.survival(reference, table)["1"] == 1


def test_a_word_said_c_times_is_lost_by_the_law():
    n, c = 4000, np.repeat([1, 2, 4], 300)
    rng = np.random.default_rng(0)
    draws = [rng.choice(len(c) + 1, n, p=[*(c / n), 1 - c.sum() / n]) for _ in range(4)]
    lost = [[1 - text.survival([one], c)[name] for name in ("1", "2", "3-5")] for one in draws]
    for found, times in zip(np.mean(lost, 0), (1, 2, 4), strict=True):
        once, twice = extinction(2)[1:] ** times  # law D4: absent one resampling later, and two
        error = np.sqrt(once * (1 - once) / 1200)
        assert abs(found - once) < 4 * error < abs(found - twice)


def test_lengths():
    stories = noise(3)
    sizes = [len(story) for story in stories]
    assert text.lengths(stories) == (pytest.approx(np.mean(sizes)), pytest.approx(np.std(sizes)))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_copies_are_those_of_a_loop(n, monkeypatch):
    monkeypatch.setattr(text, "_CHUNK", 7)  # a reference in several parts
    reference, stories = noise(4, words=8, count=50), noise(5, words=8, count=50)
    there = {gram for story in reference for gram in windows(story, n)}
    share = np.mean([any(gram in there for gram in windows(story, n)) for story in stories])
    assert text.copied(stories, reference, n) == pytest.approx(share) and (0 < share < 1)
    assert text.copied(stories, [], n) == 0 and text.copied(reference, reference, 1) == np.mean([len(s) > 0 for s in reference])


def test_copies_are_found_in_packed_rows():
    training, fresh = corpus_of(6, 200), corpus_of(7, 100)
    for rows in (padded(training), joined(training, 1000)):
        assert text.copied(training[:20], rows, 12) == 1
        assert text.copied(fresh, rows, 60) == 0
    assert text.copied([np.append(fresh[0][:30], training[3][10:30])], padded(training), 20) == 1


def test_the_order_of_stories_does_not_matter_and_a_text_said_twice_is_half_as_diverse():
    stories, other = corpus_of(8, 60), corpus_of(9, 60)
    order = np.random.default_rng(0).permutation(60)
    mixed = [stories[i] for i in order]
    for measure in (text.distinct_n, text.repetition, text.entropy_n):
        assert measure(mixed, 2) == pytest.approx(measure(stories, 2), rel=1e-12)
    assert text.lost_vocabulary(mixed, other) == text.lost_vocabulary(stories, other)
    np.testing.assert_array_equal(ngram_features(mixed), ngram_features(stories)[order])
    assert text.ngram_frechet(mixed, other) == pytest.approx(text.ngram_frechet(stories, other), rel=1e-9)
    assert text.distinct_n(stories + mixed, 2) == pytest.approx(text.distinct_n(stories, 2) / 2, rel=1e-12)
    assert text.entropy_n(stories + mixed, 2) == pytest.approx(text.entropy_n(stories, 2), rel=1e-12)
    assert text.repetition([np.tile(stories[0], 2)], 3) > 0.5 > text.repetition(stories, 3)
    # the two stories of a list are not one: no n-gram goes across
    assert text.distinct_n([np.array([1, 2]), np.array([3, 4])], 2) == 1 and len(grams(*flat([[1, 2], [3, 4]]), 2)[0]) == 2


# features


def exact_features(stories, orders):
    """Counts of n-grams at norm one, not projected."""
    rows = []
    for story in stories:
        row = {}
        for n in orders:
            counts = Counter(windows(story, n))
            row |= {str(gram): c / math.hypot(*counts.values()) / math.sqrt(len(orders)) for gram, c in counts.items()}
        rows.append(row)
    return DictVectorizer(sparse=False).fit_transform(rows)


def test_features_keep_cosines():
    stories = corpus_of(10, 40)
    exact, near = exact_features(stories, (1, 2)), ngram_features(stories, 4096)
    np.testing.assert_allclose((exact**2).sum(1), 1)
    np.testing.assert_allclose(near @ near.T, exact @ exact.T, atol=0.09)  # 1 / sqrt(4096) = .016
    # one n-gram a dimension, and a sign: with so few words the projection loses nothing
    few = [np.array([1, 1, 2]), np.array([2]), np.array([1])]
    exact, near = exact_features(few, (1,)), ngram_features(few, 4096, (1,))
    np.testing.assert_allclose(near @ near.T, exact @ exact.T)
    assert ngram_features(stories).shape == (40, 64) and np.array_equal(
        ngram_features(stories[:5]), ngram_features(stories)[:5]
    )
    assert not ngram_features([np.empty(0, np.uint16)]).any()


def test_the_hash_is_what_whole_numbers_without_bounds_say():
    def mixed(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    story = [7, 65535, 0, 7, 12, 3, 3]
    code = len(story)
    for token in story:
        code = (code * 0xD1342543DE82EF95 + mixed(token)) % 2**64
    code = mixed(code)
    expected = np.zeros(64)
    expected[code % 64] = -1 if code >> 63 else 1
    np.testing.assert_array_equal(ngram_features([np.array(story, np.uint16)], 64, (7,)), [expected])


def test_bigram_features_tell_shuffled_stories():
    rng = np.random.default_rng(11)
    real, other = corpus_of(12, 300), corpus_of(13, 300)
    shuffled = [rng.permutation(story) for story in other]
    near, far = (frechet_distance(ngram_features(x, orders=(2,)), ngram_features(real, orders=(2,))) for x in (other, shuffled))
    assert far > 3 * near
    # and single words do not: the shuffle changes nothing that they can see
    np.testing.assert_allclose(ngram_features(shuffled, orders=(1,)), ngram_features(other, orders=(1,)), atol=1e-12)
    assert text.ngram_frechet(shuffled, real) > 3 * text.ngram_frechet(other, real)
    assert text.mauve(ngram_features(shuffled), ngram_features(real)) < 0.2


def test_fewer_topics_are_told():
    real, other = corpus_of(14, 300), corpus_of(15, 4000)
    word = GRAMMAR.words.index("broke")
    narrow = [story for story in other if word in story][:300]
    equal = other[:300]
    assert len(narrow) == 300
    assert text.ngram_frechet(narrow, real) > 3 * text.ngram_frechet(equal, real)
    scores = [text.mauve(ngram_features(x), ngram_features(real)) for x in (narrow, equal, real)]
    assert scores[0] < 0.5 < 0.8 < scores[1] < scores[2] == 1
    assert text.ngram_frechet(real, real) < 1e-12


# the divergence frontier


def test_frontier_in_closed_form():
    # disjoint: x = (1 - w)^c and y = w^c, an area of 1 / binomial(2 c, c)
    for c in (1, 2, 5):
        area = text.frontier(np.array([1.0, 0]), np.array([0, 1.0]), c)
        assert area == pytest.approx(1 / math.comb(2 * c, c), rel=1e-3)
    p = np.array([0.2, 0.3, 0.5, 0])
    assert text.frontier(p, p) == 1
    q = np.array([0.1, 0.4, 0.3, 0.2])
    assert text.frontier(p, q) == pytest.approx(text.frontier(q, p), rel=1e-9)
    assert text.frontier(p, q, 1) > text.frontier(p, q, 5) > text.frontier(p, np.array([0, 0, 0.1, 0.9]), 5)


def test_frontier_as_the_paper_s_program_sums_it():
    rng = np.random.default_rng(16)
    p, q = rng.dirichlet(np.ones(20), 2)
    points = [(0.0, 1.0), (1.0, 0.0)]
    for w in np.linspace(1e-6, 1 - 1e-6, 400):
        r = w * p + (1 - w) * q
        points.append((math.exp(-5 * stats.entropy(q, r)), math.exp(-5 * stats.entropy(p, r))))
    x, y = np.array(sorted(points)).T
    assert text.frontier(p, q) == pytest.approx(np.trapezoid(y, x), rel=1e-3)


def test_mauve_of_known_clusters():
    rng = np.random.default_rng(17)
    centres = 100 * rng.normal(size=(3, 5))
    a, b = (centres[np.repeat(np.arange(3), counts)] + rng.normal(size=(100, 5)) for counts in ((50, 30, 20), (20, 20, 60)))
    expected = text.frontier(np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6]))
    assert text.mauve(a, b, clusters=3) == pytest.approx(expected, rel=1e-12)
    assert text.mauve(a, b) == text.mauve(a, b, clusters=10) != text.mauve(a, b, clusters=9)  # a tenth
    assert text.mauve(a, a) == 1
    assert text.mauve(np.zeros((9, 2)), np.zeros((5, 2))) == 1  # one point only: one cluster, no warning


def test_refusals(refused):
    x = np.zeros((4, 2))
    with refused("clusters", "9"):
        text.mauve(x, x, clusters=9)
    with refused("scaling", "0"):
        text.mauve(x, x, scaling=0)
    with refused("dimensions", "0"):
        ngram_features([], 0)
    for measure in (text.distinct_n, text.repetition, text.entropy_n, lambda stories, n: ngram_features(stories, orders=(n,))):
        with refused("n must", "0"):
            measure(corpus_of(0, 2), 0)
    with refused("packing", "'rows'"):
        pieces(padded(corpus_of(0, 2)), END, "rows")
    with refused("tokens", "float64"):
        pieces(np.zeros((2, 3)), END, "stories")
    rows = padded(corpus_of(0, 4))
    with refused("reference", "(3, 128)"):
        text.text_panel(rows[:3], END, "stories", END + 1)
    with refused("reference", "vocabulary of 4"):
        text.text_panel(rows, 3, "stories", 4)
    with refused("end", "7"):
        text.text_panel(rows, 7, "stories", 7)
    with refused("samples", "1"):
        text.text_panel(rows, END, "stories", END + 1, samples=1)
    with refused("packing", "'rows'"):
        text.text_panel(rows, END, "rows", END + 1)


# rows


def test_stories_come_out_of_rows():
    stories = [*corpus_of(18, 30), np.empty(0, np.uint16)]
    found = pieces(padded(stories), END, "stories")
    assert all(map(np.array_equal, found.stories, stories)) and found.ended.all() and len(found.stories) == 31
    cut = pieces(padded(stories, 70), END, "stories")
    assert (~cut.ended).tolist() == [len(story) >= 70 for story in stories]
    assert all(np.array_equal(a, b[:70]) for a, b in zip(cut.stories, stories, strict=True))


@pytest.mark.parametrize(
    ("row", "stories", "ended"),
    [
        ("1 2 . 3 . 4", ["3", "4"], [True, False]),
        ("1 2 . 3 4 .", ["3 4"], [True]),
        ("1 2 3", ["1 2 3"], [False]),
        ("1 2 .", ["1 2"], [True]),
        (". 1 .", ["1"], [True]),
        (". . 1", ["", "1"], [True, False]),
        (". . .", ["", ""], [True, True]),
    ],
)
def test_stories_come_out_of_joined_rows(row, stories, ended):
    tokens = np.array([[9 if word == "." else int(word) for word in row.split()]], np.uint16)
    found = pieces(tokens, 9, "contiguous")
    assert [" ".join(map(str, story)) for story in found.stories] == stories and found.ended.tolist() == ended


# the panel

NAMES = ["distinct_1", "distinct_2", "distinct_3", "repetition", "lost_words", "lost_word_mass", "story_length"]
NAMES += ["unfinished", "ngram_frechet", "mauve", "copied"]


@pytest.fixture(scope="module", params=["stories", "contiguous"])
def panel(request):
    pack = padded if request.param == "stories" else joined
    training, reference = pack(corpus_of(19, 400)), pack(corpus_of(20, 420))
    return (
        text.text_panel(reference, END, request.param, END + 1, training=training, copied_from=60, samples=150),
        pack,
        training,
    )


def test_the_panel_measures_what_the_functions_measure(panel):
    judge, pack, _ = panel
    rows, packing = pack(corpus_of(21, 300))[:200], "stories" if pack is padded else "contiguous"
    seen = judge.see({"tokens": rows}, None)
    assert list(seen) == NAMES and all(value.dtype == np.float32 and value.ndim == 0 for value in seen.values())
    stories, ended = pieces(rows[:150], END, packing)  # as many as it was told
    reference = pack(corpus_of(20, 420))
    order = np.random.default_rng(0).permutation(len(reference))
    real = pieces(reference[order[150:]], END, packing).stories
    assert seen["distinct_2"] == np.float32(text.distinct_n(stories, 2))
    assert seen["repetition"] == np.float32(text.repetition(stories, 4))
    assert (seen["lost_words"], seen["lost_word_mass"]) == tuple(map(np.float32, text.lost_vocabulary(stories, real)))
    assert seen["unfinished"] == np.float32(np.mean(~ended)) and seen["story_length"] == np.float32(text.lengths(stories).mean)
    assert seen["ngram_frechet"] == np.float32(text.ngram_frechet(stories, real))
    assert seen["mauve"] == np.float32(text.mauve(ngram_features(stories), ngram_features(real[:150])))


def test_the_floor_is_what_as_many_held_out_stories_score(panel):
    judge, pack, training = panel
    ds = judge.annotate(xr.Dataset({name: ("generation", np.zeros(2)) for name in [*NAMES, "loss"]}))
    held_out = pack(corpus_of(20, 420))
    held_out = held_out[np.random.default_rng(0).permutation(len(held_out))[:150]]
    for name, value in judge.see({"tokens": held_out}, None).items():
        assert ds[name].attrs["floor"] == pytest.approx(float(value), rel=1e-6)
    assert "floor" not in ds["loss"].attrs
    assert "150 sequences" in ds.attrs["evaluation"] and ds.attrs["evaluation"] == judge.words
    # real stories score about the floor; stories from the training text are copies
    fresh, copies = (judge.see({"tokens": rows}, None) for rows in (pack(corpus_of(22, 250)), training))
    assert 0.5 < fresh["ngram_frechet"] / ds["ngram_frechet"].attrs["floor"] < 2
    assert copies["copied"] > 0.5 and fresh["copied"] == 0  # a piece of a story that a row cuts may be too short to tell
    assert fresh["mauve"] > 0.7 and ds["mauve"].attrs["floor"] > 0.7


@pytest.mark.parametrize("what", ["empty", "one token", "one row", "one empty row", "no rows"])
def test_a_degenerate_model_is_measured_all_the_same(panel, what):
    judge, pack, _ = panel
    stuck = np.full((150, 128), GRAMMAR.words.index("the"), np.uint16)
    rows = {
        "empty": np.full((150, 128), END, np.uint16),
        "one token": stuck,
        "one row": pack(corpus_of(23, 3))[:1],
        "one empty row": padded([[]]),
        "no rows": stuck[:0],
    }[what]
    seen = judge.see({"tokens": rows}, None)
    assert list(seen) == NAMES
    if what == "empty":
        assert seen["lost_words"] == seen["lost_word_mass"] == 1 and seen["unfinished"] == seen["story_length"] == 0
        assert np.isnan([seen["distinct_1"], seen["repetition"]]).all() and seen["mauve"] < 0.1 and seen["copied"] == 0
        assert seen["ngram_frechet"] > 0.3
    if what == "one token":
        assert seen["distinct_1"] == np.float32(1 / (150 * 128)) and seen["repetition"] == np.float32(1 - 1 / 125)
        assert seen["unfinished"] == 1 and seen["story_length"] == 128 and seen["mauve"] < 0.1 and seen["ngram_frechet"] > 0.3
    if what == "one row" and pack is padded:
        assert np.isnan([seen["ngram_frechet"], seen["mauve"]]).all() and seen["distinct_1"] > 0.3
    if what == "no rows":
        assert np.isnan([value for name, value in seen.items() if not name.startswith("lost")]).all()


def test_without_training_text_nothing_is_said_of_copies():
    judge = text.text_panel(padded(corpus_of(24, 20)), END, "stories", END + 1)
    assert "copied" not in judge.see({"tokens": padded(corpus_of(25, 10))}, None)
    assert "10 sequences" in judge.words  # half of the reference, though a thousand were asked for


def test_real_stories(data_folder):
    words = (data_folder / "tinystories_sample.txt").read_text(encoding="utf-8").split("<|endoftext|>")[:1200]
    rng = np.random.default_rng(0)
    index: dict[str, int] = {}
    split = [re.findall(r"\w+|[^\w\s]", words[i]) for i in rng.permutation(len(words))]  # the file has an order
    stories = [np.array([index.setdefault(w, len(index)) for w in one], np.uint16) for one in split]
    first, second = stories[:600], stories[600:]
    shuffled = [rng.permutation(story) for story in second]
    assert text.ngram_frechet(shuffled, first) > 2 * text.ngram_frechet(second, first)
    assert text.mauve(ngram_features(second), ngram_features(first)) > 0.8
    assert text.mauve(ngram_features(shuffled), ngram_features(first)) < 0.6
    assert text.repetition(first, 4) < 0.05 and text.distinct_n(first, 1) < text.distinct_n(first, 2) < text.distinct_n(
        first, 3
    )
