"""A deliberation as a person reads it on a terminal: honest first, dissent as prominent as the decision, everyone named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from api.cli.account import MAX_ID_CHARACTERS, MAX_MESSAGE_CHARACTERS, TOOK_PART, question_of, write_account
from api.cli.bars import histogram, tally_lines
from api.cli.page import Page
from api.cli.plain_text import visible, visible_lines
from api.cli.positions import ESTIMATES, MIDDLE, Position, positions_of
from api.cli.rendered_rounds import round_lines, saved_line, statement_lines, text_of_label
from api.cli.rendered_synthesis import ERASED, write_synthesis
from api.cli.rendered_worth import control_line, drop_out_of, worth_lines
from api.outcome_words import other_rules_agreeing, without_outcome
from domain.counted import counted

__all__ = ["render_deliberation", "standing"]

_MAX_QUESTION_CHARACTERS = 2_000
_MAX_REASON_CHARACTERS = 400
_MAX_REASONS = 3
_MAX_POSITIONS = 12
_MAX_NAMED_HOLDERS = 6
_SHORT_ID = 8

Document = Mapping[str, Any]


def render_deliberation(
    console: Console,
    document: Document,
    *,
    outputs: Sequence[Document] = (),
    notices: Sequence[str] = (),
    again: str | None,
) -> None:
    """Print the whole result. `outputs` give the voices, `again` is the command that shows this once more, if one does."""
    _View(Page(console), document, outputs).write(notices, again)


def standing(document: Document, notices: Sequence[str] = ()) -> Sequence[str]:
    """What a reader has to know before the result: degraded first, then simulated, or answered by a model that is no authority.

    `notices` are those of the service that answered, the one about its orchestrator last; without any, the document tells.
    """
    lines = [visible(notice) for notice in reversed(notices)]
    if not lines and document.get("simulated"):
        lines.append("Simulated: no model was asked, so the answers mean nothing.")
    if not lines and document.get("orchestrator") == "local":
        names = ", ".join(visible(str(name), limit=100) for name in document.get("models") or ()) or "a small model"
        lines.append(f"Answered by {names} on the server's own machine: it shows the machinery, not wisdom.")
    roll_call = document.get("roll_call") or {}
    asked = roll_call.get("asked", 0)
    missing = asked - sum(roll_call.get(state, 0) for state in TOOK_PART)
    if missing > 0:
        lines = [f"Degraded: {missing} of {asked} did not take part.", *drop_out_of(document), *lines]
    elif asked and not lines:
        lines.append(f"Complete: all {asked} took part.")
    return lines


class _View:
    """Writes one deliberation, section by section."""

    def __init__(self, page: Page, document: Document, outputs: Sequence[Document]) -> None:
        self._page = page
        self._document = document
        self._outputs = outputs
        self._outcome: Document | None = document.get("outcome")
        self._answer: Document = document.get("answer") or {}
        self._roll_call: Document = document.get("roll_call") or {}

    def write(self, notices: Sequence[str], again: str | None) -> None:
        lines = standing(self._document, notices)
        for line in lines:
            self._page.paragraph(line, style="yellow")
        if lines:
            self._page.gap()
        for line in visible_lines(question_of(self._document), limit=_MAX_QUESTION_CHARACTERS):
            self._page.paragraph(line, style="bold")
        self._page.gap()
        self._page.paragraph(self._decision(), style="bold green" if self._is_decided else "bold")
        tally = self._tally()
        if tally:
            self._page.gap()
            self._draw(tally)
        write_synthesis(self._page, (self._outcome or {}).get("synthesis"))
        self._terms()
        self._rounds()
        self._worth()
        self._positions()
        self._page.gap()
        write_account(self._page, self._document, self._outputs)
        self._end(again)

    @property
    def _is_decided(self) -> bool:
        return self._outcome is not None and self._outcome.get("status") == "decided"

    @property
    def _is_estimate(self) -> bool:
        return self._answer.get("kind") in ESTIMATES

    def _decision(self) -> str:
        if self._outcome is None:
            said, reason = without_outcome(self._document)
            said = visible(said)
            return said if reason is None else f"{said} ({visible(reason, limit=MAX_MESSAGE_CHARACTERS)})"
        rule = visible(str(self._outcome.get("rule", "")).replace("_", " "))
        if self._is_decided:
            broken = self._outcome.get("tie_break")
            said = f"by {rule}, a tie broken by {visible(str(broken).replace('_', ' '))}" if broken else f"by {rule}"
            decision, synthesis = self._outcome.get("decision"), self._outcome.get("synthesis")
            if decision is None and synthesis:
                return f"Decision: {visible(str(synthesis.get('chosen')))} {ERASED} ({said})"
            return f"Decision: {self._named(decision)} ({said})"
        tally: Mapping[str, int] = self._outcome.get("tally") or {}
        most = max(tally.values(), default=0)
        if self._outcome.get("status") == "tied":
            places: Mapping[str, int] = self._outcome.get("places") or {}
            if places:
                tied = " and ".join(visible(option, limit=100) for option, place in places.items() if place == 1)
                return f"Tie: {tied} share the first place, so there is no decision (by {rule})"
            first = " and ".join(visible(option, limit=100) for option, votes in tally.items() if votes == most)
            return f"Tie: {first} have {most} each, so there is no decision (by {rule})"
        if not most:
            return f"No majority: nobody gave an answer (by {rule})"
        return f"No majority: no answer has the support that the rule asks for (by {rule})"

    def _named(self, answer: object) -> str:
        if isinstance(answer, int | float):
            unit = self._answer.get("unit")
            return f"{answer:.10g}" + (f" {visible(str(unit))}" if unit else "")
        return visible(str(answer))

    def _tally(self) -> Mapping[str, int]:
        if self._outcome is not None:
            return self._outcome.get("tally") or {}
        rounds = self._document.get("rounds") or ()
        if rounds:
            return rounds[-1].get("tally") or {}
        return {position.answer: position.count for position in positions_of(self._document, self._outputs)}

    def _draw(self, tally: Mapping[str, int]) -> None:
        drawn = histogram(tally) if self._is_estimate else tally
        total = self._roll_call.get("answered", 0) if self._answer.get("kind") == "approval" else sum(tally.values())
        for line in tally_lines(drawn, total=total, width=self._page.width, blocks=self._page.has_blocks):
            self._page.line(line)

    def _terms(self) -> None:
        """What the decision rests on, and how little would have to change."""
        if self._outcome is None:
            return
        outcome = self._outcome
        robustness = outcome.get("robustness") or {}
        said: list[str] = []
        if outcome.get("margin") is not None:
            said.append(f"margin {outcome['margin']}")
        if outcome.get("spread") is not None:
            said.append(f"spread {self._named(outcome['spread'])} (interquartile range)")
        if robustness.get("votes_to_flip") is not None:
            said.append(f"votes to flip {robustness['votes_to_flip']}")
        rule = self._document.get("rule") or {}
        if rule.get("kind") == "threshold":
            fraction = rule.get("fraction") or 0.5
            asked = self._roll_call.get("asked", 0)
            needed = max(1, ceil(Fraction(str(fraction)) * asked))
            said.append(f"needed {needed} of {asked} asked")
        if outcome.get("effective_votes") is not None:
            said.append(f"effective votes {outcome['effective_votes']:g}")
        agreeing = [visible(name) for name in other_rules_agreeing(outcome)]
        if agreeing:
            said.append(f"{' and '.join(agreeing)} would decide the same")
        if said:
            self._page.gap()
            sentence = ", ".join(said)
            self._page.paragraph(sentence[0].upper() + sentence[1:])
        changed = outcome.get("changed") or ()
        for change in changed[:_MAX_NAMED_HOLDERS]:
            who = visible(str(change.get("agent_id")), limit=MAX_ID_CHARACTERS)
            self._page.paragraph(
                f"{who} went from {self._named(change.get('from'))} to {self._named(change.get('to'))}"
            )
        if len(changed) > _MAX_NAMED_HOLDERS:
            self._page.paragraph(f"and {len(changed) - _MAX_NAMED_HOLDERS} more changed their answer")

    def _worth(self) -> None:
        """What the result is worth, and what speaks against it."""
        lines = worth_lines(self._document)
        control = control_line(self._document)
        if lines or control:
            self._page.gap()
        if control:
            self._page.paragraph(control)
        for line in lines:
            self._page.paragraph(line.text, style="yellow" if line.is_warning else "")

    def _rounds(self) -> None:
        """How it came to that, where there was more than one round or a poll ended early."""
        saved = saved_line(self._document)
        for lines in (round_lines(self._document), [saved] if saved else (), statement_lines(self._document)):
            if lines:
                self._page.gap()
            for line in lines:
                self._page.paragraph(line)

    def _positions(self) -> None:
        positions = positions_of(self._document, self._outputs)
        if not positions:
            return
        dissent = ((self._outcome or {}).get("dissent") or {}).get("percentage")
        if dissent is not None:
            self._page.gap()
            self._page.paragraph(f"Dissent: {dissent:g} % of those who answered")
        for position in positions[:_MAX_POSITIONS]:
            self._page.gap()
            self._position(position)
        rest = positions[_MAX_POSITIONS:]
        if rest:
            self._page.gap()
            held = sum(position.count for position in rest)
            self._page.paragraph(f"and {len(rest)} more positions, held by {held}")

    def _position(self, position: Position) -> None:
        named = self._named(position.answer)
        if self._is_estimate and position.answer != MIDDLE:
            # Below or above a number, which has a unit.
            unit = self._answer.get("unit")
            named += f" {visible(str(unit))}" if unit else ""
        role = ", the decision" if position.is_decision else ""
        self._page.paragraph(f"{named}: {counted(position.count, 'agent')}{role}", style="bold")
        if position.agents:
            names = [visible(agent, limit=MAX_ID_CHARACTERS) for agent in position.agents[:_MAX_NAMED_HOLDERS]]
            more = len(position.agents) - len(names)
            self._page.paragraph(", ".join(names) + (f" and {more} more" if more else ""), indent=2, style="dim")
        if not position.is_decision:
            # What was decided for is told with the rounds.
            for line in text_of_label(self._document, position.answer):
                self._page.paragraph(line, indent=2)
        for who, reason in position.voices[:_MAX_REASONS]:
            prefix = f"{visible(who, limit=MAX_ID_CHARACTERS)}: " if who else ""
            self._page.paragraph(f"- {prefix}{visible(reason, limit=_MAX_REASON_CHARACTERS)}", indent=2, hang=2)
        if len(position.voices) > _MAX_REASONS:
            self._page.paragraph(
                f"- and {len(position.voices) - _MAX_REASONS} more reasons", indent=2, hang=2, style="dim"
            )

    def _end(self, again: str | None) -> None:
        deliberation_id = visible(str(self._document.get("id")), limit=MAX_ID_CHARACTERS)
        self._page.paragraph(f"Id: {deliberation_id}")
        if again is None:
            return
        if cell_len(f"Show this again: {again}") > self._page.width:
            again = again.replace(deliberation_id, deliberation_id[:_SHORT_ID])
        self._page.paragraph(f"Show this again: {again}", style="dim")
