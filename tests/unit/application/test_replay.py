"""A recorded run, replayed without keys, comes to the same entries byte for byte, whatever happened in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, NullModelDesk, Permit
from application.services.replay import NotReplayableError, ReplayReport
from domain.errors.agent import AgentInvocationError
from domain.errors.witness import VerificationRefusedError
from domain.models import budget
from domain.models.budget import Limits, Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.money import Hold, picodollars
from domain.models.protocol import ProtocolKind
from domain.voting.rule import Rule, RuleKind, default_rule
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.protocol_fixture import KINDS, SEVERAL, Troubled, asked_for, bundle_of, proven
from tests.replays import changed, replayed, replayed_bundle
from tests.service_fixture import Canned, House, abandon, build, finished, opened, specification
from tests.virtual_time import pass_time


def differing(report: ReplayReport) -> list[tuple[str, str | None]]:
    return [(each.type, each.field) for each in report.differences]


class Restless(Troubled):
    """Simulated agents that take between 0 and 2 seconds, so that replies come in in no order."""

    def __init__(self, **trouble: Any) -> None:
        agents = AgentOrchestratorStub(latency_seconds=lambda draw: draw.uniform(0, 2))
        super().__init__(agents=agents, **trouble)


class Stumbling:
    """The first call of every other agent is refused for now; the second takes money and answers."""

    def __init__(self, *, usd: float = 0.2) -> None:
        self._usd = usd

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        await pass_time(0.5)
        if request.attempt == 1 and int(request.agent_id[-1]) % 2:
            raise AgentInvocationError("later", kind="server_error", retryable=True, usage=Usage(1, 7, 0, 0.1))
        return AgentOutput(
            request.agent_id, request.request_id, '{"answer": "yes"}', model="small", usage=Usage(1, 60, 40, self._usd)
        )


class Priced(NullModelDesk):
    """Every call takes at most a dollar."""

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast("one/small", "told", Hold(100, picodollars(1.0)), "1")


class Routed(NullModelDesk):
    """Members of the default are asked at one model and then at another; the first of them is shut to archon-0."""

    def route(self, model: str | None) -> Sequence[str | None]:
        return ("one/small", "two/large") if model is None else (model,)

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast(request.model)

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:
        if request.agent_id == "archon-0" and request.model == "one/small":
            raise AgentInvocationError("shut", kind="breaker_open", usage=Usage())
        return await super().admit(request, forecast, until=until)


class Refusing:
    """The small model refuses archon-1 for good; everybody else is answered."""

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        await pass_time(0.1)
        if request.agent_id == "archon-1" and request.model == "one/small":
            raise AgentInvocationError("no", kind="not_found", usage=Usage(1))
        return AgentOutput(
            request.agent_id, request.request_id, '{"answer": "no"}', model=request.model, usage=Usage(1)
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_poll_of_every_kind_of_answer_comes_out_the_same(kind: str) -> None:
    answer = KINDS[kind]
    async with opened(build(Restless())) as house:
        ended = await finished(house, specification(7, answer=answer, rule=default_rule(answer.kind), seed=5))
        report = await replayed(house, ended.id)
    assert differing(report) == []
    assert report.entries == 2 + 1 + 7 * 2


@pytest.mark.parametrize("kind", SEVERAL)
async def test_every_protocol_comes_out_the_same_also_where_agents_fail_and_hang_in_its_rounds(
    kind: ProtocolKind,
) -> None:
    failing = {(0, "archon-1"), (1, "archon-2"), (2, "archon-3")}
    hanging = {(0, "archon-4"), (1, "archon-5")}
    async with opened(build(Restless(failing=failing, hanging=hanging))) as house:
        ended = await finished(house, asked_for(kind, 9, limits=Limits(agent_timeout_s=30)))
        report = await replayed(house, ended.id)
    assert differing(report) == []
    assert len(ended.rounds) > 1


async def test_waves_that_stop_early_stop_where_they_did() -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(9, wave_size=2))
        report = await replayed(house, ended.id)
    assert ended.roll_call.asked < 9
    assert differing(report) == []


async def test_attempts_that_failed_are_made_again_and_cost_what_they_did() -> None:
    async with opened(build(Stumbling(), desk=Priced())) as house:
        ended = await finished(house, specification(6))
        report = await replayed(house, ended.id)
    assert ended.usage.calls == 9
    assert differing(report) == []
    assert (report.prompts, report.prompts_taken) == (0, 9)


@pytest.mark.parametrize("usd", [0.2, 0.3])
async def test_sums_that_an_earlier_version_added_as_floats_come_out_as_they_were_recorded(
    monkeypatch: pytest.MonkeyPatch, usd: float
) -> None:
    async with opened(build(Stumbling(usd=usd), desk=Priced())) as house:
        with monkeypatch.context() as earlier:
            earlier.setattr(budget, "added", lambda one, other: one + other)
            ended = await finished(house, specification(9))
        assert (await house.service.get(ended.id)).usage == ended.usage
        await proven(house, ended.id)
        report = await replayed(house, ended.id)
    sums = [ended.usage.cost_usd, *(record.usage.cost_usd for each in ended.rounds for record in each.records)]
    assert any(len(repr(each)) > 15 for each in sums)
    assert differing(report) == []


async def test_whoever_fell_back_to_another_model_of_a_route_does_so_again() -> None:
    async with opened(build(Refusing(), desk=Routed())) as house:
        ended = await finished(house, specification(4))
        report = await replayed(house, ended.id)
    fallen = {record.agent_id for each in ended.rounds for record in each.records if record.fell_back}
    assert fallen == {"archon-0", "archon-1"}
    assert differing(report) == []


async def test_replies_that_are_no_ballots_are_invalid_again() -> None:
    answers = {"archon-0": "mumble", "archon-1": '{"answer": "never"}', "archon-2": "", "archon-3": '{"answer": null}'}
    async with opened(build(Canned(answers))) as house:
        ended = await finished(house, specification(6))
        report = await replayed(house, ended.id)
    assert ended.roll_call.as_counts()["invalid"] == 3
    assert differing(report) == []


async def test_calls_that_money_did_not_reach_for_are_not_made_again() -> None:
    async with opened(build(Stumbling(usd=0.9), desk=Priced())) as house:
        ended = await finished(house, specification(6, limits=Limits(max_cost_usd=3.5)))
        report = await replayed(house, ended.id)
    assert ended.roll_call.as_counts()["over_budget"] > 0
    assert differing(report) == []


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5])
async def test_a_run_that_was_cancelled_is_cancelled_at_the_same_point(seconds: float) -> None:
    answers = {"archon-3": None, "archon-4": None}
    async with opened(build(Canned(answers), slots=4)) as house:
        accepted = await house.service.submit(specification(6))
        await pass_time(seconds)
        await house.service.cancel(accepted.id)
        ended = await house.service.wait(accepted.id, timeout_s=None)
        report = await replayed(house, ended.id)
    assert ended.status is DeliberationStatus.CANCELLED
    assert differing(report) == []


async def test_a_halt_ends_a_run_again_between_its_calls() -> None:
    async with opened(build(Restless(hanging={(1, "archon-2")}))) as house:
        accepted = await house.service.submit(asked_for(ProtocolKind.DELPHI, 6))
        await pass_time(4)
        await house.halt.set_halted("stop")
        ended = await house.service.wait(accepted.id, timeout_s=None)
        report = await replayed(house, ended.id)
    assert ended.status is DeliberationStatus.HALTED
    assert differing(report) == []


async def test_a_deadline_between_rounds_comes_again() -> None:
    house = build(Troubled(hanging={(2, "archon-1")}))
    async with opened(house):
        ended = await finished(house, asked_for(ProtocolKind.DEBATE, limits=Limits(deadline_s=10)))
        report = await replayed(house, ended.id)
    assert ended.reason == "the deadline came before round 3"
    assert differing(report) == []


async def test_a_run_that_two_processes_made_comes_out_as_one() -> None:
    first = build(Canned({"archon-2": None, "archon-3": None}))
    await first.service.start()
    accepted = await first.service.submit(specification(5))
    await pass_time(2)
    await abandon(first)
    await pass_time(6)
    async with opened(build(Canned({}), first.repository)) as second:
        ended = await second.service.wait(accepted.id, timeout_s=None)
        report = await replayed(second, ended.id)
    assert ended.roll_call.as_counts()["answered"] == 5
    assert differing(report) == []


async def test_what_followed_the_end_is_no_part_of_the_run() -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(3))
        house.repository.log.place({"type": "recounted", "at": "2026-01-01T00:00:00Z", "deliberation_id": ended.id})
        report = await replayed(house, ended.id)
    assert differing(report) == []


async def _bundle(house: House) -> Any:
    ended = await finished(house, specification(4, rule=Rule(RuleKind.PLURALITY)))
    return json.loads((await bundle_of(house, ended.id))[0])


async def test_a_ballot_that_does_not_follow_from_its_reply_is_found() -> None:
    async with opened(build(Canned({}))) as house:
        bundle = await _bundle(house)
    forged = changed(bundle, "agent.ended", lambda entry: entry.update(answer=1))
    report = await replayed_bundle(forged)
    assert differing(report) == [("agent.ended", "answer")]
    assert not report.is_same


async def test_an_outcome_that_was_changed_is_found() -> None:
    async with opened(build(Canned({}))) as house:
        bundle = await _bundle(house)
    forged = changed(bundle, "deliberation.ended", lambda entry: entry["outcome"].update(decision="no"))
    (found,) = (await replayed_bundle(forged)).differences
    assert (found.type, found.field) == ("deliberation.ended", "outcome")


async def test_an_agent_that_was_left_out_is_found() -> None:
    async with opened(build(Canned({}))) as house:
        bundle = await _bundle(house)
    bundle["entries"][1:] = [each for each in bundle["entries"][1:] if '"agent_id":"archon-2"' not in each["entry"]]
    found = differing(await replayed_bundle(bundle))
    assert ("agent.ended", None) in found


async def test_a_text_that_is_withheld_keeps_a_run_from_being_replayed() -> None:
    async with opened(build(Canned({}))) as house:
        bundle = await _bundle(house)
    bundle["disclosures"] = bundle["disclosures"][:1]
    with pytest.raises(NotReplayableError, match="not in the bundle"):
        await replayed_bundle(bundle)


@pytest.mark.parametrize("bundle", [{}, {"entries": [], "disclosures": []}, {"entries": [{"index": 0, "entry": "{"}]}])
async def test_what_is_no_bundle_is_refused(bundle: dict[str, Any]) -> None:
    with pytest.raises(VerificationRefusedError, match="bundle"):
        await replayed_bundle(bundle)


async def test_a_run_that_has_not_ended_is_refused() -> None:
    async with opened(build(Canned({}))) as house:
        bundle = await _bundle(house)
    bundle["entries"].pop()
    with pytest.raises(VerificationRefusedError, match="to an end"):
        await replayed_bundle(bundle)
