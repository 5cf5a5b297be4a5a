"""The calls to a model that one request leads to, made on the service's own loop for a crew that waits in another thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from infrastructure.orchestrators.crewai_crossing import Crossing, settle
from infrastructure.orchestrators.prompts import build_prompt
from infrastructure.orchestrators.token_estimate import most_tokens

__all__ = ["CREW_PROMPT_TOKENS", "MOST_CALLS", "CrewStoppedError", "Exchange"]

MOST_CALLS = 32
"""So many calls may a crew make for one ballot."""

CREW_PROMPT_TOKENS = 16_384
"""So many tokens more than question and persona may a crew of the operator's own tell a model in one call."""


class CrewStoppedError(BaseException):
    """The crew may not go on. No failure of the crew: nothing in it shall take it for one and ask again."""


class Exchange:
    """Makes the calls of one request, one at a time, and none after its end.

    The first was let in with the request; each further one asks `request.next_call` for leave. What a call raises is kept in
    `broken`, and the crew is told no more than that it has to stop. `over` is done when a call broke, or the crew or this ended.
    `left` is set by whoever waited for the crew and does no more.
    """

    def __init__(self, models: AgentOrchestratorProtocol, request: AgentRequest) -> None:
        """To be made in the loop in which `models` is asked."""
        self._models = models
        self._request = request
        self._crossing: Crossing | None = None
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._asked: set[asyncio.Task[str]] = set()
        self._crew: asyncio.Task[str] | None = None
        self._ended = False
        self._calls = 0
        self._unsettled = Usage()
        self.last: AgentOutput | None = None
        self.broken: asyncio.Future[BaseException] = self._loop.create_future()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.left = asyncio.Event()

    @property
    def usage(self) -> Usage:
        """What the calls took of which nobody was told yet: the last one's, or those of all where nobody asked to be told."""
        return self._unsettled

    def begin(self, crossing: Crossing, perform: Callable[[AgentRequest, Exchange], Coroutine[Any, Any, str]]) -> None:
        """Have the crew perform in its own loop, at the other end of `crossing`."""
        self._crossing = crossing
        crossing.to_crews.post(self._begin, crossing, perform)

    def outcome(self) -> str:
        """What the crew came to, once this is over and nothing broke. Raises what it raised."""
        if self._crew is None:
            raise CrewStoppedError
        return self._crew.result()

    def ask(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """The text that the model answers; called in any thread but the loops' own. Raises `CrewStoppedError` and nothing else."""
        if self._loop.is_closed():
            raise CrewStoppedError
        answer = asyncio.run_coroutine_threadsafe(self._ask(tuple(messages), wants_ballot=wants_ballot), self._loop)
        try:
            return answer.result()
        except (Exception, concurrent.futures.CancelledError, asyncio.CancelledError):  # noqa: BLE001 - kept in `broken`
            raise CrewStoppedError from None

    async def ask_and_await(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """The text that the model answers; awaited in the loop of the crews, and cancelled there where there is none."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self._crossing is None:
            raise CrewStoppedError
        begin = partial(self._begin_call, self._crossing, tuple(messages), answer, wants_ballot=wants_ballot)
        self._crossing.to_service.post(begin)
        return await answer

    async def take_turn(self) -> None:
        """Wait in the loop of the crews until this one may keep the interpreter busy for a moment."""
        if self._crossing is not None:
            await self._crossing.take_turn()

    async def end(self) -> None:
        """Cancel what is under way, down to the socket, and the crew; later calls are refused."""
        self._ended = True
        self._break(asyncio.CancelledError())
        if self._crossing is not None and (self._crew is None or not self._crew.done()):
            self._crossing.to_crews.post(self._cancel_crew)
        if self._asked:
            for task in self._asked:
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    def _begin(self, crossing: Crossing, perform: Callable[[AgentRequest, Exchange], Coroutine[Any, Any, str]]) -> None:
        if not self._ended:
            crew = asyncio.get_running_loop().create_task(perform(self._request, self), context=self._context.copy())
            crew.add_done_callback(partial(self._leave, crossing))
            self._crew = crew

    def _leave(self, crossing: Crossing, crew: asyncio.Task[str]) -> None:
        if not crew.cancelled():
            # Whether anybody wants to hear of it or not.
            crew.exception()
        crossing.to_service.post(settle, self.over, None)

    def _cancel_crew(self) -> None:
        if self._crew is not None:
            self._crew.cancel()

    def _begin_call(
        self,
        crossing: Crossing,
        messages: tuple[tuple[str, str], ...],
        answer: asyncio.Future[str],
        *,
        wants_ballot: bool,
    ) -> None:
        asked = self._loop.create_task(self._ask(messages, wants_ballot=wants_ballot), context=self._context)
        asked.add_done_callback(partial(_hand_over, crossing, answer))

    def _break(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_result(error)
        settle(self.over, None)

    async def _ask(self, messages: tuple[tuple[str, str], ...], *, wants_ballot: bool) -> str:
        task = asyncio.current_task()
        if self._ended or task is None:
            raise asyncio.CancelledError
        self._asked.add(task)
        try:
            async with self._turn:
                return await self._call(messages, wants_ballot=wants_ballot)
        except BaseException as error:
            # Also a cancellation: the one who stands in for the agent decides what it means.
            self._break(error)
            raise
        finally:
            self._asked.discard(task)

    async def _call(self, messages: tuple[tuple[str, str], ...], *, wants_ballot: bool) -> str:
        request = self._request
        if self._calls >= MOST_CALLS:
            raise self._refusal(f"its crew makes more than {MOST_CALLS} calls for one ballot", "crew_does_not_end")
        if self._calls and request.next_call is not None:
            # From here on the last call's usage is the business of whoever gives leave.
            settled, self._unsettled = self._unsettled, Usage()
            request = await request.next_call(settled)
        self._calls += 1
        rendered = build_prompt(request)
        if not wants_ballot or messages != (("system", rendered.system), ("user", rendered.user)):
            most = most_tokens(f"{rendered.system}\n\n{rendered.user}") + CREW_PROMPT_TOKENS
            if most_tokens("\n\n".join(text for _, text in messages)) > most:
                raise self._refusal("its crew tells the model more than is held for a call", "crew_prompt_too_long")
            request = replace(request, messages=messages, expected=request.expected if wants_ballot else None)
        self.last = await self._models.invoke(request)
        self._unsettled += self.last.usage
        return self.last.content

    def _refusal(self, problem: str, kind: str) -> AgentInvocationError:
        agent_id = self._request.agent_id
        return AgentInvocationError(f"agent {agent_id!r}: {problem}", agent_id=agent_id, kind=kind, usage=self.usage)


def _hand_over(crossing: Crossing, answer: asyncio.Future[str], asked: asyncio.Task[str]) -> None:
    # Of what went wrong `broken` tells, and the crew's task is cancelled with its request.
    if not asked.cancelled() and asked.exception() is None:
        crossing.to_crews.post(settle, answer, asked.result())
