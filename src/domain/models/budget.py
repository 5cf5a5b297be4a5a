"""What a deliberation may take: time, attempts, tokens, money, and how many must take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from domain.errors.deliberation import FieldProblem
from domain.models.money import added
from domain.models.roll_call import RollCall

__all__ = [
    "DEFAULT_AGENT_TIMEOUT_S",
    "DEFAULT_MAX_ATTEMPTS",
    "DEFAULT_MAX_COST_USD",
    "LIMITS_BOUNDS",
    "QUORUM_BOUNDS",
    "SAMPLING_BOUNDS",
    "Limits",
    "Quorum",
    "Sampling",
    "Usage",
]

DEFAULT_AGENT_TIMEOUT_S = 120.0
DEFAULT_MAX_ATTEMPTS = 2
DEFAULT_MAX_COST_USD = 5.0

# Of each setting by its name: the least and the most that it may be.
LIMITS_BOUNDS: Mapping[str, tuple[float, float]] = {
    "agent_timeout_s": (0.001, 3600),
    "deadline_s": (0.001, 86_400),
    "max_attempts": (1, 10),
    "max_total_tokens": (1, 1_000_000_000),
    "max_cost_usd": (0, 1_000_000),
}
QUORUM_BOUNDS: Mapping[str, tuple[float, float]] = {"min_answered_fraction": (0, 1)}
SAMPLING_BOUNDS: Mapping[str, tuple[float, float]] = {"temperature": (0, 2), "max_output_tokens": (1, 65_536)}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one deliberation: seconds, attempts of one agent, tokens and US dollars of the whole."""

    agent_timeout_s: float = DEFAULT_AGENT_TIMEOUT_S
    deadline_s: float = 1800.0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    max_total_tokens: int = 400_000
    max_cost_usd: float = DEFAULT_MAX_COST_USD

    @property
    def has_money_limit(self) -> bool:
        """Whether somebody chose how much money it may take: then a model without a known price cannot be asked."""
        return self.max_cost_usd != DEFAULT_MAX_COST_USD

    def problems(self, pointer: str = "/limits") -> list[FieldProblem]:
        """What keeps these limits from being used."""
        return _out_of_bounds(self, LIMITS_BOUNDS, pointer)


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many of those asked have to answer or abstain before a decision counts."""

    min_answered_fraction: float = 0.5

    def problems(self, pointer: str = "/quorum") -> list[FieldProblem]:
        """What keeps this quorum from being used."""
        return _out_of_bounds(self, QUORUM_BOUNDS, pointer)

    def is_met(self, roll_call: RollCall) -> bool:
        """Whether enough took part; everyone asked stays in the denominator. Exact, also at the boundary."""
        return roll_call.asked > 0 and Fraction(roll_call.took_part, roll_call.asked) >= Fraction(
            str(self.min_answered_fraction)
        )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model is sampled."""

    temperature: float = 0.7
    max_output_tokens: int = 1024

    def problems(self, pointer: str = "/sampling") -> list[FieldProblem]:
        """What keeps these settings from being used."""
        return _out_of_bounds(self, SAMPLING_BOUNDS, pointer)


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost: their number, failed attempts included, tokens in and out, US dollars.

    Of calls whose end nobody knows, what they may have taken at most stands apart: `uncertain_tokens` and `uncertain_usd`.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    uncertain_tokens: int = 0
    uncertain_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            added(self.cost_usd, other.cost_usd),
            self.uncertain_tokens + other.uncertain_tokens,
            added(self.uncertain_usd, other.uncertain_usd),
        )

    @property
    def total_tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens


def _out_of_bounds(settings: object, bounds: Mapping[str, tuple[float, float]], pointer: str) -> list[FieldProblem]:
    return [
        FieldProblem(f"{pointer}/{name}", f"must be {_figure(least)} to {_figure(most)}")
        for name, (least, most) in bounds.items()
        if not least <= getattr(settings, name) <= most
    ]


def _figure(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
