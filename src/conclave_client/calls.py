"""Every call of a Conclave server, as it is asked and as its answer is read. Nothing here sends anything.

It is one file, because both flavours take each call from here by its name, and a call is little more than its name and its path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack
from urllib.parse import quote as quoted
from urllib.parse import urlencode
from uuid import uuid4

from conclave_client.answer import Answer
from conclave_client.deliberation import Deliberation
from conclave_client.document import Document, read_document
from conclave_client.errors import UnusableArgumentError, WaitTimeoutError
from conclave_client.exchange import Call, Emit, Exchange, Followed, Pause, Plan, StreamPlan
from conclave_client.output import Output
from conclave_client.records import (
    Alive,
    Bundle,
    ConsistencyProof,
    Event,
    Halt,
    InclusionProof,
    LogEntry,
    Pool,
    Quote,
    Readiness,
    Recount,
    Resolution,
    Roster,
    RosterEntry,
    Run,
    RunEvent,
    TrackRecord,
    UsageItem,
)
from conclave_client.terms import RuleTerms, Terms, request_body, rule_body
from conclave_client.webhooks import WebhookKeys

__all__ = [
    "MAX_WAIT_S",
    "Pages",
    "Waiting",
    "alive",
    "ask",
    "bundle",
    "cancel",
    "cancel_run",
    "checkpoint",
    "clear_halt",
    "consistency_proof",
    "deliberate",
    "entry",
    "events",
    "get",
    "get_run",
    "halt",
    "halt_state",
    "inclusion_proof",
    "list_deliberations",
    "list_runs",
    "metrics",
    "minutes",
    "outputs",
    "pool",
    "quote",
    "readiness",
    "recount",
    "report",
    "resolve",
    "roster",
    "rosters",
    "run_events",
    "start_run",
    "tile",
    "track_record",
    "usage",
    "wait",
    "webhook_keys",
]

MAX_WAIT_S = 60.0
_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 2.0
_Document = TypeVar("_Document", bound=Document)
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_TILE = re.compile(r"(?:[0-9]{1,2}|entries)(?:/x[0-9]{3})*/[0-9]{3}(?:\.p/[0-9]{1,3})?")


def deliberate(
    question: str, *, wait_s: float | None = None, idempotency_key: str | None = None, **terms: Unpack[Terms]
) -> Call[Deliberation]:
    """Put a question. Returns the deliberation as soon as it is stored, or within `wait_s` seconds (60 at most) as it has ended.

    It is sent under `idempotency_key`, a random one unless given, and so is accepted once however often the connection breaks. The
    same key and question later, within 24 h, give the same deliberation. See `Terms` for the rest.
    """
    if wait_s is not None and not 0 <= wait_s <= MAX_WAIT_S:
        raise UnusableArgumentError("wait_s", f"must be from 0 to {MAX_WAIT_S:g} seconds; wait() waits longer")
    return Call(
        method="POST",
        path=_with_query("/v1/deliberations", wait=None if wait_s is None else _plainly(wait_s)),
        read=lambda answer: answer.document(Deliberation),
        statuses=(200, 202),
        body=request_body(question, terms),
        headers=_once(idempotency_key),
        extra_time_s=wait_s or 0.0,
    )


def get(deliberation_id: str) -> Call[Deliberation]:
    """The deliberation as it stands."""
    return _document(Deliberation, _deliberation(deliberation_id))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A deliberation to its end. `first` is the call that gives it to begin with."""

    first: Call[Deliberation]
    timeout_s: float | None

    def plan(self, exchange: Exchange) -> Plan[Deliberation]:
        """Look again and again, more seldom the longer it takes."""
        begun = exchange.monotonic()
        found = yield from exchange.perform(self.first)
        while not found.has_ended:
            passed = exchange.monotonic() - begun
            pause = min(max(_FIRST_LOOK_S, passed / 8), _LONGEST_LOOK_S)
            if self.timeout_s is not None:
                if passed >= self.timeout_s:
                    raise WaitTimeoutError(found.id, found.status, self.timeout_s)
                pause = min(pause, self.timeout_s - passed)
            yield Pause(pause)
            found = yield from exchange.perform(get(found.id))
        return found


