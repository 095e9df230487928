"""A small grammar of children's stories whose distribution is known: entropy, length and the count of every word, exactly.

A story is a plot, a plot is a sequence of beats, a beat is a choice of lines, and a line is words and slots. A slot is drawn
where a story first mentions it and copied wherever it is mentioned again. Beats and slots are independent given the plot, so
every expectation is a sum over lines; what a context-free grammar could not say is only that copies are copies.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from mcloop.data.story_plots import PLOTS, Beat
from mcloop.data.words import BOYS, GIRLS, MOST, SLOTS, thing_words
from mcloop.errors import InputError

_PIECE = re.compile(r"\{\w+(?:\.\w+)?\}|[\w-]+|[.,!?\"]")
_EXPONENT = 10.0  # of Zipf's law at most: the rarest word then still has a probability above 1e-32


class Grammar(NamedTuple):
    """A distribution over stories that is known.

    Attributes:
        name: as it appears in results.
        words: the terminals, punctuation included; a story is a sequence of indices into them. A tokenizer of words gives
            id i to words[i], and the end of a story its own id len(words).
        sample: (NumPy generator, n) -> n independent stories, uint16 arrays (length,), without an end.
        log_prob: story -> nats of the whole story, its end included; -inf for what the grammar cannot say.
        entropy: of a story, nats: the least mean negative log-likelihood a story that any model can have.
        length: expected words a story, without the end; a model also predicts the end, so perplexity counts one token more.
        rare: the indices of the words of the long-tailed slot, the most frequent first. Every story draws exactly one of
            them, and may repeat it: over n stories the number of stories that hold word i is binomial(n, p_i).
        shares: (len(rare),) the probabilities p_i.
        counts: (len(words),) expected count of each word a story.
    """

    name: str
    words: tuple[str, ...]
    sample: Callable[[np.random.Generator, int], list[np.ndarray]]
    log_prob: Callable[[Sequence[int]], float]
    entropy: float
    length: float
    rare: tuple[int, ...]
    shares: np.ndarray
    counts: np.ndarray


class Slot(NamedTuple):
    """What a slot may be: probabilities (k,), and for each of its forms the k words ("" is the form that tells them apart)."""

    p: np.ndarray
    forms: Mapping[str, Sequence[str]]


class _Mention(NamedTuple):
    slot: int
    form: str


class _Line(NamedTuple):
    p: float
    symbols: tuple[int | _Mention, ...]


class _Plot(NamedTuple):
    p: float
    beats: tuple[tuple[_Line, ...], ...]


class _Rules(NamedTuple):
    """A grammar over indices: `forms[s][form]` are the k words of slot s, `values[s][form]` the draws that show a word."""

    words: tuple[str, ...]
    plots: tuple[_Plot, ...]
    p: tuple[np.ndarray, ...]
    forms: tuple[dict[str, np.ndarray], ...]
    values: tuple[dict[str, dict[int, list[int]]], ...]


def story_grammar(things: int = 600, exponent: float = 1.0) -> Grammar:
    """Stories about a child, a friend, and a thing that is lost, found, broken, earned, shared or blown away.

    Six plots of English written for this library, 62 to 127 words a story, so that a context of 128 holds it and its end;
    names, places, feelings and so on have uneven probabilities, and the thing, which every story has, follows Zipf's law:
    p_i is proportional to i^-exponent. Hundreds of things are thus as rare as the laws of lost words need (D4 and Z1 of
    `mcloop.laws`).

    Args:
        things: words of the long-tailed slot.
        exponent: of Zipf's law; 0 makes all things equally likely.

    Raises:
        InputError: a number of things or an exponent out of range.
    """
    if isinstance(things, bool) or not isinstance(things, int | np.integer) or not 1 <= things <= MOST:
        raise InputError(f"things must be a whole number from 1 to {MOST}, not {things!r}.")
    if isinstance(exponent, bool) or not isinstance(exponent, int | float | np.number) or not 0 <= exponent <= _EXPONENT:
        raise InputError(f"exponent must be a number from 0 to {_EXPONENT:g}, not {exponent!r}.")
    said = f"children's stories (a grammar of {len(PLOTS)} plots, {things} things, Zipf exponent {exponent:g})"
    return grammar(said, PLOTS, _slots(int(things), float(exponent)), "thing")


def _slots(things: int, exponent: float) -> dict[str, Slot]:
    # girls and boys in turn, so that neither is the more frequent by much
    names = [name for both in zip(GIRLS, BOYS, strict=True) for name in both]
    pronouns = {"child": ("girl", "boy"), "he": ("she", "he"), "him": ("her", "him"), "his": ("her", "his")}
    pronouns |= {"He": ("She", "He"), "His": ("Her", "His")}
    hero = {form: [both[i % 2] for i in range(len(names))] for form, both in pronouns.items()}
    slots = {name: _uneven(words) for name, words in SLOTS.items()}
    return slots | {"hero": _uneven(names, hero), "thing": zipf(thing_words(things), exponent)}


def zipf(words: Sequence[str], exponent: float) -> Slot:
    """A slot whose i-th word, i from 1, has a probability proportional to i^-exponent."""
    p = np.arange(1, len(words) + 1) ** -exponent
    return Slot(p / p.sum(), {"": words})


def _uneven(words, forms=None):
    """A slot of which the first word is a few times as likely as the last: i^-1 from i = 4, gentler than Zipf's law."""
    p = 1 / (np.arange(len(words)) + 4)
    return Slot(p / p.sum(), {"": words} | (forms or {}))


