"""What lies in the coordination folder and should not: half-written, foreign, huge and unreadable responses, links and pipes."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from application.ports.soak_agents import Order
from infrastructure.soak.envelope import Envelope
from tests.integration.soak_posts import listening, put, response
from tests.soak.runs import eventually

BAD_RESPONSES: Mapping[str, bytes] = {
    "empty": b"",
    "truncated": response().encode()[:-5],
    "no UTF-8": b'{"agentId": "1", "messageId": "m", "x": "\xff\xfe"}',
    "no object": b"[1, 2]",
    "no JSON": b"Lorem ipsum",
    "deep": b"[" * 100_000,
    "another agent": response("2").encode(),
    "another message": response("1", "n").encode(),
    "no message": b'{"agentId": "1"}',
    "an agent that is a flag": response(True).encode(),
    "huge": b'{"agentId": "1", "messageId": "m", "x": "' + b"x" * 2**20 + b'"}',
    "NUL": b"\0" * 100,
}


@pytest.mark.parametrize("content", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
async def test_a_response_that_is_none_is_counted_once_and_heard_by_nobody(tmp_path: Path, content: bytes) -> None:
    async with listening(tmp_path / "c") as heard:
        put(tmp_path / "c/responses/response-1-m.json", content)
        assert await heard.corrupt() == 1
        assert await heard.corrupt() == 1
        assert heard.responses == []


@pytest.mark.parametrize("place", ["responses", "status"])
async def test_links_folders_pipes_and_foreign_files_count_and_are_never_followed(tmp_path: Path, place: str) -> None:
    target = tmp_path / "secret.json"
    target.write_text(response())
    async with listening(tmp_path / "c") as heard:
        folder = tmp_path / "c" / place
        name = "response-1-m.json" if place == "responses" else "agent-1-status.json"
        (folder / name).symlink_to(target)
        (folder / "dangling").symlink_to(tmp_path / "nowhere")
        (folder / "a-folder.json").mkdir()
        os.mkfifo(folder / name.replace("1", "2"))
        (folder / "notes.txt").write_text("mine")
        assert await heard.corrupt() == 5
        assert heard.responses == []
        assert heard.post.members() == {}
    assert target.read_text() == response()
    assert (tmp_path / "c" / place / "notes.txt").exists()


async def test_a_file_that_may_not_be_read_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(tmp_path / "c") as heard:
        opened = os.open

        def refuse(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            # Rights do not hold for root, who may run the tests.
            if path == "response-1-m.json" and not flags & os.O_CREAT:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return opened(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)
        (tmp_path / "c/responses/response-1-m.json").write_text(response())
        assert await heard.corrupt() == 1


@pytest.mark.parametrize("name", ["responses/response-1-m.json", "responses/notes.txt", "status/agent-x-status.json"])
async def test_what_is_rewritten_all_the_time_and_never_readable_counts_once(tmp_path: Path, name: str) -> None:
    async with listening(tmp_path / "c") as heard:
        for number in range(6):
            put(tmp_path / "c" / name, "x" * (number + 1))
            await heard.post.audit()
            assert heard.post.corrupt == (0 if number < 3 else 1)
            heard.clock.now += 0.08


@pytest.mark.parametrize("polls", [False, True])
async def test_what_was_readable_in_between_or_gone_counts_again(tmp_path: Path, polls: bool) -> None:
    path = tmp_path / "c/responses/response-1-m.json"
    async with listening(tmp_path / "c", polls=polls) as heard:
        put(path, "none")
        assert await heard.corrupt() == 1
        put(path, response())
        await eventually(lambda: heard.responses)
        put(path, "none again")
        assert await heard.corrupt() == 2
        path.unlink()
        assert await heard.corrupt() == 2
        put(path, "and again")
        assert await heard.corrupt() == 3


async def test_what_was_readable_in_between_is_waited_for_anew(tmp_path: Path) -> None:
    path = tmp_path / "c/responses/response-1-m.json"
    async with listening(tmp_path / "c") as heard:
        for text in ("none", response(), "half"):
            put(path, text)
            await heard.post.audit()
            heard.clock.now += 0.15
        assert heard.post.corrupt == 0


async def test_at_the_end_what_is_old_and_what_is_a_link_counts_at_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path / "c") as heard:
        old = tmp_path / "c/responses/response-1-m.json"
        old.write_text("none")
        os.utime(old, (1, 1))
        (tmp_path / "c/status/a-link").symlink_to(tmp_path / "nowhere")

        async def refuse(_seconds: float) -> None:
            raise AssertionError

        monkeypatch.setattr("infrastructure.soak.file_post.asyncio.sleep", refuse)
        await heard.post.audit(final=True)
        assert heard.post.corrupt == 2


async def test_what_is_half_written_is_heard_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "c/responses/response-1-m.json"
    async with listening(tmp_path / "c") as heard:
        path.write_text(response()[:10])
        await heard.post.audit()
        assert (heard.post.corrupt, heard.responses) == (0, [])
        path.write_text(response())
        await eventually(lambda: heard.responses)
        assert await heard.corrupt() == 0


async def test_a_draft_beside_its_file_is_nothing_foreign_when_it_is_gone_in_time(tmp_path: Path) -> None:
    draft = tmp_path / "c/responses/response-1-m.json.tmp"
    async with listening(tmp_path / "c") as heard:
        draft.write_text(response())
        await heard.post.audit()
        draft.replace(tmp_path / "c/responses/response-1-m.json")
        assert await heard.corrupt() == 0
        assert heard.responses == [("1", "m")]


@pytest.mark.parametrize("polls", [False, True])
async def test_a_response_is_heard_without_being_looked_for(tmp_path: Path, polls: bool) -> None:
    async with listening(tmp_path / "c", polls=polls) as heard:
        assert heard.post.polls is polls
        put(tmp_path / "c/responses/response-1-m.json", response())
        put(tmp_path / "c/responses/response-7-m.json", response(7))
        await eventually(lambda: sorted(heard.responses) == [("1", "m"), ("7", "m")])


@pytest.mark.parametrize("polls", [False, True])
async def test_the_same_response_written_again_is_heard_again_and_read_once_otherwise(
    tmp_path: Path, polls: bool
) -> None:
    path = tmp_path / "c/responses/response-1-m.json"
    async with listening(tmp_path / "c", polls=polls) as heard:
        put(path, response())
        await eventually(lambda: heard.responses)
        await heard.post.audit()
        assert len(heard.responses) == 1
        put(path, response())
        await eventually(lambda: len(heard.responses) == 2)


async def test_responses_of_a_cycle_stay_until_the_next_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "c/responses/response-1-m.json"
    async with listening(tmp_path / "c") as heard:
        put(path, response())
        await eventually(lambda: heard.responses)
        assert path.exists()
        heard.post.begin_cycle()
        assert not path.exists()
        assert await heard.corrupt() == 0


@pytest.mark.parametrize("options", [{"compresses": True}, {"key": bytes(32)}, {"compresses": True, "key": bytes(32)}])
async def test_packed_files_are_heard_and_plain_ones_are_corrupt(tmp_path: Path, options: dict[str, Any]) -> None:
    envelope = Envelope(compresses=options.get("compresses", False), key=options.get("key"))
    async with listening(tmp_path / "c", envelope=envelope) as heard:
        put(tmp_path / "c/responses/response-1-m.json", envelope.pack(response().encode(), "response-1-m.json"))
        put(tmp_path / "c/responses/response-2-m.json", response("2"))
        await eventually(lambda: heard.responses)
        assert await heard.corrupt() == 1
        await heard.post.put(Order("1", "s-1", "ping", 1))
        assert b"ping" not in (tmp_path / "c/messages/coordination-1.json").read_bytes()


async def test_events_that_were_lost_are_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(tmp_path / "c") as heard:
        watch = heard.post._watch
        inotify = watch._inotify
        assert inotify is not None
        read = inotify.read
        lost: list[Any] = []

        def forgetful() -> list[tuple[int, str, bool]]:
            events = read()
            if events and not lost:
                lost.extend(events)
                return [(-1, "", True)]
            return events

        monkeypatch.setattr(inotify, "read", forgetful)
        put(tmp_path / "c/responses/response-1-m.json", response())
        await eventually(lambda: heard.responses == [("1", "m")])
        assert lost
