"""What the transports of the bus share: payloads as bytes, latencies and rates, ids and headers of the past."""

from __future__ import annotations

import math
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports.message_bus import Message, Payload, Priority
from domain.errors.bus import InvalidMessageError, PayloadTooLargeError, UnreadableMessageError
from domain.models.message import LATENCY_BOUNDS_S
from infrastructure.buses.bus_statistics import LatencyHistogram, RateMeter
from infrastructure.buses.message_history import MessageHistory
from infrastructure.buses.payloads import decode_message, decode_payload, encode_message, encode_payload
from infrastructure.buses.recent_ids import RecentIds

PAYLOADS: st.SearchStrategy[Payload] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["$bytes", "$object"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PAYLOADS)
def test_a_payload_comes_back_as_it_went(payload: Payload) -> None:
    assert decode_payload(encode_payload(payload, limit=1_000_000)) == payload


@given(st.text(), st.text(), st.text(), PAYLOADS, st.sampled_from(Priority), st.none() | st.text(), st.integers(1))
def test_a_message_comes_back_as_it_went(
    sender: str, recipient: str, kind: str, payload: Payload, priority: Priority, correlation: str | None, attempt: int
) -> None:
    message = Message(sender, recipient, kind, payload, priority, correlation, 12.5, "id", attempt)
    assert decode_message(encode_message(message, encode_payload(payload, limit=1_000_000))) == message


def test_nan_and_infinities_are_carried() -> None:
    carried = decode_payload(encode_payload([math.nan, -math.inf], limit=100))
    assert repr(carried) == "[nan, -inf]"


@pytest.mark.parametrize("payload", [object(), (1, 2), {1: "one"}, [{"deep": {1}}], 1j])
def test_what_is_no_data_is_refused(payload: object) -> None:
    with pytest.raises(InvalidMessageError):
        encode_payload(payload, limit=1_000)  # type: ignore[arg-type]


def test_a_payload_without_an_end_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidMessageError):
        encode_payload(endless, limit=1_000)  # type: ignore[arg-type]


def test_a_payload_is_measured_as_it_is_written() -> None:
    assert len(encode_payload("é", limit=8)) == 8
    with pytest.raises(PayloadTooLargeError) as caught:
        encode_payload("é", limit=7)
    assert (caught.value.size, caught.value.limit) == (8, 7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[1,2,3,4,5,6,7,8,9]",
        b'["a","b","c",7,null,null,"i",1,null]',
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_message_is_not_read(data: bytes) -> None:
    with pytest.raises(UnreadableMessageError):
        decode_message(data)


@given(st.binary(max_size=60))
def test_whatever_bytes_are_found_nothing_else_is_raised(data: bytes) -> None:
    with suppress(UnreadableMessageError):
        decode_message(data)


def test_quantiles_are_within_one_percent_of_the_true_ones() -> None:
    chance = random.Random(7)
    seconds = sorted(chance.lognormvariate(-11.0, 1.5) for _ in range(20_000))
    histogram = LatencyHistogram()
    histogram.record_many(seconds[::2])
    for each in seconds[1::2]:
        histogram.record(each)
    for share in (0.5, 0.95, 0.99):
        assert histogram.quantile(share) == pytest.approx(seconds[int(share * 20_000)], rel=0.01)
    summary = histogram.summary_us()
    assert (summary["min"], summary["max"]) == (seconds[0] * 1e6, seconds[-1] * 1e6)
    assert histogram.count == 20_000


def test_a_histogram_of_nothing_has_no_quantiles() -> None:
    assert LatencyHistogram().summary_us() == {}


def test_histograms_are_added_up() -> None:
    whole, half, other = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    for number in range(1, 2_001):
        whole.record(number * 1e-6)
        (half if number % 2 else other).record(number * 1e-6)
    half.merge(other.buckets())
    assert half.count == whole.count
    assert half.quantile(0.5) == pytest.approx(whole.quantile(0.5), rel=0.01)


def test_durations_are_counted_up_to_each_bound() -> None:
    histogram = LatencyHistogram()
    durations = (5e-6, 2e-5, 3e-5, 9e-4, 0.3, 60.0)
    histogram.record_many(durations)
    counts = histogram.cumulative()
    assert tuple(counts) == LATENCY_BOUNDS_S
    assert counts == {bound: sum(each <= bound for each in durations) for bound in LATENCY_BOUNDS_S}
    assert histogram.total_s == pytest.approx(sum(durations))


def test_a_histogram_of_nothing_has_no_counts() -> None:
    assert LatencyHistogram().cumulative() == {}


def test_a_rate_is_that_of_the_last_ten_seconds() -> None:
    meter = RateMeter(100.0)
    for tenth in range(1, 301):
        meter.mark(100.0 + tenth / 10, tenth * 50)
    assert meter.per_second(130.0, 15_000) == pytest.approx(500.0, rel=0.02)
    assert meter.per_second(145.0, 15_000) == 0.0


def test_a_rate_begins_with_the_bus() -> None:
    assert RateMeter(100.0).per_second(102.0, 50) == 25.0


def test_an_id_is_remembered_until_enough_others_came() -> None:
    ids = RecentIds(remembered=10)
    for number in range(100):
        ids.add(str(number))
        assert all(str(recent) in ids for recent in range(max(0, number - 9), number + 1))
    assert "70" not in ids


def test_history_keeps_the_last_headers_only() -> None:
    history = MessageHistory(limit=3)
    for number in range(5):
        history.record(Message("a", "b", "note", "payload"), str(number), float(number))
    assert [(each.id, each.at, each.payload) for each in history.last(2)] == [("3", 3.0, None), ("4", 4.0, None)]
    assert len(history.last(100)) == 3
    assert history.last(0) == []
