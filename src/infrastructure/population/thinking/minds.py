"""What the agents of a population may ask beside their columns: models over the desk of the service, rosters, a function of Python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.ports.model_desk import ModelDesk
from domain.models.agent import Roster

__all__ = ["Desk", "Minds"]


class Desk(ModelDesk, AgentOrchestratorProtocol, Protocol):
    """Announces calls to models and makes them."""


@dataclass(frozen=True, slots=True)
class Minds:
    """How whatever thinks is reached; None where there is no such thing here."""

    # Opens the desk in the event loop that will ask over it, closed with the stack.
    open_desk: Callable[[AsyncExitStack], Desk] | None = None
    roster: Callable[[str], Roster] | None = None
    # For the thinker `callable`, from Python alone.
    think: Callable[..., Any] | None = None
