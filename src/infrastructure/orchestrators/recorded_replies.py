"""Keeps what providers answered in a folder, one file for each request, and answers from it later without asking anybody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import tempfile
from collections import Counter, UserDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.models.budget import Usage
from infrastructure.orchestrators.exchange import Exchange, Heard, Reply, pace_headers

__all__ = ["RecordingExchange", "ReplayExchange", "request_sha256"]

_logger = logging.getLogger(__name__)

_MAX_FILE_BYTES = 64 * 1024 * 1024
_VERSION = 1


def request_sha256(path: str, body: bytes) -> str:
    """What a request is kept under: SHA-256 (hex) over its path, a line end and its body, byte for byte.

    Neither the key nor any header is part of it, so that whoever replays a recording needs none.
    """
    return hashlib.sha256(path.encode() + b"\n" + body).hexdigest()


class RecordingExchange:
    """Asks through another exchange and keeps each reply, refusals among them, before it is handed on.

    A request that is made several times keeps its replies in their order. What an earlier process kept for it is replaced. A file
    is there whole or not at all; it holds no key and of the headers only those that speak of the pace.
    """

    def __init__(self, exchange: Exchange, folder: Path) -> None:
        """Makes the folder, readable for this user alone, because the requests are what people asked. Raises `ConfigurationError`."""
        self._exchange = exchange
        self._folder = folder
        self._known: set[str] = set()
        self._lock = Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                variable="CONCLAVE_RECORD_DIR",
                problem=f"the folder {str(folder)!r} cannot be made ({error.strerror})",
                remedy="Name a folder that this user may write in",
            ) from None

    @property
    def host(self) -> str:
        """Whom it asks."""
        return self._exchange.host

    def open(self) -> None:
        """As the other does."""
        self._exchange.open()

    async def close(self) -> None:
        """As the other does."""
        await self._exchange.close()

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        """As the other does; the reply is in the folder when it is returned."""
        reply = await self._exchange.post(path, body, most=most, streams=streams, heard=heard)
        await self._keep(path, body, reply)
        return reply

    async def get(self, path: str, *, most: int) -> Reply:
        """As the other does; the reply is in the folder when it is returned."""
        reply = await self._exchange.get(path, most=most)
        await self._keep(path, b"", reply)
        return reply

    async def _keep(self, path: str, body: bytes, reply: Reply) -> None:
        try:
            await asyncio.to_thread(self._write, path, body, reply)
        except OSError as error:
            # The reply is paid for and worth more than its recording.
            _logger.warning("a reply was not recorded in %s: %s", self._folder, error.strerror)

    def _write(self, path: str, body: bytes, reply: Reply) -> None:
        key = request_sha256(path, body)
        file = self._folder / f"{key}.json"
        with self._lock:
            earlier = _replies_in(file) if key in self._known else []
            document = {
                "version": _VERSION,
                "path": path,
                "request": _readable(body),
                "replies": [*earlier, _written(reply)],
            }
            _write_whole(file, json.dumps(document, ensure_ascii=False, indent=1).encode(errors="surrogatepass"))
            self._known.add(key)


class ReplayExchange:
    """Answers from what was recorded, and nothing else: a request that nobody recorded fails, and nobody is asked instead.

    The first time that a request is made it gets its first reply, then the next; the last one is given again and again.
    """

    def __init__(self, folder: Path, *, host: str = "the recording") -> None:
        """Raises `ConfigurationError` where there is no such folder."""
        if not folder.is_dir():
            raise ConfigurationError(
                variable="CONCLAVE_REPLAY_DIR",
                problem=f"there is no folder {str(folder)!r}",
                remedy="Name one that CONCLAVE_RECORD_DIR was set to",
            )
        self._folder = folder
        self._host = host
        self._asked: Counter[str] = Counter()
        self._is_closed = False

    @property
    def host(self) -> str:
        """Whom messages name."""
        return self._host

    def open(self) -> None:
        """Raises `AgentInvocationError` once it is closed."""
        if self._is_closed:
            raise AgentInvocationError("the recording is closed", kind="closed", usage=Usage())

    async def close(self) -> None:
        """Nothing is answered any more."""
        self._is_closed = True

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:  # noqa: ARG002
        """The reply that was recorded for exactly this body. Raises `AgentInvocationError` of kind `not_recorded`."""
        self.open()
        reply = await self._find(path, body)
        heard(reply.status, reply.headers, reply.body)
        return reply

    async def get(self, path: str, *, most: int) -> Reply:  # noqa: ARG002
        """The reply that was recorded. Raises `AgentInvocationError` of kind `not_recorded`."""
        return await self._find(path, b"")

    async def _find(self, path: str, body: bytes) -> Reply:
        key = request_sha256(path, body)
        turn = self._asked[key]
        self._asked[key] += 1
        replies = await asyncio.to_thread(_replies_in, self._folder / f"{key}.json")
        if not replies:
            raise AgentInvocationError(
                f"no reply is recorded for the request {key} to {path}: record it with CONCLAVE_RECORD_DIR, "
                "with the same question, members, models and settings",
                kind="not_recorded",
                usage=Usage(),
            )
        return _read(replies[min(turn, len(replies) - 1)])


def _readable(body: bytes) -> Any:
    """The request as people read it; what is replayed goes by its hash alone."""
    return json.loads(body) if body else None


def _written(reply: Reply) -> dict[str, Any]:
    written: dict[str, Any] = {"status": reply.status, "headers": pace_headers(reply.headers)}
    if reply.document is not None:
        return {**written, "document": reply.document}
    try:
        return {**written, "body": reply.body.decode()}
    except UnicodeDecodeError:
        return {**written, "body_base64": base64.b64encode(reply.body).decode()}


def _read(written: Mapping[str, Any]) -> Reply:
    headers, document = written.get("headers"), written.get("document")
    packed, text = base64.b64decode(written.get("body_base64", "")), str(written.get("body", ""))
    body = packed or text.encode(errors="replace")
    # As HTTP has them, found whatever their case.
    kept = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    return Reply(written["status"], _AnyCase(kept), body, document if isinstance(document, dict) else None)


class _AnyCase(UserDict[str, str]):
    """Headers, found whatever the case of their names."""

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.lower(), value)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


def _replies_in(file: Path) -> list[dict[str, Any]]:
    """The replies in that file, none where it is missing, too large or no recording of this version."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
        document = json.loads(content) if len(content) <= _MAX_FILE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return []
    replies = document.get("replies") if isinstance(document, dict) and document.get("version") == _VERSION else None
    good = [reply for reply in replies if _is_reply(reply)] if isinstance(replies, list) else []
    return good if isinstance(replies, list) and len(good) == len(replies) else []


def _is_reply(reply: object) -> bool:
    if not isinstance(reply, dict) or not isinstance(reply.get("status"), int):
        return False
    try:
        base64.b64decode(reply.get("body_base64", ""), validate=True)
    except (TypeError, ValueError):
        return False
    kinds = (("body", str), ("body_base64", str), ("document", dict))
    return any(isinstance(reply.get(name), kind) for name, kind in kinds)


def _write_whole(file: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".recording-")
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
