"""The life of a Redis bus object: says that it lives, hears what it is told, and puts back what a server forgot."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine

from domain.errors.bus import BusClosedError, BusError, BusUnavailableError
from infrastructure.buses.redis_control import RedisControl
from infrastructure.buses.redis_records import notes
from infrastructure.buses.redis_wire import RedisWire

__all__ = ["RedisPresence"]

_log = logging.getLogger(__name__)

_LEASE_S = 8.0
_BEAT_S = 2.0
_HEARD_S = 10.0

Settings = tuple[str | int, ...]


class RedisPresence:
    """From `open` to `close` the names of this object are its own, and whoever waits in it hears what there is to hear.

    A server that lost everything is noticed within two seconds, and told the names, settings and groups again.
    """

    def __init__(
        self,
        wire: RedisWire,
        control: RedisControl,
        *,
        told: Callable[[str, str], None],
        missed: Callable[[], None],
        looked: Callable[[], None],
    ) -> None:
        """`told` gets a kind of note and a name; `missed` is called when notes may have been lost, `looked` with every beat."""
        self._wire = wire
        self._control = control
        self._told = told
        self._missed = missed
        self._looked = looked
        # Settings by name, and memberships.
        self.own: dict[str, Settings] = {}
        self.joined: set[tuple[str, str]] = set()
        self.is_open = False
        self._closed = False
        self._opening = asyncio.Lock()
        self._born = ""
        self._heard = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Be there. Raises `BusClosedError` and `BusUnavailableError`."""
        if self._closed:
            raise BusClosedError(transport="redis")
        if not self.is_open:
            async with self._opening:
                if not self.is_open:
                    await self._begin()

    def refuse(self) -> None:
        """From now on nothing opens."""
        self._closed = True
        self._heard.set()

    async def leave(self) -> None:
        """Give up the names."""
        try:
            await self._control.ask("bye")
        except BusError as error:
            _log.info("the bus was closed without its Redis: %s", error)

    async def end(self) -> None:
        """Stop all that was started."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside, which ends with the bus at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def put_back(self, agent_id: str) -> bool:
        """Register an agent of this object again that the server does not know; False for one that is not ours (any more)."""
        settings = self.own.get(agent_id)
        if settings is None:
            return False
        _log.warning("the bus' Redis has lost the inbox of %r, which is put back", agent_id)
        if await self._control.ask("register", agent_id, *settings, 1) != b"K":
            self.own.pop(agent_id, None)
            return False
        for name, group in list(self.joined):
            if name == agent_id:
                await self._control.ask("join", name, group)
        return True

    async def _begin(self) -> None:
        self._born = (await self._beat())[0]
        if not self._tasks:
            self.start(self._wire.listen(self._hear, self._catch_up))
        try:
            async with asyncio.timeout(_HEARD_S):
                await self._heard.wait()
        except TimeoutError:
            raise BusUnavailableError(
                transport="redis",
                problem="Redis does not let this object subscribe",
                remedy="Check that it runs, and that the user may subscribe.",
            ) from None
        if self._closed:
            raise BusClosedError(transport="redis")
        self.start(self._live())
        self.is_open = True

    async def _live(self) -> None:
        """Say again and again that this object lives, and notice a Redis that forgot it or does not reach it."""
        while True:
            await asyncio.sleep(_BEAT_S)
            if self._closed:
                # Behind the farewell a beat would say that this object lives.
                return
            try:
                born, heard = await self._beat()
                if born != self._born:
                    for agent_id in list(self.own):
                        await self.put_back(agent_id)
                    self._born = born
                    await self._catch_up()
                if heard == "0":
                    await self._catch_up()
                self._looked()
            except BusClosedError:
                return
            except BusUnavailableError as error:
                _log.warning("%s", error)

    async def _beat(self) -> tuple[str, str]:
        answer = await self._control.ask("beat", int(_LEASE_S * 1e3), secrets.token_hex(8))
        born, _, heard = answer.decode().partition(" ")
        return born, heard

    async def _catch_up(self) -> None:
        self._heard.set()
        self._missed()

    def _hear(self, data: bytes) -> None:
        for kind, name in notes(data):
            self._told(kind, name)
