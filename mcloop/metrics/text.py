"""What is measured of generated stories, as token ids: diversity, repetition, lost words, distance to real ones, copying.

No model and no tokenizer is needed. A sample is a list of stories, each an integer array without its end; most values depend
on the size of the sample, so that they are to be read beside those of as many real stories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mcloop.checks import whole
from mcloop.errors import InputError
from mcloop.metrics.estimate import pair
from mcloop.metrics.frechet import frechet_distance
from mcloop.metrics.ngrams import distinct, flat, grams, ngram_features, pieces
from mcloop.metrics.panel import Panel

_BINS = {"1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6-10": (6, 10), "> 10": (11, np.inf)}
_REPEATED, _COPIED = 4, 12  # tokens of an n-gram: what the panel calls a repetition, and a copy
_CHUNK = 4096  # stories of the training text that are read at once
_SIEVE = np.uint64(2**24 - 1)
_MIXTURES = 201  # points of a divergence frontier
_REFERENCE = 5000  # real rows at most that a generation is compared with

Stories = Sequence[np.ndarray]


def distinct_n(stories: Stories, n: int) -> float:
    """Different n-grams over all n-grams of the whole sample (distinct-n, Li et al. 1510.03055); NaN if there are none.

    It falls as a sample grows, whatever the sample: compare at equal size only.
    """
    codes, _ = grams(*flat(stories), n)
    return len(np.unique(codes)) / len(codes) if len(codes) else float("nan")


def repetition(stories: Stories, n: int) -> float:
    """The share of a story's n-grams that occurred before in the same story, mean over the stories that have any.

    1 - (different n-grams) / (n-grams), the seq-rep-n of Welleck et al. 1908.04319; NaN if no story has n tokens.
    """
    codes, story = grams(*flat(stories), n)
    total = np.bincount(story, minlength=len(stories))
    unique = np.bincount(distinct(codes, story)[1], minlength=len(stories))
    return float(np.mean(1 - unique[total > 0] / total[total > 0])) if len(codes) else float("nan")


def entropy_n(stories: Stories, n: int = 1) -> float:
    """Entropy of the sample's n-gram frequencies, nats: the plug-in estimate, which is too low for a small sample."""
    codes, _ = grams(*flat(stories), n)
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.log(len(codes)) - (counts * np.log(counts)).sum() / len(codes)) if len(codes) else float("nan")


class Lengths(NamedTuple):
    """Tokens a story, without its end: the mean, and the standard deviation (ddof 0)."""

    mean: float
    std: float


def lengths(stories: Stories) -> Lengths:
    """How long stories are; NaN if there are none."""
    sizes = np.array([len(story) for story in stories], np.float64)
    return Lengths(float(sizes.mean()), float(sizes.std())) if len(sizes) else Lengths(float("nan"), float("nan"))


class Lost(NamedTuple):
    """What of a reference's vocabulary a sample never says.

    Attributes:
        words: share of the reference's word types (different tokens).
        mass: share of the reference's tokens that are of those types.
    """

    words: float
    mass: float


def lost_vocabulary(stories: Stories, reference: Stories) -> Lost:
    """The word types of the reference that never occur, and how much of the reference they are; NaN if it has no token."""
    types, counts = np.unique(flat(reference)[0], return_counts=True)
    missing = ~np.isin(types, flat(stories)[0])
    return Lost(float(missing.mean()), float(counts[missing].sum() / counts.sum())) if len(types) else Lost(np.nan, np.nan)


def survival(stories: Stories, counts) -> dict[str, float]:
    """The share of word types still seen, by how often they occur in a reference; NaN where it has none so rare.

    Args:
        counts: (vocabulary,) how often the reference has each token.

    Returns:
        {"1": share, "2": ..., "3-5": ..., "6-10": ..., "> 10": ...}
    """
    counts = np.asarray(counts)
    seen = np.isin(np.arange(len(counts)), flat(stories)[0])
    groups = {name: seen[(counts >= low) & (counts <= high)] for name, (low, high) in _BINS.items()}
    return {name: float(group.mean()) if len(group) else float("nan") for name, group in groups.items()}


