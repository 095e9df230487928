"""What a validation found: a table for a terminal, JSON for machines, a figure."""

from __future__ import annotations

import io
import json
import os
import textwrap
from collections.abc import Sequence

import numpy as np

from mcloop.errors import InputError
from mcloop.storage.files import save
from mcloop.validation.validate import REJECT, Row, threshold


def table(rows: Sequence[Row]) -> None:
    """Print the rows and the verdict of all of them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if console.width < _NARROW:
        return _lines(rows, console)
    said = Table(caption=f"law: |z| < {threshold():.2f}; wrong neighbour: |z| > {REJECT:g}", caption_justify="left")
    for name in ("id", "regime", "law"):
        said.add_column(name, overflow="fold")
    for name in ("simulated ± s.e.", "predicted", "z"):
        said.add_column(name, justify="right", no_wrap=True)
    said.add_column("wrong neighbour", overflow="fold")
    said.add_column("its z", justify="right", no_wrap=True)
    said.add_column("verdict", no_wrap=True)
    for row in rows:
        said.add_row(*map(escape, (row.id, f"{row.regime}: {row.parameters}", row.law, *_numbers(row))))
    console.print(said)
    _total(rows, console)


_NARROW = 140  # columns, below which a table of nine would be shreds


def _lines(rows: Sequence[Row], console) -> None:
    """The rows as a verdict a line, with the law and what was simulated below it."""
    for row in rows:
        value, predicted, z, neighbour, away, verdict = _numbers(row)
        said = [f"{row.id:4} {verdict}: {value}, predicted {predicted}, z {z}"]
        said += [f"{row.law}; {row.regime}: {row.parameters}", f"wrong neighbour: {neighbour}; its z {away}"]
        for i, text in enumerate(said):
            indent = {"initial_indent": "     " * (i > 0), "subsequent_indent": "     "}
            wrapped = textwrap.fill(text, max(40, console.width), **indent)
            console.print(wrapped, markup=False, highlight=False, soft_wrap=True)
    console.print(f"law: |z| < {threshold():.2f}; wrong neighbour: |z| > {REJECT:g}", markup=False, highlight=False)
    _total(rows, console)


def _total(rows: Sequence[Row], console) -> None:
    failed = [row.id for row in rows if not row.passed]
    console.print(
        f"{len(rows) - len(failed)} of {len(rows)} checks pass" + (f"; FAILED: {', '.join(failed)}" if failed else "")
    )


def _numbers(row: Row) -> list[str]:
    """What the simulation says, to two digits of its standard error."""
    if row.stderr is None or row.z is None or row.neighbour_z is None:
        return ["-", "-", "-", row.neighbour, "-", "FAIL: not finite" if row.replicas else "not simulated"]
    digits = max(1 - int(np.floor(np.log10(row.stderr))), 0)
    value, error = (f".{digits}f",) * 2 if digits < 8 else (".4g", ".2g")
    return [
        f"{row.simulated:{value}} ± {row.stderr:{error}}",
        f"{row.predicted:{value}}",
        f"{row.z:+.2f}",
        row.neighbour,
        f"{row.neighbour_z:+.1f}",
        "pass" if row.passed else "FAIL",
    ]


def to_json(rows: Sequence[Row]) -> str:
    """The rows as JSON, `{"passed", "threshold", "reject", "rows": [...]}`; `from_json` reads them back."""
    whole = {
        "passed": all(row.passed for row in rows),
        "threshold": threshold(),
        "reject": REJECT,
        "rows": [row._asdict() for row in rows],
    }
    return json.dumps(whole, indent=1, allow_nan=False)


def from_json(text: str) -> list[Row]:
    """The rows that `to_json` wrote."""
    return [Row(**row) for row in json.loads(text)["rows"]]


def figure(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Draw every law's z in the band that it must stay in, and beside it how far off its wrong neighbour is; a PNG."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.z is not None and row.neighbour_z is not None]
    if not shown:
        raise InputError("rows must hold at least one simulated law, not none.")
    place, limit = np.arange(len(shown)), threshold()
    z = np.array([row.z or 0.0 for row in shown])
    away = np.array([abs(row.neighbour_z or 0.0) for row in shown])
    made = Figure(figsize=(10, 1.6 + 0.23 * len(shown)), dpi=150, layout="constrained")
    left, right = made.subplots(1, 2, sharey=True, width_ratios=(3, 2))

    left.axvspan(-limit, limit, color="0.9", label=f"|z| < {limit:.2f}")
    left.axvline(0, color="0.5", linewidth=0.8, linestyle="--")
    edge = max(limit + 1, 1.05 * np.abs(z).max()) if np.abs(z).max() < 20 else 20.0
    clipped = np.clip(z, -edge, edge)
    for good, marker, colour, said in ((True, "o", "tab:blue", "law: passes"), (False, "X", "tab:red", "law: FAILS")):
        mask = np.array([row.passed is good for row in shown])
        left.plot(clipped[mask], place[mask], marker, color=colour, markersize=5 if good else 8, label=said)
    left.set(xlim=(-1.05 * edge, 1.05 * edge), xlabel="z of the law: (simulated − predicted) / standard error")
    left.set_yticks(place, [f"{_short(row.family + ': ' + row.regime)}   {row.id}" for row in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)

    right.axvspan(0.1, REJECT, color="0.9", label=f"not told apart: |z| < {REJECT:g}")
    right.plot(np.maximum(away, 0.1), place, "s", color="black", markerfacecolor="white", markersize=5, label="wrong neighbour")
    right.set(xscale="log", xlim=(0.5, 3 * max(away.max(), 100)), xlabel="|z| of the wrong neighbour")
    for axes in (left, right):
        axes.grid(axis="y", color="0.93")
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7.5, length=2)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    payload = io.BytesIO()
    made.savefig(payload, format="png")
    save(path, payload.getvalue())


def _short(words: str, most: int = 54) -> str:
    return words if len(words) <= most else words[: most - 1].rstrip(" ,") + "…"
