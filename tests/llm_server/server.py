"""Answers as an OpenAI-compatible model provider would, and tells tests from outside what reached it."""

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from tests.llm_server.ballots import ballot_content
from tests.llm_server.behaviour import Behaviour, ConfigurationError
from tests.llm_server.completion import ChatRequest, Completion, UnreadableChatError
from tests.llm_server.connection import Connection, Exchange
from tests.llm_server.dialects import Standing
from tests.llm_server.embeddings import embeddings_reply
from tests.llm_server.faults import FAULTS
from tests.llm_server.journal import Journal
from tests.llm_server.rate_limit import admit
from tests.llm_server.reply import REDIRECTED_PATH, FaultSettings, Occasion, Reply, error_reply, json_reply, refusal
from tests.llm_server.waiters import Waiters
from tests.llm_server.wire import RequestHead

CHAT_PATH = "/v1/chat/completions"
BACKLOG = 4096
REMEMBERED_BODIES = 2048
REMEMBERED_BYTES = 32 * 1024
OPENING_TAG, CLOSING_TAG, LABEL = "<persona>", "</persona>", "persona:"
DEFAULT_SETTINGS = FaultSettings()
RATE_LIMIT = "rate_limit"
NO_HEADERS: Mapping[str, str] = {}


class Server:
    """Serves one model provider on one port; what tests configure, read and wait for goes over the same port.

    Only `POST /v1/chat/completions` counts as in flight and meets faults. Paths that begin with `/_` are the server's
    own: they are neither counted nor written down.
    """

    def __init__(self, *, behaviour: Behaviour) -> None:
        self._initial = behaviour
        self._behaviour = behaviour.changed({})
        self._waiters = Waiters(reached=self._reached, stats=self._stats)
        self._journal = Journal(changed=self._waiters.look)
        self._connections: set[Connection] = set()
        self._contents: dict[bytes, tuple[ChatRequest, str]] = {}
        self._gates: list[asyncio.Future[None]] = []
        self._listener: asyncio.Server | None = None

    async def start(self, *, host: str, port: int) -> int:
        """Listen, and return the port (the one given, or the free one found for 0)."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        return int(self._listener.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def begin(self, head: RequestHead) -> Exchange:
        own = head.path.startswith("/_")
        counted = head.method == "POST" and head.path == CHAT_PATH
        entry = (
            None
            if own
            else self._journal.begin(method=head.method, path=head.path, headers=head.headers, counted=counted)
        )
        self._waiters.look()
        return Exchange(head=head, journal=self._journal, entry=entry)

    def serve(self, connection: Connection, exchange: Exchange, body: bytes) -> None:
        head = exchange.head
        match head.method, head.path:
            case "POST", "/v1/chat/completions":
                self._complete(connection, exchange, body)
            case "POST", "/v1/embeddings":
                if exchange.entry is not None:
                    exchange.journal.read(exchange.entry)
                connection.answer(exchange, embeddings_reply(body))
            case "GET", "/v1/models":
                connection.answer(exchange, json_reply(self._behaviour.dialect.models(self._behaviour.models)))
            case (("GET" | "POST"), path) if path == REDIRECTED_PATH:
                connection.answer(exchange, self._redirected(exchange, body))
            case "GET", "/_wait":
                self._waiters.add(connection, exchange)
            case "POST", "/_reset":
                self._reset(keep=connection)
                connection.answer(exchange, json_reply(self._stats()))
            case _, path if path.startswith("/_"):
                connection.answer(exchange, self._control(head, body))
            case _:
                connection.answer(exchange, error_reply(404, "Unknown request URL.", kind="invalid_request_error"))

    def _complete(self, connection: Connection, exchange: Exchange, body: bytes) -> None:
        try:
            request, content = self._read(body)
        except UnreadableChatError as error:
            if exchange.entry is not None:
                exchange.journal.read(exchange.entry)
            reply = error_reply(400, error.reason, kind="invalid_request_error", dialect=self._behaviour.dialect)
            connection.answer(exchange, reply)
            return
        agent = self._write_down(exchange, request)
        entry, dialect = exchange.entry, self._behaviour.dialect
        sequence = 0 if entry is None else entry.sequence
        completion = self._completion(request, content, sequence=sequence)
        refused_for, standings = 0.0, list[Standing]()
        if self._behaviour.rates:
            now = asyncio.get_running_loop().time() if entry is None else entry.arrived_monotonic
            limits = [limit for limit in self._behaviour.rates if limit.concerns(request)]
            tokens = completion.prompt_tokens + completion.completion_tokens
            refused_for = admit(limits, now=now, tokens=tokens)
            standings = [standing for limit in limits for standing in limit.standings(now)]
        complaint = dialect.refused(request.body)
        rule = None if refused_for or complaint else self._behaviour.rule_for(request, agent=agent)
        occasion = Occasion(
            request=request,
            completion=completion,
            settings=DEFAULT_SETTINGS if rule is None else rule.settings,
            gate=self._gate,
            headers=dialect.limits(standings) if standings else NO_HEADERS,
        )
        if refused_for:
            if entry is not None:
                exchange.journal.fault(entry, RATE_LIMIT)
                exchange.journal.read(entry)
            connection.answer(exchange, _too_fast(occasion, refused_for))
            return
        latency = self._behaviour.latency if rule is None or rule.latency is None else rule.latency
        wait = latency.seconds(f"{self._behaviour.seed}:{sequence}:{request.prompt_sha256}")
        if complaint is not None:
            reply = occasion.error(400, complaint, kind="invalid_request_error", code="unsupported_parameter")
        elif rule is None or rule.fault is None:
            reply = Reply(occasion.good(), bill=occasion.bill)
        else:
            reply = FAULTS[rule.fault](occasion)
            if entry is not None:
                exchange.journal.fault(entry, rule.fault)
        if entry is None:
            connection.answer(exchange, reply)
        else:
            if reply.bill is not None:
                entry.prompt_tokens, entry.completion_tokens = reply.bill
            exchange.journal.read(entry)
            connection.answer_at(exchange, reply, due=entry.arrived_monotonic + wait)

    def _write_down(self, exchange: Exchange, request: ChatRequest) -> str | None:
        """Note who asks, and return the agent: from the configured texts, `user`, or an `X-Agent-Id` header."""
        found = self._behaviour.agent_in(request.text)
        agent = found[0] if found else request.user or exchange.head.headers.get("x-agent-id")
        entry, journal = exchange.entry, exchange.journal
        if entry is None:
            return agent
        entry.model = request.model
        entry.agent = agent
        entry.persona = found[1] if found else _persona_in(request.text)
        entry.prompt_sha256 = request.prompt_sha256
        entry.response_format = request.has_response_format
        entry.stream = request.stream
        entry.attempt = journal.attempt_of(request.prompt_sha256)
        entry.agent_requests = 0 if agent is None else journal.requests_of(agent)
        entry.body = request.body if self._behaviour.record_bodies else None
        return agent

    def _read(self, body: bytes) -> tuple[ChatRequest, str]:
        """Read a request and decide what a good answer says; benchmarks ask the same again, so that is remembered."""
        known = self._contents.get(body)
        if known is not None:
            return known
        request = ChatRequest.read(body)
        content = self._behaviour.answer_for(request)
        if content is None:
            content = ballot_content(
                schema=request.schema,
                text=request.text,
                prompt_sha256=request.prompt_sha256,
                seed=self._behaviour.seed,
                weights=self._behaviour.answer_weights,
            )
            if request.has_response_format:
                content = self._behaviour.dialect.says(content)
        if len(body) <= REMEMBERED_BYTES and len(self._contents) < REMEMBERED_BODIES:
            self._contents[body] = request, content
        return request, content

    def _redirected(self, exchange: Exchange, body: bytes) -> Reply:
        """Answer a client that followed a redirect as if all were well; the journal tells that it did."""
        if not body:
            body = json.dumps({"model": "redirected", "messages": [{"role": "user", "content": ""}]}).encode()
        try:
            request, content = self._read(body)
        except UnreadableChatError as error:
            return error_reply(400, error.reason, kind="invalid_request_error")
        sequence = 0 if exchange.entry is None else exchange.entry.sequence
        return Reply(self._completion(request, content, sequence=sequence).response(request))

    def _completion(self, request: ChatRequest, content: str, *, sequence: int) -> Completion:
        behaviour = self._behaviour
        fixed = behaviour.usage
        return Completion(
            identity=f"chatcmpl-{sequence}",
            model=request.model,
            content=content,
            prompt_tokens=fixed.get("prompt_tokens", math.ceil(len(request.text) / 4)),
            completion_tokens=fixed.get("completion_tokens", math.ceil(len(content) / 4)),
            thinking_tokens=fixed.get("thinking_tokens", 0),
            dialect=behaviour.dialect,
        )

    def _control(self, head: RequestHead, body: bytes) -> Reply:
        match head.method, head.path:
            case "GET", "/_stats":
                return json_reply(self._stats())
            case "GET", "/_journal":
                since = head.query.get("since", "0")
                if not since.isdecimal():
                    return refusal(f"since is {since!r}: give the sequence of an entry")
                entries = self._journal.entries[int(since) :]
                return json_reply({"entries": [each.as_json() for each in entries]})
            case "GET", "/_bill":
                return json_reply(self._journal.bill())
            case "POST", "/_configure":
                try:
                    self._behaviour = self._behaviour.changed(json.loads(body))
                    self._contents.clear()
                except (ConfigurationError, ValueError) as error:
                    return refusal(str(error))
                return json_reply({})
            case "POST", "/_release":
                count = head.query.get("count", str(len(self._gates)))
                if not count.isdecimal():
                    return refusal(f"count is {count!r}: give how many held answers to let go")
                return json_reply({"released": self._release(int(count))})
            case _:
                return error_reply(404, f"{head.path!r} is no endpoint of the test server.", kind="configuration")

    def _stats(self) -> dict[str, Any]:
        return {**self._journal.stats(), "connections": len(self._connections), "held": len(self._gates)}

    def _reset(self, *, keep: Connection) -> None:
        """Forget everything, and drop the connections that still wait for an answer: their entries are gone too."""
        self._behaviour = self._initial.changed({})
        self._contents.clear()
        self._journal = Journal(changed=self._waiters.look)
        for connection in list(self._connections):
            if connection is not keep:
                connection.give_up()

    async def _gate(self) -> None:
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        self._waiters.look()
        try:
            await gate
        finally:
            if gate in self._gates:
                self._gates.remove(gate)

    def _release(self, count: int) -> int:
        """Let the oldest held answers go, and return how many there were to let go."""
        # A gate whose client has left is cancelled before it takes itself off the list.
        waiting = [gate for gate in self._gates if not gate.done()]
        let_go, self._gates = waiting[:count], waiting[count:]
        for gate in let_go:
            gate.set_result(None)
        return len(let_go)

    def _reached(self) -> Mapping[str, int]:
        """Return what bounds are held against; but for `begun`, requests count once their bodies stand in the journal."""
        journal = self._journal
        return {
            "in_flight_at_least": journal.in_flight - journal.unread,
            "in_flight_at_most": journal.in_flight,
            "begun_at_least": journal.requests,
            "requests_at_least": journal.requests - journal.unread,
            "ended_at_least": journal.ended,
            "disconnects_at_least": journal.disconnects,
            "held_at_least": len(self._gates),
        }


def _too_fast(occasion: Occasion, seconds: float) -> Reply:
    return occasion.error(
        429,
        "Rate limit reached.",
        kind="requests",
        code="rate_limit_exceeded",
        retry_after_s=seconds,
        headers=occasion.completion.dialect.retry_headers(seconds),
    )


def _persona_in(text: str) -> str | None:
    """Return what stands between persona tags, or after "Persona:" on a line; plain searches keep the server fast."""
    lowered = text.lower()
    if len(lowered) != len(text):
        return None
    start = lowered.find(OPENING_TAG)
    if start >= 0:
        end = lowered.find(CLOSING_TAG, start)
        return text[start + len(OPENING_TAG) : end].strip() if end >= 0 else None
    start = lowered.find(LABEL)
    if start < 0 or lowered[lowered.rfind("\n", 0, start) + 1 : start].strip():
        return None
    return text[start + len(LABEL) :].partition("\n")[0].strip()
