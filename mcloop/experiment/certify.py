"""The verdicts on an experiment as it is declared, or on a finished run at its last checkpoints."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jax

from mcloop import random
from mcloop.certificates.verdict import Verdict, certify, check_request
from mcloop.checks import check_seed
from mcloop.drivers.train import last_states
from mcloop.experiment.config import check_size, find, load, settings_of, settle
from mcloop.results import named


def of_name_or_folder(
    target: str, size: str, overrides: dict[str, list[Any]], damping: float, generations: int, seed: int, most: int = 12
) -> list[Verdict]:
    """Verdicts on the cells of an experiment, or of a run from the last checkpoints in its folder.

    Raises:
        InputError: neither a name nor a run's folder, a bad axis or number.
    """
    check_request(damping, generations)
    check_seed(seed)
    folder = Path(target)
    if (folder / "manifest.json").is_file():
        settings = settings_of(folder)
        known = find(settings.name)
        declared = load(known)
        check_size(folder, declared, settings)
        settings = settings._replace(grid={**settings.grid, **overrides})
    else:
        known = find(target)
        declared = load(known)
        settings = settle(known, declared, size, 1, None, overrides, seed)
        folder = None
    cells = [dict(zip(settings.grid, point, strict=True)) for point in itertools.product(*settings.grid.values())][:most]
    if declared.certify is not None:
        return [Verdict(cell, declared.certify(**cell)) for cell in cells]
    options = declared.sizes[settings.size].options
    if declared.load is not None:
        table = declared.load(Path(settings.data) if settings.data else None)
        options = {**options, "table": table}
    fixed = {k: v for k, v in options.items() if k not in settings.grid}

    def make(**cell):
        return declared.make(**fixed, **cell)

    if folder is not None and declared.neural:
        states = last_states(
            make, settings.grid, settings.seeds, settings.generations, folder=folder / "loops", seed=settings.seed
        )
        how: dict[str, Any] = {"damping": damping, "generations": generations}
        return [certify(loop, key, state=state, cell=cell, **how) for cell, loop, key, state in states[:most]]
    key = random.fold_in(random.as_key(jax.random.key(settings.seed)), 0)
    return [certify(make(**cell), key, damping=damping, generations=generations, cell=cell) for cell in cells]


def show(verdicts: list[Verdict]) -> None:
    """Print them, a paragraph a cell."""
    for verdict in verdicts:
        print(", ".join(named(k, v) for k, v in verdict.cell.items()) or "the loop")
        for said in verdict.sentences():
            print(f"  {said}")
