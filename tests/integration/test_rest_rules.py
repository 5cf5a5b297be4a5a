"""Every rule over REST: what it decides is shown as agreed, and computed again from the bundle alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from api.bootstrap import verification_tools
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.verification import verify_bundle
from domain.models.budget import Usage
from domain.voting.lottery import drawn
from domain.witness.checkpoint import VerifierKey
from tests.conclave_fixture import RunningServer, running_server

OPTIONS = ["trams", "buses", "bicycles"]
RANKING = {"kind": "ranking", "options": OPTIONS}
APPROVAL = {"kind": "approval", "options": OPTIONS}
CHOICE = {"kind": "choice", "options": OPTIONS}
ORDERS = [["trams", "buses"], ["trams", "bicycles", "buses"], ["buses", "bicycles"], ["bicycles", "buses"], ["buses"]]
CYCLE = [OPTIONS, [*OPTIONS[1:], OPTIONS[0]], [OPTIONS[2], *OPTIONS[:2]]]
TEXTS = [
    "Build trams first. They carry the most people.",
    "Trams first! They carry the most people.",
    "Ask the inhabitants.",
]


class Speaker:
    """Says for each agent the reply that was prepared: a text as it stands, anything else as the answer of a ballot."""

    def __init__(self) -> None:
        self.replies: Sequence[object] = ()

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        await asyncio.sleep(0)
        reply = self.replies[int(request.agent_id.removeprefix("a"))]
        content = reply if isinstance(reply, str) and "{" in reply else json.dumps(reply)
        return AgentOutput(request.agent_id, request.request_id, content, usage=Usage(1))


class Panel:
    """A server whose agents answer as they are told."""

    def __init__(self, server: RunningServer, speaker: Speaker) -> None:
        self.server = server
        self.speaker = speaker

    def ask(self, answer: dict[str, Any], rule: dict[str, Any] | None, answers: Sequence[object]) -> Any:
        """The ended deliberation; each of `answers` is one agent's."""
        self.speaker.replies = [
            each if isinstance(each, str) and "{" in each else {"answer": each, "confidence": 0.8} for each in answers
        ]
        body = {
            "question": "What first?",
            "answer": answer,
            "agents": {"members": [{"id": f"a{place}", "persona": "One."} for place in range(len(answers))]},
            "seed": 4,
            **({} if rule is None else {"rule": rule}),
        }
        document = self.server.post(body, query="?wait=30").document
        assert document["status"] == "completed", document
        return document

    def bundle(self, document: Any) -> Any:
        return self.server.ask("GET", f"/v1/deliberations/{document['id']}/bundle").document


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        yield Panel(server, speaker)


def verified(bundle: Any) -> Any:
    key = VerifierKey.parse(bundle["public_key"])
    return verify_bundle(json.dumps(bundle).encode(), key=key, tools=verification_tools()).deliberations[0]


def drawn_first(*names: str) -> str:
    return drawn(names, 4)[0]


@pytest.mark.parametrize(
    ("answer", "rule", "answers", "decision"),
    [
        (RANKING, None, ORDERS, "buses"),
        (RANKING, {"kind": "schulze", "strength": "margins"}, ORDERS, "buses"),
        (RANKING, {"kind": "borda"}, ORDERS, "buses"),
        (RANKING, {"kind": "copeland"}, ORDERS, "buses"),
        (RANKING, {"kind": "minimax", "weighted_by": "confidence"}, ORDERS, "buses"),
        (RANKING, {"kind": "irv"}, ORDERS, "buses"),
        (RANKING, {"kind": "plurality"}, ORDERS, None),
        (RANKING, {"kind": "plurality", "tie_break": "borda"}, ORDERS, "buses"),
        (RANKING, {"kind": "copeland", "tie_break": "lottery"}, CYCLE, drawn_first(*OPTIONS)),
        (APPROVAL, None, [["trams", "buses"], ["buses"], []], "buses"),
        (APPROVAL, {"kind": "approval", "tie_break": "lottery"}, [["trams"], ["buses"]], drawn_first("trams", "buses")),
        (CHOICE, {"kind": "threshold", "fraction": 0.6}, ["trams", "trams", "buses"], "trams"),
        (
            CHOICE,
            {"kind": "threshold", "fraction": 0.6, "weighted_by": "confidence"},
            ["trams", "trams", "buses"],
            None,
        ),
        ({"kind": "score", "min": 1, "max": 9}, {"kind": "median", "weighted_by": "confidence"}, [1, 2, 9], 2),
        ({"kind": "number", "unit": "km"}, {"kind": "trimmed_mean", "fraction": 0.34}, [1, "7 km", 900], 7),
        ({"kind": "probability"}, {"kind": "mean_odds"}, ["90%", 0.5, 0.1], 0.5),
        ({"kind": "text"}, None, TEXTS, "Build trams first. They carry the most people."),
    ],
)
def test_what_a_rule_decides_follows_from_the_bundle_alone(
    panel: Panel, answer: dict[str, Any], rule: dict[str, Any] | None, answers: Sequence[object], decision: object
) -> None:
    document = panel.ask(answer, rule, answers)
    report = verified(panel.bundle(document))
    assert report.not_recomputed is None
    assert document["outcome"]["decision"] == decision


