"""`conclave soak`: agents asked in cycles for hours, and judged by four criteria."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.options import HelpOption, JsonOption, add_group, want_command

if TYPE_CHECKING:
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.run import JsonValue, RunEnding

__all__ = ["add_to"]

_MINUTE_S = 60.0
_MIB = 1_048_576

CoordinationOption = Annotated[
    Path | None,
    typer.Option(
        "--coord-dir",
        metavar="DIR",
        help="Where messages, responses and status files lie; by default /dev/shm/agent-coordination.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output-dir", metavar="DIR", help="Where the results go; by default ./stability-results.", show_default=False
    ),
]
AgentsOption = Annotated[int, typer.Option("--agents", metavar="N", help="How many agents are started.")]
DurationOption = Annotated[float, typer.Option("--duration", metavar="MIN", help="Minutes; fractions are fine.")]
IntervalOption = Annotated[
    float, typer.Option("--interval", metavar="S", help="Seconds from the start of one cycle to the next.")
]
TimeoutOption = Annotated[
    float, typer.Option("--response-timeout", metavar="S", help="Seconds after which an unanswered message is lost.")
]
TransportOption = Annotated[
    str,
    typer.Option(
        "--transport",
        metavar="KIND",
        help="files (messages as files that any language reads), or the message bus: memory, redis, file or shm.",
    ),
]
ScaleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scale", metavar="N@cycleC", help="From cycle C on there are N agents; repeat it.", show_default=False
    ),
]
KillOption = Annotated[
    float | None,
    typer.Option("--kill-every", metavar="S", help="Kill an agent on purpose every S seconds.", show_default=False),
]
MessagesOption = Annotated[
    int, typer.Option("--messages-per-cycle", metavar="N", help="How many messages each agent is sent in a cycle.")
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the run of the output folder that was interrupted, by its own plan."),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help="info, or debug for a line a message.")
]
CompressOption = Annotated[bool, typer.Option("--compress", help="Compress message and response files.")]
EncryptOption = Annotated[
    bool,
    typer.Option("--encrypt", help="Encrypt message and response files with the key in soak.key of the output folder."),
]
HistoryOption = Annotated[
    bool, typer.Option("--history/--no-history", help="Keep every message and response in history.jsonl.")
]
HistorySizeOption = Annotated[
    float, typer.Option("--history-mib", metavar="MIB", help="The most that the history may take.")
]
PollOption = Annotated[
    bool, typer.Option("--poll", help="Look every 5 ms for files, as is done by itself on network file systems.")
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(app, "soak", soak, {"run": run, "agent": agent, "monitor": monitor})


def soak(context: typer.Context, _help: HelpOption = False) -> None:
    """Ask many agents in cycles for hours: does memory grow, do cycles slow down, does anything crash or get lost?"""
    want_command(context)


def run(
    agents: AgentsOption = 50,
    duration: DurationOption = 480.0,
    interval: IntervalOption = 300.0,
    coord_dir: CoordinationOption = None,
    output_dir: OutputOption = None,
    response_timeout: TimeoutOption = 30.0,
    transport: TransportOption = "files",
    scale: ScaleOption = None,
    kill_every: KillOption = None,
    messages_per_cycle: MessagesOption = 1,
    resume: ResumeOption = False,
    log_level: LogLevelOption = "info",
    compress: CompressOption = False,
    encrypt: EncryptOption = False,
    history: HistoryOption = True,
    history_mib: HistorySizeOption = 64.0,
    poll: PollOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start agents, ask them in cycles, and judge.

    Four criteria: memory grows by at most 10 %, cycle times spread by at most 20 %, no agent crashes unless killed on purpose, and every
    planned cycle is complete. Exit code 0 when all are met, 1 otherwise.
    """
    from api.bootstrap import configure_logging, load_settings
    from api.bootstrap.soak import SoakOptions, default_folders, open_soak
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.recorded_run import run_recorded
    from api.cli.rendered_soak import render_report, show_progress
    from api.cli.terminal import result_console
    from domain.models.run import RunKind
    from domain.models.soak import SoakPlan, parse_scale

    if log_level.lower() not in ("info", "debug"):
        raise typer.BadParameter("--log-level: there is info and debug")
    if history and not 1 / _MIB <= history_mib <= 1_048_576:
        raise typer.BadParameter("--history-mib: from 0.000001 to 1048576; --no-history keeps none")
    plan = SoakPlan(
        agents=agents,
        duration_s=duration * _MINUTE_S,
        interval_s=interval,
        response_timeout_s=response_timeout,
        transport=transport,
        scale=parse_scale(scale or []),
        kill_every_s=kill_every,
        messages_per_cycle=messages_per_cycle,
    )
    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)
    folders = default_folders(settings, coordination=coord_dir, output=output_dir)
    options = SoakOptions(
        resumes=resume,
        debugs=log_level.lower() == "debug",
        compresses=compress,
        encrypts=encrypt,
        history_bytes=int(history_mib * _MIB) if history else 0,
        polls=poll,
    )
    arguments: dict[str, JsonValue] = {
        "agents": agents,
        "duration": duration,
        "interval": interval,
        "response_timeout": response_timeout,
        "transport": transport,
        "scale": list(scale or []),
        "kill_every": kill_every,
        "messages_per_cycle": messages_per_cycle,
    }

    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        async with open_soak(settings, plan, folders=folders, options=options) as opened:
            return await opened.execute(observer, stop)

    def render(document: Mapping[str, JsonValue]) -> None:
        render_report(result_console(), document, folder=folders.output)

    code = run_recorded(
        RunKind.SOAK, arguments, work, settings=settings, as_json=as_json, render=render, show=show_progress
    )
    raise typer.Exit(code)


