"""Who is a member of a soak by its status file: whoever is ready and lives, under its own name, until it says otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.soak_posts import listening, put
from tests.soak.runs import eventually


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
    ids=range(10),
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
