"""Recounts, resolutions and the origin of topics over REST: recorded before they are answered, and verified offline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from api.bootstrap import verification_tools
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.verification import VerifiedDeliberation, verify_bundle
from domain.errors.witness import VerificationRefusedError
from domain.models.budget import Usage
from domain.witness.checkpoint import VerifierKey
from infrastructure.witness.canonical_json import canonical_json
from tests.conclave_fixture import Answer, RunningServer, running_server

CHOICE = {"kind": "choice", "options": ["trams", "buses", "bicycles"]}
RANKING = {"kind": "ranking", "options": ["trams", "buses", "bicycles"]}
KEYS = "ada:operator:secret-of-ada,bob:operator:secret-of-bob,eve:observer:secret-of-eve"


class Speaker:
    """Says for each agent the answer that was prepared, and how sure it is; a text as it stands."""

    def __init__(self) -> None:
        self.replies: Sequence[object] = ()
        self.calls = 0

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        await asyncio.sleep(0)
        self.calls += 1
        reply = self.replies[int(request.agent_id.removeprefix("a"))]
        content = json.dumps({"answer": reply, "confidence": 0.8})
        return AgentOutput(request.agent_id, request.request_id, content, model="small", usage=Usage(1))


class Panel:
    """A server whose agents answer as they are told."""

    def __init__(self, server: RunningServer, speaker: Speaker) -> None:
        self.server = server
        self.speaker = speaker

    def ask(self, answer: Mapping[str, Any], answers: Sequence[object], **rest: Any) -> Any:
        """The ended deliberation; each of `answers` is one agent's."""
        self.speaker.replies = answers
        members = [{"id": f"a{place}", "persona": "One."} for place in range(len(answers))]
        body = {"question": "What first?", "answer": answer, "agents": {"members": members}, **rest}
        answered = self.server.post(body, query="?wait=30")
        assert answered.document.get("status") in {"completed", "inquorate"}, answered.document
        return answered.document

    def recount(self, document: Any, body: object) -> Answer:
        return self.server.ask("POST", f"/v1/deliberations/{document['id']}/recount", body)

    def resolve(self, document: Any, body: object) -> Answer:
        return self.server.ask("POST", f"/v1/deliberations/{document['id']}/resolution", body)

    def bundle(self, document: Any) -> Any:
        return self.server.ask("GET", f"/v1/deliberations/{document['id']}/bundle").document

    def entries(self, document: Any, kind: str) -> list[Any]:
        said = [json.loads(each["entry"]) for each in self.bundle(document)["entries"]]
        return [each for each in said if each["type"] == kind]


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        yield Panel(server, speaker)


@pytest.fixture
def own_panel() -> Iterator[Panel]:
    """One in which nothing was asked before."""
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        yield Panel(server, speaker)


def verified(bundle: Any) -> VerifiedDeliberation:
    key = VerifierKey.parse(bundle["public_key"])
    return verify_bundle(json.dumps(bundle).encode(), key=key, tools=verification_tools()).deliberations[0]


def test_a_recount_says_what_another_rule_makes_of_the_ballots_and_asks_nobody(panel: Panel) -> None:
    orders = [["trams"], ["trams"], ["buses", "bicycles"], ["bicycles", "buses"], ["bicycles", "buses"], ["trams"]]
    document = panel.ask(RANKING, orders, rule={"kind": "plurality"})
    calls = panel.speaker.calls
    counted = panel.recount(document, {"rule": {"kind": "borda"}})
    assert counted.status == 200
    assert set(counted.document) == {"deliberation_id", "rule", "outcome", "leaf_index"}
    assert counted.document["outcome"]["rule"] == "borda"
    assert panel.speaker.calls == calls
    assert panel.server.ask("GET", f"/v1/deliberations/{document['id']}").document["outcome"] == document["outcome"]


def test_a_recount_is_in_the_log_before_it_is_answered(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "trams"])
    counted = panel.recount(document, {"rule": {"kind": "threshold", "fraction": 0.9}}).document
    entry = panel.server.ask("GET", f"/v1/witness/entries/{counted['leaf_index']}").document["entry"]
    said = json.loads(entry)
    assert (said["type"], said["deliberation_id"]) == ("recounted", document["id"])
    assert said["rule"] == {"kind": "threshold", "fraction": 0.9}
    assert said["outcome"]["status"] == "no_majority"


