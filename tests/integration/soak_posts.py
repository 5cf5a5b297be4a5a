"""A post on a coordination folder with a clock of the test's own, what came over it, and files put there in one step."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from infrastructure.soak.coordination_folder import CoordinationFolder
from infrastructure.soak.envelope import Envelope
from infrastructure.soak.file_post import FilePost

__all__ = ["Heard", "listening", "put", "response"]


class Steady:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """A post on a folder, and what came over it."""

    def __init__(self, folder: Path, *, polls: bool = False, envelope: Envelope | None = None) -> None:
        self.clock = Steady()
        self.post = FilePost(CoordinationFolder(folder), session="s", polls=polls, envelope=envelope, clock=self.clock)
        self.responses: list[tuple[str, str]] = []
        self.post.on_response = self.note

    def note(self, agent: str, message_id: str, response: Mapping[str, Any]) -> None:
        self.responses.append((agent, message_id))

    async def corrupt(self) -> int:
        """The count once nothing is young any more."""
        await self.post.audit()
        self.clock.now += 1
        await self.post.audit()
        return self.post.corrupt


@asynccontextmanager
async def listening(folder: Path, **more: Any) -> AsyncIterator[Heard]:
    heard = Heard(folder, **more)
    await heard.post.open()
    try:
        yield heard
    finally:
        await heard.post.close()


def response(agent: object = "1", message_id: object = "m") -> str:
    return json.dumps({"agentId": agent, "messageId": message_id, "response": {}})


def put(path: Path, text: str | bytes) -> None:
    draft = path.parent.parent / "drafts" / path.name
    draft.write_bytes(text.encode() if isinstance(text, str) else text)
    draft.replace(path)
