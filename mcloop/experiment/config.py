"""What a config file declares, how it is found, and what a user may ask of it."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mcloop.checks import check_seed, whole
from mcloop.errors import InputError
from mcloop.experiment.arguments import arguments, read_values
from mcloop.storage.files import one_line
from mcloop.storage.manifest import read_settings

if TYPE_CHECKING:
    from mcloop.certificates.certificate import Certificate

SIZES = ("tiny", "small", "paper")


class Size(NamedTuple):
    """How much of an experiment to run.

    Attributes:
        seeds, generations: replicas of every cell, and fits.
        grid: axes that replace the experiment's own.
        options: further arguments of `make` that are the same in every cell (how large a network, how many images).
    """

    seeds: int
    generations: int
    grid: Mapping[str, Sequence[Any]] = {}
    options: Mapping[str, Any] = {}


class Accept(NamedTuple):
    """What a practitioner would accept of a first fit, in one measure: up to `good`, or at least up to `usable`.

    Attributes:
        good, usable: limits, of which the larger is the worse where `good < usable`, and the smaller where `good > usable`.
        floors: whether both are multiples of what real data themselves score (see `annotate`).
        settled: the largest share of its value by which the measure may still get better with more training, or with a sampler
            of more steps, and the fit count as finished.
    """

    good: float
    usable: float
    floors: bool = False
    settled: float = 0.25


class Experiment(NamedTuple):
    """A config file's `experiment`.

    Attributes:
        make: keyword arguments, one an axis -> Loop.
        grid: axis -> values.
        sizes: "tiny", "small" and "paper" -> Size.
        measure: the variables to draw and to speak of, the headline first.
        law: (g, what it names of `make`'s arguments) -> {variable: its expected value at every generation of g}, for the cells
            that have a law.
        reduce: statistics over seeds in place of the seeds, for large runs.
        figure: (dataset, experiment, what it names of `make`'s arguments) -> {name: matplotlib Figure}; None draws one panel a
            measure.
        notes: (dataset, what it names of `make`'s arguments) -> sentences for the report, beyond those that every experiment
            gets. Figure and notes are shown the axes of `grid`; further ones are drawn and said once for every value.
        load: path or None -> the user's data, passed to `make` as `table` (with `source` and `remarks`, words for the report).
        worse: how the headline gets worse: "down" (a variance), "up" (an error), "log" (a log-variance falls), or ""
            where `notes` says all that there is to say.
        neural: whether its loops are networks, which `train` runs with a checkpoint for every generation; otherwise `sweep`.
        quick: whether its models are no networks and learn at every size, `neural` as they are run: size tiny can be read.
        annotate: (dataset, the value of every argument of `make`, and `table` where there is one) -> dataset, with what figures
            and report need beyond the measures (the real data's picture, a floor, a sentence on the evaluation).
        certify: what it names of `make`'s arguments -> the cell's certificate, where `make` gives loops of which none can be
            computed (twins).
        static: axes whose numbers `make` must know while a program is compiled, one value at a time.
        block: (grid points, seeds) that `sweep` runs at once, where fits need far more room than states show.
        gate: measure -> what is accepted of the first fit of a network before anything is read from its loop.
        family: what `make` passes further keywords to, by `**` (a function, or several from one to the next); those that have
            a default there are axes like its own.
    """

    make: Callable[..., Any]
    grid: Mapping[str, Sequence[Any]]
    sizes: Mapping[str, Size]
    measure: tuple[str, ...]
    law: Callable[..., dict[str, Any]] | None = None
    reduce: tuple[str, ...] | None = None
    figure: Callable[..., dict[str, Any]] | None = None
    notes: Callable[[Any], list[str]] | None = None
    load: Callable[[Path | None], Any] | None = None
    worse: str = "down"
    neural: bool = False
    quick: bool = False
    annotate: Callable[[Any, Mapping[str, Any]], Any] | None = None
    block: tuple[int, int] | None = None
    static: tuple[str, ...] = ()
    certify: Callable[..., Certificate] | None = None
    family: Callable[..., Any] | tuple[Callable[..., Any], ...] | None = None
    gate: Mapping[str, Accept] = {}


class Caption(NamedTuple):
    """What the docstring of a config file says, read without running the file."""

    name: str
    path: Path
    title: str
    paper: str
    claim: str
    minutes: dict[str, float]


def folders() -> list[Path]:
    """Where configs are: inside the installed package, or beside it in a source checkout."""
    here = Path(__file__).parents[1]
    return [f for f in (here / "configs", here.parent / "configs") if f.is_dir()][:1]


def captions() -> list[Caption]:
    """The captions of every config, sorted by name; nothing is imported."""
    found = [(path.relative_to(f).with_suffix("").as_posix(), path) for f in folders() for path in sorted(f.rglob("*.py"))]
    return [caption(name, path) for name, path in found]


def caption(name: str, path: Path) -> Caption:
    """The caption of one config file."""
    return _read(name, path, path.stat().st_mtime_ns)


@cache
def _read(name: str, path: Path, changed: int) -> Caption:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    fields = {
        key.lower(): " ".join(value.split())
        for key, value in re.findall(r"^(Paper|Claim|Minutes): (.+?)(?=\n\S+: |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    }
    minutes = {size: float(value) for size, value in re.findall(r"(\w+) ([\d.]+)", fields.get("minutes", ""))}
    return Caption(name, path, text.split("\n")[0], fields.get("paper", ""), fields.get("claim", ""), minutes)


def find(name: str) -> Caption:
    """The config of this name, or of this file.

    Raises:
        InputError: there is none; the message names the nearest ones.
    """
    for known in captions():
        if known.name == name:
            return known
    path = Path(name)
    if path.suffix == ".py":
        if not is_file(path):
            raise InputError(f"config {name!r} must be a file that exists, or a name that `mcloop list` shows.")
        try:
            return caption(path.stem, path)
        except (SyntaxError, ValueError, OSError) as error:
            raise InputError(f"config {name!r} cannot be read as Python ({error}).") from error
    import difflib

    names = [c.name for c in captions()]
    near = difflib.get_close_matches(name, names, 3, 0.4) or [n for n in names if name in n] or names
    raise InputError(f"config {name!r} is not known; did you mean {', '.join(near[:3])}? `mcloop list` shows them all.")


def is_file(path: Path) -> bool:
    """Whether there is such a file; no for what cannot be the name of one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def load(known: Caption) -> Experiment:
    """Run a config file and return its `experiment`.

    Raises:
        InputError: the file fails, or declares no Experiment.
    """
    from mcloop.checks import ready

    ready()
    module_name = "mcloop_config_" + re.sub(r"\W", "_", known.name)
    spec = importlib.util.spec_from_file_location(module_name, known.path)
    if spec is None or spec.loader is None:
        raise InputError(f"config {str(known.path)!r} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"config {str(known.path)!r} fails: {type(error).__name__}: {one_line(error)}.") from error
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise InputError(f"config {str(known.path)!r} must define `experiment`, an mcloop.experiment.Experiment.")
    return experiment


class Settings(NamedTuple):
    """One run of an experiment: everything that its numbers depend on."""

    name: str
    size: str
    seeds: int
    generations: int
    seed: int
    grid: dict[str, list[Any]]
    data: str | None


_KINDS = {"name": str, "size": str, "seeds": int, "generations": int, "seed": int, "grid": dict, "data": (str, type(None))}


def settings_of(folder: Path) -> Settings:
    """The settings of the run in a folder.

    Raises:
        InputError: there is none, or its manifest is damaged.
    """
    found = Settings(**read_settings(folder, _KINDS))
    where = f"in the manifest of {str(folder)!r}"
    check_seed(found.seed, f"seed {where}")
    for field in ("seeds", "generations"):
        whole(f"{field} {where}", getattr(found, field), 1, 2**31 - 1)
    return found


def check_size(folder: Path, experiment: Experiment, settings: Settings) -> None:
    """Raise InputError unless the run in a folder is of a size that the experiment has."""
    if settings.size not in experiment.sizes:
        allowed = ", ".join(experiment.sizes)
        raise InputError(f"The manifest of {str(folder)!r} must name a size among {allowed}, not {settings.size!r}.")


def settle(
    known: Caption,
    experiment: Experiment,
    size: str = "small",
    seeds: int | None = None,
    generations: int | None = None,
    overrides: Mapping[str, str | Sequence[Any]] | None = None,
    seed: int = 0,
    data: str | None = None,
) -> Settings:
    """Check what the user asked for against what the experiment offers.

    Raises:
        InputError: an unknown size or axis, a bad number, data for an experiment that takes none.
    """
    if size not in experiment.sizes:
        raise InputError(f"size must be one of {', '.join(experiment.sizes)}, not {size!r}.")
    chosen = experiment.sizes[size]
    grid = {k: list(v) for k, v in {**experiment.grid, **chosen.grid}.items()}
    allowed = arguments(experiment)
    for axis, values in (overrides or {}).items():
        if axis not in allowed:
            raise InputError(f"axis {axis!r} is not one that {known.name} takes; its axes are {', '.join(allowed)}.")
        grid[axis] = read_values(allowed[axis], values)
    for field, value, least in (("seeds", seeds, 1), ("generations", generations, 2)):
        if value is not None and not least <= value < 2**31:
            raise InputError(f"{field} must be a whole number >= {least}{', below 2^31' if value > 1 else ''}, not {value}.")
    check_seed(seed)
    if data is not None and experiment.load is None:
        others = "beyond/real_table takes a table, and gerstgrasser/tinystories_gpt2_9m a text"
        raise InputError(f"data is not something that {known.name} takes; {others}.")
    return Settings(known.name, size, seeds or chosen.seeds, generations or chosen.generations, seed, grid, data)
