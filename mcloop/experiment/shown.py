"""What an experiment says of itself: a line in a list, a page, or a copy of its file."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from pathlib import Path

from mcloop.errors import InputError
from mcloop.experiment.arguments import EMPTY, Argument, arguments
from mcloop.experiment.config import SIZES, Accept, Caption, Experiment, captions, find, load
from mcloop.results import AXES, short

TINY = "does it run? networks learn nothing, and few seeds say little"


def list_all(match: str, verbose: bool) -> None:
    """Print the experiments whose name holds `match`, a line each, or all that their captions say."""
    found = [c for c in captions() if match in c.name]
    if verbose:
        return _table(found)
    if not found:
        raise InputError(f"no experiment has {match!r} in its name; `mcloop list` shows them all.")
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    for line in _lines(found, width):
        print(line)
    if sys.stdout.isatty():
        print("\nMinutes are of --size small. `mcloop list -v` says more, and `mcloop show NAME` all there is to one of them.")


def _lines(found: list[Caption], width: int) -> list[str]:
    """Name, minutes at `small` and as much of the title as there is room for, a line each."""
    minutes = [f"{c.minutes['small']:g} min" if "small" in c.minutes else "" for c in found]
    name, long = max(len(c.name) for c in found), max(map(len, minutes))
    room = max(20, width - name - long - 4)
    return [f"{c.name:{name}}  {m:>{long}}  {_brief(c.title.rstrip('.'), room)}" for c, m in zip(found, minutes, strict=True)]


def _brief(title: str, most: int) -> str:
    """A title, or what it says before its colon, or its first whole words: the first of these that `most` letters hold."""
    for whole in (title, title.partition(": ")[0]):
        if len(whole) <= most:
            return whole
    return textwrap.shorten(title.partition(": ")[0], most, placeholder="...")


def _table(found: list[Caption]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "paper", "claim", "minutes: tiny / small / paper", show_lines=True, caption=f"tiny: {TINY}")
    for c in found:
        times = " / ".join(f"{c.minutes[s]:g}" if s in c.minutes else "-" for s in SIZES)
        table.add_row(c.name, c.paper, c.claim, times)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def tell(name: str) -> None:
    """Print everything that a config says."""
    known = find(name)
    for line in page(known, load(known)):
        print(line)


def page(known: Caption, experiment: Experiment) -> list[str]:
    """The lines of `mcloop show`."""
    lines = [known.name, known.title, ""]
    lines += [f"{head}: {text}" for head, text in (("Paper", known.paper), ("Claim", known.claim)) if text]
    lines += [f"File: {known.path}", "", "Axes (--set NAME=V1,V2):"]
    meanings = _meanings(experiment)
    for argument in arguments(experiment).values():
        lines.append(f"  {argument.name}: {_axis(argument, meanings.get(argument.name, AXES.get(argument.name, '')))}")
    lines += ["", "Sizes (--size):"]
    for size, what in experiment.sizes.items():
        minutes = f", about {known.minutes[size]:g} minutes" if size in known.minutes else ""
        replaced = {**what.grid, **what.options}
        more = "; ".join(f"{k} {_values(v)}" for k, v in replaced.items())
        purpose = f" ({TINY})" if size == "tiny" else ""
        lines.append(
            f"  {size}{purpose}: {what.seeds} seeds, {what.generations} generations{minutes}{'; ' if more else ''}{more}"
        )
    lines += ["", f"Measures: {', '.join(experiment.measure)}", f"Data (--data): {_data(experiment)}"]
    if experiment.gate:
        lines.append(f"First fit accepted: {'; '.join(_accepted(*one) for one in experiment.gate.items())}")
    return [*lines, "", f"`mcloop copy {known.name} my.py` makes a file of your own of it, which `mcloop run my.py` runs."]


def _accepted(name: str, accept: Accept) -> str:
    """What a first fit must measure to be good, and to be usable."""
    worst, times = ("at most", "at least")[accept.good > accept.usable], " times real data's" if accept.floors else ""
    return f"{name} {worst} {accept.good:g}{times} (usable: {accept.usable:g})"


def _axis(argument: Argument, meaning: str) -> str:
    kind = {"name": "names", "text": "text", "switch": "true or false", "whole": "whole numbers", "number": "numbers"}
    default = "" if argument.default is EMPTY else f"default {_values(argument.default)}"
    grid = f"run at {_values(argument.offered)}" if argument.offered else ""
    return "; ".join(part for part in (meaning, kind[argument.kind], default, grid) if part)


def _values(value) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_values(v) for v in value)
    return short(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _meanings(experiment: Experiment) -> dict[str, str]:
    """Argument -> what the docstrings of `make` and of the family behind it say of it."""
    behind = experiment.family if isinstance(experiment.family, tuple) else (experiment.family,)
    found: dict[str, str] = {}
    for function in (experiment.make, *(f for f in behind if f is not None)):
        for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", inspect.getdoc(function) or "", re.MULTILINE):
            for name in names.split(", "):
                found.setdefault(name, " ".join(text.split()).rstrip("."))
    return found


def _data(experiment: Experiment) -> str:
    if experiment.load is None:
        return "nothing"
    said = (inspect.getdoc(experiment.load) or "").split("\n\n")[0]
    return " ".join(said.split()).rstrip(".") or "a file"


def begin_in(folder: Path) -> str:
    """Write a config of a user's own that runs as it is; one line on how to run it.

    Raises:
        InputError: it is there already, or the folder cannot be written.
    """
    to = folder / "my_loop.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(to, "xb") as file:
            file.write(Path(__file__).with_name("starter.py").read_bytes())
    except FileExistsError as error:
        raise InputError(f"{str(to)!r} is there already, and is not overwritten: choose another folder.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(to)!r} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    return f"Wrote {to}, which runs as it is: mcloop run {to}. Put your data, generator, measure and corrector into it."


def copy_to(name: str, to: Path) -> str:
    """Copy a config to a new file; one line on how to run it.

    Raises:
        InputError: the file is there already, is no Python file, or cannot be written.
    """
    known = find(name)
    if to.suffix != ".py":
        raise InputError(f"the copy must be a Python file such as my.py, not {str(to)!r}.")
    try:
        with open(to, "xb") as file:
            file.write(known.path.read_bytes())
    except FileExistsError as error:
        raise InputError(f"{str(to)!r} is there already, and is not overwritten: choose another name.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(to)!r} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    return f"Copied {known.name} to {to}; `mcloop run {to}` runs it."
