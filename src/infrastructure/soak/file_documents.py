"""What is read from the files of agents: responses and status files, and nothing that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from domain.models.soak import is_agent_id
from infrastructure.soak.coordination_folder import UnreadableFileError
from infrastructure.soak.envelope import Envelope

__all__ = ["MESSAGE", "RESPONSE", "STATUS", "Identity", "Status", "response_in", "status_in"]

MESSAGE = re.compile(r"coordination-.+\.json", re.DOTALL)
RESPONSE = re.compile(r"response-.+\.json", re.DOTALL)
STATUS = re.compile(r"agent-(.+)-status\.json", re.DOTALL)

Identity: TypeAlias = tuple[int, int, int]
"""Inode, time and size: another one is another file, or the same written anew."""


@dataclass(frozen=True, slots=True)
class Status:
    """What an agent says of itself."""

    agent: str
    status: str
    pid: int
    identity: Identity


def response_in(text: bytes, name: str, envelope: Envelope | None) -> dict[str, Any]:
    """The response that a file of that name holds. Raises `UnreadableFileError`."""
    document = _document(text if envelope is None else _unpacked(envelope, text, name))
    message_id = document.get("messageId")
    if not isinstance(message_id, str) or name != f"response-{_agent_in(document)}-{message_id}.json":
        raise UnreadableFileError("says another agent or message than its name")
    return document


def status_in(text: bytes, name: str, identity: Identity) -> Status:
    """The status that a file of that name holds. Raises `UnreadableFileError`."""
    document = _document(text)
    agent, status, pid = _agent_in(document), document.get("status"), document.get("pid")
    if name != f"agent-{agent}-status.json":
        raise UnreadableFileError("says another agent than its name")
    if not isinstance(status, str) or not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        raise UnreadableFileError("has no status or pid")
    return Status(agent, status, pid, identity)


def _unpacked(envelope: Envelope, text: bytes, name: str) -> bytes:
    try:
        return envelope.unpack(text, name)
    except ValueError as error:
        raise UnreadableFileError(str(error)) from error


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError("is no JSON document") from error
    if not isinstance(document, dict):
        raise UnreadableFileError("is no JSON object")
    return document


def _agent_in(document: Mapping[str, Any]) -> str:
    agent = document.get("agentId")
    # Some write a number as a number.
    text = str(agent) if isinstance(agent, str | int) and not isinstance(agent, bool) else ""
    if not is_agent_id(text):
        raise UnreadableFileError("names no agent")
    return text
