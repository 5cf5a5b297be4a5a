"""Puts requests to agents and crews of CrewAI, which it imports: so import this module only where that was chosen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from crewai import Agent, BaseLLM, Crew, Process, Task
from crewai import task as task_module
from crewai.agents.agent_executor import AgentExecutor
from crewai.events import event_context
from crewai.events.event_bus import crewai_event_bus
from crewai.utilities.file_store import clear_task_files
from crewai_core.lock_store import set_lock_backend
from crewai_core.printer import set_suppress_console_output

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.crewai_shield import Shield
from infrastructure.orchestrators.prompts import Prompt, build_prompt
from infrastructure.rosters.crew_files import CrewFiles

__all__ = ["Crews"]

_GOAL = "Give your own ballot on the question."
_EXPECTED = "The reply that the task asks for, and nothing else."
# Between the two messages, where CrewAI knows only one.
_BETWEEN = "\ue000"


class _Ask(Protocol):
    def __call__(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str: ...


class Crews:
    """Answers requests with CrewAI: by an agent made for each, or by the crew that its member names.

    Made in the thread in which crews run. CrewAI then stores no outputs, locks no files and prints nothing.
    """

    def __init__(self, crews_dir: Path | None) -> None:
        _keep_quiet()
        self._files = None if crews_dir is None else CrewFiles(crews_dir)

    async def rehearse(self) -> None:
        """Ask an agent that nobody answers for, so that the first real one finds everything ready.

        Raises `ConfigurationError` where this CrewAI tells it something else than it is given.
        """
        expected = AnswerFormat(AnswerKind.TEXT)
        request = AgentRequest(
            "rehearsal", ContextBundle("", "{goal} {input} {tools}?"), persona="{role}", expected=expected
        )
        prompt = build_prompt(request)
        told: list[tuple[str, str]] = []

        def answer(messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
            told.extend(messages if wants_ballot else ())
            return "Action: x\nAction Input: {}"

        async def at_once() -> None:
            """Nobody waits yet."""

        reply = await self.perform(request, answer, at_once)
        if told != [("system", prompt.system), ("user", prompt.user)] or not reply.startswith("Action: x"):
            raise ConfigurationError(
                variable="CONCLAVE_ORCHESTRATOR",
                problem="this version of CrewAI tells models something else than it is given",
                remedy="Install the one of requirements-crewai.lock",
            )

    async def perform(self, request: AgentRequest, ask: _Ask, take_turn: Callable[[], Awaitable[None]]) -> str:
        """What the agent answers, as it answered it. Raises `AgentInvocationError` for a crew that cannot be used.

        `take_turn` is awaited before each stretch in which the interpreter is kept busy.
        """
        await take_turn()
        set_suppress_console_output(True)
        prompt = build_prompt(request)
        if request.crew is not None:
            return await asyncio.to_thread(_kept_running, self._perform_own, request, prompt, ask)
        member = _member(request.agent_id, prompt.user, _BridgedModel.over(ask, take_turn=take_turn))
        task = _BallotTask(description=prompt.system, expected_output=_EXPECTED, agent=member)
        return str((await task.aexecute_sync(agent=member)).raw)

    def _perform_own(self, request: AgentRequest, prompt: Prompt, ask: _Ask) -> str:
        """With a crew or an agent of the operator's own; blocks, so that what blocks in it holds up no other crew."""
        if request.crew is None or self._files is None:
            raise _unusable("there is no CONCLAVE_ROSTERS_DIR to find it in")
        listed = request.crew.tools
        shield = Shield([prompt.system, prompt.user])
        model = _BridgedModel.over(ask, shield=shield)
        own = self._load(request.crew.source)
        if isinstance(own, Agent):
            # One message after the other, because what it is otherwise told is its own.
            task = _BallotTask(
                description=shield.hide(f"{prompt.system}\n\n{prompt.user}"), expected_output=_EXPECTED, agent=own
            )
            crew = Crew(agents=[own], tasks=[task])
        else:
            crew = own
            if crew.process is not Process.sequential:
                raise _unusable("it is not sequential, so its manager would use tools that nobody listed")
            member = _member(request.agent_id, shield.hide(prompt.user), model)
            crew.agents = [*crew.agents, member]
            description = shield.hide(prompt.system)
            crew.tasks = [*crew.tasks, _BallotTask(description=description, expected_output=_EXPECTED, agent=member)]
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


