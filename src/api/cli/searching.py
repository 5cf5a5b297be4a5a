"""The options of `conclave list` that search: the same names and values as the parameters of `GET /v1/deliberations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from domain.models.search import Search

__all__ = [
    "AnswerFilter",
    "FromFilter",
    "OutcomeFilter",
    "ProtocolFilter",
    "RuleFilter",
    "SearchOption",
    "SimulatedFilter",
    "ToFilter",
    "parameters",
    "search_of_options",
]

SearchOption = Annotated[
    str | None,
    typer.Option(
        "--search",
        metavar="TEXT",
        help="Only those in whose question, context, options or decision every word of it occurs, or whose id begins so.",
    ),
]
AnswerFilter = Annotated[
    str | None, typer.Option("--answer", metavar="KIND", help="Only those with this kind of answer.")
]
ProtocolFilter = Annotated[
    str | None, typer.Option("--protocol", metavar="KIND", help="Only those held by this protocol.")
]
RuleFilter = Annotated[str | None, typer.Option("--rule", metavar="KIND", help="Only those decided by this rule.")]
OutcomeFilter = Annotated[
    str | None, typer.Option("--outcome", metavar="STATUS", help="Only decided, tied or no_majority ones.")
]
SimulatedFilter = Annotated[
    bool | None, typer.Option("--simulated/--not-simulated", help="Only those that were simulated, or only the others.")
]
FromFilter = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="DATE", help="Only those accepted then or later: a date (UTC) or a moment (RFC 3339)."
    ),
]
ToFilter = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="DATE", help="Only those accepted by then: a date (UTC), itself included, or a moment."
    ),
]


def parameters(
    *,
    search: str | None,
    answer: str | None,
    protocol: str | None,
    rule: str | None,
    outcome: str | None,
    simulated: bool | None,
    since: str | None,
    until: str | None,
) -> dict[str, str]:
    """Those that were given, by the names of the interface."""
    given = {
        "search": search,
        "answer": answer,
        "protocol": protocol,
        "rule": rule,
        "outcome": outcome,
        "simulated": None if simulated is None else str(simulated).lower(),
        "from": since,
        "to": until,
    }
    return {name: value for name, value in given.items() if value}


def search_of_options(given: Mapping[str, str]) -> Search:
    """The search that these parameters make. Raises `InvalidSpecificationError` with a pointer to each bad one."""
    from domain.errors.deliberation import FieldProblem, InvalidSpecificationError
    from domain.models.outcome import OutcomeStatus
    from domain.models.protocol import ProtocolKind
    from domain.models.question import AnswerKind
    from domain.models.search import search_of
    from domain.voting.rule import RuleKind

    kinds = {"answer": AnswerKind, "protocol": ProtocolKind, "rule": RuleKind, "outcome": OutcomeStatus}
    problems = [
        FieldProblem(f"/{name}", f"is none of {', '.join(each.value for each in kind)}")
        for name, kind in kinds.items()
        if name in given and given[name] not in {each.value for each in kind}
    ]
    if problems:
        raise InvalidSpecificationError(problems)
    found = {name: kind(given[name]) for name, kind in kinds.items() if name in given}
    simulated = None if "simulated" not in given else given["simulated"] == "true"
    return search_of(given.get("search"), since=given.get("from"), until=given.get("to"), simulated=simulated, **found)
