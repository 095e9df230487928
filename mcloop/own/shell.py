"""The command `mcloop score`: its arguments, and nothing heavy before it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg


def score(
    real: Positional[Path],
    generations: Positional[tuple[Path, ...]],
    *,
    target: str | None = None,
    columns: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KIND=NAME,NAME")] = (),
    ignore: UseAppendAction[tuple[str, ...]] = (),
    share: str | None = None,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Score generations that were made elsewhere: is the loop collapsing, and how fast? Exits with 1 if it has changed.

    Args:
        real: the real data: a table (CSV, Parquet, JSON lines and so on), texts (.txt, or JSON lines of texts) or an array
            (.npy); or a folder of files of one kind, which are joined.
        generations: what each generation drew, in order, a file or a folder each, of the kind of the real data.
        target: a table's column to predict: a fifth of the real rows is set aside, and models that are trained on synthetic
            rows are tested there.
        columns: what columns of the real table hold, where that is not to be found out, such as category=zip,code; may be
            repeated.
        ignore: a column to leave out; may be repeated.
        share: the synthetic share of the training sets, such as 40%, to be told what its law expects.
        seed: of the points that are tested where there are many.
        json: write everything here for machines.
    """
    from mcloop.own.score import tell

    if tell(real, generations, target, columns, ignore, share, seed, json):
        raise SystemExit(1)