def grammar(name: str, plots: Sequence[tuple[float, Sequence[Beat]]], slots: Mapping[str, Slot], rare: str) -> Grammar:
    """A grammar of weighted plots of beats of weighted lines (`mcloop.data._plots` shows the notation).

    It must be unambiguous, one derivation a story, for `entropy` to be that of stories; `log_prob` sums over derivations.

    Args:
        name: as it appears in results.
        plots: (weight, beats) of each plot.
        slots: what the lines mention.
        rare: the slot whose words `Grammar.rare` has.
    """
    rules = _compile(plots, slots)
    index = {word: i for i, word in enumerate(rules.words)}
    return Grammar(
        name=name,
        words=rules.words,
        sample=partial(_sample, rules),
        log_prob=partial(_log_prob, rules),
        entropy=_entropy(rules),
        length=float(_counts(rules).sum()),
        rare=tuple(index[word] for word in slots[rare].forms[""]),
        shares=slots[rare].p,
        counts=_counts(rules),
    )


def _compile(plots, slots) -> _Rules:
    """Lines as words' indices and mentions; words are numbered as they come, in the lines and then in the slots."""
    index: dict[str, int] = {}
    number = {name: i for i, name in enumerate(slots)}

    def symbol(piece):
        if not piece.startswith("{"):
            return index.setdefault(piece, len(index))
        name, _, form = piece[1:-1].partition(".")
        return _Mention(number[name], form)

    def shares(weighted):
        total = sum(weight for weight, _ in weighted)
        return [(weight / total, what) for weight, what in weighted]

    def lines(beat):
        return tuple(_Line(p, tuple(map(symbol, _PIECE.findall(text)))) for p, text in shares(beat))

    read = tuple(_Plot(p, tuple(map(lines, beats))) for p, beats in shares(plots))
    forms, values = [], []
    for slot in slots.values():
        forms.append({f: np.array([index.setdefault(w, len(index)) for w in ws], np.uint16) for f, ws in slot.forms.items()})
        values.append({form: defaultdict(list) for form in slot.forms})
        for form, words in forms[-1].items():
            for value, word in enumerate(words.tolist()):
                values[-1][form][word].append(value)
    return _Rules(tuple(index), read, tuple(slot.p for slot in slots.values()), tuple(forms), tuple(values))


