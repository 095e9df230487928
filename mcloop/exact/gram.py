"""Linear models from the joint Gram matrix of their rows (x, y), carried as a root, or from the rows themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import known
from mcloop.exact import factors, reading
from mcloop.exact.design import NOISE, Setting, copies, measure, need_noise, read_table, whole_copies
from mcloop.memory.rows import Rows, rows, rows_memory
from mcloop.types import ClosedForms, InputError, Memory, Model, Objective, additive


class Linear(NamedTuple):
    """Coefficients `value` (d, *cells) in the eigenbasis of the design covariance, those of the `last` ridge, or ()."""

    value: jax.Array
    last: Any
    setting: Setting


class Gram(NamedTuple):
    """Rows (x, y) through `root` (d + 1, d + 1, *cells), lower-triangular, root root^T = their Gram matrix."""

    size: jax.Array
    real: jax.Array
    root: jax.Array


class Loose(NamedTuple):
    """A re-used design, and what else a draw that is no whole number of copies takes its rows from.

    `root` (d, d, *cells) of X^T X; `rows` (n, d, *cells) of a real table, or () for the normal law.
    """

    root: jax.Array
    rows: Any


def gram_model(d, n, noise, design, ridge, last_ridge, spectrum, signal, slots) -> Model:
    """OLS or ridge from the joint Gram matrix of the rows, or from the rows themselves (`slots` of them)."""
    same = design != "fresh"

    def sample(key, params: Linear, count):
        if slots is not None:
            return _draw_rows(key, params, count, slots, spectrum)
        return _draw_gram(key, params, count, n if same else None, spectrum)

    def fit(key, params: Linear, data):
        if isinstance(data, Rows):
            x, y = data.values
            root = factors.of_rows(jnp.sqrt(data.weight)[:, None] * jnp.concatenate([x, y[:, None]], 1))
            data = Gram(data.weight.sum(0), data.real.sum(0), root)
        last = () if last_ridge is None else _solve(data, last_ridge)
        return params._replace(value=_solve(data, ridge), last=last), {}

    def observe(key, real):
        k_data, k_design = random.fold_in(key, 0), random.fold_in(key, 1)
        column = (d,) + (1,) * key.ndim
        if real is not None:
            return _observe_table(read_table(real, d, n, noise, key.ndim), design, slots, last_ridge is not None)
        value, scale = signal.reshape(column), jnp.sqrt(spectrum).reshape(column)
        again = ()
        if same and slots is not None:
            again = scale * random.normal(k_design, (int(n), d))
        elif same:
            again = scale[:, None] * factors.bartlett(k_design, d, jnp.asarray(n, jnp.float32))
            again = Loose(again, ()) if design == "either" else again
        truth = Linear(value, () if last_ridge is None else value, Setting(need_noise(noise), again, scale))
        return reading.as_real(sample(k_data, truth, n)), truth

    def measured(params: Linear, truth: Linear):
        out = measure(params.value - truth.value, truth.setting)
        if last_ridge is None:
            return out
        return {**out, "ridge_test_error": measure(params.last - truth.value, truth.setting)["test_error"]}

    return Model(
        name="linear_regression",
        n=n,
        memory=_memory() if slots is None else rows_memory(slots),
        observe=observe,
        sample=sample,
        fit=fit,
        measure=measured,
        batched=True,
        estimator=f"{'OLS' if known(ridge) is not None and not np.any(known(ridge)) else 'ridge'}, design {design}",
        forms=ClosedForms(
            blend=lambda a, b, w: a._replace(value=(1 - w) * a.value + w * b.value),
            objective=_objective(n, ridge, same, slots is not None, spectrum, Linear((), (), Setting(0.0, (), ()))),
        ),
    )


def _objective(n, ridge, same, kept, spectrum, like: Linear) -> Objective:
    """Half the mean squared residual and the ridge, in the coefficients; `kept`: a re-used design is its rows, not its root."""
    penalty = known(ridge)

    def risk(key, value, data):
        if isinstance(data, Rows):
            x, y = data.values
            square = data.weight @ (y - x @ value) ** 2 / data.weight.sum()
        else:
            square = jnp.sum(factors.transposed_matvec(data.root, jnp.append(value, -1.0)) ** 2) / data.size
        return 0.5 * (square + ridge * jnp.sum(value**2))

    def expect(params: Linear) -> Gram:
        value, design = params.value, params.setting.design
        root = jnp.diag(jnp.sqrt(spectrum))
        if same:
            root = (factors.of_rows(design) if kept else design) / jnp.sqrt(jnp.float32(n))
        row = factors.transposed_matvec(root, value)
        return Gram(jnp.float32(1.0), jnp.float32(0.0), _bordered(root, row, params.setting.noise))

    return Objective(
        risk,
        lambda params: params.value,
        lambda value: like._replace(value=value),
        likelihood=penalty is not None and not np.any(penalty),
        expect=expect,
        at=lambda params: _objective(n, ridge, same, kept, spectrum, params),
    )


def _memory() -> Memory:
    """Gram matrices add up; their roots are joined by orthogonal updates (square-root recursive least squares)."""
    return additive(
        merge=lambda a, b: Gram(a.size + b.size, a.real + b.real, factors.union(a.root, b.root)),
        scale=lambda a, w: Gram(a.size * w, a.real * w, a.root * jnp.sqrt(w)),
        size=lambda a: a.size,
        real=lambda a: a.real,
    )


def _draw_gram(key, params: Linear, count, unit, spectrum) -> Gram:
    """The Gram matrix of `count` rows: a fresh Wishart, or that of so many copies of the re-used design of `unit` rows."""
    value, _, setting = params
    d = value.shape[0]
    count = jnp.asarray(count, jnp.float32)
    if isinstance(setting.design, Loose):
        own = _fresh_root(random.fold_in(key, 0), d, count, spectrum, setting.design.rows)
        times, whole = copies(count, unit)
        root = jnp.where(whole, setting.design.root * jnp.sqrt(times), own)
    elif unit is not None:
        root = setting.design * jnp.sqrt(whole_copies(count, unit))
    else:
        root = _fresh_root(random.fold_in(key, 0), d, count, spectrum, ())
    place = jnp.arange(d).reshape((d,) + (1,) * key.ndim)
    noise = jnp.where(place < count, setting.noise * random.normal(key, (d,), block=NOISE), 0.0)
    labels = factors.transposed_matvec(root, value) + noise
    left = setting.noise * jnp.sqrt(random.chi_square(key, jnp.maximum(count - d, 0.0)))
    return Gram(count, 0 * count, _bordered(root, labels, left))


def _fresh_root(key, d, count, spectrum, table):
    """Root of the Gram matrix of `count` new rows: of the normal law, or of a table's own, drawn with replacement."""
    if isinstance(table, tuple):
        return jnp.sqrt(spectrum).reshape((d, 1) + (1,) * key.ndim) * factors.bartlett(key, d, count)
    times = random.multinomial(key, count, jnp.ones((len(table),) + (1,) * key.ndim))
    return factors.of_rows(jnp.sqrt(times)[:, None] * table)


