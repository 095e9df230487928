"""An order for levels that have none, so that one latent number carries most of what they say of the other columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from mcloop.data.typed import CATEGORY, levels_of
from mcloop.models.marginals import Scores, fit_marginal

_WIDTH = 600  # indicator columns in all for the levels of the other categories
_MOST = 20  # of one category, its most frequent


def order_levels(frame: pd.DataFrame, kinds: dict[Any, str]) -> dict[Any, np.ndarray]:
    """For every category without an order of its own, one in which its levels lie along the first axis of a correspondence
    analysis of it against all other columns (Greenacre 2007): the axis that most of the dependence is along.

    Args:
        frame: its categories have pandas' dtype of that name. A sample of the rows is enough.
    """
    free = [name for name, kind in kinds.items() if kind == CATEGORY and not getattr(frame[name].dtype, "ordered", False)]
    if not free:
        return {}
    coded = {name: levels_of(frame[name]) for name in free}
    most = max(1, min(_MOST, _WIDTH // max(1, len(free))))
    blocks, owners = [], []
    for name, kind in kinds.items():
        block = _indicators(coded[name][0], most) if name in coded else _numbers(fit_marginal(frame[name], kind)[1])
        blocks.append(block)
        owners += [name] * block.shape[1]
    features, owner = np.concatenate(blocks, axis=1), np.array([list(kinds).index(name) for name in owners])
    orders = {}
    for name, (codes, levels) in coded.items():
        position = np.zeros(len(levels))
        there = np.flatnonzero(codes >= 0)
        counts = np.bincount(codes[there], minlength=len(levels))
        if np.count_nonzero(counts) > 2:
            seen = np.flatnonzero(counts)
            index = np.searchsorted(seen, codes[there])
            member = sparse.csr_matrix((np.ones(len(there), np.float32), (index, there)), (len(seen), len(codes)))
            means = (member @ features[:, owner != list(kinds).index(name)]) / np.sqrt(counts[seen])[:, None]
            position[seen] = _first_axis(means.astype(np.float64)) / np.sqrt(counts[seen])
        orders[name] = np.argsort(position, kind="stable")
    return orders


def _numbers(scores: Scores) -> np.ndarray:
    spread = scores.values.std()
    return (scores.values / spread if spread > 0 else scores.values).astype(np.float32)[:, None]


def _indicators(codes: np.ndarray, most: int) -> np.ndarray:
    """Of the most frequent levels, centred, of unit chi-square weight: (n, most or fewer)."""
    counts = np.bincount(codes[codes >= 0])
    chosen = np.argsort(-counts, kind="stable")[:most]
    chosen = chosen[(counts[chosen] > 0) & (counts[chosen] < len(codes))]
    share = counts[chosen] / len(codes)
    return ((codes[:, None] == chosen) - share).astype(np.float32) / np.sqrt(share).astype(np.float32)


def _first_axis(means: np.ndarray) -> np.ndarray:
    """The first left singular vector, (levels,), with its largest entry positive."""
    if means.shape[1] == 0:
        return np.zeros(len(means))
    if means.shape[0] <= means.shape[1]:
        axis = np.linalg.eigh(means @ means.T)[1][:, -1]
    else:
        axis = means @ np.linalg.eigh(means.T @ means)[1][:, -1]
    return axis * (np.sign(axis[np.abs(axis).argmax()]) or 1.0)
