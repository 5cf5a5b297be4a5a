"""`conclave witness` and `conclave minutes` as an operator of the log meets them."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from api.bootstrap import verification_tools
from domain.witness.checkpoint import VerifierKey, open_checkpoint
from tests.command_line import Command, commands
from tests.conclave_fixture import running_server
from tests.integration.witnessed_questions import QUESTION, ended_deliberation, simulated_settings

REASON = "the person asked for it"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    return simulated_settings(tmp_path, monkeypatch)


@pytest.fixture
def conclave(settings: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process."""
    with commands(capsys) as run:
        yield run


@pytest.fixture
def held(conclave: Command) -> str:
    return ended_deliberation(conclave)


def database(settings: Mapping[str, str]) -> Path:
    return Path(settings["CONCLAVE_DATA_DIR"]) / "conclave.db"


def test_every_command_takes_json_and_explains_itself(conclave: Command) -> None:
    for command in ("key", "checkpoint", "export", "fsck", "erase", "accept-restore", "serve", "verify"):
        ran = conclave("witness", command, "--help")
        assert (ran.code, "--json" in ran.stdout) == (0, True)
    assert "--server" in conclave("minutes", "--help").stdout


def test_the_key_stands_alone_on_one_line_and_stays_the_same(conclave: Command) -> None:
    ran = conclave("witness", "key")
    assert ran.code == 0, ran.stderr
    line, end = ran.stdout[:-1], ran.stdout[-1]
    assert (end, str(VerifierKey.parse(line))) == ("\n", line)
    assert conclave("witness", "key", "--json").document == {
        "origin": VerifierKey.parse(line).name,
        "public_key": line,
    }


def test_the_checkpoint_opens_with_the_key(conclave: Command, held: str) -> None:
    key = VerifierKey.parse(conclave("witness", "key").stdout.strip())
    note = conclave("witness", "checkpoint").stdout
    stated, _ = open_checkpoint(note, key, verification_tools().check_signature, origin=key.name)
    document = conclave("witness", "checkpoint", "--json").document
    assert document == {"checkpoint": note, "tree_size": stated.tree_size, "root_hash": stated.root_hash.hex()}


