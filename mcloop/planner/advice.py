"""What each regime allows, a line of advice each: the safe number, in words and in points, and when it is true."""

from __future__ import annotations

import numpy as np

from mcloop import laws
from mcloop.planner.line import REGULAR, Line, count, generations_held, least
from mcloop.planner.safe import (
    fresh_points,
    generations_before_loss,
    generations_within,
    growth_power,
    growth_ratio,
    safe_gamma,
    safe_spread_lam,
)


def fixed(tau: float, n: int, lam: float | None) -> list[Line]:
    """The same real points every generation and lam n new synthetic ones, uncorrected and corrected."""
    most = float(laws.safe_lam(tau))
    if np.isinf(most):
        safe = "any number of synthetic points, for ever: the error stays below 1.5 times that of real data only"
    elif most == 0:
        safe = "no synthetic point: lam = 0"
    else:
        safe = f"lam up to {most:.4g}: {count(most * n)} new synthetic points a generation beside {count(n)}, for ever"
    if lam is not None:
        end = float(laws.stationary_relative_error(lam))
        held = generations_within(lambda g: laws.fixed_relative_error(g, lam), tau, end)
        verdict = "is safe" if np.isinf(held) else f"exceeds it from generation {held + 1:.0f} on"
        safe += f". Your lam {lam:g} {verdict}: its error goes to {end:.4g}"
    kept = Line(
        regime="real data kept, lam new synthetic points to a real one",
        safe=safe,
        unit="lam",
        value=most,
        points=most * n,
        generations=np.inf,
        formula="(tau - 1)/(3 - 2 tau)",
        assumption=(REGULAR,),
        source="derived here (law B2)",
    )
    chosen = 1.0 if lam is None else lam
    gamma = safe_gamma(tau, chosen)
    beside = f"lam {chosen:g} ({count(chosen * n)} synthetic points)"
    corrected = Line(
        regime="the same, synthetic points corrected with strength gamma",
        safe=f"{beside} with gamma of {gamma:.4g} or more, for ever" if gamma else f"no correction is needed for {beside}",
        unit="gamma",
        value=gamma,
        points=chosen * n,
        generations=np.inf,
        formula="largest error of law B5 = tau",
        assumption=(REGULAR, "of the synthetic points a share gamma/(1 + gamma) is as good as real"),
        source="derived here (law B5)",
    )
    return [kept, corrected]


def kept(tau: float, n: int) -> list[Line]:
    """All data kept, trained on whole or as a subsample of n."""
    whole, part = laws.accumulate_relative_error, laws.subsample_relative_error
    told = (
        (
            "all data kept, n new synthetic points a generation",
            "accumulate",
            whole,
            "1 + 1/4 + ... + 1/g^2",
            "Dey and Donoho 2410.22812 (law A2)",
        ),
        (
            "the same, each fit on n points drawn from all",
            "accumulate-subsample",
            part,
            "error of law A3, n large",
            "derived here (law A3)",
        ),
    )
    lines = []
    for regime, name, error, formula, source in told:
        worst = laws.WORST_ERROR[name]
        held = generations_within(error, tau, worst)
        if np.isinf(held):
            safe = f"{count(n)} new points every generation, for ever: the error stays below {worst:.4g}"
        else:
            safe = f"{generations_held(held)}; the next has error {float(error(held + 1)):.4g}, in the end {worst:.4g}"
        lines.append(Line(regime, safe, "generations", held, n * held, held, formula, (REGULAR,), source))
    return lines


def replaced(tau: float, n: int, g: int) -> list[Line]:
    """Nothing but the newest synthetic points: as many every generation, or more and more."""
    held = float(laws.safe_generations(tau))
    same = Line(
        regime="only the newest n synthetic points",
        safe=f"{generations_held(held)}; the next has error {held + 1:g}, and so on without end",
        unit="generations",
        value=held,
        points=n * held,
        generations=held,
        formula="error = g",
        assumption=(REGULAR,),
        source="derived here (law G2)",
    )
    r, p = growth_ratio(tau), growth_power(tau)
    none = "none: whatever the size, the error exceeds 1 from the second fit on"
    with np.errstate(over="ignore", invalid="ignore"):  # sizes that no data set has are shown as inf
        sizes = n * np.power(r, np.arange(float(g)))
        power = n * np.power(np.arange(1.0, g + 1.0), p)
    last, total = sizes[-1], sizes.sum()
    by = f"{least(last)} points at generation {g}, {least(total)} by then"
    many = f"{least(power[-1])} points at generation {g}, {least(power.sum())} by then"
    geometric = Line(
        regime="only the newest, each set r times the last",
        safe=none if np.isinf(r) else f"r of {r:.4g} or more, for ever: {by}",
        unit="growth factor",
        value=r,
        points=float(last),
        generations=np.inf if np.isfinite(r) else 1.0,
        formula="r = tau/(tau - 1)",
        assumption=(REGULAR,),
        source="derived here (law A5)",
    )
    return [
        same,
        geometric,
        geometric._replace(
            regime="only the newest, n g^p points at generation g",
            safe=none if np.isinf(p) else f"p of {p:.4g} or more, for ever: {many}",
            unit="growth power",
            value=p,
            points=float(power[-1]),
            formula="zeta(p) = 1 + 2^-p + 3^-p + ... = tau",
        ),
    ]