def wait(deliberation_id: str, *, timeout_s: float | None = None) -> Waiting:
    """The deliberation once it has ended. Raises `WaitTimeoutError` when that takes longer than `timeout_s` seconds."""
    if timeout_s is not None and math.isnan(timeout_s):
        raise UnusableArgumentError("timeout_s", "is no number of seconds")
    return Waiting(get(deliberation_id), timeout_s)


def ask(
    question: str, *, timeout_s: float | None = None, idempotency_key: str | None = None, **terms: Unpack[Terms]
) -> Waiting:
    """Put a question and wait for what comes of it: `deliberate` and `wait` in one. However it ended, it is returned.

    Raises `WaitTimeoutError` after `timeout_s` seconds; the deliberation then goes on.
    """
    first_s = MAX_WAIT_S if timeout_s is None else min(max(timeout_s, 0.0), MAX_WAIT_S)
    return Waiting(deliberate(question, wait_s=first_s, idempotency_key=idempotency_key, **terms), timeout_s)


@dataclass(frozen=True, slots=True)
class Pages(Generic[_Document]):
    """Every item of a list, page by page, each asked for when it is needed."""

    kind: type[_Document]
    path: str
    query: Mapping[str, str | None]

    def plan(self, exchange: Exchange) -> StreamPlan[_Document]:
        """Follow the cursors to the last page."""
        cursor: str | None = None
        while True:
            items, following = yield from exchange.perform(self._page(cursor))
            for item in items:
                yield Emit(item)
            if following is None:
                return
            if following == cursor:
                raise exchange.violation("the next page is the same one")
            cursor = following

    def _page(self, cursor: str | None) -> Call[tuple[tuple[_Document, ...], str | None]]:
        path = _with_query(self.path, **self.query, cursor=cursor)
        return Call(method="GET", path=path, read=lambda answer: answer.page(self.kind))


def list_deliberations(
    *,
    search: str | None = None,
    status: str | None = None,
    origin: str | None = None,
    answer: str | None = None,
    protocol: str | None = None,
    rule: str | None = None,
    outcome: str | None = None,
    simulated: bool | None = None,
    since: str | None = None,
    until: str | None = None,
    page_size: int | None = None,
) -> Pages[Deliberation]:
    """The deliberations that the key sees and that match all of it, newest first.

    `search` are words, each of which has to occur; `answer`, `protocol` and `rule` are kinds; `outcome` is `decided`, `tied` or
    `no_majority`; `since` and `until` are dates or moments (RFC 3339) of acceptance, themselves included.
    """
    query = {
        "search": search,
        "status": status,
        "origin": origin,
        "answer": answer,
        "protocol": protocol,
        "rule": rule,
        "outcome": outcome,
        "simulated": None if simulated is None else str(simulated).lower(),
        "from": since,
        "to": until,
        "limit": _number("page_size", page_size),
    }
    return Pages(Deliberation, "/v1/deliberations", query)


def outputs(deliberation_id: str, *, round_number: int | None = None) -> Call[tuple[Output, ...]]:
    """Every agent's committed outcome; with `round_number` those of that round, 0 being the blind one."""
    path = _with_query(f"{_deliberation(deliberation_id)}/outputs", round=_number("round_number", round_number))
    return _items(Output, path)


def events(deliberation_id: str, *, after: int = 0) -> Followed[Event]:
    """The events after that sequence number, as they are committed, up to the terminal one. A lost connection loses none."""
    path = _deliberation(deliberation_id)
    return Followed(
        path=f"{path}/events",
        after=_place("after", after),
        read=lambda value: read_document(Event, value),
        sequence=lambda event: event.sequence,
        is_terminal=lambda event: event.is_terminal,
        has_ended=Call(method="GET", path=path, read=lambda answer: answer.document(Deliberation).has_ended),
    )


def cancel(deliberation_id: str) -> Call[Deliberation]:
    """Ask for the end of a deliberation. Raises `ConflictError` when it has ended already."""
    return _document(Deliberation, f"{_deliberation(deliberation_id)}/cancel", "POST", 202, repeatable=False)


def recount(deliberation_id: str, rule: str | RuleTerms) -> Call[Recount]:
    """Count the recorded ballots by another rule, without asking anybody. The log keeps that it was done."""
    body = {"rule": rule_body(rule)}
    return _document(Recount, f"{_deliberation(deliberation_id)}/recount", "POST", body=body, repeatable=False)


