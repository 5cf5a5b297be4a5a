"""Notes of a halt that the log does not have yet: kept, read by nobody else, never trusted, and recorded once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from application.ports.halt_notes import HaltNote, HaltNotes
from application.ports.witness_log import Disclosure
from application.services.halt_service import HaltService
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
from infrastructure.halt.note_files import HaltNoteFiles
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.own_log import OwnLog
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from infrastructure.stubs.halt_notes_stub import HaltNotesStub
from tests.integration.away_logs import NOON, AwayLog, unavailable

ENTRY = {
    "type": "halt.set",
    "at": "2026-01-01T12:00:00.000000Z",
    "channels": ["file"],
    "reason": {"sha256": "0" * 64},
    "key_name": None,
}


def a_note(number: int, **fields: Any) -> HaltNote:
    texts = [Disclosure("0" * 64, "1" * 32, "ein Grund \N{OCTAGONAL SIGN}")]
    return HaltNote(f"id-{number}", "a drill", NOON.replace(hour=number), ENTRY, texts, ("database",), **fields)


@pytest.fixture(params=["files", "memory"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> HaltNotes:
    return HaltNotesStub() if request.param == "memory" else HaltNoteFiles(tmp_path / "HALT")


def test_notes_are_kept_replaced_and_dropped(notes: HaltNotes) -> None:
    for number in (3, 1, 2):
        notes.keep(a_note(number))
    assert [note.id for note in notes.all()] == ["id-1", "id-2", "id-3"]
    assert notes.all()[0] == a_note(1)
    done = HaltNote("id-1", "a drill", NOON, None)
    notes.keep(done)
    notes.drop("id-2")
    notes.drop("id-2")
    found = {note.id: note for note in notes.all()}
    assert set(found) == {"id-1", "id-3"}
    assert found["id-1"].document is None


def test_notes_survive_a_restart_and_can_be_read_by_nobody_else(tmp_path: Path) -> None:
    HaltNoteFiles(tmp_path / "HALT").keep(a_note(1))
    assert HaltNoteFiles(tmp_path / "HALT").all() == [a_note(1)]
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"id": "x", "reason": "r", "since": "2026-01-01T00:00:00"}',
        b"9" * 100_000,
    ],
)
def test_a_note_that_is_none_is_left_out_left_alone_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    notes = HaltNoteFiles(tmp_path / "HALT")
    notes.keep(a_note(1))
    (tmp_path / "HALT.note-x").write_bytes(content)
    assert [note.id for note in notes.all()] == ["id-1"]
    assert [note.id for note in notes.all()] == ["id-1"]
    assert caplog.text.count("cannot be read") == 1
    assert (tmp_path / "HALT.note-x").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"type": "deliberation.ended"},
        {"deliberation_id": "d"},
        {"reason": "in the clear"},
        {"reason": {"sha256": "no hash"}},
        {"channels": [1]},
    ],
)
def test_a_note_that_was_tampered_with_adds_nothing_to_the_log(tmp_path: Path, change: dict[str, Any]) -> None:
    notes = HaltNoteFiles(tmp_path / "HALT")
    notes.keep(replace(a_note(1), document={**ENTRY, **change}))
    assert notes.all() == []


async def test_two_processes_with_one_note_record_it_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/conclave.db"
    upgrade(url)
    kept = HaltNoteFiles(tmp_path / "HALT")
    away = AwayLog()
    away.problem = unavailable()
    first = HaltChannelStub("file")
    watch = DualChannelHaltChecker(channels=[first], stale_s=float("inf"))
    await HaltService(channels=[first], watch=watch, log=away, notes=kept).set("a drill", key_name=None)
    logs = [OwnLog(url) for _ in range(4)]
    services = [
        HaltService(channels=[first], watch=watch, log=log, notes=HaltNoteFiles(tmp_path / "HALT")) for log in logs
    ]
    await asyncio.gather(*(service.settle() for service in services))
    head = await (await logs[0].open()).head()
    assert (head.tree_size, kept.all()) == (1, [])
    for log in logs:
        await log.close()


async def test_the_log_of_its_own_makes_no_database_and_finds_one_that_is_back(tmp_path: Path) -> None:
    database_file = tmp_path / "conclave.db"
    url = f"sqlite:///{database_file}"
    log = OwnLog(url)
    with pytest.raises(DependencyUnavailableError):
        await log.append([{"type": "halt.set"}])
    assert not database_file.exists()
    upgrade(url)
    await log.append([{"type": "halt.set"}])
    assert (await (await log.open()).head()).tree_size == 1
    await log.close()
