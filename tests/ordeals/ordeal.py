"""A Conclave of real processes that is killed again and again while it is at work."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random

from infrastructure.stubs.crash_points import CrashAt
from tests.conclave_fixture import Answer, Client
from tests.llm_server.handle import LlmServer
from tests.nursery import ProcessEndedError, RunningProcess
from tests.ordeals.house import House, Kind
from tests.ordeals.kill_aftermath import ATTEMPTS, Endured, KillAftermath
from tests.ordeals.strikes import Strike
from tests.ordeals.voices import deliberation_of

_PATIENCE_S = 60.0
_LONGEST_BEFORE_KILL_S = 0.4
_POLL_S = 0.02
_TRIES = 4
_LEAST_ASKS = 6
_IN_A_ROW = 2
_LOOK_EVERY = 3
# Steps that the process takes which answers requests; all others are taken where the work is done.
_AT_THE_DOOR = frozenset({"accept", "put", "cancel", "log", "halt", "checkpoint"})
# What only a deliberation leads past that is still at work later.
_WANTS_SLOW = frozenset({"claim", "renew", "cancel"})


class Ordeal:
    """Kills the processes of a house at each strike while they are at work; `settle` and `verify` then see what is left."""

    def __init__(self, house: House, llm: LlmServer, *, seed: int) -> None:
        self.kills: list[float] = []
        self._house = house
        self._llm = llm
        self._random = Random(f"{seed}:{house.kind}")
        self._client = Client(house.port)
        self._running: dict[str, RunningProcess] = {}
        self._asked: list[Endured] = []
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

    def _new(self, *, slow: bool) -> Endured:
        label = f"{self._house.kind}-{len(self._asked)}"
        body = {**deliberation_of(label, slow=slow), "limits": {"max_attempts": ATTEMPTS}}
        asked = Endured(label, body, kills_before=len(self.kills))
        self._asked.append(asked)
        return asked

    def _ask(self, asked: Endured) -> bool:
        """Whether it was acknowledged; under the same key it has to be the same deliberation each time."""
        answer = self._try("POST", "/v1/deliberations", asked.body, {"Idempotency-Key": asked.label})
        if answer is None or answer.status in {409, 503}:
            return False
        assert answer.status == 202, answer
        found = answer.document["id"]
        assert asked.id in {None, found}, f"{asked.label!r} became two deliberations, {asked.id!r} and {found!r}"
        asked.id = found
        return True

    def _repost(self, these: Sequence[Endured]) -> None:
        for asked in these:
            self._until(lambda asked=asked: self._ask(asked), f"{asked.label!r} was not accepted")  # type: ignore[misc]

    def _try(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer | None:
        try:
            return self._client.ask(method, path, body, headers=headers)
        except (OSError, http.client.HTTPException):
            return None

    def _ended(self, asked: Endured) -> bool:
        asked.has_ended = asked.has_ended or asked.document(self._client)["finished_at"] is not None
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
        aftermath = KillAftermath(self._client, self._asked, self.kills, key=self._key, journal=self._llm.journal())
        statuses = aftermath.verify()
        self._repost(self._asked)
        for process in self._running.values():
            process.terminate()
        assert {role: process.wait() for role, process in self._running.items()} == dict.fromkeys(self._house.roles, 0)
        self._running.clear()
        code, said = self._house.run("witness", "fsck")
        assert code == 0, said
        return statuses
