"""Byte-level BPE by the library `tokenizers`: its merges learned from a text, and text encoded by merges."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from mcloop.errors import InputError

T = TypeVar("T")
# bytes without a space that are looked at together: no word is longer, and an unbroken megabyte would take hours
_LONGEST = 256
_BATCH = 1000  # stories that the library encodes at once: what it makes of one takes far more room than its ids

Merges = list[list[int]]  # pairs of ids of earlier tokens, in the order in which they were learned


def learn(stories: Iterable[str], vocabulary: int) -> tuple[Merges, int]:
    """The merges that make `vocabulary` - 1 tokens of bytes and pairs, and how many stories they were learned from.

    Raises:
        InputError: the text has no pairs left that occur twice.
    """
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel

    count = 0

    def read() -> Iterator[str]:
        nonlocal count
        for story in stories:
            utf8(story)
            count += 1
            yield story

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = _words()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 1, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
    _apart(lambda: library.train_from_iterator(read(), trainer))
    if (most := library.get_vocab_size() + 1) < vocabulary:
        raise InputError(
            f"vocabulary must be at most {most} for a BPE of this text, not {vocabulary}: no pair of tokens that occurs "
            "twice is left."
        )
    byte = {char: i for i, char in enumerate(_printed())}
    ids = {bytes([i]): i for i in range(256)}
    merges = []
    for pair in json.loads(library.to_str())["model"]["merges"]:
        left, right = (bytes(byte[char] for char in part) for part in pair)
        merges.append([ids[left], ids[right]])
        ids.setdefault(left + right, len(ids))  # one token may be made of two different pairs
    return merges, count


def encoder(merges: Merges) -> tuple[list[bytes], Callable[[Sequence[str]], list[np.ndarray]]]:
    """(texts, encode): what each token stands for, the 256 bytes first; and stories -> uint16 ids of each."""
    from tokenizers import Tokenizer, models

    texts = [bytes([i]) for i in range(256)]
    known = set(texts)
    for left, right in merges:
        if (joined := texts[left] + texts[right]) not in known:
            known.add(joined)
            texts.append(joined)
    printed = _printed()
    shown = ["".join(printed[byte] for byte in text) for text in texts]
    pairs = [(shown[left], shown[right]) for left, right in merges]
    library = Tokenizer(models.BPE({text: i for i, text in enumerate(shown)}, pairs))
    library.pre_tokenizer = _words()  # pyright: ignore[reportAttributeAccessIssue]

    def encode(stories: Sequence[str]) -> list[np.ndarray]:
        found = []
        for begin in range(0, len(stories), _BATCH):
            some = list(stories[begin : begin + _BATCH])
            for story in some:
                utf8(story)
            found += [np.array(each.ids, np.uint16) for each in library.encode_batch_fast(some, add_special_tokens=False)]
        return found

    return texts, encode


def _words():
    """How text is split before pairs are looked for: by GPT-2's rule, and what is longer than any word every 256 bytes."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([ByteLevel(add_prefix_space=False), Split(Regex(f".{{1,{_LONGEST}}}"), behavior="isolated")])


def _apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises; it runs in a thread, since Ctrl-C is not heard inside of a foreign library."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # whatever it is, it belongs to whoever waits
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result()


def utf8(story: str) -> bytes:
    """A story's bytes.

    Raises:
        InputError: it holds half of a surrogate pair, which is no text.
    """
    try:
        return story.encode()
    except UnicodeEncodeError as error:
        code = ord(story[error.start])
        raise InputError(f"A story has the lone surrogate U+{code:04X} at place {error.start}, which is no text.") from error


def _printed() -> list[str]:
    """How the library shows the 256 bytes: GPT-2's alphabet, in which bytes that are not visible Latin-1 come after 255."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]
