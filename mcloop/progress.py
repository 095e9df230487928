"""How far a long computation is: stages tell, whoever shows it listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[..., None]


class Bar:
    """One line on standard error: which loop, which generation, which stage, and the time left.

    Args:
        total: generations of all loops together.
    """

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[stage]}"))
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console, transient=True)
        self._task = self._bar.add_task("generations", total=total, stage="", left="")
        self._total, self._done, self._computed, self._began = total, 0, 0, time.monotonic()
        self._where = ""

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def at(self, where: str) -> None:
        """Says which loop and generation the next stages belong to."""
        self._where = where
        self._bar.update(self._task, description=where)

    def stage(self, name: str, done: float, total: float, **seen: float) -> None:
        """Shows a stage of the generation under way."""
        words = "".join(f", {k} {v:.4g}" for k, v in seen.items())
        self._bar.update(self._task, stage=f"{name} {done:.0f}/{total:.0f}{words}")

    def advance(self, seconds: float | None) -> None:
        """One generation more is done; `seconds` None where it had been computed before."""
        self._done += 1
        self._computed += seconds is not None
        left = ""
        if self._computed:
            each = (time.monotonic() - self._began) / self._computed
            left = f"about {_time(each * (self._total - self._done))} left"
        self._bar.update(self._task, advance=1, left=left)
        if seconds is not None and not self._console.is_terminal:
            # a log file gets a line a generation in place of a bar
            self._console.print(
                f"{self._where}: {seconds:.1f} s, {self._done} of {self._total} done, {left}", highlight=False, soft_wrap=True
            )


_listener: ContextVar[Bar | None] = ContextVar("listener", default=None)


@contextmanager
def listening(total: int, show: bool) -> Iterator[Bar | None]:
    """Shows a bar while the block runs, if asked for."""
    if not show:
        yield None
        return
    with Bar(total) as bar:
        token = _listener.set(bar)
        try:
            yield bar
        finally:
            _listener.reset(token)


@contextmanager
def stage(name: str, total: float) -> Iterator[Tell]:
    """A stage of a generation: the block calls `tell(done, **seen)` as it goes."""
    bar = _listener.get()

    def tell(done: float, **seen: float) -> None:
        if bar is not None:
            bar.stage(name, done, total, **seen)

    tell(0)
    yield tell


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