def fresh(tau: float, n: int, lam: float) -> list[Line]:
    """New real points every generation beside lam n synthetic ones."""
    m = lam * n
    w = float(laws.fresh_best_weight(1.0 / lam))
    few, share = fresh_points(tau, n, m)
    told = "the real points are new and independent every generation; the weight is a share of the fit, not of the points"
    best = Line(
        regime=f"{count(n)} fresh real points a generation and {count(m)} synthetic",
        safe=f"weight {w:.4g} on the real data, for ever: the error falls to {w:.4g} of that of real data only",
        unit="weight of real data",
        value=w,
        points=float(n),
        generations=np.inf,
        formula="w = (sqrt(k^2 + 4 k) - k)/2, k = real/synthetic",
        assumption=(REGULAR, told),
        source="He, Xu and Cheng 2502.18049 (law C1)",
    )
    fewest = best._replace(
        regime=f"fewer fresh real points and {count(m)} synthetic",
        safe=f"{least(few)} fresh real points a generation suffice, at weight {share:.4g}, for ever",
        unit="fresh real points",
        value=few,
        points=few,
        formula="n/(tau (1 + tau m/n)), m synthetic",
        source="derived here (law C1)",
    )
    return [best, fewest]


def verified(phi: float, psi: float) -> Line:
    """A verifier that keeps right labels with probability phi and wrong ones with psi."""
    edge = float(laws.verifier_threshold(phi, psi))
    factor = psi / phi
    does = f"a pass multiplies the odds of a wrong label by {factor:.3g}"
    if factor >= 1:
        safe = f"nothing is gained: {does}"
    else:
        safe = f"most kept labels are right while fewer than {100 * edge:.4g} % of the raw ones are wrong; {does}"
    return Line(
        regime=f"labels verified (phi {phi:g}, psi {psi:g})",
        safe=safe,
        unit="share of wrong labels",
        value=edge,
        points=None,
        generations=1.0,
        formula="phi/(phi + psi)",
        assumption=(
            "two labels; the verifier's mistakes are independent of the item, and of each other where it passes again",
        ),
        source="Feng et al. 2406.07515 (law F3)",
    )


def spread(tau: float, s: float, n: int, lam: float | None) -> Line:
    """A sampler that multiplies the standard deviation by s."""
    most, edge = safe_spread_lam(tau, s, n), float(laws.spread_safe_lam(s))
    if np.isinf(most):
        safe = "any number of synthetic points, for ever"
    elif most < 1 / n:
        safe = "no synthetic point: lam = 0"
    else:
        safe = f"lam up to {most:.4g}: {count(most * n)} new synthetic points a generation beside {count(n)}, for ever"
    if np.isfinite(edge):
        safe += f" (stable, which is another question, below lam {edge:.4g})"
    if lam is not None:
        load, error = lam * (s**2 - 1.0), float(laws.spread_relative_error(lam, s, n))
        if load < 1:
            safe += (
                f". At your lam {lam:g} the variance settles at {1.0 / (1.0 - load):.4g} times the real one, error {error:.4g}"
            )
        else:
            safe += f". At your lam {lam:g} the variance grows without end"
    off = "of the right spread" if s == 1 else f"whose spread is {s:g} times the right one"
    return Line(
        regime=f"real data kept, a sampler {off}",
        safe=safe,
        unit="lam",
        value=most,
        points=most * n,
        generations=np.inf,
        formula="error of law S1's variance = tau",
        assumption=(
            "a Gaussian, the worse of the errors of mean and variance; a draw is s times wider than its model; many points",
        ),
        source="derived here (law S1)",
    )


def voided(line: Line, s: float) -> Line:
    """A line that assumes an exact sampler, where the user's is not."""
    return line._replace(
        safe=f"not known: this assumes an exact sampler, and yours has {s:g} times the right spread",
        value=np.nan,
        points=None,
        generations=np.nan,
    )


def rare(times: float, lost: float) -> list[Line]:
    """Items seen a few times in the real data."""
    held = generations_before_loss(times, lost)
    now, then = (100 * float(laws.token_lost(g, times)) for g in (held, held + 1))
    seen = f"items seen {times:g} time{'s' if times != 1 else ''} in the real data"
    gone = Line(
        regime=f"{seen}; only the newest n synthetic points",
        safe=f"{generations_held(held)}: {now:.3g} % of them are gone then, {then:.3g} % one generation later",
        unit="generations",
        value=held,
        points=None,
        generations=held,
        formula="f_(g-1)^c, f_0 = 0, f_(k+1) = exp(f_k - 1)",
        assumption=("probabilities are relative counts, without smoothing; the items are rare among the n points",),
        source="Galton-Watson (law D4)",
    )
    kept = gone._replace(
        regime=f"{seen}; real data kept (with or without old synthetic)",
        safe="never gone, for ever: what is in the training set has a count",
        value=np.inf,
        generations=np.inf,
        formula="-",
        source="derived here (law Z1)",
    )
    return [gone, kept]
