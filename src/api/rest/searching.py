"""The query parameters that a search of the archive is made of, and what is refused of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import Field

from api.rest.problems import RequestRefusedError
from api.rest.query import ABSENT_WHEN_EMPTY, held_to
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.outcome import OutcomeStatus
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.search import MAX_SEARCH_CHARACTERS, MAX_WORDS, Search, search_of
from domain.voting.rule import RuleKind

__all__ = ["Wanted", "read_search"]


# Each is looked at by itself first, so that one that cannot be does not hide another.
_SearchText = Annotated[str, Field(max_length=MAX_SEARCH_CHARACTERS), held_to(search_of)]
_Since = Annotated[str, Field(max_length=64), held_to(lambda text: search_of(since=text))]
_Until = Annotated[str, Field(max_length=64), held_to(lambda text: search_of(until=text))]

_Text = Annotated[
    _SearchText | None,
    ABSENT_WHEN_EMPTY,
    Query(
        description="Words, each of which has to occur in question, context, options or decision, or to be what the id begins with; "
        f"case and accents do not matter. At most {MAX_WORDS} words.",
        examples=["city cars"],
    ),
]
_Answer = Annotated[
    AnswerKind | None, ABSENT_WHEN_EMPTY, Query(description="Only those that ask for this kind of answer.")
]
_Protocol = Annotated[ProtocolKind | None, ABSENT_WHEN_EMPTY, Query(description="Only those held by this protocol.")]
_Rule = Annotated[RuleKind | None, ABSENT_WHEN_EMPTY, Query(description="Only those decided by this rule.")]
_Outcome = Annotated[OutcomeStatus | None, ABSENT_WHEN_EMPTY, Query(description="Only those that came out so.")]
_Simulated = Annotated[
    bool | None, ABSENT_WHEN_EMPTY, Query(description="Only those that were simulated, or only those that were not.")
]
_From = Annotated[
    _Since | None,
    ABSENT_WHEN_EMPTY,
    Query(
        alias="from",
        description="Only those accepted then or later: a date (from its beginning, UTC) or a moment (RFC 3339).",
        examples=["2026-11-21"],
    ),
]
_To = Annotated[
    _Until | None,
    ABSENT_WHEN_EMPTY,
    Query(
        alias="to",
        description="Only those accepted by then: a date (to its end, UTC) or a moment (RFC 3339), itself included.",
        examples=["2026-11-21T12:00:00Z"],
    ),
]


async def read_search(
    search: _Text = None,
    answer: _Answer = None,
    protocol: _Protocol = None,
    rule: _Rule = None,
    outcome: _Outcome = None,
    simulated: _Simulated = None,
    since: _From = None,
    until: _To = None,
) -> Search:
    """What a request searches for. Raises `RequestRefusedError` where its parameters do not go together."""
    try:
        return search_of(
            search,
            since=since,
            until=until,
            pointer="/query",
            answer=answer,
            protocol=protocol,
            rule=rule,
            outcome=outcome,
            simulated=simulated,
        )
    except InvalidSpecificationError as error:
        raise RequestRefusedError.of("parameter", error.problems) from None


Wanted = Annotated[Search, Depends(read_search)]
