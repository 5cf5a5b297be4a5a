"""An event loop in a thread of its own, in which models are asked over the one desk of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import UnreadableBallotError
from domain.models.budget import Sampling, Usage
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.population.thinking.minds import Desk, Minds
from infrastructure.population.thinking.reply import Reply

__all__ = ["MAX_OUTPUT_TOKENS", "Talk", "Voice", "together"]

_T = TypeVar("_T")

MAX_OUTPUT_TOKENS = 256
_WANTED = AnswerFormat(AnswerKind.PROBABILITY)
_SAMPLING = Sampling(temperature=0.0, max_output_tokens=MAX_OUTPUT_TOKENS)
_NOTE_CHARACTERS = 1_000
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Voice:
    """Who is asked what: the question that all of a population are asked, and who this one is."""

    by: str
    tick: int
    who: int
    topic: str
    persona: str
    seed: int
    model: str | None = None


class Talk:
    """Runs what asks agents beside each other, while a tick waits for it. The thread and the desk are there once they are needed."""

    def __init__(self, minds: Minds | None) -> None:
        self._minds = minds or Minds()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stack = AsyncExitStack()
        self._desk: Desk | None = None

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of it in the loop of the thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="thinking", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def ask(self, voice: Voice, *, until: float, sending: Callable[[Voice], None]) -> Reply:
        """What the model answered for that agent until then (of the loop's clock), one call at most; `sending` is told before it.

        Raises whatever `sending` raises, and `ConfigurationError` where no models are set.
        """
        request = AgentRequest(
            f"agent-{voice.who}",
            ContextBundle(topic_id="population", topic_content=voice.topic),
            persona=voice.persona,
            model=voice.model,
            expected=_WANTED,
            sampling=_SAMPLING,
            seed=voice.seed,
            batch_id=f"tick-{voice.tick}",
        )
        try:
            async with asyncio.timeout_at(until):
                output = await self._called(request, until, lambda: sending(voice))
        except TimeoutError:
            # Perhaps it had been sent and will be billed.
            return _ended(voice, AgentState.TIMED_OUT, "did not answer in time", usage=None)
        except AgentInvocationError as error:
            return _ended(voice, error.state, error.message, usage=error.usage)
        try:
            ballot = read_ballot(request.agent_id, output.content, _WANTED)
        except UnreadableBallotError as error:
            return _ended(voice, AgentState.INVALID, str(error), model=output.model, usage=output.usage)
        note = (ballot.reasoning or "")[:_NOTE_CHARACTERS]
        if not isinstance(ballot.answer, float | int):
            return _ended(voice, AgentState.ABSTAINED, "", model=output.model, usage=output.usage, note=note)
        return Reply(
            voice.by,
            voice.tick,
            voice.who,
            AgentState.ANSWERED,
            opinion=min(1.0, max(0.0, float(ballot.answer))),
            note=note,
            model=output.model,
            usage=output.usage,
        )

    def close(self) -> None:
        """Drop all connections and end the thread. May be called twice."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_END_S)
        if not loop.is_running():
            loop.close()

    async def _called(self, request: AgentRequest, until: float, sending: Callable[[], None]) -> AgentOutput:
        desk = self._opened()
        request = replace(request, model=desk.route(request.model)[0])
        permit = await desk.admit(request, desk.foresee(request), until=until)
        try:
            sending()
            output = await desk.invoke(request)
        except AgentInvocationError as error:
            permit.end(error.usage, error)
            raise
        except BaseException:
            permit.end(None)
            raise
        permit.end(output.usage)
        return output

    def _opened(self) -> Desk:
        if self._desk is None:
            if self._minds.open_desk is None:
                raise ConfigurationError(
                    variable="CONCLAVE_LLM_BASE_URL",
                    problem="this population has no models to ask",
                    remedy="Run it with conclave population, and give the address of a provider.",
                )
            self._desk = self._minds.open_desk(self._stack)
        return self._desk

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_END_S)
        await self._stack.aclose()


def _ended(
    voice: Voice,
    outcome: AgentState,
    problem: str,
    *,
    usage: Usage | None,
    model: str | None = None,
    note: str = "",
) -> Reply:
    return Reply(voice.by, voice.tick, voice.who, outcome, problem=problem, model=model, usage=usage, note=note)


async def together(works: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """What comes of all of them, beside each other, in their order. Raises the first error of one, when the others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
