"""Turns what a database or its driver complains about into the errors of Conclave, at the edge of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from domain.errors.dependency import DependencyUnavailableError

__all__ = ["is_conflict", "is_locked", "translated_failures", "unavailability"]

_DEPENDENCY = "database"
_FULL = ("the disk is full", "Free some space there.")
_SCHEMA = ("its tables are missing or of another version", "Run `conclave db upgrade`.")
_UNREACHABLE = (
    "it cannot be reached, or the connection was lost",
    "Check that it runs and that CONCLAVE_DATABASE_URL is right.",
)

# Result codes of SQLite (sqlite.org/rescode.html), the part before any extension.
_SQLITE = {
    "BUSY": ("another process holds its write lock for too long", "Find the process that keeps it."),
    "PROTOCOL": ("other processes keep its write-ahead log busy", "Find the processes that do."),
    "LOCKED": ("another connection holds a lock on it", "Find the process that keeps it."),
    "FULL": _FULL,
    "IOERR": ("reading or writing its file failed", "Check the disk."),
    "READONLY": ("its file is read-only", "Let the service write to the file and to its folder."),
    "CANTOPEN": ("its file cannot be opened", "Check that the folder exists and that the service may write to it."),
    "PERM": ("its file may not be read", "Let the service read and write the file."),
    "AUTH": ("its file may not be read", "Let the service read and write the file."),
    "CORRUPT": ("its file is damaged", "Restore it from a backup."),
    "NOTADB": ("its file is no SQLite database", "Check CONCLAVE_DATABASE_URL."),
    "NOMEM": ("there is no memory left", "Give the service more memory."),
}

# SQLSTATE classes and codes of Postgres (Appendix A of its manual); the longest that fits counts.
_POSTGRES = {
    "08": _UNREACHABLE,
    "28": ("it refuses the user or the password", "Check CONCLAVE_DATABASE_URL."),
    "3D": ("there is no database of that name", "Create it, or check CONCLAVE_DATABASE_URL."),
    "3F": _SCHEMA,
    "42P01": _SCHEMA,
    "42703": _SCHEMA,
    "42501": ("the user may not do this", "Grant the user its rights."),
    "25006": ("it is read-only", "Use the primary server."),
    "40": ("it gave up a transaction that stood in the way of others", "Try again."),
    "53100": _FULL,
    "53": ("it has run out of a resource", "Check its disk, its memory and its number of connections."),
    "55": ("something is locked for too long", "Find the session that keeps it."),
    "57": ("it is starting, stopping or was told to cancel", "Wait until it runs again."),
    "58": ("its machine reports an error", "Read its log."),
    "XX": ("it reports an internal error", "Read its log."),
}


@contextmanager
def translated_failures() -> Iterator[None]:
    """Within it a failure of the database itself is a `DependencyUnavailableError`; what a statement did wrong stays as it is."""
    try:
        yield
    except (DBAPIError, DisconnectionError, PoolTimeoutError, TimeoutError) as error:
        found = unavailability(error)
        if found is None:
            raise
        raise found from error


def unavailability(error: BaseException) -> DependencyUnavailableError | None:
    """The error to raise instead, or None when the database is well and the statement was wrong. Holds no address."""
    if isinstance(error, IntegrityError):
        return None
    if isinstance(error, PoolTimeoutError):
        return _unavailable("all connections to it are in use", "Try again.")
    if isinstance(error, TimeoutError):
        return _unavailable("it does not answer in time", "Check that it runs.")
    if isinstance(error, DisconnectionError):
        return _unavailable(*_UNREACHABLE)
    if not isinstance(error, DBAPIError):
        return None
    return _by_code(error)


def is_conflict(error: BaseException | None) -> bool:
    """Whether a transaction failed because of what others, or its own neighbours, wrote: worth a second, careful, try."""
    if isinstance(error, IntegrityError):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(state, str) and state.startswith("40")


def is_locked(error: BaseException | None) -> bool:
    """Whether SQLite gave up because somebody else was writing all the while."""
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", None)
    return isinstance(name, str) and name.startswith("SQLITE_BUSY")


def _by_code(error: DBAPIError) -> DependencyUnavailableError | None:
    name = getattr(error.orig, "sqlite_errorname", None)
    if isinstance(name, str):
        if name.startswith("SQLITE_ERROR"):
            return _unavailable(*_SCHEMA) if "no such" in str(error.orig) or "no column" in str(error.orig) else None
        parts = name.split("_")
        known = _SQLITE.get(parts[1])
        return _unavailable(*known) if known else None
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        for code in (state, state[:2]):
            if code in _POSTGRES:
                return _unavailable(*_POSTGRES[code])
        return None
    # Without a connection there is nobody to give a code.
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return _unavailable(*_UNREACHABLE)
    return None


def _unavailable(problem: str, remedy: str) -> DependencyUnavailableError:
    # The others may tell of users and addresses. A disk that is full keeps nobody from reading, so it is not called away.
    is_full = (problem, remedy) == _FULL
    told = f"The {_DEPENDENCY} takes no writes, because {problem}; nothing is lost." if is_full else None
    return DependencyUnavailableError(dependency=_DEPENDENCY, problem=problem, remedy=remedy, told=told)
