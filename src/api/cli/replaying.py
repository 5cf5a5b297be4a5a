"""`conclave replay`: runs a recorded deliberation again and says where it comes to something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.exit_codes import ExitCode
from api.cli.options import JsonOption, ServerOption

if TYPE_CHECKING:
    from application.services.replay import Difference, ReplayReport

__all__ = ["add_to"]

_MAX_SHOWN = 20
_MAX_CHARACTERS = 120


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("replay")(replay)


def replay(
    source: Annotated[
        str, typer.Argument(metavar="ID|BUNDLE", help="A deliberation that has ended, or a file with its bundle.")
    ],
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recorded deliberation again on its recorded replies.

    Needs no key and asks nobody. Exit code 3 says that the run comes to other entries than those that were recorded.
    """
    from api.bootstrap import replay_bundle, run
    from api.cli.page import Page
    from api.cli.terminal import print_document, result_console

    path = Path(source)
    bundle = _read(path) if server is None and path.is_file() else run(_fetch(source, server))
    report = replay_bundle(bundle)
    if as_json:
        print_document(_document(report))
    else:
        _write(Page(result_console()), report)
    raise typer.Exit(ExitCode.DONE if report.is_same else ExitCode.VERIFICATION_REFUSED)


async def _fetch(source: str, server: str | None) -> Mapping[str, Any]:
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations

    async with open_deliberations(server, Access.READ) as deliberations:
        found = await find_by_prefix(deliberations, source)
        return await deliberations.bundle(str(found["id"]))


def _read(path: Path) -> Mapping[str, Any]:
    from application.services.verification import MAX_BUNDLE_BYTES
    from application.services.verification.reading import read_object

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BUNDLE_BYTES:
        raise typer.BadParameter(f"{str(path)!r} is longer than any bundle")
    return read_object(content, what="the bundle")


def _document(report: ReplayReport) -> dict[str, Any]:
    return {
        "deliberation_id": report.deliberation_id,
        "status": report.status,
        "same": report.is_same,
        "entries": report.entries,
        "prompts": report.prompts,
        "prompts_taken": report.prompts_taken,
        "clusters_taken": report.clusters_taken,
        "differences": [
            {
                "index": each.index,
                "type": each.type,
                "field": each.field,
                "recorded": each.recorded,
                "replayed": each.replayed,
            }
            for each in report.differences
        ],
    }


def _write(page: Any, report: ReplayReport) -> None:
    from api.cli.plain_text import visible

    named = visible(report.deliberation_id)
    if report.is_same:
        page.paragraph(f"Replayed {named}: all {report.entries} entries came out byte for byte", style="bold green")
    else:
        count = len(report.differences)
        page.paragraph(f"Replayed {named}: {count} of {report.entries} entries came out otherwise", style="bold red")
    for each in report.differences[:_MAX_SHOWN]:
        page.paragraph(_said(each), indent=2, hang=2)
    if len(report.differences) > _MAX_SHOWN:
        page.paragraph(f"and {len(report.differences) - _MAX_SHOWN} more: --json lists them", indent=2)
    if report.prompts:
        page.paragraph(f"{report.prompts} prompts were written anew, and are those that were committed to.")
    if report.prompts_taken:
        page.paragraph(
            f"{report.prompts_taken} prompts were taken as recorded: their words are not those of this version."
        )
    if report.clusters_taken:
        page.paragraph("The clusters of texts were taken as recorded: what compared them has to be asked.")


def _said(difference: Difference) -> str:
    from api.cli.plain_text import visible

    where = "an entry" if difference.index is None else f"entry {difference.index}"
    if difference.index is None:
        return f"{where} of type {visible(difference.type)} came that was not recorded: {_cut(difference.replayed)}"
    if difference.field is None and difference.replayed is None:
        return f"{where}, {visible(difference.type)}: did not come again"
    told = f"recorded {_cut(difference.recorded)}, replayed {_cut(difference.replayed)}"
    return f"{where}, {visible(difference.type)}, {visible(str(difference.field))}: {told}"


def _cut(value: object) -> str:
    from api.cli.plain_text import visible

    return visible(str(value), limit=_MAX_CHARACTERS)
