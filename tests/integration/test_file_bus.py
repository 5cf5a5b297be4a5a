"""What is special about the bus in a folder: kills, foreign files, full disks, and objects that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from application.ports.message_bus import Message, MessageHeader, Priority
from domain.errors.bus import (
    BusClosedError,
    BusUnavailableError,
    InvalidMessageError,
    NameTakenError,
    RequestTimeoutError,
    UnknownAgentError,
)
from infrastructure.buses.file_bell import Ropes
from infrastructure.buses.file_bus import FileMessageBus, default_folder
from infrastructure.buses.file_folder import BusFolder, unavailable
from infrastructure.buses.file_ids import KnownIds

PATIENCE_S = 60.0
FOREVER = 3_600.0

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from application.ports.message_bus import Message
from infrastructure.buses.file_bus import FileMessageBus

async def main(folder, role, count):
    bus = FileMessageBus(Path(folder), visibility_s=float(sys.argv[4]))
    if role == "hold":
        await bus.register("held")
        print("ready", flush=True)
        await asyncio.Event().wait()
    if role == "fork":
        await bus.register("held")
        child = os.fork()
        if child == 0:
            os.close(1)
            signal.pause()
        print(child, flush=True)
        await asyncio.Event().wait()
    if role == "send":
        sent = 0
        while sent < count:
            await bus.send(Message("child", "sink", "n", sent))
            sent += 1
            print(sent, flush=True)
    if role == "receive":
        await bus.register("worker", acknowledge="manual")
        print("ready", flush=True)
        while True:
            message = await bus.receive("worker")
            print(message.payload, flush=True)
            await bus.acknowledge("worker", message.id)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


class Steady:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    """Opens objects on one folder, closed at the end."""
    buses: list[FileMessageBus] = []

    def another(**arguments: object) -> FileMessageBus:
        buses.append(FileMessageBus(tmp_path / "bus", **arguments))  # type: ignore[arg-type]
        return buses[-1]

    yield another
    for bus in buses:
        await bus.close()


@asynccontextmanager
async def child(
    folder: Path, role: str, *, count: int = 0, visibility_s: float = 30.0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process on the folder; killed at the end."""
    source = str(Path(__file__).parents[2] / "src")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(folder),
        role,
        str(count),
        str(visibility_s),
        env={**os.environ, "PYTHONPATH": source},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    """The next line that it printed."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().strip()


async def told(process: asyncio.subprocess.Process) -> list[str]:
    """All whole lines that are left after its end."""
    assert process.stdout is not None
    text = (await asyncio.wait_for(process.stdout.read(), PATIENCE_S)).decode()
    return text.split("\n")[:-1]


def open_below(folder: Path) -> list[str]:
    """What this process has open there."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return [each for each in found if each.startswith(str(folder))]