def copied(stories: Stories, reference: Stories, n: int = _COPIED) -> float:
    """The share of stories of which some n tokens in a row are in the reference: memorised, if that was the training text.

    The reference is read in parts, and may be rows of tokens that lie on disk, with whatever marks the end of a story left
    in. A story shorter than n tokens counts as not copied; NaN if there are no stories.
    """
    if not len(stories):
        return float("nan")
    codes, story = grams(*flat(stories), n)
    wanted = np.unique(codes)
    sieve = np.zeros(int(_SIEVE) + 1, bool)  # most of a long text is left out by one look, before the search
    sieve[wanted & _SIEVE] = True
    found = np.zeros(len(wanted), bool)
    for start in range(0, len(reference), _CHUNK):
        there, _ = grams(*flat(reference[start : start + _CHUNK]), n)
        found |= np.isin(wanted, there[sieve[there & _SIEVE]])
    held = np.zeros(len(stories), bool)
    held[story[found[np.searchsorted(wanted, codes)]]] = True
    return float(held.mean())


def ngram_frechet(stories: Stories, reference: Stories, dimensions: int = 64) -> float:
    """Squared Fréchet distance in the space of `ngram_features`; NaN for fewer than two stories on either side.

    Like any FID it is biased upwards by about 1/n: state both counts, and read it against equally many real stories.
    """
    if min(len(stories), len(reference)) < 2:
        return float("nan")
    return frechet_distance(ngram_features(stories, dimensions), ngram_features(reference, dimensions))


