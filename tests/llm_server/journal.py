"""Writes down every request the test server got, and how many were in flight at once."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

KEPT_HEADERS = ("accept", "accept-encoding", "content-type", "idempotency-key", "traceparent", "user-agent")


def key_fingerprint(secret: str) -> str:
    """Return what the journal keeps of a bearer token: the first 12 hex digits of its SHA-256."""
    return sha256(secret.encode()).hexdigest()[:12]


@dataclass(slots=True)
class Entry:
    """What is known of one request; times ending in `_monotonic` compare with `time.monotonic()` of any local process.

    `in_flight` counts chat completions at the arrival, this one included. `attempt` counts requests with the very same
    messages, `agent_requests` those of the same agent, both from 1. `status` is null while nothing was answered, and
    `bytes_sent` what the kernel took over for the client. Until `body_complete`, what the body says is not known. `prompt_tokens` and
    `completion_tokens` are what the answer takes, null for one that costs nothing.
    """

    sequence: int
    arrived_monotonic: float
    arrived_wall: float
    in_flight: int
    method: str
    path: str
    host: str | None
    headers: Mapping[str, str]
    authorization: bool
    authorization_sha256: str | None
    counted: bool
    body_complete: bool = False
    model: str | None = None
    agent: str | None = None
    persona: str | None = None
    prompt_sha256: str | None = None
    response_format: bool = False
    stream: bool = False
    attempt: int = 0
    agent_requests: int = 0
    fault: str | None = None
    status: int | None = None
    bytes_sent: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ended_monotonic: float | None = None
    client_disconnected: bool = False
    disconnected_monotonic: float | None = None
    body: Any = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return the entry as an object of JSON values, keyed by the names of its fields."""
        return {name: getattr(self, name) for name in ENTRY_FIELDS}


ENTRY_FIELDS = tuple(each.name for each in fields(Entry))


@dataclass(slots=True)
class Account:
    """What one model took."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, entry: Entry) -> None:
        """Count one answer."""
        self.calls += 1
        self.prompt_tokens += entry.prompt_tokens or 0
        self.completion_tokens += entry.completion_tokens or 0


class Journal:
    """Counts every chat completion from the end of its head to the end of its answer, and forgets none.

    `changed` is called after each count. Only chat completions are counted; other requests are written down.
    """

    def __init__(self, *, changed: Callable[[], None]) -> None:
        self.entries: list[Entry] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self.requests = 0
        self.unread = 0
        self.ended = 0
        self.disconnects = 0
        self.by_fault: Counter[str] = Counter()
        self.by_status: Counter[str] = Counter()
        self.answered: defaultdict[str, Account] = defaultdict(Account)
        self.abandoned: defaultdict[str, Account] = defaultdict(Account)
        self._attempts: Counter[str] = Counter()
        self._of_agent: Counter[str] = Counter()
        self._changed = changed

    def begin(self, *, method: str, path: str, headers: Mapping[str, str], counted: bool) -> Entry:
        """Open the entry of a request whose head is complete."""
        if counted:
            self.requests += 1
            self.unread += 1
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        authorization = headers.get("authorization")
        entry = Entry(
            sequence=len(self.entries) + 1,
            arrived_monotonic=time.monotonic(),
            arrived_wall=time.time(),
            in_flight=self.in_flight,
            method=method,
            path=path,
            host=headers.get("host"),
            headers={name: headers[name] for name in KEPT_HEADERS if name in headers},
            authorization=authorization is not None,
            authorization_sha256=None if authorization is None else _fingerprint(authorization),
            counted=counted,
        )
        self.entries.append(entry)
        return entry

    def read(self, entry: Entry) -> None:
        """Note that the body has been read and its facts stand in the entry."""
        entry.body_complete = True
        self.unread -= 1
        self._changed()

    def attempt_of(self, prompt_sha256: str) -> int:
        """Count one more request with this prompt and return how many there were."""
        self._attempts[prompt_sha256] += 1
        return self._attempts[prompt_sha256]

    def requests_of(self, agent: str) -> int:
        """Count one more request of this agent and return how many there were."""
        self._of_agent[agent] += 1
        return self._of_agent[agent]

    def fault(self, entry: Entry, name: str | None) -> None:
        """Write down the fault that the answer will have; a fault counts even when the client leaves before it."""
        entry.fault = name
        if name is not None:
            self.by_fault[name] += 1

    def bill(self) -> dict[str, Any]:
        """Return what each model took for answers that were sent whole, and what for those whose client left before."""
        return {
            "answered": {model: asdict(account) for model, account in self.answered.items()},
            "abandoned": {model: asdict(account) for model, account in self.abandoned.items()},
        }

    def end(self, entry: Entry, *, disconnected: bool = False, sent_whole: bool = False) -> None:
        """Close the entry: the last byte was handed to the kernel, or the client went away."""
        if entry.prompt_tokens is not None and entry.model is not None and (sent_whole or disconnected):
            (self.answered if sent_whole else self.abandoned)[entry.model].add(entry)
        entry.ended_monotonic = time.monotonic()
        if disconnected:
            entry.client_disconnected = True
            entry.disconnected_monotonic = entry.ended_monotonic
        if not entry.counted:
            return
        self.in_flight -= 1
        self.unread -= not entry.body_complete
        self.ended += 1
        self.disconnects += disconnected
        self.by_status["none" if entry.status is None else str(entry.status)] += 1
        self._changed()

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last reset; `by_status` counts ended requests only, `none` the unanswered."""
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "ended": self.ended,
            "disconnects": self.disconnects,
            "by_fault": dict(self.by_fault),
            "by_status": dict(self.by_status),
        }


def _fingerprint(authorization: str) -> str:
    scheme, _, secret = authorization.partition(" ")
    return key_fingerprint(secret.strip() if scheme.lower() == "bearer" else authorization)
