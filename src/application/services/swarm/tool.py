"""The Tool: runs the task's function for the agents of one instance of the swarm."""

from __future__ import annotations

import asyncio
import json
from asyncio import Task
from collections.abc import Callable, Mapping

from application.services.swarm.task import AgentRefusedError, SwarmTask
from application.services.swarm.voice import Voice
from application.services.swarm.words import ACTOR, COORDINATOR, SAFETY, TOOL, TOOLS, Order, Say
from domain.models.message import Message, Payload

__all__ = ["MAX_RESULT_BYTES", "Tool"]

MAX_RESULT_BYTES = 65_536

_MAX_REASON_CHARACTERS = 200
_HEARERS = 4


class Tool:
    """Every agent acts in a task of its own and speaks in its own name; one that raises, or dies, is reported by name.

    Only the Actor is obeyed; anybody else's order is shown to Safety.
    """

    groups = (TOOLS,)

    def __init__(
        self, voice: Voice, task: SwarmTask, *, name: str = TOOL, usage: Callable[[], Mapping[str, Payload]]
    ) -> None:
        """`usage` says what this process has used, for whoever stops it."""
        self.name = name
        self.stopped = asyncio.Event()
        # How many agents acted here to an end of their own, well or badly.
        self.performed = 0
        self._voice = voice
        self._task = task
        self._usage = usage
        self._acting: dict[Task[Payload], Order] = {}
        self._words: list[Message] = []
        self._has_words = asyncio.Event()

    async def take(self, messages: list[Message]) -> None:
        """Let agents act; or stop them all."""
        for message in messages:
            if message.type == Say.ORDER and message.sender == ACTOR and (order := Order.read(message)) is not None:
                if not self.stopped.is_set():
                    self._begin(order)
            elif message.type == Say.STOP and message.sender == COORDINATOR:
                self.stop()
                await self._voice.answer(message, dict(self._usage()))
            else:
                detail = {"rule": "foreign_order", "sender": message.sender[:80], "detail": message.type[:80]}
                await self._voice.say([self._voice.tell(self.name, SAFETY, Say.SUSPECT, {**detail})])

    async def speak(self) -> None:
        """Send what agents say, all that was said by now at once, for ever. Raises `BusError` where that cannot be."""
        while True:
            await self._has_words.wait()
            self._has_words.clear()
            words, self._words = self._words, []
            await self._voice.say(words, inboxes=_HEARERS)

    def stop(self) -> None:
        """Take no more orders, and end the agents that still act."""
        self.stopped.set()
        for acting in self._acting:
            acting.cancel()

    async def close(self) -> None:
        """Return once no agent acts any more."""
        self.stop()
        await asyncio.gather(*self._acting, return_exceptions=True)

    def _begin(self, order: Order) -> None:
        acting = asyncio.get_running_loop().create_task(
            self._perform(order), name=self._task.terms.agent_id(order.number)
        )
        self._acting[acting] = order
        acting.add_done_callback(self._note_end)

    async def _perform(self, order: Order) -> Payload:
        return await self._task.perform(order.number, order.item)

    def _note_end(self, acting: Task[Payload]) -> None:
        order = self._acting.pop(acting)
        if self.stopped.is_set():
            # Its end is the Coordinator's wish; nobody asks what it came to. The error, if any, counts as seen.
            _ = acting.cancelled() or acting.exception()
            return
        self.performed += 1
        if acting.cancelled():
            self._words.append(self._failed(order, kind="died", reason="the agent was killed while it acted"))
        elif (error := acting.exception()) is None:
            self._words.append(self._result(order, acting.result()))
        elif isinstance(error, AgentRefusedError):
            self._words.append(self._failed(order, kind=error.kind, reason=str(error), final=error.final))
        else:
            self._words.append(self._failed(order, kind="raised", reason=f"{type(error).__name__}: {error}"))
        self._has_words.set()

    def _result(self, order: Order, result: Payload) -> Message:
        terms = self._task.terms
        agent_id = terms.agent_id(order.number)
        if not (isinstance(result, str) and len(result) <= _SHORT):
            try:
                result = _carried(result)
            except ValueError as error:
                return self._failed(order, kind="bad_result", reason=str(error), final=True)
        payload: Payload = {
            "agent_id": agent_id,
            "batch": order.batch,
            "attempt": order.attempt,
            "ticket": order.ticket,
            "result": result,
        }
        return Message(agent_id, terms.group, terms.result_type, payload)

    def _failed(self, order: Order, *, kind: str, reason: str, final: bool = False) -> Message:
        terms = self._task.terms
        payload: Payload = {
            "agent_id": terms.agent_id(order.number),
            "batch": order.batch,
            "attempt": order.attempt,
            "ticket": order.ticket,
            "kind": kind,
            "message": reason[:_MAX_REASON_CHARACTERS],
            "final": final,
        }
        return Message(self.name, terms.group, Say.FAILED, payload)


_SHORT = MAX_RESULT_BYTES // 12


def _carried(result: object) -> Payload:
    """A result as JSON carries it. Raises ValueError saying why it cannot."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the result is no JSON value: {error}") from None
    if len(text) > MAX_RESULT_BYTES:
        raise ValueError(f"the result has {len(text)} bytes of JSON, at most {MAX_RESULT_BYTES} are taken")
    found: Payload = json.loads(text)
    return found
