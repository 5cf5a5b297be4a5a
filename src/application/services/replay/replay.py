"""Runs the engine again on recorded replies, and compares every entry that it makes with the one that was recorded."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from application.ports.agent_orchestrator import AgentRequest
from application.ports.clock import Clock
from application.ports.deliberation_repository import Claim, Commit
from application.ports.halt_checker import HaltChecker
from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord
from application.services.batch import StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.continuation import held_in
from application.services.deliberation_run import DeliberationRun
from application.services.event_feed import EventFeed
from application.services.replay.recorded_agents import STOPPED, RecordedAgents, RecordedDesk, known_usage
from application.services.replay.recorded_run import Key, NotReplayableError, RecordedRun, key_of
from application.services.retry_policy import RetryPolicy
from application.services.text_synthesis import TextSynthesis
from domain.models.agent_pool import AgentPool
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, WitnessSpan
from domain.models.outcome import Synthesis
from domain.models.round import AgentRecord
from domain.voting.synthesis import BY_WORDS, sentences_of
from domain.witness.entry import NOBODY, RECORD_TEXTS, SALT_BYTES, Entry, accepted, agent_ended, sealed
from domain.witness.merkle import leaf_hash

__all__ = ["Difference", "ReplayReport", "ReplayTools", "replay"]

_STOPS = {"cancelled": StopCause.CANCELLED, "halted": StopCause.HALTED}
_TOO_LATE = "the deadline came before round"
_AGENT_TIMEOUT_S = 2e5
_DEADLINE_S = 4e5
_STOP_S = 1.0
_LEASE = "replay/1"
_UNSALTED = bytes(SALT_BYTES)
_AMOUNTS = frozenset({"cost_usd", "uncertain_usd"})
_LAST_DIGITS = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the run came to something else: the entry, by its index in the log, its type, and the first field that differs.

    `index` is None for an entry that was not recorded, `replayed` for one that the run did not come to.
    """

    index: int | None
    type: str
    field: str | None
    recorded: object = None
    replayed: object = None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """How many entries came out byte for byte, and where they did not.

    `prompts` are those that were written anew, `prompts_taken` those whose commitment was taken from the record because this version
    cannot write them. `clusters_taken` says so of the clusters of texts.
    """

    deliberation_id: str
    status: str
    entries: int
    differences: tuple[Difference, ...]
    prompts: int = 0
    prompts_taken: int = 0
    clusters_taken: bool = False

    @property
    def is_same(self) -> bool:
        """Whether the run came to the same entries."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class ReplayTools:
    """What a replay needs that the application does not have.

    `encode` makes canonical JSON. `write` writes what an agent is told, and None for an intent of words that this version does not have.
    `clock` is that of a loop in which nobody really waits, and `halt` never halts.
    """

    encode: Callable[[Any], bytes]
    write: Callable[[AgentRequest, Mapping[str, Any]], str | None]
    clock: Clock
    halt: HaltChecker


async def replay(bundle: Mapping[str, Any], tools: ReplayTools) -> ReplayReport:
    """Run the deliberation of that bundle again: its question, its settings and the replies of its agents are taken from there.

    Times, durations, salts and the order in which replies came in are taken from the record; so is what stopped agents or kept them
    from being called. Everything else is computed: who is asked what in which round, the ballots, the states, sums, rounds and the
    outcome. Nothing is asked, and nothing is stored. Raises `NotReplayableError` and `VerificationRefusedError`.
    """
    recorded = RecordedRun.read(bundle)
    if recorded.end["status"] == "failed":
        raise NotReplayableError(problem="it failed for a fault of the store, which no record repeats")
    return await _Replay(recorded, tools).run()


class _Replay:
    def __init__(self, recorded: RecordedRun, tools: ReplayTools) -> None:
        self._recorded = recorded
        self._tools = tools
        self._clock = _Clock(tools.clock)
        self._came: dict[Key, bytes] = {}
        self._strange: list[Difference] = []
        self._prompts = self._taken = 0
        self._run: DeliberationRun | None = None
        self._is_stopping = False

    async def run(self) -> ReplayReport:
        recorded = self._recorded
        first = accepted(recorded.deliberation, salts=lambda _: recorded.accepted_salts)
        self._take(first.document)
        desk = RecordedDesk(recorded, write=self._written)
        fan_out = ConcurrentDeliberationService(
            orchestrator=RecordedAgents(recorded),
            halt_checker=self._tools.halt,
            pool=AgentPool(),
            clock=self._clock,
            retries=RetryPolicy(base_s=0.0),
            desk=desk,
        )
        texts = _RecordedTexts(recorded)
        run = self._run = DeliberationRun(
            Claim(self._unlimited(), _LEASE),
            fan_out=fan_out,
            commits=self,
            feed=EventFeed(),
            clock=self._clock,
            texts=texts,
        )
        self._see()
        await run.run()
        return ReplayReport(
            recorded.deliberation.id,
            str(recorded.end["status"]),
            len(recorded.documents),
            tuple(self._differences()),
            self._prompts,
            self._taken,
            texts.is_taken,
        )

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """Take what the engine records, as it would stand in the log."""
        for entry in commit.entries:
            self._take(self._as_recorded(entry))
        self._see()
        if commit.deliberation is not None and commit.deliberation.status.is_terminal:
            return WitnessSpan(self._recorded.indexes[0], self._recorded.indexes[-1], 0, "")
        return None

    def _take(self, document: Mapping[str, Any]) -> None:
        key = key_of(document)
        if key in self._came or key not in self._recorded.places:
            self._strange.append(Difference(None, document["type"], None, None, list(key[1:])))
            return
        if document["type"] == "deliberation.ended":
            if "certificate" not in self._recorded.end:
                # Ends of earlier versions have none.
                document = {name: value for name, value in document.items() if name != "certificate"}
            document = sealed(document, [leaf_hash(self._came.get(key, b"")) for key in self._before_the_end()])
        self._came[key] = self._tools.encode(document)

    def _as_recorded(self, entry: Entry) -> Mapping[str, Any]:
        """The entry with its times, durations and salts from the record."""
        document = entry.document
        found = self._recorded.find(key_of(document))
        if found is None:
            return document
        if entry.record is not None:
            return self._ended(entry.record, found)
        document = {**document, "at": found["at"], **_usage_as_summed(document, found)}
        if document["type"] == "call.intended" and found["prompt"] is not None:
            if document["prompt"] is None:
                document["prompt"] = found["prompt"]
                self._taken += 1
            else:
                self._prompts += 1
        return document

    def _ended(self, record: AgentRecord, found: Mapping[str, Any]) -> Mapping[str, Any]:
        answers = self._recorded.deliberation.specification.answers_in(record.round_number)
        failure = found["failure"] or {}
        committed = {**found, "message": failure.get("message")}
        salts = b""
        for name in RECORD_TEXTS:
            each = committed.get(name)
            salts += self._recorded.salted(each, name)[0] if isinstance(each, dict) else _UNSALTED
        started_at = found.get("started_at")
        timed = replace(
            record,
            started_at=None if started_at is None else datetime.fromisoformat(started_at),
            finished_at=datetime.fromisoformat(found["at"]),
            duration_seconds=found.get("duration_s", 0.0),
        )
        document = agent_ended(self._recorded.deliberation.id, timed, answers, salts=lambda _: salts).document
        return {**document, **_usage_as_summed(document, found)}

    def _before_the_end(self) -> list[Key]:
        return [key_of(document) for document in self._recorded.documents[:-1]]

    def _see(self) -> None:
        """Do what time or somebody from outside did, once everything that came before it has come again."""
        recorded, end = self._recorded, self._recorded.end
        if self._run is None:
            return
        awaited = [
            key_of(document)
            for document in recorded.documents[:-1]
            # What is only recorded with the end comes after whatever stopped the run.
            if document["type"] != "texts.compared"
            and not (document["type"] == "agent.ended" and document["state"] in STOPPED)
        ]
        if any(key not in self._came for key in awaited):
            return
        cause = _STOPS.get(end["status"])
        if cause is not None and not self._is_stopping:
            self._is_stopping = True
            if self._was_stopped_in_a_call():
                # Once everybody is in the call that it was stopped in: nothing else moves the time on.
                asyncio.get_running_loop().call_later(_STOP_S, self._run.stop, cause)
            else:
                self._run.stop(cause)
        elif str(end.get("cause") or "").startswith(_TOO_LATE):
            self._clock.is_late = True

    def _was_stopped_in_a_call(self) -> bool:
        """Whether an agent was stopped after its last call had begun, rather than before any call or while its intent was stored."""
        return any(
            document["type"] == "agent.ended"
            and document["state"] in STOPPED
            and document["attempt"] >= max(len(self._recorded.intents((document["round"], document["agent_id"]))), 1)
            for document in self._recorded.documents
        )

    def _written(self, request: AgentRequest, intent: Mapping[str, Any]) -> str | None:
        return self._tools.write(request, intent)

    def _unlimited(self) -> Deliberation:
        """The deliberation without limits of time and money: what they ended is in the record."""
        deliberation = self._recorded.deliberation
        most = max((int(each["attempt"]) for each in self._recorded.documents if "attempt" in each), default=0)
        limits = Limits(
            agent_timeout_s=_AGENT_TIMEOUT_S,
            deadline_s=_DEADLINE_S,
            max_attempts=max(deliberation.specification.limits.max_attempts, most),
            max_total_tokens=10**15,
            max_cost_usd=1e9,
        )
        return replace(deliberation, specification=replace(deliberation.specification, limits=limits))

    def _differences(self) -> Sequence[Difference]:
        found = list(self._strange)
        for place, document in enumerate(self._recorded.documents):
            came = self._came.get(key_of(document))
            if came == self._recorded.raw[place]:
                continue
            index, kind = self._recorded.indexes[place], document["type"]
            if came is None:
                found.append(Difference(index, kind, None, list(key_of(document)[1:]), None))
            else:
                found.append(_first(index, document, came))
        return found


class _Clock:
    """The clock that the engine sees: it is late once the deadline is to have come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_late = False

    def now(self) -> datetime:
        """Whatever time it is: all times are taken from the record."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds, far beyond every deadline once it is late."""
        return self._clock.monotonic() + (2 * _DEADLINE_S if self.is_late else 0.0)


