"""Where runs are kept, held against every adapter: whole, in order, seen by whom they should be, and failed when their process is gone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from application.ports.run_registry import RunRegistry, Unwanted
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.run import RunEndedError, RunNotFoundError, RunTakenError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry

AT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
COMPLETED, CANCELLED, FAILED = DeliberationStatus.COMPLETED, DeliberationStatus.CANCELLED, DeliberationStatus.FAILED
RUNNING, QUEUED = DeliberationStatus.RUNNING, DeliberationStatus.QUEUED

Opener: TypeAlias = Callable[..., RunRegistry]


@pytest.fixture(params=["memory", "file"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the registry; what is opened twice is one."""
    shared: dict[str, Any] = {}

    def open_registry(*, keep: int = 1000) -> RunRegistry:
        if request.param == "file":
            return FileRunRegistry(tmp_path / "data" / "runs", keep=keep, now=lambda: AT)
        found: RunRegistry = shared.setdefault("one", InMemoryRunRegistry(keep=keep, now=lambda: AT))
        return found

    return open_registry


@pytest.fixture
def registry(opener: Opener) -> RunRegistry:
    return opener()


def a_run(number: int = 0, *, key_name: str | None = None, kind: RunKind = RunKind.SWARM) -> Run:
    at = AT + timedelta(seconds=number)
    return Run(new_run_id(at), kind, RUNNING, {"agents": 3, "task": "Zürich ☃"}, started_at=at, key_name=key_name)


def ended(registry: RunRegistry, number: int = 0, **fields: Any) -> str:
    record = registry.register(a_run(number, **fields))
    record.end(COMPLETED, at=AT, result={"heads": number})
    record.close()
    return record.id


