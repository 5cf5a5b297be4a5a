"""What can go wrong with the record: it does not verify, or it cannot be trusted to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from domain.errors.conclave_error import ConclaveError

__all__ = ["EntryRecordedError", "LogUnverifiedError", "VerificationRefusedError", "WitnessError"]


class WitnessError(ConclaveError):
    """Root of the errors about the witness log."""

    slug: ClassVar[str] = "witness-error"


class VerificationRefusedError(WitnessError):
    """Something does not prove what it should. Names the first bad thing, and carries what shows that it is bad."""

    slug: ClassVar[str] = "verification-refused"

    def __init__(self, what: str, *, index: int | None = None, evidence: Mapping[str, str] | None = None) -> None:
        place = "" if index is None else f"entry {index}: "
        shown = "".join(f"; {name} {value}" for name, value in (evidence or {}).items())
        super().__init__(f"{place}{what}{shown}")
        self.what = what
        self.index = index
        self.evidence = dict(evidence or {})


class EntryRecordedError(WitnessError):
    """A statement whose texts stand beside the log already: it was recorded before, and is not recorded again."""

    slug: ClassVar[str] = "entry-recorded"

    def __init__(self, *, sha256: str) -> None:
        super().__init__(f"the text with the commitment {sha256} is recorded already: nothing is left to do.")
        self.sha256 = sha256


class LogUnverifiedError(WitnessError):
    """The service's own log does not match its last signed checkpoint or an anchor, so nothing more is added to it."""

    slug: ClassVar[str] = "log-unverified"

    def __init__(self, *, problem: str, remedy: str, evidence: Mapping[str, str] | None = None) -> None:
        shown = "".join(f"; {name} {value}" for name, value in (evidence or {}).items())
        super().__init__(f"the witness log does not verify: {problem}{shown}. {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.evidence = dict(evidence or {})
