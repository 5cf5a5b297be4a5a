"""Earlier deliberations are kept by the hundred, so what they have in common is there once."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from domain.analysis.past import PastAnswer, PastBallots
from domain.models.question import AnswerFormat, AnswerKind

_AGENTS = [f"agent-{number}" for number in range(72)]


def _read_again(number: int, answers: list[str | None]) -> PastBallots:
    """As it comes from a database: each text is a new object."""
    given = json.loads(
        json.dumps([[0, agent, "model-x", answer] for agent, answer in zip(_AGENTS, answers, strict=True)])
    )
    question = AnswerFormat(AnswerKind.CHOICE, options=("yes, with care", "no"))
    return PastBallots.of(
        f"d-{number}", datetime(2026, 1, 1, tzinfo=UTC), question, [PastAnswer(*each) for each in given]
    )


def test_deliberations_of_the_same_agents_share_their_voices_and_their_answers() -> None:
    one, other = (_read_again(number, ["yes, with care", "no"] * 36) for number in range(2))
    assert one.blind == other.blind
    assert [id(voice) for voice in one.blind] == [id(voice) for voice in other.blind]
    assert [id(answer) for answer in one.blind.values()] == [id(answer) for answer in other.blind.values()]


def test_where_every_answer_is_a_category_the_ballots_are_not_copied() -> None:
    assert (ballots := _read_again(0, ["yes, with care", "no"] * 36)).categories is ballots.blind


def test_an_agent_without_an_answer_has_no_category() -> None:
    ballots = _read_again(0, ["yes, with care", None] * 36)
    assert set(ballots.blind) - set(ballots.categories) == {(agent, "model-x") for agent in _AGENTS[1::2]}
