"""A Conclave of real processes that is halted again and again, in every way that there is, and all that must hold of it."""

from __future__ import annotations

import http.client
import json
import logging
import math
import re
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.witness.checkpoint import VerifierKey
from infrastructure.halt.redis_channel import HALT_KEY
from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import RunningProcess
from tests.ordeal import House, Kind
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

__all__ = ["By", "Drill", "Drills", "Figures", "Site", "drills_for"]

_logger = logging.getLogger(__name__)

CALLS_END_S = 0.25
CANCELLED_S = 2.0
_VOICES = 5
_HELD = 2
_MOST = 5
_HOLDS_S = 60.0
_WATCH_S = 0.5
_PATIENCE_S = 30.0
_POLL_S = 0.04
# What was answered this long before a halt has reached its log.
_RECORDED_S = 1.0
_VOICE = re.compile(r"voice (\d+) of ([a-z]+-\d+)")


class By(StrEnum):
    """How a halt is set: the first two through Conclave, which tells every channel, the others at one channel alone."""

    REST = "rest"
    COMMAND = "command"
    FILE = "file"
    DATABASE = "database"
    REDIS = "redis"


class Restart(StrEnum):
    """What happens to the processes while they are halted."""

    NONE = "none"
    TERMINATED = "terminated"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Drill:
    """One halt: how it is set, which channel is away meanwhile, and whether processes are started anew before it is cleared."""

    by: By
    broken: str | None = None
    restart: Restart = Restart.NONE


