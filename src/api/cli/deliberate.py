"""`conclave deliberate`: puts one question to the agents, shows how it goes on, and prints what came of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.options import JsonOption, ServerOption, finite

__all__ = ["add_to"]

_MAX_READ_BYTES = 1024 * 1024
_STDIN = "-"


def add_to(app: typer.Typer) -> None:
    """Make the command known."""
    app.command("deliberate")(deliberate)


def deliberate(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question; - reads it from standard input.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="TEXT", help="An option to choose from; repeat it, 2 to 50.")
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            "--answer",
            metavar="KIND",
            help="choice, approval, ranking, verdict, score, probability, number or text; "
            "without it choice where there are options, else verdict.",
        ),
    ] = None,
    minimum: Annotated[float | None, typer.Option("--min", metavar="X", callback=finite, help="Least score.")] = None,
    maximum: Annotated[
        float | None, typer.Option("--max", metavar="X", callback=finite, help="Greatest score.")
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", metavar="TEXT", help="What a number counts.")] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="TEXT", help="What every agent is told besides.")
    ] = None,
    context_file: Annotated[
        Path | None, typer.Option("--context-file", metavar="FILE", help="The same from a file; - is standard input.")
    ] = None,
    agents: Annotated[
        int | None, typer.Option("--agents", metavar="N", help="How many, 1 to 72; without it the whole roster.")
    ] = None,
    roster: Annotated[
        str | None, typer.Option("--roster", metavar="NAME", help="Who is asked; without it archons.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="KIND", help="How many rounds, who sees what; without it poll.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="KIND", help="How ballots are counted; else as suits the answer.")
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option("--fraction", metavar="X", callback=finite, help="The share of all asked that a threshold wants."),
    ] = None,
    quorum: Annotated[
        float | None,
        typer.Option("--quorum", metavar="X", callback=finite, help="The share that has to take part; else 0.5."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", callback=finite, help="Seconds for each agent; else 120.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option("--deadline", metavar="S", callback=finite, help="Seconds for all; else 1800.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", metavar="N", help="Calls for one answer at most; else 2.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", callback=finite, help="Money at most; else 5.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Repeats what can be repeated.")] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the agents one question.

    Prints the outcome with tally, dissent, roll call and every failure. Ctrl-C ends it early, and what was counted until then
    is still printed.
    """
    if context is not None and context_file is not None:
        raise typer.BadParameter("give --context or --context-file, not both")
    if question == _STDIN and context_file == Path(_STDIN):
        raise typer.BadParameter("only one of QUESTION and --context-file can come from standard input")
    body = _present(
        question=_read(Path(_STDIN), "QUESTION") if question == _STDIN else question,
        context=context if context_file is None else _read(context_file, "--context-file"),
        answer=_present(
            kind=answer or ("choice" if option else "verdict"), options=option, min=minimum, max=maximum, unit=unit
        ),
        agents=_present(count=agents, roster=roster),
        protocol=_present(kind=protocol),
        rule=_rule(rule, fraction),
        quorum=_present(min_answered_fraction=quorum),
        limits=_present(agent_timeout_s=timeout, deadline_s=deadline, max_attempts=max_attempts, max_cost_usd=max_cost),
        seed=seed,
    )
    raise typer.Exit(_hold(body, server=server, as_json=as_json))


def _hold(body: dict[str, Any], *, server: str | None, as_json: bool) -> int:
    from api.cli.deliberations import Access, open_deliberations
    from api.cli.exit_codes import code_of_status
    from api.cli.holding import hold_deliberation
    from api.cli.interruption import Interruption, run_interruptible
    from api.cli.progress import progress_on
    from api.cli.rendering import render_deliberation
    from api.cli.terminal import again, print_document, progress_console, result_console

    async def work(interruption: Interruption) -> int:
        progress = progress_on(progress_console())
        with progress:
            async with open_deliberations(server, Access.ASK) as deliberations:
                ended = await hold_deliberation(deliberations, body, progress=progress, interruption=interruption)
                outputs = () if as_json else await deliberations.outputs(str(ended["id"]))
                notices = deliberations.notices
        if as_json:
            print_document(ended)
        else:
            command = again(str(ended["id"]), server)
            render_deliberation(result_console(), ended, outputs=outputs, notices=notices, again=command)
        sys.stdout.flush()
        return code_of_status(ended)

    return run_interruptible(work)


def _rule(kind: str | None, fraction: float | None) -> dict[str, Any]:
    # Only a threshold is set by a fraction alone.
    return _present(kind=kind or (None if fraction is None else "threshold"), fraction=fraction)


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that were given; an empty part was not."""
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [])}


def _read(path: Path, what: str) -> str:
    """A text in UTF-8, from a file or from standard input. Raises `typer.BadParameter`."""
    try:
        if path == Path(_STDIN):
            content = sys.stdin.buffer.read(_MAX_READ_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_READ_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{what}: {str(path)!r} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_READ_BYTES:
        raise typer.BadParameter(f"{what}: more than {_MAX_READ_BYTES} bytes are not taken")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{what}: byte {error.start} is not UTF-8") from None
