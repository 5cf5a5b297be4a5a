"""The witness cosigns a log's growth and nothing else, whoever asks at the same time (C2SP tlog-witness)."""

from __future__ import annotations

import base64
import itertools
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest

from domain.errors.dependency import DependencyUnavailableError
from domain.witness.checkpoint import COSIGNATURE_V1, VerifierKey, open_checkpoint
from domain.witness.merkle import EMPTY_ROOT, leaf_hash, root_hash
from domain.witness.proof import consistency_proof
from infrastructure.witness.cosigning_witness import MAX_REQUEST_BYTES, CosigningWitness
from infrastructure.witness.ed25519 import SigningKey, verify_signature
from infrastructure.witness.signer import CheckpointSigner

_ORIGIN = "log.example"
_SIGNER = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), _ORIGIN)
_WITNESS_KEY = SigningKey.from_seed(b"\x09" * 32)
_NOW = 1_763_700_000


class _Log:
    """A log of that many entries, and what it would send."""

    def __init__(self, mark: str = "entry") -> None:
        self.leaves = [leaf_hash(f"{mark} {index}".encode()) for index in range(40)]

    def root(self, size: int) -> bytes:
        return root_hash(self.leaves[:size])

    def proof(self, first: int, second: int) -> list[bytes]:
        if first in (0, second):
            return []

        def node(height: int, index: int) -> bytes:
            return root_hash(self.leaves[index << height : (index + 1) << height])

        return list(consistency_proof(first, second, node))

    def request(self, old: int, size: int, *, signer: CheckpointSigner = _SIGNER) -> bytes:
        return _body(old, self.proof(old, size), signer.sign(size, self.root(size)))


def _body(old: int | str, proof: Sequence[bytes | str], note: str) -> bytes:
    lines = "".join((each if isinstance(each, str) else base64.b64encode(each).decode()) + "\n" for each in proof)
    return f"old {old}\n{lines}\n{note}".encode()


