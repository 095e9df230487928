"""Stories as numbers: bytes, byte-level BPE, or the words of a closed vocabulary; each with one token that ends a story."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcloop.data.bpe import encoder, learn, utf8
from mcloop.data.spelling import spelling
from mcloop.errors import InputError
from mcloop.storage.files import one_line, refusal, show, write_atomically
from mcloop.storage.sealed import compact, digest, seal, unseal

MOST = 2**16  # ids are kept as uint16
END = "<|endoftext|>"  # how the end of a story is shown; no text is ever read as that token


class Tokenizer(NamedTuple):
    """A way to write stories as whole numbers.

    Attributes:
        name: as it appears in results.
        vocabulary: ids are 0 .. vocabulary - 1, `end` among them.
        end: the id that ends a story; `encode` never gives it, whatever the text says.
        encode: stories -> uint16 ids of each, without `end`.
        decode: ids -> the text up to the first `end`; bytes that are no UTF-8 become U+FFFD.
        pieces: what each id stands for, for reports; bytes that are no text as \\xNN.
        digest: SHA-256 of `recipe`: two tokenizers of one digest read every text alike.
        recipe: JSON from which the tokenizer can be made again.
    """

    name: str
    vocabulary: int
    end: int
    encode: Callable[[Sequence[str]], list[np.ndarray]]
    decode: Callable[[np.ndarray], str]
    pieces: tuple[str, ...]
    digest: str
    recipe: str = ""


def byte_tokenizer() -> Tokenizer:
    """UTF-8: ids 0 to 255 are the bytes, 256 is the end of a story."""

    def encode(stories):
        return [np.frombuffer(text, np.uint8).astype(np.uint16) for text in map(utf8, stories)]

    return _of_bytes("bytes", [bytes([i]) for i in range(256)], encode, {"kind": "bytes"})


def bpe_tokenizer(stories: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 1508.07909; over bytes as in GPT-2), trained on `stories`; always the same for a text.

    Ids 0 to 255 are the bytes, so that any Unicode text can be written; then come the merges in the order in which they were
    learned, and the last id is the end of a story. Pairs that occur once are not merged. Text is first split by GPT-2's rule:
    no token spans two words.

    Args:
        stories: the text, read once; some ten megabytes are enough for a few thousand tokens, and take some seconds.
        vocabulary: 257 (bytes alone) to 65,536, the end included.

    Raises:
        InputError: another vocabulary, or more than the text supports.
    """
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int | np.integer) or not 257 <= vocabulary <= MOST:
        raise InputError(f"vocabulary must be a whole number from 257 to {MOST} for a BPE, not {vocabulary!r}.")
    merges, count = learn(stories, int(vocabulary))
    return _bpe(f"BPE of {vocabulary} tokens trained on {count} stories", merges)


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A closed vocabulary: id i is words[i], and len(words) is the end of a story.

    Text is words with spaces between, none before punctuation or inside of quotation marks; see `_spelling.spelling`.
    Encoding what was decoded gives the same ids, always.

    Args:
        words: at most 65,535, all different, none empty or with a space in it.

    Raises:
        InputError: other words; or, in `encode`, a text with a word that is not among them.
    """
    words = tuple(words)
    if not 1 <= len(words) < MOST:
        raise InputError(f"words must be 1 to {MOST - 1} in number, not {len(words)}.")
    known: set[str] = set()
    for word in words:
        if not isinstance(word, str) or word.split() != [word] or word in known:
            raise InputError(f"words must be different texts without spaces, and {one_line(repr(word))} is not one more.")
        known.add(word)
    read, write = spelling(words)
    recipe = {"kind": "words", "words": words}
    return _made(
        f"{len(words)} words",
        len(words),
        lambda stories: [np.array(read(story), np.uint16) for story in stories],
        lambda ids: write(_story(ids, len(words)).tolist()),
        words,
        recipe,
    )


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Writes a tokenizer to a JSON file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        write_atomically(Path(path), seal({"name": tokenizer.name, "recipe": json.loads(tokenizer.recipe)}))
    except OSError as error:
        raise refusal(error, Path(path)) from error


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote: it reads every text as that one did.

    Raises:
        InputError: there is no such file, or it is not what was written.
    """
    shown = show(Path(path))
    try:
        body = unseal(Path(path).read_bytes())
        name, recipe = body["name"], body["recipe"]
    except OSError as error:
        raise InputError(f"The tokenizer {shown} cannot be read ({one_line(error.strerror or error)}).") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"The file {shown} is no tokenizer, or is damaged ({one_line(error)}).") from error
    if recipe["kind"] == "bpe":
        return _bpe(name, recipe["merges"])
    return byte_tokenizer() if recipe["kind"] == "bytes" else word_tokenizer(recipe["words"])


def _bpe(name, merges) -> Tokenizer:
    texts, encode = encoder(merges)
    return _of_bytes(name, texts, encode, {"kind": "bpe", "merges": merges})


def _of_bytes(name, texts, encode, recipe) -> Tokenizer:
    """A tokenizer whose token i stands for the bytes texts[i], and whose last one is the end."""
    end = len(texts)

    def decode(ids):
        return b"".join(texts[i] for i in _story(ids, end).tolist()).decode("utf-8", "replace")

    return _made(name, end, encode, decode, (text.decode("utf-8", "backslashreplace") for text in texts), recipe)


def _made(name, end, encode, decode, pieces, recipe: dict[str, Any]) -> Tokenizer:
    written = compact(recipe)
    return Tokenizer(name, end + 1, end, encode, decode, (*pieces, END), digest(written), written)


def _story(ids, end) -> np.ndarray:
    """What stands before the first `end`."""
    ids = np.asarray(ids)
    ends = np.flatnonzero(ids == end)
    return ids[: ends[0]] if len(ends) else ids
