"""Points of any form as vectors, on a scale that the real points fix: what batches of one generator are compared in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mcloop.data.typed import CATEGORY, DATE, NUMERIC, kinds_of, levels_of, short
from mcloop.errors import Diverged, InputError
from mcloop.memory.forms import called, is_frame, plain
from mcloop.memory.points import form_of
from mcloop.metrics.ngrams import ngram_features

_WIDEST = 64  # coordinates from which on they are projected
_LEVELS = 32  # levels of a column that have a coordinate each; those of one with more share as many by a hash
_TEXT = 64  # coordinates of a text
_RARE = 0.01  # a share below which a level, or a gap, weighs no more than at it
_FAR = 1e6  # standard deviations beyond which a number counts as so far: squares of larger ones would not be finite
_AT_ONCE = 2_000_000  # numbers of arrays that are scaled in one go

Encode = Callable[[Any, str], np.ndarray]  # (points as `take` gives them, whose they are) -> (n, d)


class Embedding(NamedTuple):
    """How points become vectors.

    Attributes:
        unit: what one point is called: "row", "point" or "text".
        take: (points, whose they are, in words) -> the same as measures take them. Raises InputError.
        encode: (points that were taken, whose they are) -> float64 (n, d), finite. Raises InputError.
        names: what each of d coordinates is of, such as "column 'age'"; () where they were projected, and of texts.
    """

    unit: str
    take: Callable[[Any, str], Any]
    encode: Encode
    names: tuple[str, ...]


def embedding(real: Any, seed: int = 0) -> Embedding:
    """The embedding that real points fix; a batch changes nothing of it.

    Numbers and dates are divided by the real standard deviation about the real mean, a gap being at the mean, with a
    coordinate of its own for the flag. A category has a coordinate a level, divided by the root of the level's share as in a
    multiple correspondence analysis (of a share of 1 % at least), and the column as a whole has a total variance of one, as a
    column of numbers has. Columns of more than 32 levels, and texts, are hashed counts of their words and pairs of words
    (`ngram_features`). Arrays are flattened; those of several dimensions, such as images, are divided by one standard
    deviation, since their coordinates have one unit. Above 64 coordinates these are projected at random onto 64, by the seed,
    which keeps squared distances on average. What the real points have constant is left out.

    Args:
        real: a DataFrame, an array (n, ...), a pair (X, y) or a list of strings.
        seed: of the projection.

    Raises:
        InputError: it is none of these, or all real points are alike.
    """
    found = _of(real, "real")
    width = found.encode(_rows(found.take(real, "real"), np.arange(1)), "real").shape[1]
    if width <= _WIDEST:
        return found
    # scaled so that |x P|^2 is |x|^2 on average
    matrix = np.random.default_rng([seed, width]).normal(size=(width, _WIDEST)) / np.sqrt(_WIDEST)
    step = max(_AT_ONCE // width, 1)

    def encode(points: Any, whose: str) -> np.ndarray:
        parts = range(0, size_of(points), step)
        return np.concatenate(
            [found.encode(_rows(points, np.arange(i, min(i + step, size_of(points)))), whose) @ matrix for i in parts]
        )

    return found._replace(encode=encode, names=())


def size_of(points: Any) -> int:
    """How many points there are."""
    return len(points[0] if isinstance(points, tuple) else points)


def some(points: Any, most: int, seed: list[int]) -> Any:
    """At most so many of points that were taken, in an order that the seed gives: some generators sort what they draw."""
    return _rows(points, np.random.default_rng(seed).permutation(size_of(points))[:most])


def _rows(points: Any, chosen: np.ndarray) -> Any:
    if isinstance(points, tuple):
        return tuple(_rows(part, chosen) for part in points)
    if isinstance(points, list):
        return [points[i] for i in chosen]
    return points.iloc[chosen] if is_frame(points) else points[chosen]


def _of(real: Any, whose: str) -> Embedding:
    if isinstance(real, tuple) and len(real) == 2:
        return _pair(_of(real[0], f"{whose}, X,"), _of(real[1], f"{whose}, y,"))
    real = plain(real)
    if is_frame(real):
        return _table(real, whose)
    form = form_of(real)

    def take(points: Any, whose: str) -> Any:
        try:
            return form.decode(form.encode(points, whose))
        except Diverged as error:
            raise InputError(f"{error}; every number of it must be finite.") from error

    if form.unit == "text":
        return Embedding("text", take, lambda texts, whose: hashed(texts, _TEXT), ())
    encode, names = _array(take(real, whose))
    return Embedding(form.unit, take, encode, names)


def _pair(x: Embedding, y: Embedding) -> Embedding:
    def take(points: Any, whose: str) -> Any:
        if not isinstance(points, tuple) or len(points) != 2:
            raise InputError(f"{whose} must be a pair (X, y), as the real points are, not {called(points)}.")
        found = x.take(points[0], f"{whose}, X,"), y.take(points[1], f"{whose}, y,")
        if (n := size_of(found[0])) != (m := size_of(found[1])):
            raise InputError(f"{whose} has {n} rows of X and {m} of y.")
        return found

    def encode(points: Any, whose: str) -> np.ndarray:
        return np.concatenate([x.encode(points[0], f"{whose}, X,"), y.encode(points[1], f"{whose}, y,")], axis=1)

    names = (*(f"{n} of X" for n in x.names), *(f"{n} of y" for n in y.names)) if x.names and y.names else ()
    return Embedding(x.unit, take, encode, names)


# -- texts


def hashed(texts: list[str], width: int) -> np.ndarray:
    """Texts as hashed counts of their words and pairs of words, (n, width); the same whatever was seen before."""
    known: dict[str, int] = {}

    def number(word: str) -> int:
        if word not in known:
            known[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")
        return known[word]

    return ngram_features([np.array([number(word) for word in text.split()], np.uint64) for text in texts], width)


# -- arrays


def _array(real: np.ndarray) -> tuple[Encode, tuple[str, ...]]:
    """Of arrays (n, ...): every coordinate, and a flag for each that has gaps."""
    one_unit, gaps = real.ndim > 2, ~np.isfinite(_flat(real)).all(0)
    scale = _scale(_flat(real), one_unit)
    kept = np.flatnonzero(scale[2] > 0)

    def encode(points: np.ndarray, whose: str) -> np.ndarray:
        x = _flat(points)
        if not gaps.any():
            return _scaled(x, scale)[:, kept]
        flags = (~np.isfinite(x[:, gaps])) / _root(~np.isfinite(_flat(real)[:, gaps]))
        return np.concatenate([_scaled(x, scale)[:, kept], flags], axis=1)

    names = [f"coordinate {j + 1}" for j in kept] + [f"the gaps of coordinate {j + 1}" for j in np.flatnonzero(gaps)]
    return encode, tuple(names)


def _flat(x: np.ndarray) -> np.ndarray:
    x = x.reshape(len(x), -1)
    x = np.concatenate([np.real(x), np.imag(x)], axis=1) if x.dtype.kind == "c" else x
    return x.astype(np.float64)


def _scale(x: np.ndarray, one_unit: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unit, mean and deviation in that unit), each (d,); the unit is what keeps squares of large numbers finite."""
    x = np.where(np.isfinite(x), x, np.nan)
    there = np.isfinite(x).any(0)
    x = np.where(there, x, 0.0)
    unit = np.fmax.reduce(np.abs(x), axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    mean, deviation = np.nanmean(x / unit, axis=0), np.nanstd(x / unit, axis=0)
    # a constant is not always its own mean, to the last bit
    deviation = np.where(deviation > 1e-14, deviation, 0.0)
    if one_unit and deviation.any():
        common = np.sqrt(np.mean((deviation * (unit / unit.max())) ** 2)) * (unit.max() / unit)
        deviation = np.where(deviation > 0, common, 0.0)
    return unit, mean, deviation


def _scaled(x: np.ndarray, scale: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    unit, mean, deviation = scale
    with np.errstate(over="ignore"):
        found = (x / unit - mean) / np.where(deviation > 0, deviation, 1.0)
    return np.clip(np.where(np.isfinite(x), found, 0.0), -_FAR, _FAR)


def _root(flags: np.ndarray) -> np.ndarray:
    share = np.clip(flags.mean(0), _RARE, 1 - _RARE)
    return np.sqrt(share * (1 - share))


# -- tables


def _table(real: Any, whose: str) -> Embedding:
    kinds = kinds_of(whose, real, least=2)
    columns = {name: (_numeric if kind in NUMERIC else _levels)(name, kind, real[name]) for name, kind in kinds.items()}

    def take(points: Any, whose: str) -> Any:
        points = plain(points)
        if not is_frame(points):
            raise InputError(f"{whose} must be a DataFrame, as the real table is, not {called(points)}.")
        for name in kinds:
            if (many := list(points.columns).count(name)) != 1:
                raise InputError(
                    f"{whose} must have the columns of the real table, each once, and has {many} of {short(name)}."
                )
        for name in points.columns:
            if name not in kinds:
                raise InputError(f"{whose} must have the columns of the real table alone, and has {short(name)} besides.")
        for name, kind in kinds.items():
            if kind in NUMERIC and kind != DATE and np.isinf(_floats(points[name], kind, whose)).any():
                raise InputError(f"{whose} must hold finite or missing numbers in column {short(name)}, not inf.")
        return points[list(kinds)]

    def encode(frame: Any, whose: str) -> np.ndarray:
        return np.concatenate([column(frame[name], whose) for name, column in columns.items()], axis=1)

    first = real.iloc[:1]
    names = [f"column {short(name)}" for name, column in columns.items() for _ in range(column(first[name], whose).shape[1])]
    return Embedding("row", take, encode, tuple(names))


def _numeric(name: Any, kind: str, real: Any) -> Encode:
    x = _floats(real, kind, "real")[:, None]
    scale, root = _scale(x), _root(np.isnan(x))

    def encode(series: Any, whose: str) -> np.ndarray:
        x = _floats(series, kind, whose)[:, None]
        flag = np.isnan(x) / root
        return flag if scale[2][0] == 0 else np.concatenate([_scaled(x, scale), flag], axis=1)

    return encode


def _floats(series: Any, kind: str, whose: str) -> np.ndarray:
    """Numbers, or microseconds since 1970, NaN where there are none."""
    if kind == DATE:
        if getattr(series.dtype, "kind", "") != "M":  # so has a date with a zone
            raise InputError(
                f"{whose} must hold dates in column {short(series.name)}, as the real table does, not {series.dtype}."
            )
        x = series.to_numpy("M8[us]")
        return np.where(np.isnat(x), np.nan, x.astype(np.int64).astype(np.float64))
    try:
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{whose} must hold numbers in column {short(series.name)}, as the real table does, not {series.dtype}."
        ) from error


def _levels(name: Any, kind: str, real: Any) -> Encode:
    codes, levels = levels_of(real)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    known = levels[counts > 0]
    many = kind == CATEGORY and len(known) > _LEVELS

    def raw(series: Any) -> np.ndarray:
        codes, own = levels_of(series)
        if many:
            rows = np.concatenate([hashed([str(level) for level in own], _LEVELS), np.zeros((1, _LEVELS))])[codes]
            return np.concatenate([rows, (codes < 0)[:, None]], axis=1)
        to = known.get_indexer(own)
        place = np.append(np.where(to < 0, len(known), to), len(known) + 1)[codes]  # a new level, and a gap, last
        return np.eye(len(known) + 2)[place]

    x = raw(real)
    weight = 1 / np.sqrt(np.maximum(x.mean(0), _RARE))
    if many:
        weight[:-1] = 1.0
    total = (x * weight).var(0).sum()
    weight = weight / np.sqrt(total) if total > 1e-12 else weight
    return lambda series, whose: raw(series) * weight
