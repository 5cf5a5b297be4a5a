"""The formats of a witness log as their specifications have them: its key, its trees, its signatures and its JSON."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Document = dict[str, Any]
ORIGIN = "conclave.example/log"


class LogKey:
    """A signing key as C2SP signed-note has them, the same in every run."""

    def __init__(self, name: str = ORIGIN, seed: bytes = b"\x07" * 32) -> None:
        self.name = name
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._material = b"\x01" + self._private.public_key().public_bytes_raw()
        self._id = hashlib.sha256(name.encode() + b"\n" + self._material).digest()[:4]

    @property
    def vkey(self) -> str:
        """The public key as it is pinned."""
        return f"{self.name}+{self._id.hex()}+{b64encode(self._material).decode()}"

    def sign(self, body: str) -> str:
        """The note with this text and one signature."""
        signature = b64encode(self._id + self._private.sign(body.encode())).decode()
        return f"{body}\n\u2014 {self.name} {signature}\n"


def leaf_of(entry: bytes) -> bytes:
    """RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def tree_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 section 2.1, as it stands there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_of(leaves[:split]) + tree_of(leaves[split:])).digest()


def path_of(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The audit path of RFC 6962 section 2.1.1, as it stands there."""
    if len(leaves) < 2:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_of(index, leaves[:split]), tree_of(leaves[split:])]
    return [*path_of(index - split, leaves[split:]), tree_of(leaves[:split])]


def check_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519 (RFC 8032), straight from the library."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_canonical(data: bytes) -> Document:
    """An object in canonical JSON, by the reference encoder."""
    document = json.loads(data)
    if type(document) is not dict or rfc8785.dumps(document) != data:
        raise ValueError("not canonical")
    return document
