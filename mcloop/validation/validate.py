"""Every law of the registry held against mcloop's own loops: mean and standard error, z, and the wrong neighbour's z."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import norm

from mcloop.checks import check_seed
from mcloop.errors import InputError
from mcloop.laws import LAWS, Law
from mcloop.validation.simulations import Case, Check, Experiment
from mcloop.validation.simulations_continuous import GAUSSIAN, KERNEL
from mcloop.validation.simulations_counts import COUNTS, SELECTION
from mcloop.validation.simulations_regression import REGRESSION

EXPERIMENTS: tuple[Experiment, ...] = GAUSSIAN + REGRESSION + COUNTS + SELECTION + KERNEL

LEVELS = {"quick": 1, "standard": 4, "full": 20}
"""Replicas of each level, as a multiple of those of `quick`."""

FALSE_ALARM = 0.0025
"""Chance that a whole run of a correct library fails somewhere: Bonferroni over all checks."""

REJECT = 6.0
"""|z| that a law's wrong neighbour must exceed, or the check has not shown that it can tell the two apart."""

_WORKERS = 2  # compilation releases the interpreter lock, tracing does not: more would wait for each other


class Row(NamedTuple):
    """One law held against one simulation.

    Attributes:
        id: the law's name in `mcloop.laws.LAWS`; a law may be checked more than once.
        family, regime, law, neighbour: of the registry; `law` is its formula.
        parameters: sizes, generation and estimator, in words.
        predicted: what the law says.
        simulated: mean over replicas; None, as are the next three, where nothing finite was simulated.
        stderr: its standard error.
        z: (simulated - predicted) / stderr.
        neighbour_z: the same against the wrong neighbour's value.
        passed: |z| is below `threshold()` and |neighbour_z| above `REJECT`.
        replicas: independent loops.
        seconds: wall time, compilation included, shared equally by the rows that read one simulation.
    """

    id: str
    family: str
    regime: str
    law: str
    parameters: str
    predicted: float | None
    simulated: float | None
    stderr: float | None
    z: float | None
    neighbour: str
    neighbour_z: float | None
    passed: bool
    replicas: int
    seconds: float


def threshold() -> float:
    """|z| from which a check fails: two-sided, Bonferroni over every check there is, whichever are run."""
    checks = sum(len(case.checks) for e in EXPERIMENTS for case in e.cases)
    return float(norm.isf(FALSE_ALARM / 2 / max(checks, 1)))


def validate(level: str = "standard", seed: int = 0, only: Sequence[str] | None = None) -> list[Row]:
    """Simulate the laws and compare, in the registry's order.

    Args:
        level: "quick" (under a minute on two cores, most of it compilation), "standard" or "full": 1, 4 or 20 times the
            replicas.
        seed: of all randomness; a law's numbers do not depend on which other laws are run.
        only: ids of laws; default all.

    Raises:
        InputError: for an unknown level or law.
    """
    if level not in LEVELS:
        raise InputError(f"level must be {', '.join(LEVELS)}, not {level!r}.")
    check_seed(seed)
    wanted = chosen(only)
    # unoptimised code runs slower and compiles in half the time, which is most of what `quick` does
    options = {"xla_backend_optimization_level": 0} if level == "quick" and jax.default_backend() == "cpu" else None
    root, conduct = jax.random.key(seed), partial(_conduct, set(wanted), LEVELS[level], options)
    with ThreadPoolExecutor(_WORKERS) as pool:
        started = [pool.submit(conduct, e, jax.random.fold_in(root, i)) for i, e in enumerate(EXPERIMENTS)]
        rows = [row for future in started for row in future.result()]
    found = {row.id for row in rows}
    rows += [_not_simulated(name) for name in wanted if name not in found]
    order = {name: i for i, name in enumerate(LAWS)}
    return sorted(rows, key=lambda row: order[row.id])


def chosen(only: Sequence[str] | None) -> list[str]:
    """The ids of the laws that are asked for; all where none is named.

    Raises:
        InputError: there is no such law.
    """
    wanted = list(LAWS if only is None else dict.fromkeys((only,) if isinstance(only, str) else only))
    if unknown := [name for name in wanted if name not in LAWS]:
        raise InputError(f"only must name laws among {', '.join(LAWS)}, not {unknown[0]!r}.")
    return wanted


def _conduct(wanted: set[str], scale: int, options: dict | None, experiment: Experiment, key) -> list[Row]:
    """Compile an experiment once, run those of its cases that a wanted law reads, and judge."""
    cases = [(i, c) for i, c in enumerate(experiment.cases) if any(check.law in wanted for check in c.checks)]
    if not cases:
        return []
    began = time.perf_counter()
    run = jax.jit(experiment.run, compiler_options=options)
    rows = []
    for i, case in cases:
        checks = [check for check in case.checks if check.law in wanted]
        moments = _simulate(run, experiment, case, checks, jax.random.fold_in(key, i), scale)
        rows += [_judge(check, *m) for check, m in zip(checks, moments, strict=True)]
    share = (time.perf_counter() - began) / len(rows)
    return [row._replace(seconds=share) for row in rows]


def _simulate(run, experiment: Experiment, case: Case, checks: list[Check], key, scale: int) -> list[tuple]:
    """(mean, standard error, replicas) of each check, in float64 over calls of one compiled program."""
    settings = {name: np.float32(value) for name, value in case.settings.items()}
    sums = [(0, 0.0, 0.0)] * len(checks)
    for call in range(experiment.calls * scale):
        keys = jax.random.split(jax.random.fold_in(key, call), (1, experiment.replicas))
        infos = {name: np.asarray(x, np.float64) for name, x in run(keys, **settings).items()}
        for j, check in enumerate(checks):
            sums[j] = _merge(sums[j], np.ravel(check.read(infos)[check.g - 1]))
    return [(mean, np.sqrt(squares / (count - 1) / count), count) for count, mean, squares in sums]


def _merge(sums, x):
    """Count, mean and centred sum of squares after one more body of values (Chan, Golub & LeVeque 1983)."""
    count, mean, squares = sums
    whole, gap = count + x.size, x.mean() - mean
    return whole, mean + gap * x.size / whole, squares + ((x - x.mean()) ** 2).sum() + gap**2 * count * x.size / whole


def _judge(check: Check, mean: float, error: float, count: int) -> Row:
    law = LAWS[check.law]
    right, wrong = (float(np.ravel(f([check.g], **check.parameters))[check.part]) for f in (law.value, law.wrong))
    mean, error = float(mean), max(float(error), float(np.finfo(np.float32).tiny))
    z, away = (mean - right) / error, (mean - wrong) / error
    numbers = {"predicted": right, "simulated": mean, "stderr": error, "z": z, "neighbour_z": away}
    passed = abs(z) < threshold() and REJECT < abs(away) < np.inf  # NaN fails
    return _row(law, f"{check.words}, g={check.g}", numbers, passed, count)


def _not_simulated(name: str) -> Row:
    return _row(LAWS[name], "not simulated: no experiment reads this law", {}, False, 0)


def _row(law: Law, parameters: str, numbers: dict[str, float], passed: bool, replicas: int) -> Row:
    known = {name: x for name, x in numbers.items() if np.isfinite(x)}
    return Row(
        id=law.id,
        family=law.family,
        regime=law.regime,
        law=law.formula,
        parameters=parameters,
        predicted=known.get("predicted"),
        simulated=known.get("simulated"),
        stderr=known.get("stderr"),
        z=known.get("z"),
        neighbour=law.neighbour,
        neighbour_z=known.get("neighbour_z"),
        passed=passed,
        replicas=replicas,
        seconds=0.0,
    )
