"""How the words of a closed vocabulary are written as text, and read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mcloop.errors import InputError
from mcloop.storage.files import one_line
from mcloop.storage.identity import Memo

_CLOSING = frozenset(".,;:!?…)]}”’»'")  # a word that begins with one of these stands close to the word before it
_OPENING = frozenset("([{“‘«")  # a word that ends with one of these stands close to the word after it
_WORD = re.compile(r"\w+(?:[-'’]\w+)*|.")
_QUOTE = '"'  # opens and closes in turn


def spelling(words: Sequence[str]) -> tuple[Callable[[str], list[int]], Callable[[Sequence[int]], str]]:
    """(read, write): text -> places in `words`, and back; read(write(ids)) == ids for any ids.

    Spaces mean nothing but that a word ends there; what stands close together is read as the longest words that fit, and no
    word is taken out of the middle of another ("moon" is not read in "moonlight"). Where that would be another story than
    the one that is written, every word has a space on either side.

    Raises:
        InputError: (in read) a word that is not among `words`, by name.
    """
    place = {word: i for i, word in enumerate(words)}
    longest_first = sorted(words, key=len, reverse=True)
    # a word that ends in a letter or a digit goes no further than the letters and digits do
    anyone = re.compile("|".join(re.escape(word) + (r"(?!\w)" if word[-1].isalnum() else "") for word in longest_first))
    known: dict[str, list[int]] = Memo({word: [i] for word, i in place.items()})

    def parts(chunk: str) -> list[int]:
        found, at = [], 0
        while at < len(chunk):
            match = anyone.match(chunk, at)
            if match is None:
                word = next(word[0] for word in _WORD.finditer(chunk) if word.end() > at)
                said = f"The text has the word {one_line(word, 40)!r}, which is not among the {len(words)} of the vocabulary."
                raise InputError(said)
            found.append(place[match[0]])
            at = match.end()
        return found

    def read(text: str) -> list[int]:
        ids = []
        for chunk in text.split():
            if chunk not in known:
                known[chunk] = parts(chunk)
            ids += known[chunk]
        return ids

    def write(ids: Sequence[int]) -> str:
        chosen = [words[i] for i in ids]
        text = _close(chosen)
        try:
            same = read(text) == list(ids)
        except InputError:
            same = False
        return text if same else " ".join(chosen)

    return read, write


def _close(words: Sequence[str]) -> str:
    """Words as print has them: no space before a comma, nor inside of brackets and quotation marks."""
    text, close, quoted = "", True, False
    for word in words:
        close = close or word[0] in _CLOSING or (word[0] == _QUOTE and quoted)
        text += word if close else f" {word}"
        quoted ^= word.count(_QUOTE) % 2 == 1
        close = word[-1] in _OPENING or (word[-1] == _QUOTE and quoted)
    return text
