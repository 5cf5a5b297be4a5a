"""`conclave witness verify` as an auditor meets it: a file, a pinned key, and nothing of ours around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli.main import execute
from tests import witness_specimens as specimens
from tests.witness_formats import LogKey
from tests.witness_log import Log, as_bytes, as_lines

VKEY = LogKey().vkey


@pytest.fixture(scope="module")
def log() -> Log:
    return specimens.whole_log()


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Writes what it is given into a file and verifies that: the exit code, standard output and standard error."""

    def run(content: bytes, *options: str, key: str = VKEY) -> tuple[int, str, str]:
        file = tmp_path / "file"
        file.write_bytes(content)
        code = execute(["witness", "verify", str(file), "--key", key, *options])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


Verify = Callable[..., tuple[int, str, str]]


def test_a_bundle_is_verified_and_told_in_words(log: Log, verify: Verify) -> None:
    code, out, err = verify(as_bytes(log.bundle("choice")))
    assert (code, err) == (0, "")
    assert out.startswith("Verified: a bundle, 19 entries of conclave.example/log\n")
    assert log.root().hex() in out
    assert "Deliberation choice: completed" in out
    assert "Outcome: decided: weekends only" in out
    assert "The outcome was computed again from the ballots, and is the same." in out
    assert "Roll call: 8 asked = 5 answered + 1 abstained + 1 invalid + 1 timed out" in out
    assert "\x1b" not in out


def test_what_is_withheld_erased_and_not_computed_again_is_told(log: Log, verify: Verify) -> None:
    assert f"entry {log.places['erased'][0]}: question" in verify(as_bytes(log.bundle("erased")))[1]
    unknown = specimens.tie("unknown").retold(lambda each: each.documents[0].update(rule={"kind": "range_voting"}))
    part = as_bytes(Log().tell(unknown).bundle("unknown"))
    code, out, _ = verify(part)
    assert code == 1
    assert out.startswith("Verified in part: ")
    assert "NOT computed again: this version has no rule 'range_voting'" in " ".join(out.split())
    code, out, _ = verify(part, "--json")
    told = json.loads(out)
    assert (code, told["verified"]) == (1, False)
    assert "NOT computed again: 1 outcome" in told["problem"]
    assert told["deliberations"][0]["not_recomputed"]
    bundle = {**log.bundle("tie"), "disclosures": []}
    out = verify(as_bytes(bundle))[1]
    assert "Withheld:" in out
    assert f"entry {log.places['tie'][0]}: question, context, key_name" in out


