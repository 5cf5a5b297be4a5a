"""`conclave swarm`: one task for many agents, in batches, over a bus, in one process or several."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.options import HelpOption, JsonOption, add_group, finite, want_command

if TYPE_CHECKING:
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.run import JsonValue, RunEnding

__all__ = ["add_to"]

QuestionArgument = Annotated[
    str | None,
    typer.Argument(metavar="QUESTION", help="What the task question puts to its agents.", show_default=False),
]
# For whoever builds command lines: a question that begins with a dash stands safely in one word.
QuestionOption = Annotated[str | None, typer.Option("--question", metavar="TEXT", hidden=True)]
AgentsOption = Annotated[
    int | None,
    typer.Option(
        "--agents",
        metavar="N",
        help="How many, 1 to 10000, for a question 1 to 72; else as many as batches or items say, 128, or 72 for a question.",
        show_default=False,
    ),
]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="NAME",
        help="coin-flip; question, one call to a model each; or module:function, a Python function of yours.",
    ),
]
TransportOption = Annotated[
    str, typer.Option("--transport", metavar="KIND", help="Of the messages: memory, redis, file or shm.")
]
BatchesOption = Annotated[
    str | None,
    typer.Option(
        "--batches", metavar="NxM", help="N batches of M agents, as 32x4 for 128; else of 4.", show_default=False
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Fixes each agent's flip; else drawn.", show_default=False)
]
InstancesOption = Annotated[
    int, typer.Option("--instances", metavar="N", help="Processes to spread the agents over, 1 to 32, not with memory.")
]
ItemsOption = Annotated[
    Path | None,
    typer.Option(
        "--items",
        metavar="FOLDER",
        help="One file for each agent; the function is called with its path, without this with the agent's number.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where the session's folder is made; else ./logs.", show_default=False),
]
SessionOption = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="The session's name; else drawn.", show_default=False)
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        callback=finite,
        help="Seconds of silence after which an agent's batch is retried, up to a day; else 30 for coins, 300 for a function.",
        show_default=False,
    ),
]
FaultOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS", help="Agents of this process that never come to a result, such as 7,12.", hidden=True
    ),
]
UrlOption = Annotated[
    str,
    typer.Option("--url", metavar="URL", help="Where its messages live: redis://..., file:///FOLDER or shm://NAME."),
]
JoinedOption = Annotated[
    str, typer.Option("--session", metavar="ID", help="The session, as its run was given it or says it.")
]
AllowedOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="MODULE:FUNCTION",
        help="The one function that may run here; without it only coins are flipped.",
        show_default=False,
    ),
]
HereOption = Annotated[
    Path | None,
    typer.Option(
        "--items", metavar="FOLDER", help="Where the session's files are on this machine.", show_default=False
    ),
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="S", callback=finite, help="Seconds to wait for the session to be there.")
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "swarm", swarm, {"run": run, "join": join})


def swarm(context: typer.Context, _help: HelpOption = False) -> None:
    """Have many agents do one task in batches, each counted exactly once."""
    want_command(context)


def run(
    question: QuestionArgument = None,
    question_option: QuestionOption = None,
    agents: AgentsOption = None,
    task: TaskOption = "coin-flip",
    transport: TransportOption = "memory",
    batches: BatchesOption = None,
    seed: SeedOption = None,
    instances: InstancesOption = 1,
    items: ItemsOption = None,
    out: OutOption = None,
    session: SessionOption = None,
    timeout: TimeoutOption = None,
    dead: FaultOption = None,
    silent: FaultOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a swarm.

    Prints how many agents were counted, who is missing and why, the latencies, and for coins how likely chance splits so. Writes
    metrics.json, vault, session.log and traces.jsonl. Ctrl-C ends it early, and what was counted until then is still printed.
    """
    if question is not None and question_option is not None:
        raise typer.BadParameter("give QUESTION once")
    if items is not None and ":" not in task:
        raise typer.BadParameter("--items is for the task module:function")
    given = {
        "agents": _agents_of(items) if items is not None and agents is None else agents,
        "task": task,
        "question": question if question is not None else question_option,
        "transport": transport,
        "batches": batches,
        "seed": seed,
        "instances": instances,
        "timeout": timeout,
    }
    arguments = _checked(given)
    if items is not None and (found := _agents_of(items)) != arguments["agents"]:
        raise typer.BadParameter(
            f"--items has {found} files, one for each agent, and --agents is {arguments['agents']}"
        )
    if session is not None:
        _check_session(session)
    from api.bootstrap import configure_logging, load_settings
    from api.bootstrap.swarm import Place, run_swarm
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.recorded_run import run_recorded
    from api.cli.rendered_swarm import render_swarm
    from api.cli.swarm_progress import swarm_progress_on
    from api.cli.terminal import complain, progress_console, result_console
    from application.services.swarm.faults import FaultyTask
    from domain.models.run import RunKind

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    dead_ones, silent_ones = _numbers(dead), _numbers(silent)
    progress = swarm_progress_on(progress_console())
    gone: list[str] = []

    def announce(place: Place) -> None:
        progress.say(f"join: conclave swarm join --url {place.shown} --session {place.session}")

    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        ending = await run_swarm(
            settings,
            arguments,
            observer,
            stop,
            session=session,
            out=out,
            items=items,
            announce=announce,
            wrap_task=lambda inner: FaultyTask(inner, dead=dead_ones, silent=silent_ones),
        )
        listed = ending.result.get("gone")
        gone.extend(map(str, listed if isinstance(listed, list) else ()))
        return ending

    def render(document: Mapping[str, JsonValue]) -> None:
        progress.close()
        render_swarm(result_console(), document)

    with progress:
        code = run_recorded(
            RunKind.SWARM, arguments, work, settings=settings, as_json=as_json, render=render, show=progress.show
        )
    if gone:
        complain(f"these instances were never ready or did not live to the end: {', '.join(gone)}")
    raise typer.Exit(code)