def test_the_same_recount_is_recorded_once(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "trams"])
    first, again = (panel.recount(document, {"rule": {"kind": "threshold"}}).document for _ in range(2))
    assert first == again
    panel.recount(document, {"rule": {"kind": "threshold", "fraction": 0.7}})
    assert len(panel.entries(document, "recounted")) == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"rule": {"kind": "median"}}, "/rule/kind"),
        ({"rule": {"kind": "best"}}, "/rule/kind"),
        ({"rule": {"kind": "threshold", "fraction": 2}}, "/rule/fraction"),
        ({"rule": {"kind": "plurality", "tie_break": "lottery"}}, "/rule/tie_break"),
        ({"rule": {"kind": "plurality", "weights": {"a0": 9}}}, "/rule/weights"),
        ({"rule": "plurality"}, "/rule"),
        ({}, "/rule"),
        ([], ""),
        ({"rule": {"kind": "plurality"}, "ballots": []}, "/ballots"),
    ],
)
def test_a_bad_rule_is_refused_with_a_pointer_and_recorded_nowhere(panel: Panel, body: object, pointer: str) -> None:
    document = panel.ask(CHOICE, ["trams", "buses"])
    refused = panel.recount(document, body)
    assert refused.status == 422
    assert [each["pointer"] for each in refused.document["errors"]] == [pointer]
    assert panel.entries(document, "recounted") == []


@pytest.mark.parametrize("call", ["recount", "resolution"])
@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b'{"answer": "a", "answer": "b"}', {"Content-Type": "application/json"}, 422),
        (b'{"answer": NaN}', {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"[" * 70_000, {"Content-Type": "application/json"}, 413),
        (b"[" * 1_000, {"Content-Type": "application/json"}, 422),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    panel: Panel, call: str, raw: bytes, headers: dict[str, str], status: int
) -> None:
    document = panel.ask(CHOICE, ["trams"])
    answered = panel.server.ask("POST", f"/v1/deliberations/{document['id']}/{call}", raw, headers=headers)
    assert answered.status in {status, 400, 422}
    assert answered.status < 500


@pytest.mark.parametrize("call", ["recount", "resolution"])
@pytest.mark.parametrize("own", ["unknown", "%00", "..%2f..", "a" * 65])
def test_what_is_not_there_cannot_be_recounted_or_resolved(panel: Panel, call: str, own: str) -> None:
    body = {"rule": {"kind": "plurality"}} if call == "recount" else {"answer": "yes"}
    assert panel.server.ask("POST", f"/v1/deliberations/{own}/{call}", body).status == 404


def test_a_resolution_scores_agents_models_and_the_outcome(panel: Panel) -> None:
    document = panel.ask({"kind": "verdict"}, ["yes", "yes", "no", None])
    found = panel.resolve(document, {"answer": "yes"}).document
    assert found["brier"] == pytest.approx((1 / 3) ** 2)
    assert found["correct"] is False or document["outcome"]["decision"] == "yes"
    scores = {each["agent_id"]: each["score"] for each in found["agents"]}
    assert scores == {"a0": pytest.approx(0.04), "a1": pytest.approx(0.04), "a2": pytest.approx(0.64), "a3": None}
    assert [(each["model"], each["answers"]) for each in found["models"]] == [("small", 3)]
    assert found["models"][0]["score"] == pytest.approx(0.24)
    assert sum(each["count"] for each in found["calibration"]) == 3


def test_a_truth_is_recorded_once_and_another_one_stands_from_then_on(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses"])
    first = panel.resolve(document, {"answer": "trams"}).document
    assert panel.resolve(document, {"answer": "trams"}).document["leaf_index"] == first["leaf_index"]
    second = panel.resolve(document, {"answer": "bicycles"}).document
    assert second["leaf_index"] > first["leaf_index"]
    assert [each["answer"] for each in panel.entries(document, "resolved")] == [0, 2]
    assert verified(panel.bundle(document)).resolutions == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (CHOICE, "ferries"),
        (CHOICE, 0),
        (CHOICE, None),
        ({"kind": "verdict"}, "maybe"),
        ({"kind": "probability"}, 1.5),
        ({"kind": "score", "min": 0, "max": 10}, "7"),
        ({"kind": "text"}, "Trams."),
        (RANKING, []),
        (RANKING, ["trams", 7]),
        (CHOICE, {"index": 0}),
    ],
)
def test_what_is_no_answer_to_the_question_is_refused_with_a_pointer(panel: Panel, answer: Any, told: object) -> None:
    given = {"verdict": "yes", "probability": 0.5, "score": 5, "text": "Trams.", "ranking": ["trams"]}
    document = panel.ask(answer, [given.get(answer["kind"], "trams")])
    refused = panel.resolve(document, {"answer": told})
    assert refused.status == 422
    assert refused.document["errors"][0]["pointer"].startswith("/answer")
    assert panel.entries(document, "resolved") == []


