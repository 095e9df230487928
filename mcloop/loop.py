"""One generation of a self-consuming loop, composed from its parts: sample -> correct -> pool -> fit, then measure."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcloop import correctors, random
from mcloop.checks import known, not_forked
from mcloop.memory.rows import Rows, bootstrap
from mcloop.regimes import check_room
from mcloop.types import Corrector, InputError, Loop, Model, Params, Regime, State, Supply

# one stream a use of a generation's randomness
_SAMPLE, _FRESH, _VIEW, _FIT, _OBSERVE, _USES = range(6)


def make_loop(model: Model, regime: Regime, corrector: Corrector | None = None) -> Loop:
    """A loop from a family, what it remembers, and what is done to its samples.

    Args:
        model: for example `exact.gaussian(d=2, n=50)`.
        regime: for example `regimes.augment(lam=0.5)`.
        corrector: for example `correctors.mixture(gamma=1.0)`; None corrects nothing. A plain function
            (key, batch, params) -> batch is taken for a pointwise corrector.

    Returns:
        A Loop. `init(key, real, generations=None)`: `real` is what the model can observe (an array (n, d), a known truth,
        or None for the model's own standard truth); `generations` is needed by regimes that keep every row; `first` are the
        parameters of generation 1, where another loop of the same model, key and data has fitted them already.
        `generation(key, state)` takes the same key every time: generation t uses `fold_in(key, t)`.
    """
    not_forked()
    if corrector is None:
        corrector = correctors.none()
    elif not isinstance(corrector, Corrector):
        corrector = correctors.pointwise(corrector)
    _check_parts(model, regime, corrector)
    model = _whole_draws(model, regime, corrector)

    def stream(key, t, use):
        return random.fold_in(key, t * _USES + use)

    if model.hosted is not None:  # what is compiled is called from Python too, and costs milliseconds operation by operation
        stream = jax.jit(stream)

    def begin(key, real=None, generations: int | None = None, first: Params = None) -> tuple[State, dict]:
        key = random.as_key(key)
        check_room(model, regime, generations)
        data, truth = model.observe(stream(key, 1, _OBSERVE), real)
        params, seen = model.fit(stream(key, 1, _FIT), truth, data) if first is None else (first, {})
        pool = regime.init(model.memory, data, model.memory.capacity, generations)
        state = State(jnp.int32(1), params, pool, data, truth, _kept(key, model, regime, real, data))
        return (state if model.hosted is not None else jax.tree.map(jnp.asarray, state)), seen

    def init(key, real=None, generations: int | None = None, first: Params = None) -> State:
        return begin(key, real, generations, first)[0]

    def generation(key, state: State):
        key, t = random.as_key(key), state.t + 1
        wanted = regime.draw(model.n, t)
        synthetic = corrector.sample(stream(key, t, _SAMPLE), model, state.params, state.truth, wanted.synthetic)
        fresh = _as_real(_fresh(stream(key, t, _FRESH), model, state, wanted.fresh))
        supply = Supply(state.real, fresh, synthetic)
        pool = regime.update(model.memory, state.pool, supply, t)
        data = regime.view(stream(key, t, _VIEW), model.memory, pool, supply, model.n, t)
        params, seen = model.fit(stream(key, t, _FIT), state.params, data)
        if corrector.refine is not None:
            real_params, _ = model.fit(stream(key, t, _FIT), state.params, state.real)
            params = corrector.refine(model, params, real_params)
        # materialised, or XLA would compute the fit again for every metric that reads it
        params = lax.optimization_barrier(params)
        state = state._replace(t=t, params=params, pool=pool)
        return state, {**measure(key, state), **seen, "effective_lam": _ratio(model, data)}

    def measure(key, state: State) -> dict:
        seen = dict(model.measure(state.params, state.truth))
        if model.evaluate is not None:
            # a model is judged by the points that it will hand on, before any correction: a hosted one draws them once
            seen |= model.evaluate(stream(random.as_key(key), state.t + 1, _SAMPLE), state.params, state.truth)
        return {**seen, "effective_lam": 0.0 * _ratio(model, state.real)}

    batched = model.batched and corrector.batched
    own = random.by_own_rules
    return Loop(own(init), own(generation), own(measure), model, regime, corrector, batched, begin=own(begin))


def _kept(key, model: Model, regime: Regime, real, data):
    """What new real points are drawn from: rows of the user's data; () for a known truth, or where none are asked for."""
    wanted = known(regime.draw(model.n, 2).fresh)
    if real is None or hasattr(real, "_fields") or (wanted is not None and not np.any(wanted)):
        return ()
    if model.keep is not None:
        return model.keep(key, real)
    if isinstance(data, Rows) or model.hosted is not None:
        return data if isinstance(data, Rows) else ()
    raise InputError(
        f"regime '{regime.name}' draws new real points, and {model.name} keeps only a summary of the data that it is given: "
        "use literal=True, or another regime."
    )


def _fresh(key, model: Model, state: State, count):
    """New real points: of the known truth, or the user's own drawn again with replacement."""
    drawn = None if model.fresh is None else model.fresh(key, state.kept, state.truth, count)
    if drawn is not None:
        return drawn
    return bootstrap(key, state.kept, count) if isinstance(state.kept, Rows) else model.sample(key, state.truth, count)


def _broken(copies) -> bool:
    """Whether a number of copies is nowhere near a whole one."""
    return bool(np.any(np.abs(copies - np.round(copies)) > 1e-5))


def _whole_draws(model: Model, regime: Regime, corrector: Corrector) -> Model:
    """The model, or its looser one where draws may be a part of a design; InputError where they are, and there is none."""
    if model.unit is None:
        return model
    n = known(model.unit)
    wanted = [] if n is None else [known(x) for t in range(2, 12) for x in regime.draw(n, t)]
    unknown = not wanted or any(x is None for x in wanted)
    parts = [] if n is None or unknown else [x for x in wanted if x is not None and _broken(x / n)]
    if not parts and not corrector.splits:
        return model if model.loose is None or not unknown else model.loose
    draw = f"regime '{regime.name}' draws {np.max(parts[0]):g}" if parts else f"corrector '{corrector.name}' draws a part"
    rows = "" if n is None else f" of {np.max(n):g} rows"
    if model.loose is None:
        raise InputError(
            f"a draw must be a whole number of copies of a re-used design{rows}, and {draw}: use "
            "design='fresh' or literal=True."
        )
    warnings.warn(f"{draw} of a design{rows}: what is no whole number of copies has rows of its own.", stacklevel=3)
    return model.loose


def _as_real(batch):
    """The same points, marked as real data (Rows carry weights, statistics a size, Shards both in their parts)."""
    if hasattr(batch, "as_real"):
        return batch.as_real()
    return batch._replace(real=batch.weight if hasattr(batch, "weight") else batch.size)


def _ratio(model, data):
    """The effective synthetic : real ratio of a training set; infinite where nothing real is left."""
    real = model.memory.real(data)
    if model.hosted is not None:  # plain numbers, of which a division by zero would raise
        real = np.float64(real)
        with np.errstate(divide="ignore"):
            return (model.memory.size(data) - real) / real
    return (model.memory.size(data) - real) / real


def _check_parts(model, regime, corrector):
    for field, value, kind in (
        ("model", model, Model),
        ("regime", regime, Regime),
        ("corrector", corrector, Corrector),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{field} must be a mcloop {kind.__name__}, not {type(value).__name__}.")
