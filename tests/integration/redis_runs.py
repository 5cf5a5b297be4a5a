"""Runs of messages for the Redis bus, a bus whose clock waits for its test, and what is taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from application.ports.message_bus import Message, Priority
from domain.errors.bus import ReceiveTimeoutError
from infrastructure.buses.redis_bus import RedisMessageBus

__all__ = ["ATTEMPTS", "VISIBLE_S", "Clock", "patient_bus", "payloads", "run_of", "taken"]

VISIBLE_S = 10.0
ATTEMPTS = 3


@dataclass
class Clock:
    """Stands still until it is told to go on."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def patient_bus(url: str, clock: Clock, namespace: str = "conclave") -> RedisMessageBus:
    """A bus that shows what is in hand again after `VISIBLE_S` of this clock, and buries it after `ATTEMPTS`."""
    return RedisMessageBus(url, namespace, visibility_s=VISIBLE_S, max_attempts=ATTEMPTS, wall_clock=clock)


def run_of(number: int, *, first: int = 0, to: str = "a", priority: Priority = Priority.NORMAL) -> list[Message]:
    return [Message("s", to, "number", at, priority) for at in range(first, first + number)]


async def taken(bus: RedisMessageBus, most: int) -> list[Message]:
    try:
        return await bus.receive_many("a", most, timeout=0)
    except ReceiveTimeoutError:
        return []


def payloads(messages: list[Message]) -> list[Any]:
    return [one.payload for one in messages]
