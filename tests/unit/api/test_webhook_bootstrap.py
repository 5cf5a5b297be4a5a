"""How a server is joined to its webhooks: what it says when telling ends, how it names keys, and what the doctor counts."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.bootstrap import webhooks
from api.bootstrap.webhooks import examine_webhooks, kept_telling, open_webhooks, public_webhook_keys
from application.ports.webhook_outbox import WebhookDelivery
from application.services.webhook_service import WebhookService
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_webhook_outbox import SqlWebhookOutbox
from infrastructure.settings import Settings, load_settings
from infrastructure.webhooks import key_ring
from infrastructure.webhooks.key_ring import WebhookKeyRing
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.key_file import open_signing_key
from tests.deliberation_specimens import NOON, committing, deliberation, ended, opening, started


def settings_in(folder: Path) -> Settings:
    """A server that tells one receiver."""
    told = {"CONCLAVE_DATA_DIR": str(folder), "CONCLAVE_WEBHOOKS": "ops=https://ops.example/"}
    return load_settings({**told, "CONCLAVE_ORCHESTRATOR": "simulated"}, None)


async def test_telling_that_ends_by_a_fault_says_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty:
        async def begin(self) -> None:
            pass

        async def run(self) -> None:
            raise ValueError("odd")

    with caplog.at_level(logging.ERROR):
        async with kept_telling(cast("WebhookService", Faulty())):
            for _ in range(3):
                await asyncio.sleep(0)
            assert "no webhook is told of anything" in caplog.text
            assert "odd" in caplog.text


async def test_telling_that_is_stopped_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Patient:
        async def begin(self) -> None:
            pass

        async def run(self) -> None:
            await asyncio.Event().wait()

    async with kept_telling(cast("WebhookService", Patient())):
        await asyncio.sleep(0)
    assert caplog.text == ""


def test_keys_are_named_without_opening_the_one_that_signs_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = WebhookKeyRing(tmp_path).signing_key().key_id
    opened: list[Path] = []

    def counted(path: Path, *, create: bool, name: str) -> SigningKey:
        opened.append(path)
        return open_signing_key(path, create=create, name=name)

    monkeypatch.setattr(key_ring, "open_signing_key", counted)
    keys = public_webhook_keys(settings_in(tmp_path))
    assert [[key["kid"] for key in keys()["keys"]] for _ in range(5)] == [[first]] * 5
    assert len(opened) == 1
    second = WebhookKeyRing(tmp_path).rotate().key_id
    assert [key["kid"] for key in keys()["keys"]] == [second, first]


async def test_the_doctor_counts_all_that_waits_however_little_it_looks_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    upgrade(settings.database_url)
    database = await open_database(settings.database_url)
    repository, outbox = SqlDeliberationRepository(database), SqlWebhookOutbox(database)
    try:
        await outbox.gather("ops")
        for _ in range(3):
            new = deliberation()
            await repository.add(new, accepted(new))
            running = started(new)
            await repository.append(opening(running))
            await repository.append(committing(new.id, deliberation=ended(running, [])))
        assert await outbox.gather("ops") == 3
    finally:
        await repository.close()
        await database.close()
    monkeypatch.setattr(webhooks, "_LOOKED_AT", 1)
    assert (await examine_webhooks(settings)).detail == "ops (3 waiting)"


async def test_a_message_is_made_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    given: dict[str, Any] = {}

    def body(*_: object, at: str | None) -> bytes:
        threads.append(threading.get_ident())
        return str(at).encode()

    def service(**parts: Any) -> None:
        given.update(parts)

    async def shown(_id: str) -> tuple[Deliberation, dict[str, Any]]:
        return deliberation(), {}

    monkeypatch.setattr("api.webhook_body.webhook_body", body)
    monkeypatch.setattr("application.services.webhook_service.WebhookService", service)
    parts: Any = SimpleNamespace(
        own="p", dead=list, watch_webhooks=lambda _count: None, dialect=SimpleNamespace(name="sqlite")
    )
    open_webhooks(settings_in(tmp_path), parts, registry=parts, shown=shown, metrics=parts)
    assert given["receivers"][0].name == "ops"
    due = WebhookDelivery("d", "ops", "x", "deliberation.completed", NOON, 1, 0.0)
    assert await given["body_of"](due) == b"2026-11-21T12:00:00.123456Z"
    assert threads
    assert threading.get_ident() not in threads
