"""The record over a real port: whoever has the key can check everything, and whoever has none learns no text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from api.bootstrap import verification_tools
from application.services.verification import verify_bundle
from domain.errors.witness import LogUnverifiedError
from domain.witness.checkpoint import Checkpoint, open_checkpoint
from domain.witness.merkle import leaf_hash, root_hash
from domain.witness.proof import verify_consistency, verify_inclusion
from domain.witness.tile import Tile, read_entry_bundle, tiles_of
from tests.conclave_fixture import RunningServer, running_server

KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,bea:operator:bea-secret-1,root:admin:root-secret-1"
QUESTION = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "seed": 7,
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


@dataclass(frozen=True)
class Recorded:
    """A deliberation of bob's, and a checkpoint that covers it and more than a whole tile."""

    id: str
    checkpoint: Checkpoint


@pytest.fixture(scope="module")
def recorded(server: RunningServer) -> Recorded:
    found = [server.post(QUESTION, query="?wait=30", headers=key("bob")).document for _ in range(2)]
    assert [document["status"] for document in found] == ["completed", "completed"]
    return Recorded(found[0]["id"], checkpoint_of(server))


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1"}


def checkpoint_of(server: RunningServer) -> Checkpoint:
    answer = server.ask("GET", "/v1/witness/checkpoint")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    verifier_key = server.conclave.witness.verifier_key
    tools = verification_tools()
    return open_checkpoint(answer.body.decode(), verifier_key, tools.check_signature, origin=verifier_key.name)[0]


def hashes(found: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in found]


def ask(server: RunningServer, path: str) -> Any:
    answer = server.ask("GET", f"/v1/witness/{path}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.document


def test_the_checkpoint_is_the_log_s_own_and_nobody_keeps_it(server: RunningServer, recorded: Recorded) -> None:
    assert recorded.checkpoint.tree_size > 256
    assert server.ask("GET", "/v1/witness/checkpoint").headers["cache-control"] == "no-store"


def test_each_entry_hashes_to_its_leaf_and_is_proved(server: RunningServer, recorded: Recorded) -> None:
    size = recorded.checkpoint.tree_size
    for index in (0, 1, 100, 255, 256, size - 1):
        entry = ask(server, f"entries/{index}")
        assert set(entry) == {"index", "leaf_hash", "entry"}
        assert (entry["index"], entry["leaf_hash"]) == (index, leaf_hash(entry["entry"].encode()).hex())
        proof = ask(server, f"proofs/inclusion?index={index}&tree_size={size}")
        assert set(proof) == {"index", "tree_size", "leaf_hash", "root_hash", "hashes"}
        assert (proof["index"], proof["tree_size"], proof["leaf_hash"]) == (index, size, entry["leaf_hash"])
        assert proof["root_hash"] == recorded.checkpoint.root_hash.hex()
        verify_inclusion(
            index=index,
            tree_size=size,
            leaf=bytes.fromhex(proof["leaf_hash"]),
            root=recorded.checkpoint.root_hash,
            proof=hashes(proof["hashes"]),
        )


@pytest.mark.parametrize("first", [1, 2, 147, 256, 257])
def test_the_log_only_grew(server: RunningServer, recorded: Recorded, first: int) -> None:
    second = recorded.checkpoint.tree_size
    proof = ask(server, f"proofs/consistency?first={first}&second={second}")
    assert set(proof) == {"first", "second", "first_root", "second_root", "hashes"}
    assert (proof["first"], proof["second"]) == (first, second)
    assert proof["second_root"] == recorded.checkpoint.root_hash.hex()
    earlier = ask(server, f"proofs/inclusion?index=0&tree_size={first}")
    assert proof["first_root"] == earlier["root_hash"]
    verify_consistency(
        first=first,
        second=second,
        first_root=bytes.fromhex(proof["first_root"]),
        second_root=recorded.checkpoint.root_hash,
        proof=hashes(proof["hashes"]),
    )


def test_the_tiles_are_the_tree_of_the_checkpoint(server: RunningServer, recorded: Recorded) -> None:
    tiles = list(tiles_of(recorded.checkpoint.tree_size))
    answers = {tile: server.ask("GET", f"/v1/witness/tile/{tile}") for tile in tiles}
    assert {(answer.status, answer.headers["content-type"]) for answer in answers.values()} == {
        (200, "application/octet-stream")
    }
    leaves = b"".join(answer.body for tile, answer in answers.items() if tile.level == 0)
    split = [leaves[place : place + 32] for place in range(0, len(leaves), 32)]
    assert len(split) == recorded.checkpoint.tree_size
    assert root_hash(split) == recorded.checkpoint.root_hash
    for tile in tiles:
        if tile.level == 0:
            bundle = server.ask("GET", f"/v1/witness/tile/{Tile(None, tile.index, tile.width)}")
            assert [leaf_hash(entry) for entry in read_entry_bundle(bundle.body)] == split[tile.start : tile.end]


def test_only_a_whole_tile_is_kept_for_ever(server: RunningServer, recorded: Recorded) -> None:
    for path in ("0/000", "entries/000"):
        assert "immutable" in server.ask("GET", f"/v1/witness/tile/{path}").headers["cache-control"]
    for path in ("0/000.p/9", "entries/001.p/1", "0/999"):
        assert server.ask("GET", f"/v1/witness/tile/{path}").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["0/001", "0/999", "1/000", "2/000.p/1", "entries/001", "63/000", "0/x999/999"])
