"""The dictionary of lambdas: a paper's symbols in points, in another paper's symbols, and as a call of this library."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mcloop.errors import InputError
from mcloop.planner.canonical import Canonical as Canonical
from mcloop.planner.canonical import Paper as Paper
from mcloop.planner.canonical import effective_ratio as effective_ratio
from mcloop.planner.canonical import same, whole
from mcloop.planner.papers import PAPERS as PAPERS

if TYPE_CHECKING:
    from mcloop.types import Regime


class Translation(NamedTuple):
    """One system in everybody's words.

    Attributes:
        paper: whose symbols were given.
        parameters: all of that paper's symbols, defaults filled in.
        canonical: the loop in points.
        words: the same as a sentence.
        call: the loop as a call of this library, or one sentence on why there is none.
        others: name -> that paper's symbols, or one sentence on what it cannot express.
        ratio: the effective synthetic : real ratio of generations 1, 2, ..., shape (generations,).
    """

    paper: Paper
    parameters: dict[str, Any]
    canonical: Canonical
    words: str
    call: str
    others: dict[str, dict[str, Any] | str]
    ratio: np.ndarray


def find_paper(name: str) -> Paper:
    """The paper of this name, id or alias, in capitals or not.

    Raises:
        InputError: there is none; the message names the nearest ones.
    """
    known = {alias: p for p in reversed(PAPERS) for alias in (p.name, p.arxiv, *p.aliases) if alias}
    key = _plain(name).removeprefix("arxiv:")
    spelled = {_plain(alias): p for alias, p in known.items()}
    if key in spelled:
        return spelled[key]
    near = dict.fromkeys(spelled[k].name for k in difflib.get_close_matches(key, spelled, 3, 0.5))
    offered = f"did you mean {', '.join(near)}" if near else f"there are {', '.join(p.name for p in PAPERS)}"
    raise InputError(f"paper {name!r} is not in the dictionary: {offered}; `mcloop translate` shows them all.")


def _plain(name: str) -> str:
    """A name in small letters, its words joined by hyphens."""
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())


def settle(paper: Paper, given: Mapping[str, Any], n: int = 1000) -> dict[str, Any]:
    """All of a paper's parameters: what was given, checked, and defaults for the rest.

    Args:
        given: symbol -> value; symbols are matched without regard to capitals where that is unambiguous.
        n: real points, for the symbol that counts them.

    Raises:
        InputError: an unknown symbol, or a value that is not allowed.
    """
    spelled = {s.lower(): s for s in paper.symbols}
    found = {}
    for key, value in given.items():
        symbol = spelled.get(key.lower())
        if symbol is None:
            raise InputError(f"symbol {key!r} is not one of {paper.name}'s; they are {', '.join(paper.symbols)}.")
        named = {_plain(name): name for name in paper.symbols[symbol].names}
        found[symbol] = named.get(_plain(value), value) if isinstance(value, str) else value
    size = found.get(paper.size, n)
    filled = {name: found.get(name, size if s.default is None else s.default) for name, s in paper.symbols.items()}
    for name, symbol in paper.symbols.items():
        if not symbol.test(filled[name]):
            raise InputError(f"{name} ({paper.name}: {symbol.words}) must be {symbol.allowed}, not {filled[name]!r}.")
    return filled


def translate(name: str, given: Mapping[str, Any] | None = None, n: int = 1000, generations: int = 5) -> Translation:
    """A paper's system in points, as a call of this library, and in every other paper's symbols.

    Args:
        name: a paper's name, alias or arXiv id.
        given: its symbols; the rest take their defaults.
        n: real points.
        generations: how many effective ratios.

    Raises:
        InputError: an unknown paper or symbol, a value that is not allowed.
    """
    if not 1 <= generations <= 1000:
        raise InputError(f"generations must be a whole number from 1 to 1000, not {generations}.")
    paper = find_paper(name)
    parameters = settle(paper, given or {}, n)
    c = paper.to_canonical(**parameters)
    others = {p.name: p.from_canonical(c) for p in PAPERS if p is not paper}
    return Translation(paper, parameters, c, describe(c), call_of(c), others, effective_ratio(c, generations))


def describe(c: Canonical) -> str:
    """The loop as a sentence or two, in points."""
    said = [f"Generation 1 is fitted on {c.first:g} real points."]
    real = f"the same {c.fixed:g} real points" if c.fixed else f"{c.fresh:g} fresh real points" if c.fresh else "no real points"
    new = (
        f"{c.synthetic:g} new synthetic points"
        if not c.growth
        else f"{c.synthetic:g} g^{c.growth:g} new synthetic points at generation g"
    )
    if c.window is not None:
        said.append(f"Every later one trains on the data of the last {c.window} generations, {new} among them.")
    else:
        kept = "and all old synthetic points" if c.keeps else "and no old synthetic point"
        said.append(f"Every later one trains on {real}, {new} {kept}.")
    if c.budget is not None:
        said.append(f"Of these it uses {c.budget:g} points, drawn at random without replacement.")
    weighed = f"The real points carry {c.weight:.3g} of the fit." if c.weight is not None else "Every point weighs alike."
    said.append(weighed)
    if c.gamma:
        said.append(f"Synthetic points are corrected with strength gamma = {c.gamma:g}.")
    if c.candidates > 1:
        said.append(f"Each synthetic point is the one that curation keeps of {c.candidates}.")
    if c.bias != 1:
        said.append(f"The sampler is biased (bias {c.bias:g}; 1 is unbiased).")
    if c.warm is not None:
        said.append("A fit goes on from the previous parameters." if c.warm else "Every fit starts anew.")
    return " ".join(said)


def regime_of(c: Canonical) -> Regime:
    """The library's regime for a loop; correctors, curation and bias are other parts of a loop.

    Raises:
        InputError: no regime does this.
    """
    from mcloop import regimes

    name, arguments = _part(c)
    return getattr(regimes, name)(**{key: value for key, (value, _) in arguments.items()})


def call_of(c: Canonical) -> str:
    """The loop as a call of this library, as text: the regime, and the corrector where there is one."""
    try:
        name, arguments = _part(c)
    except InputError as error:
        return str(error)
    said = [f"regimes.{name}({', '.join(f'{key}={text}' for key, (_, text) in arguments.items())})"]
    if c.gamma:
        said.append(f"correctors.mixture(gamma={_text(c.gamma)})")
    if c.candidates > 1:
        said.append(f"correctors.best_of_k(k={c.candidates}, reward=...)")
    if c.bias != 1:
        said.append("correctors.temperature(...)")
    return ", ".join(said)


def _part(c: Canonical) -> tuple[str, dict[str, tuple[Any, str]]]:
    """The regime's name, and its arguments as values and as text."""
    odd = c.growth != int(c.growth) or (c.growth and ((c.fixed and not c.keeps) or c.fresh))
    if odd or (c.fixed and c.fresh) or (c.weight is not None and not c.fresh):
        raise InputError("No regime of this library does this; a Regime of your own can (see mcloop.regimes).")
    if c.budget is not None and not (c.keeps and same(c.budget, c.first)):
        raise InputError("The library's subsample is of all that was accumulated, and as large as the real set.")
    if c.fresh:
        if not c.synthetic:
            raise InputError("This is no loop: no generation has synthetic points.")
        weight = {} if c.weight is None else {"weight": _value(c.weight)}
        return "fresh", {"real": _value(c.fresh / c.first), "synthetic": _value(c.synthetic / c.first), **weight}
    if c.fixed and not c.keeps:
        return "augment", {"lam": _value(c.synthetic / c.fixed)}
    if c.window is not None:
        return "window", {"generations": (c.window, str(c.window)), **_size(c)}
    if c.keeps:
        return "accumulate" if c.budget is None else "accumulate_subsample", _size(c)
    return ("replace_multiple", {}) if c.growth == 1 and same(c.synthetic, c.first) else ("replace", _size(c))


