"""Headers about limits come from anywhere: they are read as they are meant, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infrastructure.orchestrators.rate_headers import Remainder, remainders

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def noon() -> datetime:
    return NOON


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("8.64s", 8.64),
        ("17µs", 17e-6),
        ("2d", 172_800),
        ("45", 45),
        ("0.25", 0.25),
        ("1767268830", 30),
        ("1767268830500", 30.5),
        ("2026-01-01T12:00:20Z", 20),
        ("2026-01-01T13:00:20+01:00", 20),
        ("2026-01-01T12:00:20", 20),
        ("2026-01-01T11:00:00Z", 0),
    ],
)
def test_the_time_of_renewal_is_read_in_every_dialect(reset: str, seconds: float) -> None:
    requests, tokens = remainders({"x-ratelimit-remaining": "3", "x-ratelimit-reset": reset}, now=noon)
    assert requests is not None
    assert requests.left == 3
    assert requests.reset_s == pytest.approx(seconds)
    assert tokens is None


def test_requests_and_tokens_are_told_apart_whatever_the_case_of_the_names() -> None:
    headers = {
        "X-RateLimit-Remaining-Requests": "1",
        "X-RateLimit-Reset-Requests": "2s",
        "x-ratelimit-remaining-tokens": "3",
        "x-ratelimit-reset-tokens": "4s",
        "content-type": "application/json",
    }
    assert remainders(headers, now=noon) == (Remainder(1, 2), Remainder(3, 4))


@pytest.mark.parametrize("left", ["-1", "1.5", "", "many", "٣", "1_000", "9" * 16, "inf"])
def test_what_is_no_count_says_nothing(left: str) -> None:
    assert remainders({"ratelimit-remaining": left, "ratelimit-reset": "5"}, now=noon) == (None, None)


@pytest.mark.parametrize("reset", ["", "-5", "soon", "5 s", "s", ".", "infs", "nan", "1e5", "5x", "5s!", "9" * 70])
def test_what_is_no_time_says_nothing(reset: str) -> None:
    assert remainders({"ratelimit-remaining": "0", "ratelimit-reset": reset}, now=noon) == (None, None)


@given(st.text() | st.from_regex(r"[0-9.]{1,20}(ms|s|m|h|d)?([0-9]{1,9}s)?", fullmatch=True), st.text())
@example("9999-12-31T23:59:59-23:59", "0")
@example("0001-01-01T00:00:00+23:59", "0")
def test_no_header_can_break_the_reading_or_tell_a_time_that_is_none(reset: str, left: str) -> None:
    for each in remainders({"ratelimit-remaining": left, "ratelimit-reset": reset}, now=noon) + remainders(
        {"ratelimit-remaining": "0", "ratelimit-reset": reset}, now=noon
    ):
        assert each is None or (each.left >= 0 and 0 <= each.reset_s < 1e16)
