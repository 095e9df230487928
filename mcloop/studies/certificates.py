"""Certificates against loops: where twins start, what theory says of their gap, and the figure that holds both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mcloop import random, regimes
from mcloop.certificates.fixed_point import settling
from mcloop.certificates.papers_bound import papers_bound
from mcloop.certificates.spectrum import dense_spectrum
from mcloop.certificates.stability import Problem, corrected, equal, jacobian, matrices_at
from mcloop.certificates.twins import along, gap_twins
from mcloop.checks import known
from mcloop.errors import InputError
from mcloop.loop import make_loop
from mcloop.models.optimum import Reference
from mcloop.report.cells import cells
from mcloop.types import Corrector, Loop, Model


def population(
    start: Any, reference: Reference, risk, draw, source: Any, points: int, *, likelihood: bool = False, seed: int = 1
) -> Problem:
    """The certificate's problem of a `optimum_model` family, with so many points in place of expectations."""
    unravel = ravel_pytree(start)[1]
    k_data, k_draw, k_risk = (random.fold_in(random.as_key(jax.random.key(seed)), i) for i in range(3))
    one = jnp.ones(1)
    return Problem(
        reference.params,
        lambda theta, body: risk(k_risk, unravel(theta), body.x, body.weight),
        equal(source.sample(k_data, points)),
        lambda theta: equal(draw(k_draw, unravel(theta), points)),
        likelihood,
        (lambda theta, x: risk(k_risk, unravel(theta), x[None], one)) if likelihood else None,
    )


class Row(NamedTuple):
    """The certificate of one problem at one lam.

    Attributes:
        theta: (P,) the fixed point.
        direction, dual: (P,) right and left eigenvectors of the leading eigenvalue, dual . direction = 1.
        jacobian: (P, P).
        rate: spectral radius.
        papers: the papers' bound on it, infinite where it guarantees nothing, NaN where it was not estimated.
    """

    theta: np.ndarray
    direction: np.ndarray
    dual: np.ndarray
    jacobian: np.ndarray
    rate: float
    papers: float


