"""`conclave population`: up to ten million simulated agents in columns, tick after tick.

It is long because every option of `run` stands in it three times: imported, declared, and handed on as the field that it sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.cli.options import HelpOption, JsonOption, add_group, want_command
from api.cli.population_export import export
from api.cli.population_options import (
    ActivityOption,
    AgentsOption,
    ArrivalsOption,
    AskDeadlineOption,
    AskingOption,
    BeginOption,
    BehaviourOption,
    BenchTicksOption,
    BoundOption,
    BusNameOption,
    BusOption,
    CalibrationOption,
    CommandOption,
    DeadlineOption,
    DegreeOption,
    DeparturesOption,
    DormancyOption,
    EngineOption,
    ExternalOption,
    ExternalToOption,
    FolderArgument,
    FoldOption,
    FromOption,
    FromTickOption,
    GraphOption,
    HighOption,
    InboxOption,
    InferenceOption,
    IntervalOption,
    KernelOption,
    KillOption,
    LowOption,
    MemoryOption,
    MessagesOption,
    MetricsOption,
    NotesOption,
    OutOption,
    PeersOption,
    SeedOption,
    SeedsOption,
    ShardsOption,
    SnapshotOption,
    StateOption,
    SusceptibilityOption,
    ThinkerOption,
    ThinkersOption,
    ThinkEveryOption,
    TicksOption,
    TopicOption,
    WeightsOption,
    WorkersOption,
)
from api.cli.population_tier_options import ColdOption, HotShareOption, TiersOption, WarmOption, WarmShareOption

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from api.bootstrap.population import OpenedPopulation
    from application.ports.run_observer import RunObserver
    from application.services.stop_signal import StopSignal
    from domain.models.population import PopulationSpecification
    from domain.models.run import JsonValue, RunEnding

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    add_group(
        app,
        "population",
        population,
        {"run": run, "resume": resume, "bench": bench, "plan": plan, "export": export},
    )


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
    tiers: TiersOption = False,
    warm: WarmOption = "lz4",
    cold: ColdOption = "sqlite",
    hot_percent: HotShareOption = 10,
    warm_percent: WarmShareOption = 20,
    from_deliberation: FromOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    tick_interval: IntervalOption = 0.0,
    snapshot_every: SnapshotOption = 0,
    inference: InferenceOption = "none",
    inference_weights: WeightsOption = None,
    inference_agents: AskingOption = 0,
    thinkers: ThinkersOption = 0,
    thinker: ThinkerOption = "model",
    think_every: ThinkEveryOption = 10,
    ask_deadline: AskDeadlineOption = 10.0,
    topic: TopicOption = None,
    notes: NotesOption = "exact",
    dormancy: DormancyOption = False,
    command: CommandOption = None,
    fold_every: FoldOption = 0,
    begin_with: BeginOption = 0,
    arrivals: ArrivalsOption = 0.0,
    departures: DeparturesOption = 0.0,
    memory_bytes: MemoryOption = 0,
    metrics: MetricsOption = 0,
    peers: PeersOption = 0,
    external: ExternalOption = 0,
    external_to: ExternalToOption = "external",
    external_deadline: DeadlineOption = 0.05,
    bus: BusOption = None,
    bus_name: BusNameOption = "population",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a population: every agent sends a message a tick, hears what it was sent, and changes its mind or not.

    Writes ticks.jsonl, snapshots, an event log, report.json and report.html. What comes out is simulated: these are not people.
    """
    from api.cli.population_fields import address_of, kind_of, shard_count, specification

    spec = specification(
        agents=agents,
        ticks=ticks,
        shards=shard_count(shards),
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
        tiers=tiers,
        warm=warm,
        cold=cold,
        hot_percent=hot_percent,
        warm_percent=warm_percent,
        seed=seed,
        seeds=seeds,
        tick_interval_s=tick_interval,
        snapshot_ticks=snapshot_every,
        inference=inference,
        # Where it lies, whatever folder it is resumed in.
        inference_weights=str(inference_weights.absolute()) if inference_weights else "",
        inference_agents=inference_agents,
        thinkers=thinkers,
        thinker=thinker,
        think_every=think_every,
        ask_deadline_s=ask_deadline,
        **({} if topic is None else {"topic": topic}),
        notes=notes,
        dormancy=dormancy,
        commands=tuple(command or ()),
        fold_ticks=fold_every,
        begin_with=begin_with,
        arrivals=arrivals,
        departures=departures,
        memory_bytes=memory_bytes,
        metrics=metrics,
        peers=peers,
        external=external,
        external_to=external_to,
        external_deadline_s=external_deadline,
        bus=kind_of(bus),
        bus_name=bus_name,
    )

    def opened(settings: Any) -> AbstractContextManager[OpenedPopulation]:
        from api.bootstrap.population import open_population

        return open_population(settings, _seeded(settings, spec, from_deliberation), out=out, bus_url=address_of(bus))

    _run(opened, as_json=as_json)


