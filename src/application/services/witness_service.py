"""The witness log as the service offers it: checkpoints, proofs, tiles, bundles, minutes, and what keeps it honest."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from application.ports.anchor import Anchor, AnchorConflictError
from application.ports.clock import Clock, SystemClock
from application.ports.witness_log import Disclosure, Erasure, Head, LoggedEntry, Sequel, WitnessLog
from application.services.administration import KEY_ADDED, KEY_RETIRED, named_keys, operators_statement
from application.services.log_check import (
    CheckpointReader,
    LogCheck,
    SignatureTools,
    SignedHead,
    check_log,
    require_follows,
    unverified,
)
from application.services.log_tree import LogTree
from application.services.minutes import Record, write_minutes
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import DeliberationNotFoundError, InvalidSpecificationError
from domain.errors.witness import LogUnverifiedError, VerificationRefusedError, WitnessError
from domain.witness.checkpoint import Checkpoint, VerifierKey
from domain.witness.entry import commitment
from domain.witness.merkle import CompactRange, leaf_hash
from domain.witness.proof import verify_consistency, verify_inclusion
from domain.witness.sequel import RESOLVED
from domain.witness.tile import Tile, entry_bundle

__all__ = ["AnchorState", "ConsistencyProof", "InclusionProof", "RestartableAnchor", "Signer", "WitnessService"]

_logger = logging.getLogger(__name__)
_EXPORT_PAGE = 2_048
_RECHECK_S = 10.0
_ANCHOR_S = 20.0
_ACCEPTED = b'"deliberation.accepted"'


class Signer(Protocol):
    """Signs checkpoints of this log, and says with which key."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The key that checks what `sign` gives; its name is the log's origin."""
        ...

    def sign(self, tree_size: int, root_hash: bytes) -> str:
        """The signed note (C2SP tlog-checkpoint) for that size and root (32 bytes)."""
        ...


@runtime_checkable
class RestartableAnchor(Protocol):
    """An anchor that can begin anew after a restore that an operator has accepted."""

    async def restart(self, note: str) -> None:
        """Keep that checkpoint whatever is held now. Raises like `Anchor.publish`."""
        ...


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That the leaf stands at `index` in the tree of `tree_size` leaves; hashes of 32 bytes, from the leaf to the root."""

    index: int
    tree_size: int
    leaf_hash: bytes
    root_hash: bytes
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the tree of `first` leaves is the start of the tree of `second`; hashes and roots of 32 bytes."""

    first: int
    second: int
    first_root: bytes
    second_root: bytes
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AnchorState:
    """How an anchor stands: the size that it holds as far as this process knows, when it took it from here, and what is wrong.

    None where that is not known: nothing was given to it since the start, or nothing is wrong.
    """

    name: str
    tree_size: int | None
    taken_at: datetime | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Told:
    """What one deliberation has in the log: its entries, what they say, and the texts that belong to them."""

    entries: Sequence[LoggedEntry]
    documents: Sequence[Mapping[str, Any]]
    disclosures: Sequence[Disclosure]


