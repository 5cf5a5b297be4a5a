"""Replays: the engine in a loop of virtual time, over a record, with nothing else open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from application.ports.agent_orchestrator import AgentRequest
    from application.services.replay import ReplayReport

__all__ = ["replay_bundle"]

_WRITTEN_HERE = "openai"


def replay_bundle(bundle: Mapping[str, Any]) -> ReplayReport:
    """Run the deliberation of that bundle again; needs no settings, no key and no database. Blocks, and makes a loop of its own.

    Raises `NotReplayableError` and `VerificationRefusedError`.
    """
    from application.services.replay import ReplayTools, replay
    from infrastructure.orchestrators.chat_request import ChatRequestWriter
    from infrastructure.orchestrators.prompt_version import prompt_version
    from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
    from infrastructure.stubs.virtual_time import VirtualClock, run_in_virtual_time
    from infrastructure.witness.canonical_json import canonical_json

    writer, words = ChatRequestWriter(), prompt_version()
    is_ours = f'"orchestrator":"{_WRITTEN_HERE}"' in str(bundle.get("entries"))

    def write(request: AgentRequest, intent: Mapping[str, Any]) -> str | None:
        return writer.prompt(request) if is_ours and intent.get("prompt_version") == words else None

    async def work() -> ReplayReport:
        tools = ReplayTools(encode=canonical_json, write=write, clock=VirtualClock(), halt=HaltCheckerStub())
        return await replay(bundle, tools)

    return run_in_virtual_time(work())
