"""`conclave population export`: the columns of a population for notebooks, as Parquet, Arrow or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.options import JsonOption
from api.cli.population_options import FolderArgument, FromTickOption

__all__ = ["export"]

FormatOption = Annotated[
    str,
    typer.Option("--format", metavar="KIND", help="parquet or arrow, which want the extra `arrow`, or csv."),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Where to; else agents-simulated-TICK in the folder itself.", show_default=False
    ),
]
BytesOption = Annotated[bool, typer.Option("--with-bytes", help="Agents' own bytes too, where the snapshot has them.")]


def export(
    folder: FolderArgument,
    form: FormatOption = "parquet",
    out: FileOption = None,
    from_tick: FromTickOption = None,
    with_bytes: BytesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write all agents of a population to a file, one row each, from its last snapshot or from that of a tick.

    A population that is running may be exported too. Every row says that it is simulated.
    """
    from api.bootstrap.population_export import prepare_export
    from api.cli.page import Page
    from api.cli.plain_text import visible
    from api.cli.terminal import print_document, result_console
    from domain.errors.population import InvalidPopulationError, PopulationFolderError

    try:
        write = prepare_export(folder, form=form, tick=from_tick, with_bytes=with_bytes)
    except InvalidPopulationError as error:
        if not any(problem.pointer == "/format" for problem in error.problems):
            raise
        raise typer.BadParameter("; ".join(f"--format {problem.message}" for problem in error.problems)) from error
    except PopulationFolderError as error:
        raise typer.BadParameter(str(error)) from error
    found = write(out)
    if as_json:
        print_document(found)
        return
    page = Page(result_console())
    page.paragraph(
        f"{found['rows']:,} simulated agents after tick {found['tick']:,} in {visible(found['file'])} "
        f"({found['bytes'] / 2**20:,.1f} MiB, {len(found['columns'])} columns)."
    )
