"""Group commit: who comes together is written together, and each hears of its own fate alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.group_commit import GroupCommit
from tests.virtual_time import pass_time


class Disk:
    """Writes what it is given, taking a second a batch; refuses odd numbers below zero, and everything while `broken`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.broken: Exception | None = None
        self.commits: GroupCommit[int, str] = GroupCommit(self.write, max_waiting=5)

    async def write(self, batch: Sequence[int]) -> list[str | Exception]:
        self.batches.append(list(batch))
        await pass_time(1)
        if self.broken is not None:
            raise self.broken
        return [ValueError(item) if item < 0 else f"wrote {item}" for item in batch]

    async def submit_all(self, items: Sequence[int]) -> list[str | BaseException]:
        return await asyncio.gather(*(self.commits.submit(item) for item in items), return_exceptions=True)


async def test_those_that_come_in_one_turn_are_written_together_in_their_order() -> None:
    disk = Disk()
    assert await disk.submit_all([1, 2, 3]) == ["wrote 1", "wrote 2", "wrote 3"]
    assert disk.batches == [[1, 2, 3]]


async def test_nobody_hears_before_the_batch_is_written() -> None:
    disk = Disk()
    began = asyncio.get_running_loop().time()
    await disk.commits.submit(1)
    assert asyncio.get_running_loop().time() - began == pytest.approx(1)


async def test_those_that_come_while_one_batch_is_written_make_the_next() -> None:
    disk = Disk()
    first = asyncio.create_task(disk.commits.submit(1))
    await pass_time(0.5)
    late = [asyncio.create_task(disk.commits.submit(item)) for item in (2, 3)]
    await asyncio.gather(first, *late)
    assert disk.batches == [[1], [2, 3]]


async def test_an_item_that_is_refused_fails_its_own_caller_alone() -> None:
    disk = Disk()
    results = await disk.submit_all([1, -1, 2])
    assert [str(result) for result in results] == ["wrote 1", "-1", "wrote 2"]
    assert isinstance(results[1], ValueError)


async def test_a_batch_that_fails_as_a_whole_fails_everyone_in_it_and_nobody_after() -> None:
    disk = Disk()
    disk.broken = DependencyUnavailableError(dependency="disk", problem="it is away")
    assert await disk.submit_all([1, 2]) == [disk.broken] * 2
    disk.broken = None
    assert await disk.submit_all([3]) == ["wrote 3"]


async def test_a_writer_that_forgets_a_result_fails_loudly() -> None:
    async def forget(batch: Sequence[int]) -> list[str | Exception]:
        return []

    with pytest.raises(ValueError):
        await GroupCommit(forget).submit(1)


async def test_more_than_may_wait_are_taken_in_as_others_leave() -> None:
    disk = Disk()
    assert await disk.submit_all(range(12)) == [f"wrote {item}" for item in range(12)]
    assert max(len(batch) for batch in disk.batches) == 5
    assert sum(disk.batches, []) == list(range(12))  # noqa: RUF017 - a dozen


async def test_a_caller_that_is_cancelled_before_its_turn_takes_its_item_back() -> None:
    disk = Disk()
    callers = [asyncio.create_task(disk.commits.submit(1))]
    await pass_time(0.5)
    callers += [asyncio.create_task(disk.commits.submit(item)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    callers[2].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert disk.batches == [[1], [2, 4]]
    assert isinstance(results[2], asyncio.CancelledError)


async def test_a_caller_that_is_cancelled_while_its_item_is_written_harms_no_neighbour() -> None:
    disk = Disk()
    callers = [asyncio.create_task(disk.commits.submit(item)) for item in (1, 2)]
    await pass_time(0.5)
    callers[0].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == "wrote 2"


async def test_a_caller_that_is_cancelled_while_it_waits_for_room_leaves_no_trace() -> None:
    disk = Disk()
    callers = [asyncio.create_task(disk.commits.submit(item)) for item in range(7)]
    await pass_time(0.5)
    callers[5].cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert disk.batches == [[0, 1, 2, 3, 4], [6]]


async def test_closing_writes_what_waits_and_takes_no_more() -> None:
    disk = Disk()
    callers = [asyncio.create_task(disk.commits.submit(1))]
    await pass_time(0.5)
    callers.append(asyncio.create_task(disk.commits.submit(2)))
    await asyncio.sleep(0)
    await disk.commits.close()
    assert [caller.result() for caller in callers] == ["wrote 1", "wrote 2"]
    with pytest.raises(DependencyUnavailableError):
        await disk.commits.submit(3)


async def test_an_idle_one_leaves_no_task_behind() -> None:
    disk = Disk()
    await disk.submit_all([1, 2])
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
