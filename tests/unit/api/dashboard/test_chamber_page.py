"""The page of a chamber in words: the outcome, the minority, what it took, and naughty text as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import jinja2
import pytest
from fastapi import FastAPI

from api.dashboard.chamber import draw
from api.dashboard.chamber_state import ChamberState
from api.dashboard.rendering import open_templates
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.protocol import Protocol
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind, default_rule
from tests.html_reader import HtmlReader
from tests.report_specimens import HOSTILE, NAUGHTY
from tests.service_fixture import CHOICE, specification
from tests.unit.api.dashboard.chamber_story import Given, Story


@pytest.fixture(scope="module")
def templates() -> jinja2.Environment:
    """Those of the room."""
    app = FastAPI()
    open_templates(app)
    found: jinja2.Environment = app.state.templates
    return found


def read(html: str) -> HtmlReader:
    """The chamber, read strictly."""
    frame = '<!doctype html><html lang="en"><head><title>t</title></head><body><main>{}</main></body></html>'
    return HtmlReader(frame.replace("{}", html))


def words(templates: jinja2.Environment, story: Story) -> str:
    """Its text."""
    return read(draw(templates, story.state)).words


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
