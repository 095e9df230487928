"""Any generator as a model of a loop: what happens to it when it is trained on its own output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mcloop import progress, random
from mcloop.checks import whole
from mcloop.errors import Diverged, InputError, OwnCodeError, own
from mcloop.memory.foreign import Foreign, Held
from mcloop.memory.forms import Form, called
from mcloop.memory.points import form_of
from mcloop.memory.shards import Shards, generator, shards, shards_memory
from mcloop.models.hosted import Origin
from mcloop.own.duck import Duck, duck
from mcloop.own.measures import measure_of
from mcloop.storage import partial_draws
from mcloop.storage.files import one_line
from mcloop.storage.identity import Memo
from mcloop.types import Hosted, Model

Measure = Callable[[Any, Any], Any]  # (real points, drawn points) -> a number, or a dict of numbers

LOOK = 20_000  # points at most that a generation is measured by
_AT_ONCE = 100_000  # points at most that are asked for in one call
_fold_in = jax.jit(random.fold_in)


def external(
    make: Callable[[], Any] | None,
    real: Any,
    measure: Measure | None = None,
    *,
    warm: bool = False,
    fit: Callable[[Any, Any], Any] | None = None,
    sample: Callable[[Any, int], Any] | None = None,
    save: Callable[[Any, Path], None] | None = None,
    load: Callable[[Path], Any] | None = None,
    samples: int | None = None,
    name: str | None = None,
) -> Model:
    """A model of a loop from a generator of your own: `external(lambda: GaussianMixture(5), x)`.

    Every generation makes a new object, fits it on that generation's training set and draws from it. Its methods are found
    under the names that the field uses: `fit` or `train`; `sample`, `generate`, `forge` or `generate_synthetic_data`, with the
    count by position or as num_rows, n_samples, n, count or size. What it draws may be a DataFrame, an array, (X, y), a list of
    strings, or an object with `.dataframe()` or `.data()`. Points are exchangeable: they come shuffled to `fit`, and what is
    drawn is shuffled too, since some generators give it in the order of their components.

    It is seeded by `set_random_state` or `random_state` where it has one of these, and always by the global seeds of NumPy, of
    Python, and of torch where that is loaded. A checkpoint holds what it was trained on, and never a pickle: a run that goes on
    fits it again, on the same points by the same seed.

    Args:
        make: () -> a new, unfitted object; None where `fit` returns one.
        real: a DataFrame, an array (n, ...), a pair (X, y) or a list of strings; at least two points.
        measure: (real points, drawn points) -> a number, or a dict of numbers; default those of `measures.measure_of`.
        warm: whether an object is kept from generation to generation and fitted further, which `save` and `load` let a run do
            that goes on.
        fit: (object, points) -> object, or None where it is changed in place; in place of a method.
        sample: (object, count) -> points; in place of a method.
        save, load: (object, folder) -> None, and (folder) -> object; both or neither. Without them an object that is not there
            any more is fitted again.
        samples: points that a generation is measured by; default as many as real ones, at most 20,000.
        name: as it appears in results; default the object's class.

    Raises:
        InputError: points of no known form, an object without the methods, one of save and load.
        OwnCodeError: (in fit, in sample, in measure) your code fails, or what it draws is not of the form of the real points.
        Diverged: (in sample) what is drawn is not finite, or lacks values that real points always have.
    """
    if (save is None) != (load is None):
        raise InputError(f"save and load must be given both or neither, and only {'load' if save is None else 'save'} was.")
    form, values, n = _read(real)
    samples = min(n, LOOK) if samples is None else whole("samples", samples, 1, 10**9)
    ways = duck(make, fit, sample, form.discrete)
    name, data = ways.name if name is None else name, shards(values, real=True)
    own_kind = _Kind(ways, form, save, load, warm, Memo())
    draw = partial(_draw, own_kind, max(samples, min(n, _AT_ONCE)), name, partial_draws.PartialDraws())

    def sample_(key, params, count) -> Shards:
        count = int(count)
        if isinstance(params, Origin):  # all that is known of the truth is the data
            return shards(data.take(generator(key).integers(0, n, count)))
        return Shards() if count == 0 else draw(key, params, count)

    def observe(key, given):
        if given is not None:
            raise InputError("real must be None for an external model: its real data was given when it was made.")
        return data, Origin(())

    how = "fitted further" if warm else "fitted anew"
    again = "" if ways.seeded else "; it has no seed of its own, so that the same run may not come again to the bit"
    return Model(
        name=name,
        n=np.float64(n),
        memory=shards_memory(),
        observe=observe,
        sample=sample_,
        fit=partial(_fit, own_kind),
        evaluate=partial(_look, measure_of(real, form.unit) if measure is None else measure, form, values, sample_, samples),
        estimator=f"{name}, {how} in every generation, {n:,} real {form.unit}s{again}",
        hosted=_hosted(own_kind, samples),
    )


def _read(real: Any) -> tuple[Form, dict[str, np.ndarray], int]:
    """Real points: their form, as shards keep them, and how many they are."""
    form = form_of(real)
    try:
        values = form.encode(real, "real")
    except Diverged as error:  # what a generator may come to is what nobody's data may be
        raise InputError(f"{error}.") from error
    n = len(next(iter(values.values())))
    if n < 2:
        raise InputError(f"real must have at least two {form.unit}s, not {n}.")
    return form, values, n


def _hosted(kind: _Kind, samples: int) -> Hosted:
    """What the drivers need to know: how a checkpoint is read, and what a user's functions are given."""
    return Hosted(
        lambda: Foreign(jax.ShapeDtypeStruct((5,), np.uint32), Held(Shards(), keep=kind.save)),
        samples=samples,
        shown=kind.form.decode,
        kept=partial(_encoded, kind.form, whose="what the corrector gives"),
    )


