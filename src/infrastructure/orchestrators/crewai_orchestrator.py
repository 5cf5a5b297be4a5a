"""Asks agents through CrewAI: each is an agent of its with a task, or a crew of the operator's own, and all share our models."""

from __future__ import annotations

import asyncio
import gc
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, ModelDesk, Permit
from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.models.budget import Usage
from infrastructure.orchestrators.crewai_crossing import Crossing, Letterbox
from infrastructure.orchestrators.crewai_environment import CrewAIEnvironment, for_the_import
from infrastructure.orchestrators.crewai_exchange import CREW_PROMPT_TOKENS, CrewStoppedError, Exchange
from infrastructure.orchestrators.crewai_thread import CrewThread
from infrastructure.orchestrators.prompts import build_prompt
from infrastructure.orchestrators.provider_refusal import complaint_in

if TYPE_CHECKING:
    from infrastructure.orchestrators.crewai_crews import Crews

__all__ = ["CrewAIAdapter", "CrewDesk"]

_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Opened:
    crews: Crews
    crossing: Crossing


class CrewAIAdapter:
    """Puts each request to an agent of CrewAI, in a thread of its own, and every call to a model to `models`.

    So limits, retries, budgets and records are those of `models` and of the service; CrewAI reaches no provider itself. A member
    without a crew of its own is told what it is told without CrewAI, letter by letter. A cancelled request cancels its call at the
    socket and releases the crew. CrewAI is imported when this starts, sends nothing home, takes no signal and writes no file.
    """

    def __init__(
        self, *, models: AgentOrchestratorProtocol, storage_dir: Path | None = None, crews_dir: Path | None = None
    ) -> None:
        """Nothing is started or imported yet.

        `models` makes the calls: anything with `invoke`. `storage_dir` is what CrewAI takes for the folder to keep things in (a
        temporary one unless given; nothing is kept). `crews_dir` is the folder below which the files lie that members name as
        their `crew`; without it there are none.
        """
        self._models = models
        self._crews_dir = crews_dir
        self._is_own_storage = storage_dir is None
        self._storage_dir = storage_dir or Path(tempfile.gettempdir(), f"conclave-crewai-{secrets.token_hex(8)}")
        self._environment = CrewAIEnvironment(self._storage_dir)
        self._thread = CrewThread()
        self._exchanges: set[Exchange] = set()
        self._opening: asyncio.Task[_Opened] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Import CrewAI (seconds) and rehearse one agent; `invoke` does it by itself when it has not been done.

        Raises `ConfigurationError` where CrewAI is not installed, or is one that tells models something else than it is given.
        """
        await self._opened()

    async def close(self) -> None:
        """Stop what is under way, whose agents fail, and end the thread. May be called twice; later requests are refused."""
        if self._closed:
            return
        self._closed = True
        open_still = tuple(self._exchanges)
        await asyncio.gather(*(exchange.end() for exchange in open_still))
        await asyncio.gather(*(exchange.left.wait() for exchange in open_still))
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await self._thread.close(grace_s=_GRACE_S)
        self._environment.leave()
        if self._is_own_storage:
            await asyncio.to_thread(shutil.rmtree, self._storage_dir, ignore_errors=True)

    def prompt_of(self, request: AgentRequest) -> str | None:
        """What the agent is told in its first call, as one text; None where its own crew decides that."""
        describe = getattr(self._models, "prompt_of", None)
        return None if describe is None or request.crew is not None else describe(request)

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The output of that agent; its usage is that of the last call, where `request.next_call` was told of those before.

        Raises `AgentInvocationError`: what a call raised, or of kind `crew_failed`, `crew_unusable`, `crew_does_not_end` or
        `crew_prompt_too_long`.
        """
        opened = await self._opened()
        exchange = Exchange(self._models, request)
        self._exchanges.add(exchange)
        exchange.begin(opened.crossing, opened.crews.perform)
        try:
            await exchange.over
            if exchange.broken.done():
                raise self._failure(exchange.broken.result(), request)
            return _output(request, exchange, _outcome(request, exchange))
        finally:
            await exchange.end()
            self._exchanges.discard(exchange)
            exchange.left.set()

    async def _opened(self) -> _Opened:
        if self._closed:
            raise AgentInvocationError("CrewAI is closed", kind="closed", usage=Usage())
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        try:
            return await asyncio.shield(self._opening)
        except ConfigurationError:
            self._opening = None
            raise

    async def _open(self) -> _Opened:
        self._environment.enter()
        try:
            crews = await asyncio.wrap_future(self._thread.start(self._prepare))
            await asyncio.wrap_future(self._thread.submit(crews.rehearse()))
        except BaseException as error:
            self._environment.leave()
            await self._thread.close(grace_s=_GRACE_S)
            if isinstance(error, ImportError):
                raise ConfigurationError(
                    variable="CONCLAVE_ORCHESTRATOR",
                    problem=f"'crewai' needs CrewAI ({error})",
                    remedy="Install it: uv pip install 'archon-conclave[crewai]'",
                ) from None
            raise
        service = Letterbox(asyncio.get_running_loop())
        return _Opened(crews, Crossing(to_service=service, to_crews=self._thread.letterbox))

    def _prepare(self) -> Crews:
        with for_the_import(self._storage_dir), _garbage_left_alone():
            from infrastructure.orchestrators.crewai_crews import Crews
        return Crews(self._crews_dir)

    def _failure(self, error: BaseException, request: AgentRequest) -> BaseException:
        if self._closed:
            return AgentInvocationError("CrewAI was closed meanwhile", agent_id=request.agent_id, kind="closed")
        return error


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """The import makes hundreds of thousands of objects that stay: each look for garbage among them, now or ever after, would hold
    up every thread for up to 0.3 s."""
    if "crewai" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _outcome(request: AgentRequest, exchange: Exchange) -> str:
    """What the crew came to. Raises `AgentInvocationError` for whatever it raised."""
    try:
        return exchange.outcome()
    except AgentInvocationError as error:
        error.agent_id, error.usage = request.agent_id, exchange.usage
        raise
    except (Exception, CrewStoppedError, asyncio.CancelledError) as error:  # noqa: BLE001 - a third party's crew may raise anything
        said = complaint_in(str(error).encode(errors="replace"))
        failure = AgentInvocationError(
            f"the crew of agent {request.agent_id!r} broke off ({type(error).__name__}){f': {said}' if said else ''}",
            agent_id=request.agent_id,
            kind="crew_failed",
            usage=exchange.usage,
        )
    # Raised outside of the handler, so that no chain holds the crew with all that it was told.
    raise failure


def _output(request: AgentRequest, exchange: Exchange, content: str) -> AgentOutput:
    if exchange.last is None:
        return AgentOutput(request.agent_id, request.request_id, content, attempt=request.attempt, usage=Usage())
    return replace(exchange.last, content=content, usage=exchange.usage)


class CrewDesk:
    """As another desk, but for members with a crew of their own: what they tell a model is known only as the crew runs, so the
    most that it may tell is held for each call."""

    def __init__(self, desk: ModelDesk) -> None:
        self._desk = desk
        self.paces = desk.paces

    def route(self, model: str | None) -> Sequence[str | None]:
        """As the other desk."""
        return self._desk.route(model)

    def foresee(self, request: AgentRequest) -> Forecast:
        """As the other desk; for a member with a crew the most that a call takes, and no prompt."""
        if request.crew is None:
            return self._desk.foresee(request)
        prompt = build_prompt(request)
        messages = (("system", prompt.system), ("user", prompt.user), ("user", "0" * CREW_PROMPT_TOKENS))
        return replace(self._desk.foresee(replace(request, messages=messages)), prompt=None)

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:
        """As the other desk."""
        return await self._desk.admit(request, forecast, until=until)
