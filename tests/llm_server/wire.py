"""Reads requests and renders responses of HTTP/1.1 (RFC 9112) as plain bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 16 * 1024 * 1024

REASONS = {
    200: "OK",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    529: "Site Is Overloaded",
}


class MalformedRequestError(Exception):
    """Bytes that are no request this server reads; `status` is the answer they deserve."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason} (answered {status})")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and headers; header names are lower case and a repeated header keeps its last value."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content_length: int
    keep_alive: bool


def read_head(buffer: bytearray) -> tuple[RequestHead, int] | None:
    """Return the head at the start of `buffer` and its length in bytes, or None while it is incomplete.

    Raises MalformedRequestError for anything but an HTTP/1.x request with a Content-Length (or no body).
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > HEAD_LIMIT_BYTES:
            raise MalformedRequestError(431, "the head of the request is too long")
        return None
    request_line, *lines = buffer[:end].decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise MalformedRequestError(400, f"{request_line[:80]!r} is no HTTP/1.x request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedRequestError(400, f"{line[:80]!r} is no header")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise MalformedRequestError(411, "requests need a Content-Length here")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise MalformedRequestError(400, f"{length[:80]!r} is no Content-Length")
    if int(length) > BODY_LIMIT_BYTES:
        raise MalformedRequestError(413, f"a body of {length} bytes is too long")
    path, _, query = words[1].partition("?")
    connection = headers.get("connection", "").lower()
    head = RequestHead(
        method=words[0],
        path=unquote(path) if "%" in path else path,
        query=dict(parse_qsl(query)) if query else {},
        headers=headers,
        content_length=int(length),
        keep_alive="close" not in connection and (words[2] != "HTTP/1.0" or "keep-alive" in connection),
    )
    return head, end + 4


def render(
    status: int,
    body: bytes,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    announced_length: int | None = None,
) -> bytes:
    """Render a whole response; `announced_length` is the Content-Length to claim instead of the true one."""
    length = len(body) if announced_length is None else announced_length
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n{extra}\r\n"
    )
    return head.encode("latin-1") + body


def render_chunked_head(*, content_type: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Render the head of a 200 whose body follows in chunks."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n{extra}\r\n"
    return head.encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame `data` as one chunk (RFC 9112, section 7.1); empty data makes the last chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
