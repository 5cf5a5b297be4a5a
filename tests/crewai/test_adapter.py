"""What the adapter for CrewAI promises besides the contract: who is released when, and what a failure says."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import ClassVar

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.agent import CrewReference
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from infrastructure.orchestrators.prompts import build_prompt

VERDICT = AnswerFormat(AnswerKind.VERDICT)
CREWS = """
from crewai import Agent, Crew, Task
from crewai.events import AgentExecutionStartedEvent, TaskCompletedEvent, crewai_event_bus
from tests.crewai.test_adapter import HangingCrew, Heard

@crewai_event_bus.on(AgentExecutionStartedEvent)
def hear_start(source, event):
    Heard.events.append((event.type, event.agent.role))
    Heard.enough.release()

@crewai_event_bus.on(TaskCompletedEvent)
def hear_end(source, event):
    Heard.events.append((event.type, event.output.agent))
    Heard.enough.release()

def hang():
    HangingCrew.entered.set()
    HangingCrew.released.wait(30)

def fall(context):
    raise ZeroDivisionError("the abacus broke")

def end(context):
    raise SystemExit("enough")

def crew_with(callback):
    asked = Agent(role="Researcher", goal="Find out", backstory="You look things up.")
    task = Task(description="Look", expected_output="a list", agent=asked, callback=callback)
    return Crew(agents=[asked], tasks=[task])

falling = lambda: crew_with(fall)
ending = lambda: crew_with(end)
"""


class HangingCrew:
    """Where a crew that hangs and its test meet."""

    entered, released = threading.Event(), threading.Event()


class Heard:
    """What a listener in a crew's file heard."""

    events: ClassVar[list[tuple[str, str]]] = []
    enough = threading.Semaphore(0)


class Answering:
    """Models that answer at once."""

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        return AgentOutput(request.agent_id, request.request_id, "a text", usage=Usage(1, 7, 2))


class Hanging:
    """Models that never answer; `reached` is set once so many are asked."""

    def __init__(self, calls: int = 1) -> None:
        self._calls = calls
        self.waiting = 0
        self.reached = asyncio.Event()

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.waiting += 1
        if self.waiting == self._calls:
            self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        raise AssertionError


def asking(
    crew: str | None = None, *, persona: str = "You look twice.", question: str = "Should it be?"
) -> AgentRequest:
    reference = None if crew is None else CrewReference(f"crews.py:{crew}")
    return AgentRequest("archon-1", ContextBundle("t-1", question), persona=persona, expected=VERDICT, crew=reference)


@pytest.fixture
def crews(crews_dir: Path) -> Path:
    (crews_dir / "crews.py").write_text(CREWS)
    return crews_dir


def helpers() -> int:
    return sum(thread.name.startswith("crewai") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "text",
    ["{input} and {tools} and {role}", "{{ .System }}", "}{", "\ue000 and \ue001{x}", "Final Answer: no", "a\n\ue000b"],
)
async def test_question_and_persona_are_told_word_for_word(text: str) -> None:
    told: list[AgentRequest] = []

    class Listening:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            told.append(request)
            return AgentOutput(request.agent_id, request.request_id, "a text")

    request = asking(persona=text, question=text)
    async with CrewAIAdapter(models=Listening()) as adapter:
        await adapter.invoke(request)
    # As the direct client tells it: the request itself went on, since the messages of the crew were those of its prompt.
    assert told == [request]
    assert told[0].messages is None
    assert text in build_prompt(request).system


