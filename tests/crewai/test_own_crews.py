"""Crews and agents of the operator's own, named by members of a roster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.agent import CrewReference
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from infrastructure.orchestrators.prompts import build_prompt
from tests.crewai.conftest import AdapterOpener
from tests.llm_server.handle import LlmServer

QUESTION = "Should {tools} be closed to {input}, {role} and {question}?"
PERSONA = "You weigh {goal} against {backstory}. Action: none"
VERDICT = AnswerFormat(AnswerKind.VERDICT)
BALLOT = '{"answer": "yes", "confidence": 0.5, "reasoning": "So it is."}'

CREW = '''
from pathlib import Path
from crewai import Agent, Crew, Task
from crewai.tools import tool

DONE = Path(__file__).with_suffix(".done")

@tool("look_up")
def look_up(place: str) -> str:
    """Look a place up."""
    DONE.write_text(place)
    return "a quiet place"

@tool("remove")
def remove(place: str) -> str:
    """Remove a place."""
    DONE.write_text("removed")
    return "gone"

member = Agent(role="Planner", goal="Plan", backstory="You plan.", tools=[look_up, remove])
asked = Agent(role="Researcher", goal="Find out", backstory="You look things up.")
crew = Crew(agents=[asked], tasks=[Task(description="Say what matters in: {question} {context}", expected_output="a list", agent=asked)])

def make():
    return crew.copy()

def broken():
    raise OSError("no such thing")

number = 7
remembering = Crew(agents=[asked], tasks=[], knowledge_sources=None, memory=False)
'''


def asking(source: str, *tools: str) -> AgentRequest:
    context = ContextBundle("t-1", QUESTION, "It rained {today}.")
    return AgentRequest(
        "archon-1", context, persona=PERSONA, expected=VERDICT, crew=CrewReference(f"crews.py:{source}", tools)
    )


class Scripted:
    """Models that answer what they are told to, and remember what they were asked."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.asked: list[AgentRequest] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.asked.append(request)
        content = self._answers.pop(0)
        return AgentOutput(request.agent_id, request.request_id, content, usage=Usage(1, 10 * len(self.asked), 1))

    def told(self, number: int = -1) -> str:
        return "\n".join(text for _, text in self.asked[number].messages or ())


@pytest.fixture
def crews(crews_dir: Path) -> Path:
    path = crews_dir / "crews.py"
    path.write_text(CREW)
    return path


Adapter = Callable[[Scripted], CrewAIAdapter]


@pytest.fixture
def over(crews: Path) -> Adapter:
    return lambda models: CrewAIAdapter(models=models, crews_dir=crews.parent)


async def test_an_agent_of_the_operators_answers_in_its_own_role_with_question_and_persona_word_for_word(
    over: Adapter,
) -> None:
    models = Scripted(BALLOT)
    async with over(models) as adapter:
        output = await adapter.invoke(asking("member"))
    assert output.content == BALLOT
    assert "You are Planner. You plan." in models.told()
    assert QUESTION in models.told()
    assert PERSONA in models.told()
    assert models.asked[0].expected == VERDICT


@pytest.mark.parametrize("source", ["crew", "make"])
async def test_a_crew_works_first_and_then_the_member_votes_knowing_what_it_found(over: Adapter, source: str) -> None:
    models = Scripted("Quiet {streets} matter.", BALLOT)
    async with over(models) as adapter:
        output = await adapter.invoke(asking(source))
    assert output.content == BALLOT
    assert f"Say what matters in: {QUESTION} It rained {{today}}." in models.told(0)
    assert models.asked[0].expected is None
    prompt = build_prompt(replace(models.asked[1], messages=None))
    messages = models.asked[1].messages
    assert messages is not None
    assert messages[0][1].startswith(prompt.system)
    assert "Quiet {streets} matter." in messages[0][1]
    assert messages[1] == ("user", prompt.user)
    assert models.asked[1].expected == VERDICT


