"""`conclave pantheon`: nine roles in a row, which plan, check and carry out a task in allowed steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.options import HelpOption, JsonOption, add_group, want_command

if TYPE_CHECKING:
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.pantheon import PantheonRequest
    from domain.models.run import JsonValue, RunEnding

__all__ = ["add_to"]

TaskArgument = Annotated[
    str | None, typer.Argument(metavar="TASK", help="What the steps are given.", show_default=False)
]
# For whoever builds command lines: a task that begins with a dash stands safely in one word.
TaskOption = Annotated[str | None, typer.Option("--task", metavar="TEXT", hidden=True)]
StepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        metavar="NAME",
        help="A step of the plan; repeat it. There is echo, word_count and sha256, and without it all three run; "
        "any other makes the Validator reject the whole plan.",
        show_default=False,
    ),
]
TransportOption = Annotated[
    str, typer.Option("--transport", metavar="KIND", help="Of the messages: memory, redis, file or shm.")
]
CyclesOption = Annotated[int, typer.Option("--cycles", metavar="N", help="How often the nine are passed, 1 to 1000.")]
RolesOption = Annotated[
    Path | None,
    typer.Option(
        "--roles",
        metavar="FILE",
        help="A TOML file that gives roles a function, a model or a deliberation; without it each does its built-in part.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "pantheon", pantheon, {"run": run})


def pantheon(context: typer.Context, _help: HelpOption = False) -> None:
    """Observe, reason, act, validate, execute, remember, analyze, learn and improve: nine roles in a row."""
    want_command(context)


def run(
    task: TaskArgument = None,
    task_option: TaskOption = None,
    step: StepOption = None,
    transport: TransportOption = "memory",
    cycles: CyclesOption = 1,
    roles: RolesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pass a task through the nine roles.

    Prints every handoff with its latency, and what was executed or rejected. A plan that the Validator rejects is not carried out,
    and ends with exit code 1.
    """
    request = _request(task, task_option, step, cycles)
    from api.bootstrap import configure_logging, load_settings
    from api.bootstrap.pantheon import open_pantheon, read_roles
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.recorded_run import run_recorded
    from api.cli.rendered_pantheon import render_pantheon, show_progress
    from api.cli.terminal import result_console
    from domain.models.pantheon import TRANSPORTS
    from domain.models.run import RunKind

    if transport not in TRANSPORTS:
        raise typer.BadParameter(f"--transport: there is {', '.join(TRANSPORTS)}")
    given = {} if roles is None else read_roles(roles)
    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    arguments: dict[str, JsonValue] = {
        "task": request.task,
        "steps": None if request.steps is None else list(request.steps),
        "transport": transport,
        "cycles": request.cycles,
        "roles": [role.value for role in given],
    }

    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        async with open_pantheon(settings, request, transport=transport, roles=given) as opened:
            return await opened.run(observer, stop)

    def render(document: Mapping[str, JsonValue]) -> None:
        render_pantheon(result_console(), document)

    code = run_recorded(
        RunKind.PANTHEON, arguments, work, settings=settings, as_json=as_json, render=render, show=show_progress
    )
    raise typer.Exit(code)


def _request(task: str | None, task_option: str | None, steps: list[str] | None, cycles: int) -> PantheonRequest:
    from domain.models.pantheon import PantheonRequest, named_steps

    if (task is None) == (task_option is None):
        raise typer.BadParameter("give TASK once")
    text = task if task is not None else task_option
    request = PantheonRequest(text or "", None if not steps else named_steps(steps), cycles)
    if problems := request.problems():
        named = {"/task": "TASK", "/cycles": "--cycles"}
        raise typer.BadParameter("; ".join(f"{named[found.pointer]} {found.message}" for found in problems))
    return request
