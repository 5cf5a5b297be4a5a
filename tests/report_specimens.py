"""Documents of deliberations for reports: what REST answers, made by the domain itself so that they cannot drift from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from api.documents import deliberation_document, output_document
from api.report.page import Receipt, report_of
from application.services.deliberation_output_service import WitnessedOutput
from domain.analysis.decision import decide
from domain.analysis.worth import assess
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, default_rule
from tests.deliberation_specimens import NOON, specification
from tests.html_reader import HtmlReader

__all__ = ["HOSTILE", "NAUGHTY", "NOTE", "OPTIONS", "ended", "page", "words"]

OPTIONS = ("yes", "no", "weekends only")
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'>\u202e\x1b[31m\u2066&amp;"
NAUGHTY = (
    HOSTILE,
    "<!--", "]]>", "<![CDATA[", "</main></body>", "<svg/onload=alert(1)>", "javascript:alert(1)", "' onmouseover='x",
    '" style="x', "`${x}`", "{{7*7}}", "%s%n{0}", "&lt;b&gt;", "&#x202e;", "\x00", "\x7f\x85", "\u202a\u202b\u202c\u202d\u202e",
    "\u2066\u2067\u2068\u2069\u061c\u200e\u200f", "\u200b\ufeff\u2060", "\ufff9\ufffb",
    "\U000e0041", "Z\u0301\u0301\u0301\u0301\u0301\u0301",
    "שלום", "مرحبا <b>", "日本語", "👩‍👩‍👧", "line\none\rtwo\u2028three", "\t \u3000", "A" * 65_536, "<" * 3_000,
)  # fmt: skip
NOTE = "conclave.test/witness\n12\nabc=\n\n— conclave.test/witness xyz="
Given = Answer | AgentState
"""What an agent answers, or how it ends without an answer."""


def ended(
    *rounds: Sequence[Given],
    answer: AnswerFormat | None = None,
    rule: Rule | None = None,
    reason: str = "because {agent}",
    **document: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The document and the outputs of a deliberation in which each agent in turn answered so, in each of the rounds."""
    asked = answer or AnswerFormat(AnswerKind.CHOICE, OPTIONS)
    records = [
        _record(number, place, given, reason)
        for number, answers in enumerate(rounds)
        for place, given in enumerate(answers)
    ]
    specified = replace(
        specification(agents=len(rounds[0])),
        question=Question("Close it?", None, asked),
        rule=rule or default_rule(asked.kind),
        protocol=Protocol(ProtocolKind.DELPHI) if len(rounds) > 1 else Protocol(),
    )
    running = replace(
        Deliberation.accept(specified, at=NOON, orchestrator="openai", simulated=False, key_name=None), id="d-1"
    ).start(at=NOON)
    made, outcome = decide(running, records)
    found = replace(
        running.end(DeliberationStatus.COMPLETED, at=NOON + timedelta(seconds=3), rounds=made, outcome=outcome),
        witness=WitnessSpan(3, 11, 12, "ab" * 32),
    )
    outputs = [
        output_document(WitnessedOutput(record, place, bytes(32), erased=False)) for place, record in enumerate(records)
    ]
    return {**deliberation_document(found, assess(found)), **document}, outputs


def _record(number: int, place: int, given: Given, reason: str) -> AgentRecord:
    state = given if isinstance(given, AgentState) else AgentState.ABSTAINED if given is None else AgentState.ANSWERED
    is_failure = not state.took_part
    return AgentRecord(
        number,
        f"archon-{place}",
        state,
        1,
        NOON,
        NOON + timedelta(seconds=1),
        answer=None if isinstance(given, AgentState) else given,
        confidence=None if is_failure else 0.5,
        reasoning=None if is_failure else reason.replace("{agent}", str(place)),
        failure=FailureCause("server_error", "HTTP 503 <b>") if is_failure else None,
        model="small",
    )


def page(found: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]], **receipt: Any) -> HtmlReader:
    """Its report, read strictly."""
    return HtmlReader(report_of(*found, receipt=Receipt(**{"checkpoint": NOTE, **receipt})).html)


def words(*rounds: Sequence[Given], **given: Any) -> str:
    """The text of the report of a deliberation that ended so."""
    return page(ended(*rounds, **given)).words
