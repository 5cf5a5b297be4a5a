"""Reads which anchors an operator has chosen, and opens them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

from application.ports.anchor import Anchor
from domain.errors.configuration import ConfigurationError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import COSIGNATURE_V1, VerifierKey
from infrastructure.witness.file_anchor import FileAnchor

__all__ = ["AnchorSpec", "CosignerAnchorSpec", "FileAnchorSpec", "WebhookAnchorSpec", "open_anchor", "parse_anchors"]

_FORMS = "Write file:PATH, webhook:URL or witness:URL#VKEY, with commas between several."


@dataclass(frozen=True, slots=True)
class FileAnchorSpec:
    """A file to append checkpoints to."""

    path: Path


@dataclass(frozen=True, slots=True)
class WebhookAnchorSpec:
    """An address to post checkpoints to; it may hold a secret, so it is not shown."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CosignerAnchorSpec:
    """A C2SP tlog-witness: the prefix that `/add-checkpoint` is appended to, and the key that its cosignatures verify with."""

    url: str = field(repr=False)
    key: VerifierKey


AnchorSpec: TypeAlias = FileAnchorSpec | WebhookAnchorSpec | CosignerAnchorSpec


def parse_anchors(text: str) -> list[AnchorSpec]:
    """The anchors that CONCLAVE_WITNESS_ANCHORS names, in its order: `file:PATH`, `webhook:URL`, `witness:URL#VKEY`, with commas between.

    A comma inside an address is written %2C. Raises `ConfigurationError`, which counts the bad one and does not repeat it.
    """
    entries = [entry.strip() for entry in text.split(",")]
    specs = [_parsed(entry, number) for number, entry in enumerate(entries, 1) if entry]
    if len(set(specs)) != len(specs):
        _refuse(
            next(number for number, spec in enumerate(specs, 1) if spec in specs[: number - 1]), "stands there twice"
        )
    return specs


def _parsed(entry: str, number: int) -> AnchorSpec:
    kind, _, place = entry.partition(":")
    if not place or not place.isprintable():
        _refuse(number, "names no place")
    if kind == "file":
        try:
            return FileAnchorSpec(Path(place).expanduser().absolute())
        except RuntimeError:
            _refuse(number, "begins with the home folder of nobody known")
    if kind == "webhook":
        return WebhookAnchorSpec(_address(place, number))
    if kind != "witness":
        _refuse(number, "is of no known kind")
    address, _, vkey = place.partition("#")
    return CosignerAnchorSpec(_address(address, number).rstrip("/"), _cosigner_key(vkey, number))


def _address(address: str, number: int) -> str:
    if " " in address or "\\" in address or "#" in address:
        _refuse(number, "has an address with characters that no address has")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        _refuse(number, "has no address like https://host.example/path")
    if "@" in parts.netloc:
        _refuse(number, "has a user name or a password in its address")
    return address


def _cosigner_key(vkey: str, number: int) -> VerifierKey:
    try:
        key = VerifierKey.parse(vkey)
    except VerificationRefusedError:
        _refuse(number, "has no C2SP vkey after a # sign")
    if key.algorithm != COSIGNATURE_V1:
        _refuse(number, "has a key that is not one for cosignatures (algorithm 4)")
    return key


def _refuse(number: int, problem: str) -> NoReturn:
    raise ConfigurationError(
        variable="CONCLAVE_WITNESS_ANCHORS", problem=f"anchor number {number} {problem}", remedy=_FORMS
    ) from None


def open_anchor(spec: AnchorSpec, *, timeout_s: float = 10.0) -> Anchor:
    """The anchor of that description; connects nowhere. One over HTTP gives up after `timeout_s` seconds."""
    if isinstance(spec, FileAnchorSpec):
        return FileAnchor(spec.path)
    from infrastructure.witness.anchor_http import CosignerAnchor, WebhookAnchor

    if isinstance(spec, WebhookAnchorSpec):
        return WebhookAnchor(spec.url, timeout_s=timeout_s)
    return CosignerAnchor(spec.url, spec.key, timeout_s=timeout_s)
