"""The forms by which runs are started: for each kind the arguments that REST takes, in the words of the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.models.pantheon import MAX_REST_CYCLES, STEPS
from domain.models.pantheon import TRANSPORTS as PANTHEON_TRANSPORTS
from domain.models.population import BEHAVIOURS, GRAPHS
from domain.models.population_engines import ENGINES
from domain.models.population_minds import INFERENCES_OVER_REST
from domain.models.run import RunKind
from domain.models.soak import TRANSPORTS as SOAK_TRANSPORTS
from domain.models.swarm import TASKS
from domain.models.swarm import TRANSPORTS as SWARM_TRANSPORTS

__all__ = ["RUN_FORMS", "FieldKind", "RunField", "RunForms"]


class FieldKind(StrEnum):
    """How the words in a field become the value of an argument; nothing in it leaves the argument out."""

    WHOLE = "whole"
    NUMBER = "number"
    TEXT = "text"
    LONG = "long"
    CHOICE = "choice"
    FLAG = "flag"
    WORDS = "words"
    SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class RunField:
    """One argument: its name as in `arguments`, what people call it, and what stands in it at first."""

    name: str
    label: str
    kind: FieldKind
    hint: str = ""
    value: str = ""
    choices: Sequence[str] = ()
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class RunForms:
    """The form of one kind: the fields that matter first, and those for whoever looks for more."""

    kind: RunKind
    title: str
    about: str
    fields: Sequence[RunField]
    more: Sequence[RunField] = ()


_W, _N, _T, _C, _F = FieldKind.WHOLE, FieldKind.NUMBER, FieldKind.TEXT, FieldKind.CHOICE, FieldKind.FLAG

_POPULATION = RunForms(
    RunKind.POPULATION,
    "Population",
    "Light agents in memory that speak to each other and change their minds, tick by tick. Simulated people are not people.",
    [
        RunField("agents", "Agents", _W, "1 to 1,000,000", "10000"),
        RunField("ticks", "Ticks", _W, "up to 100,000", "100"),
        RunField("behaviour", "Behaviour", _C, choices=BEHAVIOURS),
        RunField("bound", "Bound", _N, "0 to 1: how far an opinion may lie to be heard", "0.2"),
        RunField("graph", "Who knows whom", _C, choices=GRAPHS),
        RunField("degree", "Degree", _W, "neighbours of each agent", "8"),
        RunField("from", "From deliberation", _T, "its id; else opinions begin uniform"),
        RunField("seed", "Seed", _W, "the same seed gives the same run", "0"),
    ],
    [
        RunField("tick_interval", "Tick interval", _N, "seconds from tick to tick; 0 is as fast as it goes"),
        RunField("messages", "Messages", _W, "of each agent in a tick"),
        RunField("susceptibility", "Susceptibility", _N, "0 to 1: how much of the way an agent moves"),
        RunField("activity", "Activity", _N, "0 to 1: the chance to speak in a tick"),
        RunField("seeds", "Seeds", _W, "so many populations, each with the next seed"),
        RunField("shards", "Shards", _W, "0: one for each core"),
        RunField("engine", "Engine", _C, choices=ENGINES),
        RunField("kernel", "Kernel", _C, choices=("auto", "numba", "numpy")),
        RunField("workers", "Workers", _C, choices=("auto", "threads", "processes")),
        RunField("high_priority", "High priority", _W, "percent of agents"),
        RunField("low_priority", "Low priority", _W, "percent of agents"),
        RunField("inbox_limit", "Inbox limit", _W, "0: no limit"),
        RunField("state_bytes", "State", _W, "bytes of each agent, 256 to 16,384"),
        RunField("snapshot_every", "Snapshot every", _W, "ticks; 0: about one a second"),
        RunField("begin_with", "Begin with", _W, "agents at first; 0: one in each row"),
        RunField("arrivals", "Arrivals", _N, "share of rows that come in a tick"),
        RunField("departures", "Departures", _N, "chance to leave in a tick"),
        RunField("command", "Commands", FieldKind.WORDS, "TICK:WHAT[:REGIONS], apart by blanks"),
        RunField("fold_every", "Fold every", _W, "ticks; 0: once, at the end"),
        RunField("memory_bytes", "Working memory", _W, "bytes of each agent"),
        RunField("metrics", "Metrics", _W, "counts of each agent"),
        RunField("peers", "Peers", _W, "agents heard last that are remembered"),
        RunField("inference", "Inference", _C, choices=tuple(INFERENCES_OVER_REST)),
        RunField("hot_percent", "Hot", _W, "percent of states"),
        RunField("warm_percent", "Warm", _W, "percent of states"),
        RunField("tiers", "States in tiers", _F),
        RunField("dormancy", "Dormancy", _F),
    ],
)
_SOAK = RunForms(
    RunKind.SOAK,
    "Soak",
    "Agents in processes of their own, asked in cycles for hours, to see that nothing leaks, slows down or stays dead.",
    [
        RunField("agents", "Agents", _W, "1 to 200", "10"),
        RunField("duration", "Duration", _N, "minutes, may be a fraction", "10"),
        RunField("interval", "Interval", _N, "seconds from cycle to cycle", "10"),
        RunField("response_timeout", "Response timeout", _N, "seconds", "30"),
        RunField("transport", "Transport", _C, choices=SOAK_TRANSPORTS),
        RunField("messages_per_cycle", "Messages a cycle", _W, "to each agent", "1"),
        RunField("kill_every", "Kill every", _N, "seconds; nothing: nobody is killed"),
        RunField("scale", "Scale", FieldKind.WORDS, "such as 20@cycle10, apart by blanks"),
    ],
)
_SWARM = RunForms(
    RunKind.SWARM,
    "Swarm",
    "Agents that do one task in batches over a bus: a coin each, or a question.",
    [
        RunField("task", "Task", _C, choices=TASKS),
        RunField("agents", "Agents", _W, "1 to 10,000; a question takes fewer", "128"),
        RunField("transport", "Transport", _C, choices=SWARM_TRANSPORTS),
        RunField("batches", "Batches", _T, "NxM, such as 32x4; N times M is the number of agents"),
        RunField("instances", "Instances", _W, "processes; more than one wants redis, file or shm", "1"),
        RunField("seed", "Seed", _W, "fixes each agent's flip"),
        RunField("timeout", "Timeout", _N, "seconds that an agent may be silent"),
        RunField("question", "Question", FieldKind.LONG, "for the task question only"),
    ],
)
_PANTHEON = RunForms(
    RunKind.PANTHEON,
    "Pantheon",
    "Nine roles in a row that observe, plan, check and carry out the steps of a task.",
    [
        RunField("task", "Task", FieldKind.LONG, "what the steps work on", is_needed=True),
        RunField("step", "Steps", FieldKind.SEVERAL, "none chosen: all, in this order", choices=tuple(STEPS)),
        RunField("transport", "Transport", _C, choices=PANTHEON_TRANSPORTS),
        RunField("cycles", "Cycles", _W, f"1 to {MAX_REST_CYCLES}", "1"),
    ],
)

RUN_FORMS: Sequence[RunForms] = (_POPULATION, _SOAK, _SWARM, _PANTHEON)
