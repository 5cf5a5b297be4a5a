"""What an archive is searched for: words of the texts of a deliberation, and how it was asked and came out."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from domain.errors.deliberation import FieldProblem, InvalidSpecificationError
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome, OutcomeStatus
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.voting.rule import RuleKind

__all__ = ["MAX_SEARCH_CHARACTERS", "MAX_WORDS", "Search", "folded", "found_in_decision", "search_of", "searched_text"]

MAX_SEARCH_CHARACTERS = 512
"""Of a search text."""
MAX_WORDS = 32
"""Of a search text, each counted once."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_WHEN = "is no date (2026-11-21, UTC) and no moment of RFC 3339 (2026-11-21T12:00:00Z)"
_DAY = timedelta(days=1)
_LEAST = timedelta(microseconds=1)
_OTHER_SCRIPTS = re.compile(r"[^\x00-\x7f]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]+")
# Accents, and what nobody sees: format and control characters, and surrogates that stand alone.
_LEFT_OUT = frozenset({"Mn", "Me", "Cf", "Cc", "Cs"})


def folded(text: str) -> str:
    """`text` as it is searched: without case and accents, and with single spaces (compatibility caseless, Unicode 3.13 D146)."""
    if text.isascii():
        return " ".join(_CONTROLS.sub("", text).casefold().split())
    bare = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join(_OTHER_SCRIPTS.sub(_seen, _CONTROLS.sub("", bare)).split())


def _seen(run: re.Match[str]) -> str:
    return "".join(each for each in run[0] if each.isspace() or unicodedata.category(each) not in _LEFT_OUT)


def searched_text(deliberation: Deliberation) -> str:
    """The folded texts of question, context and options; empty once they are erased."""
    if deliberation.erased:
        return ""
    question = deliberation.specification.question
    texts = (question.text, question.context or "", *question.answer.options)
    return "\n".join(folded(text) for text in texts if text)


def found_in_decision(outcome: Outcome | None) -> str:
    """The folded decision, empty where nothing was decided."""
    if outcome is None or outcome.decision is None:
        return ""
    decision = outcome.decision
    return folded(decision if isinstance(decision, str) else f"{decision:.10g}")


@dataclass(frozen=True, slots=True)
class Search:
    """What deliberations are kept that match all of it; what is None or empty keeps every one.

    Each of the `words`, which are folded, occurs somewhere in question, context, options or decision, or is what the id begins with.
    Accepted at `since` or later, and before `until`.
    """

    words: tuple[str, ...] = ()
    answer: AnswerKind | None = None
    protocol: ProtocolKind | None = None
    rule: RuleKind | None = None
    outcome: OutcomeStatus | None = None
    simulated: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    @staticmethod
    def words_of(text: str | None) -> tuple[str, ...]:
        """The words of a search text, folded, each once. Raises `InvalidSpecificationError` for one that is too long."""
        if text is None:
            return ()
        if len(text) > MAX_SEARCH_CHARACTERS:
            problem = f"has {len(text)} characters, at most {MAX_SEARCH_CHARACTERS} are taken"
            raise InvalidSpecificationError.at("/search", problem)
        words = tuple(dict.fromkeys(folded(text).split()))
        if len(words) > MAX_WORDS:
            raise InvalidSpecificationError.at("/search", f"has {len(words)} words, at most {MAX_WORDS} are taken")
        return words

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is searched for."""
        return self == Search()

    def matches(self, deliberation: Deliberation) -> bool:
        """Whether the deliberation, as it stands, is one of those."""
        asked, outcome = deliberation.specification, deliberation.outcome
        wanted = (
            (self.answer, asked.question.answer.kind),
            (self.protocol, asked.protocol.kind),
            (self.rule, asked.rule.kind),
            (self.outcome, None if outcome is None else outcome.status),
            (self.simulated, deliberation.simulated),
        )
        return (
            all(want is None or want == found for want, found in wanted)
            and (self.since is None or deliberation.created_at >= self.since)
            and (self.until is None or deliberation.created_at < self.until)
            and self._speaks_of(deliberation)
        )

    def _speaks_of(self, deliberation: Deliberation) -> bool:
        if not self.words:
            return True
        text = searched_text(deliberation)
        if not deliberation.erased:
            text = f"{text}\n{found_in_decision(deliberation.outcome)}"
        return all(word in text or deliberation.id.startswith(word) for word in self.words)


def search_of(
    text: str | None = None, *, since: str | None = None, until: str | None = None, pointer: str = "", **kinds: Any
) -> Search:
    """The search of these texts and kinds. Raises `InvalidSpecificationError` with pointers below `pointer`."""
    problems: list[FieldProblem] = []
    words: tuple[str, ...] = ()
    try:
        words = Search.words_of(text)
    except InvalidSpecificationError as error:
        problems += (FieldProblem(f"{pointer}{each.pointer}", each.message) for each in error.problems)
    first = last = None
    try:
        first = None if since is None else _from_of(since)
    except ValueError:
        problems.append(FieldProblem(f"{pointer}/from", _WHEN))
    try:
        last = None if until is None else _to_of(until)
    except ValueError:
        problems.append(FieldProblem(f"{pointer}/to", _WHEN))
    if first is not None and last is not None and last <= first:
        problems.append(FieldProblem(f"{pointer}/to", "is before `from`"))
    if problems:
        raise InvalidSpecificationError(problems)
    return Search(words=words, since=first, until=last, **kinds)


def _from_of(text: str) -> datetime:
    """The first moment that counts. Raises `ValueError` for what is neither date nor moment."""
    return _begin(text) if _DATE.fullmatch(text) else _moment(text)


def _to_of(text: str) -> datetime | None:
    """The first moment that counts no more, None where all do. Raises `ValueError` as `_from_of` does."""
    start, step = (_begin(text), _DAY) if _DATE.fullmatch(text) else (_moment(text), _LEAST)
    try:
        return start + step
    except OverflowError:
        return None


def _begin(text: str) -> datetime:
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _moment(text: str) -> datetime:
    if not _MOMENT.fullmatch(text):
        raise ValueError(_WHEN)
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(_WHEN) from error
