"""A receiver of webhooks on loopback, and the check of a signature by hand, without the package that made it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Posted", "Reaction", "WebhookStreet", "answering", "check_by_hand", "webhook_street"]


@dataclass(frozen=True)
class Posted:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def delivery_id(self) -> str:
        """The same at every attempt."""
        return self.headers["conclave-delivery"]


Reaction = Callable[[BaseHTTPRequestHandler], None]


def answering(status: int, body: bytes = b"", **headers: str) -> Reaction:
    """Answers so."""

    def react(exchange: BaseHTTPRequestHandler) -> None:
        exchange.send_response(status)
        for name, value in headers.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        exchange.wfile.write(body)

    return react


@dataclass
class WebhookStreet:
    """Takes every request, and reacts to the first, second ... as planned; to all after the last plan as to the last."""

    plan: Sequence[Reaction] = (answering(204),)
    posted: list[Posted] = field(default_factory=list)
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hooks/secret-path?of=ops"

    def hang(self, _exchange: BaseHTTPRequestHandler) -> None:
        """Answers nothing while the test goes on."""
        self.closing.wait()

    def reset(self, exchange: BaseHTTPRequestHandler) -> None:
        """Resets the connection instead of answering."""
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.connection.close()

    def talk_for_ever(self, exchange: BaseHTTPRequestHandler) -> None:
        """Answers 200, and a body without an end."""
        exchange.send_response(200)
        exchange.end_headers()
        while not self.closing.is_set():
            exchange.wfile.write(b"x" * 65536)


@contextmanager
def webhook_street(*plan: Reaction) -> Iterator[WebhookStreet]:
    """A receiver in threads of this process."""
    street = WebhookStreet(plan or (answering(204),))

    class Exchange(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = [name.lower() for name in self.headers]
            assert len(names) == len(set(names))
            street.posted.append(
                Posted(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            self.close_connection = True
            try:
                street.plan[min(len(street.posted), len(street.plan)) - 1](self)
            except (BrokenPipeError, ConnectionResetError):
                return

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Exchange)
    street.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="webhook-street")
    thread.start()
    try:
        yield street
    finally:
        street.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class ForgedError(Exception):
    """Not what the key signed."""


def check_by_hand(posted: Posted, *, url: str, keys: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of the signature, once it was checked with nothing but Ed25519 and SHA-256 (RFC 9421, 3.2; RFC 9530).

    `keys` is the JWK set. Raises `ForgedError`.
    """
    digest = base64.b64encode(hashlib.sha256(posted.body).digest()).decode()
    if posted.headers["content-digest"] != f"sha-256=:{digest}:":
        raise ForgedError("the body is another one")
    label, _, parameters = posted.headers["signature-input"].partition("=")
    found = re.fullmatch(r'\(([^)]*)\)((?:;[a-z]+=(?:"[^"]*"|[0-9]+))*)', parameters)
    if label != "conclave" or found is None:
        raise ForgedError("it is signed under another name")
    values = {"@method": posted.method, "@target-uri": url, **posted.headers}
    covered = [name.strip('"') for name in found[1].split()]
    lines = [f'"{name}": {values[name]}' for name in covered]
    base = "\n".join([*lines, f'"@signature-params": {parameters}']).encode()
    named = {name: value.strip('"') for name, value in re.findall(r';([a-z]+)=("[^"]*"|[0-9]+)', found[2])}
    jwk = next((key for key in keys["keys"] if key["kid"] == named["keyid"]), None)
    if jwk is None:
        raise ForgedError("it is signed by an unknown key")
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "=="))
    signature = base64.b64decode(posted.headers["signature"].removeprefix("conclave=:").removesuffix(":"))
    try:
        public.verify(signature, base)
    except Exception as error:
        raise ForgedError("the signature is not of that key over that message") from error
    return {**named, "covered": " ".join(covered)}
