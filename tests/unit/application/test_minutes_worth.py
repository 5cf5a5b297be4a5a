"""What the minutes say of the worth of a result: from the entries and their disclosures, and the same as the service says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from application.services.minutes import Record, write_minutes
from application.services.recorded_worth import recorded_worth
from domain.analysis.worth import assess
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer
from domain.witness.entry import accepted, accepted_texts, agent_ended, deliberation_ended, record_texts, salt_at
from domain.witness.entry import commitment as commit
from tests.unit.domain.analysis.sessions import GONE, held

_SPLIT = [*["yes"] * 8, *["no"] * 4, "later"]


def told(over: Deliberation) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The entries of a deliberation, read back from JSON, and every text by its commitment."""
    texts: dict[str, str] = {}
    first = accepted(over)
    _disclose(texts, first.salts, accepted_texts(over))
    entries = [first.document]
    for each in (record for round_ in over.rounds for record in round_.records):
        by_text = over.specification.answers_in(each.round_number).kind is AnswerKind.TEXT
        entry = agent_ended(over.id, each, over.specification.answers_in(each.round_number))
        _disclose(texts, entry.salts, record_texts(each, answers_by_text=by_text))
        entries.append(entry.document)
    entries.append(deliberation_ended(over).document)
    return json.loads(json.dumps(entries)), texts


def _disclose(texts: dict[str, str], salts: bytes, said: Sequence[str | None]) -> None:
    for place, text in enumerate(said):
        committed = commit(salt_at(salts, place), text)
        if committed is not None and text is not None:
            texts[committed["sha256"]] = text


def minutes(over: Deliberation) -> str:
    entries, texts = told(over)
    return write_minutes(entries, texts, Record(range(len(entries)), 99, bytes(32), "note", "key"))


def test_the_entries_say_what_the_service_says() -> None:
    for over in (
        held(_SPLIT, models=["a", "b"], personas=["Nurse.", "Judge."], reasons={0: "Same.", 1: "same."}),
        held(_SPLIT, [*["yes"] * 11, GONE, "no"]),
        held([1.0, 2.0, 9.0], answer=AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)),
        held([GONE, GONE, "yes"], status=DeliberationStatus.INQUORATE),
    ):
        entries, texts = told(over)
        unnamed = tuple(replace(a, persona=replace(a.persona, name="")) for a in over.specification.roster.agents)
        roster = replace(over.specification.roster, agents=unnamed)
        bare = replace(over, specification=replace(over.specification, roster=roster))
        assert recorded_worth(entries, texts) == assess(bare)


def test_before_the_end_nothing_is_said() -> None:
    entries, texts = told(held(_SPLIT))
    assert recorded_worth(entries[:-1], texts) is None


def test_a_degraded_result_says_so_below_the_title() -> None:
    said: list[Answer] = [GONE if number % 3 == 0 and number < 36 else "yes" for number in range(72)]
    lines = minutes(held(said, models=["slow", "fast", "other"])).splitlines()
    assert lines[2] == "**Degraded: 12 of 72 did not take part.**"
    assert lines[4].startswith("**Drop-out is not random: 12 of 24 agents of the model 'slow' are missing")


def test_what_other_rules_decide_stands_in_the_minutes() -> None:
    text = minutes(held(["yes"] * 4 + ["no"] * 3 + ["later"] * 2))
    assert "| By plurality | yes |" in text
    assert "| By threshold | no majority |" in text


def test_who_decides_alone_stands_in_the_minutes() -> None:
    assert "| Without one agent | another result without any of a0, a1, a2 |" in minutes(held(["yes"] * 3 + ["no"] * 2))


def test_effective_votes_are_bounds_there() -> None:
    assert "| Effective votes | 1.0 to 5.0 of 5: one question cannot tell" in minutes(held(["yes"] * 5))


def test_entries_that_cannot_be_counted_again_are_told_all_the_same() -> None:
    entries, texts = told(held(_SPLIT))
    entries[0]["rule"]["kind"] = "oracle"
    text = write_minutes(entries, texts, Record(range(len(entries)), 99, bytes(32), "note", "key"))
    assert "These entries are none that this version can count again." in text


def test_of_texts_only_who_was_missing_is_said() -> None:
    text = minutes(held(["Build it.", "Leave it.", GONE], answer=AnswerFormat(AnswerKind.TEXT)))
    assert "**Degraded: 1 of 3 did not take part.**" in text
