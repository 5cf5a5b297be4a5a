"""What a caller calls the run that it starts, held against every adapter: one run for each key, for a day."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from application.ports.idempotency import IdempotencyKey
from application.ports.run_registry import RememberedRun, RunRegistry
from domain.errors.run import RunKeyTakenError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = IdempotencyKey("ann", "k", "0" * 64)

Opener: TypeAlias = Callable[..., RunRegistry]


@pytest.fixture(params=["memory", "file"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the registry as it is so much later; what is opened twice is one."""
    shared: dict[str, Any] = {}

    def open_registry(*, later: timedelta = timedelta(), keep: int = 1000) -> RunRegistry:
        if request.param == "file":
            return FileRunRegistry(tmp_path / "data" / "runs", keep=keep, now=lambda: AT + later)
        found = shared.setdefault("one", InMemoryRunRegistry(keep=keep))
        found.now = lambda: AT + later
        registry: RunRegistry = found
        return registry

    return open_registry


def a_run(*, at: datetime = AT) -> Run:
    return Run(new_run_id(at), RunKind.SWARM, DeliberationStatus.QUEUED, {}, key_name="ann")


def ended(registry: RunRegistry, *, at: datetime = AT, key: IdempotencyKey | None = KEY) -> Run:
    """A run of that key that is over."""
    run = a_run(at=at)
    registry.announce(run, idempotency=key).close()
    assert registry.get(run.id).status.is_terminal
    return run


def test_a_key_that_nobody_used_stands_for_nothing(opener: Opener) -> None:
    assert opener().remembered(KEY) is None


def test_a_key_stands_for_its_run_whatever_body_comes_with_it(opener: Opener) -> None:
    run = a_run()
    announcement = opener().announce(run, idempotency=KEY)
    for body in ("0" * 64, "1" * 64):
        assert opener().remembered(IdempotencyKey("ann", "k", body)) == RememberedRun(run.id, "0" * 64)
    announcement.close()


@pytest.mark.parametrize("other", [("ben", "k"), ("ann", "l"), ("", "k"), ("a", "nn\nk")])
def test_keys_of_other_callers_and_other_names_are_others(opener: Opener, other: tuple[str, str]) -> None:
    ended(opener())
    assert opener().remembered(IdempotencyKey(*other, "0" * 64)) is None


def test_a_key_that_is_taken_stores_no_second_run(opener: Opener) -> None:
    run = ended(opener())
    with pytest.raises(RunKeyTakenError) as taken:
        opener().announce(a_run(), idempotency=IdempotencyKey("ann", "k", "1" * 64))
    assert (taken.value.run_id, taken.value.body_sha256) == (run.id, "0" * 64)
    assert [each.id for each in opener().page(limit=10).items] == [run.id]


def test_of_many_at_once_one_is_stored(opener: Opener) -> None:
    def announce(_number: int) -> str:
        try:
            run = a_run()
            opener().announce(run, idempotency=KEY)
        except RunKeyTakenError as taken:
            return taken.run_id
        return run.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(announce, range(24)))) == 1
    assert len(opener().page(limit=50).items) == 1


def test_a_key_is_free_again_after_a_day(opener: Opener) -> None:
    ended(opener())
    almost, then = timedelta(hours=23, minutes=59), timedelta(hours=24, minutes=1)
    assert opener(later=almost).remembered(KEY) is not None
    assert opener(later=then).remembered(KEY) is None
    again = a_run(at=AT + then)
    opener(later=then).announce(again, idempotency=KEY)
    assert opener(later=then).remembered(KEY) == RememberedRun(again.id, "0" * 64)


def test_a_run_that_never_began_leaves_its_key_free(opener: Opener) -> None:
    run = ended(opener())
    opener().forget_key(run.id)
    assert opener().remembered(KEY) is None
    opener().forget_key(run.id)
    opener().forget_key(a_run().id)


def test_a_key_goes_with_its_run(opener: Opener) -> None:
    ended(opener(keep=1))
    ended(opener(keep=1), at=AT + timedelta(seconds=1), key=None)
    assert opener(keep=1).remembered(KEY) is None
