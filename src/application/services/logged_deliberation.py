"""What one deliberation has in the log, with the texts that belong to it, none of which differs from what was committed to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from application.ports.witness_log import Disclosure, LoggedEntry, WitnessLogReader
from application.services.log_check import unverified
from application.services.log_reading import LogReading
from domain.errors.deliberation import DeliberationNotFoundError
from domain.errors.witness import VerificationRefusedError
from domain.witness.entry import commitment

__all__ = ["LoggedDeliberation", "commitments", "disclosure_document"]


@dataclass(frozen=True, slots=True)
class LoggedDeliberation:
    """Its entries, ascending and each hashing to its leaf, what they say, and the texts that they commit to."""

    entries: Sequence[LoggedEntry]
    documents: Sequence[Mapping[str, Any]]
    disclosures: Sequence[Disclosure]

    @classmethod
    async def read(cls, log: WitnessLogReader, deliberation_id: str) -> Self:
        """All of it as it is stored. Raises `DeliberationNotFoundError`, and `LogUnverifiedError` where a part is damaged."""
        # Texts first: every one of them then belongs to an entry that is read after it.
        disclosures = await log.disclosures_of(deliberation_id)
        entries = await LogReading(log).entries_of(deliberation_id)
        if not entries:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        documents = [json.loads(each.entry) for each in entries]
        if any(document["type"] == "erased" for document in documents):
            disclosures = await log.disclosures_of(deliberation_id)
        committed = {sha256 for document in documents for sha256 in commitments(document)}
        for each in disclosures:
            computed = commitment(bytes.fromhex(each.salt), each.text)
            if computed != {"sha256": each.sha256} or each.sha256 not in committed:
                raise unverified(
                    VerificationRefusedError(
                        f"a stored text of deliberation {deliberation_id!r} does not hash to a commitment of its entries",
                        index=entries[0].index,
                        evidence={"text_sha256": str((computed or {}).get("sha256"))},
                    )
                )
        return cls(entries, documents, disclosures)


def commitments(value: Any) -> Iterator[str]:
    """Every commitment (hex) in a document, or in a part of one."""
    if isinstance(value, list):
        for inner in value:
            yield from commitments(inner)
    elif isinstance(value, dict):
        if value.keys() == {"sha256"}:
            yield value["sha256"]
        for inner in value.values():
            yield from commitments(inner)


def disclosure_document(disclosure: Disclosure) -> dict[str, str]:
    """A text as bundles and exports show it."""
    return {"sha256": disclosure.sha256, "salt": disclosure.salt, "text": disclosure.text}
