"""Generations that were made elsewhere, read from files, watched, and told in a table and in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcloop.data.mixed import parse_columns, read_alike, read_table
from mcloop.data.story_files import find
from mcloop.errors import InputError
from mcloop.laws.mixed import stationary_relative_error
from mcloop.metrics.tables import table_metrics
from mcloop.own.decay import Decay, decay
from mcloop.own.embed import size_of
from mcloop.own.monitor import Monitor, Verdict
from mcloop.regimes import lam_of
from mcloop.storage.files import one_line, save, show

_TABLE = ("ks_mean", "tv_mean", "categories_kept", "association_error", "copies", "tstr")  # of a table's, those shown
_SHOWN = 6
_JSON = (".jsonl", ".ndjson")


class Scored(NamedTuple):
    """What was found of all generations.

    Attributes:
        names: of the generations' files.
        counts: points of each.
        verdicts: of the monitor, one a generation.
        law: the geometric law of the diversity, or None below four generations.
        words: whether the loop is collapsing and how fast, a sentence or a few each.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    law: Decay | None
    words: tuple[str, ...]

    @property
    def alarm(self) -> bool:
        return self.verdicts[-1].alarm


def score(
    real: Path,
    generations: Sequence[Path],
    target: str | None = None,
    columns: Sequence[str] = (),
    ignore: Sequence[str] = (),
    share: str | None = None,
    seed: int = 0,
) -> Scored:
    """Scores generations; arguments as `shell.score` has them.

    Raises:
        InputError: a file cannot be read, or does not fit the real data, with its name; an option that does not apply.
    """
    if not generations:
        raise InputError("generations must be at least one file after the real one, and there is none.")
    lam = None if share is None else lam_of(share)
    points, read = _reader(real, target, columns, ignore)
    monitor = _monitor(points, target, seed)
    counts, verdicts = [], []
    for path in generations:
        batch = read(path)
        counts.append(size_of(batch))
        try:
            verdicts.append(monitor.update(batch))
        except InputError as error:
            raise InputError(f"Of {show(path)}: {error}") from error
    law = decay(*np.array(monitor.variances).T)
    words = (verdicts[-1].words, *_of_law(law, len(verdicts)), *([] if lam is None else _of_share(lam, law)))
    return Scored(tuple(path.name for path in generations), tuple(counts), tuple(verdicts), law, words)


def tell(
    real: Path,
    generations: Sequence[Path],
    target: str | None,
    columns: Sequence[str],
    ignore: Sequence[str],
    share: str | None,
    seed: int,
    json_file: Path | None,
) -> bool:
    """Prints what was found, and writes it as JSON where asked; whether the alarm has sounded."""
    found = score(real, generations, target, columns, ignore, share, seed)
    if json_file is not None:
        save(json_file, to_json(found).encode())
    _show(found)
    return found.alarm


