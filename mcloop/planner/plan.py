"""How much synthetic data is safe? Every regime's answer to a tolerated error, in lam, in points and in generations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcloop.errors import InputError
from mcloop.planner import advice, choice
from mcloop.planner.line import Line
from mcloop.storage.files import save

if TYPE_CHECKING:
    from mcloop.planner.measured import Measured


def plan(
    tolerance: float,
    n: int = 1000,
    lam: float | None = None,
    phi: float | None = None,
    psi: float | None = None,
    spread: float | None = None,
    rare: float | None = None,
    lost: float = 0.5,
    generations: int = 5,
    m: int | None = None,
) -> list[Line]:
    """What error n real and m synthetic points have and in which regime, what error allows how many, what else is safe.

    Args:
        tolerance: tau >= 1, the tolerated squared error relative to a fit on the real data only.
        n: real points.
        lam: synthetic : real ratio that the user has in mind, for the lines that need one; default 1.
        phi, psi: chances that a verifier keeps a right and a wrong label; both or none.
        spread: factor by which the sampler multiplies the standard deviation.
        rare: how often a rare item was seen in the real data.
        lost: tolerated share of such items that are gone.
        generations: at which fit errors that move and sizes that grow are given.
        m: synthetic points a generation, in place of lam = m/n.

    Raises:
        InputError: a value that is not allowed.
    """
    _check(tolerance, n, lam, phi, psi, spread, rare, lost, generations, m)
    tau = float(tolerance)
    lam = lam if m is None else m / n
    lines = (
        [choice.which_regime(tau, n, 1.0 if lam is None else float(lam), generations), choice.how_many(tau, n, generations)]
        + advice.fixed(tau, n, lam)
        + advice.kept(tau, n)
        + advice.replaced(tau, n, generations)
        + advice.fresh(tau, n, 1.0 if lam is None else lam)
    )
    if spread is not None and spread != 1:
        lines = [advice.voided(line, spread) for line in lines]
    lines += [] if phi is None or psi is None else [advice.verified(phi, psi)]
    lines += [] if spread is None else [advice.spread(tau, spread, n, lam)]
    return lines + ([] if rare is None else advice.rare(rare, lost))


def _check(tolerance, n, lam, phi, psi, spread, rare, lost, generations, m) -> None:
    """Raise InputError for the first value that is not allowed."""

    def need(field: str, value: Any, allowed: str, holds: bool) -> None:
        if not holds:
            raise InputError(f"{field} must be {allowed}, not {value!r}.")

    need(
        "tolerance",
        tolerance,
        "a finite number >= 1 (squared error relative to real data only, which is 1)",
        1 <= tolerance < np.inf,
    )
    need("n", n, "a whole number >= 2", 2 <= n < np.inf and n == int(n))
    need(
        "generations",
        generations,
        "a whole number from 1 to 1000",
        1 <= generations <= 1000 and generations == int(generations),
    )
    if (phi is None) != (psi is None):
        given, other = ("phi", "psi") if psi is None else ("psi", "phi")
        raise InputError(f"{other} must be given with {given}, as a chance in [0, 1]; it is None.")
    if m is not None:
        need("m", m, "a whole number >= 1", 1 <= m < np.inf and m == int(m))
        need("lam", lam, "left out where m, which is lam n, is given", lam is None)
    if lam is not None:
        need("lam", lam, "a finite number > 0", 0 < lam < np.inf)
    if phi is not None and psi is not None:
        need("phi", phi, "a chance in (0, 1]", 0 < phi <= 1)
        need("psi", psi, "a chance in [0, 1]", 0 <= psi <= 1)
    if spread is not None:
        need("spread", spread, "a finite number > 0", 0 < spread < np.inf)
    if rare is not None:
        need("rare", rare, f"a whole number from 1 to below n = {n}", 1 <= rare < n and rare == int(rare))
    need("lost", lost, "a share in (0, 1)", 0 < lost < 1)


def tell(
    tolerance: float, n: int, asked: Mapping[str, Any], folder: Path | None, measure: str | None, json_file: Path | None
) -> None:
    """Print a plan, and what a run measured beside it; write both as JSON where asked.

    Args:
        asked: further arguments of `plan`.
        folder: a run's folder, or None.
        measure: the error to take from that run; default the experiment's own.
        json_file: where the JSON goes, or None.
    """
    lines, found = plan(tolerance, n, **asked), None
    if folder is not None:
        from mcloop.planner.measured import measured

        found = measured(folder, tolerance, measure)
    if json_file is not None:
        save(json_file, to_json(lines, tolerance, n, found).encode())
    show(lines, tolerance, n)
    if found is not None:
        from mcloop.planner.measured import show as show_run

        wide().print()
        show_run(found, tolerance, wide())


def show(lines: Sequence[Line], tolerance: float, n: int) -> None:
    """Print a plan: what is safe in every regime, then when each line is true."""
    from rich.table import Table

    table = Table("", "data of every generation", "what is safe", "from", show_lines=True)
    notes: dict[str, list[int]] = {}
    for i, line in enumerate(lines, 1):
        table.add_row(str(i), line.regime, line.safe, f"{line.formula}\n{line.source}")
        for assumption in line.assumption:
            notes.setdefault(assumption, []).append(i)
    console = wide()
    console.print(
        f"Within {tolerance:g} times the squared error of a model fitted to the {n:,} real points alone. Generation 1 is "
        "that model; lam is synthetic : real; tau is the tolerance.",
        markup=False,
    )
    console.print(table)
    console.print("When it is true:", markup=False)
    for assumption, which in notes.items():
        console.print(f"- {_ranges(which)}: {assumption}.", markup=False)


def _ranges(which: Sequence[int]) -> str:
    """ "lines 1-3, 5" of 1, 2, 3, 5."""
    said, start = [], which[0]
    for i, number in enumerate(which):
        if i + 1 == len(which) or which[i + 1] != number + 1:
            said.append(f"{start}" if start == number else f"{start}-{number}")
            start = which[i + 1] if i + 1 < len(which) else number
    return f"line{'s' if len(which) > 1 else ''} {', '.join(said)}"


def wide():
    """A console as wide as the terminal, or 100 columns in a file."""
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


def to_json(lines: Sequence[Line], tolerance: float, n: int, measured: Measured | None = None) -> str:
    """The plan as JSON, `{"tolerance", "n", "lines", "measured"}`; a number that is not finite is text, such as "inf"."""
    whole: dict[str, Any] = {"tolerance": tolerance, "n": n, "lines": [line._asdict() for line in lines]}
    if measured is not None:
        whole["measured"] = {**measured._asdict(), "cells": [cell._asdict() for cell in measured.cells]}
    return json.dumps(_plain(whole), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    """The same in what JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
