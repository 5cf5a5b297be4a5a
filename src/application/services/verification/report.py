"""What a verification found: what was proven, and what could not be because a text is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MAX_LISTED", "UnseenText", "VerificationReport", "VerifiedDeliberation"]

MAX_LISTED = 10_000
"""How many texts that are not there are named; more than any bundle holds, and a bound on the report of a whole log."""


@dataclass(frozen=True, slots=True)
class UnseenText:
    """A text that the log commits to and that is not disclosed: the leaf, and the field of its entry (`members/3/persona`)."""

    index: int
    field: str


@dataclass(frozen=True, slots=True)
class VerifiedDeliberation:
    """One deliberation whose entries agree with each other.

    `outcome_status` is `decided`, `tied` or `no_majority`, None without an outcome.
    `status` is None for one that had not ended yet when the log was signed. `not_recomputed` says why the outcome was not computed again
    from the ballots; None says that it was, or that there is none and there has to be none. `recounts` and `resolutions` count those
    that followed the end and were computed again, `not_repeated` those that could not be.
    """

    id: str
    status: str | None
    decision: str | float | None
    roll_call: Mapping[str, int]
    outcome_status: str | None = None
    not_recomputed: str | None = None
    recounts: int = 0
    resolutions: int = 0
    not_repeated: int = 0


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """Everything in the file is proven by the pinned key.

    `root_hash` has 32 bytes. `withheld` and `erased` name at most `MAX_LISTED` texts each, the counts are of all. `prompts` counts the
    commitments to prompts that are not disclosed: a prompt is never kept, so nobody withholds it.
    """

    kind: str
    origin: str
    tree_size: int
    root_hash: bytes
    entries_checked: int
    deliberations: tuple[VerifiedDeliberation, ...]
    disclosed: int
    withheld: tuple[UnseenText, ...] = ()
    erased: tuple[UnseenText, ...] = ()
    withheld_count: int = 0
    erased_count: int = 0
    prompts: int = 0

    @property
    def not_recomputed(self) -> int:
        """Of how many deliberations the outcome was not computed again: what it says is the writer's word."""
        return sum(each.not_recomputed is not None for each in self.deliberations)
