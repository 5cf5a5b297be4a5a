"""Entries, proofs and bundles of the record as schemas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.rest.schema_document import Document

__all__ = [
    "Bundle",
    "ConsistencyProof",
    "InclusionProof",
    "LogEntry",
    "WebhookKeys",
]


class LogEntry(Document):
    """An entry of the log at its place."""

    index: int
    leaf_hash: str = Field(description="SHA-256(0x00 || entry), in hex.")
    entry: str = Field(description="RFC 8785 canonical JSON, as it was hashed.")


class InclusionProof(Document):
    """That an entry is in a tree (RFC 9162, section 2.1.3); hashes in hex."""

    index: int
    tree_size: int
    leaf_hash: str
    root_hash: str
    hashes: list[str] = Field(description="From the leaf to the root.")


class ConsistencyProof(Document):
    """That a tree grew out of an older one (RFC 9162, section 2.1.4); hashes in hex."""

    first: int
    second: int
    first_root: str
    second_root: str
    hashes: list[str]


class BundleEntry(Document):
    """An entry and the proof that the bundle's checkpoint covers it."""

    index: int
    entry: str = Field(description="RFC 8785 canonical JSON, as it was hashed.")
    inclusion_proof: list[str] = Field(description="From the leaf to the root, in hex.")


class Disclosure(Document):
    """A text that an entry commits to: SHA-256(salt || text in UTF-8)."""

    sha256: str = Field(description="In hex, as it stands in the entry.")
    salt: str = Field(description="16 bytes in hex.")
    text: str


class Bundle(Document):
    """Everything that verifies one deliberation without this server: `conclave witness verify FILE --key VKEY`."""

    version: int
    checkpoint: str = Field(description="C2SP signed note.")
    public_key: str = Field(description="C2SP verifier key. Trust the one that you pinned, not this one.")
    entries: list[BundleEntry]
    disclosures: list[Disclosure]


class WebhookKey(Document):
    """An Ed25519 key as a JWK (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str = Field(description="The public key, base64url.")
    kid: str = Field(description="Its SHA-256 thumbprint (RFC 7638): the `keyid` of signatures.")
    use: Literal["sig"]


class WebhookKeys(Document):
    """The keys that webhooks are signed with; the first signs, the others did until lately."""

    keys: list[WebhookKey]
