"""How long to wait between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from application.services.retry_policy import RetryPolicy


@given(st.integers(1, 20), st.floats(0, 1))
def test_full_jitter_stays_between_nothing_and_the_capped_exponential(attempt: int, draw: float) -> None:
    policy = RetryPolicy(base_s=0.5, cap_s=8, draw=lambda: draw)
    assert 0 <= policy.delay(attempt, None) <= min(8, 0.5 * 2 ** (attempt - 1))


@given(st.floats(0, 1000), st.floats(0, 1))
def test_what_the_far_end_asks_for_is_waited_at_least(asked: float, draw: float) -> None:
    assert RetryPolicy(draw=lambda: draw).delay(1, asked) >= asked


def test_a_far_end_that_asks_for_the_past_is_not_waited_for() -> None:
    assert RetryPolicy(draw=lambda: 0.0).delay(1, -5.0) == 0.0


def test_however_often_it_was_tried_the_pause_is_the_longest_one() -> None:
    assert RetryPolicy(cap_s=8, draw=lambda: 1.0).delay(5_000, None) == 8