class _BridgedModel(BaseLLM):  # type: ignore[misc] # CrewAI is not there where types are checked
    """The shared models, as CrewAI wants a model: a call blocks its thread until they have answered."""

    _ask: Any = None
    _shield: Any = None
    _take_turn: Any = None

    @classmethod
    def over(
        cls, ask: _Ask, *, shield: Shield | None = None, take_turn: Callable[[], Awaitable[None]] | None = None
    ) -> _BridgedModel:
        """A model for one request. With a `shield` what is told is taken out of it, and answers are read by CrewAI."""
        made = cls(model="conclave")
        made._ask, made._shield, made._take_turn = ask, shield, take_turn
        return made

    def call(
        self,
        messages: str | list[Any],
        tools: Any = None,  # noqa: ARG002
        callbacks: Any = None,  # noqa: ARG002
        available_functions: Any = None,  # noqa: ARG002
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,  # noqa: ARG002
    ) -> str:
        """The text that the model answers."""
        if self._ask is None:
            raise RuntimeError("a copy of this model is nobody's: use it where it was given")
        usable = {tool.name for tool in (from_agent.tools or ())} if isinstance(from_agent, Agent) else set()
        told = [(str(message["role"]), _text(message.get("content"))) for message in _messages(messages)]
        if self._shield is not None:
            told = [(role, self._shield.show(text)) for role, text in told]
        answer = self._ask(told, wants_ballot=isinstance(from_task, _BallotTask) and not usable)
        if self._shield is None or isinstance(getattr(from_agent, "agent_executor", None), _OneAnswer):
            return str(answer)
        return str(self._shield.without_actions(answer, usable))

    def supports_function_calling(self) -> bool:
        """Tools are used by text, which every provider has."""
        return False

    def supports_stop_words(self) -> bool:
        """Answers are bounded by their length alone."""
        return False

    def get_context_window_size(self) -> int:
        """More than is ever told, because what is told is bounded elsewhere."""
        return 1_000_000


class _BallotTask(Task):  # type: ignore[misc] # CrewAI is not there where types are checked
    """The task that a member has to answer, in the words of the prompt and no others."""

    def prompt(self) -> str:
        """The description alone."""
        return str(self.description)


class _OneAnswer(AgentExecutor):  # type: ignore[misc] # CrewAI is not there where types are checked
    """Tells the model two messages and takes its answer as it is.

    An agent without tools has nothing to do in rounds; and the flow that CrewAI would set up takes 15 times as long as all the rest.
    """

    def _flow_post_init(self, definition: Any = None) -> None:
        """No flow."""

    def invoke(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The model's answer."""
        self._tell(inputs)
        return {"output": self.llm.call(self.messages, from_task=self.task, from_agent=self.agent)}

    async def ainvoke(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """As `invoke`, with a helper thread that waits."""
        answer = await asyncio.to_thread(self.invoke, inputs)
        if self.llm._take_turn is not None:
            await self.llm._take_turn()
        return answer

    def _tell(self, inputs: dict[str, Any]) -> None:
        shared, _, own = self.prompt["prompt"].partition(f"\n{_BETWEEN}")
        task = shared.replace("{input}", inputs["input"])
        self.messages = [{"role": "system", "content": task}, {"role": "user", "content": own}]


class _NoStoredOutputs:
    """Stands in for the SQLite file in which CrewAI keeps every task with its answer."""

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        """Kept nowhere."""

    def reset(self) -> None:
        """There is nothing."""

    def load(self) -> None:
        """There is nothing."""


def _kept_running(perform: Callable[..., str], *arguments: object) -> str:
    """What `perform` returns; where a crew asks the process to end, it is the crew that has failed."""
    try:
        return perform(*arguments)
    except (SystemExit, KeyboardInterrupt) as error:
        problem = f"its crew asked the process to end ({type(error).__name__}: {error})"
    raise AgentInvocationError(problem, kind="crew_failed")


def _member(agent_id: str, persona: str, model: _BridgedModel) -> Agent:
    """An agent that is told the task and its persona, and answers once."""
    return Agent(
        role=agent_id,
        goal=_GOAL,
        backstory=persona,
        llm=model,
        system_template="{input}",
        prompt_template=f"{_BETWEEN}{{backstory}}",
        executor_class=_OneAnswer,
        max_retry_limit=0,
        allow_delegation=False,
        verbose=False,
    )


def _bind(crew: Crew, model: _BridgedModel, listed: tuple[str, ...]) -> None:
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


def _messages(messages: str | list[Any]) -> list[Any]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _unusable(problem: str) -> AgentInvocationError:
    return AgentInvocationError(f"the member's crew cannot be used: {problem}", kind="crew_unusable")


@contextmanager
def _no_lock(name: str, *, timeout: float = 0.0) -> Iterator[None]:  # noqa: ARG001 - the vendor's signature
    yield


def _clear_files_of_crews_alone(task_id: Any) -> None:
    """Of a member there are no files to clear, and CrewAI starts a thread and a loop each time that it looks within a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        clear_task_files(task_id)


def _keep_quiet() -> None:
    set_lock_backend(_no_lock)
    tasks: Any = task_module
    tasks.clear_task_files = _clear_files_of_crews_alone
    stored: Any = Crew.__private_attributes__["_task_output_handler"]
    stored.default_factory = _NoStoredOutputs
    # Its own listeners draw boxes on the terminal and gather traces; those of an operator's file are added later, and stay.
    bus: Any = crewai_event_bus
    with bus._rwlock.w_locked():
        for handlers in (bus._sync_handlers, bus._async_handlers, bus._handler_dependencies, bus._execution_plan_cache):
            handlers.clear()
    settings: Any = event_context._default_config
    settings.mismatch_behavior = settings.empty_pop_behavior = event_context.MismatchBehavior.SILENT
    # What it would log are the texts of tasks and answers, with tracebacks.
    logging.getLogger("crewai").setLevel(logging.CRITICAL + 1)
