"""What was seen, in words: which cell collapsed, at what rate, against which law or arm; the numbers behind the figures."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.report import theory
from mcloop.report.cells import Cell as Cell
from mcloop.report.cells import cells
from mcloop.report.limits import MISS, looked
from mcloop.report.paired import compare_baseline, compare_paired
from mcloop.report.profile import Score, measured, preamble, profile, table
from mcloop.report.sample_texts import shown as told
from mcloop.report.verdicts import verdict as verdict
from mcloop.results import AXES, INSIDE, measures, number, short, unplaced


class Story(NamedTuple):
    """A report before it is set in Markdown or HTML; sentences may hold `code` and **bold**.

    Attributes:
        data: on which data, and what is predicted of them; "" where the experiment makes its own.
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
    data: str
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
    unsound = "unsound" in ds.attrs  # networks that learned nothing: no words on what their loops do
    if not unsound and "arm" in ds[names[0]].dims and ds["arm"].dtype.kind in "OUS":
        alone = all(ds.sizes[d] == 1 for d in ds[names[0]].dims if d not in (*INSIDE, "arm"))
        others = names[1:] if alone else []
        # half of the false alarms that a report may have is the headline's
        own = MISS / 2 if others else MISS
        seen += [f"- {said}" for said in compare_paired(ds, names[0], rate=own)]
        rest = looked(MISS - own, len(others))
        seen += [f"- {said}" for name in others for said in compare_paired(ds, name, brief=True, rate=rest)]
    elif not unsound and experiment.neural:
        seen += [f"- {said}" for said in _from_real(ds, names)]
    if experiment.notes is not None:
        seen += [f"- {note}" for note in experiment.notes(ds)]
    # whether a loop's first model is worth reading comes before what the loop did to it
    seen = [unplaced(said.removeprefix("- ")) for said in [*_listed(ds.attrs.get("first_fit")), *seen]]
    rows = [[*map(short, c.where.values()), *(number(c.mean[n][-1], c.sem[n][-1]) for n in names)] for c in shown[:_ROWS]]
    scores = [] if unsound else profile(ds, experiment)
    return Story(
        title=caption.title.rstrip("."),
        data=unplaced(ds.attrs.get("data", "")),
        paper=caption.paper,
        claim=caption.claim,
        run=run,
        method=[unplaced(said) for said in _method(ds, names, experiment)] + _shared(shown, int(count)),
        seen=seen,
        remarks=[said for said in map(unplaced, _listed(ds.attrs.get("remarks"))) if said not in seen],
        head=[*shown[0].where, *names],
        rows=rows,
        lead=len(shown[0].where),
        more=max(0, len(shown) - _ROWS),
        axes={a: AXES[a] for a in shown[0].where if a in AXES},
        scores=scores,
        scored=_UNSOUND if unsound else preamble(ds, scores),
        # what a user brought is not quoted: of their stories only those that the model told
        stories=told(ds, real=settings.data is None),
    )


def _from_real(ds, names: list[str]) -> list[str]:
    """What synthetic data change: differences from real data only, of the headline in full and of other measures in brief."""
    said = compare_baseline(ds, names[0])
    if not said:
        return []
    brief = [s for name in names[1:] for s in compare_baseline(ds, name, brief=True, rate=looked(MISS, len(names) - 1))]
    sure = f"hold together in {100 * (1 - MISS):g} of 100 reports"
    also = f"; those of the other measures, of which only what is told from 0 is named, all {sure}" if brief else ""
    return [*said, *brief, f"The intervals of {names[0]} within one of these sentences {sure}{also}."]


_UNSOUND = (
    "No definition of collapse is judged here: the networks of generation 1 have learned next to nothing, so that whatever "
    "their loops do says nothing of a model that has learned."
)
_ROWS = 60  # of the table; the rest is in results.nc


