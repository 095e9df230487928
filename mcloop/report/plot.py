"""One measure of a Dataset by generation, for a notebook: drawn into a figure of its own or into given axes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from mcloop.errors import InputError
from mcloop.results import measures

Law = Callable[..., Any]


def plot(ds, measure: str | None = None, *, law: Law | None = None, ax: Any = None, title: str = ""):
    """The mean over seeds of a measure by generation, a curve a cell of the grid, with the 5-95 % band of seeds.

    Args:
        ds: what `sweep` or `train` returned.
        measure: name of a variable; default the first one.
        law: what is expected, drawn dashed: (g, an argument for every axis that it names) -> the measure at each g, or
            {measure: values}. A law of `mcloop.laws` takes its parameters: `lambda g, n: LAWS["G1"].value(g, n=n)`.
        ax: matplotlib axes to draw into; default a new figure.
        title: above the axes.

    Returns:
        The matplotlib Figure that was drawn into.

    Raises:
        InputError: no such measure; a law that does not take the axes.
    """
    from mcloop.report.cells import cells
    from mcloop.report.plots import panels

    known = measures(ds) if hasattr(ds, "data_vars") else None
    if not known:
        raise InputError(f"ds must be a Dataset that sweep or train returned, not {type(ds).__name__}.")
    name = known[0] if measure is None else measure
    if name not in known:
        raise InputError(f"measure must be one of {', '.join(known)}, not {name!r}.")

    def expected(g, **cell):
        import inspect

        taken = inspect.signature(law).parameters if law is not None else {}
        some = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        found = law(g, **{k: v for k, v in cell.items() if some or k in taken}) if law is not None else {}
        return found if isinstance(found, dict) else {name: np.asarray(found)}

    shown = list(cells(ds, SimpleNamespace(law=None if law is None else expected)))
    if ax is None:
        return panels(ds, [(shown, name, "")], title)
    for cell in shown:
        (line,) = ax.plot(cell.g, cell.mean[name], label=cell.label or None)
        low, high = cell.band[name]
        ax.fill_between(cell.g, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if name in cell.law:
            ax.plot(cell.g, cell.law[name], color=line.get_color(), linestyle="dashed", linewidth=1.1)
    words, units = ds[name].attrs.get("long_name", name), ds[name].attrs.get("units", "")
    ax.set(xlabel="generation", ylabel=words if units in ("", "1") else f"{words} ({units})")
    if title:
        ax.set_title(title, loc="left")
    if len(shown) > 1:
        ax.legend(frameon=False)
    return ax.figure
