"""What lies in the coordination folder and should not: half-written, foreign, huge and unreadable files, links, and no room."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from application.ports.soak_agents import Order, UndeliverableError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.soak.coordination_folder import CoordinationFolder, remove_abandoned
from infrastructure.soak.envelope import Envelope
from infrastructure.soak.file_post import FilePost
from tests.soak.runs import Soak, eventually, plan_of


class Steady:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """A post on a folder, and what came over it."""

    def __init__(self, folder: Path, *, polls: bool = False, envelope: Envelope | None = None) -> None:
        self.clock = Steady()
        self.post = FilePost(CoordinationFolder(folder), session="s", polls=polls, envelope=envelope, clock=self.clock)
        self.responses: list[tuple[str, str]] = []
        self.post.on_response = self.note

    def note(self, agent: str, message_id: str, response: Mapping[str, Any]) -> None:
        self.responses.append((agent, message_id))

    async def corrupt(self) -> int:
        """The count once nothing is young any more."""
        await self.post.audit()
        self.clock.now += 1
        await self.post.audit()
        return self.post.corrupt


@asynccontextmanager
async def listening(folder: Path, **more: Any) -> AsyncIterator[Heard]:
    heard = Heard(folder, **more)
    await heard.post.open()
    try:
        yield heard
    finally:
        await heard.post.close()


def response(agent: object = "1", message_id: object = "m") -> str:
    return json.dumps({"agentId": agent, "messageId": message_id, "response": {}})


def put(path: Path, text: str | bytes) -> None:
    draft = path.parent.parent / "drafts" / path.name
    draft.write_bytes(text.encode() if isinstance(text, str) else text)
    draft.replace(path)


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


def status(agent: object, *, pid: object = None, says: object = "ready") -> str:
    return json.dumps({"agentId": agent, "status": says, "pid": os.getpid() if pid is None else pid})


@pytest.mark.parametrize(
    "text",
    [
        status("2"),
        status("1", pid="7"),
        status("1", pid=-1),
        status("1", pid=0),
        status("1", pid=True),
        status("1", says=3),
        status(None),
        "{}",
        "",
        "x",
    ],
)
async def test_a_status_that_is_none_joins_nobody(tmp_path: Path, text: str) -> None:
    async with listening(tmp_path / "c") as heard:
        put(tmp_path / "c/status/agent-1-status.json", text)
        assert await heard.corrupt() == 1
        assert heard.post.members() == {}


@pytest.mark.parametrize("name", ["..", "a/b", "-x", "", "x" * 65, "ü"])
async def test_an_agent_whose_name_is_none_joins_not(tmp_path: Path, name: str) -> None:
    async with listening(tmp_path / "c") as heard:
        path = tmp_path / "c/status" / f"agent-{name.replace('/', '_')}-status.json"
        put(path, status(name))
        assert await heard.corrupt() == 1
        assert heard.post.members() == {}


def ended_process() -> int:
    """The pid of a process that has ended and was not waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def wait_for(pid: int) -> None:
    os.waitpid(pid, 0)


async def test_whoever_is_ready_and_lives_is_a_member_until_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "c/status/agent-x-status.json"
    async with listening(tmp_path / "c") as heard:
        put(path, status("x"))
        await eventually(lambda: heard.post.members() == {"x": os.getpid()})
        put(path, status("x", says="stopped"))
        await eventually(lambda: heard.post.members() == {})
        put(path, status("x"))
        await eventually(heard.post.members)
        path.unlink()
        await eventually(lambda: heard.post.members() == {})
        assert await heard.corrupt() == 0


