"""The whole log as lines of JSON, which verify without its server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from application.ports.witness_log import WitnessLogReader
from application.services.log_check import unverified
from application.services.log_reading import LogReading
from application.services.logged_deliberation import LoggedDeliberation, commitments, disclosure_document
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, VerifierKey
from domain.witness.merkle import CompactRange

__all__ = ["exported_log"]

_PAGE = 2_048
_ACCEPTED = b'"deliberation.accepted"'


async def exported_log(
    log: WitnessLogReader,
    signed_head: Callable[[], Awaitable[tuple[Checkpoint, str]]],
    *,
    key: VerifierKey,
    with_texts: bool,
) -> AsyncIterator[str]:
    """The log up to the head that `signed_head` gives with its note, without newlines, a page in memory at a time.

    Raises `LogUnverifiedError` at the first entry that is missing or damaged, and at the end if the root differs.
    """
    checkpoint, note = await signed_head()
    reading, size = LogReading(log), checkpoint.tree_size
    header = {"version": 1, "kind": "log", "checkpoint": note, "public_key": str(key)}
    yield _line({**header, "tree_size": size})
    tree = CompactRange()
    for start in range(0, size, _PAGE):
        entries = await reading.entries(start, min(start + _PAGE, size))
        tree.extend([each.leaf_hash for each in entries])
        for each in entries:
            yield _line({"index": each.index, "entry": each.entry.decode()})
    if tree.root() != checkpoint.root_hash:
        evidence = {"signed_root": checkpoint.root_hash.hex(), "derived_root": tree.root().hex()}
        raise unverified(VerificationRefusedError("the entries do not have the signed root", evidence=evidence))
    if with_texts:
        async for line in _exported_texts(log, size):
            yield line


async def _exported_texts(log: WitnessLogReader, size: int) -> AsyncIterator[str]:
    # A second pass, because the ids of all deliberations would not fit a bounded memory.
    for start in range(0, size, _PAGE):
        for each in await log.entries(start, min(start + _PAGE, size)):
            if _ACCEPTED not in each.entry:
                continue
            document = json.loads(each.entry)
            if document.get("type") != "deliberation.accepted":
                continue
            told = await LoggedDeliberation.read(log, document["deliberation_id"])
            exported = [own for entry, own in zip(told.entries, told.documents, strict=True) if entry.index < size]
            committed = {sha256 for own in exported for sha256 in commitments(own)}
            for disclosure in told.disclosures:
                if disclosure.sha256 in committed:
                    yield _line({"disclosure": disclosure_document(disclosure)})


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
