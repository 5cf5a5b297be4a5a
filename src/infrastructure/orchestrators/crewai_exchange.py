"""The calls to a model that one request leads to, made on the service's own loop for a crew that waits in another thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Sequence
from dataclasses import replace

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
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
    `broken`, and the crew is told no more than that it has to stop. `left` is set by whoever waited for the crew and does no more.
    """

    def __init__(self, models: AgentOrchestratorProtocol, request: AgentRequest) -> None:
        """To be made in the loop in which `models` is asked."""
        self._models = models
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._asked: set[asyncio.Task[str]] = set()
        self._ended = False
        self._calls = 0
        self._unsettled = Usage()
        self.last: AgentOutput | None = None
        self.broken: asyncio.Future[BaseException] = self._loop.create_future()
        self.left = asyncio.Event()

    @property
    def usage(self) -> Usage:
        """What the calls took of which nobody was told yet: the last one's, or those of all where nobody asked to be told."""
        return self._unsettled

    def ask(self, messages: Sequence[tuple[str, str]], *, wants_ballot: bool) -> str:
        """The text that the model answers; called in any thread but the loop's own. Raises `CrewStoppedError` and nothing else."""
        if self._loop.is_closed():
            raise CrewStoppedError
        answer = asyncio.run_coroutine_threadsafe(self._ask(tuple(messages), wants_ballot=wants_ballot), self._loop)
        try:
            return answer.result()
        except (Exception, concurrent.futures.CancelledError, asyncio.CancelledError):  # noqa: BLE001 - kept in `broken`
            raise CrewStoppedError from None

    async def let_the_loop_go_first(self) -> None:
        """Wait in the loop of the crews until the service's own has done what it had to do by now."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(done.set_result, None)
        await asyncio.wrap_future(done)

    async def end(self) -> None:
        """Cancel what is under way, down to the socket; later calls are refused."""
        self._ended = True
        if not self.broken.done():
            self.broken.set_result(asyncio.CancelledError())
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)

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
            if not self.broken.done():
                self.broken.set_result(error)
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
