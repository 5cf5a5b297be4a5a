"""The open service as the doors see it: its use cases, and nothing of how they are fulfilled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from application.ports.roster_source import RosterSource
from application.services.acceptance import Acceptance
from application.services.api_keys import ApiKeyring
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService
from application.services.halt_service import HaltService
from application.services.witness_service import WitnessService
from domain.models.agent_pool import AgentPool

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
class Conclave:
    """An open service. Made by `api.bootstrap` alone, which also closes it."""

    deliberations: DeliberationService
    acceptance: Acceptance
    outputs: DeliberationOutputService
    witness: WitnessService
    halt: HaltService
    rosters: RosterSource
    fan_out: ConcurrentDeliberationService
    keys: ApiKeyring
    health: Mapping[str, Callable[[], Awaitable[Health]]]
    render_metrics: Callable[[str | None], tuple[bytes, str]]
    data_dir: Path
    orchestrator: str
    simulated: bool
    notices: Sequence[str] = field(default_factory=tuple)
    http_telemetry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pool(self) -> AgentPool:
        """The pool of agent slots."""
        return self.fan_out.pool