def _witness(store: Path) -> CosigningWitness:
    return CosigningWitness(
        store,
        key=_WITNESS_KEY,
        name="witness.example/w1",
        logs={_ORIGIN: _SIGNER.verifier_key},
        now=lambda: _NOW + 0.7,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "witness.sqlite"


@pytest.fixture
def witness(store: Path) -> CosigningWitness:
    return _witness(store)


def test_a_first_checkpoint_is_cosigned_with_the_time_of_the_cosignature(witness: CosigningWitness) -> None:
    log = _Log()
    status, lines = witness.add_checkpoint(log.request(0, 7))
    assert status == 200
    assert lines.endswith(b"\n")
    assert lines.count(b"\n") == 1
    cosigned = _SIGNER.sign(7, log.root(7)) + lines.decode()
    key = VerifierKey.parse(str(witness.verifier_key))
    assert key.algorithm == COSIGNATURE_V1
    checkpoint, note = open_checkpoint(cosigned, key, verify_signature, origin=_ORIGIN)
    assert checkpoint.tree_size == 7
    assert int.from_bytes(note.signatures[-1].signature[:8], "big") == _NOW


def test_every_step_of_a_growing_log_is_cosigned_also_after_a_restart(store: Path) -> None:
    log = _Log()
    sizes = [0, 1, 2, 5, 8, 9, 9, 31, 32, 40]
    for old, size in itertools.pairwise([0, *sizes]):
        assert _witness(store).add_checkpoint(log.request(old, size))[0] == 200


def test_the_empty_log_is_cosigned_with_the_empty_root_only(witness: CosigningWitness) -> None:
    assert witness.add_checkpoint(_body(0, [], _SIGNER.sign(0, b"\x01" * 32)))[0] == 422
    assert witness.add_checkpoint(_body(0, [], _SIGNER.sign(0, EMPTY_ROOT)))[0] == 200


def test_another_old_size_is_a_conflict_that_says_which_is_held(witness: CosigningWitness) -> None:
    log = _Log()
    assert witness.add_checkpoint(log.request(3, 7)) == (409, b"0\n")
    assert witness.add_checkpoint(log.request(0, 7))[0] == 200
    for old, size in ((0, 9), (6, 9), (8, 9), (0, 7), (3, 5)):
        assert witness.add_checkpoint(log.request(old, size)) == (409, b"7\n")
    assert witness.add_checkpoint(log.request(7, 9))[0] == 200


def test_the_same_size_with_another_root_is_a_conflict(witness: CosigningWitness) -> None:
    witness.add_checkpoint(_Log().request(0, 7))
    assert witness.add_checkpoint(_Log("other").request(7, 7)) == (409, b"7\n")
    assert witness.add_checkpoint(_Log().request(7, 7))[0] == 200


def test_a_log_that_does_not_extend_what_was_cosigned_is_refused(witness: CosigningWitness) -> None:
    witness.add_checkpoint(_Log().request(0, 7))
    status, _ = witness.add_checkpoint(_Log("other").request(7, 9))
    assert status == 422
    assert witness.add_checkpoint(_Log().request(7, 9))[0] == 200


def test_a_proof_that_is_too_long_too_short_or_for_nothing_is_refused(witness: CosigningWitness) -> None:
    log = _Log()
    extra = sha256(b"extra").digest()
    note = _SIGNER.sign(9, log.root(9))
    assert witness.add_checkpoint(_body(0, [extra], note))[0] == 422
    assert witness.add_checkpoint(log.request(0, 7))[0] == 200
    proof = log.proof(7, 9)
    for wrong in (proof[:-1], [*proof, extra], [extra, *proof[1:]], []):
        assert witness.add_checkpoint(_body(7, wrong, note))[0] == 422
    assert witness.add_checkpoint(_body(7, [extra], _SIGNER.sign(7, log.root(7))))[0] == 422


def test_an_unknown_log_is_not_found(witness: CosigningWitness) -> None:
    other = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "other.example")
    assert witness.add_checkpoint(_Log().request(0, 7, signer=other))[0] == 404


def test_a_checkpoint_that_its_log_did_not_sign_is_forbidden_and_changes_nothing(witness: CosigningWitness) -> None:
    log = _Log()
    forger = CheckpointSigner(SigningKey.from_seed(b"\x02" * 32), _ORIGIN)
    assert witness.add_checkpoint(log.request(0, 7, signer=forger))[0] == 403
    assert witness.add_checkpoint(log.request(0, 7).replace(b"\n7\n", b"\n8\n"))[0] == 403
    assert witness.add_checkpoint(log.request(0, 3))[0] == 200


def test_signatures_of_unknown_keys_are_passed_over(witness: CosigningWitness) -> None:
    log = _Log()
    other = CheckpointSigner(SigningKey.from_seed(b"\x03" * 32), "someone.example")
    line = other.sign(7, log.root(7)).split("\n\n")[1]
    assert witness.add_checkpoint(log.request(0, 7) + line.encode())[0] == 200


def _malformed() -> dict[str, bytes]:
    log = _Log()
    note = _SIGNER.sign(7, log.root(7))
    hash_line = base64.b64encode(bytes(32)).decode()
    return {
        "empty": b"",
        "no header": note.encode(),
        "no empty line": f"old 0\n{note}".encode(),
        "no note": b"old 0\n\n",
        "negative": _body("-1", [], note),
        "leading zero": _body("00", [], note),
        "plus": _body("+1", [], note),
        "arabic digits": _body("١", [], note),
        "two blanks": _body(" 0", [], note),
        "too large": _body("9" * 20, [], note),
        "windows line ends": _body(0, [], note).replace(b"\n", b"\r\n"),
        "not base64": _body(0, ["?" * 44], note),
        "short hash": _body(0, [bytes(31)], note),
        "long hash": _body(0, [bytes(33)], note),
        "no padding": _body(0, [hash_line.rstrip("=")], note),
        "other spelling": _body(0, [hash_line[:-2] + "B="], note),
        "64 hashes": _body(0, [bytes(32)] * 64, note),
        "old beyond": _body(8, [], note),
        "no signature": f"old 0\n\n{note.split(chr(10) * 2)[0]}\n".encode(),
        "trailing bytes": _body(0, [], note + "x"),
        "not UTF-8": _body(0, [], note) + b"\xff",
        "too long": _body(0, [], note) + b"x" * MAX_REQUEST_BYTES,
    }


