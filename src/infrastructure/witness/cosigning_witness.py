"""Cosigns the checkpoints of other logs, so that none of them can show two histories (C2SP tlog-witness)."""

from __future__ import annotations

import base64
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import (
    COSIGNATURE_V1,
    Checkpoint,
    NoteSignature,
    SignedNote,
    VerifierKey,
    cosignature_message,
    open_checkpoint,
)
from domain.witness.merkle import EMPTY_ROOT
from domain.witness.proof import verify_consistency
from infrastructure.witness.ed25519 import SigningKey, verify_signature

__all__ = ["MAX_REQUEST_BYTES", "SIZE_CONTENT_TYPE", "CosigningWitness"]

MAX_REQUEST_BYTES = 64 * 1024
SIZE_CONTENT_TYPE = "text/x.tlog.size"
"""The content type of a 409, whose body is a size."""

_OLD_SIZE = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)
_MOST_HASHES = 63
_HASH_BYTES = 32
_BUSY_SECONDS = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS cosigned_checkpoints (
    origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, root_hash BLOB NOT NULL, note TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class _Request:
    old_size: int
    proof: tuple[bytes, ...]
    note: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class _Cosigned:
    tree_size: int
    root_hash: bytes


class _RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class CosigningWitness:
    """Never cosigns two checkpoints of one log of which one does not extend the other, whatever number of processes share its store.

    The check and the new size are one transaction that is on the disk before the cosignature is made. A witness that lost its store must
    take a new key: it no longer knows what it has cosigned.
    """

    def __init__(
        self,
        store_path: Path,
        *,
        key: SigningKey,
        name: str,
        logs: Mapping[str, VerifierKey],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`logs` gives each origin that is cosigned the key of its log, `now` the seconds since 1970.

        Raises `ValueError` for a name that no key can have, `DependencyUnavailableError` when the store is unusable.
        """
        self.verifier_key = VerifierKey(name, COSIGNATURE_V1, key.public_key)
        self._store_path = store_path
        self._key = key
        self._logs = dict(logs)
        self._now = now
        with self._connected() as store:
            store.execute(_TABLE)

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """The status and the body that answer the request of that body: cosignature lines with 200, the size held with 409.

        400 malformed, 403 not signed by the log, 404 unknown log, 409 another size or root held, 422 not a proof. Blocks on the disk.
        Raises `DependencyUnavailableError` when the store cannot be used; nothing is cosigned then.
        """
        try:
            request = self._verified(body)
            self._advance(request)
        except _RefusedError as refused:
            return refused.status, refused.body.encode()
        timestamp = int(self._now())
        text = request.checkpoint.body()
        signature = timestamp.to_bytes(8, "big") + self._key.sign(cosignature_message(text, timestamp))
        line = NoteSignature(self.verifier_key.name, self.verifier_key.key_id, signature)
        return 200, f"{line}\n".encode()

    def _verified(self, body: bytes) -> _Request:
        request = _parsed(body)
        origin = request.checkpoint.origin
        key = self._logs.get(origin)
        if key is None:
            raise _RefusedError(404, "this log is not witnessed here\n")
        try:
            open_checkpoint(request.note, key, verify_signature, origin=origin)
        except VerificationRefusedError as error:
            raise _RefusedError(403, f"{error.what}\n") from error
        if request.old_size > request.checkpoint.tree_size:
            raise _RefusedError(400, "the old size is beyond the checkpoint's\n")
        return request

    def _advance(self, request: _Request) -> None:
        checkpoint = request.checkpoint
        with self._connected() as store:
            # At once the one writer, so that nobody else compares with the same size meanwhile.
            store.execute("BEGIN IMMEDIATE")
            row = store.execute(
                "SELECT tree_size, root_hash FROM cosigned_checkpoints WHERE origin = ?", (checkpoint.origin,)
            ).fetchone()
            _require_extension(request, None if row is None else _Cosigned(*row))
            store.execute(
                "INSERT INTO cosigned_checkpoints VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET "
                "tree_size = excluded.tree_size, root_hash = excluded.root_hash, note = excluded.note",
                (checkpoint.origin, checkpoint.tree_size, checkpoint.root_hash, request.note),
            )
            store.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            store = sqlite3.connect(self._store_path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                # EXTRA also syncs the folder after the journal is gone: a commit that came back would undo a cosigned size.
                store.execute("PRAGMA synchronous = EXTRA")
                yield store
            finally:
                # Closing rolls back whatever was not committed.
                store.close()
        except sqlite3.Error as error:
            raise DependencyUnavailableError(
                dependency=f"the witness's store {str(self._store_path)!r}",
                problem=str(error),
                remedy="Check that this user can write there; a damaged store must not be replaced, take a new key.",
            ) from error


def _require_extension(request: _Request, held: _Cosigned | None) -> None:
    checkpoint = request.checkpoint
    held_size = 0 if held is None else held.tree_size
    if request.old_size != held_size:
        raise _RefusedError(409, f"{held_size}\n")
    if held is not None and checkpoint.tree_size == held_size and checkpoint.root_hash != held.root_hash:
        raise _RefusedError(409, f"{held_size}\n")
    try:
        if held is None or held_size == 0:
            if request.proof or (checkpoint.tree_size == 0 and checkpoint.root_hash != EMPTY_ROOT):
                raise _RefusedError(422, "from nothing the proof is empty, and so is the root of nothing\n")
        else:
            verify_consistency(
                first=held_size,
                second=checkpoint.tree_size,
                first_root=held.root_hash,
                second_root=checkpoint.root_hash,
                proof=request.proof,
            )
    except VerificationRefusedError as error:
        raise _RefusedError(422, f"{error.what}\n") from error


def _parsed(body: bytes) -> _Request:
    if len(body) > MAX_REQUEST_BYTES:
        raise _RefusedError(400, f"the request is longer than {MAX_REQUEST_BYTES} bytes\n")
    try:
        head, blank, note = body.decode().partition("\n\n")
        old, *encoded = head.split("\n")
        size = _OLD_SIZE.fullmatch(old)
        if not blank or size is None or len(encoded) > _MOST_HASHES:
            raise _RefusedError(
                400, "the request does not begin with an old size, at most 63 hashes and an empty line\n"
            )
        return _Request(
            int(size[1]),
            tuple(_hash(line) for line in encoded),
            note,
            Checkpoint.parse(SignedNote.parse(note).text),
        )
    except UnicodeDecodeError as error:
        raise _RefusedError(400, "the request is not UTF-8\n") from error
    except VerificationRefusedError as error:
        raise _RefusedError(400, f"{error.what}\n") from error


def _hash(line: str) -> bytes:
    try:
        found = base64.b64decode(line, validate=True)
    except ValueError as error:
        raise _RefusedError(400, "a line of the proof is not base64\n") from error
    if len(found) != _HASH_BYTES or base64.b64encode(found).decode() != line:
        raise _RefusedError(400, "a line of the proof is not one hash in base64\n")
    return found
