"""One function a figure: units, legend, bands over seeds, theory dashed, legible in grey."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mcloop.report import pictures as picture
from mcloop.report.cells import Cell, cells
from mcloop.report.letters import as_text
from mcloop.results import AXES, INSIDE, measures, named, pictures

# dark to light in grey as well (Okabe & Ito's set, ordered by luminance), with a marker each
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_CROWD = 9  # curves, beyond which a panel is split by an axis
_PAGE, _BESIDE = 12.0, 1.9  # inches: a figure at most, and its legend
_LEGEND = 12  # entries, beyond which a legend names some
_FLOOR = "real data themselves"
_FLOORS = "real data, +- one sd"
_LOST = "not finite after this"


def curves(ds, experiment, title: str = "") -> Figure:
    """A panel a measure: mean over seeds, the 5-95 % band of seeds, theory dashed, what real data score dotted.

    With more than nine cells it is a row a measure and a panel for every value of one axis: the first axis of names (arms,
    regimes), or else the shortest one.

    Args:
        ds: results, with a `seed` or a `statistic` dimension.
        experiment: its `measure` names the panels, its `law` the dashed lines; a variable's attribute `floor` the dotted one,
            and `floor_spread`, the standard deviation of what single draws of real data score, the band around it.
    """
    shown = list(cells(ds, experiment))
    names = [name for name in experiment.measure if name in measures(ds)]
    names = [name for name in names if np.isfinite(ds[name].values).any()] or names[:1]
    still = [name for name in names[1:] if _constant(shown, name)]
    names = [name for name in names if name not in still]
    figure = _split_curves(ds, experiment, shown, names, title)
    if still:
        values = ", ".join(f"{name} ({shown[0].mean[name][0]:.4g})" for name in still)
        figure.set_label(f"{figure.get_label()} Not drawn, since the same in every cell and generation: {values}.")
    return figure


def _constant(shown: list[Cell], name: str) -> bool:
    """Whether there is nothing to see: one number in all cells and generations."""
    values = np.concatenate([cell.mean[name] for cell in shown if name in cell.mean])
    return bool(np.isfinite(values).all() and np.ptp(values) <= 1e-6 * np.abs(values).max())


def _split_curves(ds, experiment, shown: list[Cell], names: list[str], title: str) -> Figure:
    split = _split(ds[measures(ds)]) if len(shown) > _CROWD else None
    if split is None:
        return panels(ds, [(shown, name, "") for name in names], title)
    wanted = []
    for name in names:
        for value in ds[split].values:
            part = ds.sel({split: [value]})
            wanted.append((list(cells(part, experiment)), name, named(split, value)))
    figure = panels(ds, wanted, title, columns=ds.sizes[split])
    grid = np.reshape(figure.axes, (len(names), -1))
    for row in grid:
        _level(row)
        # a family that has no such measure has no panel of it
        drawn = [ax for ax in row if any(line.get_gid() not in (None, *_LINES) for line in ax.get_lines())] or list(row)
        for ax in row:
            ax.set_visible(ax in drawn)
            if ax is not drawn[0]:
                ax.set_ylabel("")
    for ax in grid[:-1].flat:
        ax.set_xlabel("")
    return figure


def _split(ds) -> str | None:
    """The axis whose values get a panel each, if that leaves curves to tell apart."""
    varied = [str(d) for d in ds.dims if d not in INSIDE and ds.sizes[d] > 1]
    short = [d for d in varied if ds.sizes[d] <= 5]
    if len(varied) < 2 or not short:
        return None
    return next((d for d in short if ds[d].dtype.kind in "OUS"), min(short, key=lambda d: ds.sizes[d]))


def _level(axes) -> None:
    """One vertical scale for panels of the same measure."""
    drawn = [ax for ax in axes if ax.get_lines()]
    log = any(ax.get_yscale() == "log" for ax in drawn)
    limits = [ax.get_ylim() for ax in drawn if not log or ax.get_ylim()[0] > 0]
    for ax in drawn if limits else ():
        ax.set_yscale("log" if log else "linear")
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def panels(ds, wanted: list[tuple[list[Cell], str, str]], title: str = "", columns: int | None = None) -> Figure:
    """Panels in rows, each (cells, variable, its title); cells of the same label look the same everywhere."""
    columns = columns or (2 if len(wanted) == 4 else min(3, len(wanted)))
    lines = -(-len(wanted) // columns)
    # no wider than a page shows at 96 dots to the inch, so that its type is read at the size it was set in
    wide = min(5.2, (_PAGE - _BESIDE) / columns)
    figure = Figure(figsize=(wide * columns + _BESIDE, max(0.77 * wide, 2.8) * lines + 0.4), layout="constrained")
    axes = np.ravel(figure.subplots(lines, columns))
    for ax in axes[len(wanted) :]:
        ax.remove()
    axes = axes[: len(wanted)]
    letters = int(44 * min(1.0, wide / 3.4))
    styles = _styles({cell.label: cell.where for shown, _, _ in wanted for cell in shown})
    for ax, (shown, name, heading) in zip(axes, wanted, strict=True):
        for cell in shown:
            if name in cell.mean and np.isfinite(cell.mean[name]).any():
                _curve(ax, cell, name, *styles[cell.label])
        _dress(ax, ds, name, letters)
        ax.set_title(_wrapped(heading, letters), fontsize=9.5, loc="left")
    known = {}
    for ax in axes:
        # not by get_legend_handles_labels, which leaves out what begins with "_"
        known |= {str(line.get_gid()): line for line in ax.get_lines() if line.get_gid() is not None}
    last = {label: known.pop(label) for label in ("theory", _FLOOR, _FLOORS, _LOST) if label in known}
    if len(known) > _LEGEND:
        every = list(known.items())
        known = dict(every[i] for i in np.linspace(0, len(every) - 1, _LEGEND).round().astype(int))
    known |= last
    if any(np.isfinite(c.sem[n]).any() for shown, n, _ in wanted for c in shown if n in c.sem):
        known["5-95 % of seeds"] = Patch(color="0.5", alpha=0.2, linewidth=0)
    figure.legend(known.values(), [_wrapped(k, 24) for k in known], loc="outside right upper", frameon=False, fontsize=9)
    figure.suptitle(_wrapped(title, 110), fontsize=11, x=0.01, ha="left")
    figure.set_label(("Means over seeds, with the 5-95 % band of seeds. " + "".join(_LINES[line] for line in last)).rstrip())
    return as_text(figure)


_LINES = {
    "theory": "Dashed: theory. ",
    _FLOOR: "Dotted: what real data score themselves. ",
    _FLOORS: "Dotted, in a band: what real data score themselves, +- the standard deviation of one such score. ",
    _LOST: "Cross: not finite after that. ",
}


def _styles(where: dict[str, dict[str, Any]]) -> dict[str, tuple[int, Any]]:
    """Label -> (place of the marker, colour): one hue each, or dark to light along a single axis of many numbers."""
    axes = list(dict.fromkeys(d for place in where.values() for d in place))
    values = {d: list(dict.fromkeys(place.get(d) for place in where.values())) for d in axes}
    # an axis of names may label the panel rather than the curve
    numbers = [d for d in axes if len(values[d]) > 5 and all(isinstance(v, (int, float)) for v in values[d])]
    single = len(numbers) == 1 and all(len(v) == 1 or d in numbers for d, v in values.items())
    if not single and len(where) <= len(_COLOURS):
        return {label: (i, _COLOURS[i]) for i, label in enumerate(where)}
    if not single:
        return {label: (i, colormaps["viridis"](0.9 * i / (len(where) - 1))) for i, label in enumerate(where)}
    ends = max(1, len(values[numbers[0]]) - 1)
    rank = {label: values[numbers[0]].index(place[numbers[0]]) for label, place in where.items()}
    return {label: (i, colormaps["viridis"](0.9 * i / ends)) for label, i in rank.items()}


def _curve(ax, cell: Cell, name: str, index: int, colour) -> None:
    seen = np.isfinite(cell.mean[name])  # a measure may be taken at some generations only
    g, mean = cell.g[seen], cell.mean[name][seen]
    marker = _MARKERS[index % len(_MARKERS)]
    # staggered, so that curves that lie on each other still show which they are
    every = max(1, len(g) // 7)
    start = (index * max(1, every // 4)) % every
    ax.fill_between(g, *(edge[seen] for edge in cell.band[name]), color=colour, alpha=0.09, linewidth=0)
    style = {"markevery": (start, every), "markersize": 5.5, "linewidth": 2.6, "alpha": 0.65, "markeredgewidth": 0}
    ax.plot(g, mean, color=colour, marker=marker, gid=cell.label, label=cell.label, **style)
    if not seen[-1]:
        ax.plot(g[-1:], mean[-1:], color=colour, marker="x", markersize=11, markeredgewidth=2.2, linestyle="", gid=_LOST)
    if name in cell.law:
        ax.plot(cell.g, cell.law[name], color="black", linestyle=(0, (4, 2.5)), linewidth=1.1, zorder=4, gid="theory")


def _dress(ax, ds, name: str, letters: int = 44) -> None:
    variable = ds[name]
    units = variable.attrs.get("units", "")
    words = variable.attrs.get("long_name", name)
    ax.set_ylabel(_wrapped(f"{words}{f' [{units}]' if units not in ('', '1') else ''}", letters), fontsize=9)
    ax.set_xlabel(AXES["generation"], fontsize=9)
    if (floor := variable.attrs.get("floor")) is not None and np.isfinite(floor):
        spread = float(variable.attrs.get("floor_spread", np.nan))
        words = _FLOORS if spread > 0 else _FLOOR
        ax.axhline(float(floor), color="0.35", linestyle=(0, (1, 2)), linewidth=1.2, zorder=1, gid=words, label=words)
        if spread > 0:
            ax.axhspan(floor - spread, floor + spread, color="0.35", alpha=0.15, linewidth=0, zorder=0.9, gid=_FLOORS)
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
        return
    low, high = float(values.min()), float(values.max())
    if 0 <= low < 0.5 * high:
        ax.set_ylim(0, 1.1 * high)
    elif low >= 0:  # 0 is far below: an axis from there would flatten what the curves do
        room = 0.12 * (high - low) or 0.1 * high or 1.0
        ax.set_ylim(max(0.0, low - room), high + room)


def _wrapped(text: str, width: int = 44) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or text


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
    plane = min(grid.shape) > 1  # a single row or column has no contours
    if plane:
        lines = ax.contour(xs, ys, grid, levels=6 if norm is None else _decades(positive), colors="white", linewidths=0.8)
        ax.clabel(lines, fontsize=7.5, fmt="%.2g")
    if contours is not None and plane:
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
    """name -> Figure: the experiment's own, or the curves of its measures; and a strip for every picture of the Dataset.

    A figure's label (`Figure.get_label`) is its caption, where it has one.
    """
    figures = {"curves": curves(ds, experiment, title)} if experiment.figure is None else experiment.figure(ds, experiment)
    strips = {name if name not in figures else f"{name}_strip": picture.strips(ds, name) for name in pictures(ds)}
    return {name: as_text(figure) for name, figure in {**figures, **strips}.items()}