async def test_whoever_has_said_that_it_is_ready_stays_a_member_whatever_it_does_then(tmp_path: Path) -> None:
    path = tmp_path / "c/status/agent-x-status.json"
    async with listening(tmp_path / "c") as heard:
        put(path, status("x", says="starting"))
        await heard.post.audit()
        assert heard.post.members() == {}
        for says in ("ready", "working", "busy"):
            put(path, status("x", says=says))
            await heard.post.audit()
            assert heard.post.members() == {"x": os.getpid()}
            assert heard.post.lives("x")
        put(path, status("x", says="stopped"))
        await heard.post.audit()
        assert (heard.post.members(), heard.post.lives("x")) == ({}, False)
        put(path, status("x", says="working"))
        await heard.post.audit()
        assert heard.post.members() == {}


async def test_a_successor_joins_when_it_is_ready_itself(tmp_path: Path) -> None:
    path = tmp_path / "c/status/agent-x-status.json"
    async with listening(tmp_path / "c") as heard:
        put(path, status("x"))
        await heard.post.audit()
        put(path, status("x", pid=os.getppid(), says="starting"))
        await heard.post.audit()
        assert heard.post.members() == {}
        put(path, status("x", pid=os.getppid()))
        await heard.post.audit()
        assert heard.post.members() == {"x": os.getppid()}


async def test_a_living_agent_that_is_there_before_the_run_joins_whatever_it_does(tmp_path: Path) -> None:
    folder = tmp_path / "c/status"
    folder.mkdir(parents=True)
    (folder / "agent-x-status.json").write_text(status("x", says="working"))
    async with listening(tmp_path / "c") as heard:
        assert heard.post.members() == {"x": os.getpid()}


async def test_a_process_that_has_ended_is_no_member(tmp_path: Path) -> None:
    ended = ended_process()
    async with listening(tmp_path / "c") as heard:
        put(tmp_path / "c/status/agent-x-status.json", status("x", pid=ended))
        await heard.post.audit()
        # Nobody has waited for it yet, and still it does not live.
        assert heard.post.members() == {}
        wait_for(ended)
        await heard.post.audit()
        assert heard.post.members() == {}


async def test_a_status_file_of_a_living_process_stays_over_a_start_and_any_other_is_cleared(tmp_path: Path) -> None:
    ended = ended_process()
    wait_for(ended)
    folder = tmp_path / "c/status"
    folder.mkdir(parents=True)
    (folder / "agent-lives-status.json").write_text(status("lives"))
    (folder / "agent-dead-status.json").write_text(status("dead", pid=ended))
    (folder / "agent-torn-status.json").write_text('{"agentId": "to')
    async with listening(tmp_path / "c") as heard:
        assert heard.post.members() == {"lives": os.getpid()}
        assert [path.name for path in folder.iterdir()] == ["agent-lives-status.json"]
        assert await heard.corrupt() == 0


async def test_somebody_else_who_takes_the_name_of_one_of_the_runs_own_counts_and_changes_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c/status/agent-1-status.json"
    own = os.getppid()
    async with listening(tmp_path / "c") as heard:
        heard.post.expect("1", own)
        put(path, status("1", pid=own))
        assert await heard.post.ready(["1"], timeout_s=5) == {"1"}
        put(path, status("1", pid=os.getpid()))
        assert await heard.corrupt() == 1
        assert heard.post.members() == {"1": own}


async def test_a_message_replaces_the_last_one_and_is_never_seen_in_part(tmp_path: Path) -> None:
    path = tmp_path / "c/messages/coordination-1.json"
    async with listening(tmp_path / "c") as heard:
        for number in range(3):
            await heard.post.put(Order("1", f"s-{number}", "compute", 2, data={"iterations": 5}))
            message = json.loads(path.read_text())
            assert message["messageId"] == f"s-{number}"
        assert message.keys() == {"messageId", "type", "timestamp", "cycle", "priority", "data"}
        assert abs(message["timestamp"] / 1e3 - time.time()) < 60
        assert list((tmp_path / "c/drafts").iterdir()) == []
        heard.post.withdraw("1")
        assert not path.exists()


