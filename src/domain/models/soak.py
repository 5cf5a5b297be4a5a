"""A soak: agents asked in cycles for hours, what is planned, and how that is said on the command line and over REST."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import FieldProblem
from domain.models.run import JsonValue

__all__ = [
    "MAX_AGENTS",
    "TRANSPORTS",
    "MessageKind",
    "ScaleStep",
    "SoakPlan",
    "arguments_from_rest",
    "command_line",
    "is_agent_id",
    "parse_scale",
]

MAX_AGENTS = 1_000
MAX_MESSAGES_PER_CYCLE = 1_000
TRANSPORTS = ("files", "memory", "redis", "file", "shm")
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCALE = re.compile(r"([0-9]{1,6})@(?:cycle)?([0-9]{1,9})")
_EPSILON = 1e-6


class MessageKind(StrEnum):
    """What an agent is asked to do: answer, work, or take memory and give it back."""

    PING = "ping"
    COMPUTE = "compute"
    MEMORY_TEST = "memory_test"

    @classmethod
    def of_cycle(cls, cycle: int) -> MessageKind:
        """The kind of that cycle, counted from 1: each in turn."""
        return tuple(cls)[(cycle - 1) % len(cls)]


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """From the beginning of `cycle` on there are `agents` agents."""

    agents: int
    cycle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """What a soak is to do. Times in seconds. Raises `ConfigurationError` naming the option that cannot be used."""

    agents: int = 50
    duration_s: float = 480 * 60.0
    interval_s: float = 300.0
    response_timeout_s: float = 30.0
    transport: str = "files"
    scale: tuple[ScaleStep, ...] = ()
    kill_every_s: float | None = None
    messages_per_cycle: int = 1

    def __post_init__(self) -> None:
        _want("--agents", 1 <= self.agents <= MAX_AGENTS, f"{self.agents} is not from 1 to {MAX_AGENTS}")
        for name, value in (
            ("--duration", self.duration_s),
            ("--interval", self.interval_s),
            ("--response-timeout", self.response_timeout_s),
            *((("--kill-every", self.kill_every_s),) if self.kill_every_s is not None else ()),
        ):
            _want(name, math.isfinite(value) and value > 0, f"{value:g} is not a time above 0")
        _want("--transport", self.transport in TRANSPORTS, f"{self.transport!r} is none of {', '.join(TRANSPORTS)}")
        _want(
            "--messages-per-cycle",
            1 <= self.messages_per_cycle <= MAX_MESSAGES_PER_CYCLE,
            f"{self.messages_per_cycle} is not from 1 to {MAX_MESSAGES_PER_CYCLE}",
        )
        for step in self.scale:
            _want("--scale", 1 <= step.agents <= MAX_AGENTS, f"{step.agents} agents are not from 1 to {MAX_AGENTS}")
            _want("--scale", step.cycle >= 1, "cycles are counted from 1")

    @property
    def cycles(self) -> int:
        """How many cycles fit: duration over interval, at least one."""
        return max(1, math.floor(self.duration_s / self.interval_s + _EPSILON))

    def agents_in(self, cycle: int) -> int:
        """How many agents there are to be in that cycle; the later of two steps at one cycle holds."""
        wanted = self.agents
        for step in sorted(self.scale, key=lambda step: step.cycle):
            if step.cycle <= cycle:
                wanted = step.agents
        return wanted

    @property
    def most_agents(self) -> int:
        """The most there are at any time."""
        return max(self.agents, *(step.agents for step in self.scale)) if self.scale else self.agents

    def document(self) -> dict[str, JsonValue]:
        """The plan as JSON, from which `from_document` makes it again."""
        return {
            "agents": self.agents,
            "duration_s": self.duration_s,
            "interval_s": self.interval_s,
            "response_timeout_s": self.response_timeout_s,
            "transport": self.transport,
            "scale": [f"{step.agents}@cycle{step.cycle}" for step in self.scale],
            "kill_every_s": self.kill_every_s,
            "messages_per_cycle": self.messages_per_cycle,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, JsonValue]) -> SoakPlan:
        """The plan that `document` describes. Raises `ConfigurationError` for what is none."""
        known = dict(document)
        scale = known.pop("scale", [])
        try:
            return cls(scale=parse_scale([str(step) for step in scale or ()]), **known)  # type: ignore[arg-type, union-attr]
        except TypeError as error:
            raise ConfigurationError(
                variable="--resume", problem="what is to be resumed is no plan of a soak", remedy="Start a new soak."
            ) from error


def parse_scale(texts: Sequence[str]) -> tuple[ScaleStep, ...]:
    """`20@cycle10` or `20@10`: 20 agents from cycle 10 on. Raises `ConfigurationError`."""
    steps = []
    for text in texts:
        found = _SCALE.fullmatch(text.strip())
        _want("--scale", found is not None, f"{text!r} is not of the form 20@cycle10")
        if found is not None:
            steps.append(ScaleStep(int(found.group(1)), int(found.group(2))))
    return tuple(steps)


def is_agent_id(text: str) -> bool:
    """Whether that can be the id of an agent: 1 to 64 letters, digits, dots, dashes and underscores, the first no mark."""
    return _AGENT_ID.fullmatch(text) is not None


def _want(option: str, holds: object, problem: str) -> None:
    if not holds:
        raise ConfigurationError(variable=option, problem=problem, remedy="Change it and start again.")


@dataclass(frozen=True, slots=True)
class _Bounds:
    lowest: float
    highest: float
    default: int | float | None
    whole: bool = False


# Over REST somebody else's machine works: less of everything than its owner may ask of it.
_REST: Mapping[str, _Bounds] = {
    "agents": _Bounds(1, 200, 50, whole=True),
    "duration": _Bounds(0.01, 1_440, 480),
    "interval": _Bounds(0.1, 3_600, 300),
    "response_timeout": _Bounds(0.1, 120, 30),
    "kill_every": _Bounds(1, 86_400, None),
    "messages_per_cycle": _Bounds(1, 20, 1, whole=True),
}
_MAX_REST_CYCLES = 20_000
_MAX_REST_MESSAGES = 2_000_000
_MAX_REST_STEPS = 20
_SECONDS_OF_MINUTE = 60.0


def arguments_from_rest(document: Mapping[str, object]) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    """The arguments of a soak as REST takes them, with defaults filled in, and what is wrong with them.

    Minutes (`duration`) and seconds, as on the command line. A pointer is below `/arguments`.
    """
    found: dict[str, JsonValue] = {}
    problems = [
        FieldProblem(f"/arguments/{_escaped(name)}", "is not an argument of a soak")
        for name in document
        if name not in _REST and name not in ("transport", "scale")
    ]
    for name, bounds in _REST.items():
        value = document.get(name, bounds.default)
        if value is None:
            if name in document and bounds.default is not None:
                problems.append(FieldProblem(f"/arguments/{name}", "is null"))
            continue
        problem = _number_problem(value, bounds)
        if problem:
            problems.append(FieldProblem(f"/arguments/{name}", problem))
        elif isinstance(value, int | float):
            found[name] = value
    transport = document.get("transport", "files")
    if isinstance(transport, str) and transport in TRANSPORTS:
        found["transport"] = transport
    else:
        problems.append(FieldProblem("/arguments/transport", f"is none of {', '.join(TRANSPORTS)}"))
    problems += _take_scale(document, found)
    return found, problems or _size_problems(found)


def command_line(arguments: Mapping[str, JsonValue]) -> list[str]:
    """The command that runs what `arguments_from_rest` returned."""
    words = ["soak", "run"]
    for name, value in arguments.items():
        if name == "scale" and isinstance(value, list):
            for step in value:
                words += ["--scale", str(step)]
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _take_scale(document: Mapping[str, object], found: dict[str, JsonValue]) -> list[FieldProblem]:
    scale = document.get("scale")
    if scale is None:
        return []
    texts = [scale] if isinstance(scale, str) else scale
    if not isinstance(texts, list) or len(texts) > _MAX_REST_STEPS:
        return [FieldProblem("/arguments/scale", f"is not a list of at most {_MAX_REST_STEPS} steps like 20@cycle10")]
    problems = []
    steps: list[JsonValue] = []
    for place, text in enumerate(texts):
        step = _SCALE.fullmatch(text) if isinstance(text, str) else None
        if step is None or not 1 <= int(step.group(1)) <= _REST["agents"].highest or int(step.group(2)) < 1:
            where = "/arguments/scale" if isinstance(scale, str) else f"/arguments/scale/{place}"
            problems.append(FieldProblem(where, f"is not like 20@cycle10 with 1 to {_REST['agents'].highest:g} agents"))
        else:
            steps.append(str(text))
    found["scale"] = steps
    return problems


def _number_problem(value: object, bounds: _Bounds) -> str:
    kind = int if bounds.whole else (int | float)
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        return "is not a whole number" if bounds.whole else "is not a number"
    if not bounds.lowest <= value <= bounds.highest:
        return f"is not from {bounds.lowest:g} to {bounds.highest:g}"
    return ""


def _size_problems(found: Mapping[str, JsonValue]) -> list[FieldProblem]:
    """What is too much although each number alone is not."""
    plan = SoakPlan(
        agents=int(str(found["agents"])),
        duration_s=float(str(found["duration"])) * _SECONDS_OF_MINUTE,
        interval_s=float(str(found["interval"])),
        messages_per_cycle=int(str(found["messages_per_cycle"])),
        scale=parse_scale([str(step) for step in found.get("scale") or ()]),  # type: ignore[union-attr]
    )
    if plan.cycles > _MAX_REST_CYCLES:
        return [
            FieldProblem("/arguments/duration", f"holds {plan.cycles} intervals; at most {_MAX_REST_CYCLES} are taken")
        ]
    messages = plan.cycles * plan.most_agents * plan.messages_per_cycle
    if messages > _MAX_REST_MESSAGES:
        return [
            FieldProblem("/arguments/duration", f"makes {messages} messages; at most {_MAX_REST_MESSAGES} are taken")
        ]
    return []


def _escaped(name: str) -> str:
    """A name in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
