"""Messages to webhooks on the wire: signed so that any change shows, and patient with whatever a receiver does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidSignature

from application.ports.webhook_outbox import DeliveryState, ListedDelivery, WebhookDelivery
from application.ports.webhook_sender import WebhookMessage, WebhookReceiver
from application.services.retry_policy import RetryPolicy
from application.services.webhook_service import WebhookService
from conclave_client.errors import DeliveryRepeatedError, WebhookRefusedError
from conclave_client.webhooks import SeenDeliveries, WebhookKeys, verify
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation
from infrastructure.stubs.in_memory_webhook_outbox import InMemoryWebhookOutbox
from infrastructure.webhooks.http_sender import HttpWebhookSender
from infrastructure.webhooks.key_ring import WebhookKeyRing
from infrastructure.webhooks.message_signature import COVERED
from tests.deliberation_specimens import SettableClock, deliberation, ended, started
from tests.patience import eventually_in_loop
from tests.webhook_receiver import (
    ForgedError,
    Posted,
    Reaction,
    WebhookStreet,
    answering,
    check_by_hand,
    webhook_street,
)

MESSAGE = WebhookMessage("d-1", "deliberation.completed", b'{"hello": "w\xc3\xb6rld"}')
RECEIVER = WebhookReceiver("ops", "https://ops.example/")


def receiver_at(street: WebhookStreet) -> WebhookReceiver:
    return replace(RECEIVER, address=street.url)


async def posted_once(folder: Path, *plan: Reaction) -> tuple[Posted, str, Mapping[str, object]]:
    """One message as it came, its address, and the keys to check it with."""
    keys = WebhookKeyRing(folder)
    with webhook_street(*plan) as street:
        await HttpWebhookSender(keys).send(receiver_at(street), MESSAGE)
        return street.posted[0], street.url, keys.public_keys()


async def test_a_message_verifies_by_hand_and_says_what_it_is(tmp_path: Path) -> None:
    posted, url, keys = await posted_once(tmp_path)
    named = check_by_hand(posted, url=url, keys=keys)
    assert named["covered"] == " ".join(COVERED)
    assert (named["alg"], named["tag"]) == ("ed25519", "conclave-webhook")
    assert int(named["expires"]) - int(named["created"]) == 300
    assert len(named["nonce"]) >= 16
    assert (posted.method, posted.path, posted.body) == ("POST", "/hooks/secret-path?of=ops", MESSAGE.body)
    assert posted.headers["content-type"] == "application/json"
    assert (posted.delivery_id, posted.headers["conclave-event"]) == ("d-1", "deliberation.completed")


async def test_each_attempt_has_a_nonce_of_its_own(tmp_path: Path) -> None:
    keys = WebhookKeyRing(tmp_path)
    with webhook_street() as street:
        for _ in range(3):
            await HttpWebhookSender(keys).send(receiver_at(street), MESSAGE)
        nonces = {check_by_hand(each, url=street.url, keys=keys.public_keys())["nonce"] for each in street.posted}
    assert len(nonces) == 3


def with_header(name: str, change: Callable[[str], str]) -> Callable[[Posted], Posted]:
    return lambda posted: replace(posted, headers={**posted.headers, name: change(posted.headers[name])})


TAMPERED: dict[str, Callable[[Posted], Posted]] = {
    "the body": lambda posted: replace(posted, body=posted.body.replace(b"hello", b"jello")),
    "the method": lambda posted: replace(posted, method="PUT"),
    "the type": with_header("content-type", lambda _: "text/html"),
    "the delivery": with_header("conclave-delivery", lambda _: "d-2"),
    "the event": with_header("conclave-event", lambda _: "deliberation.failed"),
    "the time": with_header("signature-input", lambda value: value.replace("expires=", "expires=1")),
    "what is covered": with_header("signature-input", lambda value: value.replace(' "conclave-event"', "")),
}


@pytest.mark.parametrize("part", sorted(TAMPERED))
async def test_whatever_is_changed_on_the_way_is_refused(tmp_path: Path, part: str) -> None:
    posted, url, keys = await posted_once(tmp_path)
    changed = TAMPERED[part](posted)
    assert changed != posted
    with pytest.raises(ForgedError):
        check_by_hand(changed, url=url, keys=keys)
    with pytest.raises(WebhookRefusedError):
        taken(changed, url, keys, SeenDeliveries())


async def test_a_message_is_for_one_address_and_from_one_key(tmp_path: Path) -> None:
    posted, url, keys = await posted_once(tmp_path)
    with pytest.raises(ForgedError):
        check_by_hand(posted, url=url.replace("ops", "all"), keys=keys)
    (tmp_path / "other").mkdir()
    other = WebhookKeyRing(tmp_path / "other")
    other.signing_key()
    with pytest.raises(ForgedError):
        check_by_hand(posted, url=url, keys=other.public_keys())


def taken(posted: Posted, url: str, keys: Mapping[str, object], seen: SeenDeliveries, **rules: float) -> None:
    """What a receiver does that follows the rules of the client package."""
    verify(
        method=posted.method,
        url=url,
        headers=posted.headers,
        body=posted.body,
        keys=WebhookKeys.read(keys),
        seen=seen,
        **rules,
    )


async def test_what_is_sent_again_by_somebody_else_is_refused_by_the_rules_of_a_receiver(tmp_path: Path) -> None:
    street, told = await end_to_end(tmp_path, answering(204))
    (posted,) = street.posted
    keys, seen = WebhookKeyRing(tmp_path).public_keys(), SeenDeliveries()
    taken(posted, street.url, keys, seen)
    with pytest.raises(DeliveryRepeatedError):
        taken(posted, street.url, keys, seen)
    created = float(check_by_hand(posted, url=street.url, keys=keys)["created"])
    with pytest.raises(WebhookRefusedError, match="more than 300 s ago"):
        taken(posted, street.url, keys, SeenDeliveries(), now=created + 301)
    assert told[0].state is DeliveryState.DELIVERED


async def test_after_a_rotation_old_and_new_messages_verify(tmp_path: Path) -> None:
    keys = WebhookKeyRing(tmp_path)
    sender = HttpWebhookSender(keys)
    with webhook_street() as street:
        await sender.send(receiver_at(street), MESSAGE)
        WebhookKeyRing(tmp_path).rotate()
        await sender.send(receiver_at(street), MESSAGE)
        named = [check_by_hand(each, url=street.url, keys=keys.public_keys()) for each in street.posted]
    assert [each["keyid"] for each in reversed(named)] == [key["kid"] for key in keys.public_keys()["keys"]]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("999999999999999", 864_000),
        ("-5", None),
        ("soon", None),
        ("\xb2", None),
    ],
)
async def test_a_time_that_a_receiver_names_is_read(tmp_path: Path, header: str, seconds: float | None) -> None:
    clock = SettableClock()
    with webhook_street(answering(503, Retry_After=header)) as street:
        reply = await HttpWebhookSender(WebhookKeyRing(tmp_path), clock=clock).send(receiver_at(street), MESSAGE)
    assert reply.status == 503
    assert reply.retry_after_s == (None if seconds is None else pytest.approx(seconds, abs=1))


async def test_a_moment_that_a_receiver_names_is_taken_by_its_own_clock(tmp_path: Path) -> None:
    theirs = SettableClock().now().replace(microsecond=0) + timedelta(days=1)

    def later(exchange: BaseHTTPRequestHandler) -> None:
        exchange.send_response_only(503)
        exchange.send_header("Date", format_datetime(theirs, usegmt=True))
        exchange.send_header("Retry-After", format_datetime(theirs + timedelta(seconds=60), usegmt=True))
        exchange.send_header("Content-Length", "0")
        exchange.end_headers()

    with webhook_street(later) as street:
        sender = HttpWebhookSender(WebhookKeyRing(tmp_path), clock=SettableClock())
        assert (await sender.send(receiver_at(street), MESSAGE)).retry_after_s == 60


async def end_to_end(
    folder: Path,
    *plan: Reaction,
    street_of: Callable[[WebhookStreet], tuple[Reaction, ...]] | None = None,
    until: Callable[[list[ListedDelivery]], bool] = lambda told: told[0].state is not DeliveryState.PENDING,
) -> tuple[WebhookStreet, list[ListedDelivery]]:
    """One deliberation ends, and is told over a real connection until that holds of the deliveries."""
    over: list[Deliberation] = []
    outbox = InMemoryWebhookOutbox(lambda: over)

    async def body_of(delivery: WebhookDelivery) -> bytes:
        from api.documents import deliberation_document
        from api.webhook_body import webhook_body

        return webhook_body(delivery, deliberation_document(over[0]), at="2026-01-01T12:00:02Z")

    with webhook_street(*plan) as street:
        if street_of is not None:
            street.plan = street_of(street)
        service = WebhookService(
            receivers=[receiver_at(street)],
            outbox=outbox,
            sender=HttpWebhookSender(WebhookKeyRing(folder), timeout_s=0.5),
            body_of=body_of,
            process="p",
            retries=RetryPolicy(base_s=0.001, cap_s=0.001),
            look_s=0.005,
        )
        await service.begin()
        over.append(ended(started(deliberation()), []))
        running = asyncio.create_task(service.run())

        async def listed() -> list[ListedDelivery]:
            found = list(await outbox.listed(state=None, limit=5))
            return found if found and until(found) else []

        try:
            told = await eventually_in_loop(listed)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        return street, told


TROUBLES: dict[str, Callable[[WebhookStreet], Reaction]] = {
    "it answered with status 500": lambda _: answering(500),
    "it answered with status 404": lambda _: answering(404),
    "it answered with status 302, a redirect, which is not followed": lambda _: answering(302, Location="/elsewhere"),
    "it answered with status 307, a redirect, which is not followed": lambda _: answering(307, Location="/elsewhere"),
    "it did not answer within 0.5 s": lambda street: street.hang,
    "it cannot be reached": lambda street: street.reset,
}


@pytest.mark.parametrize("problem", sorted(TROUBLES))
async def test_whatever_a_receiver_does_instead_it_is_told_in_the_end(
    tmp_path: Path, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        street, (told,) = await end_to_end(
            tmp_path, street_of=lambda street: (TROUBLES[problem](street), answering(200, b"thanks"))
        )
    assert (told.state, told.status, told.attempts) == (DeliveryState.DELIVERED, 200, 2)
    assert len({each.delivery_id for each in street.posted}) == 1
    assert {each.path for each in street.posted} == {"/hooks/secret-path?of=ops"}
    assert problem in caplog.text
    assert "secret-path" not in caplog.text


async def test_a_receiver_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    street, (told,) = await end_to_end(tmp_path, answering(410))
    assert (told.state, told.status, len(street.posted)) == (DeliveryState.GONE, 410, 1)


async def test_a_reply_without_an_end_is_read_no_further_than_its_status(tmp_path: Path) -> None:
    _, (told,) = await end_to_end(tmp_path, street_of=lambda street: (street.talk_for_ever,))
    assert (told.state, told.attempts) == (DeliveryState.DELIVERED, 1)


async def test_nobody_there_is_said_without_the_address(tmp_path: Path) -> None:
    with webhook_street() as street:
        nobody = receiver_at(street)
    with pytest.raises(DependencyUnavailableError, match="cannot be reached") as refused:
        await HttpWebhookSender(WebhookKeyRing(tmp_path)).send(nobody, MESSAGE)
    assert "secret-path" not in str(refused.value)


async def test_cookies_proxies_and_redirects_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    sender = HttpWebhookSender(WebhookKeyRing(tmp_path))
    with webhook_street(answering(204, Set_Cookie="a=b")) as street:
        for _ in range(2):
            assert (await sender.send(receiver_at(street), MESSAGE)).status == 204
    assert Counter("cookie" in each.headers for each in street.posted) == {False: 2}


async def test_the_check_by_hand_in_the_documentation_takes_what_is_sent_and_nothing_else(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    written: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], written)  # noqa: S102 - our own documentation
    posted, url, keys = await posted_once(tmp_path)
    public = {key["kid"]: key["x"] for key in cast("list[dict[str, str]]", keys["keys"])}
    written["check"](posted.headers, posted.body, address=url, keys=public)
    for part in sorted(set(TAMPERED) - {"the method"}):
        changed = TAMPERED[part](posted)
        with pytest.raises((ValueError, InvalidSignature)):
            written["check"](changed.headers, changed.body, address=url, keys=public)
    with pytest.raises(InvalidSignature):
        written["check"](posted.headers, posted.body, address=url + "&more", keys=public)