async def test_without_room_a_message_is_undeliverable_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path / "c") as heard:

        def full(file: int, text: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(UndeliverableError, match="No space"):
                await heard.post.put(Order("1", "s-1", "ping", 1))
        assert list((tmp_path / "c/drafts").iterdir()) == []
        await heard.post.put(Order("1", "s-1", "ping", 1))


async def test_a_run_whose_file_system_is_full_for_a_while_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soak = Soak(plan_of(3, agents=2), tmp_path)
    put_message = soak.post.put
    refused: list[str] = []

    async def put_with_trouble(order: Order) -> None:
        if len(refused) < 3:
            refused.append(order.message_id)
            raise UndeliverableError("No space left on device")
        await put_message(order)

    monkeypatch.setattr(soak.post, "put", put_with_trouble)
    report = await soak.run()
    assert (report["lost"], report["messages_sent"], report["passed"]) == (0, 6, True)


async def test_a_run_whose_file_system_stays_full_counts_every_message_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soak = Soak(plan_of(2, agents=2, response_timeout_s=0.2), tmp_path)

    async def refuse(order: Order) -> None:
        raise UndeliverableError("No space left on device")

    monkeypatch.setattr(soak.post, "put", refuse)
    report = await soak.run()
    assert (report["messages_sent"], report["responses_received"], report["lost"]) == (4, 0, 4)
    assert report["passed"] is False


@pytest.mark.parametrize("place", ["", "messages", "responses", "status"])
async def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if place:
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / place).symlink_to(elsewhere)
    else:
        (tmp_path / "c").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="link"):
        await Heard(tmp_path / "c").post.open()
    assert list(elsewhere.iterdir()) == []


async def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with listening(tmp_path / "c"):
        with pytest.raises(ConfigurationError, match="another soak runs there"):
            await Heard(tmp_path / "c").post.open()
    async with listening(tmp_path / "c"):
        pass


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EACCES, ConfigurationError), (errno.EROFS, ConfigurationError), (errno.ENOSPC, DependencyUnavailableError)],
)
async def test_a_folder_that_cannot_be_made_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def refuse(path: Path, mode: int = 0, **more: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(error, match="--coord-dir"):
        await Heard(tmp_path / "c").post.open()


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


@pytest.mark.parametrize("transport", [{"compresses": True}, {"key": "ab" * 32}])
async def test_agents_pack_and_unpack_as_the_run_does(tmp_path: Path, transport: dict[str, Any]) -> None:
    from infrastructure.soak.envelope import envelope_of
    from infrastructure.soak.forked_agents import ForkedAgents

    configuration = {"compress": transport.get("compresses", False), "key": transport.get("key")}
    envelope = envelope_of(configuration)
    async with listening(tmp_path / "c", envelope=envelope) as heard:
        host = ForkedAgents(
            {
                "transport": "files",
                "folder": str(tmp_path / "c"),
                "messages": heard.post.messages_path,
                **configuration,
            },
            light=transport.get("key") is None,
            errors=tmp_path / "errors.log",
        )
        try:
            (pid,) = (await host.start(["1"])).values()
            heard.post.expect("1", pid)
            assert await heard.post.ready(["1"], timeout_s=20)
            await heard.post.put(Order("1", "s-1", "ping", 1))
            await eventually(lambda: heard.responses == [("1", "s-1")])
        finally:
            await host.close()


def folders_in(path: Path) -> list[Path]:
    return list(path.iterdir())


async def test_only_folders_that_no_run_holds_and_that_are_old_are_removed_as_abandoned(tmp_path: Path) -> None:
    later = time.time() + 3_600
    async with listening(tmp_path / "held"), listening(tmp_path / "left"):
        pass
    (tmp_path / "foreign").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "left")
    async with listening(tmp_path / "held"):
        remove_abandoned(folders_in(tmp_path))
        assert {path.name for path in folders_in(tmp_path)} == {"held", "left", "foreign", "link"}
        remove_abandoned(folders_in(tmp_path), now=lambda: later)
        assert {path.name for path in folders_in(tmp_path)} == {"held", "foreign", "link"}
