"""What a result is worth, as the command line says it and as the document shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from api.cli.rendering import render_deliberation
from api.documents import deliberation_document
from api.rest.result_schemas import Worth
from domain.analysis.past import PastBallots
from domain.analysis.worth import assess
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from tests.simulated_jury import VERDICT, hear
from tests.unit.api.cli.samples import console, printed
from tests.unit.domain.analysis.sessions import CHOICE, GONE, held

_SCORE = AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)
_VOICES = tuple((f"a{number}", "m") for number in range(24))


def shown(over: Deliberation, past: Sequence[PastBallots] = (), **more: Any) -> str:
    target = console(200)
    render_deliberation(target, deliberation_document(over, assess(over, past)), again="conclave show", **more)
    return printed(target)


def degraded(**more: Any) -> Deliberation:
    said = [GONE if number % 3 == 0 and number < 36 else "yes" for number in range(72)]
    return held(said, models=["slow", "fast", "other"], **more)


def test_a_degraded_result_says_so_first_and_then_that_it_is_no_chance() -> None:
    first, second, *_ = shown(degraded()).split("\n")
    assert first == "Degraded: 12 of 72 did not take part."
    assert second.startswith("Drop-out is not random: 12 of 24 agents of the model 'slow' are missing")


def test_degraded_is_said_before_whatever_else_has_to_be_known() -> None:
    first, *_, third = shown(degraded(), notices=["About a setting.", "Simulated: by the stub."]).split("\n")[:3]
    assert first.startswith("Degraded:")
    assert third == "Simulated: by the stub."


def test_drop_out_is_said_where_there_is_no_decision_too() -> None:
    assert "Drop-out is not random" in shown(degraded(status=DeliberationStatus.INQUORATE))


def test_it_is_said_once_who_is_missing() -> None:
    assert shown(degraded()).count("Degraded:") == 1


def test_rules_that_decide_otherwise_are_named() -> None:
    assert "By other rules: threshold has no majority" in shown(held(["yes"] * 4 + ["no"] * 3 + ["later"] * 2))


def test_whether_one_agent_decides_is_said() -> None:
    assert "Without one agent: another result without any of 3" in shown(held(["yes"] * 3 + ["no"] * 2))
    assert "Without one agent: the same result, whichever it is" in shown(held(["yes"] * 5 + ["no"]))


def test_an_estimate_shows_how_far_one_agent_moves_it() -> None:
    assert "Without one agent: 2 to 3" in shown(held([1.0, 2.0, 3.0, 9.0], answer=_SCORE))


def test_a_model_that_decides_is_named() -> None:
    text = shown(held(["yes", "yes", "yes", "no", "no"], models=["a", "b"]))
    assert "Without one model: another result without a" in text


def test_one_deliberation_says_that_effective_votes_are_not_known() -> None:
    assert "Effective votes: not known, between 1.0 and 5.0 of 5: one question cannot tell" in shown(held(["yes"] * 5))


def test_many_deliberations_give_effective_votes_and_their_interval() -> None:
    past = hear(_VOICES, questions=200, correlation=0.3, resolved=True)
    text = shown(held(["yes"] * 24, answer=VERDICT), past)
    assert "Effective votes: 3." in text
    assert "measured on 200 resolved questions" in text


def test_movement_and_polarisation_are_told_together() -> None:
    text = shown(held(["yes", "yes", "no", "later"], ["yes", "yes", "yes", "no"]))
    assert "Changed: 2 of 4, 50 % of them to yes, which led before; polarisation 0.88 before" in text


def test_groupthink_is_a_warning() -> None:
    past = [PastBallots(f"p{number}", datetime(2026, 1, 1, tzinfo=UTC), CHOICE, {}, 0.95) for number in range(9)]
    assert "Groupthink: in 10 deliberations in a row" in shown(held(["yes"] * 10), past)


def test_copies_and_echoes_are_named() -> None:
    past = [
        replace(each, blind={**each.blind, _VOICES[5]: each.blind[_VOICES[2]]})
        for each in hear(_VOICES, questions=60, correlation=0.0)
    ]
    text = shown(held(["yes"] * 24, answer=VERDICT, reasons={0: "Cheap.", 1: "Cheap."}), past)
    assert "Like copies of each other: a2, a5, on 60 questions" in text
    assert "The same reason word for word: a0, a1" in text


def test_names_cannot_write_to_the_terminal() -> None:
    said = [GONE if number % 2 == 0 else "yes" for number in range(24)]
    assert "\x1b" not in shown(held(said, models=["\x1b[31mred", "fast"]))


@pytest.mark.parametrize(
    "over",
    [
        degraded(),
        degraded(status=DeliberationStatus.INQUORATE),
        held(["yes", "yes", "no"], ["yes", "yes", "yes"], reasons={0: "A.", 1: "a."}),
        held([1.0, 2.0, 9.0], [2.0, 2.0, 9.0], answer=_SCORE),
        held(["One text.", "Another."], answer=AnswerFormat(AnswerKind.TEXT)),
    ],
    ids=["degraded", "inquorate", "two rounds", "score", "text"],
)
def test_the_document_is_what_its_schema_says(over: Deliberation) -> None:
    document = deliberation_document(over, assess(over))
    assert Worth.model_validate(document["worth"]).model_dump(by_alias=True) == document["worth"]


def test_measured_effective_votes_stand_in_the_outcome() -> None:
    over = held(["yes"] * 24, answer=VERDICT)
    past = hear(_VOICES, questions=200, correlation=0.3, resolved=True)
    assert deliberation_document(over, assess(over, past))["outcome"]["effective_votes"] == pytest.approx(3, rel=0.2)
    assert deliberation_document(over, assess(over))["outcome"]["effective_votes"] is None


def test_a_page_shows_no_worth() -> None:
    assert deliberation_document(held(["yes"]))["worth"] is None
