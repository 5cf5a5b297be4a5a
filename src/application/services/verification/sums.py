"""Adds up what the entries of a deliberation say, and compares it with the sums that were recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from application.services.verification.reading import shown
from application.services.verification.tally import differing
from domain.errors.witness import VerificationRefusedError

__all__ = ["UsageSums", "compare_sums"]

_COUNTED = ("calls", "input_tokens", "output_tokens", "uncertain_tokens")
_AMOUNTS = {
    "cost_usd": "the cost is not the sum of what the agents cost",
    "uncertain_usd": "what may have been spent is not the sum of what it is for the agents",
}


class UsageSums:
    """What the agents of one deliberation took: attempt by attempt, and all of them together.

    A `turn` is the number of a round and the id of the agent that is asked in it.
    """

    __slots__ = ("_amounts", "_counts", "_taken")

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._amounts: dict[str, list[float]] = {name: [] for name in _AMOUNTS}
        self._taken: dict[tuple[int, str], dict[str, float]] = {}

    def note_attempt(self, turn: tuple[int, str], usage: Mapping[str, Any] | None) -> None:
        """Add up what the attempts took that are over, as the next one's intent says."""
        if usage is not None:
            taken = self._taken.setdefault(turn, dict.fromkeys((*_COUNTED, *_AMOUNTS), 0.0))
            for name in taken:
                taken[name] += usage.get(name, 0)

    def end(self, turn: tuple[int, str], usage: Mapping[str, Any], index: int) -> None:
        """Count what all of an agent's attempts took, which is at least what those before the last did.

        Raises `VerificationRefusedError`.
        """
        for name, taken in self._taken.pop(turn, {}).items():
            recorded = usage.get(name, 0)
            if recorded < taken and not math.isclose(recorded, taken, rel_tol=1e-9, abs_tol=1e-12):
                raise VerificationRefusedError(
                    f"agent {shown(turn[1])} took less than its attempts before the last did: {name}",
                    index=index,
                    evidence={"recorded": shown(recorded), "computed": shown(taken)},
                )
        # Entries of an earlier version have nothing that is uncertain.
        for name in _COUNTED:
            self._counts[name] += int(usage.get(name, 0))
        for name, amounts in self._amounts.items():
            amounts.append(float(usage.get(name, 0)))

    def compare(self, usage: Mapping[str, Any], index: int) -> None:
        """Compare all of it with what the end says. Raises `VerificationRefusedError`."""
        compare_sums("usage", {name: usage.get(name, 0) for name in _COUNTED}, self._counts, index)
        for name, problem in _AMOUNTS.items():
            recorded, computed = usage.get(name, 0.0), math.fsum(self._amounts[name])
            # The writer adds in another order, which changes the last digits of a sum.
            if not math.isclose(recorded, computed, rel_tol=1e-9, abs_tol=1e-12):
                raise VerificationRefusedError(
                    problem, index=index, evidence={"recorded": shown(recorded), "computed": shown(computed)}
                )


def compare_sums(name: str, recorded: Mapping[str, Any], computed: Mapping[str, Any], index: int) -> None:
    """Raise `VerificationRefusedError` unless exactly the computed parts are recorded, each as computed."""
    for part, value in computed.items():
        if part not in recorded or differing(recorded[part], value):
            raise VerificationRefusedError(
                f"the {name} is not what the entries give: {shown(part)}",
                index=index,
                evidence={"recorded": shown(recorded.get(part)), "computed": shown(value)},
            )
    for part in recorded:
        if part not in computed:
            raise VerificationRefusedError(f"the {name} counts {shown(part)}, which the entries do not", index=index)
