"""What the contract lists as bad input is refused, as a bundle and as a whole log."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import rfc8785

from tests import witness_specimens as specimens
from tests.unit.application.pinned_verifier import check_bundle, refusal_of, refusal_of_export
from tests.witness_formats import ORIGIN, LogKey
from tests.witness_log import Log, as_bytes, as_lines
from tests.witness_story import Story


@pytest.fixture(scope="module")
def log() -> Log:
    return specimens.whole_log()


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
    assert refused.evidence == {"expected_origin": ORIGIN, "origin": "conclave.example/other"}
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
