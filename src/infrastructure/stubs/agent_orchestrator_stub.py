"""An orchestrator that simulates every agent: seeded, fast or slow as told, and saying so in every answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from domain.protocols.round_plan import Purpose

__all__ = ["SIMULATED_MODEL", "AgentOrchestratorStub", "log_normal_latency"]

SIMULATED_MODEL = "simulated"

_TEMPERS = (
    "after weighing costs first",
    "thinking of who bears the risk",
    "looking at what can be undone",
    "asking who was not heard",
    "going by what has worked elsewhere",
    "minding the long run",
)

_CHANGES_ITS_MIND = 0.15
# What asks for the same as the blind round did.
_ASKED_AGAIN = frozenset({Purpose.REVISE, Purpose.POSITION, Purpose.CROSS_EXAMINE, Purpose.VOTE})
_OF_LABELS = frozenset({Purpose.REVIEW, Purpose.RANK})


class AgentOrchestratorStub:
    """Answers as a plausible roster would: most lean one way, a minority does not, a few abstain. The same seed repeats it.

    Every answer depends on the seed, the topic, the agent and the round alone, never on timing. In later rounds most keep to what they
    answered before, and some change their minds. `latency_seconds` is a number, or a
    function that draws one from a random generator (for example `log_normal_latency`). Agents in `failing` raise
    `AgentInvocationError`; a mapping gives the error to raise for each.
    """

    def __init__(
        self,
        *,
        latency_seconds: float | Callable[[random.Random], float] = 0.001,
        failing: Iterable[str] | Mapping[str, BaseException] = (),
        hanging: Iterable[str] = (),
        abstaining_fraction: float = 0.03,
        seed: int = 0,
    ) -> None:
        self._latency = latency_seconds
        self._failing: dict[str, BaseException | None] = (
            dict(failing) if isinstance(failing, Mapping) else dict.fromkeys(failing)
        )
        self._hanging = frozenset(hanging)
        self._abstaining = abstaining_fraction
        self._seed = seed
        self._leaning: tuple[tuple[object, ...], _Lean] | None = None
        self.invocations = 0
        self.active_count = 0
        self.peak_active_count = 0

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The simulated output of that agent."""
        self.invocations += 1
        self.active_count += 1
        self.peak_active_count = max(self.peak_active_count, self.active_count)
        try:
            if request.agent_id in self._hanging:
                await asyncio.Event().wait()
            delay = self._latency
            if not isinstance(delay, int | float):
                delay = delay(self._generator(request, "latency"))
            await asyncio.sleep(delay)
        finally:
            self.active_count -= 1
        if request.agent_id in self._failing:
            raise self._failing[request.agent_id] or AgentInvocationError(
                f"agent {request.agent_id!r} was told to fail",
                agent_id=request.agent_id,
                kind="simulated_failure",
                usage=Usage(),
            )
        content = self._content(request)
        return AgentOutput(
            request.agent_id,
            request.request_id,
            content,
            model=SIMULATED_MODEL,
            usage=Usage(calls=1),
            simulated=True,
        )

    def _generator(self, request: AgentRequest, purpose: str, number: int | None = None) -> random.Random:
        seed = self._seed if request.seed is None else request.seed
        number = request.round_number if number is None else number
        text = f"{seed}\x00{request.context.topic_content}\x00{request.agent_id}\x00{number}\x00{purpose}"
        return random.Random(hashlib.sha256(text.encode(errors="replace")).digest())  # noqa: S311 - a simulation

    def _lean(self, request: AgentRequest) -> _Lean:
        """What all agents asked the same lean to; made once for those who are asked together."""
        seed = self._seed if request.seed is None else request.seed
        asked = (seed, request.context.topic_content, request.expected)
        known = self._leaning
        if known is None or known[0] != asked:
            draw = random.Random(f"{seed}\x00{request.context.topic_content}")  # noqa: S311 - a simulation
            options = ("yes", "no") if request.expected is None else request.expected.options or ("yes", "no")
            # Labels are put to each in an order of its own, and all the same lean to the same ones.
            if request.brief is not None and request.brief.purpose in _OF_LABELS:
                options = tuple(sorted(options))
            known = self._leaning = (asked, _Lean(_weights(options, draw), draw.random()))
        return known[1]

    def _content(self, request: AgentRequest) -> str:
        if request.expected is None:
            return f"[simulated] {request.agent_id} has considered: {request.context.topic_content[:200]}"
        changed_in = self._changed_in(request)
        draw = self._generator(request, "answer", changed_in)
        answer = None if draw.random() < self._abstaining else _draw_answer(request.expected, self._lean(request), draw)
        again = "" if changed_in == request.round_number else " again"
        reasoning = f"[simulated] {request.agent_id} chose{again} {draw.choice(_TEMPERS)}."
        confidence = round(draw.uniform(0.4, 0.95), 2)
        return json.dumps({"answer": answer, "confidence": confidence, "reasoning": reasoning}, ensure_ascii=False)

    def _changed_in(self, request: AgentRequest) -> int:
        """The last round in which the agent made up its mind: that which asks for something of its own, or draws a change."""
        asks_again = request.brief is not None and request.brief.purpose in _ASKED_AGAIN
        for number in range(request.round_number, 0, -1):
            draw = self._generator(request, "mind", number)
            if not asks_again or draw.random() < _CHANGES_ITS_MIND:
                return number
        return 0


def log_normal_latency(median_seconds: float, sigma: float) -> Callable[[random.Random], float]:
    """Latencies as model providers have them: log-normal around a median, with a long tail."""
    return lambda generator: generator.lognormvariate(math.log(median_seconds), sigma)


@dataclass(frozen=True, slots=True)
class _Lean:
    """How much each option is liked, and where on the scale the middle of all estimates lies (0 to 1)."""

    weights: dict[str, float]
    middle: float


def _draw_answer(expected: AnswerFormat, lean: _Lean, draw: random.Random) -> object:
    weights = lean.weights
    if expected.kind in {AnswerKind.VERDICT, AnswerKind.CHOICE}:
        return draw.choices(list(weights), list(weights.values()))[0]
    if expected.kind.has_options:
        ranked = sorted(expected.options, key=lambda option: -(draw.random() ** (1 / weights[option])))
        return ranked if expected.kind is AnswerKind.RANKING else ranked[: draw.randint(1, max(1, len(ranked) // 2))]
    if expected.kind is AnswerKind.TEXT:
        return "[simulated] It depends on who carries the cost."
    if expected.kind is AnswerKind.PROBABILITY:
        return round(min(1.0, max(0.0, draw.gauss(0.2 + 0.6 * lean.middle, 0.12))), 3)
    low, high = (expected.minimum, expected.maximum)
    if low is None or high is None:
        low, high = 0.0, 100.0
    middle = 0.25 + 0.5 * lean.middle
    return round(low + (high - low) * min(1.0, max(0.0, draw.gauss(middle, 0.15))), 2)


def _weights(options: tuple[str, ...], lean: random.Random) -> dict[str, float]:
    return {option: lean.uniform(0.2, 1.0) ** 2 for option in options}
