"""What was seen, in words: which cell collapsed, at what rate, against which law or arm; the numbers behind the figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.report.cells import HEAVY, Cell, cells
from mcloop.report.paired import compare_paired
from mcloop.report.profile import Score, preamble, profile, table
from mcloop.report.sample_texts import shown as told
from mcloop.report.scores import LOGS
from mcloop.results import AXES, INSIDE, measures, number, short


def z_score(cell: Cell, name: str) -> float:
    """The largest |z| of mean against law over a few generations, signed; NaN without a law or an error.

    Generations at which the seeds are too heavy-tailed for a mean to be tested are left out.
    """
    if name not in cell.law:
        return float("nan")
    places = np.unique(np.linspace(0, len(cell.g) - 1, 11).astype(int)[1:])
    places = places[(cell.tail[name][places] < HEAVY) | (np.abs(cell.mean[name][places]) < cell.sem[name][places])]
    gap, sem = (cell.mean[name] - cell.law[name])[places], cell.sem[name][places]
    z = gap[sem > 0] / sem[sem > 0]
    return float(z[np.abs(z).argmax()]) if z.size else float("nan")


def verdict(cell: Cell, name: str, worse: str) -> str:
    """A sentence on where a curve went."""
    y = cell.mean[name]
    known = np.flatnonzero(np.isfinite(y))
    if np.isnan(y[-1]):
        since = cell.g[known[-1] + 1] if known.size else cell.g[0]
        return f"diverged: {name} is not finite from generation {since} on"
    if not np.isfinite(y[-1]):
        return f"{name} is {y[-1]} at the end"
    first, last = y[known[0]], y[-1]
    half = y[len(y) // 2]
    # a rate a generation over the second half, where the start no longer shows
    span = len(y) - 1 - len(y) // 2
    rate = (last / half) ** (1 / span) - 1 if span and half > 0 and last > 0 else float("nan")
    logs = worse == "up" and name in LOGS  # nats: what grows by a factor is their exponential
    if logs:
        rate = float(np.expm1((last - half) / span)) if span else float("nan")
    moved = f"{name} went from {first:.3g} to {last:.3g} in {len(y)} generations"
    if abs(first) < 1e-6 * abs(last):
        return f"grew: {moved}"
    if worse == "up":
        noise = _noise(cell, name)
        if abs(last - first) < noise:
            return f"held within its noise: {moved}, a change of {last - first:+.2g} where +-{noise:.2g} is chance"
        if min(first, last) <= 0 and not logs:  # an unbiased estimate of a small distance: no ratio makes sense
            return f"{'got worse' if last > first else 'improved'}: {moved}"
        ratio = float(np.exp(last - first)) if logs else last / first
        if noise > 0 and 0.75 < ratio < 1.33 and not 0.98 < ratio < 1.02:
            return f"is a little {'worse' if ratio > 1 else 'better'}: {moved}, where +-{noise:.2g} is chance"
        rate = rate if np.isnan(noise) or abs(last - half) > noise else float("nan")
    ratio = float(np.exp(last - first)) if logs else last / first
    if worse == "log":
        slope = (last - half) / span if span else float("nan")
        state = "collapsed" if last < np.log(0.1) else "is collapsing" if slope < -1e-3 else "held"
        return f"{state}: {moved}, {slope:+.3g} a generation over the second half"
    if worse == "down":
        falling = "is collapsing" if ratio < 0.5 and rate < -1e-3 else "is falling" if rate < -2e-3 else _settled(1 / ratio)
        state = "collapsed" if ratio < 0.1 else falling
    else:
        rising = "is getting worse" if ratio > (1.33 if logs else 1.5) and rate > 2e-3 else _settled(ratio)
        state = "diverged" if ratio > 10 else rising
    if state in _AT_REST or not np.isfinite(rate):
        return f"{state}: {moved}"
    of = f" in exp({name})" if logs else ""
    return f"{state}: {moved}, {100 * rate:+.2g} % a generation{of} over the second half"


def _noise(cell: Cell, name: str) -> float:
    """How far two generations of a mean differ by chance, at 95 %: by the seeds, or by the scatter of a single curve.

    The seeds' errors are taken as independent between generations, which is too wide where a seed's luck lasts.
    """
    from scipy.stats import t

    seen = np.isfinite(cell.mean[name])
    y, sem = cell.mean[name][seen], cell.sem[name][seen]
    if np.isfinite(sem[[0, -1]]).all():
        return float(t.ppf(0.975, 2 * max(cell.seeds - 1, 1)) * np.hypot(sem[0], sem[-1]))
    steps = np.diff(y)
    if len(steps) < 3:
        return float("nan")
    return float(t.ppf(0.975, len(steps) - 1) * steps.std(ddof=1))


_AT_REST = ("held", "settled, worse", "improved")


def _settled(factor: float) -> str:
    """What to call a curve that no longer moves, by the factor by which it got worse."""
    return "held" if 0.75 < factor < 1.33 else "settled, worse" if factor > 1 else "improved"


class Story(NamedTuple):
    """A report before it is set in Markdown or HTML; sentences may hold `code` and **bold**.

    Attributes:
        run: what was run, and how large.
        method: how it was measured: estimators, counts, features, the split of the data.
        seen: what was seen, a sentence each.
        remarks: what the run has to say about itself, beyond what was seen.
        head, rows: the numbers at the last generation, "mean +- standard error", a row a cell; `lead` columns are coordinates.
        more: cells beyond the rows.
        axes: axis -> what it is.
        scores: the run by each definition of collapse; `scored` says how.
        stories: (where, texts) of sample stories, for loops of language models.
    """

    title: str
    paper: str
    claim: str
    run: str
    method: list[str]
    seen: list[str]
    remarks: list[str]
    head: list[str]
    rows: list[list[str]]
    lead: int
    more: int
    axes: dict[str, str]
    scores: list[Score]
    scored: str
    stories: list[tuple[str, list[str]]]


def tell(ds, experiment, caption, settings) -> Story:
    """The report of a run, as pieces."""
    names = [n for n in experiment.measure if n in measures(ds)]
    if not names:
        asked, known = ", ".join(experiment.measure), ", ".join(measures(ds))
        raise InputError(f"measure must name something that was measured, not {asked}; there is {known or 'nothing'}.")
    shown = list(cells(ds, experiment))
    count = ds.sizes.get("seed") or ds.attrs.get("sample_count", settings.seeds)
    run = (
        f"`mcloop run {settings.name} --size {settings.size}`: {len(shown)} cells x {count} seeds x "
        f"{settings.generations} generations (generation 1 is the fit on real data), seed {settings.seed}."
    )
    seen = _sentences(shown, names[0], experiment, _floor(ds[names[0]])) if experiment.worse else []
    if "arm" in ds[names[0]].dims and ds["arm"].dtype.kind in "OUS":
        seen += [f"- {said}" for said in compare_paired(ds, names[0])]
        alone = all(ds.sizes[d] == 1 for d in ds[names[0]].dims if d not in (*INSIDE, "arm"))
        seen += [f"- {said}" for name in names[1:] if alone for said in compare_paired(ds, name, brief=True)]
    if experiment.notes is not None:
        seen += [f"- {note}" for note in experiment.notes(ds)]
    seen = [said.removeprefix("- ") for said in seen]
    rows = [[*map(short, c.where.values()), *(number(c.mean[n][-1], c.sem[n][-1]) for n in names)] for c in shown[:_ROWS]]
    scores = profile(ds, experiment)
    return Story(
        title=caption.title.rstrip("."),
        paper=caption.paper,
        claim=caption.claim,
        run=run,
        method=_method(ds, names, experiment),
        seen=seen,
        remarks=[said for said in _listed(ds.attrs.get("remarks")) if said not in seen],
        head=[*shown[0].where, *names],
        rows=rows,
        lead=len(shown[0].where),
        more=max(0, len(shown) - _ROWS),
        axes={a: AXES[a] for a in shown[0].where if a in AXES},
        scores=scores,
        scored=preamble(ds, scores),
        stories=told(ds),
    )


_ROWS = 60  # of the table; the rest is in results.nc


def _method(ds, names, experiment) -> list[str]:
    """Estimator and figures, then what the Dataset and its variables say of how they were measured."""
    theory = "" if experiment.neural and experiment.law is None else "; dashed lines are theory"
    estimator = ds.attrs.get("estimator", "not stated")
    said = [f"Estimator: {estimator}. Figures: means over seeds with the 5-95 % band of seeds{theory}."]
    if experiment.law is not None and experiment.law.__doc__:
        said.append(f"Theory: {' '.join(experiment.law.__doc__.split())}")
    said += [f"Evaluation: {text.rstrip('.')}." for text in _listed(ds.attrs.get("evaluation"))]
    said += [f"{key.capitalize()}: {str(ds.attrs[key]).rstrip('.')}." for key in ("features", "split") if key in ds.attrs]
    for name in names:
        parts = [f"{words} {ds[name].attrs[key]}" for key, words in _STATED.items() if key in ds[name].attrs]
        said += [f"`{name}`: {'; '.join(parts)}."] if parts else []
    floors = [f"{name} {floor:.3g}" for name in names if (floor := _floor(ds[name])) is not None]
    return said + ([f"Real data themselves score: {', '.join(floors)}."] if floors else [])


def _floor(variable) -> float | None:
    """What real data score, where that is known."""
    value = variable.attrs.get("floor")
    return None if value is None or not np.isfinite(value) else float(value)


_STATED = {"estimator": "estimator", "features": "features", "sample_count": "samples", "split": "against"}


def _listed(value) -> list[str]:
    """The strings of an attribute: NetCDF gives a list of one string back as that string, and an empty one as an array."""
    return [] if value is None else [value] if isinstance(value, str) else [str(v) for v in value]


def write(ds, experiment, caption, settings, figures: list[str]) -> str:
    """The report of a run, in Markdown."""
    story = tell(ds, experiment, caption, settings)
    lines = [f"# {story.title}", ""]
    lines += [f"*Paper:* {story.paper}", "", f"*Claim:* {story.claim}", ""] if story.claim else []
    lines += [story.run, *story.method, "", "## What was seen", "", *[f"- {said}" for said in story.seen]]
    lines += ["", "## Collapse profile", "", story.scored]
    if story.scores:
        head, rows = table(story.scores)
        lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *[f"| {' | '.join(row)} |" for row in rows]]
    lines += ["", "## Remarks", "", *[f"- {said}" for said in story.remarks]] if story.remarks else []
    for i, (where, texts) in enumerate(story.stories):
        lines += (["", "## Stories"] if i == 0 else []) + ["", f"*{where}*", "", *[f"> {text}\n" for text in texts]]
    lines += ["", "## Numbers at the last generation", ""]
    lines += [f"| {' | '.join(story.head)} |", f"|{'---|' * len(story.head)}"]
    lines += [f"| {' | '.join(row)} |" for row in story.rows]
    lines += ["", "; ".join(f"{k}: {v}" for k, v in story.axes.items()) + "."] if story.axes else []
    lines += ["", *[f"![{name}](plots/{name})" for name in figures], ""]
    return "\n".join(lines)


def _sentences(shown, headline, experiment, floor=None, most: int = 24) -> list[str]:
    said = []
    for cell in shown[:most]:
        if headline not in cell.mean or not np.isfinite(cell.mean[headline]).any():
            continue
        z = z_score(cell, headline)
        against = ""
        if headline in cell.law:
            heavy = not cell.tail[headline][-1] < HEAVY and cell.mean[headline][-1] > 0
            tested = f"worst z {z:+.1f}{' over the generations that can be tested' if heavy else ''}"
            against = f" (theory: {cell.law[headline][-1]:.3g}, {tested if np.isfinite(z) else 'too few seeds to test'})"
        said.append(f"- **{cell.label or 'the loop'}** {verdict(cell, headline, experiment.worse)}{against}.")
    if len(shown) > most:
        said.append(f"- ... and {len(shown) - most} more cells, in `results.nc`.")
    if said and floor is not None:
        said.append(f"- Real data themselves score {floor:.3g} ({headline}).")
    tested = [z_score(c, n) for c in shown for n in c.law if n in c.mean]
    tested = [z for z in tested if np.isfinite(z)]
    if tested:
        worst = max(tested, key=abs)
        # the largest of many z-scores: five places on each of so many curves
        limit = 3.0 + 0.5 * np.log10(len(tested))
        agree = "agree with" if abs(worst) < limit else "DISAGREE with"
        said.append(f"- The simulated means {agree} theory: the largest |z| of {len(tested)} curves is {abs(worst):.1f}.")
    return said
