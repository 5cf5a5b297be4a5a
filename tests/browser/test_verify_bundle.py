"""A whole bundle checked in a real browser: what the command line refuses is refused, and what was not looked at is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from application.services.verification import VerificationTools, verify_bundle
from domain.errors.witness import VerificationRefusedError
from domain.witness.checkpoint import VerifierKey
from infrastructure.witness.canonical_json import parse_canonical
from tests import witness_specimens as specimens
from tests.browser.watched_page import Watch
from tests.conclave_fixture import RunningServer, running_server
from tests.witness_formats import Document, LogKey, check_signature
from tests.witness_log import Log, as_bytes
from tests.witness_mutations import mutations
from tests.witness_story import Story

_TOOLS = VerificationTools(check_signature, parse_canonical)
_KEY = LogKey()
_STORIES = ("choice", "verdict", "tie", "inquorate", "cancelled", "erased", "text")
_REPORTS = """async ([vkey, files]) => {
  const { verifyBundle } = await import("/static/verify_bundle.js");
  const reports = [];
  for (const file of files) {
    const { result, step, words, entries, status, rollCall, texts, unchecked } = await verifyBundle(file, { pinnedKey: vkey });
    reports.push({ result, step, words, entries, status, rollCall, texts, unchecked });
  }
  return reports;
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def page(server: RunningServer, chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        origin = f"http://127.0.0.1:{server.port}"
        watch = Watch(page, origin=origin)
        page.goto(f"{origin}/record")
        yield page
        assert watch.faults == []


@pytest.fixture(scope="module")
def log() -> Log:
    return specimens.whole_log(_KEY)


def _reports(page: Page, files: list[str], *, vkey: str = _KEY.vkey) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(_REPORTS, [vkey, files])
    return found


def _text(bundle: Document) -> str:
    return as_bytes(bundle).decode()


def _is_accepted(file: str) -> bool:
    try:
        verify_bundle(file.encode(), key=VerifierKey.parse(_KEY.vkey), tools=_TOOLS)
    except VerificationRefusedError:
        return False
    return True


def test_every_kind_of_deliberation_is_found_as_by_the_command_line(page: Page, log: Log) -> None:
    files = [_text(log.bundle(story)) for story in _STORIES]
    for file, found in zip(files, _reports(page, files), strict=True):
        report = verify_bundle(file.encode(), key=VerifierKey.parse(_KEY.vkey), tools=_TOOLS)
        (told,) = report.deliberations
        assert found["result"] == "verified in part", found
        assert (found["entries"], found["status"]) == (report.entries_checked, told.status)
        assert found["rollCall"] == dict(told.roll_call)
        assert found["texts"] == {
            "disclosed": report.disclosed,
            "withheld": report.withheld_count,
            "erased": report.erased_count,
            "prompts": report.prompts,
        }
        assert "not computed again" in found["words"]
        assert "conclave witness verify" in found["words"]


def test_random_changes_of_bundles_are_refused_as_by_the_command_line(page: Page, log: Log) -> None:
    originals = [log.bundle(story) for story in ("tie", "inquorate", "cancelled", "verdict")]
    changed = [(original, mutated) for original, mutated in mutations(originals, 400, seed=9)]
    # 5 and 5.0 are one number to JavaScript, and mean the same.
    files = [json.dumps(mutated) for original, mutated in changed if mutated != original]
    assert len(files) > 380
    differing = [
        (found["words"], file[:200])
        for file, found in zip(files, _reports(page, files), strict=True)
        if (found["result"] == "verified in part") != _is_accepted(file)
    ]
    assert differing == []


def _other_count(story: Story) -> None:
    ending = story.find("deliberation.ended")
    ending["roll_call"] = {**ending["roll_call"], "answered": 3, "abstained": 1}


def _other_record(story: Story) -> None:
    story.find("deliberation.ended")["record_sha256"] = "ab" * 32


def _two_endings(story: Story) -> None:
    ended = next(place for place, each in enumerate(story.documents) if each["type"] == "agent.ended")
    story.documents.insert(ended + 1, dict(story.documents[ended]))


def _never_ended(story: Story) -> None:
    story.documents.remove(story.find("agent.ended", agent_id="t-2"))


def _intended_twice(story: Story) -> None:
    story.documents.insert(3, dict(story.find("call.intended", agent_id="t-0")))


def _status_of_nonsense(story: Story) -> None:
    story.find("deliberation.ended")["status"] = "nonsense"


def _no_status(story: Story) -> None:
    del story.find("deliberation.ended")["status"]


def _never_intended(story: Story) -> None:
    story.find("agent.ended", agent_id="t-2")["attempt"] = 2


def _stranger(story: Story) -> None:
    story.find("agent.ended", agent_id="t-2")["agent_id"] = "stranger"


def _unknown_state(story: Story) -> None:
    story.find("agent.ended", agent_id="t-2")["state"] = "asleep"


def _no_end(story: Story) -> None:
    story.documents.pop()


def _no_acceptance(story: Story) -> None:
    story.documents.pop(0)


def _after_the_end(story: Story) -> None:
    story.documents.append(dict(story.find("round.started")))


def _two_acceptances(story: Story) -> None:
    story.documents.insert(1, dict(story.documents[0]))


def _unknown_type(story: Story) -> None:
    story.documents.insert(1, {**story.documents[1], "type": "round.imagined"})


def _other_deliberation(story: Story) -> None:
    story.find("round.started")["deliberation_id"] = "another"


def _recounted_before_the_end(story: Story) -> None:
    story.follow_up("recounted", rule={"kind": "plurality"}, outcome=None)
    story.documents.insert(2, story.documents.pop())


@pytest.mark.parametrize(
    ("edit", "step"),
    [
        (_other_count, "roll call"),
        (_unknown_state, "roll call"),
        (_other_record, "order"),
        (_two_endings, "order"),
        (_never_ended, "order"),
        (_intended_twice, "order"),
        (_status_of_nonsense, "order"),
        (_no_status, "order"),
        (_never_intended, "order"),
        (_stranger, "order"),
        (_no_end, "order"),
        (_no_acceptance, "order"),
        (_after_the_end, "order"),
        (_two_acceptances, "order"),
        (_unknown_type, "order"),
        (_other_deliberation, "order"),
        (_recounted_before_the_end, "order"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else value,
)
def test_what_a_writer_with_the_key_lies_about_is_refused(page: Page, edit: Callable[[Story], None], step: str) -> None:
    lying = Log(_KEY).tell(specimens.tie().retold(edit))
    file = _text(lying.bundle("tie"))
    assert not _is_accepted(file)
    (found,) = _reports(page, [file])
    assert (found["result"], found["step"]) == ("refused", step), found


def test_a_name_that_stands_twice_is_refused(page: Page, log: Log) -> None:
    file = _text(log.bundle("tie"))
    twice = [
        file.replace('"version": 1', '"version": 1, "version": 1', 1),
        file.replace('"index": ', '"index": 0, "index": ', 1),
        file.replace('"salt": ', '"salt" : "", "salt": ', 1),
    ]
    assert [_is_accepted(each) for each in twice] == [False] * 3
    assert [each["step"] for each in _reports(page, twice)] == ["file"] * 3


def test_a_file_that_is_no_bundle_is_refused(page: Page, log: Log) -> None:
    file = _text(log.bundle("cancelled"))
    files = [
        "",
        " \n",
        "null",
        "[]",
        "{}",
        "\ufeff" + file,
        file[:-1],
        file + file,
        "[" * 100_000,
        file.replace('"version": 1', '"version": 2'),
    ]
    assert [each["result"] for each in _reports(page, files)] == ["refused"] * len(files)


def test_a_bundle_of_another_key_is_refused(page: Page, log: Log) -> None:
    other = LogKey(seed=b"\x08" * 32)
    renamed = {**log.bundle("tie"), "public_key": other.vkey}
    found = _reports(page, [_text(log.bundle("tie")), _text(renamed)], vkey=other.vkey)
    assert [(each["result"], each["step"]) for each in found] == [("refused", "file"), ("refused", "checkpoint")]


def test_without_a_pinned_key_a_bundle_is_not_checked(page: Page, log: Log) -> None:
    (found,) = page.evaluate(_REPORTS, [None, [_text(log.bundle("tie"))]])
    assert found["result"] == "unable"
    assert "no key is pinned" in found["words"]
