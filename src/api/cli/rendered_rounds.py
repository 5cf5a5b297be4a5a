"""The course of a deliberation on a terminal: what each round was for and came to, what was saved, and what was found in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.cli.plain_text import visible

__all__ = ["answers_the_question", "round_lines", "saved_line", "statement_lines", "text_of_label"]

_MAX_IN_A_TALLY = 6
_MAX_STATEMENT_CHARACTERS = 2_000
_OF_THE_QUESTION = frozenset({"answer", "revise", "position", "cross_examine", "vote"})

Document = Mapping[str, Any]


def answers_the_question(purpose: object) -> bool:
    """Whether what agents answer in a round for that purpose is what was asked for, rather than something about it."""
    return purpose is None or purpose in _OF_THE_QUESTION


def round_lines(document: Document) -> Sequence[str]:
    """A line for each round, where there were several."""
    rounds: Sequence[Document] = document.get("rounds") or ()
    return [_line(each) for each in rounds] if len(rounds) > 1 else []


def saved_line(document: Document) -> str | None:
    """What a poll did not spend because it stopped early."""
    saved: Document | None = document.get("saved")
    if not saved:
        return None
    calls, dollars = saved.get("calls", 0), saved.get("cost_usd", 0.0)
    return (
        f"Stopped early: {saved.get('agents', 0)} agents were not asked, because they could not have changed the decision; "
        f"{calls} calls and about {dollars:.4f} USD were saved"
    )


def statement_lines(document: Document) -> Sequence[str]:
    """The statement that was found in common, and who drafted it."""
    statement: Document | None = document.get("statement")
    if not statement:
        return []
    told = statement.get("text")
    text = "(erased)" if told is None else visible(str(told), limit=_MAX_STATEMENT_CHARACTERS)
    return [
        f"Common ground ({visible(str(statement.get('label')))}, drafted by {visible(str(statement.get('agent_id')))}):",
        text,
    ]


def text_of_label(document: Document, label: str) -> Sequence[str]:
    """The statement behind a label of a ranking of texts, and who drafted it; nothing for any other answer."""
    if (document.get("answer") or {}).get("kind") != "text":
        return []
    found = next((each for each in document.get("statements") or () if each.get("label") == label), None)
    if found is None:
        return []
    told = found.get("text")
    text = "(erased)" if told is None else f'"{visible(str(told), limit=_MAX_STATEMENT_CHARACTERS)}"'
    return [f"{text} [{visible(str(found.get('agent_id')))}]"]


def _line(round_: Document) -> str:
    roll_call: Document = round_.get("roll_call") or {}
    asked = roll_call.get("asked", 0)
    took_part = roll_call.get("answered", 0) + roll_call.get("abstained", 0)
    purpose = visible(str(round_.get("purpose", ""))).replace("_", " ")
    line = f"Round {round_.get('round')} ({purpose}): {took_part} of {asked} took part"
    kept = len(round_.get("kept") or ())
    if kept:
        line += f", {kept} kept an earlier ballot"
    tally = sorted((round_.get("tally") or {}).items(), key=lambda item: -item[1])
    if tally:
        shown = ", ".join(f"{visible(str(name), limit=60)} {count:g}" for name, count in tally[:_MAX_IN_A_TALLY])
        line += f": {shown}" + (" and more" if len(tally) > _MAX_IN_A_TALLY else "")
    return line
