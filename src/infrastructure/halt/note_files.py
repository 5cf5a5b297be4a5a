"""Notes about halts that are yet to be recorded: one file each, beside the halt file, so that a restart finds them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from application.ports.halt_notes import HaltNote
from application.ports.witness_log import Disclosure
from domain.errors.halt import HaltChannelUnreachableError
from infrastructure.halt.file_channel import replace_durably, sync_folder

__all__ = ["HaltNoteFiles"]

_logger = logging.getLogger(__name__)
_MAX_BYTES = 64 * 1024
_HASH = re.compile(r"[0-9a-f]{64}")


class HaltNoteFiles:
    """`HaltNotes` as files named after the halt file, `HALT.note-ID`, which this user alone may read: they hold texts."""

    def __init__(self, halt_file: Path) -> None:
        self._folder = halt_file.parent
        self._prefix = f"{halt_file.name}.note-"
        self._bad: set[str] = set()

    def keep(self, note: HaltNote) -> None:
        """As in `HaltNotes`."""
        document = {**asdict(note), "since": note.since.isoformat()}
        try:
            replace_durably(self._path(note.id), json.dumps(document).encode())
        except OSError as error:
            raise _away(error) from error

    def drop(self, note_id: str) -> None:
        """As in `HaltNotes`."""
        try:
            self._path(note_id).unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise _away(error) from error

    def all(self) -> Sequence[HaltNote]:
        """As in `HaltNotes`."""
        try:
            found = [path for path in self._folder.iterdir() if path.name.startswith(self._prefix)]
        except OSError as error:
            raise _away(error) from error
        notes = [note for path in found if (note := self._read(path)) is not None]
        return sorted(notes, key=lambda note: note.since)

    def _path(self, note_id: str) -> Path:
        return self._folder / f"{self._prefix}{note_id}"

    def _read(self, path: Path) -> HaltNote | None:
        try:
            with path.open("rb") as opened:
                note = _note(json.loads(opened.read(_MAX_BYTES)))
            if self._path(note.id) != path:
                raise ValueError("it is filed under another id")  # noqa: TRY301 - told like every other fault of the file
        except FileNotFoundError:
            # Another process has just settled it.
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if path.name not in self._bad:
                self._bad.add(path.name)
                _logger.warning(
                    "the note of a halt %r cannot be read, so that halt may stay unrecorded: %s", path.name, error
                )
            return None
        return note


def _note(document: dict[str, Any]) -> HaltNote:
    """Raises whatever a document that is none of ours leads to: what stands in it will stand in the log."""
    since = datetime.fromisoformat(document["since"])
    entry = document["document"]
    whole = isinstance(document["reason"], str) and since.tzinfo is not None
    if not whole or not (entry is None or _is_statement(entry)):
        raise ValueError("it is none of ours")
    return HaltNote(
        id=str(document["id"]),
        reason=document["reason"],
        since=since,
        document=entry,
        disclosures=[Disclosure(each["sha256"], each["salt"], each["text"]) for each in document["disclosures"]],
        channels=tuple(str(name) for name in document["channels"]),
    )


def _is_statement(entry: Any) -> bool:
    """Whether it is the entry of a halt and of nothing else."""
    return (
        entry.keys() == {"type", "at", "channels", "reason", "key_name"}
        and entry["type"] == "halt.set"
        and isinstance(entry["at"], str)
        and all(isinstance(name, str) for name in entry["channels"])
        and all(_is_commitment(entry[name]) for name in ("reason", "key_name"))
    )


def _is_commitment(value: Any) -> bool:
    return value is None or (value.keys() == {"sha256"} and _HASH.fullmatch(value["sha256"]) is not None)


def _away(error: OSError) -> HaltChannelUnreachableError:
    return HaltChannelUnreachableError(channel="file", problem=f"no note can be kept ({error.strerror})")