def resume(
    folder: FolderArgument, from_tick: FromTickOption = None, bus: BusOption = None, as_json: JsonOption = False
) -> None:
    """Go on with a population that was ended in the middle, however that happened: the end is the same as without it."""

    def opened(settings: Any) -> AbstractContextManager[OpenedPopulation]:
        from api.bootstrap.population import resume_population
        from api.cli.population_fields import address_of

        return resume_population(settings, folder, from_tick=from_tick, bus_url=address_of(bus))

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
    from api.cli.population_fields import specification
    from api.cli.rendered_population import render_bench
    from api.cli.terminal import print_document, progress_console, result_console

    specification(kernel=kernel)
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
    tiers: TiersOption = False,
    out: OutOption = None,
    calibrate: CalibrationOption = True,
    as_json: JsonOption = False,
) -> None:
    """Say what a population would need and what this machine has, and begin none: memory, cores, devices, networks, disk, time.

    Exit code 0 where it fits, 1 otherwise.
    """
    from api.cli.population_fields import shard_count, specification

    spec = specification(
        agents=agents,
        shards=shard_count(shards),
        kernel=kernel,
        degree=degree,
        graph=graph,
        state_bytes=state_bytes,
        tiers=tiers,
    )
    from api.bootstrap import load_settings
    from api.bootstrap.population import DEFAULT_OUT
    from api.bootstrap.population_plan import plan_population
    from api.cli.exit_codes import ExitCode
    from api.cli.rendered_population import render_plan
    from api.cli.terminal import print_document, result_console

    found = plan_population(load_settings(), spec, out=out or Path(DEFAULT_OUT), calibrate=calibrate)
    if as_json:
        print_document(found)
    else:
        render_plan(result_console(), found)
    raise typer.Exit(ExitCode.DONE if found["fits"] else ExitCode.ENDED_BADLY)


def _run(opened: Callable[[Any], AbstractContextManager[OpenedPopulation]], *, as_json: bool) -> None:
    from api.bootstrap import configure_logging, load_settings
    from api.cli.population_fields import bad_parameter
    from api.cli.quiet_log import keep_log_quiet
    from api.cli.recorded_run import run_recorded
    from api.cli.rendered_population import render_population, show_progress
    from api.cli.terminal import result_console
    from domain.errors.population import InvalidPopulationError, PopulationFolderError
    from domain.models.run import RunKind

    settings = load_settings()
    configure_logging(settings)
    keep_log_quiet(settings)

    def render(document: Mapping[str, JsonValue]) -> None:
        render_population(result_console(), document)

    try:
        with ExitStack() as stack:
            try:
                population = stack.enter_context(opened(settings))
            except PopulationFolderError as error:
                # Nothing has begun: another folder is wanted.
                raise typer.BadParameter(str(error)) from error

            async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
                return await population.run(observer, stop)

            # The reasons of a deliberation's agents are no arguments for everybody to read.
            arguments = {
                name: value for name, value in population.specification.document().items() if name != "archetypes"
            }
            code = run_recorded(
                RunKind.POPULATION,
                arguments,
                work,
                settings=settings,
                as_json=as_json,
                render=render,
                show=show_progress,
            )
    except InvalidPopulationError as error:
        # Known only once what it names was looked at.
        raise bad_parameter(error) from error
    raise typer.Exit(code)


def _seeded(settings: Any, spec: PopulationSpecification, deliberation_id: str | None) -> PopulationSpecification:
    """That population, with the agents of the deliberation as its archetypes where one is named."""
    if deliberation_id is None:
        return spec
    from dataclasses import replace

    from api.bootstrap import run as run_in_loop
    from api.bootstrap.population import beginning_from

    archetypes, decision = run_in_loop(beginning_from(settings, deliberation_id))
    return replace(spec, archetypes=tuple(archetypes), decision=decision, deliberation=deliberation_id)
