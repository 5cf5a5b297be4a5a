"""What has to be true of a world that has come to rest, whatever happened in it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from api.bootstrap import verification_tools
from application.services.record_check import require_recorded
from application.services.verification import verify_bundle
from application.services.witness_service import WitnessService
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.money import picodollars
from domain.protocols.poll import is_settled
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.simulation.callers import Callers
from tests.simulation.money import unkept_budgets
from tests.simulation.scenarios import Plan, Temper
from tests.simulation.storms import Storms
from tests.simulation.world import World

__all__ = ["broken_promises"]

_SLACK_S = 8.5
_Entry = Mapping[str, Any]


async def broken_promises(world: World, callers: Callers, storms: Storms) -> list[str]:
    """Every promise that was not kept, in words."""
    broken = [*world.broken, *_unkept_acceptances(world, callers)]
    witness = WitnessService(log=world.store.log, signer=_signer(), tools=verification_tools(), clock=world.clock)
    kept = world.store.repository._kept
    ledgers = {own: (list(each.calls.values()), list(each.charges.values())) for own, each in kept.items()}
    key_day = None if world.scenario.key_day_usd is None else picodollars(world.scenario.key_day_usd)
    broken += unkept_budgets(world.bill, world.stored(), ledgers, key_day)
    for stored in await world.store.repository.stored(after=0, limit=1000):
        try:
            require_recorded(stored)
        except RecordMismatchError as error:
            broken.append(f"{stored.deliberation.id} differs from its entries: {error}")
    for each in world.stored():
        plan = world.plans[each.specification.question.text]
        entries = [json.loads(logged.entry) for logged in world.store.log.of(each.id)]
        found = [
            *_unkept_course(world, each, plan, entries),
            *_unkept_events(world, callers, each),
            *_unkept_times(world, callers, storms, each, plan),
            *_unkept_result(each, plan),
            *_unkept_halt(world, each, entries),
        ]
        broken += [f"{plan.label!r} ({each.id}): {problem}" for problem in found]
        if each.status.is_terminal:
            try:
                bundle = json.dumps(await witness.bundle(each.id)).encode()
                verify_bundle(bundle, key=witness.verifier_key, tools=verification_tools())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                broken.append(f"{plan.label!r} ({each.id}): its bundle does not verify: {error!r}")
    return broken


@cache
def _signer() -> CheckpointSigner:
    return CheckpointSigner(SigningKey.generate(), "simulation.example/log")


def _unkept_acceptances(world: World, callers: Callers) -> Iterator[str]:
    """Everything acknowledged is there, and a key is one deliberation."""
    stored = Counter(each.specification.question.text for each in world.stored())
    ids = {each.id for each in world.stored()}
    for own, plan in callers.accepted.items():
        if own not in ids:
            yield f"{plan.label!r} ({own}) was acknowledged and is lost"
    for plan in world.scenario.plans:
        if plan.has_key and stored[plan.label] > 1:
            yield f"{plan.label!r} was posted under one key and is {stored[plan.label]} deliberations"
        if len(callers.by_key[plan.label]) > 1:
            yield f"{plan.label!r} was acknowledged as {callers.by_key[plan.label]}"


def _unkept_course(world: World, each: Deliberation, plan: Plan, entries: Sequence[_Entry]) -> Iterator[str]:
    """It ends once, every call has one intent before it and one end after it, and none is made too often."""
    types = Counter(entry["type"] for entry in entries)
    if types["deliberation.accepted"] != 1 or types["deliberation.ended"] != each.status.is_terminal:
        yield f"it was accepted or has ended more than once, or never: {types}"
    starts = [entry for entry in entries if entry["type"] == "round.started"]
    if [entry["round"] for entry in starts] != list(range(len(starts))):
        yield f"its rounds have started as {[entry['round'] for entry in starts]}"
    kinds = [entry["type"] for entry in entries if entry["type"] != "deliberation.accepted"]
    if kinds and kinds[0] not in {"round.started", "deliberation.ended"}:
        yield f"its record begins with {kinds[0]!r}"
    intents: dict[tuple[int, str], list[_Entry]] = defaultdict(list)
    ends: dict[tuple[int, str], list[_Entry]] = defaultdict(list)
    current = -1
    for entry in entries:
        turn = (entry.get("round", 0), entry.get("agent_id", ""))
        if entry["type"] == "round.started":
            current = entry["round"]
        elif entry["type"] == "call.intended":
            if turn in ends:
                yield f"a call of {turn} was intended after its end"
            intents[turn].append(entry)
        elif entry["type"] == "agent.ended":
            ends[turn].append(entry)
        if entry["type"] in {"call.intended", "agent.ended"} and turn[0] != current:
            yield f"{entry['type']!r} of {turn} stands in round {current}"
    for start in starts if each.status.is_terminal else ():
        asked_all = start["round"] or (
            each.status in {DeliberationStatus.COMPLETED, DeliberationStatus.INQUORATE} and not _is_early(each)
        )
        allowed = {1} if asked_all else {0, 1}
        wrong = [agent_id for agent_id in start["agents"] if len(ends[start["round"], agent_id]) not in allowed]
        if wrong:
            yield f"these have not ended exactly once in round {start['round']}: {wrong}"
    unfinished = 0
    for start in starts:
        for agent_id in start["agents"]:
            turn = (start["round"], agent_id)
            attempts = [entry["attempt"] for entry in intents[turn]]
            if attempts != list(range(1, len(attempts) + 1)):
                yield f"{turn} was to be called in the attempts {attempts}"
            if len(attempts) > plan.limits.max_attempts * plan.models + 1:
                yield f"{turn} was to be called {len(attempts)} times, and {plan.limits.max_attempts} attempts are allowed"
            interrupted = [
                entry
                for entry in intents[turn]
                if entry["previous"] is not None and entry["previous"]["kind"] == "interrupted"
            ]
            unfinished = max(unfinished, len(interrupted))
            for entry in intents[turn][1:]:
                if entry["previous"] is None:
                    yield f"attempt {entry['attempt'] - 1} of {turn} has no recorded end"
            calls = [call for call in world.far_end.calls[each.id, agent_id] if call.round_number == start["round"]]
            told = {call.attempt for call in calls}
            if not told <= set(attempts):
                yield f"{turn} was called in the attempts {sorted(told)}, and only {attempts} were intended"
            if calls and not ends[turn]:
                yield f"{turn} was called and has no recorded end"
            if ends[turn] and ends[turn][0]["state"] in {"answered", "abstained", "invalid"} and not calls:
                yield f"{turn} has an answer and was never called"
    asked = {(start["round"], agent_id) for start in starts for agent_id in start["agents"]}
    if strangers := (intents.keys() | ends.keys()) - asked:
        yield f"these were in no round that was started: {sorted(strangers)}"
    if unfinished >= max(world.store.holders[each.id], 1):
        yield f"unfinished calls were made again {unfinished} times, and it changed hands {world.store.holders[each.id] - 1} times"


def _is_early(each: Deliberation) -> bool:
    """Whether it is a poll that ended because the others could not have changed the decision."""
    first = each.rounds[0].records if each.rounds else ()
    return each.specification.protocol.wave_size is not None and is_settled(each.specification, first)


def _unkept_events(world: World, callers: Callers, each: Deliberation) -> Iterator[str]:
    """Events are numbered without gaps, told the same by every stream, and go on exactly after where one was left."""
    events = world.store.repository._kept[each.id].events
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        yield f"its events are numbered {[event.sequence for event in events]}"
    if sum(event.is_terminal for event in events) != each.status.is_terminal:
        yield "it has not exactly one terminal event"
    for after, told in callers.streams[each.id]:
        if told != events[after:]:
            numbers = [event.sequence for event in told]
            yield f"a stream from {after} on told {numbers} of {len(events)} events"


def _unkept_times(world: World, callers: Callers, storms: Storms, each: Deliberation, plan: Plan) -> Iterator[str]:
    """It ends before its deadline, or soon after whatever went wrong then; cancelled, it ends soon."""
    ended = world.store.happened.get((each.id, "deliberation.ended"))
    started = world.store.happened.get((each.id, "round.started"))
    if ended is None:
        return
    # Where there are more than are worked on at a time, one that was cut off waits for others as those that have not begun do.
    has_room = len(world.stored()) <= world.scenario.max_running
    if started is not None and has_room and not storms.jumped_back:
        latest = _calm_for(_SLACK_S, after=started + plan.limits.deadline_s, disturbances=world.disturbances)
        if ended > latest:
            yield f"it started at {started:g} s, had {plan.limits.deadline_s:g} s, and ended at {ended:g} s"
    asked = callers.cancelled.get(each.id)
    if asked is not None and ended > _calm_for(_SLACK_S, after=asked, disturbances=world.disturbances):
        yield f"it was cancelled at {asked:g} s and ended at {ended:g} s"


def _calm_for(seconds: float, *, after: float, disturbances: Sequence[tuple[float, float]]) -> float:
    """When all has first been well for so many seconds, from a moment on."""
    since = after
    for began, over in sorted(disturbances):
        if began > since + seconds:
            break
        since = max(since, over)
    return since + seconds


def _unkept_result(each: Deliberation, plan: Plan) -> Iterator[str]:
    """Whoever answered gave the answer that it always gives; and where all did, the outcome is that of a world at peace."""
    records = [record for round_ in each.rounds for record in round_.records]
    states = {Temper.PLAIN: "answered", Temper.ABSTAINING: "abstained", Temper.GARBLED: "invalid"}
    question = each.specification.question.answer
    for record in records:
        number = int(record.agent_id.rpartition("-")[2])
        temper = plan.tempers[number]
        answers_it = each.specification.answers_in(record.round_number) == question
        if record.state.took_part and temper is Temper.ABSTAINING and record.answer is not None:
            yield f"{record.agent_id!r} abstains, and {record.answer!r} is recorded"
        if record.state.value == "answered" and answers_it and record.answer != plan.answers[number]:
            yield f"{record.agent_id!r} answers {plan.answers[number]!r}, and {record.answer!r} is recorded"
        if record.state.value in states.values() and temper.is_steady and record.state.value != states[temper]:
            yield f"{record.agent_id!r} is {temper.value}, and recorded as {record.state.value}"
    asked = len(each.rounds[0].records) if each.rounds else 0
    whole = asked == len(plan.tempers) and all(record.state.value in states.values() for record in records)
    if whole and all(temper.is_steady for temper in plan.tempers):
        tally = Counter(
            answer for temper, answer in zip(plan.tempers, plan.answers, strict=True) if temper is Temper.PLAIN
        )
        took_part = sum(temper is not Temper.GARBLED for temper in plan.tempers)
        expected = DeliberationStatus.COMPLETED if 2 * took_part >= len(plan.tempers) else DeliberationStatus.INQUORATE
        if each.status in {DeliberationStatus.COMPLETED, DeliberationStatus.INQUORATE} and each.status is not expected:
            yield f"it ended as {each.status.value}, and undisturbed as {expected.value}"
        if each.outcome is not None and {k: v for k, v in each.outcome.tally.items() if v} != dict(tally):
            yield f"its tally is {each.outcome.tally}, and undisturbed {dict(tally)}"


def _unkept_halt(world: World, each: Deliberation, entries: Sequence[_Entry]) -> Iterator[str]:
    """Nothing ends as halted that was not halted, or had not begun."""
    halted = [entry for entry in entries if entry["type"] == "agent.ended" and entry["state"] == "halted"]
    if each.status is DeliberationStatus.HALTED or halted:
        if not world.halt.was_ever_set:
            yield "it ended as halted, and nobody has halted anything"
        if not any(entry["type"] == "round.started" for entry in entries):
            yield "it ended as halted before it began"
    was_cancelled = world.store.repository._kept[each.id].cancel_requested
    if halted and each.status is not DeliberationStatus.HALTED and not was_cancelled:
        yield f"agents were halted, and it ended as {each.status.value}"
