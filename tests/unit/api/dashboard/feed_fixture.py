"""A house in virtual time with a live feed over it, and readers that keep what they are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from starlette.types import Message

from api.conclave import Conclave
from api.dashboard.chamber_state import ChamberState
from api.dashboard.feed_stream import FeedStream
from api.dashboard.halt_banner import HaltBanner
from api.dashboard.live_feed import LiveFeed
from api.rest.event_stream import StreamPlaces
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import NullModelDesk
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.worth_service import WorthService
from domain.models.budget import Usage
from infrastructure.stubs.in_memory_ballot_history import InMemoryBallotHistory
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import House
from tests.virtual_time import pass_time

__all__ = ["Reader", "Staggered", "drawn", "live_feed", "read_frames"]


class Staggered:
    """Answers each agent after as many seconds as are given for it; who has none hangs."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        seconds = self._seconds.get(request.agent_id)
        if seconds is None:
            await asyncio.Event().wait()
        await pass_time(seconds or 0.0)
        return AgentOutput(request.agent_id, request.request_id, '{"answer": "yes"}', usage=Usage(1, 10, 5))


def drawn(state: ChamberState) -> str:
    """A chamber in one line: how far it has come, and how everybody stands."""
    return f"{state.status.value} {state.sequence}: " + " ".join(mark.kind for mark in state.shown.seats.values())


def live_feed(house: House, *, outputs: Any = None, banner: HaltBanner | None = None) -> LiveFeed:
    """The feed of that house."""
    conclave = SimpleNamespace(
        deliberations=house.service,
        outputs=outputs or DeliberationOutputService(house.repository),
        worth=WorthService(InMemoryBallotHistory(house.repository)),
        fan_out=SimpleNamespace(desk=NullModelDesk()),
    )
    return LiveFeed(cast("Conclave", conclave), draw=drawn, clock=VirtualClock(), banner=banner)


class Reader:
    """The far end of a stream: keeps what it was sent and when, reads on only while `may_read` is set, and leaves when told."""

    def __init__(self) -> None:
        self.received: list[tuple[float, bytes]] = []
        self.left = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.may_read.wait()
        if body := message.get("body", b""):
            self.received.append((asyncio.get_running_loop().time(), body))

    async def read(
        self,
        feed: LiveFeed,
        deliberation_id: str | None = None,
        *,
        sees: str | None = None,
        places: StreamPlaces | None = None,
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Follow that deliberation, or the latest, to the end of the stream."""
        stream = FeedStream(
            feed, places=places or StreamPlaces(), deliberation_id=deliberation_id, sees=sees, until=until
        )
        await stream({"type": "http", "method": "GET", "path": "/", "headers": []}, self.receive, self.send)

    @property
    def frames(self) -> list[tuple[str, dict[str, Any]]]:
        """Every frame by its name."""
        return read_frames(b"".join(body for _, body in self.received))

    @property
    def text(self) -> str:
        """Everything that came."""
        return b"".join(body for _, body in self.received).decode()


def read_frames(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and document of each frame; comments and hints are none."""
    found = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
