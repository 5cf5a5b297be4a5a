"""The options that several commands share, and the way from a refused field back to the option that set it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Annotated

import typer

from api.cli.exit_codes import ExitCode

__all__ = [
    "HelpOption",
    "JsonOption",
    "ServerOption",
    "add_group",
    "finite",
    "in_words_of_the_command_line",
    "show_help",
    "want_command",
]

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")]


def show_help(context: typer.Context, wanted: bool) -> None:
    """Print the help of a group and leave."""
    if wanted:
        typer.echo(context.get_help())
        raise typer.Exit


# The framework's own help option of a group is converted by pydantic whenever one of its commands is named.
HelpOption = Annotated[
    bool, typer.Option("--help", help="Show this message and exit.", is_eager=True, callback=show_help)
]


def add_group(
    app: typer.Typer, name: str, opening: Callable[..., None], commands: Mapping[str, Callable[..., None]]
) -> typer.Typer:
    """Make the group `name` known, whose own help is the docstring of `opening`, with these commands by their names."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False, add_help_option=False)
    group.callback(invoke_without_command=True)(opening)
    for command, performed in commands.items():
        group.command(command)(performed)
    app.add_typer(group, name=name)
    return group


ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Use this server instead of this machine's data folder, with the key in CONCLAVE_API_KEY.",
        show_default=False,
    ),
]

_OPTION_OF_FIELD: Mapping[str, str] = {
    "/question": "QUESTION",
    "/context": "--context",
    "/answer/kind": "--answer",
    "/answer/options": "--option",
    "/answer/min": "--min",
    "/answer/max": "--max",
    "/answer/unit": "--unit",
    "/agents/count": "--agents",
    "/agents/roster": "--roster",
    "/protocol/kind": "--protocol",
    "/protocol/wave_size": "--wave-size",
    "/protocol/max_rounds": "--max-rounds",
    "/protocol/reviewers_per_answer": "--reviewers",
    "/protocol/rounds": "--rounds",
    "/protocol/neighbours": "--neighbours",
    "/rule/kind": "--rule",
    "/rule/fraction": "--fraction",
    "/rule/tie_break": "--tie-break",
    "/rule/strength": "--strength",
    "/rule/weighted_by": "--weighted-by",
    "/quorum/min_answered_fraction": "--quorum",
    "/limits/agent_timeout_s": "--timeout",
    "/limits/deadline_s": "--deadline",
    "/limits/max_attempts": "--max-attempts",
    "/limits/max_cost_usd": "--max-cost",
    "/seed": "--seed",
    "/control/model": "--control",
    "/reason": "--reason",
    "/answer": "--answer",
    "/metadata/origin": "--origin",
    **{f"{place}/{name}": f"--{name}" for place in ("", "/query") for name in ("status", "limit", "cursor", "by")},
    **{
        f"{place}/{name}": f"--{name}"
        for place in ("", "/query")
        for name in ("search", "answer", "protocol", "rule", "outcome", "simulated", "from", "to")
    },
}
_OPTION_IN_LIST = re.compile(r"/answer/options/(\d+)")


def finite(value: float | None) -> float | None:
    """Refuse what no JSON document can carry."""
    if value is not None and not isfinite(value):
        raise typer.BadParameter("is not a finite number")
    return value


def want_command(context: typer.Context) -> None:
    """Show the help of a group on standard error, and leave, when none of its commands was named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)


def in_words_of_the_command_line(message: str) -> str:
    """`message` with each field of the request named as the option that sets it."""

    def named(found: re.Match[str]) -> str:
        pointer = found.group(0)[:-1]
        listed = _OPTION_IN_LIST.fullmatch(pointer)
        if listed is not None:
            return f"--option number {int(listed.group(1)) + 1}:"
        return f"{_OPTION_OF_FIELD.get(pointer, pointer)}:"

    return re.sub(r"/[a-z_]+(?:/[a-z_0-9]+)*:", named, message)