class Table:
    """The certificate of one problem at every lam that is asked for, each computed once."""

    def __init__(self, problem: Problem, gamma: float = 0.0, damping: float = 0.0) -> None:
        flat, unravel = ravel_pytree(problem.params)
        posed, divided = (problem, gamma) if problem.exact else (corrected(problem, gamma), 0.0)
        self._whole = matrices_at(posed)
        self._settle = None if problem.exact else settling(posed)
        self._problem, self._flat, self._unravel = problem, flat, unravel
        self._gamma, self._divided, self._damping = gamma, divided, damping
        self.rows: dict[float, Row] = {}

    def at(self, lam: float) -> Row:
        """The row of this very lam.

        Raises:
            InputError: lam that is not finite and positive, a Hessian that is not positive definite, no fixed point.
        """
        lam = float(np.float32(lam))  # as a compiled loop sees it
        if not 0 < lam < np.inf:
            raise InputError(f"lam must be a finite number > 0 to be certified, not {lam:g}.")
        if lam not in self.rows:
            with jax.ensure_compile_time_eval():
                self.rows[lam] = self._row(lam)
        return self.rows[lam]

    def _row(self, lam: float) -> Row:
        # a fixed point is followed from the nearest one below
        below = max((x for x in self.rows if x < lam), default=None)
        start = self._flat if below is None else jnp.asarray(self.rows[below].theta)
        theta = self._flat if self._settle is None else self._settle(start, lam)
        m = self._whole(theta)
        found = dense_spectrum(m, self._problem.exact, lam, self._divided, self._damping, 1)
        j = jacobian(m, lam, self._divided, self._damping)
        papers = np.nan
        if self._problem.pointwise is not None:
            here = self._problem._replace(params=self._unravel(theta))
            papers = papers_bound(here, lam, self._gamma, found.least).rate
        return Row(np.asarray(theta), *_leading(j), j, float(np.abs(found.rates[0])), papers)

    def place(self, lam: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Fixed point, direction and dual at a lam that may be traced; its known values were asked for before tracing."""
        if (given := known(lam)) is not None:
            row = self.at(float(given))
            theta, direction, dual = (jnp.asarray(x, jnp.float32) for x in (row.theta, row.direction, row.dual))
            return theta, direction, dual
        near = jnp.argmin(jnp.abs(jnp.asarray(list(self.rows), jnp.float32) - lam))

        def nearest(name: str) -> jax.Array:
            return jnp.stack([jnp.asarray(getattr(row, name), jnp.float32) for row in self.rows.values()])[near]

        return nearest("theta"), nearest("direction"), nearest("dual")


def tabulate(problem: Problem, lams: Sequence[float], gamma: float = 0.0, damping: float = 0.0) -> Table:
    """The certificate at every lam of a grid; matrices are compiled once, and a lam that is asked for later is added.

    Raises:
        InputError: a Hessian that is not positive definite, or a lam without a fixed point.
    """
    table = Table(problem, gamma, damping)
    for lam in lams:
        table.at(lam)
    return table


def _leading(j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right and left eigenvectors of the leading eigenvalue, real; of a complex pair the real part, for which J^g is kept."""
    values, right = np.linalg.eig(j)
    direction = np.real(right[:, np.abs(values).argmax()])
    direction /= np.linalg.norm(direction)
    values, left = np.linalg.eig(j.T)
    dual = np.real(left[:, np.abs(values).argmax()])
    return direction, dual / (dual @ direction)


def loop(model: Model, table: Table, lam: Any, step: float, corrector: Corrector | None = None) -> Loop:
    """Twins about the fixed point of this lam, `step` to both sides along the least stable direction.

    Measures `gap`, theta+ - theta- along the dual over twice the step: 1 at generation 1.
    """
    assert model.forms.objective is not None
    theta, direction, dual = table.place(lam)
    sides = along(direction, dual, step, model.forms.objective.free, model.forms.objective.params, theta)
    return gap_twins(make_loop(model, regimes.augment(lam), corrector), *sides)


def law(table: Table, g, lam: float) -> dict[str, np.ndarray]:
    """The gap of the population's loop, dual . J^(g - 1) direction."""
    row, path = table.at(lam), []
    state = row.direction
    for _ in range(int(np.max(g))):
        path.append(row.dual @ state)
        state = row.jacobian @ state
    return {"gap": np.asarray(path)[np.asarray(g) - 1]}


def annotate(ds, table: Table):
    """The dataset with the certificate beside what was measured."""
    rows = [table.at(lam) for lam in ds["lam"].values]
    words = "certified rate of the least stable direction"
    ds["predicted_rate"] = ("lam", np.array([row.rate for row in rows]), {"long_name": words})
    ds["papers_rate"] = ("lam", np.array([row.papers for row in rows]), {"long_name": "the papers' bound on the rate"})
    return ds


class Measured(NamedTuple):
    """A contraction a generation, seen over several: (mean gap at g)^(1/(g - 1)), its error, and the same of theory."""

    lam: float
    rate: float
    error: float
    predicted: float
    generation: int


def measured(ds, experiment) -> list[Measured]:
    """The contraction of every cell over as many generations as its gap is still a hundred times its standard error."""
    found = []
    for cell in cells(ds, experiment):
        mean, sem, path = cell.mean["gap"], cell.sem["gap"], cell.law["gap"]
        clear = np.flatnonzero((np.abs(mean) > 100 * sem) & (mean > 0) & (path > 0))
        last = int(clear[-1]) if len(clear) > 1 else 1
        power = 1 / last
        rate = float(np.maximum(mean[last], 0) ** power)
        error = float(power * rate * sem[last] / mean[last]) if mean[last] > 0 else float("nan")
        found.append(Measured(float(cell.where["lam"]), rate, error, float(path[last] ** power), last + 1))
    return found


def notes(ds, experiment) -> list[str]:
    """Sentences for the report: how far prediction and measurement are apart, and what the papers' bound says."""
    rows = measured(ds, experiment)
    worst = max(rows, key=lambda r: abs(r.rate / r.predicted - 1))
    seeds = ds.sizes.get("seed") or ds.attrs.get("sample_count")
    said = [
        f"Certified and measured contraction of {seeds} pairs of loops a cell differ by at most "
        f"{100 * abs(worst.rate / worst.predicted - 1):.2g} % (lam {worst.lam:g}: {worst.predicted:.4f} certified, "
        f"{worst.rate:.4f} +- {worst.error:.1g} measured, over generations 1 to {worst.generation}), in the first step "
        f"alone by at most {100 * max(abs(c.mean['gap'][1] / c.law['gap'][1] - 1) for c in cells(ds, experiment)):.2g} %."
    ]
    papers = ds["papers_rate"].values
    if np.isfinite(papers).any() or np.isinf(papers).any():
        silent = [f"{lam:g}" for lam, rate in zip(ds["lam"].values, papers, strict=True) if not rate < 1]
        stable = [r for r in rows if r.rate < 1]
        held = f"{len(stable)} of {len(rows)} loops are in fact stable"
        said.append(
            f"The papers' bound guarantees nothing at lam {', '.join(silent)}; {held}."
            if silent
            else "The papers' bound guarantees stability at every lam here."
        )
    return said


def figure(ds, experiment, title: str = "") -> dict[str, Any]:
    """Left: the gap by generation, certificate dashed. Right: the rate against lam, certified, measured, and bounded."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator

    rows = measured(ds, experiment)
    drawn = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for i, cell in enumerate(cells(ds, experiment)):
        colour = colormaps["viridis"](0.85 * i / max(1, ds.sizes["lam"] - 1))
        left.errorbar(
            cell.g,
            cell.mean["gap"],
            2 * cell.sem["gap"],
            color=colour,
            marker="o",
            ms=4,
            lw=1.6,
            label=f"lam {cell.where['lam']:g}",
        )
        left.plot(cell.g, cell.law["gap"], color="black", ls=(0, (4, 2.5)), lw=1.1, zorder=4)
    left.plot([], [], color="black", ls=(0, (4, 2.5)), lw=1.1, label="certificate")
    left.set_yscale("log")
    left.set_xlabel("fits so far", fontsize=9)
    left.set_ylabel("gap between twins, mean over pairs of loops\n[of the first one]", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    lam = [r.lam for r in rows]
    right.plot(lam, ds["predicted_rate"], color="black", ls=(0, (4, 2.5)), lw=1.4, label="certificate")
    right.errorbar(
        lam, [r.rate for r in rows], [2 * r.error for r in rows], color="#0072B2", marker="o", ms=6, ls="", label="measured"
    )
    dense = np.geomspace(min(lam), max(lam), 50)
    right.plot(dense, dense / (1 + dense), color="0.6", lw=1.2, label="lam/(1 + lam): exact sampler, well specified")
    papers = ds["papers_rate"].values
    top = max(1.25, 1.1 * max(r.rate for r in rows))
    if not np.all(np.isnan(papers)):
        below = papers < top
        right.plot(np.asarray(lam)[below], papers[below], color="#D55E00", marker="s", ms=5, lw=1.4, label="the papers' bound")
        for x in np.asarray(lam)[~below]:
            right.annotate("", (x, top), (x, 0.93 * top), arrowprops={"arrowstyle": "->", "color": "#D55E00"})
        right.plot([], [], color="#D55E00", marker=r"$\uparrow$", ls="", ms=9, label="the papers' bound: above, no guarantee")
    right.axhline(1, color="0.5", lw=0.9, ls=":", label="boundary of stability")
    right.set_xscale("log")
    right.set_xticks(lam, [f"{x:g}" for x in lam])
    right.xaxis.set_minor_locator(NullLocator())
    right.set_ylim(0, top)
    right.set_xlabel("lam: synthetic : real ratio", fontsize=9)
    right.set_ylabel("factor a generation of a small perturbation", fontsize=9)
    right.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.grid(True, color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.suptitle(title, fontsize=11, x=0.01, ha="left")
    drawn.set_label(
        "Gap between twin loops under common random numbers, and its rate. Bars: two standard errors. Dashed: the certificate."
    )
    return {"certificate": drawn}