def _sample(rules: _Rules, rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """All stories of a plot at once, line by line; a slot that a story does not mention is drawn in vain."""
    plot_of = rng.choice(len(rules.plots), n, p=[plot.p for plot in rules.plots])
    drawn = [rng.choice(len(p), n, p=p) for p in rules.p]
    stories: list[np.ndarray] = [np.empty(0, np.uint16)] * n
    for which, plot in enumerate(rules.plots):
        rows = np.flatnonzero(plot_of == which)
        longest = sum(max(len(line.symbols) for line in beat) for beat in plot.beats)
        text, end = np.empty((len(rows), longest), np.uint16), np.zeros(len(rows), np.int64)
        for beat in plot.beats:
            choice = rng.choice(len(beat), len(rows), p=[line.p for line in beat])
            for i, line in enumerate(beat):
                here = np.flatnonzero(choice == i)
                for step, symbol in enumerate(line.symbols):
                    fixed = isinstance(symbol, int)
                    said = symbol if fixed else rules.forms[symbol.slot][symbol.form][drawn[symbol.slot][rows[here]]]
                    text[here, end[here] + step] = said
                end[here] += len(line.symbols)
        for row, story, length in zip(rows.tolist(), text, end.tolist(), strict=True):
            stories[row] = story[:length]
    return stories


def _log_prob(rules: _Rules, story: Sequence[int]) -> float:
    """Forward over the beats of every plot; a state is (words read, what each slot has been bound to, -1 for nothing)."""
    story = [int(word) for word in story]
    total = 0.0  # a story has at most a few hundred nats, so probabilities do not underflow
    for plot in rules.plots:
        states = {(0, (-1,) * len(rules.p)): plot.p}
        for beat in plot.beats:
            after: dict[tuple[int, tuple[int, ...]], float] = defaultdict(float)
            for (place, bound), p in states.items():
                for line in beat:
                    for now, q in _read(rules, line, story[place : place + len(line.symbols)], bound):
                        after[place + len(line.symbols), now] += p * line.p * q
            states = after
        total += sum(p for (place, _), p in states.items() if place == len(story))
    return math.log(total) if total > 0 else -math.inf


def _read(rules, line, words, bound):
    """The ways to read `words` as a line: (bindings after it, probability of what was newly bound)."""
    ways = [(bound, 1.0)] if len(words) == len(line.symbols) else []
    for symbol, word in zip(line.symbols, words, strict=False):
        if isinstance(symbol, int):
            ways = ways if symbol == word else []
            continue
        slot, further = symbol.slot, []
        for now, p in ways:
            for value in rules.values[slot][symbol.form].get(word, ()):
                if now[slot] == value:
                    further.append((now, p))
                elif now[slot] < 0:
                    further.append(((*now[:slot], value, *now[slot + 1 :]), p * rules.p[slot][value]))
        ways = further
    return ways


def _entropy(rules: _Rules) -> float:
    """The plot, then its beats, then each slot once, as often as the plot mentions it: H = sum over independent choices."""
    total = _nats([plot.p for plot in rules.plots])
    for plot in rules.plots:
        unsaid = np.ones(len(rules.p))  # the chance that no beat mentions a slot
        for beat in plot.beats:
            total += plot.p * _nats([line.p for line in beat])
            said = np.zeros(len(rules.p))
            for line in beat:
                said[list({symbol.slot for symbol in line.symbols if not isinstance(symbol, int)})] += line.p
            unsaid *= np.maximum(1 - said, 0)  # shares that sum to one may exceed it by rounding
        total += plot.p * sum((1 - q) * _nats(p) for q, p in zip(unsaid, rules.p, strict=True))
    return float(total)


def _counts(rules: _Rules) -> np.ndarray:
    """Expected count of every word a story: a mention has the slot's law, whether it is the first or a copy."""
    counts = np.zeros(len(rules.words))
    for plot in rules.plots:
        for line in (line for beat in plot.beats for line in beat):
            for symbol in line.symbols:
                if isinstance(symbol, int):
                    counts[symbol] += plot.p * line.p
                else:
                    np.add.at(counts, rules.forms[symbol.slot][symbol.form], plot.p * line.p * rules.p[symbol.slot])
    return counts


def _nats(p) -> float:
    return -float(sum(x * math.log(x) for x in p))
