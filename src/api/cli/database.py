"""`conclave db`: brings the database to the form that this version works with."""

from __future__ import annotations

import typer

from api.cli.options import HelpOption, JsonOption, add_group, want_command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "db", database, {"upgrade": upgrade})


def database(context: typer.Context, _help: HelpOption = False) -> None:
    """Care for the database."""
    want_command(context)


def upgrade(as_json: JsonOption = False) -> None:
    """Create or update the tables.

    Nothing is lost, and doing it twice does no harm.
    """
    from api.bootstrap import configure_logging, load_settings, upgrade_database
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.terminal import print_document

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    revision = upgrade_database(settings)
    if as_json:
        print_document({"revision": revision})
    else:
        typer.echo(f"The database is up to date: revision {revision}")
