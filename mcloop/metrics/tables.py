"""A synthetic mixed table against the real one: marginals, dependence, copies and usefulness as a few numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mcloop.checks import check_seed
from mcloop.data.typed import NUMERIC, kinds_of, short
from mcloop.errors import InputError
from mcloop.metrics.association import associations
from mcloop.metrics.records import closest_record, copies, mixed
from mcloop.metrics.table_columns import Column, coded, column_scores, identified
from mcloop.metrics.transfer import transfer

_ROWS = 10_000  # of each table, drawn by the seed, for what is not measured on all: those that are trained on, or are near
_FEW = 2_000  # of those, for associations, and whose nearest neighbour is sought


def table_metrics(
    real: pd.DataFrame, synthetic: pd.DataFrame, *, target: Any = None, held_out: pd.DataFrame | None = None, seed: int = 0
) -> dict[str, float]:
    """How close a synthetic table is to the real one, whose dtypes (see `mcloop.data.typed`) say what each column is.

    Which numbers there are depends on the real table alone, not on the synthetic one; what does not apply is left out.

    Args:
        real, synthetic: the same columns, in any order. The synthetic one may have levels, missing values and infinite
            numbers that the real one lacks.
        target: a column to predict from the others, with `held_out`.
        held_out: real rows that neither the synthetic table's model nor `real` holds.
        seed: of the rows drawn where a measure does not take all of them.

    Returns:
        ks_mean, ks_max: Kolmogorov-Smirnov distance of the values that are there, over columns of numbers and dates.
        tv_mean, tv_max: total variation, over columns of categories and booleans, and over the flags "missing" of those
            columns that have missing values in either table.
        missing_max: the largest difference of the shares of missing values, over all columns.
        categories_kept, rare_kept: share of a column's real levels that occur, and of those that at most 2 % of the real
            values have; means over columns.
        range_kept: share of the real range that is spanned; mean over columns of numbers and dates.
        association_error: mean absolute difference of `associations` over all pairs of columns, on at most 2,000 rows of
            each table: two tables of one distribution differ by about 0.02 at that size.
        copies: share of synthetic rows that are equal to a real row everywhere.
        closest_record: see `closest_record`; of at most 2,000 rows to at most 10,000.
        tstr, tstr_score, trtr_score: see `transfer`; on at most 10,000 rows each.

    Raises:
        InputError: tables that do not fit together, an unknown target.
    """
    kinds, frames = _tables(real, synthetic, held_out)
    check_seed(seed)
    if target is not None and target not in kinds:
        raise InputError(f"target must be a column of real or None, not {short(target)}.")
    rows = [_drawn(len(frame), seed) for _, frame in frames]
    table, some, hashes = [], {}, [np.zeros(len(frame), np.uint64) for _, frame in frames[:2]]
    for place, (name, kind) in enumerate(kinds.items()):
        column = coded(name, kind, real[name], *((field, frame[name]) for field, frame in frames[1:]))
        table.append(column_scores(column))
        values = identified(column, real[name], synthetic[name])[:2]
        hashes = [mixed(total, one, place) for total, one in zip(hashes, values, strict=True)]
        some[name] = column._replace(
            real=column.real[rows[0]], others=tuple(x[chosen] for x, chosen in zip(column.others, rows[1:], strict=True))
        )
    found = _marginal(pd.DataFrame(table))
    if len(kinds) > 1:
        found["association_error"] = _association_error(list(some.values()))
    found["copies"] = copies(*hashes)
    if not np.isnan(closest := closest_record(list(some.values()), _FEW)):
        found["closest_record"] = closest
    return found | (transfer(some, target, seed) if target is not None and held_out is not None else {})


def columns_report(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.DataFrame:
    """One row a column of the real table: its kind and what `column_scores` says of it, NaN where that does not apply.

    Raises:
        InputError: tables that do not fit together.
    """
    kinds, _ = _tables(real, synthetic, None)
    rows = [column_scores(coded(name, kind, real[name], ("synthetic", synthetic[name]))) for name, kind in kinds.items()]
    return pd.DataFrame(rows, index=real.columns)


def _tables(real, synthetic, held_out) -> tuple[dict[Any, str], list[tuple[str, pd.DataFrame]]]:
    """The kinds of the real columns, and all tables with their fields' names."""
    kinds = kinds_of("real", real, least=2)
    frames = [("real", real), ("synthetic", synthetic)] + ([] if held_out is None else [("held_out", held_out)])
    for field, frame in frames[1:]:
        if not isinstance(frame, pd.DataFrame):
            raise InputError(f"{field} must be a pandas DataFrame, not {type(frame).__name__}.")
        if len(frame) < 1:
            raise InputError(f"{field} must have at least one row, not none.")
        for name in kinds:
            if (many := list(frame.columns).count(name)) != 1:
                raise InputError(f"{field} must have the columns of real, each once, and has {many} of {short(name)}.")
        if frame.shape[1] != len(kinds):
            other = next(name for name in frame.columns if name not in kinds)
            raise InputError(f"{field} must have the columns of real alone, and has {short(other)}, which real lacks.")
    return kinds, frames


def _drawn(n: int, seed: int) -> np.ndarray:
    """At most _ROWS rows in a random order, the same for tables of one length."""
    return np.random.default_rng(seed).permutation(n)[:_ROWS]


def _marginal(table: pd.DataFrame) -> dict[str, float]:
    """What the columns' scores come to over columns."""
    found: dict[str, float] = {}
    if (ks := table["ks"].dropna()).size:
        found |= {"ks_mean": float(ks.mean()), "ks_max": float(ks.max())}
    blank, missing = (np.asarray(table[f"missing_{side}"], np.float64) for side in ("real", "synthetic"))
    flags = np.abs(blank - missing)
    tv = np.asarray(table["tv"].dropna(), np.float64)
    if tv.size or blank.any():
        tv = np.append(tv, flags[(blank > 0) | (missing > 0)])
        found |= {"tv_mean": float(tv.mean()), "tv_max": float(tv.max())}
    found["missing_max"] = float(flags.max())
    for name, of in (("categories_kept", "kept"), ("rare_kept", "rare_kept"), ("range_kept", "range_kept")):
        if (kept := table[of].dropna()).size:
            found[name] = float(kept.mean())
    return found


def _association_error(columns: list[Column]) -> float:
    ordered = sorted(columns, key=lambda column: column.kind not in NUMERIC)
    numeric = [column for column in ordered if column.kind in NUMERIC]
    matrices = []
    for side in (0, 1):
        values = [(column.real, column.others[0])[side][:_FEW] for column in ordered]
        numbers = np.column_stack(values[: len(numeric)]) if numeric else np.zeros((len(values[0]), 0))
        matrices.append(associations(numbers, values[len(numeric) :]))
    upper = np.triu_indices(len(ordered), 1)
    return float(np.abs(matrices[0] - matrices[1])[upper].mean())
