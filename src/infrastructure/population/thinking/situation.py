"""What an agent that thinks is told: itself, whom it knows, and what it wrote before; and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Situation", "Thought"]


@dataclass(frozen=True, slots=True)
class Situation:
    """One agent in one tick, after that tick's messages. Opinions are from 0 to 1; `agent` is its id, which it has for good.

    `neighbours` are the opinions of at most 32 of those whom it knows. `chance` is a random number from 0 to 1 of this agent and tick:
    whoever needs one takes this, so that the same seed gives the same population. `recall(text)` finds notes of its own.
    """

    tick: int
    agent: int
    opinion: float
    neighbours: tuple[float, ...]
    susceptibility: float
    bound: float
    activity: float
    topic: str
    notes: tuple[str, ...]
    chance: float
    recall: Callable[[str], tuple[str, ...]] = field(compare=False, repr=False)

    def in_words(self) -> str:
        """The same for a language model."""
        told = [f"Your own opinion is {self.opinion:.2f}."]
        if self.neighbours:
            others = ", ".join(f"{opinion:.2f}" for opinion in self.neighbours)
            told.append(f"Those you know hold {others}.")
        told.append(
            f"You are moved by others {self.susceptibility:.2f} of the way and heed who is {self.bound:.2f} away."
        )
        if self.notes:
            told.append("You noted before: " + " / ".join(self.notes))
        return " ".join(told)


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer with a note, which the agent is reminded of later. An `opinion` of None leaves the agent where it is."""

    opinion: float | None
    note: str = ""
