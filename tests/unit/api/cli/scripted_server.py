"""A server on loopback that answers what a test scripted, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedServer:
    """Answers the n-th request with the n-th reply, and every one after the last with the last."""

    url: str
    replies: list[Callable[[BaseHTTPRequestHandler], None]]
    asked: list[Asked] = field(default_factory=list)


Reply = Callable[[BaseHTTPRequestHandler], None]


def answer(document: Any, *, status: int = 200, **headers: str) -> Reply:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def problem(status: int, slug: str, **more: Any) -> Reply:
    return answer({"type": f"urn:conclave:problem:{slug}", "title": "No", "status": status, **more}, status=status)


def events(*sequences: int, terminal: bool = False, pings: int = 0) -> Reply:
    """These events, the last one terminal if told so, and then the end of the stream."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b"retry: 1000\n\n" + b": ping\n\n" * pings)
        for sequence in sequences:
            last = terminal and sequence == sequences[-1]
            kind = "deliberation.completed" if last else "agent.ended"
            data = json.dumps({"sequence": sequence, "type": kind})
            handler.wfile.write(f"id: {sequence}\nevent: {kind}\ndata: {data}\n\n".encode())

    return reply


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


@contextmanager
def scripted_server(*replies: Reply) -> Iterator[ScriptedServer]:
    """The server, running until the end of the block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = Asked(self.command, self.path, dict(self.headers.items()), self.rfile.read(length))
            with lock:
                script.asked.append(asked)
                place = min(len(script.asked), len(script.replies)) - 1
            script.replies[place](self)

        do_GET = do_POST = _reply  # noqa: N815 - named by the vendor

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the vendor
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = ScriptedServer(f"http://127.0.0.1:{server.server_address[1]}", list(replies))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
