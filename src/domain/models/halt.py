"""Whether the system is halted: what each channel says, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = ["MAX_REASON_CHARACTERS", "ChannelReading", "ChannelState", "HaltCondition", "HaltState", "combine"]

MAX_REASON_CHARACTERS = 1_000


class HaltCondition(StrEnum):
    """Open: agents may be called. In doubt: none may, and what runs waits. Halted: what runs is ended."""

    OPEN = "open"
    IN_DOUBT = "in doubt"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class ChannelReading:
    """What a channel that could be read says; `since` is when it was set, as far as the channel knows."""

    halted: bool
    reason: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What is known of a channel: its reading, or None and the `problem` that keeps it from being read."""

    name: str
    reading: ChannelReading | None
    problem: str = ""

    @property
    def reachable(self) -> bool:
        """Whether it can be read."""
        return self.reading is not None

    @property
    def halted(self) -> bool:
        """Whether it says so, or cannot be asked: then the worse is taken for true."""
        return self.reading is None or self.reading.halted


@dataclass(frozen=True, slots=True)
class HaltState:
    """What all channels together mean, with each of them; `held` says why this process alone stands still, if it does."""

    condition: HaltCondition
    reason: str | None = None
    since: datetime | None = None
    channels: Mapping[str, ChannelState] = field(default_factory=dict)
    held: str | None = None

    @property
    def halted(self) -> bool:
        """Whether no call may begin, be it for sure or in doubt."""
        return self.condition is not HaltCondition.OPEN

    @property
    def unreachable(self) -> tuple[str, ...]:
        """The names of the channels that cannot be read."""
        return tuple(name for name, channel in self.channels.items() if not channel.reachable)


def combine(
    channels: Sequence[ChannelState],
    *,
    held: ChannelReading | None = None,
    untaken: ChannelReading | None = None,
    doubtful_since: datetime | None = None,
) -> HaltState:
    """One channel that is set halts, whatever the others say; failing that, one that cannot be read leaves all in doubt.

    Reason and time are those of `held`, a stop of this process alone, or of the channel that was set first, or of `untaken`, a
    halt that this process was told of and no channel has taken. `doubtful_since` is when the present doubt began.
    """
    named = {channel.name: channel for channel in channels}
    set_ones = [channel.reading for channel in channels if channel.reading is not None and channel.reading.halted]
    if held is not None:
        return HaltState(HaltCondition.HALTED, held.reason, held.since, named, held.reason)
    if set_ones:
        # Those that do not know since when come last, and a reason is better than none.
        first = min(set_ones, key=lambda found: (found.since is None, found.since.timestamp() if found.since else 0.0))
        reason = next((found.reason for found in (first, *set_ones) if found.reason is not None), None)
        return HaltState(HaltCondition.HALTED, reason, first.since, named)
    if untaken is not None:
        reason = f"{untaken.reason} (this process alone is halted: no channel of the halt has taken it yet)"
        return HaltState(HaltCondition.HALTED, reason, untaken.since, named)
    away = [channel for channel in channels if not channel.reachable]
    if away:
        reason = "; ".join(f"the halt channel {channel.name!r} cannot be read: {channel.problem}" for channel in away)
        return HaltState(HaltCondition.IN_DOUBT, reason, doubtful_since, named)
    return HaltState(HaltCondition.OPEN, channels=named)
