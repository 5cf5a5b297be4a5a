"""What is going to happen in a world, drawn from one seed: deliberations, the agents' tempers, the weather, and a schedule of deeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits, Quorum
from domain.models.deliberation import Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.voting.rule import Rule, RuleKind
from tests.simulation.store import Weather

__all__ = [
    "DEEDS",
    "OPTIONS",
    "STORMS",
    "WORST_TOKENS",
    "WORST_USD",
    "Deed",
    "Plan",
    "Scenario",
    "Temper",
    "draw_scenario",
]

OPTIONS = ("yes", "no", "later")
WORST_USD = 0.25
"""What a call takes at most."""
WORST_TOKENS = 40
_OF_SEVERAL_ROUNDS = 7
_PROTOCOLS = (
    None,
    Protocol(ProtocolKind.DELPHI, max_rounds=1),
    Protocol(ProtocolKind.PEER_REVIEW, reviewers_per_answer=2),
    Protocol(ProtocolKind.DEBATE, rounds=1, neighbours=2),
    Protocol(ProtocolKind.COMMON_GROUND),
)


class Temper(StrEnum):
    """How an agent behaves whenever it is called."""

    PLAIN = "plain"
    ABSTAINING = "abstaining"
    GARBLED = "garbled"
    FLAKY = "flaky"
    THROTTLED = "throttled"
    FAILING = "failing"
    HANGING = "hanging"
    BROKEN = "broken"
    FOREIGN = "foreign"

    @property
    def is_steady(self) -> bool:
        """Whether it answers the same in whatever attempt."""
        return self in {Temper.PLAIN, Temper.ABSTAINING, Temper.GARBLED}


@dataclass(frozen=True, slots=True)
class Plan:
    """One request to deliberate, and what each of its agents will do: temper, answer and seconds."""

    label: str
    tempers: tuple[Temper, ...]
    answers: tuple[str, ...]
    latencies: tuple[float, ...]
    limits: Limits
    wave_size: int | None = None
    protocol: Protocol | None = None
    has_key: bool = True
    posts: int = 1
    waits: bool = False
    listens: bool = False
    model: str | None = None
    paced_s: float = 0.0

    @property
    def models(self) -> int:
        """How many models are asked in turn."""
        return 2 if self.model == "both" else 1

    def specification(self) -> Specification:
        """What is posted."""
        members = [Agent(f"voice-{number}", Persona("brief"), self.model) for number in range(len(self.tempers))]
        return Specification(
            Question(self.label, None, AnswerFormat(AnswerKind.CHOICE, OPTIONS)),
            Roster.assemble("few", members),
            Rule(RuleKind.PLURALITY),
            protocol=self.protocol or Protocol(wave_size=self.wave_size),
            limits=self.limits,
            quorum=Quorum(0.5),
        )


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done to the world after so many seconds: to which of its parts, and how much of it."""

    at: float
    kind: str
    which: int = 0
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.at:8.3f} s  {self.kind} {self.which} {self.amount:g}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it."""

    seed: int
    plans: tuple[Plan, ...]
    workers: int
    has_door: bool
    slots: int
    max_running: int
    knows_deaths: bool
    weather: Weather
    deeds: tuple[Deed, ...]
    key_day_usd: float | None = None

    def __str__(self) -> str:
        facts = [
            f"seed {self.seed}: {self.workers} workers, {'with' if self.has_door else 'without'} a door of its own, {self.slots} slots,"
            f" {self.max_running} at a time, deaths are {'' if self.knows_deaths else 'not '}known, {self.weather}",
            *(f"  {plan}" for plan in self.plans),
            *(f"  {deed}" for deed in self.deeds),
        ]
        return "\n".join(facts)


def _one_of(*choices: float) -> Callable[[random.Random], float]:
    return lambda chance: chance.choice(choices)


STORMS: dict[str, tuple[float, Callable[[random.Random], float]]] = {
    "crash": (3.0, lambda chance: float(int(chance.expovariate(1 / 40)))),
    "stop": (1.0, _one_of(0.0)),
    "freeze": (2.0, _one_of(0.3, 2.0, 6.0, 9.0)),
    "away": (1.5, _one_of(0.1, 1.0, 4.0, 8.0)),
    "halt": (2.0, _one_of(0.5, 3.0, 6.0)),
    "doubt": (2.0, _one_of(0.3, 2.0, 5.0)),
    "jump": (1.0, _one_of(-3600.0, -20.0, -3.0, 3.0, 20.0, 3600.0)),
    "store-jump": (0.7, _one_of(-10.0, -3.0, 3.0, 10.0, 3600.0)),
    "junk": (0.7, _one_of(0.0, 1.0, 2.0)),
}
"""What can go wrong: how likely each is, and how its amount is drawn."""

DEEDS: dict[str, tuple[float, Callable[[random.Random], float]]] = {
    "cancel": (2.0, _one_of(0.0)),
    "read": (2.0, _one_of(0.0)),
    "stream": (1.0, _one_of(0.0, 1.0, 3.0, 7.0)),
    "wait": (1.0, _one_of(0.1, 2.0, 60.0)),
}
"""What callers do."""


def draw_scenario(seed: int, *, calm: bool = False) -> Scenario:
    """The same for the same seed. With `calm` the same deliberations, and nothing goes wrong."""
    chance = random.Random(seed)
    plans = tuple(_draw_plan(chance, number) for number in range(chance.choice((1, 2, 2, 3, 4))))
    submits = [
        Deed(round(0.25 + chance.choice((0.0, chance.uniform(0, 5))), 3), "submit", number)
        for number in range(len(plans))
    ]
    has_door = chance.random() < 0.4
    workers = chance.choice((1, 2, 2)) if has_door else chance.choice((1, 1, 2, 3))
    slots, max_running = chance.choice((1, 2, 3, 8)), chance.choice((1, 2, 10))
    rate = chance.choice((0.0, 0.0, 0.04))
    weather = Weather(
        slow=chance.choice((0.0, 0.0, 0.2)),
        failing=rate * chance.random(),
        unheard=rate * chance.random(),
        unreadable=rate * chance.random(),
        repeated=chance.choice((0.0, 0.3)),
    )
    times = [deed.at for deed in submits]
    storms = [_draw_deed(chance, STORMS, times) for _ in range(chance.choice((0, 2, 3, 5, 8)))]
    deeds = [_draw_deed(chance, DEEDS, times) for _ in range(chance.randrange(6))]
    knows_deaths = chance.random() < 0.5
    if calm:
        weather, storms, deeds = Weather(), [], [deed for deed in deeds if deed.kind != "cancel"]
    ordered = tuple(sorted([*submits, *storms, *deeds], key=lambda deed: deed.at))
    purse = random.Random(f"{seed} money")
    plans = tuple(_with_money(purse, plan) for plan in plans)
    key_day_usd = purse.choice((None, None, None, 1.1, 3.1))
    if seed % _OF_SEVERAL_ROUNDS in {2, 4}:
        # Drawn apart, so that the other worlds are as they were before there were protocols.
        further = random.Random(f"{seed} protocols")
        plans = tuple(replace(plan, protocol=further.choice(_PROTOCOLS)) for plan in plans)
    return Scenario(seed, plans, workers, has_door, slots, max_running, knows_deaths, weather, ordered, key_day_usd)


def _with_money(chance: random.Random, plan: Plan) -> Plan:
    """Some have hardly enough, some several models, and some are held back."""
    enough = chance.choice((5.0, 5.0, 5.0, chance.uniform(0.1, WORST_USD * len(plan.tempers) * 1.5)))
    tokens = chance.choice((400_000, 400_000, WORST_TOKENS * len(plan.tempers)))
    return replace(
        plan,
        limits=replace(plan.limits, max_cost_usd=round(enough, 2), max_total_tokens=tokens),
        model=chance.choice((None, None, "both")),
        paced_s=chance.choice((0.0, 0.0, 0.4)),
    )


def _draw_deed(
    chance: random.Random, kinds: dict[str, tuple[float, Callable[[random.Random], float]]], times: Sequence[float]
) -> Deed:
    """Any of these, soon after something was asked for."""
    names = list(kinds)
    kind = chance.choices(names, [kinds[name][0] for name in names])[0]
    after = chance.choice((chance.uniform(0, 0.5), chance.expovariate(0.5), chance.uniform(0, 12)))
    return Deed(round(chance.choice(times) + after, 3), kind, chance.randrange(4), kinds[kind][1](chance))


def _draw_plan(chance: random.Random, number: int) -> Plan:
    agents = chance.choice((1, 2, 3, 4, 6))
    steady: Sequence[Temper] = (Temper.PLAIN, Temper.PLAIN, Temper.PLAIN, Temper.ABSTAINING, Temper.GARBLED)
    hangs = chance.random() < 0.2
    tempers = (Temper.PLAIN, Temper.HANGING) if hangs else chance.choice((steady, steady, (*steady, *Temper)))
    return Plan(
        label=f"question {number}",
        tempers=tuple(chance.choice(tempers) for _ in range(agents)),
        answers=tuple(chance.choice(OPTIONS) for _ in range(agents)),
        latencies=tuple(round(chance.choice((0.0, 0.2, chance.uniform(0, 4))), 3) for _ in range(agents)),
        limits=Limits(
            agent_timeout_s=60.0 if hangs else chance.choice((3.0, 6.0, 60.0)),
            deadline_s=chance.choice((10.0, 14.0) if hangs else (12.0, 20.0, 40.0)),
            max_attempts=chance.choice((1, 2, 3)),
        ),
        wave_size=chance.choice((None, None, 1, 2, 3)),
        has_key=chance.random() < 0.7,
        posts=chance.choice((1, 1, 2, 3)),
        waits=chance.random() < 0.4,
        listens=chance.random() < 0.2,
    )
