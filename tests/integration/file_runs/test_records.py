"""The record of a run where it cannot be kept whole: a full disk, results and events too large or odd, and too many notes."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from infrastructure.runs import file_run_record
from infrastructure.runs.file_run_record import MAX_EVENT_BYTES, MAX_RESULT_BYTES
from infrastructure.runs.file_run_registry import MAX_RESULT_IN_PAGE_BYTES, FileRunRegistry
from tests.integration.file_runs.kept_runs import AT, COMPLETED, FAILED, a_run


def test_a_full_disk_costs_notes_but_neither_the_work_nor_its_end(
    registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = registry.register(a_run())
    write = file_run_record._write_all
    fail = True

    def full(file: int, content: bytes, *, at: int) -> None:
        if fail:
            write(file, content[:10], at=at)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content, at=at)

    monkeypatch.setattr(file_run_record, "_write_all", full)
    for number in range(5):
        record.note("fake.counted", {"number": number})
    record._write_waiting()
    fail = False
    record.note("fake.counted", {"number": 5})
    (said,) = record.end(COMPLETED, at=AT, result={"heads": 1})
    record.close()
    assert said == "5 of its events could not be recorded: No space left on device"
    events = registry.events(record.id)
    assert [event.sequence for event in events] == [1, 2, 3]
    assert (events[1].data, events[2].data) == ({"number": 5}, {"events_lost": 5})
    assert registry.get(record.id).result == {"heads": 1}


def test_an_end_that_finds_no_room_is_said_and_the_run_has_failed(
    registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = registry.register(a_run())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_run_record, "replace_file", full)
        said = record.end(COMPLETED, at=AT, result={"heads": 1})
        record.close()
    assert [text.partition(":")[0] for text in said] == [
        "its result could not be kept",
        "its end could not be recorded",
    ]
    assert registry.get(record.id).status is FAILED


@pytest.mark.parametrize("result", [{"x": float("nan")}, {"x": object()}, {"x": "y" * (MAX_RESULT_BYTES + 1)}])
def test_a_result_that_cannot_be_kept_is_left_out_and_said(registry: FileRunRegistry, result: dict[str, Any]) -> None:
    record = registry.register(a_run())
    assert len(record.end(COMPLETED, at=AT, result=result)) == 1
    record.close()
    found = registry.get(record.id)
    assert (found.status, found.result, found.reason) == (COMPLETED, None, "its result could not be kept")


@pytest.mark.parametrize("data", [{"x": float("inf")}, {"x": object()}, {"x": "y" * MAX_EVENT_BYTES}])
def test_an_event_that_cannot_be_kept_is_counted(registry: FileRunRegistry, data: dict[str, Any]) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", data)
    assert len(record.end(COMPLETED, at=AT)) == 1
    record.close()
    assert [event.sequence for event in registry.events(record.id)] == [1, 2]


def test_a_lone_surrogate_does_not_get_further_than_the_record(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", {"x": "a\ud800b"})
    record.end(COMPLETED, at=AT, result={"x": "a\ud800b"})
    record.close()
    assert registry.get(record.id).result == {"x": "a?b"}
    assert registry.events(record.id)[1].data == {"x": "a?b"}


def test_an_event_cannot_pass_itself_off_as_another(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.note("fake.odd", {"sequence": 99, "type": "run.completed", "run_id": "x", "at": "never", "more": 1})
    record.end(COMPLETED, at=AT)
    record.close()
    event = registry.events(record.id)[1]
    assert (event.sequence, event.type, event.run_id, event.at, event.data) == (
        2,
        "fake.odd",
        record.id,
        AT,
        {"more": 1},
    )


def test_a_large_result_stands_in_the_run_but_not_in_a_page(registry: FileRunRegistry) -> None:
    record = registry.register(a_run())
    record.end(COMPLETED, at=AT, result={"x": "y" * MAX_RESULT_IN_PAGE_BYTES})
    record.close()
    assert registry.page(limit=1).items[0].result is None
    assert registry.get(record.id).result is not None


def test_more_notes_than_can_be_written_are_counted(registry: FileRunRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_run_record, "MAX_EVENTS_BYTES", 1_000)
    record = registry.register(a_run())
    for number in range(50):
        record.note("fake.counted", {"number": number})
    (said,) = record.end(COMPLETED, at=AT)
    record.close()
    events = registry.events(record.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].is_terminal
    assert said.startswith(f"{52 - len(events)} of its events")
