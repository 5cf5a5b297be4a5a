"""What the message bus promises, held against every transport: counts, history and taps."""

from __future__ import annotations

import time

import pytest

from application.ports.message_bus import Message, MessageBus, Payload, Priority
from domain.errors.bus import UnknownAgentError
from domain.models.message import LATENCY_BOUNDS_S
from tests.integration.contracts.bus_talk import hear, said
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_the_counts_tell_what_happened(place: BusPlace) -> None:
    bus = place.open()
    await bus.register("b")
    await bus.send_many(said(number) for number in range(5))
    await hear(bus, "b", 3)
    counts = await bus.stats()
    assert counts.transport == place.name
    assert (counts.sent, counts.delivered, counts.acknowledged, counts.queued["b"]) == (5, 3, 3, 2)
    assert counts.messages_per_second > 0


async def test_latencies_are_summed_up(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send_many(said(number) for number in range(20))
    await hear(bus, "b", 20)
    latency = (await bus.stats()).latency_us
    assert set(latency) == {"min", "p50", "p95", "p99", "max"}
    ordered = [latency[name] for name in ("min", "p50", "p95", "p99", "max")]
    assert ordered == sorted(ordered)
    assert ordered[0] >= 0


async def test_latencies_are_counted_by_how_long_they_were(bus: MessageBus) -> None:
    await bus.register("b")
    assert (await bus.stats()).latency_histogram == {}
    await bus.send_many(said(number) for number in range(20))
    await hear(bus, "b", 20)
    counts = await bus.stats()
    assert tuple(counts.latency_histogram) == LATENCY_BOUNDS_S
    assert list(counts.latency_histogram.values()) == sorted(counts.latency_histogram.values())
    assert counts.latency_histogram[float("inf")] == 20
    shortest, longest = counts.latency_us["min"] * 1e-6, counts.latency_us["max"] * 1e-6
    assert 20 * shortest * 0.9 <= counts.latency_sum_s <= 20 * longest * 1.1
    for bound, count in counts.latency_histogram.items():
        assert count == (0 if bound < shortest * 0.9 else 20 if bound > longest * 1.1 else count)


async def test_sent_counts_once_per_inbox(bus: MessageBus) -> None:
    for name in ("b", "c", "d"):
        await bus.register(name)
    await bus.broadcast(said())
    for name in ("b", "c", "d"):
        await hear(bus, name, 1)
    counts = await bus.stats()
    assert (counts.sent, counts.delivered) == (3, 3)


async def test_what_waits_and_what_is_in_hand_is_queued(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    await bus.send_many(said(number) for number in range(3))
    await hear(bus, "b", 1)
    assert (await bus.stats()).queued["b"] == 3


async def test_dead_letters_are_counted(bus: MessageBus) -> None:
    for _ in range(3):
        with pytest.raises(UnknownAgentError):
            await bus.send(said(to="ghost"))
    assert (await bus.stats()).dead_letters == 3


async def test_history_has_the_last_messages_newest_last_without_payloads(bus: MessageBus) -> None:
    await bus.register("b")
    ids = [await bus.send(said(number, priority=Priority.HIGH)) for number in range(5)]
    headers = await bus.history(3)
    assert [header.id for header in headers] == ids[2:]
    first = headers[0]
    assert (first.sender, first.recipient, first.type, first.priority) == ("a", "b", "note", Priority.HIGH)
    assert first.at == pytest.approx(time.time(), abs=PATIENCE_S)
    assert [header.payload for header in headers] == [None] * 3


async def test_history_has_payloads_where_they_are_kept(place: BusPlace) -> None:
    bus = place.open(keep_payloads=True)
    await bus.register("b")
    await bus.send(said({"kept": True}))
    assert [header.payload for header in await bus.history()] == [{"kept": True}]


async def test_history_is_bounded(place: BusPlace) -> None:
    bus = place.open(history_limit=10)
    await bus.register("b")
    await bus.send_many(said(number) for number in range(25))
    assert len(await bus.history(1_000)) == 10


async def test_a_tap_is_told_what_happens(place: BusPlace) -> None:
    told: list[tuple[str, Payload]] = []
    bus = place.open(tap=lambda happened, message: told.append((happened, message.payload)))
    await bus.register("b")
    await bus.send(said("news"))
    await hear(bus, "b", 1)
    assert told[:2] == [("sent", "news"), ("delivered", "news")]


async def test_a_tap_that_fails_harms_no_message(place: BusPlace) -> None:
    def broken(_happened: str, _message: Message) -> None:
        raise RuntimeError("the collector is away")

    bus = place.open(tap=broken)
    await bus.register("b")
    await bus.send(said("unharmed"))
    assert await hear(bus, "b", 1) == ["unharmed"]
