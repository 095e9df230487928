"""What every unit of a neural run has seen, gathered into one Dataset."""

from __future__ import annotations

import itertools

import numpy as np

from mcloop import results
from mcloop.drivers.sweep import is_number


def assemble(plans, seen, axes, cells: int, seeds: int, generations: int, loops, attributes, remarks):
    """The Dataset of a run: scalars by cell, seed and generation, a first fit's own by cell and seed; pictures."""
    lead = tuple(len(v) for v in axes.values())
    labels = {n: [x if is_number(x) else str(x) for x in v] for n, v in axes.items()}
    scalars: dict[str, np.ndarray] = {}
    pictures: dict[str, np.ndarray] = {}
    opening: dict[str, np.ndarray] = {}
    for plan, infos in zip(plans, seen, strict=True):
        for c, s in itertools.product(range(cells), range(seeds)):
            if (place := plan.place(c, s)) is None:
                continue
            for t, info in enumerate(infos):
                for name, leaf in info.items():
                    value = leaf[place] if place else leaf
                    if name.startswith(results.FIRST_FIT):
                        opening.setdefault(name, np.full((cells, seeds), np.nan, np.float32))[c, s] = value
                    elif value.ndim == 0:
                        scalars.setdefault(name, np.full((cells, seeds, generations), np.nan, np.float32))[c, s, t] = value
                    elif s == 0:
                        shape = (cells, generations, *value.shape)
                        pictures.setdefault(name, np.zeros(shape, value.dtype))[c, t] = value
    remarks = [*remarks, *_lost(plans, seen, axes, seeds)]
    estimators = "; ".join(dict.fromkeys(loop.model.estimator for loop in loops if loop.model.estimator))
    steps = {"generation": np.arange(1, generations + 1)}
    attributes = {"sample_count": seeds, "estimator": estimators, **attributes}
    if remarks:
        attributes["remarks"] = [*attributes.get("remarks", []), *remarks]
    shaped = {n: x.reshape(lead + (seeds, generations)) for n, x in scalars.items()}
    ds = results.assemble(shaped, {**labels, "seed": np.arange(seeds), **steps}, attributes)
    for name, x in opening.items():
        ds[name] = ((*axes, "seed"), x.reshape((*lead, seeds)), {"long_name": results.of_first_fit(name)})
    for name, x in pictures.items():
        inner, kind = _inner(x)
        ds[name] = ((*axes, "generation", *inner), x.reshape(lead + x.shape[1:]), kind)
    return ds


def _lost(plans, seen, axes, seeds: int) -> list[str]:
    """Where a loop of a compiled program could no longer be fitted: all that is seen of it is then NaN."""
    found = []
    for plan, infos in zip(plans, seen, strict=True):
        for c, point in enumerate(itertools.product(*axes.values())):
            for s in range(seeds):
                if not (place := plan.place(c, s)):
                    continue
                at = [t for t, info in enumerate(infos) if _nothing(info, place, first=t == 0)]
                if at:
                    cell = ", ".join(f"{name}={value}" for name, value in zip(axes, point, strict=True))
                    where = f"{cell}, seed {s}" if cell else f"seed {s}"
                    found.append(f"{where}: generation {at[0] + 1} could not be fitted: its network is not finite")
    return found


def _nothing(info, place, first: bool) -> bool:
    """Whether a fit failed: no loss, and nothing seen that is a number; a first fit may be sound, and draw what is not."""
    own = ("effective_lam", *(("loss",) if first else ()))
    seen = [leaf[place] for name, leaf in info.items() if name not in own and not name.startswith(results.FIRST_FIT)]
    seen = [x for x in seen if x.dtype.kind == "f"]
    return bool(seen) and not any(np.isfinite(x).any() for x in seen)


def _inner(x: np.ndarray) -> tuple[tuple[str, ...], dict]:
    """The dimensions of one thing that is looked at, and the attributes that say what it is; x is (cells, generations, ...)."""
    if x.ndim == 4 and x.dtype == np.uint8:
        return ("story", "byte"), {"text": 1, "long_name": "sample stories, UTF-8"}
    return (("image", "y", "x"), {"picture": "images"}) if x.ndim == 5 else (("y", "x"), {"picture": "density"})
