"""The voices of the demonstration: found by question and persona, in their order, and honest about what they were not recorded for."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from domain.models.agent import Roster
from infrastructure.demonstration.voices import RecordedVoices, questions
from infrastructure.rosters.file_roster_source import FileRosterSource


@pytest.fixture(scope="module")
def roster() -> Roster:
    return FileRosterSource().get("archons")


@pytest.fixture
def voices(roster: Roster) -> RecordedVoices:
    return RecordedVoices(roster)


def prompt(roster: Roster, question: str, agent_id: str) -> str:
    (persona,) = [agent.persona.text for agent in roster.agents if agent.id == agent_id]
    return f"<question>\n{question}\n</question>\n<persona>\n{persona}\n</persona>"


def ballot(text: str) -> Any:
    return json.loads(text)


def test_every_agent_that_is_asked_has_replies_of_its_own(voices: RecordedVoices, roster: Roster) -> None:
    for request in questions(seconds=6.0):
        asked = [agent.id for agent in roster.agents][: request["agents"]["count"]]
        replies = [voices.reply_to(prompt(roster, request["question"], agent)) for agent in asked]
        texts = [reply.text for reply in replies if reply.text]
        assert len(set(texts)) == len(texts) >= len(asked) - 3
        answers = [ballot(text)["answer"] for text in texts if text.startswith("{")]
        assert set(answers) - {None} == set(request["answer"]["options"])


def test_the_second_time_an_agent_gives_its_next_reply_and_then_stays_with_it(
    voices: RecordedVoices, roster: Roster
) -> None:
    second = questions(seconds=6.0)[1]["question"]
    heard = [ballot(voices.reply_to(prompt(roster, second, "archon-4")).text)["answer"] for _ in range(3)]
    assert heard == ["keep the libraries open", "repair the bridges", "repair the bridges"]


def test_a_refusal_comes_at_once_and_the_answer_after_it(voices: RecordedVoices, roster: Roster) -> None:
    first = questions(seconds=6.0)[0]["question"]
    replies = [voices.reply_to(prompt(roster, first, "archon-27")) for _ in range(2)]
    assert [reply.status for reply in replies] == [429, 200]
    assert replies[0].share == 0


def test_one_agent_never_replies(voices: RecordedVoices, roster: Roster) -> None:
    first = questions(seconds=6.0)[0]["question"]
    assert voices.reply_to(prompt(roster, first, "archon-68")).hangs


def test_shares_of_the_time_are_spread_over_all_of_it(voices: RecordedVoices, roster: Roster) -> None:
    first = questions(seconds=6.0)[0]["question"]
    shares = sorted(voices.reply_to(prompt(roster, first, agent.id)).share for agent in roster.agents)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert max(after - before for before, after in pairwise(shares)) < 0.1


def test_whoever_is_asked_anything_else_abstains_and_says_why(voices: RecordedVoices, roster: Roster) -> None:
    reply = ballot(voices.reply_to(prompt(roster, "What is the time?", "archon-1")).text)
    assert reply["answer"] is None
    assert "two questions" in reply["reasoning"]


def test_an_agent_has_two_seconds_more_than_the_slowest_takes() -> None:
    assert [request["limits"]["agent_timeout_s"] for request in questions(seconds=6.0)] == [8.0, 8.0]
