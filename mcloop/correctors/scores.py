"""What is good of a point that a model draws: the scores by which curation chooses.

A score is a factory, (model, truth) -> rate, and a rate is a function from tokens (b, length) to b numbers, of which more is
better; for an external model it is one from its points, as their owner has them.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import whole
from mcloop.data.tokens import Tokenizer
from mcloop.errors import InputError, own
from mcloop.metrics.ngrams import distinct, flat, grams, pieces
from mcloop.models.language import Packing, mask
from mcloop.models.training import Fitted, averaged
from mcloop.nets.network import Variables
from mcloop.storage.files import one_line
from mcloop.storage.identity import Memo
from mcloop.types import Learner, Model, Params

Rate = Callable[[Any], np.ndarray]  # points -> (b,) numbers
Score = Callable[[Model, Params], Rate]

APART = 2**30  # from here on keys are folded in, apart from those of chunks and of replicas, which count from 0
_SCORED = 32  # of the stories that are read at once, those that a reference model reads at once: a shape, compiled once


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
            key = random.fold_in(jax.random.key(seed), APART)  # not the replica's: another would have another reference
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
    is_function("function", function)
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


def points(function: Callable[[Any], Any]) -> Score:
    """What a function of yours says of an external model's points: rows of a DataFrame, an array, a list of strings.

    Args:
        function: b points, in the form in which the model was given its real ones -> (b,) numbers.

    Raises:
        InputError: no function; (on use) other than a number for each point, or a model whose points are mcloop's own.
        OwnCodeError: (on use) it fails.
    """
    is_function("function", function)
    called = one_line(getattr(function, "__name__", type(function).__name__), 40)

    def score(model: Model, truth) -> Rate:
        if model.hosted is None or model.hosted.shown is None:
            raise InputError(
                f"points scores what an external model draws, and {model.name} is none: use strings, or another score."
            )
        return lambda drawn: own(lambda: function(drawn), f"The score {called}")

    return score


def _stories(tokens: np.ndarray, end: int, packing: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The stories of rows, and the row that each is of; every row has one at least."""
    found = [pieces(row[None], end, packing).stories for row in tokens]
    return [story for of in found for story in of], np.repeat(np.arange(len(tokens)), [len(of) for of in found])


def _packed(packing, end) -> int:
    pieces(np.zeros((0, 1), np.uint16), end, packing)  # refuses another packing
    return whole("end", end, 0, 2**16 - 1)


def is_function(field: str, value) -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise InputError(f"{field} must be a function, not {one_line(repr(value), 60)}.")
