"""Adapters that need nothing outside the process, exported lazily; held to the same contracts as the others."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
    from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
    from infrastructure.stubs.in_memory_repository import InMemoryRepository
    from infrastructure.stubs.virtual_time import VirtualTimeLoop

_EXPORTS = {
    "AgentOrchestratorStub": "agent_orchestrator_stub",
    "HaltCheckerStub": "halt_checker_stub",
    "InMemoryRepository": "in_memory_repository",
    "VirtualTimeLoop": "virtual_time",
}

__all__ = ["AgentOrchestratorStub", "HaltCheckerStub", "InMemoryRepository", "VirtualTimeLoop"]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(f"infrastructure.stubs.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
