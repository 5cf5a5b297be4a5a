"""The segment of the shared-memory bus: its memory used again, full or refused, what is in its place, and what it remembers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.ports.message_bus import Message, Priority
from domain.errors.bus import BusUnavailableError
from infrastructure.buses import shm_seen
from infrastructure.buses.bus_limits import REMEMBERED_IDS
from infrastructure.buses.shm_batches import Columns, made_ids, pack, unpack
from infrastructure.buses.shm_layout import Head
from tests.integration.shm_buses import assert_sound, bus_in, names_in, numbered


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
