"""The room's feed over real HTTP: to each key its own, in bounded number, and over when the server is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.conclave_fixture import RunningServer, running_server, server_process
from tests.patience import eventually

KEYS = "ada:operator:ada-secret,bob:operator:bob-secret,eve:observer:eve-secret"
ADA, BOB, EVE = ({"Authorization": f"Bearer {name}-secret"} for name in ("ada", "bob", "eve"))
QUESTION = {"question": "Close the centre?", "answer": {"kind": "choice", "options": ["yes", "no"]}}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """One with keys, whose agents never answer."""
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(orchestrator=AgentOrchestratorStub(hanging=hanging), keys=KEYS) as running:
        yield running


def first_frame(server: RunningServer, query: str, headers: dict[str, str]) -> bytes:
    """What stands in the first frame."""
    with server.events(f"/room/feed{query}", headers=headers) as stream:
        assert stream.status == 200
        while not (line := stream.readline()).startswith(b"data:"):
            assert line, "the stream ended"
        return line


def test_two_keys_do_not_see_each_others_feed(server: RunningServer) -> None:
    of_ada = server.post({**QUESTION, "question": "Ada asks"}, headers=ADA).document["id"]
    of_bob = server.post({**QUESTION, "question": "Bob asks"}, headers=BOB).document["id"]
    assert server.ask("GET", f"/room/feed?deliberation={of_ada}", headers=BOB).status == 404
    assert server.ask("GET", f"/deliberations/{of_ada}", headers=BOB).status == 404
    assert server.ask("GET", f"/deliberations/{of_ada}/seats/1", headers=BOB).status == 404
    assert b"Ada asks" in first_frame(server, "", ADA)
    assert b"Bob asks" in first_frame(server, "?deliberation=latest", BOB)
    assert b"Bob asks" in first_frame(server, f"?deliberation={of_bob}", BOB)


def test_without_a_key_there_is_no_feed(server: RunningServer) -> None:
    assert server.ask("GET", "/room/feed").status in {303, 401}
    assert server.ask("GET", "/room/feed", headers={"Authorization": "Bearer wrong"}).status in {303, 401}


def test_the_room_of_a_key_that_has_asked_nothing_says_so(server: RunningServer) -> None:
    server.post(QUESTION, headers=ADA)
    page = server.ask("GET", "/", headers=EVE)
    assert (page.status, b"Nothing has been asked yet" in page.body) == (200, True)
    assert b"Close the centre?" not in page.body


def test_the_first_html_of_the_room_holds_question_options_status_and_decision() -> None:
    with running_server() as running:
        running.post(QUESTION, query="?wait=20")
        page = running.ask("GET", "/")
        text = page.body.decode()
        assert page.headers["content-type"].startswith("text/html")
        assert all(word in text for word in ("Close the centre?", "yes", "no", "decided", "Decision:"))
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_seat_that_is_not_there_is_not_found(server: RunningServer) -> None:
    own = server.post(QUESTION, headers=ADA).document["id"]
    assert server.ask("GET", f"/deliberations/{own}/seats/73", headers=ADA).status == 404
    assert server.ask("GET", f"/deliberations/{own}/seats/0", headers=ADA).status == 404
    assert server.ask("GET", "/deliberations/%00", headers=ADA).status == 404
    assert server.ask("GET", f"/deliberations/{own}/seats/72", headers=ADA).status == 200


def test_viewers_take_the_places_of_streams_and_give_them_back(server: RunningServer) -> None:
    own = server.post(QUESTION, headers=ADA).document["id"]
    streams = server.server._server.config.app.state.stream_places  # type: ignore[union-attr]
    with server.events(f"/room/feed?deliberation={own}", headers=ADA) as stream:
        assert stream.readline()
        assert streams.taken == 1
    eventually(lambda: streams.taken == 0)


def test_a_server_with_viewers_is_gone_soon_after_it_is_told_to_stop() -> None:
    with server_process("--hanging", "72", "--drain", "1") as process:
        own = process.post(QUESTION).document["id"]
        ended: list[bytes] = []

        def follow(query: str) -> None:
            with process.events(f"/room/feed?deliberation={query}") as stream:
                ended.append(stream.read())

        readers = [threading.Thread(target=follow, args=(query,)) for query in (own, "latest", own, "latest")]
        for reader in readers:
            reader.start()
        eventually(lambda: process.ask("GET", f"/v1/deliberations/{own}").document["status"] == "running")
        told = time.monotonic()
        process.process.terminate()
        for reader in readers:
            reader.join(20)
        process.process.wait(20)
        assert time.monotonic() - told < 20
        assert [b": not the end" in each for each in ended] == [True] * 4
