"""Recounts of whole deliberations: the same ballots by another rule, and nothing where there is no quorum."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from domain.analysis.decision import decide
from domain.analysis.recount import recount, recount_problems
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.outcome import OutcomeStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, RuleKind, default_rule, rules_for
from domain.voting.synthesis import synthesise
from tests.service_fixture import specification

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RANKING = AnswerFormat(AnswerKind.RANKING, ("Memphis", "Nashville", "Chattanooga", "Knoxville"))
TEXT = AnswerFormat(AnswerKind.TEXT)
SHARES = {
    RANKING.options: 21,
    ("Nashville", "Chattanooga", "Knoxville", "Memphis"): 13,
    ("Chattanooga", "Knoxville", "Nashville", "Memphis"): 7,
    ("Knoxville", "Chattanooga", "Nashville", "Memphis"): 8,
}


def ended(
    answers: list[Answer],
    form: AnswerFormat,
    *,
    status: DeliberationStatus = DeliberationStatus.COMPLETED,
    seed: int | None = None,
) -> Deliberation:
    rule = default_rule(form.kind)
    asked = specification(len(answers), answer=form, rule=rule, seed=seed)
    running = Deliberation("d", asked, NOW, status=DeliberationStatus.RUNNING)
    records = [
        AgentRecord(0, f"archon-{place}", AgentState.ANSWERED, 1, None, NOW, content="x", answer=answer)
        for place, answer in enumerate(answers)
    ]
    rounds, outcome = decide(running, records)
    return running.end(
        status, at=NOW, rounds=rounds, outcome=outcome if status is DeliberationStatus.COMPLETED else None
    )


def tennessee() -> Deliberation:
    return ended([order for order, count in SHARES.items() for _ in range(count)], RANKING)


@pytest.mark.parametrize(
    ("kind", "winner"),
    [
        (RuleKind.PLURALITY, "Memphis"),
        (RuleKind.IRV, "Knoxville"),
        (RuleKind.BORDA, "Nashville"),
        (RuleKind.COPELAND, "Nashville"),
        (RuleKind.SCHULZE, "Nashville"),
        (RuleKind.MINIMAX, "Nashville"),
    ],
)
def test_each_rule_elects_its_own_capital_of_tennessee(kind: RuleKind, winner: str) -> None:
    outcome = recount(tennessee(), Rule(kind))
    assert outcome is not None
    assert (outcome.decision, outcome.rule) == (winner, kind.value)


def test_every_rule_that_fits_counts_again_what_it_counted_first() -> None:
    for kind in rules_for(AnswerKind.RANKING):
        found = tennessee()
        agreed = replace(found, specification=replace(found.specification, rule=Rule(kind)))
        records = [record for each in found.rounds for record in each.records]
        assert recount(found, Rule(kind)) == decide(agreed, records)[1]


def test_what_stayed_below_its_quorum_has_no_outcome_by_any_rule() -> None:
    found = ended([RANKING.options], RANKING, status=DeliberationStatus.INQUORATE)
    assert recount(found, Rule(RuleKind.BORDA)) is None


def test_a_rule_for_other_answers_is_named_with_those_that_fit() -> None:
    (problem,) = recount_problems(tennessee().specification, Rule(RuleKind.MEDIAN))
    assert problem.pointer == "/rule/kind"
    assert "schulze" in problem.message


def test_a_lottery_wants_a_seed_that_was_recorded() -> None:
    rule = Rule(RuleKind.PLURALITY, tie_break="lottery")
    (problem,) = recount_problems(tennessee().specification, rule)
    assert problem.pointer == "/rule/tie_break"
    seeded = ended([("Memphis",), ("Knoxville",)], RANKING, seed=4)
    assert recount_problems(seeded.specification, rule) == []
    outcome = recount(seeded, rule)
    assert outcome is not None
    assert (outcome.status, outcome.tie_break) == (OutcomeStatus.DECIDED, "lottery")


def test_texts_are_counted_in_the_clusters_that_were_recorded_also_once_they_are_erased() -> None:
    found = ended(["Trams first.", "Trams first!", "Ask somebody."], TEXT)
    records = [record for each in found.rounds for record in each.records]
    assert found.outcome is not None
    clusters = synthesise([ballot for each in records if (ballot := each.ballot()) is not None])
    assert found.outcome.synthesis is not None
    assert found.outcome.synthesis.clusters == clusters.clusters
    bare = tuple(
        replace(each, records=tuple(replace(record, answer=None, content=None) for record in each.records))
        for each in found.rounds
    )
    erased = replace(found, rounds=bare, erased=True)
    outcome = recount(erased, Rule(RuleKind.SYNTHESIS))
    assert outcome is not None
    assert outcome.tally == {"cluster 1": 2, "cluster 2": 1}
