"""The task `question`: the members of one deliberation as a swarm, one call each, made and accounted for by the service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress

from application.services.deliberation_output_service import DeliberationOutputService
from application.services.deliberation_service import DeliberationService
from application.services.swarm.task import AgentRefusedError, TaskTerms
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import DeliberationEndedError
from domain.models.deliberation import Specification
from domain.models.message import Payload
from domain.models.round import AgentRecord
from domain.models.swarm import QUESTION

__all__ = ["QuestionTask"]

_WIND_UP_S = 10.0


class QuestionTask:
    """One deliberation, accepted when the first agent acts; each agent's result is its committed output, and nothing else is asked.

    So the pool, the pacing of providers, the halt, the budget and the record are those of any deliberation. What a member's
    failure takes is the service's to retry; here it is final.
    """

    terms = TaskTerms(QUESTION, agent="member", group="answer_group", result_type="answer", repeatable=True)

    def __init__(
        self, deliberations: DeliberationService, outputs: DeliberationOutputService, specification: Specification
    ) -> None:
        self.slots = len(specification.roster.agents)
        self._deliberations = deliberations
        self._outputs = outputs
        self._specification = specification
        self._ids = [agent.id for agent in specification.roster.agents]
        self._accepting: asyncio.Task[str] | None = None
        self._following: asyncio.Task[None] | None = None
        self._ended: dict[str, asyncio.Event] = {agent_id: asyncio.Event() for agent_id in self._ids}
        self._records: dict[str, AgentRecord] = {}
        self._reading = asyncio.Lock()
        self._over = asyncio.Event()
        self._deliberation_id: str | None = None

    def facts(self) -> Mapping[str, Payload]:
        """What the report says besides: which deliberation it was."""
        return {"deliberation_id": self._deliberation_id}

    async def perform(self, number: int, item: str | None) -> Payload:  # noqa: ARG002 - as the port has it
        """`{"member", "state", "answer", "confidence", "reasoning"}` as committed."""
        agent_id = self._ids[number - 1]
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept())
        try:
            deliberation_id = await asyncio.shield(self._accepting)
        except ConclaveError as error:
            raise AgentRefusedError(str(error), kind=error.slug, final=True) from error
        await self._ended[agent_id].wait()
        record = await self._record_of(agent_id, deliberation_id)
        if record is None:
            raise AgentRefusedError("the deliberation ended before this member was asked", kind="not_asked", final=True)
        if not record.state.took_part:
            reason = record.state.value if record.failure is None else record.failure.message
            raise AgentRefusedError(reason, kind=record.state.value, final=True)
        answer: Payload = [*record.answer] if isinstance(record.answer, tuple) else record.answer
        return {
            "member": agent_id,
            "state": record.state.value,
            "answer": answer,
            "confidence": record.confidence,
            "reasoning": record.reasoning,
        }

    async def _record_of(self, agent_id: str, deliberation_id: str) -> AgentRecord | None:
        """The committed record of a member; those of all that ended by now are read together."""
        async with self._reading:
            if agent_id not in self._records:
                outputs = await self._outputs.outputs(deliberation_id)
                self._records = {output.record.agent_id: output.record for output in outputs}
            return self._records.get(agent_id)

    async def close(self) -> None:
        """Cancel the deliberation where it still runs, and let it be recorded."""
        if self._accepting is None:
            return
        # What is about to be accepted would be gone on with by whoever opens this data folder next.
        await asyncio.wait({self._accepting})
        if self._deliberation_id is not None and not self._over.is_set():
            with suppress(DeliberationEndedError):
                await self._deliberations.cancel(self._deliberation_id)
            await self._deliberations.wait(self._deliberation_id, timeout_s=_WIND_UP_S)
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if not self._accepting.cancelled():
            # Whoever acted was told; where nobody waited any more, it counts as seen.
            self._accepting.exception()

    async def _accept(self) -> str:
        deliberation = await self._deliberations.submit(self._specification)
        self._deliberation_id = deliberation.id
        self._following = asyncio.create_task(self._follow(deliberation.id))
        return deliberation.id

    async def _follow(self, deliberation_id: str) -> None:
        """Let each member's agent go on once its end is committed, and all of them when the deliberation is over."""
        try:
            async with aclosing(self._deliberations.events(deliberation_id)) as events:  # type: ignore[type-var]
                async for event in events:
                    if event is not None and event.type == "agent.ended":
                        ended = self._ended.get(str(event.data.get("agent_id")))
                        if ended is not None:
                            ended.set()
            self._over.set()
        finally:
            for ended in self._ended.values():
                ended.set()