def resolve(deliberation_id: str, answer: str | float | list[str]) -> Call[Resolution]:
    """Say how the question turned out; returns how near everybody was. The log keeps it."""
    path = f"{_deliberation(deliberation_id)}/resolution"
    return _document(Resolution, path, "POST", body={"answer": answer}, repeatable=False)


def report(deliberation_id: str) -> Call[str]:
    """Everything about a deliberation as one page (HTML)."""
    return _text(f"{_deliberation(deliberation_id)}/report", "text/html")


def minutes(deliberation_id: str) -> Call[str]:
    """The procedural record (Markdown)."""
    return _text(f"{_deliberation(deliberation_id)}/minutes", "text/markdown")


def bundle(deliberation_id: str) -> Call[Bundle]:
    """Everything that verifies a deliberation without its server; `conclave witness verify` does that."""
    return _document(Bundle, f"{_deliberation(deliberation_id)}/bundle")


def quote(question: str, **terms: Unpack[Terms]) -> Call[Quote]:
    """What a deliberation would take, expected and at most, before anything is spent."""
    return _document(Quote, "/v1/quotes", "POST", body=request_body(question, terms))


def usage(by: str) -> Call[tuple[UsageItem, ...]]:
    """What calls took, by `deliberation`, `key`, `provider`, `model` or `day`."""
    return _items(UsageItem, _with_query("/v1/usage", by=by))


def track_record() -> Call[TrackRecord]:
    """Who was right where the truth is known."""
    return _document(TrackRecord, "/v1/track-record")


def rosters() -> Call[tuple[RosterEntry, ...]]:
    """Every roster there is."""
    return _items(RosterEntry, "/v1/rosters")


def roster(name: str) -> Call[Roster]:
    """One roster with its agents."""
    return _document(Roster, f"/v1/rosters/{_segment('name', name)}")


def pool() -> Call[Pool]:
    """How many agent slots are taken."""
    return _document(Pool, "/v1/pool")


def start_run(
    kind: str, arguments: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
) -> Call[Run]:
    """Start a `swarm`, `pantheon`, `soak` or `population` on the server; `arguments` are those of the command line.

    Sent under `idempotency_key`, a random one unless given, it is started once however often the connection breaks.
    """
    return Call(
        method="POST",
        path="/v1/runs",
        read=lambda answer: answer.document(Run),
        statuses=(202,),
        body={"kind": kind, "arguments": dict(arguments or {})},
        headers=_once(idempotency_key),
    )


def get_run(run_id: str) -> Call[Run]:
    """The run as it is recorded."""
    return _document(Run, _run(run_id))


def list_runs(*, status: str | None = None, page_size: int | None = None) -> Pages[Run]:
    """The runs that the key sees, newest first."""
    return Pages(Run, "/v1/runs", {"status": status, "limit": _number("page_size", page_size)})


def run_events(run_id: str, *, after: int = 0) -> Followed[RunEvent]:
    """The events of a run after that sequence number, up to the terminal one. A lost connection loses none."""
    return Followed(
        path=f"{_run(run_id)}/events",
        after=_place("after", after),
        read=lambda value: read_document(RunEvent, value),
        sequence=lambda event: event.sequence,
        is_terminal=lambda event: event.is_terminal,
        has_ended=Call(method="GET", path=_run(run_id), read=lambda answer: answer.document(Run).has_ended),
    )


def cancel_run(run_id: str) -> Call[Run]:
    """Ask for the end of a run. Raises `ConflictError` when it has ended already."""
    return _document(Run, f"{_run(run_id)}/cancel", "POST", 202, repeatable=False)


def halt_state() -> Call[Halt]:
    """Whether the system is halted, and since when and why."""
    return _document(Halt, "/v1/halt")


def halt(reason: str) -> Call[Halt]:
    """Halt the system; an admin's alone. The log keeps the reason."""
    return _document(Halt, "/v1/halt", "POST", body={"reason": reason}, repeatable=False)


def clear_halt(reason: str) -> Call[Halt]:
    """End the halt; an admin's alone. Raises `ConflictError` while a channel is away, and when there is no halt."""
    return _document(Halt, "/v1/halt", "DELETE", body={"reason": reason}, repeatable=False)


def checkpoint() -> Call[str]:
    """The log's size and root, signed (C2SP tlog-checkpoint)."""
    return _text("/v1/witness/checkpoint", "text/plain")


