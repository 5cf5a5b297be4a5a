"""The nine parts: what each role does of itself in a cycle, and how far it heeds what its mind says."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from application.services.pantheon.letter import Letter
from application.services.pantheon.mind import Brief, Mind, Opinion
from domain.errors.conclave_error import ConclaveError
from domain.errors.halt import SystemHaltedError
from domain.errors.pantheon import RoleFailedError
from domain.models.pantheon import (
    MAX_PLAN_STEPS,
    Handoff,
    Role,
    StepOutput,
    StepRefusal,
    named_steps,
    plan_digest,
    refusals_of,
)
from domain.models.run import JsonValue
from domain.models.text import clean

__all__ = ["Cabinet"]

_MAX_REMARK = 2_000
_MAX_REMARKS = 1_000
_REMEMBERED_CYCLES = 100
_TOLD_CYCLES = 10
_WIND_UP_S = 2.0


class Cabinet:
    """Does each role's part of a cycle. Only steps of `steps` are ever carried out, each with the task alone, and only in a plan that the
    Validator of this object let pass, once.

    What was approved is kept here and never on the bus, so no message, whoever sent it, can have anything carried out that was not.
    """

    def __init__(
        self,
        run_id: str,
        *,
        steps: Mapping[str, Callable[[str], str | int]],
        minds: Mapping[Role, Mind],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run_id = run_id
        self._steps = steps
        self._minds = minds
        self._clock = clock
        self._approvals: set[str] = set()
        self._memory: deque[dict[str, JsonValue]] = deque(maxlen=_REMEMBERED_CYCLES)
        self._runs_of_steps: dict[str, list[float]] = {}
        self._failures_of_steps: dict[str, int] = {}
        self._waits: dict[str, tuple[int, float]] = {}
        self._parts: Mapping[Role, Callable[[Letter], None]] = {
            Role.OBSERVER: self._observe,
            Role.REASONER: self._reason,
            Role.ACTOR: self._act,
            Role.VALIDATOR: self._validate,
            Role.EXECUTOR: self._execute,
            Role.MEMORY: self._remember,
            Role.ANALYZER: self._analyze,
            Role.LEARNER: self._learn,
            Role.IMPROVER: self._improve,
        }
        # What came of the run, from the first cycle on.
        self.handoffs: list[Handoff] = []
        self.executed: list[StepOutput] = []
        self.rejected: list[StepRefusal] = []
        self.remarks: deque[Mapping[str, JsonValue]] = deque(maxlen=_MAX_REMARKS)
        self.simulated = False

    async def work(self, role: Role, letter: Letter) -> None:
        """Do that role's part, which changes the letter. Raises `RoleFailedError` and `SystemHaltedError`."""
        self._parts[role](letter)
        mind = self._minds.get(role)
        if mind is not None and not (role is Role.VALIDATOR and letter.rejected):
            self._heed(role, letter, await self._opinion(mind, role, letter))
        if role is Role.VALIDATOR:
            self._rule(letter)

    def note_handoff(self, handoff: Handoff) -> None:
        """A letter arrived."""
        self.handoffs.append(handoff)
        count, total = self._waits.get(handoff.recipient, (0, 0.0))
        self._waits[handoff.recipient] = (count + 1, total + handoff.latency_us)

    def _observe(self, letter: Letter) -> None:
        task = letter.task
        letter.observed = {
            "bytes": len(task.encode()),
            "characters": len(task),
            "words": len(task.split()),
            "lines": task.count("\n") + 1,
        }

    def _reason(self, letter: Letter) -> None:
        if not letter.fixed:
            proposed = self._memory[-1].get("proposal") if self._memory else None
            letter.plan = [str(step) for step in proposed] if isinstance(proposed, list) else list(self._steps)

    def _act(self, letter: Letter) -> None:
        """Declare what is to be done: the names are the plan, and nothing can be declared beside them."""
        letter.plan = list(named_steps(letter.plan))

    def _validate(self, letter: Letter) -> None:
        self._reject(letter, refusals_of(letter.plan, tuple(self._steps)))

    def _reject(self, letter: Letter, refusals: Sequence[StepRefusal]) -> None:
        letter.rejected = [refusal.document() for refusal in refusals]
        self.rejected += refusals

    def _rule(self, letter: Letter) -> None:
        if not letter.rejected:
            self._approvals.add(plan_digest(self._run_id, letter.cycle, letter.task, letter.plan))

    def _execute(self, letter: Letter) -> None:
        digest = plan_digest(self._run_id, letter.cycle, letter.task, letter.plan)
        if digest not in self._approvals:
            raise _failed(Role.EXECUTOR, "not_approved", "the plan that reached it is none that the Validator let pass")
        self._approvals.discard(digest)
        for name in letter.plan:
            step = self._steps.get(name)
            if step is None:
                raise _failed(Role.EXECUTOR, "not_allowed", f"there is no step {name!r}")
            began = self._clock()
            try:
                output = StepOutput(name, step(letter.task))
            except Exception as error:  # noqa: BLE001 - it is told in the document, and ends the plan
                letter.failed.append(StepRefusal(name, f"{type(error).__name__}: {clean(str(error))[:200]}").document())
                self._failures_of_steps[name] = self._failures_of_steps.get(name, 0) + 1
                return
            seconds = self._clock() - began
            letter.step_seconds.append(seconds)
            letter.executed.append(output.document())
            runs = self._runs_of_steps.setdefault(name, [0, 0.0])
            runs[0] += 1
            runs[1] += seconds
            self.executed.append(output)

    def _remember(self, letter: Letter) -> None:
        self._memory.append(
            {
                "cycle": letter.cycle,
                "plan": list(letter.plan),
                "executed": [done["step"] for done in letter.executed],
                "rejected": [refused["step"] for refused in letter.rejected],
                "failed": [failed["step"] for failed in letter.failed],
            }
        )

    def _analyze(self, letter: Letter) -> None:
        waits = [handoff for handoff in self.handoffs[-len(Role) :] if handoff.cycle == letter.cycle]
        slowest = max(waits, key=lambda handoff: handoff.latency_us, default=None)
        letter.measures = {
            "handoffs": len(waits),
            "bus_us": sum(handoff.latency_us for handoff in waits),
            "slowest_to": None if slowest is None else slowest.recipient,
            "steps_us": sum(letter.step_seconds) * 1e6,
        }

    def _learn(self, letter: Letter) -> None:
        names = [*self._runs_of_steps, *(name for name in self._failures_of_steps if name not in self._runs_of_steps)]
        steps: dict[str, JsonValue] = {}
        for name in names:
            runs, seconds = self._runs_of_steps.get(name, (0, 0.0))
            steps[name] = {
                "executed": int(runs),
                "failed": self._failures_of_steps.get(name, 0),
                "mean_us": seconds / runs * 1e6 if runs else None,
            }
        waits: dict[str, JsonValue] = {to: total / count for to, (count, total) in self._waits.items()}
        letter.learned = {"cycles": letter.cycle, "steps": steps, "mean_handoff_us": waits}

    def _improve(self, letter: Letter) -> None:
        failed = [name for name in self._steps if self._failures_of_steps.get(name)]
        sound: list[JsonValue] = [name for name in self._steps if name not in failed]
        kept: Sequence[JsonValue] = [name for name in letter.plan if name in sound][:MAX_PLAN_STEPS]
        why = "as it is"
        if failed:
            why = f"without {', '.join(failed)}, which failed"
        elif kept != letter.plan:
            why = "without what is not allowed" if kept else "all steps, because the plan named none that is allowed"
        elif letter.rejected:
            why = "as it is, although the Validator rejected it"
        self._propose(letter, kept or sound or list(self._steps), why)

    def _propose(self, letter: Letter, steps: Sequence[JsonValue], why: str) -> None:
        letter.proposal = {"steps": list(steps), "why": why}
        if self._memory:
            self._memory[-1]["proposal"] = list(steps)

    async def _opinion(self, mind: Mind, role: Role, letter: Letter) -> Opinion:
        asked = asyncio.create_task(mind.consult(role, self._brief(role, letter)), name=f"pantheon-mind-{role.value}")
        try:
            await asyncio.wait({asked}, timeout=mind.patience_s)
        except asyncio.CancelledError:
            asked.cancel()
            # It may have to call off what it asked others for.
            await asyncio.wait({asked}, timeout=_WIND_UP_S)
            asked.add_done_callback(_look_away)
            raise
        if not asked.done():
            asked.cancel()
            asked.add_done_callback(_look_away)
            raise _failed(role, "timeout", f"it did not answer within {mind.patience_s:g} s")
        if asked.cancelled():
            raise _failed(role, "cancelled", "it ended by a cancellation of its own")
        error = asked.exception()
        if error is None:
            return asked.result()
        if isinstance(error, RoleFailedError | SystemHaltedError):
            raise error
        kind = error.slug if isinstance(error, ConclaveError) else "raised"
        raise _failed(role, kind, f"{type(error).__name__}: {clean(str(error))[:_MAX_REMARK]}") from error

    def _brief(self, role: Role, letter: Letter) -> Brief:
        allowed: list[JsonValue] = list(self._steps)
        memory: list[JsonValue] = [*list(self._memory)[-_TOLD_CYCLES:]]
        return {
            "role": role.value,
            "cycle": letter.cycle,
            "task": letter.task,
            "allowed_steps": allowed,
            "plan": list(letter.plan),
            "fixed": letter.fixed,
            "observed": letter.observed,
            "executed": list(letter.executed),
            "rejected": list(letter.rejected),
            "failed": list(letter.failed),
            "remarks": letter.remarks,
            "measures": letter.measures,
            "learned": letter.learned,
            "proposal": letter.proposal,
            "memory": memory,
        }

    def _heed(self, role: Role, letter: Letter, opinion: Opinion) -> None:
        self.simulated = self.simulated or opinion.simulated
        if opinion.remark:
            self._note(role, letter, opinion.remark)
        if opinion.steps is not None and role is Role.IMPROVER:
            refused = refusals_of(opinion.steps, tuple(self._steps))
            if refused:
                self._note(role, letter, f"proposed {', '.join(opinion.steps)}; not taken: {refused[0].reason}")
            else:
                self._propose(letter, list(opinion.steps), "as its mind proposed")
        elif opinion.steps is not None and role.plans:
            if letter.fixed:
                self._note(role, letter, f"proposed {', '.join(opinion.steps)}; not taken: the plan is fixed")
            else:
                letter.plan = list(named_steps(opinion.steps))
        if role is Role.VALIDATOR and opinion.approves is False:
            reason = clean(opinion.remark or "the Validator did not approve")[:_MAX_REMARK]
            self._reject(letter, [StepRefusal(step, reason) for step in letter.plan])

    def _note(self, role: Role, letter: Letter, remark: str) -> None:
        said = clean(remark)[:_MAX_REMARK]
        before = letter.remarks.get(role.value)
        letter.remarks[role.value] = said if before is None else f"{before}\n{said}"
        self.remarks.append({"cycle": letter.cycle, "role": role.value, "text": said})


def _failed(role: Role, kind: str, problem: str) -> RoleFailedError:
    return RoleFailedError(role=role.value, kind=kind, problem=problem)


def _look_away(task: asyncio.Task[Opinion]) -> None:
    """Whoever asked has gone on; what became of it is not to be complained about."""
    if not task.cancelled():
        task.exception()
