"""Documents: what goes in comes out, and nothing else comes in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.agent import Roster
from domain.models.budget import Usage
from domain.models.deliberation import Specification
from domain.models.outcome import Change, Dissent, Outcome, OutcomeStatus, Position
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord, FailureCause, Round
from infrastructure.persistence.documents import (
    UnreadableDocumentError,
    dump,
    from_document,
    is_storable,
    load,
    time_from_text,
    time_to_text,
    to_document,
)
from tests.deliberation_specimens import NOON, deliberation, ended, failed, record, specification, started

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_MOMENTS = st.datetimes(timezones=st.just(UTC))
_USAGES = st.builds(Usage, st.integers(), st.integers(), st.integers(), _NUMBERS)
_RECORDS = st.builds(
    AgentRecord,
    st.integers(0, 10),
    _TEXTS,
    st.sampled_from(AgentState),
    st.integers(),
    st.none() | _MOMENTS,
    _MOMENTS,
    content=st.none() | _TEXTS,
    answer=st.none() | _TEXTS | _NUMBERS | st.lists(_TEXTS, max_size=3).map(tuple),
    confidence=st.none() | _NUMBERS,
    failure=st.none() | st.builds(FailureCause, _TEXTS, _TEXTS),
    usage=_USAGES,
    truncated=st.booleans(),
    duration_seconds=_NUMBERS,
)
_TALLIES = st.dictionaries(_TEXTS, st.integers(), max_size=4)
_OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(OutcomeStatus),
    _TEXTS,
    decision=st.none() | _TEXTS | _NUMBERS,
    tally=_TALLIES,
    margin=st.none() | st.integers(),
    spread=st.none() | _NUMBERS,
    dissent=st.builds(
        Dissent,
        st.none() | _NUMBERS,
        st.lists(
            st.builds(
                Position, _TEXTS, st.lists(_TEXTS, max_size=2).map(tuple), st.lists(_TEXTS, max_size=2).map(tuple)
            ),
            max_size=2,
        ).map(tuple),
    ),
    blind_tally=_TALLIES,
    changed=st.lists(st.builds(Change, _TEXTS, _TEXTS, _TEXTS), max_size=2).map(tuple),
    effective_votes=st.none() | _NUMBERS,
    rules_agreeing=st.lists(_TEXTS, max_size=2).map(tuple),
    votes_to_flip=st.none() | st.integers(),
)


def _again(value: Any) -> Any:
    return from_document(type(value), load(dump(to_document(value))))


@given(_RECORDS)
def test_any_record_comes_back_as_it_was(each: AgentRecord) -> None:
    assert _again(each) == each
    assert repr(_again(each).answer) == repr(each.answer)


@given(_OUTCOMES)
def test_any_outcome_comes_back_as_it_was_its_tally_in_its_order(outcome: Outcome) -> None:
    assert _again(outcome) == outcome
    assert list(_again(outcome).tally) == list(outcome.tally)


@pytest.mark.parametrize(
    "value",
    [
        specification(agents=72),
        specification().roster,
        RollCall.of([AgentState.ANSWERED, AgentState.HALTED, AgentState.ANSWERED]),
        RollCall(),
        Usage(1, 2, 3, 0.1 + 0.2),
        Round(3, (record(0), failed(1)), {"no": 0, "yes": 2}),
        ended(started(deliberation()), [record(0), record(1, answer="no")]).outcome,
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_noun_comes_back_as_it_was(value: object) -> None:
    assert _again(value) == value


def test_names_of_fields_are_stable() -> None:
    document = to_document(specification(agents=1))
    assert document["question"]["answer"] == {
        "kind": "choice",
        "options": ["yes", "no", "weekends only"],
        "minimum": None,
        "maximum": None,
        "unit": None,
    }
    assert document["roster"]["agents"] == [
        {
            "id": "archon-0",
            "persona": {"text": "Persona 0 – zögert", "name": "Name 0"},
            "model": "model-0",
            "crew": None,
        }
    ]
    assert list(document) == [
        "question",
        "roster",
        "rule",
        "protocol",
        "quorum",
        "limits",
        "sampling",
        "metadata",
        "seed",
        "control",
        "origin",
    ]
    assert to_document(failed(1))["failure"] == {"kind": "agent_timeout", "message": "no answer within 1.5 s"}
    assert to_document(RollCall.of([AgentState.ANSWERED]))["asked"] == 1


def test_a_field_that_is_missing_takes_its_default() -> None:
    document = to_document(record(1))
    del document["truncated"], document["usage"]
    assert from_document(AgentRecord, document) == replace(record(1), truncated=False, usage=Usage())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"state": "asleep"}, "'asleep' is none of its values"),
        ({"attempts": "2"}, "holds a str"),
        ({"attempts": True}, "holds a bool"),
        ({"attempts": 2.0}, "holds a float"),
        ({"agent_id": None}, "holds a NoneType"),
        ({"agent_id": 7}, "holds a int"),
        ({"answer": {"no": 1}}, "holds a dict"),
        ({"answer": ["yes", 1]}, "holds a int"),
        ({"answer": True}, "holds a bool"),
        ({"finished_at": "noon"}, "no RFC 3339 time"),
        ({"failure": []}, "holds a list"),
        ({"failure": {"kind": "x"}}, "lacks message"),
        ({"usage": {"calls": 1, "tokens": 2}}, "unknown field 'tokens'"),
    ],
)
def test_a_document_of_another_kind_is_refused_not_guessed_at(change: dict[str, object], problem: str) -> None:
    with pytest.raises(UnreadableDocumentError, match=problem):
        from_document(AgentRecord, to_document(record(1)) | change)


@pytest.mark.parametrize("document", [None, [], "x", {"asked": 1, "asleep": 1}, {"answered": "1"}])
def test_a_roll_call_of_another_kind_is_refused(document: object) -> None:
    with pytest.raises(UnreadableDocumentError):
        from_document(RollCall, document)


def test_a_roster_of_another_kind_is_refused() -> None:
    with pytest.raises(UnreadableDocumentError, match="holds a tuple"):
        from_document(Roster, {"name": "x", "agents": ()})
    with pytest.raises(UnreadableDocumentError, match="lacks agents"):
        from_document(Roster, {"name": "x"})


def test_a_kind_that_has_no_document_form_is_named() -> None:
    with pytest.raises(TypeError, match="no document form"):
        from_document(complex, 1)


@pytest.mark.parametrize("unwritable", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
def test_what_json_or_utf_8_cannot_hold_is_refused(unwritable: object) -> None:
    with pytest.raises(ValueError):
        dump({"x": unwritable})


def test_text_is_written_compactly_and_as_it_is() -> None:
    assert dump({"a": [1, 0.1], "ü": "日本 🚗\x00"}) == '{"a":[1,0.1],"ü":"日本 🚗\\u0000"}'


@pytest.mark.parametrize("broken", ["", "{", '{"a":1', "nul", "[1,]"])
def test_text_that_is_no_json_is_refused(broken: str) -> None:
    with pytest.raises(UnreadableDocumentError, match="no JSON"):
        load(broken)


@given(_MOMENTS)
def test_any_moment_comes_back_as_it_was_in_a_text_of_one_width(moment: datetime) -> None:
    text = time_to_text(moment)
    assert time_from_text(text) == moment
    assert len(text) == len("2026-11-21T12:00:00.123456Z")


@given(_MOMENTS, _MOMENTS)
def test_texts_sort_as_their_moments(one: datetime, other: datetime) -> None:
    assert (time_to_text(one) < time_to_text(other)) == (one < other)


def test_a_moment_of_another_zone_is_written_in_utc_and_one_without_is_refused() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert time_to_text(there) == time_to_text(NOON) == "2026-11-21T12:00:00.123456Z"
    with pytest.raises(ValueError, match="no time zone"):
        time_to_text(NOON.replace(tzinfo=None))


def test_only_nul_and_lone_surrogates_cannot_be_stored() -> None:
    assert [is_storable(text) for text in ("", "a", "é 🚗", "\x01\x7f\ufeff")] == [True] * 4
    assert [is_storable(text) for text in ("\x00", "a\x00é", "\ud800", "é\udfff")] == [False] * 4


def test_a_specification_reads_back_from_plain_json() -> None:
    text = json.dumps(to_document(specification()))
    assert from_document(Specification, json.loads(text)) == specification()
