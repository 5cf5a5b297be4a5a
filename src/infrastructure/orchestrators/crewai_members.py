"""Members as agents of CrewAI, which it imports: they are told two messages and answer once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from crewai import Agent, BaseLLM, Task
from crewai.agents.agent_executor import AgentExecutor
from crewai.utilities.env import _env_context_emitted

from infrastructure.orchestrators.crewai_shield import Shield
from infrastructure.orchestrators.prompts import Prompt

__all__ = ["EXPECTED", "BallotTask", "BridgedModel", "Models", "Seat", "make_member"]

EXPECTED = "The reply that the task asks for, and nothing else."
_GOAL = "Give your own ballot on the question."
# Between the two messages, where CrewAI knows only one.
_BETWEEN = "\ue000"


class Models(Protocol):
    """Makes the calls of one request, and says when its turn is."""

    async def take_turn(self) -> None:
        """Wait until this request may keep the interpreter busy for a moment."""

    async def ask_and_await(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """The text that the model answers."""

    def ask(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """As `ask_and_await`, but blocks."""


class BridgedModel(BaseLLM):  # type: ignore[misc] # CrewAI is not there where types are checked
    """The shared models, as CrewAI wants a model: a call blocks its thread until they have answered."""

    _models: Any = None
    _shield: Any = None

    @classmethod
    def over(cls, models: Models | None, *, shield: Shield | None = None) -> BridgedModel:
        """A model for one request. With a `shield` what is told is taken out of it, and answers are read by CrewAI."""
        made = cls(model="conclave")
        made._models, made._shield = models, shield
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
        if self._models is None:
            raise RuntimeError("a copy of this model is nobody's: use it where it was given")
        usable = {tool.name for tool in (from_agent.tools or ())} if isinstance(from_agent, Agent) else set()
        told = [(str(message["role"]), _text(message.get("content"))) for message in _messages(messages)]
        if self._shield is not None:
            told = [(role, self._shield.show(text)) for role, text in told]
        answer = self._models.ask(told, wants_ballot=isinstance(from_task, BallotTask) and not usable)
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


class _SeatModel(BridgedModel):
    """The shared models for a seat, which are waited for in the loop and asked nothing but for a ballot."""

    async def acall(self, messages: str | list[Any], *_: Any, **__: Any) -> str:
        """The text that the model answers, when it is the agent's turn again."""
        told = [(message["role"], message["content"]) for message in _messages(messages)]
        answer = await self._models.ask_and_await(told, wants_ballot=True)
        await self._models.take_turn()
        return str(answer)


class BallotTask(Task):  # type: ignore[misc] # CrewAI is not there where types are checked
    """The task that a member has to answer, in the words of the prompt and no others."""

    def prompt(self) -> str:
        """The description alone."""
        return str(self.description)


class _Member(Agent):  # type: ignore[misc] # CrewAI is not there where types are checked
    """An agent without tools, whose executor is set up once."""

    def create_agent_executor(self, tools: Any = None, task: Any = None) -> None:
        """As CrewAI's; but of an executor for the same task nothing can be different but the prompt."""
        if tools or self.agent_executor is None or self.agent_executor.task is not task:
            super().create_agent_executor(tools=tools, task=task)
        else:
            self.agent_executor.prompt, *_ = self._build_execution_prompt([])


class _OneAnswer(AgentExecutor):  # type: ignore[misc] # CrewAI is not there where types are checked
    """Tells the model two messages and takes its answer as it is.

    An agent without tools has nothing to do in rounds; and the flow that CrewAI would set up takes 15 times as long as all the rest.
    """

    def _flow_post_init(self, definition: Any = None) -> None:
        """No flow."""

    def invoke(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The model's answer; blocks."""
        self._tell(inputs)
        return {"output": self.llm.call(self.messages, from_task=self.task, from_agent=self.agent)}

    async def ainvoke(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The model's answer."""
        self._tell(inputs)
        return {"output": await self.llm.acall(self.messages)}

    def _tell(self, inputs: dict[str, Any]) -> None:
        shared, _, own = self.prompt["prompt"].partition(f"\n{_BETWEEN}")
        task = shared.replace("{input}", inputs["input"])
        self.messages[:] = ({"role": "system", "content": task}, {"role": "user", "content": own})


class Seat:
    """An agent of CrewAI with its task and all that CrewAI sets up for both, made once for many members, one after the other."""

    def __init__(self) -> None:
        self._model = _SeatModel.over(None)
        self._agent = make_member("", "", self._model)
        self._task = BallotTask(description="", expected_output=EXPECTED, agent=self._agent)

    async def answer(self, agent_id: str, prompt: Prompt, models: Models) -> str:
        """What a member with that name and prompt answers. Where this raises or is cancelled, the seat can be used no more."""
        # It would look through the environment for the editor that it runs in, for each agent again.
        _env_context_emitted.set(True)
        self._model._models = models
        self._agent.role, self._agent.backstory, self._task.description = agent_id, prompt.user, prompt.system
        answer = str((await self._task.aexecute_sync(agent=self._agent)).raw)
        self._forget()
        return answer

    def _forget(self) -> None:
        """Keep nothing of the member, the question or the answer."""
        self._model._models = None
        self._agent.role = self._agent.backstory = self._task.description = ""
        self._agent._last_messages = []
        self._agent.agent_executor.messages.clear()
        self._agent.agent_executor.prompt = None
        self._task.output = self._task.prompt_context = None
        self._task.processed_by_agents.clear()


def make_member(agent_id: str, persona: str, model: BridgedModel) -> Agent:
    """An agent that is told the task and its persona, and answers once."""
    return _Member(
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


def _messages(messages: str | list[Any]) -> list[Any]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
