"""`conclave recount`, `resolve`, `track-record`, `replay` and `list --origin`: what was recorded, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import Purpose, load_settings, open_conclave
from api.requests import DeliberationRequest
from infrastructure.witness.canonical_json import canonical_json
from tests.command_line import Command, Ran, commands
from tests.conclave_fixture import running_server

OPTIONS = ("--option", "trams", "--option", "buses", "--option", "bicycles")


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def ask(conclave: Command, *options: str, agents: int = 7) -> str:
    ran = conclave("deliberate", "Which?", *options, "--agents", str(agents), "--json")
    assert ran.code == 0, ran.stderr
    return str(ran.document["id"])


def bundle_of(own: str) -> Any:
    async def work() -> Any:
        async with open_conclave(load_settings(), purpose=Purpose.READ) as opened:
            await opened.witness.check_at_start()
            return await opened.witness.bundle(own)

    return asyncio.run(work())


def recorded(own: str, kind: str) -> int:
    return sum(json.loads(each["entry"])["type"] == kind for each in bundle_of(own)["entries"])


def test_a_recount_is_told_beside_what_was_agreed_and_verifies_in_the_log(conclave: Command, tmp_path: Path) -> None:
    own = ask(conclave, "--answer", "ranking", *OPTIONS)
    ran = conclave("recount", own[:8], "--rule", "borda")
    assert ran.code == 0, ran.stderr
    assert "By borda:" in ran.words
    assert "As agreed, by schulze:" in ran.words
    counted = conclave("recount", own, "--rule", "minimax", "--strength", "margins", "--json").document
    assert counted["rule"] == {"kind": "minimax", "strength": "margins"}
    export = tmp_path / "log.json"
    assert conclave("witness", "export", str(export)).code == 0
    key = conclave("witness", "key").stdout.strip()
    verified = conclave("witness", "verify", str(export), "--key", key)
    assert verified.code == 0, verified.stderr
    assert "2 recounts computed again" in verified.words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rule", "median"), "--rule:"),
        (("--rule", "threshold", "--fraction", "2"), "--fraction:"),
        (("--rule", "plurality", "--tie-break", "lottery"), "--tie-break:"),
        ((), "--rule"),
    ],
)
def test_a_bad_rule_ends_with_2_and_names_its_option(conclave: Command, options: tuple[str, ...], said: str) -> None:
    own = ask(conclave, *OPTIONS)
    ran = conclave("recount", own, *options)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert recorded(own, "recounted") == 0


@pytest.mark.parametrize(
    ("options", "truth"),
    [
        (OPTIONS, ("buses",)),
        (("--answer", "ranking", *OPTIONS), ("bicycles", "trams")),
        (("--answer", "probability"), ("no",)),
        (("--answer", "number", "--unit", "km"), ("-1e3",)),
    ],
)
def test_a_question_is_resolved_by_an_answer_of_its_kind(
    conclave: Command, options: tuple[str, ...], truth: tuple[str, ...]
) -> None:
    own = ask(conclave, *options)
    told = [part for each in truth for part in ("--answer", each)]
    ran = conclave("resolve", own, *told, "--json")
    assert ran.code == 0, ran.stderr
    assert len(ran.document["agents"]) == 7
    assert recorded(own, "resolved") == 1
    assert "Turned out:" in conclave("resolve", own, *told).words


@pytest.mark.parametrize(
    ("options", "truth"),
    [
        (OPTIONS, ("ferries",)),
        (OPTIONS, ("trams", "buses")),
        (("--answer", "number"), ("many",)),
    ],
)
def test_what_is_no_answer_to_the_question_ends_with_2(
    conclave: Command, options: tuple[str, ...], truth: tuple[str, ...]
) -> None:
    own = ask(conclave, *options)
    ran = conclave("resolve", own, *[part for each in truth for part in ("--answer", each)])
    assert (ran.code, ran.stdout) == (2, "")
    assert "--answer" in ran.stderr


def test_what_is_not_there_can_be_neither_recounted_nor_resolved_nor_replayed(conclave: Command) -> None:
    for command in (
        ("recount", "unknown", "--rule", "plurality"),
        ("resolve", "unknown", "--answer", "a"),
        ("replay", "x"),
    ):
        assert conclave(*command).code == 2


def test_what_was_learned_is_shown_and_weighs_later_votes(conclave: Command) -> None:
    for _ in range(3):
        assert conclave("resolve", ask(conclave, *OPTIONS), "--answer", "trams").code == 0
    standing = {each["name"]: each["weight"] for each in conclave("track-record", "--json").document["agents"]}
    assert len(standing) == 7
    assert "archon-1" in conclave("track-record").words
    ran = conclave("deliberate", "Which?", *OPTIONS, "--agents", "7", "--weighted-by", "record", "--json")
    assert ran.document["rule"]["weights"] == standing


def test_a_run_is_replayed_without_a_key_by_its_id_and_from_a_file(conclave: Command, tmp_path: Path) -> None:
    own = ask(conclave, *OPTIONS, "--protocol", "delphi")
    by_id = conclave("replay", own, "--json")
    assert by_id.code == 0, by_id.stderr
    assert (by_id.document["same"], by_id.document["differences"]) == (True, [])
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(bundle_of(own)))
    ran = conclave("replay", str(file))
    assert ran.code == 0
    assert f"Replayed {own}: all {by_id.document['entries']} entries came out byte for byte" in ran.words


def test_a_replay_says_where_a_changed_record_differs_and_ends_with_3(conclave: Command, tmp_path: Path) -> None:
    bundle = bundle_of(ask(conclave, *OPTIONS))
    found = next(each for each in bundle["entries"] if '"type":"agent.ended"' in each["entry"])
    document = json.loads(found["entry"])
    document["answer"] = (document["answer"] + 1) % 3
    found["entry"] = canonical_json(document).decode()
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(bundle))
    ran = conclave("replay", str(file))
    assert ran.code == 3
    assert f"entry {found['index']}, agent.ended, answer: recorded {document['answer']}" in ran.words


def test_what_cannot_be_replayed_says_why(conclave: Command, tmp_path: Path) -> None:
    bundle = bundle_of(ask(conclave, *OPTIONS))
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps({**bundle, "disclosures": []}))
    assert _refusal(conclave("replay", str(file)), 1).endswith("the text of the question is not in the bundle.\n")
    file.write_text("[]")
    _refusal(conclave("replay", str(file)), 3)
    file.write_text(json.dumps({"entries": 7}))
    assert "no bundle" in _refusal(conclave("replay", str(file)), 3)


def _refusal(ran: Ran, code: int) -> str:
    assert (ran.code, ran.stdout) == (code, "")
    return ran.stderr


async def _ask_many(count: int) -> None:
    async with open_conclave(load_settings(), purpose=Purpose.ASK) as opened:
        asked = DeliberationRequest.read({"question": "Which?", "agents": {"count": 1}}, opened.rosters)
        for _ in range(count):
            accepted = await opened.deliberations.submit(asked.specification(opened.rosters))
            await opened.deliberations.wait(accepted.id, timeout_s=60)


def test_topics_are_listed_by_their_origin_and_one_source_too_many_is_warned_of(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ask(conclave, *OPTIONS, "--origin", "petition", agents=1)
    ran = conclave("list", "--origin", "petition", "--json")
    assert [item["id"] for item in ran.document["items"]] == [own]
    asyncio.run(_ask_many(19))
    monkeypatch.setenv("CONCLAVE_WATCH_TOPICS", "true")
    ran = conclave("list")
    assert (ran.code, "19 of 20 topics" in ran.stderr) == (0, True)
    topics = next(check for check in conclave("doctor", "--json").document["checks"] if check["name"] == "topics")
    assert (topics["works"], "'api'" in topics["detail"]) == (True, True)


@pytest.mark.parametrize(
    ("kind", "command"),
    [("recounted", ("recount", "--rule", "threshold")), ("resolved", ("resolve", "--answer", "trams"))],
)
def test_a_kill_between_entry_and_answer_leaves_one_entry_once_it_was_asked_again(
    conclave: Command, kind: str, command: tuple[str, ...]
) -> None:
    own = ask(conclave, *OPTIONS)
    name, *options = command
    killed = subprocess.run(
        [sys.executable, "-m", "api.cli.main", name, own, *options],
        env={**os.environ, "CONCLAVE_CRASH_AT": "log.after", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert recorded(own, kind) == 1
    again = conclave(name, own, *options, "--json")
    assert again.code == 0, again.stderr
    assert recorded(own, kind) == 1
    assert conclave("witness", "fsck").code == 0


def test_all_of_it_is_done_on_a_server_too(conclave: Command) -> None:
    with running_server() as server:
        at = ("--server", f"http://127.0.0.1:{server.port}")
        ran = conclave("deliberate", "Which?", *OPTIONS, "--agents", "5", "--origin", "petition", *at, "--json")
        own = ran.document["id"]
        assert conclave("recount", own, "--rule", "threshold", *at, "--json").document["rule"]["kind"] == "threshold"
        assert len(conclave("resolve", own, "--answer", "trams", *at, "--json").document["agents"]) == 5
        assert conclave("track-record", *at, "--json").document["questions"] == 1
        assert conclave("replay", own, *at, "--json").document["same"]
        page = conclave("list", "--origin", "petition", *at, "--json").document
        assert [item["id"] for item in page["items"]] == [own]
        refused = conclave("recount", own, "--rule", "median", *at)
    assert refused.code == 2
    assert "--rule:" in refused.stderr
