"""What a synthetic table is worth to who trains on it: a model of one column from the others, tested on real rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mcloop.data.typed import INTEGER, NUMERIC
from mcloop.metrics.table_columns import Column

_LEVELS = 250  # of a category that a tree tells apart, its most frequent
_LEAVES = 20  # rows a leaf, at least, where there are 400 or more
_TREES = 1000  # in all, of which each class has as many
_LITTLE = 0.01  # of a score, below which a ratio to it says nothing


def transfer(columns: dict[Any, Column], target, seed: int) -> dict[str, float]:
    """Train on synthetic, test on real (Esteban et al. 2017), beside train on real, test on real.

    Gradient-boosted trees of scikit-learn on the real rows, and on as many synthetic ones where there are so many. A target
    of categories, of booleans or of whole numbers of two values is classified, classes weighted equally, and scored by
    balanced accuracy; another is scored by R^2.

    Args:
        columns: real rows, synthetic rows, and real rows that neither saw.
        target: one of them.

    Returns:
        `tstr_score`, `trtr_score`, and `tstr`, their ratio, with a score below zero taken as zero; without the ratio where
        real rows teach next to nothing (0.01 or less), and without all three where fewer than two rows have a target.
    """
    goal = columns[target]
    classes = goal.kind not in NUMERIC or (goal.kind == INTEGER and len(np.unique(goal.real[~np.isnan(goal.real)])) == 2)
    sides = [goal.real, *goal.others]
    known = [np.isfinite(y) if goal.kind in NUMERIC else y >= 0 for y in sides]
    features = [column for name, column in columns.items() if name != target]
    if not features or any(there.sum() < 2 for there in (known[0], known[2])):
        return {}
    seen = [_features(features, side)[there] for side, there in enumerate(known)]
    aims = [y[there] for y, there in zip(sides, known, strict=True)]
    scores = []
    for side in (0, 1):
        x, y = seen[side][: len(aims[0])], aims[side][: len(aims[0])]
        scores.append(_score(x, y, seen[2], aims[2], [column.kind not in NUMERIC for column in features], classes, seed))
    found = {"tstr_score": scores[1], "trtr_score": scores[0]}
    return found | {"tstr": max(0.0, scores[1]) / scores[0]} if scores[0] > _LITTLE else found


def _features(columns: list[Column], side: int) -> np.ndarray:
    """(rows, columns), NaN where missing, not finite, or a level that is not one of the most frequent real ones."""
    made = []
    for column in columns:
        x = (column.real, *column.others)[side]
        good = np.isfinite(x) if column.kind in NUMERIC else (x >= 0) & (x < min(column.levels, _LEVELS))
        made.append(np.where(good, x, np.nan))
    return np.column_stack(made)


def _score(x, y, test_x, test_y, categories: list[bool], classes: bool, seed: int) -> float:
    """Balanced accuracy, or R^2, on the test rows of a model of y from x; of one that knows nothing if y is constant."""
    if len(y) and (y != y[0]).any():
        # so few rows are sooner done by one thread, and many that wait for one another may take twenty times as long
        with threadpool_limits(1):
            guess = _trees(x, y, categories, classes, seed).predict(test_x)
    else:
        guess = np.full(len(test_y), y[0] if len(y) else -1 if classes else 0.0)
    if classes:
        return float(np.mean([(guess[test_y == label] == label).mean() for label in np.unique(test_y)]))
    around = ((test_y - test_y.mean()) ** 2).sum()
    # a constant target is known exactly, or not at all
    missed = ((test_y - guess) ** 2).sum()
    return float(1 - missed / around) if around > 0 else float(missed == 0)


def _trees(x, y, categories: list[bool], classes: bool, seed: int):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    varied = np.array([len(np.unique(column[~np.isnan(column)])) > 0 for column in x.T])
    settings: dict[str, Any] = {
        "categorical_features": np.array(categories) & varied,
        "min_samples_leaf": max(1, min(_LEAVES, len(y) // 20)),
        "early_stopping": False,
        "random_state": seed,
    }
    if not classes:
        return HistGradientBoostingRegressor(**settings).fit(x, y)
    trees = max(10, min(100, _TREES // len(np.unique(y))))
    return HistGradientBoostingClassifier(max_iter=trees, class_weight="balanced", **settings).fit(x, y)
