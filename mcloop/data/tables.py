"""Tables of numbers: read from CSV, Parquet or NPY with every doubt settled at the door, or built in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mcloop.data.csv_tables import read_csv
from mcloop.data.foreign import refuse
from mcloop.data.readers import INDEX, KINDS, NOTHING, Column, contents, distinct, read_npy, read_parquet, short
from mcloop.errors import InputError


class Table(NamedTuple):
    """Finite numbers in named columns, no column constant.

    Attributes:
        values: float64, shape (rows, columns), at least two rows and one column.
        names: one a column, all different.
        source: where it comes from, in words: of a file its name, without the folders that it is in.
        dropped: (name, why) of each column that was left out; what stood in it is not told.
        target: the last column of the file, whether it was left out or not; "" stands for the last of `names`.
    """

    values: np.ndarray
    names: tuple[str, ...]
    source: str
    dropped: tuple[tuple[str, str], ...] = ()
    target: str = ""


def load_table(path: str | os.PathLike[str]) -> Table:
    """Reads the columns of numbers of a CSV, Parquet or NPY file; other columns are listed in `dropped`.

    A CSV is UTF-8 or UTF-16 text separated by commas, semicolons, bars or tabs, with or without a row of names. Decimal
    commas, thousands separators, percent signs, true and false are read as numbers. The index of a saved DataFrame is no
    column: leading ones without a name in a CSV, and in Parquet those that the file says to be one.

    Raises:
        InputError: the file cannot be read, is none of these, or has no usable column, a missing or an infinite value.
    """
    data, source = contents(path, KINDS)
    suffix = Path(path).suffix.lower()
    if data.startswith(b"\x93NUMPY") or suffix == ".npy":
        return _checked(*read_npy(data, source), "row", source)
    if data.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
        return _checked(*read_parquet(data, source), "row", source)
    refuse(data, f"The table {source}", KINDS)
    return _checked(*read_csv(data, source), "line", source)


def standardise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (z, mean, scale): z = (values - mean) / scale has mean 0 and standard deviation 1 (ddof 0) a column."""
    largest = np.maximum(np.abs(values).max(0), np.finfo(float).tiny)  # so that no square over- or underflows
    mean, scale = ((values / largest).mean(0), (values / largest).std(0))
    if not (np.isfinite(scale) & (scale > 0)).all():
        column = int(np.argmin(np.isfinite(scale) & (scale > 0)))
        raise InputError(f"Column {column + 1} of the values cannot be standardised: it is constant or not finite.")
    return (values / largest - mean) / scale, mean * largest, scale * largest


def default_table(kind: str) -> Table:
    """Returns a real table that needs no file: "digits" (1797 scans by 8 principal components) or "diabetes".

    Raises:
        InputError: another kind, or scikit-learn is not installed.
    """
    if kind not in ("digits", "diabetes"):
        raise InputError(f"The table {kind!r} is not built in; choose 'digits' or 'diabetes', or give a file.")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(f"The table {kind!r} comes with scikit-learn: pip install scikit-learn.") from error
    if kind == "diabetes":
        names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "target")
        values = np.column_stack([np.asarray(part, float) for part in datasets.load_diabetes(return_X_y=True)])
        return Table(values, names, "scikit-learn diabetes, 442 people")
    x = np.asarray(datasets.load_digits(return_X_y=True)[0], float)
    x -= x.mean(0)
    axes = np.linalg.svd(x, full_matrices=False)[2][:8]
    # An axis has no sign of its own: its largest loading is made positive, so that every machine agrees.
    axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
    names = tuple(f"pc{i}" for i in range(1, 9))
    return Table(x @ axes.T, names, "scikit-learn digits, 1797 scans, 8 principal components of 64 pixels")


def split_target(table: Table, name: str | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns (X, y, names of X's columns), with the named column, or else the file's last one, as regression target y.

    Another column never takes its place: where the last one cannot be read there is no target.

    Raises:
        InputError: there is no such column, it was left out, or there is no other column.
    """
    last = name is None
    name = (table.target or table.names[-1]) if name is None else name
    if name not in table.names:
        why = dict(table.dropped).get(name)
        found = f"was left out ({why})" if why else "is not in it"
        which = f"The target {short(name)!r} of {table.source}{', its last column,' if last else ''} {found}"
        cure = "put the column that is to be predicted last" if last else f"choose one of {_list(table.names)}"
        raise InputError(f"{which}; {cure}.")
    if len(table.names) < 2:
        raise InputError(f"A regression needs a column besides the target {name!r}; {table.source} has no other.")
    target = table.names.index(name)
    names = tuple(other for other in table.names if other != name)
    return np.delete(table.values, target, axis=1), table.values[:, target], names


def _checked(columns: list[Column], rows: Sequence[int], row: str, source: str) -> Table:
    """Settles what a table may not hold; `rows` and `row` say where in the file a value stands."""
    if len(rows) < 2:
        raise InputError(f"The table {source} has {len(rows)} row(s) of data; at least two are needed.")
    kept: list[Column] = []
    dropped: list[tuple[str, str]] = []
    names = distinct([column.name for column in columns])
    for (name, values, why), unique in zip(columns, names, strict=True):
        if values is None or np.isnan(values).all():
            dropped.append((unique, why or "no values"))
        elif np.isnan(values).any():
            where = f"{row} {rows[int(np.isnan(values).argmax())]}"
            raise InputError(f"Column {short(name)!r} of {source} has no number at {where}; fill it in or leave the row out.")
        elif np.isinf(values).any():
            where = f"{row} {rows[int(np.isinf(values).argmax())]}"
            raise InputError(f"Column {short(name)!r} of {source} is infinite at {where}; numbers must be finite.")
        elif values.min() == values.max():
            dropped.append((unique, "constant"))
        else:
            kept.append(Column(unique, values))
    if not kept:
        reasons = "; ".join(f"{short(name)!r}: {why}" for name, why in dropped[:3]) or "no column at all"
        raise InputError(f"The table {source} has no column of varying numbers ({reasons}).")
    values = np.column_stack([column.values for column in kept if column.values is not None])
    last = [name for name, column in zip(names, columns, strict=True) if column.why not in (INDEX, NOTHING)][-1]
    return Table(values, tuple(column.name for column in kept), source, tuple(dropped), last)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, map(short, names[:8]))) + (", ..." if len(names) > 8 else "")
