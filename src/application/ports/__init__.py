"""The ports of the application, exported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from application.ports.agent_orchestrator import (
        AgentOrchestratorProtocol,
        AgentOutput,
        AgentRequest,
        ContextBundle,
    )
    from application.ports.clock import Clock, SystemClock
    from application.ports.deliberation_repository import (
        Commit,
        DeliberationReader,
        DeliberationRepository,
        Leases,
        Page,
        StoredRecord,
    )
    from application.ports.halt_checker import HaltChecker
    from application.ports.metrics import Metrics, NullMetrics
    from application.ports.roster_source import RosterSource

_EXPORTS = {
    "agent_orchestrator": ("AgentOrchestratorProtocol", "AgentOutput", "AgentRequest", "ContextBundle"),
    "clock": ("Clock", "SystemClock"),
    "deliberation_repository": (
        "Commit",
        "DeliberationReader",
        "DeliberationRepository",
        "Leases",
        "Page",
        "StoredRecord",
    ),
    "halt_checker": ("HaltChecker",),
    "metrics": ("Metrics", "NullMetrics"),
    "roster_source": ("RosterSource",),
}

__all__ = [
    "AgentOrchestratorProtocol",
    "AgentOutput",
    "AgentRequest",
    "Clock",
    "Commit",
    "ContextBundle",
    "DeliberationReader",
    "DeliberationRepository",
    "HaltChecker",
    "Leases",
    "Metrics",
    "NullMetrics",
    "Page",
    "RosterSource",
    "StoredRecord",
    "SystemClock",
]


def __getattr__(name: str) -> object:
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f"application.ports.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
