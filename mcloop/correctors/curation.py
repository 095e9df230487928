"""Curation of stories: of what a language model tells, the loop trains on what scores best, or well enough.

A score is a factory, (model, truth) -> rate, and a rate is a function from tokens (b, length) to b numbers, of which more is
better: `likelihood`, `diversity`, `strings`, or one of your own. Stories may lie on disk and be larger than memory: they are
scored a block at a time, and what is kept of them is named by its rows, not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from mcloop import progress, random
from mcloop.checks import check, whole
from mcloop.correctors.scores import APART, Rate, Score, is_function
from mcloop.correctors.scores import diversity as diversity
from mcloop.correctors.scores import likelihood as likelihood
from mcloop.correctors.scores import points as points
from mcloop.correctors.scores import strings as strings
from mcloop.errors import InputError
from mcloop.memory.shards import Shards
from mcloop.storage.files import one_line
from mcloop.types import Corrector, Model, Params

_BLOCK = 1024  # stories that are read at once
_REAL = 10_000  # real stories at most of which a quantile is taken: the share above it is then known to 0.005


def best_of(k: int, score: Score, name: str | None = None) -> Corrector:
    """For every story k candidates, of which the one that scores highest is kept; of equal ones the first.

    It sharpens: a story whose score exceeds that of a share F of all stories is k F^(k-1) times as frequent among the kept,
    generation after generation, and only real data in every generation bounds how far that goes. It is the curation of
    Ferbach et al. (2407.09499) with users who never err; theirs keep one of k with probability proportional to exp(reward),
    by which the mean of exp(reward) rises by at least (k-1)/k of its variance over its maximum (`correctors.best_of_k`).

    Args:
        k: candidates, >= 1; 1 is no correction, and scores nothing. A generation draws k times as many stories.
        score: what is best.
        name: as it appears in results; None is "best_of_" and the number.

    Raises:
        InputError: another k, a score that is no function; (on use) a model that is not hosted, a score that is no number.
    """
    k = whole("k", k, 1, 10**6)
    is_function("score", score)

    def sample(key, model: Model, params, truth, count) -> Shards:
        count = _hosted(model, count)
        if k == 1 or count == 0:
            return model.sample(key, params, count)
        rate = score(model, truth)
        candidates = [model.sample(_nth(key, i), params, count) for i in range(k)]
        winner = np.argmax([_scores(rate, body, model) for body in candidates], 0)
        kept = (_only(candidates[i], np.flatnonzero(winner == i)) for i in range(k))
        return Shards(tuple(part for body in kept for part in body.parts))

    return Corrector(name or f"best_of_{k}", sample, batched=False, candidates=float(k))


def keep(score: Score, at_least: float | None = None, quantile: float | None = None, most: int = 50) -> Corrector:
    """Stories are drawn until as many as are asked for score at least so much; the others are thrown away.

    A verifier, as in Feng et al. (2406.07515): if it passes good stories with probability phi and bad ones with psi, a share p
    of bad ones becomes p psi / (p psi + (1 - p) phi), and among the kept the good are the majority if p < phi / (phi + psi).
    What it cannot tell apart it does not correct: the loop goes to what the score likes, which need not be what is real.

    Args:
        score: what is good.
        at_least: the lowest score that is kept.
        quantile: in [0, 1): the same as a quantile of the scores of the real training set, of which a share of at least
            1 - quantile passes; of a large set it is taken of 10,000 stories, always the same.
        most: candidates that may be drawn, as a multiple of the stories asked for.

    Raises:
        InputError: both or neither of at_least and quantile, or one out of range; (on use) too few stories that pass.
    """
    is_function("score", score)
    most = whole("most", most, 1, 10**6)
    if (at_least is None) == (quantile is None):
        raise InputError("keep must be given either at_least or quantile, not both and not neither.")
    check("at_least", 0 if at_least is None else at_least, "a finite number", np.isfinite)
    check("quantile", 0 if quantile is None else quantile, "a number in [0, 1)", lambda v: (v >= 0) & (v < 1))
    bar = _quantile(quantile) if at_least is None else lambda model, truth, rate: float(at_least)

    def sample(key, model: Model, params, truth, count) -> Shards:
        count = _hosted(model, count)
        if count == 0:
            return Shards()
        rate = score(model, truth)
        least = bar(model, truth, rate)
        kept, drawn, passed, rounds = [], 0, 0, 0
        while passed < count:
            missing, left = count - passed, most * count - drawn
            if missing > left:
                of = "" if quantile is None else f" (quantile {quantile:g} of the real ones)"
                raise InputError(
                    f"at_least of {least:.4g}{of} was reached by {passed} of {drawn} {_units(model)} ({passed / drawn:.2%}), "
                    f"too few for {count} among {most} times as many: lower it, or raise most."
                )
            # as many as are likely to be enough, a twentieth more, but no more at once than the first time
            likely = int(np.ceil(1.05 * missing * drawn / max(passed, 1)))
            body = model.sample(_nth(key, rounds), params, min(count, left, likely) if drawn else count)
            good = np.flatnonzero(_scores(rate, body, model) >= least)[:missing]
            kept.extend(_only(body, good).parts)
            drawn, passed, rounds = drawn + len(body), passed + len(good), rounds + 1
        return Shards(tuple(kept))

    return Corrector("keep", sample, batched=False, candidates=1 / (1 - (quantile or 0.0)))


def _nth(key, i: int):
    """The key of a draw; the first is that by which the model was measured, so that it is not made twice."""
    return random.fold_in(key, APART + i) if i else key


def _scores(rate: Rate, body: Shards, model: Model) -> np.ndarray:
    """(len(body),) the scores of stories, or of an external model's points, read a block at a time."""
    found, shown = np.empty(len(body)), None if model.hosted is None else model.hosted.shown
    with progress.stage("score", len(body)) as tell:
        for at in range(0, len(body), _BLOCK):
            index = np.arange(at, min(at + _BLOCK, len(body)))
            taken = body.take(index)
            given = np.asarray(rate(taken["tokens"] if shown is None else shown(taken)), np.float64)
            if given.shape != index.shape or np.isnan(given).any():
                raise InputError(
                    f"score must give a number for each of {len(index)} {_units(model)}, not {one_line(given, 60)}."
                )
            found[index] = given
            tell(at + len(index))
    return found


