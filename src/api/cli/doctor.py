"""`conclave doctor`: looks at every setting and every dependency, and says what to do about what is not well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from api.cli.exit_codes import ExitCode
from api.cli.options import JsonOption

if TYPE_CHECKING:
    from api.conclave import Check

__all__ = ["add_to"]

_INDENT = len("works  ")
# A setting that cannot be used is named by its remedy; a dependency that is away is not.
_NAMES_A_SETTING = re.compile(r"CONCLAVE_[A-Z_]+: ")


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("doctor")(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check settings and dependencies.

    Says what to do about whatever is not well.
    """
    from api.cli.terminal import print_document

    checks, code = _examine()
    if as_json:
        found = [
            {"name": check.name, "works": check.works, "detail": check.detail, "remedy": check.remedy}
            for check in checks
        ]
        print_document({"works": code is ExitCode.DONE, "checks": found})
    else:
        _print(checks)
    raise typer.Exit(code)


def _examine() -> tuple[Sequence[Check], ExitCode]:
    from api.bootstrap import configure_logging, examine, load_settings, run
    from api.cli.quiet_log import keep_log_quiet
    from api.conclave import Check
    from domain.errors.configuration import ConfigurationError

    try:
        settings = load_settings()
        configure_logging(settings)
        keep_log_quiet(settings)
        checks = run(examine(settings))
    except ConfigurationError as error:
        return [Check(error.variable, works=False, detail=error.problem, remedy=error.remedy)], ExitCode.USAGE
    return checks, _code_of(checks)


def _code_of(checks: Sequence[Check]) -> ExitCode:
    failed = [check for check in checks if not check.works]
    if any(_NAMES_A_SETTING.match(check.remedy) for check in failed):
        return ExitCode.USAGE
    return ExitCode.DEPENDENCY_AWAY if failed else ExitCode.DONE


def _print(checks: Sequence[Check]) -> None:
    """One paragraph for each check, with its remedy below where there is something to do."""
    from api.cli.page import Page
    from api.cli.plain_text import visible
    from api.cli.terminal import result_console

    page = Page(result_console())
    for check in checks:
        mark, style = ("works", "") if check.works else ("FAILS", "bold red")
        said = f"{visible(check.name)}: {visible(check.detail)}" if check.detail else visible(check.name)
        page.paragraph(f"{mark}  {said}", hang=_INDENT, style=style)
        if check.remedy:
            page.paragraph(visible(check.remedy), indent=_INDENT)
