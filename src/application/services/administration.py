"""What operators do, as entries: how such a statement is made, and how those about the log itself are read back."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from application.ports.witness_log import Disclosure, WitnessLogReader
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import VerifierKey
from domain.witness.entry import SALT_BYTES, commitment, time_text
from domain.witness.proof import verify_leaf

__all__ = ["KEY_ADDED", "KEY_RETIRED", "NamedKeys", "administrative_entries", "named_keys", "operators_statement"]

KEY_ADDED = "key.added"
KEY_RETIRED = "key.retired"

_PAGE = 2_048


@dataclass(frozen=True, slots=True)
class NamedKeys:
    """The keys that entries of a log name as its own: all of them, and those that are not retired, each in order of addition."""

    all: tuple[VerifierKey, ...] = ()
    present: tuple[VerifierKey, ...] = ()


def operators_statement(
    kind: str, *, at: datetime, reason: str | None, key_name: str | None, facts: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], Sequence[Disclosure]]:
    """What an operator did, as an entry of that type, and its texts, committed to under fresh salts."""
    texts = [("reason", reason, os.urandom(SALT_BYTES)), ("key_name", key_name, os.urandom(SALT_BYTES))]
    committed = {name: commitment(salt, text) for name, text, salt in texts}
    disclosures = [
        Disclosure(found["sha256"], salt.hex(), text)
        for name, text, salt in texts
        if text is not None and (found := committed[name]) is not None
    ]
    return {"type": kind, "at": time_text(at), **(facts or {}), **committed}, disclosures


async def administrative_entries(reader: WitnessLogReader, *kinds: str) -> AsyncIterator[tuple[int, Mapping[str, Any]]]:
    """Index and document of every entry of these types, ascending, a page in memory at a time.

    Reads only entries that belong to no deliberation. Raises `VerificationRefusedError` for one that does not hash to its stored
    leaf or cannot be read.
    """
    marks = [f'"{kind}"'.encode() for kind in kinds]
    after = -1
    while page := await reader.system_entries(after, _PAGE):
        for each in page:
            if not any(mark in each.entry for mark in marks):
                continue
            verify_leaf(index=each.index, entry=each.entry, stored_leaf=each.leaf_hash)
            try:
                document = json.loads(each.entry)
            except ValueError as error:
                raise VerificationRefusedError("the entry is no JSON", index=each.index) from error
            # A text may hold these bytes too: only the parsed type counts.
            if isinstance(document, dict) and document.get("type") in kinds:
                yield each.index, document
        after = page[-1].index


async def named_keys(reader: WitnessLogReader) -> NamedKeys:
    """The keys that the log names as its own.

    They are as true as the log is: whoever could write such an entry could as well remove the checkpoints that it helps to open,
    and the anchors tell of both. Raises `VerificationRefusedError` for an entry that cannot be read.
    """
    all_keys: dict[VerifierKey, None] = {}
    present: dict[VerifierKey, None] = {}
    async for index, document in administrative_entries(reader, KEY_ADDED, KEY_RETIRED):
        vkey = document.get("vkey")
        if not isinstance(vkey, str):
            raise VerificationRefusedError("the entry names no key", index=index)
        try:
            key = VerifierKey.parse(vkey)
        except VerificationRefusedError as error:
            raise VerificationRefusedError(error.what, index=index, evidence=error.evidence) from error
        present.pop(key, None)
        if document["type"] == KEY_ADDED:
            all_keys[key] = present[key] = None
    return NamedKeys(tuple(all_keys), tuple(present))