def _units(model: Model) -> str:
    return "stories" if model.hosted is None or model.hosted.shown is None else "points"


def _only(body: Shards, chosen: np.ndarray) -> Shards:
    """The points at these places, in rising order, of a body of data; the values stay where they are."""
    ends = np.cumsum([len(part) for part in body.parts])
    pairs = zip(body.parts, np.split(chosen, np.searchsorted(chosen, ends[:-1])), ends, strict=True)
    own = [(part, here - end + len(part)) for part, here, end in pairs if len(here)]
    return Shards(tuple(replace(part, rows=here if part.rows is None else part.rows[here]) for part, here in own))


def _quantile(share: float) -> Callable[[Model, Params, Rate], float]:
    """That quantile of the scores of real stories, taken once for a loop."""
    last: list = []

    def find(model: Model, truth, rate: Rate) -> float:
        if not last or last[0] is not model.observe or last[1] is not truth:
            real = model.observe(jax.random.key(0), None)[0]  # the same whatever the key
            chosen = np.random.default_rng(0).choice(len(real), min(_REAL, len(real)), replace=False)
            scores = _scores(rate, _only(real, np.sort(chosen)), model)
            # "lower" is a score that occurs: an infinite one and its neighbour have no mean
            last[:] = model.observe, truth, float(np.quantile(scores, share, method="lower"))
        return last[2]

    return find


def _hosted(model: Model, count) -> int:
    if model.hosted is None:
        raise InputError(f"curation chooses among stories that a hosted model draws, and {model.name} is not hosted.")
    return int(count)
