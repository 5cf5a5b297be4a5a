"""What was signed of a log, and the next head that is signed of it: none that does not follow from what was signed before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from application.ports.witness_log import Head, WitnessLog
from application.services.log_check import (
    CheckpointReader,
    LogCheck,
    SignatureTools,
    SignedHead,
    check_log,
    open_with_named_keys,
    require_follows,
)
from application.services.log_tree import LogTree
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, VerifierKey

__all__ = ["SignedHistory", "Signer"]


class Signer(Protocol):
    """Signs checkpoints of this log, and says with which key."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The key that checks what `sign` gives; its name is the log's origin."""
        ...

    def sign(self, tree_size: int, root_hash: bytes) -> str:
        """The signed note (C2SP tlog-checkpoint) for that size and root (32 bytes)."""
        ...


class SignedHistory:
    """Signs no head that it has not derived from the stored nodes and found to continue what was signed before.

    `check` is what the last comparison found, None before the first. `compare` and `sign` are for one caller at a time.
    """

    def __init__(
        self, *, log: WitnessLog, signer: Signer, tools: SignatureTools, retired_keys: Sequence[VerifierKey]
    ) -> None:
        self.check: LogCheck | None = None
        self._log = log
        self._signer = signer
        self._reader = CheckpointReader((signer.verifier_key, *retired_keys), tools.check_signature)
        self._newest: tuple[Checkpoint, str] | None = None

    @property
    def tree_size(self) -> int:
        """How many entries the log had when this last looked, whoever wrote them; 0 before the first look."""
        checked = 0 if self.check is None else self.check.head.tree_size
        return checked if self._newest is None else max(checked, self._newest[0].tree_size)

    async def compare(self, held: Sequence[SignedHead]) -> LogCheck:
        """Compare the log with the stored checkpoint, with what others hold, and with what this process signed last."""
        signed = list(held)
        if self._newest is not None:
            signed.append(SignedHead("the checkpoint that this process signed last", self._newest[0]))
        self.check = await check_log(self._log, self._reader, signed_before=signed)
        return self.check

    async def open(self, note: str) -> Checkpoint:
        """The checkpoint; the keys that the log names are read once one is needed. Raises `VerificationRefusedError`."""
        checkpoint, self._reader = await open_with_named_keys(self._log, self._reader, note)
        return checkpoint

    async def sign(self) -> tuple[Checkpoint, str]:
        """The present head and its note, signed and stored where the newest is of an older one. Raises `VerificationRefusedError`."""
        stored = await self._log.latest_checkpoint()
        head = await self._log.head()
        if self._newest is not None and Head(self._newest[0].tree_size, self._newest[0].root_hash) == head:
            return self._newest
        tree = LogTree(self._log)
        await require_follows(tree, head, None)
        if self._newest is not None and await self.is_abandoned(tree, head, self._newest[0]):
            self._newest = None
        last = await self._last_signed(stored, tree, head)
        signed_before = [] if last is None else [SignedHead("the newest stored checkpoint", last[0])]
        if self._newest is not None:
            signed_before.append(SignedHead("the checkpoint that this process signed last", self._newest[0]))
        for signed in signed_before:
            await require_follows(tree, head, signed)
        if last is not None and last[0].tree_size == head.tree_size and self._reader.is_present(last[1]):
            self._newest = last
        else:
            note = self._signer.sign(head.tree_size, head.root_hash)
            await self._log.add_checkpoint(head.tree_size, note)
            self._newest = await self.open(note), note
        return self._newest

    async def is_abandoned(self, tree: LogTree, head: Head, checkpoint: Checkpoint) -> bool:
        """Whether an operator has accepted that what was signed there is lost, and the log does not go on from it."""
        restores = () if self.check is None else self.check.restores
        if not any(restore.explains(checkpoint) for restore in restores):
            return False
        try:
            await require_follows(tree, head, SignedHead("a stored checkpoint", checkpoint))
        except VerificationRefusedError:
            return True
        return False

    async def _last_signed(self, stored: str | None, tree: LogTree, head: Head) -> tuple[Checkpoint, str] | None:
        """The newest stored checkpoint and its note, passing over those of a history that an operator has accepted to be lost."""
        last = None if stored is None else (await self.open(stored), stored)
        while last is not None and await self.is_abandoned(tree, head, last[0]):
            last = await self._newest_below(min(last[0].tree_size, head.tree_size + 1))
        return last

    async def _newest_below(self, size: int) -> tuple[Checkpoint, str] | None:
        """The stored checkpoint of the greatest size below that one, by bisection: the port reads them upwards only."""
        found = None
        low, high = -1, size - 1
        while low < high:
            middle = (low + high) // 2
            notes = await self._log.checkpoints(middle, 1)
            first = await self.open(notes[0]) if notes else None
            if first is None or first.tree_size >= size:
                high = middle
            else:
                found, low = (first, notes[0]), first.tree_size
        return found
