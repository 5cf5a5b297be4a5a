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
    from application.ports.ballot_history import BallotHistory
    from application.ports.clock import Clock, SystemClock
    from application.ports.deliberation_repository import (
        Commit,
        DeliberationReader,
        DeliberationRepository,
        Leases,
        Page,
        StoredRecord,
    )
    from application.ports.halt_channel import HaltChannel
    from application.ports.halt_checker import HaltChecker
    from application.ports.inference import Inference
    from application.ports.message_bus import (
        Acknowledgement,
        BusStats,
        DeadLetter,
        DeadLetterReason,
        Message,
        MessageBus,
        MessageHeader,
        Overflow,
        Payload,
        Priority,
        Tap,
    )
    from application.ports.metrics import Metrics, NullMetrics
    from application.ports.model_desk import ModelDesk, NullModelDesk
    from application.ports.roster_source import RosterSource
    from application.ports.run_observer import RunObserver
    from application.ports.state_store import StateStore
    from application.ports.witness_log import WitnessLog
    from application.ports.work_queue import WorkQueue

_EXPORTS = {
    "agent_orchestrator": (
        "AgentOrchestratorProtocol",
        "AgentOutput",
        "AgentRequest",
        "ContextBundle",
    ),
    "ballot_history": ("BallotHistory",),
    "clock": ("Clock", "SystemClock"),
    "deliberation_repository": (
        "Commit",
        "DeliberationReader",
        "DeliberationRepository",
        "Leases",
        "Page",
        "StoredRecord",
    ),
    "halt_channel": ("HaltChannel",),
    "halt_checker": ("HaltChecker",),
    "inference": ("Inference",),
    "message_bus": (
        "Acknowledgement",
        "BusStats",
        "DeadLetter",
        "DeadLetterReason",
        "Message",
        "MessageBus",
        "MessageHeader",
        "Overflow",
        "Payload",
        "Priority",
        "Tap",
    ),
    "metrics": ("Metrics", "NullMetrics"),
    "model_desk": ("ModelDesk", "NullModelDesk"),
    "roster_source": ("RosterSource",),
    "run_observer": ("RunObserver",),
    "state_store": ("StateStore",),
    "witness_log": ("WitnessLog",),
    "work_queue": ("WorkQueue",),
}

__all__ = [
    "Acknowledgement",
    "AgentOrchestratorProtocol",
    "AgentOutput",
    "AgentRequest",
    "BallotHistory",
    "BusStats",
    "Clock",
    "Commit",
    "ContextBundle",
    "DeadLetter",
    "DeadLetterReason",
    "DeliberationReader",
    "DeliberationRepository",
    "HaltChannel",
    "HaltChecker",
    "Inference",
    "Leases",
    "Message",
    "MessageBus",
    "MessageHeader",
    "Metrics",
    "ModelDesk",
    "NullMetrics",
    "NullModelDesk",
    "Overflow",
    "Page",
    "Payload",
    "Priority",
    "RosterSource",
    "RunObserver",
    "StateStore",
    "StoredRecord",
    "SystemClock",
    "Tap",
    "WitnessLog",
    "WorkQueue",
]


def __getattr__(name: str) -> object:
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f"application.ports.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
