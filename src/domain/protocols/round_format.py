"""Which answers a round asks for: known from its number alone, so that every reader of a record can read it by itself."""

from __future__ import annotations

from functools import cache

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind

__all__ = ["MAX_DRAFTS", "answer_label", "answers_in", "answers_question", "counted_answers", "statement_label"]

MAX_DRAFTS = 5
"""How many statements are drafted at most in search of common ground, and as many again once they were criticised."""

_TEXT = AnswerFormat(AnswerKind.TEXT)
_REVIEW = 1
_RANKINGS = (2, 5)
_VOTE = 6


def answer_label(place: int) -> str:
    """What an answer under review is called: `place` counts from 0 in an order that is drawn by lot."""
    return f"answer {place + 1}"


def statement_label(place: int) -> str:
    """What a drafted statement is called: `place` counts from 0, those drafted anew after those of the first time."""
    return f"statement {place + 1}"


def answers_in(protocol: Protocol, question: AnswerFormat, agents: int, number: int) -> AnswerFormat:
    """The format in which the answers of that round are recorded, when so many agents are in the roster.

    Labels stand for answers and statements whose author said nothing as well, so that a place in the options means the same
    whatever happened.
    """
    if number == 0:
        return question
    if protocol.kind is ProtocolKind.PEER_REVIEW and number == _REVIEW:
        return _reviews(agents)
    if protocol.kind is ProtocolKind.COMMON_GROUND and number != _VOTE:
        if number not in _RANKINGS:
            return _TEXT
        drafts = min(MAX_DRAFTS, agents)
        count = drafts if number == _RANKINGS[0] else 2 * drafts
        return _rankings(count)
    return question


@cache
def _reviews(agents: int) -> AnswerFormat:
    return AnswerFormat(AnswerKind.APPROVAL, tuple(map(answer_label, range(agents))))


@cache
def _rankings(statements: int) -> AnswerFormat:
    return AnswerFormat(AnswerKind.RANKING, tuple(map(statement_label, range(statements))))


def answers_question(protocol: Protocol, question: AnswerFormat, number: int) -> bool:
    """Whether the ballots of that round are about what is counted in the end."""
    if protocol.kind is ProtocolKind.PEER_REVIEW:
        return number != _REVIEW
    if protocol.kind is ProtocolKind.COMMON_GROUND:
        return number in (_RANKINGS if question.kind is AnswerKind.TEXT else (0, _VOTE))
    return True


def counted_answers(protocol: Protocol, question: AnswerFormat, agents: int) -> AnswerFormat:
    """What the rule counts: answers to the question; where common ground is looked for in texts, rankings of the statements."""
    if protocol.kind is ProtocolKind.COMMON_GROUND and question.kind is AnswerKind.TEXT:
        return answers_in(protocol, question, agents, _RANKINGS[-1])
    return question
