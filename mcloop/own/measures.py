"""What is measured of an external model's points where its owner names no measure of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mcloop.memory.forms import is_frame
from mcloop.metrics.frechet import frechet_distance
from mcloop.metrics.prdc import prdc
from mcloop.metrics.tables import table_metrics
from mcloop.metrics.text import copied, distinct_n, lengths, lost_vocabulary

_NEIGHBOURS = 2000  # points at most on either side of precision and recall
_COPIED = 8  # words in a row that make a text a copy

Measure = Callable[[Any, Any], dict[str, float]]


def measure_of(real: Any, unit: str) -> Measure:
    """The measures of points of this form: (real points, drawn points) -> dict of numbers.

    Tables have those of `table_metrics`; arrays those of `array_metrics`, of pairs the two beside each other; texts those of
    `text_metrics`.

    Args:
        real: points in their owner's form.
        unit: what one of them is called, "row", "point" or "text".
    """
    if isinstance(real, tuple):
        return _pairs
    if is_frame(real):
        return table_metrics
    return text_metrics if unit == "text" else array_metrics


def array_metrics(real: Any, drawn: Any) -> dict[str, float]:
    """How far drawn points are from real ones; all coordinates are first divided by the real points' standard deviations.

    Args:
        real, drawn: arrays (n, ...) and (m, ...), flattened to (n, d); coordinates in which the real points are all alike are
            left out.

    Returns:
        mean_shift, the largest of the means' distances; variance_kept, the drawn points' total variance over the real ones';
        narrowest, the same along the axis that has kept the least; frechet, the squared Frechet distance of the two; and
        precision and recall (k = 3, of 2,000 points on either side), where there are 5 points at least.
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (real, drawn))
    scale = a.std(0)
    a, b = (x[:, scale > 0] / scale[scale > 0] for x in (a, b))
    if not a.shape[1]:
        return {}
    kept = np.cov(b.T, ddof=0).reshape(a.shape[1], -1)
    values, axes = np.linalg.eigh(np.cov(a.T, ddof=0).reshape(a.shape[1], -1))
    axes = axes[:, values > 1e-9 * values.max()] / np.sqrt(values[values > 1e-9 * values.max()])
    found = {
        "mean_shift": np.abs(b.mean(0) - a.mean(0)).max(),
        "variance_kept": np.trace(kept) / a.shape[1],
        "narrowest": np.linalg.eigvalsh(axes.T @ kept @ axes)[0],
        "frechet": frechet_distance(b, a),
    }
    if min(len(a), len(b)) >= 5:
        near = prdc(_some(a), _some(b))
        found |= {"precision": near.precision, "recall": near.recall}
    return {name: float(x) for name, x in found.items()}


def text_metrics(real: Sequence[str], drawn: Sequence[str]) -> dict[str, float]:
    """How diverse drawn texts are, and how much of the real ones is in them; words are what spaces part.

    Returns:
        distinct_2, different pairs of words over all; words, their mean number a text; words_lost, the share of the real
        texts' different words that are never said; copied, the share of texts that have 8 words in a row from a real one.
    """
    numbers: dict[str, int] = {}
    said, reference = (
        [np.array([numbers.setdefault(word, len(numbers)) for word in text.split()], np.int64) for text in texts]
        for texts in (drawn, real)
    )
    return {
        "distinct_2": distinct_n(said, 2),
        "words": lengths(said).mean,
        "words_lost": lost_vocabulary(said, reference).words,
        "copied": copied(said, reference, _COPIED),
    }


def _pairs(real: tuple[Any, Any], drawn: tuple[Any, Any]) -> dict[str, float]:
    """Of pairs (X, y): those of each, under its name before them."""
    found = {}
    for name, a, b in zip(("X", "y"), real, drawn, strict=True):
        found |= {f"{name}_{k}": x for k, x in measure_of(a, "row")(a, b).items()}
    return found


def _some(x: np.ndarray) -> np.ndarray:
    """The first so many points, whose order says nothing: drawn ones are shuffled, and real ones here."""
    return x if len(x) <= _NEIGHBOURS else x[np.random.default_rng(0).permutation(len(x))[:_NEIGHBOURS]]
