"""Words of users in figures: drawn as they are, whatever letters they hold."""

from __future__ import annotations

from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter


def as_text(figure: Figure) -> Figure:
    """The figure, with every text in it drawn letter by letter.

    A dollar sign starts no formula, and a letter that no font here has is written as its number (U+4E2D). Numbers along an axis
    are matplotlib's own, and keep their powers of ten.
    """
    numbers = {id(label) for ax in figure.axes for label in _numbers(ax)}
    for text in figure.findobj(Text):
        if id(text) in numbers or not isinstance(text, Text):
            continue
        text.set_parse_math(False)
        words = text.get_text()
        if not words.isascii() or any(c < " " and c != "\n" for c in words):
            text.set_fontfamily(_families(words))
            text.set_text("".join(c if c == "\n" or _known(c) else " " if c < " " else f"[U+{ord(c):04X}]" for c in words))
    return figure


def _numbers(ax) -> list[Text]:
    """The labels of ticks that a formatter writes."""
    axes = [axis for axis in (ax.xaxis, ax.yaxis) if not isinstance(axis.get_major_formatter(), FixedFormatter)]
    return [label for axis in axes for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())]


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def _known(letter: str) -> bool:
    return letter >= " " and _font(letter) is not None


@cache
def _font(letter: str) -> str | None:
    """The family of the first font that has this letter: the usual one, or any that is installed."""
    usual = findfont(FontProperties())
    if ord(letter) in _letters(usual):
        return FT2Font(usual).family_name
    return next(
        (font.name for font in fontManager.ttflist if "Last" not in font.name and ord(letter) in _letters(font.fname)), None
    )


def _families(words: str) -> list[str]:
    usual = FT2Font(findfont(FontProperties())).family_name
    return list(dict.fromkeys([usual, *(family for c in words if c >= " " and (family := _font(c)) is not None)]))