def test_what_stayed_below_its_quorum_is_scored_and_recounted_to_nothing(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "mumble", "mumble"], quorum={"min_answered_fraction": 0.9})
    assert document["status"] == "inquorate"
    assert panel.recount(document, {"rule": {"kind": "threshold"}}).document["outcome"] is None
    found = panel.resolve(document, {"answer": "trams"}).document
    assert (found["brier"], found["correct"]) == (None, None)
    assert found["agents"][0]["score"] == pytest.approx(0.03)
    assert verified(panel.bundle(document)).recounts == 1


@pytest.mark.parametrize(
    ("answer", "answers", "rule", "truth"),
    [
        (RANKING, [["trams"], ["buses", "trams"], ["buses"]], {"kind": "copeland"}, ["buses", "trams"]),
        ({"kind": "approval", "options": ["a", "b", "c"]}, [["a"], ["a", "b"], []], {"kind": "approval"}, ["a", "c"]),
        ({"kind": "score", "min": 0, "max": 10}, [2, 5, 9], {"kind": "trimmed_mean", "fraction": 0.3}, 4),
        ({"kind": "probability"}, [0.2, 0.9, 0.7], {"kind": "mean_odds"}, 1),
        ({"kind": "number"}, [10, 20, 1000], {"kind": "trimmed_mean"}, 12.5),
        (CHOICE, ["trams", "buses", "buses"], {"kind": "threshold", "weighted_by": "record"}, "buses"),
    ],
)
def test_recounts_and_resolutions_are_computed_again_from_the_bundle_alone(
    panel: Panel, answer: Any, answers: Sequence[object], rule: Any, truth: object
) -> None:
    document = panel.ask(answer, answers)
    assert panel.recount(document, {"rule": rule}).status == 200
    assert panel.resolve(document, {"answer": truth}).status == 200
    report = verified(panel.bundle(document))
    assert (report.recounts, report.resolutions, report.not_repeated) == (1, 1, 0)


def test_recounts_follow_the_rounds_that_count_and_are_verified_by_them(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "buses"], protocol={"kind": "delphi", "max_rounds": 1}, seed=1)
    counted = panel.recount(document, {"rule": {"kind": "threshold"}}).document
    assert counted["outcome"]["tally"] == document["outcome"]["tally"]
    assert verified(panel.bundle(document)).recounts == 1


def test_texts_are_recounted_by_their_clusters_also_once_they_are_erased(panel: Panel) -> None:
    document = panel.ask({"kind": "text"}, ["Trams first.", "Trams first!", "Ask around."])
    witness = panel.server.conclave.witness
    before = panel.recount(document, {"rule": {"kind": "synthesis"}}).document
    panel.server.call(witness.erase(document["id"], reason="asked for", key_name=None))
    after = panel.recount(document, {"rule": {"kind": "synthesis"}}).document
    assert before["outcome"]["tally"] == after["outcome"]["tally"] == {"cluster 1": 2, "cluster 2": 1}
    assert verified(panel.bundle(document)).recounts == 1


def forged(bundle: Any, kind: str, change: Any) -> Any:
    """The bundle with one entry changed, and everything in it that proves the entry left as it was."""
    copy = json.loads(json.dumps(bundle))
    found = next(each for each in copy["entries"] if json.loads(each["entry"])["type"] == kind)
    document = json.loads(found["entry"])
    change(document)
    found["entry"] = canonical_json(document).decode()
    return copy


@pytest.mark.parametrize("kind", ["recounted", "resolved", "deliberation.ended"])
def test_an_entry_after_the_end_that_was_changed_does_not_verify(panel: Panel, kind: str) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "buses"])
    panel.recount(document, {"rule": {"kind": "threshold"}})
    panel.resolve(document, {"answer": "buses"})
    changed = forged(panel.bundle(document), kind, lambda entry: entry.update(key_name={"sha256": "0" * 64}))
    with pytest.raises(VerificationRefusedError):
        verified(changed)


def test_votes_weigh_by_the_record_where_that_is_asked_for_and_the_log_says_how_much(own_panel: Panel) -> None:
    panel = own_panel
    for _ in range(3):
        panel.resolve(panel.ask({"kind": "verdict"}, ["yes", "no", "no"]), {"answer": "yes"})
    document = panel.ask({"kind": "verdict"}, ["yes", "no", "no"], rule={"kind": "plurality", "weighted_by": "record"})
    weights = document["rule"]["weights"]
    assert weights["a0"] > 1 > weights["a1"]
    (accepted,) = panel.entries(document, "deliberation.accepted")
    assert accepted["rule"]["weights"] == [round(weights[f"a{n}"] * 100) for n in range(3)]
    assert document["outcome"]["tally"]["yes"] == weights["a0"]
    assert verified(panel.bundle(document)).not_recomputed is None
    standing = panel.server.ask("GET", "/v1/track-record").document
    assert next(each for each in standing["agents"] if each["name"] == "a0")["weight"] > 1