def agent(
    agent_id: Annotated[str, typer.Option("--id", metavar="N", help="The agent's number or name.", show_default=False)],
    coord_dir: CoordinationOption = None,
    compress: CompressOption = False,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="soak.key of a run that encrypts.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    """Be one more agent of a soak, before it begins or while it runs, until it is over.

    Agents in other languages do the same by files alone; docs/soak.md says how.
    """
    del as_json  # it prints nothing either way
    from api.bootstrap.soak import become_soak_agent

    become_soak_agent(agent_id, coordination=coord_dir, compresses=compress, key_file=key_file)


def monitor(
    source: Annotated[
        str, typer.Option("--input", metavar="FILE", help="Metrics by the line; - is standard input.")
    ] = "-",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where the summary goes, as JSON.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Summarise a stream of metrics, of this soak or of an earlier tool's.

    Prints the summary, and writes it to a file where one is named. Behind `tail -f`, Ctrl-C ends the stream: what was read is summarised.
    """
    import json
    import sys

    from api.cli.exit_codes import ExitCode
    from api.cli.rendered_soak import render_summary
    from api.cli.replaced_file import replaced_file
    from api.cli.terminal import print_document, result_console
    from application.services.soak.summary import summarise

    interrupted: list[bool] = []
    if source == "-":
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        found = summarise(_until_interrupted(sys.stdin, interrupted))
    else:
        with _readable(Path(source)).open(encoding="utf-8", errors="replace") as file:
            found = summarise(_until_interrupted(file, interrupted))
    if output is not None:
        with replaced_file(output, private=False) as written:
            written.write(json.dumps(found, indent=2, allow_nan=False) + "\n")
    if as_json:
        print_document(found)
    else:
        render_summary(result_console(), found)
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _until_interrupted(lines: Iterable[str], interrupted: list[bool]) -> Iterator[str]:
    """The lines up to a Ctrl-C, which is noted."""
    try:
        yield from lines
    except KeyboardInterrupt:
        interrupted.append(True)


def _readable(path: Path) -> Path:
    from domain.errors.configuration import ConfigurationError

    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(
            variable="--input",
            problem=f"{str(path)!r}: {error.strerror}",
            remedy="Name a file, or - for standard input.",
        ) from error
    return path