async def test_each_further_call_waits_for_leave_and_settles_the_one_before(over: Adapter) -> None:
    settled: list[Usage | None] = []
    models = Scripted("Quiet streets matter.", BALLOT)

    async def next_call(usage: Usage | None) -> AgentRequest:
        settled.append(usage)
        return replace(request, attempt=2)

    request = replace(asking("crew"), next_call=next_call)
    async with over(models) as adapter:
        output = await adapter.invoke(request)
    assert settled == [Usage(1, 10, 1)]
    assert output.usage == Usage(1, 20, 1)
    assert [call.attempt for call in models.asked] == [1, 2]


async def test_nothing_further_is_asked_once_leave_is_refused(over: Adapter) -> None:
    async def next_call(usage: Usage | None) -> AgentRequest:
        raise AgentInvocationError("the batch was stopped", kind="stopped", usage=Usage())

    models = Scripted("Quiet streets matter.")
    async with over(models) as adapter:
        with pytest.raises(AgentInvocationError) as caught:
            await adapter.invoke(replace(asking("crew"), next_call=next_call))
    assert caught.value.kind == "stopped"
    assert len(models.asked) == 1


ACTION = 'Thought: I look.\nAction: {tool}\nAction Input: {{"place": "Ash Street"}}'


async def test_a_tool_that_the_member_lists_is_used(over: Adapter, crews: Path) -> None:
    models = Scripted(ACTION.format(tool="look_up"), f"Thought: I know.\nFinal Answer: {BALLOT}")
    async with over(models) as adapter:
        output = await adapter.invoke(asking("member", "look_up"))
    assert crews.with_suffix(".done").read_text() == "Ash Street"
    assert "a quiet place" in models.told(1)
    assert read_ballot("archon-1", output.content, VERDICT).answer == "yes"


@pytest.mark.parametrize("tools", [(), ("look_up",)])
async def test_a_tool_that_the_member_does_not_list_is_text_and_no_more(
    over: Adapter, crews: Path, tools: tuple[str, ...]
) -> None:
    models = Scripted(ACTION.format(tool="remove"))
    async with over(models) as adapter:
        output = await adapter.invoke(asking("member", *tools))
    assert output.content == ACTION.format(tool="remove")
    assert not crews.with_suffix(".done").exists()
    assert len(models.asked) == 1
    assert "Remove a place" not in models.told()


@pytest.mark.parametrize(
    ("source", "tools", "problem"),
    [
        ("nowhere", (), "has no 'nowhere'"),
        ("number", (), "is int"),
        ("broken", (), "OSError"),
        ("member", ("fly",), "no tool 'fly'"),
    ],
)
async def test_a_crew_that_cannot_be_used_says_why_and_asks_nobody(
    over: Adapter, source: str, tools: tuple[str, ...], problem: str
) -> None:
    models = Scripted()
    async with over(models) as adapter:
        with pytest.raises(AgentInvocationError, match=problem) as caught:
            await adapter.invoke(asking(source, *tools))
    assert (caught.value.kind, caught.value.agent_id) == ("crew_unusable", "archon-1")
    assert caught.value.usage == Usage()
    assert models.asked == []


async def test_a_crew_that_tells_more_than_is_held_for_a_call_is_refused(over: Adapter) -> None:
    models = Scripted("9" * 20_000)
    async with over(models) as adapter:
        with pytest.raises(AgentInvocationError) as caught:
            await adapter.invoke(asking("crew"))
    assert caught.value.kind == "crew_prompt_too_long"
    assert caught.value.usage == Usage(1, 10, 1)


async def test_a_changed_file_is_read_again(over: Adapter, crews: Path) -> None:
    models = Scripted(BALLOT, BALLOT)
    async with over(models) as adapter:
        await adapter.invoke(asking("member"))
        await asyncio.to_thread(crews.write_text, CREW.replace("You plan.", "You plan twice."))
        await adapter.invoke(asking("member"))
    assert "You plan twice." in models.told()
    assert not list(crews.parent.rglob("__pycache__"))


async def test_members_with_and_without_a_crew_sit_side_by_side(
    opened_adapter: AdapterOpener, server: LlmServer, crews: Path
) -> None:
    async with opened_adapter() as adapter:
        with_crew = await adapter.invoke(asking("member"))
        without = await adapter.invoke(replace(asking("member"), crew=None))
    assert read_ballot("archon-1", with_crew.content, VERDICT).reasoning
    assert read_ballot("archon-1", without.content, VERDICT).reasoning
