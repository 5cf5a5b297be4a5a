"""The shared-memory bus between processes: what a SIGKILL leaves behind, who removes what, and what is in the way."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.ports.message_bus import Message, Priority
from domain.errors.bus import BusUnavailableError, InboxFullError, NameTakenError
from infrastructure.buses import shm_seen
from infrastructure.buses.bus_limits import REMEMBERED_IDS
from infrastructure.buses.shm_batches import Columns, made_ids, pack, unpack
from infrastructure.buses.shm_bus import SharedMemoryMessageBus
from infrastructure.buses.shm_layout import Head, Inbox, Record
from infrastructure.buses.shm_segment import Segment

PATIENCE_S = 60.0


class Other:
    """A process that has nothing of this one but what it is given: forked from a server that has imported this module, once."""

    def __init__(self, role: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=role, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    async def says(self) -> Any:
        """What it says next. Raises `EOFError` once it is dead."""
        assert await asyncio.to_thread(self._connection.poll, PATIENCE_S), "the other process says nothing"
        return self._connection.recv()

    async def is_dead(self) -> None:
        """Wait for its death."""
        await asyncio.to_thread(self._process.join, PATIENCE_S)
        assert self._process.exitcode == -signal.SIGKILL

    async def is_killed(self) -> None:
        """SIGKILL."""
        self._process.kill()
        await self.is_dead()

    def end(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.join(PATIENCE_S)
        self._process.close()
        self._connection.close()


Start = Callable[..., Other]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `role(connection, *arguments)` in a process of its own."""
    others: list[Other] = []

    def begin(role: Callable[..., None], *arguments: Any) -> Other:
        others.append(Other(role, *arguments))
        return others[-1]

    yield begin
    for other in others:
        other.end()


def bus_in(folder: Path, **common: Any) -> SharedMemoryMessageBus:
    common.setdefault("segment_bytes", 1 << 28)
    return SharedMemoryMessageBus("tested", folder=folder, **common)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def numbered(number: int, *, recipient: str = "sink") -> Message:
    return Message("source", recipient, "number", number)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold_a_name(connection: Connection, folder: Path) -> None:
    """Registers, fills the inbox, says so, and goes on living."""

    async def act() -> None:
        bus = bus_in(folder)
        await bus.register("sink")
        await bus.send_many([numbered(n) for n in range(5)])
        connection.send(os.getpid())
        await asyncio.Event().wait()

    asyncio.run(act())


def die_half_way(connection: Connection, folder: Path) -> None:
    """Dies inside a section, with the lock held and half of a change made."""

    async def act() -> None:
        bus = bus_in(folder)
        await bus.stats()
        post = bus._opened()
        connection.send(os.getpid())
        with post.segment:
            post.segment.add(Head.SENT, 1_000)
            post.segment.set(Head.AGENTS, 0)
            kill_self()

    asyncio.run(act())


def flood(connection: Connection, folder: Path, total: int) -> None:
    """Sends numbers until it is killed or done."""

    async def act() -> None:
        async with bus_in(folder) as bus:
            connection.send(os.getpid())
            for n in range(0, total, 20):
                await bus.send_many([numbered(each) for each in range(n, n + 20)])
            connection.send("done")

    asyncio.run(act())


def answer_all(connection: Connection, folder: Path) -> None:
    """Replies to every request with twice its payload."""

    async def act() -> None:
        async with bus_in(folder) as bus:
            await bus.register("doubler")
            connection.send(os.getpid())
            while True:
                request = await bus.receive("doubler")
                assert isinstance(request.payload, int)
                await bus.reply(request, request.payload * 2)

    asyncio.run(act())


def die_at_every_write(connection: Connection, folder: Path, task: str) -> None:
    """Forks one child after the other, the k-th killed at its k-th write to the journal, until one gets through."""
    steps = 0
    while True:
        child = os.fork()
        if not child:
            with suppress(BaseException):
                asyncio.run(_killed_at(folder, task, steps))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        steps += 1
    connection.send(steps)


