"""The Coordinator: splits the task into batches, delegates them, and has retried what failed, fell silent or died."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from application.services.swarm.task import UNLIMITED, TaskTerms
from application.services.swarm.voice import Voice
from application.services.swarm.words import (
    ACTOR,
    BACKUP,
    COORDINATOR,
    DELEGATIONS,
    EVENTS,
    LOG,
    MEMORY,
    OBSERVER,
    SAFETY,
    TOOL,
    Delegated,
    Say,
    text_of,
)
from domain.errors.bus import ReceiveTimeoutError, RequestTimeoutError, UnknownAgentError
from domain.models.message import Message, Payload
from domain.models.swarm import SwarmPlan

__all__ = ["Coordinator", "Liveness", "Trouble"]

_AT_A_TIME = 20_000
_BATCHES_AT_A_TIME = 2_000
_STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Liveness:
    """How the Coordinator knows that another instance lives: it says so every `beat_s`, and is gone after `dead_after_s` of silence."""

    beat_s: float = 0.5
    dead_after_s: float = 4.0


@dataclass(slots=True)
class Trouble:
    """An agent that failed, fell silent or died, with the last that was known of it."""

    agent_id: str
    number: int
    batch: int
    kind: str
    message: str
    attempts: int

    def document(self, *, counted: bool) -> dict[str, Payload]:
        """As it is reported."""
        return {
            "agent_id": self.agent_id,
            "batch": self.batch,
            "kind": self.kind,
            "message": self.message,
            "attempts": self.attempts,
            "counted": counted,
        }


@dataclass(slots=True)
class _Batch:
    number: int
    # Who is yet to be heard of.
    agents: tuple[int, ...]
    attempt: int = 1
    # Attempts that were the agents' own: those that ended with their instance do not count.
    tries: int = 1
    tool: str = ""
    due: float = 0.0
    # Who failed, and whether asking again cannot help.
    failed: dict[int, bool] = field(default_factory=dict)


@dataclass(slots=True)
class _Instance:
    slots: int
    heard_at: float
    is_local: bool = False
    in_flight: int = 0
    facts: dict[str, Payload] = field(default_factory=dict)


class Coordinator:
    """Delegates every batch until all of its agents are counted or were asked as often as may be, then has all put on the disk.

    Another instance gets work whenever it comes, and its batches go to the others when it is gone.
    """

    name = COORDINATOR

    def __init__(
        self,
        voice: Voice,
        plan: SwarmPlan,
        terms: TaskTerms,
        *,
        slots: int = UNLIMITED,
        liveness: Liveness | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`slots` is how many agents act at once in the process of the roles."""
        self.troubles: dict[int, Trouble] = {}
        self.vetoes: list[dict[str, Payload]] = []
        # Why the swarm ends before all is done, None while nobody wants that.
        self.ended_by: str | None = None
        self.retried: set[int] = set()
        self.gone: list[str] = []
        self._voice = voice
        self._plan = plan
        self._terms = terms
        self._liveness = Liveness() if liveness is None else liveness
        self._timer = timer
        self._waiting = deque(_Batch(place, agents) for place, agents in enumerate(plan.batches, start=1))
        self._running: dict[int, _Batch] = {}
        self._instances = {TOOL: _Instance(slots, float("inf"), is_local=True)}
        self._said_events: list[Message] = []

    @property
    def instances(self) -> dict[str, dict[str, Payload]]:
        """Every instance that took part beside this process, by name, and what it said of itself."""
        return {name: one.facts for name, one in self._instances.items() if not one.is_local}

    async def gather(self, names: set[str], *, patience_s: float) -> set[str]:
        """Wait for these instances to be ready; those that are not after `patience_s` seconds are returned."""
        until = self._timer() + patience_s
        while missing := names - self._instances.keys() - set(self.gone):
            left = until - self._timer()
            if left <= 0 or self.ended_by is not None:
                return missing
            await self._hear(left)
        return names & set(self.gone)

    async def run(self) -> None:
        """Return when every batch has ended, or the swarm is to end."""
        await self._delegate()
        while (self._waiting or self._running) and self.ended_by is None:
            await self._hear(self._next_look())
            await self._look_after(self._timer())
            await self._delegate()
        if self.ended_by is not None:
            # Nothing is handed over after this: what the Actor was sent before, it has dealt with.
            await self._voice.ask(COORDINATOR, ACTOR, Say.STOP)

    async def take_stock(self) -> tuple[dict[str, Payload], dict[str, Payload], dict[str, Payload]]:
        """What Memory remembers (which hands it to Backup), what Safety cleared, and what the Observer counted."""
        asked = ((MEMORY, Say.HAND_OVER), (SAFETY, Say.VERDICT), (OBSERVER, Say.COUNTS))
        found = await asyncio.gather(*(self._voice.ask(COORDINATOR, name, what) for name, what in asked))
        return found[0], found[1], found[2]

    async def back_up(self, payload: dict[str, Payload]) -> int:
        """Have Backup write; how many bytes."""
        written = (await self._voice.ask(COORDINATOR, BACKUP, Say.WRITE, payload)).get("bytes")
        return written if isinstance(written, int) else 0

    async def stop_instances(self) -> dict[str, dict[str, Payload]]:
        """End every instance, this process' own Tool included; what each says that it used."""
        living = [name for name in self._instances if name not in self.gone]
        answers = await asyncio.gather(*(self._stop(name) for name in living))
        return {name: answer for name, answer in zip(living, answers, strict=True) if answer is not None}

    async def close_log(self) -> None:
        """Return once all that was said is written down."""
        await self._tell_events()
        await self._voice.ask(COORDINATOR, LOG, Say.WRITE)

    def say(self, event: str, text: str, *, warning: bool = False, **facts: Payload) -> None:
        """Tell Observer and Log, with the next delegation or look."""
        payload: dict[str, Payload] = {"event": event, "text": text, "warning": warning, **facts}
        self._said_events.append(Message(COORDINATOR, EVENTS, Say.EVENT, payload))

    async def _stop(self, name: str) -> dict[str, Payload] | None:
        try:
            return await self._voice.ask(COORDINATOR, name, Say.STOP, timeout=_STOP_S)
        except (RequestTimeoutError, UnknownAgentError):
            return None

    async def _tell_events(self) -> None:
        events, self._said_events = self._said_events, []
        await self._voice.say(events, inboxes=2)

    def _next_look(self) -> float:
        """Seconds until something may be overdue."""
        now = self._timer()
        due = min((batch.due for batch in self._running.values()), default=now + self._plan.patience_s)
        quiet = [one.heard_at + self._liveness.dead_after_s for one in self._instances.values() if not one.is_local]
        return max(0.001, min([due, *quiet]) - now)

    async def _hear(self, timeout: float) -> None:
        """Deal with what comes, waiting for it at most `timeout` seconds."""
        try:
            messages = await self._voice.bus.receive_many(COORDINATOR, _AT_A_TIME, timeout=timeout)
        except ReceiveTimeoutError:
            return
        self._voice.note_heard(len(messages))
        for message in messages:
            await self._deal_with(message)

    async def _deal_with(self, message: Message) -> None:
        payload = message.payload if isinstance(message.payload, dict) else {}
        match message.type:
            case Say.REMEMBERED if message.sender == MEMORY:
                self._note_ended(payload)
            case Say.VETO if message.sender == SAFETY:
                self.vetoes.append(payload)
                self.ended_by = self.ended_by or "vetoed"
                self.say(
                    "vetoed",
                    f"Safety halts the swarm: {text_of(payload.get('rule'))}, {text_of(payload.get('detail'))}",
                    warning=True,
                )
            case Say.END:
                self.ended_by = self.ended_by or str(payload.get("reason"))
            case Say.HELLO:
                await self._voice.answer(message, self._facts())
            case Say.READY:
                await self._admit(message, payload)
            case Say.ALIVE:
                known = message.sender in self._instances and message.sender not in self.gone
                if known:
                    self._instances[message.sender].heard_at = self._timer()
                await self._voice.answer(message, {"known": known})
            case Say.GONE:
                await self._bury(message.sender, str(payload.get("why")))

    def _facts(self) -> Payload:
        """What an instance has to know of the session."""
        plan = self._plan
        return {
            "session": plan.session,
            "task": plan.task,
            "agents": plan.agents,
            "seed": plan.seed,
            "has_items": plan.items is not None,
            "beat_s": self._liveness.beat_s,
        }

    async def _admit(self, message: Message, payload: Mapping[str, Payload]) -> None:
        slots = payload.get("slots")
        accepted = isinstance(slots, int) and slots > 0 and message.sender not in self._instances
        if accepted and isinstance(slots, int):
            facts = {name: payload.get(name) for name in ("host", "pid", "slots")}
            self._instances[message.sender] = _Instance(slots, self._timer(), facts=facts)
            self.say(
                "instance_ready", f"{message.sender} is ready (pid {text_of(facts['pid'])} on {text_of(facts['host'])})"
            )
        await self._voice.answer(message, {"accepted": accepted})

    def _note_ended(self, payload: Mapping[str, Payload]) -> None:
        self._note_failures(payload.get("failures"))
        ended = payload.get("batches")
        for number in ended if isinstance(ended, list) else ():
            batch = self._running.pop(number, None) if isinstance(number, int) else None
            if batch is not None:
                self._take_back(batch)
                self._retry(batch, [])

    def _note_failures(self, failures: Payload) -> None:
        for failure in failures if isinstance(failures, list) else ():
            match failure:
                case {
                    "number": int(number),
                    "batch": int(place),
                    "kind": str(kind),
                    "message": str(text),
                    "final": bool(final),
                } if (batch := self._running.get(place)) is not None:
                    batch.failed[number] = final
                    self._note_trouble(number, batch, kind, text)

    def _note_trouble(self, number: int, batch: _Batch, kind: str, text: str) -> None:
        agent_id = self._terms.agent_id(number)
        self.troubles[number] = Trouble(agent_id, number, batch.number, kind, text, batch.attempt)

    def _take_back(self, batch: _Batch) -> None:
        instance = self._instances.get(batch.tool)
        if instance is not None:
            instance.in_flight -= len(batch.agents)

    def _retry(self, batch: _Batch, unheard: list[int], *, own_fault: bool = True) -> None:
        """Put back those agents of a batch that failed or were not heard of, as far as they may be asked once more."""
        again = sorted({*unheard, *(number for number, final in batch.failed.items() if not final)})
        if not again or (own_fault and batch.tries >= self._plan.max_attempts):
            return
        tries = batch.tries + 1 if own_fault else batch.tries
        self._waiting.appendleft(_Batch(batch.number, tuple(again), batch.attempt + 1, tries))
        self.retried.add(batch.number)
        names = ", ".join(map(self._terms.agent_id, again[:_NAMED])) + (", ..." if len(again) > _NAMED else "")
        self.say("batch_retried", f"batch {batch.number} is retried: {names}", warning=True, batch=batch.number)

    async def _look_after(self, now: float) -> None:
        """Retry what is overdue, and give up on instances that have been silent for too long."""
        for name, one in list(self._instances.items()):
            if not one.is_local and name not in self.gone and now - one.heard_at > self._liveness.dead_after_s:
                await self._bury(name, f"silent for {self._liveness.dead_after_s:g} s")
        overdue = [batch for batch in self._running.values() if batch.due <= now]
        if overdue:
            text = f"not heard of within {self._plan.patience_s:g} s"
            await self._settle(overdue, kind="silent", text=text, own_fault=True)

    async def _bury(self, name: str, why: str) -> None:
        """An instance is gone: its agents are asked for elsewhere."""
        if name in self.gone or name == TOOL:
            return
        self.gone.append(name)
        self.say("instance_gone", f"{name} is gone: {why}", warning=True, instance=name)
        held = [batch for batch in self._running.values() if batch.tool == name]
        if held:
            await self._settle(held, kind="gone", text=f"its instance {name} is gone: {why}", own_fault=False)

    async def _settle(self, batches: list[_Batch], *, kind: str, text: str, own_fault: bool) -> None:
        """End these batches as they are: name whom nobody heard of, and retry."""
        numbers: Payload = [batch.number for batch in batches]
        found = await self._voice.ask(COORDINATOR, MEMORY, Say.MISSING, {"batches": numbers})
        self._note_failures(found.get("failures"))
        missing = found.get("missing")
        for batch in batches:
            # It may have ended while Memory was asked.
            if self._running.pop(batch.number, None) is None:
                continue
            self._take_back(batch)
            listed = missing.get(str(batch.number)) if isinstance(missing, dict) else None
            unheard = [number for number in listed if isinstance(number, int)] if isinstance(listed, list) else []
            for number in unheard:
                self._note_trouble(number, batch, kind, text)
            self._retry(batch, unheard, own_fault=own_fault)

    async def _delegate(self) -> None:
        """Give batches to instances that have room, the least busy first, and say what happened meanwhile."""
        delegated: list[Payload] = []
        now = self._timer()
        living = {name: one for name, one in self._instances.items() if name not in self.gone}
        while self._waiting and self.ended_by is None:
            batch = self._waiting[0]
            size = len(batch.agents)
            roomy = [name for name, one in living.items() if not one.in_flight or one.in_flight + size <= one.slots]
            if not roomy:
                break
            tool = min(roomy, key=lambda name: living[name].in_flight)
            living[tool].in_flight += size
            batch.tool, batch.due = tool, now + self._plan.patience_s
            self._running[batch.number] = self._waiting.popleft()
            tickets = tuple(secrets.token_hex(8) for _ in batch.agents)
            delegated.append(
                Delegated(batch.number, batch.attempt, tool, batch.agents, tickets, self._timer()).payload()
            )
        await self._tell_events()
        for first in range(0, len(delegated), _BATCHES_AT_A_TIME):
            payload: Payload = {"batches": delegated[first : first + _BATCHES_AT_A_TIME]}
            await self._voice.say([Message(COORDINATOR, DELEGATIONS, Say.DELEGATE, payload)], inboxes=5)


_NAMED = 10
