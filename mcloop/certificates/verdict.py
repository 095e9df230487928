"""The certificate of a loop as it is declared, or of a finished run: what of it can be differentiated, and what must be run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mcloop import random
from mcloop.certificates.blackbox import Rate, blackbox_rate
from mcloop.certificates.certificate import Certificate, certificate
from mcloop.certificates.stability import Problem
from mcloop.errors import InputError
from mcloop.types import Loop, State

_MANY = 2.0**22  # points that stand for infinitely many, where only their statistics are drawn
_DRAW, _RISK = 2**20 + 1, 2**20 + 2  # streams that no generation uses


class Verdict(NamedTuple):
    """What is said of one cell: its coordinates, and a certificate, a measured rate, or why there is neither."""

    cell: dict[str, Any]
    certificate: Certificate | None = None
    rate: Rate | None = None
    why: str = ""

    def sentences(self) -> list[str]:
        """In words."""
        if self.certificate is not None:
            return self.certificate.sentences() + ([self.why] if self.why else [])
        if self.rate is None:
            return [self.why]
        said = [self.why] if self.why else []
        said.append(
            f"Measured by running it twice, a little apart: the parameters' distance is multiplied by {self.rate.rate:.3g} a "
            f"generation (generation by generation {_listed(self.rate.parameters)}), that of the samples by "
            f"{self.rate.sample_rate:.3g} ({_listed(self.rate.samples)})."
        )
        return said


def _listed(factors: np.ndarray) -> str:
    return ", ".join(f"{x:.3g}" for x in factors)


def problem_of(loop: Loop, state: State, key: jax.Array) -> Problem:
    """The certificate's problem of a loop at a state: its own real data, its own sampler, its own corrector.

    The model's points are drawn under fixed random numbers, as many as its rows hold, or four million where only statistics
    are drawn. A corrector is taken for a part of the sampler and differentiated with it.

    Raises:
        InputError: the family has no `objective`.
    """
    model, objective = loop.model, loop.model.objective
    if objective is None:
        raise InputError(f"model must be one that can be differentiated (it has an objective), not {model.name}.")
    key = random.as_key(key)
    k_draw, k_risk = (random.fold_in(key, i) for i in (_DRAW, _RISK))
    count = _MANY if model.capacity is None else float(model.capacity)
    plain = loop.corrector.name == "none"

    def draw(free):
        params = objective.params(free)
        if plain:
            return model.sample(k_draw, params, count)
        return loop.corrector.sample(k_draw, model, params, state.truth, count)

    return Problem(
        objective.free(state.params),
        lambda free, data: objective.risk(k_risk, free, data),
        state.real,
        draw,
        exact=objective.likelihood and plain,
    )


def certify(
    loop: Loop,
    key: jax.Array,
    *,
    state: State | None = None,
    real: Any = None,
    damping: float = 0.0,
    generations: int = 6,
    cell: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on a loop: a certificate for fixed real data + lam synthetic where the family can be differentiated, else a
    measured rate.

    Args:
        loop: any loop.
        key: of its randomness.
        state: a trained state, taken for the loop's fixed point; default the fit on real data, from where it is searched.
        real: what the loop starts from, where no state is given (see `make_loop`).
        damping: see `certificates.certificate`.
        generations: of the twins, where they are needed.
        cell: its coordinates, for the verdict.

    Raises:
        InputError: a bad number.
    """
    _check(damping, generations)
    where, key = dict(cell or {}), random.as_key(key)
    lam = None if loop.regime.lam is None else float(loop.regime.lam)
    if loop.model.objective is None:
        why = f"The {loop.model.name} family is not one that is differentiated here."
    elif lam is None:
        why = f"Regime '{loop.regime.name}' is not fixed real data + lam synthetic, which is what a certificate is of."
    elif lam == 0:
        return Verdict(
            where, why="No synthetic data: every generation is the fit on real data, and a perturbation is gone at once."
        )
    elif loop.corrector.refine is not None:
        why = f"Corrector '{loop.corrector.name}' changes the fit itself, which a certificate does not know of."
    elif not np.isfinite(lam):
        why = "Fully synthetic (lam = inf): no real data hold the loop."
    else:
        here = loop.init(key, real, generations) if state is None else state
        try:
            found = certificate(problem_of(loop, here, key), lam, damping=damping, settle=state is None)
        except InputError as error:
            return _measured(loop, where, key, here, None, generations, f"No certificate: {error}")
        part = "" if loop.corrector.name == "none" else f"Corrector '{loop.corrector.name}' is part of the sampler here."
        return Verdict(where, found, why=part)
    return _measured(loop, where, key, state, real, generations, why)


def _check(damping: float, generations: int) -> None:
    if generations < 2:
        raise InputError(f"generations must be a whole number >= 2, not {generations}.")
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a finite number >= 0, not {damping!r}.")


def _measured(loop, cell, key, state, real, generations, why: str) -> Verdict:
    try:
        return Verdict(cell, rate=blackbox_rate(loop, key, generations, state=state, real=real), why=why)
    except InputError as error:
        return Verdict(cell, why=f"{why} No rate: {error}")


def of_name_or_folder(
    target: str, size: str, overrides: dict[str, list[Any]], damping: float, generations: int, seed: int, most: int = 12
) -> list[Verdict]:
    """Verdicts on the cells of an experiment, or of a run from the last checkpoints in its folder.

    Raises:
        InputError: neither a name nor a run's folder, a bad axis or number.
    """
    from mcloop.experiment import config as ex
    from mcloop.storage.run_folder import read_manifest

    _check(damping, generations)
    folder = Path(target)
    if (folder / "manifest.json").is_file():
        kept = read_manifest(folder)["settings"]
        known = ex.find(kept["name"])
        declared = ex.load(known)
        settings = ex.Settings(**{"data": None, **{k: v for k, v in kept.items() if k in ex.Settings._fields}})
        settings = settings._replace(grid={**settings.grid, **overrides})
    else:
        known = ex.find(target)
        declared = ex.load(known)
        settings = ex.settle(known, declared, size, 1, None, overrides, seed)
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
        from mcloop.drivers.train import last_states

        states = last_states(
            make, settings.grid, settings.seeds, settings.generations, folder=folder / "loops", seed=settings.seed
        )
        how: dict[str, Any] = {"damping": damping, "generations": generations}
        return [certify(loop, key, state=state, cell=cell, **how) for cell, loop, key, state in states[:most]]
    key = random.fold_in(random.as_key(jax.random.key(settings.seed)), 0)
    return [certify(make(**cell), key, damping=damping, generations=generations, cell=cell) for cell in cells]


def show(verdicts: list[Verdict]) -> None:
    """Print them, a paragraph a cell."""
    from mcloop.results import named

    for verdict in verdicts:
        print(", ".join(named(k, v) for k, v in verdict.cell.items()) or "the loop")
        for said in verdict.sentences():
            print(f"  {said}")
