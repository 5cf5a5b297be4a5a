"""The output folder of a soak: metrics by the line, a log, a bounded history, the report, and what is needed to go on later."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from application.services.soak.tally import ROW_TYPE
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.run import JsonValue
from infrastructure.soak.history import History
from infrastructure.soak.report_page import render_page

__all__ = ["ERRORS", "METRICS", "OutputFolder"]

METRICS = "stability-metrics.jsonl"
LOG = "stability-test.log"
REPORT = "stability-test-report.json"
PAGE = "stability-test-report.html"
STATE = "soak-state.json"
HISTORY = "history.jsonl"
ERRORS = "agents-stderr.log"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o666
_MOST_KEPT_ROWS = 1_000


class OutputFolder:
    """A `SoakRecord` in files. Text from elsewhere cannot begin a line of the log or hide in one."""

    def __init__(
        self,
        path: Path,
        *,
        debugs: bool = False,
        history_bytes: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`history_bytes`: how much of messages and responses is kept, 0 for nothing."""
        self.path = path
        self.debugs = debugs
        self._now = now
        self._history = History(path / HISTORY, most_bytes=history_bytes) if history_bytes else None
        self._kept_rows: list[bytes] = []

    def open(self, *, resumes: bool) -> None:
        """Make the folder; a new run begins with empty files. Raises `ConfigurationError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not resumes:
                # The state first: without it nobody takes what is left of the others for a run to be resumed.
                for name in (STATE, METRICS, LOG, REPORT, PAGE, HISTORY, f"{HISTORY}.1", ERRORS):
                    (self.path / name).unlink(missing_ok=True)
            os.close(os.open(self.path / METRICS, _APPEND, _MODE))
            if resumes:
                self._cut_torn_line()
        except OSError as error:
            raise ConfigurationError(
                variable="--output-dir",
                problem=f"{str(self.path)!r} cannot be written to ({error.strerror})",
                remedy="Name a folder that this user may write to.",
            ) from error

    def add_row(self, row: Mapping[str, JsonValue]) -> None:
        """Append and sync the row, those that could not be written earlier first."""
        self._kept_rows.append(json.dumps(row, allow_nan=False).encode() + b"\n")
        del self._kept_rows[:-_MOST_KEPT_ROWS]
        try:
            if self._history is not None:
                self._history.flush()
            while self._kept_rows:
                self._append(METRICS, self._kept_rows[0])
                del self._kept_rows[0]
        except OSError as error:
            self.say(
                "ERROR", f"the row of cycle {row.get('cycle')} cannot be written ({error.strerror}): free space there"
            )
            raise self._away(error) from error

    def rows(self) -> Sequence[Mapping[str, JsonValue]]:
        """The rows of cycles that stand in the file and can be read."""
        found: list[Mapping[str, JsonValue]] = []
        with contextlib.suppress(FileNotFoundError), (self.path / METRICS).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("type") == ROW_TYPE:
                        found.append(row)
        return found

    def say(self, level: str, text: str) -> None:
        """`[timestamp] [LEVEL] text`. A log that cannot be written is no reason to end the run."""
        if level == "DEBUG" and not self.debugs:
            return
        at = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        with contextlib.suppress(OSError):
            self._append(LOG, f"[{at}] [{level}] {shown}\n".encode(errors="backslashreplace"), synced=False)

    def keep(self, entry: Mapping[str, JsonValue]) -> None:
        """Remember it until the next row is written."""
        if self._history is not None:
            self._history.keep(entry)

    def write_report(self, report: Mapping[str, JsonValue]) -> None:
        """Both files, each whole or the old one."""
        try:
            if self._history is not None:
                self._history.flush()
            self._replace(REPORT, json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
            self._replace(PAGE, render_page(report, self.rows(), at=self._now()).encode())
        except OSError as error:
            raise self._away(error) from error

    def state(self) -> Mapping[str, Any]:
        """What `save_state` saved. Raises `ConfigurationError` where nothing was, or it cannot be read."""
        try:
            found = json.loads((self.path / STATE).read_bytes())
        except FileNotFoundError as error:
            raise ConfigurationError(
                variable="--resume",
                problem=f"there is no interrupted run in {str(self.path)!r}",
                remedy="Name the folder of one with --output-dir, or start a new soak, without --resume.",
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                variable="--resume",
                problem=f"{str(self.path / STATE)!r} cannot be read",
                remedy="Start a new soak, without --resume.",
            ) from error
        return found if isinstance(found, dict) else {}

    def save_state(self, state: Mapping[str, JsonValue]) -> None:
        """Keep what a later process needs to go on. Raises `DependencyUnavailableError`."""
        try:
            self._replace(STATE, json.dumps(state).encode())
        except OSError as error:
            raise self._away(error) from error

    def _append(self, name: str, content: bytes, *, synced: bool = True) -> None:
        """All of it or nothing: what fits only in part is cut off again."""
        file = os.open(self.path / name, _APPEND, _MODE)
        try:
            size = os.fstat(file).st_size
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(file, view) :]
                if synced:
                    os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)

    def _replace(self, name: str, content: bytes) -> None:
        draft = self.path / f".{name}.part"
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _cut_torn_line(self) -> None:
        with (self.path / METRICS).open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def _away(self, error: OSError) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the output folder {str(self.path)!r}",
            problem=error.strerror or "it cannot be written to",
            remedy="Free space there; --resume goes on with the cycle that was not written.",
        )