def test_an_export_is_told_from_a_bundle_by_its_first_line(log: Log, verify: Verify) -> None:
    code, out, _ = verify(b"".join(as_lines(log.export())))
    assert code == 0
    assert out.startswith(f"Verified: a whole log, {len(log.entries)} entries of")
    assert "Deliberation cancelled: cancelled" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]], "byte order mark"),
        (lambda lines: lines[1:], "line 1 is no header"),
        (lambda lines: [lines[0].replace(b'"kind": "log", ', b""), *lines[1:]], "line 1 lacks the field 'kind'"),
    ],
)
def test_an_export_without_its_right_first_line_is_told_what_is_wrong_there(
    log: Log, verify: Verify, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    lines = as_lines(log.export())
    changed = change(lines)
    assert changed != lines
    code, _, err = verify(b"".join(changed))
    assert code == 3
    assert said in err


def test_a_bundle_with_a_byte_order_mark_and_one_with_a_huge_integer_are_told_in_our_words(
    log: Log, verify: Verify
) -> None:
    bundle = as_bytes(log.bundle("tie"))
    assert "byte order mark" in verify(b"\xef\xbb\xbf" + bundle)[2]
    err = verify(bundle.replace(b'"version": 1', b'"version": ' + b"9" * 5000, 1))[2]
    assert "5000 digits" in err
    assert "sys." not in err


def test_a_text_that_was_changed_is_named_by_its_entry_and_field(log: Log, verify: Verify) -> None:
    bundle = log.bundle("tie")
    bundle["disclosures"][0]["text"] += "!"
    assert f"entry {log.places['tie'][0]}: the disclosed text of 'question'" in verify(as_bytes(bundle))[2]


def test_a_bundle_on_one_line_is_a_bundle(log: Log, verify: Verify) -> None:
    assert verify(json.dumps(log.bundle("tie")).encode())[0] == 0


def test_json_is_one_document(log: Log, verify: Verify) -> None:
    code, out, err = verify(b"".join(as_lines(log.export())), "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["verified"] is True
    assert document["root_hash"] == log.root().hex()
    assert document["tree_size"] == document["entries_checked"] == len(log.entries)
    assert [each["id"] for each in document["deliberations"]][:2] == ["choice", "verdict"]
    assert document["erased_count"] == len(document["erased"]) == 14
    assert {"index": 0, "field": "reason"} in document["withheld"]


def test_a_refusal_ends_with_3_and_shows_the_evidence(log: Log, verify: Verify) -> None:
    bundle = log.bundle("choice")
    bundle["entries"][4]["entry"] = bundle["entries"][4]["entry"].replace('"attempt":1', '"attempt":2')
    code, out, err = verify(as_bytes(bundle))
    assert (code, out) == (3, "")
    assert err.startswith("conclave: ")
    assert f"entry {bundle['entries'][4]['index']}: " in err
    assert log.root().hex() in err
    code, out, _ = verify(as_bytes(bundle), "--json")
    refused = json.loads(out)
    assert code == 3
    assert refused["verified"] is False
    assert refused["index"] == bundle["entries"][4]["index"]
    assert log.root().hex() in refused["evidence"].values()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"[]", b'{"kind": "log"}', b"PK\x03\x04"])
def test_what_is_no_bundle_and_no_export_is_refused(verify: Verify, content: bytes) -> None:
    code, out, err = verify(content)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


def test_another_pinned_key_refuses_what_is_otherwise_right(log: Log, verify: Verify) -> None:
    code, _, err = verify(as_bytes(log.bundle("tie")), key=LogKey(seed=b"\x09" * 32).vkey)
    assert code == 3
    assert "another public key" in err


@pytest.mark.parametrize("key", ["", "nonsense", VKEY[:-4], VKEY.replace("conclave", "enclave"), "a b+00000000+AAAA"])
def test_a_key_that_is_none_is_a_mistake_of_the_caller(log: Log, verify: Verify, key: str) -> None:
    code, out, err = verify(as_bytes(log.bundle("tie")), key=key)
    assert (code, out) == (2, "")
    assert err.startswith("conclave: ")


def test_a_file_that_cannot_be_read_is_a_mistake_of_the_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        assert execute(["witness", "verify", str(path), "--key", VKEY]) == 2
        assert str(path) in capsys.readouterr().err


def test_a_key_has_to_be_pinned(tmp_path: Path) -> None:
    assert execute(["witness", "verify", str(tmp_path / "file")]) == 2


def test_a_text_in_a_bundle_cannot_act_on_the_terminal(verify: Verify) -> None:
    story = specimens.tie("\x1b[2Jtie")
    out = verify(as_bytes(Log().tell(story).bundle("\x1b[2Jtie")))[1]
    assert "\x1b" not in out
    assert "Deliberation \\x1b[2Jtie: completed" in out


def test_seventy_two_agents_are_verified_without_database_or_settings(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(as_bytes(Log().tell(specimens.seventy_two()).bundle("large")))
    # A setting that could not be used would end any command that reads the settings.
    environment = {**os.environ, "CONCLAVE_DATABASE_URL": "nonsense", "CONCLAVE_DATA_DIR": str(file)}
    command = [sys.executable, "-m", "api.cli.main", "witness", "verify", str(file), "--key", VKEY, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["deliberations"][0]["roll_call"]["answered"] == 72
    assert list(tmp_path.iterdir()) == [file]