@pytest.mark.parametrize("options", [(), ("--with-texts",)])
def test_an_export_verifies_with_the_key_alone(
    conclave: Command, held: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    key = conclave("witness", "key").stdout.strip()
    file = tmp_path / "log.jsonl"
    ran = conclave("witness", "export", str(file), *options, "--json")
    assert ran.code == 0, ran.stderr
    lines = file.read_text(encoding="utf-8").splitlines()
    assert ran.document["lines"] == len(lines)
    assert (QUESTION in file.read_text(encoding="utf-8")) is bool(options)
    verified = conclave("witness", "verify", str(file), "--key", key, "--json")
    assert verified.code == 0, verified.stderr
    assert [found["id"] for found in verified.document["deliberations"]] == [held]


def test_an_export_takes_the_place_of_the_one_before_and_leaves_nothing_beside(
    conclave: Command, held: str, tmp_path: Path
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    file, link = folder / "log.jsonl", folder / "link"
    file.write_text("old", encoding="utf-8")
    link.symlink_to(file)
    assert conclave("witness", "export", str(link), "--with-texts").code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["link", "log.jsonl"]
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8").startswith('{"version":1')
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("place", ["", "missing/log.jsonl"])
def test_an_export_that_cannot_be_written_names_the_file(conclave: Command, tmp_path: Path, place: str) -> None:
    ran = conclave("witness", "export", str(tmp_path / place))
    assert (ran.code, ran.stdout) == (2, "")
    assert str(tmp_path / place) in ran.stderr


def test_an_export_that_breaks_off_leaves_the_old_file(
    conclave: Command, held: str, tmp_path: Path, settings: Mapping[str, str]
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("old", encoding="utf-8")
    damage(settings, "UPDATE witness_entries SET entry = CAST(replace(CAST(entry AS TEXT), '3', '4') AS BLOB)")
    ran = conclave("witness", "export", str(file))
    assert ran.code == 3
    assert file.read_text(encoding="utf-8") == "old"
    assert not list(tmp_path.glob(".conclave-*"))


def test_fsck_counts_what_it_found_sound(conclave: Command, held: str) -> None:
    checkpoint = conclave("witness", "checkpoint", "--json").document
    ran = conclave("witness", "fsck", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["verified"] is True
    assert ran.document["entries"] == ran.document["tree_size"] == checkpoint["tree_size"]
    assert ran.document["root_hash"] == checkpoint["root_hash"]
    assert ran.document["checkpoints"] >= 1
    assert checkpoint["root_hash"] in conclave("witness", "fsck").stdout


def test_fsck_names_the_entry_that_was_edited(conclave: Command, held: str, settings: Mapping[str, str]) -> None:
    damage(settings, "UPDATE witness_entries SET entry = CAST(entry || ' ' AS BLOB) WHERE idx = 2")
    ran = conclave("witness", "fsck", "--json")
    assert ran.code == 3
    assert (ran.document["verified"], ran.document["index"]) == (False, 2)
    assert set(ran.document["evidence"])
    assert re.search(r"entry 2\b", conclave("witness", "fsck").stderr)


def test_erased_texts_are_gone_and_the_log_still_verifies(
    conclave: Command, held: str, tmp_path: Path, settings: Mapping[str, str]
) -> None:
    assert QUESTION in conclave("minutes", held).stdout
    ran = conclave("witness", "erase", held[:8], "--reason", REASON, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["deliberation_id"] == held
    assert QUESTION not in conclave("minutes", held).stdout
    for command in (("show", held), ("list",)):
        shown = conclave(*command).stdout
        assert "(erased)" in shown
        assert QUESTION not in shown
    assert conclave("witness", "fsck").code == 0
    file = tmp_path / "log.jsonl"
    assert conclave("witness", "export", str(file), "--with-texts").code == 0
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    witnessed = next(line["entry"] for line in entries if line.get("index") == ran.document["index"])
    assert json.loads(witnessed)["type"] == "erased"
    assert REASON not in witnessed
    assert QUESTION not in file.read_text(encoding="utf-8")


def test_erasing_twice_is_told_so(conclave: Command, held: str) -> None:
    assert conclave("witness", "erase", held, "--reason", REASON).code == 0
    ran = conclave("witness", "erase", held, "--reason", REASON)
    assert (ran.code, ran.stdout, ran.stderr) == (
        1,
        "",
        "conclave: the texts of the deliberation are erased already.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("erase", "00000000-0000-4000-8000-000000000000", "--reason", "why"), "no such deliberation"),
        (("erase", "000000", "--reason", "why"), "no such deliberation"),
        (("erase", "000000", "--reason", " "), "--reason must not be empty"),
        (("erase", "000000"), "--reason"),
        (("accept-restore", "--reason", "x" * 5000), "--reason is 5000 bytes long"),
        (("accept-restore",), "--reason"),
        (("serve",), "--log"),
        (("serve", "--log", "nonsense"), "is no key of a log"),
        (("export",), "FILE"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(conclave: Command, arguments: tuple[str, ...], said: str) -> None:
    ran = conclave("witness", *arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr.splitlines()[-1]


def test_bundle_and_minutes_say_why_texts_were_erased(
    conclave: Command, held: str, tmp_path: Path, settings: Mapping[str, str]
) -> None:
    assert conclave("witness", "erase", held, "--reason", REASON).code == 0
    assert f"reason: {REASON}" in conclave("minutes", held).stdout
    file = tmp_path / "log.jsonl"
    assert conclave("witness", "export", str(file), "--with-texts").code == 0
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert REASON in [line["disclosure"]["text"] for line in lines if "disclosure" in line]
    key = conclave("witness", "key").stdout.strip()
    assert conclave("witness", "verify", str(file), "--key", key).code == 0


def test_another_signing_key_is_witnessed_and_the_log_goes_on(
    conclave: Command, held: str, tmp_path: Path, settings: Mapping[str, str]
) -> None:
    first = conclave("witness", "key").stdout.strip()
    (Path(settings["CONCLAVE_DATA_DIR"]) / "witness.key").rename(tmp_path / "old.key")
    second = conclave("witness", "key").stdout.strip()
    assert conclave("deliberate", QUESTION, "--agents", "2", "--json").code == 0
    assert conclave("witness", "fsck").code == 0
    note = conclave("witness", "checkpoint").stdout
    open_checkpoint(note, VerifierKey.parse(second), verification_tools().check_signature)
    file = tmp_path / "log.jsonl"
    assert conclave("witness", "export", str(file)).code == 0
    entries = [json.loads(line).get("entry", "{}") for line in file.read_text(encoding="utf-8").splitlines()]
    named = [(each["type"], each["vkey"]) for each in map(json.loads, entries) if "vkey" in each]
    assert named == [("key.added", first), ("key.added", second), ("key.retired", first)]
    assert conclave("witness", "verify", str(file), "--key", second).code == 0
    assert conclave("witness", "verify", str(file), "--key", first).code == 3


def test_there_is_nothing_to_accept_while_all_is_well(conclave: Command, held: str) -> None:
    ran = conclave("witness", "accept-restore", "--reason", REASON)
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("conclave: ")


def test_a_restored_backup_is_refused_until_it_is_accepted(
    conclave: Command, held: str, settings: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchored = tmp_path / "anchor.txt"
    monkeypatch.setenv("CONCLAVE_WITNESS_ANCHORS", f"file:{anchored}")
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(database(settings))) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    assert conclave("deliberate", QUESTION, "--agents", "2", "--json").code == 0
    assert anchored.exists()
    for leftover in database(settings).parent.glob("conclave.db*"):
        leftover.unlink()
    backup.rename(database(settings))
    exported = str(tmp_path / "log.jsonl")
    for command in (
        ("witness", "fsck"),
        ("witness", "checkpoint"),
        ("witness", "export", exported),
        ("witness", "erase", held, "--reason", REASON),
        ("minutes", held),
    ):
        refused = conclave(*command)
        assert (refused.code, refused.stdout) == (3, "")
        assert "rolled back" in refused.stderr
    accepted = conclave("witness", "accept-restore", "--reason", REASON, "--json")
    assert accepted.code == 0, accepted.stderr
    assert isinstance(accepted.document["index"], int)
    assert conclave("witness", "fsck").code == 0


def test_an_anchor_that_cannot_be_asked_is_named(
    conclave: Command, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "anchor").mkdir()
    monkeypatch.setenv("CONCLAVE_WITNESS_ANCHORS", f"file:{tmp_path / 'anchor'}")
    ran = conclave("witness", "fsck", "--json")
    assert ran.code == 0
    (name,) = ran.document["anchor_problems"]
    assert str(tmp_path / "anchor") in name
    assert f"nothing is known of the anchor {name}" in ran.stderr


def test_the_minutes_are_the_log_s_and_no_control_character_reaches_the_terminal(conclave: Command) -> None:
    ran = conclave("deliberate", "Clear\x1b[2J it?", "--option", "yes", "--option", "no", "--agents", "2", "--json")
    shown = conclave("minutes", ran.document["id"][:8])
    assert shown.code == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "Clear" in shown.stdout
    document = conclave("minutes", ran.document["id"], "--json").document
    assert document["deliberation_id"] == ran.document["id"]
    assert document["minutes"].startswith("#")


def test_the_minutes_of_a_server_are_the_ones_it_serves(conclave: Command) -> None:
    with running_server() as server:
        body = {"question": QUESTION, "agents": {"count": 2}}
        deliberation = str(server.post(body, query="?wait=30").document["id"])
        served = server.ask("GET", f"/v1/deliberations/{deliberation}/minutes").body.decode()
        address = f"http://127.0.0.1:{server.port}"
        assert conclave("minutes", deliberation, "--server", address).stdout == served
        document = conclave("minutes", deliberation[:8], "--server", address, "--json").document
        assert document == {"deliberation_id": deliberation, "minutes": served}


def damage(settings: Mapping[str, str], statement: str) -> None:
    """What whoever may write the file can do: take the triggers away and change what they kept."""
    with closing(sqlite3.connect(database(settings))) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in found:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
        connection.commit()