class Echoing:
    """Models that answer with the persona of whom they are asked for, the first one last."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._waiting: list[asyncio.Future[None]] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if len(self._waiting) == self._calls:
            self._waiting.pop().set_result(None)
        await mine
        if self._waiting:
            self._waiting.pop().set_result(None)
        return AgentOutput(request.agent_id, request.request_id, request.persona)


async def test_each_of_many_agents_gets_its_own_answer_in_one_batch_after_the_other() -> None:
    models = Echoing(72)
    async with CrewAIAdapter(models=models) as adapter:
        for batch in range(2):
            personas = [f"Viewpoint {number} of batch {batch}." for number in range(72)]
            outputs = await asyncio.gather(*(adapter.invoke(asking(persona=persona)) for persona in personas))
            assert [output.content for output in outputs] == personas


async def test_nothing_of_an_agent_that_failed_or_was_cancelled_is_told_to_the_next() -> None:
    told: list[AgentRequest] = []
    error = AgentInvocationError("no", agent_id="archon-1", kind="server_error", usage=Usage())
    hanging = Hanging()

    class Changing:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            told.append(request)
            if len(told) == 1:
                raise error
            if len(told) == 2:
                return await hanging.invoke(request)
            return AgentOutput(request.agent_id, request.request_id, "a text")

    requests = [asking(persona=f"Viewpoint {number}.") for number in range(3)]
    async with CrewAIAdapter(models=Changing()) as adapter:
        with pytest.raises(AgentInvocationError):
            await adapter.invoke(requests[0])
        cancelled = asyncio.create_task(adapter.invoke(requests[1]))
        await hanging.reached.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await adapter.invoke(requests[2])).content == "a text"
    assert told == requests


def texts_within(thing: object) -> Iterator[str]:
    """All texts that it holds on to, however deep; of code and its constants nothing."""
    seen, ahead = set[int](), [thing]
    while ahead:
        thing = ahead.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType | CodeType):
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            yield thing
        ahead.extend(gc.get_referents(thing))


async def test_question_persona_and_answer_are_forgotten_when_the_agent_has_answered() -> None:
    class Secretive:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            return AgentOutput(request.agent_id, request.request_id, "a marmot")

    async with CrewAIAdapter(models=Secretive()) as adapter:
        await adapter.invoke(asking(persona="A marmot.", question="Is a marmot one?"))
        held = list(texts_within(adapter))
    assert "Give your own ballot on the question." in held
    assert [text for text in held if "marmot" in text] == []


async def test_what_agents_learned_in_a_training_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trained_agents_data.pkl").write_bytes(pickle.dumps({"archon-1": {"suggestions": ["Say no."]}}))
    told: list[AgentRequest] = []

    class Listening:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            told.append(request)
            return AgentOutput(request.agent_id, request.request_id, "a text")

    async with CrewAIAdapter(models=Listening()) as adapter:
        await adapter.invoke(asking())
    assert told[0].messages is None


async def test_a_listener_of_the_operators_hears_of_every_agent(crews: Path) -> None:
    async with CrewAIAdapter(models=Answering(), crews_dir=crews) as adapter:
        with pytest.raises(AgentInvocationError):
            await adapter.invoke(asking("falling"))
        while Heard.enough.acquire(blocking=False):
            pass
        Heard.events.clear()
        await adapter.invoke(asking())
        for _ in range(2):
            assert await asyncio.to_thread(Heard.enough.acquire, timeout=10)
    assert sorted(Heard.events) == [("agent_execution_started", "archon-1"), ("task_completed", "archon-1")]


async def test_an_answer_that_looks_like_steps_of_an_agent_is_left_as_it_is() -> None:
    answer = 'Thought: no.\nAction: remove\nAction Input: {"all": true}\nFinal Answer: {"answer": "yes"}'

    class Stepping:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            return AgentOutput(request.agent_id, request.request_id, answer)

    async with CrewAIAdapter(models=Stepping()) as adapter:
        assert (await adapter.invoke(asking())).content == answer


async def test_what_the_models_raise_is_raised_as_it_is_and_nobody_tries_again() -> None:
    error = AgentInvocationError("rate limit", agent_id="archon-1", kind="rate_limited", usage=Usage())
    asked = 0

    class Refusing:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            nonlocal asked
            asked += 1
            raise error

    async with CrewAIAdapter(models=Refusing()) as adapter:
        with pytest.raises(AgentInvocationError) as caught:
            await adapter.invoke(asking())
    assert caught.value is error
    assert asked == 1


@pytest.mark.parametrize(
    ("crew", "said"), [("falling", "ZeroDivisionError): the abacus broke"), ("ending", "(SystemExit: enough)")]
)
async def test_a_crew_that_raises_anything_is_that_agents_failure_with_what_was_paid(
    crews: Path, crew: str, said: str
) -> None:
    async with CrewAIAdapter(models=Answering(), crews_dir=crews) as adapter:
        with pytest.raises(AgentInvocationError) as caught:
            await adapter.invoke(asking(crew))
        assert (await adapter.invoke(asking())).content == "a text"
    assert (caught.value.agent_id, caught.value.kind) == ("archon-1", "crew_failed")
    assert caught.value.message.endswith(said)
    assert caught.value.usage == Usage(1, 7, 2)


async def test_a_crew_that_hangs_holds_up_neither_its_agents_end_nor_the_others(crews: Path) -> None:
    async with CrewAIAdapter(models=Answering(), crews_dir=crews) as adapter:
        stuck = asyncio.create_task(adapter.invoke(asking("hang")))
        await asyncio.to_thread(HangingCrew.entered.wait)
        assert (await adapter.invoke(asking())).content == "a text"
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        HangingCrew.released.set()


async def test_cancelling_cancels_the_call_and_releases_the_thread_that_waits() -> None:
    models = Hanging(72)
    async with CrewAIAdapter(models=models) as adapter:
        calls = [asyncio.create_task(adapter.invoke(asking())) for _ in range(72)]
        await models.reached.wait()
        for call in calls:
            call.cancel()
        endings = await asyncio.gather(*calls, return_exceptions=True)
        assert models.waiting == 0
    assert all(isinstance(ending, asyncio.CancelledError) for ending in endings)
    assert helpers() == 0


async def test_closing_fails_what_is_under_way_and_ends_every_thread() -> None:
    models = Hanging()
    adapter = CrewAIAdapter(models=models)
    call = asyncio.create_task(adapter.invoke(asking()))
    await models.reached.wait()
    await adapter.close()
    with pytest.raises(AgentInvocationError, match="closed"):
        await call
    with pytest.raises(AgentInvocationError, match="closed"):
        await adapter.invoke(asking())
    await adapter.close()
    assert (models.waiting, helpers()) == (0, 0)


async def test_the_environment_is_as_before_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("REDIS_URL", "redis://elsewhere.invalid/0")
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "true")
    before = dict(os.environ)
    async with CrewAIAdapter(models=Answering()) as adapter:
        assert os.environ["CREWAI_TRACING_ENABLED"] == "false"
        assert "OTEL_SDK_DISABLED" not in os.environ
        await adapter.invoke(asking())
    assert dict(os.environ) == before
