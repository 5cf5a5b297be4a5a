"""Reads which webhooks an operator has chosen to be told how deliberations ended."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import NoReturn
from urllib.parse import urlsplit

from application.ports.webhook_sender import WebhookReceiver

__all__ = ["parse_receiver", "parse_receivers"]

_MAX_RECEIVERS = 32
_MAX_CHARACTERS = 2_000
_ADDRESS = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What a URI may hold (RFC 3986), but for what begins a fragment.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PORTS = {"http": 80, "https": 443}


def parse_receivers(entries: tuple[str, ...]) -> tuple[WebhookReceiver, ...]:
    """The receivers that these entries name, in their order.

    Raises `ValueError`, which counts the bad entry and repeats nothing of it.
    """
    if len(entries) > _MAX_RECEIVERS:
        raise ValueError(f"more than {_MAX_RECEIVERS} receivers are not told")
    found: list[WebhookReceiver] = []
    for number, entry in enumerate(entries, start=1):
        receiver = parse_receiver(entry, number)
        if any(receiver.name == other.name for other in found):
            _refuse(number, "has the name or the address of another one")
        found.append(receiver)
    return tuple(found)


def parse_receiver(entry: str, number: int = 1) -> WebhookReceiver:
    """The receiver of `[NAME[@KEY]=]ADDRESS`; without a name it is called after its host and the hash of its address.

    Raises `ValueError`.
    """
    named, equals, address = ("", "", entry) if _ADDRESS.match(entry) else entry.partition("=")
    name, at, key_name = named.strip().partition("@")
    if equals and not _NAME.fullmatch(name):
        _refuse(number, "has a name that is not 1 to 64 letters, digits, dots, dashes and underscores")
    if at and not _NAME.fullmatch(key_name):
        _refuse(number, "names a key that no API key can have")
    address, host = _checked(address.strip(), number)
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return WebhookReceiver(name or f"{host}#{digest}", address, key_name or None)


def _checked(address: str, number: int) -> tuple[str, str]:
    """The address in its normal form, and its host and port as they may be shown."""
    if not _ADDRESS.match(address):
        _refuse(number, "has no address that begins with https://")
    if len(address) > _MAX_CHARACTERS or not _CHARACTERS.fullmatch(address) or _ESCAPE.search(address):
        _refuse(number, "has an address with characters that no address has, or too many of them")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        _refuse(number, "has no address like https://host.example/path")
    if not host or port == 0:
        _refuse(number, "has no address like https://host.example/path")
    if "@" in parts.netloc:
        _refuse(number, "has a user name or a password in its address")
    if parts.scheme == "http" and not _is_loopback(host):
        _refuse(number, "has an http:// address of another machine, where anybody could read along: use https")
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"
    query = f"?{parts.query}" if parts.query or address.endswith("?") else ""
    return f"{parts.scheme}://{authority}{parts.path or '/'}{query}", authority


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse(number: int, problem: str) -> NoReturn:
    raise ValueError(f"receiver number {number} {problem}") from None
