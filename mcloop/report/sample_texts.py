"""Sample stories in results and reports: kept as bytes, since an array of numbers is what a loop hands on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcloop.report.cells import coordinates

_BYTES = 1600  # of a story that is kept
_CELLS = 9  # whose stories a report shows
_LETTERS = 420  # of a story that a report shows


def as_bytes(texts: Sequence[str], width: int = _BYTES) -> np.ndarray:
    """Texts as UTF-8, cut at `width` bytes and filled with zeros: (k, width) uint8."""
    kept = np.zeros((len(texts), width), np.uint8)
    for row, text in zip(kept, texts, strict=True):
        found = np.frombuffer(text.encode()[:width], np.uint8)
        row[: len(found)] = found
    return kept


def as_texts(kept: np.ndarray) -> list[str]:
    """What `as_bytes` kept; a letter that was cut is left out."""
    return [bytes(row).rstrip(b"\0").decode("utf-8", "ignore") for row in kept]


def shown(ds, real: bool = True) -> list[tuple[str, list[str]]]:
    """(where, stories) of seed 0: of the fit on real data, then of every cell at the last generation.

    Args:
        ds: results, in which a variable with the attribute `text` holds bytes (*grid, generation, story, byte).
        real: whether real stories may be quoted.
    """
    found = []
    for name, variable in ds.data_vars.items():
        if not variable.attrs.get("text"):
            continue
        known = ds.get(f"real_{name}") if real else None
        found += [("real stories", as_texts(known.values))] if known is not None else []
        last = variable.sizes["generation"] - 1
        for i, (where, label) in enumerate(coordinates(ds)[:_CELLS]):
            own = variable.sel({k: v for k, v in where.items() if k in variable.dims})
            for g in sorted({0, last}) if i == 0 else {last} - {0}:
                texts = as_texts(own.isel(generation=g).values)
                heading = f"{label or 'the loop'}, generation {int(ds.generation.values[g])}"
                if any(texts):
                    found.append(("the fit on real data (generation 1)" if g == 0 else heading, texts))
    return [(where, [_cut(text) for text in texts]) for where, texts in found]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LETTERS else line[:_LETTERS].rsplit(" ", 1)[0] + " ..."