class WitnessService:
    """Signs no head that it has not derived from the stored nodes and found to continue what it signed before.

    `problem` says what the log did not stand up to, None while it is well; while it is set nothing is signed or added here.
    `anchor_problems` says of each anchor that could not be reached or refused a checkpoint why; anchors stop nothing.
    """

    def __init__(
        self,
        *,
        log: WitnessLog,
        signer: Signer,
        tools: SignatureTools,
        anchors: Sequence[Anchor] = (),
        clock: Clock | None = None,
        retired_keys: Sequence[VerifierKey] = (),
    ) -> None:
        """`retired_keys` are earlier keys of this log, by which older checkpoints are signed, beside those that the log names."""
        self.verifier_key = signer.verifier_key
        self.problem: LogUnverifiedError | None = None
        self.anchor_problems: dict[str, str] = {}
        self._log = log
        self._signer = signer
        self._anchors = tuple(anchors)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._reader = CheckpointReader((signer.verifier_key, *retired_keys), tools.check_signature)
        self._signing = asyncio.Lock()
        self._check: LogCheck | None = None
        self._newest: tuple[Checkpoint, str] | None = None
        self._anchored: dict[str, Checkpoint] = {}
        self._unheard: set[str] = set()
        self._taken_at: dict[str, datetime] = {}

    @property
    def tree_size(self) -> int:
        """How many entries the log had when this last looked, whoever wrote them; 0 before the first look."""
        checked = 0 if self._check is None else self._check.head.tree_size
        return checked if self._newest is None else max(checked, self._newest[0].tree_size)

    @property
    def anchors(self) -> Sequence[AnchorState]:
        """Each anchor of this process in the order in which they are configured; names may hold paths, so they are not for everybody."""
        held, taken_at, problems = self._anchored, self._taken_at, self.anchor_problems
        return [
            AnchorState(name, held[name].tree_size if name in held else None, taken_at.get(name), problems.get(name))
            for name in (anchor.name for anchor in self._anchors)
        ]

    async def check_at_start(self) -> None:
        """Compare the log with all that was signed of it, and set or clear `problem`; does not raise for a mismatch.

        Raises `DependencyUnavailableError` when the store is away.
        """
        await self._ask_anchors()
        async with self._signing:
            await self._recheck()

    async def note_key(self) -> Sequence[LoggedEntry]:
        """Record the signing key unless it is the one that the log named last, and that those before it are retired.

        Returns what was added. Adds nothing while there is a `problem`, and sets it where the log's keys cannot be read.
        """
        async with self._signing:
            if self.problem is not None:
                return ()
            try:
                present = (await named_keys(self._log)).present
            except VerificationRefusedError as error:
                self._note_problem(unverified(error))
                return ()
            own = self.verifier_key
            if present and present[-1] == own:
                return ()
            former = [key for key in present if key != own]
            if former:
                _logger.warning("the log's key %s is retired: it is signed with %s from now on", former[-1], own)
            reason = "the service was started with another key" if former else "the log had no key"
            statements = [self._statement(KEY_ADDED, reason, None, vkey=str(own))]
            statements += [self._statement(KEY_RETIRED, reason, None, vkey=str(key)) for key in former]
            return await self._add(statements)

    async def checkpoint(self) -> str:
        """The signed note of the present head; signed, and stored, if the newest is older.

        Raises `LogUnverifiedError` where the head does not follow from what was signed before.
        """
        self._require_well()
        async with self._signing:
            try:
                return await self._signed_head()
            except VerificationRefusedError as error:
                # A restore that another process has accepted may explain it; only the whole check reads those.
                await self._recheck(finding=error)
            self._require_well()
            try:
                return await self._signed_head()
            except VerificationRefusedError as error:
                problem = unverified(error)
                self._note_problem(problem)
                raise problem from error

    async def entry(self, index: int) -> LoggedEntry:
        """The entry at that index. Raises `InvalidSpecificationError` out of range, `LogUnverifiedError` if it is damaged."""
        head = await self._log.head()
        _require_range("/index", index, 0, head.tree_size - 1)
        return (await self._sound_entries(index, index + 1))[0]

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        """The entries from `start` on, before `end`, which is at most the log's size. Raises `LogUnverifiedError` if one is damaged."""
        return await self._sound_entries(start, end)

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """All entries of a deliberation, ascending; none where it is not known. Raises `LogUnverifiedError` if one is damaged."""
        found = sorted(await self._log.entries_of(deliberation_id), key=lambda each: each.index)
        _require_sound(found)
        return found

    async def inclusion(self, *, index: int, tree_size: int) -> InclusionProof:
        """The proof of that entry in the tree of that size, verified before it is given. Raises like `entry`."""
        tree = LogTree(self._log)
        try:
            known = 0 <= index < tree_size
            head = await (tree.head_beside_inclusion(index, tree_size) if known else self._log.head())
            _require_range("/tree_size", tree_size, 1, head.tree_size)
            _require_range("/index", index, 0, tree_size - 1)
            leaf, root = await tree.leaf_hash(index), await tree.root_at(tree_size)
            (proof,) = await tree.inclusion_proofs([index], tree_size)
            verify_inclusion(index=index, tree_size=tree_size, leaf=leaf, root=root, proof=proof)
            await _require_head_of(tree, tree_size, head)
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return InclusionProof(index, tree_size, leaf, root, tuple(proof))

    async def consistency(self, *, first: int, second: int) -> ConsistencyProof:
        """The proof from one size to the other, verified before it is given. Raises like `entry`."""
        tree = LogTree(self._log)
        try:
            known = 0 <= first <= second
            head = await (tree.head_beside_consistency(first, second) if known else self._log.head())
            _require_range("/second", second, 0, head.tree_size)
            _require_range("/first", first, 0, second)
            roots = await tree.root_at(first), await tree.root_at(second)
            proof = await tree.consistency_proof(first, second)
            verify_consistency(first=first, second=second, first_root=roots[0], second_root=roots[1], proof=proof)
            await _require_head_of(tree, second, head)
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return ConsistencyProof(first, second, *roots, tuple(proof))

    async def tile(self, tile: Tile) -> bytes | None:
        """The tile's hashes joined, or the entry bundle; None when the present tree has no such tile.

        Raises `LogUnverifiedError` where a part of it is missing.
        """
        if not tile.exists_in((await self._log.head()).tree_size):
            return None
        if tile.level is None:
            return entry_bundle([each.entry for each in await self._sound_entries(tile.start, tile.end)])
        if tile.level == 0:
            hashes = await self._log.leaf_hashes(tile.start, tile.end)
        else:
            hashes = await self._log.nodes(tile.level, tile.start, tile.end)
        if len(hashes) != tile.width:
            raise unverified(VerificationRefusedError(f"tile {tile} has {len(hashes)} of its {tile.width} hashes"))
        return b"".join(hashes)

    async def bundle(self, deliberation_id: str) -> dict[str, Any]:
        """The offline verification bundle, every proof of which leads to the root of its checkpoint.

        Raises `DeliberationNotFoundError`, and `LogUnverifiedError` where what is stored does not hash to what was recorded.
        """
        told = await self._told(deliberation_id)
        proofs, note, _ = await self._proven(told.entries)
        return {
            "version": 1,
            "checkpoint": note,
            "public_key": str(self.verifier_key),
            "entries": [
                {"index": each.index, "entry": each.entry.decode(), "inclusion_proof": [step.hex() for step in proof]}
                for each, proof in zip(told.entries, proofs, strict=True)
            ],
            "disclosures": [_disclosure_document(each) for each in told.disclosures],
        }

    async def minutes(self, deliberation_id: str) -> str:
        """The procedural record in Markdown, from entries that are proven to be in the log. Raises like `bundle`."""
        told = await self._told(deliberation_id)
        _, note, checkpoint = await self._proven(told.entries)
        # They count the ballots again, which takes longer than an event loop should be held.
        return await asyncio.to_thread(
            write_minutes,
            told.documents,
            {each.sha256: each.text for each in told.disclosures},
            Record(
                indexes=tuple(each.index for each in told.entries),
                tree_size=checkpoint.tree_size,
                root_hash=checkpoint.root_hash,
                checkpoint=note,
                public_key=str(self.verifier_key),
            ),
        )

    async def export(self, *, with_texts: bool = False) -> AsyncIterator[str]:
        """The whole log as JSON Lines without their newlines, a page in memory at a time.

        Raises `LogUnverifiedError` at the first entry that is missing or damaged, and at the end if the root differs.
        """
        note = await self.checkpoint()
        checkpoint = await self._open(note)
        size = checkpoint.tree_size
        header = {"version": 1, "kind": "log", "checkpoint": note, "public_key": str(self.verifier_key)}
        yield _line({**header, "tree_size": size})
        tree = CompactRange()
        for start in range(0, size, _EXPORT_PAGE):
            entries = await self._sound_entries(start, min(start + _EXPORT_PAGE, size))
            tree.extend([each.leaf_hash for each in entries])
            for each in entries:
                yield _line({"index": each.index, "entry": each.entry.decode()})
        if tree.root() != checkpoint.root_hash:
            evidence = {"signed_root": checkpoint.root_hash.hex(), "derived_root": tree.root().hex()}
            raise unverified(VerificationRefusedError("the entries do not have the signed root", evidence=evidence))
        if with_texts:
            async for line in self._exported_texts(size):
                yield line

    async def erase(self, deliberation_id: str, *, reason: str, key_name: str | None) -> LoggedEntry:
        """Remove the texts of a deliberation and record that they were removed, in one step.

        Raises `DeliberationNotFoundError`, `IllegalTransitionError` while it runs, and `LogUnverifiedError`.
        """
        self._require_well()
        document, disclosures = self._statement("erased", reason, key_name, deliberation_id=deliberation_id)
        return await self._log.erase(Erasure(deliberation_id, document, disclosures))

    async def follow_up(
        self, deliberation_id: str, kind: str, *, facts: Mapping[str, Any], key_name: str | None
    ) -> LoggedEntry:
        """Record what was made of a deliberation after its end.

        Raises `DeliberationNotFoundError`, `IllegalTransitionError` while it runs, and `LogUnverifiedError`.
        """
        self._require_well()
        document, disclosures = self._statement(kind, None, key_name, deliberation_id=deliberation_id, **facts)
        return await self._log.follow_up(Sequel(deliberation_id, document, disclosures, resolves=kind == RESOLVED))

    async def sequels(self, deliberation_id: str, kind: str) -> Sequence[LoggedEntry]:
        """The entries of that type of a deliberation, ascending. Raises `LogUnverifiedError` for one that is damaged."""
        mark = f'"type":"{kind}"'.encode()
        found = [each for each in await self._log.entries_of(deliberation_id) if mark in each.entry]
        _require_sound(found)
        return [each for each in found if json.loads(each.entry).get("type") == kind]

    async def accept_restore(self, *, reason: str, key_name: str | None) -> LoggedEntry:
        """Record that what was signed beyond the present log is lost, with both heads, and clear `problem`.

        Raises `WitnessError` when nothing is lost, `LogUnverifiedError` where the log is damaged, which cannot be accepted.
        """
        await self._ask_anchors()
        async with self._signing:
            check = await self._recheck()
            if check.problem is None:
                raise WitnessError("the log goes on from all that was signed of it: there is no restore to accept.")
            if not check.lost:
                raise check.problem
            kept = _head_document(check.head)
            statements = [
                self._statement("restore.accepted", reason, key_name, lost=_head_document(lost), kept=kept)
                for lost in check.lost
            ]
            accepted = await self._add(statements)
            await self._recheck()
        self._require_well()
        return accepted[0]

    async def publish(self) -> None:
        """Sign the present head and give it to every anchor that has it not yet. Raises like `checkpoint`, never for an anchor."""
        if self._check is None:
            await self.check_at_start()
        note = await self.checkpoint()
        checkpoint = await self._open(note)
        behind = [anchor for anchor in self._anchors if self._anchored.get(anchor.name) != checkpoint]
        doubts = await asyncio.gather(*(self._publish_to(anchor, note, checkpoint) for anchor in behind))
        if any(doubts):
            await self.check_at_start()

    async def publish_for_ever(self, interval_s: float = 1.0) -> None:
        """Publish again and again, until cancelled; a log with a problem is looked at again every ten seconds."""
        checked_at = self._clock.monotonic()
        while True:
            try:
                if self.problem is None:
                    await self.publish()
                elif self._clock.monotonic() - checked_at >= _RECHECK_S:
                    checked_at = self._clock.monotonic()
                    await self.check_at_start()
            except ConclaveError as error:
                _logger.warning("no checkpoint was published: %s", error)
            await asyncio.sleep(interval_s)

    async def watch_for_ever(self, interval_s: float = _RECHECK_S) -> None:
        """Compare again and again, until cancelled, and sign nothing: for a process that only adds to the log."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.check_at_start()
            except ConclaveError as error:
                _logger.warning("the log was not compared with what was signed of it: %s", error)

    def _require_well(self) -> None:
        if self.problem is not None:
            # Each raise would lengthen the traceback of the one error that is kept.
            raise self.problem.with_traceback(None)

    def _note_problem(self, problem: LogUnverifiedError | None) -> None:
        if problem is not None and str(problem) != str(self.problem):
            _logger.error("%s", problem, extra={"evidence": problem.evidence})
        self.problem = problem

    async def _recheck(self, *, finding: VerificationRefusedError | None = None) -> LogCheck:
        signed = [
            SignedHead(f"the newest checkpoint of the anchor {name!r}", checkpoint)
            for name, checkpoint in self._anchored.items()
        ]
        if self._newest is not None:
            signed.append(SignedHead("the checkpoint that this process signed last", self._newest[0]))
        check = await check_log(self._log, self._reader, signed_before=signed)
        self._check = check
        if finding is not None and check.problem is None and not check.restores:
            self._note_problem(unverified(finding))
        else:
            self._note_problem(check.problem)
        return check

    async def _add(self, statements: Sequence[tuple[Mapping[str, Any], Sequence[Disclosure]]]) -> Sequence[LoggedEntry]:
        return await self._log.append(
            [document for document, _ in statements],
            disclosures=[each for _, disclosures in statements for each in disclosures],
        )

    async def _open(self, note: str) -> Checkpoint:
        """The checkpoint; the keys that the log names are read once one is needed."""
        try:
            return self._reader.open(note)
        except VerificationRefusedError:
            self._reader = await self._reader.widened(self._log)
            return self._reader.open(note)

    async def _signed_head(self) -> str:
        stored = await self._log.latest_checkpoint()
        head = await self._log.head()
        if self._newest is not None and Head(self._newest[0].tree_size, self._newest[0].root_hash) == head:
            return self._newest[1]
        tree = LogTree(self._log)
        await require_follows(tree, head, None)
        if self._newest is not None and await self._is_abandoned(tree, head, self._newest[0]):
            self._newest = None
        last = await self._last_signed(stored, tree, head)
        signed_before = [] if last is None else [SignedHead("the newest stored checkpoint", last[0])]
        if self._newest is not None:
            signed_before.append(SignedHead("the checkpoint that this process signed last", self._newest[0]))
        for signed in signed_before:
            await require_follows(tree, head, signed)
        if last is not None and last[0].tree_size == head.tree_size and self._reader.is_present(last[1]):
            note = last[1]
        else:
            note = self._signer.sign(head.tree_size, head.root_hash)
            await self._log.add_checkpoint(head.tree_size, note)
        self._newest = await self._open(note), note
        return note

    async def _last_signed(self, stored: str | None, tree: LogTree, head: Head) -> tuple[Checkpoint, str] | None:
        """The newest stored checkpoint and its note, passing over those of a history that an operator has accepted to be lost."""
        last = None if stored is None else (await self._open(stored), stored)
        while last is not None and await self._is_abandoned(tree, head, last[0]):
            last = await self._newest_below(min(last[0].tree_size, head.tree_size + 1))
        return last

    async def _newest_below(self, size: int) -> tuple[Checkpoint, str] | None:
        """The stored checkpoint of the greatest size below that one, by bisection: the port reads them upwards only."""
        found = None
        low, high = -1, size - 1
        while low < high:
            middle = (low + high) // 2
            notes = await self._log.checkpoints(middle, 1)
            first = await self._open(notes[0]) if notes else None
            if first is None or first.tree_size >= size:
                high = middle
            else:
                found, low = (first, notes[0]), first.tree_size
        return found

    async def _is_abandoned(self, tree: LogTree, head: Head, checkpoint: Checkpoint) -> bool:
        restores = () if self._check is None else self._check.restores
        if not any(restore.explains(checkpoint) for restore in restores):
            return False
        try:
            await require_follows(tree, head, SignedHead("a stored checkpoint", checkpoint))
        except VerificationRefusedError:
            return True
        return False

    async def _ask_anchors(self) -> None:
        await asyncio.gather(*(self._ask(anchor) for anchor in self._anchors))

    async def _ask(self, anchor: Anchor) -> None:
        try:
            async with asyncio.timeout(_ANCHOR_S):
                note = await anchor.latest()
            if note is not None:
                self._anchored[anchor.name] = await self._open(note)
        except Exception as error:  # noqa: BLE001 - whatever an anchor does is shown, and stops nothing
            self._unheard.add(anchor.name)
            self._note_anchor_problem(anchor, error)
        else:
            # What it refused to take is not mended by its telling what it holds.
            if anchor.name in self._unheard:
                self._forget_anchor_problem(anchor)

    async def _publish_to(self, anchor: Anchor, note: str, checkpoint: Checkpoint) -> bool:
        """Whether the anchor holds something that has to be compared with the log."""
        try:
            async with asyncio.timeout(_ANCHOR_S):
                await self._hand_over(anchor, note, checkpoint)
        except Exception as error:  # noqa: BLE001 - whatever an anchor does is shown, and stops nothing
            self._unheard.discard(anchor.name)
            is_new = self._note_anchor_problem(anchor, error)
            return is_new and isinstance(error, AnchorConflictError | VerificationRefusedError)
        self._forget_anchor_problem(anchor)
        if self._anchored.get(anchor.name) == checkpoint:
            self._taken_at[anchor.name] = self._clock.now()
        return False

    async def _hand_over(self, anchor: Anchor, note: str, checkpoint: Checkpoint) -> None:
        tree = LogTree(self._log)
        held = self._anchored.get(anchor.name)
        if held is not None:
            head = Head(checkpoint.tree_size, checkpoint.root_hash)
            if await self._is_abandoned(tree, head, held):
                if isinstance(anchor, RestartableAnchor):
                    await anchor.restart(note)
                    self._anchored[anchor.name] = checkpoint
                    return
            elif held.tree_size > checkpoint.tree_size:
                return
        old_size = 0 if held is None else min(held.tree_size, checkpoint.tree_size)
        try:
            proof = await tree.consistency_proof(old_size, checkpoint.tree_size)
            await anchor.publish(note, old_size=old_size, consistency=proof)
        except AnchorConflictError as error:
            if not 0 <= error.conflict_size <= checkpoint.tree_size or error.conflict_size == old_size:
                raise
            proof = await tree.consistency_proof(error.conflict_size, checkpoint.tree_size)
            await anchor.publish(note, old_size=error.conflict_size, consistency=proof)
        self._anchored[anchor.name] = checkpoint

    def _note_anchor_problem(self, anchor: Anchor, error: Exception) -> bool:
        """Whether it is another problem than the anchor had before."""
        text = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"it did not answer within {_ANCHOR_S:g} s"
        if self.anchor_problems.get(anchor.name) == text:
            return False
        self.anchor_problems[anchor.name] = text
        _logger.warning("the anchor %r: %s", anchor.name, text, extra={"anchor": anchor.name})
        return True

    def _forget_anchor_problem(self, anchor: Anchor) -> None:
        self._unheard.discard(anchor.name)
        self.anchor_problems.pop(anchor.name, None)

    async def _sound_entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        entries = await self._log.entries(start, end)
        present = [each.index for each in entries]
        missing = next((index for index in range(start, end) if index - start >= len(present)), None)
        misplaced = next((index for index, found in enumerate(present, start) if index != found), missing)
        if misplaced is not None:
            raise unverified(VerificationRefusedError("the entry is missing", index=misplaced))
        _require_sound(entries)
        return entries

    async def _told(self, deliberation_id: str) -> _Told:
        # Texts first: every one of them then belongs to an entry that is read after it.
        disclosures = await self._log.disclosures_of(deliberation_id)
        entries = sorted(await self._log.entries_of(deliberation_id), key=lambda each: each.index)
        if not entries:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        _require_sound(entries)
        documents = [json.loads(each.entry) for each in entries]
        if any(document["type"] == "erased" for document in documents):
            disclosures = await self._log.disclosures_of(deliberation_id)
        committed = {sha256 for document in documents for sha256 in _commitments(document)}
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
        return _Told(entries, documents, disclosures)

    async def _proven(self, entries: Sequence[LoggedEntry]) -> tuple[list[list[bytes]], str, Checkpoint]:
        # Signed after the entries were read, so that it covers them all.
        note = await self.checkpoint()
        checkpoint = await self._open(note)
        size = checkpoint.tree_size
        try:
            proofs = await LogTree(self._log).inclusion_proofs([each.index for each in entries], size)
            for each, proof in zip(entries, proofs, strict=True):
                verify_inclusion(
                    index=each.index, tree_size=size, leaf=each.leaf_hash, root=checkpoint.root_hash, proof=proof
                )
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return proofs, note, checkpoint

    async def _exported_texts(self, size: int) -> AsyncIterator[str]:
        # A second pass, because the ids of all deliberations would not fit a bounded memory.
        for start in range(0, size, _EXPORT_PAGE):
            for each in await self._log.entries(start, min(start + _EXPORT_PAGE, size)):
                if _ACCEPTED not in each.entry:
                    continue
                document = json.loads(each.entry)
                if document.get("type") != "deliberation.accepted":
                    continue
                told = await self._told(document["deliberation_id"])
                exported = [own for entry, own in zip(told.entries, told.documents, strict=True) if entry.index < size]
                committed = {sha256 for own in exported for sha256 in _commitments(own)}
                for disclosure in told.disclosures:
                    if disclosure.sha256 in committed:
                        yield _line({"disclosure": _disclosure_document(disclosure)})

    def _statement(
        self, kind: str, reason: str | None, key_name: str | None, **facts: Any
    ) -> tuple[Mapping[str, Any], Sequence[Disclosure]]:
        """What an operator did, as an entry, and its texts."""
        return operators_statement(kind, at=self._clock.now(), reason=reason, key_name=key_name, facts=facts)


def _require_range(pointer: str, value: int, first: int, last: int) -> None:
    if not first <= value <= last:
        allowed = f"must be {first} to {last}" if first <= last else "cannot be given while the log has no entries"
        raise InvalidSpecificationError.at(pointer, allowed)


async def _require_head_of(tree: LogTree, tree_size: int, head: Head) -> None:
    """Returns if the tree is an older one than the head's, or has its root."""
    if tree_size == head.tree_size:
        await require_follows(tree, head, None)


def _require_sound(entries: Sequence[LoggedEntry]) -> None:
    for each in entries:
        computed = leaf_hash(each.entry)
        if computed != each.leaf_hash:
            evidence = {"stored_leaf": each.leaf_hash.hex(), "computed_leaf": computed.hex()}
            raise unverified(
                VerificationRefusedError(
                    "the entry does not hash to its stored leaf", index=each.index, evidence=evidence
                )
            )


def _commitments(value: Any) -> Iterator[str]:
    """Every commitment (hex) in a document."""
    if isinstance(value, list):
        for inner in value:
            yield from _commitments(inner)
    elif isinstance(value, dict):
        if value.keys() == {"sha256"}:
            yield value["sha256"]
        for inner in value.values():
            yield from _commitments(inner)


def _head_document(head: Head) -> dict[str, Any]:
    return {"tree_size": head.tree_size, "root_hash": head.root_hash.hex()}


def _disclosure_document(disclosure: Disclosure) -> dict[str, str]:
    return {"sha256": disclosure.sha256, "salt": disclosure.salt, "text": disclosure.text}


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
