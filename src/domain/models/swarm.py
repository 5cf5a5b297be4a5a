"""A swarm: agents that do one task in batches over a bus, what it may be asked for, and the coin that its agents flip."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.errors.deliberation import FieldProblem
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.run import JsonValue
from domain.models.text import MAX_QUESTION_BYTES, text_problem

__all__ = [
    "BATCH_SIZE",
    "COIN_FLIP",
    "DEFAULT_AGENTS",
    "HEADS",
    "MAX_AGENTS",
    "MAX_INSTANCES",
    "MAX_SEED",
    "MAX_TIMEOUT_S",
    "QUESTION",
    "ROLES",
    "TAILS",
    "TASKS",
    "TRANSPORTS",
    "Coin",
    "SwarmPlan",
    "arguments_from_rest",
    "checked_arguments",
    "command_line",
    "is_session",
    "split",
]

ROLES = ("coordinator", "observer", "actor", "memory", "tool", "safety", "log", "backup")
TRANSPORTS = ("memory", "redis", "file", "shm")

COIN_FLIP = "coin-flip"
QUESTION = "question"
# What has a name of its own; a function is named `module:function`, on the command line only.
TASKS = (COIN_FLIP, QUESTION)
# The task was a sentence once, and scripts still say it.
_EARLIER_NAMES = {"128 agents flip coin, aggregate heads/tails": COIN_FLIP}

HEADS = "heads"
TAILS = "tails"

DEFAULT_AGENTS = 128
MAX_AGENTS = 10_000
MAX_INSTANCES = 32
BATCH_SIZE = 4
# The largest integer that every reader of JSON has exactly.
MAX_SEED = 2**53 - 1
# Longest patience with a silent agent: a day.
MAX_TIMEOUT_S = 86_400

_BATCHES = re.compile(r"([1-9][0-9]{0,5})[xX]([1-9][0-9]{0,5})")
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NAMES = ("agents", "task", "question", "transport", "batches", "seed", "instances", "timeout")
_DRAWS_PER_DIGEST = 256


class Coin:
    """A fair coin whose every flip is fixed by a seed and the number of its agent, on any machine and any Python.

    The bits of SHA-256 over the seed, the agent's number and a counter, as a hash generator (NIST SP 800-90A) draws them.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._key = f"conclave coin {seed} {number} "
        self._drawn = 0
        self._bits = 0

    def flip(self) -> str:
        """`heads` or `tails`."""
        if self._drawn % _DRAWS_PER_DIGEST == 0:
            block = self._drawn // _DRAWS_PER_DIGEST
            self._bits = int.from_bytes(hashlib.sha256(f"{self._key}{block}".encode()).digest(), "big")
        self._drawn += 1
        self._bits, bit = divmod(self._bits, 2)
        return HEADS if bit else TAILS


@dataclass(frozen=True, slots=True)
class SwarmPlan:
    """What one swarm is to do. Agents are numbered from 1; `items` has one entry for each, or is None where there are none."""

    session: str
    task: str
    agents: int
    batch_size: int
    transport: str
    seed: int
    instances: int = 1
    items: tuple[str, ...] | None = None
    # How long an agent may be silent before its batch is retried, in seconds.
    patience_s: float = 30.0
    # How often one agent is asked, all in all, where it fails or is silent.
    max_attempts: int = 2

    @property
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """The agents' numbers, batch by batch."""
        return split(self.agents, self.batch_size)

    def item_of(self, number: int) -> str | None:
        """What that agent works on, where the task has items."""
        return None if self.items is None else self.items[number - 1]


def is_session(name: str) -> bool:
    """Whether a session may be called that: it becomes the name of a folder and of a bus."""
    return _SESSION.fullmatch(name) is not None


def split(agents: int, size: int) -> tuple[tuple[int, ...], ...]:
    """The numbers 1 to `agents` in batches of `size`; the last one may be smaller."""
    return tuple(tuple(range(first, min(first + size, agents + 1))) for first in range(1, agents + 1, size))


def arguments_from_rest(document: Mapping[str, object]) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    """The arguments of a swarm with their defaults, and what is wrong with them, by JSON pointers below `/arguments`.

    Nothing that names code, a file or a folder is taken.
    """
    return checked_arguments(document, takes_functions=False)


