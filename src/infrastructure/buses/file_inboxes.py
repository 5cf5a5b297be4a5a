"""The steps on the inboxes of a file bus, each made whole under the folder's lock: put, take, acknowledge, drop, bury, mend.

It is one file, because every step moves files and counts in the same words of an inbox: what one of them leaves, the others rely on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from enum import Enum

from domain.errors.bus import UnreadableMessageError
from domain.models.message import DeadLetterReason, Message, Overflow
from infrastructure.buses.file_folder import BusFolder, damaged
from infrastructure.buses.file_frames import Draft, microseconds, numbers, read_frame
from infrastructure.buses.file_held import HeldMessage, held_name
from infrastructure.buses.file_latencies import count_latency
from infrastructure.buses.file_letters import Letters
from infrastructure.buses.file_mending import mend
from infrastructure.buses.file_registry import Agent, Registry
from infrastructure.buses.file_words import NEVER, Inbox, State, is_sound

__all__ = ["Inboxes", "Verdict"]

_logger = logging.getLogger(__name__)
# So many missing messages are stepped over one by one.
_FEW = 4_096

Ring = Callable[[Agent], None]
Tell = Callable[[str, Message], None]


class Verdict(Enum):
    """What an inbox did with a message."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    FULL = "full"
    # A full inbox of `drop_oldest` dropped the new one.
    DROPPED = "dropped"


