"""What the commands about populations may be told, as the types of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.options import finite

__all__ = [
    "ActivityOption",
    "AgentsOption",
    "ArrivalsOption",
    "BeginOption",
    "BehaviourOption",
    "BenchTicksOption",
    "BoundOption",
    "BusNameOption",
    "BusOption",
    "CalibrationOption",
    "CommandOption",
    "DeadlineOption",
    "DegreeOption",
    "DeparturesOption",
    "DormancyOption",
    "EngineOption",
    "ExternalOption",
    "ExternalToOption",
    "FoldOption",
    "FolderArgument",
    "FromOption",
    "FromTickOption",
    "GraphOption",
    "HighOption",
    "InboxOption",
    "IntervalOption",
    "KernelOption",
    "KillOption",
    "LowOption",
    "MemoryOption",
    "MessagesOption",
    "MetricsOption",
    "OutOption",
    "PeersOption",
    "SeedOption",
    "SeedsOption",
    "ShardsOption",
    "SnapshotOption",
    "StateOption",
    "SusceptibilityOption",
    "TicksOption",
    "WorkersOption",
]

AgentsOption = Annotated[int, typer.Option("--agents", metavar="N", help="How many agents, up to 10,000,000.")]
TicksOption = Annotated[int, typer.Option("--ticks", metavar="N", help="How many ticks.")]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards", metavar="N", help="Into how many shards, up to 1,024; else one a core.", show_default=False
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="KIND",
        help="What carries them: local; ray, on the cluster of RAY_ADDRESS or one of this machine; torch, as tensors.",
    ),
]
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
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds",
        metavar="N",
        help="How many populations, each with the next seed, up to 100: the report then says what is chance.",
    ),
]
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
InferenceOption = Annotated[
    str,
    typer.Option(
        "--inference",
        metavar="KIND",
        help="What agents act by in each tick: none, policy (a network), torch (the same by PyTorch), openai (a model of text).",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--inference-weights",
        metavar="FILE",
        help="The network's weights, an .npz file with w1, b1, w2, ...; else by the seed.",
        show_default=False,
    ),
]
AskingOption = Annotated[
    int,
    typer.Option(
        "--inference-agents",
        metavar="N",
        help="How many agents ask in a tick, drawn anew each time; 0 for all, 8 of a model of text.",
    ),
]
ThinkersOption = Annotated[
    int, typer.Option("--thinkers", metavar="N", help="How many agents think, up to 1,000: an object each.")
]
ThinkerOption = Annotated[
    str,
    typer.Option(
        "--thinker",
        metavar="KIND",
        help="What thinks: model, roster or roster/NAME (its members in turn), or a class or function of your own as module:name.",
    ),
]
ThinkEveryOption = Annotated[
    int, typer.Option("--think-every", metavar="TICKS", help="Ticks from one turn of those who think to the next.")
]
AskDeadlineOption = Annotated[
    float,
    typer.Option(
        "--ask-deadline",
        metavar="S",
        help="The longest that a tick waits for models and for who thinks, in seconds.",
        callback=finite,
    ),
]
TopicOption = Annotated[
    str | None,
    typer.Option("--topic", metavar="TEXT", help="What models and thinking agents are asked.", show_default=False),
]
NotesOption = Annotated[
    str,
    typer.Option("--notes", metavar="KIND", help="How notes are searched: exact, or usearch where it is installed."),
]
CalibrationOption = Annotated[
    bool,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="Take a few ticks of a small one, to tell what a tick will take.",
        show_default=True,
    ),
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the population.")]
FromTickOption = Annotated[
    int | None,
    typer.Option(
        "--from-tick", metavar="N", min=0, help="From the snapshot of that tick; else the last.", show_default=False
    ),
]
DormancyOption = Annotated[
    bool,
    typer.Option("--dormancy", help="Pass over localities in which nothing can move anybody; the end is the same."),
]
CommandOption = Annotated[
    list[str] | None,
    typer.Option(
        "--command",
        metavar="TICK:WHAT[:REGIONS]",
        help="What the root has the agents of regions do before a tick: bound=X, susceptibility=X, activity=X, pause or wake.",
        show_default=False,
    ),
]
FoldOption = Annotated[
    int,
    typer.Option(
        "--fold-every",
        metavar="TICKS",
        help="Ticks from one fold of extremes and histograms to the next; 0 once, at the end.",
    ),
]
BeginOption = Annotated[
    int, typer.Option("--begin-with", metavar="N", help="How many agents there are at first; 0 one in every row.")
]
ArrivalsOption = Annotated[
    float,
    typer.Option("--arrivals", metavar="RATE", help="Agents that come in a tick, as a share of all rows, 0 to 1."),
]
DeparturesOption = Annotated[
    float, typer.Option("--departures", metavar="RATE", help="The chance of an agent to leave in a tick, 0 to 1.")
]
MemoryOption = Annotated[
    int, typer.Option("--memory-bytes", metavar="N", help="Working memory of each agent, for a behaviour of your own.")
]
MetricsOption = Annotated[
    int,
    typer.Option(
        "--metrics",
        metavar="N",
        help="Counts of each agent: messages heard, moves, way, ticks quiet, then those of your own.",
    ),
]
PeersOption = Annotated[
    int, typer.Option("--peers", metavar="N", help="How many of those it heard last each agent remembers.")
]
ExternalOption = Annotated[
    int,
    typer.Option("--external", metavar="N", help="The first N agents are spoken for by other processes, over a bus."),
]
ExternalToOption = Annotated[
    str,
    typer.Option("--external-to", metavar="NAMES", help="What these processes are called on the bus, apart by commas."),
]
DeadlineOption = Annotated[
    float,
    typer.Option(
        "--external-deadline", metavar="S", help="Seconds that a tick waits for them at most.", callback=finite
    ),
]
BusOption = Annotated[
    str | None,
    typer.Option(
        "--bus",
        metavar="KIND|URL",
        help="The bus to them: shm, file, redis, or the redis:// address of a server.",
        show_default=False,
    ),
]
BusNameOption = Annotated[str, typer.Option("--bus-name", metavar="NAME", help="The name of that bus.")]
