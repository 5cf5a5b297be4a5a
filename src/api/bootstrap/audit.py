"""The audit of the whole log: all of its entries, what is stored beside it, and what was signed of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from api.bootstrap.opening import open_conclave
from api.bootstrap.process import Purpose
from api.bootstrap.record import verification_tools

if TYPE_CHECKING:
    from application.services.log_audit import AuditReport
    from infrastructure.settings import Settings

__all__ = ["audit_log"]


async def audit_log(settings: Settings, *, progress: Callable[[int], None]) -> tuple[AuditReport, Mapping[str, str]]:
    """Check all of the log, what is stored of deliberations, and what was signed of it here and at the anchors.

    `progress` is told how many entries were seen.

    Returns what was found sound, and by anchor why one could not be asked. Raises `VerificationRefusedError` and `LogUnverifiedError`.
    """
    from application.services.log_audit import audit
    from infrastructure.persistence.database import open_database
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
    from infrastructure.persistence.sql_witness_log import SqlWitnessLog
    from infrastructure.witness.canonical_json import read_json

    async with open_conclave(settings, purpose=Purpose.READ) as conclave:
        database = await open_database(settings.database_url)
        deliberations = SqlDeliberationRepository(database)
        try:
            report = await audit(
                SqlWitnessLog(database),
                key=conclave.witness.verifier_key,
                tools=verification_tools(),
                deliberations=deliberations,
                read_json=read_json,
                progress=progress,
            )
        finally:
            await deliberations.close()
            await database.close()
        await conclave.witness.check_at_start()
        if conclave.witness.problem is not None:
            raise conclave.witness.problem
        return report, dict(conclave.witness.anchor_problems)