def checked_arguments(
    document: Mapping[str, object], *, takes_functions: bool
) -> tuple[dict[str, JsonValue], list[FieldProblem]]:
    """As `arguments_from_rest`; with `takes_functions` the task may also be `module:function`."""
    task_name = document.get("task")
    if isinstance(task_name, str):
        plainly = " ".join(task_name.casefold().split())
        document = {**document, "task": _EARLIER_NAMES.get(plainly, task_name)}
    found = _Findings(document)
    found.refuse_unknown(_NAMES)
    task = found.one_of("task", TASKS, default=COIN_FLIP, also=_FUNCTION if takes_functions else None)
    transport = found.one_of("transport", TRANSPORTS, default="memory")
    most = MAX_CONCURRENT_AGENTS if task == QUESTION else MAX_AGENTS
    shape = found.batches()
    default = min(DEFAULT_AGENTS, most) if shape is None else shape[0] * shape[1]
    if shape is not None and document.get("agents") is None and default > most:
        found.refuse("batches", f"{shape[0]} batches of {shape[1]} are {default} agents, and there are at most {most}")
        shape, default = None, most
    agents = found.whole("agents", least=1, most=most, default=default)
    if shape is not None and shape[0] * shape[1] != agents:
        found.refuse(
            "batches",
            f"{shape[0]} batches of {shape[1]} are {shape[0] * shape[1]} agents, not {agents}: "
            "in NxM, N times M has to be the number of agents, as 32x4 is 128",
        )
    size = BATCH_SIZE if shape is None else shape[1]
    seed = None if document.get("seed") is None else found.whole("seed", least=0, most=MAX_SEED, default=0)
    instances = found.whole("instances", least=1, most=MAX_INSTANCES, default=1)
    if instances > 1 and transport == "memory":
        found.refuse("instances", "more than one wants a transport between processes: redis, file or shm")
    if instances > 1 and task == QUESTION:
        found.refuse("instances", "a question is asked by one process, which holds its limits of money")
    if instances > agents:
        found.refuse("instances", f"there are only {agents} agents to spread")
    timeout_s = found.seconds("timeout", most=MAX_TIMEOUT_S)
    question = found.question(wanted=task == QUESTION)
    arguments: dict[str, JsonValue] = {
        "agents": agents,
        "task": task,
        "transport": transport,
        "batches": f"{-(-agents // size)}x{size}",
        "instances": instances,
    }
    if seed is not None:
        arguments["seed"] = seed
    if timeout_s is not None:
        arguments["timeout"] = timeout_s
    if question is not None:
        arguments["question"] = question
    return arguments, found.problems


def command_line(arguments: Mapping[str, JsonValue]) -> list[str]:
    """The words after `conclave` that run a swarm with these checked arguments."""
    words = ["swarm", "run"]
    for name in ("agents", "task", "transport", "instances", "seed", "timeout"):
        if arguments.get(name) is not None:
            words += [f"--{name}", str(arguments[name])]
    # A last batch that is smaller is not a shape that can be given, but what comes of giving none.
    shape = _BATCHES.fullmatch(str(arguments.get("batches", "")))
    if shape is not None and int(shape[1]) * int(shape[2]) == arguments.get("agents"):
        words += ["--batches", shape[0]]
    if arguments.get("question") is not None:
        words.append(f"--question={arguments['question']}")
    return words


class _Findings:
    """Reads one document field by field, and remembers what is wrong with it."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document
        self.problems: list[FieldProblem] = []

    def refuse(self, name: str, message: str) -> None:
        self.problems.append(FieldProblem(f"/{name}", message))

    def refuse_unknown(self, known: Sequence[str]) -> None:
        for name in self._document:
            if name not in known:
                pointer = str(name).replace("~", "~0").replace("/", "~1")
                self.refuse(pointer, f"there is no such argument; there are {', '.join(known)}")

    def one_of(self, name: str, choices: Sequence[str], *, default: str, also: re.Pattern[str] | None = None) -> str:
        value = self._document.get(name, default)
        if isinstance(value, str) and (value in choices or (also is not None and also.fullmatch(value))):
            return value
        beside = "" if also is None else ", or a function as module:function"
        self.refuse(name, f"has to be one of {', '.join(choices)}{beside}")
        return default

    def whole(self, name: str, *, least: int, most: int, default: int) -> int:
        value = self._document.get(name)
        if value is None:
            value = default
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.refuse(name, f"has to be a whole number from {least} to {most}")
        return default

    def seconds(self, name: str, *, most: int) -> int | float | None:
        value = self._document.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
            return value
        self.refuse(name, f"has to be a number of seconds above 0 and at most {most}")
        return None

    def batches(self) -> tuple[int, int] | None:
        value = self._document.get("batches")
        if value is None:
            return None
        shape = _BATCHES.fullmatch(value) if isinstance(value, str) else None
        if shape is None:
            self.refuse("batches", "has to be NxM, N batches of M agents, such as 32x4")
            return None
        return int(shape[1]), int(shape[2])

    def question(self, *, wanted: bool) -> str | None:
        value = self._document.get("question")
        if value is None:
            if wanted:
                self.refuse("question", "is missing: the task question puts one to its agents")
            return None
        if not wanted:
            self.refuse("question", "is for the task question only")
        if not isinstance(value, str):
            self.refuse("question", "has to be a text")
            return None
        if problem := text_problem(value, max_bytes=MAX_QUESTION_BYTES):
            self.refuse("question", problem)
        return value