class _RecordedTexts(TextSynthesis):
    """Texts compared as they were: by their words anew, else in the recorded clusters, because what compared them has to be asked."""

    def __init__(self, recorded: RecordedRun) -> None:
        super().__init__()
        self._recorded = recorded
        found = recorded.synthesis()
        self._taken = found if found is not None and found.method != BY_WORDS else None

    @property
    def is_taken(self) -> bool:
        """Whether the clusters are those of the record."""
        return self._taken is not None

    async def of(
        self,
        deliberation: Deliberation,
        records: Sequence[AgentRecord],
        *,
        record: CallRecord | None = None,
        by_words: bool = False,
    ) -> Synthesis | None:
        """As in `TextSynthesis`; the calls that were made for it are recorded again."""
        if record is not None and not by_words:
            await self._repeat_calls(record, max(each.round_number for each in records))
        if self._taken is None or by_words:
            return await super().of(deliberation, records, by_words=True)
        said = {each.agent_id: each.answer for each in records}
        claims = []
        for claim in self._taken.claims:
            answer = said.get(claim.source)
            spoken = sentences_of(answer) if isinstance(answer, str) else []
            text = spoken[claim.sentence] if claim.sentence < len(spoken) else None
            claims.append(replace(claim, text=text))
        return replace(self._taken, claims=tuple(claims))

    async def _repeat_calls(self, record: CallRecord, round_number: int) -> None:
        intents = self._recorded.intents((round_number, NOBODY))
        over = self._recorded.find(("texts.compared", round_number, NOBODY))
        for place, intent in enumerate(intents):
            forecast = Forecast(intent["model"], None, held_in(intent))
            await record.reserve(forecast)
            await record.starting(forecast)
            if over is not None and place + 1 == len(intents):
                record.ended(known_usage(over["usage"]), failure=over["failure"])
            else:
                record.ended(None, failure="interrupted")


def _usage_as_summed(document: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded `usage`, where only the last digits of its amounts are others: earlier versions added the floats of amounts."""
    came, recorded = document.get("usage"), found.get("usage")
    if not isinstance(came, dict) or not isinstance(recorded, dict) or came.keys() != recorded.keys():
        return {}
    is_same = all(
        value == recorded[name] or (name in _AMOUNTS and _is_near(value, recorded[name]))
        for name, value in came.items()
    )
    return {"usage": recorded} if is_same else {}


def _is_near(came: float, recorded: object) -> bool:
    return isinstance(recorded, float) and math.isclose(came, recorded, rel_tol=_LAST_DIGITS)


def _first(index: int, recorded: Mapping[str, Any], came: bytes) -> Difference:
    replayed = json.loads(came)
    for name in (*recorded, *replayed):
        if recorded.get(name) != replayed.get(name):
            return Difference(index, recorded["type"], name, recorded.get(name), replayed.get(name))
    return Difference(index, recorded["type"], None, "other bytes", "other bytes")
