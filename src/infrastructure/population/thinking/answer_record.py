"""The record of what agents answered who were asked: a line for each call before it is made and for each outcome, in order."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from domain.errors.population import DamagedRecordError, PopulationFolderError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.population.thinking.reply import Reply

__all__ = ["RECORD", "AnswerRecord"]

RECORD = "thoughts.jsonl"

_INTERRUPTED = "was being asked when the run was ended, and is not asked again: it may have been paid for"


class AnswerRecord:
    """Each outcome is on its way to the disk before the tick goes on with it, so that whoever resumes takes it from here.

    A call that was begun and has no outcome was under way when the process ended: its outcome is `cancelled`, since nobody knows
    whether it was paid for. May be written to from several threads. Keeps nothing where it has no `path`.
    """

    def __init__(self, path: Path | None) -> None:
        """Take up what lies there, without a last line that a kill cut short. Raises `DamagedRecordError`, `PopulationFolderError`."""
        self._path = path
        self._lock = threading.Lock()
        self._checksum = 0
        self._file: IO[bytes] | None = None
        self._found: dict[tuple[str, int, int], Reply] = {}
        if path is None or not path.exists():
            return
        try:
            os.truncate(path, self._read(path))
        except OSError as error:
            raise self._failed(error) from error

    def take(self, by: str, tick: int, who: int) -> Reply | None:
        """What was recorded before this process began of that agent in that tick; it is not kept here any longer."""
        return self._found.pop((by, tick, who), None)

    def found(self, by: str) -> Iterator[Reply]:
        """What was recorded before this process began, in its order."""
        return (reply for reply in self._found.values() if reply.by == by)

    def asking(self, by: str, tick: int, who: int) -> None:
        """A call that costs money is made now. Raises `PopulationFolderError`."""
        self._write({"asking": who, "by": by, "tick": tick})

    def add(self, reply: Reply) -> None:
        """One outcome. Raises `PopulationFolderError`."""
        self._write(asdict(reply))

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, document: Mapping[str, Any]) -> None:
        line = json.dumps(document, allow_nan=False)
        if self._path is None:
            return
        with self._lock:
            self._checksum = zlib.crc32(line.encode(), self._checksum)
            try:
                if self._file is None:
                    self._file = self._path.open("ab")
                self._file.write(f'{line[:-1]}, "crc": {self._checksum}}}\n'.encode())
                self._file.flush()
            except OSError as error:
                raise self._failed(error) from error

    def _read(self, path: Path) -> int:
        end = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                body, mark, said = line.rstrip(b"\n").rpartition(b', "crc": ')
                self._checksum = zlib.crc32(body + b"}", self._checksum)
                if not mark or said != b"%d}" % self._checksum:
                    raise DamagedRecordError(
                        path=str(path), problem=f"is damaged after byte {end}", last_good_tick=None
                    )
                end += len(line)
                reply = _reply_of(json.loads(body + b"}"))
                self._found[reply.by, reply.tick, reply.who] = reply
        return end

    def _failed(self, error: OSError) -> PopulationFolderError:
        folder = str(self._path.parent) if self._path else ""
        return PopulationFolderError(
            folder=folder,
            problem=f"did not take what an agent answered ({error.strerror})",
            remedy="Make room there and resume: what was answered before is kept.",
        )


def _reply_of(document: dict[str, Any]) -> Reply:
    if "asking" in document:
        return Reply(
            document["by"],
            document["tick"],
            document["asking"],
            AgentState.CANCELLED,
            problem=_INTERRUPTED,
            usage=None,
        )
    usage = document.pop("usage")
    outcome = AgentState(document.pop("outcome"))
    return Reply(**document, outcome=outcome, usage=None if usage is None else Usage(**usage))