def to_json(found: Scored) -> str:
    """Everything, `{"generations", "law", "words", "alarm"}`; a number that is not finite is text, such as "inf"."""
    rows = [
        {"name": name, "points": count, **verdict._asdict(), "diversity": verdict.diversity._asdict()}
        for name, count, verdict in zip(found.names, found.counts, found.verdicts, strict=True)
    ]
    law = found.law and {
        **found.law._asdict(),
        "factor": found.law.factor._asdict(),
        "half": found.law.half._asdict(),
    }
    whole = {"generations": rows, "law": law, "words": found.words, "alarm": found.alarm}
    return json.dumps(_plain(whole), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


# -- reading


def _reader(real: Path, target: str | None, columns: Sequence[str], ignore: Sequence[str]) -> tuple[Any, Callable[[Path], Any]]:
    """The real points, and what reads others of their kind."""
    files = _files(real)
    asked = target is not None or bool(columns) or bool(ignore)
    for holds, read in ((_is_array, _arrays), (_is_text, _texts)):
        if holds(files[0]):
            if asked:
                field = "target" if target is not None else "columns" if columns else "ignore"
                raise InputError(f"{field} must be left out unless the real data are a table, and {show(real)} is none.")
            return read(real), read
    first = read_table(files[0], columns=parse_columns(columns), ignore=ignore, target=target)
    read = partial(_frames, first)
    return first.frame if len(files) == 1 else read(real), read


def _files(path: Path) -> list[Path]:
    """A file, or the files of a folder in the order of their names."""
    try:
        if not path.is_dir():
            return [path]
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    except OSError as error:
        raise InputError(f"{show(path)} cannot be read ({one_line(error.strerror or error)}).") from error
    if not files:
        raise InputError(f"The folder {show(path)} holds no file.")
    if len(kinds := sorted({one.suffix.lower() for one in files})) > 1:
        raise InputError(f"The folder {show(path)} must hold files of one kind, and has {' and '.join(map(repr, kinds[:3]))}.")
    return files


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _is_text(path: Path) -> bool:
    """Whether it holds texts: .txt, or JSON lines of strings, or of records with one field of text."""
    suffix = path.suffix.lower()
    if suffix not in _JSON:
        return suffix == ".txt"
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = json.loads(next((line for line in file if line.strip()), "null"))
    except (OSError, ValueError):  # the reader of tables says what is wrong
        return False
    held = [*first.values()] if isinstance(first, dict) else [first]
    return len(held) == 1 and isinstance(held[0], str)


def _texts(path: Path) -> list[str]:
    for one in (files := _files(path)):
        if not one.is_file():
            raise InputError(f"There is no file {show(one)}; a file or a folder of texts is needed.")
        if not _is_text(one):
            raise InputError(f"{show(one)} must hold texts, as the real data do: .txt, or JSON lines of texts.")
    return [text for one in files for text in find(str(one), None)[1].stories]


def _arrays(path: Path) -> np.ndarray:
    found = []
    for one in _files(path):
        try:
            found.append(np.load(one, allow_pickle=False))
        except FileNotFoundError as error:
            raise InputError(f"There is no file {show(one)}; an array (.npy) is needed.") from error
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{show(one)} must be an array of numbers (.npy) and cannot be read as one.") from error
        if not isinstance(found[-1], np.ndarray) or found[-1].ndim == 0:
            raise InputError(f"{show(one)} must be one array (n, ...) of points.")
        if found[-1].shape[1:] != found[0].shape[1:]:
            raise InputError(
                f"{show(one)} has points of shape {found[-1].shape[1:]}, and others beside it {found[0].shape[1:]}."
            )
    return np.concatenate(found)


def _frames(like: Any, path: Path) -> Any:
    import pandas as pd

    parts = [read_alike(one, like) for one in _files(path)]
    if len(parts) == 1:
        return parts[0]
    categories = [one.name for one in like.kinds if one.kind == "category"]
    # levels differ from file to file
    return pd.concat([part.astype(dict.fromkeys(categories, object)) for part in parts], ignore_index=True)


def _monitor(points: Any, target: str | None, seed: int) -> Monitor:
    if target is None:
        return Monitor(points, seed=seed)
    order = np.random.default_rng([seed, 3]).permutation(len(points))
    aside = max(len(points) // 5, 1)
    held_out, rest = (points.iloc[chosen].reset_index(drop=True) for chosen in (order[:aside], order[aside:]))
    return Monitor(rest, seed=seed, measure=partial(table_metrics, target=target, held_out=held_out, seed=seed))


# -- words


def _of_law(law: Decay | None, generations: int) -> list[str]:
    if law is None:
        why = "four generations are needed" if generations < 4 else "a generation has none left"
        return [f"No law of the diversity is fitted: {why}."]
    if not law.fits:
        how = "slows down" if law.bend > 0 else "speeds up"
        return [f"No geometric law fits the diversity: its fall {how} (p = {law.p:.2g} for a straight logarithm)."]
    value, low, high = law.factor
    if high >= 1:
        return [
            "It is not shown to be collapsing: by the geometric law that fits, diversity changes by "
            f"{value - 1:+.1%} a generation ({low - 1:+.1%} to {high - 1:+.1%})."
        ]
    return [
        f"It is collapsing: diversity falls by {1 - value:.1%} a generation ({1 - high:.1%} to {1 - low:.1%}), a geometric "
        f"law, which fits (p = {law.p:.2g}). By it half of the first generation's is left at generation {law.half.value:.1f} "
        f"({law.half.low:.1f} to {law.half.high:.1f})."
    ]


def _of_share(lam: float, law: Decay | None) -> list[str]:
    if np.isinf(lam):
        return ["No real rows are in the training sets: the law of such loops is a geometric fall to nothing (G1)."]
    bound = float(stationary_relative_error(lam))
    said = (
        f"The synthetic : real ratio is {lam:.3g}. Where the same real rows stay in every training set, the loss is bounded: "
        f"the squared error is at most {bound:.3g} times that of a model of the real rows alone, in any generation."
    )
    falls = law is not None and law.fits and law.factor.high < 1
    more = (
        " A steady fall is not what that law expects: see whether the real rows do stay in the training sets." if falls else ""
    )
    return [said + more]


def _show(found: Scored) -> None:
    from rich.console import Console
    from rich.table import Table

    measured = list(found.verdicts[0].measures)
    shown = [name for name in _TABLE if name in measured] or measured[:_SHOWN]
    table = Table("generation", "points", "diversity (95 %)", "distance", "p", "verdict", *shown)
    for name, count, one in zip(found.names, found.counts, found.verdicts, strict=True):
        value, low, high = one.diversity
        verdict = "first" if one.round == 1 else "changed" if one.alarm else "no change told"
        span = "1" if one.round == 1 else f"{value:.3f} ({low:.3f} to {high:.3f})"
        p = "" if one.round == 1 else f"{one.p:.2g}"
        numbers = (f"{one.measures[k]:.3g}" if k in one.measures else "" for k in shown)
        table.add_row(one_line(name, 30), f"{count:,}", span, f"{one.distance:.3g}", p, verdict, *numbers)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)
    for sentence in found.words:
        console.print(sentence, markup=False, soft_wrap=True)
