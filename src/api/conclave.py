"""The open service as the doors see it: its use cases, and nothing of how they are fulfilled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from application.ports.bus_traffic import BusTraffic
from application.ports.provider_standing import ProviderStanding
from application.ports.roster_source import RosterSource
from application.ports.usage_reader import UsageReader
from application.services.acceptance import Acceptance
from application.services.api_keys import ApiKeyring
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService
from application.services.halt_service import HaltService
from application.services.price_check import require_prices
from application.services.quote_service import QuoteService
from application.services.recount_service import RecountService
from application.services.resolution_service import ResolutionService
from application.services.run_service import RunService
from application.services.topic_balance import TopicBalance
from application.services.track_record_service import TrackRecordService
from application.services.witness_service import WitnessService
from application.services.worth_service import WorthService
from domain.analysis.control import control_specification
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.agent_pool import AgentPool
from domain.models.deliberation import Specification
from domain.models.money import KeyBudget, Price

__all__ = ["Check", "Conclave", "Health"]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether one dependency works now, and when it does not, what to do."""

    works: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `conclave doctor`: what was looked at, whether it is well, and the remedy when it is not."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """A model by its full name; `known` is None where its provider was not asked or did not say, `price` where nobody knows it."""

    name: str
    known: bool | None
    price: Price | None


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """How a provider stands: `accepted` is whether it takes the key, `json_schema` whether it takes a schema of the reply.

    None is what could not be found out. `limits` are those that are set, `offered` the models that it lists, and `calls` how many
    were made to find this out, none or one.
    """

    name: str
    address: str
    has_key: bool
    reachable: bool
    accepted: bool | None
    models: Sequence[ModelCheck]
    json_schema: bool | None
    limits: Mapping[str, int]
    offered: Sequence[str] = ()
    calls: int = 0
    problem: str = ""
    remedy: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether it does not take the key or does not know a model."""
        return self.accepted is False or any(model.known is False for model in self.models)

    @property
    def works(self) -> bool:
        """Whether its models can be asked."""
        return self.reachable and not self.is_refused and not self.problem


@dataclass(frozen=True, slots=True)
class Conclave:
    """An open service. Made by `api.bootstrap` alone, which also closes it."""

    deliberations: DeliberationService
    acceptance: Acceptance
    outputs: DeliberationOutputService
    worth: WorthService
    recounts: RecountService
    resolutions: ResolutionService
    record: TrackRecordService
    topics: TopicBalance
    quotes: QuoteService
    usage: UsageReader
    witness: WitnessService
    halt: HaltService
    rosters: RosterSource
    fan_out: ConcurrentDeliberationService
    runs: RunService
    keys: ApiKeyring
    health: Mapping[str, Callable[[], Awaitable[Health]]]
    render_metrics: Callable[[str | None], tuple[bytes, str]]
    data_dir: Path
    orchestrator: str
    simulated: bool
    notices: Sequence[str] = field(default_factory=tuple)
    # What stands at the head of every page of the room.
    banner: str = ""
    http_telemetry: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, KeyBudget] = field(default_factory=dict)
    # The JWK set that webhooks verify with; reads files.
    webhook_keys: Callable[[], Mapping[str, Any]] = field(default=lambda: {"keys": []})
    # How those stand who answer for the agents; costs no wait.
    providers: Callable[[], Sequence[ProviderStanding]] = tuple
    # What the buses of all runs carried, by transport; may wait for a disk, so an event loop calls from a thread.
    buses: Callable[[], Sequence[BusTraffic]] = tuple

    def require_models(self, specification: Specification, *, key_name: str | None) -> None:
        """Raise `InvalidSpecificationError` naming each member whose model cannot be asked, or not within a limit of money."""
        require_prices(specification, self.fan_out.desk, budgets=self.budgets, key_name=key_name)
        if specification.control is not None:
            try:
                alone = control_specification(specification)
                require_prices(alone, self.fan_out.desk, budgets=self.budgets, key_name=key_name)
            except InvalidSpecificationError as error:
                # All its members have one model, so what is wrong with the first is wrong with the control.
                raise InvalidSpecificationError.at("/control/model", error.problems[0].message) from None

    @property
    def pool(self) -> AgentPool:
        """The pool of agent slots."""
        return self.fan_out.pool
