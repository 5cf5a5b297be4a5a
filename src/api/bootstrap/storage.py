"""The data folder and the database, made and brought to the present schema before anything is opened in them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from infrastructure.settings import Settings

__all__ = ["make_data_folder", "prepare_database", "upgrade_database"]


def make_data_folder(settings: Settings) -> None:
    """Make the folder of this process's files, where it is not there. Raises `ConfigurationError`."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            variable="CONCLAVE_DATA_DIR",
            problem=f"the folder cannot be made ({error.strerror})",
            remedy="Name a folder that this user may write to.",
        ) from error


async def prepare_database(settings: Settings) -> None:
    """Bring SQLite to the present schema, and see that Postgres has it.

    Raises `ConfigurationError` where it has not, and `DependencyUnavailableError` where it cannot be asked.
    """
    from infrastructure.persistence.migrate import is_current, upgrade

    if settings.database_url.startswith("sqlite"):
        await asyncio.to_thread(upgrade, settings.database_url)
    elif not await asyncio.to_thread(is_current, settings.database_url):
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL",
            problem="the database has not the present schema",
            remedy="Run: conclave db upgrade",
        )


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the present schema; returns its revision."""
    from infrastructure.persistence.migrate import current_revision, upgrade

    make_data_folder(settings)
    url = settings.owner_database_url or settings.database_url
    upgrade(url, application_url=settings.database_url if settings.owner_database_url else None)
    return current_revision(url) or "empty"
