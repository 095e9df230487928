"""Strips of samples: a row a cell, a column a generation, the real data first; sheets of images and histograms of points.

A strip is set pixel by pixel, so that every pixel of a sample is a square of whole pixels in the figure.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mcloop.report.cells import coordinates

_DPI = 200
_WIDTH = 2000  # pixels, of all panels together, about
_TALL = 2400  # pixels, of all panels together, at most
_MOST_ROWS, _MOST_GENERATIONS = 9, 6
_FEW_ROWS = 4  # up to which a sheet has 20 images and not 10
_LETTER, _LINE = 15.5, 34  # pixels, of 10 point type at this resolution
_INK, _FAINT = "0.15", "0.45"


class _Strip(NamedTuple):
    """What is drawn: rows of panels (height, width, 3), None where there is nothing finite; the first may be real data."""

    labels: list[str]
    heads: list[str]
    rows: list[list[np.ndarray | None]]
    real: bool
    caption: str


def strips(ds, name: str) -> Figure:
    """The figure of a picture variable, by its attribute `picture`; its label (`Figure.get_label`) is the caption."""
    return density_strips(ds, name) if ds[name].attrs["picture"] == "density" else image_strips(ds, name)


def image_strips(ds, name: str) -> Figure:
    """Sheets of sample images.

    The images are taken in the order of the variable, in rows of 5 (classes that cycle from 0 to 9 then lie below each other):
    20 of them, or 10 where there are many cells. Images of one channel with black corners (digits) are drawn as ink on paper.

    Args:
        ds: results in which `name` has the dimensions (*grid, generation, image, y, x[, channel]), uint8 or float in [0, 255],
            and `real_NAME`, if it is there, (image, y, x[, channel]), with or without axes of the grid.
    """
    variable = ds[name]
    found = _chosen(ds, name)
    real = _real(ds, name)
    paper = (real if real is not None else variable.isel(generation=0)).transpose(..., "y", "x").values
    corners = paper[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    dark = "channel" not in variable.dims and bool(np.median(corners) < 32)
    most = 20 if len(found[0]) <= _FEW_ROWS else 10
    order = ["image", "y", "x", *(["channel"] if "channel" in variable.dims else [])]

    def panel(part) -> np.ndarray | None:
        images = part.transpose(*order).values
        return _sheet(images[:most], dark) if _drawn(images) else None

    strip = _panels(ds, name, found, panel, "Sample images" + (", dark where a pixel is bright" if dark else ""))
    return _draw(strip, _title(variable, "Samples"), frame=True)


def density_strips(ds, name: str) -> Figure:
    """Histograms of samples in the plane, on one colour scale.

    The scale ends at the highest density of the real data (or, without it, of the first generation): what is higher has the
    colour of its end, and the colour bar then ends in an arrow. It is a square root, so that tails are seen.

    Args:
        ds: results in which `name` has the dimensions (*grid, generation, y, x), y upwards, and the attribute `box`
            (x0, x1, y0, y1); `real_NAME`, if it is there, (y, x), with or without axes of the grid.
    """
    variable = ds[name]
    found = _chosen(ds, name)
    real = _real(ds, name)
    reference = (real if real is not None else variable.isel(generation=0)).values
    top = float(np.nanmax(reference)) if np.isfinite(reference).any() else 1.0
    shown = variable.values[np.isfinite(variable.values)]
    colours, norm = colormaps["cividis"], PowerNorm(0.5, 0.0, top or 1.0, clip=True)

    def panel(part) -> np.ndarray | None:
        values = part.transpose("y", "x").values[::-1]
        return _rgb(colours(norm(values))) if _drawn(values) else None

    strip = _panels(ds, name, found, panel, "Density of the samples, colours on a square-root scale")
    bar = _Bar(colours, norm, bool(shown.size and shown.max() > 1.001 * top), variable.attrs.get("units") or "density")
    return _draw(strip, _title(variable, "Density of the samples"), box=variable.attrs.get("box"), bar=bar)


def _title(variable, words: str) -> str:
    known = variable.attrs.get("long_name", "")
    return words if known in ("", variable.name) else known


def _drawn(values: np.ndarray) -> bool:
    """Whether there is anything to see: a loop that diverged leaves NaNs, or nothing at all."""
    return bool(values.size and np.isfinite(values).all() and values.any())


def _real(ds, name: str):
    companion = f"real_{name}"
    return ds[companion] if companion in ds and ds[companion].size else None


def _chosen(ds, name: str) -> tuple[list[tuple[dict[str, Any], str]], list[int], int]:
    """The cells and the generations to show, evenly chosen along every axis; and how many cells there are."""
    variable = ds[name]
    inner = ("generation", "image", "y", "x", "channel")
    kept = {str(d): variable[d].values for d in variable.dims if d not in inner}
    count = int(np.prod([len(v) for v in kept.values()]))
    while np.prod([len(v) for v in kept.values()]) > _MOST_ROWS:
        # numbers are thinned before names, which are arms to be compared; what is left keeps both ends
        longest = max(kept, key=lambda d: (len(kept[d]) > 2 and kept[d].dtype.kind not in "OUS", len(kept[d])))
        every = variable[longest].values
        kept[longest] = every[_evenly(len(every), len(kept[longest]) - 1)]
    rows, seen = [], set()
    for where, label in coordinates(ds):
        own = {d: v for d, v in where.items() if d in kept}
        # a picture may lack an axis along which it does not change
        if all(v in kept[d] for d, v in own.items()) and (at := tuple(own.values())) not in seen:
            seen.add(at)
            rows.append((own, label))
    return rows, _evenly(variable.sizes["generation"], _MOST_GENERATIONS), count


def _evenly(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def _panels(ds, name: str, found, panel, words: str) -> _Strip:
    cells, generations, count = found
    variable, real = ds[name], _real(ds, name)
    g = [int(variable["generation"].values[i]) for i in generations]
    rows = []
    for where, _ in cells:
        row = [panel(variable.sel(where).isel(generation=i)) for i in generations]
        if real is not None:
            row.insert(0, panel(real.sel({d: v for d, v in where.items() if d in real.dims})))
        rows.append(row)
    heads = [*(["real data"] if real is not None else []), f"generation {g[0]}", *map(str, g[1:])]
    said = [f"{words}: a row a cell of the grid, a column a generation"]
    said += ["the first column is real data"] if real is not None else []
    said += [f"{len(cells)} of {count} cells, evenly chosen"] if len(cells) < count else []
    caption = f"{'; '.join([*said, 'seed 0'])}."
    caption += " Grey: no finite samples." if any(p is None for row in rows for p in row) else ""
    return _Strip([label for _, label in cells], heads, rows, real is not None, caption)


def _sheet(images: np.ndarray, dark: bool) -> np.ndarray:
    """(rows x height, columns x width, 3) from (image, y, x[, channel]), with a hair between the images."""
    columns = 5 if len(images) >= 10 else int(np.ceil(len(images) ** 0.5))
    lines = -(-len(images) // columns)
    grey = np.clip(images.astype(np.float32), 0, 255) / 255
    grey = grey if grey.ndim == 4 else np.repeat((1 - grey if dark else grey)[..., None], 3, -1)
    grey = np.concatenate([grey, np.ones((lines * columns - len(images), *grey.shape[1:]), np.float32)])
    grey = np.pad(grey, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
    _, h, w, depth = grey.shape
    return _rgb(grey.reshape(lines, columns, h, w, depth).swapaxes(1, 2).reshape(lines * h, columns * w, depth))


def _rgb(colour: np.ndarray) -> np.ndarray:
    return np.round(255 * colour[..., :3]).astype(np.uint8)


class _Bar(NamedTuple):
    """A colour bar: `over` if there are values beyond its end."""

    colours: Colormap
    norm: PowerNorm
    over: bool
    units: str


def _draw(strip: _Strip, title: str, frame: bool = False, box=None, bar: _Bar | None = None) -> Figure:
    """Set the panels on a page: all lengths are pixels, y downwards."""
    size = next((p.shape[:2] for row in strip.rows for p in row if p is not None), (100, 100))
    count, lines = len(strip.heads), len(strip.rows)
    scale = max(1, min(round(_WIDTH / (max(count, 6) * size[1])), _TALL // (lines * size[0])))
    h, w = size[0] * scale, size[1] * scale
    labels = [textwrap.wrap(label, 20, break_on_hyphens=False) or [""] for label in strip.labels]
    ticks = 0 if box is None else 60
    left = 30 + ticks + int(_LETTER * max((len(line) for label in labels for line in label), default=0))
    gap = max(8, w // 40)
    lefts = [left + c * (w + gap) + (gap if c and strip.real else 0) for c in range(count)]
    tops = [126 + r * (h + gap) for r in range(lines)]
    width = lefts[-1] + w + (190 if bar else 30)
    height = tops[-1] + h + (30 if box is None else 70)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    page = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    page.set_axis_off()
    page.set(xlim=(0, width), ylim=(height, 0))
    sheet = np.full((height, width, 3), 255, np.uint8)
    for row, top in zip(strip.rows, tops, strict=True):
        for panel, x in zip(row, lefts, strict=True):
            if panel is None:
                sheet[top : top + h, x : x + w] = 235
                page.text(x + w / 2, top + h / 2, "no samples", color=_FAINT, fontsize=9, ha="center", va="center")
            else:
                big = panel.repeat(scale, 0).repeat(scale, 1)[:h, :w]
                sheet[top : top + big.shape[0], x : x + big.shape[1]] = big
            if frame:
                page.add_patch(Rectangle((x - 1, top - 1), w + 2, h + 2, fill=False, color="0.8", linewidth=0.5))
    page.imshow(sheet, extent=(0, width, height, 0), interpolation="nearest", aspect="auto", zorder=0)
    page.text(24, 34, title, fontsize=11, va="center", color=_INK)
    for head, x in zip(strip.heads, lefts, strict=True):
        page.text(x + w / 2, 110, head, fontsize=10, ha="center", va="bottom", color=_INK)
    for label, top in zip(labels, tops, strict=True):
        page.text(left - 14 - ticks, top + h / 2, "\n".join(label), fontsize=10, ha="right", va="center", color=_INK)
    if box is not None:
        _corners(page, [float(v) for v in np.ravel(box)], lefts[0], tops[-1], w, h)
    if bar is not None:
        tall = min(h, 300)
        _colour_bar(figure, bar, ((width - 150) / width, 1 - (tops[0] + tall) / height, 22 / width, tall / height))
    figure.set_label(strip.caption)
    return figure


def _colour_bar(figure: Figure, bar: _Bar, place: tuple[float, float, float, float]) -> None:
    ax = figure.add_axes(place)
    drawn = figure.colorbar(ScalarMappable(bar.norm, bar.colours), cax=ax, extend="max" if bar.over else "neither")
    drawn.outline.set_visible(False)
    top = bar.norm.vmax or 1.0
    ticks = [0.0, *(float(f"{top * part:.1g}") for part in (0.1, 0.4)), top]
    drawn.set_ticks(ticks, labels=[f"{v:.2g}" for v in ticks])
    ax.tick_params(labelsize=8, length=2, colors=_INK)
    ax.set_ylabel(bar.units.replace("^2", "\u00b2"), fontsize=8.5, color=_INK)


def _corners(page, box: list[float], x: int, y: int, w: int, h: int) -> None:
    """The ends of both axes, at one panel: all panels show the same box."""
    style = {"fontsize": 8, "color": _FAINT}
    page.text(x, y + h + 10, f"{box[0]:g}", ha="left", va="top", **style)
    page.text(x + w, y + h + 10, f"{box[1]:g}", ha="right", va="top", **style)
    page.text(x - 8, y + h, f"{box[2]:g}", ha="right", va="bottom", **style)
    page.text(x - 8, y, f"{box[3]:g}", ha="right", va="top", **style)
