"""The door of a witness that cosigns other logs: `POST /add-checkpoint` (C2SP tlog-witness), and nothing else."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.rest.bodies import read_bytes
from api.rest.door import Door
from api.rest.problems import answer_problems
from api.rest.server import HttpServer, run_until_signal

__all__ = ["MAX_REQUEST_BYTES", "Cosigner", "create_cosigner_app", "serve_cosigner"]

MAX_REQUEST_BYTES = 64 * 1024
_CONFLICT = 409


class Cosigner(Protocol):
    """Whoever decides what is cosigned."""

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """The status and the body that answer this request, once what was decided is on the disk. Blocks.

        Raises `DependencyUnavailableError`, and then nothing is cosigned.
        """
        ...


def create_cosigner_app(cosigner: Cosigner) -> Starlette:
    """The application over `cosigner`. Anybody may call it: what counts is who signed the checkpoint."""

    async def add_checkpoint(request: Request) -> Response:
        body = await read_bytes(request, max_bytes=MAX_REQUEST_BYTES)
        status, content = await asyncio.to_thread(cosigner.add_checkpoint, body)
        # The only answer with a type of its own is a size; everything else is lines of text.
        media_type = "text/x.tlog.size" if status == _CONFLICT else "text/plain; charset=utf-8"
        return Response(content, status_code=status, headers={"Content-Type": media_type})

    app = Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])
    app.router.redirect_slashes = False
    app.add_middleware(Door, local_only=False)
    answer_problems(app)
    return app


async def serve_cosigner(
    cosigner: Cosigner,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    on_listening: Callable[[tuple[str, ...]], None] | None = None,
) -> signal.Signals | None:
    """Serve until SIGTERM or SIGINT, and return which one it was. Raises `ConfigurationError` when the port is taken."""
    server = HttpServer(create_cosigner_app(cosigner), host=host, port=port, local_only=False)
    return await run_until_signal(server, on_listening=on_listening)
