"""The model that all processes call, which looks at each call whether it may be made."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.halt import HaltCondition
from domain.models.question import AnswerKind
from domain.models.roll_call import AgentState
from tests.simulation.halt import HaltView, SimulatedHalt
from tests.simulation.machine import SimulatedProcess
from tests.simulation.money import Bill
from tests.simulation.scenarios import OPTIONS, Plan, Temper
from tests.simulation.store import SimulatedStore

__all__ = ["Call", "FarEnd", "FarEndLink"]

_HALT_S = 0.25
_MAX_CALLS = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One that arrived."""

    process: SimulatedProcess
    deliberation_id: str
    agent_id: str
    attempt: int
    at: float
    round_number: int = 0


class FarEnd:
    """Answers the same to the same question and agent, and tells `broken` of every call that should not have been made."""

    def __init__(
        self,
        plans: Mapping[str, Plan],
        store: SimulatedStore,
        halt: SimulatedHalt,
        bill: Bill,
        broken: Callable[[str], None],
    ) -> None:
        self._bill = bill
        self.calls: dict[tuple[str, str], list[Call]] = defaultdict(list)
        self.in_flight: dict[Call, None] = {}
        self.active: Counter[str] = Counter()
        self._plans = plans
        self._store = store
        self._halt = halt
        self._broken = broken

    async def answer(self, link: FarEndLink, request: AgentRequest) -> Any:
        """What comes back, whatever it is."""
        process, now = link.process, asyncio.get_running_loop().time()
        if process.is_gone:
            raise asyncio.CancelledError
        deliberation_id = request.context.topic_id
        call = Call(process, deliberation_id, request.agent_id, request.attempt, now, request.round_number)
        self._inspect(link, request, call)
        if len(self.calls[deliberation_id, request.agent_id]) > _MAX_CALLS:
            raise RuntimeError(f"{request.agent_id!r} is called without end")
        self.calls[deliberation_id, request.agent_id].append(call)
        self.in_flight[call] = None
        self.active[process.name] += 1
        try:
            if self.active[process.name] > link.slots:
                self._broken(
                    f"{self.active[process.name]} calls of {process.name!r} at a time, which has {link.slots} slots"
                )
            return await self._behave(request)
        finally:
            self.active[process.name] -= 1
            del self.in_flight[call]

    def _inspect(self, link: FarEndLink, request: AgentRequest, call: Call) -> None:
        number = call.round_number
        told = (
            f"attempt {call.attempt} of {call.agent_id!r} in round {number} of {request.context.topic_content!r} "
            f"by {link.process.name!r} at {call.at:g} s"
        )
        kept = self._store.repository._kept.get(call.deliberation_id)
        if kept is None:
            self._broken(f"{told}: the deliberation is not stored")
            return
        if (number, call.agent_id, "answer", call.attempt) not in kept.calls:
            self._broken(f"{told}: its intent is not stored")
        if (number, call.agent_id) in kept.records:
            self._broken(f"{told}: the end of the agent is recorded already")
        if kept.deliberation.status.is_terminal:
            self._broken(f"{told}: the deliberation has ended")
        made = self.calls[call.deliberation_id, call.agent_id]
        if any((before.round_number, before.attempt) == (number, call.attempt) for before in made):
            self._broken(f"{told}: that attempt was made before")
        if link.view.condition is not HaltCondition.OPEN:
            self._broken(f"{told}: the process knows that it is {link.view.condition.value}")
        since = self._halt.set_since
        if since is not None and call.at - max(since, link.went_on_at) > _HALT_S:
            self._broken(f"{told}: the halt was set {call.at - since:g} s before")

    async def _behave(self, request: AgentRequest) -> Any:
        plan = self._plans[request.context.topic_content]
        number = int(request.agent_id.rpartition("-")[2])
        temper, agent_id = plan.tempers[number], request.agent_id
        await asyncio.sleep(plan.latencies[number])
        match temper:
            case Temper.HANGING:
                await asyncio.Event().wait()
            case Temper.FLAKY if request.attempt == 1:
                raise AgentInvocationError(
                    "flaky", agent_id=agent_id, kind="server_error", retryable=True, usage=Usage()
                )
            case Temper.THROTTLED if request.attempt == 1:
                raise AgentInvocationError(
                    "slower", agent_id=agent_id, state=AgentState.THROTTLED, retryable=True, retry_after_s=1.0
                )
            case Temper.FAILING:
                raise AgentInvocationError("no", agent_id=agent_id, kind="refused", retryable=request.attempt % 2 == 1)
            case Temper.BROKEN:
                raise (ValueError("broken"), TimeoutError(), asyncio.CancelledError(), AssertionError())[number % 4]
        answer = _answer(request, plan.answers[number])
        content = json.dumps({"answer": answer, "confidence": 0.5, "reasoning": "it is so"})
        if temper is Temper.ABSTAINING:
            content = json.dumps({"answer": None, "reasoning": "no idea"})
        elif temper is Temper.GARBLED:
            content = f"well, {OPTIONS[0]} or {OPTIONS[1]}?"
        usage = self._bill.charge(request)
        output = AgentOutput(agent_id, request.request_id, content, model="simulated", usage=usage)
        if temper is Temper.FOREIGN:
            return (None, replace(output, agent_id="somebody"), content)[number % 3]
        return output


def _answer(request: AgentRequest, answer: str) -> object:
    """What the agent always answers to the question; whatever else it is asked for it makes of the options."""
    expected = request.expected
    if expected is None or expected.kind is AnswerKind.CHOICE:
        return answer
    if expected.kind is AnswerKind.TEXT:
        return f"{request.agent_id} says {answer}"
    return sorted(expected.options)[:1] if expected.kind is AnswerKind.APPROVAL else sorted(expected.options)


class FarEndLink:
    """The orchestrator of one process."""

    def __init__(self, far_end: FarEnd, process: SimulatedProcess, view: HaltView, slots: int) -> None:
        self.process = process
        self.view = view
        self.slots = slots
        self.went_on_at = 0.0
        self._far_end = far_end

    def prompt_of(self, request: AgentRequest) -> str:
        """What is committed to before the call."""
        return f"{request.agent_id}: {request.context.topic_content}"

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """As in `AgentOrchestratorProtocol`; what comes back need not be an output."""
        output: AgentOutput = await self._far_end.answer(self, request)
        return output
