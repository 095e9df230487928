"""The collapse profile: one run scored by each of the literature's definitions of model collapse, with intervals over seeds.

Schaeffer et al. 2503.03150 count eight definitions, which may disagree about one and the same loop. Thresholds are ours
wherever a definition names none; every score says its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcloop.report.cells import coordinates
from mcloop.report.limits import MISS, looked
from mcloop.report.scores import (
    CATASTROPHE,
    DIVERSITY,
    FAKES,
    KEPT,
    MARGIN,
    MODES,
    RISKS,
    SPREADS,
    TAILS,
    Entry,
    Place,
    diversity,
    growth,
    place,
    references,
    risk,
    scaling,
    share,
    variance,
)
from mcloop.results import DISTANCES, measures, named

MOST = 8  # columns
_SPEAKING = {*RISKS, *SPREADS, *TAILS, *MODES, *FAKES, *DIVERSITY}  # measures that some definition speaks of


class Score(NamedTuple):
    """One definition of collapse: where it is from, what it was measured by, what counts as collapse, an Entry a cell."""

    definition: str
    source: str
    measure: str
    threshold: str
    entries: list[Entry]


def profile(ds, experiment) -> list[Score]:
    """The scores of a run, a definition each, over at most eight cells.

    "Real data only" is the arm called "baseline", or lam = 0, at the last generation, where the run has one; otherwise, and
    for that arm itself, generation 1, which is the fit on real data. Ratios and differences are of means over seeds and
    paired: the covariance between the two is that of the seeds. A variance is that of a typical seed, the geometric mean of the
    seeds' ratios, since the mean of an unbiased one stays where it is while every seed's goes to 0. A distance is squared where
    it stands for a risk. Of more than eight cells, those are shown in which the risk (or the headline) is lowest and highest.

    All intervals of a profile hold together: each misses at the rate `MISS` over their number. A wrong "yes" or "no" is
    meant for at most 2 % of reports. Measured (benchmarks/false_alarms.py), a wrong "yes" for three arms whose risk is that of
    real data only: 1.4 % of 2,000 reports where seeds are 5 squares of normal numbers (95 % interval 0.93 to 2.02 %), 0.5 % of
    1,000 for 5 log-normal ones (below 1.16 %), 0.1 % for 50 (below 0.56 %). Wrong "no"s were not simulated.
    """
    names = list(dict.fromkeys([*(n for n in RISKS if n in experiment.measure), *RISKS]))
    if not _SPEAKING.intersection(measures(ds)):  # a run of something else altogether, such as the gap of two loops
        return []
    shown = _extremes([place(ds, where, label) for where, label in coordinates(ds)], names, experiment.measure[0])
    asked = [score(cell).verdict for _, _, _, _, score in _definitions(ds, names) for cell in shown]
    miss = looked(MISS, sum(verdict != "not measured" for verdict in asked))
    scores = []
    for definition, source, threshold, needed, score in _definitions(ds, names):
        entries = [score(cell._replace(miss=miss))._replace(label=cell.label) for cell in shown]
        scores.append(Score(definition, source, _by([e.measure for e in entries], needed), threshold, entries))
    return scores


def _extremes(cells: list[Place], names, headline: str) -> list[Place]:
    """At most eight cells, in their order: those of the lowest and the highest risk over that of real data only."""
    if len(cells) <= MOST:
        return cells
    keys = []
    for cell in cells:
        first = cell.curve(headline)
        keys.append((risk(cell, names, 1.0).value, np.nan if first is None else first.mean[-1]))
    by = 0 if np.isfinite([k[0] for k in keys]).any() else 1
    ranked = sorted((i for i in range(len(cells)) if not np.isnan(keys[i][by])), key=lambda i: keys[i][by])
    ends = ranked if len(ranked) <= MOST else [*ranked[: MOST // 2], *ranked[-MOST // 2 :]]
    others = [i for i in range(len(cells)) if i not in ranked]
    spare = np.linspace(0, len(others) - 1, min(MOST - len(ends), len(others))).round().astype(int)
    return [cells[i] for i in sorted([*ends, *(others[i] for i in spare)])]


def _definitions(ds, names):
    """(definition, source, collapsed if, measures that could tell, cell -> Entry), a line each."""
    return (
        (
            "catastrophic risk",
            "2503.03150; 2402.07712",
            f"risk (mean over seeds) more than {CATASTROPHE:g} times that of real data only",
            RISKS,
            lambda cell: risk(cell, names, CATASTROPHE),
        ),
        (
            "any more risk",
            "2503.03150",
            "risk (mean over seeds) above that of real data only",
            RISKS,
            lambda cell: risk(cell, names, 1.0),
        ),
        (
            "diverging risk",
            "2404.01413",
            "risk grows without bound: like g^p with p >= 0 (0 is log g), told from a bounded p <= -1/2; the value is p",
            RISKS,
            lambda cell: growth(cell, names, 0),
        ),
        (
            "linear growth of the risk",
            "2402.07712",
            "risk grows at least linearly: p > 1/2; the value is the rise a generation, in risks of real data only",
            RISKS,
            lambda cell: growth(cell, names, 1),
        ),
        (
            "variance to zero",
            "2310.00429; 2305.17493",
            f"a typical seed's variance (geometric mean) below {KEPT:g} of generation 1's, or its log falls for ever; the "
            "value is the share kept",
            SPREADS,
            variance,
        ),
        (
            "changed scaling law",
            "2402.07043",
            f"risk falls like n^-a, and a has changed by more than {KEPT:g} since generation 1; the value is the change",
            ("a risk at several n (an axis n)",),
            lambda cell: scaling(ds, cell, names),
        ),
        (
            "tails lost",
            "2305.17493",
            f"rare items (or real data's neighbourhoods) lost: {MARGIN:g} more than with real data only",
            tuple(TAILS),
            lambda cell: share(cell, TAILS),
        ),
        (
            "modes lost",
            "2305.17493",
            f"modes lost, or their frequencies off, by {MARGIN:g} more than with real data only",
            tuple(MODES),
            lambda cell: share(cell, MODES),
        ),
        (
            "hallucinated data",
            "2503.03150; 2406.09358",
            f"share of the samples that lie off the data up by {MARGIN:g} from real data only",
            tuple(FAKES),
            lambda cell: share(cell, FAKES),
        ),
        (
            "diversity lost",
            "2307.01850; 2311.09807",
            f"diversity below {1 - MARGIN:g} of that of real data only; the value is the ratio",
            DIVERSITY,
            diversity,
        ),
    )


def _by(used: list[str], needed) -> str:
    found = [f"{name} squared" if name in DISTANCES else name for name in dict.fromkeys(used) if name]
    return ", ".join(found) if found else f"{', '.join(needed[:-1])}{' or ' * (len(needed) > 1)}{needed[-1]}"


def measured(scores: list[Score]) -> list[Score]:
    """The definitions that at least one cell has an answer to: the rows of the table."""
    return [s for s in scores if any(e.verdict != "not measured" for e in s.entries)]


def preamble(ds, scores: list[Score]) -> str:
    """What a reader must know before the table: what is compared with what, over how many seeds, and which cells are shown."""
    if not scores:
        return "This run measured nothing that a definition of model collapse speaks of: no risk, variance, mode or rare item."
    seeds = ds.sizes.get("seed") or int(ds.attrs.get("sample_count", 0))
    real = "".join(f'the cell "{named(d, v)}" at the same generation (for that cell itself: ' for d, v in references(ds))
    pairs = "paired within seeds" if "seed" in ds.dims else "unpaired, as only statistics over seeds were kept"
    over = (
        f"Intervals are over {seeds} seeds, {pairs}, by Student's t and what skewness adds to it; all of them hold together in "
        f"{100 * (1 - MISS):g} of 100 reports."
    )
    said = [
        "Model collapse has several definitions (2503.03150 counts eight), and a loop may meet some and not others.",
        "A score is a value, its interval, and whether the condition for collapse holds at the last generation;",
        "where a definition names no threshold, it is ours.",
        over if seeds > 1 else "With one seed there is no interval.",
        f"Real data only is {real}generation 1{')' if real else ', the fit on real data'}.",
    ]
    silent = [s for s in scores if s not in measured(scores)]
    if silent:
        said.append(f"Not measured here: {'; '.join(_missing(s) for s in silent)}.")
    total, count = len(coordinates(ds)), len(scores[0].entries)
    if count < total:
        said.append(f"Of {total} cells, {count} are shown, among them those of the lowest and of the highest risk.")
    if ds.sizes["generation"] > 3:
        said.append("Growth is judged from these generations alone: a bound that is reached more slowly looks like none.")
    if "unit_error" in ds:
        said.append(
            "Where a loop starts from a table that is its own truth, what the table itself is off by is added to its risk."
        )
    return " ".join(said)


def _missing(score: Score) -> str:
    """A definition that has no row, and what it lacks."""
    words = next((e.words for e in score.entries if e.words), "")
    return f"{score.definition} ({words or f'needs {score.measure}'})"


def table(scores: list[Score]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the scores that were measured as text: definition, condition, measure, a column a cell, source."""
    rows = [[s.definition, s.threshold, s.measure, *map(_said, s.entries), s.source] for s in measured(scores)]
    return ["definition", "collapsed if", "measured by", *(e.label for e in scores[0].entries), "arXiv"], rows


def _said(entry: Entry) -> str:
    """ "value (low to high): verdict, words"."""
    value, low, high = entry[2:5]
    words = f"{entry.verdict}, {entry.words}" if entry.words else entry.verdict
    if np.isfinite(value):
        short = _rounded(high - low, value)
        return f"{short(value)} ({short(low)} to {short(high)}): {words}" if not np.isnan(low) else f"{short(value)}: {words}"
    # a power of growth too low, or too high, to tell by how much
    end = high if np.isfinite(high) else low
    return f"{'below' if np.isfinite(high) else 'above'} {end:.2g}: {words}" if np.isfinite(end) else words


def _rounded(width: float, value: float):
    """A function that writes numbers to two digits of the width of their interval."""
    if not (np.isfinite(width) and 0 < width < 1e12 and abs(value) < 1e4):
        return lambda x: (
            "no bound" if 1e12 < x < np.inf else f"{x:.3g}" if np.isfinite(x) else "below -4" if x < 0 else "above 8"
        )  # the range of estimates.power
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 6))
    return lambda x: f"{round(x, digits) + 0.0:.{digits}f}"
