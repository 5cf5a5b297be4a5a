"""How the service stands at one moment, for the view of operations: what everybody may know, and what belongs to one key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.conclave import Conclave, Health
from api.rest.health import look_at
from application.ports.bus_traffic import BusTraffic
from application.ports.deliberation_repository import Page
from application.ports.provider_standing import ProviderStanding
from application.ports.usage_reader import UsageBy, UsageItem
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.halt import HaltState
from domain.models.money import KeyBudget, usd
from domain.models.run import Run

__all__ = ["BudgetLine", "Charges", "Standing", "Work", "charges_of", "standing_of", "work_of"]

_MOST_LISTED = 20
_MOST_RUNS = 6
_MOST_DAYS = 14
_MOST_MODELS = 20
_EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is the same for everybody who may look. `halted_by` is as in `HaltService.set_by`."""

    capacity: int
    active: int
    waiting: int
    running: int
    queued: int
    is_stopping: bool
    health: Sequence[tuple[str, Health]]
    providers: Sequence[ProviderStanding]
    halt: HaltState
    halted_by: str | None
    buses: Sequence[BusTraffic]
    notices: Sequence[str]
    orchestrator: str

    @property
    def active_percent(self) -> float:
        """Of the pool, 0 to 100."""
        return 100.0 * self.active / self.capacity if self.capacity else 0.0

    @property
    def works(self) -> bool:
        """Whether every dependency does."""
        return all(health.works for _, health in self.health)


@dataclass(frozen=True, slots=True)
class Work:
    """What is under way that one key's name sees, or everybody's."""

    running: Sequence[Deliberation]
    queued: Sequence[Deliberation]
    has_more: bool
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget of a key's name in US dollars; `spent_day` and `spent_month` count what is uncertain at its worst."""

    name: str
    usd_per_day: float | None
    usd_per_month: float | None
    spent_day: float
    spent_month: float


@dataclass(frozen=True, slots=True)
class Charges:
    """What calls took, newest days and dearest models and keys first, and the budgets that hold for whoever looks."""

    days: Sequence[UsageItem]
    models: Sequence[UsageItem]
    keys: Sequence[UsageItem]
    budgets: Sequence[BudgetLine]
    problem: str = ""


async def standing_of(conclave: Conclave) -> Standing:
    """The state of the whole service, with each dependency looked at. Takes two seconds where one of them hangs."""
    names = list(conclave.health)
    found, buses = await asyncio.gather(
        asyncio.gather(*(look_at(name, conclave.health[name]) for name in names)), asyncio.to_thread(conclave.buses)
    )
    pool = conclave.pool
    return Standing(
        capacity=pool.max_concurrent,
        active=pool.active_count,
        waiting=conclave.fan_out.waiting_count,
        running=conclave.deliberations.running_count,
        queued=conclave.deliberations.queued_count,
        is_stopping=conclave.deliberations.is_stopping,
        health=list(zip(names, found, strict=True)),
        providers=conclave.providers(),
        halt=conclave.halt.status(),
        halted_by=conclave.halt.set_by(),
        buses=buses,
        notices=tuple(conclave.notices),
        orchestrator=conclave.orchestrator,
    )


async def work_of(conclave: Conclave, sees: str | None) -> Work:
    """What is under way for whoever sees that name. Raises `DependencyUnavailableError`."""
    running, queued, runs = await asyncio.gather(
        _page(conclave, sees, DeliberationStatus.RUNNING),
        _page(conclave, sees, DeliberationStatus.QUEUED),
        conclave.runs.page(status=None, key_name=sees, limit=_MOST_RUNS, cursor=None),
    )
    return Work(
        running=running.items,
        queued=queued.items,
        has_more=running.next_cursor is not None or queued.next_cursor is not None,
        runs=runs.items,
    )


async def charges_of(conclave: Conclave, sees: str | None, *, today: datetime | None = None) -> Charges:
    """What the calls of that name took, or everybody's with None. Says so where the store is away."""
    now = today or datetime.now(UTC)
    try:
        days, models, keys = await asyncio.gather(
            conclave.usage.usage(UsageBy.DAY, key_name=sees, limit=max(_MOST_DAYS, 31)),
            conclave.usage.usage(UsageBy.MODEL, key_name=sees, limit=_MOST_MODELS),
            conclave.usage.usage(UsageBy.KEY, key_name=sees, limit=_MOST_MODELS),
        )
        budgets = [await _line(conclave, name, budget, sees, days, now) for name, budget in _budgets(conclave, sees)]
    except DependencyUnavailableError as error:
        return Charges((), (), (), (), problem=f"{error.dependency} is away; nothing is lost.")
    return Charges(days[:_MOST_DAYS], models, keys, budgets)


async def _page(conclave: Conclave, sees: str | None, status: DeliberationStatus) -> Page:
    return await conclave.deliberations.page(status=status, key_name=sees, limit=_MOST_LISTED, cursor=None)


def _budgets(conclave: Conclave, sees: str | None) -> list[tuple[str, KeyBudget]]:
    """The budgets by name; one who sees its own name alone has that name's, or the one of all others."""
    if sees is None:
        return [(name, budget) for name, budget in conclave.budgets.items() if name != _EVERYBODY]
    budget = conclave.budgets.get(sees, conclave.budgets.get(_EVERYBODY))
    return [] if budget is None else [(sees, budget)]


async def _line(
    conclave: Conclave, name: str, budget: KeyBudget, sees: str | None, own: Sequence[UsageItem], now: datetime
) -> BudgetLine:
    days = own if sees == name else await conclave.usage.usage(UsageBy.DAY, key_name=name, limit=31)
    today, month = now.strftime("%Y-%m-%d"), now.strftime("%Y-%m-")
    return BudgetLine(
        name,
        None if budget.day is None else usd(budget.day),
        None if budget.month is None else usd(budget.month),
        spent_day=math.fsum(item.cost_usd + item.uncertain_usd for item in days if item.key == today),
        spent_month=math.fsum(item.cost_usd + item.uncertain_usd for item in days if item.key.startswith(month)),
    )
