"""A Conclave of real processes that is killed again and again, and all that must hold of it afterwards."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.witness.checkpoint import VerifierKey
from infrastructure.stubs.crash_points import CRASH_POINTS, CrashAt
from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery, ProcessEndedError, RunningProcess
from tests.servers.keeper import free_port

__all__ = ["House", "Kind", "Ordeal", "Strike", "strikes_for"]

_VOICES = 5
_PATIENCE_S = 60.0
_LONGEST_BEFORE_KILL_S = 0.4
_POLL_S = 0.02
_TRIES = 4
_LEAST_ASKS = 6
# Whoever is interrupted once more than there are attempts is given up, so that nothing is killed too often at its work.
_ATTEMPTS = 10
_IN_A_ROW = 2
_LOOK_EVERY = 3
_ON_ITS_WAY_S = 0.25
_VOICE = re.compile(r"voice (\d+) of ([a-z]+-\d+)")
# Steps that the process takes which answers requests; all others are taken where the work is done.
_AT_THE_DOOR = frozenset({"accept", "put", "cancel", "log", "halt", "checkpoint"})
# What only a deliberation leads past that is still at work later.
_WANTS_SLOW = frozenset({"claim", "renew", "cancel"})
# How often such a step can be counted on to be passed while one process lives.
_PASSAGES = {"claim": 1, "renew": 1, "release": 1, "checkpoint": 1, "cancel": 2, "log": 2, "halt": 4}


class Kind(StrEnum):
    """What the processes are, and where they keep what they know."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Strike:
    """One SIGKILL: at a named point, or without one at a random instant."""

    at: CrashAt | None = None


def strikes_for(kind: Kind, *, random_kills: int, kills_per_point: int, seed: int) -> list[Strike]:
    """This kind's share, in a random order, of as many kills over all kinds."""
    kinds = list(Kind)
    place = kinds.index(kind)
    random = Random(f"{seed}:{kind}")
    found = [Strike() for number in range(random_kills) if number % len(kinds) == place]
    for number, point in enumerate(CRASH_POINTS):
        for again in range(kills_per_point):
            if (number + again) % len(kinds) == place:
                most = _PASSAGES.get(point.partition(".")[0], 3)
                found.append(Strike(CrashAt(point, random.randint(1, most))))
    random.shuffle(found)
    return found


@dataclass
class House:
    """Where the processes of one ordeal live: their folders, their settings and their log."""

    kind: Kind
    folder: Path
    nursery: Nursery
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.log = self.folder / "processes.log"
        self.roles = ("server", "worker-1", "worker-2") if self.kind is Kind.WORKERS else ("server",)

    def of(self, role: str, crash: CrashAt | None = None) -> Mapping[str, str]:
        """The settings of one process. The second worker shares no folder with the others, as if on another machine."""
        data = self.folder / ("elsewhere" if role == "worker-2" else "data")
        armed = {} if crash is None else {"CONCLAVE_CRASH_AT": f"{crash.point}:{crash.passage}"}
        return {**self.settings, "CONCLAVE_DATA_DIR": str(data), **armed}

    def start(self, role: str, crash: CrashAt | None = None) -> RunningProcess:
        """Start it; it says a line once it is ready."""
        arguments = ["serve", "--port", str(self.port)] if role == "server" else ["worker"]
        settings = self.of(role, crash)
        return self.nursery.start(*arguments, "--json", settings=settings, folder=self.folder, log=self.log)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code of a command on the server's machine, and the first line that it printed."""
        process = self.nursery.start(*arguments, settings=self.of("server"), folder=self.folder, log=self.log)
        try:
            line = process.line()
        except ProcessEndedError:
            line = ""
        return process.wait(), line


@dataclass
class _Asked:
    """One deliberation as its caller knows it; `id` is None until it was acknowledged."""

    label: str
    body: Mapping[str, Any]
    id: str | None = None
    kills_before: int = 0
    may_end_early: bool = False
    has_ended: bool = False


