"""Tells webhooks how deliberations ended: each receiver in a lane of its own, again and again until it was told or a day is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from application.ports.webhook_outbox import Attempt, DeliveryState, WebhookDelivery, WebhookOutbox
from application.ports.webhook_sender import (
    WebhookMessage,
    WebhookReceiver,
    WebhookReply,
    WebhookSender,
)
from application.services.retry_policy import RetryPolicy
from domain.errors.conclave_error import ConclaveError
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["GIVE_UP_S", "WEBHOOK_RETRIES", "WebhookMetrics", "WebhookService"]

_logger = logging.getLogger(__name__)

GIVE_UP_S = 24 * 3600.0
"""From its first attempt on a delivery is tried for so long."""

WEBHOOK_RETRIES = RetryPolicy(base_s=5.0, cap_s=3600.0)

_AT_A_TIME = 4
_LEASE_S = 30.0
# Short enough that nobody else can have claimed a delivery while it is still being posted.
_ATTEMPT_S = 25.0
_AWAY_S = 5.0
_DRAIN_S = 2.0
_FORGET_EVERY_S = 3600.0
_KEPT_S = 30 * 24 * 3600.0
_GONE = 410
_MAX_PROBLEM_CHARACTERS = 200


class WebhookMetrics(Protocol):
    """Counts attempts."""

    def webhook_attempted(self, outcome: str) -> None:
        """An attempt ended so: `delivered`, `failed` and to be tried again, `gone` or `given_up`."""
        ...


class WebhookService:
    """Delivers at least once, under the same id at every attempt; no receiver waits for another, and no deliberation for any.

    2xx is delivered; 410 ends that delivery; anything else, silence and redirects included, is tried again with full jitter (5 s
    doubling to an hour), a `Retry-After` honoured, until 24 hours after the first attempt, and then given up and said so. `run` until
    cancelled; what is under way then is let go, to be told by whoever runs next. Several of them over one outbox share the work.
    """

    def __init__(
        self,
        *,
        receivers: Sequence[WebhookReceiver],
        outbox: WebhookOutbox,
        sender: WebhookSender,
        body_of: Callable[[WebhookDelivery], Awaitable[bytes]],
        process: str,
        fallen: Sequence[str] = (),
        metrics: WebhookMetrics | None = None,
        retries: RetryPolicy = WEBHOOK_RETRIES,
        give_up_s: float = GIVE_UP_S,
        look_s: float = 1.0,
    ) -> None:
        """`body_of` gives what is posted as it stands now, and may raise a `ConclaveError`.

        `process` names who holds deliveries, and `fallen` processes that are dead, whose leases nobody waits for.
        `look_s` is how often what is new is looked for.
        """
        self._receivers = tuple(receivers)
        self._outbox = outbox
        self._sender = sender
        self._body_of = body_of
        self._process = process
        self._fallen = tuple(fallen)
        self._metrics = metrics
        self._retries = retries
        self._give_up_s = give_up_s
        self._look_s = look_s
        self._pending: Mapping[str, int] = {}

    @property
    def pending_count(self) -> int:
        """How many deliveries to these receivers waited, or were under way, when they were last counted."""
        return sum(self._pending.get(receiver.name, 0) for receiver in self._receivers)

    async def begin(self) -> None:
        """Have a place from which on each receiver is told: whatever ends after this is. Raises `DependencyUnavailableError`."""
        for receiver in self._receivers:
            await self._outbox.gather(receiver.name, key_name=receiver.key_name)

    async def run(self) -> None:
        """Tell every receiver what it has not been told, until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for receiver in self._receivers:
                lanes.create_task(self._lane(receiver), name=f"webhook-{receiver.name}")
            lanes.create_task(self._keep_count(), name="webhook-count")

    async def _lane(self, receiver: WebhookReceiver) -> None:
        lease = _lease(self._process, receiver)
        unheard = [_lease(process, receiver) for process in self._fallen]
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                pause = self._look_s
                claimed: Sequence[WebhookDelivery] = ()
                try:
                    while unheard:
                        await self._outbox.release(unheard[-1])
                        unheard.pop()
                    await self._outbox.gather(receiver.name, key_name=receiver.key_name)
                    free = _AT_A_TIME - len(under_way)
                    claimed = await self._outbox.claim(receiver.name, lease=lease, lease_s=_LEASE_S, limit=free)
                except DependencyUnavailableError as error:
                    _logger.warning("webhook %s waits for the store: %s", receiver.name, error)
                    pause = _AWAY_S
                except Exception:  # the trouble of one receiver is not another's
                    _logger.exception("webhook %s: what it is to be told cannot be found out", receiver.name)
                    pause = _AWAY_S
                for delivery in claimed:
                    under_way.add(asyncio.create_task(self._deliver(receiver, delivery, lease), name="webhook-post"))
                under_way = await _rest(under_way, pause)
        finally:
            await self._wind_up(lease, under_way)

    async def _wind_up(self, lease: str, under_way: set[asyncio.Task[None]]) -> None:
        """Give what is being posted a moment to be answered, and let go of the rest."""
        if under_way:
            await asyncio.wait(under_way, timeout=_DRAIN_S)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        try:
            await self._outbox.release(lease)
        except DependencyUnavailableError as error:
            _logger.warning("deliveries to webhooks are free when their leases have run out: %s", error)

    async def _deliver(self, receiver: WebhookReceiver, delivery: WebhookDelivery, lease: str) -> None:
        try:
            attempt = await self._attempt(receiver, delivery)
            if await self._outbox.settle(delivery.id, lease=lease, attempt=attempt):
                self._note(receiver, delivery, attempt)
        except DependencyUnavailableError as error:
            _logger.warning("webhook %s: delivery %s is made again: %s", receiver.name, delivery.id, error)
        except Exception:  # the trouble of one delivery is not another's
            _logger.exception("webhook %s: how delivery %s went cannot be kept", receiver.name, delivery.id)

    async def _attempt(self, receiver: WebhookReceiver, delivery: WebhookDelivery) -> Attempt:
        """Post it, within the time for which it is held."""
        reply: WebhookReply | None = None
        problem: str | None = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                body = await self._body_of(delivery)
                reply = await self._sender.send(receiver, WebhookMessage(delivery.id, delivery.event, body))
        except ConclaveError as error:
            problem = getattr(error, "problem", "") or str(error)
        except TimeoutError:
            problem = f"it could not be posted within {_ATTEMPT_S:g} s"
        except Exception as error:
            _logger.exception("webhook %s: delivery %s could not be posted", receiver.name, delivery.id)
            problem = f"it could not be posted ({type(error).__name__})"
        return self._judged(delivery, reply, problem, age_s=delivery.age_s + loop.time() - began)

    def _judged(
        self, delivery: WebhookDelivery, reply: WebhookReply | None, problem: str | None, *, age_s: float
    ) -> Attempt:
        status = None if reply is None else reply.status
        if status is not None and 200 <= status < 300:
            return Attempt(DeliveryState.DELIVERED, status=status)
        if reply is not None:
            redirects = ", a redirect, which is not followed" if 300 <= reply.status < 400 else ""
            problem = f"it answered with status {reply.status}{redirects}"
        told = None if problem is None else problem[:_MAX_PROBLEM_CHARACTERS]
        if status == _GONE:
            return Attempt(DeliveryState.GONE, status=status, problem=told)
        wait_s = self._retries.delay(delivery.attempts, None if reply is None else reply.retry_after_s)
        if age_s + wait_s > self._give_up_s:
            return Attempt(DeliveryState.GIVEN_UP, status=status, problem=told)
        return Attempt(DeliveryState.PENDING, wait_s, status, told)

    def _note(self, receiver: WebhookReceiver, delivery: WebhookDelivery, attempt: Attempt) -> None:
        outcome = "failed" if attempt.state is DeliveryState.PENDING else attempt.state.value
        if self._metrics is not None:
            self._metrics.webhook_attempted(outcome)
        facts = {"deliberation_id": delivery.deliberation_id}
        match attempt.state:
            case DeliveryState.DELIVERED:
                _logger.debug("webhook %s: delivery %s was taken", receiver.name, delivery.id, extra=facts)
            case DeliveryState.PENDING:
                _logger.warning(
                    "webhook %s: attempt %d of delivery %s failed, %s; again in %.0f s",
                    receiver.name,
                    delivery.attempts,
                    delivery.id,
                    attempt.problem,
                    attempt.wait_s,
                    extra=facts,
                )
            case DeliveryState.GONE:
                _logger.warning(
                    "webhook %s: delivery %s is wanted no more (410)", receiver.name, delivery.id, extra=facts
                )
            case DeliveryState.GIVEN_UP:
                _logger.error(
                    "webhook %s: delivery %s is given up after %d attempts, %s",
                    receiver.name,
                    delivery.id,
                    delivery.attempts,
                    attempt.problem,
                    extra=facts,
                )

    async def _keep_count(self) -> None:
        loop = asyncio.get_running_loop()
        forgot_at = float("-inf")
        while True:
            try:
                self._pending = await self._outbox.pending()
                if loop.time() - forgot_at >= _FORGET_EVERY_S:
                    forgot_at = loop.time()
                    await self._outbox.forget(older_than_s=_KEPT_S)
            except DependencyUnavailableError as error:
                _logger.debug("deliveries to webhooks cannot be counted now: %s", error)
            except Exception:  # a count that fails stops no delivery
                _logger.exception("deliveries to webhooks cannot be counted")
            await asyncio.sleep(_AWAY_S)


def _lease(process: str, receiver: WebhookReceiver) -> str:
    return f"{process}/webhook-{receiver.name}"


async def _rest(under_way: set[asyncio.Task[None]], pause_s: float) -> set[asyncio.Task[None]]:
    """Wait until a delivery ended or the pause is over; the deliveries that are still under way."""
    if not under_way:
        await asyncio.sleep(pause_s)
        return under_way
    _, rest = await asyncio.wait(under_way, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
    return rest
