"""Whether simulated means agree with the laws: one verdict a report, with a known rate of false alarms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.report.cells import Cell
from mcloop.report.limits import ALARM, FAR, LEAST, SURE, limits, limits_of_statistics, looked

PLACES = 5  # generations of a curve that are tested


class Look(NamedTuple):
    """A mean against its law, at the generation where it is nearest to what chance allows, or furthest beyond.

    Attributes:
        z: their difference in standard errors.
        limit: how many are chance on that side.
        whole: whether every generation that should be tested could be.
    """

    z: float
    limit: float
    whole: bool


def look(cell: Cell, name: str, miss: float) -> Look | None:
    """A curve against its law at five generations; None where none can be tested.

    Left out are generations at which the seeds are all the same, or so skewed for their number that a limit would lie beyond
    ten standard errors, and every curve of fewer than 20 seeds, whose skewness cannot be known.

    Args:
        miss: how often one generation may be called wrong.
    """
    if name not in cell.law or name not in cell.mean or cell.seeds < LEAST:
        return None
    places = np.unique(np.linspace(0, len(cell.g) - 1, PLACES + 1).astype(int)[1:])
    mean, sem = cell.mean[name][places], cell.sem[name][places]
    gap = mean - np.asarray(cell.law[name])[places]
    known = np.isfinite(gap) & (sem > 0)
    if not known.any():
        return None
    if name in cell.values:
        below, above = limits(np.where(known, cell.values[name][:, places], 0.0), miss, SURE, tails=True)
    else:
        kept = {k: np.where(known, v[places], 0.0) for k, v in cell.kept.get(name, {}).items()}
        below, above = limits_of_statistics({**kept, "mean": mean, "sem": sem}, cell.seeds, miss, SURE)
    z = gap[known] / sem[known]
    limit = np.where(z < 0, below[known], above[known])
    told = limit < FAR
    if not told.any():
        return None
    z, limit = z[told], limit[told]
    worst = int((np.abs(z) / limit).argmax())
    return Look(float(z[worst]), float(limit[worst]), len(z) == len(places))


def looks(shown: list[Cell]) -> list[tuple[Cell, str, Look | None]]:
    """Every curve of these cells that has a law, against it; all together are called wrong by chance at the rate `ALARM`.

    Measured (benchmarks/false_alarms.py, 2,000 reports a case), for a library that is right: Gaussians at quickstart's and
    kazdan's tiny size and small one, and at 5 and 20 seeds, log-normal walks, and sums of normal, exponential and log-normal
    numbers at 25: 0 to 0.15 % of reports, by 95 % intervals below 0.44 %. A regression of T = d + 2 rows, whose error has no
    variance (20,000 reports): 0.69 % at 50 seeds, 0.48 % at 100, 0.47 % at 400, below 0.81 %.
    """
    curves = [(cell, name) for cell in shown for name in cell.law if name in cell.mean]
    miss = looked(ALARM, PLACES * len(curves))
    return [(cell, name, look(cell, name, miss)) for cell, name in curves]


def beside(cell: Cell, name: str, found: Look | None) -> str:
    """The law's value at the last generation, and how far the curve is from it, in brackets behind a sentence."""
    if name not in cell.law:
        return ""
    if found is None:
        tested = "too few seeds to test"
    else:
        tested = f"worst z {found.z:+.1f}{'' if found.whole else ' over the generations that can be tested'}"
    return f" (theory: {cell.law[name][-1]:.3g}, {tested})"


def agreement(found: list[tuple[Cell, str, Look | None]]) -> list[str]:
    """The sentence on all curves that have a law: they agree, or one of them lies further off than chance."""
    tested = [one for _, _, one in found if one is not None]
    if not found:
        return []
    if not tested:
        return [f"Theory is drawn and not tested: no curve of {len(found)} has seeds enough for what their distribution is."]
    worst = max(tested, key=lambda one: abs(one.z) / one.limit)
    agree = "agree with" if abs(worst.z) <= worst.limit else "DISAGREE with"
    left = f"; {len(found) - len(tested)} more have too few seeds to test" if len(tested) < len(found) else ""
    return [
        f"The simulated means {agree} theory: of {len(tested)} curve{'s' * (len(tested) > 1)} the one that is furthest off "
        f"has |z| {abs(worst.z):.1f}, where up to {worst.limit:.1f} is chance (in {100 * (1 - ALARM):g} of 100 reports){left}."
    ]
