"""JSON that knows its own checksum."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def compact(value: Any) -> str:
    """JSON without spaces: equal values are equal texts."""
    return json.dumps(value, separators=(",", ":"))


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def seal(body: dict[str, Any]) -> bytes:
    """`body` as JSON, with the SHA-256 of the rest under "sha256"."""
    return compact(body | {"sha256": digest(compact(body))}).encode()


def unseal(payload: bytes) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: it is something else.
    """
    body = json.loads(payload)
    if not isinstance(body, dict) or "sha256" not in body:
        raise ValueError("it holds no checksum")
    if body.pop("sha256") != digest(compact(body)):
        raise ValueError("its checksum differs")
    return body
