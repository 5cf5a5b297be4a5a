"""Money as whole picodollars, so that sums are exact and a budget is never passed by a rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

__all__ = ["PICODOLLARS", "Charge", "Hold", "KeyBudget", "Price", "Reservation", "added", "picodollars", "usd"]

PICODOLLARS = 10**12
"""In a US dollar: a millionth of a dollar for a million tokens is one picodollar a token."""

_TOKENS_PRICED = 10**6


def picodollars(dollars: Decimal | float) -> int:
    """US dollars as whole picodollars, rounded up. A float counts as the shortest decimal that reads back as it."""
    if not dollars:
        return 0
    exact = dollars if isinstance(dollars, Decimal) else Decimal(repr(dollars))
    return int((exact * PICODOLLARS).to_integral_value(rounding=ROUND_CEILING))


def usd(amount: int) -> float:
    """Picodollars as US dollars, the float nearest to them."""
    return amount / PICODOLLARS


def added(one: float, other: float) -> float:
    """US dollars and US dollars: the float nearest to the sum of the shortest decimals that read back as the two.

    So it is exact for whole picodollars, and for amounts that are none nothing is rounded up. Zero changes nothing.
    """
    if not other:
        return one
    if not one:
        return other
    if not (math.isfinite(one) and math.isfinite(other)):
        return one + other
    return float(Decimal(repr(float(one))) + Decimal(repr(float(other))))


@dataclass(frozen=True, slots=True)
class Price:
    """What a model takes: picodollars for each token it reads, and for each it writes."""

    input_token: int
    output_token: int

    @classmethod
    def per_million(cls, *, input_usd: Decimal | float, output_usd: Decimal | float) -> Price:
        """The price that is told in US dollars for a million tokens."""
        return cls(*(-(-picodollars(dollars) // _TOKENS_PRICED) for dollars in (input_usd, output_usd)))

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """Picodollars for so many tokens."""
        return input_tokens * self.input_token + output_tokens * self.output_token


@dataclass(frozen=True, slots=True)
class Hold:
    """What a call takes at most: tokens in and out, and picodollars, None where its model has no known price."""

    tokens: int = 0
    cost: int | None = 0


@dataclass(frozen=True, slots=True)
class KeyBudget:
    """What the deliberations of one API key may take, in picodollars, in a day and in a month (UTC); None is without limit."""

    day: int | None = None
    month: int | None = None


# Not frozen, because a frozen one takes three times as long to make, and there are two for each call.
@dataclass(slots=True)
class Reservation:
    """What a call that is intended holds of the budget of its key (its name, '' without one), on which day (UTC, YYYY-MM-DD)."""

    key_name: str
    day: str
    hold: Hold


@dataclass(slots=True)
class Charge:
    """What one call took, against what it had reserved. Where nobody knows, it is not certain, and all it held counts as spent.

    `model` is the one that was asked; `cost` is in picodollars, None where that model has no known price.
    """

    attempt: int
    model: str | None
    input_tokens: int
    output_tokens: int
    cost: int | None
    is_certain: bool
    reserved: Reservation
