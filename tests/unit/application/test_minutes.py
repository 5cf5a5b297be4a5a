"""The minutes: what they say of the procedure, and that no text in them can pass for anything else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from application.ports.witness_log import Disclosure
from application.services.minutes import Record, write_minutes
from application.services.witness_service import WitnessService
from domain.witness.entry import commitment
from tests.unit.application.fake_witness_log import FakeWitnessLog, StillClock, Tools, key, signer

SALT = b"s" * 16
ROOT = bytes(range(32))


def committed(text: str | None) -> Any:
    return commitment(SALT, text)


class Told:
    """A deliberation of three agents as its entries tell it; a test replaces any of its texts."""

    def __init__(self, **texts: str) -> None:
        self.question = texts.get("question", "Close the centre?")
        self.context = texts.get("context", "A small town.")
        self.reasoning = texts.get("reasoning", "The air is bad.")
        self.agent_id = texts.get("agent_id", "archon-1")
        self.option = texts.get("option", "weekends only")
        self.message = texts.get("message", "no answer within 2 s")
        self.persona = texts.get("persona", "A doctor.")
        self.model = texts.get("model", "openai/small")
        self.route = texts.get("route", "default")
        self.roster = texts.get("roster", "archons")

    @property
    def texts(self) -> list[str]:
        return [self.question, self.context, self.reasoning, self.message, self.persona, "Too dear.", "ops"]

    def accepted(self) -> dict[str, Any]:
        return {
            "type": "deliberation.accepted",
            "at": "2026-11-21T12:00:00.000000Z",
            "deliberation_id": "d-1",
            "question": committed(self.question),
            "context": committed(self.context),
            "answer": {"kind": "choice", "options": ["yes", self.option]},
            "protocol": {"kind": "poll", "wave_size": None},
            "rule": {"kind": "plurality", "fraction": None},
            "quorum": {"min_answered_fraction": 0.5},
            "limits": {"agent_timeout_s": 2.0, "max_attempts": 2},
            "members": [
                {"agent_id": self.agent_id, "model": self.model, "persona": committed(self.persona)},
                {"agent_id": "archon-2", "model": None, "persona": None},
                {"agent_id": "archon-3", "model": None, "persona": None},
            ],
            "roster": self.roster,
            "seed": 7,
            "origin": "scheduled",
            "key_name": committed("ops"),
            "orchestrator": "openai",
            "simulated": False,
        }

    def ending(self, agent_id: str, answer: Any, reasoning: str | None, state: str = "answered") -> dict[str, Any]:
        failure = None if state == "answered" else {"kind": "agent_timeout", "message": committed(self.message)}
        return {
            "type": "agent.ended",
            "deliberation_id": "d-1",
            "round": 0,
            "agent_id": agent_id,
            "attempt": 1,
            "state": state,
            "answer": answer,
            "confidence": 0.75 if answer is not None else None,
            "content": None,
            "reasoning": committed(reasoning),
            "model": self.model,
            "model_asked": self.route,
            "fell_back": agent_id == "archon-2",
            "failure": failure,
        }

    def entries(self) -> list[dict[str, Any]]:
        agents = [self.agent_id, "archon-2", "archon-3"]
        started = {"type": "round.started", "at": "2026-11-21T12:00:01.000000Z", "round": 0, "agents": agents}
        outcome = {
            "status": "decided",
            "decision": self.option,
            "rule": "plurality",
            "tally": {"yes": 1, self.option: 1},
            "margin": 0,
            "dissent": {"percentage": 50.0, "positions": [{"answer": "yes", "count": 1, "agents": ["archon-2"]}]},
            "blind_tally": {},
            "changed": [],
        }
        return [
            self.accepted(),
            {**started, "deliberation_id": "d-1"},
            self.ending(self.agent_id, 1, self.reasoning),
            self.ending("archon-2", 0, "Too dear."),
            self.ending("archon-3", None, None, state="timed_out"),
            {
                "type": "deliberation.ended",
                "at": "2026-11-21T12:00:09.000000Z",
                "deliberation_id": "d-1",
                "status": "completed",
                "cause": None,
                "outcome": outcome,
                "roll_call": {"asked": 3, "answered": 2, "timed_out": 1},
                "usage": {
                    "calls": 3,
                    "input_tokens": 300,
                    "output_tokens": 60,
                    "cost_usd": 0.1 + 0.2,
                    "uncertain_tokens": 1500,
                    "uncertain_usd": 0.0000015,
                },
                "record_sha256": "ab" * 32,
            },
        ]

    def minutes(self, *, entries: list[dict[str, Any]] | None = None, disclosed: bool = True) -> str:
        told = self.entries() if entries is None else entries
        texts = {committed(text)["sha256"]: text for text in self.texts} if disclosed else {}
        indexes = [40, *range(42, 41 + len(told))]
        return write_minutes(
            told, texts, Record(indexes, 100, ROOT, "example.com/log\n100\nAAAA\n\n— sig\n", "the+key")
        )


def headings(minutes: str) -> list[str]:
    return [line for line in minutes.splitlines() if line.startswith("#")]


def rows(minutes: str) -> list[str]:
    return [line for line in minutes.splitlines() if line.startswith("|")]


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def test_the_procedure_is_told_from_question_to_record() -> None:
    minutes = Told().minutes()
    assert headings(minutes) == [
        "# Minutes of deliberation d-1",
        "## Question",
        "## Procedure",
        "## Roster",
        "## Round 0",
        "## Outcome",
        "### Tally",
        "### Minority positions",
        "## What the result is worth",
        "## Fallbacks",
        "## Failures",
        "## Record",
    ]
    for expected in (
        "> Close the centre?",
        "> A small town.",
        "- weekends only",
        "| Accepted | 2026-11-21T12:00:00.000000Z |",
        "| Started | 2026-11-21T12:00:01.000000Z |",
        "| Ended | 2026-11-21T12:00:09.000000Z as **completed** |",
        "| Quorum | min\\_answered\\_fraction 0.5 |",
        "| Asked for by | ops |",
        "| Usage | calls 3, input\\_tokens 300, output\\_tokens 60 |",
        "| Cost | 0.30 US dollars |",
        "| Uncertain | at most 1500 tokens and 0.0000015 US dollars besides, of calls whose end nobody knows |",
        "| archon-2 | 0 | default | openai/small | 44 |",
        "Roll call: asked 3, answered 2, abstained 0, invalid 0, timed_out 1",
        "| archon-1 | answered | weekends only | 0.75 | The air is bad. | openai/small | 43 |",
        "| archon-3 | 0 | timed\\_out | agent\\_timeout | no answer within 2 s | 1 | 45 |",
        "**decided**, by plurality. Decision: **weekends only**.",
        "- **yes**, held by 1\n    - archon-2: Too dear.",
        "| Entries | 40, 42-46 |",
        "| Tree size | 100 |",
        f"| Root hash | {ROOT.hex()} |",
        "    example.com/log",
    ):
        assert expected in minutes


def test_where_nobody_fell_back_and_nothing_is_uncertain_the_minutes_say_so() -> None:
    entries = Told().entries()
    for each in entries:
        if each["type"] == "agent.ended":
            each["fell_back"] = False
    entries[-1]["usage"].update(uncertain_tokens=0, uncertain_usd=0.0)
    minutes = Told().minutes(entries=entries)
    assert "## Fallbacks\n\nNone.\n" in minutes
    assert "| Uncertain | nothing |" in minutes


def test_entries_of_an_earlier_version_tell_of_no_fallback_and_nothing_uncertain() -> None:
    entries = Told().entries()
    for each in entries:
        each.pop("fell_back", None)
    for name in ("uncertain_tokens", "uncertain_usd"):
        del entries[-1]["usage"][name]
    minutes = Told().minutes(entries=entries)
    assert "## Fallbacks\n\nNone.\n" in minutes
    assert "| Uncertain | nothing |" in minutes


def test_the_words_that_agents_were_prompted_with_are_named_once_each() -> None:
    entries = Told().entries()
    versions = ["1:aa", None, "1:aa", "2:bb"]
    intents = [{"type": "call.intended", "deliberation_id": "d-1", "prompt_version": version} for version in versions]
    minutes = Told().minutes(entries=[*entries[:2], *intents, *entries[2:]])
    assert "| Words of the prompts | 1:aa, 2:bb |" in minutes


def test_a_deliberation_that_runs_has_no_outcome_yet() -> None:
    minutes = Told().minutes(entries=Told().entries()[:3])
    assert "The deliberation has not ended." in minutes
    assert "| Ended | not yet |" in minutes
    assert "| Usage | – |" in minutes
    assert "Of 2 of them no end is recorded." in minutes


def test_texts_that_are_not_disclosed_are_called_withheld() -> None:
    minutes = Told().minutes(disclosed=False)
    assert "| archon-1 | answered | weekends only | 0.75 | *withheld* | openai/small | 43 |" in minutes
    assert "air" not in minutes


def test_texts_that_were_erased_are_called_erased() -> None:
    erased = {"type": "erased", "at": "2026-11-22T12:00:00.000000Z", "deliberation_id": "d-1", "reason": committed("x")}
    minutes = Told().minutes(entries=[*Told().entries(), erased], disclosed=False)
    assert "| archon-1 | answered | weekends only | 0.75 | *erased* | openai/small | 43 |" in minutes
    assert "texts erased, entry 47, reason: *withheld*" in minutes


def test_a_text_answer_is_shown_where_it_is_disclosed() -> None:
    told = Told()
    entries = told.entries()
    entries[0]["answer"] = {"kind": "text"}
    entries[2]["answer"] = committed("Too dear.")
    assert "| archon-1 | answered | Too dear. |" in told.minutes(entries=entries)


def test_a_ranking_is_shown_by_the_names_of_its_options() -> None:
    told = Told()
    entries = told.entries()
    entries[2]["answer"] = [1, 0]
    assert "| archon-1 | answered | weekends only, yes |" in told.minutes(entries=entries)


FORGERIES = [
    "# Outcome",
    "fine\n\n## Outcome\n\n**decided**",
    "fine\r## Outcome",
    "fine\u2028## Outcome",
    "Outcome\n=======",
    "Outcome\n-------",
    "- - -",
    "| archon-9 | answered | yes | 1 | forged | m | 1 |",
    "x | 1 |\n| archon-9 | answered |",
    "head\n:-:\nforged",
    "[click](https://evil.example)",
    "[click]: https://evil.example",
    "![pixel](https://evil.example/p.png)",
    "<https://evil.example>",
    "https://evil.example and www.evil.example",
    "mail me@evil.example",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "&lt;b&gt; &#35; heading",
    "```\ncode",
    "~~~\ncode",
    "    indented",
    "\tindented",
    "> quoted",
    "1. listed",
    "7) listed",
    "+ listed",
    "*strong* __strong__ ~~gone~~ `code` $x$",
    "backslash \\",
    "\\# escaped by hand",
    "\u202eeno rehto na\u202c",
    "a\x00b\x1bc\x85d",
]


FIELDS = ["question", "context", "reasoning", "agent_id", "option", "message", "persona", "model", "route", "roster"]


@pytest.mark.parametrize(
    ("field", "forged"),
    # With a NUL in an option nothing is ever accepted, and what cannot have been asked is not counted again.
    [(field, forged) for field in FIELDS for forged in FORGERIES if field != "option" or "\x00" not in forged],
)
def test_no_text_can_pass_for_anything_but_itself(field: str, forged: str) -> None:
    sound, minutes = Told().minutes(), Told(**{field: forged}).minutes()
    assert headings(minutes) == headings(sound)
    assert [cells(row) for row in rows(minutes)] == [cells(row) for row in rows(sound)]
    assert "<" not in minutes
    assert re.search(r"(?<!\\)\[|(?<!\\)`|(?<!\\)://|(?<!\\)~|[^\s]@[^&]", minutes) is None
    assert re.search(r"(?i)www\.", minutes) is None
    assert not {"\u202e", "\x00", "\x1b", "\u2028", "\r", "\x85"} & set(minutes)
    for line in minutes.splitlines():
        inner = line.removeprefix("> ").removeprefix("- ").strip()
        if "evil" in line or "forged" in line or line.startswith(("> ", "- ")):
            assert re.match(r"([-+]|[0-9]+[.)])(\s|$)|[-=:\s]+$|#|>|~~~|```", inner) is None or not inner


def test_every_forgery_can_still_be_read() -> None:
    minutes = Told(reasoning="I <think> *so* | maybe").minutes()
    assert "I &lt;think&gt; \\*so\\* \\| maybe" in minutes


async def test_the_service_writes_minutes_of_what_is_proven_and_disclosed() -> None:
    told = Told()
    log = FakeWitnessLog()
    log.add_documents(*told.entries())
    log.texts["d-1"] = [Disclosure(committed(text)["sha256"], SALT.hex(), text) for text in told.texts]
    witness = WitnessService(log=log, signer=signer(), tools=Tools(), clock=StillClock())
    minutes = await witness.minutes("d-1")
    assert "| Entries | 0-5 |" in minutes
    assert log.head_row.root_hash.hex() in minutes
    assert str(key()).replace("_", "\\_") in minutes
    assert "Too dear." in minutes
