"""What `accelerator.py` is made of: rows, parts that measure them within a time, and the table that they end in."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

PEAK, BANDWIDTH = "bf16 matrix product", "memory bandwidth"  # the two bounds, which are measured like anything else


class Row(NamedTuple):
    """One measurement, or the reason why there is none.

    Attributes:
        what: its name.
        rate, unit: the figure; of what has a peer or a bound more is better.
        against, other: the peer or bound, and its figure in the same unit.
        compile_s: seconds of compilation, which is in no figure.
        remark: whatever a reader must know of it; why there is no figure.
    """

    what: str
    rate: float | None = None
    unit: str = ""
    against: str = ""
    other: float | None = None
    compile_s: float | None = None
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Its figure over the other one."""
        return None if self.rate is None or not self.other else self.rate / self.other


class Setting(NamedTuple):
    """What every part is told.

    Attributes:
        tiny: toy sizes, to see on a CPU that everything runs.
        half: whether networks compute in bfloat16: on accelerators.
        ends: when the time is up, by `time.monotonic`.
        measured: rates of the rows so far, by name.
    """

    tiny: bool
    half: bool
    ends: float
    measured: dict[str, float]

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()


class Part(NamedTuple):
    """Rows that are measured together.

    Attributes:
        name: for --only.
        rows: their names, in order.
        seconds: what it is reckoned to take on an accelerator, most of it compilation: a part for which less is left is not
            begun. Guesses, until the script has been run on one.
        work: setting -> the rows, each as soon as it is there.
    """

    name: str
    rows: tuple[str, ...]
    seconds: float
    work: Callable[[Setting], Iterator[Row]]


def measure(parts: Sequence[Part], setting: Setting, show: Callable[[list[Row]], None] = lambda rows: None) -> list[Row]:
    """Every row of every part: measured, failed, or left out for want of time; `show` is called after each part."""
    rows: list[Row] = []
    for part in parts:
        missing = list(part.rows)
        needed = part.seconds / 50 if setting.tiny else part.seconds
        why = f"skipped: {max(setting.left, 0):.0f} s were left, and about {needed:.0f} are needed"
        if setting.left >= needed:
            why = "failed: it was not measured"
            try:
                for row in part.work(setting):
                    rows.append(_sound(row))
                    missing.remove(row.what)
                    if rows[-1].rate is not None:
                        setting.measured[row.what] = rows[-1].rate
            except Exception as error:
                why = f"failed: {reason(error)}"
        rows += [Row(what, remark=why) for what in missing]
        show(rows)
        if not setting.tiny:  # the next one may need the room
            gc.collect()
            jax.clear_caches()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()
    return rows


def _sound(row: Row) -> Row:
    if row.rate is None or np.isfinite(row.rate):
        return row
    return row._replace(rate=None, remark=f"failed: its figure is {row.rate}; {row.remark}".rstrip("; "))


def reason(error: BaseException) -> str:
    """The first line of an error, cut."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said[:200]}".rstrip(": ")


def seconds_a_call(work: Callable[[], Any], tiny: bool, rounds: int = 3, least: float = 1.0) -> float:
    """Of calls that do not wait for the device: the best round, each of so many that one wait at its end costs nothing."""
    jax.block_until_ready(work())
    start = time.perf_counter()
    jax.block_until_ready(work())
    once, found = time.perf_counter() - start, []
    calls = 1 if tiny else int(np.clip(least / rounds / once, 1, 50))
    for _ in range(rounds):
        start, out = time.perf_counter(), None
        for _ in range(calls):
            out = work()
        jax.block_until_ready(out)
        found.append((time.perf_counter() - start) / calls)
    return min(found)


def compiled(work: Callable, *inputs, **options) -> tuple[Any, float]:
    """A function compiled for these inputs, and the seconds that this took."""
    start = time.perf_counter()
    made = jax.jit(work, **options).lower(*inputs).compile()
    return made, time.perf_counter() - start


def table(rows: Sequence[Row]) -> str:
    """GitHub markdown."""
    lines = ["| what | figure | unit | against | its figure | ratio | compile s | remark |", "| --- " * 8 + "|"]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
        cells = (row.what, _number(row.rate), row.unit or "-", row.against or "-", _number(row.other), ratio)
        said = row.remark.replace("|", "/") or "-"
        lines.append("| " + " | ".join((*cells, _number(row.compile_s), said)) + " |")
    return "\n".join(lines)


def _number(x: float | None) -> str:
    """Three digits."""
    return "-" if x is None else f"{float(f'{x:.3g}'):,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def write(folder: Path, machine: dict, title: str, rows: Sequence[Row]) -> None:
    """The table and the figures as files that bear the device's name; again after each part, in case the next is the last."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "_" for c in str(machine["device"]).lower())
    said = ", ".join(f"{k} {v}" for k, v in machine.items())
    (folder / f"accelerator_{name}.md").write_text(f"{title}\n\n{said}\n\n{table(rows)}\n", encoding="utf-8")
    found = [{**row._asdict(), "ratio": row.ratio} for row in rows]
    content = json.dumps({"title": title, "machine": machine, "rows": found}, indent=1)
    (folder / f"accelerator_{name}.json").write_text(content, encoding="utf-8")
