"""The study of Gerstgrasser et al. on language models: what its configs share, from the stories to the sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from mcloop import make_loop, regimes
from mcloop.checks import check
from mcloop.data.grammar import story_grammar
from mcloop.data.text import Text, corpus, counted, load_text
from mcloop.data.tokens import bpe_tokenizer
from mcloop.experiment import Accept, Experiment, Size, chosen, once
from mcloop.models.hosted import with_budget
from mcloop.models.training import Budget, adamw, compute_dtype, cosine, training
from mcloop.nets.transformer import Shape
from mcloop.studies.story_models import StoryModel, corpus_of, story_model

EQUAL = " at equal steps"
REGIMES = {
    "replace": regimes.replace(),
    "accumulate": regimes.accumulate(),
    "replace_multiple": regimes.replace_multiple(),
    "accumulate_subsample": regimes.accumulate_subsample(),
    "augment": regimes.augment(1.0),
    "fresh": regimes.fresh(),
    "baseline": regimes.baseline(),
}
# what sees more data than the first fit, once for as many epochs and once for as many steps
MATCHED = tuple(f"{name}{EQUAL}" for name in ("accumulate", "replace_multiple", "augment", "fresh"))
PAPER_ARMS = ("replace", "accumulate", "replace_multiple")
MEASURES = ("cross_entropy", "own_perplexity", "distinct_2", "lost_words", "ngram_frechet", "copied")

_LEARNT_FROM = 20_000  # stories at most that a tokenizer is trained on, and that make a small text
_BATCH = 64  # sequences
_THINGS, _GRAMMAR_LENGTH = 300, 128  # of the grammar that stands in where no stories are, and its tokens a row

# to see that everything runs, not to learn anything
TINY = {
    "layers": 1,
    "width": 16,
    "hidden": 32,
    "heads": 2,
    "vocabulary": 280,
    "length": 32,
    "sequences": 60,
    "validation": 40,
    "batch": 20,
    "samples": 20,
    "chunk": 20,
}

# a million parameters, and as many stories as two cores can read and tell in an hour
SMALL = {
    "layers": 4,
    "width": 128,
    "hidden": 512,
    "heads": 4,
    "vocabulary": 1024,
    "length": 128,
    "sequences": 800,
    "validation": 256,
    "epochs": 3.0,
    "batch": 8,
    "rate": 2e-3,
    "samples": 400,
    "chunk": 200,
}

Published = Mapping[str, Mapping[int, float]]  # arm -> fit -> cross-entropy on real text, nats a token


class Source:
    """Stories to learn; compared by identity, so that all loops of an experiment share what is made of them.

    Attributes:
        text: stories that were given or found; None stands for those of a grammar.
        source, remarks: words for the report.
    """

    def __init__(self, text: Text | None, source: str, remarks: Sequence[str] = ()) -> None:
        self.text, self.source, self.remarks = text, source, tuple(remarks)


def stories(path: Path | None) -> Source:
    """The user's stories; without any, TinyStories if the data folder has them, and those of a grammar otherwise.

    Args:
        path: a file, a folder, or a name that `load_text` knows; None looks for tinystories*.txt in MCLOOP_DATA.
    """
    folder = Path(os.environ.get("MCLOOP_DATA") or os.devnull)
    found = folder.is_dir() and any(re.fullmatch(r"(?i)tinystories.*\.txt", entry.name) for entry in folder.iterdir())
    if path is None and not found:
        said = "Stories of a grammar stand in for TinyStories, so the numbers have nothing to do with the paper's: give a text "
        said += "with --data, or set MCLOOP_DATA or --data-dir to a folder that holds tinystories*.txt."
        return Source(None, "stories of a grammar", [said])
    text = load_text("tinystories" if path is None else str(path))
    return Source(text, text.source)


@once
def family(
    table: Source,
    shape: Shape,
    temperature: float = 1.0,
    vocabulary: int = 8000,
    length: int = 512,
    packing: str = "contiguous",
    sequences: int | None = None,
    validation: int | None = None,
    share: float = 1.0,
    epochs: float = 1.0,
    first: float = 1.0,
    warm: bool = False,
    batch: int = _BATCH,
    rate: float = 1e-3,
    samples: int = 500,
    chunk: int = 256,
    dropout: float = 0.0,
) -> StoryModel:
    """Transformers of a shape on these stories; AdamW with a warm-up, then half a cosine.

    Args:
        table, shape: the stories and the transformer, whose vocabulary and context become those of the stories.
        temperature: of sampling.
        vocabulary: tokens of the BPE that is trained on the stories.
        length, packing: of `data.text.corpus`.
        sequences, validation: rows at most that are trained on, and that are held out.
        share: of the training sequences, in (0, 1].
        epochs, batch, rate: of every fit; the rate ends at a tenth.
        first: epochs of the first fit, as a multiple of `epochs`: a weaker first model.
        warm: whether a generation starts from the last one's parameters, and not anew.
        samples, chunk, dropout: of `story_models.story_model`; Hugging Face's GPT-2 has a dropout of .1 by default.
    """
    import jax

    check("share", share, "a share of the stories in (0, 1]", lambda v: (v > 0) & (v <= 1))
    check("first", first, "a multiple of epochs > 0", lambda v: (v > 0) & np.isfinite(v))
    grammar = None
    if table.text is None:
        grammar = story_grammar(_THINGS)
        data = corpus_of(grammar, sequences or 20_000, validation or 1000, _GRAMMAR_LENGTH)
    else:
        tokenizer = _tokenizer(table, vocabulary)
        # a small text is packed whole, and gives what it has; of a large one no more is packed than is asked for
        most = {} if len(table.text.train) <= _LEARNT_FROM else {"sequences": sequences, "validation": validation}
        data = corpus(table.text, tokenizer, length=length, packing=packing, **most)
        data = data._replace(train=data.train[:sequences], validation=data.validation[:validation])
    train = data.train[: max(1, int(share * len(data.train)))]
    parts = (train[i : i + _LEARNT_FROM] for i in range(0, len(train), _LEARNT_FROM))
    tokens = sum(int(counted(part, data.tokenizer.end, data.packing).sum()) for part in parts)
    data = data._replace(train=train, tokens=tokens)
    schedule = cosine(rate, rate / 10, warmup=0.05)
    return story_model(
        data,
        shape._replace(vocabulary=data.tokenizer.vocabulary, context=max(shape.context, data.length)),
        training(
            Budget(epochs=first * epochs),
            Budget(epochs=epochs),
            rate=schedule,
            batch=batch,
            transform=adamw(),
            clip=1.0,
            warm=bool(warm),
        ),
        grammar=grammar,
        inclusive=grammar is None,
        temperature=temperature,
        samples=samples,
        chunk=chunk,
        dropout=float(dropout),
        dtype=compute_dtype(),
        # quick to compile where fits are long; written out where memory is what is slow
        scan=jax.default_backend() != "cpu",
        mesh=_mesh(batch),
    )


def _mesh(batch: int):
    """All devices that divide a batch, with the parameters cut over them; None for one device."""
    import jax

    devices = len(jax.devices())
    if devices == 1 or batch % devices:
        return None
    from mcloop.nets.layout import mesh

    return mesh(1, devices)


@cache
def _tokenizer(table: Source, vocabulary: int):
    assert table.text is not None
    return bpe_tokenizer(table.text.train[:_LEARNT_FROM], vocabulary)


def study(shape: Shape, published: Published, small: Mapping[str, Any], **paper: Any) -> Experiment:
    """The experiment of one transformer: replace, accumulate and replace_multiple, and their controls.

    Args:
        shape: the paper's.
        published: the paper's cross-entropies.
        small: options of size small.
        paper: options of size paper that are not the defaults.
    """

    def made(table, layers=shape.layers, width=shape.width, hidden=shape.hidden, heads=shape.heads, **options):
        return family(table, _smaller(shape, layers, width, hidden, heads), **options)

    def make(arm, table=None, **options):
        name = arm.removesuffix(EQUAL)
        model = made(table, **options).model
        if arm != name:
            epochs, batch = (options.get(n, signature(family).parameters[n].default) for n in ("epochs", "batch"))
            model = with_budget(model, Budget(steps=Budget(epochs=epochs).of(float(model.n), batch)))
        return make_loop(model, REGIMES[name])

    def annotate(ds, options):
        ds = made(**chosen(options, made, family)).panel.annotate(ds)
        ds.attrs["dtype"] = np.dtype(compute_dtype() or np.float32).name
        ds.attrs["remarks"] = [*ds.attrs["remarks"], choices(**chosen(options, choices))]
        return ds

    return Experiment(
        make=make,
        grid={"arm": [*REGIMES, *MATCHED], "temperature": [1.0]},
        sizes={
            "tiny": Size(2, 3, {"arm": PAPER_ARMS}, TINY),
            "small": Size(2, 5, {"arm": PAPER_ARMS}, small),
            "paper": Size(1, 5, {"arm": PAPER_ARMS}, paper),
        },
        measure=MEASURES,
        notes=lambda ds: beside(published),
        load=stories,
        worse="up",
        neural=True,
        # of 1,024 tokens; a model of 4.2 nats tells no whole sentence
        gate={"cross_entropy": Accept(3.3, 4.2, settled=0.1)},
        annotate=annotate,
        family=(made, family),
    )


def choices(length: int = 512, batch: int = _BATCH, rate: float = 1e-3, packing: str = "contiguous", dropout=0.0) -> str:
    """What the paper does not state, and was chosen here, in a sentence."""
    return (
        f"The paper does not state, and these are choices: {length} tokens a row ({packing} text; a grammar's rows are "
        f"{_GRAMMAR_LENGTH} of whole stories), {batch} rows a batch, AdamW (b2 .95) at a rate of {rate:g} after a warm-up of "
        "5 % of the steps and then along half a cosine to a tenth, gradients clipped at norm 1, a weight decay of .1 on "
        f"matrices and embeddings and on no norm, bias or position, dropout {dropout:g} (Hugging Face's GPT-2: .1)."
    )


def _smaller(shape: Shape, layers: int, width: int, hidden: int, heads: int) -> Shape:
    """The paper's transformer; or another, which has as many positions as its sequences and not the paper's 2,048."""
    cut = shape._replace(layers=layers, width=width, hidden=hidden, heads=heads)
    return shape if cut == shape else cut._replace(context=1)


def beside(published: Published) -> list[str]:
    """The paper's cross-entropies in words, beside which those of a run may be read."""
    said = []
    for arm, values in published.items():
        path = ", ".join(f"{value:.2f} (fit {t})" for t, value in values.items())
        said.append(f"{arm}: {path}")
    where = "The paper's cross-entropies, in nats a token of its own vocabulary and at its own size (all of TinyStories)"
    return [f"{where}: {'; '.join(said)}. Compare how they move, not where they are."]
