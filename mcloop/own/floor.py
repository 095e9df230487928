"""What real points themselves score, as a floor to everything that a generator is measured by."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcloop.memory.points import form_of
from mcloop.own.external import LOOK, Measure
from mcloop.own.measures import measure_of


def with_floor(ds, real: Any, measure: Measure | None = None, samples: int | None = None, draws: int = 5):
    """A copy of the Dataset in which every measure knows what real points score.

    As many real points as a generation is measured by, drawn with replacement, are measured against all of them, as a
    generator would be that has learnt the real points and nothing else: the mean of some draws is the floor that figures dot
    and first fits are judged by, and their standard deviation how much a draw may be off.

    Args:
        ds: results of a loop of `external`.
        real, measure, samples: as `external` has them; a measure gives a dict.
        draws: how often real points are drawn.
    """
    form = form_of(real)
    values = form.encode(real, "real")
    n = len(next(iter(values.values())))
    many = min(n, LOOK) if samples is None else samples
    judge = measure_of(real, form.unit) if measure is None else measure
    known = form.decode(values)
    scores = []
    for seed in range(draws):
        chosen = np.random.default_rng(seed).integers(0, n, many)
        scores.append(judge(known, form.decode({name: x[chosen] for name, x in values.items()})))
    ds = ds.copy()
    for name in scores[0]:
        if name in ds:
            found = [score[name] for score in scores]
            ds[name].attrs = ds[name].attrs | {"floor": float(np.mean(found)), "floor_spread": float(np.std(found, ddof=1))}
    ds.attrs["evaluation"] = (
        f"Every generation is judged by {many:,} {form.unit}s that it draws, against the real ones; the dotted line is what as "
        f"many real {form.unit}s score, drawn again with replacement, the mean of {draws} draws."
    )
    return ds
