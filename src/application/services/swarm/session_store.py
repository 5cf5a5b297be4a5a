"""The port to where a swarm leaves its documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from domain.models.message import Payload

__all__ = ["SessionStore"]


class SessionStore(Protocol):
    """The folder of one session. The calls may be made in threads, each name by one at a time."""

    @property
    def place(self) -> Path:
        """Where it is."""
        ...

    def open(self) -> None:
        """Make it. Raises `ConfigurationError` where that cannot be, or it is there already."""
        ...

    def append(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a text; they are with the operating system when this returns. Raises `OSError`."""
        ...

    def replace(self, name: str, document: Mapping[str, Payload]) -> int:
        """Put a JSON document, whole or not at all and on the disk when this returns; its bytes. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Close the texts."""
        ...
