"""Loops of language models: a corpus, a transformer, and everything that is measured of what it tells."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from mcloop.data.grammar import Grammar
from mcloop.data.text import Corpus, counted, unpack
from mcloop.data.tokens import word_tokenizer
from mcloop.errors import InputError
from mcloop.memory.shards import generator
from mcloop.metrics.ngrams import pieces
from mcloop.metrics.panel import Panel
from mcloop.metrics.text import text_panel
from mcloop.models.hosted import hosted_model
from mcloop.models.language import language, tokens_codec
from mcloop.models.training import Training
from mcloop.nets.transformer import Shape
from mcloop.report.sample_texts import as_bytes
from mcloop.types import Learner, Model

_SCORED = 32  # sequences that are scored at once
_OWN = 128  # of a model's own sequences, whose perplexity is taken
_SEARCHED = 50_000  # training sequences at most in which copies are looked for
_JUDGES = 4  # held-out rows at least
_TOLD = 3  # stories that a report shows


class StoryModel(NamedTuple):
    """A family of language models, and how they are judged.

    Attributes:
        model: for `make_loop`.
        panel: its `see` is the model's `evaluate`.
        learner: the network.
    """

    model: Model
    panel: Panel
    learner: Learner


def corpus_of(grammar: Grammar, count: int, validation: int, length: int, seed: int = 0) -> Corpus:
    """Stories drawn from a grammar as a corpus, one a row; a token is a word.

    Args:
        count, validation: training and held-out stories; both are independent draws, so some may be equal by chance.
        length: tokens a row; stories and their ends must fit.
    """
    tokenizer = word_tokenizer(grammar.words)
    train, held_out = (
        rows(grammar, np.random.default_rng((seed, part)), n, length) for part, n in enumerate((count, validation))
    )
    return Corpus(
        name="grammar",
        tokenizer=tokenizer,
        packing="stories",
        length=length,
        train=train,
        validation=held_out,
        first=np.bincount(train[:, 0], minlength=tokenizer.vocabulary).astype(np.float64),
        held_out=tuple(tokenizer.decode(row) for row in held_out[:_TOLD]),
        source=f"{count} stories drawn from {grammar.name}",
        remarks=(),
        tokens=int(counted(train, tokenizer.end).sum()),
    )


def rows(grammar: Grammar, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """(count, length) uint16: new stories, each followed by ends."""
    found = np.full((count, length), len(grammar.words), np.uint16)
    for row, story in zip(found, grammar.sample(rng, count), strict=True):
        row[: len(story)] = story[:length]
    return found


def story_model(
    corpus: Corpus,
    shape: Shape,
    training: Training,
    *,
    grammar: Grammar | None = None,
    inclusive: bool = True,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    samples: int = 500,
    chunk: int = 256,
    dtype: Any = None,
    scan: bool = False,
    remat: bool = False,
    dropout: float = 0.0,
    mesh: Any = None,
) -> StoryModel:
    """Language models that are trained on a corpus and draw sequences like its rows.

    Args:
        corpus: real stories, packed.
        shape: of the transformer; its vocabulary must be the tokenizer's.
        training: a point is a row of the corpus.
        grammar: what the corpus was drawn from, if it was: the divergence from the truth is then exact.
        inclusive: draw the first token of every sequence from the real first tokens, as Gerstgrasser et al. do; otherwise
            it is learnt like any other.
        temperature, top_k, top_p: of sampling.
        samples: sequences that a generation is judged by.
        chunk: sequences drawn at once.
        dtype, scan, remat, dropout: of the network.
        mesh: devices to share the work.

    Raises:
        InputError: a grammar with contiguous text or with first tokens that are given; see also `language`.
    """
    end, first = corpus.tokenizer.end, corpus.first if inclusive else None
    learner = language(
        shape,
        end=end,
        length=corpus.length,
        packing=corpus.packing,  # pyright: ignore[reportArgumentType]
        first=first,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        dtype=dtype,
        scan=scan,
        remat=remat,
        dropout=dropout,
    )
    panel = story_panel(corpus, learner, samples, inclusive, grammar)
    model = hosted_model(
        learner,
        training,
        {"tokens": corpus.train},
        codec=tokens_codec(),
        evaluate=panel.see,
        samples=samples,
        chunk=chunk,
        estimator=(
            f"{learner.name} on {len(corpus.train):,} sequences of {corpus.length} tokens ({corpus.tokens:,} tokens of "
            f"{corpus.source}; {corpus.tokenizer.name}; {corpus.packing}), sampled at temperature {temperature:g}"
        ),
        fresh=None if grammar is None else lambda key, n: {"tokens": rows(grammar, generator(key), n, corpus.length)},
        mesh=mesh,
    )
    return StoryModel(model, panel, learner)


def story_panel(corpus: Corpus, learner: Learner, samples: int, inclusive: bool, grammar: Grammar | None = None) -> Panel:
    """What is measured of a language model: cross-entropy on held-out real text, what it thinks of its own stories, the
    measures of `metrics.text`, some stories; and with a grammar the exact divergence from the truth and the things forgotten.
    """
    if grammar is not None and (inclusive or corpus.packing != "stories"):
        raise InputError(
            "grammar must be None for a corpus that is contiguous or whose first tokens are given: it tells whole stories."
        )
    if len(corpus.validation) < _JUDGES:
        raise InputError(
            f"The held-out stories of {corpus.name!r} fill {len(corpus.validation)} rows of {corpus.length} tokens, and "
            f"{_JUDGES} are needed to judge a model by: give more text, or shorter rows (length)."
        )
    end, packing, tokenizer = corpus.tokenizer.end, corpus.packing, corpus.tokenizer
    # stories of a grammar share long passages by chance, and a large training text takes minutes to look through
    copied_from, searched = 12 if grammar is None else 60, corpus.train[:_SEARCHED]
    words = text_panel(
        corpus.validation, end, packing, tokenizer.vocabulary, training=searched, copied_from=copied_from, samples=samples
    )
    log_prob = jax.jit(lambda variables, tokens: learner.log_prob(variables, {"tokens": tokens}))  # pyright: ignore

    def score(variables, tokens) -> tuple[np.ndarray, np.ndarray]:
        """Nats of every sequence, and how many of its tokens count."""
        count = counted(tokens, end, packing)[:, int(inclusive) :].sum(1)
        nats = np.empty(len(tokens))
        for at in range(0, len(tokens), _SCORED):
            part = np.asarray(tokens[at : at + _SCORED], np.int32)
            padded = np.concatenate([part, np.full((_SCORED - len(part), part.shape[1]), end, np.int32)])
            nats[at : at + len(part)] = -np.asarray(log_prob(variables, padded))[: len(part)]
        return nats, count

    def see(points, variables) -> dict[str, Any]:
        tokens = np.asarray(points["tokens"])
        nats, count = score(variables, corpus.validation)
        own, own_count = score(variables, tokens[:_OWN])
        seen: dict[str, Any] = {"cross_entropy": np.float32(nats.sum() / count.sum())}
        seen["own_perplexity"] = np.float32(np.exp(own.sum() / max(own_count.sum(), 1)))
        if grammar is not None:
            seen |= _against(grammar, nats, truth, tokens, end)
        # of a row of contiguous text, the longest story that it begins
        texts = [tokenizer.decode(max(pieces(row[None], end, packing).stories, key=len)) for row in tokens[:_TOLD]]
        return seen | words.see(points, variables) | {"stories": as_bytes(texts)}

    truth = None if grammar is None else np.array([-grammar.log_prob(s) for s in unpack(corpus.validation, end)])

    def annotate(ds):
        ds = words.annotate(ds)
        # a network that was never trained finds every token equally likely
        blank, tokens = np.log(tokenizer.vocabulary), counted(corpus.validation, end, packing)[:, int(inclusive) :]
        ds["cross_entropy"].attrs["untrained"] = float(blank)
        if truth is not None:
            ds["excess"].attrs["untrained"] = float(np.mean(blank * tokens.sum(1) - truth))
        if not corpus.private:
            # there may be fewer of them than a model told
            texts = [*corpus.held_out[:_TOLD], *[""] * _TOLD][: ds.sizes.get("story", _TOLD)]
            ds["real_stories"] = (("story", "byte"), as_bytes(texts))
        if grammar is not None and truth is not None:
            ds["cross_entropy"].attrs["floor"] = float(truth.sum() / counted(corpus.validation, end).sum())
            ds["excess"].attrs["floor"] = 0.0
        said = [f"Held-out real text: {len(corpus.validation):,} sequences of {corpus.source}.", *corpus.remarks]
        ds.attrs["remarks"] = [*_remarks(ds), *said]
        return ds

    return Panel(see, annotate, words.words)


def _against(grammar: Grammar, nats, truth, tokens, end: int) -> dict[str, np.float32]:
    """What only a known truth can tell: how far the model is from it, and which of its things are still told of."""
    told = unpack(tokens, end)
    spoken = np.isin(np.array(grammar.rare), np.unique(np.concatenate(told)) if told else [])
    said = np.mean([np.isfinite(grammar.log_prob(story)) for story in told])
    return {
        "excess": np.float32(np.mean(nats - truth)),
        "ungrammatical": np.float32(1 - said),
        "rare_lost": np.float32(1 - spoken.mean()),
    }


def _remarks(ds) -> list[str]:
    found = ds.attrs.get("remarks", [])
    return [found] if isinstance(found, str) else list(found)
