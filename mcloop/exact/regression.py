"""Linear regression refitted to its own labels, exact in law: OLS and ridge, a re-used design or a fresh one.

OLS on a design X that is drawn once moves its error by sigma R^-1 z with R^T R = X^T X. Only ||w - w*||^2 is asked for, so
R may be rotated on both sides: its bidiagonal factor has the same law, and a generation costs d normals and O(d) sums.
Everything else carries the root of the joint Gram matrix of the rows (x, y), which is Wishart and is merged by orthogonal
updates; `literal=True` draws the rows themselves.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcloop import random
from mcloop.checks import check, known
from mcloop.exact import factors, means, reading
from mcloop.exact.design import NOISE, Setting, draw_bands, measure, need_noise, read_table, squared_solution, whole_copies
from mcloop.exact.gram import gram_model
from mcloop.types import ClosedForms, InputError, Model, Objective


class Score(NamedTuple):
    """OLS on a re-used design: `score` (d, *cells) is U^T X (w - w*), U an orthonormal basis of the design's columns."""

    score: jax.Array
    setting: Setting


def linear_regression(
    d: int,
    n,
    noise=1.0,
    design: str | None = None,
    ridge=0.0,
    last_ridge=None,
    spectrum=None,
    signal=None,
    literal: bool = False,
    capacity: int | None = None,
) -> Model:
    """Least squares on n rows x ~ N(0, diag(spectrum)), y = x.w + noise * z (Gerstgrasser et al. 2404.01413).

    Measures `test_error`, E_x (x.(w - w*))^2, in units of y^2: the excess over the noise. With `real` = (X, y) the rows are
    the user's: x is a row of X taken at random, w* is OLS on all of them, and a pair (X_test, y_test) after them adds
    `held_out_error`, the mean squared error there.

    Args:
        d: columns.
        n: rows T of the design, and the unit of every draw; may be traced.
        noise: standard deviation of the labels; None takes the residual one of a real table.
        design: "same" draws X once and labels it anew, and a draw must be a whole number of copies of X: other sizes are
            refused. "fresh" draws X every time. None does the first, but for a draw that is no whole number of copies, which
            has rows of its own: new ones, or (a real table) the user's drawn with replacement; a warning says so.
        ridge: l in w = (C + l I)^-1 X^T y / T with C = X^T X / T, T the training weight; may be traced.
        last_ridge: another l, of a ridge fitted beside every fit as if it were the last: measured as `ridge_test_error`,
            never sampled from (Dohmatob et al. 2402.07712).
        spectrum: (d,) eigenvalues of the rows' covariance; default ones. OLS does not depend on it.
        signal: (d,) true coefficients; default zeros. OLS does not depend on them.
        literal: draw every row and keep it.
        capacity: (literal) the most rows in one draw; default n, needed when n is traced or lam > 1.

    Raises:
        InputError: n <= d without ridge, a negative noise or ridge, an unknown design, shapes other than (d,).
    """
    check("d", d, "a whole number >= 1", lambda v: (v >= 1) & (v == np.floor(v)))
    reading.check_size(n)
    for field, value in (("noise", noise), ("ridge", ridge), ("last_ridge", last_ridge)):
        if value is not None:
            check(field, value, "a finite number >= 0", lambda v: (v >= 0) & np.isfinite(v))
    if design not in (None, "same", "fresh"):
        raise InputError(f"design must be 'same' or 'fresh', not {design!r}.")
    penalised = (penalty := known(ridge)) is None or bool(np.any(penalty > 0))
    _check_rows(d, n, penalised)
    spectrum = _vector("spectrum", spectrum, d, 1.0)
    check("spectrum", spectrum, "finite numbers > 0", lambda v: (v > 0) & np.isfinite(v))
    signal = _vector("signal", signal, d, 0.0)
    given = (ridge, last_ridge, spectrum, signal)
    if literal:
        design = design or "same"
        return gram_model(d, n, noise, design, *given, _slots(n, design, capacity))
    if design == "fresh":
        return gram_model(d, n, noise, design, *given, None)
    plain = not penalised and last_ridge is None
    model = _score_model(d, n, noise) if plain else gram_model(d, n, noise, "same", *given, None)
    loose = None if design == "same" else gram_model(d, n, noise, "either", *given, None)
    return model._replace(unit=n, loose=loose)


def _check_rows(d, n, penalised):
    size = known(n)
    if size is None or penalised:
        return
    if np.any(size <= d):
        raise InputError(f"n must be larger than d for least squares without ridge: d is {d}, n is {size.min():g}.")
    if np.any(size < d + 2):
        warnings.warn(f"the error has no mean at n = {size.min():g} < d + 2: no law for it applies.", stacklevel=3)


def _vector(field, value, d, default):
    if value is None:
        return jnp.full(d, default, jnp.float32)
    if np.shape(value) != (d,):
        raise InputError(f"{field} must be an array of shape ({d},), not {list(np.shape(value))}.")
    return jnp.asarray(value, jnp.float32)


def _slots(n, design, capacity):
    if design == "same" and (known(n) is None or np.ndim(n) > 0):
        raise InputError("n must be one known number where the rows of a re-used design are kept; it is swept.")
    return reading.slots(n, capacity)


def _score_model(d, n, noise) -> Model:
    """OLS on a re-used design: labels enter through their mean over the design's copies only."""

    def sample(key, params: Score, count):
        times = jnp.maximum(whole_copies(count, n), 1.0)
        score = params.score + params.setting.noise / jnp.sqrt(times) * random.normal(key, params.score.shape[:1], block=NOISE)
        size = jnp.asarray(count, jnp.float32)
        return means.Mean(size, 0 * size, score)

    def observe(key, real):
        if real is not None:
            table = read_table(real, d, n, noise, key.ndim)
            size, start = jnp.float32(table.x.shape[0]), jnp.zeros(table.coefficients.shape)
            return means.Mean(size, size, start), Score(start, table.setting)
        start = jnp.zeros((d,) + (1,) * key.ndim)
        truth = Score(start, Setting(need_noise(noise), draw_bands(random.fold_in(key, 1), d, n), ()))
        return reading.as_real(sample(random.fold_in(key, 0), truth, n)), truth

    def measured(params: Score, truth: Score):
        setting = truth.setting
        gap = params.score - truth.score
        if isinstance(setting.design, tuple):
            return {"test_error": squared_solution(setting.design, gap)}
        return measure(factors.transposed_solve(setting.design, gap), setting)

    return Model(
        name="linear_regression",
        n=n,
        memory=means.memory(),
        observe=observe,
        sample=sample,
        fit=lambda key, params, data: (params._replace(score=data.mean), {}),
        measure=measured,
        batched=True,
        estimator="OLS, design same",
        forms=ClosedForms(
            blend=lambda a, b, w: a._replace(score=(1 - w) * a.score + w * b.score), objective=_score_objective(())
        ),
    )


def _score_objective(setting) -> Objective:
    """Half the squared residual along the design's columns, whose minimum is OLS; `at` keeps the design of the loop."""
    return Objective(
        lambda key, score, data: 0.5 * jnp.sum((score - data.mean) ** 2),
        lambda params: params.score,
        lambda score: Score(score, setting),
        likelihood=True,
        expect=lambda params: means.Mean(jnp.float32(1.0), jnp.float32(0.0), params.score),
        at=lambda params: _score_objective(params.setting),
    )
