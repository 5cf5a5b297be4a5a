"""`conclave population`: up to ten million simulated agents in columns, tick after tick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.options import HelpOption, JsonOption, finite, want_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from api.bootstrap.population import OpenedPopulation
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.population import PopulationSpecification
    from domain.models.run import JsonValue, RunEnding

__all__ = ["add_to", "population_app"]

AgentsOption = Annotated[int, typer.Option("--agents", metavar="N", help="How many agents, up to 10,000,000.")]
TicksOption = Annotated[int, typer.Option("--ticks", metavar="N", help="How many ticks.")]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards", metavar="N", help="Into how many shards, up to 1,024; else one a core.", show_default=False
    ),
]
EngineOption = Annotated[str, typer.Option("--engine", metavar="KIND", help="What carries them: local.")]
KernelOption = Annotated[
    str,
    typer.Option(
        "--kernel", metavar="KIND", help="What steps them: numba, numpy, or auto, the best one that is installed."
    ),
]
WorkersOption = Annotated[
    str, typer.Option("--workers", metavar="KIND", help="What carries the shards: threads, processes or auto.")
]
BehaviourOption = Annotated[
    str,
    typer.Option(
        "--behaviour",
        metavar="KIND",
        help="bounded_confidence, degroot, voter, threshold, or a class of your own as module:Class.",
    ),
]
BoundOption = Annotated[
    float,
    typer.Option(
        "--bound", metavar="X", help="How far an opinion may lie away to be heard; the share that threshold takes."
    ),
]
SusceptibilityOption = Annotated[
    float, typer.Option("--susceptibility", metavar="X", help="The share of the way that an agent moves, 0 to 1.")
]
ActivityOption = Annotated[
    float, typer.Option("--activity", metavar="X", help="The chance of an agent to speak in a tick, 0 to 1.")
]
DegreeOption = Annotated[int, typer.Option("--degree", metavar="N", help="How many others an agent knows.")]
GraphOption = Annotated[
    str,
    typer.Option(
        "--graph",
        metavar="KIND",
        help="random, small_world, scale_free, communities, mixed (a fresh partner each tick), or a file with an edge a line.",
    ),
]
MessagesOption = Annotated[
    int, typer.Option("--messages", metavar="N", help="Messages of each agent in a tick, up to 100.")
]
HighOption = Annotated[
    int, typer.Option("--high-priority", metavar="PERCENT", help="Agents whose messages go before others.")
]
LowOption = Annotated[
    int, typer.Option("--low-priority", metavar="PERCENT", help="Agents whose messages go after others.")
]
InboxOption = Annotated[
    int,
    typer.Option(
        "--inbox-limit",
        metavar="N",
        help="Messages that a behaviour of your own is handed for an agent and tick; more are refused, 0 for all.",
    ),
]
StateOption = Annotated[int, typer.Option("--state-bytes", metavar="N", help="State of each agent, 256 to 16384.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DELIBERATION_ID",
        help="Begin with the answers of that deliberation: each of its agents is the beginning of a community.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same population.")]
IntervalOption = Annotated[
    float,
    typer.Option(
        "--tick-interval", metavar="S", help="Seconds from tick to tick; 0 as fast as may be.", callback=finite
    ),
]
SnapshotOption = Annotated[
    int,
    typer.Option("--snapshot-every", metavar="TICKS", help="Ticks from snapshot to snapshot; 0 about one a second."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where everything is written; else ./population.", show_default=False),
]
BenchTicksOption = Annotated[int, typer.Option("--ticks", metavar="N", min=1, help="Ticks of each population.")]
KillOption = Annotated[
    int, typer.Option("--kill-at", metavar="N", min=0, help="The tick to be killed at and resumed from; 0 for no kill.")
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the population.")]
FromTickOption = Annotated[
    int | None,
    typer.Option(
        "--from-tick", metavar="N", min=0, help="From the snapshot of that tick; else the last.", show_default=False
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.add_typer(population_app(), name="population")


def population_app() -> typer.Typer:
    """The commands about populations."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False, add_help_option=False)
    group.callback(invoke_without_command=True)(population)
    group.command("run")(run)
    group.command("resume")(resume)
    group.command("bench")(bench)
    group.command("plan")(plan)
    return group


def population(context: typer.Context, _help: HelpOption = False) -> None:
    """Spread opinions through up to ten million simulated agents."""
    want_command(context)


