"""What the offline verifier accepts, that it says which texts it did not see, and that no change of anything passes it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from application.services.verification.texts import CommittedTexts
from domain.errors.witness import VerificationRefusedError
from tests import witness_specimens as specimens
from tests.unit.application.pinned_verifier import check_bundle, check_export
from tests.witness_formats import ORIGIN, Document
from tests.witness_log import Log
from tests.witness_mutations import mutations

STORIES = ("choice", "verdict", "tie", "inquorate", "cancelled", "erased", "text")


@pytest.fixture(scope="module")
def log() -> Log:
    return specimens.whole_log()


@pytest.mark.parametrize("story", STORIES)
def test_every_kind_of_deliberation_verifies_as_a_bundle(log: Log, story: str) -> None:
    report = check_bundle(log.bundle(story))
    assert [each.id for each in report.deliberations] == [story]
    assert report.entries_checked == len(log.places[story])
    assert report.tree_size == len(log.entries)
    assert report.root_hash == log.root()
    assert report.origin == ORIGIN


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
        "text": "cluster 1",
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


def test_an_outcome_of_free_texts_is_computed_again_from_their_clusters(log: Log) -> None:
    assert check_bundle(log.bundle("text")).deliberations[0].not_recomputed is None
    assert check_bundle(log.bundle("choice")).deliberations[0].not_recomputed is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rule", {"kind": "range_voting"}),
        ("rule", {"kind": "plurality", "tie_break": "sortition"}),
        ("protocol", {"kind": "seance", "max_rounds": 3}),
        ("protocol", {"kind": "delphi", "max_rounds": 3, "moderator": 1}),
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
