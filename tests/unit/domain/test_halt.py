"""What several channels mean together: one that is set halts, one that is silent leaves all in doubt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.models.halt import ChannelReading, ChannelState, HaltCondition, combine

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLEAR = ChannelReading(halted=False)


def set_at(minute: int | None, reason: str | None = None) -> ChannelReading:
    return ChannelReading(
        halted=True, reason=reason, since=None if minute is None else NOON + timedelta(minutes=minute)
    )


def states(**readings: ChannelReading | None) -> list[ChannelState]:
    return [
        ChannelState(name, reading, "" if reading is not None else "it is gone") for name, reading in readings.items()
    ]


@pytest.mark.parametrize(
    ("database", "file", "condition"),
    [
        (CLEAR, CLEAR, HaltCondition.OPEN),
        (set_at(0), CLEAR, HaltCondition.HALTED),
        (CLEAR, set_at(0), HaltCondition.HALTED),
        (set_at(0), set_at(1), HaltCondition.HALTED),
        (None, CLEAR, HaltCondition.IN_DOUBT),
        (CLEAR, None, HaltCondition.IN_DOUBT),
        (None, None, HaltCondition.IN_DOUBT),
        (None, set_at(0), HaltCondition.HALTED),
        (set_at(0), None, HaltCondition.HALTED),
    ],
)
def test_one_channel_that_is_set_halts_and_one_that_is_silent_shuts_the_door(
    database: ChannelReading | None, file: ChannelReading | None, condition: HaltCondition
) -> None:
    state = combine(states(database=database, file=file))
    assert state.condition is condition
    assert state.halted is (condition is not HaltCondition.OPEN)


def test_a_channel_that_cannot_be_read_is_shown_as_halted_and_away() -> None:
    state = combine(states(database=CLEAR, file=None), doubtful_since=NOON)
    assert (state.channels["file"].halted, state.channels["file"].reachable) == (True, False)
    assert (state.channels["database"].halted, state.channels["database"].reachable) == (False, True)
    assert (state.unreachable, state.since) == (("file",), NOON)
    assert state.reason == "the halt channel 'file' cannot be read: it is gone"


def test_the_reason_is_that_of_the_halt_that_came_first() -> None:
    state = combine(states(database=set_at(5, "later"), file=set_at(2, "first"), redis=set_at(None, "whenever")))
    assert (state.reason, state.since) == ("first", NOON + timedelta(minutes=2))


def test_a_halt_without_a_reason_takes_that_of_another_channel() -> None:
    assert combine(states(database=set_at(5, "told"), file=set_at(2))).reason == "told"


def test_an_open_system_has_neither_reason_nor_time() -> None:
    state = combine(states(database=CLEAR, file=CLEAR), doubtful_since=NOON)
    assert (state.reason, state.since, state.held) == (None, None, None)


def test_a_process_that_holds_itself_is_halted_though_every_channel_is_clear() -> None:
    state = combine(states(database=CLEAR, file=CLEAR), held=set_at(0, "the log does not verify"))
    assert (state.condition, state.reason, state.held) == (
        HaltCondition.HALTED,
        "the log does not verify",
        "the log does not verify",
    )


def test_a_halt_that_no_channel_has_taken_halts_and_says_that_it_reaches_this_process_alone() -> None:
    told = set_at(0, "a drill")
    for found in (states(database=CLEAR, file=CLEAR), states(database=CLEAR, file=None)):
        state = combine(found, untaken=told)
        assert (state.condition, state.since, state.held) == (HaltCondition.HALTED, told.since, None)
        assert str(state.reason).startswith("a drill (this process alone")
    assert combine(states(database=set_at(5, "for all"), file=CLEAR), untaken=told).reason == "for all"