class Inboxes:
    """Every call is made under the folder's lock, with the registry refreshed, and leaves the folder whole unless it raises `OSError`."""

    def __init__(
        self,
        folder: BusFolder,
        state: memoryview,
        registry: Registry,
        *,
        wall_clock: Callable[[], float],
        steady_clock: Callable[[], float],
        ring: Ring,
        tell: Tell | None,
    ) -> None:
        self._folder = folder
        self._state = state
        self._registry = registry
        self._steady_clock = steady_clock
        # Unix seconds.
        self.unix_s = wall_clock
        self._ring = ring
        self._tell = tell
        self.letters = Letters(folder, state, wall_clock=wall_clock)

    def monotonic_ns(self) -> int:
        """Nanoseconds by which all processes of this machine agree."""
        return int(self._steady_clock() * 1e9)

    def require_sound(self, agent: Agent) -> None:
        """Raises `BusUnavailableError` where the counts of an inbox are none."""
        if not is_sound(agent.words):
            raise damaged(self._folder.path, f"the inbox of {agent.name!r} counts what no bus counted")

    def size(self, agent: Agent) -> int:
        """Waiting and unacknowledged messages."""
        words = agent.words
        return words[Inbox.WAITING] + words[Inbox.WAITING + 1] + words[Inbox.WAITING + 2] + words[Inbox.HELD]

    def waiting(self, agent: Agent) -> int:
        """Waiting messages that were not delivered yet."""
        words = agent.words
        return words[Inbox.WAITING] + words[Inbox.WAITING + 1] + words[Inbox.WAITING + 2]

    def put(self, agent: Agent, draft: Draft, *, keep: bool = False) -> Verdict:
        """Add a message, if there is room; `keep` when another inbox gets it too."""
        folder, words, state, message = self._folder, agent.words, self._state, draft.message
        self.require_sound(agent)
        if draft.given_id and agent.ids.knows(folder, words, message.id):
            state[State.DUPLICATES] += 1
            return Verdict.DUPLICATE
        if self.size(agent) >= agent.capacity:
            self.sweep()
            if self.size(agent) >= agent.capacity:
                if agent.overflow is not Overflow.DROP_OLDEST:
                    return Verdict.FULL
                if not self._drop_oldest(agent, message):
                    if draft.given_id:
                        agent.ids.write(folder, message.id)
                    self.bury_draft(agent.name, DeadLetterReason.INBOX_FULL, draft, keep=keep)
                    state[State.DROPPED] += 1
                    state[State.SENT] += 1
                    if draft.given_id:
                        agent.ids.commit(folder, words, message.id)
                    return Verdict.DROPPED
        if draft.given_id:
            agent.ids.write(folder, message.id)
        priority = int(message.priority)
        sequence = words[Inbox.TAIL + priority]
        name = f"{agent.slot:x}-{priority}-{sequence:x}"
        if message.expires_at is not None:
            expiry = microseconds(message.expires_at)
            marker = f"{name}-{expiry:x}"
            folder.clear("expiring", marker)
            folder.create("expiring", marker, b"")
            state[State.NEXT_EXPIRY] = min(state[State.NEXT_EXPIRY], expiry)
        draft.place(folder, ("messages", name), keep=keep)
        words[Inbox.WAITING + priority] += 1
        words[Inbox.TAIL + priority] = sequence + 1
        state[State.SENT] += 1
        if draft.given_id:
            agent.ids.commit(folder, words, message.id)
        self._ring(agent)
        return Verdict.TAKEN

    def take(self, agent: Agent, limit: int) -> list[Message]:
        """Up to so many messages, those due again before others of their priority."""
        words = agent.words
        self.require_sound(agent)
        taken: list[Message] = []
        now = self.monotonic_ns()
        if words[Inbox.HELD]:
            self.look_at_held(agent)
            agent.held.ripen(now)
        elif not self.waiting(agent):
            return taken
        try:
            for priority in range(3):
                while len(taken) < limit and (due := agent.held.next_ready(priority, now)) is not None:
                    message = self._deliver_again(agent, due, now)
                    if message is not None:
                        taken.append(message)
                while len(taken) < limit and words[Inbox.WAITING + priority]:
                    message = self._deliver(agent, priority, now)
                    if message is not None:
                        taken.append(message)
        except OSError:
            # What was taken is taken; the rest is tried again.
            if not taken:
                raise
            self.mend()
        if taken:
            self._ring(agent)
        return taken

    def next_due(self, agent: Agent) -> int | None:
        """When a message may be delivered again, in monotonic nanoseconds."""
        return agent.held.next_due() if agent.words[Inbox.HELD] else None

    def room_in_s(self) -> float:
        """Seconds until something may go of itself: it expires, or its last delivery was not acknowledged in time."""
        expiry = self._state[State.NEXT_EXPIRY] * 1e-6 - self.unix_s()
        last_due = self._state[State.NEXT_LAST_DUE] * 1e-9 - self._steady_clock()
        return max(0.0, min(expiry, last_due))

    def acknowledge(self, agent: Agent, ids: tuple[str, ...]) -> int:
        """Remove these from what is unacknowledged, which a message is until it is delivered again or buried, however late."""
        self.require_sound(agent)
        self.sweep()
        if not agent.words[Inbox.HELD]:
            return 0
        self.look_at_held(agent)
        held = agent.held
        if len(held.by_id) < len(held.messages) and any(each not in held.by_id for each in ids):
            self._learn_ids(agent)
        done = 0
        for message_id in ids:
            message = held.by_id.get(message_id)
            if message is None:
                continue
            name = held_name(agent.slot, message)
            if self._tell is not None:
                with contextlib.suppress(FileNotFoundError, UnreadableMessageError):
                    self._tell("acknowledged", read_frame(self._folder, "held", name)[0])
            self._folder.remove("held", name)
            # One by one, so that a kill in between leaves the count off by one at most.
            self._state[State.ACKNOWLEDGED] += 1
            self._release(agent, message)
            done += 1
        if done:
            self._ring(agent)
        return done

    def empty(self, agent: Agent) -> None:
        """Bury all that it holds, as `unregistered`."""
        words = agent.words
        self.require_sound(agent)
        self.look_at_held(agent)
        for message in sorted(agent.held.messages.values(), key=lambda each: (each.priority, each.sequence)):
            self._bury_held(agent, message, DeadLetterReason.UNREGISTERED)
        for priority in range(3):
            while words[Inbox.WAITING + priority]:
                self._bury_first(agent, priority, DeadLetterReason.UNREGISTERED)
        agent.ids.forget(self._folder, words)

    def sweep(self) -> None:
        """Bury what has expired where it waits, and what was not acknowledged after its last delivery or before it expired."""
        now_us, now_ns = microseconds(self.unix_s()), self.monotonic_ns()
        if self._state[State.NEXT_EXPIRY] <= now_us:
            self._bury_expired(now_us)
            self._bury_held_too_long(now_us, now_ns)
        elif self._state[State.NEXT_LAST_DUE] <= now_ns:
            self._bury_held_too_long(now_us, now_ns)

    def bury_draft(self, recipient: str, reason: DeadLetterReason, draft: Draft, *, keep: bool = False) -> None:
        """A message that no inbox had becomes a dead letter."""
        self.letters.write(recipient, reason, 0, lambda target: draft.place(self._folder, target, keep=keep))
        if self._tell is not None:
            self._tell("dead_letter", draft.message)

    def look_at_held(self, agent: Agent) -> None:
        """See what other objects did to what is unacknowledged."""
        if agent.held.changes == agent.words[Inbox.HELD_CHANGES]:
            return
        found: dict[int, list[HeldMessage]] = {}
        for name in self._folder.names("held"):
            parsed = numbers(name, 6)
            if parsed is not None:
                slot, priority, sequence, attempt, due, expiry = parsed
                found.setdefault(slot, []).append(HeldMessage(priority, sequence, attempt, due, expiry))
        for slot, other in self._registry.by_slot.items():
            if other.held.changes != other.words[Inbox.HELD_CHANGES]:
                other.held.replace(found.get(slot, []), other.words[Inbox.HELD_CHANGES])

    def mend(self) -> None:
        """Count anew after somebody died in the middle of a step. Nothing is removed by counts that are none."""
        for agent in self._registry.agents.values():
            self.require_sound(agent)
        mend(self._folder, self._state, self._registry, ring=self._ring)

    def _deliver(self, agent: Agent, priority: int, now: int) -> Message | None:
        """The next message of this priority; None when that one could not be delivered."""
        folder, words, state = self._folder, agent.words, self._state
        sequence = words[Inbox.HEAD + priority]
        if sequence >= words[Inbox.TAIL + priority]:
            # Somebody removed files.
            state[State.CORRUPT] += words[Inbox.WAITING + priority]
            words[Inbox.WAITING + priority] = 0
            return None
        name = f"{agent.slot:x}-{priority}-{sequence:x}"
        try:
            message, sent = read_frame(folder, "messages", name)
        except FileNotFoundError:
            # It expired, or was removed.
            self._skip(agent, priority)
            return None
        except UnreadableMessageError as error:
            _logger.warning("a message to %r is dropped: %s", agent.name, error)
            folder.clear("messages", name)
            state[State.CORRUPT] += 1
            self._step_over(agent, priority, sequence)
            return None
        expiry = None if message.expires_at is None else microseconds(message.expires_at)
        if expiry is not None:
            folder.remove("expiring", f"{name}-{expiry:x}")
            if expiry <= microseconds(self.unix_s()):
                state[State.EXPIRED] += 1
                self._bury(agent, DeadLetterReason.EXPIRED, 0, ("messages", name), message)
                self._step_over(agent, priority, sequence)
                return None
        if agent.acknowledges:
            held = HeldMessage(priority, sequence, 1, now + agent.visibility_ns, expiry or 0, message.id)
            folder.move(("messages", name), ("held", held_name(agent.slot, held)))
            self._hold(agent, held)
        else:
            folder.remove("messages", name)
            state[State.ACKNOWLEDGED] += 1
        self._step_over(agent, priority, sequence)
        state[State.DELIVERED] += 1
        count_latency(state, now - sent)
        if self._tell is not None:
            self._tell("delivered", message)
        return message

    def _deliver_again(self, agent: Agent, held: HeldMessage, now: int) -> Message | None:
        """What is due once more, or None when it is at its end."""
        folder, state = self._folder, self._state
        name = held_name(agent.slot, held)
        if held.attempt >= agent.max_attempts:
            self._bury_held(agent, held, DeadLetterReason.ATTEMPTS)
            return None
        try:
            message, _ = read_frame(folder, "held", name)
        except (FileNotFoundError, UnreadableMessageError) as error:
            _logger.warning("a message to %r is dropped: %s", agent.name, error)
            folder.clear("held", name)
            state[State.CORRUPT] += 1
            self._release(agent, held)
            return None
        if held.expiry and held.expiry <= microseconds(self.unix_s()):
            state[State.EXPIRED] += 1
            self._bury_held(agent, held, DeadLetterReason.EXPIRED)
            return None
        message.attempt = held.attempt + 1
        if agent.acknowledges:
            due = now + agent.visibility_ns
            again = HeldMessage(held.priority, held.sequence, held.attempt + 1, due, held.expiry, message.id)
            folder.move(("held", name), ("held", held_name(agent.slot, again)))
            self._hold(agent, again, is_new=False)
        else:
            folder.remove("held", name)
            self._release(agent, held)
        state[State.REDELIVERED] += 1
        if self._tell is not None:
            self._tell("redelivered", message)
        return message

    def _hold(self, agent: Agent, held: HeldMessage, *, is_new: bool = True) -> None:
        words = agent.words
        if is_new:
            words[Inbox.HELD] += 1
        self._change_held(agent)
        agent.held.put(held)
        if held.attempt >= agent.max_attempts or held.expiry:
            self._state[State.NEXT_LAST_DUE] = min(self._state[State.NEXT_LAST_DUE], held.due)

    def _release(self, agent: Agent, held: HeldMessage) -> None:
        self._change_held(agent)
        agent.held.remove(held)
        agent.words[Inbox.HELD] -= 1

    def _change_held(self, agent: Agent) -> None:
        # When another object was at it before, this object has to look there anew next time.
        is_current = agent.held.changes == agent.words[Inbox.HELD_CHANGES]
        agent.words[Inbox.HELD_CHANGES] += 1
        if is_current:
            agent.held.changes += 1

    def _step_over(self, agent: Agent, priority: int, sequence: int) -> None:
        words = agent.words
        words[Inbox.HEAD + priority] = sequence + 1
        left = words[Inbox.WAITING + priority] - 1
        if left and sequence + 1 == words[Inbox.TAIL + priority]:
            # Somebody removed files.
            self._state[State.CORRUPT] += left
            left = 0
        words[Inbox.WAITING + priority] = left

    def _skip(self, agent: Agent, priority: int) -> None:
        """The first of this priority is not there: go to the next, and over many that are missing at once."""
        head, tail = agent.words[Inbox.HEAD + priority] + 1, agent.words[Inbox.TAIL + priority]
        if tail - head > _FEW:
            places = [numbers(name, 3) for name in self._folder.names("messages")]
            own = (place[2] for place in places if place is not None and place[:2] == (agent.slot, priority))
            head = min((sequence for sequence in own if head <= sequence < tail), default=tail)
        agent.words[Inbox.HEAD + priority] = head

    def _learn_ids(self, agent: Agent) -> None:
        for held in list(agent.held.messages.values()):
            if held.id is None:
                with contextlib.suppress(FileNotFoundError, UnreadableMessageError):
                    message, _ = read_frame(self._folder, "held", held_name(agent.slot, held))
                    held.id = message.id
                    agent.held.by_id[message.id] = held

    def _drop_oldest(self, agent: Agent, new: Message) -> bool:
        """Whether there is room now; not when the new one is of the lowest priority, or nothing waits."""
        words = agent.words
        if words[Inbox.HELD]:
            self.look_at_held(agent)
            agent.held.ripen(self.monotonic_ns())
        for priority in (2, 1, 0):
            due = agent.held.next_ready(priority, self.monotonic_ns())
            if due is not None:
                if priority < new.priority:
                    return False
                self._bury_held(agent, due, DeadLetterReason.INBOX_FULL)
                self._state[State.DROPPED] += 1
                return True
            while words[Inbox.WAITING + priority]:
                if priority < new.priority:
                    return False
                if self._bury_first(agent, priority, DeadLetterReason.INBOX_FULL):
                    self._state[State.DROPPED] += 1
                    return True
        return False

    def _bury_first(self, agent: Agent, priority: int, reason: DeadLetterReason) -> bool:
        """Whether the first of this priority is buried now; not when there was nothing, or nothing readable, in its place."""
        folder, words, state = self._folder, agent.words, self._state
        sequence = words[Inbox.HEAD + priority]
        if sequence >= words[Inbox.TAIL + priority]:
            state[State.CORRUPT] += words[Inbox.WAITING + priority]
            words[Inbox.WAITING + priority] = 0
            return False
        name = f"{agent.slot:x}-{priority}-{sequence:x}"
        try:
            message, _ = read_frame(folder, "messages", name)
        except FileNotFoundError:
            self._skip(agent, priority)
            return False
        except UnreadableMessageError:
            folder.clear("messages", name)
            state[State.CORRUPT] += 1
            self._step_over(agent, priority, sequence)
            return False
        if message.expires_at is not None:
            folder.remove("expiring", f"{name}-{microseconds(message.expires_at):x}")
        self._bury(agent, reason, 0, ("messages", name), message)
        self._step_over(agent, priority, sequence)
        return True

    def _bury_held(self, agent: Agent, held: HeldMessage, reason: DeadLetterReason) -> None:
        name = held_name(agent.slot, held)
        try:
            message, _ = read_frame(self._folder, "held", name)
        except (FileNotFoundError, UnreadableMessageError):
            self._folder.clear("held", name)
            self._state[State.CORRUPT] += 1
        else:
            self._bury(agent, reason, held.attempt, ("held", name), message)
        self._release(agent, held)

    def _bury_expired(self, now_us: int) -> None:
        folder = self._folder
        soonest = NEVER
        for marker in sorted(folder.names("expiring")):
            parsed = numbers(marker, 4)
            if parsed is None:
                continue
            slot, priority, sequence, expiry = parsed
            if expiry > now_us:
                soonest = min(soonest, expiry)
                continue
            folder.remove("expiring", marker)
            agent = self._registry.by_slot.get(slot)
            name = f"{slot:x}-{priority}-{sequence:x}"
            if agent is None:
                continue
            try:
                message, _ = read_frame(folder, "messages", name)
            except (FileNotFoundError, UnreadableMessageError):
                # Delivered meanwhile, or to be counted when its turn comes.
                continue
            self._state[State.EXPIRED] += 1
            self._bury(agent, DeadLetterReason.EXPIRED, 0, ("messages", name), message)
            agent.words[Inbox.WAITING + priority] -= 1
            self._ring(agent)
        self._state[State.NEXT_EXPIRY] = soonest

    def _bury_held_too_long(self, now_us: int, now_ns: int) -> None:
        """What will not be delivered again, once it is due; sets when the next look is worth it."""
        state = self._state
        soonest = NEVER
        for agent in list(self._registry.by_slot.values()):
            if not agent.words[Inbox.HELD]:
                continue
            self.look_at_held(agent)
            for held in list(agent.held.messages.values()):
                is_last = held.attempt >= agent.max_attempts
                if not is_last and not held.expiry:
                    continue
                if held.due > now_ns:
                    soonest = min(soonest, held.due)
                    continue
                if is_last:
                    self._bury_held(agent, held, DeadLetterReason.ATTEMPTS)
                elif held.expiry <= now_us:
                    state[State.EXPIRED] += 1
                    self._bury_held(agent, held, DeadLetterReason.EXPIRED)
                else:
                    state[State.NEXT_EXPIRY] = min(state[State.NEXT_EXPIRY], held.expiry)
                    continue
                self._ring(agent)
        state[State.NEXT_LAST_DUE] = soonest

    def _bury(
        self, agent: Agent, reason: DeadLetterReason, attempts: int, source: tuple[str, str], message: Message
    ) -> None:
        self.letters.write(agent.name, reason, attempts, lambda target: self._folder.move(source, target))
        if self._tell is not None:
            self._tell("dead_letter", message)
