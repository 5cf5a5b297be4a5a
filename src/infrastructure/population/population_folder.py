"""The folder of one population: what it is, its ticks, its event log, its snapshots, how its opinions lay, and its report."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from application.ports.population_engine import TickOutcome
from application.ports.population_record import Resumption, Sample
from domain.errors.population import DamagedRecordError, PopulationFolderError
from domain.models.population import GRID, PopulationSpecification
from domain.models.run import JsonValue
from infrastructure.population.event_log import DamagedLogError, EventLog, LoggedTick, read_events
from infrastructure.population.population_about import ABOUT, about_in, specification_in
from infrastructure.population.report_page import page_of
from infrastructure.population.samples_file import line_of, read_samples
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots
from infrastructure.population.thinking.answer_record import RECORD
from infrastructure.population.tick_curve import curve_of

__all__ = ["PopulationFolder", "is_waiting_for_seeds"]

# Of the tiers, whichever keeps them.
_STATES = "states.*"
_TICKS, _EVENTS, _REPORT, _LOCK = "ticks.jsonl", "events.jsonl", "report.json", "lock"
_PAGE, _SAMPLES, _REPLICATES = "report.html", "samples.jsonl", "replicates"


class PopulationFolder:
    """See `PopulationRecord`. One process at a time has it; what a kill left is brought in order when it is opened to resume."""

    def __init__(self, folder: Path, *, existing: bool = False) -> None:
        """Make the folder where it is missing, or find a population in it (`existing`), and take it.

        Raises `PopulationFolderError`.
        """
        self.folder = folder
        self.snapshots = Snapshots(folder / "snapshots")
        self._ticks: IO[bytes] | None = None
        self._events: IO[bytes] | None = None
        self._log: EventLog | None = None
        self._lock = -1
        if existing and not os.path.isfile(folder / ABOUT):  # noqa: PTH113 - false as well where nobody may look
            raise self._unusable("holds no population", "Name the folder that `conclave population run` wrote to.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise self._unusable("is in use by another process", "Wait for it, or name another --out.") from error
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def start(self, spec: PopulationSpecification) -> None:
        """Begin a new population here. Raises `PopulationFolderError` where an unfinished one lies."""
        if self._has_ticks() and not self._is_whole():
            raise self._unusable(
                "holds an unfinished population",
                f"Go on with it: conclave population resume {self.folder}; or name another --out, or empty it.",
            )
        try:
            for name in (_REPORT, _PAGE, _TICKS, _EVENTS, _SAMPLES, ABOUT):
                (self.folder / name).unlink(missing_ok=True)
            (self.folder / RECORD).unlink(missing_ok=True)
            _remove(self.replicates)
            self.lighten()
            self._keep_about({"specification": spec.document()})
            self._open(checksum=0)
        except OSError as error:
            raise self._failed(error) from error

    @property
    def specification(self) -> PopulationSpecification:
        """That of the population which lies here. Raises `PopulationFolderError`."""
        return specification_in(self.folder)

    @property
    def replicates(self) -> Path:
        """Where the same population under other seeds has its folders."""
        return self.folder / _REPLICATES

    def rewind(self, to: int | None = None) -> Resumption:
        """Go back to the last snapshot, or to that of tick `to`: later ticks are forgotten, since they will be taken again.

        Raises `DamagedRecordError` where the last snapshot or the log is damaged, with the last good one.
        """
        about = about_in(self.folder)
        self._close_files()
        try:
            events, log = self._events_until(to)
            tick = self._start_of(events, to)
            self._cut(events, log, tick)
            for name in (_REPORT, _PAGE):
                (self.folder / name).unlink(missing_ok=True)
            self.snapshots.drop_after(tick)
            samples = [sample for sample in read_samples(self.folder / _SAMPLES) if sample.tick <= tick]
            self.replace_samples(samples)
            before = events[tick - 1] if tick else None
            self._open(checksum=before.checksum if before else 0)
        except OSError as error:
            raise self._failed(error) from error
        return Resumption(
            tick=tick,
            messages_routed=sum(event.delivered for event in events[:tick]),
            initial=about.get("initial"),
            logged={event.tick: event.opinion_sum for event in events[tick:]},
            samples=samples,
        )

    @property
    def finished(self) -> Mapping[str, JsonValue] | None:
        """The report, where the population has one."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.folder / _REPORT).read_bytes())
            return found if isinstance(found, dict) else None
        return None

    @property
    def is_begun(self) -> bool:
        """Whether there is a population here that can be gone on with."""
        return os.path.isfile(self.folder / ABOUT) and self._has_ticks()  # noqa: PTH113 - false as well where nobody may look

    def begin(self, initial: Mapping[str, JsonValue]) -> None:
        """See `PopulationRecord`."""
        try:
            self._keep_about({**about_in(self.folder), "initial": dict(initial)})
        except OSError as error:
            raise self._failed(error) from error

    def note(self, outcome: TickOutcome, tick_s: float) -> None:
        """See `PopulationRecord`."""
        line = json.dumps(
            {
                "tick": outcome.tick,
                "tick_ms": round(tick_s * 1e3, 6),
                "messages": outcome.delivered,
                "mean": round(outcome.opinion_sum / GRID / max(1, outcome.alive), 9),
                "agents": outcome.alive,
            }
        )
        try:
            if self._log is None or self._ticks is None:
                raise self._unusable("was not begun", "Begin or resume a population first.")
            self._log.add(outcome)
            self._ticks.write(line.encode() + b"\n")
            self._ticks.flush()
        except OSError as error:
            raise self._failed(error) from error

    def note_sample(self, sample: Sample) -> None:
        """See `PopulationRecord`."""
        try:
            with (self.folder / _SAMPLES).open("ab") as file:
                file.write(line_of(sample))
        except OSError as error:
            raise self._failed(error) from error

    def replace_samples(self, samples: Sequence[Sample]) -> None:
        """See `PopulationRecord`."""
        try:
            self._replace(_SAMPLES, b"".join(map(line_of, samples)))
        except OSError as error:
            raise self._failed(error) from error

    def finish(self, report: Mapping[str, JsonValue]) -> None:
        """See `PopulationRecord`."""
        try:
            page = page_of(
                report,
                self.specification,
                samples=read_samples(self.folder / _SAMPLES),
                curve=curve_of(self.folder / _TICKS),
            )
            self._replace(_PAGE, page.encode())
            # The report is what says that all of it is there.
            self._replace(_REPORT, json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise self._failed(error) from error

    def lighten(self) -> None:
        """Let go of what a population is resumed from: its snapshots and its states. Raises `OSError`."""
        self.snapshots.clear()
        for left in self.folder.glob(_STATES):
            _remove(left)

    def close(self) -> None:
        """See `PopulationRecord`."""
        self._close_files()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _is_whole(self) -> bool:
        """Whether nothing is left to be done here."""
        report = self.finished
        return report is not None and not is_waiting_for_seeds(report)

    def _has_ticks(self) -> bool:
        """Whether there is anything that a resume would spare."""
        try:
            return (self.folder / _EVENTS).stat().st_size > 0
        except OSError:
            return False

    def _events_until(self, to: int | None) -> tuple[list[LoggedTick], bytes]:
        """The ticks of the log and what stands there; where it is damaged after tick `to`, those until then."""
        path = self.folder / _EVENTS
        log = path.read_bytes() if path.exists() else b""
        try:
            return read_events(log), log
        except DamagedLogError as error:
            if to is not None and to <= error.tick:
                log = b"".join(log.splitlines(keepends=True)[: error.tick])
                return read_events(log), log
            last = self.snapshots.last_good(tick for tick in self.snapshots.ticks() if tick <= error.tick)
            raise self._damaged(path, f"is damaged after tick {error.tick}", last) from error

    def _start_of(self, events: list[LoggedTick], to: int | None) -> int:
        """The tick to go on after."""
        known = [tick for tick in self.snapshots.ticks() if tick <= len(events)]
        tick = (max(known) if known else 0) if to is None else to
        if not tick:
            return 0
        problem = "is not there"
        if tick in known:
            try:
                self.snapshots.read(tick)
            except DamagedSnapshotError as error:
                problem = str(error)
            else:
                return tick
        raise self._damaged(
            self.snapshots.path(tick), problem, self.snapshots.last_good(one for one in known if one < tick)
        )

    def _cut(self, events: list[LoggedTick], log: bytes, tick: int) -> None:
        """Leave the first `tick` lines of the log and of the ticks."""
        ticks = self.folder / _TICKS
        lines = ticks.read_bytes().splitlines(keepends=True)[:tick] if ticks.exists() else []
        if len(lines) < tick or any(_tick_in(line) != number for number, line in enumerate(lines, 1)):
            raise self._damaged(ticks, "does not hold each tick once", 0)
        self._replace(_EVENTS, log[: events[tick - 1].end] if tick else b"")
        self._replace(_TICKS, b"".join(lines))

    def _open(self, *, checksum: int) -> None:
        self._ticks = (self.folder / _TICKS).open("ab")
        self._events = (self.folder / _EVENTS).open("ab")
        self._log = EventLog(self._events, checksum=checksum)

    def _close_files(self) -> None:
        for file in (self._ticks, self._events):
            if file is not None:
                # A full disk was said when the line was written.
                with contextlib.suppress(OSError):
                    file.close()
        self._ticks = self._events = self._log = None

    def _keep_about(self, about: Mapping[str, Any]) -> None:
        self._replace(ABOUT, json.dumps(about, indent=2, allow_nan=False).encode() + b"\n")

    def _replace(self, name: str, content: bytes) -> None:
        beside = self.folder / f"{name}.new"
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.folder / name)

    def _damaged(self, path: Path, problem: str, last_good: int) -> DamagedRecordError:
        return DamagedRecordError(path=str(path), problem=problem, last_good_tick=last_good)

    def _failed(self, error: OSError) -> PopulationFolderError:
        if isinstance(error, FileExistsError | NotADirectoryError):
            return self._unusable("is a file, or lies in one", "Name a folder.")
        remedy = "Make room there or mend it; what was snapshotted before can be resumed from."
        if not self.is_begun:
            remedy = "Make room there, mend it, or name another folder."
        return self._unusable(f"cannot be written ({error.strerror})", remedy)

    def _unusable(self, problem: str, remedy: str) -> PopulationFolderError:
        return PopulationFolderError(folder=str(self.folder), problem=problem, remedy=remedy)


def is_waiting_for_seeds(report: Mapping[str, Any]) -> bool:
    """Whether populations with other seeds are still to be run before the report is whole."""
    replicates = report.get("replicates")
    return isinstance(replicates, Mapping) and replicates.get("done") != replicates.get("planned")


def _remove(path: Path) -> None:
    """A file, or a folder with all that is in it; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tick_in(line: bytes) -> int:
    try:
        return int(json.loads(line)["tick"])
    except (ValueError, KeyError, TypeError):
        return -1
