"""What a deliberation may take: time, attempts, tokens, money, and how many must take part."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from domain.errors.deliberation import FieldProblem
from domain.models.money import added
from domain.models.roll_call import RollCall

__all__ = [
    "DEFAULT_AGENT_TIMEOUT_S",
    "DEFAULT_MAX_ATTEMPTS",
    "DEFAULT_MAX_COST_USD",
    "Limits",
    "Quorum",
    "Sampling",
    "Usage",
]

DEFAULT_AGENT_TIMEOUT_S = 120.0
DEFAULT_MAX_ATTEMPTS = 2
DEFAULT_MAX_COST_USD = 5.0


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
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("agent_timeout_s", self.agent_timeout_s, 0.001, 3600),
            ("deadline_s", self.deadline_s, 0.001, 86_400),
            ("max_attempts", self.max_attempts, 1, 10),
            ("max_total_tokens", self.max_total_tokens, 1, 1_000_000_000),
            ("max_cost_usd", self.max_cost_usd, 0, 1_000_000),
        )
        return [
            FieldProblem(f"{pointer}/{name}", f"must be {least:g} to {most:g}")
            for name, value, least, most in ranges
            if not least <= value <= most
        ]


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many of those asked have to answer or abstain before a decision counts."""

    min_answered_fraction: float = 0.5

    def problems(self, pointer: str = "/quorum") -> list[FieldProblem]:
        """What keeps this quorum from being used."""
        if not 0 <= self.min_answered_fraction <= 1:
            return [FieldProblem(f"{pointer}/min_answered_fraction", "must be 0 to 1")]
        return []

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
        found = []
        if not 0 <= self.temperature <= 2:
            found.append(FieldProblem(f"{pointer}/temperature", "must be 0 to 2"))
        if not 1 <= self.max_output_tokens <= 65_536:
            found.append(FieldProblem(f"{pointer}/max_output_tokens", "must be 1 to 65536"))
        return found


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