class _Kind(NamedTuple):
    """A kind of generator: its ways, the form of its points, how it is kept, and the last first fit that was made."""

    ways: Duck
    form: Form
    save: Callable[[Any, Path], None] | None
    load: Callable[[Path], Any] | None
    warm: bool
    made: Memo


def _fit(kind: _Kind, key, params, pool: Shards) -> tuple[Foreign, dict]:
    """`Model.fit`."""
    first = isinstance(params, Origin)
    start = _alive(kind, params) if kind.warm and not first else None
    ticket = _ticket(key, pool, None if start is None else params.ticket)
    model = _fitted(kind, start, ticket, pool)
    if first:
        kind.made.clear()  # loops of one replica share their first fit; it is the only one that is asked for again
        kind.made[ticket.tobytes()] = model
    return Foreign(ticket, Held(pool, model, kind.save, anew=start is None)), {}


def _look(measure, form: Form, values, sample, samples: int, key, params, truth) -> dict[str, np.float32]:
    """`Model.evaluate`."""
    drawn = sample(key, params, samples)
    with progress.stage("measure", 1):
        found = own(lambda: measure(form.decode(values), form.decode(_all(drawn))), "measure")
    return numbers(found, measure)


def _alive(kind: _Kind, params: Foreign) -> Any:
    """The object of these parameters: the one that was fitted, or loaded, or fitted again."""
    held, ticket = params.held, np.asarray(params.ticket)
    if held.model is not None:
        return held.model
    saved, load = held.saved, kind.load
    if saved is not None and load is not None:
        held.model = own(lambda: load(saved.folder), "load")
    elif not held.anew:
        raise InputError(
            f"A {kind.ways.name} that is fitted further and further cannot go on in another process: give save and load, or "
            "begin again (--no-resume)."
        )
    elif kind.warm or ticket.tobytes() not in kind.made:  # one that is kept is no longer what it was when it was new
        held.model = _fitted(kind, None, ticket, held.trained)
        kind.made.clear()
        kind.made[ticket.tobytes()] = held.model
    else:
        held.model = kind.made[ticket.tobytes()]
    return held.model


