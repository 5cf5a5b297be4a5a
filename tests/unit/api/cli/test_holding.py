"""Holding a deliberation: followed to its end, cancelled on a signal, and never left half watched."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from api.cli.deliberations import Document, find_by_prefix
from api.cli.holding import LeftUnfinishedError, hold_deliberation, wait_for_end
from api.cli.http_exchange import ServerRefusedError
from api.cli.interruption import Interruption
from api.cli.progress import QuietProgress
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationNotFoundError,
    InvalidSpecificationError,
)
from domain.errors.dependency import DependencyUnavailableError
from tests.virtual_time import pass_time

AWAY = DependencyUnavailableError(dependency="the database", problem="gone")


class FakeDeliberations:
    """One deliberation that runs until it is told to end, or that hears of no cancellation."""

    notices: Sequence[str] = ()

    def __init__(self, *, deaf: bool = False, cancel_error: ConclaveError | None = None) -> None:
        self.status = "queued"
        self.cancelled = 0
        self.followers = 0
        self.submitted = asyncio.Event()
        self.ended = asyncio.Event()
        self.items: list[str] = []
        self._deaf = deaf
        self._cancel_error = cancel_error

    def end(self, status: str) -> None:
        self.status = status
        self.ended.set()

    async def submit(self, body: Document) -> Document:
        self.status = "running"
        self.submitted.set()
        return {"id": "d-1", "status": "queued", "agents": {"count": 2}}

    async def get(self, deliberation_id: str) -> Document:
        return {"id": deliberation_id, "status": self.status}

    async def page(
        self,
        *,
        status: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Document:
        start = int(cursor or 0)
        items = [{"id": item, "status": "completed"} for item in self.items[start : start + limit]]
        more = start + limit < len(self.items)
        return {"items": items, "next_cursor": str(start + limit) if more else None}

    async def outputs(self, deliberation_id: str) -> Sequence[Document]:
        return [{"agent_id": "a"}]

    async def minutes(self, deliberation_id: str) -> str:
        return f"# Minutes of {deliberation_id}\n"

    async def bundle(self, deliberation_id: str) -> Document:
        return {"version": 1, "entries": []}

    async def checkpoint(self) -> str:
        return "a checkpoint"

    async def recount(self, deliberation_id: str, rule: Document) -> Document:
        return {"deliberation_id": deliberation_id, "rule": rule, "outcome": None}

    async def resolve(self, deliberation_id: str, answer: object) -> Document:
        return {"deliberation_id": deliberation_id, "answer": answer}

    async def track_record(self) -> Document:
        return {"questions": 0, "agents": [], "models": [], "calibration": []}

    async def cancel(self, deliberation_id: str) -> Document:
        self.cancelled += 1
        if self._cancel_error is not None:
            self.end("completed")
            raise self._cancel_error
        if not self._deaf:
            self.end("cancelled")
        return await self.get(deliberation_id)

    async def events(self, deliberation_id: str) -> AsyncGenerator[Document | None, None]:
        self.followers += 1
        try:
            yield {"type": "deliberation.queued", "sequence": 1}
            yield None
            await self.ended.wait()
            yield {"type": f"deliberation.{self.status}", "sequence": 2}
        finally:
            self.followers -= 1


class Watched(QuietProgress):
    wants_outputs = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.heard: list[Mapping[str, Any]] = []

    def note(self, event: Document) -> None:
        self.events.append(str(event["type"]))

    def hear(self, outputs: Sequence[Document]) -> None:
        self.heard += outputs


def hold(
    fake: FakeDeliberations, interruption: Interruption, progress: QuietProgress | None = None
) -> asyncio.Task[Document]:
    return asyncio.create_task(
        hold_deliberation(fake, {"question": "Why?"}, progress=progress or Watched(), interruption=interruption)
    )


async def test_it_is_followed_to_its_end() -> None:
    fake, progress = FakeDeliberations(), Watched()
    holding = hold(fake, Interruption(), progress)
    await fake.submitted.wait()
    fake.end("completed")
    assert (await holding)["status"] == "completed"
    assert progress.events == ["deliberation.queued", "deliberation.completed"]
    assert fake.cancelled == 0


async def test_voices_are_fetched_while_somebody_watches() -> None:
    fake, progress = FakeDeliberations(), Watched()
    holding = hold(fake, Interruption(), progress)
    await pass_time(1)
    fake.end("completed")
    await holding
    assert progress.heard


async def test_a_signal_cancels_it_and_it_is_still_counted() -> None:
    fake, interruption = FakeDeliberations(), Interruption()
    holding = hold(fake, interruption)
    await fake.submitted.wait()
    interruption.receive(signal.SIGINT)
    assert (await holding)["status"] == "cancelled"
    assert fake.cancelled == 1


async def test_a_signal_before_the_acceptance_cancels_what_is_accepted() -> None:
    fake, interruption = FakeDeliberations(), Interruption()
    interruption.receive(signal.SIGTERM)
    assert (await hold(fake, interruption))["status"] == "cancelled"


@pytest.mark.parametrize(
    "too_late",
    [
        DeliberationEndedError(deliberation_id="d-1", status="completed"),
        ServerRefusedError("ended", http_status=409),
    ],
)
async def test_a_signal_that_comes_too_late_changes_nothing(too_late: ConclaveError) -> None:
    fake, interruption = FakeDeliberations(cancel_error=too_late), Interruption()
    holding = hold(fake, interruption)
    await fake.submitted.wait()
    interruption.receive(signal.SIGINT)
    assert (await holding)["status"] == "completed"


async def test_one_that_does_not_end_after_a_signal_is_left_as_it_stands() -> None:
    fake, interruption = FakeDeliberations(deaf=True), Interruption()
    holding = hold(fake, interruption)
    await fake.submitted.wait()
    interruption.receive(signal.SIGINT)
    assert (await holding)["status"] == "running"
    assert asyncio.get_running_loop().time() == pytest.approx(15, abs=1)


async def test_a_second_signal_leaves_at_once() -> None:
    fake = FakeDeliberations(deaf=True)
    with Interruption() as interruption:
        holding = asyncio.current_task()
        assert holding is not None
        loop = asyncio.get_running_loop()
        loop.call_later(1, interruption.receive, signal.SIGINT)
        loop.call_later(2, interruption.receive, signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await hold_deliberation(fake, {}, progress=Watched(), interruption=interruption)
        holding.uncancel()
    assert loop.time() == 2
    assert interruption.signal == signal.SIGINT


async def test_a_signal_with_nothing_to_wind_up_leaves_at_once() -> None:
    with Interruption() as interruption:
        task = asyncio.current_task()
        assert task is not None
        interruption.receive(signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await pass_time(10)
        task.uncancel()


async def test_nobody_follows_any_more_in_the_end() -> None:
    fake, interruption = FakeDeliberations(deaf=True), Interruption()
    holding = hold(fake, interruption)
    await pass_time(1)
    assert fake.followers == 1
    interruption.receive(signal.SIGINT)
    await holding
    assert fake.followers == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_store_that_goes_away_ends_it_with_that_error() -> None:
    class Broken(FakeDeliberations):
        async def events(self, deliberation_id: str) -> AsyncGenerator[Document | None, None]:
            yield None
            raise DependencyUnavailableError(dependency="the database", problem="gone")

    with pytest.raises(LeftUnfinishedError, match="gone") as left:
        await hold(Broken(), Interruption())
    assert left.value.document["status"] == "running"


async def test_a_store_that_takes_no_cancellation_leaves_what_is_known() -> None:
    class Away(FakeDeliberations):
        async def cancel(self, deliberation_id: str) -> Document:
            raise AWAY

        async def get(self, deliberation_id: str) -> Document:
            raise AWAY

    fake, interruption = Away(), Interruption()
    holding = hold(fake, interruption)
    await fake.submitted.wait()
    interruption.receive(signal.SIGINT)
    with pytest.raises(LeftUnfinishedError) as left:
        await holding
    assert left.value.document == {"id": "d-1", "status": "queued", "agents": {"count": 2}}


async def test_waiting_for_an_end_has_its_time() -> None:
    fake = FakeDeliberations()
    await fake.submit({})
    assert (await wait_for_end(fake, "d-1", timeout_s=3))["status"] == "running"
    assert asyncio.get_running_loop().time() == pytest.approx(3)


IDS = [f"{number:06x}aa-0000-4000-8000-000000000000" for number in range(450)]


async def test_the_beginning_of_an_id_finds_it_on_any_page() -> None:
    fake = FakeDeliberations()
    fake.items = IDS
    assert (await find_by_prefix(fake, IDS[444][:8].upper()))["id"] == IDS[444]


async def test_a_beginning_of_several_ids_is_refused() -> None:
    fake = FakeDeliberations()
    fake.items = ["abcdef01", "abcdef02"]
    with pytest.raises(InvalidSpecificationError, match="2 deliberations begin with 'abcdef'"):
        await find_by_prefix(fake, "abcdef")


async def test_a_beginning_of_no_id_is_not_found() -> None:
    with pytest.raises(DeliberationNotFoundError):
        await find_by_prefix(FakeDeliberations(), "abcdef")


async def test_a_whole_id_is_asked_for_directly() -> None:
    assert (await find_by_prefix(FakeDeliberations(), IDS[0]))["id"] == IDS[0]


async def test_a_beginning_that_is_too_short_is_told_so() -> None:
    with pytest.raises(InvalidSpecificationError, match="'abcde' is too short: give at least 6 characters"):
        await find_by_prefix(FakeDeliberations(), "abcde")