def _method(ds, names, experiment) -> list[str]:
    """Estimator and figures, then what the Dataset and its variables say of how they were measured."""
    theory = "" if experiment.neural and experiment.law is None else "; dashed lines are theory"
    estimator = ds.attrs.get("estimator", "not stated")
    said = [f"Estimator: {estimator}. Figures: means over seeds with the 5-95 % band of seeds{theory}."]
    if experiment.law is not None and experiment.law.__doc__:
        first, _, _ = inspect.cleandoc(experiment.law.__doc__).partition("\n\n")  # the rest is for who calls it
        said.append(f"Theory: {' '.join(first.split())}")
    said += [f"Evaluation: {text.rstrip('.')}." for text in _listed(ds.attrs.get("evaluation"))]
    said += [f"{key.capitalize()}: {str(ds.attrs[key]).rstrip('.')}." for key in ("features", "split") if key in ds.attrs]
    for name in names:
        parts = [f"{words} {ds[name].attrs[key]}" for key, words in _STATED.items() if key in ds[name].attrs]
        said += [f"`{name}`: {'; '.join(parts)}."] if parts else []
    floors = [f"{name} {floor}" for name in names if (floor := _floor(ds[name])) is not None]
    return said + ([f"Real data themselves score: {', '.join(floors)}."] if floors else [])


def _floor(variable) -> str | None:
    """What real data score, where that is known, with the standard deviation of one such score where that is."""
    value, spread = variable.attrs.get("floor"), float(variable.attrs.get("floor_spread", np.nan))
    if value is None or not np.isfinite(value):
        return None
    return f"{value:.3g} +- {spread:.1g} (standard deviation)" if spread > 0 else f"{value:.3g}"


_STATED = {"estimator": "estimator", "features": "features", "sample_count": "samples", "split": "against"}


def _listed(value) -> list[str]:
    """The strings of an attribute: NetCDF gives a list of one string back as that string, and an empty one as an array."""
    return [] if value is None else [value] if isinstance(value, str) else [str(v) for v in value]


def write(ds, experiment, caption, settings, figures: list[str]) -> str:
    """The report of a run, in Markdown."""
    story = tell(ds, experiment, caption, settings)
    lines = [f"# {story.title}", ""]
    lines += [f"*Data:* {story.data}", ""] if story.data else []
    lines += [f"*Paper:* {story.paper}", "", f"*Claim:* {story.claim}", ""] if story.claim else []
    lines += [story.run, *story.method, "", "## What was seen", "", *[f"- {said}" for said in story.seen]]
    lines += ["", "## Collapse profile", "", story.scored]
    if measured(story.scores):
        head, rows = table(story.scores)
        lines += ["", _row(head), f"|{'---|' * len(head)}", *map(_row, rows)]
    lines += ["", "## Remarks", "", *[f"- {said}" for said in story.remarks]] if story.remarks else []
    for i, (where, texts) in enumerate(story.stories):
        lines += (["", "## Stories"] if i == 0 else []) + ["", f"*{where}*", "", *[f"> {text}\n" for text in texts]]
    lines += ["", "## Numbers at the last generation", ""]
    lines += [_row(story.head), f"|{'---|' * len(story.head)}", *map(_row, story.rows)]
    lines += ["", "; ".join(f"{k}: {v}" for k, v in story.axes.items()) + "."] if story.axes else []
    lines += ["", *[f"![{name}](plots/{name})" for name in figures], ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    """A row of a table, in which a bar or a new line of a user's name ends no cell."""
    return f"| {' | '.join(' '.join(cell.replace('|', '&#124;').split()) for cell in cells)} |"


def _sentences(shown, headline, experiment, floor=None, most: int = 24) -> list[str]:
    said = []
    against = theory.looks(shown)
    found = {(cell.label, name): look for cell, name, look in against}
    spoken = [c for c in shown[:most] if headline in c.mean and np.isfinite(c.mean[headline]).any()]
    miss = looked(MISS, len(spoken))
    for cell in spoken:
        beside = theory.beside(cell, headline, found.get((cell.label, headline)))
        said.append(f"- **{cell.label or 'the loop'}** {verdict(cell, headline, experiment.worse, miss)}{beside}.")
    if len(shown) > most:
        said.append(f"- ... and {len(shown) - most} more cells, in `results.nc`.")
    if said and floor is not None:
        said.append(f"- Real data themselves score {floor} ({headline}).")
    return said + [f"- {sentence}" for sentence in theory.agreement(against)]


def _shared(shown, count: int) -> list[str]:
    """What a reader of a grid must know once: its cells are not independent of each other."""
    if len(shown) < 2 or count < 2:
        return []
    return [
        f"The {len(shown)} cells share their {count} seeds: a seed is the same random numbers in every cell, so differences "
        f"between cells are sharp, and all cells together are {count} independent repetitions, not {len(shown)} times as many."
    ]