def entry(index: int) -> Call[LogEntry]:
    """One entry of the log."""
    return _document(LogEntry, f"/v1/witness/entries/{_place('index', index)}")


def inclusion_proof(index: int, *, tree_size: int) -> Call[InclusionProof]:
    """The proof that an entry is in the tree of that size. It is not verified here."""
    query = {"index": _place("index", index), "tree_size": _place("tree_size", tree_size)}
    return _document(InclusionProof, _with_query("/v1/witness/proofs/inclusion", **query))


def consistency_proof(first: int, second: int) -> Call[ConsistencyProof]:
    """The proof that the tree of size `second` grew out of that of size `first`. It is not verified here."""
    query = {"first": _place("first", first), "second": _place("second", second)}
    return _document(ConsistencyProof, _with_query("/v1/witness/proofs/consistency", **query))


def tile(path: str) -> Call[bytes]:
    """A tile of the log (C2SP tlog-tiles): `<L>/<N>[.p/<W>]` its hashes, `entries/<N>[.p/<W>]` its entries."""
    if not _TILE.fullmatch(path):
        raise UnusableArgumentError("path", "is not the path of a tile: write it like 0/x001/234.p/5 or entries/000")
    return Call(
        method="GET",
        path=f"/v1/witness/tile/{path}",
        read=lambda answer: answer.content,
        media_type="application/octet-stream",
    )


def alive() -> Call[Alive]:
    """That the server answers."""
    return _document(Alive, "/healthz")


def readiness() -> Call[Readiness]:
    """Whether the server can really work, each dependency by name; also where it cannot."""
    read: Callable[[Answer], Readiness] = lambda answer: answer.document(Readiness)  # noqa: E731
    return Call(method="GET", path="/readyz", read=read, statuses=(200, 503))


def metrics() -> Call[str]:
    """What the server has counted, in the text format of Prometheus."""
    return _text("/metrics", "text/plain")


def webhook_keys() -> Call[WebhookKeys]:
    """The keys that the server signs its webhooks with."""

    def read(answer: Answer) -> WebhookKeys:
        try:
            return WebhookKeys.read(answer.json())
        except UnusableArgumentError as error:
            answer.fail(str(error))

    return Call(method="GET", path="/v1/webhooks/keys", read=read)


def _document(
    kind: type[_Document],
    path: str,
    method: str = "GET",
    status: int = 200,
    *,
    body: Mapping[str, Any] | None = None,
    repeatable: bool = True,
) -> Call[_Document]:
    return Call(
        method=method,
        path=path,
        read=lambda answer: answer.document(kind),
        statuses=(status,),
        body=body,
        repeatable=repeatable,
    )


def _items(kind: type[_Document], path: str) -> Call[tuple[_Document, ...]]:
    """A list that is never cut."""
    return Call(method="GET", path=path, read=lambda answer: answer.page(kind)[0])


def _text(path: str, media_type: str) -> Call[str]:
    return Call(method="GET", path=path, read=Answer.text, media_type=media_type)


def _once(idempotency_key: str | None) -> Mapping[str, str]:
    """The header under which a request may be sent again, and does what it asks for once."""
    key = uuid4().hex if idempotency_key is None else idempotency_key
    if not _KEY.fullmatch(key):
        raise UnusableArgumentError("idempotency_key", "must be 1 to 255 printable ASCII characters")
    return {"Idempotency-Key": key}


def _deliberation(deliberation_id: str) -> str:
    return f"/v1/deliberations/{_segment('deliberation_id', deliberation_id)}"


def _run(run_id: str) -> str:
    return f"/v1/runs/{_segment('run_id', run_id)}"


def _segment(name: str, value: str) -> str:
    """One step of a path, which cannot leave its place."""
    if value in {"", ".", ".."}:
        raise UnusableArgumentError(name, "names nothing")
    try:
        return quoted(value, safe="")
    except UnicodeEncodeError:
        raise UnusableArgumentError(name, "holds a lone surrogate") from None


def _place(name: str, value: int) -> int:
    if value < 0:
        raise UnusableArgumentError(name, "must not be negative")
    return value


def _number(name: str, value: int | None) -> str | None:
    return None if value is None else str(_place(name, value))


def _plainly(number: float) -> str:
    """In digits and a point alone: no server takes an exponent."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _with_query(path: str, **query: str | int | None) -> str:
    wanted = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(wanted)}" if wanted else path