def test_a_tile_that_the_log_does_not_have_is_not_found(server: RunningServer, recorded: Recorded, path: str) -> None:
    answer = server.ask("GET", f"/v1/witness/tile/{path}")
    assert (answer.status, answer.problem) == (404, "not-found")


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "0",
        "0/0",
        "0/000/",
        "64/000",
        "-1/000",
        "0/x000/001",
        "0/000.p/0",
        "0/000.p/256",
        "entries/1",
        "0/%00",
        "0//000",
    ],
)
def test_what_is_no_path_of_a_tile_is_pointed_at(server: RunningServer, path: str) -> None:
    answer = server.ask("GET", f"/v1/witness/tile/{path}")
    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert [error["pointer"] for error in answer.document["errors"]] == ["/path/path"]


@pytest.mark.parametrize(
    ("path", "pointers"),
    [
        ("entries/999999", {"/path/index"}),
        ("entries/-1", {"/path/index"}),
        ("entries/1.0", {"/path/index"}),
        ("entries/one", {"/path/index"}),
        ("entries/+1", {"/path/index"}),
        ("entries/1_0", {"/path/index"}),
        (f"entries/{2**64}", {"/path/index"}),
        (f"entries/{'9' * 5000}", {"/path/index"}),
        ("proofs/inclusion", {"/query/index", "/query/tree_size"}),
        ("proofs/inclusion?index=0", {"/query/tree_size"}),
        ("proofs/inclusion?tree_size=1", {"/query/index"}),
        ("proofs/inclusion?index=5&tree_size=5", {"/query/index"}),
        ("proofs/inclusion?index=0&tree_size=0", {"/query/tree_size"}),
        ("proofs/inclusion?index=0&tree_size=999999", {"/query/tree_size"}),
        ("proofs/inclusion?index=-1&tree_size=5", {"/query/index"}),
        ("proofs/inclusion?index=&tree_size=5", {"/query/index"}),
        ("proofs/inclusion?index=1e1&tree_size=0x5", {"/query/index", "/query/tree_size"}),
        ("proofs/consistency", {"/query/first", "/query/second"}),
        ("proofs/consistency?first=1", {"/query/second"}),
        ("proofs/consistency?first=3&second=2", {"/query/first"}),
        ("proofs/consistency?first=1&second=999999", {"/query/second"}),
        (f"proofs/consistency?first=1&second={2**63}", {"/query/second"}),
        ("proofs/consistency?first=1&second=nan", {"/query/second"}),
    ],
)
def test_a_place_that_the_log_does_not_have_is_pointed_at(
    server: RunningServer, recorded: Recorded, path: str, pointers: set[str]
) -> None:
    answer = server.ask("GET", f"/v1/witness/{path}")
    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert pointers >= {error["pointer"] for error in answer.document["errors"]} != set()


