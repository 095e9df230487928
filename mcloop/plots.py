"""One function a figure: units, legend, bands over seeds, theory dashed, legible in grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mcloop.dataset import AXES
from mcloop.report import Cell, cells

# dark to light in grey as well (Okabe & Ito's set, ordered by luminance), with a marker each
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def curves(ds, experiment, title: str = "") -> Figure:
    """A panel a measure: mean over seeds, the 5-95 % band of seeds, theory dashed.

    Args:
        ds: results, with a `seed` or a `statistic` dimension.
        experiment: its `measure` names the panels, its `law` the dashed lines.
    """
    shown = list(cells(ds, experiment))
    return panels(ds, [(shown, name, "") for name in experiment.measure if name in ds], title)


def panels(ds, wanted: list[tuple[list[Cell], str, str]], title: str = "") -> Figure:
    """A row of panels, each (cells, variable, its title); cells of the same label look the same everywhere."""
    columns = 2 if len(wanted) == 4 else min(3, len(wanted))
    lines = -(-len(wanted) // columns)
    figure = Figure(figsize=(5.2 * columns + 1.8, 4.0 * lines + 0.2), layout="constrained")
    axes = np.ravel(figure.subplots(lines, columns))
    for ax in axes[len(wanted) :]:
        ax.set_axis_off()
    axes = axes[: len(wanted)]
    labels = dict.fromkeys(cell.label for shown, _, _ in wanted for cell in shown)
    styles = {label: i for i, label in enumerate(labels)}
    for ax, (shown, name, heading) in zip(axes, wanted, strict=True):
        for cell in shown:
            if name in cell.mean and np.isfinite(cell.mean[name]).any():
                _curve(ax, cell, name, styles[cell.label])
        _dress(ax, ds, name)
        ax.set_title(heading, fontsize=9.5, loc="left")
    found = [ax.get_legend_handles_labels() for ax in axes]
    known = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
    theory = known.pop("theory", None)
    if theory is not None:
        known["theory"] = theory
    if any(np.isfinite(c.sem[n]).any() for shown, n, _ in wanted for c in shown if n in c.sem):
        known["5-95 % of seeds"] = Patch(color="0.5", alpha=0.2, linewidth=0)
    figure.legend(known.values(), known.keys(), loc="outside right upper", frameon=False, fontsize=8.5)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def _curve(ax, cell: Cell, name: str, index: int) -> None:
    g, mean = cell.g, cell.mean[name]
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    # staggered, so that curves that lie on each other still show which they are
    every = max(1, len(g) // 7)
    start = (index * max(1, every // 4)) % every
    ax.fill_between(g, *cell.band[name], color=colour, alpha=0.09, linewidth=0)
    style = {"markevery": (start, every), "markersize": 5.5, "linewidth": 2.6, "alpha": 0.65, "markeredgewidth": 0}
    ax.plot(g, mean, color=colour, marker=marker, label=cell.label, **style)
    if name in cell.law:
        ax.plot(g, cell.law[name], color="black", linestyle=(0, (4, 2.5)), linewidth=1.1, zorder=4, label="theory")


def _dress(ax, ds, name: str) -> None:
    variable = ds[name]
    units = variable.attrs.get("units", "")
    words = variable.attrs.get("long_name", name)
    ax.set_ylabel(_wrapped(f"{words}{f' [{units}]' if units not in ('', '1') else ''}"), fontsize=9)
    ax.set_xlabel(AXES["generation"], fontsize=9)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    # many decades only make sense on a log axis
    data = [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata())]
    if not data:
        return
    values = np.concatenate([np.asarray(y, float) for y in data])
    values = values[np.isfinite(values)]
    if not values.size:
        return
    # the limits follow the means: a band of seeds may be decades wide, and is cut rather than let it hide them
    if values.min() > 0 and values.max() / values.min() > 20:
        ax.set_yscale("log")
        ax.set_ylim(values.min() / 2.5, values.max() * 2.5)
    elif values.min() >= 0:
        ax.set_ylim(0, 1.4 * values.max() if values.max() else 1)


def _wrapped(text: str, width: int = 44) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def phase_map(ds, name: str, x: str, y: str, title: str = "", log: bool = True, contours=None) -> Figure:
    """The mean of a variable at the last generation over two axes, with contour lines.

    Args:
        contours: (words, function of (x values, y values) -> levels to draw dashed at 0), or None.
    """
    last = ds[name].isel(generation=-1)
    last = last.mean("seed") if "seed" in last.dims else last.sel(statistic="mean")
    grid = last.transpose(y, x).values
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    ax = figure.subplots()
    xs, ys = np.arange(len(ds[x])), np.arange(len(ds[y]))
    from matplotlib.colors import LogNorm

    positive = grid[grid > 0]
    norm = LogNorm(positive.min(), positive.max()) if log and positive.size and positive.max() / positive.min() > 3 else None
    image = ax.pcolormesh(xs, ys, grid, cmap="cividis", norm=norm, shading="nearest")
    lines = ax.contour(xs, ys, grid, levels=6 if norm is None else _decades(positive), colors="white", linewidths=0.8)
    ax.clabel(lines, fontsize=7.5, fmt="%.2g")
    if contours is not None:
        words, function = contours
        mesh = function(*np.meshgrid(ds[x].values, ds[y].values))
        drawn = ax.contour(xs, ys, mesh, levels=[0.0], colors="black", linestyles="dashed", linewidths=1.6)
        if len(drawn.allsegs[0]):
            ax.plot([], [], color="black", linestyle="dashed", label=words)
            ax.legend(loc="upper left", fontsize=8, framealpha=0.9)
    for axis, set_ticks, where in ((x, ax.set_xticks, xs), (y, ax.set_yticks, ys)):
        step = max(1, len(where) // 9)
        set_ticks(where[::step], [f"{v:g}" for v in ds[axis].values[::step]], fontsize=8.5)
    ax.set_xlabel(f"{x}: {AXES.get(x, x)}", fontsize=9)
    ax.set_ylabel(f"{y}: {AXES.get(y, y)}", fontsize=9)
    units = ds[name].attrs.get("units", "")
    bar = figure.colorbar(image, ax=ax)
    bar.set_label(_wrapped(f"{ds[name].attrs.get('long_name', name)} [{units}]", 48), fontsize=8.5)
    ax.set_title(title, fontsize=10.5, loc="left")
    return figure


def _decades(positive: np.ndarray) -> np.ndarray:
    return np.geomspace(positive.min(), positive.max(), 8)[1:-1]


def draw(ds, experiment, title: str) -> dict[str, Any]:
    """name -> Figure: the experiment's own, or the curves of its measures."""
    if experiment.figure is not None:
        return experiment.figure(ds, experiment)
    return {"curves": curves(ds, experiment, title)}
