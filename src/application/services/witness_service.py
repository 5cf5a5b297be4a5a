"""The witness log as the service offers it: what is shown of it, what is added to it, and what keeps it honest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from application.ports.anchor import Anchor
from application.ports.clock import Clock, SystemClock
from application.ports.witness_log import Disclosure, Erasure, Head, LoggedEntry, Sequel, WitnessLog
from application.services.administration import KEY_ADDED, KEY_RETIRED, named_keys, operators_statement
from application.services.anchorage import Anchorage, AnchorState
from application.services.log_check import LogCheck, SignatureTools, unverified
from application.services.log_export import exported_log
from application.services.log_reading import LogReading
from application.services.log_tree import LogTree
from application.services.logged_deliberation import LoggedDeliberation, disclosure_document
from application.services.minutes import Record, write_minutes
from application.services.signed_history import SignedHistory, Signer
from domain.errors.conclave_error import ConclaveError
from domain.errors.witness import LogUnverifiedError, VerificationRefusedError, WitnessError
from domain.witness.checkpoint import Checkpoint, VerifierKey
from domain.witness.proof import verify_inclusion
from domain.witness.sequel import RESOLVED

__all__ = ["WitnessService"]

_logger = logging.getLogger(__name__)
_RECHECK_S = 10.0


class WitnessService(LogReading):
    """Signs and adds to a log only while it continues all that was signed of it; reads it as `LogReading` does.

    `problem` says what the log did not stand up to, None while it is well; while it is set nothing is signed or added here.
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
        super().__init__(log)
        self.verifier_key = signer.verifier_key
        self.problem: LogUnverifiedError | None = None
        self._log: WitnessLog = log
        self._clock: Clock = SystemClock() if clock is None else clock
        self._history = SignedHistory(log=log, signer=signer, tools=tools, retired_keys=retired_keys)
        self._anchorage = Anchorage(anchors, log=log, history=self._history, clock=self._clock)
        self._signing = asyncio.Lock()

    @property
    def tree_size(self) -> int:
        """How many entries the log had when this last looked, whoever wrote them; 0 before the first look."""
        return self._history.tree_size

    @property
    def anchors(self) -> Sequence[AnchorState]:
        """Each anchor of this process in the order in which they are configured; names may hold paths, so they are not for everybody."""
        return self._anchorage.states

    @property
    def anchor_problems(self) -> Mapping[str, str]:
        """Of each anchor that could not be reached or refused a checkpoint why; anchors stop nothing."""
        return self._anchorage.problems

    async def check_at_start(self) -> None:
        """Compare the log with all that was signed of it, and set or clear `problem`; does not raise for a mismatch.

        Raises `DependencyUnavailableError` when the store is away.
        """
        await self._anchorage.ask()
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
        _, note = await self._signed_now()
        return note

    async def bundle(self, deliberation_id: str) -> dict[str, Any]:
        """The offline verification bundle, every proof of which leads to the root of its checkpoint.

        Raises `DeliberationNotFoundError`, and `LogUnverifiedError` where what is stored does not hash to what was recorded.
        """
        told = await LoggedDeliberation.read(self._log, deliberation_id)
        proofs, _, note = await self._proven(told.entries)
        return {
            "version": 1,
            "checkpoint": note,
            "public_key": str(self.verifier_key),
            "entries": [
                {"index": each.index, "entry": each.entry.decode(), "inclusion_proof": [step.hex() for step in proof]}
                for each, proof in zip(told.entries, proofs, strict=True)
            ],
            "disclosures": [disclosure_document(each) for each in told.disclosures],
        }

    async def minutes(self, deliberation_id: str) -> str:
        """The procedural record in Markdown, from entries that are proven to be in the log. Raises like `bundle`."""
        told = await LoggedDeliberation.read(self._log, deliberation_id)
        _, checkpoint, note = await self._proven(told.entries)
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

    def export(self, *, with_texts: bool = False) -> AsyncIterator[str]:
        """The whole log as JSON Lines without their newlines, a page in memory at a time.

        Raises `LogUnverifiedError` at the first entry that is missing or damaged, and at the end if the root differs.
        """
        return exported_log(self._log, self._signed_now, key=self.verifier_key, with_texts=with_texts)

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

    async def accept_restore(self, *, reason: str, key_name: str | None) -> LoggedEntry:
        """Record that what was signed beyond the present log is lost, with both heads, and clear `problem`.

        Raises `WitnessError` when nothing is lost, `LogUnverifiedError` where the log is damaged, which cannot be accepted.
        """
        await self._anchorage.ask()
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
        if self._history.check is None:
            await self.check_at_start()
        if await self._anchorage.publish(*await self._signed_now()):
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
        check = await self._history.compare(self._anchorage.signed_heads)
        if finding is not None and check.problem is None and not check.restores:
            self._note_problem(unverified(finding))
        else:
            self._note_problem(check.problem)
        return check

    async def _signed_now(self) -> tuple[Checkpoint, str]:
        """The checkpoint of the present head, and its note. Raises like `checkpoint`."""
        self._require_well()
        async with self._signing:
            try:
                return await self._history.sign()
            except VerificationRefusedError as error:
                # A restore that another process has accepted may explain it; only the whole check reads those.
                await self._recheck(finding=error)
            self._require_well()
            try:
                return await self._history.sign()
            except VerificationRefusedError as error:
                problem = unverified(error)
                self._note_problem(problem)
                raise problem from error

    async def _add(self, statements: Sequence[tuple[Mapping[str, Any], Sequence[Disclosure]]]) -> Sequence[LoggedEntry]:
        return await self._log.append(
            [document for document, _ in statements],
            disclosures=[each for _, disclosures in statements for each in disclosures],
        )

    async def _proven(self, entries: Sequence[LoggedEntry]) -> tuple[list[list[bytes]], Checkpoint, str]:
        # Signed after the entries were read, so that it covers them all.
        checkpoint, note = await self._signed_now()
        size = checkpoint.tree_size
        try:
            proofs = await LogTree(self._log).inclusion_proofs([each.index for each in entries], size)
            for each, proof in zip(entries, proofs, strict=True):
                verify_inclusion(
                    index=each.index, tree_size=size, leaf=each.leaf_hash, root=checkpoint.root_hash, proof=proof
                )
        except VerificationRefusedError as error:
            raise unverified(error) from error
        return proofs, checkpoint, note

    def _statement(
        self, kind: str, reason: str | None, key_name: str | None, **facts: Any
    ) -> tuple[Mapping[str, Any], Sequence[Disclosure]]:
        """What an operator did, as an entry, and its texts."""
        return operators_statement(kind, at=self._clock.now(), reason=reason, key_name=key_name, facts=facts)


def _head_document(head: Head) -> dict[str, Any]:
    return {"tree_size": head.tree_size, "root_hash": head.root_hash.hex()}
