"""What the chamber shows: every seat, every count, and in the end the words of the outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2
import pytest
from fastapi import FastAPI

from api.dashboard.chamber import draw
from api.dashboard.chamber_state import ChamberState
from api.dashboard.rendering import open_templates
from api.documents import deliberation_document, output_document
from api.report.reading import Reading
from application.services.deliberation_output_service import WitnessedOutput
from domain.analysis.decision import decide
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.event import Event
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, RuleKind, default_rule
from tests.deliberation_specimens import NOON
from tests.html_reader import HtmlReader
from tests.report_specimens import HOSTILE, NAUGHTY
from tests.service_fixture import CHOICE, specification

Given = Answer | AgentState


@pytest.fixture(scope="module")
def templates() -> jinja2.Environment:
    """Those of the room."""
    app = FastAPI()
    open_templates(app)
    found: jinja2.Environment = app.state.templates
    return found


class Story:
    """A deliberation that is told event by event."""

    def __init__(self, agents: int = 5, **different: Any) -> None:
        self.specification: Specification = replace(specification(agents), **different)
        accepted = Deliberation.accept(
            self.specification, at=NOON, orchestrator="openai", simulated=False, key_name=None
        )
        self.deliberation = replace(accepted, id="d-1").start(at=NOON)
        self.state = ChamberState(replace(self.deliberation, status=DeliberationStatus.QUEUED, started_at=None))
        self.records: list[AgentRecord] = []
        self._sequence = 0
        self.tell(("deliberation.queued", {}), ("deliberation.started", {}))

    def tell(self, *told: tuple[str, Mapping[str, Any]], outputs: Sequence[WitnessedOutput] = ()) -> None:
        events = []
        for type_, data in told:
            self._sequence += 1
            events.append(Event("d-1", self._sequence, type_, NOON, data))
        self.state.take(events, outputs)

    def begin(self, number: int = 0, purpose: str = "answer", asked: int | None = None) -> None:
        """A round in which everybody is asked, or so many."""
        ids = [agent.id for agent in self.specification.roster.agents][:asked]
        self.tell(("round.started", {"round": number, "agents": ids, "purpose": purpose}))
        self.tell(*(("agent.started", {"round": number, "agent_id": own}) for own in ids))

    def hear(self, *said: Given, number: int = 0, reason: str = "because", usage: Usage | None = None) -> None:
        """How each agent in turn ended."""
        agents = self.specification.roster.agents
        records = [_record(number, agent.id, each, reason) for agent, each in zip(agents, said, strict=False)]
        if usage is not None:
            records = [replace(each, usage=usage) for each in records]
        self.records += records
        self.tell(
            *(("agent.ended", {"round": number, "agent_id": r.agent_id, "state": r.state.value}) for r in records),
            outputs=[WitnessedOutput(record, 0, bytes(32), erased=False) for record in records],
        )

    def end(self, status: DeliberationStatus = DeliberationStatus.COMPLETED, reason: str | None = None) -> None:
        """The last event, and what stands in the record."""
        rounds, outcome = decide(self.deliberation, self.records)
        ended = self.deliberation.end(
            status,
            at=NOON,
            rounds=rounds,
            outcome=outcome if status is DeliberationStatus.COMPLETED else None,
            reason=reason,
        )
        outputs = [output_document(WitnessedOutput(each, 7, bytes(32), erased=False)) for each in self.records]
        self.tell((f"deliberation.{status.value}", {"status": status.value}))
        self.state.end(ended, Reading(deliberation_document(ended), outputs))

    @property
    def kinds(self) -> list[str]:
        return [mark.kind for mark in self.state.shown.seats.values()]

    @property
    def signs(self) -> list[str]:
        return [mark.sign for mark in self.state.shown.seats.values()]


def _record(number: int, agent_id: str, given: Given, reason: str) -> AgentRecord:
    state = given if isinstance(given, AgentState) else AgentState.ABSTAINED if given is None else AgentState.ANSWERED
    return AgentRecord(
        number,
        agent_id,
        state,
        1,
        NOON,
        NOON,
        answer=None if isinstance(given, AgentState) else given,
        reasoning=reason if state.took_part else None,
        failure=None if state.took_part else FailureCause("server_error", "HTTP 503"),
    )


def read(html: str) -> HtmlReader:
    """The chamber, read strictly."""
    frame = '<!doctype html><html lang="en"><head><title>t</title></head><body><main>{}</main></body></html>'
    return HtmlReader(frame.replace("{}", html))


def words(templates: jinja2.Environment, story: Story) -> str:
    """Its text."""
    return read(draw(templates, story.state)).words


def test_a_seat_waits_thinks_and_then_shows_by_a_letter_what_its_agent_said() -> None:
    story = Story(4)
    assert story.kinds == ["waiting"] * 4
    story.begin()
    assert story.kinds == ["asked"] * 4
    story.hear("weekends only", None, AgentState.TIMED_OUT)
    assert (story.kinds, story.signs) == (["answered", "abstained", "timed_out", "asked"], ["C", "", "", ""])
    assert story.state.shown.seats[0].label == "Seat 1, archon-0: answered, C: weekends only"
    assert story.state.shown.seats[2].symbol == "state-timed_out"


@pytest.mark.parametrize("state", [each for each in AgentState if not each.took_part])
def test_each_way_to_fail_has_a_sign_of_its_own_and_its_place_in_the_roll_call(state: AgentState) -> None:
    story = Story(2)
    story.begin()
    story.hear("yes", state)
    mark = story.state.shown.seats[1]
    assert (mark.style, mark.symbol) == (f"seat is-{state.value}", f"state-{state.value}")
    assert mark.label.endswith(f": {state.value.replace('_', ' ')}")
    texts = story.state.shown.texts
    assert (texts["asked"], texts[f"roll-{state.value}"], texts["roll-answered"]) == ("2", "1", "1")


def test_the_tally_counts_while_they_answer_and_says_the_share_of_all_who_were_asked() -> None:
    story = Story(5)
    story.begin()
    story.hear("yes", "yes", "no")
    texts, bars = story.state.shown.texts, story.state.shown.bars
    assert [texts[f"count-{place}"] for place in range(3)] == ["2", "1", "0"]
    assert (texts["share-0"], bars["bar-0"], texts["margin"]) == ("40.0 %", 40.0, "1")
    assert (texts["progress"], texts["quorum"]) == ("3 of 5 have ended, 2 are thinking", "3 took part, 3 needed")


def test_in_a_later_round_who_fails_keeps_its_ballot_and_who_abstains_has_none() -> None:
    story = Story(3, protocol=Protocol(ProtocolKind.DELPHI))
    story.begin()
    story.hear("yes", "no", "no")
    story.begin(1, "revise")
    assert (story.kinds, story.signs) == (["asked"] * 3, ["A", "B", "B"])
    story.hear(AgentState.FAILED, None, "yes", number=1)
    assert (story.kinds, story.signs) == (["failed", "abstained", "answered"], ["A", "", "A"])
    assert story.state.shown.seats[0].label.endswith("failed, A: yes from an earlier round")
    assert story.state.shown.texts["count-0"] == "2"


def test_what_is_said_in_a_review_is_no_ballot() -> None:
    story = Story(2, protocol=Protocol(ProtocolKind.PEER_REVIEW))
    story.begin()
    story.hear("yes", "no")
    story.begin(1, "review")
    story.hear(("answer 2",), ("answer 1",), number=1)
    assert story.signs == ["A", "B"]


def test_each_approval_counts_and_the_seat_shows_the_first() -> None:
    answer = AnswerFormat(AnswerKind.APPROVAL, ("yes", "no", "weekends only"))
    question = replace(specification(2).question, answer=answer)
    story = Story(2, question=question, rule=default_rule(AnswerKind.APPROVAL))
    story.begin()
    story.hear(("no", "weekends only"), ("weekends only",))
    assert story.signs == ["B", "C"]
    assert [story.state.shown.texts[f"count-{place}"] for place in range(3)] == ["0", "1", "2"]


def test_numbers_are_told_apart_by_fifths_of_their_range() -> None:
    question = replace(specification(3).question, answer=AnswerFormat(AnswerKind.PROBABILITY))
    story = Story(3, question=question, rule=default_rule(AnswerKind.PROBABILITY))
    story.begin()
    story.hear(0.0, 0.5, 1.0)
    assert story.signs == ["A", "C", "E"]
    assert story.state.shown.texts["name-2"] == "0.4 to 0.6"


def test_an_outcome_that_was_committed_after_the_events_were_read_is_shown_with_its_event() -> None:
    story = Story(2)
    story.begin()
    early = _record(0, "archon-1", "no", "because")
    story.tell(outputs=[WitnessedOutput(early, 0, bytes(32), erased=False)])
    assert story.kinds == ["asked", "asked"]
    story.tell(("agent.ended", {"round": 0, "agent_id": "archon-1", "state": "answered"}))
    assert (story.kinds, story.signs) == (["asked", "answered"], ["", "B"])


def test_a_change_names_only_what_looks_different() -> None:
    story = Story(5)
    story.begin()
    before = story.state.shown
    story.hear("yes")
    change = story.state.change_since(before)
    assert list(change.seats) == [0]
    assert {"count-0", "share-0", "progress", "roll-answered"} <= change.texts.keys()
    assert "cost" not in change.texts
    assert story.state.change_since(story.state.shown).is_empty


def test_after_the_end_those_of_a_position_sit_side_by_side_and_who_failed_at_the_end() -> None:
    story = Story(5)
    story.begin()
    story.hear("no", AgentState.FAILED, "yes", "no", "yes")
    assert list(story.state.order) == [0, 1, 2, 3, 4]
    story.end()
    assert list(story.state.order) == [2, 4, 0, 3, 1]


@pytest.mark.parametrize(
    ("said", "rule", "told", "status"),
    [
        (("yes", "yes", "no"), Rule(RuleKind.PLURALITY), "Decision: yes", "decided"),
        (("yes", "no"), Rule(RuleKind.PLURALITY), "Tie: yes and no have 1 each", "tied"),
        (("yes", "no", None), Rule(RuleKind.THRESHOLD, fraction=0.9), "No majority:", "no_majority"),
    ],
)
def test_the_page_says_the_status_of_the_outcome_and_the_decision_in_words(
    templates: jinja2.Environment, said: Sequence[Given], rule: Rule, told: str, status: str
) -> None:
    story = Story(len(said), rule=rule)
    story.begin()
    story.hear(*said)
    story.end()
    found = words(templates, story)
    assert told in found
    assert status in found
    assert status.replace("_", " ") in found


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (DeliberationStatus.INQUORATE, "fewer took part than the quorum asks for"),
        (DeliberationStatus.CANCELLED, "the deliberation was cancelled"),
        (DeliberationStatus.HALTED, "the system was halted"),
        (DeliberationStatus.FAILED, "the deliberation failed"),
    ],
)
def test_one_without_an_outcome_says_so_and_why(
    templates: jinja2.Environment, status: DeliberationStatus, told: str
) -> None:
    story = Story(3)
    story.begin()
    story.hear("yes", AgentState.FAILED, AgentState.FAILED)
    story.end(status, reason="a reason of its own")
    found = words(templates, story)
    assert told in found
    assert "a reason of its own" in found
    assert "nothing is decided" in found


def test_every_losing_position_stands_in_the_minority_report_with_several_reasons(
    templates: jinja2.Environment,
) -> None:
    story = Story(7)
    story.begin()
    story.hear("yes", "yes", "yes", "no", "no", "weekends only", "weekends only")
    story.records = [replace(each, reasoning=f"reason {each.agent_id}") for each in story.records]
    story.end()
    found = words(templates, story).partition("Minority report")[2]
    assert all(f"reason archon-{number}" in found for number in (3, 4, 5, 6))
    assert found.index("no: 2 agents") < found.index("weekends only: 2 agents")


def test_a_poll_that_ended_early_counts_those_who_were_asked_and_says_that_the_others_were_not(
    templates: jinja2.Environment,
) -> None:
    story = Story(72, protocol=Protocol(wave_size=10))
    story.begin(asked=50)
    assert story.state.shown.texts["progress"] == "0 of 72 have ended, 50 are thinking"
    story.hear(*["yes"] * 50)
    assert story.state.shown.texts["quorum"] == "50 took part, 36 needed"
    why = "50 of 72 were asked, because the others could not have changed the decision"
    story.end(reason=why)
    texts, bars = story.state.shown.texts, story.state.shown.bars
    assert (texts["quorum"], texts["asked"]) == ("50 took part, 25 needed", "50")
    assert (texts["progress"], bars["progress"]) == ("50 of 50 have ended, 22 were not asked", 100.0)
    assert f"It ended early: {why}." in words(templates, story)


def test_of_numbers_the_spread_is_told_with_its_unit_and_no_margin(templates: jinja2.Environment) -> None:
    answer = AnswerFormat(AnswerKind.NUMBER, unit="days")
    question = replace(specification(12).question, answer=answer)
    story = Story(12, question=question, rule=Rule(RuleKind.TRIMMED_MEAN, fraction=0.1))
    story.begin()
    story.hear(*map(float, range(0, 120, 10)))
    assert "Margin" not in words(templates, story)
    story.end()
    found = words(templates, story)
    assert "By trimmed mean of 12 asked, spread 55 days." in found
    assert found.count("Spread 55 days") == 2
    assert "Margin" not in found
    assert re.search(r"\bbelow [0-9.]+ days: [0-9] agents?\b", found)
    assert not re.search(r"\bmiddle [a-z0-9% ]+ days\b", found)


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (DeliberationStatus.HALTED, "the system was halted", "the system was halted"),
        (DeliberationStatus.CANCELLED, "cancelled on request", "cancelled"),
        (DeliberationStatus.INQUORATE, "fewer agents took part than the quorum asks for", "took part than the quorum"),
        (DeliberationStatus.FAILED, "the disk was full", "the disk was full"),
    ],
)
def test_why_nothing_was_decided_is_said_once(
    templates: jinja2.Environment, status: DeliberationStatus, reason: str, told: str
) -> None:
    story = Story(3)
    story.begin()
    story.hear("yes", AgentState.FAILED, AgentState.FAILED)
    story.end(status, reason=reason)
    found = words(templates, story)
    panel = found[found.index("Outcome:") : found.index("Seats")]
    assert panel.startswith(f"Outcome: {status.value}, nothing is decided No decision: ")
    assert panel.partition("No decision:")[2].count(told) == 1


def test_a_unit_is_shown_as_text_beside_its_figure(templates: jinja2.Environment) -> None:
    answer = AnswerFormat(AnswerKind.NUMBER, unit="\u202e<b>")
    story = Story(3, question=replace(specification(3).question, answer=answer), rule=default_rule(AnswerKind.NUMBER))
    story.begin()
    story.hear(1.0, 2.0, 3.0)
    story.end()
    assert story.state.shown.texts["margin"] == "1 \\u202e<b>"
    page = draw(templates, story.state)
    assert "\u202e" not in page
    assert "<b>:" not in page


@pytest.mark.parametrize(
    ("kind", "unit"), [(RuleKind.BORDA, "points"), (RuleKind.COPELAND, "wins"), (RuleKind.SCHULZE, "first places")]
)
def test_what_a_rule_counts_is_named_and_only_what_an_agent_has_one_of_is_a_share(
    templates: jinja2.Environment, kind: RuleKind, unit: str
) -> None:
    answer = AnswerFormat(AnswerKind.RANKING, ("a", "b", "c"))
    story = Story(4, question=replace(specification(4).question, answer=answer), rule=Rule(kind))
    story.begin()
    story.hear(*[("a", "b", "c")] * 3, None)
    assert story.state.shown.texts["unit"] == "agents, in per cent of all who were asked"
    story.end()
    is_share = kind is RuleKind.SCHULZE
    assert story.state.shown.texts["share-0"] == ("75.0 %" if is_share else "")
    share = ", in per cent of all who were asked" if is_share else ""
    assert f"Counted in {unit}{share}." in words(templates, story)


def test_what_calls_without_a_known_end_may_have_taken_stands_apart_and_in_the_bar(
    templates: jinja2.Environment,
) -> None:
    story = Story(2)
    story.begin()
    usage = Usage(1, 20_000, 4_404, 0.5, uncertain_tokens=34_996, uncertain_usd=0.25)
    story.hear("yes", "no", usage=usage)
    texts, bars = story.state.shown.texts, story.state.shown.bars
    most = story.specification.limits.max_total_tokens
    assert texts["tokens"] == f"48,808 of {most:,}, + 69,992 uncertain"
    assert texts["cost"] == "$1.00 of $5.00, + $0.50 uncertain"
    assert bars["tokens-held"] == pytest.approx(100 * (48_808 + 69_992) / most, abs=0.1)
    assert bars["tokens"] < bars["tokens-held"]
    drawn = {each["data-bar"] for each in read(draw(templates, story.state)).all("rect") if "data-bar" in each}
    assert {"tokens", "tokens-held", "cost", "cost-held"} <= drawn


def test_a_queued_one_says_its_place(templates: jinja2.Environment) -> None:
    story = Story(2)
    queued = ChamberState(replace(story.deliberation, status=DeliberationStatus.QUEUED, started_at=None))
    queued.note_place(3)
    story.state = queued
    assert "Number 3 in the queue" in words(templates, story)


def test_an_erased_question_is_not_shown(templates: jinja2.Environment) -> None:
    story = Story(2)
    story.begin()
    story.hear("yes", "no")
    story.end()
    story.state.deliberation = replace(story.state.deliberation, erased=True)
    assert "city centre" not in words(templates, story)


@pytest.mark.parametrize("text", [HOSTILE, *NAUGHTY])
def test_naughty_text_stands_on_the_page_as_text(templates: jinja2.Environment, text: str) -> None:
    # What is nothing but unseen is refused before it comes so far, and so is a NUL.
    clean = "said: " + text.replace("\x00", "")[:20_000]
    question = replace(
        specification(3).question, text=clean, context=clean, answer=replace(CHOICE, options=(clean[:200], "no"))
    )
    agents = [Agent(f"archon-{number}", Persona("a viewpoint", clean[:200])) for number in range(3)]
    story = Story(3, question=question, roster=Roster.assemble("test", agents))
    story.begin()
    story.hear(question.answer.options[0], question.answer.options[0], "no", reason=clean)
    live = draw(templates, story.state)
    story.end()
    for page in (live, draw(templates, story.state)):
        for tag, attributes in read(page).tags:
            assert tag not in {"script", "img", "iframe", "style", "object"}
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            assert (attributes.get("href") or "/")[0] in "/?#"
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page)
