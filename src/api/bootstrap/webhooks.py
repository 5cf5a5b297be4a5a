"""Webhooks: who is told, with which key, out of which store, and what keeps telling them while a server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from api.bootstrap.beside import running_beside
from api.bootstrap.storage import make_data_folder, prepare_database
from api.conclave import Check
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError

if TYPE_CHECKING:
    from application.ports.process_registry import ProcessRegistry
    from application.ports.webhook_outbox import DeliveryState, ListedDelivery, WebhookDelivery, WebhookOutbox
    from application.services.webhook_service import WebhookService
    from domain.models.deliberation import Deliberation
    from infrastructure.persistence.database import Database
    from infrastructure.settings import Settings
    from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics
    from infrastructure.webhooks.key_ring import WebhookKeyRing

__all__ = [
    "examine_webhooks",
    "kept_telling",
    "list_webhook_deliveries",
    "open_webhooks",
    "public_webhook_keys",
    "rotate_webhook_key",
    "show_webhook_keys",
]

_LOOKED_AT = 1_000


def open_webhooks(
    settings: Settings,
    database: Database,
    *,
    registry: ProcessRegistry,
    shown: Callable[[str], Awaitable[tuple[Deliberation, Mapping[str, Any]]]],
    metrics: PrometheusMetrics,
) -> WebhookService | None:
    """What tells the receivers of CONCLAVE_WEBHOOKS, None where there are none; `shown` gives a deliberation and its document.

    Makes the key that signs, so that its public part can be looked up before anything is signed. Raises `ConfigurationError`.
    """
    if not settings.webhooks:
        return None
    from api.documents import moment
    from api.webhook_body import webhook_body
    from application.services.webhook_service import WebhookService
    from infrastructure.persistence.sql_webhook_outbox import SqlWebhookOutbox
    from infrastructure.webhooks.http_sender import HttpWebhookSender
    from infrastructure.webhooks.key_ring import WebhookKeyRing
    from infrastructure.webhooks.receivers import parse_receivers

    keys = WebhookKeyRing(settings.data_dir)
    keys.signing_key()

    async def body_of(delivery: WebhookDelivery) -> bytes:
        deliberation, document = await shown(delivery.deliberation_id)
        at = moment(deliberation.finished_at or delivery.ended_at)
        # Long texts of many agents take longer than an event loop should be held.
        return await asyncio.to_thread(webhook_body, delivery, document, at=at)

    service = WebhookService(
        receivers=parse_receivers(settings.webhooks),
        outbox=SqlWebhookOutbox(database),
        sender=HttpWebhookSender(keys),
        body_of=body_of,
        process=registry.own,
        # Before others forget them.
        fallen=registry.dead(),
        metrics=metrics,
    )
    metrics.watch_webhooks(lambda: service.pending_count)
    return service


@asynccontextmanager
async def kept_telling(service: WebhookService | None) -> AsyncIterator[None]:
    """Within it the receivers are told of whatever ends. Raises `DependencyUnavailableError` where the database is away."""
    if service is None:
        yield
        return
    await service.begin()
    without = "no webhook is told of anything until the next start"
    async with running_beside(service.run(), name="webhooks", without=without):
        yield


async def examine_webhooks(settings: Settings) -> Check:
    """Whether every receiver was told what it was told last; asks no receiver."""
    from application.ports.webhook_outbox import DeliveryState
    from infrastructure.webhooks.receivers import parse_receivers

    name = "webhooks"
    if not settings.webhooks:
        return Check(name, works=True, detail="none: CONCLAVE_WEBHOOKS is not set")
    try:
        await asyncio.to_thread(show_webhook_keys, settings)
        async with _opened_outbox(settings) as outbox:
            found, waiting = await outbox.listed(state=None, limit=_LOOKED_AT), await outbox.pending()
    except ConfigurationError as error:
        return Check(name, works=False, detail=error.problem, remedy=f"{error.variable}: {error.remedy}")
    except DependencyUnavailableError as error:
        return Check(name, works=False, detail=error.problem, remedy=error.remedy)
    told, failing = [], []
    for receiver in parse_receivers(settings.webhooks):
        settled = [(each.settled_at, each) for each in found if each.receiver == receiver.name and each.settled_at]
        last = max(settled, key=itemgetter(0), default=(None, None))[1]
        if last is not None and last.state is DeliveryState.GIVEN_UP:
            failing.append(f"{receiver.name} ({last.problem})")
        told.append(f"{receiver.name} ({waiting.get(receiver.name, 0)} waiting)")
    if failing:
        return Check(
            name,
            works=False,
            detail=f"what was to be told last was given up: {'; '.join(failing)}",
            remedy="Mend the receivers; what was not told: conclave webhooks list --state given_up",
        )
    return Check(name, works=True, detail=", ".join(told))


def public_webhook_keys(settings: Settings) -> Callable[[], Mapping[str, Any]]:
    """What gives the JWK set that webhooks verify with, and reads the key only where it is another one; makes none."""

    @cache
    def ring() -> WebhookKeyRing:
        from infrastructure.webhooks.key_ring import WebhookKeyRing

        return WebhookKeyRing(settings.data_dir)

    return lambda: ring().public_keys()


def show_webhook_keys(settings: Settings) -> Mapping[str, Any]:
    """The JWK set, its first key made where there is none. Raises `ConfigurationError`."""
    from infrastructure.webhooks.key_ring import WebhookKeyRing

    make_data_folder(settings)
    keys = WebhookKeyRing(settings.data_dir)
    keys.signing_key()
    return keys.public_keys()


def rotate_webhook_key(settings: Settings) -> Mapping[str, Any]:
    """The JWK set once a new key signs. Raises `ConfigurationError`."""
    from infrastructure.webhooks.key_ring import WebhookKeyRing

    make_data_folder(settings)
    keys = WebhookKeyRing(settings.data_dir)
    keys.rotate()
    return keys.public_keys()


async def list_webhook_deliveries(
    settings: Settings, *, state: DeliveryState | None, limit: int
) -> Sequence[ListedDelivery]:
    """Deliveries, the latest ends first. Raises `ConfigurationError` and `DependencyUnavailableError`."""
    async with _opened_outbox(settings) as outbox:
        return await outbox.listed(state=state, limit=limit)


@asynccontextmanager
async def _opened_outbox(settings: Settings) -> AsyncIterator[WebhookOutbox]:
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_webhook_outbox import SqlWebhookOutbox

    make_data_folder(settings)
    await prepare_database(settings)
    database = await open_database(settings.database_url)
    try:
        yield SqlWebhookOutbox(database)
    finally:
        await database.close()