def _size(c: Canonical) -> dict[str, tuple[Any, str]]:
    """The argument `size`, where a generation does not draw as many points as there were real ones."""
    if same(c.synthetic, c.first) and not c.growth:
        return {}
    points, power = float(whole(c.synthetic)), int(c.growth)
    if not power:
        return {"size": (lambda n, t: points, f"lambda n, t: {points:g}")}
    return {"size": (lambda n, t: points * t**power, f"lambda n, t: {points:g} * t**{power}")}


def _value(x: float) -> tuple[float, str]:
    x = float(f"{x:.12g}")
    return x, _text(x)


def _text(x: float) -> str:
    return f"float({str(x)!r})" if np.isinf(x) else f"{x:g}" if float(f"{x:g}") == x else repr(x)


def show_papers() -> None:
    """Print the papers, their symbols, and what a reader would mistake."""
    table = _table("paper", "symbols (default)", "remark")
    for p in PAPERS:
        symbols = "\n".join(f"{name} ({_shown(s.default, 'n')}): {s.words}; {s.allowed}" for name, s in p.symbols.items())
        aliases = f"\nalso: {', '.join(p.aliases)}" if p.aliases else ""
        table.add_row(f"{p.name}\n{p.authors}\n{p.arxiv or ''}".rstrip() + aliases, symbols, p.remark)
    _print(table, "", "For example: mcloop translate --paper gillman --set lam=0.5 --set gamma=1")


def show(found: Translation, to: Paper | None = None) -> None:
    """Print a translation: in points, as a call, in the symbols of the other papers (or only of `to`), and by generation."""
    p = found.paper
    table = _table("paper", "the same system, in its symbols")
    for other in PAPERS:
        said = found.others.get(other.name)
        if said is None or (to is not None and other is not to):
            continue
        cell = said.removeprefix(f"{other.name} ") if isinstance(said, str) else _symbols(said)
        if not isinstance(said, str) and None not in (other.warm, found.canonical.warm) and other.warm != found.canonical.warm:
            cell += f"  (but its fits {'go on from the previous parameters' if other.warm else 'start anew'})"
        table.add_row(other.name, cell)
    ratios = ", ".join(f"{g}: {_shown(float(f'{r:.4g}'), '')}" for g, r in enumerate(found.ratio, 1))
    lines = [f"{p.name} ({p.authors}{f', {p.arxiv}' if p.arxiv else ''}): {_symbols(found.parameters)}"]
    lines += [f"Note: {p.remark}"] if p.remark else []
    lines += ["", f"In words: {found.words}", f"In mcloop: {found.call}", f"Synthetic : real by generation: {ratios}"]
    lines += ["(on average over subsamples: the ratio of what is drawn from)"] if found.canonical.budget is not None else []
    _print(*lines, "", table)


def _symbols(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_shown(value, '')}" for name, value in parameters.items())


def _shown(value: Any, absent: str) -> str:
    return absent if value is None else value if isinstance(value, str) else f"{value:.10g}"


def _table(*head: str):
    from rich.table import Table

    return Table(*head, show_lines=True)


def _print(*parts: Any) -> None:
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False, soft_wrap=False)
    for part in parts:
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)
