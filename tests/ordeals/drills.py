"""A Conclave of real processes that is halted again and again, in every way that there is."""

from __future__ import annotations

import http.client
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import RunningProcess
from tests.ordeals.drill import By, Drill, Restart
from tests.ordeals.halt_aftermath import HaltAftermath, answered_early
from tests.ordeals.house import Kind
from tests.ordeals.load import Drilled, Load
from tests.ordeals.site import Site
from tests.ordeals.voices import deliberation_of

_logger = logging.getLogger(__name__)

CALLS_END_S = 0.25
CANCELLED_S = 2.0
_HELD = 2
_HOLDS_S = 60.0
_WATCH_S = 0.5
_PATIENCE_S = 30.0
_POLL_S = 0.04


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
        self._asked: list[Drilled] = []
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
        load = Load(self._ask, self._new)
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

    def _look_while_halted(self, drill: Drill, acknowledged: float, held: Sequence[Drilled]) -> None:
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
            document = asked.document(self._client)
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
        aftermath = HaltAftermath(self._house, self._client, key=self._key)
        answered = answered_early(self._journal, self._closed)
        for asked in self._asked:
            self.figures.ended[aftermath.verify_record(asked, answered.get(asked.label, set()))] += 1
        for role, process in self._running.items():
            process.terminate()
            assert process.wait() == 0, role
        self._running.clear()
        assert aftermath.halts_in_log() == self._recorded
        code, said = self._house.run("witness", "fsck")
        assert code == 0, said

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

    def _new(self, *, held: bool = False) -> Drilled:
        label = f"{self._house.kind}-{len(self._asked)}"
        asked = Drilled(label, deliberation_of(label, slow=held), is_held=held)
        self._asked.append(asked)
        return asked

    def _ask(self, asked: Drilled) -> Answer | None:
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

    def _repost(self, these: Sequence[Drilled]) -> None:
        for asked in these:
            self._until(
                lambda asked=asked: self._ask(asked) is not None and asked.id is not None,  # type: ignore[misc]
                f"{asked.label!r} is not accepted",
            )

    def _ids(self, status: str) -> set[str]:
        answer = self._client.ask("GET", f"/v1/deliberations?limit=200&status={status}")
        assert answer.status == 200, answer
        return {item["id"] for item in answer.document["items"]}

    def _is_at_work(self, asked: Drilled) -> bool:
        return bool(asked.document(self._client)["status"] == "running")

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
