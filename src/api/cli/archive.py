"""`conclave list`, `show`, `minutes` and `cancel`: deliberations that are stored here or on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.options import JsonOption, ServerOption
from api.cli.searching import (
    AnswerFilter,
    FromFilter,
    OutcomeFilter,
    ProtocolFilter,
    RuleFilter,
    SearchOption,
    SimulatedFilter,
    ToFilter,
    parameters,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["add_to"]

_MAX_PAGE = 200
_CANCEL_WAIT_S = 3.0

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The id of a deliberation, or at least its first 6 characters.")
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command("list")(list_deliberations)
    app.command("show")(show)
    app.command("minutes")(minutes)
    app.command("cancel")(cancel)


def list_deliberations(
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only queued, running, completed, inquorate, cancelled, halted or failed ones.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=_MAX_PAGE, help="How many at most.")] = 20,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="TEXT", help="Go on after the page that ended with it.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--origin",
            metavar="NAME",
            help="Only those whose topic came from there: autonomous, petition, scheduled, api or another name.",
        ),
    ] = None,
    search: SearchOption = None,
    answer: AnswerFilter = None,
    protocol: ProtocolFilter = None,
    rule: RuleFilter = None,
    outcome: OutcomeFilter = None,
    simulated: SimulatedFilter = None,
    since: FromFilter = None,
    until: ToFilter = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List deliberations, newest first, or those that a search finds."""
    from api.bootstrap import run
    from api.cli.deliberations import Access, open_deliberations
    from api.cli.listing import render_page
    from api.cli.terminal import complain, print_document, result_console

    wanted = parameters(
        search=search,
        answer=answer,
        protocol=protocol,
        rule=rule,
        outcome=outcome,
        simulated=simulated,
        since=since,
        until=until,
    )

    async def work() -> Mapping[str, Any]:
        async with open_deliberations(server, Access.READ) as deliberations:
            return await deliberations.page(status=status, limit=limit, cursor=cursor, origin=origin, search=wanted)

    page = run(work())
    if as_json:
        print_document(page)
    else:
        render_page(result_console(), page)
        if warning := (page.get("topics") or {}).get("warning"):
            complain(str(warning))


def show(
    deliberation_id: IdArgument,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write all of it as one page for a browser and a printer; what is there is replaced once all is written.",
        ),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one deliberation.

    Prints its outcome with tally, dissent, roll call and every failure.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations
    from api.cli.html_file import write_report
    from api.cli.plain_text import visible
    from api.cli.rendering import render_deliberation
    from api.cli.terminal import again, print_document, result_console

    async def work() -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], int]:
        async with open_deliberations(server, Access.READ) as deliberations:
            found = await find_by_prefix(deliberations, deliberation_id)
            if html is not None:
                return found, (), await write_report(deliberations, found, html, server=server)
            return found, () if as_json else await deliberations.outputs(str(found["id"])), 0

    found, outputs, size = run(work())
    if as_json:
        print_document(found)
    elif html is not None:
        typer.echo(f"{visible(str(html))}: the report of {visible(str(found['id']))}, {size:,} bytes")
    else:
        render_deliberation(result_console(), found, outputs=outputs, again=again(str(found["id"]), server))


def minutes(deliberation_id: IdArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print the minutes of one deliberation, as Markdown.

    They are written from the witness log and the texts that it commits to, and from nothing else.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations
    from api.cli.plain_text import visible_document
    from api.cli.terminal import print_document

    async def work() -> tuple[str, str]:
        async with open_deliberations(server, Access.READ) as deliberations:
            found = str((await find_by_prefix(deliberations, deliberation_id))["id"])
            return found, await deliberations.minutes(found)

    found, text = run(work())
    if as_json:
        print_document({"deliberation_id": found, "minutes": text})
    else:
        typer.echo(visible_document(text), nl=False)


def cancel(deliberation_id: IdArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """End a deliberation early.

    What was answered until then is kept.
    """
    from api.bootstrap import run
    from api.cli.deliberations import Access, find_by_prefix, open_deliberations
    from api.cli.holding import wait_for_end
    from api.cli.plain_text import visible
    from api.cli.terminal import print_document

    async def work() -> Mapping[str, Any]:
        async with open_deliberations(server, Access.READ) as deliberations:
            found = str((await find_by_prefix(deliberations, deliberation_id))["id"])
            await deliberations.cancel(found)
            return await wait_for_end(deliberations, found, timeout_s=_CANCEL_WAIT_S)

    found = run(work())
    if as_json:
        print_document(found)
        return
    status = str(found["status"])
    ended = "" if status == "cancelled" else ": its end was asked for, whoever works on it will hear of it"
    typer.echo(f"{visible(str(found['id']))} is {visible(status)}{ended}")