def types(registry: RunRegistry, run_id: str) -> list[str]:
    events = registry.events(run_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


def test_a_registered_run_is_running_and_read_as_it_was_given(registry: RunRegistry) -> None:
    run = a_run(key_name="alice")
    record = registry.register(run)
    assert record.id == run.id
    assert registry.get(run.id) == run
    assert registry.page(limit=10).items == [run]
    record.close()


def test_a_run_that_ended_has_its_result_its_reason_and_its_time(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    assert record.end(CANCELLED, at=AT + timedelta(hours=1), result={"heads": [1, None, "x"]}, reason="enough") == []
    record.close()
    found = registry.get(record.id)
    assert (found.status, found.finished_at, found.reason) == (CANCELLED, AT + timedelta(hours=1), "enough")
    assert found.result == {"heads": [1, None, "x"]}


def test_a_run_ends_once(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    record.end(COMPLETED, at=AT, result={"heads": 1})
    record.end(FAILED, at=AT, reason="no")
    record.note("fake.late", {})
    record.close()
    record_of = registry.get(record.id)
    assert (record_of.status, record_of.result) == (COMPLETED, {"heads": 1})
    assert types(registry, record.id) == ["run.started", "run.completed"]


def test_events_are_in_order_without_gaps_between_the_first_and_the_last(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    for number in range(300):
        record.note("fake.counted", {"number": number})
    record.end(COMPLETED, at=AT)
    record.close()
    assert types(registry, record.id) == ["run.started", *["fake.counted"] * 300, "run.completed"]
    assert [event.data.get("number") for event in registry.events(record.id, after=1, limit=3)] == [0, 1, 2]
    assert [event.sequence for event in registry.events(record.id, after=300)] == [301, 302]
    assert registry.events(record.id, after=302) == []
    assert registry.events(record.id, after=9999) == []


def test_what_an_event_says_is_what_was_noted(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    data: dict[str, Any] = {"deep": {"list": [1, 2.5, None, True]}, "text": "Zürich\n☃"}
    record.note("fake.told", data)
    data["text"] = "changed since"
    record.end(COMPLETED, at=AT)
    record.close()
    event = registry.events(record.id)[1]
    assert (event.run_id, event.at) == (record.id, AT)
    assert event.data == {"deep": {"list": [1, 2.5, None, True]}, "text": "Zürich\n☃"}


@pytest.mark.parametrize(
    "type_", ["run.completed", "run.started", "nothing", "", "Fake.Name", "a." + "b" * 64, "a b.c"]
)
def test_what_is_no_event_of_the_work_is_not_noted_and_said_in_the_end(registry: RunRegistry, type_: str) -> None:
    record = registry.register(a_run())
    record.note(type_, {})
    (said,) = record.end(COMPLETED, at=AT)
    record.close()
    assert "1 of its events" in said
    assert types(registry, record.id) == ["run.started", "run.completed"]
    assert registry.events(record.id)[-1].data["events_lost"] == 1


def test_several_threads_note_at_once(registry: RunRegistry) -> None:
    record = registry.register(a_run())

    def note(thread: int) -> None:
        for number in range(100):
            record.note("fake.counted", {"thread": thread, "number": number})
            record.count(BusStats("memory", sent=number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(note, range(4)))
    record.end(COMPLETED, at=AT)
    record.close()
    events = registry.events(record.id)[1:-1]
    assert len(events) == 400
    for thread in range(4):
        assert [e.data["number"] for e in events if e.data["thread"] == thread] == list(range(100))


def test_runs_are_listed_newest_first_in_pages_that_meet(registry: RunRegistry) -> None:
    ids = [ended(registry, number) for number in range(7)]
    found: list[str] = []
    cursor: str | None = None
    for size in (3, 3, 1):
        page = registry.page(limit=3, cursor=cursor)
        assert len(page.items) == size
        found += [run.id for run in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert found == ids[::-1]


def test_a_run_that_comes_between_two_pages_moves_no_other(registry: RunRegistry) -> None:
    ids = [ended(registry, number) for number in range(4)]
    first = registry.page(limit=2)
    ended(registry, 9)
    rest = registry.page(limit=2, cursor=first.next_cursor)
    assert [run.id for run in (*first.items, *rest.items)] == ids[::-1]


def test_runs_are_listed_by_state_and_by_key(registry: RunRegistry) -> None:
    ann, ben = ended(registry, 1, key_name="ann"), ended(registry, 2, key_name="ben")
    nobody = ended(registry, 3)
    record = registry.register(a_run(4, key_name="ann"))
    assert [run.id for run in registry.page(key_name="ann", limit=9).items] == [record.id, ann]
    assert [run.id for run in registry.page(status=COMPLETED, limit=9).items] == [nobody, ben, ann]
    assert [run.id for run in registry.page(status=RUNNING, key_name="ben", limit=9).items] == []
    record.close()


@pytest.mark.parametrize("cursor", ["", "x", "../..", "AAAA"])
def test_a_cursor_of_nobody_is_refused(registry: RunRegistry, cursor: str) -> None:
    with pytest.raises(InvalidSpecificationError):
        registry.page(limit=1, cursor=cursor)


@pytest.mark.parametrize("run_id", ["", "x", "../..", "." * 36, "019de368-f67b-774b-89c2-910c5702e877"])
def test_there_is_no_run_that_was_not_registered(registry: RunRegistry, run_id: str) -> None:
    ended(registry)
    for ask in (registry.get, registry.events, registry.request_end):
        with pytest.raises(RunNotFoundError):
            ask(run_id)
    with pytest.raises(RunNotFoundError):
        registry.settle(run_id, FAILED, reason="no")
    with pytest.raises(RunNotFoundError):
        registry.take_over(run_id, at=AT)


def test_without_any_run_there_is_an_empty_page(registry: RunRegistry) -> None:
    page = registry.page(limit=5)
    assert (list(page.items), page.next_cursor) == ([], None)


def test_a_run_that_nobody_holds_any_more_has_failed_for_good(registry: RunRegistry, opener: Opener) -> None:
    record = registry.register(a_run())
    record.note("fake.counted", {})
    record.close()
    for reader in (registry, opener()):
        found = reader.get(record.id)
        assert (found.status, found.reason) == (FAILED, "its process ended before its work did")
        assert found.finished_at is not None
        assert [run.status for run in reader.page(limit=1).items] == [FAILED]
    assert types(registry, record.id)[-1] == "run.failed"
    assert types(registry, record.id).count("run.failed") == 1


def test_a_cancelled_run_is_told_and_stays_running_until_it_ends(registry: RunRegistry, opener: Opener) -> None:
    record = registry.register(a_run())
    assert record.unwanted() is None
    assert opener().request_end(record.id).status is RUNNING
    assert record.unwanted() is Unwanted.CANCELLED
    assert registry.request_end(record.id).status is RUNNING
    record.end(CANCELLED, at=AT)
    record.close()
    with pytest.raises(RunEndedError) as refused:
        registry.request_end(record.id)
    assert refused.value.status == "cancelled"


def test_a_run_is_told_of_a_halt_that_its_process_does_not_see(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    registry.request_end(record.id, Unwanted.HALTED)
    registry.request_end(record.id, Unwanted.CANCELLED)
    assert record.unwanted() is Unwanted.HALTED
    record.close()


def test_an_announced_run_is_queued_until_it_is_taken_over(registry: RunRegistry, opener: Opener) -> None:
    run = a_run()
    announcement = registry.announce(run)
    found = registry.get(run.id)
    assert (found.status, found.started_at, found.arguments) == (QUEUED, None, run.arguments)
    assert registry.events(run.id) == []
    record = opener().take_over(run.id, at=AT)
    assert (registry.get(run.id).status, registry.get(run.id).started_at) == (RUNNING, AT)
    assert record.unwanted() is None
    record.end(COMPLETED, at=AT, result={"heads": 1})
    record.close()
    announcement.close()
    assert types(registry, run.id) == ["run.started", "run.completed"]


def test_an_announced_run_is_taken_over_once(registry: RunRegistry) -> None:
    run = a_run()
    announcement = registry.announce(run)
    record = registry.take_over(run.id, at=AT)
    with pytest.raises(RunTakenError):
        registry.take_over(run.id, at=AT)
    record.close()
    announcement.close()
    with pytest.raises(RunTakenError):
        registry.take_over(ended(registry, 5), at=AT)


def test_a_run_whose_server_is_gone_is_not_wanted_any_more(registry: RunRegistry) -> None:
    run = a_run()
    announcement = registry.announce(run)
    record = registry.take_over(run.id, at=AT)
    announcement.close()
    assert record.unwanted() is Unwanted.ORPHANED
    assert registry.get(run.id).status is RUNNING
    record.close()


def test_an_announced_run_that_nobody_took_over_has_failed(registry: RunRegistry) -> None:
    run = a_run()
    registry.announce(run).close()
    assert registry.get(run.id).status is FAILED
    assert types(registry, run.id) == ["run.failed"]


def test_a_launcher_says_how_a_dead_process_ended_its_run_while_it_still_holds_it(registry: RunRegistry) -> None:
    run = a_run()
    announcement = registry.announce(run)
    record = registry.take_over(run.id, at=AT)
    assert registry.settle(run.id, FAILED, reason="too early").status is RUNNING
    record.close()
    assert registry.get(run.id).status is RUNNING
    found = registry.settle(run.id, DeliberationStatus.HALTED, reason="it was killed")
    assert (found.status, found.reason) == (DeliberationStatus.HALTED, "it was killed")
    assert registry.settle(run.id, FAILED, reason="again").status is DeliberationStatus.HALTED
    announcement.close()
    assert types(registry, run.id) == ["run.started", "run.halted"]


def test_of_too_many_runs_the_oldest_that_have_ended_are_removed(opener: Opener) -> None:
    registry = opener(keep=3)
    held = registry.register(a_run(0))
    ids = [ended(registry, number) for number in range(1, 5)]
    assert [run.id for run in registry.page(limit=9).items] == [ids[3], ids[2], held.id]
    with pytest.raises(RunNotFoundError):
        registry.get(ids[0])
    held.close()


def test_runs_that_all_go_on_are_never_removed(opener: Opener) -> None:
    registry = opener(keep=1)
    records = [registry.register(a_run(number)) for number in range(3)]
    assert len(registry.page(limit=9).items) == 3
    for record in records:
        record.close()


def test_finishing_cancelling_listing_and_pruning_at_once_loses_and_breaks_nothing(opener: Opener) -> None:
    registry = opener(keep=60)
    go = threading.Barrier(6)
    seen: list[str] = []

    def run_some(worker: int) -> None:
        mine = opener()
        go.wait()
        for number in range(8):
            record = mine.register(a_run(worker * 100 + number))
            record.note("fake.counted", {"number": number})
            record.end(COMPLETED, at=AT, result={"worker": worker, "number": number})
            record.close()
            seen.append(record.id)

    def cancel_some() -> None:
        mine = opener()
        go.wait()
        for _ in range(40):
            for run in mine.page(limit=20).items:
                try:
                    mine.request_end(run.id)
                except RunEndedError:
                    continue

    def list_some() -> None:
        mine = opener()
        go.wait()
        for _ in range(40):
            ids = [run.id for run in mine.page(limit=20).items]
            assert ids == sorted(set(ids), reverse=True)
            for run_id in ids[:3]:
                status = mine.get(run_id).status
                assert status in {RUNNING, COMPLETED}
                assert types(mine, run_id)[:1] in ([], ["run.started"])

    with ThreadPoolExecutor(6) as pool:
        started = [pool.submit(run_some, worker) for worker in range(4)]
        started += [pool.submit(cancel_some), pool.submit(list_some)]
        for each in started:
            each.result()
    assert sorted(run.id for run in registry.page(limit=99).items) == sorted(seen)
    for run_id in seen:
        assert registry.get(run_id).status is COMPLETED
        assert types(registry, run_id) == ["run.started", "fake.counted", "run.completed"]


def test_the_counts_of_a_bus_disturb_nothing(registry: RunRegistry) -> None:
    record = registry.register(a_run())
    record.count(BusStats("memory", sent=3, latency_histogram={0.1: 2, math.inf: 3}, latency_sum_s=0.5))
    record.end(COMPLETED, at=AT)
    record.count(BusStats("memory", sent=4))
    record.close()
    assert registry.get(record.id).status is COMPLETED