def run(
    agents: AgentsOption = 1_000_000,
    ticks: TicksOption = 100,
    shards: ShardsOption = None,
    engine: EngineOption = "local",
    kernel: KernelOption = "auto",
    workers: WorkersOption = "auto",
    behaviour: BehaviourOption = "bounded_confidence",
    bound: BoundOption = 0.2,
    susceptibility: SusceptibilityOption = 0.5,
    activity: ActivityOption = 1.0,
    degree: DegreeOption = 8,
    graph: GraphOption = "random",
    messages: MessagesOption = 1,
    high_priority: HighOption = 0,
    low_priority: LowOption = 0,
    inbox_limit: InboxOption = 0,
    state_bytes: StateOption = 256,
    from_deliberation: FromOption = None,
    seed: SeedOption = 0,
    tick_interval: IntervalOption = 0.0,
    snapshot_every: SnapshotOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a population: every agent sends a message a tick, hears what it was sent, and changes its mind or not.

    Writes ticks.jsonl, snapshots, an event log and report.json. What comes out is simulated: these are not people.
    """
    spec = _specification(
        agents=agents,
        ticks=ticks,
        shards=_counted(shards),
        engine=engine,
        kernel=kernel,
        workers=workers,
        behaviour=behaviour,
        bound=bound,
        susceptibility=susceptibility,
        activity=activity,
        degree=degree,
        graph=graph,
        messages=messages,
        high_priority=high_priority,
        low_priority=low_priority,
        inbox_limit=inbox_limit,
        state_bytes=state_bytes,
        seed=seed,
        tick_interval_s=tick_interval,
        snapshot_ticks=snapshot_every,
    )

    def opened(settings: Any) -> AbstractContextManager[OpenedPopulation]:
        from api.bootstrap.population import open_population

        return open_population(settings, _seeded(settings, spec, from_deliberation), out=out)

    _run(opened, as_json=as_json)


def resume(folder: FolderArgument, from_tick: FromTickOption = None, as_json: JsonOption = False) -> None:
    """Go on with a population that was ended in the middle, however that happened: the end is the same as without it."""

    def opened(settings: Any) -> AbstractContextManager[OpenedPopulation]:
        from api.bootstrap.population import resume_population

        return resume_population(settings, folder, from_tick=from_tick)

    _run(opened, as_json=as_json)


def bench(
    kernel: KernelOption = "auto",
    ticks: BenchTicksOption = 100,
    kill_at: KillOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine against the table of targets, which is for two cores.

    Exit code 0 where every target that was measured is met, 1 otherwise.
    """
    from api.bootstrap import load_settings
    from api.bootstrap.population import bench_population
    from api.cli.exit_codes import ExitCode
    from api.cli.rendered_population import render_bench
    from api.cli.terminal import print_document, progress_console, result_console

    _specification(kernel=kernel)
    watched = progress_console()

    def say(what: str) -> None:
        if watched is not None:
            watched.print(f"measuring {what}")

    found = bench_population(load_settings(), kernel=kernel, ticks=ticks, kill_at=kill_at, say=say)
    if as_json:
        print_document(found)
    else:
        render_bench(result_console(), found)
    raise typer.Exit(ExitCode.ENDED_BADLY if found["missed"] else ExitCode.DONE)


def plan(
    agents: AgentsOption = 1_000_000,
    shards: ShardsOption = None,
    kernel: KernelOption = "auto",
    degree: DegreeOption = 8,
    graph: GraphOption = "random",
    state_bytes: StateOption = 256,
    as_json: JsonOption = False,
) -> None:
    """Say what a population would need of this machine, and begin none.

    Exit code 0 where it fits, 1 otherwise.
    """
    spec = _specification(
        agents=agents, shards=_counted(shards), kernel=kernel, degree=degree, graph=graph, state_bytes=state_bytes
    )
    from api.bootstrap.population import plan_population
    from api.cli.exit_codes import ExitCode
    from api.cli.rendered_population import render_plan
    from api.cli.terminal import print_document, result_console

    found = plan_population(spec)
    if as_json:
        print_document(found)
    else:
        render_plan(result_console(), found)
    raise typer.Exit(ExitCode.DONE if found["fits"] else ExitCode.ENDED_BADLY)


def _run(opened: Callable[[Any], AbstractContextManager[OpenedPopulation]], *, as_json: bool) -> None:
    from api.bootstrap import configure_logging, load_settings
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.recorded_run import run_recorded
    from api.cli.rendered_population import render_population, show_progress
    from api.cli.terminal import result_console
    from domain.models.run import RunKind

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)

    def render(document: Mapping[str, JsonValue]) -> None:
        render_population(result_console(), document)

    with opened(settings) as population:

        async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
            return await population.run(observer, stop)

        # The reasons of a deliberation's agents are no arguments for everybody to read.
        arguments = {name: value for name, value in population.specification.document().items() if name != "archetypes"}
        code = run_recorded(
            RunKind.POPULATION, arguments, work, settings=settings, as_json=as_json, render=render, show=show_progress
        )
    raise typer.Exit(code)


def _seeded(settings: Any, spec: PopulationSpecification, deliberation_id: str | None) -> PopulationSpecification:
    """That population, with the agents of the deliberation as its archetypes where one is named."""
    if deliberation_id is None:
        return spec
    from dataclasses import replace

    from api.bootstrap import run as run_in_loop
    from api.bootstrap.population import archetypes_from

    found = run_in_loop(archetypes_from(settings, deliberation_id))
    return replace(spec, archetypes=tuple(found), deliberation=deliberation_id)


def _counted(shards: int | None) -> int:
    """0 stands for one a core, and is nothing to ask for."""
    if shards == 0:
        raise typer.BadParameter("--shards must be a whole number from 1 to 1024")
    return shards or 0


def _specification(**given: Any) -> PopulationSpecification:
    from domain.errors.population import InvalidPopulationError
    from domain.models.population import PopulationSpecification

    try:
        return PopulationSpecification(**given)
    except InvalidPopulationError as error:
        named = {"/tick_interval_s": "--tick-interval", "/snapshot_ticks": "--snapshot-every"}
        problems = (
            f"{named.get(problem.pointer, '--' + problem.pointer[1:].replace('_', '-'))} {problem.message}"
            for problem in error.problems
        )
        raise typer.BadParameter("; ".join(problems)) from error
