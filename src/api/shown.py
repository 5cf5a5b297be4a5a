"""A deliberation with everything that is shown beside it: what its result is worth, how its control came out, and the whole as a page."""

from __future__ import annotations

import asyncio
from typing import Any

from api.conclave import Conclave
from api.documents import deliberation_document, output_document
from api.report.page import Receipt, Report, report_of
from domain.errors.deliberation import DeliberationNotFoundError
from domain.errors.witness import LogUnverifiedError
from domain.models.control import control_id
from domain.models.deliberation import Deliberation

__all__ = ["shown_deliberation", "shown_report"]


async def shown_deliberation(conclave: Conclave, deliberation: Deliberation) -> dict[str, Any]:
    """The document of the deliberation as it stands. Raises `DependencyUnavailableError`."""
    worth = await conclave.worth.of(deliberation)
    return deliberation_document(deliberation, worth, await _control_of(conclave, deliberation))


async def shown_report(conclave: Conclave, deliberation: Deliberation) -> Report:
    """The report of the deliberation as it stands, with the present checkpoint, or with why there is none.

    Raises `DependencyUnavailableError`, and `RecordMismatchError` where an output is not what was recorded.
    """
    document = await shown_deliberation(conclave, deliberation)
    outputs = [output_document(each) for each in await conclave.outputs.outputs(deliberation.id)]
    try:
        receipt = Receipt(await conclave.witness.checkpoint())
    except LogUnverifiedError as error:
        receipt = Receipt(problem=str(error))
    # Long texts of many agents take longer than an event loop should be held.
    return await asyncio.to_thread(report_of, document, outputs, receipt=receipt)


async def _control_of(conclave: Conclave, deliberation: Deliberation) -> Deliberation | None:
    """None where none was wanted, or it could not be accepted."""
    if deliberation.specification.control is None:
        return None
    try:
        return await conclave.deliberations.get(control_id(deliberation.id), key_name=deliberation.key_name)
    except DeliberationNotFoundError:
        return None