class Ordeal:
    """Kills the processes of a house at each strike while they are at work; `settle` and `verify` then see what is left."""

    def __init__(self, house: House, llm: LlmServer, *, seed: int) -> None:
        self.kills: list[float] = []
        self._house = house
        self._llm = llm
        self._random = Random(f"{seed}:{house.kind}")
        self._client = Client(house.port)
        self._running: dict[str, RunningProcess] = {}
        self._asked: list[_Asked] = []
        self._must_be_halted: bool | None = False
        self._key = ""

    def open(self) -> None:
        """Make the database and pin the key of the log."""
        if self._house.kind is not Kind.SQLITE:
            assert self._house.run("db", "upgrade")[0] == 0
        code, self._key = self._house.run("witness", "key")
        assert code == 0

    def close(self) -> None:
        """Leave no process behind."""
        for process in self._running.values():
            process.kill()
        self._running.clear()

    def endure(self, strikes: Sequence[Strike]) -> None:
        """Take them one after the other, and look in between whether what was acknowledged is still there."""
        for number, strike in enumerate(strikes, start=1):
            if strike.at is None:
                self._strike_at_random()
            else:
                self._strike_at(strike.at)
            if number % _LOOK_EVERY == 0 or self._must_be_halted is not False:
                self._look_again()

    def settle(self) -> None:
        """Return once everything that was asked has ended. Fails where that takes too long."""
        self._bring_up()
        self._open_again()
        self._repost(self._asked)
        self._until(lambda: all(map(self._ended, self._asked)), "not everything came to its end")

    def _strike_at_random(self) -> None:
        if self._random.random() < 0.2:
            role = self._random.choice(self._house.roles)
            self._kill(role)
            # In its start, before it has said that it is ready.
            self._running[role] = self._house.start(role)
            threading.Event().wait(self._random.uniform(0.0, _LONGEST_BEFORE_KILL_S))
            self._kill(role)
            return
        self._bring_up()
        roles = self._random.choice([[role] for role in self._house.roles] + [list(self._house.roles)])
        timer = threading.Timer(self._random.uniform(0.0, _LONGEST_BEFORE_KILL_S), self._kill, roles)
        timer.start()
        try:
            for _ in range(4):
                if not self._ask(self._new(slow=self._random.random() < 0.2)):
                    break
        finally:
            timer.join()

    def _strike_at(self, at: CrashAt) -> None:
        """Have a process die there by itself; one that does not get there is killed with work in hand, and the next one may."""
        step = at.point.partition(".")[0]
        role = "server"
        if self._house.kind is Kind.WORKERS and step not in _AT_THE_DOOR:
            role = self._random.choice(["worker-1", "worker-2"])
        if step in {"halt", "log"}:
            self.settle()
        self._bring_up(but=role)
        for _ in range(_TRIES):
            self._kill(role)
            process = self._running[role] = self._house.start(role, at)
            try:
                process.line()
            except ProcessEndedError:
                self._note_crash(role, at)
                return
            if self._provoke(process, step):
                self._note_crash(role, at)
                return
        raise AssertionError(f"{at} was never passed by {role!r} of {self._house.kind}")

    def _provoke(self, process: RunningProcess, step: str) -> bool:
        """Ask for what leads past that step, for some time and some times; whether the process died of it."""
        until = time.monotonic() + (0.8 if step == "claim" else 4.0)
        slow = step in _WANTS_SLOW
        # On a busy machine little fits into a second, and of two workers either may be the one that claims.
        for asks in itertools.count():
            if asks >= _LEAST_ASKS and time.monotonic() >= until:
                break
            asked = self._new(slow=slow)
            slow &= step == "cancel"
            answered = self._ask(asked)
            if answered and step == "cancel":
                asked.may_end_early = True
                self._try("POST", f"/v1/deliberations/{asked.id}/cancel")
            if answered and step in {"halt", "log"}:
                self._halt_and_clear()
            if process.has_ended(within_s=0.15):
                return True
        return False

    def _halt_and_clear(self) -> None:
        for asked in self._asked:
            asked.may_end_early |= not asked.has_ended
        self._must_be_halted = None
        for method, halted in (("POST", True), ("DELETE", False)):
            answer = self._try(method, "/v1/halt", {"reason": "an ordeal"})
            self._must_be_halted = halted if answer is not None and answer.status == 200 else None
            if self._must_be_halted is None:
                return

    def _note_crash(self, role: str, at: CrashAt) -> None:
        self.kills.append(time.time())
        status = self._running.pop(role).wait()
        assert status == -9, f"{role!r} was to kill itself at {at} and ended with {status!r}"

    def _kill(self, *roles: str) -> None:
        for role in roles:
            if role in self._running:
                self._running.pop(role).kill()
                self.kills.append(time.time())

    def _bring_up(self, *, but: str = "") -> None:
        for role in self._house.roles:
            if role not in self._running and role != but:
                self._running[role] = self._house.start(role)
                self._running[role].line()

    def _open_again(self) -> None:
        """Clear a halt that an interrupted hand may have left; one that was acknowledged has to be there."""
        if self._must_be_halted is False:
            return
        halted = self._client.ask("GET", "/v1/halt").document["halted"]
        assert halted or not self._must_be_halted, "a halt that was acknowledged did not outlive its process"
        self._until(self._is_open, "the halt could not be cleared")
        self._must_be_halted = False

    def _is_open(self) -> bool:
        if self._client.ask("GET", "/v1/halt").document["halted"]:
            self._client.ask("DELETE", "/v1/halt", {"reason": "the ordeal goes on"})
        return not self._client.ask("GET", "/v1/halt").document["halted"]

    def _look_again(self) -> None:
        self._bring_up()
        self._open_again()
        for asked in self._asked:
            if asked.id is not None and not self._ended(asked) and len(self.kills) - asked.kills_before > _IN_A_ROW:
                self._until(lambda asked=asked: self._ended(asked), f"{asked.label!r} did not end")  # type: ignore[misc]
        self._repost([asked for asked in self._asked if asked.id is None])
        self._repost(self._random.sample(self._asked, min(2, len(self._asked))))

    def _new(self, *, slow: bool) -> _Asked:
        label = f"{self._house.kind}-{len(self._asked)}"
        adverbs = ["briefly"] * (_VOICES - 1) + ["slowly" if slow else "briefly"]
        members = [
            {"id": f"voice-{number}", "persona": f"You are voice {number} of {label}, and you answer {adverb}."}
            for number, adverb in enumerate(adverbs)
        ]
        body = {
            "question": f"Should {label} open its doors?",
            "answer": {"kind": "choice", "options": ["yes", "no", "later"]},
            "agents": {"members": members},
            "limits": {"max_attempts": _ATTEMPTS},
        }
        asked = _Asked(label, body, kills_before=len(self.kills))
        self._asked.append(asked)
        return asked

    def _ask(self, asked: _Asked) -> bool:
        """Whether it was acknowledged; under the same key it has to be the same deliberation each time."""
        answer = self._try("POST", "/v1/deliberations", asked.body, {"Idempotency-Key": asked.label})
        if answer is None or answer.status in {409, 503}:
            return False
        assert answer.status == 202, answer
        found = answer.document["id"]
        assert asked.id in {None, found}, f"{asked.label!r} became two deliberations, {asked.id!r} and {found!r}"
        asked.id = found
        return True

    def _repost(self, these: Sequence[_Asked]) -> None:
        for asked in these:
            self._until(lambda asked=asked: self._ask(asked), f"{asked.label!r} was not accepted")  # type: ignore[misc]

    def _try(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer | None:
        try:
            return self._client.ask(method, path, body, headers=headers)
        except (OSError, http.client.HTTPException):
            return None

    def _document(self, asked: _Asked) -> Any:
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}")
        assert answer.status == 200, f"{asked.label!r} was acknowledged and is lost: {answer}"
        return answer.document

    def _ended(self, asked: _Asked) -> bool:
        asked.has_ended = asked.has_ended or self._document(asked)["finished_at"] is not None
        return asked.has_ended

    def _until(self, holds: Callable[[], bool], complaint: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not holds():
            if time.monotonic() > until:
                left = [asked.label for asked in self._asked if not asked.has_ended]
                tail = self._house.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{complaint} ({left!r} have not ended); the end of the log:\n{tail}")
            threading.Event().wait(_POLL_S)

    def verify(self) -> Counter[str]:
        """Fail at the first broken promise; else the statuses that the deliberations ended with."""
        arrivals = self._arrivals()
        self._verify_list()
        with ThreadPoolExecutor(10) as hands:
            documents = list(hands.map(self._document, self._asked))
            list(hands.map(lambda asked: self._verify_record(asked, arrivals), self._asked))
            list(hands.map(self._verify_result, self._asked, documents))
        self._repost(self._asked)
        for process in self._running.values():
            process.terminate()
        assert {role: process.wait() for role, process in self._running.items()} == dict.fromkeys(self._house.roles, 0)
        self._running.clear()
        code, said = self._house.run("witness", "fsck")
        assert code == 0, said
        return Counter(document["status"] for document in documents)

    def _arrivals(self) -> Mapping[tuple[str, str], Sequence[float]]:
        """When each voice was called, by the clock of the far end."""
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for entry in self._llm.journal():
            if entry["counted"] and (voice := _VOICE.search(json.dumps(entry["body"]))) is not None:
                found[voice[2], f"voice-{voice[1]}"].append(entry["arrived_wall"])
        return found

    def _verify_list(self) -> None:
        """As many deliberations as keys, however often each was posted."""
        stored: list[str] = []
        cursor = ""
        while True:
            page = self._client.ask("GET", f"/v1/deliberations?limit=200{cursor}").document
            stored += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert Counter(stored) == Counter(asked.id for asked in self._asked)

    def _verify_record(self, asked: _Asked, arrivals: Mapping[tuple[str, str], Sequence[float]]) -> None:
        """By the log: it ends once, and nobody is called again after the end of the call was recorded."""
        answer = self._client.ask("GET", f"/v1/deliberations/{asked.id}/bundle")
        assert answer.status == 200, answer
        verify_bundle(answer.body, key=VerifierKey.parse(self._key), tools=verification_tools())
        entries = [json.loads(item["entry"]) for item in answer.document["entries"]]
        types = Counter(entry["type"] for entry in entries)
        assert types["deliberation.accepted"] == types["deliberation.ended"] == 1, types
        assert types["round.started"] <= 1, types
        intents: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in entries:
            if entry["type"] == "call.intended":
                intents[entry["agent_id"]].append(entry)
        ends = Counter(entry["agent_id"] for entry in entries if entry["type"] == "agent.ended")
        assert set(ends.values()) <= {1}, ends
        assert types["round.started"] * _VOICES == ends.total(), ends
        for entry in entries:
            if entry["type"] == "agent.ended":
                self._verify_voice(asked, entry, intents[entry["agent_id"]], arrivals)

    def _verify_voice(
        self,
        asked: _Asked,
        end: Mapping[str, Any],
        intents: Sequence[Mapping[str, Any]],
        arrivals: Mapping[tuple[str, str], Sequence[float]],
    ) -> None:
        voice = end["agent_id"]
        called = arrivals.get((asked.label, voice), [])
        told = f"{voice!r} of {asked.label!r}: called at {called!r}, intended {intents!r}, ended {end!r}"
        assert [intent["attempt"] for intent in intents] == list(range(1, len(intents) + 1)), told
        assert len(called) <= len(intents), f"called more often than intended: {told}"
        if end["state"] == "answered":
            assert called, f"an answer without a call: {told}"
        ended_at = _seconds(end["at"])
        # A call that was on its way when its agent was stopped may reach the far end a little later than that was written down.
        on_its_way = _ON_ITS_WAY_S if end["state"] in {"cancelled", "halted"} else 0.0
        assert all(moment <= ended_at + on_its_way for moment in called), f"called again after its end: {told}"
        if intents:
            began = _seconds(intents[0]["at"])
            # The process may have died a moment before that was seen here.
            cut = sum(began <= moment and moment - 1.0 <= ended_at for moment in self.kills)
            assert len(intents) <= 1 + cut, f"called again although nothing was killed: {told}, kills {self.kills!r}"

    def _verify_result(self, asked: _Asked, document: Any) -> None:
        """What came out is what comes out of the same deliberation when nobody disturbs it."""
        roll_call = dict(document["roll_call"])
        voices = roll_call.pop("asked")
        assert sum(roll_call.values()) == voices, document
        if document["status"] != "completed":
            assert asked.may_end_early, document
            assert document["status"] in {"cancelled", "halted"}, document
            return
        assert voices == _VOICES, document
        given_up = [failure for failure in document["failures"] if failure["kind"] == "interrupted"]
        if given_up:
            assert {failure["attempts"] for failure in given_up} == {_ATTEMPTS + 1}, document
            return
        twin = self._client.post(asked.body, query=f"?wait={_PATIENCE_S:g}").document
        for part in ("outcome", "roll_call"):
            assert _of_its_own(document[part]) == _of_its_own(twin[part]), (
                f"{document!r} is not what it would be undisturbed: {twin!r}"
            )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _of_its_own(part: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured on earlier deliberations too, of which the later one has more."""
    return {name: value for name, value in part.items() if name != "effective_votes"}
