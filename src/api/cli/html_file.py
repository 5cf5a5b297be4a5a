"""`conclave show --html FILE`: the report of a deliberation as a file that is whole or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from api.cli.deliberations import Deliberations, Document
    from api.report.page import Receipt

__all__ = ["write_report"]


async def write_report(deliberations: Deliberations, document: Document, file: Path, *, server: str | None) -> int:
    """Write the page of that deliberation and return its size in bytes; what was there is replaced once all is written.

    The page is made here, also of a deliberation on a server, so that no server chooses what stands in the file. Raises
    `ConfigurationError` where no file can be made, and `OSError` where it does not fit.
    """
    from api.cli.replaced_file import replaced_file
    from api.report.page import report_of

    outputs = await deliberations.outputs(str(document["id"]))
    receipt = await _receipt(deliberations, server)
    page = report_of(document, outputs, receipt=receipt).html
    with replaced_file(file, private=True) as target:
        target.write(page)
    return len(page.encode())


async def _receipt(deliberations: Deliberations, server: str | None) -> Receipt:
    """With the present checkpoint, or with why the log gives none: a page that says so is worth more than none."""
    from api.cli.http_exchange import ServerRefusedError
    from api.report.page import Receipt
    from domain.errors.witness import LogUnverifiedError

    try:
        return Receipt(await deliberations.checkpoint(), server=server)
    except (LogUnverifiedError, ServerRefusedError) as error:
        return Receipt(problem=str(error), server=server)