def _bordered(root, row, corner):
    """[[root, 0], [row, corner]], lower-triangular (d + 1, d + 1, *cells)."""
    cells = jnp.broadcast_shapes(root.shape[2:], row.shape[1:], jnp.shape(corner))
    d = row.shape[0]
    root, row, corner = (jnp.broadcast_to(x, s + cells) for x, s in ((root, (d, d)), (row, (1, d)), (corner, (1, 1))))
    side = jnp.concatenate([jnp.zeros((d, 1, *cells), root.dtype), corner])
    return jnp.concatenate([jnp.concatenate([root, row]), side], 1)


def _solve(data: Gram, ridge):
    """argmin of the mean squared residual + ridge |w|^2, a row sqrt(ridge T) e_i a column in place of a sum of squares."""
    d = data.root.shape[0] - 1
    root = data.root
    if known(ridge) is None or np.any(known(ridge)):
        one = jnp.diag(jnp.ones(d + 1).at[d].set(0.0)).reshape((d + 1, d + 1) + (1,) * (root.ndim - 2))
        root = factors.union(root, one * jnp.sqrt(ridge * data.size))
    return factors.transposed_solve(root[:d, :d], root[d, :d])


def _draw_rows(key, params: Linear, count, slots, spectrum) -> Rows:
    value, _, setting = params
    if isinstance(setting.design, tuple):
        scale = jnp.sqrt(spectrum).reshape((-1,) + (1,) * key.ndim)
        x = scale * random.normal(random.fold_in(key, 0), (slots, value.shape[0]))
    else:
        x = setting.design[jnp.arange(slots) % setting.design.shape[0]]
    y = (x * value).sum(1) + setting.noise * random.normal(key, (slots,), block=NOISE)
    return rows((jnp.broadcast_to(x, x.shape[:2] + y.shape[1:]), y), count, cells=y.shape[1:])


def _observe_table(table, design, slots, ridged):
    """The user's rows as data, and OLS on all of them as the truth."""
    if design == "fresh":
        raise InputError("design must be 'same' for a real table: there is no law to draw fresh rows from.")
    setting = table.setting if slots is None else table.setting._replace(design=table.x)
    truth = Linear(table.coefficients, table.coefficients if ridged else (), setting)
    if slots is not None:
        if table.coarse:
            raise InputError(
                "real must have columns within 1,024 spreads of 0 where its rows are kept in float32: subtract the means, or "
                "use literal=False."
            )
        return rows((table.x, table.y), real=True, cells=table.y.shape[1:]), truth
    if design == "either":
        truth = truth._replace(setting=setting._replace(design=Loose(setting.design, table.x)))
    size = jnp.float32(table.x.shape[0])
    return Gram(size, size, table.root), truth
