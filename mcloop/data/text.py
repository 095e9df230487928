"""Stories: read from files, split into a training set and a held-out part, tokenized and packed into rows on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcloop.data.packing import PACKINGS, Tally, packed
from mcloop.data.packing import counted as counted
from mcloop.data.packing import story_lengths as story_lengths
from mcloop.data.packing import unpack as unpack
from mcloop.data.row_files import recorded, write_rows
from mcloop.data.story_files import find, published
from mcloop.data.tokens import Tokenizer
from mcloop.errors import InputError
from mcloop.storage.files import FULL, one_line, sha256, show, write_atomically
from mcloop.storage.places import cache_folder
from mcloop.storage.sealed import seal

_VERSION = 1  # of the packing below: another one makes kept corpora strangers
_BATCH = 1000  # stories tokenized and written at once
_SHOWN = 300  # held-out stories that a corpus keeps as text
_WORDS = {"train": "training", "validation": "held-out"}


class Text(NamedTuple):
    """Stories, all different, and none in both parts.

    Attributes:
        name: what they are, as it appears in results.
        train, held_out: stories, in the order in which they were read.
        source: where they were read from, in words.
        remarks: sentences that whoever reads the results should see.
        private: whether it is the user's own, of which no report quotes a word.
    """

    name: str
    train: Sequence[str]
    held_out: Sequence[str]
    source: str
    remarks: tuple[str, ...] = ()
    private: bool = False


class Corpus(NamedTuple):
    """Stories as rows of tokens, mapped from disk.

    Attributes:
        name: of the text.
        tokenizer: what wrote it.
        packing: "stories", a story a row, its end and what follows filled with `tokenizer.end`; or "contiguous", stories and
            their ends one after the other, cut into rows.
        length: tokens a row: the context.
        train, validation: uint16, shapes (n, length) and (m, length), memory-mapped and read-only.
        first: float64, shape (vocabulary,): how many training rows begin with each token.
        held_out: some of the held-out stories as text, for reports.
        source, remarks: those of the text, and what packing did to it.
        tokens: tokens of `train` that a loss counts; padding is none.
        private: that of the text.
    """

    name: str
    tokenizer: Tokenizer
    packing: str
    length: int
    train: np.ndarray
    validation: np.ndarray
    first: np.ndarray
    held_out: tuple[str, ...]
    source: str
    remarks: tuple[str, ...]
    tokens: int
    private: bool = False


def load_text(
    name_or_path: str | os.PathLike[str], *, held_out: float = 0.1, folder: str | os.PathLike[str] | None = None
) -> Text:
    """Reads stories, leaves out those that occur twice, and holds some back.

    A file's stories are separated by `<|endoftext|>`, or else by blank lines, or else they are its lines; those of JSON, of
    lines of JSON and of CSV are the text of a record. Where the text does
    not come with a held-out part of its own, those stories are held out whose SHA-256 is smallest: that depends on the
    stories, not on the order in which they are read.

    Args:
        name_or_path: a file of text; a folder of .txt files; "tinystories" (Eldan and Li 2305.07759: the published pair of
            files, or one named tinystories*.txt) or "fairytaleqa" (fairytaleqa*.txt); "tfds:NAME", prepared by TensorFlow
            Datasets; "hf:NAME", by the library `datasets`.
        held_out: the share of the stories that is held out, between 0 and 1, at least one; a published held-out part is
            taken as it is.
        folder: where the named texts are; None is the folder that the environment variable MCLOOP_DATA names.

    Raises:
        InputError: nothing is there, it is no text, or it has fewer than two stories.
    """
    if isinstance(held_out, bool) or not isinstance(held_out, int | float | np.number) or not 0 < held_out < 1:
        raise InputError(f"held_out must be a number between 0 and 1, not {held_out!r}.")
    asked = os.fspath(name_or_path)
    name, found = find(asked, folder)
    shown = asked if published(asked) else Path(asked).name
    train = list(dict.fromkeys(found.stories))
    remarks = found.remarks + _left_out("Copies of other stories", len(found.stories) - len(train))
    if found.held_out is None:
        if len(train) < 2:
            said = "an end of a story is <|endoftext|>, else a blank line, else a line's end"
            raise InputError(f"The text {shown!r} has one story only, and nothing to hold out ({said}).")
        train, kept = _split(train, held_out)
    else:
        kept = list(dict.fromkeys(found.held_out))
        apart = set(kept)
        before, train = len(train), [story for story in train if story not in apart]
        remarks += _left_out("Training stories that are also held out", before - len(train))
        if not train or not kept:
            raise InputError(f"The text {shown!r} has {len(train)} training and {len(kept)} held-out stories; both are needed.")
    return Text(name, train, kept, found.source, remarks, private=not published(asked))


def _split(stories, share) -> tuple[list[str], list[str]]:
    """(train, held out), both in the order of `stories`, by their content alone: those of the smallest SHA-256 are held out."""
    digests = [int.from_bytes(hashlib.sha256(story.encode()).digest()[:8], "big") for story in stories]
    count = min(max(round(share * len(stories)), 1), len(stories) - 1)
    out = set(np.argsort(np.array(digests, np.uint64), kind="stable")[:count].tolist())
    train = [story for i, story in enumerate(stories) if i not in out]
    return train, [story for i, story in enumerate(stories) if i in out]


def _left_out(what, count) -> tuple[str, ...]:
    return (f"{what} are left out: {count}.",) if count else ()


def corpus(
    text: Text,
    tokenizer: Tokenizer,
    *,
    length: int = 256,
    packing: str = "stories",
    sequences: int | None = None,
    validation: int | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Corpus:
    """Tokenizes a text and packs it into rows, once: the rows are kept on disk, checked, and mapped into memory.

    The files are named by a SHA-256 of the stories, the tokenizer and the packing; a damaged one is made again. No more
    than a thousand stories are in memory as tokens at any time.

    Args:
        length: tokens a row, at least 2.
        packing: "stories" or "contiguous"; see `Corpus`.
        sequences: training rows wanted, the first of all; None takes all.
        validation: held-out rows wanted; likewise.
        cache: folder to keep the rows in; None is $MCLOOP_CACHE or ~/.cache/mcloop.

    Raises:
        InputError: no row in a part, or fewer than wanted; no training story that fits into a row with its end; a cache that
            cannot be written.
    """
    _check(packing, length=length, sequences=sequences, validation=validation)
    parts = {"validation": (text.held_out, validation), "train": (text.train, sequences)}
    if packing == "stories":
        for part, (stories, wanted) in parts.items():
            _enough(text, part, len(stories), length, wanted)
    settings = (_VERSION, tokenizer.digest, int(length), packing, *(wanted and int(wanted) for _, wanted in parts.values()))
    name = f"corpus-{re.sub('[^A-Za-z0-9_-]+', '-', text.name)[:40]}-{_digest(text, settings)}"
    home = cache_folder(cache)
    known, files = home / f"{name}.json", {part: home / f"{name}.{part}.npy" for part in parts}
    record = recorded(known, files.__getitem__)
    if record is None:
        try:
            home.mkdir(parents=True, exist_ok=True)
            record = {part: _pack(files[part], text, part, *parts[part], tokenizer, int(length), packing) for part in parts}
            write_atomically(known, seal(record))
        except OSError as error:
            why = "is full" if error.errno in FULL else f"cannot be written ({one_line(error.strerror or error)})"
            raise InputError(f"The cache {show(home)} {why}: set MCLOOP_CACHE, or cache, to another folder.") from error
    train, held_out = (np.load(files[part], mmap_mode="r", allow_pickle=False) for part in ("train", "validation"))
    cut = tuple(_cut(part, record[part], length) for part in ("train", "validation") if record[part]["cut"])
    return Corpus(
        name=text.name,
        tokenizer=tokenizer,
        packing=packing,
        length=int(length),
        train=train,
        validation=held_out,
        first=np.bincount(train[:, 0], minlength=tokenizer.vocabulary).astype(np.float64),
        held_out=tuple(text.held_out[:_SHOWN]),
        source=text.source,
        remarks=text.remarks + cut,
        tokens=record["train"]["tokens"],
        private=text.private,
    )


def _check(packing, **numbers) -> None:
    if packing not in PACKINGS:
        raise InputError(f"packing must be {' or '.join(map(repr, PACKINGS))}, not {packing!r}.")
    for field, value in numbers.items():
        low = 2 if field == "length" else 1
        if value is None and field != "length":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise InputError(f"{field} must be a whole number >= {low}, not {value!r}.")


def _enough(text, part, rows, length, wanted) -> None:
    """Refuses a part with fewer rows than wanted, or with none."""
    if rows < (wanted or 1):
        said = f"The {_WORDS[part]} stories of {text.name} fill {rows} rows of {length} tokens"
        field = "sequences" if part == "train" else "validation"
        raise InputError(f"{said}; {f'{field} asks for {wanted}' if wanted else 'one is needed'}.")


def _digest(text, settings) -> str:
    """All that the rows depend on, in hex."""
    state = hashlib.sha256(repr(settings).encode())
    for stories in (text.train, text.held_out):
        state.update(b"%d " % len(stories))
        for story in stories:
            data = story.encode("utf-8", "surrogatepass")  # what is no text is refused by the tokenizer
            state.update(b"%d " % len(data) + data)
    return state.hexdigest()


def _pack(path, text, part, stories, wanted, tokenizer, length, packing) -> dict[str, Any]:
    """Writes the rows of one part; what is known of them, for JSON."""
    count = wanted if wanted is not None and packing == "stories" else len(stories)
    tally = Tally()

    def batches() -> Iterator[list[np.ndarray]]:
        for i in range(0, count, _BATCH):
            yield tokenizer.encode(stories[i : min(i + _BATCH, count)])

    def check() -> None:
        _enough(text, part, tally.rows, length, wanted)
        if part == "train" and tally.cut == tally.rows:
            fits = f"packing='contiguous', or length >= {tally.longest + 1}"
            raise InputError(f"No training story of {text.name} fits into {length} tokens with its end: choose {fits}.")

    write_rows(path, packed(batches(), length, tokenizer.end, packing, tally, wanted), length, check)
    return {"sha256": sha256(path), "rows": tally.rows, "cut": tally.cut, "tokens": tally.tokens}


def _cut(part, known, length) -> str:
    said = f"{known['cut']} of {known['rows']} {_WORDS[part]} stories do not fit into {length} tokens with their end"
    return f"{said}: they are cut there and have no end."
