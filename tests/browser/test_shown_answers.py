"""What a page shows of an agent, compared in the browser with the agent's leaf in the record of a real server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.watched_page import Watch
from tests.conclave_fixture import RunningServer, running_server

_QUESTION: dict[str, Any] = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "agents": {"roster": "archons", "count": 9},
    "seed": 7,
}
_VERIFY = """async ([vkey, index, shown]) => {
  const { verifyEntry } = await import("/static/verify.js");
  const { result, step, words, unchecked } = await verifyEntry(index, {pinnedKey: vkey, shown});
  return {result, step, words, unchecked: unchecked.map((each) => each.field)};
}"""
_BUNDLE = """async ([vkey, id]) => {
  const { verifyBundle } = await import("/static/verify_bundle.js");
  const { result, words } = await verifyBundle(await (await fetch(`/v1/deliberations/${id}/bundle`)).arrayBuffer(), {pinnedKey: vkey});
  return `${result}: ${words}`;
}"""

Document = dict[str, Any]


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


class Shown:
    """A deliberation, and what a page may show of one of its agents."""

    def __init__(self, server: RunningServer, page: Page, question: Document) -> None:
        self._page = page
        self.vkey = str(server.conclave.witness.verifier_key)
        self.deliberation = server.post(question, query="?wait=30").document
        assert self.deliberation["status"] == "completed"
        self.id = str(self.deliberation["id"])
        self.outputs = server.ask("GET", f"/v1/deliberations/{self.id}/outputs").document["items"]
        self.disclosures = server.ask("GET", f"/v1/deliberations/{self.id}/bundle").document["disclosures"]
        self.output: Document = next(each for each in self.outputs if each["state"] == "answered")

    def verify(self, output: Document | None = None, **changed: object) -> Document:
        """The report on the agent's leaf."""
        shown = {
            "output": self.output if output is None else output,
            "deliberationId": self.id,
            "acceptedIndex": self.deliberation["witness"]["first_index"],
            "disclosures": self.disclosures,
            **changed,
        }
        found: Document = self._page.evaluate(_VERIFY, [self.vkey, self.output["leaf_index"], shown])
        return found


@pytest.fixture(scope="module")
def shown(server: RunningServer, page: Page) -> Shown:
    return Shown(server, page, _QUESTION)


def test_what_the_record_says_of_an_agent_is_verified(shown: Shown) -> None:
    assert shown.verify()["result"] == "verified"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "abstained"},
        {"answer": "no such option"},
        {"answer": None},
        {"answer": 1.5},
        {"agent_id": "archon-72"},
        {"round": 1},
        {"attempt": 2},
        {"confidence": 0.999},
        {"confidence": None},
        {"model": "another"},
        {"model_asked": "another"},
        {"content": "Something else."},
        {"content": ""},
        {"content": None},
        {"reasoning": "Something else."},
        {"reasoning": None},
        {"failure": {"kind": "timeout", "message": "It took too long."}},
    ],
    ids=str,
)
def test_anything_else_that_a_page_shows_is_refused(shown: Shown, change: Document) -> None:
    found = shown.verify({**copy.deepcopy(shown.output), **change})
    assert (found["result"], found["step"]) == ("refused", "what the page shows")


def test_another_option_than_the_recorded_one_is_refused(shown: Shown) -> None:
    others = [each for each in _QUESTION["answer"]["options"] if each != shown.output["answer"]]
    assert [shown.verify({**shown.output, "answer": each})["result"] for each in others] == ["refused"] * 2


def test_texts_without_their_salts_are_said_to_be_unchecked(shown: Shown) -> None:
    found = shown.verify(disclosures=[])
    assert (found["result"], found["unchecked"]) == ("verified in part", ["content", "reasoning"])
    assert "Not checked: content" in found["words"]


def test_an_option_without_the_acceptance_is_said_to_be_unchecked(shown: Shown) -> None:
    found = shown.verify(acceptedIndex=None)
    assert (found["result"], found["unchecked"]) == ("verified in part", ["answer"])


def test_the_place_of_an_option_does_not_pass_for_its_name(shown: Shown) -> None:
    place = _QUESTION["answer"]["options"].index(shown.output["answer"])
    assert shown.verify({**shown.output, "answer": place})["result"] == "refused"


def test_texts_with_the_salt_of_another_text_are_refused(shown: Shown) -> None:
    mixed = [{**each, "salt": "00" * 16} for each in shown.disclosures]
    assert shown.verify(disclosures=mixed)["result"] == "refused"


def test_the_leaf_of_another_deliberation_is_refused(shown: Shown) -> None:
    assert shown.verify(deliberationId="another")["result"] == "refused"


def test_an_acceptance_that_is_none_is_refused(shown: Shown) -> None:
    assert shown.verify(acceptedIndex=shown.output["leaf_index"])["result"] == "refused"


def test_erased_texts_are_said_to_be_unchecked(server: RunningServer, page: Page) -> None:
    shown = Shown(server, page, _QUESTION)
    server.call(server.conclave.witness.erase(shown.id, reason="it was asked for", key_name=None))
    outputs = server.ask("GET", f"/v1/deliberations/{shown.id}/outputs").document["items"]
    output = next(each for each in outputs if each["agent_id"] == shown.output["agent_id"])
    assert output["erased"]
    found = shown.verify(output, disclosures=[])
    assert (found["result"], found["unchecked"]) == ("verified in part", ["content", "reasoning"])


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "verdict"},
        {"kind": "approval", "options": ["a", "b", "c"]},
        {"kind": "ranking", "options": ["a", "b", "c"]},
        {"kind": "score", "min": 0, "max": 10},
        {"kind": "probability"},
        {"kind": "number", "unit": "euros"},
    ],
    ids=lambda answer: str(answer["kind"]),
)
def test_every_kind_of_answer_is_compared_with_its_leaf(server: RunningServer, page: Page, answer: Document) -> None:
    shown = Shown(server, page, {**_QUESTION, "answer": answer})
    assert shown.verify()["result"] == "verified"
    assert shown.verify({**shown.output, "answer": _other(shown.output["answer"])})["result"] == "refused"


def _other(answer: Any) -> Any:
    if isinstance(answer, str):
        return "no" if answer == "yes" else "yes"
    return [*answer, "z"] if isinstance(answer, list) else answer + 1


@pytest.mark.parametrize(
    "protocol",
    [{"kind": "poll"}, {"kind": "delphi", "max_rounds": 2}, {"kind": "peer_review"}, {"kind": "debate"}],
    ids=lambda protocol: str(protocol["kind"]),
)
def test_the_bundles_of_every_protocol_are_verified_in_part(
    server: RunningServer, page: Page, protocol: Document
) -> None:
    shown = Shown(server, page, {**_QUESTION, "protocol": protocol})
    found: str = page.evaluate(_BUNDLE, [shown.vkey, shown.id])
    assert found.startswith("verified in part: "), found
