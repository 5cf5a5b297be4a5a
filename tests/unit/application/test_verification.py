"""What the offline verifier accepts, what it refuses, and that it says which texts it did not see."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785

from application.services.verification import VerificationReport, VerificationTools, verify_bundle, verify_log
from application.services.verification.texts import CommittedTexts
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import VerifierKey
from tests import witness_specimens as specimens
from tests.witness_mutations import mutations
from tests.witness_specimens import Document, Log, LogKey, Story, as_bytes, as_lines

TOOLS = VerificationTools(check_signature=specimens.check_signature, parse_canonical=specimens.parse_canonical)
KEY = VerifierKey.parse(LogKey().vkey)
STORIES = ("choice", "verdict", "tie", "inquorate", "cancelled", "erased", "text")


@pytest.fixture(scope="module")
def log() -> Log:
    return specimens.whole_log()


def check_bundle(bundle: Document | bytes) -> VerificationReport:
    document = bundle if isinstance(bundle, bytes) else as_bytes(bundle)
    return verify_bundle(document, key=KEY, tools=TOOLS)


def check_export(lines: list[Any] | list[bytes]) -> VerificationReport:
    raw = lines if lines and isinstance(lines[0], bytes) else as_lines(lines)
    return verify_log(iter(raw), key=KEY, tools=TOOLS)


def refusal_of(bundle: Document | bytes) -> VerificationRefusedError:
    with pytest.raises(VerificationRefusedError) as refused:
        check_bundle(bundle)
    return refused.value


def refusal_of_export(lines: list[Any] | list[bytes]) -> VerificationRefusedError:
    with pytest.raises(VerificationRefusedError) as refused:
        check_export(lines)
    return refused.value


@pytest.mark.parametrize("story", STORIES)
def test_every_kind_of_deliberation_verifies_as_a_bundle(log: Log, story: str) -> None:
    report = check_bundle(log.bundle(story))
    assert [each.id for each in report.deliberations] == [story]
    assert report.entries_checked == len(log.places[story])
    assert report.tree_size == len(log.entries)
    assert report.root_hash == log.root()
    assert report.origin == specimens.ORIGIN


def test_a_whole_log_verifies_line_by_line(log: Log) -> None:
    report = check_export(log.export())
    assert report.kind == "log"
    assert report.entries_checked == len(log.entries)
    assert {each.id: each.status for each in report.deliberations} == {
        "choice": "completed",
        "verdict": "completed",
        "tie": "completed",
        "inquorate": "inquorate",
        "cancelled": "cancelled",
        "erased": "completed",
        "text": "completed",
    }
    assert {each.id: each.decision for each in report.deliberations if each.outcome_status == "decided"} == {
        "choice": "weekends only",
        "verdict": "yes",
        "erased": 7,
        "text": "Plant trees.",
    }


def test_a_bundle_of_seventy_two_agents_verifies() -> None:
    report = check_bundle(Log().tell(specimens.seventy_two()).bundle("large"))
    assert report.deliberations[0].roll_call["answered"] == 72
    assert report.deliberations[0].decision == "yes"
    assert report.withheld_count == 0


def test_a_log_whose_last_deliberation_has_not_ended_verifies(log: Log) -> None:
    report = check_export(log.export(size=30, disclosed=False))
    assert {each.status for each in report.deliberations} == {None}
    assert sum(each.roll_call["asked"] for each in report.deliberations) > 0


def test_an_outcome_of_free_texts_is_said_not_to_be_computed_again(log: Log) -> None:
    assert "texts" in str(check_bundle(log.bundle("text")).deliberations[0].not_recomputed)
    assert check_bundle(log.bundle("choice")).deliberations[0].not_recomputed is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rule", {"kind": "schulze"}),
        ("rule", {"kind": "plurality", "tie_break": "sortition"}),
        ("protocol", {"kind": "seance", "max_rounds": 3}),
        ("protocol", {"kind": "delphi", "max_rounds": "three"}),
    ],
)
def test_what_this_version_cannot_count_is_said_not_to_be_computed_again(field: str, value: Document) -> None:
    story = specimens.choice().retold(lambda each: each.documents[0].update({field: value}))
    assert check_bundle(Log().tell(story).bundle("choice")).deliberations[0].not_recomputed


def test_a_text_that_is_not_disclosed_is_named_as_withheld(log: Log) -> None:
    bundle = log.bundle("tie")
    question = json.loads(bundle["entries"][0]["entry"])["question"]["sha256"]
    bundle["disclosures"] = [each for each in bundle["disclosures"] if each["sha256"] != question]
    report = check_bundle(bundle)
    assert [(each.index, each.field) for each in report.withheld] == [(log.places["tie"][0], "question")]


def test_texts_that_were_erased_are_named_as_erased_and_not_as_withheld(log: Log) -> None:
    report = check_bundle(log.bundle("erased"))
    first = log.places["erased"][0]
    assert (first, "question") in [(each.index, each.field) for each in report.erased]
    assert (first, "members/3/persona") in [(each.index, each.field) for each in report.erased]
    assert [(each.index, each.field) for each in report.withheld] == [(log.places["erased"][-1], "key_name")]


def test_prompts_are_counted_apart_because_nobody_keeps_them(log: Log) -> None:
    report = check_bundle(log.bundle("choice"))
    assert report.prompts == 8
    assert report.withheld == ()


# What the contract lists as bad input, for a bundle and for a whole log.


@pytest.mark.parametrize("nothing", [b"", b"\n", b"{}", b"[]", b"null"])
def test_an_empty_file_is_refused(nothing: bytes) -> None:
    refusal_of(nothing)
    refusal_of_export([nothing])


def test_no_lines_at_all_are_refused() -> None:
    assert "empty" in str(refusal_of_export([]))


def test_a_bundle_and_a_log_without_entries_are_refused(log: Log) -> None:
    assert "no entries" in str(refusal_of({**log.bundle("tie"), "entries": [], "disclosures": []}))
    assert "no entries" in str(refusal_of_export(Log().export()))


def test_a_bundle_that_is_cut_anywhere_is_refused(log: Log) -> None:
    whole = as_bytes(log.bundle("cancelled"))
    for end in range(0, len(whole) - 1, 97):
        refusal_of(whole[:end])


def test_a_bundle_without_its_last_entries_is_refused(log: Log) -> None:
    bundle = log.bundle("tie")
    bundle["entries"].pop()
    assert "cut off" in str(refusal_of(bundle))


def test_an_export_that_ends_early_is_refused(log: Log) -> None:
    lines = log.export(disclosed=False)
    for end in range(1, len(lines)):
        refused = refusal_of_export(lines[:end])
    assert refused.evidence == {"tree_size": str(len(log.entries))}
    assert "cut off" in str(refused)


def test_an_export_that_ends_within_a_line_is_refused(log: Log) -> None:
    lines = as_lines(log.export())
    assert f"line {len(lines)}" in str(refusal_of_export([*lines[:-1], lines[-1][:-9]]))


def test_entries_out_of_order_are_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    entries = bundle["entries"]
    entries[3], entries[4] = entries[4], entries[3]
    refused = refusal_of(bundle)
    assert refused.index == entries[4]["index"]
    assert "out of order" in str(refused)
    lines = log.export()
    lines[3], lines[4] = lines[4], lines[3]
    assert refusal_of_export(lines).index == 3


def test_entries_that_changed_places_under_the_old_indexes_are_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    entries = bundle["entries"]
    entries[5]["entry"], entries[6]["entry"] = entries[6]["entry"], entries[5]["entry"]
    assert refusal_of(bundle).index == entries[5]["index"]
    lines = log.export(disclosed=False)
    lines[45]["entry"], lines[46]["entry"] = lines[46]["entry"], lines[45]["entry"]
    assert refusal_of_export(lines).evidence["root_hash"] == log.root().hex()


def test_an_edited_entry_is_refused_with_both_roots(log: Log) -> None:
    bundle = log.bundle("choice")
    place = next(n for n, each in enumerate(bundle["entries"]) if '"agent.ended"' in each["entry"])
    edited = json.loads(bundle["entries"][place]["entry"])
    edited["confidence"] = 0.5
    bundle["entries"][place]["entry"] = rfc8785.dumps(edited).decode()
    refused = refusal_of(bundle)
    assert refused.index == bundle["entries"][place]["index"]
    assert log.root().hex() in str(refused)
    assert len(refused.evidence) == 2


def test_an_edited_text_is_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["disclosures"][4]["text"] += "!"
    assert refusal_of(bundle).evidence["sha256"] == bundle["disclosures"][4]["sha256"]
    lines = log.export()
    lines[-1]["disclosure"]["text"] += "!"
    assert "committed" in str(refusal_of_export(lines))


def test_a_text_that_no_entry_commits_to_is_refused(log: Log) -> None:
    stranger = Story("stranger")
    stranger.commit("Nobody said this.")
    bundle = log.bundle("choice")
    bundle["disclosures"] += stranger.disclosures
    assert "belongs to no entry" in str(refusal_of(bundle))
    assert "belongs to no entry" in str(refusal_of_export([*log.export(), {"disclosure": stranger.disclosures[0]}]))


def test_a_text_that_is_disclosed_twice_is_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["disclosures"].append(bundle["disclosures"][0])
    assert "twice" in str(refusal_of(bundle))


def test_an_unsigned_checkpoint_is_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["checkpoint"] = bundle["checkpoint"].split("\u2014")[0]
    refusal_of(bundle)
    refusal_of_export([{**log.export()[0], "checkpoint": bundle["checkpoint"]}, *log.export()[1:]])


def test_a_checkpoint_signed_by_another_key_of_the_same_name_is_refused(log: Log) -> None:
    forged = LogKey(seed=b"\x08" * 32)
    refused = refusal_of({**log.bundle("choice"), "checkpoint": log.checkpoint(key=forged)})
    assert "no signature" in str(refused)
    refusal_of_export([{**log.export()[0], "checkpoint": log.checkpoint(key=forged)}, *log.export()[1:]])


def test_a_bundle_that_brings_its_own_key_is_refused() -> None:
    forged = specimens.whole_log(LogKey(seed=b"\x08" * 32))
    assert refusal_of(forged.bundle("choice")).evidence["pinned"] == LogKey().vkey
    assert refusal_of_export(forged.export()).evidence["pinned"] == LogKey().vkey


def test_a_wrong_signature_under_the_right_key_id_is_refused(log: Log) -> None:
    other = Log().tell(specimens.tie())
    head, foot = log.checkpoint().split("\n\n")[0], other.checkpoint().split("\n\n")[1]
    assert "signature" in str(refusal_of({**log.bundle("choice"), "checkpoint": f"{head}\n\n{foot}"}))


def test_a_signature_that_stands_twice_is_refused(log: Log) -> None:
    checkpoint = log.checkpoint()
    line = checkpoint.splitlines(keepends=True)[-1]
    assert "twice" in str(refusal_of({**log.bundle("choice"), "checkpoint": checkpoint + line}))


def test_a_checkpoint_of_another_origin_is_refused_although_the_key_signed_it(log: Log) -> None:
    other = log.checkpoint(origin="conclave.example/other")
    refused = refusal_of({**log.bundle("choice"), "checkpoint": other})
    assert refused.evidence == {"expected_origin": specimens.ORIGIN, "origin": "conclave.example/other"}
    refusal_of_export([{**log.export()[0], "checkpoint": other}, *log.export()[1:]])


def test_a_duplicate_index_is_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["entries"].insert(2, bundle["entries"][1])
    refused = refusal_of(bundle)
    assert refused.index == bundle["entries"][1]["index"]
    assert "twice" in str(refused)
    lines = log.export()
    lines.insert(3, lines[2])
    refusal_of_export(lines)


def test_an_older_valid_head_with_entries_beyond_it_is_refused(log: Log) -> None:
    size = log.places["choice"][-1]
    older = log.checkpoint(size)
    assert refusal_of({**log.bundle("tie"), "checkpoint": older}).index == log.places["tie"][0]
    beyond = {**log.bundle("choice"), "checkpoint": older, "entries": log.bundle("choice")["entries"][-1:]}
    assert "beyond the checkpoint" in str(refusal_of(beyond))
    header = {**log.export()[0], "checkpoint": older, "tree_size": size}
    refused = refusal_of_export([header, *log.export()[1:]])
    assert refused.index == size
    assert "beyond the checkpoint" in str(refused)
    assert "tree size" in str(refusal_of_export([{**log.export()[0], "checkpoint": older}, *log.export()[1:]]))


def test_an_older_head_of_the_same_entries_is_accepted_with_its_own_proofs(log: Log) -> None:
    size = log.places["cancelled"][-1] + 1
    assert check_bundle(log.bundle("choice", size=size)).tree_size == size


def test_a_valid_proof_for_another_leaf_is_refused(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["entries"][0]["inclusion_proof"] = bundle["entries"][1]["inclusion_proof"]
    assert refusal_of(bundle).index == bundle["entries"][0]["index"]


@pytest.mark.parametrize("more", [1, 100, 100_000])
def test_an_oversized_proof_is_refused(log: Log, more: int) -> None:
    bundle = log.bundle("cancelled")
    bundle["entries"][0]["inclusion_proof"] += ["00" * 32] * more
    assert refusal_of(bundle).index == bundle["entries"][0]["index"]


def test_a_proof_that_is_too_short_is_refused(log: Log) -> None:
    bundle = log.bundle("cancelled")
    bundle["entries"][0]["inclusion_proof"].pop()
    assert refusal_of(bundle).index == bundle["entries"][0]["index"]


@pytest.mark.parametrize("trailing", [b"x", b"{}", b"null", b"\x00", b"\xef\xbb\xbf"])
def test_trailing_bytes_are_refused(log: Log, trailing: bytes) -> None:
    refusal_of(as_bytes(log.bundle("tie")) + trailing)
    refusal_of_export([*as_lines(log.export()), trailing])
    refusal_of_export([line.rstrip() + trailing + b"\n" for line in as_lines(log.export())])


def test_trailing_bytes_after_the_checkpoint_are_refused(log: Log) -> None:
    for trailing in (" ", "\n", "x"):
        refusal_of({**log.bundle("tie"), "checkpoint": log.checkpoint() + trailing})


def test_an_empty_line_in_an_export_is_refused(log: Log) -> None:
    lines = as_lines(log.export())
    assert "line 3 is empty" in str(refusal_of_export([*lines[:2], b"\n", *lines[2:]]))


def _spaced(entry: str) -> str:
    return json.dumps(json.loads(entry), sort_keys=True, ensure_ascii=False)


def _reordered(entry: str) -> str:
    return json.dumps(dict(reversed(json.loads(entry).items())), separators=(",", ":"), ensure_ascii=False)


def _escaped(entry: str) -> str:
    return entry.replace('"type"', '"\\u0074ype"')


def _with_a_twin(entry: str) -> str:
    return entry[:-1] + ',"type":' + json.dumps(json.loads(entry)["type"]) + "}"


@pytest.mark.parametrize("written", [_spaced, _reordered, _escaped, _with_a_twin])
def test_an_entry_that_parses_the_same_but_is_not_canonical_is_refused_even_when_it_was_signed(
    written: Callable[[str], str],
) -> None:
    log = Log().tell(specimens.tie())
    log.entries[2] = written(log.entries[2].decode()).encode()
    assert json.loads(log.entries[2])["type"] == "call.intended"
    assert refusal_of(log.bundle("tie")).index == 2
    assert refusal_of_export(log.export()).index == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": 1', '"version": 1, "version": 1'),
        ('"version": 1', '"version": 1.0'),
        ('"version": 1', '"version": true'),
        ('"version": 1', '"version": 2'),
        ('"version": 1', '"version": 1, "more": null'),
        ('"version": 1', '"version": NaN'),
        ('"version": 1', '"version": ' + "[" * 100_000),
        ('"index": 61', '"index": 61.0'),
        ('"index": 61', '"index": "61"'),
        ('"index": 61', '"index": -61'),
        ('"index": 61', '"index": ' + "9" * 5000),
        ('"text": "operator"', '"text": "\\ud800"'),
        ('"entry": "{', '"entry": "\\ud800{'),
    ],
)
def test_json_that_readers_disagree_about_is_refused(old: str, new: str) -> None:
    # One story alone, at the same indexes as in no other test, so that the replaced text stands in it exactly.
    log = Log()
    for _ in range(61):
        log.add_system("halt.set")
    log.tell(specimens.tie())
    whole = as_bytes(log.bundle("tie")).decode()
    assert old in whole
    assert check_bundle(whole.encode()).tree_size > 61
    refusal_of(whole.replace(old, new, 1).encode())


def test_an_upper_case_hash_is_refused(log: Log) -> None:
    bundle = log.bundle("tie")
    bundle["entries"][0]["inclusion_proof"][0] = bundle["entries"][0]["inclusion_proof"][0].upper()
    assert "lower-case" in str(refusal_of(bundle))


def test_entries_of_two_deliberations_are_no_bundle(log: Log) -> None:
    bundle = log.bundle("choice")
    bundle["entries"] = sorted(
        [*bundle["entries"], *log.bundle("tie")["entries"]], key=lambda entry: int(entry["index"])
    )
    assert "another deliberation" in str(refusal_of(bundle))


def test_an_entry_left_out_in_the_middle_is_noticed_although_all_others_are_proven(log: Log) -> None:
    for place in range(1, 10):
        bundle = log.bundle("choice")
        del bundle["entries"][place]
        bundle["disclosures"] = []
        refusal_of(bundle)


# What a log may say although its key has signed it: entries that do not agree with each other.


def _ending(story: Story) -> Document:
    return story.find("deliberation.ended")


def _drop(kind: str, **fields: Any) -> Callable[[Story], None]:
    return lambda story: story.documents.remove(story.find(kind, **fields))


def _change(kind: str, where: Document, **to: Any) -> Callable[[Story], None]:
    return lambda story: story.find(kind, **where).update(to)


def _change_outcome(name: str, value: Any) -> Callable[[Story], None]:
    return lambda story: _ending(story)["outcome"].update({name: value})


def _repeat(kind: str, **fields: Any) -> Callable[[Story], None]:
    def repeat(story: Story) -> None:
        found = story.find(kind, **fields)
        story.documents.insert(story.documents.index(found) + 1, dict(found))

    return repeat


def _move(kind: str, to: int) -> Callable[[Story], None]:
    def move(story: Story) -> None:
        found = story.find(kind)
        story.documents.remove(found)
        story.documents.insert(to, found)

    return move


def _without(kind: str, name: str) -> Callable[[Story], None]:
    def cut(story: Story) -> None:
        del story.find(kind)[name]

    return cut


LIES: dict[str, Callable[[Story], None]] = {
    "nobody accepted it": _drop("deliberation.accepted"),
    "it was accepted twice": _repeat("deliberation.accepted"),
    "it was accepted later": _move("deliberation.accepted", 1),
    "a round follows its end": _move("round.started", 99),
    "it ended twice": _repeat("deliberation.ended"),
    "an intent was left out": _drop("call.intended", agent_id="a-1"),
    "an ending was left out": _drop("agent.ended", agent_id="a-1"),
    "an agent ended twice": _repeat("agent.ended", agent_id="a-1"),
    "an ending is of another attempt": _change("agent.ended", {"agent_id": "a-1"}, attempt=2),
    "a stranger was called": _change("call.intended", {"agent_id": "a-1"}, agent_id="a-99"),
    "a stranger was listed": _change("round.started", {}, agents=["a-99"]),
    "the record is of other entries": _change("deliberation.ended", {}, record_sha256="00" * 32),
    "an agent ended otherwise": _change("agent.ended", {"agent_id": "a-4"}, state="invalid"),
    "an abstention has an answer": _change("agent.ended", {"agent_id": "a-4"}, answer=1),
    "an answer is beyond the options": _change("agent.ended", {"agent_id": "a-1"}, answer=3),
    "an answer is a truth value": _change("agent.ended", {"agent_id": "a-1"}, answer=True),
    "an answer is of another kind": _change("agent.ended", {"agent_id": "a-1"}, answer="yes"),
    "an answer is missing": _change("agent.ended", {"agent_id": "a-1"}, answer=None),
    "an answer has a failure": _change(
        "agent.ended", {"agent_id": "a-1"}, failure={"kind": "agent_failed", "message": None}
    ),
    "a failure has no cause": _change("agent.ended", {"agent_id": "a-5"}, failure=None),
    "another answer was counted": _change("agent.ended", {"agent_id": "a-1"}, answer=0),
    "another usage was summed": lambda story: _ending(story)["usage"].update(calls=9),
    "another cost was summed": lambda story: _ending(story)["usage"].update(cost_usd=0.1),
    "more uncertain tokens were summed": lambda story: _ending(story)["usage"].update(uncertain_tokens=1),
    "another uncertain cost was summed": lambda story: _ending(story)["usage"].update(uncertain_usd=0.1),
    "uncertain tokens were forgotten": lambda story: story.find("agent.ended")["usage"].update(uncertain_tokens=1),
    "an uncertain cost was forgotten": lambda story: story.find("agent.ended")["usage"].update(uncertain_usd=0.1),
    "an uncertain cost below nothing": lambda story: story.find("agent.ended")["usage"].update(uncertain_usd=-0.1),
    "a part of an uncertain token": lambda story: story.find("agent.ended")["usage"].update(uncertain_tokens=0.5),
    "a hold below nothing": _change("call.intended", {}, held={"tokens": -1, "cost_usd": 0.1}),
    "a hold without its tokens": _change("call.intended", {}, held={"cost_usd": 0.1}),
    "a hold that is none": _change("call.intended", {}, held=None),
    "an end before without its kind": _change("call.intended", {}, previous={"state": "failed"}),
    "an end before in no state": _change("call.intended", {}, previous={"state": "lost", "kind": "status_500"}),
    "an end before of another usage": _change(
        "call.intended", {}, previous={"state": "failed", "kind": "status_500", "usage": {"calls": -1}}
    ),
    "an attempt took more than all did": _change(
        "call.intended",
        {},
        previous={
            "state": "failed",
            "kind": "status_500",
            "usage": {"calls": 1, "input_tokens": 10**6, "output_tokens": 0, "cost_usd": 0.0},
        },
    ),
    "an attempt may have cost more than all may": _change(
        "call.intended",
        {},
        previous={
            "state": "failed",
            "kind": "connection_lost",
            "usage": {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0, "uncertain_usd": 0.1},
        },
    ),
    "a version of prompts that is no text": _change("call.intended", {}, prompt_version=1),
    "a fallback that is no truth value": _change("agent.ended", {}, fell_back="no"),
    "another roll call was held": lambda story: _ending(story)["roll_call"].update(failed=1),
    "another round was held": lambda story: _ending(story)["rounds"][0]["tally"].update(yes=2),
    "another quorum would be met": _change("deliberation.accepted", {}, quorum={"min_answered_fraction": 0.9}),
    "another rule was applied": _change("deliberation.accepted", {}, rule={"kind": "threshold", "fraction": 0.9}),
    "it was inquorate": _change("deliberation.ended", {}, status="inquorate", outcome=None),
    "it failed with an outcome": _change("deliberation.ended", {}, status="failed"),
    "it has no outcome": _change("deliberation.ended", {}, outcome=None),
    "an outcome of another status": _change_outcome("status", "tied"),
    "an outcome of another decision": _change_outcome("decision", "yes"),
    "an outcome of another rule": _change_outcome("rule", "threshold"),
    "an outcome of another tally": _change_outcome("tally", {"yes": 3, "no": 1, "weekends only": 1}),
    "an outcome of another margin": _change_outcome("margin", 3),
    "an outcome with a spread": _change_outcome("spread", 0.0),
    "an outcome of less dissent": _change_outcome("dissent", {"percentage": 40.0, "positions": []}),
    "an outcome of another blind tally": _change_outcome("blind_tally", {}),
    "an outcome with a change": _change_outcome("changed", [{"agent_id": "a-1", "from": "yes", "to": "no"}]),
    "an outcome of more votes": _change_outcome("effective_votes", 72.0),
    "an outcome more robust": _change_outcome(
        "robustness", {"rules_agreeing": ["plurality", "threshold"], "votes_to_flip": 2}
    ),
    "an outcome with more": _change_outcome("more", 1),
    "an outcome with less": lambda story: _ending(story)["outcome"].pop("margin"),
    "a member is one twice": lambda story: story.documents[0]["members"].append(story.documents[0]["members"][0]),
    "options that read the same": _change(
        "deliberation.accepted", {}, answer={"kind": "choice", "options": ["yes", "YES", "no"]}
    ),
    "an unknown type": _change("round.started", {}, type="round.skipped"),
    "a field is missing": _without("agent.ended", "confidence"),
    "a field is of another type": _change("call.intended", {}, attempt="1"),
    "a confidence beyond one": _change("agent.ended", {"agent_id": "a-1"}, confidence=1.5),
    "a time that is none": _change("round.started", {}, at="2026-13-21T12:00:00Z"),
    "a time without a zone": _change("round.started", {}, at="2026-11-21T12:00:00"),
    "a commitment with its text": _change(
        "agent.ended", {"agent_id": "a-1"}, content={"sha256": "00" * 32, "text": "open"}
    ),
    "an entry too long": _change("round.started", {}, more="x" * 60_000),
    "no deliberation is named": _change("round.started", {}, deliberation_id=None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_log_whose_entries_do_not_agree_is_refused(lie: str) -> None:
    story = specimens.choice().retold(LIES[lie])
    log = Log().add_system("key.added")
    log.tell(story)
    bundle = log.bundle("choice")
    bundle["disclosures"] = []
    assert "belongs to no entry" not in str(refusal_of(bundle))
    refused = refusal_of_export(log.export(disclosed=False))
    assert refused.index is not None


_FREE: Document = {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}


def _with_money(story: Story) -> None:
    """Tell it with everything that says what calls hold, took and may have taken."""
    for each in story.documents:
        if each["type"] == "call.intended":
            each.update(prompt_version="1:" + "00" * 32, held={"tokens": 1_500, "cost_usd": 0.07}, previous=None)
        if each["type"] == "agent.ended":
            each.update(fell_back=each["agent_id"] == "a-1")
            each["usage"].update(uncertain_tokens=1_500, uncertain_usd=0.07)
    first = story.find("call.intended")
    first["held"]["cost_usd"] = None
    first["previous"] = {
        "state": "failed",
        "kind": "connection_lost",
        "usage": {**_FREE, "uncertain_tokens": 1_500, "uncertain_usd": 0.07},
    }
    agents = sum(each["type"] == "agent.ended" for each in story.documents)
    _ending(story)["usage"].update(uncertain_tokens=1_500 * agents, uncertain_usd=0.07 * agents)


def test_a_log_that_tells_what_calls_hold_and_may_have_taken_verifies() -> None:
    log = Log().add_system("key.added")
    log.tell(specimens.choice().retold(_with_money))
    assert check_bundle(log.bundle("choice")).deliberations[0].status == "completed"
    assert check_export(log.export()).entries_checked == len(log.entries)


def test_one_that_began_under_an_earlier_version_verifies_too() -> None:
    def tell(story: Story) -> None:
        _with_money(story)
        for name in ("held", "previous", "prompt_version"):
            del story.find("call.intended")[name]
        usage = story.find("agent.ended")["usage"]
        of_the_end = _ending(story)["usage"]
        of_the_end["uncertain_tokens"] -= usage.pop("uncertain_tokens")
        of_the_end["uncertain_usd"] -= usage.pop("uncertain_usd")
        story.find("call.intended")["previous"] = {"state": "failed", "kind": "interrupted"}
        del story.find("agent.ended")["fell_back"]

    log = Log().add_system("key.added")
    log.tell(specimens.choice().retold(tell))
    assert check_bundle(log.bundle("choice")).deliberations[0].status == "completed"


def test_keys_that_the_log_names_are_read() -> None:
    log = Log()
    log.add_system("key.added", vkey=log.key.vkey).add_system("key.retired", vkey=log.key.vkey)
    assert check_export(log.export()).entries_checked == 2


@pytest.mark.parametrize("kind", ["key.added", "key.retired"])
@pytest.mark.parametrize("vkey", [None, 7, "", "example.com/log+00000000+AAAA"])
def test_what_is_no_key_is_refused_as_the_log_s(kind: str, vkey: object) -> None:
    refused = refusal_of_export(Log().add_system("halt.set").add_system(kind, vkey=vkey).export())
    assert refused.index == 1
    assert "'vkey'" in refused.what


def test_a_deliberation_that_did_not_meet_its_quorum_may_not_be_completed() -> None:
    story = specimens.inquorate().retold(
        lambda each: _ending(each).update(
            status="completed",
            outcome=specimens.decided("no", {"yes": 0, "no": 1}, rule="threshold", margin=1, percentage=0.0),
        )
    )
    assert "quorum" in str(refusal_of(Log().tell(story).bundle("inquorate")))


def test_an_entry_of_the_system_belongs_to_no_deliberation() -> None:
    log = Log().add_system("halt.set", deliberation_id="x")
    assert refusal_of_export(log.export()).index == 0


TINY = {"in_memory_bytes": 100, "disclosures_a_time": 3}


@pytest.mark.parametrize("limits", [{}, TINY])
def test_texts_are_settled_alike_in_memory_and_beyond_it(log: Log, limits: dict[str, int]) -> None:
    disclosures = [each for story in log.stories for each in story.disclosures]
    with CommittedTexts(**limits) as texts:
        for place, each in enumerate(disclosures):
            texts.add(index=place, owner=place % 5, field=f"field-{place % 3}", sha256=each["sha256"])
        for each in disclosures[10:50]:
            texts.disclose(each)
        settled = texts.settle({2: 60})
    erased = [2, 7, 52, 57]
    assert texts.disclosed == 40
    assert [(each.index, each.field) for each in settled.erased] == [(n, f"field-{n % 3}") for n in erased]
    withheld = [n for n in (*range(10), *range(50, len(disclosures))) if n not in erased]
    assert [each.index for each in settled.withheld] == withheld
    assert (settled.withheld_count, settled.erased_count) == (len(withheld), 4)


@pytest.mark.parametrize("limits", [{}, TINY])
def test_a_text_is_disclosed_once_however_far_apart(log: Log, limits: dict[str, int]) -> None:
    disclosures = log.stories[0].disclosures
    with CommittedTexts(**limits) as texts:
        for place, each in enumerate(disclosures):
            texts.add(index=place, owner=1, field="content", sha256=each["sha256"])
        for each in disclosures:
            texts.disclose(each)

        def again() -> None:
            texts.disclose(disclosures[0])
            texts.settle({})

        with pytest.raises(VerificationRefusedError, match="twice"):
            again()


# Any change of any value, anywhere.


def test_every_random_mutation_of_a_bundle_or_an_export_is_refused(log: Log, sized: Callable[[int, int], int]) -> None:
    originals: list[Any] = [*(log.bundle(story) for story in STORIES), log.export()]
    hidden = 0
    for original, mutated in mutations(originals, sized(600, 10_000), seed=3):
        check = check_export if isinstance(original, list) else check_bundle
        try:
            report = check(copy.copy(mutated))
        except VerificationRefusedError:
            continue
        before, after = (_disclosures(each) for each in (original, mutated))
        assert _without_disclosures(mutated) == _without_disclosures(original)
        assert [each for each in after if each not in before] == []
        dropped = len(before) - len(after)
        whole = check(original)
        assert report.disclosed == whole.disclosed - dropped
        assert report.withheld_count + report.erased_count == whole.withheld_count + whole.erased_count + dropped
        hidden += dropped > 0
    assert hidden


def _disclosures(document: Any) -> list[Any]:
    if isinstance(document, list):
        return [line for line in document if "disclosure" in line]
    return list(document["disclosures"])


def _without_disclosures(document: Any) -> Any:
    if isinstance(document, list):
        return [line for line in document if "disclosure" not in line]
    return {**document, "disclosures": None}
