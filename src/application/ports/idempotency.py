"""What callers name their requests by, so that one that is sent again does what it asks for once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["REMEMBERED_FOR", "IdempotencyKey"]

REMEMBERED_FOR = timedelta(hours=24)
"""How long a key stands for what was done under it."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a caller calls its request: the key it sent, the name of its own key as `scope` ('' without), SHA-256 (hex) of the body."""

    scope: str
    key: str
    body_sha256: str
