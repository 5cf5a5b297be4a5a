"""A population: what is asked of one, checked, and how it is named on the command line, over REST and in its folder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.archetype import MAX_ARCHETYPES, Archetype, Decision
from domain.models.population_demands import problems_with
from domain.models.population_engines import ENGINES, engine_problems
from domain.models.population_minds import (
    ASKING_A_MODEL,
    DEFAULT_TOPIC,
    INFERENCES_OVER_REST,
    asks_models,
    mind_problems,
)
from domain.models.population_tiers import tier_problems
from domain.models.run import JsonValue

__all__ = [
    "ADOPTED",
    "BEHAVIOURS",
    "GRAPHS",
    "GRID",
    "GRID_BITS",
    "LOCALITY",
    "MAX_AGENTS",
    "MAX_SHARDS",
    "PopulationSpecification",
    "arguments_from_rest",
    "command_line",
]

MAX_AGENTS = 10_000_000
MAX_SHARDS = 1_024
LOCALITY = 100
"""Agents in a row that form one community block: what a shard takes over as a whole, and what one node of the tree sums."""

GRID_BITS = 39
GRID = 1 << GRID_BITS
"""Opinions are whole multiples of 1 / GRID, so that sums of them are exact and the same in any order."""

ADOPTED = 0.95
"""Who holds at least this opinion has adopted, where the behaviour is `threshold`."""

BEHAVIOURS = ("bounded_confidence", "degroot", "voter", "threshold")
GRAPHS = ("random", "small_world", "scale_free", "communities", "mixed")
_KERNELS = ("auto", "numba", "numpy")
_WORKERS = ("auto", "threads", "processes")
_MAX_DEGREE = 1_000
_MAX_MESSAGES = 100
_STATE_BYTES = (256, 16_384)
_MAX_TICKS = 10_000_000
_MAX_SEED = 2**63 - 1
_MAX_SEEDS = 100
_MAX_INTERVAL_S = 3_600.0
_MAX_REST_AGENTS = 1_000_000
_MAX_REST_TICKS = 100_000
_DELIBERATION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationSpecification:
    """One population and how long it runs. Raises `InvalidPopulationError`, which names every bad field."""

    agents: int = 1_000_000
    ticks: int = 100
    # 0: one for each core.
    shards: int = 0
    engine: str = "local"
    kernel: str = "auto"
    workers: str = "auto"
    # A built-in one, or `module:Class`.
    behaviour: str = BEHAVIOURS[0]
    # How far an opinion may lie from one's own to be heard; the share of neighbours that it takes, for `threshold`.
    bound: float = 0.2
    # The share of the way that an agent moves towards what it hears; the chance to adopt it, for `voter`.
    susceptibility: float = 0.5
    # The chance of an agent to send its messages in a tick.
    activity: float = 1.0
    degree: int = 8
    # A built-in one, or the path of an edge file.
    graph: str = GRAPHS[0]
    messages: int = 1
    # The shares in percent of agents whose messages are of high and of low priority.
    high_priority: int = 0
    low_priority: int = 0
    # The most messages that a behaviour with an inbox is handed for one agent and tick; 0: all.
    inbox_limit: int = 0
    state_bytes: int = _STATE_BYTES[0]
    seed: int = 0
    tick_interval_s: float = 0.0
    # 0: about one a second.
    snapshot_ticks: int = 0
    # Whose communities the agents begin in, and from which deliberation; none: opinions begin uniform on 0-1.
    archetypes: tuple[Archetype, ...] = ()
    deliberation: str | None = None
    # What that deliberation decided, to compare the end with.
    decision: Decision | None = None
    # So many populations, each with the next seed, say how much of what comes out is chance.
    seeds: int = 1
    # Localities in which nothing can move anybody are neither stepped nor, where nobody near could be moved, sent for.
    dormancy: bool = False
    # What the root has the workers of regions do before a tick: `TICK:WHAT[:REGIONS]`, see `Command`.
    commands: tuple[str, ...] = ()
    # Ticks from one fold of extremes and histograms to the next; 0: once, at the end.
    fold_ticks: int = 0
    # How many agents there are at first, 0: one in each row; and the shares of all rows that come, of the living that leave, in a tick.
    begin_with: int = 0
    arrivals: float = 0.0
    departures: float = 0.0
    # Columns beside the others: bytes to work with, counts of each agent's own, and whom it heard last.
    memory_bytes: int = 0
    metrics: int = 0
    peers: int = 0
    # The first so many rows are spoken for by others, over a bus: their names, apart by commas, and how long a tick waits for them.
    external: int = 0
    external_to: str = "external"
    external_deadline_s: float = 0.05
    bus: str = "shm"
    bus_name: str = "population"

    # What each agent acts by in each tick beside its behaviour.
    inference: str = "none"
    # An .npz file of the network's weights; none: weights by the seed.
    inference_weights: str = ""
    # How many agents ask in a tick; 0: all, or those that a model of text may be asked by.
    inference_agents: int = 0
    # Agents with an object behind them, what that is, and from how many ticks to how many it is asked.
    thinkers: int = 0
    thinker: str = "model"
    think_every: int = 10
    # The longest that a tick waits for whoever was asked.
    ask_deadline_s: float = 10.0
    # What models and thinking agents are asked about.
    topic: str = DEFAULT_TOPIC
    # How notes are searched.
    notes: str = "exact"
    # Whether the states lie in tiers, what keeps those that are not hot, and how many percent are hot and warm.
    tiers: bool = False
    warm: str = "lz4"
    cold: str = "sqlite"
    hot_percent: int = 10
    warm_percent: int = 20

    def __post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise InvalidPopulationError(problems)

    def document(self) -> dict[str, JsonValue]:
        """All fields by name."""
        return {
            **asdict(self),
            "archetypes": [asdict(archetype) for archetype in self.archetypes],
            "decision": None if self.decision is None else asdict(self.decision),
            "commands": list(self.commands),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PopulationSpecification:
        """What `document` gave; unknown names are refused. Raises `InvalidPopulationError`."""
        known = {field.name for field in fields(cls)}
        if unknown := [name for name in document if name not in known]:
            raise InvalidPopulationError(
                [FieldProblem("", f"{name[:80]!r} is no field of a population") for name in unknown]
            )
        given = dict(document)
        if isinstance(found := given.get("archetypes"), list | tuple):
            given["archetypes"] = tuple(one if isinstance(one, Archetype) else Archetype(**one) for one in found)
        if isinstance(decided := given.get("decision"), Mapping):
            given["decision"] = Decision(**decided)
        if isinstance(commands := given.get("commands"), list):
            given["commands"] = tuple(commands)
        return cls(**given)

    @property
    def edge_file(self) -> Path | None:
        """The file that names who knows whom, where it is no built-in graph."""
        return None if self.graph in GRAPHS else Path(self.graph)

    @property
    def asks_models(self) -> bool:
        """Whether language models are asked, for which a provider has to be set."""
        return self.inference == "openai" or (self.thinkers > 0 and asks_models(self.thinker))

    @property
    def asking_agents(self) -> int:
        """How many agents ask in a tick; 0: all."""
        return self.inference_agents or (ASKING_A_MODEL if self.inference == "openai" else 0)

    @property
    def localities(self) -> int:
        """How many community blocks there are."""
        return -(-self.agents // LOCALITY)

    @property
    def rests(self) -> bool:
        """Whether there may be localities that a tick passes over."""
        return bool(self.dormancy or self.commands or self.begin_with or self.arrivals or self.departures)


def _problems(given: PopulationSpecification) -> list[FieldProblem]:
    found = [
        _whole("agents", given.agents, 1, MAX_AGENTS),
        _whole("ticks", given.ticks, 0, _MAX_TICKS),
        _whole("shards", given.shards, 0, MAX_SHARDS),
        _named("engine", given.engine, ENGINES),
        _named("kernel", given.kernel, _KERNELS),
        _named("workers", given.workers, _WORKERS),
        _fraction("bound", given.bound),
        _fraction("susceptibility", given.susceptibility),
        _fraction("activity", given.activity),
        _whole("degree", given.degree, 1, _MAX_DEGREE),
        _whole("messages", given.messages, 1, _MAX_MESSAGES),
        _whole("high_priority", given.high_priority, 0, 100),
        _whole("low_priority", given.low_priority, 0, 100),
        _whole("inbox_limit", given.inbox_limit, 0, 1_000_000),
        _whole("state_bytes", given.state_bytes, *_STATE_BYTES),
        _whole("seed", given.seed, 0, _MAX_SEED),
        _whole("snapshot_ticks", given.snapshot_ticks, 0, _MAX_TICKS),
        _whole("seeds", given.seeds, 1, _MAX_SEEDS),
        _interval(given.tick_interval_s),
    ]
    problems = [problem for problem in found if problem is not None]
    if given.behaviour not in BEHAVIOURS and not _OWN.fullmatch(str(given.behaviour)):
        problems.append(FieldProblem("/behaviour", f"must be one of {', '.join(BEHAVIOURS)}, or module:Class"))
    if not str(given.graph) or not str(given.graph).isprintable():
        problems.append(FieldProblem("/graph", f"must be one of {', '.join(GRAPHS)}, or the path of an edge file"))
    if len(given.archetypes) > MAX_ARCHETYPES:
        problems.append(FieldProblem("/archetypes", f"must be at most {MAX_ARCHETYPES}"))
    if problems:
        return problems
    problems += [
        FieldProblem(f"/archetypes/{number}", problem)
        for number, archetype in enumerate(given.archetypes)
        if (problem := archetype.problem())
    ]
    if given.decision is not None and (problem := given.decision.problem()):
        problems.append(FieldProblem("/decision", problem))
    if given.seed + given.seeds - 1 > _MAX_SEED:
        problems.append(FieldProblem("/seeds", f"goes beyond the last seed, {_MAX_SEED}"))
    if given.high_priority + given.low_priority > 100:
        problems.append(FieldProblem("/low_priority", "and /high_priority are more than 100 percent together"))
    if given.graph in GRAPHS[:-1] and given.degree >= given.agents:
        problems.append(FieldProblem("/degree", "must be less than the number of agents"))
    if given.state_bytes % 8:
        problems.append(FieldProblem("/state_bytes", "must be a multiple of 8"))
    problems += problems_with(given)
    problems += engine_problems(given)
    problems += mind_problems(given)
    problems += tier_problems(given)
    return problems


def _whole(name: str, value: object, least: int, most: int) -> FieldProblem | None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        return FieldProblem(f"/{name}", f"must be a whole number from {least} to {most}")
    return None


def _fraction(name: str, value: object) -> FieldProblem | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        return FieldProblem(f"/{name}", "must be a number from 0 to 1")
    return None


def _interval(value: object) -> FieldProblem | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not 0.0 <= float(value) <= _MAX_INTERVAL_S:  # type: ignore[arg-type]
        return FieldProblem("/tick_interval_s", f"must be a number of seconds from 0 to {_MAX_INTERVAL_S:g}")
    return None


def _named(name: str, value: object, names: tuple[str, ...]) -> FieldProblem | None:
    return None if value in names else FieldProblem(f"/{name}", f"must be one of {', '.join(names)}")


# What REST may set, with the names of the options.
_REST = {
    "agents": "agents",
    "ticks": "ticks",
    "shards": "shards",
    "engine": "engine",
    "kernel": "kernel",
    "workers": "workers",
    "behaviour": "behaviour",
    "bound": "bound",
    "susceptibility": "susceptibility",
    "activity": "activity",
    "degree": "degree",
    "graph": "graph",
    "messages": "messages",
    "high_priority": "high_priority",
    "low_priority": "low_priority",
    "inbox_limit": "inbox_limit",
    "state_bytes": "state_bytes",
    "from": "deliberation",
    "seed": "seed",
    "seeds": "seeds",
    "tick_interval": "tick_interval_s",
    "snapshot_every": "snapshot_ticks",
    "dormancy": "dormancy",
    "command": "commands",
    "fold_every": "fold_ticks",
    "begin_with": "begin_with",
    "arrivals": "arrivals",
    "departures": "departures",
    "memory_bytes": "memory_bytes",
    "metrics": "metrics",
    "peers": "peers",
    "inference": "inference",
    "tiers": "tiers",
    "hot_percent": "hot_percent",
    "warm_percent": "warm_percent",
}


def arguments_from_rest(document: Mapping[str, object]) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    """The arguments of `POST /v1/runs` with their defaults, and what is wrong with them by JSON pointer (RFC 6901).

    Names are those of the options with `_` for `-`; nothing in it names code, a file, a folder or a server, or spends money, and at
    most a million agents run for at most 100,000 ticks.
    """
    found = [
        FieldProblem(_pointer(name), "is no argument of a population run") for name in document if name not in _REST
    ]
    given = {_REST[name]: value for name, value in document.items() if name in _REST}
    if "behaviour" in given and given["behaviour"] not in BEHAVIOURS:
        found.append(FieldProblem("/arguments/behaviour", f"must be one of {', '.join(BEHAVIOURS)}"))
        del given["behaviour"]
    if "inference" in given and given["inference"] not in INFERENCES_OVER_REST:
        found.append(FieldProblem("/arguments/inference", f"must be one of {', '.join(INFERENCES_OVER_REST)}"))
        del given["inference"]
    if "graph" in given and given["graph"] not in GRAPHS:
        found.append(FieldProblem("/arguments/graph", f"must be one of {', '.join(GRAPHS)}"))
        del given["graph"]
    if not isinstance(named := given.get("deliberation"), str | None) or (
        named is not None and not _DELIBERATION.fullmatch(named)
    ):
        found.append(FieldProblem("/arguments/from", "must be the id of a deliberation"))
        del given["deliberation"]
    for name, most in (("agents", _MAX_REST_AGENTS), ("ticks", _MAX_REST_TICKS)):
        value = given.get(name)
        if isinstance(value, int) and value > most:
            found.append(FieldProblem(f"/arguments/{name}", f"must be at most {most} over REST"))
            del given[name]
    try:
        checked = PopulationSpecification.from_document(given)
    except InvalidPopulationError as error:
        names = {field: name for name, field in _REST.items()}
        for problem in error.problems:
            field, slash, place = problem.pointer[1:].partition("/")
            found.append(FieldProblem(f"/arguments/{names.get(field, field)}{slash}{place}", problem.message))
    if found:
        return {}, found
    told = checked.document()
    return {name: told[field] for name, field in _REST.items()}, []


def _pointer(name: str) -> str:
    return f"/arguments/{name}" if name.isidentifier() and len(name) <= 80 else "/arguments"


def command_line(arguments: Mapping[str, JsonValue]) -> list[str]:
    """The command that runs these arguments, each in one word, so that no text can pass for an option."""
    given = {name: arguments[name] for name in _REST if arguments.get(name) is not None}
    if not given.get("shards"):
        # One for each core is what is done unasked.
        given.pop("shards", None)
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is True]
    options = [
        f"--{name.replace('_', '-')}={one}"
        for name, value in given.items()
        for one in (value if isinstance(value, list) else [value])
        if not isinstance(one, bool)
    ]
    return ["population", "run", *options, *flags]
