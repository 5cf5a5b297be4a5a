"""Buses in one folder that tests open as they like, and the messages that they send there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from application.ports.message_bus import Message
from infrastructure.buses.file_bus import FileMessageBus

__all__ = ["FOREVER", "files", "message", "opened_below"]

FOREVER = 3_600.0


@asynccontextmanager
async def opened_below(folder: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    """Opens objects on one folder there, closed at the end."""
    buses: list[FileMessageBus] = []

    def another(**arguments: object) -> FileMessageBus:
        buses.append(FileMessageBus(folder / "bus", **arguments))  # type: ignore[arg-type]
        return buses[-1]

    yield another
    for bus in buses:
        await bus.close()


def message(payload: object = None, *, to: str = "sink", **fields: object) -> Message:
    return Message("source", to, "n", payload, **fields)  # type: ignore[arg-type]


def files(folder: Path) -> list[Path]:
    """The messages that wait."""
    return sorted((folder / "bus" / "messages").iterdir())
