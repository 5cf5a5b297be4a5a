"""A server whose deliberations carry the hostile texts in every place that takes a text, and harmless twins of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.conclave_fixture import RunningServer, running_server
from tests.hostile_texts import MAX_BYTES

__all__ = ["Carried", "HostileChamber", "Mouth", "batches", "harmless", "hostile_chamber"]

_MEMBERS = 72
_OPTIONS = 48


class Mouth:
    """Answers, gives reasons and fails in the words that were put into it; an `AgentInvocationError` is raised."""

    def __init__(self) -> None:
        self.replies: Mapping[str, str | AgentInvocationError] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """What was prepared for that agent."""
        await self.go_on.wait()
        reply = self.replies[request.agent_id]
        if isinstance(reply, AgentInvocationError):
            raise reply
        return AgentOutput(request.agent_id, request.request_id, reply, model="small", usage=Usage(1))


@dataclass(frozen=True)
class Carried:
    """One deliberation and the texts in it: `texts[place]` is the persona and the reason of the agent with that number."""

    id: str
    texts: Sequence[str]
    body: Mapping[str, Any]


@dataclass
class HostileChamber:
    """A server, its mouth, and what it was asked."""

    server: RunningServer
    mouth: Mouth
    asked: list[Carried] = field(default_factory=list)

    def choose(self, texts: Sequence[str], *, wait: bool = True, shown: int = MAX_BYTES) -> Carried:
        """Each text is an option, and is chosen for itself by its agent; the failures of the others are the first ones again.

        Of each text at most `shown` characters are the option.
        """
        options = [f"{place:02d} {text[:shown]}" for place, text in enumerate(texts)]
        replies: dict[str, str | AgentInvocationError] = {
            f"voice-{place}": _ballot(options[place], text) for place, text in enumerate(texts)
        }
        for place, text in enumerate(texts[: _MEMBERS - _OPTIONS], start=len(texts)):
            name = f"voice-{place}"
            replies[name] = AgentInvocationError(text, agent_id=name, kind="simulated_failure", usage=Usage())
        return self._ask(texts, replies, {"kind": "choice", "options": options}, wait=wait)

    def answer(self, texts: Sequence[str]) -> Carried:
        """Each text is what an agent answers in its own words."""
        replies = {f"voice-{place}": _ballot(text, text) for place, text in enumerate(texts)}
        return self._ask(texts, replies, {"kind": "text"}, wait=True)

    def _ask(
        self, texts: Sequence[str], replies: Mapping[str, str | AgentInvocationError], answer: Any, *, wait: bool
    ) -> Carried:
        self.mouth.replies = replies
        body = {
            "question": "\n".join(texts),
            "context": "\n\n".join(reversed(texts)),
            "answer": answer,
            "agents": {
                "members": [
                    {"id": f"voice-{place}", "persona": texts[place % len(texts)]} for place in range(len(replies))
                ]
            },
            "metadata": {"origin": texts[0][:60], "note": texts[-1][:60]},
            "limits": {"max_attempts": 1},
        }
        answered = self.server.post(body, query="?wait=30" if wait else "")
        assert answered.document.get("status") in {"completed", "queued", "running"}, answered.document
        found = Carried(answered.document["id"], list(texts), body)
        self.asked.append(found)
        return found


def _ballot(answer: str, reasoning: str) -> str:
    return json.dumps({"answer": answer, "confidence": 0.5, "reasoning": reasoning})


def batches(texts: Sequence[str], size: int = _OPTIONS) -> Iterator[Sequence[str]]:
    """The texts in parts of `size`, each with some of every category, and in no part two that are the same but for case and spaces.

    Parts that are short by some are filled up with texts of others.
    """
    parts: list[dict[str, str]] = [{} for _ in range(-(-len(texts) // size) + 1)]
    for place, text in enumerate([*texts, *texts]):
        if place == len(texts):
            parts = [part for part in parts if part]
        words = " ".join(text.casefold().split())
        rooms = [*parts[place % len(parts) :], *parts[: place % len(parts)]]
        room = next((part for part in rooms if len(part) < size and words not in part), None)
        if room is not None:
            room[words] = text
    yield from (list(part.values()) for part in parts)


def harmless(place: int, text: str) -> str:
    """A text of the same length and lines that holds letters alone, and is another at every place."""
    name = "twin" + "".join("abcdefghij"[int(digit)] for digit in f"{place:03d}")
    letters = iter((name + "x" * len(text))[: max(len(text), len(name))])
    lines = "".join("\n" if character == "\n" else next(letters) for character in text)
    return lines + "".join(letters)[: max(0, len(name) - len(text))]


@contextmanager
def hostile_chamber() -> Iterator[HostileChamber]:
    """One without API keys, whose halt can be set."""
    mouth = Mouth()
    channels = [HaltChannelStub("database"), HaltChannelStub("file")]
    with running_server(orchestrator=mouth, channels=channels) as server:
        yield HostileChamber(server, mouth)
