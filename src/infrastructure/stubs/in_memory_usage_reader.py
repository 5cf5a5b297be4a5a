"""Sums up calls that are kept in memory, as the databases do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from application.ports.usage_reader import MAX_USAGE_ITEMS, UsageBy, UsageItem
from domain.models.money import usd

__all__ = ["InMemoryUsageReader", "SpentCall"]


@dataclass(frozen=True, slots=True)
class SpentCall:
    """A call of the ledger with what is known of its charge: costs are picodollars, None without a known price.

    `position` is that of its deliberation, in the order of acceptance; `model` the one that answered, or else was asked. Unless it
    `is_certain` what it took, it counts with what it holds.
    """

    deliberation_id: str
    position: int
    key_name: str | None
    model: str | None
    day: str
    held_tokens: int
    held_cost: int | None
    is_certain: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None


class InMemoryUsageReader:
    """`UsageReader` over whatever `calls` returns at the moment of reading."""

    def __init__(self, calls: Callable[[], Iterable[SpentCall]]) -> None:
        self._calls = calls

    async def usage(self, by: UsageBy, *, key_name: str | None, limit: int = MAX_USAGE_ITEMS) -> Sequence[UsageItem]:
        """As in `UsageReader`."""
        sums: dict[str, _Sum] = {}
        for call in self._calls():
            if key_name is None or call.key_name == key_name:
                sums.setdefault(_key_of(call, by), _Sum()).add(call)
        ordered = sorted(sums, key=lambda key: (-sums[key].cost, key))
        if by is UsageBy.DAY:
            ordered.sort(reverse=True)
        elif by is UsageBy.DELIBERATION:
            ordered.sort(key=lambda key: -sums[key].position)
        return [sums[key].item(key) for key in ordered[: max(0, limit)]]


def _key_of(call: SpentCall, by: UsageBy) -> str:
    model = call.model or ""
    provider, slash, _ = model.partition("/")
    return {
        UsageBy.DELIBERATION: call.deliberation_id,
        UsageBy.KEY: call.key_name or "",
        UsageBy.PROVIDER: provider if slash else "",
        UsageBy.MODEL: model,
        UsageBy.DAY: call.day,
    }[by]


class _Sum:
    __slots__ = ("calls", "cost", "held_cost", "held_tokens", "input_tokens", "output_tokens", "position", "unpriced")

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.output_tokens = self.held_tokens = self.position = 0
        self.cost = self.held_cost = self.unpriced = 0

    def add(self, call: SpentCall) -> None:
        self.calls += 1
        self.position = call.position
        if call.is_certain:
            self.input_tokens += call.input_tokens
            self.output_tokens += call.output_tokens
            self.cost += call.cost or 0
            self.unpriced += call.cost is None
        else:
            self.held_tokens += call.held_tokens
            self.held_cost += call.held_cost or 0
            self.unpriced += call.held_cost is None

    def item(self, key: str) -> UsageItem:
        return UsageItem(
            key,
            self.calls,
            self.input_tokens,
            self.output_tokens,
            usd(self.cost),
            usd(self.held_cost),
            self.held_tokens,
            self.unpriced,
        )
