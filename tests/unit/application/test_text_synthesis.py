"""What texts come to after the last round: by an embedder where there is one, by their words where there is none or it is away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord
from application.services.text_synthesis import TextSynthesis
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, Specification
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.rule import Rule, RuleKind

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEXTS = ("Trams carry most people.", "Trams carry most people!", None, "Ask again later.")


class Embedder:
    """Says that everybody says the same, or that it is away."""

    name = "an embedding model"
    alike_from = 0.8

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.asked: list[str] = []

    def foresee(self, texts: Sequence[str]) -> Forecast | None:
        del texts
        return None

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        del record
        self.asked += texts
        if self.is_away:
            raise DependencyUnavailableError(dependency="the model", problem="it is away")
        return [[1.0, place / 100] for place in range(len(texts))]


def deliberation(kind: AnswerKind = AnswerKind.TEXT, rule: RuleKind = RuleKind.SYNTHESIS) -> Deliberation:
    members = [Agent(f"a{place}", Persona("One.")) for place in range(len(TEXTS))]
    question = Question("What first?", None, AnswerFormat(kind))
    return Deliberation("d-1", Specification(question, Roster.assemble("", members), Rule(rule)), NOON)


def records(*texts: str | None) -> list[AgentRecord]:
    return [
        AgentRecord(
            0, f"a{place}", AgentState.ABSTAINED if text is None else AgentState.ANSWERED, 1, NOON, NOON, answer=text
        )
        for place, text in enumerate(texts)
    ]


async def test_without_an_embedder_texts_are_compared_by_their_words() -> None:
    found = await TextSynthesis().of(deliberation(), records(*TEXTS))
    assert found is not None
    assert (found.method, [each.agents for each in found.clusters]) == ("tf-idf", [("a0", "a1"), ("a3",)])


async def test_an_embedder_decides_who_says_the_same_and_is_named() -> None:
    embedder = Embedder()
    found = await TextSynthesis(embedder).of(deliberation(), records(*TEXTS))
    assert found is not None
    assert (found.method, [each.agents for each in found.clusters]) == ("an embedding model", [("a0", "a1", "a3")])
    assert embedder.asked == [text for text in TEXTS if text is not None]
    assert all(claim.agents for claim in found.claims)


async def test_an_embedder_that_is_away_is_done_without_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    found = await TextSynthesis(Embedder(is_away=True)).of(deliberation(), records(*TEXTS))
    assert found is not None
    assert found.method == "tf-idf"
    assert "compared by their words" in caplog.text


async def test_one_text_needs_no_embedder() -> None:
    embedder = Embedder()
    found = await TextSynthesis(embedder).of(deliberation(), records("Alone.", None))
    assert found is not None
    assert (embedder.asked, len(found.clusters)) == ([], 1)


async def test_rules_that_count_no_texts_need_no_synthesis() -> None:
    verdict = deliberation(AnswerKind.VERDICT, RuleKind.THRESHOLD)
    assert await TextSynthesis(Embedder()).of(verdict, records("yes", "no")) is None
