"""Generators of mixed tables that need no training: a Gaussian copula, and one for each level of a category."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy.special import ndtr

from mcloop.checks import check_seed, whole
from mcloop.data.typed import BOOLEAN, CATEGORY, INTEGER, kinds_of, levels_of, short
from mcloop.errors import InputError
from mcloop.models.latent import factor, latent_correlation, shrunk
from mcloop.models.marginals import Marginal, draw_column, fit_marginal, flag
from mcloop.models.ordering import order_levels

_ROWS = 200_000  # that correlations are taken from, at most: their error is then 0.002
_ORDERED_BY = 20_000  # rows that levels are ordered by, at most
_ENTRIES = 2**24  # normal numbers that are drawn at once
_PRIOR = 2.0  # rows that independence counts for
_FEW = 30  # rows without which a level has no copula of its own
_LEVELS = 50  # that have one, at most


class _Layout(NamedTuple):
    """How the frame looked: its columns; of each column of text its dtype, and what stands for a missing value."""

    columns: pd.Index
    texts: dict[Any, tuple]


class _Joint(NamedTuple):
    """A fitted copula: a marginal a column, the columns whose missing values have a latent number, and F F^T = correlation."""

    marginals: dict[Any, Marginal]
    flagged: tuple
    root: np.ndarray


class GaussianCopula:
    """A Gaussian copula with empirical marginals (NORTA, Cario & Nelson 1997; the synthesiser of Patki et al. 2016).

    Each column is a monotone function of one normal number, and so is whether a value is missing; the numbers are
    correlated. Numbers follow `mcloop.models.marginals`: whole ones stay whole, heaps stay heaps, nothing leaves the range
    that was seen. Levels without an order get one, see `order_levels`. Correlations come from at most 200,000 rows; where a
    column is missing depends on the other columns, not on its own value, which is not known there; where another column
    nearly decides it, the dependence of the two is kept in part only.

    Args:
        random_state: of the samples: a whole number, a NumPy Generator, or None, which is new every time. Fits draw nothing
            from it: two fits of one frame are equal.
    """

    def __init__(self, random_state: int | np.random.Generator | None = None):
        self.set_random_state(random_state)
        self._joint: _Joint | None = None

    def set_random_state(self, random_state: int | np.random.Generator | None) -> Self:
        """Starts the random numbers anew: the same seed, the same rows from the next `sample` on."""
        self._rng = _generator(random_state)
        return self

    def fit(self, frame: pd.DataFrame) -> Self:
        """Args: a frame of numbers, dates, booleans, text and categories, see `mcloop.data.typed`; at least one row.

        Raises:
            InputError: any other frame.
        """
        kinds = kinds_of("frame", frame)
        frame, self._layout = _categorised(frame, kinds)
        fitted = _estimate(frame, kinds, order_levels(frame.iloc[_some(len(frame), _ORDERED_BY)], kinds), _flagged(frame))
        self._joint = _joined(fitted, np.eye(len(fitted.rho)), _PRIOR)
        return self

    def sample(self, n: int) -> pd.DataFrame:
        """n new rows: the columns, dtypes and category levels of the fitted frame, numbered from 0.

        Raises:
            InputError: n is no whole number from 1, or nothing was fitted.
        """
        n = whole("n", n, 1, 10**9)
        return _restored(_draw(_fitted(self._joint, self), self._rng, n), self._layout)


class ClassMixture:
    """A Gaussian copula for each level of one column, whose levels are drawn as often as they were seen.

    Dependence may then differ from level to level. A level's correlations are drawn to those within all levels, as if these
    rested on as many rows as there are columns. Levels of fewer than 30 rows, and those beyond the 50 most frequent, share
    one copula in which the column is one like the others.

    Args:
        target: a column of categories, booleans or whole numbers; by default the column of categories or booleans with the
            fewest levels, at least two. Where there is none there is one copula for all.
        random_state: see `GaussianCopula`.
    """

    def __init__(self, target: Any = None, random_state: int | np.random.Generator | None = None):
        self.target = target
        self.set_random_state(random_state)
        self._joints: list[_Joint] | None = None
        self._shares = np.empty(0)

    def set_random_state(self, random_state: int | np.random.Generator | None) -> Self:
        """See `GaussianCopula.set_random_state`."""
        self._rng = _generator(random_state)
        return self

    def fit(self, frame: pd.DataFrame) -> Self:
        """See `GaussianCopula.fit`.

        Raises:
            InputError: a frame that cannot be used, or has no such target.
        """
        kinds = kinds_of("frame", frame)
        frame, self._layout = _categorised(frame, kinds)
        groups = _groups(frame, kinds, self.target)
        orders, flagged = order_levels(frame.iloc[_some(len(frame), _ORDERED_BY)], kinds), _flagged(frame)
        fits = [_estimate(frame.iloc[rows], kinds, orders, flagged) for rows in groups]
        weight = float(len(kinds)) if len(fits) > 1 else _PRIOR
        prior = np.eye(len(fits[0].rho))
        if len(fits) > 1:
            rests = sum(one.count for one in fits)
            prior = shrunk(sum(one.count * one.rho for one in fits) / np.maximum(rests, 1), rests, prior, _PRIOR)
        self._joints = [_joined(one, prior, weight) for one in fits]
        self._shares = np.array([len(rows) for rows in groups]) / len(frame)
        return self

    def sample(self, n: int) -> pd.DataFrame:
        """See `GaussianCopula.sample`."""
        n = whole("n", n, 1, 10**9)
        joints = _fitted(self._joints, self)
        group = self._rng.choice(len(joints), n, p=self._shares)
        counts = np.bincount(group, minlength=len(joints))
        parts = [_draw(joint, self._rng, int(many)) for joint, many in zip(joints, counts, strict=True) if many]
        place = np.empty(n, np.int64)
        place[np.argsort(group, kind="stable")] = np.arange(n)
        return _restored(pd.concat(parts, ignore_index=True).take(place).reset_index(drop=True), self._layout)


class _Estimate(NamedTuple):
    marginals: dict[Any, Marginal]
    flagged: tuple
    rho: np.ndarray
    count: np.ndarray


def _estimate(frame: pd.DataFrame, kinds: dict, orders: dict, flagged: tuple) -> _Estimate:
    """Marginals, and raw correlations of the latent numbers: one a column, then one a column with missing values."""
    rows = _some(len(frame), _ROWS)
    marginals, scores = {}, []
    for name, kind in kinds.items():
        marginals[name], found = fit_marginal(frame[name], kind, orders.get(name))
        scores.append(found)
    flags = dict(zip(kinds, scores, strict=True))
    scores += [flag(flags[name].there) for name in flagged]
    return _Estimate(marginals, flagged, *latent_correlation(scores, rows))


def _joined(one: _Estimate, prior: np.ndarray, weight: float) -> _Joint:
    return _Joint(one.marginals, one.flagged, factor(shrunk(one.rho, one.count, prior, weight)))


def _draw(joint: _Joint, rng: np.random.Generator, n: int) -> pd.DataFrame:
    most = max(1, _ENTRIES // len(joint.root))
    parts = [_draw_few(joint, rng, min(most, n - start)) for start in range(0, n, most)]
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def _draw_few(joint: _Joint, rng: np.random.Generator, n: int) -> pd.DataFrame:
    z = rng.standard_normal((n, len(joint.root))) @ joint.root.T
    flags = {name: z[:, len(joint.marginals) + k] for k, name in enumerate(joint.flagged)}
    columns = []
    for i, (name, marginal) in enumerate(joint.marginals.items()):
        there = ndtr(flags[name]) >= marginal.missing if name in flags else np.ones(n, bool)
        columns.append(draw_column(marginal, z[:, i], there))
    return pd.concat(columns, axis=1)


def _categorised(frame: pd.DataFrame, kinds: dict) -> tuple[pd.DataFrame, _Layout]:
    """The frame with its columns of text as categories, so that levels have one code in every part of it."""
    texts = [
        name for name, kind in kinds.items() if kind == CATEGORY and not isinstance(frame[name].dtype, pd.CategoricalDtype)
    ]
    layout, columns = _Layout(frame.columns, {}), {}
    for name in kinds:
        columns[name] = frame[name].reset_index(drop=True)
        if name in texts:
            codes, levels = levels_of(frame[name])
            blank = np.flatnonzero(codes < 0)
            layout.texts[name] = frame[name].dtype, frame[name].iloc[blank[0]] if len(blank) else None
            columns[name] = pd.Series(pd.Categorical.from_codes(codes, levels))
    return pd.DataFrame(columns), layout


def _restored(frame: pd.DataFrame, layout: _Layout) -> pd.DataFrame:
    for i, name in enumerate(layout.columns):
        if name in layout.texts:
            dtype, nothing = layout.texts[name]
            values = frame[i].to_numpy(dtype=object, copy=True)
            values[frame[i].isna().to_numpy()] = nothing
            frame[i] = pd.Series(values, dtype=dtype)
    frame.columns = layout.columns
    return frame


def _groups(frame: pd.DataFrame, kinds: dict, target) -> list[np.ndarray]:
    """Rows of each level that has a copula of its own, then those of all others together."""
    if target is None:
        counted = {name: int(frame[name].nunique()) for name, kind in kinds.items() if kind in (CATEGORY, BOOLEAN)}
        target = min((name for name, levels in counted.items() if levels >= 2), key=counted.__getitem__, default=None)
        if target is None:
            return [np.arange(len(frame))]
    elif target not in kinds:
        raise InputError(f"target must be a column of the frame or None, not {short(target)}.")
    elif kinds[target] not in (CATEGORY, BOOLEAN, INTEGER):
        raise InputError(
            f"target must be a column of categories, booleans or whole numbers, not {short(target)}, which holds "
            f"{kinds[target]}s."
        )
    series = frame[target]
    codes = pd.factorize(series)[0] if kinds[target] == INTEGER else levels_of(series)[0]
    counts = np.bincount(codes + 1)  # missing is a level like the others
    own = [level for level in np.argsort(-counts, kind="stable")[:_LEVELS] if counts[level] >= _FEW]
    groups = [np.flatnonzero(codes + 1 == level) for level in own]
    rest = np.flatnonzero(~np.isin(codes + 1, own))
    return [*groups, rest] if len(rest) else groups


def _flagged(frame: pd.DataFrame) -> tuple:
    return tuple(name for name in frame.columns if frame[name].hasnans)


def _some(n: int, most: int) -> np.ndarray:
    """Rows 0 to n - 1, or so many of them at random, always the same."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _generator(random_state) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(None if random_state is None else check_seed(random_state, "random_state"))


def _fitted(what, owner):
    if what is None:
        raise InputError(f"{type(owner).__name__} must be fitted before it samples: call fit(frame) first.")
    return what
