"""Watches every channel of the halt from threads of its own, and shuts the door the moment that one of them is set or silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from application.ports.halt_channel import HaltChannel
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import ChannelReading, ChannelState, HaltCondition, HaltState, combine

__all__ = ["DualChannelHaltChecker"]

_logger = logging.getLogger(__name__)
_NEVER = float("-inf")
_GRACE_S = 0.05


@dataclass(slots=True)
class _Known:
    """What a channel said last, and at which monotonic second the look began that found it."""

    state: ChannelState
    looked_at: float = _NEVER
    # Counts what was told besides, so that a look that began before is not believed after.
    told: int = 0


class DualChannelHaltChecker:
    """`HaltChecker` over any number of channels, each read every `poll_s` seconds by a thread of its own.

    One channel that is set halts. One that cannot be read, or has said nothing for `stale_s` seconds, shuts the door until it is
    heard again, and so does one that was never read yet. Asking costs no look at a channel. May be used from several event loops.
    Threads begin with the first use, and end with `close` or when nobody holds the checker any more; it may be used in `with`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[HaltChannel],
        poll_s: float = 0.05,
        stale_s: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`channels` have names of their own and stay the caller's to close. `monotonic` and `now` are asked in threads."""
        self._ending = threading.Event()
        self._channels = {channel.name: channel for channel in channels}
        if len(self._channels) != len(channels) or not channels:
            raise ValueError("a halt needs channels, each with a name of its own")
        self._poll_s = poll_s
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._now = now
        # Taken again by whoever holds it: waking waiters may let one of them ask.
        self._lock = threading.RLock()
        self._known = {name: _Known(ChannelState(name, None, "it was not read yet")) for name in self._channels}
        self._held: ChannelReading | None = None
        self._untaken: ChannelReading | None = None
        self._shut = 0
        self._ends_nothing_before = _NEVER
        self._doubtful_since: datetime | None = None
        self._state = HaltState(HaltCondition.IN_DOUBT)
        self._fresh_until = _NEVER
        self._for_halt: set[_Waiter] = set()
        self._for_decision: set[_Waiter] = set()
        self._for_looks: set[_Waiter] = set()
        self._threads: list[threading.Thread] = []
        self._asked = False
        self._publish()

    @property
    def state(self) -> HaltState:
        """What all channels together mean now."""
        if self._state.condition is HaltCondition.OPEN and self._monotonic() > self._fresh_until:
            self._publish()
        return self._state

    async def is_halted(self) -> bool:
        """As in `HaltChecker`: whether it is set, in doubt, or silent for too long.

        The first to ask waits until the channels were read once, but for `stale_s` seconds at most.
        """
        if not self._asked:
            await self.first_look(timeout_s=self._stale_s)
            self._asked = True
        # The state is one object, replaced as a whole, so that reading it needs no lock.
        if self._state.condition is not HaltCondition.OPEN:
            return True
        return self._monotonic() > self._fresh_until

    async def get_halt_reason(self) -> str | None:
        """Why it is halted, or which channels leave it in doubt; None while it is open."""
        return self.state.reason

    async def wait_until_halted(self) -> None:
        """As in `HaltChecker`. A halt that was set and cleared again meanwhile is not missed."""
        self.start()
        with self._lock:
            if self._state.condition is HaltCondition.HALTED and self._may_end():
                return
            waiter = _Waiter(self._for_halt)
        await waiter.wait()

    async def wait_until_open(self) -> bool:
        """As in `HaltChecker`."""
        self.start()
        while True:
            with self._lock:
                condition = self.state.condition
                if condition is HaltCondition.OPEN or (condition is HaltCondition.HALTED and self._may_end()):
                    return condition is HaltCondition.OPEN
                waiter = _Waiter(self._for_decision)
            await waiter.wait()

    async def first_look(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every channel has answered or failed once, or so many seconds; whether they have."""
        self.start()
        with self._lock:
            if self._has_looked():
                return True
            waiter = _Waiter(self._for_looks)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.wait()
        except TimeoutError:
            return False
        return True

    def start(self) -> None:
        """Begin to watch, unless that has begun."""
        with self._lock:
            if self._threads or self._ending.is_set():
                return
            me = weakref.ref(self)
            self._threads = [
                threading.Thread(
                    target=_watch, args=(me, channel, self._ending, self._poll_s), name=f"halt-{name}", daemon=True
                )
                for name, channel in self._channels.items()
            ]
            for thread in self._threads:
                thread.start()

    def close(self, *, timeout_s: float = 1.0) -> None:
        """Stop watching; threads that hang are not waited for any longer. From then on everything is in doubt."""
        self._ending.set()
        end = self._monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - self._monotonic()))
        with self._lock:
            for name in self._known:
                self.tell(name, None, "nobody watches it any more")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._ending.set()

    def hold(self, reason: str) -> None:
        """Halt this process alone, whatever the channels say, until `let_go`."""
        with self._lock:
            self._held = ChannelReading(halted=True, reason=reason, since=self._now())
            self._publish()

    def let_go(self) -> None:
        """End what `hold` began; the channels count again."""
        with self._lock:
            self._held = None
            self._publish()

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """As in `HaltWatch`: in doubt from here on, unless halted.

        Nor is anything ended in the 50 ms after it: to end a hundred agents keeps the event loop busy for longer than an
        acknowledgement of the halt may take.
        """
        with self._lock:
            self._shut += 1
            self._publish()
        try:
            yield
        finally:
            with self._lock:
                self._shut -= 1
                self._ends_nothing_before = self._monotonic() + _GRACE_S
                self._publish()

    def tell(self, channel: str, reading: ChannelReading | None, problem: str = "") -> None:
        """As in `HaltWatch`: believed at once, and above a look that is under way."""
        with self._lock:
            known = self._known[channel]
            known.told += 1
            known.state = ChannelState(channel, reading, problem)
            known.looked_at = self._monotonic()
            self._publish()

    def tell_untaken(self, reading: ChannelReading | None) -> None:
        """As in `HaltWatch`."""
        with self._lock:
            self._untaken = reading
            self._publish()

    def look(self, channel: HaltChannel) -> None:
        """Read that channel now, in this thread, and publish what it says."""
        with self._lock:
            told, began = self._known[channel.name].told, self._monotonic()
        found = _read(channel)
        with self._lock:
            known = self._known[channel.name]
            if known.told != told:
                return
            if found.problem and found.problem != known.state.problem:
                _logger.warning("the halt channel %r cannot be read: %s", channel.name, found.problem)
            elif known.state.problem and not found.problem:
                _logger.info("the halt channel %r is read again", channel.name)
            known.state, known.looked_at = found, began
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            now = self._monotonic()
            states = [self._as_of(known, now) for known in self._known.values()]
            doubtful = self._shut > 0 or any(not state.reachable for state in states)
            self._doubtful_since = (self._doubtful_since or self._now()) if doubtful else None
            found = combine(states, held=self._held, untaken=self._untaken, doubtful_since=self._doubtful_since)
            if self._shut and found.condition is HaltCondition.OPEN:
                found = HaltState(HaltCondition.IN_DOUBT, "a halt is being set", self._doubtful_since, found.channels)
            if found.condition is not self._state.condition and self._threads and not self._ending.is_set():
                _logger.log(
                    logging.INFO if found.condition is HaltCondition.OPEN else logging.WARNING,
                    "the system is %s%s",
                    found.condition.value,
                    f": {found.reason}" if found.reason else "",
                )
            self._fresh_until = min(known.looked_at for known in self._known.values()) + self._stale_s
            self._state = found
            if found.condition is HaltCondition.OPEN:
                _wake(self._for_decision)
            elif found.condition is HaltCondition.HALTED and self._may_end():
                _wake(self._for_halt)
                _wake(self._for_decision)
            if self._for_looks and self._has_looked():
                _wake(self._for_looks)

    def _as_of(self, known: _Known, now: float) -> ChannelState:
        state = known.state
        if state.reading is None or now - known.looked_at <= self._stale_s:
            return state
        # A halt that was read is not forgotten because its channel has gone silent.
        if state.reading.halted:
            return state
        return ChannelState(state.name, None, f"it has not answered for {self._stale_s:g} s")

    def _may_end(self) -> bool:
        return not self._shut and self._monotonic() >= self._ends_nothing_before

    def _has_looked(self) -> bool:
        return all(known.looked_at > _NEVER for known in self._known.values())


class _Waiter:
    """One task that waits, in whatever event loop; it stands in `among` until it is woken or gives up."""

    __slots__ = ("_among", "_woken")

    def __init__(self, among: set[_Waiter]) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        self._among = among
        among.add(self)

    async def wait(self) -> None:
        try:
            await self._woken
        finally:
            self._among.discard(self)

    def wake(self) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._woken.get_loop().call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


def _wake(waiters: set[_Waiter]) -> None:
    for waiter in list(waiters):
        waiter.wake()
    waiters.clear()


def _read(channel: HaltChannel) -> ChannelState:
    try:
        return ChannelState(channel.name, channel.read())
    except HaltChannelUnreachableError as error:
        return ChannelState(channel.name, None, error.problem)
    except Exception as error:
        # A thread that dies would leave the door to whatever was read last.
        _logger.exception("reading the halt channel %r broke", channel.name)
        return ChannelState(channel.name, None, f"reading it broke ({type(error).__name__})")


def _watch(
    checker: weakref.ref[DualChannelHaltChecker], channel: HaltChannel, ending: threading.Event, poll_s: float
) -> None:
    while not ending.is_set():
        found = checker()
        if found is None:
            return
        found.look(channel)
        # Held while it waits, it would never be given up.
        del found
        ending.wait(poll_s)
