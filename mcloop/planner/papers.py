"""One row a paper: its symbols, and the loop that they stand for in one common tuple."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mcloop.planner.canonical import LACKS, Canonical, Paper, Symbol, features, same, share, whole


def _tidy(x: float) -> float:
    """x without the dust of a division: a ratio comes back as it was typed."""
    return float(f"{x:.12g}")


def _paper(name, authors, arxiv, aliases, symbols, size, warm, has: str, to, back, remark="") -> Paper:
    expresses = frozenset(has.split())

    def from_canonical(c: Canonical) -> dict[str, Any] | str:
        for feature, words in features(c).items():
            if feature not in expresses:
                return f"{name} cannot express it: this loop {words}, and {LACKS[feature]}."
        found = back(c)
        return f"{name} cannot express it: {found}." if isinstance(found, str) else found

    return Paper(name, authors, arxiv, aliases, symbols, size, warm, remark, to, from_canonical)


def _number(words: str, default: Any, allowed: str, test: Callable[[float], bool]) -> Symbol:
    return Symbol(words, default, allowed, lambda v: isinstance(v, (int, float)) and v == v and test(v))


def _points(words: str) -> Symbol:
    return _number(words, None, "a whole number >= 1", lambda v: v >= 1 and not math.isinf(v) and v == int(v))


def _names(words: str, *names: str) -> Symbol:
    return Symbol(words, names[0], f"one of {', '.join(names)}", lambda v: v in names, names)


_N = _points("real points")
_LAM = _number("synthetic : real ratio; inf is fully synthetic", 1.0, "a number >= 0", lambda v: v >= 0)
_FINITE_LAM = _number("synthetic : real ratio", 1.0, "a finite number >= 0", lambda v: 0 <= v < math.inf)


def _augmented(n: float, lam: float, **more: Any) -> Canonical:
    """n real points with lam n synthetic ones, every generation; lam = inf drops the real ones and draws n."""
    if math.isinf(lam):
        return Canonical(n, synthetic=n, **more)
    return Canonical(n, fixed=n, synthetic=lam * n, **more)


def _ratio(c: Canonical) -> float | str:
    """lam of a loop that `_augmented` makes."""
    if c.fixed:
        return _tidy(c.synthetic / c.fixed)
    return math.inf if same(c.synthetic, c.first) else "when fully synthetic it draws as many points as there were real ones"


def _bertrand(c: Canonical):
    lam = _ratio(c)
    return lam if isinstance(lam, str) else {"lam": lam, "n": c.first}


def _script(c: Canonical):
    share = _tidy(c.synthetic / c.fixed)
    if share > 1:
        return f"prop_gen_data is at most 1, and this loop has {share:g} synthetic points to a real one"
    return {"prop_gen_data": share, "n": c.first}


def _gillman(c: Canonical):
    return {"lam": _tidy(c.synthetic / c.fixed), "gamma": c.gamma, "n": c.first}


def _ferbach(c: Canonical):
    lam = _ratio(c)
    return lam if isinstance(lam, str) else {"lam": lam, "K": c.candidates, "n": c.first}


def _mad(loop: str, n_r: float, n_s: float, lam: float) -> Canonical:
    kept = {"fully synthetic": {}, "synthetic augmentation": {"fixed": n_r}, "fresh data": {"fresh": n_r}}[loop]
    return Canonical(n_r, synthetic=n_s, bias=lam, warm=False, **kept)


def _from_mad(c: Canonical):
    if not (points := float(whole(c.synthetic))):
        return "n_s is at least 1"
    if c.fresh and not same(c.fresh, c.first):
        return "its fresh real points are as many as those of generation 1"
    loop = "synthetic augmentation" if c.fixed else "fresh data" if c.fresh else "fully synthetic"
    return {"loop": loop, "n_r": c.first, "n_s": points, "lam": c.bias}


def _regime(regime: str, n: float, warm: bool | None = None) -> Canonical:
    if regime in ("replace", "replace-multiple"):
        return Canonical(n, synthetic=n, growth=float(regime == "replace-multiple"), warm=warm)
    return Canonical(n, fixed=n, synthetic=n, keeps=True, budget=n if regime == "accumulate-subsample" else None, warm=warm)


def _from_regime(c: Canonical):
    if c.fixed and not c.keeps:
        return "its regimes keep all data or only the newest synthetic ones"
    if not same(c.synthetic, c.first):
        return "it draws as many synthetic points a generation as there are real ones"
    if c.budget is not None:
        return {"regime": "accumulate-subsample", "n": c.first} if same(c.budget, c.first) else "its budget is n"
    if c.growth not in (0, 1) or (c.keeps and c.growth):
        return "only its replace-multiple grows, by n points a generation"
    return {"regime": "accumulate" if c.keeps else "replace-multiple" if c.growth else "replace", "n": c.first}


def _seddik(alpha: float, N: float) -> Canonical:
    return _augmented(N, math.inf if alpha == 1 else alpha / (1 - alpha))


def _from_seddik(c: Canonical):
    lam = _ratio(c)
    if isinstance(lam, str):
        return lam
    return {"alpha": 1.0 if math.isinf(lam) else _tidy(c.synthetic / (c.fixed + c.synthetic)), "N": c.first}


def _khelifa(alpha: float, n: float) -> Canonical:
    return Canonical(n, fresh=alpha * n, synthetic=(1 - alpha) * n)


def _from_khelifa(c: Canonical):
    if not same(c.fresh + c.synthetic, c.first):
        return "its training sets are all as large as the first, fresh and synthetic points together"
    return {"alpha": _tidy(c.fresh / c.first), "n": c.first}


def _from_he(c: Canonical):
    if not same(c.fresh, c.first):
        return "its fresh real points are as many as those of generation 1"
    if not c.synthetic:
        return "k = n/m needs synthetic points, and this loop has none"
    return {"w": _tidy(share(c)) if c.weight is None else c.weight, "k": _tidy(c.fresh / c.synthetic), "n": c.first}


_SHARE = "a number in [0, 1]"
PAPERS: tuple[Paper, ...] = (
    _paper(
        "bertrand",
        "Bertrand et al.",
        "2310.00429",
        ("bertrand2023", "stability"),
        {"lam": _LAM, "n": _N},
        "n",
        True,
        "fixed none",
        lambda lam, n: _augmented(n, lam, warm=True),
        _bertrand,
    ),
    _paper(
        "bertrand-script",
        "Bertrand et al., the released script",
        "2310.00429",
        ("prop_gen_data",),
        {"prop_gen_data": _number("synthetic : real ratio", 1.0, _SHARE, lambda v: 0 <= v <= 1), "n": _N},
        "n",
        True,
        "fixed",
        lambda prop_gen_data, n: _augmented(n, prop_gen_data, warm=True),
        _script,
        remark="prop_gen_data is the ratio lam of the paper, capped at 1; it is not the synthetic share.",
    ),
    _paper(
        "gillman",
        "Gillman et al.",
        "2402.07087",
        ("gillman2024", "self-correcting"),
        {"lam": _FINITE_LAM, "gamma": _number("strength of the corrector", 0.0, "a number >= 0", lambda v: v >= 0), "n": _N},
        "n",
        True,
        "fixed gamma",
        lambda lam, gamma, n: _augmented(n, lam, gamma=gamma, warm=True),
        _gillman,
    ),
    _paper(
        "alemohammad",
        "Alemohammad et al.",
        "2307.01850",
        ("mad", "alemohammad2023"),
        {
            "loop": _names("which loop", "fully synthetic", "synthetic augmentation", "fresh data"),
            "n_r": _points("real points"),
            "n_s": _points("synthetic points a generation"),
            "lam": _number("sampling bias; 1 is unbiased", 1.0, _SHARE, lambda v: 0 <= v <= 1),
        },
        "n_r",
        False,
        "fixed fresh none bias",
        _mad,
        _from_mad,
        remark="lam is a sampling bias there, not a mixing ratio; the synthetic points are taken from the newest model.",
    ),
    _paper(
        "gerstgrasser",
        "Gerstgrasser et al.",
        "2404.01413",
        ("gerstgrasser2024",),
        {"regime": _names("what is trained on", "replace", "accumulate", "replace-multiple"), "n": _N},
        "n",
        False,
        "fixed none keeps growth",
        lambda regime, n: _regime(regime, n, warm=False),
        _from_regime,
    ),
    _paper(
        "kazdan",
        "Kazdan et al.",
        "2410.16713",
        ("kazdan2024",),
        {"regime": _names("what is trained on", "replace", "accumulate", "accumulate-subsample"), "n": _N},
        "n",
        None,
        "fixed none keeps budget",
        _regime,
        _from_regime,
    ),
    _paper(
        "seddik",
        "Seddik et al.",
        "2404.05090",
        ("seddik2024",),
        {
            "alpha": _number("synthetic share n/(N + n); 1 is fully synthetic", 0.5, _SHARE, lambda v: 0 <= v <= 1),
            "N": _N,
        },
        "N",
        None,
        "fixed none",
        _seddik,
        _from_seddik,
        remark="alpha is the SYNTHETIC share (Khelifa's is the real one).",
    ),
    _paper(
        "khelifa",
        "Khelifa et al.",
        None,
        (),
        {"alpha": _number("fresh real share of every training set", 0.5, _SHARE, lambda v: 0 <= v <= 1), "n": _N},
        "n",
        None,
        "fresh none",
        _khelifa,
        _from_khelifa,
        remark="alpha is the REAL share (Seddik's is the synthetic one).",
    ),
    _paper(
        "he-xu-cheng",
        "He, Xu and Cheng",
        "2502.18049",
        ("he", "golden-ratio", "xu", "cheng"),
        {
            "w": _number("weight of the real points", (5**0.5 - 1) / 2, "a number in (0, 1]", lambda v: 0 < v <= 1),
            "k": _number("real : synthetic ratio n/m", 1.0, "a finite number > 0", lambda v: 0 < v < math.inf),
            "n": _N,
        },
        "n",
        None,
        "fresh weight",
        lambda w, k, n: Canonical(n, fresh=n, synthetic=n / k, weight=w),
        _from_he,
        remark="k is the inverse of lam: real points to a synthetic one, and the real points are fresh.",
    ),
    _paper(
        "ferbach",
        "Ferbach et al.",
        "2407.09499",
        ("ferbach2024", "curation"),
        {
            "lam": _number("curated : real ratio; inf is no real data", 1.0, "a number >= 0", lambda v: v >= 0),
            "K": _number("candidates, of which curation keeps one", 2, "a whole number >= 1", lambda v: v >= 1 and v % 1 == 0),
            "n": _N,
        },
        "n",
        None,
        "fixed none candidates",
        lambda lam, K, n: _augmented(n, lam, candidates=int(K)),
        _ferbach,
        remark="its objective weighs real data 1/(1 + lam) and curated data lam/(1 + lam).",
    ),
)
