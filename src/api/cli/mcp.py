"""`conclave mcp`: offers the chamber to other agents as tools of the Model Context Protocol."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from api.cli.options import ServerOption, finite

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("mcp")(mcp)


def mcp(
    server: ServerOption = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="VKEY", help="The only key that verify trusts, as `conclave witness key` prints it."
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost", metavar="USD", min=0, callback=finite, help="Money at most for each question; else 5."
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", metavar="S", min=0, max=3600, callback=finite, help="Seconds that a call of deliberate waits."
        ),
    ] = 50.0,
    http: Annotated[
        int | None,
        typer.Option(
            "--http", metavar="PORT", min=1, max=65535, help="Streamable HTTP on 127.0.0.1 instead of standard input."
        ),
    ] = None,
) -> None:
    """Offer deliberate, status, outcome and verify as tools to other agents (MCP), until standard input ends.

    Standard output carries the protocol and nothing else; the log goes to standard error.
    """
    if find_spec("mcp") is None:
        raise typer.BadParameter(
            "the Model Context Protocol is missing. Install it: uv pip install 'archon-conclave[mcp]'"
        )
    from api.bootstrap import run
    from api.cli.deliberations import Access, open_deliberations
    from api.cli.witness import pinned_key
    from api.mcp.chamber import Chamber
    from api.mcp.tools import serve

    pinned = None if key is None else pinned_key(key)

    async def work() -> None:
        async with open_deliberations(server, Access.ASK) as deliberations:
            chamber = Chamber(
                deliberations, pinned=pinned, max_cost_usd=max_cost, wait_s=wait, ends_what_it_began=server is None
            )
            try:
                await serve(chamber, port=http)
            finally:
                await chamber.close()

    run(work())
