"""One agent of a soak that talks over a message bus, in a process of its own or as a task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import BusClosedError, BusError, UnknownAgentError
from infrastructure.soak.file_agent import work
from infrastructure.soak.process_gauge import OwnMemory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ORCHESTRATOR", "make_agent_bus", "run_bus_agent", "serve_over_bus", "warm_up"]

_WARM_UP = "soak-warm-up"
ORCHESTRATOR = "soak"
"""The name of who asks; an agent says `ready` to it, with `agentId`, `pid` and the `address` where it takes messages."""


def run_bus_agent(configuration: Mapping[str, Any], agent: str, ear: int) -> None:
    """Answer until the pipe `ear` says leave or ends."""
    asyncio.run(_run(configuration, agent, ear))


def warm_up(configuration: Mapping[str, Any]) -> None:
    """Open such a bus once, so that everything it imports is there before agents are forked. What is wrong with it they will say."""
    asyncio.run(_open_once(configuration))


async def _open_once(configuration: Mapping[str, Any]) -> None:
    with contextlib.suppress(BusError):
        async with make_agent_bus(configuration) as bus:
            await bus.register(_WARM_UP)
            await bus.unregister(_WARM_UP)


async def _run(configuration: Mapping[str, Any], agent: str, ear: int) -> None:
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hear() -> None:
        rung = os.read(ear, 4096)
        if not rung or b"q" in rung:
            loop.remove_reader(ear)
            leave.set()

    loop.add_reader(ear, hear)
    async with make_agent_bus(configuration) as bus:
        serving = asyncio.create_task(serve_over_bus(bus, agent, pid=os.getpid()))
        leaving = asyncio.create_task(leave.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
        await asyncio.wait({serving})


async def serve_over_bus(
    bus: MessageBus, agent: str, *, pid: int, incarnation: int | None = None, own_memory: OwnMemory | None = None
) -> None:
    """Answer every message that comes, until cancelled or the bus is closed. Agents of one process share `own_memory`."""
    own_memory = own_memory or OwnMemory()
    # A name of its own each time: that of one that was killed may be held back for a while.
    address = f"agent-{agent}.{pid if incarnation is None else incarnation}"
    await bus.register(address)
    began = time.monotonic()
    await bus.send(
        Message(address, ORCHESTRATOR, "ready", {"agentId": agent, "status": "ready", "pid": pid, "address": address})
    )
    count = errors = first_rss = 0
    try:
        while True:
            message = await bus.receive(address)
            started = time.perf_counter()
            payload = message.payload if isinstance(message.payload, dict) else {}
            try:
                response = work(message.type, payload.get("data"))
            except ValueError as error:
                errors += 1
                response = {"error": str(error)}
            count += 1
            memory = own_memory()
            first_rss = first_rss or memory.rss
            await bus.send(
                Message(
                    address,
                    ORCHESTRATOR,
                    "response",
                    {
                        "agentId": agent,
                        "messageId": payload.get("messageId"),
                        "timestamp": round(time.time() * 1e3),
                        "processingTime": round((time.perf_counter() - started) * 1e3, 3),
                        "coordinationCount": count,
                        "errorCount": errors,
                        "uptime": round((time.monotonic() - began) * 1e3),
                        "memory": {
                            "rss": memory.rss,
                            "heapUsed": memory.uss,
                            "heapTotal": memory.pss,
                            "external": 0,
                            "arrayBuffers": 0,
                        },
                        "memoryGrowthRate": round(100 * (memory.rss - first_rss) / first_rss, 3) if first_rss else 0.0,
                        "response": response,
                    },
                    priority=message.priority,
                )
            )
    except (BusClosedError, UnknownAgentError):
        return
    except asyncio.CancelledError:
        await _say_farewell(bus.unregister(address))
        raise


async def _say_farewell(leaving: Awaitable[None]) -> None:
    try:
        await leaving
    except BusError:
        # The bus is going away as well.
        return


def make_agent_bus(configuration: Mapping[str, Any]) -> MessageBus:
    """The bus that `transport` and its place in the configuration name."""
    makers: Mapping[str, Callable[[], MessageBus]] = {
        "redis": lambda: _redis(configuration),
        "file": lambda: _file(configuration),
        "shm": lambda: _shm(configuration),
    }
    return makers[configuration["transport"]]()


def _redis(configuration: Mapping[str, Any]) -> MessageBus:
    from infrastructure.buses.redis_bus import RedisMessageBus

    return RedisMessageBus(configuration["url"], configuration["name"])


def _file(configuration: Mapping[str, Any]) -> MessageBus:
    from infrastructure.buses.file_bus import FileMessageBus

    return FileMessageBus(Path(configuration["bus_folder"]))


def _shm(configuration: Mapping[str, Any]) -> MessageBus:
    from infrastructure.buses.shm_bus import SharedMemoryMessageBus

    return SharedMemoryMessageBus(configuration["name"])