@pytest.mark.parametrize("kind", sorted(_malformed()))
def test_a_malformed_request_is_bad(witness: CosigningWitness, kind: str) -> None:
    status, message = witness.add_checkpoint(_malformed()[kind])
    assert status == 400
    assert message.endswith(b"\n")


def test_logs_are_witnessed_apart_from_each_other(store: Path) -> None:
    second = CheckpointSigner(SigningKey.from_seed(b"\x02" * 32), "second.example")
    witness = CosigningWitness(
        store,
        key=_WITNESS_KEY,
        name="w",
        logs={_ORIGIN: _SIGNER.verifier_key, "second.example": second.verifier_key},
    )
    assert witness.add_checkpoint(_Log().request(0, 7))[0] == 200
    assert witness.add_checkpoint(_Log("second").request(0, 3, signer=second))[0] == 200
    assert witness.add_checkpoint(_Log().request(7, 8))[0] == 200


def test_of_many_forks_at_once_exactly_one_is_cosigned(store: Path) -> None:
    _witness(store).add_checkpoint(_Log().request(0, 7))
    barrier = Barrier(8)

    def grow(writer: int) -> tuple[int, bytes]:
        # One entry of its own for each, so that no two of the results extend one another.
        log = _Log()
        log.leaves[7] = leaf_hash(f"fork {writer}".encode())
        witness = _witness(store)
        barrier.wait()
        return witness.add_checkpoint(log.request(7, 8 + writer % 3))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(grow, range(8)))
    assert [status for status, _ in answers].count(200) == 1
    assert {status for status, _ in answers} == {200, 409}


def test_two_that_climb_at_once_never_roll_each_other_back(store: Path) -> None:
    log = _Log()
    barrier = Barrier(2)

    def climb(_: int) -> list[int]:
        witness, held, cosigned = _witness(store), 0, []
        barrier.wait()
        while held < 40:
            status, body = witness.add_checkpoint(log.request(held, held + 1))
            held = held + 1 if status == 200 else int(body)
            cosigned += [held] if status == 200 else []
        return cosigned

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(climb, range(2))
    assert sorted(first + second) == list(range(1, 41))


def test_the_new_size_is_stored_before_the_cosignature_is_made(store: Path) -> None:
    log = _Log()
    seen = []

    def look() -> float:
        with sqlite3.connect(store) as connection:
            seen.append(connection.execute("SELECT tree_size FROM cosigned_checkpoints").fetchone()[0])
        connection.close()
        return _NOW

    witness = CosigningWitness(store, key=_WITNESS_KEY, name="w", logs={_ORIGIN: _SIGNER.verifier_key}, now=look)
    assert witness.add_checkpoint(log.request(0, 7))[0] == 200
    assert seen == [7]


def test_a_store_that_cannot_be_used_cosigns_nothing(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailableError, match="store"):
        _witness(tmp_path / "nowhere" / "store")
    witness = _witness(store)
    store.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(DependencyUnavailableError, match="must not be replaced"):
        witness.add_checkpoint(_Log().request(0, 7))


def test_a_store_that_vanished_is_not_silently_begun_anew(store: Path) -> None:
    witness = _witness(store)
    witness.add_checkpoint(_Log().request(0, 7))
    store.unlink()
    with pytest.raises(DependencyUnavailableError):
        witness.add_checkpoint(_Log("other").request(0, 7))
