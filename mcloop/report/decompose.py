"""Where a loop's error comes from: imperfections switched off one at a time, on the same seeds, and each one's share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcloop.errors import InputError
from mcloop.report.estimates import Curve, Interval, contrast, of_seeds, sample
from mcloop.report.limits import MISS, looked
from mcloop.results import number

# a hatch and a marker each, on fills that are light enough to show them in grey
_STYLES = (("#7FB2DA", "///", "s"), ("#F7DC9A", "...", "^"), ("#DE8A70", "xxx", "D"), ("#9FD8C4", "\\\\\\", "v"))
_REST = ("#E4E4E4", "", "o")


def contributions(
    ds, measure: str, switches: Sequence[str], rest: str = "expressivity", order: Sequence[str] | None = None
) -> Any:
    """The error of a loop split into one share for each imperfection, and the rest, which no switch removes.

    A switch is an axis of two values: as it is, then ideal. With E(S) the error where the switches in S are ideal, the share
    of i is its Shapley value (the average over all orders in which the switches can be made ideal one after the other):

        share_i = mean over orders of E(before i) - E(before i and i),   rest = E(all),

    Derived here, from two lines: along one order the differences telescope to E(none) - E(all), so they and the rest add up to
    the error exactly, and so does their average; and the average treats all switches alike, where a single order gives what two
    imperfections do together to the one that is made ideal first. For three switches that is
    share_i = [E() - E(i)]/3 + [E(j) - E(ij)]/6 + [E(k) - E(ik)]/6 + [E(jk) - E(ijk)]/3. A share may be below 0: an imperfection
    may make up for another one. `least` and `most` are the means along the orders that give the most different answers.

    Shares are linear in the errors, so they are found seed by seed. Under common random numbers what is luck in all cells
    cancels there, and the standard error over seeds of these differences is the one that counts.

    Args:
        ds: a sweep that kept its seeds, with an axis of two values for every switch; further axes stay.
        measure: its error: a variable that adds up, such as a squared distance without bias (0 where nothing is wrong).
        switches: names of axes.
        rest: name of what is left where all is ideal.
        order: the switches in one order, for the split along it in place of the average.

    Returns:
        Dataset: `share` (source, ..., seed, generation) and `error` (..., seed, generation), in units of the measure, with
        means and standard errors over seeds: `mean`, `sem`, `least`, `most` (source, ..., generation), `error_mean`,
        `error_sem`.

    Raises:
        InputError: an unknown measure or axis, an axis of another length than two, seeds that were not kept, a bad order.
    """
    _check(ds, measure, switches, rest, order)
    errors = ds[measure].astype(np.float64)
    ends = {s: ds[s].values[[0, -1]] for s in switches}

    def error(ideal):
        return errors.sel({s: ends[s][int(s in ideal)] for s in switches}, drop=True)

    cells = {frozenset(c): error(c) for size in range(len(switches) + 1) for c in itertools.combinations(switches, size)}

    def along(path):
        """Source -> its share, where the switches are made ideal in this order."""
        return {s: cells[frozenset(path[:i])] - cells[frozenset(path[: i + 1])] for i, s in enumerate(path)}

    paths = [along(path) for path in itertools.permutations(switches)]
    chosen = paths if order is None else [along(tuple(order))]
    shares = {s: sum(p[s] for p in chosen) / len(chosen) for s in switches}
    return _collect(cells, shares, {s: [p[s] for p in paths] for s in switches}, rest, errors.attrs)


def _collect(cells, shares, paths, rest, attributes):
    """The Dataset of `contributions` from E(S) of every S, the shares, and every share along every order."""
    import xarray as xr

    whole, left = cells[frozenset()], cells[frozenset(shares)]
    along = xr.Variable("source", [*shares, rest], {"long_name": "where the error comes from"})

    def stack(parts):
        return xr.concat([p.drop_attrs() for p in parts], along).transpose("source", ..., "generation")

    share = stack([*shares.values(), left]).transpose(..., "seed", "generation")
    means = {s: xr.concat([p.mean("seed", skipna=False) for p in parts], "order") for s, parts in paths.items()}
    found = {
        "share": share,
        "error": whole,
        "mean": share.mean("seed", skipna=False),
        "sem": _sem(share),
        "least": stack([*(m.min("order", skipna=False) for m in means.values()), left.mean("seed", skipna=False)]),
        "most": stack([*(m.max("order", skipna=False) for m in means.values()), left.mean("seed", skipna=False)]),
        "error_mean": whole.mean("seed", skipna=False),
        "error_sem": _sem(whole),
    }
    ds = xr.Dataset(found, attrs={"measure": attributes.get("long_name", ""), "units": attributes.get("units", "")})
    for name, words in _WORDS.items():
        ds[name].attrs = {"long_name": words, "units": ds.attrs["units"]}
    return ds


_WORDS = {
    "share": "part of the error",
    "error": "error of the loop as it is",
    "mean": "part of the error, mean over seeds",
    "sem": "standard error of that mean",
    "least": "the least that this part has along one order of switching",
    "most": "the most that this part has along one order of switching",
    "error_mean": "error of the loop as it is, mean over seeds",
    "error_sem": "standard error of that mean",
}


def _sem(x):
    """The standard error over seeds; NaN for one seed."""
    count = x.sizes["seed"]
    return x.std("seed", ddof=1, skipna=False) / count**0.5 if count > 1 else x.isel(seed=0, drop=True) * np.nan


def _check(ds, measure, switches, rest, order):
    if measure not in ds.data_vars:
        raise InputError(f"measure must be one of {', '.join(map(str, ds.data_vars))}, not {measure!r}.")
    if "seed" not in ds[measure].dims:
        raise InputError(f"ds must hold the seeds of {measure}, whose differences are paired, not statistics over them.")
    if not switches or len(set(switches)) < len(switches):
        raise InputError(f"switches must be one or more different axes, not {list(switches)!r}.")
    for s in switches:
        if ds[measure].sizes.get(s) != 2:
            size = ds[measure].sizes.get(s, "no")
            raise InputError(f"switch {s!r} must be an axis of two values, as it is and ideal; it has {size}.")
    if rest in switches:
        raise InputError(f"rest must be another name than the switches have, not {rest!r}.")
    if order is not None and sorted(order) != sorted(switches):
        raise InputError(f"order must hold each of {', '.join(switches)} once, not {list(order)!r}.")


def sentences(found) -> list[str]:
    """What a decomposition says at the last generation: every share, the largest one, and whether it grows.

    The two intervals that are given pay for all that were looked at, so that they hold together in 98 of 100 reports.

    Args:
        found: from `contributions`, one cell of any further axes.

    Raises:
        InputError: further axes.
    """
    g = _one_cell(found)
    last = found.isel(generation=-1)
    units = f" {found.units}" if found.units not in ("", "1") else ""
    if not np.isfinite(last["mean"]).all():
        return [f"At generation {g[-1]} the errors are not finite in every seed, so there is nothing to split."]
    parts = [
        f"{s} {number(float(last['mean'][i]), float(last['sem'][i]))}{units}{_range(last, i)}"
        for i, s in enumerate(found["source"].values)
    ]
    whole = number(float(last["error_mean"]), float(last["error_sem"]))
    seeds = found.sizes["seed"]
    said = [f"Over {seeds} paired seeds the error of generation {g[-1]}, {whole}{units}, is made of {'; '.join(parts)}."]
    if seeds < 2 or len(g) < 2:
        return said
    curves = {str(s): of_seeds(g, found["share"].sel(source=s).values) for s in found["source"].values}
    first, second = sorted(curves, key=lambda s: -curves[s].mean[-1])[:2]
    # which is largest is itself a matter of chance, so every pair of parts is paid for, and the rise of every part
    miss = looked(MISS, len(curves) * (len(curves) - 1) // 2 + len(curves))
    lead = _difference((curves[first], -1), (curves[second], -1), miss)
    rise = _difference((curves[first], -1), (curves[first], 0), miss)
    told = "more than" if lead.low > 0 else "not told by these seeds from"
    grows = "grows" if rise.low > 0 else "falls" if rise.high < 0 else "is not seen to change"
    said.append(
        f"The largest part is {first}, {told} {second} (difference {lead.value:.3g}, interval {lead.low:.3g} to "
        f"{lead.high:.3g}); from generation {g[0]} to {g[-1]} it {grows} (by {rise.value:.3g}, {rise.low:.3g} to "
        f"{rise.high:.3g})."
    )
    return said


def _difference(a: tuple[Curve, int], b: tuple[Curve, int], miss: float) -> Interval:
    return contrast(sample([a, b]), (1, -1), miss)


def _range(last, i: int) -> str:
    """How far the share depends on the order of switching, where it does."""
    low, high = float(last["least"][i]), float(last["most"][i])
    return f" ({low:.3g} to {high:.3g} by the order of switching)" if not math.isclose(low, high, rel_tol=1e-6) else ""


def _one_cell(found) -> np.ndarray:
    """The generations of a decomposition, which must have one cell."""
    if extra := [str(d) for d in found["mean"].dims if d not in ("source", "generation")]:
        raise InputError(f"found must be one cell, not all values of {extra[0]!r}; choose one with found.sel.")
    return found["generation"].values


def stacked(found, title: str = "") -> Any:
    """Left: shares stacked by generation, those below 0 downwards, and the error that they add up to. Right: each by itself.

    Bars on the right, and on the diamonds that mark the error, are two standard errors over seeds. A matplotlib Figure.

    Args:
        found: from `contributions`, one cell of any further axes.

    Raises:
        InputError: further axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    g = _one_cell(found)
    drawn = Figure(figsize=(10.6, 4.4), layout="constrained")
    left, right = drawn.subplots(1, 2)
    sources = [str(s) for s in found["source"].values]
    styles = {s: _STYLES[i % len(_STYLES)] for i, s in enumerate(sources[:-1])} | {sources[-1]: _REST}
    up, down = np.zeros(len(g)), np.zeros(len(g))
    for i, s in enumerate(reversed(sources)):  # what nothing removes is the ground that the rest stands on
        part = found.sel(source=s)
        mean, sem = part["mean"].values, np.nan_to_num(part["sem"].values)
        colour, hatch, marker = styles[s]
        left.bar(g, mean, 0.66, np.where(mean < 0, down, up), color=colour, hatch=hatch, edgecolor="0.15", lw=0.8, label=s)
        up, down = up + np.maximum(mean, 0), down + np.minimum(mean, 0)
        look = {"color": "0.35", "marker": marker, "ms": 7, "mfc": colour, "mec": "0.15", "lw": 1.1, "capsize": 3}
        right.errorbar(g + 0.06 * (i - (len(sources) - 1) / 2), mean, 2 * sem, label=s, **look)
    total = {"color": "black", "marker": "D", "mfc": "white", "ms": 5.5, "ls": "", "capsize": 3, "zorder": 4}
    left.errorbar(g, found["error_mean"], 2 * np.nan_to_num(found["error_sem"]), label="their sum: the error", **total)
    units = f" [{found.units}]" if found.units not in ("", "1") else ""
    for ax, words in ((left, "error, and what it is made of"), (right, "part of the error")):
        ax.axhline(0, color="0.2", lw=0.9)
        ax.set_ylabel(f"{words}{units}", fontsize=9)
        ax.set_xlabel("fits so far (1 = the fit on real data)", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(True, axis="y", color="0.9", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
    handles, names = left.get_legend_handles_labels()
    marks = right.get_legend_handles_labels()[0][::-1]
    pairs = dict(zip(names, handles, strict=True))
    bars = [(pairs[s], mark) for s, mark in zip(sources, marks, strict=True)]
    _legend(drawn, [*bars, pairs["their sum: the error"]], [*sources, "their sum: the error"])
    drawn.suptitle(title, fontsize=11, x=0.01, ha="left")
    drawn.set_label(
        f"Error: {found.attrs['measure']}. Means over {found.sizes['seed']} paired seeds; bars: two standard errors. Parts are "
        "averages over the orders in which imperfections are switched off; one below 0 makes up for another."
    )
    return drawn


def _legend(drawn, handles, names) -> None:
    from matplotlib.legend_handler import HandlerTuple

    apart = {tuple: HandlerTuple(ndivide=None, pad=0.6)}
    drawn.legend(
        handles,
        names,
        handler_map=apart,
        loc="outside right upper",
        frameon=False,
        fontsize=8.5,
        handlelength=4,
        handleheight=1.6,
    )
