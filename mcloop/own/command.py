"""A generator that is another program: it reads its training set from a Parquet file, and writes what it draws to another."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mcloop.errors import InputError, OwnCodeError
from mcloop.memory.forms import called, is_frame
from mcloop.own.optional import optional
from mcloop.storage.files import one_line

_PLACES = ("train", "out", "n", "seed", "model")
_PLACE = re.compile(rf"\{{({'|'.join(_PLACES)})\}}")


class Command:
    """A generator in another language, process or environment, for `external(lambda: Command("python mine.py ..."), real)`.

    `fit` writes the training set to a temporary folder, and `sample` runs the command, in which

        {train}  is the Parquet file of the training set,
        {out}    where a Parquet file of as many rows as {n} is to be written, of the same columns,
        {n}      how many rows are asked for,
        {seed}   a whole number below 2^31, by which the program must draw the same again,
        {model}  a folder of this fit, where `fit` may have left what it learnt.

    Arrays (n, ...) have columns x0, x1, ... of all that a point holds, texts one column "text". No shell is started: quotation
    marks are understood, while pipes and redirections need `sh -c '...'`.

    Args:
        command: one line, or its words.
        fit: a command that is run once in a fit, with {train}, {model} and {seed}; None leaves training to `command`, which is
            then run anew for every draw.
        limit: seconds that a command may take.

    Raises:
        InputError: pyarrow is missing, or a command that lacks a place.
        OwnCodeError: (in fit, in sample) there is no such program, it fails or takes too long, or writes no Parquet file.
    """

    def __init__(self, command: str | Sequence[str], fit: str | Sequence[str] | None = None, limit: float = 86_400.0):
        optional("pyarrow", "tables")
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
            raise InputError(f"limit must be a number of seconds above 0, not {limit!r}.")
        self.command = _words("command", command, ("out", "n", "train" if fit is None else "model"))
        self.fit_command = None if fit is None else _words("fit", fit, ("train", "model"))
        self.limit = limit
        if any("{seed}" in word for word in (*self.command, *(self.fit_command or ()))):
            self.random_state = 0  # by this name it is seeded; one without a place for a seed is said to have none

    def fit(self, points: Any) -> None:
        """Writes the training set, and runs the command that learns it, if there is one."""
        frame, self._back = _framed(points)
        self._columns = tuple(frame.columns)
        folder = tempfile.mkdtemp(prefix="mcloop-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # at the latest when the process ends
        self._places = {name: str(Path(folder, name)) for name in ("train", "out", "model")}
        self._places["train"] += ".parquet"
        self._places["out"] += ".parquet"
        Path(self._places["model"]).mkdir()
        frame.to_parquet(self._places["train"], index=False)
        if self.fit_command is not None:
            self._run(self.fit_command, {})

    def sample(self, n: int) -> Any:
        """n points, in the form of those that were fitted."""
        out = Path(self._places["out"])
        out.unlink(missing_ok=True)
        said = self._run(self.command, {"n": str(n)})
        try:
            drawn = pd.read_parquet(out)
        except FileNotFoundError as error:
            raise OwnCodeError(f"{said} ended well and wrote nothing to {{out}}.") from error
        except Exception as error:  # whatever pyarrow finds wrong
            raise OwnCodeError(f"{said} wrote to {{out}} what is no Parquet ({one_line(error, 80).rstrip('.')}).") from error
        if lacking := [name for name in self._columns if name not in drawn]:
            raise OwnCodeError(f"{said} wrote no column {lacking[0]!r} to {{out}}.")
        return self._back(drawn)

    def _run(self, command: tuple[str, ...], more: dict[str, str]) -> str:
        """Runs a command to its end; what it is called."""
        places = {**self._places, "seed": str(getattr(self, "random_state", 0)), **more}
        words = [_PLACE.sub(lambda found: places[found[1]], word) for word in command]
        said = f"The command {one_line(' '.join(Path(word).name or word for word in command[:2]), 40)}"
        try:
            ended = subprocess.run(words, capture_output=True, timeout=self.limit, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise OwnCodeError(f"{said} took more than {self.limit:g} seconds.") from error
        except OSError as error:
            raise OwnCodeError(f"{said} cannot be started ({error.strerror or error}).") from error
        if (code := ended.returncode) != 0:
            how = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            lines = ended.stderr.decode(errors="replace").strip().splitlines()
            why = one_line(lines[-1], 160).rstrip(".") if lines else "it wrote nothing to stderr"
            raise OwnCodeError(f"{said} {how} ({why}).")
        return said


def _words(field: str, command: str | Sequence[str], needed: tuple[str, ...]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
    except ValueError as error:
        raise InputError(f"{field} {one_line(command, 80)!r} has a quotation mark that is not closed.") from error
    if not words or not all(isinstance(word, str) for word in words):
        raise InputError(f"{field} must be a line, or its words, not {one_line(repr(command), 80)}.")
    there = {name for word in words for name in _PLACE.findall(word)}
    if lacking := [f"{{{name}}}" for name in needed if name not in there]:
        raise InputError(f"{field} must have a place for {' and '.join(lacking)}, and is {one_line(' '.join(words), 100)!r}.")
    return words


def _framed(points: Any) -> tuple[pd.DataFrame, Callable[[pd.DataFrame], Any]]:
    """Points as a frame whose columns are named by texts, and the way back."""
    if is_frame(points):
        names = {str(name): name for name in points.columns}
        if len(names) < len(points.columns):
            raise InputError("A command is given columns by their names as texts, which must differ.")
        return points.set_axis(list(names), axis=1), lambda drawn: drawn.rename(columns=names)
    if isinstance(points, list):
        return pd.DataFrame({"text": points}), lambda drawn: drawn["text"].tolist()
    if isinstance(points, np.ndarray):
        flat = points.reshape(len(points), -1)
        frame = pd.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])])
        return frame, lambda drawn: drawn[list(frame.columns)].to_numpy().reshape(len(drawn), *points.shape[1:])
    raise InputError(f"A command is given a DataFrame, an array or a list of texts, not {called(points)}.")