def test_the_end_certifies_decision_dissent_participation_and_record(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams", "buses", "buses", "mumble"])
    (ended,) = panel.entries(document, "deliberation.ended")
    certificate = ended["certificate"]
    assert certificate["decision"] == "buses"
    assert certificate["dissent"] == {"percentage": pytest.approx(33.3, abs=0.1), "positions": 1, "agents": 1}
    assert certificate["participation"] == {"asked": 4, "took_part": 3, "quorum": 0.5, "quorate": True}
    assert certificate["record"]["entries"] == len(panel.bundle(document)["entries"]) - 1


def test_every_deliberation_says_where_its_topic_came_from(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams"])
    assert (document["metadata"], document["origin"]) == ({}, "api")
    (accepted,) = panel.entries(document, "deliberation.accepted")
    assert accepted["origin"] == "api"


def test_what_the_caller_says_of_its_topic_stands_as_it_was_said(panel: Panel) -> None:
    document = panel.ask(CHOICE, ["trams"], metadata={"origin": "newsroom", "desk": "7"})
    assert (document["metadata"], document["origin"]) == ({"origin": "newsroom", "desk": "7"}, "newsroom")
    (accepted,) = panel.entries(document, "deliberation.accepted")
    assert accepted["origin"] == "newsroom"


def test_deliberations_are_listed_by_where_their_topic_came_from(panel: Panel) -> None:
    petition = panel.ask(CHOICE, ["trams"], metadata={"origin": "petition"})["id"]
    panel.ask(CHOICE, ["trams"], metadata={"origin": "scheduled"})
    page = panel.server.ask("GET", "/v1/deliberations?origin=petition").document
    assert [item["id"] for item in page["items"]] == [petition]
    assert "topics" not in page
    assert panel.server.ask("GET", "/v1/deliberations?origin=%00").status == 422
    assert panel.server.ask("GET", f"/v1/deliberations?origin={'x' * 2000}").status == 422


def test_one_source_of_most_topics_is_told_where_that_is_switched_on() -> None:
    speaker = Speaker()
    with running_server(orchestrator=speaker, watch_topics=True) as server:
        panel = Panel(server, speaker)
        for number in range(20):
            panel.ask(CHOICE, ["trams"], metadata={"origin": ("autonomous", "petition", "council")[number % 4 % 3]})
        topics = server.ask("GET", "/v1/deliberations").document["topics"]
        metrics = server.ask("GET", "/metrics").body.decode()
    assert topics["counts"] == {"autonomous": 10, "petition": 5, "council": 5}
    assert "'autonomous'" in topics["warning"]
    assert 'conclave_topics_total{origin="autonomous"} 10.0' in metrics
    assert 'conclave_topics_total{origin="other"} 5.0' in metrics


def test_observers_read_and_nobody_sees_what_is_of_another_key() -> None:
    speaker = Speaker()
    with running_server(orchestrator=speaker, keys=KEYS) as server:
        ada, bob, eve = ({"Authorization": f"Bearer secret-of-{name}"} for name in ("ada", "bob", "eve"))
        speaker.replies = ["yes"]
        body = {"question": "?", "agents": {"members": [{"id": "a0", "persona": "One."}]}}
        own = server.post(body, query="?wait=30", headers=ada).document["id"]
        asked = {"recount": {"rule": {"kind": "plurality"}}, "resolution": {"answer": "yes"}}
        for call, wanted in asked.items():
            path = f"/v1/deliberations/{own}/{call}"
            assert server.ask("POST", path, wanted, headers=eve).status == 403
            assert server.ask("POST", path, wanted, headers=bob).status == 404
            assert server.ask("POST", path, wanted).status == 401
            assert server.ask("POST", path, wanted, headers=ada).status == 200
        standing = server.ask("GET", "/v1/track-record", headers=bob).document
        assert (standing["questions"], server.ask("GET", "/v1/track-record", headers=ada).document["questions"]) == (
            0,
            1,
        )
        metrics = server.ask("GET", "/metrics").body.decode()
    assert "conclave_recounts_total 1.0" in metrics
    assert "conclave_resolutions_total 1.0" in metrics
