"""The use case: one instance of a swarm in a process of its own, which joins a session and works until that ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from application.ports.message_bus import MessageBus
from application.services.stop_signal import StopSignal
from application.services.swarm.swarm import ProcessUsage
from application.services.swarm.task import SwarmTask
from application.services.swarm.tool import Tool
from application.services.swarm.voice import Voice, listen
from application.services.swarm.words import COORDINATOR, TOOLS, Say
from domain.errors.bus import RequestTimeoutError, UnknownAgentError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.message import Payload

__all__ = ["Invitation", "SwarmInstance"]

_REPLY_S = 5.0
_LOOK_S = 0.2
_LEAST_PATIENCE_S = 1.0
# So many beats without an answer, and the session is over.
_MISSED_BEATS = 3


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a session says of itself to whoever wants to join it."""

    session: str
    task: str
    agents: int
    seed: int
    has_items: bool
    beat_s: float

    @classmethod
    def read(cls, payload: Payload) -> Invitation | None:
        """The invitation in a reply, None where there is none."""
        match payload:
            case {
                "session": str(session),
                "task": str(task),
                "agents": int(agents),
                "seed": int(seed),
                "has_items": bool(has_items),
                "beat_s": float(beat_s),
            }:
                return cls(session, task, agents, seed, has_items, beat_s)
        return None


class SwarmInstance:
    """Lends this process to a session: its agents act here when the Actor says so, until the Coordinator ends it or is gone."""

    def __init__(
        self,
        *,
        name: str,
        session: str,
        bus: MessageBus,
        make_task: Callable[[Invitation], Awaitable[SwarmTask]],
        usage: Callable[[], ProcessUsage],
        facts: Mapping[str, Payload],
        patience_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make_task` refuses by `ConfigurationError` what this process is not to do; `facts` are `host` and `pid`."""
        self._name = name
        self._session = session
        self._bus = bus
        self._make_task = make_task
        self._usage = usage
        self._facts = facts
        self._patience_s = patience_s
        self._clock = clock

    async def run(self, stop: StopSignal) -> dict[str, Payload]:
        """Work until the session ends; what was done here.

        Raises `DependencyUnavailableError` where no such session is to be found within the patience, `ConfigurationError` for a
        task that is not to be done here, and `BusError`.
        """
        async with self._bus:
            voice = Voice(self._bus)
            await self._bus.register(self._name)
            try:
                invitation = await self._find(voice, stop)
            except DependencyUnavailableError:
                # Nothing is to stay behind where there is no such session.
                await self._bus.unregister(self._name)
                raise
            if invitation is None:
                await self._bus.unregister(self._name)
                return self._ended(str(stop.reason), performed=0)
            task = await self._make_task(invitation)
            began = self._usage()

            def used() -> dict[str, Payload]:
                now = self._usage()
                return {
                    "cpu_s": now.cpu_s - began.cpu_s,
                    "peak_rss_bytes": now.peak_rss_bytes,
                    "transport_bytes": voice.count_bytes(),
                    "performed": tool.performed,
                }

            tool = Tool(voice, task, name=self._name, usage=used)
            try:
                await self._bus.join(self._name, TOOLS)
                ending = "coordinator_gone"
                if await self._is_admitted(voice, task.slots):
                    ending = await self._work(tool, voice, invitation, stop)
            finally:
                await tool.close()
                await task.close()
            await self._bus.unregister(self._name)
        return self._ended(ending, performed=tool.performed)

    def _ended(self, ending: str, *, performed: int) -> dict[str, Payload]:
        return {"session": self._session, "instance": self._name, "ended_by": ending, "performed": performed}

    async def _find(self, voice: Voice, stop: StopSignal) -> Invitation | None:
        """Ask for the session until it answers; None where nobody wants it any more."""
        until = self._clock() + self._patience_s
        while not stop.is_set:
            try:
                found = await voice.ask(self._name, COORDINATOR, Say.HELLO, {**self._facts}, timeout=_REPLY_S)
            except (UnknownAgentError, RequestTimeoutError):
                found = {}
            invitation = Invitation.read(found)
            if invitation is not None:
                return invitation
            if self._clock() >= until:
                raise DependencyUnavailableError(
                    dependency=f"the session {self._session!r}",
                    problem="nobody coordinates it on that bus",
                    remedy="Compare --url and --session with what `conclave swarm run` says at its start.",
                )
            await asyncio.sleep(_LOOK_S)
        return None

    async def _is_admitted(self, voice: Voice, slots: int) -> bool:
        """Whether the Coordinator gives work to this instance: a session that is about to end does not."""
        facts: dict[str, Payload] = {**self._facts, "slots": slots}
        try:
            answer = await voice.ask(self._name, COORDINATOR, Say.READY, facts, timeout=_REPLY_S)
        except (UnknownAgentError, RequestTimeoutError):
            return False
        return answer.get("accepted") is True

    async def _work(self, tool: Tool, voice: Voice, invitation: Invitation, stop: StopSignal) -> str:
        """Listen until there is a reason not to; the reason."""
        listening = asyncio.create_task(listen(voice, tool), name=tool.name)
        speaking = asyncio.create_task(tool.speak(), name=f"{tool.name} speaks")
        ended = asyncio.create_task(tool.stopped.wait())
        beating = asyncio.create_task(self._beat(voice, invitation.beat_s))
        wanted = asyncio.create_task(stop.wait())
        tasks = {listening, speaking, ended, beating, wanted}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done & {listening, speaking, beating}:
                # A bus that is away is why one of them ends early.
                task.result()
            if wanted in done:
                await voice.say([voice.tell(self._name, COORDINATOR, Say.GONE, {"why": "it was told to end"})])
                return str(wanted.result().value)
            return "session_ended" if ended in done else "coordinator_gone"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self, voice: Voice, beat_s: float) -> None:
        """Say that this instance lives; return when nobody answers any more, or the Coordinator gave it up."""
        missed = 0
        patience_s = max(_LEAST_PATIENCE_S, 4 * beat_s)
        while missed < _MISSED_BEATS:
            await asyncio.sleep(beat_s)
            try:
                answer = await voice.ask(self._name, COORDINATOR, Say.ALIVE, timeout=patience_s)
            except RequestTimeoutError:
                missed += 1
                continue
            except UnknownAgentError:
                return
            if not answer.get("known"):
                return
            missed = 0
