"""Follows every deliberation of a file through its entries: which one an entry belongs to, and what may come when."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from application.services.verification.course import Course
from application.services.verification.entries import AFTER_THE_END, WITHIN
from application.services.verification.reading import shown
from application.services.verification.report import VerifiedDeliberation
from application.services.verification.sequels import says_what_follows
from application.services.verification.terms import read_terms
from domain.errors.witness import VerificationRefusedError
from domain.witness.sequel import RECOUNTED

__all__ = ["Deliberations"]

_KEPT_COURSES = 200


class Deliberations:
    """All deliberations of a file. Of those that have ended only what the report says is kept, but for the last ones.

    A recount or resolution of any other cannot be repeated, and is counted as such.
    """

    def __init__(self) -> None:
        self._running: dict[str, Course] = {}
        self._ended: OrderedDict[str, Course] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._verified: dict[str, VerifiedDeliberation] = {}
        self.erased_until: dict[int, int] = {}
        """For each deliberation with erased texts, by its number: the index of the last erasure."""

    def follow(self, deliberation_id: str, entry: Mapping[str, Any], *, index: int, leaf: bytes) -> int:
        """Take the next entry of a deliberation; the number of the deliberation, from 1. Raises `VerificationRefusedError`."""
        kind: str = entry["type"]
        number = self._numbers.get(deliberation_id)
        if number is None:
            if kind != "deliberation.accepted":
                raise VerificationRefusedError(
                    f"an entry of type {kind!r} comes before its deliberation was accepted",
                    index=index,
                    evidence={"deliberation": shown(deliberation_id)},
                )
            number = self._numbers[deliberation_id] = len(self._numbers) + 1
            self._running[deliberation_id] = Course(deliberation_id, read_terms(entry, index), leaf)
            return number
        course = self._running.get(deliberation_id)
        if kind in AFTER_THE_END:
            if kind == "erased":
                self.erased_until[number] = index
            elif says_what_follows(entry):
                self._follow_sequel(deliberation_id, entry, index)
            if course is not None:
                course.cover(leaf)
        elif course is None:
            raise VerificationRefusedError(
                f"an entry of type {kind!r} follows the end of its deliberation",
                index=index,
                evidence={"deliberation": shown(deliberation_id)},
            )
        elif kind == "deliberation.ended":
            self._verified[deliberation_id] = course.end(deliberation_id, entry, index)
            del self._running[deliberation_id]
            self._ended[deliberation_id] = course
            if len(self._ended) > _KEPT_COURSES:
                self._ended.popitem(last=False)
        elif kind in WITHIN:
            course.follow(kind, entry, index, leaf)
        else:
            raise VerificationRefusedError(
                "the deliberation was accepted before", index=index, evidence={"deliberation": shown(deliberation_id)}
            )
        return number

    def _follow_sequel(self, deliberation_id: str, entry: Mapping[str, Any], index: int) -> None:
        verified = self._verified.get(deliberation_id)
        if verified is None:
            raise VerificationRefusedError(f"a deliberation was {entry['type']} before its end", index=index)
        course = self._ended.get(deliberation_id)
        if course is None or not course.repeat(entry, index):
            self._verified[deliberation_id] = replace(verified, not_repeated=verified.not_repeated + 1)
        elif entry["type"] == RECOUNTED:
            self._verified[deliberation_id] = replace(verified, recounts=verified.recounts + 1)
        else:
            self._verified[deliberation_id] = replace(verified, resolutions=verified.resolutions + 1)

    def close(self, *, all_ended: bool) -> tuple[VerifiedDeliberation, ...]:
        """All of them in the order in which they were accepted.

        Raises `VerificationRefusedError` when one has not ended although `all_ended` wants it.
        """
        if all_ended and self._running:
            unfinished = next(iter(self._running))
            raise VerificationRefusedError(
                "the file is cut off: a deliberation has no entry of its end",
                evidence={"deliberation": shown(unfinished)},
            )
        return tuple(
            self._verified[each] if each in self._verified else self._running[each].so_far(each)
            for each in self._numbers
        )
