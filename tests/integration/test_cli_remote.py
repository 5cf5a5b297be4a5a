"""A server over REST: nothing is done twice, nothing is lost, the key goes nowhere else, and nothing is endless."""

import asyncio
import socket
import threading
from collections.abc import Mapping
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from api.cli import http_exchange
from api.cli.http_exchange import Address, ServerRefusedError
from api.cli.remote import RemoteDeliberations
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from tests.unit.api.cli.scripted_server import Reply, answer, events, hang_up, problem, scripted_server

ACCEPTED = {"id": "d-1", "status": "queued"}
ENDED = {"id": "d-1", "status": "completed"}


class Pauses:
    """Takes note of each pause instead of waiting."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


async def followed(remote: RemoteDeliberations) -> list[Mapping[str, Any]]:
    async with aclosing(remote.events("d-1")) as stream:
        return [event async for event in stream if event is not None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_submission_carries_the_body_the_key_and_a_random_idempotency_key() -> None:
    with scripted_server(answer(ACCEPTED, status=202)) as server:
        remote = RemoteDeliberations(server.url, key="secret-1")
        assert await remote.submit({"question": "Why?"}) == ACCEPTED
        await remote.submit({"question": "Why?"})
    first, second = server.asked
    assert (first.method, first.path, first.document) == ("POST", "/v1/deliberations", {"question": "Why?"})
    assert first.headers["Authorization"] == "Bearer secret-1"
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


async def test_a_submission_whose_connection_breaks_is_sent_again_under_the_same_key() -> None:
    with scripted_server(hang_up, answer(ACCEPTED, status=202)) as server:
        assert await RemoteDeliberations(server.url, pause=Pauses()).submit({"question": "Why?"}) == ACCEPTED
    assert len({asked.headers["Idempotency-Key"] for asked in server.asked}) == 1
    assert len(server.asked) == 2


async def test_a_submission_that_is_still_being_accepted_is_asked_for_again() -> None:
    with scripted_server(problem(409, "idempotency-in-progress"), answer(ACCEPTED, status=202)) as server:
        assert await RemoteDeliberations(server.url, pause=Pauses()).submit({"question": "Why?"}) == ACCEPTED


async def test_a_server_that_is_not_there_is_not_tried_again() -> None:
    pauses = Pauses()
    remote = RemoteDeliberations(f"http://127.0.0.1:{free_port()}", pause=pauses)
    with pytest.raises(DependencyUnavailableError, match="Connection refused"):
        await remote.submit({"question": "Why?"})
    assert pauses.taken == []


async def test_without_a_key_none_is_sent() -> None:
    with scripted_server(answer(ENDED)) as server:
        await RemoteDeliberations(server.url).get("d-1")
    assert "Authorization" not in server.asked[0].headers


async def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    with scripted_server(answer(ENDED)) as server:
        await RemoteDeliberations(server.url).get("../halt?x=1#y")
    assert server.asked[0].path == "/v1/deliberations/..%2Fhalt%3Fx%3D1%23y"


async def test_a_path_in_front_of_the_server_is_kept() -> None:
    with scripted_server(answer(ENDED)) as server:
        await RemoteDeliberations(server.url + "/conclave/").get("d-1")
    assert server.asked[0].path == "/conclave/v1/deliberations/d-1"


async def test_a_refusal_names_its_fields_and_keeps_its_slug() -> None:
    errors = [{"pointer": "/answer/options", "detail": "has 1 options"}, {"pointer": "/seed", "detail": "is no number"}]
    with (
        scripted_server(problem(422, "invalid-specification", detail="2 fields", errors=errors)) as server,
        pytest.raises(ServerRefusedError, match="/answer/options: has 1 options; /seed: is no number") as refused,
    ):
        await RemoteDeliberations(server.url).submit({})
    assert (refused.value.http_status, refused.value.problem_slug) == (422, "invalid-specification")


async def test_a_missing_key_is_pointed_at() -> None:
    with (
        scripted_server(problem(401, "unauthenticated", detail="A key is needed.")) as server,
        pytest.raises(ServerRefusedError, match="CONCLAVE_API_KEY"),
    ):
        await RemoteDeliberations(server.url).get("d-1")


async def test_a_redirect_is_not_followed() -> None:
    with scripted_server(answer(ENDED)) as elsewhere:
        redirect = answer(b"", status=307, Location=f"{elsewhere.url}/v1/deliberations")
        with scripted_server(redirect) as server, pytest.raises(ServerRefusedError, match="elsewhere"):
            await RemoteDeliberations(server.url, key="secret-1").get("d-1")
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"<html>"),
        answer(b"[]"),
        answer({"id": 1, "status": "x"}),
        answer(b"\xff\xfe"),
        answer(b'{"id": "d-1", "status": "completed"', Transfer_Encoding="chunked"),
    ],
)
async def test_an_answer_of_something_else_is_no_deliberation(reply: Reply) -> None:
    with scripted_server(reply) as server, pytest.raises(DependencyUnavailableError):
        await RemoteDeliberations(server.url).get("d-1")


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "MAX_REPLY_BYTES", 1000)
    with (
        scripted_server(answer(b" " * 100_000)) as server,
        pytest.raises(DependencyUnavailableError, match="longer than 1000 bytes"),
    ):
        await RemoteDeliberations(server.url).get("d-1")


async def test_a_page_carries_what_was_asked_for() -> None:
    with scripted_server(answer({"items": [ENDED], "next_cursor": "c&2"})) as server:
        page = await RemoteDeliberations(server.url).page(status="failed", limit=5, cursor="c&1")
    assert page == {"items": [ENDED], "next_cursor": "c&2"}
    assert server.asked[0].path == "/v1/deliberations?status=failed&limit=5&cursor=c%261"


async def test_outputs_are_fetched_to_the_last_page() -> None:
    pages = [{"items": [{"agent_id": "a"}], "next_cursor": "2"}, {"items": [{"agent_id": "b"}], "next_cursor": None}]
    with scripted_server(*(answer(page) for page in pages)) as server:
        outputs = await RemoteDeliberations(server.url).outputs("d-1")
    assert [output["agent_id"] for output in outputs] == ["a", "b"]
    assert server.asked[1].path == "/v1/deliberations/d-1/outputs?cursor=2"


async def test_events_go_on_after_the_last_one_that_arrived() -> None:
    with scripted_server(events(1, 2), events(3, 4, terminal=True)) as server:
        found = await followed(RemoteDeliberations(server.url, pause=Pauses()))
    assert [event["sequence"] for event in found] == [1, 2, 3, 4]
    assert [asked.headers["Last-Event-ID"] for asked in server.asked] == ["0", "2"]


async def test_an_event_that_comes_again_is_not_told_again() -> None:
    with scripted_server(events(1, 2), events(1, 2, 3, terminal=True)) as server:
        found = await followed(RemoteDeliberations(server.url, pause=Pauses()))
    assert [event["sequence"] for event in found] == [1, 2, 3]


async def test_a_server_that_is_busy_is_asked_again() -> None:
    with scripted_server(problem(429, "too-many-streams"), events(1, terminal=True)) as server:
        assert len(await followed(RemoteDeliberations(server.url, pause=Pauses()))) == 1


async def test_events_of_nothing_are_refused_at_once() -> None:
    with (
        scripted_server(problem(404, "deliberation-not-found", detail="None.")) as server,
        pytest.raises(ServerRefusedError),
    ):
        await followed(RemoteDeliberations(server.url, pause=Pauses()))
    assert len(server.asked) == 1


@pytest.mark.parametrize("reply", [hang_up, events(), events(pings=1)])
async def test_a_server_that_never_goes_on_is_given_up_with_a_way_to_look_again(reply: Reply) -> None:
    pauses = Pauses()
    with scripted_server(reply) as server:
        with pytest.raises(DependencyUnavailableError, match="conclave show d-1 --server"):
            await followed(RemoteDeliberations(server.url, pause=pauses))
        assert len(server.asked) == len(pauses.taken) + 1
    assert sum(pauses.taken) >= 30


async def test_progress_forgives_earlier_failures() -> None:
    replies = [reply for sequence in range(1, 13) for reply in (hang_up, events(sequence))]
    with scripted_server(*replies, events(13, terminal=True)) as server:
        assert len(await followed(RemoteDeliberations(server.url, pause=Pauses()))) == 13


async def test_an_event_of_something_else_is_refused() -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        answer(b'data: {"sequence": "1"}\n\n')(handler)

    with scripted_server(reply) as server, pytest.raises(DependencyUnavailableError):
        await followed(RemoteDeliberations(server.url, pause=Pauses()))


async def test_leaving_closes_the_stream() -> None:
    begun, gone = threading.Event(), threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        events(1)(handler)
        begun.set()
        # Nothing more is sent, so that a read that ends means that the other side has closed.
        if handler.rfile.read(1) == b"":
            gone.set()

    with scripted_server(endless) as server:
        following = asyncio.create_task(followed(RemoteDeliberations(server.url)))
        await asyncio.to_thread(begun.wait, 5)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert await asyncio.to_thread(gone.wait, 5)


async def test_a_cancelled_call_does_not_wait_for_its_answer() -> None:
    begun, released = threading.Event(), threading.Event()

    def silent(_handler: BaseHTTPRequestHandler) -> None:
        begun.set()
        released.wait(5)

    with scripted_server(silent) as server:
        asking = asyncio.create_task(RemoteDeliberations(server.url).get("d-1"))
        await asyncio.to_thread(begun.wait, 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        released.set()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8000",
        "http://",
        "http://host:99999",
        "http://user:secret@host",
        "http://host/?x=1",
        "http://ho st",
        "http://h\u00f6st",
        "http://host\n",
        "",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--server") as refused:
        Address.parse(url)
    assert "secret" not in str(refused.value)


def test_an_address_keeps_scheme_host_port_and_path() -> None:
    assert str(Address.parse("https://[::1]/base/")) == "https://[::1]:443/base"


@pytest.mark.parametrize("key", ["two\nlines", "schl\u00fcssel"])
def test_a_key_that_no_header_carries_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="CONCLAVE_API_KEY") as refused:
        RemoteDeliberations("http://127.0.0.1:1", key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "in_the_clear"),
    [
        ("http://127.0.0.1:1", False),
        ("http://localhost:1", False),
        ("http://[::1]:1", False),
        ("https://far.example", False),
        ("http://far.example", True),
        ("http://10.0.0.1", True),
    ],
)
def test_a_key_in_the_clear_is_noticed(url: str, in_the_clear: bool) -> None:
    assert RemoteDeliberations(url, key="secret-1").sends_key_in_the_clear is in_the_clear
    assert RemoteDeliberations(url).sends_key_in_the_clear is False