def _fitted(kind: _Kind, start: Any, ticket: np.ndarray, pool: Shards) -> Any:
    """A generator fitted on a body of data, in an order that the seed gives."""
    ways, form, rng = kind.ways, kind.form, np.random.default_rng(ticket)
    weights, chosen = pool.weights(), rng.permutation(len(pool))
    even = bool(np.all(weights == weights[0]))
    if not even and not ways.weighed:
        # as many copies as a point weighs; a part of one is a chance
        copies = np.floor(weights) + (rng.random(len(weights)) < weights - np.floor(weights))
        chosen = rng.permutation(np.repeat(np.arange(len(pool)), copies.astype(np.int64)))
    with progress.stage("fit", 1):
        points = form.decode(pool.take(chosen))
        model = ways.new() if start is None else start
        return ways.fit(model, points, int(ticket[0]), weights[chosen] if not even and ways.weighed else None)


def _draw(kind: _Kind, chunk: int, name: str, memory: partial_draws.PartialDraws, key, params: Foreign, count: int) -> Shards:
    """`count` points, `chunk` of them a call, of which a process that was killed keeps those that were there."""
    form, whose = kind.form, f"what {kind.ways.name} draws"
    kept = (partial_draws.current() or memory).open(partial_draws.digest(key, params.ticket, f"{chunk} {name}"))
    chunks = -(-count // chunk)
    with progress.stage("sample", count) as tell:
        for i in range(chunks):
            if not kept.has(i):
                rng = generator(_fold_in(key, i))
                values = _encoded(form, kind.ways.sample(_alive(kind, params), chunk, int(rng.integers(0, 2**31))), whose)
                if (got := len(next(iter(values.values())))) < chunk:
                    raise OwnCodeError(f"{whose} must be {chunk:,} {form.unit}s, as asked for, and is {got:,}.")
                # shuffled, for what is taken of it must be like the whole
                order = rng.permutation(got)[:chunk]
                kept.put(i, {k: x[order] for k, x in values.items()})
            tell(min(chunk * (i + 1), count))
    return shards(kept.gather(chunks), count)


def _encoded(form: Form, drawn: Any, whose: str) -> dict[str, np.ndarray]:
    try:
        return form.encode(drawn, whose)
    except InputError as error:
        raise OwnCodeError(str(error)) from error


def _all(body: Shards) -> dict[str, np.ndarray]:
    return body.take(np.arange(len(body)))


def _ticket(key, pool: Shards, previous: Any) -> np.ndarray:
    """uint32 (5,): a fit's seed, the same in every loop of a replica, and a digest of all that it follows from."""
    found = hashlib.sha256(b"" if previous is None else np.asarray(previous).tobytes())
    for part in pool.parts:
        found.update(f"{part.weight} {len(part)}".encode())
        for name, x in sorted(part.take(np.arange(len(part))).items()):
            found.update(f"{name} {x.shape} {x.dtype}".encode())
            found.update(np.ascontiguousarray(x))
    seed = generator(key).integers(0, 2**31, dtype=np.uint32)
    return np.concatenate([np.array([seed], np.uint32), np.frombuffer(found.digest()[:16], np.uint32)])


def numbers(seen: Any, measure: Callable) -> dict[str, np.float32]:
    """What a user's measure says, as numbers by name."""
    name = getattr(measure, "__name__", "measure")
    given = seen if isinstance(seen, Mapping) else {"measure" if name == "<lambda>" else name: seen}
    for k, x in given.items():
        if not isinstance(x, Real | np.number | np.bool_) and not (np.ndim(x) == 0 and hasattr(x, "dtype")):
            raise OwnCodeError(f"measure must give a number or a dict of numbers, and {one_line(str(k), 40)} is {called(x)}.")
    return {str(k): np.float32(x) for k, x in given.items()}