def mauve(a, b, clusters: int | None = None, scaling: float = 5.0) -> float:
    """The area under the divergence frontier of two samples of features, as MAUVE (Pillutla et al. 2102.01454) has it.

    Both samples are quantised jointly by k-means into histograms P and Q; the frontier is (exp(-c KL(Q|R)), exp(-c KL(P|R)))
    over the mixtures R of P and Q. MAUVE's features are those of a large language model, so that its values have nothing in
    common with these. Equal sets score 1, equal laws less at a finite number of samples: state the counts. The score is
    symmetric but for the clustering.

    Args:
        a, b: features, (n, d) and (m, d).
        clusters: of k-means, from a fixed seed; None is a tenth of the smaller sample, as in the paper; fewer where there are
            fewer different points.
        scaling: c.

    Raises:
        InputError: features that do not fit together, clusters < 1 or more than points, a scaling that is not positive.
    """
    from sklearn.cluster import KMeans

    a, b = pair(a, b, ("a", "b"), 1)
    if not 0 < scaling < np.inf:
        raise InputError(f"scaling must be a positive number, not {scaling!r}.")
    joint = np.concatenate([a, b])
    k = max(2, min(len(a), len(b)) // 10) if clusters is None else whole("clusters", clusters, 1, len(joint))
    k = min(k, len(np.unique(joint, axis=0)))
    label = KMeans(k, n_init=2, random_state=0).fit_predict(joint)
    p, q = (np.bincount(part, minlength=k) / len(part) for part in (label[: len(a)], label[len(a) :]))
    return frontier(p, q, scaling)


def frontier(p: np.ndarray, q: np.ndarray, scaling: float = 5.0) -> float:
    """The area under the divergence frontier of two histograms (k,), from 0 (never quite reached) to 1 (equal)."""
    from scipy.special import rel_entr

    w = np.linspace(0, 1, _MIXTURES)[:, None]
    mixture = w * p + (1 - w) * q
    x, y = (np.exp(-scaling * np.maximum(rel_entr(one, mixture).sum(1), 0)) for one in (q, p))
    # from (1, 0) up to y(0), along the curve to (x(1), 1), and on to (0, 1)
    return float(x[-1] + ((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2).sum())


def text_panel(
    reference: np.ndarray,
    end: int,
    packing: str,
    vocabulary: int,
    *,
    training: np.ndarray | None = None,
    copied_from: int = _COPIED,
    samples: int = 1000,
) -> Panel:
    """A fixed way to judge generated rows of tokens against held-out real ones.

    Measured are distinct_1, distinct_2 and distinct_3; repetition (of 4 tokens); lost_words and lost_word_mass; story_length
    (mean, tokens) and unfinished (share without an end); ngram_frechet; mauve (against as many real rows); and copied
    (the share of stories with `copied_from` tokens in a row from the training text). Where a sample cannot say (one story, no
    token), the value is NaN.

    Args:
        reference: held-out real rows (m, length), m >= 4, packed as the model's. Some `samples` of them, in a fixed
            mixed order, stand for a perfect model, and at most 5,000 of the others are what models are compared with.
        end: the token that ends a story.
        packing: "stories" or "contiguous".
        vocabulary: token ids are below it.
        training: real rows that the model was trained on, in memory or mapped from disk; None leaves out `copied`.
        copied_from: tokens in a row from which on a passage is a copy; stories of few phrases, as a small grammar's, share
            twelve by chance, and the floor says how often.
        samples: rows that a generation is judged by; half of the reference if that is less.

    Raises:
        InputError: too few rows, an unknown packing, tokens or an end outside the vocabulary.
    """
    vocabulary = whole("vocabulary", vocabulary, 1, 2**16)
    end = whole("end", end, 0, vocabulary - 1)
    samples, copied_from = whole("samples", samples, 2, 10**9), whole("copied_from", copied_from, 1, 10**6)
    if np.ndim(reference) != 2 or len(reference) < 4:
        raise InputError(f"reference must be tokens of shape (m, length) with m >= 4, not of shape {np.shape(reference)}.")
    samples = min(samples, len(reference) // 2)
    order = np.random.default_rng(0).permutation(len(reference))  # a file's stories may come in an order that means something
    held_out, others = (np.asarray(reference[rows]) for rows in np.split(order[: samples + _REFERENCE], [samples]))
    if (most := max(others.max(initial=0), held_out.max(initial=0))) >= vocabulary:
        raise InputError(f"reference must have token ids below the vocabulary of {vocabulary}, not {most}.")
    real = pieces(others, end, packing).stories
    space = ngram_features(real)

    def measure(tokens) -> dict[str, float]:
        stories, ended = pieces(tokens, end, packing)
        seen = _compared(stories, ended, real, space, samples)
        return seen | ({} if training is None else {"copied": copied(stories, training, copied_from)})

    words = (
        f"Every generation is judged by {samples} sequences of at most {others.shape[1]} tokens, before any correction, "
        f"against {len(others)} held-out real ones, by n-grams of tokens: ngram_frechet and mauve (MAUVE-like, c = 5, against "
        f"as many) are of {space.shape[1]} hashed 1- and 2-gram features, repetition is of {_REPEATED} tokens, copied of "
        f"{copied_from}. "
        f"The dotted line is what as many held-out real sequences score."
    )

    def see(points, variables) -> dict[str, np.float32]:
        return {name: np.float32(value) for name, value in measure(points["tokens"][:samples]).items()}

    def annotate(ds):
        for name, value in measure(held_out).items():
            if name in ds:
                ds[name].attrs["floor"] = float(value)
        ds.attrs["evaluation"] = words
        ds.attrs["features"] = f"hashed n-grams of tokens ({space.shape[1]} dimensions)"
        return ds

    return Panel(see, annotate, words)


def _compared(stories, ended, real, space: np.ndarray, samples: int) -> dict[str, float]:
    """The measures of some stories against real ones, whose n-gram features are `space`."""
    found, lost = ngram_features(stories), lost_vocabulary(stories, real)
    enough = min(len(stories), len(real)) > 1
    return {
        **{f"distinct_{n}": distinct_n(stories, n) for n in (1, 2, 3)},
        "repetition": repetition(stories, _REPEATED),
        "lost_words": lost.words,
        "lost_word_mass": lost.mass,
        "story_length": lengths(stories).mean,
        "unfinished": float(np.mean(~ended)) if len(ended) else float("nan"),
        "ngram_frechet": frechet_distance(found, space) if enough else float("nan"),
        "mauve": mauve(found, space[:samples]) if enough else float("nan"),
    }
