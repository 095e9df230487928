"""A loop that somebody else runs, watched from outside: batch after batch, whether its generator has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mcloop.checks import check_seed
from mcloop.errors import InputError, own
from mcloop.own import change
from mcloop.own.embed import Embedding, embedding, size_of, some
from mcloop.own.external import numbers
from mcloop.own.measures import measure_of
from mcloop.report.estimates import Interval

_TESTED = 1_000  # points of a batch at most that are tested
_LOOK = 20_000  # and from which its diversity is taken
_FEWEST = 20
_Z = 1.959964  # of an interval of 95 %


class Verdict(NamedTuple):
    """What a monitor says of one round.

    Attributes:
        round: 1 is the first batch, which later ones are compared with.
        measures: of the batch against the real points, by name.
        diversity: total variance over that of the first batch, and its interval of 95 %, for this round alone.
        distance: to the first batch, the maximum mean discrepancy, from 0 to sqrt 2.
        p: of this round's test that the batch has the law of the first one; 1 in round 1.
        level: that p is compared with; 0 where the round makes no test.
        alarm: whether this round's test, or one before it, has found a change.
        since: the round of the first alarm, or None.
        words: what moved, by how much, since when, and what to do.
    """

    round: int
    measures: dict[str, float]
    diversity: Interval
    distance: float
    p: float
    level: float
    alarm: bool
    since: int | None
    words: str


class _Seen(NamedTuple):
    """What is kept of a batch: (n, d) points to test, and moments of more of them."""

    points: np.ndarray
    count: int
    mean: np.ndarray
    variances: np.ndarray
    error: float  # of the total variance


class Monitor:
    """Watches the batches of any loop: `monitor = mcloop.Monitor(real)`, then `monitor.update(batch)` once a round.

    What is tested is that the generator's batches do not change from round to round. No generator is perfect, so that a
    batch differs from the real data even where nothing goes wrong; it is therefore compared with the FIRST batch, and the
    real data only fix the scale and are what the measures compare with. Should the first batch be bad already, the measures
    say so, and the test does not. The points of a batch must be independent draws, and not a training set that keeps some
    points from round to round.

    A round's p-value is exact at any number of points, and the levels of all rounds sum to `false_alarms`
    (`change.permutation_p`, `change.level`): while the batches are of one law, the chance of any alarm over any number of
    rounds is at most that. It holds by the union bound, since all rounds share the first batch. A loop that settles changes
    too, by what its refits scatter, and with batches much larger than its training sets that is found: an alarm says that
    the generator has changed, and the diversity with its interval whether it is collapsing.

    The same batches in the same order and the same seed give the same verdicts, in any process: to go on in another one,
    give it the batches again.

    Args:
        real: a DataFrame, an array (n, ...), a pair (X, y) or a list of strings; at least 20.
        false_alarms: the chance of any false alarm, 0.001 to 0.5.
        seed: of the points that are tested, where there are more than 1,000, and of the permutations.
        measure: (real points, batch) -> a number, or a dict of numbers; default those of `measures.measure_of`.

    Raises:
        InputError: real points of no known form, too few of them or all alike, a value that is not allowed.
    """

    def __init__(
        self,
        real: Any,
        *,
        false_alarms: float = 0.05,
        seed: int = 0,
        measure: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        if isinstance(false_alarms, bool) or not isinstance(false_alarms, int | float) or not 0.001 <= false_alarms <= 0.5:
            raise InputError(f"false_alarms must be a number from 0.001 to 0.5, not {false_alarms!r}.")
        if measure is not None and not callable(measure):
            raise InputError(f"measure must be a function of (real points, batch) or None, not {measure!r}.")
        self._seed, self._false_alarms = check_seed(seed), float(false_alarms)
        self._embedding: Embedding = embedding(real, self._seed)
        self._real = self._taken(real, "real")
        self._measure = measure_of(self._real, self._embedding.unit) if measure is None else measure
        found = change.kernel(self._embedding.encode(some(self._real, _TESTED, [self._seed]), "real"), self._seed)
        if found is None:
            raise InputError("real must hold points that differ, and all of them are alike.")
        self._kernel: change.Kernel = found
        self._first: _Seen | None = None
        self._since: int | None = None
        self.variances: list[tuple[float, float]] = []  # of every batch: total variance in the embedding, its standard error
        self._round = 0

    def update(self, batch: Any) -> Verdict:
        """The verdict on the next round's batch.

        Args:
            batch: points of the form of the real ones, at least 20, independent draws of the round's generator; any number.

        Raises:
            InputError: points of another form, too few of them, or numbers that are not finite; the round does not count.
            OwnCodeError: the measure fails.
        """
        batch = self._taken(batch, "batch")
        t = self._round + 1
        seen = self._looked(batch, t)
        found = own(lambda: self._measure(self._real, batch), "measure")
        measures = {name: float(x) for name, x in numbers(found, self._measure).items()}
        self._round = t
        self.variances.append((float(seen.variances.sum()), seen.error))
        if self._first is None:
            self._first = seen
            words = "Round 1 is the first batch, which all later ones are compared with."
            return Verdict(1, measures, Interval(1.0, 1.0, 1.0), 0.0, 1.0, 0.0, False, None, words)
        level = change.level(t, self._false_alarms)
        # once the alarm has sounded, p need not get below the levels of later rounds
        p = change.permutation_p(
            self._first.points, seen.points, self._kernel, 0.0 if self._since else level, [self._seed, 2, t]
        )
        if self._since is None and p <= level:
            self._since = t
        apart = change.distance(*(self._kernel.features(one.points) for one in (self._first, seen)))
        diversity = _ratio(self._first, seen)
        words = _words(t, diversity, apart, p, level, self._since, _moved(self._first, seen, self._embedding.names))
        return Verdict(t, measures, diversity, apart, p, level, self._since is not None, self._since, words)

    def _taken(self, points: Any, whose: str) -> Any:
        found = self._embedding.take(points, whose)
        if (n := size_of(found)) < _FEWEST:
            raise InputError(f"{whose} must have at least {_FEWEST} {self._embedding.unit}s, not {n}.")
        return found

    def _looked(self, batch: Any, t: int) -> _Seen:
        x = self._embedding.encode(some(batch, _LOOK, [self._seed, 1, t]), "batch")
        mean = x.mean(0)
        squares = ((x - mean) ** 2).sum(1)
        return _Seen(x[:_TESTED], len(x), mean, x.var(0), float(squares.std() / np.sqrt(len(x))))


def _ratio(first: _Seen, seen: _Seen) -> Interval:
    """Total variance over the first one's, by the delta method on the logarithm: both are means of n independent squares."""
    a, b = first.variances.sum(), seen.variances.sum()
    if not a > 0 or not b > 0:
        value = 1.0 if not a > 0 and not b > 0 else 0.0 if a > 0 else float("inf")
        return Interval(value, value, value)
    error = np.hypot(first.error / a, seen.error / b)
    return Interval(float(b / a), float(b / a * np.exp(-_Z * error)), float(b / a * np.exp(_Z * error)))


