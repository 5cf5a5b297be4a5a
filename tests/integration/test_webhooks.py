"""Webhooks of a whole server: told after a kill, by any process, of every kind of end; listed, counted and looked up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from application.ports.webhook_outbox import delivery_id
from infrastructure.webhooks.key_ring import WebhookKeyRing
from tests.command_line import Command, commands
from tests.conclave_fixture import Client
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery, RunningProcess
from tests.patience import eventually
from tests.servers.keeper import free_port
from tests.webhook_receiver import Posted, WebhookStreet, answering, check_by_hand, webhook_street

QUESTION = "Should the city centre be closed to private cars?"
BODY = {"question": QUESTION, "agents": {"count": 2}}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where the processes come from."""
    with Nursery() as started:
        yield started


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with commands(capsys) as started:
        yield started


class House:
    """A data folder, and the servers that are started in it one after the other."""

    def __init__(self, folder: Path, nursery: Nursery, street: WebhookStreet, **settings: str) -> None:
        self._folder = folder
        self._nursery = nursery
        self._settings = {
            "CONCLAVE_DATA_DIR": str(folder / "data"),
            "CONCLAVE_ORCHESTRATOR": "simulated",
            "CONCLAVE_WEBHOOKS": f"ops={street.url}",
            **settings,
        }

    @property
    def keys(self) -> WebhookKeyRing:
        return WebhookKeyRing(self._folder / "data")

    def start(self, *arguments: str, **settings: str) -> RunningProcess:
        return self._nursery.start(
            *arguments,
            settings={**self._settings, **settings},
            folder=self._folder,
            log=self._folder / "log",
        )

    def run(self, *arguments: str, **settings: str) -> int:
        return self.start(*arguments, **settings).wait()

    @contextmanager
    def serving(self, **settings: str) -> Iterator[tuple[Client, RunningProcess]]:
        port = free_port()
        process = self.start("serve", "--port", str(port), "--json", **settings)
        try:
            process.line()
            yield Client(port), process
        finally:
            process.kill()


def told(street: WebhookStreet, number: int = 1) -> list[Posted]:
    """The first so many messages, as soon as they have come."""
    return eventually(lambda: street.posted[:number] if len(street.posted) >= number else [])


def test_a_server_tells_how_a_deliberation_ended_in_the_words_of_its_own_answer(
    nursery: Nursery, tmp_path: Path
) -> None:
    with webhook_street() as street:
        house = House(tmp_path, nursery, street)
        with house.serving() as (client, process):
            accepted = client.post(BODY, query="?wait=30").document
            (posted,) = told(street)
            shown = client.ask("GET", f"/v1/deliberations/{accepted['id']}").document
            keys = client.ask("GET", "/v1/webhooks/keys").document
            counted = eventually(
                lambda: [
                    line
                    for line in client.ask("GET", "/metrics").body.decode().splitlines()
                    if line == 'conclave_webhook_deliveries_total{outcome="delivered"} 1.0'
                ]
            )
            process.terminate()
            assert process.wait() == 0
    check_by_hand(posted, url=street.url, keys=keys)
    assert posted.document == {
        "type": "deliberation.completed",
        "at": shown["finished_at"],
        "deliberation_id": accepted["id"],
        "deliberation": shown,
    }
    assert posted.headers["conclave-event"] == "deliberation.completed"
    assert posted.delivery_id == delivery_id("ops", accepted["id"])
    assert counted


def test_a_server_that_is_killed_between_the_end_and_the_message_tells_it_after_its_restart(
    nursery: Nursery, tmp_path: Path
) -> None:
    with webhook_street() as street:
        house = House(tmp_path, nursery, street)
        with house.serving(CONCLAVE_CRASH_AT="end.after") as (client, process):
            own = client.post(BODY).document["id"]
            assert process.wait() == -9
        assert street.posted == []
        with house.serving() as (client, _):
            (posted,) = told(street)
            assert client.ask("GET", f"/v1/deliberations/{own}").document["status"] == "completed"
    assert (posted.delivery_id, posted.document["deliberation_id"]) == (delivery_id("ops", own), own)


def test_a_message_that_a_kill_interrupted_comes_again_at_once_under_the_same_id(
    nursery: Nursery, tmp_path: Path
) -> None:
    with webhook_street() as street:
        street.plan = (street.hang, answering(204))
        house = House(tmp_path, nursery, street)
        with house.serving() as (client, process):
            client.post(BODY)
            told(street)
            process.kill()
        with house.serving():
            first, second = told(street, 2)
    assert first.delivery_id == second.delivery_id
    named = [check_by_hand(each, url=street.url, keys=house.keys.public_keys()) for each in (first, second)]
    assert named[0]["nonce"] != named[1]["nonce"]


def test_what_another_process_ended_is_told_by_the_server_and_the_rest_by_none(
    nursery: Nursery, tmp_path: Path
) -> None:
    with webhook_street() as street:
        house = House(tmp_path, nursery, street)
        assert house.run("deliberate", QUESTION, "--agents", "2") == 0
        with house.serving(), street_quiet(street):
            pass
        assert house.run("deliberate", QUESTION, "--agents", "3") == 0
        with house.serving():
            (posted,) = told(street)
    assert posted.document["deliberation"]["roll_call"]["asked"] == 3


@contextmanager
def street_quiet(street: WebhookStreet) -> Iterator[None]:
    """Nothing has been posted when it ends."""
    yield
    assert street.posted == []


def accepted(client: Client) -> str:
    """The id of a deliberation, once it was accepted: a busy machine may take a channel of the halt for away."""

    def post() -> str:
        answer = client.post(BODY)
        assert answer.status in {202, 503}
        return str(answer.document["id"]) if answer.status == 202 else ""

    return eventually(post)


