"""When a sampler stretches: how much synthetic data is safe, by a boundary that is found without knowing the law

Paper: beyond Bertrand et al. 2310.00429, whose boundary is a bound; law S1
Claim: A sampler that multiplies the spread by s makes the loop unstable from lam = 1/(s^2 - 1) on; an exact one never does.
Command: mcloop run beyond/boundary_spread
Minutes: tiny 0.4, small 0.5, paper 1
Expected: lam = 4.762 for s = 1.1, 1.449 for 1.3 and .333 for 2, each inside its interval; no boundary for s = 1
"""

from functools import partial

import numpy as np

from mcloop import correctors, exact, make_loop, regimes
from mcloop.certificates.boundary import boundary, growth
from mcloop.certificates.twins import growth_twins
from mcloop.experiment import Experiment, Size
from mcloop.laws import mean_square_safe_lam, spread_safe_lam

RANGE = (0.05, 50.0)  # of lam, for the search


def loop(lam, s, n=10**6):
    return make_loop(exact.gaussian(d=1, n=n), regimes.augment(lam), correctors.temperature(s**2))


def variance_gap(a, b):
    return abs(a.root[0, 0] ** 2 - b.root[0, 0] ** 2)


def make(lam, s, n=10**6):
    return growth_twins(loop(lam, s, n), variance_gap)


def law(g, lam, s):
    """What a change of the fitted variance is multiplied by a generation, lam s^2/(1 + lam)."""
    return {"log_growth": np.full(np.shape(g), np.log(lam * s**2 / (1 + lam)))}


def annotate(ds, options):
    """The boundary of every spread, found by the sequential test: it knows neither the law nor the sweep."""
    at, seed = partial(loop, n=options["n"]), ds.attrs["seed"]
    found = [boundary(at, "lam", RANGE, fixed={"s": float(s)}, seed=seed) for s in ds["s"].values]
    words = [f"s = {s:g}: {b.words}" for s, b in zip(ds["s"].values, found, strict=True)]
    places = {name: ("s", np.array([getattr(b, name) for b in found])) for name in ("value", "low", "high")}
    return ds.assign({f"boundary_{name}": x for name, x in places.items()}).assign_attrs(boundary=words)


def notes(ds, n):
    said = [f"Found by simulation alone: {text}" for text in np.atleast_1d(ds.attrs["boundary"])]
    for s, value, low, high in _found(ds):
        truth, mean = float(spread_safe_lam(s)), mean_square_safe_lam(n, s**2)
        inside = "inside" if low <= truth <= high else "OUTSIDE"
        off = f"{100 * (value / truth - 1):+.2g} % from it"
        said.append(
            f"s = {s:g}: the law's boundary 1/(s^2 - 1) is {truth:.4f}, {inside} the interval; what was found is {off}. It "
            f"is a typical seed's; the mean error over seeds is stable below {mean:.6g} (law S2, n = {n:g})."
        )
    return said


def _found(ds):
    columns = (ds[name].values for name in ("s", "boundary_value", "boundary_low", "boundary_high"))
    return [row for row in zip(*columns, strict=True) if np.isfinite(row[1])]


def figure(ds, experiment):
    from matplotlib.figure import Figure

    seen = growth(ds)
    drawn = Figure(figsize=(8.4, 4.2), layout="constrained")
    ax = drawn.subplots()
    styles = list(zip(("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7"), "os^Dv", strict=True))
    fine = np.geomspace(ds["lam"].values.min(), ds["lam"].values.max(), 200)
    for i, s in enumerate(ds["s"].values):
        colour, marker = styles[i % len(styles)]
        part = seen.sel(s=s)
        ax.plot(fine, fine * s**2 / (1 + fine), color=colour, linestyle="dashed", linewidth=1.1)
        edges = np.abs(np.stack([part["growth_low"], part["growth_high"]]) - part["growth"].values)
        style = {"color": colour, "marker": marker, "markersize": 5.5, "linestyle": "", "capsize": 2}
        ax.errorbar(ds["lam"].values, part["growth"].values, edges, label=f"s = {s:g}", **style)
    for i, (_, value, low, high) in enumerate(_found(ds)):
        ax.axvspan(low, high, color="0.45", linewidth=1.2, label=None if i else "boundary found, 95 %")
        ax.annotate(f"{value:.3g}", (value, 0), (2, 3), textcoords="offset points", fontsize=8)
    ax.axhline(1, color="0.4", linestyle=(0, (1, 2)), linewidth=1.3, label="growth 1: stable below")
    ax.plot([], [], color="0.3", linestyle="dashed", linewidth=1.1, label="theory: lam s^2/(1 + lam)")
    ax.set(
        xscale="log", ylim=(0, None), xlabel="lam: synthetic : real ratio", ylabel="growth of a small difference, a generation"
    )
    ax.grid(True, color="0.92", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("A sampler that multiplies the spread by s, fixed real data + lam synthetic", fontsize=10.5, loc="left")
    drawn.legend(loc="outside right upper", fontsize=8.5, frameon=False)
    drawn.set_label(
        "Marks: mean over seeds of a difference's growth, with 95 % intervals. Dashed: theory. Grey: boundaries found."
    )
    return {"boundary": drawn}


experiment = Experiment(
    make=make,
    grid={"s": [1.0, 1.1, 1.3, 2.0], "lam": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]},
    sizes={
        "tiny": Size(20, 20, {"s": [1.0, 1.3], "lam": [0.5, 1, 2]}),
        "small": Size(64, 60),
        "paper": Size(1000, 100, {"lam": [float(x) for x in np.geomspace(0.05, 50, 25)]}),
    },
    measure=("log_growth", "trace_ratio"),
    law=law,
    figure=figure,
    notes=notes,
    worse="",
    annotate=annotate,
)
