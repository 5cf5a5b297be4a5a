"""The claims of a synthesis are shown only as the texts that they stand in have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from application.ports.deliberation_repository import StoredDeliberation
from application.ports.witness_log import Erasure
from application.services.record_check import require_recorded
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome, Synthesis
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import accepted, time_text
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import NOON, committing, deliberation, ended, opening, record, started

TEXT = AnswerFormat(AnswerKind.TEXT)
RECORDS = [
    record(0, answer="Build trams. They carry most."),
    record(1, answer="Build trams."),
    record(2, answer="Ask again."),
]


@pytest.fixture
async def repository() -> InMemoryRepository:
    """A store with a deliberation about texts that has ended."""
    own = deliberation()
    asked = own.specification
    bare = replace(asked, question=replace(asked.question, answer=TEXT), rule=Rule(RuleKind.SYNTHESIS))
    own = replace(own, specification=bare)
    repository = InMemoryRepository()
    await repository.add(own, accepted(own), lease="me/1", lease_s=10.0)
    running = started(own)
    await repository.append(opening(running))
    await repository.append(committing(own.id, records=RECORDS, answers=TEXT))
    await repository.append(committing(own.id, deliberation=ended(running, RECORDS)))
    return repository


async def stored(repository: InMemoryRepository) -> StoredDeliberation:
    return (await repository.stored(after=0, limit=1))[0]


def changed(kept: StoredDeliberation, change: Callable[[Outcome, Synthesis], Outcome]) -> StoredDeliberation:
    outcome = kept.deliberation.outcome
    assert outcome is not None
    assert outcome.synthesis is not None
    other = change(outcome, outcome.synthesis)

    def with_other(shown: Deliberation) -> Deliberation:
        return replace(shown, outcome=other)

    return replace(kept, deliberation=with_other(kept.deliberation), at_a_glance=with_other(kept.at_a_glance))


async def test_claims_as_their_agents_made_them_are_shown(repository: InMemoryRepository) -> None:
    kept = await stored(repository)
    require_recorded(kept)
    assert kept.deliberation.outcome is not None
    assert "Build trams." in str(kept.deliberation.outcome.decision)


@pytest.mark.parametrize(
    "change",
    [
        lambda outcome, synthesis: replace(outcome, decision="Build nothing."),
        lambda outcome, synthesis: replace(
            outcome,
            synthesis=replace(synthesis, claims=(replace(synthesis.claims[0], text="X."), *synthesis.claims[1:])),
        ),
        lambda outcome, synthesis: replace(
            outcome,
            synthesis=replace(synthesis, claims=(replace(synthesis.claims[0], sentence=5), *synthesis.claims[1:])),
        ),
        lambda outcome, synthesis: replace(outcome, synthesis=replace(synthesis, claims=synthesis.claims[1:])),
        lambda outcome, synthesis: replace(outcome, synthesis=replace(synthesis, method="a model")),
    ],
    ids=["decision", "text", "sentence", "left out", "method"],
)
async def test_a_claim_that_nobody_made_is_not_shown(
    repository: InMemoryRepository, change: Callable[[Outcome, Synthesis], Outcome]
) -> None:
    with pytest.raises(RecordMismatchError):
        require_recorded(changed(await stored(repository), change))


async def test_an_erased_synthesis_has_no_words(repository: InMemoryRepository) -> None:
    own = (await stored(repository)).deliberation.id
    document = {"type": "erased", "at": time_text(NOON), "deliberation_id": own, "reason": None}
    await repository.log.erase(Erasure(own, document))
    kept = await stored(repository)
    require_recorded(kept)
    outcome = kept.deliberation.outcome
    assert outcome is not None
    assert outcome.synthesis is not None
    assert (outcome.decision, {claim.text for claim in outcome.synthesis.claims}) == (None, {None})
    assert outcome.synthesis.chosen == "cluster 1"
