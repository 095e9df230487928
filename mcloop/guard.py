"""Around every command: whatever ends it is one sentence and an exit code, and output never dies of its own letters."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcloop.errors import InputError

_KEPT = "all that was finished is kept, and the same command goes on from there."


class _Ended(BaseException):
    """The system asks this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that a run's folder is left as one that was interrupted."""

    def end(number, _):
        raise _Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one of them
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def guarded(command: Callable[[], object]) -> None:
    """Calls a command; exit code 2 (bad input), 70 (a fault, with its traceback in a file), 128 + the signal that ended it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    _find_home()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        with _ending():
            _told(command)


def _find_home() -> None:
    """Matplotlib wants a home for its fonts, which not every machine has."""
    try:
        Path.home()
    except RuntimeError:
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), "mcloop-matplotlib"))


def _told(command: Callable[[], object]) -> None:
    try:
        command()
    except InputError as error:
        print(f"mcloop: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"mcloop: interrupted; {_KEPT}", file=sys.stderr)
        raise SystemExit(130) from None
    except _Ended as error:
        print(f"mcloop: ended by {signal.Signals(error.number).name}; {_KEPT}", file=sys.stderr)
        raise SystemExit(128 + error.number) from None
    except BrokenPipeError:
        # the reader of our output has left (mcloop list | head): not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        print(f"mcloop: {_fault(error)}", file=sys.stderr)
        raise SystemExit(70) from None


def _fault(error: Exception) -> str:
    """A sentence on an error that nobody foresaw, and where its traceback is."""
    import traceback

    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mcloop-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        return f"a fault of mcloop or of the config ({what}); its traceback is in {file.name}, and what was finished is kept."
    except OSError:
        return f"a fault of mcloop or of the config ({what}); what was finished is kept."