def _moved(first: _Seen, seen: _Seen, names: tuple[str, ...]) -> str:
    """Which column, or coordinate, has moved most beyond chance, and how; "" where coordinates have no names."""
    if not names:
        return ""
    groups: Mapping[str, list[int]] = {name: [j for j, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}
    errors = first.variances / first.count + seen.variances / seen.count
    shift = (seen.mean - first.mean) ** 2
    best, said = -1.0, ""
    for name, places in groups.items():
        a, b = first.variances[places].sum(), seen.variances[places].sum()
        # of a normal coordinate the logarithm of the variance has the variance 2 / n
        narrower = abs(np.log(max(b, 1e-12) / max(a, 1e-12))) / np.sqrt(2 / first.count + 2 / seen.count) if a + b > 0 else 0.0
        further = np.sqrt(shift[places].sum() / max(errors[places].sum(), 1e-300)) if shift[places].any() else 0.0
        if max(narrower, further) > best:
            how = f"whose variance is {b / a:.3g} of what it was" if narrower > further and a > 0 else "whose mean has moved"
            if how == "whose mean has moved" and len(places) == 1 and a > 0:
                how += f" by {np.sqrt(shift[places[0]] / a):.2g} standard deviations"
            elif how == "whose mean has moved" and len(places) > 1:
                how = "whose shares have moved"
            best, said = max(narrower, further), f", most of all in {name}, {how}"
    return said


def _words(t: int, diversity: Interval, apart: float, p: float, level: float, since: int | None, moved: str) -> str:
    value, low, high = diversity
    of = f"{value:.3g} of the first batch's ({low:.3g} to {high:.3g})"
    if since is None:
        test = f"alarm at {level:.2g}" if level else "no test in this round, whose level a later one has"
        return f"Round {t} is not told from the first batch (p = {p:.2g}; {test}): diversity is {of}."
    cure = "keep the real rows in every training set, or add new ones"
    if high < 1:
        what = f"has lost diversity, which is {of}, a fall of {1 - value:.0%} ({1 - high:.0%} to {1 - low:.0%})"
    elif low > 1:
        what, cure = f"has spread, and diversity is {of}", f"look at the measures, and {cure}"
    else:
        what, cure = f"has moved by {apart:.2g}, and diversity is {of}", f"look at the measures, and {cure}"
    return f"Since round {since} at the latest the generator is not what it was: it {what}{moved}. To do: {cure}."
