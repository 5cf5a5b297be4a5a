"""The Log: writes down what it hears, for people in session.log and for programs in traces.jsonl."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quoted

from application.ports.clock import Clock
from application.services.swarm.session_store import SessionStore
from application.services.swarm.task import TaskTerms
from application.services.swarm.voice import Voice
from application.services.swarm.words import COORDINATOR, DELEGATIONS, EVENTS, LOG, Delegated, Say
from domain.models.message import Message, Payload

__all__ = ["Log"]

_SHOWN_CHARACTERS = 120


class Log:
    """One line for each thing heard, in the order in which it was; those heard together bear the same time."""

    name = LOG

    def __init__(
        self,
        voice: Voice,
        terms: TaskTerms,
        store: SessionStore,
        *,
        clock: Clock,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.groups = (DELEGATIONS, EVENTS, terms.group)
        self._voice = voice
        self._terms = terms
        self._store = store
        self._clock = clock
        self._timer = timer
        self._asked_at: dict[int, tuple[str, float]] = {}
        self._lines = 0

    async def take(self, messages: list[Message]) -> None:
        """Write it down. Lines are few and short and nothing is synced, so they are written from here, at once."""
        at = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        now = self._timer()
        lines: list[str] = []
        traces: list[str] = []
        requests: list[Message] = []
        for message in messages:
            if message.correlation_id is not None and message.sender == COORDINATOR:
                requests.append(message)
                continue
            lines += [f"[{at}] [{level}] {line}" for level, line in self._in_words(message)]
            traces.append(self._trace(message, at, now))
        if lines:
            self._store.append("session.log", lines)
            self._lines += len(lines)
        if traces:
            self._store.append("traces.jsonl", traces)
        for request in requests:
            await self._voice.answer(request, {"lines": self._lines})

    def _in_words(self, message: Message) -> list[tuple[str, str]]:
        payload = message.payload if isinstance(message.payload, dict) else {}
        if message.type == self._terms.result_type:
            return [("INFO", f"{_one_line(message.sender)}: {_one_line(payload.get('result'))}")]
        if message.type == Say.FAILED:
            reason = f"{_one_line(payload.get('kind'))}: {_one_line(payload.get('message'))}"
            return [("WARNING", f"{_one_line(payload.get('agent_id'))} failed, {reason}")]
        if message.type == Say.DELEGATE and message.sender == COORDINATOR:
            return [self._delegation(delegated) for delegated in Delegated.read(payload)]
        if message.type == Say.EVENT and message.sender == COORDINATOR:
            level = "WARNING" if payload.get("warning") else "INFO"
            return [(level, _one_line(payload.get("text")))]
        return [("WARNING", f"{_one_line(message.sender)} said {_one_line(message.type)}, which means nothing here")]

    def _delegation(self, delegated: Delegated) -> tuple[str, str]:
        self._asked_at[delegated.batch] = (delegated.tool, delegated.at)
        first, last = self._terms.agent_id(delegated.numbers[0]), delegated.numbers[-1]
        again = f", attempt {delegated.attempt}" if delegated.attempt > 1 else ""
        line = (
            f"batch {delegated.batch}{again}: {len(delegated.numbers)} agents ({first} to {last}) to {delegated.tool}"
        )
        return ("WARNING" if again else "INFO"), line

    def _trace(self, message: Message, at: str, now: float) -> str:
        # Put together by hand, because there is one for each message and a general encoder takes four times as long.
        head = (
            f'{{"at": "{at}", "type": {_quoted(message.type)}, "from": {_quoted(message.sender)}, '
            f'"to": {_quoted(message.recipient)}, "id": {_quoted(message.id)}'
        )
        payload = message.payload
        if isinstance(payload, dict):
            batch, attempt = payload.get("batch"), payload.get("attempt")
            if type(batch) is int and type(attempt) is int and batch in self._asked_at:
                tool, asked_at = self._asked_at[batch]
                latency = round((now - asked_at) * 1e6, 1)
                return f'{head}, "batch": {batch}, "attempt": {attempt}, "tool": {_quoted(tool)}, "latency_us": {latency}}}'
            if message.type == Say.EVENT:
                return f'{head}, "event": {_quoted(str(payload.get("event")))}}}'
        return f"{head}}}"


def _one_line(value: Payload) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
