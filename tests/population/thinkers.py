"""Functions and classes that think for agents in tests, named on the command line and in specifications."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import Any

from infrastructure.population.thinking.situation import Situation, Thought

_NEVER = threading.Event()


def halved(situation: Situation) -> float:
    """Half of the opinion."""
    return situation.opinion / 2


async def chance(situation: Situation) -> float:
    """The random number of this agent and tick."""
    return situation.chance


class Counting:
    """Each object counts how often it was asked, and notes it."""

    def __init__(self) -> None:
        self._asked = 0

    def think(self, situation: Situation) -> Thought:
        """Its count in hundredths."""
        self._asked += 1
        return Thought(self._asked / 100, f"count {self._asked} of agent {situation.agent}")


class Reminded:
    """Answers how many notes it was given, in tenths, and writes another."""

    def think(self, situation: Situation) -> Thought:
        """See the class."""
        found = situation.recall(f"tick {situation.tick - 1}")
        return Thought((len(situation.notes) + len(found)) / 10, f"what was thought in tick {situation.tick}")


def mixed_bag(situation: Situation) -> Any:
    """One of each outcome, by the agent."""
    match situation.agent % 6:
        case 0:
            return 0.25
        case 1:
            raise ZeroDivisionError("of the test")
        case 2:
            return math.nan
        case 3:
            return "0.5"
        case 4:
            return None
        case _:
            return 1.5


def never(situation: Situation) -> float:
    """Agent 0 does not come back."""
    if situation.agent == 0:
        _NEVER.wait()
    return 0.75


async def never_async(situation: Situation) -> float:
    """Agent 0 does not come back, even where it is cancelled once."""
    if situation.agent == 0:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
    return 0.75


def counted(situation: Situation) -> float:
    """Writes down each call in the file that COUNTED names."""
    with open(os.environ["COUNTED"], "a", encoding="utf-8") as file:  # noqa: PTH123 - one write
        file.write(f"{situation.tick} {situation.agent}\n")
    return (situation.opinion + situation.chance) / 2


class Broken:
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("of the test")

    def think(self, situation: Situation) -> float:
        """Never comes to it."""
        return situation.opinion


class Thoughtless:
    """Has nothing to think with."""


NOT_CALLABLE = 7
