"""Rows that other processes speak for: what is said to them goes out, what they say comes in, and nobody holds a tick up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from application.ports.message_bus import Message, MessageBus
from application.services.population.run_population import RunPopulation
from application.services.stop_signal import StopSignal
from domain.errors.bus import NameTakenError
from domain.errors.population import InvalidPopulationError
from domain.models.population import PopulationSpecification
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.population.external.letters import SAID, Heard, Said, heard_in, heard_payload, said_in, said_payload
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.snapshots import Snapshots
from tests.patience import eventually
from tests.population.endings import EndedHereError, Ending, ended, ticks_in
from tests.population.partner import answer_always, bus_of
from tests.population.runs import Listener
from tests.population.towns import opinions_of, specification, ticked

# Longer than any answer takes, however busy the machine.
LONG_S = 30.0


@contextmanager
def _town(folder: Path, spec: PopulationSpecification, open_bus: Callable[[], MessageBus]) -> Iterator[LocalEngine]:
    engine = LocalEngine(spec, snapshots=Snapshots(folder / "snapshots"), open_bus=open_bus)
    try:
        yield engine
    finally:
        engine.close()


def _external(engine: LocalEngine) -> Any:
    return engine.measures().attached["external"]


class Place:
    """A bus in memory, on which partners begin as soon as it is opened."""

    def __init__(self, *partners: Callable[[MessageBus], Any]) -> None:
        self._partners = partners
        self.tasks: list[asyncio.Task[None]] = []
        self.bus = MemoryMessageBus()

    def __call__(self) -> MessageBus:
        self.tasks = [asyncio.get_running_loop().create_task(partner(self.bus)) for partner in self._partners]
        return self.bus

    def tries(self, name: str) -> int:
        """How often somebody who is not there was written to."""
        loop = self.tasks[0].get_loop()
        return len(asyncio.run_coroutine_threadsafe(self.bus.dead_letters(name), loop).result(LONG_S))


def _heard_by(found: list[Heard], rows: list[int], opinion: float) -> Callable[[MessageBus], Any]:
    def answer(heard: Heard) -> Said:
        found.append(heard)
        return Said(heard.tick, np.array(rows, np.uint32), np.full(len(rows), opinion))

    return lambda bus: answer_always(bus, "external", answer)


def test_letters_are_the_same_after_they_were_read() -> None:
    heard = Heard(7, np.array([1, 2], np.uint32), np.array([5, 9], np.uint32), np.array([0.25, 1.0]), last=True)
    found = heard_in(heard_payload(heard))
    assert (found.tick, found.last) == (7, True)
    assert np.array_equal(found.senders, heard.senders)
    said = said_in(said_payload(Said(3, np.array([4], np.uint32), np.array([0.5]))))
    assert (said.tick, said.rows.tolist(), said.opinions.tolist()) == (3, [4], [0.5])


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {"tick": -1, "rows": b"", "opinions": b""},
        {"tick": True, "rows": b"", "opinions": b""},
        {"tick": 1, "rows": b"123", "opinions": b""},
        {"tick": 1, "rows": "text", "opinions": b""},
        {"tick": 1, "rows": b"1234", "opinions": b""},
        {"tick": 1, "rows": b"1234", "opinions": np.array([np.nan]).tobytes()},
        {"tick": 1, "rows": b"1234", "opinions": np.array([1.1]).tobytes()},
    ],
)
def test_what_is_no_opinion_is_refused(payload: Any) -> None:
    with pytest.raises(ValueError, match=r"is|names|has"):
        said_in(payload)


@pytest.mark.parametrize(
    ("workers", "behaviour"),
    [("threads", "bounded_confidence"), ("processes", "threshold"), ("threads", "tests.population.minds:Average")],
)
def test_what_a_partner_says_is_what_its_rows_think_in_the_next_tick(
    tmp_path: Path, workers: str, behaviour: str
) -> None:
    heard: list[Heard] = []
    spec = specification(external=20, external_deadline_s=LONG_S, workers=workers, behaviour=behaviour, metrics=1)
    with _town(tmp_path, spec, Place(_heard_by(heard, [3, 4], 0.75))) as engine:
        first = opinions_of(engine)[:20]
        outcomes = ticked(engine, 5)
        last = opinions_of(engine)[:20]
        delivered = int(engine.columns.metrics[:20, 0].sum())
        document = _external(engine)
        assert outcomes[-1].opinion_sum == int((opinions_of(engine) * 2**39).sum())
    assert last[3] == last[4] == 0.75
    # No rule moves the others.
    assert np.array_equal(np.delete(last, [3, 4]), np.delete(first, [3, 4]))
    # All that was delivered to them in the population went out.
    assert sum(one.rows.size for one in heard) == delivered > 50
    (partner,) = document["partners"]
    counts = partner["messages"]
    assert counts["sent"] == counts["delivered"] == delivered
    assert partner["opinions"] == {"received": 10, "applied": 10, "refused": 0}
    assert partner["last_tick_answered"] == 5
    assert document["reproducible"] is False
    assert document["messages_per_second"] > 0
    assert all(one.sent == one.delivered for one in outcomes)


def test_what_external_rows_think_is_heard_by_those_who_know_them(tmp_path: Path) -> None:
    spec = specification(agents=100, external=50, external_deadline_s=LONG_S, bound=1.0, degree=30)
    with _town(tmp_path, spec, Place(_heard_by([], list(range(50)), 1.0))) as engine:
        ticked(engine, 40)
        assert opinions_of(engine)[50:].min() > 0.9


def test_each_partner_speaks_for_its_own_rows_only(tmp_path: Path) -> None:
    def one(bus: MessageBus) -> Any:
        return answer_always(bus, "one", lambda heard: Said(heard.tick, np.array([0, 15], np.uint32), np.ones(2)))

    def two(bus: MessageBus) -> Any:
        return answer_always(bus, "two", lambda heard: Said(heard.tick, np.array([10, 250], np.uint32), np.ones(2)))

    spec = specification(external=20, external_to="one,two", external_deadline_s=LONG_S)
    with _town(tmp_path, spec, Place(one, two)) as engine:
        ticked(engine, 1)
        opinions = opinions_of(engine)
        document = _external(engine)
    assert opinions[0] == opinions[10] == 1.0
    assert opinions[15] != 1.0
    assert opinions[250] != 1.0
    assert [one["opinions"] for one in document["partners"]] == [{"received": 2, "applied": 1, "refused": 1}] * 2
    assert all("not its own" in one["problem"] for one in document["partners"])


def test_a_partner_that_is_away_is_named_and_not_waited_for(tmp_path: Path) -> None:
    spec = specification(external=20, external_to="here,gone", external_deadline_s=0.2)
    place = Place(lambda bus: answer_always(bus, "here"))
    with _town(tmp_path, spec, place) as engine:
        ticked(engine, 4)
        began = time.perf_counter()
        outcomes = ticked(engine, 20)
        took = time.perf_counter() - began
        document = _external(engine)
        # Three times until it is away, and about once a second from then on: a deadline is waited for as often, and not 24 times.
        assert place.tries("gone") < 3 + 2 + took
    assert document["away"] == ["gone"]
    here, gone = document["partners"]
    assert gone["problem"] == "is not on the bus"
    assert gone["messages"]["sent"] == gone["messages"]["expired"] > 0
    assert gone["ticks_unanswered"] == 24
    assert here["messages"]["sent"] == here["messages"]["delivered"] + here["messages"]["expired"]
    assert all(one.sent == one.delivered for one in outcomes)


def test_who_comes_late_is_waited_for_from_then_on(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def late(bus: MessageBus) -> None:
        await begun.wait()
        await answer_always(bus, "external")

    place = Place(late)
    with _town(tmp_path, specification(external=20, external_deadline_s=0.05), place) as engine:
        ticked(engine, 4)
        assert _external(engine)["away"] == ["external"]
        place.tasks[0].get_loop().call_soon_threadsafe(begun.set)

        def is_back() -> bool:
            ticked(engine, 1)
            return not _external(engine)["away"]

        assert eventually(is_back)


def test_a_full_inbox_refuses_and_every_message_is_counted(tmp_path: Path) -> None:
    async def deaf(bus: MessageBus) -> None:
        await bus.register("external", capacity=2, overflow="reject")

    with _town(tmp_path, specification(external=20, external_deadline_s=0.05), Place(deaf)) as engine:
        ticked(engine, 3)
        (partner,) = _external(engine)["partners"]
    counts = partner["messages"]
    assert counts["refused"] > 0
    assert counts["sent"] == counts["delivered"] + counts["expired"] + counts["refused"]


def test_rubbish_from_a_partner_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    async def rude(bus: MessageBus) -> None:
        await bus.register("external")
        while True:
            await bus.receive("external")
            await bus.send(Message("external", "population", SAID, {"tick": 1, "rows": b"x"}))

    with _town(tmp_path, specification(external=20, external_deadline_s=0.05), Place(rude)) as engine:
        before = opinions_of(engine)[:20]
        ticked(engine, 3)

        def is_counted() -> bool:
            ticked(engine, 1)
            return bool(_external(engine)["partners"][0]["opinions"]["refused"])

        assert eventually(is_counted)
        assert np.array_equal(before, opinions_of(engine)[:20])
        assert "has no rows" in _external(engine)["partners"][0]["problem"]


async def test_a_run_with_external_rows_goes_on_after_a_kill_although_others_say_something_else(tmp_path: Path) -> None:
    spec = specification(external=20, external_deadline_s=LONG_S, ticks=12, snapshot_ticks=4)

    async def ran(opinion: float, wrap: Callable[[LocalEngine], Any], *, existing: bool) -> Any:
        folder = PopulationFolder(tmp_path / "town", existing=existing)
        place = Place(_heard_by([], [3], opinion))

        def open_engine(tick: int) -> Any:
            return wrap(LocalEngine(spec, snapshots=folder.snapshots, tick=tick, open_bus=place))

        try:
            resumption = folder.rewind() if existing else None
            if not existing:
                folder.start(spec)
            case = RunPopulation(spec, open_engine=open_engine, record=folder, cores=2)
            return await case.run(Listener(), StopSignal(), resumption=resumption)
        finally:
            folder.close()

    with pytest.raises(EndedHereError):
        await ran(0.25, lambda engine: Ending(engine, at=10, by=ended), existing=False)
    report = (await ran(0.75, lambda engine: engine, existing=True)).result
    assert report["ticks"] == 12
    assert report["external"]["reproducible"] is False
    assert report["external"]["partners"][0]["last_tick_answered"] == 12
    assert ticks_in(tmp_path / "town") == list(range(1, 13))


def test_without_a_bus_nobody_speaks_for_others(tmp_path: Path) -> None:
    with pytest.raises(InvalidPopulationError, match="bus"):
        LocalEngine(specification(external=3), snapshots=Snapshots(tmp_path))


def test_two_populations_do_not_share_a_bus(tmp_path: Path) -> None:
    shared = tmp_path / "bus"
    shared.mkdir()
    spec = specification(external=3, external_deadline_s=0.0)
    with _town(tmp_path, spec, lambda: bus_of("shm", str(shared))), pytest.raises(NameTakenError):
        LocalEngine(spec, snapshots=Snapshots(tmp_path), open_bus=lambda: bus_of("shm", str(shared)))


@contextmanager
def _partner(about: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.population.partner", json.dumps(about)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("transport", ["shm", "redis", "file"])
def test_a_second_process_speaks_for_its_rows(tmp_path: Path, transport: str, request: pytest.FixtureRequest) -> None:
    where = request.getfixturevalue("redis_url") if transport == "redis" else str(tmp_path / "bus")
    if transport == "shm":
        (tmp_path / "bus").mkdir()
    about = {"transport": transport, "where": where, "name": "external", "rows": [0, 7, 19], "opinion": 0.5}
    spec = specification(external=20, external_deadline_s=LONG_S)
    with _partner(about) as process, _town(tmp_path, spec, lambda: bus_of(transport, where)) as engine:
        ticked(engine, 6)
        assert opinions_of(engine)[[0, 7, 19]].tolist() == [0.5] * 3
        document = _external(engine)
        (partner,) = document["partners"]
        assert partner["messages"]["sent"] == partner["messages"]["delivered"] > 60
        assert partner["ticks_unanswered"] == 0
        assert document["messages_per_second"] > 0
        process.kill()
        process.wait()
        engine._attached[-1]._spec = specification(external=20, external_deadline_s=0.01)  # type: ignore[attr-defined]
        outcomes = ticked(engine, 5)
        document = _external(engine)
    assert document["away"] == ["external"]
    assert all(one.sent == one.delivered for one in outcomes)
