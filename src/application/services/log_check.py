"""Compares the log as it is stored with what was signed of it before: in its own store, in memory and at the anchors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from application.ports.witness_log import Head, LoggedEntry, WitnessLogReader
from application.services.administration import administrative_entries, named_keys
from application.services.log_tree import LogTree
from domain.errors.witness import LogUnverifiedError, VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, SignatureCheck, VerifierKey, open_checkpoint
from domain.witness.merkle import EMPTY_ROOT
from domain.witness.proof import verify_consistency, verify_leaf

__all__ = [
    "AcceptedRestore",
    "CheckpointReader",
    "LogCheck",
    "SignatureTools",
    "SignedHead",
    "accepted_restores",
    "check_log",
    "open_with_named_keys",
    "require_follows",
    "require_nothing_beyond",
    "sound_entries",
    "unverified",
]

_PAGE = 2_048
_EDGE = 256
_NO_END = 2**62
_RESTORE = "restore.accepted"
_REPAIR = "Nothing more is added to it: run `conclave witness fsck`, and restore the database from a backup."
_ACCEPT = (
    "Nothing more is added to it: bring back the database that has those entries or, where a backup was restored on "
    "purpose, run `conclave witness accept-restore --reason TEXT`."
)


class SignatureTools(Protocol):
    """What reading checkpoints needs that the standard library has not."""

    @property
    def check_signature(self) -> SignatureCheck:
        """Whether an Ed25519 signature holds."""
        ...


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A checkpoint that this log has signed, and who holds it."""

    source: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class AcceptedRestore:
    """What an operator has accepted to be lost: a head, and with it all heads between the size kept and its own."""

    lost: Head
    kept_size: int

    def explains(self, checkpoint: Checkpoint) -> bool:
        """Whether that checkpoint was signed of what was lost."""
        size = checkpoint.tree_size
        named = size == self.lost.tree_size and checkpoint.root_hash == self.lost.root_hash
        return named or self.kept_size < size < self.lost.tree_size


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What a check found: `problem` is None where all is well.

    `lost` are the heads that an operator may accept to be lost, greatest first; none where the log is damaged rather than
    rolled back or forked. `restores` are those accepted before, read only where some checkpoint needed explaining.
    """

    head: Head
    problem: LogUnverifiedError | None = None
    lost: tuple[Head, ...] = ()
    restores: tuple[AcceptedRestore, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointReader:
    """Opens checkpoints that one of these keys has signed under its own name; the first key is the present one."""

    keys: Sequence[VerifierKey]
    check_signature: SignatureCheck

    async def widened(self, reader: WitnessLogReader) -> CheckpointReader:
        """One that takes the keys which the log itself names too. Raises `VerificationRefusedError` where they cannot be read."""
        named = (await named_keys(reader)).all
        return replace(self, keys=(*self.keys, *(key for key in named if key not in self.keys)))

    def is_present(self, note: str) -> bool:
        """Whether the present key has signed it."""
        try:
            replace(self, keys=self.keys[:1]).open(note)
        except VerificationRefusedError:
            return False
        return True

    def open(self, note: str) -> Checkpoint:
        """The checkpoint. Raises `VerificationRefusedError` where none of the keys has signed it, naming the first."""
        refusal: VerificationRefusedError | None = None
        for key in self.keys:
            try:
                return open_checkpoint(note, key, self.check_signature, origin=key.name)[0]
            except VerificationRefusedError as error:
                refusal = refusal or error
        raise refusal or VerificationRefusedError("there is no key to open the checkpoint with")


async def check_log(
    reader: WitnessLogReader, checkpoints: CheckpointReader, *, signed_before: Sequence[SignedHead] = ()
) -> LogCheck:
    """Re-derive the head from stored nodes and compare it with the newest stored checkpoint and with `signed_before`.

    Those were read before this is called, so a sound log is at least as large. Entries are hashed at the right edge only:
    `audit` looks at all of them. Raises `DependencyUnavailableError` when the store is away.
    """
    try:
        note = await reader.latest_checkpoint()
        head = await reader.head()
    except VerificationRefusedError as error:
        return LogCheck(Head(0, EMPTY_ROOT), unverified(error))
    tree = LogTree(reader)
    try:
        await _require_sound_edge(reader, head)
        await require_follows(tree, head, None)
        stored = []
        if note is not None:
            checkpoint, _ = await open_with_named_keys(reader, checkpoints, note)
            stored.append(SignedHead("the newest stored checkpoint", checkpoint))
    except VerificationRefusedError as error:
        return LogCheck(head, unverified(error))
    doubtful: list[tuple[SignedHead, VerificationRefusedError]] = []
    for signed in (*stored, *signed_before):
        try:
            await require_follows(tree, head, signed)
        except VerificationRefusedError as error:
            doubtful.append((signed, error))
    if not doubtful:
        return LogCheck(head)
    restores = tuple(await accepted_restores(reader, head.tree_size))
    unexplained = [
        (signed.checkpoint, error)
        for signed, error in doubtful
        if not any(restore.explains(signed.checkpoint) for restore in restores)
    ]
    if not unexplained:
        return LogCheck(head, restores=restores)
    _, worst = max(unexplained, key=lambda each: each[0].tree_size)
    lost = _fewest_heads([checkpoint for checkpoint, _ in unexplained], head)
    return LogCheck(head, unverified(worst, remedy=_ACCEPT), lost, restores)


async def open_with_named_keys(
    reader: WitnessLogReader, checkpoints: CheckpointReader, note: str
) -> tuple[Checkpoint, CheckpointReader]:
    """The checkpoint, signed with a key of `checkpoints` or else with one that the log names, and what has opened it.

    The log is read only where none of `checkpoints` fits. Raises like `open`.
    """
    try:
        return checkpoints.open(note), checkpoints
    except VerificationRefusedError:
        widened = await checkpoints.widened(reader)
        return widened.open(note), widened


async def require_follows(tree: LogTree, head: Head, signed: SignedHead | None) -> None:
    """Returns if the head is that of the stored nodes and, where there is one, has grown from the signed head.

    Raises `VerificationRefusedError` with both roots in hex.
    """
    if signed is None:
        derived = await tree.root_at(head.tree_size)
        if derived != head.root_hash:
            raise VerificationRefusedError(
                f"the head of {head.tree_size} entries is not the root of the stored nodes",
                evidence={"head_root": head.root_hash.hex(), "derived_root": derived.hex()},
            )
        return
    checkpoint = signed.checkpoint
    evidence = {
        "signed_size": str(checkpoint.tree_size),
        "signed_root": checkpoint.root_hash.hex(),
        "log_size": str(head.tree_size),
        "log_root": head.root_hash.hex(),
    }
    if checkpoint.tree_size > head.tree_size:
        raise VerificationRefusedError(
            f"it was rolled back: {signed.source} has {checkpoint.tree_size} entries, the log {head.tree_size}",
            evidence=evidence,
        )
    if checkpoint.tree_size == 0:
        if checkpoint.root_hash != EMPTY_ROOT:
            raise VerificationRefusedError(f"{signed.source} has another root of no entries", evidence=evidence)
        return
    proof = await tree.consistency_proof(checkpoint.tree_size, head.tree_size)
    try:
        verify_consistency(
            first=checkpoint.tree_size,
            second=head.tree_size,
            first_root=checkpoint.root_hash,
            second_root=head.root_hash,
            proof=proof,
        )
    except VerificationRefusedError as error:
        evidence["stored_root"] = (await tree.root_at(checkpoint.tree_size)).hex()
        raise VerificationRefusedError(
            f"it was forked: the log is no continuation of {signed.source}, of {checkpoint.tree_size} entries",
            evidence=evidence,
        ) from error


async def accepted_restores(reader: WitnessLogReader, tree_size: int) -> Sequence[AcceptedRestore]:
    """All restores that were accepted in the first `tree_size` entries. Raises `VerificationRefusedError` for one that is unreadable."""
    found = administrative_entries(reader, _RESTORE)
    return [_restore(index, document) async for index, document in found if index < tree_size]


async def require_nothing_beyond(reader: WitnessLogReader, head: Head, page: int = _PAGE) -> None:
    """Returns if no entry stands after the head; the log may grow meanwhile. Raises `VerificationRefusedError`."""
    for start, end in ((head.tree_size, head.tree_size + page), (head.tree_size + page, _NO_END)):
        beyond = await reader.entries(start, end)
        if beyond and beyond[-1].index >= (await reader.head()).tree_size:
            raise VerificationRefusedError(
                f"an entry stands after the head, of {head.tree_size} entries", index=beyond[-1].index
            )


def sound_entries(found: Sequence[LoggedEntry], start: int, end: int) -> Iterator[LoggedEntry]:
    """What was found from index `start` on, before `end`, one entry after the other.

    Raises `VerificationRefusedError` at the first that is missing, or does not hash to its stored leaf.
    """
    for index, entry in enumerate(found, start):
        if entry.index != index:
            raise VerificationRefusedError("the entry is missing", index=index)
        verify_leaf(index=index, entry=entry.entry, stored_leaf=entry.leaf_hash)
        yield entry
    if len(found) != end - start:
        raise VerificationRefusedError("the entry is missing", index=start + len(found))


def unverified(error: VerificationRefusedError, *, remedy: str = _REPAIR) -> LogUnverifiedError:
    """The same finding, as what stops the service."""
    place = "" if error.index is None else f"entry {error.index}: "
    return LogUnverifiedError(problem=f"{place}{error.what}", remedy=remedy, evidence=error.evidence)


async def _require_sound_edge(reader: WitnessLogReader, head: Head) -> None:
    start = max(0, head.tree_size - _EDGE)
    for _ in sound_entries(await reader.entries(start, head.tree_size), start, head.tree_size):
        pass
    await require_nothing_beyond(reader, head)


def _fewest_heads(checkpoints: Sequence[Checkpoint], head: Head) -> tuple[Head, ...]:
    """Heads that, once accepted as lost, explain all of these checkpoints, the greatest first."""
    lost: list[Head] = []
    for checkpoint in sorted(checkpoints, key=lambda each: each.tree_size, reverse=True):
        restores = [AcceptedRestore(each, head.tree_size) for each in lost]
        if not any(restore.explains(checkpoint) for restore in restores):
            lost.append(Head(checkpoint.tree_size, checkpoint.root_hash))
    return tuple(lost)


def _restore(index: int, document: Mapping[str, Any]) -> AcceptedRestore:
    try:
        lost = Head(int(document["lost"]["tree_size"]), bytes.fromhex(document["lost"]["root_hash"]))
        return AcceptedRestore(lost, int(document["kept"]["tree_size"]))
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationRefusedError("the entry is no restore that could be read", index=index) from error