async def _killed_at(folder: Path, task: str, step: int) -> None:
    bus = bus_in(folder, visibility_s=0.000_1, max_attempts=1_000_000)
    bus._opened()
    left = step
    write = Segment.set
    if task == "take":
        await bus.register("sink", acknowledge="manual")
    if task == "come and go":
        # What the one before left behind, so that each has the same to do.
        await bus.register("agent")
        await bus.unregister("agent")

    def write_or_die(segment: Segment, place: int, value: int) -> None:
        nonlocal left
        if not left:
            kill_self()
        left -= 1
        write(segment, place, value)

    Segment.set = write_or_die  # type: ignore[method-assign, assignment]
    if task == "send":
        await bus.send_many([Message("source", "sink", "number", [step, n], id=f"{step}-{n}") for n in range(3)])
    elif task == "take":
        for message in await bus.receive_many("sink", 3):
            await bus.acknowledge("sink", message.id)
    else:
        await bus.register("agent")
        await bus.join("agent", "all")
        await bus.send(Message("source", "all", "hello"))
        await bus.unregister("agent")


def assert_sound(bus: SharedMemoryMessageBus) -> None:
    """Every list of the segment is whole, and every inbox counts what it holds."""
    post = bus._opened()
    words = post.segment.words
    with post.segment:
        for inbox in post.members.inboxes():
            waiting = 0
            for lane in range(3):
                before, record = 0, words[inbox + Inbox.FIRST + lane]
                while record:
                    assert words[record + Record.PREVIOUS] == before
                    waiting += words[record + Record.COUNT]
                    before, record = record, words[record + Record.NEXT]
                assert words[inbox + Inbox.LAST + lane] == before
            assert words[inbox + Inbox.WAITING] == waiting
            flying, record = 0, words[inbox + Inbox.FLIGHT_FIRST]
            while record:
                flying, record = flying + 1, words[record + Record.NEXT]
            assert words[inbox + Inbox.UNACKNOWLEDGED] == flying
        free = set()
        for power in range(32):
            place = words[Head.FREE + power]
            while place:
                assert place not in free
                assert Head.ARENA <= place < words[Head.TOP]
                free.add(place)
                place = words[place]


async def test_the_last_object_to_close_removes_the_segment(tmp_path: Path) -> None:
    one, other = bus_in(tmp_path), bus_in(tmp_path)
    await one.stats()
    await other.stats()
    await one.close()
    assert names_in(tmp_path)
    await other.close()
    assert not names_in(tmp_path)


