"""The database goes away and comes back, loses its connections, or has no room: callers wait, and nothing is lost or paid twice."""

from __future__ import annotations

import json
import logging
import re
import resource
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery, RunningProcess
from tests.ordeals.house import House, Kind
from tests.servers.postgres import PostgresServer

_logger = logging.getLogger(__name__)

_SEED = 4
_VOICES = 6
_CALLERS = 5
_AWAY_AT_MOST_S = 2.0
_PATIENCE_S = 60.0
_VOICE = re.compile(r"voice (\d+) of (question-\d+)")
_ALL_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
)


@dataclass
class Crowd:
    """Callers who take a 503 for what it is, and come back; whatever else goes wrong is a failure."""

    client: Client
    ids: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    longest_wait_s: float = 0.0
    _labels: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer | None:
        """The answer, or None when the caller is told to come back."""
        answer = self.client.ask(method, path, body, headers={} if key is None else {"Idempotency-Key": key})
        if answer.status in {200, 202}:
            return answer
        # Whoever asks again under a key before its first request is over is told so.
        assert answer.status == 503 or answer.problem == "idempotency-in-progress", answer
        assert answer.problem
        assert int(answer.headers["retry-after"]) >= 1
        self.refused[f"{method} {answer.problem}"] += 1
        return None

    def insist(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """The answer at last. They come back sooner than they are told, so that more of them meet the trouble."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            answer = self.ask(method, path, body, key=key)
            if answer is not None:
                return answer
            threading.Event().wait(0.1)
        raise AssertionError(f"{method} {path} was refused for {_PATIENCE_S} s")

    def submit(self) -> str:
        """The id of a new deliberation."""
        label = f"question-{next(self._labels)}"
        members = [
            {"id": f"voice-{number}", "persona": f"You are voice {number} of {label}."} for number in range(_VOICES)
        ]
        body = {
            "question": f"What becomes of {label}?",
            "answer": {"kind": "choice", "options": ["a", "b"]},
            "agents": {"members": members},
        }
        found = str(self.insist("POST", "/v1/deliberations", body, key=label).document["id"])
        self.ids[label] = found
        return found

    def see(self, deliberation_id: str, *, ended: bool) -> Any:
        """The deliberation once it has begun, or has ended."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            document = self.insist("GET", f"/v1/deliberations/{deliberation_id}").document
            if document["finished_at" if ended else "started_at"] is not None:
                return document
            threading.Event().wait(0.05)
        raise AssertionError(f"it did not come so far: {document!r}")

    def verify(self, llm: LlmServer) -> None:
        """Everything that was asked has ended well, and nobody was called twice."""
        for deliberation_id in self.ids.values():
            document = self.see(deliberation_id, ended=True)
            roll_call = document["roll_call"]
            assert document["status"] == "completed", document
            assert roll_call["answered"] + roll_call["abstained"] == roll_call["asked"] == _VOICES, document
            assert document["usage"]["calls"] == _VOICES, document
            waited_s = _seconds(document["started_at"]) - _seconds(document["created_at"])
            self.longest_wait_s = max(self.longest_wait_s, waited_s)
        called = Counter(
            found.groups()
            for entry in llm.journal()
            if entry["counted"] and (found := _VOICE.search(json.dumps(entry["body"])))
        )
        assert called == {(str(voice), label): 1 for label in self.ids for voice in range(_VOICES)}
        listed = self.insist("GET", "/v1/deliberations?limit=200").document
        newest = {item["id"] for item in listed["items"]}
        assert newest <= set(self.ids.values())
        assert len(newest) == min(200, len(self.ids))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@dataclass
class Standing:
    """A house whose processes run."""

    house: House
    crowd: Crowd
    running: Mapping[str, RunningProcess]
    database: str

    def end(self) -> None:
        """Stop it as an operator would; every process leaves in good order, and the log verifies."""
        for process in self.running.values():
            process.terminate()
        assert [process.wait() for process in self.running.values()] == [0] * len(self.running)
        code, said = self.house.run("witness", "fsck")
        assert code == 0, said

    def work(self, *, at_least: int, until: Callable[[], bool]) -> None:
        """Have callers ask for one deliberation after the other, so many in all and until that holds."""
        counted = iter(range(at_least))

        def call() -> None:
            while next(counted, None) is not None or not until():
                self.crowd.see(self.crowd.submit(), ended=True)

        with ThreadPoolExecutor(_CALLERS) as callers:
            for calling in [callers.submit(call) for _ in range(_CALLERS)]:
                calling.result()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where the processes come from."""
    with Nursery() as started:
        yield started


@pytest.fixture
def far_end(llm_server: LlmServer) -> LlmServer:
    """One whose answers take about a second, so that whatever happens meets calls in flight."""
    llm_server.configure(latency_seconds={"lognormal": {"median": 0.7, "sigma": 0.5}}, record_bodies=True)
    return llm_server


@contextmanager
def _standing(
    kind: Kind, folder: Path, nursery: Nursery, llm: LlmServer, postgres: PostgresServer | None
) -> Iterator[Standing]:
    (folder / "data").mkdir(parents=True)
    settings: dict[str, Any] = {
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
    }
    database = f"away_{secrets.token_hex(6)}"
    if postgres is not None:
        if not postgres.running:
            postgres.start()
        postgres.create_database(database)
        settings["CONCLAVE_DATABASE_URL"] = postgres.url(database)
    if kind is Kind.WORKERS:
        settings["CONCLAVE_QUEUE"] = "procrastinate"
    house = House(kind, folder, nursery, settings)
    if postgres is not None:
        assert house.run("db", "upgrade")[0] == 0
    running = {role: house.start(role) for role in house.roles}
    try:
        for process in running.values():
            process.line()
        yield Standing(house, Crowd(Client(house.port)), running, database)
    finally:
        for process in running.values():
            process.kill()
        if postgres is not None and not postgres.running:
            postgres.start()


class Outages:
    """Stops or kills Postgres again and again, and asks after each how long it takes until all is well."""

    def __init__(self, postgres: PostgresServer, crowd: Crowd, *, gap_s: tuple[float, float], random: Random) -> None:
        self.recoveries: list[float] = []
        self._postgres = postgres
        self._crowd = crowd
        self._gap_s = gap_s
        self._random = random
        self._ending = threading.Event()
        self._hand = ThreadPoolExecutor(1)

    def __enter__(self) -> Outages:
        self._work = self._hand.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._hand.shutdown()
        self._work.result()

    def were(self, number: int) -> bool:
        """Whether there have been so many; raises what broke meanwhile."""
        if self._work.done():
            self._work.result()
        return len(self.recoveries) >= number

    def _run(self) -> None:
        while not self._ending.wait(self._random.uniform(*self._gap_s)):
            self._random.choice([self._postgres.stop, self._postgres.kill])()
            threading.Event().wait(self._random.uniform(0.0, _AWAY_AT_MOST_S))
            self._postgres.start()
            back = time.monotonic()
            self._crowd.see(self._crowd.submit(), ended=False)
            self.recoveries.append(time.monotonic() - back)


@pytest.mark.parametrize("kind", [Kind.POSTGRES, Kind.WORKERS])
def test_every_deliberation_ends_well_however_often_the_database_is_stopped(
    kind: Kind,
    nursery: Nursery,
    far_end: LlmServer,
    postgres_server: PostgresServer,
    tmp_path: Path,
    sized: Callable[[int, int], int],
) -> None:
    gap_s = sized(1, 5), sized(2, 40)
    with _standing(kind, tmp_path, nursery, far_end, postgres_server) as standing:
        with Outages(postgres_server, standing.crowd, gap_s=gap_s, random=Random(f"{_SEED}:{kind}")) as outages:
            standing.work(at_least=sized(20, 200), until=lambda: outages.were(sized(4, 12)))
        standing.crowd.verify(far_end)
        _logger.info("%s: %d asked, %s, %s", kind, len(standing.crowd.ids), outages.recoveries, standing.crowd.refused)
        _logger.info("%s: waited at most %.2f s", kind, standing.crowd.longest_wait_s)
        standing.end()


@pytest.mark.parametrize("kind", [Kind.POSTGRES, Kind.WORKERS])
def test_connections_that_the_database_ends_are_replaced(
    kind: Kind,
    nursery: Nursery,
    far_end: LlmServer,
    postgres_server: PostgresServer,
    tmp_path: Path,
    sized: Callable[[int, int], int],
) -> None:
    with (
        _standing(kind, tmp_path, nursery, far_end, postgres_server) as standing,
        psycopg.connect(postgres_server.conninfo(), autocommit=True) as administrator,
    ):
        crowd, rounds = standing.crowd, sized(5, 60)
        ended: list[int] = []

        def cut() -> int:
            return len(administrator.execute(_ALL_CONNECTIONS, [standing.database]).fetchall())

        with ThreadPoolExecutor(1) as hand:
            work = hand.submit(standing.work, at_least=10, until=lambda: len(ended) >= rounds)
            while len(ended) < rounds:
                threading.Event().wait(1.0)
                ended.append(cut())
            work.result()
        assert all(ended), ended
        # All of them idle by now.
        refused = crowd.refused.total()
        assert cut()
        began = time.monotonic()
        crowd.see(crowd.submit(), ended=False)
        recovered_s, met = time.monotonic() - began, crowd.refused.total() - refused
        crowd.verify(far_end)
        _logger.info("%s: %s cut, idle ones %.2f s and %d refusals, %s", kind, ended, recovered_s, met, crowd.refused)
        _logger.info("%s: waited at most %.2f s", kind, crowd.longest_wait_s)
        standing.end()


def test_a_full_disk_is_waited_for_and_loses_nothing(nursery: Nursery, far_end: LlmServer, tmp_path: Path) -> None:
    with _standing(Kind.SQLITE, tmp_path, nursery, far_end, None) as standing:
        crowd, pid = standing.crowd, standing.running["server"].pid
        refused_before: list[str] = [crowd.submit() for _ in range(3)]
        before = crowd.see(refused_before[0], ended=False)
        # No file can be written past its first page, as if no block of the disk were free.
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
        try:
            for _ in range(5):
                assert crowd.ask("POST", "/v1/deliberations", {"question": "Is there room?"}) is None
                assert crowd.ask("GET", f"/v1/deliberations/{before['id']}") is not None
            # Calls in flight come back to a store that takes nothing.
            far_end.wait_until(in_flight_at_most=0, timeout_seconds=20)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        began = time.monotonic()
        crowd.submit()
        recovered_s = time.monotonic() - began
        assert set(crowd.refused) == {"POST dependency-unavailable"}
        crowd.verify(far_end)
        _logger.info("full disk: recovered within %.2f s, %s", recovered_s, crowd.refused)
        standing.end()