def test_workers_end_and_one_of_two_servers_tells(nursery: Nursery, tmp_path: Path, postgres_url: str) -> None:
    settings = {"CONCLAVE_DATABASE_URL": postgres_url, "CONCLAVE_QUEUE": "procrastinate"}
    with webhook_street() as street:
        house = House(tmp_path, nursery, street, **settings)
        assert house.run("db", "upgrade") == 0
        with house.serving() as (first, _), house.serving() as (second, _):
            worker = house.start("worker", "--json")
            try:
                worker.line()
                ids = [accepted(client) for client in (first, second) * 3]
                posted = told(street, len(ids))
            finally:
                worker.kill()
    assert sorted(each.document["deliberation_id"] for each in posted) == sorted(ids)
    assert len({each.delivery_id for each in posted}) == len(ids)


def cancelled(client: Client, llm: LlmServer) -> str:
    llm.configure(faults=[{"nth": 1, "fault": "hang"}])
    own: str = client.post({**BODY, "agents": {"count": 1}}).document["id"]
    llm.wait_until(in_flight_at_least=1)
    assert client.ask("POST", f"/v1/deliberations/{own}/cancel").status == 202
    return own


def halted(client: Client, llm: LlmServer) -> str:
    llm.configure(faults=[{"nth": 1, "fault": "hang"}])
    own: str = client.post({**BODY, "agents": {"count": 1}}).document["id"]
    llm.wait_until(in_flight_at_least=1)
    assert client.ask("POST", "/v1/halt", {"reason": "a drill"}).status == 200
    return own


def inquorate(client: Client, llm: LlmServer) -> str:
    llm.configure(faults=[{"fault": "500"}])
    own: str = client.post({**BODY, "limits": {"max_attempts": 1}}).document["id"]
    return own


@pytest.mark.parametrize("make", [cancelled, halted, inquorate])
def test_every_kind_of_end_is_told(
    nursery: Nursery, tmp_path: Path, llm_server: LlmServer, make: Callable[[Client, LlmServer], str]
) -> None:
    with webhook_street() as street:
        house = House(
            tmp_path, nursery, street, CONCLAVE_ORCHESTRATOR="openai", CONCLAVE_LLM_BASE_URL=llm_server.base_url
        )
        with house.serving() as (client, _):
            own = make(client, llm_server)
            (posted,) = told(street)
    assert posted.document["deliberation_id"] == own
    assert posted.document["type"] == f"deliberation.{make.__name__}"
    assert posted.document["deliberation"]["status"] == make.__name__


def test_a_receiver_that_hangs_delays_no_deliberation_and_no_shutdown(nursery: Nursery, tmp_path: Path) -> None:
    with webhook_street() as street:
        street.plan = (street.hang,)
        house = House(tmp_path, nursery, street)
        with house.serving() as (client, process):
            for _ in range(6):
                assert client.post(BODY, query="?wait=30").document["status"] == "completed"
            told(street, 4)
            process.terminate()
            assert process.has_ended(within_s=15.0)
            assert process.wait() == 0


def test_texts_that_were_erased_meanwhile_are_not_told(nursery: Nursery, tmp_path: Path) -> None:
    with webhook_street() as street:
        taking = threading.Event()

        def react(exchange: Any) -> None:
            answering(204 if taking.is_set() else 503)(exchange)

        street.plan = (react,)
        house = House(tmp_path, nursery, street)
        with house.serving() as (client, _):
            own = client.post(BODY, query="?wait=30").document["id"]
            told(street)
        assert house.run("witness", "erase", own, "--reason", "asked for") == 0
        taking.set()
        before = len(street.posted)
        with house.serving():
            last = told(street, before + 1)[-1]
    assert QUESTION.encode() in street.posted[0].body
    assert QUESTION.encode() not in last.body
    assert last.document["deliberation"]["erased"] is True


def test_an_operator_sees_what_was_told_and_what_was_not(
    nursery: Nursery, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook_street(answering(500)) as street:
        house = House(tmp_path, nursery, street)
        with house.serving() as (client, _):
            own = client.post(BODY, query="?wait=30").document["id"]
            told(street, 2)
        monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("CONCLAVE_WEBHOOKS", f"ops={street.url}")
        monkeypatch.chdir(tmp_path)
        listed = run("webhooks", "list", "--json").document["items"]
        words = run("webhooks", "list", "--state", "pending").words
        doctor = {check["name"]: check for check in run("doctor", "--json").document["checks"]}
        wrong = run("webhooks", "list", "--state", "lost")
        key = run("webhooks", "key", "--json").document
        rotated = run("webhooks", "rotate", "--json").document
    (delivery,) = listed
    assert (delivery["receiver"], delivery["deliberation_id"], delivery["state"]) == ("ops", own, "pending")
    assert (delivery["status"], delivery["problem"]) == (500, "it answered with status 500")
    assert f"ops deliberation.completed of {own}" in words
    assert "secret-path" not in words
    assert doctor["webhooks"] == {"name": "webhooks", "works": True, "detail": "ops (1 waiting)", "remedy": ""}
    assert (wrong.code, "none of pending, delivered, gone, given_up" in wrong.stderr) == (2, True)
    assert key == {"keys": house.keys.public_keys()["keys"][1:]}
    assert [each["kid"] for each in rotated["keys"]][1:] == [each["kid"] for each in key["keys"]]


def test_a_server_without_webhooks_makes_no_key_and_names_none(nursery: Nursery, tmp_path: Path) -> None:
    with webhook_street() as street:
        house = House(tmp_path, nursery, street, CONCLAVE_WEBHOOKS="")
        with house.serving() as (client, _):
            assert client.ask("GET", "/v1/webhooks/keys").document == {"keys": []}
    assert not (tmp_path / "data" / "webhook.key").exists()