async def lined_up() -> None:
    """Lets calls just begun come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def message(payload: object = None, *, to: str = "sink", **fields: object) -> Message:
    return Message("source", to, "n", payload, **fields)  # type: ignore[arg-type]


def files(folder: Path) -> list[Path]:
    """The messages that wait."""
    return sorted((folder / "bus" / "messages").iterdir())


async def test_what_is_queued_stays_for_the_next_object(opened: Callable[..., FileMessageBus]) -> None:
    first = opened()
    await first.register("sink")
    await first.send_many([message(n) for n in range(3)])
    await first.close()
    second = opened()
    await second.register("sink")
    taken = await second.receive_many("sink", 10)
    assert [each.payload for each in taken] == [0, 1, 2]


async def test_the_name_of_a_living_object_is_taken_and_that_of_a_closed_one_is_free(
    opened: Callable[..., FileMessageBus],
) -> None:
    first, second = opened(), opened()
    await first.register("sink")
    with pytest.raises(NameTakenError):
        await second.register("sink")
    await first.close()
    await second.register("sink")


async def test_the_name_of_a_killed_process_is_taken_over_with_its_inbox(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    async with child(tmp_path / "bus", "hold") as holder:
        assert await line(holder) == "ready"
        with pytest.raises(NameTakenError):
            await bus.register("held")
        await bus.send(message("kept", to="held"))
        holder.kill()
        await holder.wait()
        await bus.register("held")
    assert (await bus.receive("held", timeout=PATIENCE_S)).payload == "kept"


async def test_a_child_that_a_killed_process_had_forked_keeps_no_name(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    async with child(tmp_path / "bus", "fork") as parent:
        orphan = int(await line(parent))
        try:
            with pytest.raises(NameTakenError):
                await bus.register("held")
            parent.kill()
            await parent.wait()
            await bus.register("held")
        finally:
            os.kill(orphan, signal.SIGKILL)


async def test_calls_that_find_the_folder_busy_have_their_turns_in_order(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    other = BusFolder(tmp_path / "bus")
    other.open()
    try:
        assert other.try_lock()
        senders = [asyncio.create_task(bus.send(message(number))) for number in range(20)]
        await lined_up()
        assert not any(sender.done() for sender in senders)
        other.unlock()
        late = asyncio.create_task(bus.send(message(20)))
        await asyncio.wait_for(asyncio.gather(*senders, late), PATIENCE_S)
    finally:
        other.close()
    assert [each.payload for each in await bus.receive_many("sink", 100)] == list(range(21))


async def test_a_call_cancelled_while_the_folder_is_busy_leaves_the_others_their_turns(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    other = BusFolder(tmp_path / "bus")
    other.open()
    try:
        assert other.try_lock()
        senders = [asyncio.create_task(bus.send(message(number))) for number in range(3)]
        await lined_up()
        for cancelled in senders[:2]:
            cancelled.cancel()
        await lined_up()
        other.unlock()
        await asyncio.wait_for(senders[2], PATIENCE_S)
    finally:
        other.close()
    assert [each.payload for each in await bus.receive_many("sink", 100)] == [2]
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []


async def test_a_jump_of_the_wall_clock_neither_redelivers_nor_reorders(opened: Callable[..., FileMessageBus]) -> None:
    wall, steady = Steady(), Steady()
    bus = opened(wall_clock=wall, steady_clock=steady)
    await bus.register("sink", acknowledge="manual")
    await bus.send(message(1))
    await bus.receive("sink")
    for jump in (86_400.0, -172_800.0):
        wall.now += jump
        await bus.send(message(jump))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [86_400.0, -172_800.0]
    assert (await bus.stats()).redelivered == 0


def test_the_default_folder_is_one_of_this_user_alone() -> None:
    assert default_folder().parent.is_dir()
    assert str(os.geteuid()) in default_folder().name


async def test_whatever_a_killed_sender_was_told_is_sent_arrives_once_and_in_order(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened(capacity=100_000)
    await bus.register("sink")
    async with child(tmp_path / "bus", "send", count=100_000) as sender:
        for _ in range(200):
            await line(sender)
        sender.send_signal(signal.SIGKILL)
        await sender.wait()
        rest = await told(sender)
    acknowledged = 200 + len(rest)
    arrived = [each.payload for each in await bus.receive_many("sink", 100_000, timeout=PATIENCE_S)]
    assert arrived == list(range(len(arrived)))
    assert acknowledged <= len(arrived) <= acknowledged + 1
    stats = await bus.stats()
    assert stats.queued == {"sink": 0}
    assert stats.corrupt == 0


async def test_a_killed_receiver_loses_nothing_that_it_did_not_acknowledge(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened(visibility_s=0.05, max_attempts=100)
    await bus.register("sink")
    async with child(tmp_path / "bus", "receive", visibility_s=0.05) as receiver:
        assert await line(receiver) == "ready"
        await bus.send_many([message(n, to="worker") for n in range(2_000)])
        for _ in range(100):
            await line(receiver)
        receiver.send_signal(signal.SIGKILL)
        await receiver.wait()
        seen = Counter(range(100))
        seen.update(int(each) for each in await told(receiver))
    await bus.register("worker", acknowledge="manual")
    while sum((await bus.stats()).queued.values()):
        for each in await bus.receive_many("worker", 100, timeout=PATIENCE_S):
            assert isinstance(each.payload, int)
            seen[each.payload] += 1
            assert await bus.acknowledge("worker", each.id) in (0, 1)
    assert set(seen) == set(range(2_000))


async def test_a_process_killed_in_the_middle_of_a_step_holds_nobody_up(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await bus.send(message(1))

    def broken(self: BusFolder, source: tuple[str, str], target: tuple[str, str]) -> None:
        os.rename(source[1], target[1], src_dir_fd=self.fd(source[0]), dst_dir_fd=self.fd(target[0]))
        raise OSError(errno.EIO, "it ends here")

    with monkeypatch.context() as patch:
        # The file is where it belongs, and nothing is counted: what a kill between the two leaves behind.
        patch.setattr(BusFolder, "move", broken)
        with pytest.raises(BusUnavailableError):
            await other.send(message(2))
    assert len(files(tmp_path)) == 2
    assert (await other.stats()).queued == {"sink": 1}
    await other.send(message(3))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]
    assert (await bus.stats()).corrupt == 0


async def test_a_full_file_system_says_what_to_do_and_loses_nothing(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1))

    def full(file: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(BusUnavailableError) as caught:
            await bus.send(message(2))
    assert "is full" in caught.value.problem
    assert "Free space" in caught.value.remedy
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []
    await bus.send(message(3))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]


@pytest.mark.parametrize(
    "content",
    [b"", b"CBM1", b"\xff\xfe\x00 no text", b'{"type": "foreign"}', b"CBM1" + b"\0" * 200_000, b"x" * 200_000],
    ids=["empty", "cut off", "no UTF-8", "foreign", "wrong length", "huge"],
)
async def test_an_unreadable_file_in_place_of_a_message_is_counted_and_the_next_one_delivered(
    opened: Callable[..., FileMessageBus], tmp_path: Path, content: bytes
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(1), message(2)])
    files(tmp_path)[0].write_bytes(content)
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    stats = await bus.stats()
    assert stats.corrupt == 1
    assert stats.queued == {"sink": 0}


async def test_a_message_changed_by_one_byte_is_not_delivered(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message("true"), message("next")])
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"true", b"trui"))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == "next"
    assert (await bus.stats()).corrupt == 1


async def test_a_link_or_a_folder_in_place_of_a_message_is_never_followed(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(n) for n in range(3)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(files(tmp_path)[0].read_bytes())
    first, second, _ = files(tmp_path)
    first.unlink()
    first.symlink_to(elsewhere)
    second.unlink()
    second.mkdir()
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    assert elsewhere.exists()
    # The folder was moved aside, where it is found as foreign once more.
    assert (await bus.stats()).corrupt == 3


async def test_messages_that_somebody_removed_are_counted(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(n) for n in range(3)])
    for path in files(tmp_path)[:2]:
        path.unlink()
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    await bus.send(message("after"))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == "after"
    stats = await bus.stats()
    assert stats.corrupt == 2
    assert stats.queued == {"sink": 0}


async def test_foreign_files_are_counted_and_left_where_they_are(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    folder = tmp_path / "bus"
    planted = [folder / "notes.txt", folder / "messages" / "coordination-7.json", folder / "replies" / "\udcff"]
    for path in planted:
        path.write_bytes(b"\xff")
    (folder / "messages" / "link").symlink_to("/")
    await bus.send(message(1))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 1
    assert (await bus.stats()).corrupt == 4
    assert all(path.exists() for path in planted)


async def test_a_link_planted_where_the_next_message_goes_is_replaced_and_not_written_through(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    place = files(tmp_path)[0]
    next_place = place.with_name(place.name[:-1] + "1")
    next_place.symlink_to(elsewhere)
    await bus.send(message(2))
    assert elsewhere.read_bytes() == b"mine"
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 2]


@pytest.mark.parametrize("name", ["", "messages", "state", "lock"])
async def test_a_link_in_place_of_the_folder_or_a_part_of_it_is_refused(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if name in ("", "messages"):
        elsewhere.mkdir()
    else:
        elsewhere.write_bytes(b"")
    if name:
        (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / name).symlink_to(elsewhere)
    bus = FileMessageBus(tmp_path / "bus")
    with pytest.raises(BusUnavailableError) as caught:
        await bus.register("sink")
    assert str(tmp_path / "bus") in str(caught.value)
    await bus.close()


async def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "state").write_text("a state of another kind")
    bus = FileMessageBus(tmp_path / "bus")
    with pytest.raises(BusUnavailableError):
        await bus.register("sink")
    await bus.close()


async def test_a_removed_folder_ends_the_bus_with_an_answer(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    (tmp_path / "bus" / "lock").unlink()
    with pytest.raises(BusUnavailableError) as caught:
        await bus.send(message(1))
    assert "removed" in caught.value.problem


async def test_everything_in_the_folder_is_for_this_user_alone(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1, id="given"))
    found = [tmp_path / "bus", *(tmp_path / "bus").rglob("*")]
    assert [path for path in found if path.stat().st_mode & 0o077] == []


async def test_a_bus_without_pipes_looks_for_itself(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    bus, other = opened(), opened()
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkfifo", unknown)
        await bus.register("sink")
    waiting = asyncio.create_task(bus.receive("sink"))
    await asyncio.sleep(0)
    await other.register("asker")
    asking = asyncio.create_task(other.request(Message("asker", "sink", "q", 1), timeout=FOREVER))
    request = await asyncio.wait_for(waiting, PATIENCE_S)
    await bus.reply(request, 2)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == 2


async def test_a_reply_to_a_requester_that_was_closed_is_late(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await other.register("asker")
    asking = asyncio.create_task(other.request(Message("asker", "sink", "q"), timeout=FOREVER))
    request = await bus.receive("sink", timeout=PATIENCE_S)
    await other.close()
    with pytest.raises(BusClosedError):
        await asking
    await bus.reply(request)
    assert (await bus.stats()).late_replies == 1


async def test_two_objects_cannot_have_one_correlation_id_in_flight(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("first")
    await other.register("second")
    await other.register("sink")
    asking = asyncio.create_task(bus.request(Message("first", "sink", "q", correlation_id="c"), timeout=FOREVER))
    await other.receive("sink", timeout=PATIENCE_S)
    with pytest.raises(InvalidMessageError):
        await other.request(Message("second", "sink", "q", correlation_id="c"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_request_that_timed_out_leaves_nothing_behind(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("asker")
    await bus.register("sink")
    with pytest.raises(RequestTimeoutError):
        await bus.request(Message("asker", "sink", "q"), timeout=0.01)
    assert list((tmp_path / "bus" / "requests").iterdir()) == []
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []


async def test_the_next_owner_may_acknowledge_what_the_last_one_had_in_hand(
    opened: Callable[..., FileMessageBus],
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink", acknowledge="manual")
    await bus.send_many([message(1, id="one"), message(2, id="two")])
    assert [each.id for each in await bus.receive_many("sink", 10)] == ["one", "two"]
    await bus.close()
    await other.register("sink", acknowledge="manual")
    assert await other.acknowledge("sink", "one", "unknown") == 1
    again = await other.receive_many("sink", 10, timeout=PATIENCE_S)
    assert [(each.id, each.attempt) for each in again] == [("two", 2)]


async def test_what_a_dead_owner_had_in_hand_for_the_last_time_is_buried(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(max_attempts=1), opened(max_attempts=1)
    await bus.register("sink", acknowledge="manual")
    await bus.send_many([message(1), message(2)])
    await bus.receive("sink")
    await bus.close()
    await other.register("sink", acknowledge="manual")
    assert [(each.message.payload, each.reason) for each in await other.dead_letters()] == [(1, "attempts")]
    assert (await other.receive("sink", timeout=PATIENCE_S)).payload == 2


async def test_what_is_due_again_comes_before_the_rest_of_its_priority_and_dies_after_its_attempts(
    opened: Callable[..., FileMessageBus],
) -> None:
    clock = Steady()
    bus = opened(steady_clock=clock, max_attempts=2)
    await bus.register("sink", acknowledge="manual")
    await bus.send(message("low", priority=Priority.LOW))
    await bus.receive("sink")
    await bus.send_many([message("later", priority=Priority.LOW), message("high", priority=Priority.HIGH)])
    clock.now += 31.0
    taken = await bus.receive_many("sink", 10)
    assert [(each.payload, each.attempt) for each in taken] == [("high", 1), ("low", 2), ("later", 1)]
    clock.now += 31.0
    assert [each.message.payload for each in await bus.dead_letters()] == ["low"]
    assert (await bus.dead_letters())[0].attempts == 2
    assert (await bus.stats()).queued == {"sink": 2}


async def test_after_a_restart_of_the_machine_what_was_unacknowledged_is_due_at_once(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    await first.register("sink", acknowledge="manual")
    await first.send(message(1))
    await first.receive("sink")
    await first.close()
    monkeypatch.setattr("infrastructure.buses.file_session.machine_boot", lambda: 7)
    second = opened(steady_clock=lambda: 1.0)
    await second.register("sink", acknowledge="manual")
    again = await second.receive("sink", timeout=PATIENCE_S)
    assert (again.payload, again.attempt) == (1, 2)


async def test_an_expired_message_in_the_middle_of_a_line_is_buried_when_somebody_asks(
    opened: Callable[..., FileMessageBus],
) -> None:
    wall = Steady()
    bus = opened(wall_clock=wall)
    await bus.register("sink")
    await bus.send_many([message(1), message(2, expires_at=wall.now + 5), message(3)])
    wall.now += 6
    stats = await bus.stats()
    assert (stats.expired, stats.queued) == (1, {"sink": 2})
    wall.now -= 1_000
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]
    assert [each.reason for each in await bus.dead_letters("sink")] == ["expired"]


async def test_an_id_is_known_to_every_object_and_after_a_restart(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await bus.send(message(1, id="same"))
    await other.send(message(2, id="same"))
    await bus.close()
    await opened().send(message(3, id="same"))
    stats = await other.stats()
    assert (stats.sent, stats.duplicates, stats.queued) == (1, 2, {"sink": 1})


async def test_ids_are_forgotten_by_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.buses.file_ids.REMEMBERED_IDS", 3)
    folder = BusFolder(tmp_path / "bus")
    folder.open()
    try:
        words, _ = folder.words("inboxes.0", 32)
        writer, reader = KnownIds(0), KnownIds(0)
        for number in range(7):
            assert not writer.knows(folder, words, str(number))
            writer.write(folder, str(number))
            writer.commit(folder, words, str(number))
            assert reader.knows(folder, words, str(number))
        known = [number for number in range(7) if KnownIds(0).knows(folder, words, str(number))]
        assert known == [3, 4, 5, 6]
        assert [number for number in range(7) if reader.knows(folder, words, str(number))] == known
        words.release()
    finally:
        folder.close()


async def test_closing_an_inbox_elsewhere_wakes_everybody_who_waits_for_it(
    opened: Callable[..., FileMessageBus],
) -> None:
    owner, bus, other = opened(), opened(), opened()
    await owner.register("sink", capacity=1)
    await owner.close()
    receivers = [asyncio.create_task(bus.receive("sink")) for _ in range(3)]
    await lined_up()
    await other.unregister("sink")
    for receiver in receivers:
        with pytest.raises(UnknownAgentError):
            await asyncio.wait_for(receiver, PATIENCE_S)


async def test_who_waits_at_an_inbox_without_an_owner_is_sent_away_by_the_next_owner(
    opened: Callable[..., FileMessageBus],
) -> None:
    owner, bus, other = opened(), opened(), opened()
    await owner.register("sink")
    await owner.close()
    waiting = asyncio.create_task(bus.receive("sink"))
    await lined_up()
    await other.register("sink")
    with pytest.raises(NameTakenError):
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_room_made_elsewhere_lets_blocked_senders_in_one_by_one_and_in_order(
    opened: Callable[..., FileMessageBus],
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink", capacity=1)
    await other.send(message(0))
    senders = []
    for number in range(1, 5):
        senders.append(asyncio.create_task(other.send(message(number), timeout=FOREVER)))
        await asyncio.sleep(0)
    taken = [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(5)]
    await asyncio.wait_for(asyncio.gather(*senders), PATIENCE_S)
    assert taken == [0, 1, 2, 3, 4]


async def test_names_come_and_go_and_the_journal_stays_small(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infrastructure.buses.file_registry._COMPACT_ABOVE", 2_048)
    bus, other = opened(), opened()
    await other.register("stays")
    await other.join("stays", "group")
    waiting = asyncio.create_task(other.receive("stays"))
    for number in range(100):
        await bus.register(f"agent-{number}")
        await bus.unregister(f"agent-{number}")
    journals = list((tmp_path / "bus").glob("registry.*"))
    assert len(journals) == 1
    assert journals[0].stat().st_size < 4_096
    # Whoever waited before the journal was written anew is woken all the same.
    await bus.send(message("found", to="group"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "found"


async def test_the_oldest_dead_letter_makes_room_for_the_newest(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infrastructure.buses.file_letters.MAX_DEAD_LETTERS", 3)
    monkeypatch.setattr("infrastructure.buses.file_bus.MAX_DEAD_LETTERS", 3)
    bus = opened()
    for number in range(5):
        with pytest.raises(UnknownAgentError):
            await bus.send(message(number, to="nobody"))
    assert [each.message.payload for each in await bus.dead_letters()] == [2, 3, 4]
    assert len(list((tmp_path / "bus" / "letters").iterdir())) == 3
    assert (await bus.stats()).dead_letters == 5


async def test_a_full_pipe_loses_no_wake_up(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    waiting = asyncio.create_task(bus.receive("sink"))
    # It lines up before anything is sent.
    await lined_up()
    with monkeypatch.context() as patch:
        patch.setattr(Ropes, "ring", lambda *_: False)
        await other.send(message(1))
    # The next ring that gets through has it look at everything.
    await bus.register("another")
    waiting_too = asyncio.create_task(bus.receive("another"))
    await lined_up()
    await other.send(message(2, to="another"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 1
    assert (await asyncio.wait_for(waiting_too, PATIENCE_S)).payload == 2


async def test_whoever_takes_the_place_of_a_closed_object_is_woken_like_it(
    opened: Callable[..., FileMessageBus],
) -> None:
    # The first to close has the first place, which the next one takes.
    takers = [opened()]
    sender = opened()
    for _ in range(3):
        taker = takers.pop()
        await taker.register("sink")
        waiting = asyncio.create_task(taker.receive("sink"))
        await lined_up()
        await sender.send(message("heard"))
        assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "heard"
        await taker.close()
        takers.append(opened())


async def test_a_duplicate_to_everybody_is_no_history(opened: Callable[..., FileMessageBus]) -> None:
    bus = opened()
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    for _ in range(2):
        await bus.broadcast(Message("a", "", "note", id="same"))
    await bus.send(Message("a", "group", "note", id="same"))
    await bus.send(Message("b", "group", "note", id="news"))
    assert [header.id for header in await bus.history()] == ["same", "news"]


async def test_history_holds_what_this_object_sent(opened: Callable[..., FileMessageBus]) -> None:
    bus = opened(keep_payloads=True)
    await bus.register("sink")
    sent = await bus.send(message("text"))
    found = await bus.history()
    assert [(each.id, each.payload) for each in found] == [(sent, "text")]
    assert isinstance(found[0], MessageHeader)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space there"),
        (errno.EDQUOT, "Free space there"),
        (errno.EACCES, "Give this user the rights"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "still there"),
    ],
)
def test_whatever_fails_in_the_folder_is_told_with_a_remedy(number: int, remedy: str, tmp_path: Path) -> None:
    told_as = unavailable(tmp_path, OSError(number, os.strerror(number)))
    assert remedy in told_as.remedy
    assert str(tmp_path) in told_as.problem


async def test_nothing_is_open_after_close(tmp_path: Path) -> None:
    for _ in range(3):
        bus = FileMessageBus(tmp_path / "bus")
        await bus.register("sink", acknowledge="manual")
        await bus.send(message(1, id="same"))
        assert open_below(tmp_path) != []
        await bus.close()
    assert open_below(tmp_path) == []
