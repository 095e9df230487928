"""The verdicts on an experiment as it is declared, or on a finished run at its last checkpoints."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import jax

from mcloop import random
from mcloop.certificates.verdict import Verdict, certify, check_request
from mcloop.checks import check_seed
from mcloop.data.given import given
from mcloop.drivers.train import last_states
from mcloop.experiment.arguments import bind
from mcloop.experiment.config import find, is_file, load, settle
from mcloop.experiment.origin import of_run
from mcloop.experiment.own_data import located
from mcloop.experiment.simulate import prepared, read_data
from mcloop.results import named
from mcloop.storage.programs import keep_programs


def of_name_or_folder(
    target: str,
    size: str,
    overrides: dict[str, str],
    damping: float,
    generations: int,
    seed: int,
    data: str | os.PathLike[str] | None = None,
    most: int = 12,
) -> list[Verdict]:
    """Verdicts on the cells of an experiment, or of a run from the last checkpoints in its folder.

    Args:
        data: the user's data, or where a run's data are now.

    Raises:
        InputError: neither a name nor a run's folder, a bad axis or number.
    """
    check_request(damping, generations)
    check_seed(seed)
    keep_programs()
    folder = Path(target)
    if is_file(folder / "manifest.json"):
        known, declared, settings = of_run(folder)
        asked = settle(known, declared, settings.size, overrides=overrides).grid
        settings = settings._replace(grid={**settings.grid, **{axis: asked[axis] for axis in overrides}})
    else:
        known = find(target)
        declared = load(known)
        settings = settle(known, declared, size, 1, None, overrides, seed, None if data is None else given(data))
        folder = None
    declared = bind(declared, settings.size, settings.grid)
    cells = [dict(zip(settings.grid, point, strict=True)) for point in itertools.product(*settings.grid.values())][:most]
    if declared.certify is not None:
        return [Verdict(cell, declared.certify(**cell)) for cell in cells]
    settings = settings if folder is None else located(folder, settings, data)
    make = prepared(declared, settings, read_data(declared, settings))

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
