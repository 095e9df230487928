"""The table that a user names at the shell, as an experiment hands it on to its loops."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mcloop.data.mixed import MixedTable


class Given(NamedTuple):
    """What `--data` names (None: what stands in for it), and what is said of it in the report."""

    path: Path | None
    source: str
    remarks: tuple[str, ...] = ()


def given(path: Path | None, table: MixedTable) -> Given:
    """A table that was read, with what was left out of it."""
    dropped = [f"column {name} was left out: {why}" for name, why in table.dropped]
    return Given(path, table.source, (*dropped, *table.remarks))
