"""Runs the pantheon: nine agents on a bus, each of which does its part and hands on by a message, cycle after cycle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn
from uuid import uuid4

from application.ports.message_bus import Message, MessageBus
from application.ports.run_observer import NullRunObserver, RunObserver
from application.services.pantheon.cabinet import Cabinet
from application.services.pantheon.letter import CYCLE_ENDED, HANDOFF, Letter, Seal
from application.services.pantheon.mind import Mind
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.bus import BusError, BusUnavailableError, UnknownAgentError
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.halt import SystemHaltedError
from domain.errors.pantheon import RoleFailedError
from domain.models.deliberation import DeliberationStatus
from domain.models.pantheon import (
    CONDUCTOR,
    ROW,
    STEPS,
    Handoff,
    PantheonRequest,
    PantheonResult,
    PantheonStatus,
    Role,
    RoleFailure,
    named_steps,
)
from domain.models.run import JsonValue, RunEnding

__all__ = ["HANDOFF_PATIENCE_S", "PantheonRun"]

_logger = logging.getLogger(__name__)

HANDOFF_PATIENCE_S = 30.0
_NEXT: Mapping[str, str] = MappingProxyType(
    {
        CONDUCTOR: ROW[0].value,
        **{role.value: after.value for role, after in zip(ROW, [*ROW[1:], None], strict=True) if after},
    }
)
# The observer of a run takes some ten notes a second, and counts about once.
_NOTE_S = 0.1
_COUNT_S = 1.0
# What is left to do when the run is over may take so long, however the bus stands then.
_PARTING_S = 2.0


class PantheonRun:
    """One run, which ends with what was carried out, rejected or failed, however it ended. Used once.

    A rejection ends it after its cycle, whose other roles still have their turn. A role that fails or hangs, and a handoff that does not
    arrive within `handoff_patience_s`, end it at once, with the name of the role.
    """

    def __init__(
        self,
        request: PantheonRequest,
        *,
        bus: MessageBus,
        minds: Mapping[Role, Mind] = MappingProxyType({}),
        steps: Mapping[str, Callable[[str], str | int]] = STEPS,
        run_id: str | None = None,
        handoff_patience_s: float = HANDOFF_PATIENCE_S,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Raises `InvalidSpecificationError` for a request that cannot be run. The bus stays open and its caller's."""
        if problems := request.problems():
            raise InvalidSpecificationError(problems)
        self._request = request
        self._bus = bus
        self._clock_ns = clock_ns
        self._patience_s = handoff_patience_s
        run_id = uuid4().hex if run_id is None else run_id
        self._seal = Seal(run_id)
        self._minds = minds
        self._observer: RunObserver = NullRunObserver()
        self._cabinet = Cabinet(run_id, steps=steps, minds=minds)
        # By recipient, the last cycle that it took: a letter of that one or of one before is a copy.
        self._taken = dict.fromkeys((CONDUCTOR, *(role.value for role in ROW)), 0)
        # The letter on its way: to whom, and since when by the loop; and when it was sent, in nanoseconds.
        self._on_its_way: tuple[str, float] | None = None
        self._sent_ns = 0
        self._refused = 0
        self._cycles = 0
        self._is_bus_away = False
        self._last: Letter | None = None
        self._noted_at = self._counted_at = float("-inf")

    async def run(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        """Run to the end, or until `stop` is set. Raises `BusError` when the nine cannot take their places."""
        self._observer = observer
        failure: RoleFailure | None = None
        stopped: StopReason | None = None
        async with self._places():
            try:
                async with asyncio.TaskGroup() as group:
                    others = [group.create_task(self._serve(role), name=f"pantheon-{role.value}") for role in ROW]
                    others.append(group.create_task(self._watch(stop), name="pantheon-stop"))
                    others.append(group.create_task(self._watch_handoffs(), name="pantheon-handoffs"))
                    # Once each of them waits at its inbox.
                    await asyncio.sleep(0)
                    await self._conduct()
                    for other in others:
                        other.cancel()
            except* RoleFailedError as group_error:
                failure = _failure_of(_first(group_error))
                self._is_bus_away = failure.kind == BusUnavailableError.slug
            except* SystemHaltedError:
                stopped = StopReason.HALTED
            except* _StoppedError as group_error:
                stopped = _first_stop(group_error)
        return self._ending(failure, stopped)

    @contextlib.asynccontextmanager
    async def _places(self) -> AsyncIterator[None]:
        """Within it the nine and who begins their cycles have an inbox each."""
        taken: list[str] = []
        try:
            for name in (CONDUCTOR, *(role.value for role in ROW)):
                await self._bus.register(name)
                taken.append(name)
            yield
        except BusUnavailableError:
            self._is_bus_away = True
            raise
        finally:
            await self._part(taken)

    async def _conduct(self) -> None:
        request = self._request
        fixed = request.steps is not None
        for cycle in range(1, request.cycles + 1):
            plan = list(named_steps(request.steps or ()))
            letter = self._last = await self._through_the_row(Letter(cycle, request.task, fixed, plan))
            self._cycles = cycle
            is_last = cycle == request.cycles or bool(letter.rejected or letter.failed)
            self._note_cycle(letter, anyway=is_last)
            if is_last:
                return
            now = asyncio.get_running_loop().time()
            if now - self._counted_at >= _COUNT_S:
                self._counted_at = now
                await self._count()

    async def _serve(self, role: Role) -> NoReturn:
        """One agent: takes a letter, does its part, hands it on.

        Receives and sends in its own frame, because what lies between one agent's sending and the next one's receiving is bus time.
        """
        name, patience_s, clock_ns = role.value, self._patience_s, self._clock_ns
        receive, send = self._bus.receive, self._bus.send
        try:
            while True:
                message = await receive(name)
                letter = self._opened(message, name, clock_ns())
                if letter is None:
                    continue
                if role in self._minds:
                    self._note("pantheon.role_asked", {"cycle": letter.cycle, "role": name})
                await self._cabinet.work(role, letter)
                message = self._sealed(letter, name)
                self._sent_ns = clock_ns()
                await send(message, timeout=patience_s)
        except BusError as error:
            raise _of_bus(name, error) from error

    async def _through_the_row(self, letter: Letter) -> Letter:
        """The letter as it comes back from the improver."""
        try:
            message = self._sealed(letter, CONDUCTOR)
            self._sent_ns = self._clock_ns()
            await self._bus.send(message, timeout=self._patience_s)
            while True:
                message = await self._bus.receive(CONDUCTOR)
                ended = self._opened(message, CONDUCTOR, 0)
                if ended is not None:
                    return ended
        except BusError as error:
            raise _of_bus(CONDUCTOR, error) from error

    def _opened(self, message: Message, name: str, arrived_ns: int) -> Letter | None:
        """The letter in a message to that agent. One that does not come from this run, or a copy of one, is refused and counted."""
        letter = self._seal.open(message, recipient=name)
        if letter is None or letter.cycle <= self._taken[name]:
            self._refused += 1
            if self._refused == 1:
                _logger.warning("a message to %r comes from nobody of this run and is not taken", name)
            return None
        self._taken[name] = letter.cycle
        self._on_its_way = None
        if name != CONDUCTOR:
            latency_us = (arrived_ns - self._sent_ns) / 1_000
            self._cabinet.note_handoff(Handoff(letter.cycle, message.sender, name, latency_us))
        return letter

    def _sealed(self, letter: Letter, name: str) -> Message:
        """The letter from that agent to the next, which it is expected to reach from now on."""
        recipient = _NEXT.get(name, CONDUCTOR)
        if name == Role.VALIDATOR.value and letter.rejected:
            recipient = _NEXT[Role.EXECUTOR.value]
        kind = CYCLE_ENDED if recipient == CONDUCTOR else HANDOFF
        self._on_its_way = (recipient, asyncio.get_running_loop().time())
        return self._seal.close(letter, sender=name, recipient=recipient, type=kind)

    async def _watch(self, stop: StopSignal) -> NoReturn:
        raise _StoppedError(await stop.wait())

    async def _watch_handoffs(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._patience_s / 2)
            on_its_way = self._on_its_way
            if on_its_way is not None and loop.time() - on_its_way[1] >= self._patience_s:
                problem = f"no letter reached it within {self._patience_s:g} s"
                raise RoleFailedError(role=on_its_way[0], kind="handoff_lost", problem=problem)

    async def _part(self, names: Sequence[str]) -> None:
        """Count the bus for the last time and give these names up, unless it is away or takes too long over it."""
        if self._is_bus_away:
            _logger.warning("the bus of the pantheon is away: it is not counted, and no name on it is given up")
            return
        try:
            async with asyncio.timeout(_PARTING_S):
                self._observer.count(await self._bus.stats())
                for name in names:
                    # Where it is gone already, nothing is left to give up.
                    with contextlib.suppress(UnknownAgentError):
                        await self._bus.unregister(name)
        except TimeoutError:
            _logger.warning("the bus of the pantheon is left as it is: it did not answer within %g s", _PARTING_S)
        except BusError as error:
            _logger.warning("the bus of the pantheon is left as it is: %s", error)

    def _note_cycle(self, letter: Letter, *, anyway: bool) -> None:
        self._note(
            "pantheon.cycle_ended",
            {
                "cycle": letter.cycle,
                "of": self._request.cycles,
                "executed": len(letter.executed),
                "rejected": len(letter.rejected),
                "bus_us": letter.measures.get("bus_us"),
            },
            anyway=anyway,
        )

    def _note(self, type_: str, data: Mapping[str, JsonValue], *, anyway: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if anyway or now - self._noted_at >= _NOTE_S:
            self._noted_at = now
            self._observer.note(type_, data)

    async def _count(self) -> None:
        try:
            self._observer.count(await self._bus.stats())
        except BusError as error:
            _logger.warning("the bus of the pantheon cannot be counted: %s", error)

    def _ending(self, failure: RoleFailure | None, stopped: StopReason | None) -> RunEnding:
        last, cabinet = self._last, self._cabinet
        if stopped is not None:
            failure = RoleFailure(None, stopped.value, f"the run was {stopped.value} after {self._cycles} whole cycles")
        elif failure is None and last is not None and last.failed:
            step = last.failed[0]
            failure = RoleFailure(
                Role.EXECUTOR.value, "step_failed", f"the step {step['step']!r} failed: {step['reason']}"
            )
        status = PantheonStatus.EXECUTED
        if failure is not None:
            status = PantheonStatus.FAILED
        elif cabinet.rejected:
            status = PantheonStatus.REJECTED
        result = PantheonResult(
            task=self._request.task,
            status=status,
            cycles=self._cycles,
            simulated=cabinet.simulated,
            handoffs=tuple(cabinet.handoffs),
            executed=tuple(cabinet.executed),
            rejected=tuple(cabinet.rejected),
            failure=failure,
            refused=self._refused,
            remarks=tuple(cabinet.remarks),
            learned=None if last is None else last.learned,
            proposal=None if last is None else last.proposal,
        )
        if stopped is not None:
            return RunEnding(stopped.status, result.document())
        ended = DeliberationStatus.COMPLETED if status is PantheonStatus.EXECUTED else DeliberationStatus.FAILED
        return RunEnding(ended, result.document())


class _StoppedError(Exception):
    """Somebody wishes the run to end."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def _of_bus(name: str, error: BusError) -> RoleFailedError:
    return RoleFailedError(role=name, kind=error.slug, problem=str(error).rstrip("."))


def _failure_of(error: RoleFailedError) -> RoleFailure:
    return RoleFailure(error.role, error.kind, str(error))


def _first(group: BaseExceptionGroup[RoleFailedError]) -> RoleFailedError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, RoleFailedError)  # noqa: S101 - narrowed by except*
    return found


def _first_stop(group: BaseExceptionGroup[_StoppedError]) -> StopReason:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, _StoppedError)  # noqa: S101 - narrowed by except*
    return found.reason