def drills_for(kind: Kind, *, number: int, seed: int) -> list[Drill]:
    """This kind's share of that many drills over all kinds. Each way comes before one comes again."""
    random = Random(seed)
    ways = [(by, broken) for by, broken in product(By, (None, "file", "redis", "database")) if by != broken]
    random.shuffle(ways)
    restarts = list(Restart)
    found: dict[Kind, list[Drill]] = {each: [] for each in Kind}
    for count in range(number):
        by, broken = ways[count % len(ways)]
        # A file that is moved away under SQLite is not a database that is away: whoever has it open goes on with it.
        able = [each for each in Kind if broken != "database" or each is not Kind.SQLITE]
        least = min(able, key=lambda each: (len(found[each]), random.random()))
        found[least].append(Drill(by, broken, restarts[(count + count // len(ways)) % len(restarts)]))
    return found[kind]


@dataclass
class Site:
    """A house with what stands behind its channels, each of which can be set by hand, taken away and brought back."""

    house: House
    halt_file: Path
    redis: RedisServer
    postgres: PostgresServer | None
    database: str

    def set_by_hand(self, by: By) -> None:
        """Halt at one channel, without Conclave."""
        if by is By.FILE:
            self.halt_file.touch()
        elif by is By.REDIS:
            assert self.redis.command("SET", HALT_KEY, "by hand") == "+OK"
        elif self.postgres is None:
            with closing(sqlite3.connect(self.database, isolation_level=None, timeout=10)) as connection:
                connection.execute("UPDATE halt_state SET halted = 1, reason = 'by hand'")
        else:
            with psycopg.connect(self.postgres.conninfo(self.database), autocommit=True) as connection:
                connection.execute("UPDATE halt_state SET halted = true, reason = 'by hand'")

    def break_channel(self, name: str | None) -> None:
        """Take it away."""
        if name == "file":
            self.halt_file.mkdir()
        elif name == "redis":
            self.redis.stop()
        elif name == "database" and self.postgres is not None:
            self.postgres.stop()

    def mend_channel(self, name: str | None) -> None:
        """Bring it back."""
        if name == "file":
            self.halt_file.rmdir()
        elif name == "redis":
            self.redis.start()
        elif name == "database" and self.postgres is not None:
            self.postgres.start()


@dataclass
class Figures:
    """The worst that was seen, in seconds after an acknowledgement; none of them negative."""

    halts: int = 0
    acknowledged_s: float = 0.0
    last_call_s: float = 0.0
    cancelled_s: float = 0.0
    in_flight: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.halts + other.halts,
            max(self.acknowledged_s, other.acknowledged_s),
            max(self.last_call_s, other.last_call_s),
            max(self.cancelled_s, other.cancelled_s),
            self.in_flight + other.in_flight,
            self.ended + other.ended,
        )


@dataclass
class _Asked:
    """One deliberation as its caller knows it; `may_be_stored` once an answer to its caller was lost."""

    label: str
    body: Mapping[str, Any]
    is_held: bool = False
    id: str | None = None
    may_be_stored: bool = False


@dataclass
class _Load:
    """Callers who ask for one deliberation after the other, and again for the same one when they are told to come back."""

    ask: Callable[[_Asked], Answer | None]
    new: Callable[[], _Asked]
    stopping: threading.Event = field(default_factory=threading.Event)
    # When each request began that was accepted although it had never been sent before.
    accepted_at: list[float] = field(default_factory=list)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(_MOST):
                asked = self.new()
                while not self._once(asked):
                    if self.stopping.wait(0.1):
                        return
                if self.stopping.wait(0.04):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the load is joined
            self.error = error

    def _once(self, asked: _Asked) -> bool:
        was_sent, began = asked.may_be_stored, time.monotonic()
        self.ask(asked)
        if asked.id is not None and not was_sent:
            self.accepted_at.append(began)
        return asked.id is not None


class Drills:
    """Halts a site again and again while it is at work; fails at the first broken promise. `verify` then looks at what is left."""

    def __init__(self, site: Site, llm: LlmServer, *, seed: int) -> None:
        self.figures = Figures()
        self._site = site
        self._house = site.house
        self._llm = llm
        self._random = Random(f"{seed}:{site.house.kind}")
        self._client = Client(site.house.port)
        self._running: dict[str, RunningProcess] = {}
        self._asked: list[_Asked] = []
        self._journal: list[Mapping[str, Any]] = []
        # From when a channel was touched until all were clear again.
        self._closed: list[tuple[float, float]] = []
        self._recorded: list[str] = []
        self._key = ""

    def open(self) -> None:
        """Make the database, pin the key of the log, and start every process."""
        if self._house.kind is not Kind.SQLITE:
            assert self._house.run("db", "upgrade")[0] == 0
        code, self._key = self._house.run("witness", "key")
        assert code == 0
        self._start(*self._house.roles)

    def close(self) -> None:
        """Leave no process behind."""
        for process in self._running.values():
            process.kill()
        self._running.clear()

    def go_through(self, drill: Drill) -> None:
        """Halt while it is at work, look at all that must hold, and clear."""
        self._llm.configure(faults=[{"contains": "you answer slowly", "latency_seconds": _HOLDS_S}])
        held = [self._new(held=True) for _ in range(_HELD)]
        self._repost(held)
        load = _Load(self._ask, self._new)
        thread = threading.Thread(target=load.run)
        thread.start()
        try:
            self._until(lambda: all(self._is_at_work(asked) for asked in held), "nothing begins")
            threading.Event().wait(self._random.uniform(0.0, 0.4))
            begun = time.monotonic()
            self._site.break_channel(drill.broken)
            if drill.broken:
                threading.Event().wait(self._random.uniform(0.0, 0.2))
            acknowledged = self._halt(drill.by)
            self._look_while_halted(drill, acknowledged, held)
        finally:
            load.stopping.set()
            thread.join()
        if load.error is not None:
            raise load.error
        late = [moment - acknowledged for moment in load.accepted_at if moment > acknowledged + CALLS_END_S]
        assert not late, f"accepted {late!r} s after {drill} was acknowledged"
        self._judge_calls(drill, acknowledged)
        self._clear()
        self._closed.append((begun, time.monotonic()))
        self._go_on(drill)

    def _halt(self, by: By) -> float:
        """When it was acknowledged, by the monotonic clock that the far end has too."""
        began = time.monotonic()
        if by is By.REST:
            answer = self._client.ask("POST", "/v1/halt", {"reason": "a drill"})
            acknowledged = time.monotonic()
            assert answer.status == 200, answer
            assert answer.document["halted"]
        elif by is By.COMMAND:
            arguments = ["halt", "set", "--reason", "a drill"]
            process = self._house.nursery.start(
                *arguments, settings=self._house.of("server"), folder=self._house.folder, log=self._house.log
            )
            said = process.line()
            acknowledged = time.monotonic()
            assert process.wait() == 0, said
            assert said.startswith("The system is halted"), said
        else:
            self._site.set_by_hand(by)
            acknowledged = time.monotonic()
        self._recorded += ["halt.set"] if by in {By.REST, By.COMMAND} else []
        if by is By.REST:
            self.figures.acknowledged_s = max(self.figures.acknowledged_s, acknowledged - began)
        self.figures.halts += 1
        return acknowledged

    def _look_while_halted(self, drill: Drill, acknowledged: float, held: Sequence[_Asked]) -> None:
        """From the acknowledgement on, over a restart, until everything that ran has ended."""
        dies_after = self._random.uniform(0.0, 0.4)
        if drill.restart is Restart.KILLED and drill.broken != "database":
            threading.Event().wait(max(0.0, acknowledged + dies_after - time.monotonic()))
            self._restart(drill.restart)
        threading.Event().wait(max(0.0, acknowledged + _WATCH_S - time.monotonic()))
        self._require_halted(reads=drill.broken != "database")
        if drill.broken == "database":
            # Nobody starts without the database, and nobody ends without it either.
            self._site.mend_channel(drill.broken)
        if drill.restart is Restart.TERMINATED or (drill.restart is Restart.KILLED and drill.broken == "database"):
            self._restart(drill.restart)
        self._require_halted(reads=True)
        # What had begun while the database was away is seen to have begun once that is back.
        queued = set() if drill.broken == "database" else self._ids("queued")
        if drill.broken in {"file", "redis"}:
            self._site.mend_channel(drill.broken)
        self._until(lambda: not self._ids("running"), f"what ran does not end under {drill}")
        queued |= self._ids("queued")
        for asked in held:
            document = self._document(asked)
            assert document["status"] == "halted", f"{document!r} ran while {drill} was set"
        self._until(self._is_whole, "a channel does not come back")
        assert self._client.ask("GET", "/v1/halt").document["halted"], f"{drill} was forgotten"
        threading.Event().wait(0.1)
        assert queued <= self._ids("queued"), f"what was queued did not stay so under {drill}"

    def _require_halted(self, *, reads: bool) -> None:
        """New ones are refused, and reading works as far as there is anything to read from."""
        answer = self._client.post(self._asked[0].body)
        assert (answer.status, answer.problem) == (503, "system-halted"), answer
        assert answer.headers["retry-after"].isdecimal()
        shown = self._client.ask("GET", "/v1/halt")
        assert (shown.status, shown.document["halted"]) == (200, True), shown
        if reads:
            for path in ("/v1/deliberations", f"/v1/deliberations/{self._asked[0].id}", "/v1/witness/checkpoint"):
                assert self._client.ask("GET", path).status == 200, path

    def _clear(self) -> None:
        """End the halt, by either way there is."""
        self._llm.configure(faults=[])
        if self._random.random() < 0.3:
            assert self._house.run("halt", "clear", "--reason", "the drill is over")[0] == 0
        else:
            answer = self._client.ask("DELETE", "/v1/halt", {"reason": "the drill is over"})
            assert answer.status == 200, answer
        self._recorded.append("halt.cleared")
        self._until(lambda: not self._client.ask("GET", "/v1/halt").document["halted"], "it stays halted")

    def _go_on(self, drill: Drill) -> None:
        """Have everything that was refused or queued come to its end."""
        self._repost([asked for asked in self._asked if asked.id is None])
        self._until(lambda: not self._ids("queued") | self._ids("running"), f"it does not go on after {drill}")

    def _judge_calls(self, drill: Drill, acknowledged: float) -> None:
        new = self._llm.journal(since=len(self._journal))
        self._journal += new
        calls = [entry for entry in new if entry["counted"]]
        last = max(entry["arrived_monotonic"] for entry in calls) - acknowledged
        assert last <= CALLS_END_S, f"a call began {last:.3f} s after {drill} was acknowledged"
        ends = [math.inf if entry["ended_monotonic"] is None else entry["ended_monotonic"] for entry in calls]
        in_flight = sum(end > acknowledged for end in ends)
        cancelled = max(ends) - acknowledged
        assert cancelled <= CANCELLED_S, f"a call was under way {cancelled:.3f} s after {drill} was acknowledged"
        self.figures.last_call_s = max(self.figures.last_call_s, last)
        self.figures.cancelled_s = max(self.figures.cancelled_s, cancelled)
        self.figures.in_flight += in_flight
        _logger.info("%s: last call %.3f s, %d cancelled within %.3f s", drill, last, in_flight, cancelled)

    def verify(self) -> None:
        """What was answered before a halt was kept, every deliberation ended once, and the log has each halt once."""
        answered = self._answered_early()
        for asked in self._asked:
            self._verify_record(asked, answered.get(asked.label, set()))
        for role, process in self._running.items():
            process.terminate()
            assert process.wait() == 0, role
        self._running.clear()
        assert self._halts_in_log() == self._recorded
        code, said = self._house.run("witness", "fsck")
        assert code == 0, said

    def _answered_early(self) -> Mapping[str, set[str]]:
        """Whose answers had gone out whole while it was open, and so long before the next halt that they had to be kept."""
        found: dict[str, set[str]] = defaultdict(set)
        for entry in self._journal:
            voice = _VOICE.search(json.dumps(entry["body"]))
            if entry["status"] != 200 or entry["client_disconnected"] or voice is None:
                continue
            at = entry["ended_monotonic"]
            if not any(begun - _RECORDED_S <= at <= cleared for begun, cleared in self._closed):
                found[voice[2]].add(f"voice-{voice[1]}")
        return found

    def _verify_record(self, asked: _Asked, answered: set[str]) -> None:
        document = self._document(asked)
        self.figures.ended[document["status"]] += 1
        assert document["status"] in {"completed", "halted"}, document
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}/bundle")
        assert answer.status == 200, answer
        verify_bundle(answer.body, key=VerifierKey.parse(self._key), tools=verification_tools())
        entries = [json.loads(item["entry"]) for item in answer.document["entries"]]
        types = Counter(entry["type"] for entry in entries)
        assert types["deliberation.accepted"] == types["deliberation.ended"] == 1, types
        ends = {entry["agent_id"]: entry["state"] for entry in entries if entry["type"] == "agent.ended"}
        assert types["agent.ended"] == len(ends) == _VOICES, types
        roll_call = dict(document["roll_call"])
        assert roll_call.pop("asked") == _VOICES
        assert Counter(ends.values()) == +Counter(roll_call), document
        kept = {voice for voice, state in ends.items() if state == "answered"}
        assert answered <= kept, f"answers of {sorted(answered - kept)!r} were lost: {document!r}"
        if document["status"] == "halted":
            assert set(ends.values()) <= {"answered", "halted"}, document
            assert "halted" in ends.values() or not asked.is_held, document

    def _halts_in_log(self) -> list[str]:
        exported = self._house.folder / "log.jsonl"
        assert self._house.run("witness", "export", str(exported))[0] == 0
        lines = [json.loads(line) for line in exported.read_text().splitlines()]
        found = [json.loads(line["entry"])["type"] for line in lines if "entry" in line]
        return [kind for kind in found if kind.startswith("halt.")]

    def _restart(self, restart: Restart) -> None:
        roles = self._random.choice([[self._random.choice(self._house.roles)], list(self._house.roles)])
        for role in roles:
            if restart is Restart.KILLED:
                self._running.pop(role).kill()
            else:
                self._running[role].terminate()
        for role in roles if restart is Restart.TERMINATED else ():
            assert self._running.pop(role).wait() == 0, role
        self._start(*roles)

    def _start(self, *roles: str) -> None:
        self._running.update({role: self._house.start(role) for role in roles})
        for role in roles:
            self._running[role].line()

    def _new(self, *, held: bool = False) -> _Asked:
        label = f"{self._house.kind}-{len(self._asked)}"
        adverbs = ["briefly"] * (_VOICES - 1) + ["slowly" if held else "briefly"]
        body = {
            "question": f"Should {label} open its doors?",
            "answer": {"kind": "choice", "options": ["yes", "no", "later"]},
            "agents": {
                "members": [
                    {
                        "id": f"voice-{number}",
                        "persona": f"You are voice {number} of {label}, and you answer {adverb}.",
                    }
                    for number, adverb in enumerate(adverbs)
                ]
            },
        }
        asked = _Asked(label, body, held)
        self._asked.append(asked)
        return asked

    def _ask(self, asked: _Asked) -> Answer | None:
        """The answer, None when there was none; whatever it is, it is one that the contract allows."""
        try:
            answer = self._client.post(asked.body, headers={"Idempotency-Key": asked.label})
        except (OSError, http.client.HTTPException):
            asked.may_be_stored = True
            return None
        if answer.status == 202:
            asked.id = answer.document["id"]
            return answer
        assert answer.problem in {
            "system-halted",
            "dependency-unavailable",
            "service-stopping",
            "idempotency-in-progress",
        }
        assert answer.headers["retry-after"].isdecimal(), answer
        asked.may_be_stored |= answer.problem != "system-halted"
        return answer

    def _repost(self, these: Sequence[_Asked]) -> None:
        for asked in these:
            self._until(
                lambda asked=asked: self._ask(asked) is not None and asked.id is not None,  # type: ignore[misc]
                f"{asked.label!r} is not accepted",
            )

    def _ids(self, status: str) -> set[str]:
        answer = self._client.ask("GET", f"/v1/deliberations?limit=200&status={status}")
        assert answer.status == 200, answer
        return {item["id"] for item in answer.document["items"]}

    def _document(self, asked: _Asked) -> Any:
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}")
        assert answer.status == 200, f"{asked.label!r} was acknowledged and is lost: {answer}"
        return answer.document

    def _is_at_work(self, asked: _Asked) -> bool:
        return bool(self._document(asked)["status"] == "running")

    def _is_whole(self) -> bool:
        channels = self._client.ask("GET", "/v1/halt").document["channels"]
        return all(channel["reachable"] for channel in channels.values())

    def _until(self, holds: Callable[[], bool], complaint: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not holds():
            if time.monotonic() > until:
                tail = self._house.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{complaint}; the end of the log:\n{tail}")
            threading.Event().wait(_POLL_S)
