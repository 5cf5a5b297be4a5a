"""Messages and responses of a soak over a message bus; whoever says `ready` there is an agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from application.ports.message_bus import Message, MessageBus, Payload, Priority
from application.ports.soak_agents import Order, UndeliverableError
from domain.errors.bus import BusClosedError, BusError
from domain.models.run import JsonValue
from domain.models.soak import is_agent_id
from infrastructure.soak.bus_agent import ORCHESTRATOR
from infrastructure.soak.process_gauge import is_alive

__all__ = ["BusPost"]

_BATCH = 100
_SEND_WITHIN_S = 5.0
_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class _Present:
    pid: int
    address: str


class BusPost:
    """A `SoakPost` over any transport. An agent takes messages at an address of its own each time it is started; a message that its killed
    predecessor had not answered is sent to it again. What comes and is neither `ready`, `stopped` nor a response is corrupt.
    """

    def __init__(self, bus: MessageBus) -> None:
        self.on_response: Callable[[str, str, Mapping[str, JsonValue]], None] = lambda _agent, _id, _response: None
        self._bus = bus
        self._corrupt = 0
        self._own: dict[str, int] = {}
        self._present: dict[str, _Present] = {}
        self._open_orders: dict[str, Order] = {}
        self._resends: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    @property
    def corrupt(self) -> int:
        """Messages that are none of a soak."""
        return self._corrupt

    async def open(self) -> None:
        """Take the name under which agents answer, and begin to listen."""
        await self._bus.register(ORCHESTRATOR, capacity=100_000)
        self._listening = asyncio.create_task(self._listen())

    def expect(self, agent: str, pid: int | None) -> None:
        """Note whose `ready` counts."""
        if pid is None:
            self._own.pop(agent, None)
            self._present.pop(agent, None)
            self._open_orders.pop(agent, None)
        else:
            self._own[agent] = pid
            self._send_again(agent)
        self._turn.set()

    def ended(self, agent: str) -> None:
        """Nobody takes messages at its address any more."""
        self._present.pop(agent, None)

    def taken(self) -> frozenset[str]:
        """Names of others."""
        return frozenset(self._present.keys() - self._own.keys())

    async def ready(self, agents: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """Wait for their `ready`."""
        wanted = set(agents)
        try:
            async with asyncio.timeout(timeout_s):
                while not all(self._is_ready(agent) for agent in wanted):
                    self._turn.clear()
                    await self._turn.wait()
        except TimeoutError:
            # Who is not ready is left out of the answer.
            pass
        return frozenset(agent for agent in wanted if self._is_ready(agent))

    def members(self) -> Mapping[str, int]:
        """The run's own that are ready, then others who live."""
        found = {agent: pid for agent, pid in self._own.items() if self._is_ready(agent)}
        for agent, present in self._present.items():
            if agent not in self._own and is_alive(present.pid):
                found[agent] = present.pid
        return found

    def lives(self, agent: str) -> bool:
        """By its pid."""
        present = self._present.get(agent)
        return agent in self._own or (present is not None and is_alive(present.pid))

    def begin_cycle(self) -> None:
        """Nothing lies about."""

    async def put(self, order: Order) -> None:
        """Send it to the agent's address."""
        self._open_orders[order.agent] = order
        try:
            await self._send(order)
        except UndeliverableError:
            # Whoever asked tries again; its successor would be sent it twice.
            if self._open_orders.get(order.agent) is order:
                del self._open_orders[order.agent]
            raise

    async def _send(self, order: Order) -> None:
        present = self._present.get(order.agent)
        if present is None:
            raise UndeliverableError("the agent has not said that it is ready")
        message = Message(
            ORCHESTRATOR,
            present.address,
            order.kind,
            {"messageId": order.message_id, "cycle": order.cycle, "data": _payload(order.data)},
            Priority(order.priority),
        )
        try:
            await self._bus.send(message, timeout=_SEND_WITHIN_S)
        except BusError as error:
            raise UndeliverableError(str(error)) from error

    def withdraw(self, agent: str) -> None:
        """It is not sent again."""
        self._open_orders.pop(agent, None)

    async def audit(self, *, final: bool = False) -> None:
        """The bus tells everything; at the end what was sent just now is waited for."""
        await asyncio.sleep(_AGAIN_S if final else 0)

    def size_bytes(self) -> int:
        """Not told by a bus."""
        return 0

    async def close(self) -> None:
        """Leave the bus."""
        for task in (*self._resends, *(() if self._listening is None else (self._listening,))):
            task.cancel()
            await asyncio.wait({task})
        with contextlib.suppress(BusError):
            await self._bus.unregister(ORCHESTRATOR)
        await self._bus.close()

    def _is_ready(self, agent: str) -> bool:
        present = self._present.get(agent)
        return present is not None and present.pid == self._own.get(agent)

    async def _listen(self) -> None:
        while True:
            try:
                messages = await self._bus.receive_many(ORCHESTRATOR, _BATCH)
            except BusClosedError:
                return
            except BusError:
                # The transport is away; what it carries comes when it is back, or is lost by the timeout of the cycle.
                await asyncio.sleep(_AGAIN_S)
                continue
            for message in messages:
                self._take(message)

    def _take(self, message: Message) -> None:
        payload = message.payload if isinstance(message.payload, dict) else {}
        agent = payload.get("agentId")
        if not isinstance(agent, str) or not is_agent_id(agent):
            self._corrupt += 1
        elif message.type == "ready":
            self._note_ready(agent, payload)
        elif message.type == "stopped":
            if agent not in self._own:
                self._present.pop(agent, None)
        elif message.type == "response" and isinstance(payload.get("messageId"), str):
            order = self._open_orders.get(agent)
            if order is not None and order.message_id == payload["messageId"]:
                del self._open_orders[agent]
            self.on_response(agent, str(payload["messageId"]), _document(payload))
        else:
            self._corrupt += 1

    def _note_ready(self, agent: str, payload: Mapping[str, object]) -> None:
        pid, address = payload.get("pid"), payload.get("address")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1 or not isinstance(address, str):
            self._corrupt += 1
            return
        self._present[agent] = _Present(pid, address)
        self._send_again(agent)
        self._turn.set()

    def _send_again(self, agent: str) -> None:
        """Whoever was started again is sent what its predecessor had not answered."""
        order = self._open_orders.get(agent)
        if order is not None and self._is_ready(agent):
            task = asyncio.get_running_loop().create_task(self._put_again(order))
            self._resends.add(task)
            task.add_done_callback(self._resends.discard)

    async def _put_again(self, order: Order) -> None:
        try:
            await self._send(order)
        except UndeliverableError:
            # It stays open for the next successor, or is lost by the timeout of its cycle.
            return


def _payload(data: Mapping[str, JsonValue]) -> dict[str, Payload]:
    """What JSON holds a bus carries."""
    return {name: cast(Payload, value) for name, value in data.items()}


def _document(payload: Mapping[str, Payload]) -> dict[str, JsonValue]:
    """A payload without what no JSON holds, which no agent of ours sends."""
    return {name: cast(JsonValue, value) for name, value in payload.items() if not isinstance(value, bytes)}
