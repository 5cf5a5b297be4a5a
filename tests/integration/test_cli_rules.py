"""Rules as the command line takes them: counted, recorded, and computed again from the log alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.voting.lottery import drawn
from tests.command_line import Command, commands

QUESTION = "Which?"
OPTIONS = ("--option", "trams", "--option", "buses", "--option", "bicycles")


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def ask(conclave: Command, *options: str, agents: int = 7) -> Any:
    ran = conclave("deliberate", QUESTION, *options, "--agents", str(agents), "--json")
    assert ran.code == 0, ran.stderr
    return ran.document


def test_what_a_rule_decides_follows_from_the_log_alone(conclave: Command, tmp_path: Path) -> None:
    asked = [
        ("--answer", "ranking", *OPTIONS, "--rule", "minimax", "--strength", "margins", "--weighted-by", "confidence"),
        ("--answer", "approval", *OPTIONS, "--tie-break", "lottery"),
        ("--answer", "number", "--unit", "km", "--rule", "trimmed_mean", "--fraction", "0.2"),
        ("--answer", "text"),
    ]
    ended = [ask(conclave, *options) for options in asked]
    assert [document["outcome"]["rule"] for document in ended] == ["minimax", "approval", "trimmed_mean", "synthesis"]
    export = tmp_path / "log.json"
    assert conclave("witness", "export", str(export)).code == 0
    key = conclave("witness", "key").stdout.strip()
    verified = conclave("witness", "verify", str(export), "--key", key, "--json")
    assert verified.code == 0, verified.stderr
    deliberations = verified.document["deliberations"]
    assert len(deliberations) == len(asked)
    assert [each["not_recomputed"] for each in deliberations] == [None] * len(asked)


def test_a_ranking_stands_beside_its_decision(conclave: Command) -> None:
    outcome = ask(conclave, "--answer", "ranking", *OPTIONS)["outcome"]
    assert outcome["rule"] == "schulze"
    assert sorted(outcome["ranking"]) == ["bicycles", "buses", "trams"]
    assert outcome["ranking"][0] == outcome["decision"]
    assert outcome["places"][outcome["decision"]] == 1


def test_a_lottery_draws_from_the_seed_that_was_given(conclave: Command) -> None:
    # Under this seed the two simulated agents disagree.
    document = ask(conclave, "--option", "a", "--option", "b", "--tie-break", "lottery", "--seed", "4", agents=2)
    assert document["outcome"]["tally"] == {"a": 1, "b": 1}
    assert document["outcome"]["tie_break"] == "lottery"
    assert document["outcome"]["decision"] == drawn(("a", "b"), 4)[0]


def test_a_lottery_without_a_seed_gets_one_that_is_recorded(conclave: Command) -> None:
    document = ask(conclave, *OPTIONS, "--tie-break", "lottery")
    assert 0 <= document["seed"] < 2**53


def test_a_broken_tie_says_so(conclave: Command) -> None:
    options = ("--option", "a", "--option", "b", "--agents", "2", "--seed", "4")
    assert "a tie broken by lottery" in conclave("deliberate", QUESTION, *options, "--tie-break", "lottery").words
    assert "Tie: a and b have 1 each" in conclave("deliberate", QUESTION, *options).words


def test_a_synthesis_shows_whose_words_its_claims_are(conclave: Command) -> None:
    synthesis = ask(conclave, "--answer", "text")["outcome"]["synthesis"]
    assert synthesis["chosen"] == synthesis["clusters"][0]["name"] == "cluster 1"
    assert all(claim["source"] in claim["agents"] and claim["text"] for claim in synthesis["claims"])


def test_an_erased_synthesis_keeps_who_agreed_with_whom_and_no_word_of_it(conclave: Command) -> None:
    asked = ask(conclave, "--answer", "text")
    assert conclave("witness", "erase", asked["id"], "--reason", "asked for").code == 0
    outcome = conclave("show", asked["id"], "--json").document["outcome"]
    assert outcome["decision"] is None
    assert [claim["text"] for claim in outcome["synthesis"]["claims"]] == [None] * len(
        asked["outcome"]["synthesis"]["claims"]
    )
    assert outcome["synthesis"]["clusters"] == asked["outcome"]["synthesis"]["clusters"]
    assert conclave("witness", "fsck").code == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((*OPTIONS, "--rule", "schulze"), "--rule: answers of kind choice are counted by plurality, threshold"),
        ((*OPTIONS, "--tie-break", "coin"), "--tie-break: must be one of none, lottery, threshold"),
        ((*OPTIONS, "--strength", "margins"), "--strength: the rule plurality takes no strength"),
        ((*OPTIONS, "--weighted-by", "wealth"), "--weighted-by:"),
        (("--answer", "number", "--rule", "trimmed_mean", "--fraction", "0.5"), "--fraction: must be more than 0"),
        (("--answer", "number", "--tie-break", "lottery"), "--tie-break: an estimate is never tied"),
        (("--answer", "text", "--weighted-by", "confidence"), "--weighted-by: the rule synthesis takes no weights"),
        (("--option", "pay", "--option", "\u0440\u0430\u0443"), "--option number 2: reads the same"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_the_name_of_its_option(
    conclave: Command, options: tuple[str, ...], complaint: str
) -> None:
    ran = conclave("deliberate", "q", *options)
    assert (ran.code, complaint in " ".join(ran.stderr.split())) == (2, True), ran.stderr
