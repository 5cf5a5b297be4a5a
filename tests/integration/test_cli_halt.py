"""`conclave halt` as an operator meets it: with the database there, with it away, and through a server."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.command_line import Command, commands
from tests.conclave_fixture import running_server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, with simulated agents and a database."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    return tmp_path / "data"


@pytest.fixture
def conclave(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process."""
    with commands(capsys) as run:
        assert run("db", "upgrade").code == 0
        yield run


def channels(**states: str) -> dict[str, dict[str, bool]]:
    known = {"clear": (False, True), "set": (True, True), "away": (True, False)}
    return {name: {"halted": known[state][0], "reachable": known[state][1]} for name, state in states.items()}


def exported(conclave: Command, folder: Path) -> list[dict[str, Any]]:
    """The entries of the log, which verifies."""
    file = folder / "log.jsonl"
    assert conclave("witness", "export", str(file)).code == 0
    key = conclave("witness", "key").stdout.strip()
    assert conclave("witness", "verify", str(file), "--key", key).code == 0
    assert conclave("witness", "fsck").code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [json.loads(line["entry"]) for line in lines if "entry" in line]


def test_status_says_what_every_channel_says(conclave: Command) -> None:
    ran = conclave("halt", "status", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.document == {
        "halted": False,
        "reason": None,
        "since": None,
        "channels": channels(database="clear", file="clear"),
    }
    assert conclave("halt", "status").stdout == "The system is open\n  database: clear\n  file: clear\n"


def test_set_and_cleared_it_is_witnessed_and_the_log_verifies(conclave: Command, folder: Path) -> None:
    ran = conclave("halt", "set", "--reason", "a drill", "--json")
    assert (ran.code, ran.document["reason"]) == (0, "a drill")
    assert ran.document["channels"] == channels(database="set", file="set")
    assert (folder / "HALT").read_text() == "a drill"
    assert conclave("halt", "status").stdout.startswith("The system is halted since ")
    refused = conclave("deliberate", "Shall we?", "--agents", "2")
    assert (refused.code, "a drill" in refused.stderr) == (1, True)
    assert conclave("halt", "clear", "--reason", "it is over").code == 0
    assert not (folder / "HALT").exists()
    assert conclave("deliberate", "Shall we?", "--agents", "2").code == 0
    types = [entry["type"] for entry in exported(conclave, folder)]
    assert [kind for kind in types if kind.startswith("halt")] == ["halt.set", "halt.cleared"]


def test_with_the_database_away_it_halts_says_what_was_not_reached_and_is_recorded_later(
    conclave: Command, folder: Path
) -> None:
    conclave("witness", "key")
    moved = folder / "moved.db"
    (folder / "conclave.db").rename(moved)
    ran = conclave("halt", "set", "--reason", "a drill", "--json")
    assert ran.code == 0
    assert ran.document["channels"] == channels(database="away", file="set")
    assert "not reached: database" in ran.stderr
    assert not (folder / "conclave.db").exists()
    away = conclave("halt", "clear", "--reason", "it is over")
    assert (away.code, "database" in away.stderr) == (4, True)
    moved.rename(folder / "conclave.db")
    assert conclave("halt", "clear", "--reason", "it is over").code == 0
    types = [entry["type"] for entry in exported(conclave, folder)]
    assert [kind for kind in types if kind.startswith("halt")] == ["halt.set", "halt.cleared"]


def test_with_a_folder_in_place_of_the_file_it_halts_by_the_database(conclave: Command, folder: Path) -> None:
    (folder / "HALT").mkdir()
    assert "in doubt" in conclave("halt", "status").stdout
    ran = conclave("halt", "set", "--reason", "a drill", "--json")
    assert (ran.code, ran.document["channels"]) == (0, channels(database="set", file="away"))
    assert "not reached: file" in ran.stderr
    assert conclave("halt", "clear", "--reason", "it is over").code == 4


def test_on_a_full_disk_it_halts_by_an_empty_file_and_says_that_nobody_will_record_it(
    conclave: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "conclave.db").rename(folder / "moved.db")
    with monkeypatch.context() as full:
        full.setattr("os.write", no_room)
        ran = conclave("halt", "set", "--reason", "a drill", "--json")
    assert (ran.code, ran.document["channels"]) == (0, channels(database="away", file="set"))
    assert ran.stderr.endswith(
        "not reached: database; it is not recorded, and no note of that can be kept: set it again once that can be\n"
    )
    assert (folder / "HALT").read_bytes() == b""
    (folder / "moved.db").rename(folder / "conclave.db")
    again = conclave("halt", "set", "--reason", "a drill")
    assert (again.code, again.stderr) == (0, "")
    assert [entry["type"] for entry in exported(conclave, folder)].count("halt.set") == 1


def test_nothing_in_reach_is_exit_code_4(conclave: Command, folder: Path) -> None:
    (folder / "HALT").mkdir()
    (folder / "conclave.db").unlink()
    ran = conclave("halt", "set", "--reason", "a drill")
    assert (ran.code, ran.stdout) == (4, "")


def test_clearing_what_is_not_halted_ends_badly(conclave: Command) -> None:
    ran = conclave("halt", "clear", "--reason", "it is over")
    assert (ran.code, "not halted" in ran.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("set",),
        ("clear",),
        ("set", "--reason", ""),
        ("set", "--reason", " "),
        ("set", "--reason", "\u200b"),
        ("clear", "--reason", "\u2060"),
        ("set", "--reason", "x" * 1001),
        (),
    ],
)
def test_a_change_without_a_reason_is_a_wrong_use(conclave: Command, folder: Path, arguments: tuple[str, ...]) -> None:
    ran = conclave("halt", *arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert not (folder / "HALT").exists()


def test_a_reason_cannot_drive_the_terminal(conclave: Command, folder: Path) -> None:
    (folder / "HALT").write_bytes(b"\x1b[2Jgone\xff")
    assert "\x1b" not in conclave("halt", "status").stdout


def test_doctor_looks_at_every_channel(conclave: Command, folder: Path) -> None:
    checks = {check["name"]: check for check in conclave("doctor", "--json").document["checks"]}
    assert {name: checks[f"halt, channel {name}"]["detail"] for name in ("database", "file")} == {
        "database": "clear",
        "file": "clear",
    }
    (folder / "HALT").mkdir()
    ran = conclave("doctor", "--json")
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert (ran.code, checks["halt, channel file"]["works"]) == (2, False)


KEYS = "root:admin:root-secret-1,bob:operator:bob-secret-1"


def test_through_a_server_it_halts_that_server(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    places = HaltChannelStub("database"), HaltChannelStub("file")
    with running_server(channels=places, keys=KEYS) as server:
        url = f"http://127.0.0.1:{server.port}"
        monkeypatch.setenv("CONCLAVE_API_KEY", "root-secret-1")
        ran = conclave("halt", "set", "--reason", "a drill", "--server", url, "--json")
        assert (ran.code, ran.document["reason"]) == (0, "a drill")
        assert [place.read().reason for place in places] == ["a drill", "a drill"]
        assert conclave("halt", "status", "--server", url, "--json").document == ran.document
        monkeypatch.setenv("CONCLAVE_API_KEY", "bob-secret-1")
        assert conclave("halt", "clear", "--reason", "x", "--server", url).code == 2
        monkeypatch.setenv("CONCLAVE_API_KEY", "root-secret-1")
        assert conclave("halt", "clear", "--reason", "it is over", "--server", url).code == 0
        assert conclave("halt", "clear", "--reason", "it is over", "--server", url).code == 1
        places[1].problem = "it is gone"
        server.call(server.conclave.halt.look())
        assert conclave("halt", "clear", "--reason", "it is over", "--server", url).code == 4
    assert conclave("halt", "status", "--server", url).code == 4
