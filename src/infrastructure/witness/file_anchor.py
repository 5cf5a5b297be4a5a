"""Anchors checkpoints in a file, best on a volume that this machine can only append to."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from application.ports.anchor import AnchorConflictError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import Checkpoint, SignedNote

__all__ = ["FileAnchor"]

_BEGINNING = '{"checkpoint": "'
# Far more than the longest note of a log that a few witnesses cosign.
_TAIL_BYTES = 1024 * 1024


class FileAnchor:
    """Every checkpoint stands on a line of its own, `{"checkpoint": NOTE}`, and is on the disk when `publish` returns.

    Nothing in the file is ever changed. A line that a crash tore is passed over; any other line that is none is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file:{path}"

    async def publish(self, note: str, *, old_size: int = 0, consistency: Sequence[bytes] = ()) -> None:
        """Append the checkpoint unless it stands there. One that is smaller than the last, or contradicts it, is not appended."""
        del old_size, consistency
        await asyncio.to_thread(self._append, note, compared=True)

    async def restart(self, note: str) -> None:
        """Append the checkpoint whatever stands before it: for a restore that an operator has accepted."""
        await asyncio.to_thread(self._append, note, compared=False)

    async def latest(self) -> str | None:
        """The last whole checkpoint of the file, None without a file or one in it."""
        return await asyncio.to_thread(self._read_latest)

    def _append(self, note: str, *, compared: bool) -> None:
        checkpoint = _checkpoint(note)
        with self._opened(os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            content = _tail(descriptor)
            held = _last_note(content, self.name) if compared else None
            if held is not None and self._holds_already(checkpoint, _checkpoint(held)):
                return
            separator = "" if content.endswith(b"\n") or not content else "\n"
            line = f"{separator}{json.dumps({'checkpoint': note}, ensure_ascii=False)}\n".encode()
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
            if not content:
                _sync_folder(self._path.parent)

    def _holds_already(self, new: Checkpoint, held: Checkpoint) -> bool:
        if held.origin != new.origin or held.tree_size < new.tree_size:
            return False
        if held.tree_size > new.tree_size:
            raise AnchorConflictError(anchor=self.name, conflict_size=held.tree_size, expected_size=new.tree_size)
        if held.root_hash != new.root_hash:
            raise VerificationRefusedError(
                f"{self.name} holds another root for the same size, {new.tree_size}",
                evidence={"anchored_root": held.root_hash.hex(), "root": new.root_hash.hex()},
            )
        return True

    def _read_latest(self) -> str | None:
        try:
            with self._opened(os.O_RDONLY) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                return _last_note(_tail(descriptor), self.name)
        except DependencyUnavailableError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        try:
            descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise self._unusable("it is no file")
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            problem = "it is a symbolic link" if self._path.is_symlink() else error.strerror or "it cannot be used"
            raise self._unusable(problem) from error

    def _unusable(self, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the anchor {self.name!r}",
            problem=problem,
            remedy="Name a file in CONCLAVE_WITNESS_ANCHORS that this user can append to.",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tail(descriptor: int) -> bytes:
    """The end of the file from the beginning of a line on."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    content = b""
    while part := os.pread(descriptor, size - start - len(content), start + len(content)):
        content += part
    return content if start == 0 else content.partition(b"\n")[2] or content


def _last_note(content: bytes, name: str) -> str | None:
    # What follows the last newline was torn by a crash, and so was every line that only begins like one of ours.
    for line in reversed(content.split(b"\n")[:-1]):
        text = line.decode("utf-8", "replace")
        try:
            document = json.loads(text)
        except ValueError:
            if text.startswith(_BEGINNING) or _BEGINNING.startswith(text):
                continue
            raise VerificationRefusedError(f"{name} holds a line that is no checkpoint") from None
        if type(document) is not dict or list(document) != ["checkpoint"] or type(document["checkpoint"]) is not str:
            raise VerificationRefusedError(f"{name} holds a line that is no checkpoint")
        return str(document["checkpoint"])
    return None


def _checkpoint(note: str) -> Checkpoint:
    return Checkpoint.parse(SignedNote.parse(note).text)
