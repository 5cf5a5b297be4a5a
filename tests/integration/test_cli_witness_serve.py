"""`conclave witness serve`: the witness that cosigns other logs, and that a log here is cosigned by."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.bootstrap import verification_tools
from domain.witness.checkpoint import (
    COSIGNATURE_V1,
    ED25519,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosignature_message,
)
from domain.witness.merkle import leaf_hash, root_hash
from domain.witness.proof import consistency_proof
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.command_line import Command, commands
from tests.integration.witnessed_questions import QUESTION, ended_deliberation, simulated_settings

DEADLINE_S = 60.0


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


class OtherLog:
    """A log elsewhere, of so many entries as it is asked for."""

    def __init__(self, origin: str = "log.example/other") -> None:
        self.signer = CheckpointSigner(SigningKey.from_seed(b"\x07" * 32), origin)
        self._leaves = [leaf_hash(str(number).encode()) for number in range(64)]

    @property
    def vkey(self) -> str:
        return str(self.signer.verifier_key)

    def root(self, size: int) -> bytes:
        return root_hash(self._leaves[:size])

    def request(self, old: int, size: int, *, root: bytes | None = None) -> bytes:
        def node(height: int, index: int) -> bytes:
            return root_hash(self._leaves[index << height : (index + 1) << height])

        proof = consistency_proof(old, size, node) if 0 < old <= size else []
        lines = [f"old {old}", *(base64.b64encode(found).decode() for found in proof)]
        return ("\n".join(lines) + "\n\n" + self.signer.sign(size, root or self.root(size))).encode()


@dataclass(frozen=True)
class Cosigner:
    """A running `conclave witness serve`."""

    port: int
    key: VerifierKey
    process: subprocess.Popen[str]

    def post(self, body: bytes, *, path: str = "/add-checkpoint") -> tuple[int, str, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)) as connection:
            connection.request("POST", path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()


@contextmanager
def cosigning(folder: Path, *logs: str) -> Iterator[Cosigner]:
    options = [option for log in logs for option in ("--log", log)]
    command = [sys.executable, "-m", "api.cli.main", "witness", "serve", "--port", "0", "--json", *options]
    environment = {**os.environ, "CONCLAVE_DATA_DIR": str(folder)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            written = ""
            while not written.endswith("}\n") and (line := process.stdout.readline()):
                written += line
            document = json.loads(written)
            port = int(document["urls"][0].rpartition(":")[2])
            yield Cosigner(port, VerifierKey.parse(document["public_key"]), process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def cosigner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cosigner]:
    logs = [OtherLog().vkey, OtherLog("log.example/refused").vkey, f"log.example/named+{OtherLog('a-key').vkey}"]
    with cosigning(tmp_path_factory.mktemp("cosigner"), *logs) as running:
        yield running


def test_a_log_that_grows_is_cosigned_and_one_that_does_not_is_told_its_size(cosigner: Cosigner) -> None:
    log = OtherLog()
    assert cosigner.key.algorithm == COSIGNATURE_V1
    for old, size in ((0, 5), (5, 5), (5, 33)):
        status, kind, body = cosigner.post(log.request(old, size))
        assert (status, kind) == (200, "text/plain; charset=utf-8"), body
        text = Checkpoint(log.signer.origin, size, log.root(size)).body()
        note = SignedNote.parse(log.signer.sign(size, log.root(size)) + body.decode())
        cosignature = note.signatures[-1]
        assert (cosignature.name, cosignature.key_id) == (cosigner.key.name, cosigner.key.key_id)
        message = cosignature_message(text, int.from_bytes(cosignature.signature[:8], "big"))
        check = verification_tools().check_signature
        assert check(cosigner.key.public_key, message, cosignature.signature[8:])
    assert cosigner.post(log.request(5, 40)) == (409, "text/x.tlog.size", b"33\n")
    assert cosigner.post(log.request(33, 33, root=b"\x01" * 32))[0] == 409
    assert cosigner.post(log.request(33, 40, root=b"\x01" * 32))[0] == 422


def test_a_log_whose_key_has_another_name_is_told_by_its_origin(cosigner: Cosigner) -> None:
    log = OtherLog("a-key")
    checkpoint = Checkpoint("log.example/named", 3, log.root(3))
    key = SigningKey.from_seed(b"\x07" * 32)
    signature = NoteSignature(
        "a-key", VerifierKey("a-key", ED25519, key.public_key).key_id, key.sign(checkpoint.body().encode())
    )
    note = SignedNote(checkpoint.body(), (signature,))
    status, _, body = cosigner.post(f"old 0\n\n{note}".encode())
    assert status == 200, body


def test_what_is_no_request_of_a_witnessed_log_is_refused(cosigner: Cosigner) -> None:
    log = OtherLog("log.example/refused")
    wrong = log.request(0, 5).replace(base64.b64encode(log.root(5)), base64.b64encode(log.root(6)))
    assert cosigner.post(wrong)[0] == 403
    assert cosigner.post(OtherLog("log.example/unknown").request(0, 5))[0] == 404
    assert cosigner.post(log.request(6, 5))[0] == 400
    assert cosigner.post(b"")[0] == 400
    assert cosigner.post(b"old 0\n\n" + b"x" * 70_000)[0] == 413
    assert cosigner.post(log.request(0, 5), path="/")[0] == 404
    assert cosigner.post(log.request(0, 5))[0] == 200


def test_a_witness_remembers_what_it_cosigned_and_ends_on_a_signal(tmp_path: Path) -> None:
    log = OtherLog()
    with cosigning(tmp_path, log.vkey) as first:
        assert first.post(log.request(0, 5))[0] == 200
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(DEADLINE_S) == 0
    with cosigning(tmp_path, log.vkey) as second:
        assert second.key == first.key
        assert second.post(log.request(0, 7)) == (409, "text/x.tlog.size", b"5\n")


def test_what_is_recorded_here_is_cosigned_there(
    conclave: Command, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cosigning(tmp_path / "witness", conclave("witness", "key").stdout.strip()) as witness:
        monkeypatch.setenv("CONCLAVE_WITNESS_ANCHORS", f"witness:http://127.0.0.1:{witness.port}#{witness.key}")
        assert conclave("deliberate", QUESTION, "--agents", "2", "--json").code == 0
        checked = conclave("witness", "fsck", "--json").document
        assert checked["anchor_problems"] == {}
        note = conclave("witness", "checkpoint").stdout
        status, _, body = witness.post(f"old 0\n\n{note}".encode())
        assert (status, int(body)) == (409, checked["tree_size"])


def test_a_witness_that_has_lost_its_memory_signs_nothing_with_the_old_key(
    conclave: Command, settings: Mapping[str, str]
) -> None:
    data = Path(settings["CONCLAVE_DATA_DIR"])
    log = OtherLog().vkey
    with cosigning(data, log):
        pass
    (data / "cosigned.db").unlink()
    ran = conclave("witness", "serve", "--log", log)
    assert (ran.code, ran.stdout) == (2, "")
    assert "cosigned.db" in ran.stderr


@pytest.mark.parametrize(("option", "value"), [("--name", "two words"), ("--name", "a+b"), ("--host", "host.invalid")])
def test_a_witness_that_cannot_be_is_not_started(conclave: Command, option: str, value: str) -> None:
    ran = conclave("witness", "serve", "--log", OtherLog().vkey, "--port", "0", option, value)
    assert (ran.code, ran.stdout) == (2, "")
    assert option in ran.stderr


def test_the_same_log_twice_and_the_key_of_a_witness_are_refused(conclave: Command) -> None:
    log = OtherLog().vkey
    assert "twice" in conclave("witness", "serve", "--log", log, "--log", log).stderr
    witness = str(VerifierKey("w", COSIGNATURE_V1, b"\x01" * 32))
    ran = conclave("witness", "serve", "--log", witness)
    assert (ran.code, ran.stdout) == (2, "")
    assert "the key of a witness" in ran.stderr
