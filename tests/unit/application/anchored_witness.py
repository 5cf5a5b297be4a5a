"""A witness service over a log in memory that a test may tamper with, and anchors that keep its checkpoints in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from application.ports.anchor import AnchorConflictError
from application.ports.witness_log import Disclosure
from application.services.witness_service import WitnessService
from domain.errors.witness import LogUnverifiedError
from domain.witness.entry import commitment
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, signer, size_of

__all__ = [
    "FakeAnchor",
    "RestartableFakeAnchor",
    "StrictAnchor",
    "log_with_a_deliberation",
    "note_of",
    "problem_of",
    "service",
    "tampered",
]


class FakeAnchor:
    """Keeps checkpoints in memory, compares nothing, and is away when a test says so."""

    def __init__(self, name: str = "far", note: str | None = None) -> None:
        self.name = name
        self.note = note
        self.away: Exception | None = None
        self.published: list[tuple[int, int]] = []
        self.proofs: list[Sequence[bytes]] = []

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        if self.away is not None:
            raise self.away
        self.published.append((old_size, size_of(note)))
        self.proofs.append(consistency)
        self.note = note

    async def latest(self) -> str | None:
        if self.away is not None:
            raise self.away
        return self.note


class StrictAnchor(FakeAnchor):
    """Refuses a checkpoint from any size but the one that it holds, and never tells which it holds."""

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        held = 0 if self.note is None else size_of(self.note)
        if held != old_size:
            raise AnchorConflictError(anchor=self.name, conflict_size=held, expected_size=old_size)
        await super().publish(note, old_size=old_size, consistency=consistency)

    async def latest(self) -> str | None:
        return None


class RestartableFakeAnchor(FakeAnchor):
    """Takes a smaller checkpoint only where it is told to begin anew."""

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        if self.note is not None and size_of(self.note) > size_of(note):
            raise AnchorConflictError(anchor=self.name, conflict_size=size_of(self.note), expected_size=old_size)
        await super().publish(note, old_size=old_size, consistency=consistency)

    async def restart(self, note: str) -> None:
        self.note = note


def service(log: FakeWitnessLog, *anchors: FakeAnchor, seed: int = 1) -> WitnessService:
    return WitnessService(log=log, signer=signer(seed), tools=Tools(), anchors=anchors, clock=StillClock())


def note_of(log: FakeWitnessLog, seed: int = 1) -> str:
    return signer(seed).sign(log.head_row.tree_size, log.head_row.root_hash)


def tampered(log: FakeWitnessLog, index: int) -> None:
    log.stored[index] = replace(log.stored[index], entry=b'{"n":"other"}')


async def problem_of(log: FakeWitnessLog, *anchors: FakeAnchor, seed: int = 1) -> LogUnverifiedError | None:
    witness = service(log, *anchors, seed=seed)
    await witness.check_at_start()
    return witness.problem


def log_with_a_deliberation() -> FakeWitnessLog:
    log = FakeWitnessLog.of(300)
    salt = b"s" * 16
    question: Any = commitment(salt, "Why?")
    log.add_documents(
        {"type": "deliberation.accepted", "deliberation_id": "d-1", "question": question},
        {"type": "halt.set"},
        {"type": "deliberation.ended", "deliberation_id": "d-1", "status": "failed", "outcome": None},
    )
    log.texts["d-1"] = [Disclosure(question["sha256"], salt.hex(), "Why?")]
    return log