def join(
    url: UrlOption,
    session: JoinedOption,
    task: AllowedOption = None,
    items: HereOption = None,
    wait: WaitOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Lend this process to a session that runs, until it ends.

    Agents of that session then act here as well. A session decides which of its agents do; this machine, by --task, which function
    it runs at all.
    """
    _check_session(session)
    if wait < 0:
        raise typer.BadParameter("--wait has to be 0 or more")
    from api.bootstrap.swarm import join_swarm, place_of
    from api.cli.interruption import Interruption, run_interruptible
    from api.cli.terminal import complain, print_document
    from domain.counted import counted

    place = place_of(url, session)

    async def work(interruption: Interruption) -> int:
        import asyncio

        from application.services.stop_signal import StopReason, StopSignal

        stop = StopSignal()

        async def heed() -> None:
            await interruption.wait()
            stop.set(StopReason.CANCELLED)

        heeding = asyncio.create_task(heed())
        try:
            with interruption.winding_up():
                found = await join_swarm(place, stop, task=task, items=items, patience_s=wait)
        finally:
            heeding.cancel()
        ending = f"{found['ended_by']!r}".strip("'").replace("_", " ")
        if as_json:
            print_document(found)
        else:
            sys.stdout.write(f"{counted(int(str(found['performed'])), 'agent')} acted here; {ending}\n")
        ended_well = found["ended_by"] == "session_ended"
        if not ended_well and interruption.signal is None:
            complain(f"the session {session!r} did not end this instance in order: {ending}")
        return 0 if ended_well else 1

    raise typer.Exit(run_interruptible(work))


def _agents_of(items: Path) -> int:
    from api.bootstrap.swarm import swarm_items

    return len(swarm_items(items))


def _checked(given: Mapping[str, object]) -> dict[str, JsonValue]:
    """The arguments with their defaults. Raises `typer.BadParameter` naming each option that is off."""
    from domain.models.swarm import checked_arguments

    arguments, problems = checked_arguments(
        {name: value for name, value in given.items() if value is not None}, takes_functions=True
    )
    if problems:
        named = {"/question": "QUESTION"}
        said = (f"{named.get(each.pointer, '--' + each.pointer[1:])} {each.message}" for each in problems)
        raise typer.BadParameter("; ".join(said))
    return arguments


def _check_session(session: str) -> None:
    from domain.models.swarm import is_session

    if not is_session(session):
        raise typer.BadParameter(
            "--session has to be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"
        )


def _numbers(text: str | None) -> frozenset[int]:
    try:
        return frozenset(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter("give agents' numbers, such as 7,12") from None