async def test_a_new_bus_of_a_removed_name_is_empty(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        await bus.send(numbered(1))
    async with bus_in(tmp_path) as bus:
        assert (await bus.stats()).queued == {}


async def test_what_is_queued_outlives_a_crash_of_every_process(tmp_path: Path, start: Start) -> None:
    holder = start(hold_a_name, tmp_path)
    await holder.says()
    await holder.is_killed()
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        assert [each.payload for each in await bus.receive_many("sink", 10)] == [0, 1, 2, 3, 4]


async def test_a_name_is_taken_while_its_process_lives_and_free_when_it_is_killed(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        holder = start(hold_a_name, tmp_path)
        await holder.says()
        with pytest.raises(NameTakenError):
            await bus.register("sink")
        await holder.is_killed()
        await bus.register("sink")


async def test_what_a_closed_owner_had_in_hand_goes_to_its_place_or_is_buried(tmp_path: Path) -> None:
    async with bus_in(tmp_path, max_attempts=2) as bus:
        await bus.stats()
        for attempt in (1, 2):
            async with bus_in(tmp_path, max_attempts=2) as owner:
                await owner.register("sink", acknowledge="manual")
                if attempt == 1:
                    await owner.send_many([numbered(n) for n in range(6)])
                    assert await owner.acknowledge("sink", (await owner.receive("sink")).id) == 1
                taken = await owner.receive_many("sink", 3)
                assert [(each.payload, each.attempt) for each in taken] == [(n, attempt) for n in (1, 2, 3)]
                assert_sound(owner)
        await bus.register("sink", acknowledge="manual")
        assert_sound(bus)
        letters = [(each.message.payload, each.reason, each.attempts) for each in await bus.dead_letters()]
        assert letters == [(n, "attempts", 2) for n in (1, 2, 3)]
        assert [(each.payload, each.attempt) for each in await bus.receive_many("sink", 9)] == [(4, 1), (5, 1)]


async def test_a_process_killed_with_the_lock_leaves_no_lock_and_no_half_step(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        dying = start(die_half_way, tmp_path)
        await dying.says()
        await dying.is_dead()
        await bus.send(numbered(1))
        stats = await bus.stats()
        assert (stats.sent, stats.queued) == (1, {"sink": 1})


async def test_a_batch_killed_at_any_write_is_sent_as_a_whole_or_not_at_all(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        steps = await start(die_at_every_write, tmp_path, "send").says()
        assert steps >= 15
        assert_sound(bus)
        found: dict[int, list[int]] = {}
        sent = (await bus.stats()).sent
        for message in await bus.receive_many("sink", 10_000):
            assert isinstance(message.payload, list)
            step, number = message.payload
            found.setdefault(step, []).append(number)  # type: ignore[arg-type]
        assert all(numbers == [0, 1, 2] for numbers in found.values())
        assert sent == 3 * len(found)
        assert steps in found


async def test_a_receiver_killed_at_any_write_loses_no_message(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path, visibility_s=0.000_1, max_attempts=1_000_000) as bus:
        await bus.stats()
        async with bus_in(tmp_path) as owner:
            await owner.register("sink", acknowledge="manual")
        await bus.send_many([numbered(n) for n in range(500)])
        assert await start(die_at_every_write, tmp_path, "take").says() >= 15
        assert_sound(bus)
        stats = await bus.stats()
        assert stats.acknowledged + stats.queued["sink"] == 500
        assert stats.dead_letters == 0


async def test_an_agent_killed_at_any_write_of_its_comings_and_goings_leaves_the_rest_whole(
    tmp_path: Path, start: Start
) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        await bus.join("sink", "all")
        assert await start(die_at_every_write, tmp_path, "come and go").says() >= 30
        assert_sound(bus)
        await bus.send(Message("source", "all", "hello"))
        got = await bus.receive_many("sink", 10_000)
        assert got[-1].recipient == "all"


async def test_a_killed_sender_leaves_what_it_sent_without_a_gap(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        sender = start(flood, tmp_path, 100_000)
        await sender.says()
        got: list[object] = []
        while len(got) < 1_000:
            got += [each.payload for each in await bus.receive_many("sink", 100, timeout=PATIENCE_S)]
        await sender.is_killed()
        while (await bus.stats()).queued["sink"]:
            got += [each.payload for each in await bus.receive_many("sink", 1_000)]
        assert got == list(range(len(got)))
        assert (await bus.stats()).sent == len(got)


async def test_requests_are_answered_by_another_process_in_any_number(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("asker")
        await start(answer_all, tmp_path).says()
        answers = await asyncio.gather(
            *(bus.request(Message("asker", "doubler", "double", n), timeout=PATIENCE_S) for n in range(200))
        )
        assert [each.payload for each in answers] == [2 * n for n in range(200)]


async def test_a_sender_waits_for_room_that_another_object_makes(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        await other.register("sink", capacity=2)
        sending = asyncio.create_task(bus.send_many([numbered(n) for n in range(50)]))
        got: list[object] = []
        while len(got) < 50:
            got += [each.payload for each in await other.receive_many("sink", 3, timeout=PATIENCE_S)]
        assert got == list(range(50))
        assert len(await sending) == 50


async def test_ten_thousand_waiting_receivers_all_get_one_broadcast(tmp_path: Path) -> None:
    """More wakes than a FIFO holds: none of them is lost."""
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        names = [f"agent-{n}" for n in range(10_000)]
        for name in names:
            await other.register(name)
        waiting = [asyncio.create_task(other.receive(name, timeout=PATIENCE_S)) for name in names]
        await asyncio.sleep(0)
        assert await bus.broadcast(Message("source", "everybody", "hello")) == 10_000
        assert {each.type for each in await asyncio.gather(*waiting)} == {"hello"}


async def test_memory_is_used_again_and_does_not_grow_with_the_number_of_messages(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        await bus.register("by-hand", acknowledge="manual")

        async def exchange() -> None:
            for n in range(100):
                await bus.send_many([numbered(n) for _ in range(10)])
                await bus.send(Message("source", "by-hand", "text", "x" * (n % 10) * 100))
                await bus.receive_many("sink", 3)
                await bus.acknowledge("by-hand", (await bus.receive("by-hand")).id)
                await bus.receive_many("sink", 10)

        await exchange()
        words = bus._opened().segment.words
        top = words[Head.TOP]
        for _ in range(10):
            await exchange()
        assert words[Head.TOP] == top
        assert_sound(bus)


async def test_a_full_segment_is_an_error_that_ends_when_somebody_receives(tmp_path: Path) -> None:
    async with bus_in(tmp_path, segment_bytes=4 << 20) as bus:
        await bus.register("sink")
        bulk = [Message("source", "sink", "bulk", b"x" * 100_000, Priority(n % 2)) for n in range(100)]
        with pytest.raises(BusUnavailableError, match="segment_bytes"):
            await bus.send_many(bulk)
        sent = (await bus.stats()).sent
        assert sent > 10
        assert len(await bus.receive_many("sink", 1_000)) == sent
        await bus.send(Message("source", "sink", "bulk", b"x" * 100_000))
        assert_sound(bus)


async def test_old_dead_letters_make_room_in_a_full_segment(tmp_path: Path) -> None:
    async with bus_in(tmp_path, segment_bytes=4 << 20) as bus:
        await bus.register("sink", capacity=2, overflow="drop_oldest")
        for _ in range(100):
            await bus.send(Message("source", "sink", "bulk", b"x" * 100_000))
        stats = await bus.stats()
        assert (stats.dropped, stats.queued) == (98, {"sink": 2})
        assert 0 < len(await bus.dead_letters()) < 98


async def test_a_full_file_system_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_room)
            with pytest.raises(BusUnavailableError, match="Make room"):
                await bus.send_many(
                    [Message("source", "sink", "bulk", b"x" * 1_000_000, Priority(n % 2)) for n in range(10)]
                )
        await bus.send(numbered(1))
        assert len(await bus.receive_many("sink", 100)) == (await bus.stats()).sent


async def test_a_symlink_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / f"conclave-{os.geteuid()}-tested").symlink_to(target)
    with pytest.raises(BusUnavailableError):
        await bus_in(tmp_path).stats()
    assert not names_in(target)


@pytest.mark.parametrize("content", [b"somebody else's", b"x" * (Head.ARENA + 64) * 8])
async def test_a_foreign_file_is_refused_or_begun_anew_but_never_read(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / f"conclave-{os.geteuid()}-tested"
    folder.mkdir(mode=0o700)
    (folder / "segment").write_bytes(content)
    bus = bus_in(tmp_path)
    if len(content) > 100:
        with pytest.raises(BusUnavailableError, match="not made by this user and this version"):
            await bus.stats()
    else:
        assert (await bus.stats()).sent == 0
    await bus.close()


async def test_an_object_is_not_used_past_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.stats()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            with pytest.raises(BusUnavailableError, match="fork"):
                await bus.stats()


async def test_a_segment_of_another_pid_namespace_is_refused(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.stats()
        bus._opened().segment.words[Head.NAMESPACE] += 1
        with pytest.raises(BusUnavailableError, match="pid namespace"):
            await bus_in(tmp_path).stats()


async def test_at_least_the_last_100_000_ids_are_remembered(
    tmp_path: Path, sized: Callable[[int, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = sized(2_000, REMEMBERED_IDS)
    assert shm_seen._LARGEST >= 2 * REMEMBERED_IDS
    monkeypatch.setattr(shm_seen, "_LARGEST", 1 << (2 * remembered - 1).bit_length())
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        post = bus._opened()
        seen = shm_seen.Seen(post.segment)
        with post.segment:
            inbox = post.members.existing("sink")
            for number in range(1, 4 * remembered):
                seen.remember(inbox, number * 0x9E3779B97F4A7C15 % 2**64)
                post.segment.commit()
            for number in range(3 * remembered, 4 * remembered):
                assert seen.knows(inbox, number * 0x9E3779B97F4A7C15 % 2**64)
            assert not seen.knows(inbox, 1 * 0x9E3779B97F4A7C15 % 2**64)


async def test_one_sender_does_not_overtake_itself_while_it_waits(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        await other.register("sink", capacity=1)
        sending = []
        for n in range(10):
            sending.append(asyncio.create_task(bus.send(numbered(n), timeout=PATIENCE_S)))
            await asyncio.sleep(0)
        got = [(await other.receive("sink", timeout=PATIENCE_S)).payload for _ in range(10)]
        await asyncio.gather(*sending)
        assert got == list(range(10))


async def test_a_sender_that_gives_up_lets_the_next_one_in(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=1)
        await bus.send(numbered(0))
        first = asyncio.create_task(bus.send(numbered(1), timeout=PATIENCE_S))
        await asyncio.sleep(0)
        second = asyncio.create_task(bus.send(numbered(2), timeout=PATIENCE_S))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(2)] == [0, 2]
        await second


async def test_a_batch_to_a_group_reaches_no_member_from_itself(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        for name in ("a", "b"):
            await bus.register(name)
            await bus.join(name, "both")
        await bus.send_many([Message(sender, "both", "note", sender) for sender in ("a", "b", "c", "a")])
        assert [each.payload for each in await bus.receive_many("a", 10, timeout=PATIENCE_S)] == ["b", "c"]
        assert [each.payload for each in await bus.receive_many("b", 10, timeout=PATIENCE_S)] == ["a", "c", "a"]


async def test_a_blocked_message_of_higher_priority_gets_in_first(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=1)
        await bus.send(numbered(0))
        sending = []
        for number, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH), start=1):
            message = Message("source", "sink", "number", number, priority)
            sending.append(asyncio.create_task(bus.send(message, timeout=PATIENCE_S)))
            await asyncio.sleep(0)
        assert [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(4)] == [0, 3, 2, 1]
        await asyncio.gather(*sending)


async def test_a_duplicate_to_everybody_is_no_history(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        for name in ("b", "c"):
            await bus.register(name)
            await bus.join(name, "group")
        for _ in range(2):
            await bus.broadcast(Message("a", "", "note", id="same"))
        await bus.send(Message("a", "group", "note", id="same"))
        await bus.send(Message("b", "group", "note", id="news"))
        assert [header.id for header in await bus.history()] == ["same", "news"]


async def test_history_has_the_part_of_a_batch_that_was_new_and_found_room(tmp_path: Path) -> None:
    told: list[str] = []

    def keep(happened: str, message: Message) -> None:
        told.append(f"{happened} {message.id}")

    async with bus_in(tmp_path, keep_payloads=True, tap=keep) as bus:
        await bus.register("sink", capacity=3, overflow="reject")
        bodies: list[Any] = [b"raw", {"n": 1}, float("inf"), None, "x"]
        await bus.send(Message("source", "sink", "note", bodies[1], id="i1"))
        with pytest.raises(InboxFullError):
            await bus.send_many(Message("source", "sink", "note", body, id=f"i{n}") for n, body in enumerate(bodies))
        found = [(header.id, header.payload) for header in await bus.history()]
        assert found == [("i1", {"n": 1}), ("i0", b"raw"), ("i2", float("inf"))]
        assert told == ["sent i1"]


async def test_a_message_refused_by_a_full_inbox_is_counted(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=3, overflow="reject")
        with pytest.raises(InboxFullError):
            await bus.send_many([numbered(n) for n in range(5)])
        stats = await bus.stats()
        assert (stats.sent, stats.rejected, stats.queued) == (3, 2, {"sink": 3})


payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -(2**70), 2**63])
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=5), st.sampled_from(Priority))
def test_a_run_of_any_payloads_is_read_as_it_was_written(bodies: list[Any], priority: Priority) -> None:
    messages = [Message(f"sender-{n % 2}", "sink", "any", body, priority) for n, body in enumerate(bodies)]
    ids = made_ids("id-", 4_094, len(bodies))
    assert len(set(ids)) == len(bodies)
    run = pack(
        messages, Columns.of(messages), ids, prefix="id-", start=4_094, given=False, limit=1 << 20, at=0.0, sent_ns=0
    )
    read = unpack(run.header, run.payloads)
    assert read == [each.copy(id=own) for each, own in zip(messages, ids, strict=True)]
    assert [type(each.payload) for each in read] == [type(body) for body in bodies]
