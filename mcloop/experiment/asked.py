"""What is asked for at the shell, in people's words, as values of an experiment's axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcloop.errors import InputError
from mcloop.regimes import lam_of


def axis(text: str) -> tuple[str, str]:
    """("lam", "0.5,1") from "lam=0.5,1"; what the values are depends on the axis.

    Raises:
        InputError: it does not look so.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.replace(",", "").strip():
        raise InputError(f"--set must look like lam=0.5,1,2, not {text!r}.")
    return name.strip(), values.strip()


def one(text: str) -> tuple[str, float | int | str]:
    """("lam", 0.5) from "lam=0.5".

    Raises:
        InputError: it does not look so, or has several values.
    """
    name, value = axis(text)
    if "," in value:
        raise InputError(f"--set must give one value to a symbol, such as lam=0.5, not {text!r}.")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def overrides(
    set_: Sequence[str],
    share: Sequence[str],
    *,
    synthesizer: str | None,
    target: str | None,
    ignore: Sequence[str],
    columns: Sequence[str],
) -> dict[str, Any]:
    """axis -> its values, of everything that replaces an axis; arguments as `mcloop run` has them.

    Raises:
        InputError: a text that says nothing, or lam and a share at once.
    """
    found: dict[str, Any] = dict(axis(text) for text in set_)
    named = {"synthesizer": synthesizer, "target": target, "ignore": ",".join(ignore), "columns": " ".join(columns)}
    found |= {name: [value] for name, value in named.items() if value}
    if share and "lam" in found:
        raise InputError("share must be left out where lam is set, since lam = share / (1 - share).")
    return found | ({"lam": [lam_of(text) for text in share]} if share else {})


def ratio(lam: float | None, share: str | None) -> float | None:
    """lam as it is given, or that of a synthetic share.

    Raises:
        InputError: both are given, or the share is none.
    """
    if share is None:
        return lam
    if lam is not None:
        raise InputError("share must be left out where lam is given, since lam = share / (1 - share).")
    return lam_of(share)
