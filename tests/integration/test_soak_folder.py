"""The coordination folder itself: messages that go into it, no room for them, who may not use it, and when it is removed."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from application.ports.soak_agents import Order, UndeliverableError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.soak.coordination_folder import remove_abandoned
from tests.integration.soak_posts import Heard, listening
from tests.soak.runs import Soak, eventually, plan_of


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
