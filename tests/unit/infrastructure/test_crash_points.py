"""A process dies where it was told to, at the passage it was told to, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.ports.deliberation_repository import Commit
from domain.errors.configuration import ConfigurationError
from infrastructure.settings import load_settings
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.crash_points import CRASH_POINTS, CRASH_STEPS, CrashAt, CrashPlan
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import committing, deliberation, ended, intent, opening, record, started


class DeadError(Exception):
    """What stands for SIGKILL here."""


def _die() -> None:
    raise DeadError


def _plan(text: str) -> CrashPlan:
    return CrashPlan(CrashAt.parse(text), kill=_die)


def _request() -> AgentRequest:
    return AgentRequest("archon-1", ContextBundle("topic", "Why?"))


class RecordingStore:
    """Says what reached it."""

    def __init__(self) -> None:
        self.appended: list[Commit] = []
        self.tree_size = 7

    async def append(self, commit: Commit) -> None:
        self.appended.append(commit)


def test_every_step_can_be_died_before_and_after() -> None:
    assert len(CRASH_POINTS) == 2 * len(CRASH_STEPS)
    assert {CrashAt.parse(point) for point in CRASH_POINTS} == {CrashAt(point, 1) for point in CRASH_POINTS}


@pytest.mark.parametrize(
    "text", ["", "intent", "intent.during", "intent.after:", "intent.after:0", "intent.after:x", ":3"]
)
def test_a_point_that_there_is_not_is_refused_by_the_name_of_the_variable(text: str) -> None:
    with pytest.raises(ValueError, match="is n"):
        CrashAt.parse(text)
    if text:
        with pytest.raises(ConfigurationError) as refusal:
            load_settings({"CONCLAVE_CRASH_AT": text}, None)
        assert refusal.value.variable == "CONCLAVE_CRASH_AT"


def test_no_file_arms_a_process(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CONCLAVE_CRASH_AT=intent.after\n")
    with pytest.raises(ConfigurationError, match="only the environment"):
        load_settings({}, file)
    with pytest.raises(ConfigurationError, match="only the environment"):
        load_settings({"CONCLAVE_CRASH_AT": "intent.after"}, file)


def test_an_armed_process_says_so() -> None:
    settings = load_settings({"CONCLAVE_CRASH_AT": "intent.after:3"}, None)
    assert [notice for notice in settings.notices if "kills itself at 'intent.after:3'" in notice]


async def test_it_dies_before_the_commit_or_after_it_at_the_passage_named() -> None:
    one, two = (committing("a", [intent(number)]) for number in (1, 2))
    for text, reached in (("intent.before:2", [one]), ("intent.after:2", [one, two])):
        inner = RecordingStore()
        store = _plan(text).store(cast("Any", inner))
        await store.append(one)
        with pytest.raises(DeadError):
            await store.append(two)
        assert inner.appended == reached
        assert cast("Any", store).tree_size == 7


async def test_each_append_is_known_by_what_it_records() -> None:
    accepted = deliberation()
    appends = {
        "start": opening(started(accepted)),
        "intent": committing(accepted.id, [intent(1)]),
        "ended": committing(accepted.id, records=[record(1)]),
        "end": committing(accepted.id, deliberation=ended(started(accepted), [record(1)])),
    }
    for armed in appends:
        for step, commit in appends.items():
            store = _plan(f"{armed}.before").store(cast("Any", RecordingStore()))
            if step != armed:
                await store.append(commit)
                continue
            with pytest.raises(DeadError):
                await store.append(commit)


async def test_passages_are_counted_over_everything_that_is_watched() -> None:
    plan = _plan("call.after:2")
    first, second = (plan.orchestrator(AgentOrchestratorStub()) for _ in range(2))
    await first.invoke(_request())
    with pytest.raises(DeadError):
        await second.invoke(_request())


async def test_what_is_read_passes_through() -> None:
    for point in CRASH_POINTS:
        store = _plan(point).store(InMemoryRepository())
        assert await store.get("unknown") is None
        assert list(await store.waiting(limit=1)) == []


def test_a_channel_of_the_halt_that_blocks_dies_as_well() -> None:
    channel = _plan("halt.after").halt_channel(HaltChannelStub("file"))
    assert not channel.read().halted
    with pytest.raises(DeadError):
        channel.set("why", deliberation().created_at)
    assert channel.read().halted
