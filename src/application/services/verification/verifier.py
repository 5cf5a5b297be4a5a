"""Verifies a bundle of one deliberation, or an export of a whole log, trusting nothing but one public key."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from application.services.verification.deliberations import Deliberations
from application.services.verification.entries import commitments, read_entry
from application.services.verification.reading import read_hash, read_object, shown, want_fields
from application.services.verification.report import VerificationReport
from application.services.verification.texts import CommittedTexts
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, SignatureCheck, VerifierKey, open_checkpoint
from domain.witness.merkle import CompactRange, leaf_hash
from domain.witness.proof import verify_inclusion

__all__ = ["MAX_BUNDLE_BYTES", "MAX_LINE_BYTES", "VerificationTools", "is_log_header", "verify_bundle", "verify_log"]

MAX_BUNDLE_BYTES = 256 * 1024 * 1024
"""A bundle is read as a whole, so it has to fit into memory several times over."""

MAX_LINE_BYTES = 8 * 1024 * 1024
"""A line of an export: the longest text that can be disclosed, with every character escaped, is shorter."""

_VERSION = 1
_MAX_PROOF = 64
_BUNDLE: Mapping[str, type] = {
    "version": int,
    "checkpoint": str,
    "public_key": str,
    "entries": list,
    "disclosures": list,
}
_HEADER: Mapping[str, type] = {"version": int, "kind": str, "checkpoint": str, "public_key": str, "tree_size": int}
_OF_AN_EXPORT = frozenset({"kind", "tree_size", "entry", "disclosure"})
_LEAVES_A_TIME = 1024


@dataclass(frozen=True, slots=True)
class VerificationTools:
    """What the verifier needs that the standard library has not.

    `check_signature(public_key, message, signature)` says whether an Ed25519 signature holds. `parse_canonical` reads an object and raises
    `VerificationRefusedError` or `ValueError` unless the bytes are exactly its canonical form (RFC 8785).
    """

    check_signature: SignatureCheck
    parse_canonical: Callable[[bytes], dict[str, Any]]


def verify_bundle(document: bytes, *, key: VerifierKey, tools: VerificationTools) -> VerificationReport:
    """Check the bundle of one deliberation, from its acceptance to its end.

    A bundle cannot show that nothing followed the end: a recount, a resolution or an erasure may have been left out of it. Raises
    `VerificationRefusedError` naming the first thing that is wrong.
    """
    if len(document) > MAX_BUNDLE_BYTES:
        raise VerificationRefusedError(f"the bundle is longer than {MAX_BUNDLE_BYTES} bytes")
    if not document or document.isspace():
        raise VerificationRefusedError("the file is empty")
    bundle = read_object(document, what="the bundle")
    want_fields(bundle, _BUNDLE, what="the bundle")
    checkpoint = _open(bundle, "the bundle", key, tools)
    if not bundle["entries"]:
        raise VerificationRefusedError("the bundle holds no entries")
    with CommittedTexts() as texts:
        contents = _Contents(texts, tools)
        previous = -1
        for place, item in enumerate(bundle["entries"]):
            index, raw = _proven(item, place, previous, checkpoint)
            contents.take(index, raw, leaf_hash(raw), only_one=True)
            previous = index
        for disclosure in bundle["disclosures"]:
            contents.disclose(disclosure)
        return contents.report("bundle", checkpoint, all_ended=True)


def verify_log(lines: Iterable[bytes], *, key: VerifierKey, tools: VerificationTools) -> VerificationReport:
    """Check an export of a whole log: its first line the header, then a line for each entry, then lines of disclosures.

    Memory grows with the deliberations that run at one time, and by a line of the report for each that has ended, but not with
    the entries or the texts. Raises `VerificationRefusedError` naming the first thing that is wrong.
    """
    rest = iter(lines)
    first = next(rest, b"")
    if not first:
        raise VerificationRefusedError("the file is empty")
    header = _line(first, 1)
    if not {"entry", "disclosure"}.isdisjoint(header):
        raise VerificationRefusedError("line 1 is no header: the export begins with an entry or a text")
    want_fields(header, _HEADER, what="line 1")
    if header["kind"] != "log":
        raise VerificationRefusedError("line 1 is no header of a log", evidence={"kind": shown(header["kind"])})
    checkpoint = _open(header, "line 1", key, tools)
    size = checkpoint.tree_size
    if header["tree_size"] != size:
        raise VerificationRefusedError(
            "line 1 gives another tree size than the checkpoint",
            evidence={"tree_size": str(header["tree_size"]), "checkpoint": str(size)},
        )
    if not size:
        raise VerificationRefusedError("the log holds no entries")
    with CommittedTexts() as texts:
        contents = _Contents(texts, tools)
        edge = CompactRange()
        leaves: list[bytes] = []
        disclosing = False
        for number, line in enumerate(rest, start=2):
            item = _line(line, number)
            if item.keys() == {"disclosure"}:
                if not disclosing:
                    _close_tree(edge, leaves, checkpoint)
                    disclosing = True
                contents.disclose(item["disclosure"])
                continue
            index, raw = _next_entry(item, number, edge.size + len(leaves), size, after_texts=disclosing)
            leaf = leaf_hash(raw)
            contents.take(index, raw, leaf, only_one=False)
            leaves.append(leaf)
            if len(leaves) == _LEAVES_A_TIME:
                edge.extend(leaves)
                leaves = []
        if not disclosing:
            _close_tree(edge, leaves, checkpoint)
        return contents.report("log", checkpoint, all_ended=False)


def is_log_header(line: bytes) -> bool:
    """Whether the first line of a file begins an export of a whole log, rather than a bundle.

    So does what is a header but for a field, and an entry or a text where the header was cut off: the refusal then says that.
    """
    try:
        document = read_object(line.removeprefix(codecs.BOM_UTF8), what="line 1")
    except VerificationRefusedError:
        return False
    return "entries" not in document and not _OF_AN_EXPORT.isdisjoint(document)


class _Contents:
    """What the entries of a file say, whatever proves that they are in the log."""

    def __init__(self, texts: CommittedTexts, tools: VerificationTools) -> None:
        self._texts = texts
        self._tools = tools
        self._deliberations = Deliberations()
        self._only: str | None = None
        self._count = 0

    def take(self, index: int, raw: bytes, leaf: bytes, *, only_one: bool) -> None:
        """Check the next entry; all are of one deliberation when `only_one`."""
        entry, deliberation_id = read_entry(raw, index=index, parse_canonical=self._tools.parse_canonical)
        owner = 0
        if deliberation_id is not None:
            if only_one and self._only not in {None, deliberation_id}:
                raise VerificationRefusedError(
                    "it belongs to another deliberation than the entries before it",
                    index=index,
                    evidence={"deliberation": shown(deliberation_id), "before": shown(self._only)},
                )
            self._only = deliberation_id
            owner = self._deliberations.follow(deliberation_id, entry, index=index, leaf=leaf)
        for field, sha256 in commitments(entry):
            self._texts.add(index=index, owner=owner, field=field, sha256=sha256)
        self._count += 1

    def disclose(self, disclosure: object) -> None:
        if type(disclosure) is not dict:
            raise VerificationRefusedError("a disclosure is not a JSON object", evidence={"found": shown(disclosure)})
        self._texts.disclose(disclosure)

    def report(self, kind: str, checkpoint: Checkpoint, *, all_ended: bool) -> VerificationReport:
        deliberations = self._deliberations.close(all_ended=all_ended)
        if all_ended and not deliberations:
            raise VerificationRefusedError("the bundle holds no deliberation")
        settled = self._texts.settle(self._deliberations.erased_until)
        return VerificationReport(
            kind=kind,
            origin=checkpoint.origin,
            tree_size=checkpoint.tree_size,
            root_hash=checkpoint.root_hash,
            entries_checked=self._count,
            deliberations=deliberations,
            disclosed=self._texts.disclosed,
            withheld=tuple(settled.withheld),
            erased=tuple(settled.erased),
            withheld_count=settled.withheld_count,
            erased_count=settled.erased_count,
            prompts=settled.prompts,
        )


def _open(document: Mapping[str, Any], what: str, key: VerifierKey, tools: VerificationTools) -> Checkpoint:
    if document["version"] != _VERSION:
        raise VerificationRefusedError(
            f"{what} has another version than {_VERSION}", evidence={"version": shown(document["version"])}
        )
    # Only a hint for readers: what is trusted is the key that was pinned.
    if document["public_key"] != str(key):
        raise VerificationRefusedError(
            f"{what} names another public key than the pinned one",
            evidence={"public_key": shown(document["public_key"]), "pinned": str(key)},
        )
    checkpoint, note = open_checkpoint(document["checkpoint"], key, tools.check_signature, origin=key.name)
    if len(set(note.signatures)) < len(note.signatures):
        raise VerificationRefusedError("the checkpoint has the same signature twice")
    return checkpoint


def _proven(item: object, place: int, previous: int, checkpoint: Checkpoint) -> tuple[int, bytes]:
    """The index and the bytes of an entry of a bundle, proven to be in the log."""
    what = f"number {place + 1} of the entries"
    if type(item) is not dict:
        raise VerificationRefusedError(f"{what} is not a JSON object", evidence={"found": shown(item)})
    want_fields(item, {"index": int, "entry": str, "inclusion_proof": list}, what=what)
    index: int = item["index"]
    if index <= previous:
        problem = "stands twice" if index == previous else "stands out of order"
        raise VerificationRefusedError(f"the index {problem}: the one before it is {previous}", index=index)
    if index >= checkpoint.tree_size:
        raise VerificationRefusedError(
            "it lies beyond the checkpoint", index=index, evidence={"tree_size": str(checkpoint.tree_size)}
        )
    if index < 0:
        raise VerificationRefusedError("an index below 0 is no place in a log", index=index)
    if len(item["inclusion_proof"]) > _MAX_PROOF:
        raise VerificationRefusedError(
            f"its inclusion proof has {len(item['inclusion_proof'])} hashes, no tree needs more than {_MAX_PROOF}",
            index=index,
        )
    proof = [
        read_hash(each, what=f"hash {number} of the inclusion proof", index=index)
        for number, each in enumerate(item["inclusion_proof"])
    ]
    raw = _bytes_of(item["entry"], index)
    verify_inclusion(
        index=index,
        tree_size=checkpoint.tree_size,
        leaf=leaf_hash(raw),
        root=checkpoint.root_hash,
        proof=proof,
    )
    return index, raw


def _line(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise VerificationRefusedError(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
    if line.isspace():
        raise VerificationRefusedError(f"line {number} is empty")
    return read_object(line, what=f"line {number}")


def _next_entry(
    item: Mapping[str, Any], number: int, wanted: int, size: int, *, after_texts: bool
) -> tuple[int, bytes]:
    """The index and the bytes of the next entry of an export."""
    what = f"line {number}"
    want_fields(item, {"index": int, "entry": str}, what=what)
    index: int = item["index"]
    if after_texts:
        raise VerificationRefusedError(f"{what} is an entry after the disclosures", index=index)
    if index != wanted:
        raise VerificationRefusedError(
            f"{what} has this index, not {wanted}: one is missing, added or moved", index=index
        )
    if index >= size:
        raise VerificationRefusedError("it lies beyond the checkpoint", index=index, evidence={"tree_size": str(size)})
    return index, _bytes_of(item["entry"], index)


def _bytes_of(entry: str, index: int) -> bytes:
    try:
        return entry.encode()
    except UnicodeEncodeError as error:
        raise VerificationRefusedError("it holds a lone surrogate", index=index) from error


def _close_tree(edge: CompactRange, leaves: list[bytes], checkpoint: Checkpoint) -> None:
    """Raise `VerificationRefusedError` unless these entries are the tree that was signed."""
    edge.extend(leaves)
    leaves.clear()
    if edge.size != checkpoint.tree_size:
        raise VerificationRefusedError(
            f"the file is cut off after {edge.size} entries", evidence={"tree_size": str(checkpoint.tree_size)}
        )
    root = edge.root()
    if root != checkpoint.root_hash:
        raise VerificationRefusedError(
            "the entries are not those that were signed",
            evidence={"root_hash": checkpoint.root_hash.hex(), "computed": root.hex()},
        )
