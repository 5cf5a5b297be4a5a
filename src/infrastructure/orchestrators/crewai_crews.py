"""Puts requests to agents and crews of CrewAI, which it imports: so import this module only where that was chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from crewai import Agent, Crew, Process
from crewai_core.printer import set_suppress_console_output

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.crewai_members import EXPECTED, BallotTask, BridgedModel, Models, Seat, make_member
from infrastructure.orchestrators.crewai_quiet import keep_quiet
from infrastructure.orchestrators.crewai_shield import Shield
from infrastructure.orchestrators.prompts import Prompt, build_prompt
from infrastructure.rosters.crew_files import CrewFiles

__all__ = ["Crews"]

# As many as one process has agents under way, and some more.
_MOST_FREE_SEATS = 96


class Crews:
    """Answers requests with CrewAI: by an agent made for each, or by the crew that its member names.

    Made in the thread in which crews run. CrewAI then stores no outputs, locks no files and prints nothing.
    """

    def __init__(self, crews_dir: Path | None) -> None:
        keep_quiet()
        self._files = None if crews_dir is None else CrewFiles(crews_dir)
        self._free_seats: list[Seat] = []

    async def rehearse(self) -> None:
        """Ask an agent that nobody answers for, so that the first real one finds everything ready.

        Raises `ConfigurationError` where this CrewAI tells it something else than it is given.
        """
        expected = AnswerFormat(AnswerKind.TEXT)
        request = AgentRequest(
            "rehearsal", ContextBundle("", "{goal} {input} {tools}?"), persona="{role}", expected=expected
        )
        prompt = build_prompt(request)
        models = _Rehearsal()
        reply = await self.perform(request, models)
        if models.told != [("system", prompt.system), ("user", prompt.user)] or not reply.startswith("Action: x"):
            raise ConfigurationError(
                variable="CONCLAVE_ORCHESTRATOR",
                problem="this version of CrewAI tells models something else than it is given",
                remedy="Install the one of requirements-crewai.lock",
            )

    async def perform(self, request: AgentRequest, models: Models) -> str:
        """What the agent answers, as it answered it. Raises `AgentInvocationError` for a crew that cannot be used.

        `models.take_turn` is awaited before each stretch in which the interpreter is kept busy.
        """
        await models.take_turn()
        set_suppress_console_output(True)
        prompt = build_prompt(request)
        if request.crew is not None:
            return await asyncio.to_thread(_kept_running, self._perform_own, request, prompt, models)
        seat = self._free_seats.pop() if self._free_seats else Seat()
        answer = await seat.answer(request.agent_id, prompt, models)
        # One whose agent failed or was cancelled is in nobody knows what state, and is never seen again.
        if len(self._free_seats) < _MOST_FREE_SEATS:
            self._free_seats.append(seat)
        return answer

    def _perform_own(self, request: AgentRequest, prompt: Prompt, models: Models) -> str:
        """With a crew or an agent of the operator's own; blocks, so that what blocks in it holds up no other crew."""
        if request.crew is None or self._files is None:
            raise _unusable("there is no CONCLAVE_ROSTERS_DIR to find it in")
        listed = request.crew.tools
        shield = Shield([prompt.system, prompt.user])
        model = BridgedModel.over(models, shield=shield)
        own = self._load(request.crew.source)
        if isinstance(own, Agent):
            # One message after the other, because what it is otherwise told is its own.
            task = BallotTask(
                description=shield.hide(f"{prompt.system}\n\n{prompt.user}"), expected_output=EXPECTED, agent=own
            )
            crew = Crew(agents=[own], tasks=[task])
        else:
            crew = own
            if crew.process is not Process.sequential:
                raise _unusable("it is not sequential, so its manager would use tools that nobody listed")
            member = make_member(request.agent_id, shield.hide(prompt.user), model)
            crew.agents = [*crew.agents, member]
            description = shield.hide(prompt.system)
            crew.tasks = [*crew.tasks, BallotTask(description=description, expected_output=EXPECTED, agent=member)]
        _bind(crew, model, listed)
        context = request.context
        inputs = {"question": context.topic_content, "context": context.background or "", "persona": request.persona}
        outcome = crew.kickoff(inputs={name: shield.hide(text) for name, text in inputs.items()})
        return shield.show(str(outcome.raw))

    def _load(self, source: str) -> Agent | Crew:
        """A crew or an agent that nobody else uses meanwhile."""
        if self._files is None:
            raise _unusable("there is no CONCLAVE_ROSTERS_DIR to find it in")
        try:
            found = self._files.load(source)
            own = found.copy() if isinstance(found, Agent | Crew) else found() if callable(found) else found
        except Exception as error:
            raise _unusable(f"{source!r} cannot be loaded ({type(error).__name__}: {error})") from error
        if not isinstance(own, Agent | Crew):
            raise _unusable(
                f"{source!r} is {type(own).__name__}, neither a crew nor an agent nor a function that makes one"
            )
        return own


class _Rehearsal:
    """Models that nobody waits for: they answer at once, and remember what they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def take_turn(self) -> None:
        """It is always one's turn."""

    async def ask_and_await(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """What CrewAI could take for a step."""
        return self.ask(messages, wants_ballot=wants_ballot)

    def ask(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """The same."""
        self.told.extend(messages if wants_ballot else ())
        return "Action: x\nAction Input: {}"


def _kept_running(perform: Callable[..., str], *arguments: object) -> str:
    """What `perform` returns; where a crew asks the process to end, it is the crew that has failed."""
    try:
        return perform(*arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        problem = f"its crew asked the process to end ({type(error).__name__}: {error})"
    raise AgentInvocationError(problem, kind="crew_failed")


def _bind(crew: Crew, model: BridgedModel, listed: tuple[str, ...]) -> None:
    """Have the crew ask that model alone, use those tools alone, try nothing twice by itself and write no file."""
    if crew.memory or crew.knowledge_sources or any(agent.memory or agent.knowledge_sources for agent in crew.agents):
        raise _unusable("it has a memory or knowledge of its own, which would reach other services and write files")
    crew._memory = None
    crew.manager_llm = crew.function_calling_llm = crew.chat_llm = None
    crew.planning_llm = model
    crew.verbose = crew.stream = crew.tracing = crew.cache = crew.share_crew = False
    crew.output_log_file = crew.checkpoint = crew.max_rpm = crew.trained_agents_file = None
    offered: set[str] = set()
    for agent in crew.agents:
        offered |= {tool.name for tool in agent.tools or ()}
        agent.tools = [tool for tool in agent.tools or () if tool.name in listed]
        agent.llm, agent.function_calling_llm, agent.agent_executor = model, None, None
        agent.allow_delegation = agent.multimodal = agent.verbose = agent.respect_context_window = False
        agent.allow_code_execution = agent.apps = agent.mcps = agent.skills = agent.checkpoint = agent.max_rpm = None
        agent.max_retry_limit = 0
    for task in crew.tasks:
        offered |= {tool.name for tool in task.tools or ()}
        task.tools = [tool for tool in task.tools or () if tool.name in listed]
        task.async_execution = task.human_input = False
        task.output_file = None
        for guardrail in (task._guardrail, *task._guardrails):
            if hasattr(guardrail, "llm"):
                guardrail.llm = model
    if missing := sorted(set(listed) - offered):
        raise _unusable(f"it has no tool {missing[0]!r}, which its member lists")


def _unusable(problem: str) -> AgentInvocationError:
    return AgentInvocationError(f"the member's crew cannot be used: {problem}", kind="crew_unusable")
