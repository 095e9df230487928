"""How far a long computation is: stages tell, whoever shows it listens."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Tell = Callable[..., None]

EVERY = 60.0  # seconds between two lines of a log file


class Bar:
    """One line on standard error: which loop, which generation, which stage, and the time left.

    On a terminal it is a bar; in a log file it is a line for every generation that ends, and a line a minute in between.

    Args:
        total: generations (or cells) of all loops together; None while that is not known yet.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._done, self._computed, self._began = total, 0, 0, time.monotonic()
        self._where, self._stage, self._said = "", "preparing", time.monotonic()
        self._firsts, self._opened, self._latest = 0, 0.0, 0.0
        self._ahead: list[float] = []
        self._foreseen, self._spent = 0.0, 0.0
        self._bar: Any = None
        self._task: Any = None
        self._end = threading.Event()

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[stage]}"))
            left = TextColumn("{task.fields[left]}")
            self._bar = Progress(*columns, left, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self._total, stage=self._stage, left="")
            self._bar.start()
        else:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._bar is not None:
            self._bar.stop()

    def expect(self, total: int, firsts: int = 0) -> None:
        """Says how many generations (or cells) there are in all, and how many of them are first ones, which take longer."""
        self._firsts = firsts
        self._total, self._done, self._computed, self._began = total, 0, 0, time.monotonic()
        self._show(total=total, completed=0)

    def foresee(self, seconds: list[float]) -> None:
        """How long each generation is expected to take, in the order of computation; what they take then corrects it."""
        self._ahead, self._foreseen, self._spent = list(seconds), 0.0, 0.0

    def at(self, where: str) -> None:
        """Says which loop and generation the next stages belong to."""
        self._where = where
        self._show(description=where)
        if not self._computed:
            self.stage("compiling")

    def stage(self, name: str, done: float = 0, total: float = 0, **seen: float) -> None:
        """Shows a stage of the generation under way."""
        words = "".join(f", {k} {v:.4g}" for k, v in seen.items())
        self._stage = f"{name} {done:.0f}/{total:.0f}{words}" if total else f"{name}{words}"
        self._show(stage=self._stage)

    def advance(self, seconds: float | None, count: int = 1, first: bool = False) -> None:
        """So many generations (or cells) more are done; `seconds` None where they had been computed before.

        A `first` one compiles, and is the longest fit of a loop of networks: what is left is told by its like.
        """
        self._done += count
        if self._ahead:
            expected = self._ahead.pop(0)
            if seconds is not None and expected:
                self._foreseen, self._spent = self._foreseen + expected, self._spent + seconds
        if first:
            self._firsts, self._opened = self._firsts - count, seconds or self._opened
        else:
            self._latest = seconds or self._latest
        self._computed += count if seconds is not None else 0
        self._show(advance=count, left=self._left())
        if seconds is not None and self._bar is None and self._where:
            self._say(f"{self._where}: {seconds:.1f} s, {self._so_far()}")

    def note(self, line: str) -> None:
        """A line that stays, above the bar or among those of a log."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            self._say(line)

    def _show(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, **fields)

    def _left(self) -> str:
        if not self._computed or self._total is None or self._done >= self._total:
            return ""
        left = self._total - self._done
        if self._ahead and self._foreseen:
            return f"about {lasting(sum(self._ahead) * self._spent / self._foreseen)} left"
        if self._opened:
            if not self._latest:
                return ""  # a first generation says little of those that follow it
            return f"about {lasting(self._opened * self._firsts + self._latest * (left - self._firsts))} left"
        return f"about {lasting((time.monotonic() - self._began) / self._computed * left)} left"

    def _so_far(self) -> str:
        return ", ".join(part for part in (f"{self._done} of {self._total} done" if self._total else "", self._left()) if part)

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._end.wait(EVERY / 20):
            if time.monotonic() - self._said >= EVERY:
                self._say(", ".join(part for part in (self._where, self._stage, self._so_far()) if part))


_listener: ContextVar[Bar | None] = ContextVar("listener", default=None)


@contextmanager
def listening(total: int | None, show: bool, firsts: int = 0) -> Iterator[Bar | None]:
    """Shows a bar while the block runs, if asked for; inside another one it is that one, which learns the total."""
    if not show:
        yield None
        return
    if (bar := _listener.get()) is not None:
        if total is not None:
            bar.expect(total, firsts)
        yield bar
        return
    with Bar(total) as bar:
        if total is not None:
            bar.expect(total, firsts)
        token = _listener.set(bar)
        try:
            yield bar
        finally:
            _listener.reset(token)


@contextmanager
def stage(name: str, total: float = 0) -> Iterator[Tell]:
    """A stage of a generation: the block calls `tell(done, **seen)` as it goes; without a total it is only named."""
    bar = _listener.get()

    def tell(done: float, **seen: float) -> None:
        if bar is not None:
            bar.stage(name, done, total, **seen)

    tell(0)
    yield tell


def lasting(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
