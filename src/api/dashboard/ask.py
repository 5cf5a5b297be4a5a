"""The view that puts a question: a form for all that a deliberation may be told, and its quote beside it before it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.conclave import Conclave
from api.dashboard.rendering import render
from api.requests import DEFAULT_ROSTER
from api.rest.callers import Observer, OpenConclave
from domain.errors.deliberation import InvalidRosterError
from domain.models.budget import Limits, Quorum, Sampling
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import MAX_OPTIONS, AnswerFormat, AnswerKind
from domain.models.topic import TopicOrigin
from domain.voting.rule import LOTTERY, NO_TIE_BREAK, RuleKind, applicable, rules_for

__all__ = ["add_ask", "catalogue"]

_ANSWERS = {
    AnswerKind.VERDICT: "yes or no",
    AnswerKind.CHOICE: "one of the options",
    AnswerKind.APPROVAL: "every option that is acceptable",
    AnswerKind.RANKING: "the options, best first",
    AnswerKind.SCORE: "a number between two others",
    AnswerKind.PROBABILITY: "how likely it is, 0 to 1",
    AnswerKind.NUMBER: "any number, in a unit",
    AnswerKind.TEXT: "words of their own",
}
_PROTOCOLS = {
    ProtocolKind.POLL: "Everybody answers once, unseen by the others.",
    ProtocolKind.DELPHI: "Then everybody sees what was answered and why, and may revise.",
    ProtocolKind.PEER_REVIEW: "Then answers are reviewed by others, and revised.",
    ProtocolKind.DEBATE: "Then neighbours hear and question each other, and vote.",
    ProtocolKind.COMMON_GROUND: "Then statements for all are drafted, ranked, criticised, and voted on.",
}
_SETTINGS = {
    "wave_size": (
        "Asked at a time",
        "Everybody at once. In waves it stops as soon as the others could not change the decision.",
    ),
    "max_rounds": ("Revisions, at most", ""),
    "reviewers_per_answer": ("Reviewers of each answer", ""),
    "rounds": ("Exchanges", ""),
    "neighbours": ("Neighbours that each one hears", ""),
}


@dataclass(frozen=True, slots=True)
class _RosterChoice:
    name: str
    description: str
    count: int
    usable: bool


def add_ask(app: FastAPI) -> None:
    """Put the view into `app`."""
    app.add_api_route("/ask", ask, methods=["GET"], include_in_schema=False, response_model=None)


async def ask(request: Request, _caller: Observer, conclave: OpenConclave) -> Response:
    """The form."""
    return render(
        request,
        "ask.html",
        title="Ask",
        nav="ask",
        answers=_ANSWERS,
        protocols=[(kind, says, _settings(kind)) for kind, says in _PROTOCOLS.items()],
        rosters=_rosters(conclave),
        default_roster=DEFAULT_ROSTER,
        limits=Limits(),
        quorum=Quorum(),
        sampling=Sampling(),
        origins=[origin.value for origin in TopicOrigin],
        catalogue=catalogue(),
    )


def catalogue() -> dict[str, object]:
    """What the form's script has to know: the rules for each kind of answer, the default first, and their settings."""
    fractions = {
        rule.kind.value: rule.fraction
        for kind in AnswerKind
        for rule in applicable(AnswerFormat(kind))
        if rule.fraction is not None
    }
    return {
        "rules": {kind.value: [rule.value for rule in rules_for(kind)] for kind in AnswerKind},
        "estimates": [kind.value for kind in AnswerKind if kind.is_estimate],
        "fractions": fractions,
        "strengths": [rule.value for rule in RuleKind if rule.compares_strengths],
        "unweighted": [RuleKind.SYNTHESIS.value],
        "tie_breaks": [NO_TIE_BREAK, LOTTERY],
        "most_options": MAX_OPTIONS,
    }


def _settings(kind: ProtocolKind) -> list[tuple[str, str, str, int | None]]:
    return [(name, *_SETTINGS[name], default) for name, default in Protocol(kind).settings().items()]


def _rosters(conclave: Conclave) -> list[_RosterChoice]:
    found = []
    for name in conclave.rosters.names():
        try:
            roster = conclave.rosters.get(name)
        except InvalidRosterError:
            # One broken file must not keep anybody from asking the others; `conclave doctor` says what is wrong with it.
            found.append(_RosterChoice(name, "its file cannot be used", 0, usable=False))
        else:
            found.append(_RosterChoice(name, roster.description, len(roster.agents), usable=True))
    return found
