"""Sets, clears and shows the halt of the whole system, and sees to it that each halt is recorded in the end.

One file, because setting, clearing and settling change the same notes and channels under the same lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from application.ports.clock import Clock, SystemClock
from application.ports.halt_channel import HaltChannel
from application.ports.halt_notes import HaltNote, HaltNotes
from application.ports.halt_watch import HaltWatch
from application.ports.witness_log import Disclosure, LoggedEntry
from application.services.administration import operators_statement
from application.services.channel_hand import ChannelHand
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import HaltChannelUnreachableError, HaltNotClearableError, NotHaltedError
from domain.errors.witness import EntryRecordedError, LogUnverifiedError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading, HaltState
from domain.models.text import text_problem

__all__ = ["HALT_CLEARED", "HALT_SET", "EntryLog", "HaltService"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

HALT_SET = "halt.set"
HALT_CLEARED = "halt.cleared"

_RECORD_S = 1.0
_CHANNEL_S = 1.0
_CLEAR_RECORD_S = 5.0
_UNTOLD = "it does not answer in time"


@dataclass(frozen=True, slots=True)
class _Untaken:
    """A halt that was told to this process and that no channel has taken; `note` is what the log lacks of it, where it was tried."""

    reason: str
    key_name: str | None
    since: datetime
    note: HaltNote | None


class EntryLog(Protocol):
    """The part of the witness log that a halt needs."""

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        """As in `WitnessLog`."""
        ...


class HaltService:
    """A halt takes effect where any channel can be set, with the log or without it, and is recorded exactly once in the end.

    The door of this process shuts before anything else is done. Changes come one at a time, run to their end whoever stops waiting
    for them, and use threads of their own alone, so that nothing that is full or stuck elsewhere keeps them. Where no channel can
    be set this process stays halted by itself, and `settle` goes on trying, until one takes it or it is cleared here.
    """

    def __init__(
        self,
        *,
        channels: Sequence[HaltChannel],
        watch: HaltWatch,
        log: EntryLog,
        notes: HaltNotes,
        clock: Clock | None = None,
        log_problem: Callable[[], LogUnverifiedError | None] = lambda: None,
        record_s: float = _RECORD_S,
        channel_s: float = _CHANNEL_S,
    ) -> None:
        """`channels` in the order in which they count most: the last is cleared first.

        A halt waits `record_s` seconds for its entry and then `channel_s` for its channels. While `log_problem` gives one, nothing
        is added to the log.
        """
        self._channels = {channel.name: channel for channel in channels}
        self._hands = {name: ChannelHand(name) for name in self._channels}
        self._notes = notes
        self._notes_hand = ChannelHand("notes")
        self._unkept: dict[str, HaltNote] = {}
        self._grumbled = ""
        self._watch = watch
        self._log = log
        self._log_problem = log_problem
        self._clock: Clock = SystemClock() if clock is None else clock
        self._record_s = record_s
        self._channel_s = channel_s
        self._changing = asyncio.Lock()
        self._set_here: tuple[datetime, str | None] | None = None
        self._untaken: _Untaken | None = None
        self._settles = False
        self._work: set[asyncio.Task[Any]] = set()

    def status(self) -> HaltState:
        """What this process knows of the halt, without a look."""
        return self._watch.state

    @property
    def knows_alone(self) -> bool:
        """Whether this process alone knows what a halt still lacks: where no note can be kept that is lost with it."""
        return bool(self._unkept)

    def set_by(self) -> str | None:
        """The name of the key that set the present halt, '' where it had none; None where it was not through this process.

        The log knows of every halt that was set by a command: its entry `halt.set` commits to the name.
        """
        if self._set_here is None or self._set_here[0] != self._watch.state.since:
            return None
        return self._set_here[1] or ""

    async def look(self) -> HaltState:
        """Read every channel now, and what they say."""
        await asyncio.gather(*(self._look_at(name) for name in self._channels))
        return self._watch.state

    async def set(self, reason: str, *, key_name: str | None) -> HaltState:
        """Halt. Returns once one channel at least holds it; one that holds a halt already keeps that halt's reason.

        Recorded before it takes effect where the log takes it in time, else as soon as the log is back; recorded at all where it
        changes something. A channel that is away is set once it is back, unless the halt is cleared first. Raises
        `InvalidSpecificationError`, and `DependencyUnavailableError` when no channel can be set: then this process alone is halted.
        """
        _require_reason(reason)
        return await self._to_its_end(self._set(reason, key_name))

    async def clear(self, reason: str, *, key_name: str | None) -> HaltState:
        """End the halt, recorded before it takes effect. Whatever interrupts this leaves a channel set, so it can be done again.

        Raises `InvalidSpecificationError`, `NotHaltedError`, `HaltNotClearableError` while a channel is away or the log does not
        verify, and `DependencyUnavailableError` when the log or a channel goes away meanwhile.
        """
        _require_reason(reason)
        return await self._to_its_end(self._clear(reason, key_name))

    async def settle(self) -> bool:
        """Do what notes say is still to be done; whether anything is left."""
        if self._untaken is None and not await self._all_notes():
            return False
        return await self._to_its_end(self._settle())

    async def settle_for_ever(self, interval_s: float = 0.2) -> None:
        """Settle again and again, until cancelled."""
        self._settles = True
        try:
            while True:
                await self._settle_if_possible()
                await asyncio.sleep(interval_s)
        finally:
            self._settles = False

    async def _settle_if_possible(self) -> None:
        try:
            await self.settle()
        except ConclaveError as error:
            self._grumble(str(error))
        except Exception:
            # Without it no halt would ever be recorded, and nobody would notice.
            _logger.exception("settling halts broke; it is tried again")

    def _grumble(self, problem: str) -> None:
        """Say once what keeps a halt from being recorded, however often it does."""
        if problem != self._grumbled:
            self._grumbled = problem
            _logger.warning("a halt is not recorded yet: %s", problem)

    async def _to_its_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` comes to. Who stops waiting does not stop it: half a halt would be worse than either."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def _set(self, reason: str, key_name: str | None) -> HaltState:
        with self._watch.shut():
            async with self._changing:
                if self._untaken is not None:
                    # A halt over a halt: the first one's reason stays.
                    was_taken, away = await self._take(list(self._channels))
                    self._tell_away(away)
                    if not was_taken:
                        raise self._not_halted(away)
                    return self._watch.state
                return await self._set_anew(reason, key_name)

    async def _set_anew(self, reason: str, key_name: str | None) -> HaltState:
        since = self._clock.now()
        state = self._watch.state
        lacking = [name for name, channel in state.channels.items() if not _holds(channel.reading)]
        note: HaltNote | None = None
        late: ConclaveError | None = None
        # Where every channel is away, whether anything changes is only known once it was tried.
        if any(state.channels[name].reachable for name in lacking):
            note, late = await self._recorded(self._note(reason, key_name, since, lacking))
            if note.document is not None:
                await self._keep(note)
        changed, away = await self._set_everywhere(reason, since)
        self._tell_away(away)
        if len(away) == len(self._channels):
            if note is not None:
                # On the disk it would come into force after a restart, when nobody expects it any more.
                await self._drop(note.id)
            self._stand_alone(_Untaken(reason, key_name, since, note))
            raise self._not_halted(away)
        self._set_here = (since, key_name) if changed else self._set_here
        if changed and note is None:
            # Cleared elsewhere so lately that nobody here had seen it, or thought to be away.
            note, late = await self._recorded(self._note(reason, key_name, since, changed))
        if late is not None:
            _logger.warning("a halt took effect before it is recorded: %s", late)
        if note is None and away:
            note = HaltNote(str(uuid4()), reason, since, None)
        if note is not None:
            await self._keep_or_drop(replace(note, channels=tuple(away)))
        return self._watch.state

    def _tell_away(self, away: Mapping[str, str]) -> None:
        for name, problem in away.items():
            self._watch.tell(name, None, problem)

    def _stand_alone(self, halt: _Untaken) -> None:
        """Halt this process by itself, until a channel takes it."""
        self._untaken, self._set_here = halt, (halt.since, halt.key_name)
        self._watch.tell_untaken(ChannelReading(halted=True, reason=halt.reason, since=halt.since))

    async def _take(self, names: Sequence[str]) -> tuple[bool, dict[str, str]]:
        """Set those channels to the halt that none has taken; whether one took it, which are away and why. Wants `_changing`."""
        halt = self._untaken
        assert halt is not None  # noqa: S101 - whoever calls has looked
        changed, away = await self._set_everywhere(halt.reason, halt.since, names)
        if len(away) == len(names):
            return False, away
        # It has halted this process in any case, so it is recorded even where the channels hold another by now.
        note = halt.note or self._note(halt.reason, halt.key_name, halt.since, changed)
        missing = tuple(name for name in self._channels if name in away or name not in names)
        await self._keep_or_drop(replace(note, channels=missing))
        self._untaken = None
        self._watch.tell_untaken(None)
        _logger.warning("a halt that no channel took at first is set now: the system is halted")
        return True, away

    def _not_halted(self, away: Mapping[str, str]) -> DependencyUnavailableError:
        alone = "This process alone is halted, and sets them as soon as it can. " if self._settles else ""
        others = "the others" if self._settles else "the processes"
        return DependencyUnavailableError(
            dependency="the halt",
            problem=f"no channel can be set ({'; '.join(f'{name}: {why}' for name, why in away.items())})",
            remedy=f"The system is NOT halted. {alone}Stop {others}, and mend a channel.",
            told=f"No channel of the halt can be set: the system is NOT halted. {alone}Stop {others}, and mend a channel.",
        )

    async def _clear(self, reason: str, key_name: str | None) -> HaltState:
        async with self._changing:
            state = await self.look()
            if state.held is not None:
                raise HaltNotClearableError(
                    problem=state.held,
                    remedy="It ends by itself once the log verifies; `conclave witness fsck` says where.",
                )
            if state.unreachable:
                raise HaltNotClearableError(
                    problem=f"these channels are away: {', '.join(state.unreachable)}",
                    remedy="Bring them back first: a halt that one of them holds would return with it.",
                    unreachable=state.unreachable,
                )
            if self._untaken is None and not any(_holds(channel.reading) for channel in state.channels.values()):
                raise NotHaltedError
            await self._record_untaken()
            for note in await self._all_notes():
                # What it would still set is what is being cleared; that it was set has to stand in the log before that.
                if note.document is not None:
                    await self._append(note.document, note.disclosures, timeout_s=_CLEAR_RECORD_S)
                await self._drop(note.id)
            at = self._clock.now()
            document, texts = operators_statement(HALT_CLEARED, at=at, reason=reason, key_name=key_name)
            await self._append(document, texts, timeout_s=_CLEAR_RECORD_S)
            for name in reversed(self._channels):
                try:
                    await self._hands[name].do(self._channels[name].clear, timeout_s=self._channel_s)
                except (HaltChannelUnreachableError, TimeoutError) as error:
                    self._watch.tell(name, None, _problem_of(error))
                    raise DependencyUnavailableError(
                        dependency=f"the halt channel {name!r}",
                        problem=f"{_problem_of(error)}; it may or may not be cleared",
                        remedy="See `conclave halt status`, and clear again.",
                    ) from error
                self._watch.tell(name, ChannelReading(halted=False))
            self._untaken = None
            self._watch.tell_untaken(None)
            return self._watch.state

    async def _record_untaken(self) -> None:
        """Have a halt of this process alone stand in the log, before its end does."""
        halt = self._untaken
        if halt is None:
            return
        note = halt.note or self._note(halt.reason, halt.key_name, halt.since, ())
        # Remembered first, so that it is the same entry however often it is tried.
        self._untaken = replace(halt, note=note)
        if note.document is not None:
            await self._append(note.document, note.disclosures, timeout_s=_CLEAR_RECORD_S)
            self._untaken = replace(halt, note=replace(note, document=None, disclosures=()))

    async def _settle(self) -> bool:
        async with self._changing:
            reachable = [name for name, channel in self._watch.state.channels.items() if channel.reachable]
            if self._untaken is not None and reachable:
                await self._take(reachable)
            left = [await self._carried_on(note) for note in await self._all_notes()]
        for note in left:
            if note.document is not None:
                # Outside the lock: a log that hangs holds up no other halt.
                await self._append(note.document, note.disclosures, timeout_s=self._record_s)
                await self._mark_recorded(note.id)
        return self._untaken is not None or any(note.channels for note in left)

    async def _carried_on(self, note: HaltNote) -> HaltNote:
        """What is left of it, once the channels that are back are set: before the log, so that whoever reads them stays halted."""
        missing = []
        for name in note.channels:
            channel = self._watch.state.channels.get(name)
            if channel is not None:
                is_set = channel.reachable and (await self._set_one(name, note.reason, note.since))[0]
                missing += [] if is_set else [name]
        left = replace(note, channels=tuple(missing))
        if left != note:
            await self._keep_or_drop(left)
        return left

    async def _mark_recorded(self, note_id: str) -> None:
        async with self._changing:
            # Read again: a halt that was cleared meanwhile reaches no further channel.
            for note in await self._all_notes():
                if note.id == note_id:
                    await self._keep_or_drop(replace(note, document=None, disclosures=()))

    async def _recorded(self, note: HaltNote) -> tuple[HaltNote, ConclaveError | None]:
        """What is left of it once it was tried to record it in time, and what kept it from being recorded."""
        assert note.document is not None  # noqa: S101 - it was just made
        try:
            await self._append(note.document, note.disclosures, timeout_s=self._record_s)
        except ConclaveError as error:
            return note, error
        return replace(note, document=None, disclosures=()), None

    async def _append(self, document: Mapping[str, Any], texts: Sequence[Disclosure], *, timeout_s: float) -> None:
        """Record it, once however often it is tried. Raises `DependencyUnavailableError` and `LogUnverifiedError`."""
        problem = self._log_problem()
        if problem is not None:
            raise problem.with_traceback(None)
        # Not cancelled: whether a write that is given up was done after all, nobody could tell.
        writing = asyncio.ensure_future(self._log.append([document], disclosures=texts))
        self._work.add(writing)
        writing.add_done_callback(self._heard)
        done, _ = await asyncio.wait({writing}, timeout=timeout_s)
        if not done:
            raise DependencyUnavailableError(dependency="the witness log", problem="it does not answer in time")
        try:
            writing.result()
        except EntryRecordedError:
            _logger.debug("it was recorded before")

    def _heard(self, writing: asyncio.Future[Any]) -> None:
        self._work.discard(writing)
        if not writing.cancelled():
            writing.exception()

    async def _set_everywhere(
        self, reason: str, since: datetime, names: Sequence[str] = ()
    ) -> tuple[list[str], dict[str, str]]:
        """Which channels (those, or all) were changed, and which are away and why."""
        names = names or list(self._channels)
        found = await asyncio.gather(*(self._set_one(name, reason, since) for name in names))
        changed = [name for name, (_, was_changed, _) in zip(names, found, strict=True) if was_changed]
        away = {name: problem for name, (is_set, _, problem) in zip(names, found, strict=True) if not is_set}
        return changed, away

    async def _set_one(self, name: str, reason: str, since: datetime) -> tuple[bool, bool, str]:
        """Whether it holds a halt now, whether that is new, and otherwise why not. One that takes none may be read all the same."""
        channel = self._channels[name]
        try:
            changed = await self._hands[name].do(lambda: channel.set(reason, since), timeout_s=self._channel_s)
        except (HaltChannelUnreachableError, TimeoutError) as error:
            return False, False, _problem_of(error)
        held = self._watch.state.channels[name].reading
        told = held if not changed and _holds(held) else ChannelReading(halted=True, reason=reason, since=since)
        self._watch.tell(name, told)
        return True, changed, ""

    async def _look_at(self, name: str) -> None:
        try:
            found = await self._hands[name].do(self._channels[name].read, timeout_s=self._channel_s)
        except (HaltChannelUnreachableError, TimeoutError) as error:
            self._watch.tell(name, None, _problem_of(error))
        else:
            self._watch.tell(name, found)

    def _note(self, reason: str, key_name: str | None, since: datetime, channels: Sequence[str]) -> HaltNote:
        document, texts = operators_statement(
            HALT_SET, at=since, reason=reason, key_name=key_name, facts={"channels": list(channels)}
        )
        return HaltNote(str(uuid4()), reason, since, document, texts, tuple(channels))

    async def _keep_or_drop(self, note: HaltNote) -> None:
        if note.document is None and not note.channels:
            await self._drop(note.id)
        else:
            await self._keep(note)

    async def _keep(self, note: HaltNote) -> None:
        try:
            await self._notes_hand.do(lambda: self._notes.keep(note), timeout_s=self._channel_s)
        except (HaltChannelUnreachableError, TimeoutError) as error:
            self._unkept[note.id] = note
            _logger.warning("what a halt still lacks is known to this process alone: %s", _problem_of(error))
        else:
            self._unkept.pop(note.id, None)

    async def _drop(self, note_id: str) -> None:
        self._unkept.pop(note_id, None)
        try:
            await self._notes_hand.do(lambda: self._notes.drop(note_id), timeout_s=self._channel_s)
        except (HaltChannelUnreachableError, TimeoutError) as error:
            _logger.warning("the note of a halt stays: %s", _problem_of(error))

    async def _all_notes(self) -> list[HaltNote]:
        try:
            kept = await self._notes_hand.do(self._notes.all, timeout_s=self._channel_s)
        except (HaltChannelUnreachableError, TimeoutError):
            # The channel in the same place says so louder.
            kept = ()
        return [*(note for note in kept if note.id not in self._unkept), *self._unkept.values()]


def _holds(reading: ChannelReading | None) -> bool:
    return reading is not None and reading.halted


def _problem_of(error: HaltChannelUnreachableError | TimeoutError) -> str:
    return error.problem if isinstance(error, HaltChannelUnreachableError) else _UNTOLD


def _require_reason(reason: str) -> None:
    problem = text_problem(reason, max_bytes=4 * MAX_REASON_CHARACTERS)
    if problem is None and len(reason) > MAX_REASON_CHARACTERS:
        problem = f"is {len(reason)} characters long, at most {MAX_REASON_CHARACTERS} are taken"
    if problem is not None:
        raise InvalidSpecificationError.at("/reason", problem)
