"""The port through which is read what calls took, summed up by deliberation, API key, provider, model or day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["MAX_USAGE_ITEMS", "UsageBy", "UsageItem", "UsageReader"]

MAX_USAGE_ITEMS = 1000


class UsageBy(StrEnum):
    """What calls are summed up by."""

    DELIBERATION = "deliberation"
    KEY = "key"
    PROVIDER = "provider"
    MODEL = "model"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class UsageItem:
    """What the calls of one deliberation, key, provider, model or day took: tokens, and US dollars to the picodollar.

    `key` is the id, the name of the API key ('' without one, and once it is erased), the provider ('' where it has no name), the model
    that answered or else was asked ('' where nobody said), or the day of the call (UTC, YYYY-MM-DD). What calls hold that are still
    being made, or whose end nobody knows, stands in `uncertain_usd` and `uncertain_tokens` alone. `unpriced_calls` asked a model without a
    known price: what they cost is in neither sum.
    """

    key: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_usd: float
    uncertain_tokens: int = 0
    unpriced_calls: int = 0


class UsageReader(Protocol):
    """Sums up the ledger as it is committed at one moment: every call that was intended counts exactly once."""

    async def usage(self, by: UsageBy, *, key_name: str | None, limit: int = MAX_USAGE_ITEMS) -> Sequence[UsageItem]:
        """The sums over the calls of that API key, or of everybody with None; at most `limit` of them.

        Deliberations and days come newest first, the others with the dearest first and by name where they cost the same. Raises
        `DependencyUnavailableError`.
        """
        ...