@pytest.mark.parametrize(
    ("answer", "rule", "answers", "field"),
    [
        (RANKING, {"kind": "borda"}, ORDERS, "places"),
        (RANKING, {"kind": "copeland", "tie_break": "lottery"}, CYCLE, "tie_break"),
        ({"kind": "number"}, None, [1, 1, 1, 1, 900], "outliers"),
        ({"kind": "text"}, None, TEXTS, "synthesis"),
    ],
)
def test_what_a_rule_says_besides_is_in_the_record(
    panel: Panel, answer: dict[str, Any], rule: dict[str, Any] | None, answers: Sequence[object], field: str
) -> None:
    document = panel.ask(answer, rule, answers)
    outcome = json.loads(panel.bundle(document)["entries"][-1]["entry"])["outcome"]
    assert field in outcome


def test_a_ranking_is_shown_by_names_beside_its_decision(panel: Panel) -> None:
    outcome = panel.ask(RANKING, {"kind": "borda"}, ORDERS)["outcome"]
    assert outcome["tally"] == {"trams": 4, "buses": 6, "bicycles": 4}
    assert outcome["places"] == {"trams": 2, "buses": 1, "bicycles": 2}
    assert (outcome["ranking"], outcome["margin"]) == (["buses", "bicycles", "trams"], 2)


def test_texts_are_shown_in_clusters_with_claims_that_cite(panel: Panel) -> None:
    outcome = panel.ask({"kind": "text"}, None, TEXTS)["outcome"]
    assert outcome["tally"] == {"cluster 1": 2, "cluster 2": 1}
    assert outcome["synthesis"]["clusters"][0]["agents"] == ["a0", "a1"]
    cited = {claim["text"]: claim["agents"] for claim in outcome["synthesis"]["claims"]}
    assert cited["They carry the most people."] == ["a0", "a1"]
    assert cited["Ask the inhabitants."] == ["a2"]
    assert [(each["answer"], each["agents"]) for each in outcome["dissent"]["positions"]] == [("cluster 2", ["a2"])]


def test_the_log_holds_no_word_of_a_text(panel: Panel) -> None:
    document = panel.ask({"kind": "text"}, None, TEXTS)
    told = "".join(each["entry"] for each in panel.bundle(document)["entries"])
    assert "people" not in told
    assert "inhabitants" not in told
    assert '"decision":"cluster 1"' in told


def test_bad_ballots_are_invalid_with_a_reason_and_stay_in_the_denominator(panel: Panel) -> None:
    answers = [
        ["trams"],
        ["trams", "trams"],
        ["trams", None],
        ["ferries"],
        "I won't take part in this {at all}.",
        '{"answer": ["trams"]} {"answer": ["buses"]}',
        '{"answer": ["buses"], "agent_id": "a0", "weight": 1000}',
        "{" * 65_536,
    ]
    document = panel.ask(RANKING, None, [*answers, ["trams"], ["trams"], ["trams"], ["trams"], ["trams"], ["trams"]])
    assert document["roll_call"]["invalid"] == 6
    assert document["roll_call"]["abstained"] == 0
    assert document["roll_call"]["asked"] == 14
    assert document["outcome"]["tally"] == {"trams": 7, "buses": 1, "bicycles": 0}
    assert all(each["message"] for each in document["failures"])


@pytest.mark.parametrize("other", ["Trams", " trams ", "tr\u0430ms", "tram s", "\uff54rams"])
def test_options_that_look_alike_are_refused_with_422(panel: Panel, other: str) -> None:
    body = {"question": "What first?", "answer": {"kind": "choice", "options": ["trams", "buses", other]}}
    answer = panel.server.post(body)
    assert answer.status == 422
    assert [each["pointer"] for each in answer.document["errors"]] == ["/answer/options/2"]
