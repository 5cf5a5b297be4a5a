"""How webhooks are told: at least once, with patience and jitter, nobody waiting for another. No time passes in these tests."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from application.ports.webhook_outbox import Attempt, DeliveryState, WebhookDelivery
from application.ports.webhook_sender import WebhookMessage, WebhookReceiver, WebhookReply
from application.services.retry_policy import RetryPolicy
from application.services.webhook_service import GIVE_UP_S, WEBHOOK_RETRIES, WebhookService
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation
from infrastructure.stubs.in_memory_webhook_outbox import InMemoryWebhookOutbox
from infrastructure.stubs.virtual_time import VirtualClock, run_in_virtual_time
from tests.deliberation_specimens import deliberation, ended, started
from tests.virtual_time import pass_time

OPS, AUDIT = WebhookReceiver("ops", "https://ops.example/"), WebhookReceiver("audit", "https://audit.example/")
Answer = Callable[[], Awaitable[WebhookReply]]


@dataclass
class Street:
    """Receivers that answer as they are told, what they were sent and when, and what was counted."""

    answers: dict[str, list[WebhookReply | Exception | Answer]] = field(default_factory=dict)
    sent: list[tuple[str, str, float]] = field(default_factory=list)
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    over: list[Deliberation] = field(default_factory=list)

    async def send(self, receiver: WebhookReceiver, message: WebhookMessage) -> WebhookReply:
        self.sent.append((receiver.name, message.delivery_id, asyncio.get_running_loop().time()))
        self.at_once[receiver.name] += 1
        self.most_at_once[receiver.name] = max(self.most_at_once[receiver.name], self.at_once[receiver.name])
        planned = self.answers.get(receiver.name, [])
        answer = planned.pop(0) if len(planned) > 1 else planned[0] if planned else WebhookReply(204)
        try:
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, WebhookReply) else await answer()
        finally:
            self.at_once[receiver.name] -= 1

    def webhook_attempted(self, outcome: str) -> None:
        self.counted[outcome] += 1

    def one_ends(self) -> None:
        self.over.append(ended(started(deliberation()), []))

    def times(self, receiver: str) -> list[float]:
        return [at for name, _, at in self.sent if name == receiver]

    def waits(self, receiver: str) -> list[float]:
        times = self.times(receiver)
        return [later - earlier for earlier, later in pairwise(times)]


async def body_of(delivery: WebhookDelivery) -> bytes:
    return delivery.deliberation_id.encode()


async def never() -> WebhookReply:
    await asyncio.Event().wait()
    raise AssertionError


async def after_ten_seconds() -> WebhookReply:
    await pass_time(10)
    raise DependencyUnavailableError(dependency="the webhook", problem="it did not answer within 10 s")


def told(
    street: Street,
    *receivers: WebhookReceiver,
    for_s: float,
    ends: int = 1,
    body: Callable[[WebhookDelivery], Awaitable[bytes]] = body_of,
    retries: RetryPolicy = WEBHOOK_RETRIES,
    look_s: float = 1.0,
) -> InMemoryWebhookOutbox:
    """Let so many deliberations end and so much time pass; the outbox afterwards."""

    async def serve() -> InMemoryWebhookOutbox:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        for receiver in receivers:
            await outbox.gather(receiver.name)
        service = WebhookService(
            receivers=receivers,
            outbox=outbox,
            sender=street,
            body_of=body,
            process="p",
            metrics=street,
            retries=retries,
            look_s=look_s,
        )
        for _ in range(ends):
            street.one_ends()
        running = asyncio.create_task(service.run())
        await pass_time(for_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return outbox

    return run_in_virtual_time(serve())


def states(outbox: InMemoryWebhookOutbox) -> dict[str, DeliveryState]:
    return {each.receiver: each.state for each in asyncio.run(outbox.listed(state=None, limit=100))}


def test_each_receiver_is_told_of_each_end_once() -> None:
    street = Street()
    outbox = told(street, OPS, AUDIT, for_s=60, ends=3)
    assert Counter(name for name, _, _ in street.sent) == {"ops": 3, "audit": 3}
    assert len({own for _, own, _ in street.sent}) == 6
    assert set(states(outbox).values()) == {DeliveryState.DELIVERED}
    assert street.counted == {"delivered": 6}


def test_what_failed_is_tried_again_under_the_same_id_until_it_is_taken() -> None:
    away = DependencyUnavailableError(dependency="the webhook", problem="it cannot be reached")
    street = Street({"ops": [WebhookReply(500), away, WebhookReply(302), WebhookReply(404), WebhookReply(200)]})
    outbox = told(street, OPS, for_s=3600)
    assert len(street.sent) == 5
    assert len({own for _, own, _ in street.sent}) == 1
    assert states(outbox) == {"ops": DeliveryState.DELIVERED}
    assert street.counted == {"failed": 4, "delivered": 1}


def test_pauses_are_drawn_below_a_bound_that_doubles_to_an_hour() -> None:
    street = Street({"ops": [WebhookReply(500)]})
    told(street, OPS, for_s=GIVE_UP_S, retries=RetryPolicy(base_s=5, cap_s=3600, draw=lambda: 1.0), look_s=5)
    bounds = [min(3600.0, 5.0 * 2**number) for number in range(len(street.waits("ops")))]
    # The outbox is looked at every five seconds.
    assert all(bound <= wait <= bound + 5 for wait, bound in zip(street.waits("ops"), bounds, strict=True))
    assert bounds[-1] == 3600
    assert WEBHOOK_RETRIES.draw() != WEBHOOK_RETRIES.draw()


def test_a_receiver_that_names_a_time_is_left_alone_for_so_long() -> None:
    street = Street({"ops": [WebhookReply(503, retry_after_s=600), WebhookReply(200)]})
    told(street, OPS, for_s=3600)
    (wait,) = street.waits("ops")
    assert 600 <= wait <= 606


def test_after_a_day_it_is_given_up_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    street = Street({"ops": [WebhookReply(500)]})
    with caplog.at_level(logging.ERROR):
        outbox = told(street, OPS, for_s=2 * GIVE_UP_S, look_s=30)
    assert states(outbox) == {"ops": DeliveryState.GIVEN_UP}
    assert street.times("ops")[-1] <= GIVE_UP_S + 30
    assert street.counted["given_up"] == 1
    (said,) = (record.getMessage() for record in caplog.records)
    assert "is given up after" in said
    assert "it answered with status 500" in said
    assert "ops.example" not in said


def test_a_time_beyond_the_day_gives_it_up_at_once() -> None:
    street = Street({"ops": [WebhookReply(429, retry_after_s=GIVE_UP_S + 1)]})
    assert states(told(street, OPS, for_s=60)) == {"ops": DeliveryState.GIVEN_UP}
    assert len(street.sent) == 1


def test_gone_ends_that_delivery_and_no_other() -> None:
    street = Street({"ops": [WebhookReply(410), WebhookReply(200)]})
    outbox = told(street, OPS, for_s=60, ends=2)
    listed = asyncio.run(outbox.listed(state=None, limit=5))
    assert Counter(each.state for each in listed) == {DeliveryState.GONE: 1, DeliveryState.DELIVERED: 1}
    assert street.counted == {"gone": 1, "delivered": 1}


def test_a_receiver_that_hangs_delays_no_other_and_is_asked_a_few_times_at_once() -> None:
    street = Street({"ops": [after_ten_seconds]})
    told(street, OPS, AUDIT, for_s=9, ends=20)
    assert len(street.times("audit")) == 20
    assert max(street.times("audit")) <= 6
    assert len(street.times("ops")) == street.most_at_once["ops"] == 4


def test_what_is_under_way_at_the_end_is_let_go_and_the_end_comes_soon() -> None:
    street = Street({"ops": [never]})

    async def stop() -> tuple[float, int]:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        await outbox.gather("ops")
        service = WebhookService(receivers=[OPS], outbox=outbox, sender=street, body_of=body_of, process="p")
        street.one_ends()
        running = asyncio.create_task(service.run())
        await pass_time(5)
        began = asyncio.get_running_loop().time()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        took = asyncio.get_running_loop().time() - began
        return took, len(await outbox.claim("ops", lease="q/1", lease_s=30, limit=5))

    took, free = run_in_virtual_time(stop())
    assert took <= 2
    assert free == 1


def test_what_a_dead_process_held_is_told_at_once() -> None:
    street = Street()

    async def begin() -> list[tuple[str, str, float]]:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        await outbox.gather("ops")
        street.one_ends()
        await outbox.gather("ops")
        await outbox.claim("ops", lease="dead/webhook-ops", lease_s=30, limit=1)
        service = WebhookService(
            receivers=[OPS], outbox=outbox, sender=street, body_of=body_of, process="p", fallen=["dead"]
        )
        running = asyncio.create_task(service.run())
        await pass_time(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return street.sent

    assert len(run_in_virtual_time(begin())) == 1


def test_what_cannot_be_read_now_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    street, troubles = Street(), [RuntimeError("a fault"), DependencyUnavailableError(dependency="db", problem="away")]

    async def body(delivery: WebhookDelivery) -> bytes:
        if troubles:
            raise troubles.pop()
        return await body_of(delivery)

    with caplog.at_level(logging.ERROR):
        outbox = told(street, OPS, for_s=600, body=body)
    assert states(outbox) == {"ops": DeliveryState.DELIVERED}
    assert street.counted == {"failed": 2, "delivered": 1}
    assert "could not be posted" in caplog.text


def test_an_outbox_that_is_away_stops_nothing_for_good() -> None:
    street = Street()

    async def work() -> int:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        await outbox.gather("ops")
        street.one_ends()
        gather, failures = outbox.gather, [ValueError("odd"), DependencyUnavailableError(dependency="db", problem="-")]

        async def failing(receiver: str, *, key_name: str | None = None) -> int:
            if failures:
                raise failures.pop()
            return await gather(receiver, key_name=key_name)

        outbox.gather = failing  # type: ignore[method-assign]
        service = WebhookService(receivers=[OPS], outbox=outbox, sender=street, body_of=body_of, process="p")
        running = asyncio.create_task(service.run())
        await pass_time(20)
        waiting = service.pending_count
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return waiting

    assert run_in_virtual_time(work()) == 0
    assert len(street.sent) == 1


async def stopped_from_within() -> WebhookReply:
    raise asyncio.CancelledError


def test_a_delivery_that_is_cancelled_from_within_is_made_again_and_its_receiver_told_on() -> None:
    street = Street({"ops": [stopped_from_within, WebhookReply(204)]})
    outbox = told(street, OPS, for_s=60, ends=2)
    assert set(states(outbox).values()) == {DeliveryState.DELIVERED}
    assert len(street.times("ops")) == 3


def test_an_attempt_without_an_end_is_over_before_another_may_claim_its_delivery() -> None:
    street = Street({"ops": [never, WebhookReply(204)]})
    outbox = told(street, OPS, for_s=60)
    assert (len(street.sent), street.most_at_once["ops"]) == (2, 1)
    assert states(outbox) == {"ops": DeliveryState.DELIVERED}
    assert street.counted == {"failed": 1, "delivered": 1}


def test_an_attempt_that_cannot_be_kept_stops_no_receiver(caplog: pytest.LogCaptureFixture) -> None:
    street = Street()

    async def work() -> dict[str, DeliveryState]:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        for receiver in (OPS, AUDIT):
            await outbox.gather(receiver.name)
        settle, failures = outbox.settle, [ValueError("odd")]

        async def failing(delivery_id: str, *, lease: str, attempt: Attempt) -> bool:
            if failures:
                raise failures.pop()
            return await settle(delivery_id, lease=lease, attempt=attempt)

        outbox.settle = failing  # type: ignore[method-assign]
        service = WebhookService(receivers=[OPS, AUDIT], outbox=outbox, sender=street, body_of=body_of, process="p")
        street.one_ends()
        running = asyncio.create_task(service.run())
        await pass_time(60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return {each.receiver: each.state for each in await outbox.listed(state=None, limit=5)}

    with caplog.at_level(logging.ERROR):
        found = run_in_virtual_time(work())
    assert found == {"ops": DeliveryState.DELIVERED, "audit": DeliveryState.DELIVERED}
    assert len(street.sent) == 3
    assert "cannot be kept" in caplog.text


def test_what_waits_for_a_receiver_that_was_taken_out_is_not_counted() -> None:
    street = Street({"ops": [WebhookReply(500)]})

    async def work() -> int:
        outbox = InMemoryWebhookOutbox(lambda: street.over, clock=VirtualClock())
        for receiver in (OPS, AUDIT):
            await outbox.gather(receiver.name)
        street.one_ends()
        await outbox.gather("audit")
        service = WebhookService(receivers=[OPS], outbox=outbox, sender=street, body_of=body_of, process="p")
        running = asyncio.create_task(service.run())
        await pass_time(6)
        waiting = service.pending_count
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return waiting

    assert run_in_virtual_time(work()) == 1