def test_the_log_holds_no_text(server: RunningServer, recorded: Recorded) -> None:
    entries = read_entry_bundle(server.ask("GET", "/v1/witness/tile/entries/000").body)
    persona = server.conclave.rosters.get("archons").agents[0].persona
    for text in (QUESTION["question"], persona):
        assert not [entry for entry in entries if str(text)[:40].encode() in entry]


def test_a_bundle_verifies_without_the_server(server: RunningServer, recorded: Recorded) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{recorded.id}/bundle", headers=key("bob"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert set(answer.document) == {"version", "checkpoint", "public_key", "entries", "disclosures"}
    verifier_key = server.conclave.witness.verifier_key
    assert answer.document["public_key"] == str(verifier_key)
    report = verify_bundle(answer.body, key=verifier_key, tools=verification_tools())
    assert [found.id for found in report.deliberations] == [recorded.id]
    shown = server.ask("GET", f"/v1/deliberations/{recorded.id}", headers=key("bob")).document
    assert report.deliberations[0].decision == shown["outcome"]["decision"]
    texts = {disclosure["text"] for disclosure in answer.document["disclosures"]}
    assert QUESTION["question"] in texts


def test_the_minutes_are_markdown(server: RunningServer, recorded: Recorded) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{recorded.id}/minutes", headers=key("bob"))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    assert str(QUESTION["question"]) in answer.body.decode()


@pytest.mark.parametrize("part", ["bundle", "minutes"])
def test_only_who_sees_a_deliberation_reads_its_record(server: RunningServer, recorded: Recorded, part: str) -> None:
    path = f"/v1/deliberations/{recorded.id}/{part}"
    assert server.ask("GET", path, headers=key("root")).status == 200
    for name in ("ann", "bea"):
        answer = server.ask("GET", path, headers=key(name))
        assert (answer.status, answer.problem) == (404, "deliberation-not-found")
    assert (server.ask("GET", path).status, server.ask("GET", path).problem) == (401, "unauthenticated")
    for unknown in ("00000000-0000-4000-8000-000000000000", "%00", "a" * 65):
        answer = server.ask("GET", f"/v1/deliberations/{unknown}/{part}", headers=key("root"))
        assert (answer.status, answer.problem) == (404, "deliberation-not-found")


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/0/000", "tile/entries/000", "entries/0", "proofs/inclusion?index=0&tree_size=1"]
)
def test_the_log_needs_no_key_and_takes_no_other_method(server: RunningServer, recorded: Recorded, path: str) -> None:
    assert server.ask("GET", f"/v1/witness/{path}").status == 200
    assert server.ask("HEAD", f"/v1/witness/{path}").status == 200
    for method in ("POST", "PUT", "DELETE"):
        assert server.ask(method, f"/v1/witness/{path}", headers=key("root")).problem == "method-not-allowed"


def test_a_log_that_does_not_verify_signs_nothing_and_tells_no_address(
    server: RunningServer, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> str:
        raise LogUnverifiedError(problem="an anchor at https://host/secret has more", remedy="Look.")

    monkeypatch.setattr(server.conclave.witness, "checkpoint", refuse)
    answer = server.ask("GET", "/v1/witness/checkpoint")
    assert (answer.status, answer.problem) == (503, "log-unverified")
    assert int(answer.headers["retry-after"]) > 0
    assert "secret" not in json.dumps(answer.document)
