"""Curation of stories: of what a language model tells, the loop trains on what scores best, or well enough.

A score is a factory, (model, truth) -> rate, and a rate is a function from tokens (b, length) to b numbers, of which more is
better: `likelihood`, `diversity`, `strings`, or one of your own. Stories may lie on disk and be larger than memory: they are
scored a block at a time, and what is kept of them is named by its rows, not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import progress, random
from mcloop.checks import check, whole
from mcloop.data.tokens import Tokenizer
from mcloop.errors import InputError
from mcloop.memory.shards import Shards
from mcloop.metrics.ngrams import distinct, flat, grams, pieces
from mcloop.models.language import Packing, mask
from mcloop.models.training import Fitted, averaged
from mcloop.nets.network import Variables
from mcloop.storage.files import one_line
from mcloop.storage.identity import Memo
from mcloop.types import Corrector, Learner, Model, Params

Rate = Callable[[np.ndarray], np.ndarray]  # tokens uint16 (b, length) -> (b,) numbers
Score = Callable[[Model, Params], Rate]

_BLOCK = 1024  # stories that are read at once
_SCORED = 32  # of them, those that a reference model reads at once: a shape, compiled once
_REAL = 10_000  # real stories at most of which a quantile is taken: the share above it is then known to 0.005
_APART = 2**30  # from here on keys are folded in, apart from those of chunks and of replicas, which count from 0


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
    _function("score", score)

    def sample(key, model: Model, params, truth, count) -> Shards:
        count = _hosted(model, count)
        if k == 1 or count == 0:
            return model.sample(key, params, count)
        rate = score(model, truth)
        candidates = [model.sample(_nth(key, i), params, count) for i in range(k)]
        winner = np.argmax([_scores(rate, body) for body in candidates], 0)
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
    _function("score", score)
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
                    f"at_least of {least:.4g}{of} was reached by {passed} of {drawn} stories ({passed / drawn:.2%}), too few "
                    f"for {count} among {most} times as many: lower it, or raise most."
                )
            # as many as are likely to be enough, a twentieth more, but no more at once than the first time
            likely = int(np.ceil(1.05 * missing * drawn / max(passed, 1)))
            body = model.sample(_nth(key, rounds), params, min(count, left, likely) if drawn else count)
            good = np.flatnonzero(_scores(rate, body) >= least)[:missing]
            kept.extend(_only(body, good).parts)
            drawn, passed, rounds = drawn + len(body), passed + len(good), rounds + 1
        return Shards(tuple(kept))

    return Corrector("keep", sample, batched=False, candidates=1 / (1 - (quantile or 0.0)))


def likelihood(
    learner: Learner, end: int, packing: Packing, inclusive: bool, seed: int = 0, params: Fitted | Variables | None = None
) -> Score:
    """How likely a reference model finds a story: the mean log-probability of its tokens that count, in nats, <= 0.

    The reference is the model's own family, fitted on the real training set once a process, by a key of its own: every
    replica of a run has the same one, and a run that goes on gets it again to the bit. A story of which no token counts
    scores -inf. What is likeliest a token is plain and repetitive, not typical text (Holtzman et al. 1904.09751).

    Args:
        learner: the network of the model, with a `log_prob`.
        end, packing, inclusive: as the learner has them; inclusive is whether the first token is given and does not count.
        seed: of the reference's fit.
        params: a reference that is fitted already, in place of a fit.

    Raises:
        InputError: a learner without log_prob, or an argument out of range.
    """
    end, seed = _packed(packing, end), whole("seed", seed, 0, 2**31 - 1)
    if not isinstance(learner, Learner) or learner.log_prob is None:
        raise InputError("learner must be a network with a log_prob, such as a StoryModel's learner.")
    log_prob, known = learner.log_prob, Memo()

    @jax.jit
    def read(variables, tokens):
        counted = mask(tokens, end, packing)[:, int(inclusive) :].sum(1)
        nats = log_prob(variables, {"tokens": tokens})
        return jnp.where(counted > 0, nats / jnp.maximum(counted, 1), -jnp.inf)

    def score(model: Model, truth) -> Rate:
        place = id(model.observe)
        if params is None and place not in known:
            key = random.fold_in(jax.random.key(seed), _APART)  # not the replica's: another would have another reference
            real, origin = model.observe(key, None)
            known[place] = model.fit(key, origin, real)[0], model  # the model is held, so that no other gets its id
        fitted = known[place][0] if params is None else params
        variables = averaged(fitted) if isinstance(fitted, Fitted) else fitted

        def rate(tokens: np.ndarray) -> np.ndarray:
            padded = np.full((-(-len(tokens) // _SCORED) * _SCORED, tokens.shape[1]), end, np.int32)
            padded[: len(tokens)] = tokens
            found = [read(variables, part) for part in padded.reshape(-1, _SCORED, tokens.shape[1])]
            return np.concatenate(found)[: len(tokens)]

        return rate

    return score


def diversity(end: int, packing: Packing, n: int = 2) -> Score:
    """Different n-grams of a story over all its n-grams, in [0, 1]: 1 - seq-rep-n of Welleck et al. (1908.04319).

    A story of fewer than n tokens scores 0; a row of contiguous text scores the mean of its stories. Long stories repeat
    more: what is selected by it is also short.

    Raises:
        InputError: n < 1, another packing, an end that is no token.
    """
    end, n = _packed(packing, end), whole("n", n, 1, 10**6)

    def rate(tokens: np.ndarray) -> np.ndarray:
        stories, row = _stories(tokens, end, packing)
        codes, story = grams(*flat(stories), n)
        total = np.bincount(story, minlength=len(stories))
        different = np.bincount(distinct(codes, story)[1], minlength=len(stories))
        return np.bincount(row, different / np.maximum(total, 1)) / np.bincount(row)

    return lambda model, truth: rate


def strings(function: Callable[[str], float], tokenizer: Tokenizer, packing: Packing) -> Score:
    """What a function of yours says of a story's text; True and False are 1 and 0.

    A row of contiguous text scores the mean of its stories. The function is tried on one real row before anything is drawn.
    A run that goes on asks again: to go on to the bit, it must depend on the text alone.

    Args:
        function: text -> a finite number.
        tokenizer, packing: of the stories.

    Raises:
        InputError: no function; (on use) it fails on a story, or gives no finite number.
    """
    _function("function", function)
    end, called = _packed(packing, tokenizer.end), one_line(getattr(function, "__name__", type(function).__name__), 40)

    def number(text: str) -> float:
        begins = f"the story that begins {' '.join(text.split())[:40]!r}"
        try:
            value = function(text)
            given = float(value) if isinstance(value, Real | np.bool_) else np.nan
        except Exception as error:
            what = one_line(f"{type(error).__name__}: {error}", 100)
            raise InputError(f"function {called} failed on {begins} ({what}).") from error
        if not np.isfinite(given):
            raise InputError(f"function {called} must give a finite number, not {one_line(repr(value), 60)}, for {begins}.")
        return given

    def rate(tokens: np.ndarray) -> np.ndarray:
        stories, row = _stories(tokens, end, packing)
        return np.bincount(row, [number(tokenizer.decode(story)) for story in stories]) / np.bincount(row)

    def score(model: Model, truth) -> Rate:
        rate(model.observe(jax.random.key(0), None)[0].take(np.arange(1))["tokens"])
        return rate

    return score


def _nth(key, i: int):
    """The key of a draw; the first is that by which the model was measured, so that it is not made twice."""
    return random.fold_in(key, _APART + i) if i else key


def _scores(rate: Rate, body: Shards) -> np.ndarray:
    """(len(body),) the scores of stories, read a block at a time."""
    found = np.empty(len(body))
    with progress.stage("score", len(body)) as tell:
        for at in range(0, len(body), _BLOCK):
            index = np.arange(at, min(at + _BLOCK, len(body)))
            given = np.asarray(rate(body.take(index)["tokens"]), np.float64)
            if given.shape != index.shape or np.isnan(given).any():
                raise InputError(f"score must give a number for each of {len(index)} stories, not {one_line(given, 60)}.")
            found[index] = given
            tell(at + len(index))
    return found


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
            scores = _scores(rate, _only(real, np.sort(chosen)))
            # "lower" is a score that occurs: an infinite one and its neighbour have no mean
            last[:] = model.observe, truth, float(np.quantile(scores, share, method="lower"))
        return last[2]

    return find


def _stories(tokens: np.ndarray, end: int, packing: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The stories of rows, and the row that each is of; every row has one at least."""
    found = [pieces(row[None], end, packing).stories for row in tokens]
    return [story for of in found for story in of], np.repeat(np.arange(len(tokens)), [len(of) for of in found])


def _packed(packing, end) -> int:
    pieces(np.zeros((0, 1), np.uint16), end, packing)  # refuses another packing
    return whole("end", end, 0, 2**16 - 1)


def _function(field: str, value) -> None:
    if not callable(value):
        raise InputError(f"{field} must be a function, not {one_line(repr(value), 60)}.")


def _hosted(model: Model, count) -> int:
    if model.hosted is None:
        raise InputError(f"curation chooses among stories that a hosted model draws, and {model.name} is not hosted.")
    return int(count)
