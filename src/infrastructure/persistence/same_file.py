"""Tells whether a SQLite database is still the file that was opened: SQLite itself goes on with one that was moved away."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL

from domain.errors.dependency import DependencyUnavailableError

__all__ = ["file_identity"]


def file_identity(address: URL) -> tuple[int, int] | None:
    """Device and number of the database's file, None where it has none.

    Raises `DependencyUnavailableError` for a file that is missing, which SQLite would make anew, and empty.
    """
    if address.get_backend_name() != "sqlite":
        return None
    try:
        found = Path(str(address.database)).stat()
    except OSError as error:
        raise DependencyUnavailableError(
            dependency="database",
            problem=f"its file cannot be looked at ({error.strerror})",
            remedy="Bring it back, or check CONCLAVE_DATABASE_URL.",
        ) from error
    return found.st_dev, found.st_ino
